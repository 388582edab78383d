"""Plain values: what an answer is made of once it has left the learner's code.

A function under test may return anything: a tensor, a NumPy array, an object whose `==` always says yes. Nothing of
that is ever compared. An answer is first copied into a `Value`, with exact type checks, and only plain numbers are
compared. The same form is stored in `golden/*.json`, so inputs and expected numbers live outside the checking code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_NUMBERS = 200_000  # a larger tensor is described by its shape only: no check needs one
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
        return f"a {self.kind}" + (f" of length {len(self.items or ())}" if self.kind in ("list", "tuple") else "")


def from_python(answer: object, depth: int = 4) -> Value:
    """Copy an answer into a Value. Types are compared exactly: a subclass may lie about itself."""
    kind = type(answer)
    if kind in (Tensor, torch.nn.Parameter):
        dtype, shape = str(answer.dtype).removeprefix("torch."), tuple(answer.shape)
        if answer.numel() > MOST_NUMBERS or answer.layout != torch.strided:
            return Value("tensor", shape, dtype, None)
        return Value("tensor", shape, dtype, tuple(answer.detach().cpu().flatten().tolist()))
    if kind in (float, int, bool, str):
        return Value(kind.__name__, items=(answer,))
    if answer is None:
        return Value("none")
    if kind in (list, tuple) and depth > 0 and len(answer) <= 10_000:
        return Value(kind.__name__, items=tuple(from_python(part, depth - 1) for part in answer))
    return Value("other", dtype=f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def same_form(got: Value, expected: Value) -> str:
    """Why `got` cannot be compared with `expected`, in one sentence; empty if it can."""
    if got.kind == "none":
        return "Your function returns nothing. Is there a `return` at its end?"
    if expected.kind == "tensor" and expected.shape == () and got.kind in ("float", "int"):
        return "Your function returns a Python number. Return the tensor itself, so that gradients can flow through it."
    number = expected.kind == "float" and got.kind == "int"  # 4 for 4.0 is no mistake
    if got.kind != expected.kind and not number:
        return f"Your function returns {got.describe()}, but {expected.describe()} was expected."
    if got.kind == "tensor":
        return _same_tensor_form(got, expected)
    if got.kind == "tuple" and len(got.items) != len(expected.items):
        return f"Your function returns {len(got.items)} things, but {len(expected.items)} were expected."
    parts = zip(got.items or (), expected.items or (), strict=False) if got.kind in ("list", "tuple") else ()
    return next((reason for a, b in parts if (reason := same_form(a, b))), "")  # a list may be too long or too short


def _same_tensor_form(got: Value, expected: Value) -> str:
    if got.shape != expected.shape:
        return f"Your function returns the shape {got.shape}, but {expected.shape} was expected."
    if ("float" in got.dtype) != ("float" in expected.dtype):
        return f"Your function returns numbers of type {got.dtype}, but {expected.dtype} was expected."
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
