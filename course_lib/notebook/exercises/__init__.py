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

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from course_lib.notebook.exercises import definitions, store
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
        own = definitions.carried(function, asked.function, name)
        entry |= {"points": verdict.points, "status": verdict.status, "message": verdict.message,
                  "source": own.source, "needs": own.needs, "missing": list(own.missing)}
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
