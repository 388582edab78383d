"""How a mutant is switched on: one function is compiled again from an edited source, and its code is exchanged.

`from course_lib.shared.masking import keep` copies a name. Setting `masking.keep` to a wrong function would not reach
that copy, nor the one in your notebook. So the function object stays the same and only what it runs is replaced:
everybody who holds the function, under whatever name, runs the wrong code, and afterwards the right code again.

    source of the module  --edit-->  wrong source  --compile-->  code object  -->  function.__code__

The source is compiled as a whole, so closures (`super()`) and line numbers stay right; none of it is executed.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType

import torch


@dataclass(frozen=True)
class Edit:
    """Replace the text `right`, which stands exactly once in the function `where`, by the text `wrong`."""

    where: str  # "course_lib.methods.hinton:soft_target_loss", or "module:Class.method"
    right: str
    wrong: str


@dataclass(frozen=True)
class Mutant:
    """A named, real mistake that can be switched on.

    mistake: what is wrong, in one sentence. symptom: what you would see. source: where it happened in public, or None
    for a mistake that people make without publishing it. chapter: where the course treats it. tests: the test files
    that must catch it. measure: a call that gives one number; `measured` says which.
    """

    name: str
    chapter: str
    mistake: str
    symptom: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    measured: str
    measure: Callable[[], float]
    source: str | None = None

    def value(self) -> float:
        """The measured number, with the code as it is right now: right outside, wrong inside `with mutant(name)`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return float(torch.as_tensor(self.measure()).detach())

    @property
    def patches(self) -> tuple[str, ...]:
        """The functions that are changed."""
        return tuple(dict.fromkeys(edit.where for edit in self.edits))

    def diff(self) -> str:
        """The edit, to be shown: the right text with a minus sign, the wrong text with a plus sign."""
        parts = []
        for edit in self.edits:
            right, wrong = (text.strip("\n").splitlines() for text in (edit.right, edit.wrong))
            parts += [edit.where.replace(":", ", "), *(f"- {line}" for line in right), *(f"+ {line}" for line in wrong)]
        return "\n".join(parts)


_active: list[Edit] = []


@contextmanager
def edited(edits: Iterable[Edit]) -> Iterator[None]:
    """Run the body with these edits in place, then put the original code objects back, also after an exception.

    Nested contexts add up. Raises: ValueError if a text to replace is not found, before anything is changed.
    """
    new = [edit for edit in edits if edit not in _active]
    _active.extend(new)
    before: list[tuple[FunctionType, CodeType]] = []
    try:
        functions = {where: function_at(where) for where in {edit.where for edit in new}}
        wrong = {where: _compiled(function, [edit for edit in _active if edit.where == where])
                 for where, function in functions.items()}
        for where, function in functions.items():
            before.append((function, function.__code__))
            function.__code__ = wrong[where]
        yield
    finally:
        for function, code in before:
            function.__code__ = code
        del _active[len(_active) - len(new):]


def function_at(where: str) -> FunctionType:
    """The function behind "module:name" or "module:Class.method", without its decorators.

    A decorator such as `@torch.no_grad()` stays in force: it holds the function whose code is exchanged.
    """
    module, _, path = where.partition(":")
    found = importlib.import_module(module)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    if not isinstance(found, FunctionType):  # a property or a cached_property
        found = getattr(found, "func", None) or getattr(found, "fget", None) or found
    return inspect.unwrap(found)


def _compiled(function: FunctionType, edits: list[Edit]) -> CodeType:
    lines, number = inspect.getsourcelines(function)
    text = "".join(lines)
    for edit in edits:
        if text.count(edit.right) != 1:
            raise ValueError(f"{edit.where} holds {text.count(edit.right)} times the text {edit.right!r}; exactly one "
                             "was expected. Either the library changed: bring the mutant up to date. Or another "
                             "mutant is active that edits the same place.")
        text = text.replace(edit.right, edit.wrong)
    whole, _ = inspect.findsource(function)
    whole = [*whole[: number - 1], text, *whole[number - 1 + len(lines):]]
    code = compile("".join(whole), function.__code__.co_filename, "exec", dont_inherit=True)
    return next(c for c in _all_code(code) if c.co_qualname == function.__code__.co_qualname)


def _all_code(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_code(constant)
