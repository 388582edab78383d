"""What an exercise, a quiz item and a poll are, and where a chapter's are found.

Adding a chapter: write `chNN.py` in this folder with one `CHAPTER = Chapter(...)`, its solutions in
`reference/chNN.py` and its typical mistakes in `tests/solutions/chNN.py`, and run
`python tests/solutions/make_golden.py chNN`. That stores inputs and numbers in `golden/chNN.json`; nothing here says
how they are computed. A failure lab is the same, with the name `labN`.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

from torch import Tensor

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.values import Value, from_json, from_python


@dataclass(frozen=True)
class Property:
    """Something that every right answer obeys, whatever the input: `holds` sees the answers to `calls`, in order.

    otherwise: the sentence for an answer that breaks it. It names the likely mistake.
    """

    otherwise: str
    calls: Callable[[], Sequence[Call]]
    holds: Callable[[Sequence[Value]], bool]


@dataclass(frozen=True)
class Poll:
    """The prediction of section 1. `later` says where it is looked at again."""

    ask: str
    options: tuple[str, ...]
    later: str = "Section 8 looks at it again."

    @property
    def letters(self) -> tuple[str, ...]:
        """a, b, c, … for as many options as there are."""
        return tuple(letter(i) for i in range(len(self.options)))

    def text(self, picked: str) -> str:
        """The option of a letter."""
        return self.options[self.letters.index(picked)]


@dataclass(frozen=True)
class Forecast(Poll):
    """A prediction of what a changed experiment will show. It has to be made before the exercise gives points.

    experiment: runs it with the function that the learner wrote and that passed, and returns the letter that fits and
    one sentence with the numbers.
    """

    later: str = "The check of the exercise looks at it again."
    experiment: Callable[[Callable[..., Any]], tuple[str, str]] = field(kw_only=True)


@dataclass(frozen=True)
class Question:
    """One graded exercise. `stub` is the text of the cell in the chapter, and the signature is read from it.

    Three kinds differ from "write this function". A stub that runs, and is wrong, is to be repaired. A `forecast` asks
    for a prediction of a changed experiment first. And a chapter may train with what was written: `passed(name)`.
    """

    name: str  # ch01.q2
    title: str
    points: float
    difficulty: int  # 1 easy, 2 some thought, 3 hard
    minutes: int
    stub: str
    hints: tuple[str, str]
    mistakes: dict[str, str]  # name of a typical mistake in golden/ -> one sentence of diagnosis
    extremes: str  # the sentence for an answer that is right on ordinary inputs only
    gradient: str = ""  # the sentence for a right value with a wrong or missing gradient
    properties: tuple[Property, ...] = ()
    forecast: Forecast | None = None
    seconds: float = 10.0
    rtol: float = 1e-4

    @cached_property
    def _definition(self) -> ast.FunctionDef:
        functions = [node for node in ast.parse(self.stub).body if isinstance(node, ast.FunctionDef)]
        return functions[-1]

    @property
    def repair(self) -> bool:
        """Whether the stub runs and is wrong, so that its bug is to be found."""
        return "NotImplementedError" not in self.stub

    @property
    def function(self) -> str:
        """Name of the function that the learner writes."""
        return self._definition.name

    @property
    def positional(self) -> tuple[str, ...]:
        """Names of the arguments that are passed by position."""
        return tuple(arg.arg for arg in self._definition.args.args)

    @property
    def keyword_only(self) -> tuple[str, ...]:
        """Names of the arguments that are passed by name."""
        return tuple(arg.arg for arg in self._definition.args.kwonlyargs)


@dataclass(frozen=True)
class Option:
    """One answer to choose: its text, whether it is right, and why it is wrong (or, for the right one, why)."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class QuizItem:
    """One question with its options; the letters a, b, c, ... follow their order."""

    ask: str
    options: tuple[Option, ...]
    points: float = 0.5

    @property
    def right(self) -> str:
        """Letter of the right option."""
        return letter([option.right for option in self.options].index(True))



@dataclass(frozen=True)
class Chapter:
    """All exercises of one chapter."""

    name: str
    title: str
    questions: tuple[Question, ...]
    quiz: tuple[QuizItem, ...]
    poll: Poll | None = None

    @property
    def points(self) -> float:
        """Points of the chapter: exercises and quiz together."""
        return sum(question.points for question in self.questions) + sum(item.points for item in self.quiz)


@dataclass(frozen=True)
class Case:
    """A stored input with the number that it must give, and the numbers that typical mistakes give."""

    about: str
    stage: str  # 'numbers' or 'extremes'
    call: Call
    expected: Value
    gradient: Value | None
    mistakes: dict[str, Value]

    @property
    def size(self) -> int:
        """How much there is to read in it."""
        values = [*self.call.args, *self.call.kwargs.values()]
        return sum(value.numel() if isinstance(value, Tensor) else len(value) if hasattr(value, "__len__") else 1
                   for value in values)


def letter(index: int) -> str:
    """0 -> a, 1 -> b, …"""
    return "abcdefgh"[index]


def chapter_names() -> list[str]:
    """All chapters and labs that have exercises, in order."""
    files = (entry.name for entry in resources.files(__package__).iterdir())
    return sorted(name.removesuffix(".py") for name in files if re.fullmatch(r"(ch\d\d|lab\d)\.py", name))


def chapter(name: str) -> Chapter:
    """The exercises of one chapter. Raises: ValueError that lists the chapters there are."""
    if name not in chapter_names():
        raise ValueError(f"There is no chapter {name!r}. Chapters with exercises: {', '.join(chapter_names())}.")
    return importlib.import_module(f"{__package__}.{name}").CHAPTER


def question(name: str) -> Question:
    """One exercise by name, such as ch01.q2. Raises: ValueError that lists the exercises there are."""
    found = chapter(str(name).partition(".")[0])
    for candidate in found.questions:
        if candidate.name == name:
            return candidate
    raise ValueError(f"There is no exercise {name!r}. {found.name} has {', '.join(q.name for q in found.questions)}.")


def cases(wanted: Question) -> list[Case]:
    """The stored cases of an exercise, with fresh tensors on every call."""
    return [case(wanted, stored) for stored in golden(wanted.name.partition(".")[0])[wanted.name]]


def golden(chapter_name: str) -> dict[str, list[dict[str, Any]]]:
    """The stored inputs and numbers of a chapter: exercise -> its cases."""
    text = resources.files(__package__).joinpath(f"golden/{chapter_name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def call(wanted: Question, stored: dict[str, Any]) -> Call:
    """The call of a stored case: its inputs, without the numbers that they must give."""
    args = from_json([stored["args"][name] for name in wanted.positional])
    kwargs = {name: from_json(stored["args"][name]) for name in wanted.keyword_only}
    gradient = stored.get("gradient")
    return Call(tuple(args), kwargs, None if gradient is None else wanted.positional.index(gradient["of"]))


def case(wanted: Question, stored: dict[str, Any]) -> Case:
    """One entry of a golden file as a Case."""
    gradient = stored.get("gradient")
    return Case(stored["about"], stored["stage"], call(wanted, stored), from_python(from_json(stored["expected"])),
                None if gradient is None else from_python(from_json(gradient["expected"])),
                {name: from_python(from_json(value)) for name, value in stored.get("mistakes", {}).items()})
