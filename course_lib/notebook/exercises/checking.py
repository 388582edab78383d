"""The three tiers of a check: does it run, are the numbers right, and if not, which mistake is it?

1  The function runs, returns the right kind and shape, and leaves its input alone.
2  It gives the stored numbers on random inputs, with padding and at extremes, and obeys what every right answer obeys.
3  If tier 2 fails: the answer is compared with what typical mistakes give on the same inputs. One sentence says which
   mistake it looks like.

Points are given for a function that passes tier 1 and tier 2, and for nothing less.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

from course_lib.notebook.exercises import fresh, guard
from course_lib.notebook.exercises.questions import Case, Question, cases
from course_lib.notebook.exercises.values import Value, equal, from_python, in_words, numbers, same_form

Status = Literal["correct", "not yet", "not started"]


@dataclass(frozen=True)
class Verdict:
    """What a check found: a status, the points, and one sentence."""

    question: str
    status: Status
    points: float
    out_of: float
    message: str
    tier: int  # the tier that decided: 1 runs, 2 numbers and properties, 3 a mistake was recognised; 0 not started
    note: str = ""  # about the progress file, where there is something to say
    example: tuple[tuple[str, str], ...] = ()  # one small input that went wrong: (with, …), (yours, …), (expected, …)

    @property
    def headline(self) -> str:
        """One line such as `ch01.q2: correct (3 of 3 points)`."""
        return f"{self.question}: {self.status} ({self.points:g} of {self.out_of:g} points)"

    def __repr__(self) -> str:
        width = max((len(label) for label, _ in self.example), default=0)
        shown = [f"  {label.ljust(width)}  {value}" for label, value in self.example]
        return "\n".join(line for line in (self.headline, self.message, *shown, self.note) if line)

    def _repr_html_(self) -> str:
        colour = {"correct": "#009e73", "not yet": "#d55e00", "not started": "#767676"}[self.status]
        return (f'<div role="status" class="course-verdict tex2jax_ignore mathjax_ignore" '
                f'style="border-left:4px solid {colour};padding:0.2em 0.8em;max-width:52em">'
                f"<strong>{escape(self.headline)}</strong>{_line(self.message)}{self._example_html()}"
                f"{_line(self.note)}</div>")

    def _example_html(self) -> str:
        if not self.example:
            return ""
        rows = "".join(f'<dt style="font-weight:600;margin:0">{escape(label)}</dt><dd style="margin:0;min-width:0">'
                       f'<code style="white-space:pre-wrap;overflow-wrap:anywhere">{escape(value)}</code></dd>'
                       for label, value in self.example)
        return ('<dl style="display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1em .8em;'
                f'margin:.4em 0">{rows}</dl>')


def _line(text: str) -> str:
    return f"<br>{escape(text)}" if text else ""


def judge(question: Question, function: object) -> Verdict:
    """Run all three tiers on a learner's function. Never raises, whatever the function does."""
    if reason := not_the_function(question, function):
        return Verdict(question.name, "not yet", 0, question.points, reason, 1)
    if question.repair and is_the_stub(question, function):
        return Verdict(question.name, "not started", 0, question.points, UNREPAIRED, 0)
    stored = cases(question)
    calls = all_calls(question, [case.call for case in stored])
    outcomes = guard.run(function, calls, question.seconds, elsewhere=fresh.run)
    verdict = assess(question, stored, outcomes)
    return verdict if verdict.status != "not yet" else replace(verdict, example=example(question, stored, outcomes))


UNREPAIRED = "This is still the function with the bug. See what it does, find the line, mend it, then check again."


def is_the_stub(question: Question, function: object) -> bool:
    """Whether the function is still the stub, whatever its comments and its docstring say."""
    try:
        mine = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except Exception:
        return False  # no source to read: the calls will show what it does
    return isinstance(mine, ast.FunctionDef) and _body(mine) == _body(ast.parse(question.stub).body[-1])


def _body(function: ast.FunctionDef) -> list[str]:
    return [ast.dump(line) for line in function.body
            if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]


