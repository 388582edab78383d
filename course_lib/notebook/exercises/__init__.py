"""Exercises that check themselves: in JupyterLab, in Colab, in plain Python; without a network or an account.

    check("ch01.q2", soft_target_loss)   a verdict in one line, and one sentence on what to look at
    hint("ch01.q2")                      the first hint; called again, the second
    solution("ch01.q2")                  a solution, once you have passed or tried
    passed("ch01.q2")                    your function that passed, to train with it
    quiz("ch01")                         the quiz, alive on the static page too
    predict("ch01")                      the question of section 1; recall("ch01", "c") looks at it again
    progress()                           points per chapter; progress("ch01") shows one chapter's exercises
    export_answers()                     one file to hand in

Quiz and predictions are answered by a click. Where nothing can be clicked, answer("ch01.quiz3", "b") and
predict("ch01", "b") do the same. All of them return an object that shows itself as text or HTML; none of them raises
for what a learner's function does.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from course_lib.notebook.exercises import store
from course_lib.notebook.exercises.checking import Verdict, judge
from course_lib.notebook.exercises.choosing import answer, predict, prediction, quiz, recall
from course_lib.notebook.exercises.messages import Message, message
from course_lib.notebook.exercises.points import export_answers, new_entry, progress
from course_lib.notebook.exercises.questions import Question, question
from course_lib.notebook.exercises.solving import keep, passed, solution

__all__ = ["Verdict", "answer", "check", "export_answers", "hint", "passed", "predict", "progress", "quiz", "recall",
           "solution"]


def check(name: str, function: Callable[..., Any]) -> Verdict:
    """Check one exercise and keep the result. The best result counts, so another try never costs points.

    Raises: ValueError for an exercise that does not exist; nothing that `function` does can raise.
    """
    asked = question(name)
    verdict = judge(asked, function)
    if verdict.status == "not started":
        return verdict
    if verdict.status == "correct":
        verdict = _with_forecast(asked, verdict, function)
    if verdict.status == "correct":
        keep(name, function)
    state, note = store.load()
    entry = state["exercises"].setdefault(name, new_entry())
    entry["attempts"] += 1
    if verdict.points >= entry["points"]:  # never replace a right answer's text by a later wrong one
        entry |= {"points": verdict.points, "status": verdict.status, "message": verdict.message,
                  "source": _source(function), "needs": _needs(function)}
    return replace(verdict, note=" ".join(part for part in (note, store.save(state)) if part))


def _with_forecast(asked: Question, verdict: Verdict, function: Callable[..., Any]) -> Verdict:
    """An exercise with a forecast wants it before its points; then the learner's function runs the experiment."""
    if asked.forecast is None:
        return verdict
    if not prediction(asked.name):
        return replace(verdict, status="not yet", points=0, message="Your function is right. The points wait for your "
                       f'prediction: run predict("{asked.name}"), choose, and check again.')
    measured, because = asked.forecast.experiment(function)
    return replace(verdict, message=" ".join(recall(asked.name, measured, because).lines[1:]))


def hint(name: str) -> Message:
    """The next hint of an exercise: the first call gives the first, later calls both. Hints cost nothing."""
    asked = question(name)
    state, note = store.load()
    entry = state["exercises"].setdefault(name, new_entry())
    entry["hints"] = min(entry["hints"] + 1, len(asked.hints))
    saved = store.save(state)
    lines = [f"{name}, hint {i} of {len(asked.hints)}: {text}"
             for i, text in enumerate(asked.hints[:entry["hints"]], start=1)]
    return message(*lines, note, saved)


def _source(function: object) -> str | None:
    with contextlib.suppress(Exception):
        return textwrap.dedent(inspect.getsource(function))
    return None


def _needs(function: object) -> dict[str, str]:
    """Text of what the function uses from its notebook: imports, constants, helpers, and what those use in turn."""
    found: dict[str, str] = {}
    todo, home = [function], getattr(function, "__module__", None)
    with contextlib.suppress(Exception):
        while todo:
            user = todo.pop()
            read = ast.walk(ast.parse(_source(user)))  # annotations and defaults count too
            for name in sorted({node.id for node in read if isinstance(node, ast.Name)}):
                if name in found or name not in user.__globals__:
                    continue
                value = user.__globals__[name]
                text = _text(name, value, home)
                if text and value is not function:
                    found[name] = text
                    todo += [value] if inspect.isfunction(value) and value.__module__ == home else []
    return found


def _text(name: str, value: object, home: str | None) -> str | None:
    if inspect.ismodule(value):
        return f"import {value.__name__} as {name}"
    if inspect.isfunction(value) or inspect.isclass(value):
        own = value.__module__ == home
        return _source(value) if own else f"from {value.__module__} import {value.__name__} as {name}"
    return f"{name} = {value!r}" if type(value) in (int, float, str, bool) else None
