"""Plain values: what an answer is made of once it has left the learner's code.

A function under test may return anything: a tensor, a NumPy array, an object whose `==` always says yes. Nothing of
that is ever compared. An answer is first copied into a `Value`, with exact type checks, and only plain numbers are
compared. The same form is stored in `golden/*.json`, so inputs and expected numbers live outside the checking code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_NUMBERS = 200_000  # a larger tensor is described by its shape only: no check needs one
LARGEST = 10**300  # a larger whole number is no float, and Python may refuse to write it down
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Value:
    """A copy of an answer: kind is 'tensor', 'float', 'int', 'bool', 'str', 'none', 'list', 'tuple' or 'other'."""

    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    items: tuple[Any, ...] | None = ()  # numbers of a tensor in row order, Values of a list, the one plain value

    def describe(self) -> str:
        """The value's type and shape in words."""
        if self.kind == "tensor":
            return f"a tensor of shape {self.shape} and type {self.dtype}"
        if self.kind == "none":
            return "nothing (None)"
        if self.kind == "other":
            return f"an object of type {self.dtype}"
        length = f" of length {len(self.items or ())}" if self.kind in ("list", "tuple") else ""
        return f"{'an' if self.kind == 'int' else 'a'} {self.kind}{length}"


def in_words(value: Value, most: int = 24) -> str:
    """The value as a learner would write it, with four digits; the middle of what is long becomes an ellipsis."""
    if value.kind == "tensor":
        if value.items is None:
            return value.describe()
        cut = len(value.items) > most
        text = _nested([_digits(v) for v in value.items], value.shape, 2 if cut else 10**9)
        return f"{text}, shape {value.shape}" if cut else text
    if value.kind in ("list", "tuple"):
        parts = [in_words(part, most) for part in value.items]
        parts = parts if len(parts) <= most else [*parts[:most], "…"]
        return f"[{', '.join(parts)}]" if value.kind == "list" else f"({', '.join(parts)})"
    if value.kind in ("none", "other"):
        return "None" if value.kind == "none" else value.describe()
    return repr(value.items[0]) if value.kind == "str" else _digits(value.items[0])


def _digits(number: object) -> str:
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def _nested(flat: list[str], shape: tuple[int, ...], edge: int) -> str:
    if not shape:
        return flat[0]
    step = len(flat) // shape[0] if shape[0] else 0
    parts = [_nested(flat[i * step:(i + 1) * step], shape[1:], edge) for i in range(shape[0])]
    parts = parts if len(parts) <= 2 * edge else [*parts[:edge], "…", *parts[-edge:]]
    return f"[{', '.join(parts)}]"