def all_calls(question: Question, stored: Sequence[guard.Call]) -> list[guard.Call]:
    """What a function is asked: the calls of the stored cases, then what the properties want to see."""
    return [*stored, *(call for rule in question.properties for call in rule.calls())]


def assess(question: Question, stored: Sequence[Case], outcomes: Sequence[guard.Outcome]) -> Verdict:
    """The verdict on the outcomes of `all_calls`, wherever they were made: here, or in a grader's sandbox."""
    def verdict(message: str, tier: int, status: Status = "not yet") -> Verdict:
        points = question.points if status == "correct" else 0
        return Verdict(question.name, status, points, question.points, message, tier)

    if any(outcome.not_started for outcome in outcomes):
        return verdict("Replace the line with NotImplementedError by your own code, run the cell, then this one.", 0,
                       "not started")
    if reason := _does_not_run(stored, outcomes):
        return verdict(reason, 1)
    extra = [list(rule.calls()) for rule in question.properties]
    calls = len(stored) + sum(map(len, extra))
    if len(outcomes) != calls:  # somebody has been at the code that makes the calls
        return verdict(f"{len(outcomes)} of {calls} calls of your function gave an answer; all of them are needed.", 1)
    message, tier = _wrong_numbers(question, stored, outcomes)
    if not message:
        message, tier = _broken_property(question, extra, outcomes[len(stored):]), 2
    return verdict(message, tier) if message else verdict("", 2, "correct")


def not_the_function(question: Question, function: object) -> str:
    """Tier 1 before any call: is this a function, and does it take the arguments of the stub?"""
    wanted = f"{question.function}({', '.join((*question.positional, *question.keyword_only))})"
    if not callable(function):
        return (f"Pass the function itself: check(\"{question.name}\", {question.function}), "
                "without brackets after its name.")
    try:
        inspect.signature(function).bind(*question.positional, **dict.fromkeys(question.keyword_only))
    except TypeError:
        return f"Your function must take the arguments of the stub: {wanted}."
    except Exception:
        return ""  # no signature to read: the calls will show it
    return ""


def _does_not_run(stored: Sequence[Case], outcomes: Sequence[guard.Outcome]) -> str:
    for i, outcome in enumerate(outcomes):
        about = f" This happened with {stored[i].about}." if i < len(stored) else ""
        if outcome.trouble:
            return outcome.trouble + about
        if i < len(stored) and (reason := same_form(outcome.answer, stored[i].expected)):
            return reason + about
    return ""


def _wrong_numbers(question: Question, stored: Sequence[Case], outcomes: Sequence[guard.Outcome]) -> tuple[str, int]:
    pairs = list(zip(stored, outcomes, strict=False))
    wrong = [(case, outcome.answer) for case, outcome in pairs if not _right(question, case, outcome.answer)]
    if any(case.stage == "numbers" for case, _ in wrong):
        ordinary = [(case, outcome.answer) for case, outcome in pairs if case.stage == "numbers"]
        for name, sentence in question.mistakes.items():
            if all(equal(answer, case.mistakes[name], question.rtol) for case, answer in ordinary):
                return sentence, 3
        return _in_general(question, [pair for pair in wrong if pair[0].stage == "numbers"], ordinary), 2
    if wrong:
        case, answer = wrong[0]
        bad = next((str(v) for v in numbers(answer) if not math.isfinite(v)), "a wrong number")
        return f"Right on ordinary inputs, but {bad} with {case.about}. {question.extremes}", 3
    for case, outcome in pairs:
        if case.gradient and (outcome.gradient is None or not equal(outcome.gradient, case.gradient, question.rtol)):
            return f"The value is right, but its gradient is not, with {case.about}. {question.gradient}", 3
    return "", 2


def example(question: Question, stored: Sequence[Case], outcomes: Sequence[guard.Outcome]
            ) -> tuple[tuple[str, str], ...]:
    """One input that went wrong, what the function made of it, and what was expected: the smallest input there is.

    Where every number is right and a property is broken, there is nothing to expect but the property: its own calls
    are shown.
    """
    wrong = [(case, outcome) for case, outcome in zip(stored, outcomes, strict=False)
             if outcome.trouble or not _right(question, case, outcome.answer)]
    if wrong:
        ordinary = [pair for pair in wrong if pair[0].stage == "numbers"]
        case, outcome = min(ordinary or wrong, key=lambda pair: pair[0].size)
        yours = "(it stops)" if outcome.trouble else in_words(outcome.answer)
        return (("with", _shown(question, case)), ("yours", yours), ("expected", in_words(case.expected)))
    for case, outcome in zip(stored, outcomes, strict=False):
        if case.gradient and (outcome.gradient is None or not equal(outcome.gradient, case.gradient, question.rtol)):
            yours = "no gradient" if outcome.gradient is None else in_words(outcome.gradient)
            return (("with", _shown(question, case)), ("your gradient", yours),
                    ("expected", in_words(case.gradient)))
    return _broken_example(question, outcomes[len(stored):])


def _broken_example(question: Question, outcomes: Sequence[guard.Outcome]) -> tuple[tuple[str, str], ...]:
    left = iter(outcomes)
    for rule in question.properties:
        calls = list(rule.calls())
        mine = [next(left, guard.Outcome(trouble="not reached")) for _ in calls]
        if any(outcome.trouble for outcome in mine) or not _holds(rule.holds, [outcome.answer for outcome in mine]):
            return tuple(row for call, outcome in zip(calls, mine, strict=True) for row in (
                ("with", _input(question, call)),
                ("yours", "(it stops)" if outcome.trouble else in_words(outcome.answer))))
    return ()


MOST_TO_READ = 60  # numbers; a larger input is named, not shown


def _shown(question: Question, case: Case) -> str:
    return _input(question, case.call) if case.size <= MOST_TO_READ else case.about


def _input(question: Question, call: guard.Call) -> str:
    named = {**dict(zip(question.positional, call.args, strict=False)), **call.kwargs}
    return ", ".join(f"{name} = {_word(value)}" for name, value in named.items())


def _word(value: object) -> str:
    return f"{{{', '.join(map(repr, sorted(value)))}}}" if isinstance(value, set) else in_words(from_python(value))


def _right(question: Question, case: Case, answer: Value) -> bool:
    return equal(answer, case.expected, question.rtol)


def _in_general(question: Question, wrong: Sequence[tuple[Case, Value]], ordinary: Sequence[tuple[Case, Value]]) -> str:
    """No typical mistake fits: say what the numbers themselves tell."""
    case, answer = wrong[0]
    ask = f'hint("{question.name}") gives a hint.'
    if any(math.isnan(v) for v in numbers(answer)):
        return f"Your function gives NaN with {case.about}. {ask}"
    if len(wrong) < len(ordinary):
        return f"Right on {len(ordinary) - len(wrong)} of {len(ordinary)} inputs, but wrong with {case.about}. {ask}"
    factors = [a / b for c, got in ordinary for a, b in zip(numbers(got), numbers(c.expected), strict=False)
               if abs(b) > 1e-3]
    if factors and all(abs(f - 1) < 2e-3 for f in factors):
        return f"Your numbers are nearly the right ones, but not as exact as they should be. Do you round? {ask}"
    if factors and all(abs(f - factors[0]) < 1e-3 * abs(factors[0]) for f in factors):
        return f"Your numbers are {factors[0]:.3g} times the right ones, on every input. Which factor is that? {ask}"
    return f"It runs, and the shape is right, but the numbers are not, for example with {case.about}. {ask}"


def _broken_property(question: Question, extra: Sequence[Sequence[guard.Call]], outcomes: Sequence[guard.Outcome]
                     ) -> str:
    answers = iter(outcome.answer for outcome in outcomes)
    for rule, calls in zip(question.properties, extra, strict=True):
        mine = [next(answers) for _ in calls]
        if not _holds(rule.holds, mine):
            return rule.otherwise
    return ""


def _holds(holds: Callable[[Sequence[Value]], bool], answers: Sequence[Any]) -> bool:
    try:
        return holds(answers) is True
    except (ArithmeticError, IndexError, TypeError, ValueError):  # an answer of a form that the property cannot read
        return False