def from_python(answer: object, depth: int = 4) -> Value:
    """Copy an answer into a Value. Types are compared exactly: a subclass may lie about itself."""
    kind = type(answer)
    if kind in (Tensor, torch.nn.Parameter):
        return _from_tensor(answer)
    if kind is int and abs(answer) >= LARGEST:
        return Value("other", dtype="int with more than 300 digits")
    if kind in (float, int, bool, str):
        return Value(kind.__name__, items=(answer,))
    if answer is None:
        return Value("none")
    if kind in (list, tuple) and depth > 0 and len(answer) <= 10_000:
        return Value(kind.__name__, items=tuple(from_python(part, depth - 1) for part in answer))
    return Value("other", dtype=f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def _from_tensor(answer: Tensor) -> Value:
    dtype, shape = str(answer.dtype).removeprefix("torch."), tuple(answer.shape)
    if answer.is_meta:
        return Value("other", dtype="Tensor on the device meta, which holds no numbers")
    if answer.numel() > MOST_NUMBERS or answer.layout != torch.strided or answer.is_complex():
        return Value("tensor", shape, dtype, None)
    return Value("tensor", shape, dtype, tuple(answer.detach().cpu().flatten().tolist()))


def same_form(got: Value, expected: Value) -> str:
    """Why `got` cannot be compared with `expected`, in one sentence; empty if it can."""
    if got.kind == "none":
        return "Your function returns nothing. Is there a `return` at its end?"
    number = expected.kind == "float" and got.kind == "int"  # 4 for 4.0 is no mistake
    if got.kind != expected.kind and not number:
        return _another_kind(got, expected)
    if got.kind == "tensor":
        return _same_tensor_form(got, expected)
    if got.kind == "tuple" and len(got.items) != len(expected.items):
        return f"Your function returns {len(got.items)} things, but {len(expected.items)} were expected."
    parts = zip(got.items or (), expected.items or (), strict=False) if got.kind in ("list", "tuple") else ()
    return next((reason for a, b in parts if (reason := same_form(a, b))), "")  # a list may be too long or too short


def _another_kind(got: Value, expected: Value) -> str:
    numeric, said = ("float", "int", "bool"), f"Your function returns {got.describe()}, "
    if expected.kind == "tensor" and expected.shape == () and got.kind in numeric:
        return "Your function returns a Python number. Return the tensor itself, so that gradients can flow through it."
    if expected.kind in numeric and got.kind == "tensor" and got.shape in ((), (1,)):
        turn = "int(...)" if expected.kind == "int" else "float(...)"
        return f"Your function returns a tensor that holds one number. Make a Python number of it: .item() or {turn}."
    way_out = ""
    if expected.kind == "list" and got.kind == "tensor":
        way_out = " .tolist() makes one."
    elif expected.kind == "tensor" and got.kind in ("list", "tuple"):
        way_out = " torch.stack joins a list of tensors, torch.tensor takes plain numbers."
    elif got.dtype.startswith("numpy"):
        way_out = " Stay in PyTorch: NumPy carries no gradient."
    elif got.dtype in ("generator", "map", "zip", "filter", "dict_keys", "dict_values"):
        way_out = " It has computed nothing yet: put list(...) around it."
    return f"{said}but {expected.describe()} was expected.{way_out}"


def _same_tensor_form(got: Value, expected: Value) -> str:
    if got.shape != expected.shape:
        return (f"Your function returns the shape {got.shape}, but {expected.shape} was expected."
                f"{_why_shape(got, expected)}")
    inexact = got.dtype != expected.dtype and _inexact(got.dtype)
    if ("float" in got.dtype) != ("float" in expected.dtype) or inexact:
        return f"Your function returns numbers of type {got.dtype}, but {expected.dtype} was expected."
    return ""


def _inexact(dtype: str) -> bool:
    """Fractions of half precision or less keep three digits, too few for any check."""
    return "float" in dtype and dtype not in ("float32", "float64")


def _why_shape(got: Value, expected: Value) -> str:
    if expected.shape == ():
        return " One number is wanted: which mean or sum is missing?"
    if sorted(got.shape) == sorted(expected.shape):
        return " The same dimensions in another order: look at transpose and at dim=."
    without = tuple(size for size in got.shape if size != 1)
    if without == tuple(size for size in expected.shape if size != 1):
        return " They differ by a dimension of size 1: look at keepdim, squeeze and unsqueeze."
    if len(got.shape) < len(expected.shape):
        return " A dimension was summed, averaged or indexed away."
    return ""


def equal(got: Value, expected: Value, rtol: float = 1e-4, atol: float = 1e-6) -> bool:
    """Same numbers within the tolerance; NaN equals NaN (a stored mistake may be one). Forms must already agree."""
    if same_form(got, expected) or got.items is None or len(got.items) != len(expected.items):
        return False
    if got.kind in ("list", "tuple"):
        return all(equal(a, b, rtol, atol) for a, b in zip(got.items, expected.items, strict=True))
    return all(_close(a, b, rtol, atol) for a, b in zip(got.items, expected.items, strict=True))


def _close(a: object, b: object, rtol: float, atol: float) -> bool:
    if not isinstance(a, float) and not isinstance(b, float):
        return a == b
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b) <= atol + rtol * abs(b)
    return a == b or (math.isnan(a) and math.isnan(b))


def numbers(value: Value) -> list[float]:
    """All numbers of a tensor, a number, or a list of these, in order."""
    if value.kind in ("list", "tuple"):
        return [number for item in value.items for number in numbers(item)]
    return [float(v) for v in value.items or () if not isinstance(v, str)]


def all_equal(answers: Sequence[Value], atol: float = 1e-5) -> bool:
    """All answers are the same, within the rounding of another order of summing."""
    return all(equal(answer, answers[0], rtol=1e-3, atol=atol) for answer in answers[1:])


def near(answer: Value, wanted: float, tolerance: float = 1e-4) -> bool:
    """Every number of an answer lies at `wanted`."""
    return all(abs(number - wanted) <= tolerance for number in numbers(answer))


# --- the stored form --------------------------------------------------------------------------------------------------


def to_json(python: Any) -> Any:
    """JSON form of an input or an expected answer: tensors, sets, tuples and NaN keep what they are."""
    if isinstance(python, Tensor):
        return {"tensor": to_json(python.flatten().tolist()), "shape": list(python.shape),
                "dtype": str(python.dtype).removeprefix("torch.")}
    if isinstance(python, (set, frozenset)):
        return {"set": sorted(python)}
    if isinstance(python, tuple):
        return {"tuple": [to_json(item) for item in python]}
    if isinstance(python, list):
        return [to_json(item) for item in python]
    if isinstance(python, float) and not math.isfinite(python):
        return {"special": str(python)}
    return python


def from_json(stored: Any) -> Any:
    """The inverse of `to_json`; every call makes fresh tensors."""
    if isinstance(stored, list):
        return [from_json(item) for item in stored]
    if not isinstance(stored, dict):
        return stored
    if "tensor" in stored:
        flat = torch.tensor(from_json(stored["tensor"]), dtype=getattr(torch, stored["dtype"]))
        return flat.reshape(stored["shape"])
    if "set" in stored:
        return set(stored["set"])
    if "tuple" in stored:
        return tuple(from_json(item) for item in stored["tuple"])
    return _SPECIAL[stored["special"]]
