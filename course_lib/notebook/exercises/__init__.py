"""Exercises that check themselves: in JupyterLab, in Colab, in plain Python; without a network or an account.

    check("ch01.q2", soft_target_loss)   a verdict in one line, and one sentence on what to look at
    hint("ch01.q2")                      the first hint; called again, the second
    quiz("ch01")                         the quiz, alive on the static page too
    answer("ch01.quiz3", "b")            one answer; answer("ch01.quiz", "bca-dbca") gives all of them
    predict("ch01", "b")                 keeps the prediction of section 1; recall("ch01", "c") looks at it again
    progress()                           points per chapter; progress("ch01") shows one chapter's exercises
    export_answers()                     one file to hand in

All of them return an object that shows itself as text or HTML; none of them raises for what a learner's function does.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import platform
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from course_lib.notebook.exercises import store
from course_lib.notebook.exercises.checking import Verdict, judge
from course_lib.notebook.exercises.questions import Chapter, Poll, chapter, chapter_names, letter, question
from course_lib.notebook.exercises.quizzes import Quiz

__all__ = ["Verdict", "answer", "check", "export_answers", "hint", "predict", "progress", "quiz", "recall"]


@dataclass(frozen=True)
class Message:
    """A few lines that show themselves, as text or as HTML."""

    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return f'<div class="course-message">{"<br>".join(escape(line) for line in self.lines)}</div>'


def _message(*lines: str) -> Message:
    return Message(tuple(line for line in lines if line))


# --- exercises --------------------------------------------------------------------------------------------------------


def check(name: str, function: Callable[..., Any]) -> Verdict:
    """Check one exercise and keep the result. The best result counts, so another try never costs points.

    Raises: ValueError for an exercise that does not exist; nothing that `function` does can raise.
    """
    verdict = judge(question(name), function)
    if verdict.status == "not started":
        return verdict
    state, note = store.load()
    entry = state["exercises"].setdefault(name, _new_entry())
    entry["attempts"] += 1
    if verdict.points >= entry["points"]:  # never replace a right answer's text by a later wrong one
        entry |= {"points": verdict.points, "status": verdict.status, "message": verdict.message,
                  "source": _source(function), "needs": _needs(function)}
    note = " ".join(part for part in (note, store.save(state)) if part)
    return Verdict(**(vars(verdict) | {"note": note}))


def hint(name: str) -> Message:
    """The next hint of an exercise: the first call gives the first, later calls both. Hints cost nothing."""
    asked = question(name)
    state, note = store.load()
    entry = state["exercises"].setdefault(name, _new_entry())
    entry["hints"] = min(entry["hints"] + 1, len(asked.hints))
    saved = store.save(state)
    lines = [f"{name}, hint {i} of {len(asked.hints)}: {text}"
             for i, text in enumerate(asked.hints[:entry["hints"]], start=1)]
    return _message(*lines, note, saved)


def _new_entry() -> dict[str, Any]:
    return {"status": "not started", "points": 0, "attempts": 0, "hints": 0, "message": "", "source": None, "needs": {}}


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


# --- quiz -------------------------------------------------------------------------------------------------------------


def quiz(chapter_name: str) -> Quiz:
    """The quiz of a chapter, as a form in a notebook or on a page, as text elsewhere."""
    return Quiz(chapter(chapter_name))


def answer(name: str, choice: str) -> Message:
    """Answer one quiz item, `answer("ch01.quiz3", "b")`, or all, `answer("ch01.quiz", "bca-dbca")`; "-" leaves one out.

    The last answer counts. Raises: ValueError for an item or a letter that does not exist.
    """
    chapter_name, _, item = str(name).partition(".quiz")
    asked = chapter(chapter_name)
    choices = _choices(asked, name, item, choice)
    state, note = store.load()
    saved = ""
    if choices:
        state["quiz"] |= {f"{chapter_name}.quiz{number}": picked for number, picked in choices.items()}
        saved = store.save(state)
    lines = [_about_answer(asked, number, picked) for number, picked in choices.items()]
    points, done = _quiz_points(asked, state)
    total = sum(entry.points for entry in asked.quiz)
    score = f"{chapter_name} quiz: {done} of {len(asked.quiz)} answered, {points:g} of {total:g} points."
    return _message(*lines, score, note, saved)


def _choices(asked: Chapter, name: str, item: str, choice: str) -> dict[int, str]:
    numbers = range(1, len(asked.quiz) + 1)
    letters = str(choice).strip().lower().replace(" ", "")
    if item:
        if not item.isdigit() or int(item) not in numbers:
            raise ValueError(f"There is no quiz item {name!r}. {asked.name} has quiz1 to quiz{len(asked.quiz)}.")
        chosen = {int(item): letters}
    elif len(letters) == len(asked.quiz):
        chosen = dict(zip(numbers, letters, strict=True))
    else:
        raise ValueError(f"{choice!r}: one letter for each of the {len(asked.quiz)} items is needed; - leaves one out.")
    for number, picked in chosen.items():
        known = [letter(i) for i in range(len(asked.quiz[number - 1].options))]
        if picked != "-" and picked not in known:
            raise ValueError(f"Item {number} has the answers {', '.join(known)}; {picked!r} is none of them.")
    return {number: picked for number, picked in chosen.items() if picked != "-"}


def _about_answer(asked: Chapter, number: int, picked: str) -> str:
    option = asked.quiz[number - 1].options["abcdefgh".index(picked)]
    return f"{asked.name}.quiz{number}, {picked}: {'right' if option.right else 'not right'}. {option.why}"


def _quiz_points(asked: Chapter, state: dict[str, Any]) -> tuple[float, int]:
    given = {i: state["quiz"].get(f"{asked.name}.quiz{i}") for i in range(1, len(asked.quiz) + 1)}
    points = sum(item.points for i, item in enumerate(asked.quiz, start=1) if given[i] == item.right)
    return points, sum(value is not None for value in given.values())


# --- poll -------------------------------------------------------------------------------------------------------------


def predict(chapter_name: str, choice: str | None = None) -> Message:
    """Show the question of section 1; with a letter, keep your prediction for section 8.

    Raises: ValueError for a letter that is not on offer, or a chapter without a poll.
    """
    poll = _poll(chapter_name)
    options = [f"  {letter(i)}) {text}" for i, text in enumerate(poll.options)]
    if choice is None:
        return _message(poll.ask, *options, f'Write predict("{chapter_name}", "a") with your letter.')
    picked = _option(poll, choice)
    state, note = store.load()
    state["polls"][chapter_name] = picked
    saved = store.save(state)
    text = poll.options["abcdefgh".index(picked)]
    return _message(f"Kept: you predict {picked}) {text}", "Section 8 looks at it again.", note, saved)


def recall(chapter_name: str, measured: str | None = None, because: str = "") -> Message:
    """Show the prediction of section 1 beside what was measured.

    measured: letter of the option that fits the measurement. because: one sentence with the numbers.
    Without a prediction the text depends on these two alone.
    """
    poll = _poll(chapter_name)
    state, note = store.load()
    chosen = state["polls"].get(chapter_name)
    known = [letter(i) for i in range(len(poll.options))]
    chosen = chosen if chosen in known else None
    ours = f"You predicted {chosen}) {poll.options[known.index(chosen)]}" if chosen else "You made no prediction."
    if measured is None:
        return _message(poll.ask, ours, because, note)
    fits = _option(poll, measured)
    seen = f"The measurement says {fits}) {poll.options[known.index(fits)]}"
    compared = "" if not chosen else "Your prediction fits." if chosen == fits else "Your prediction does not fit."
    return _message(poll.ask, ours, f"{seen} {because}".strip(), compared, note)


def _poll(chapter_name: str) -> Poll:
    poll = chapter(chapter_name).poll
    if poll is None:
        raise ValueError(f"{chapter_name} asks for no prediction.")
    return poll


def _option(poll: Poll, choice: str) -> str:
    known = [letter(i) for i in range(len(poll.options))]
    picked = str(choice).strip().lower()
    if picked not in known:
        raise ValueError(f"The answers are {', '.join(known)}; {choice!r} is none of them.")
    return picked


# --- the panel and the file to hand in --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """A small table that shows itself, as text or as HTML."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __repr__(self) -> str:
        widths = [max(len(row[i]) for row in (self.head, *self.rows)) for i in range(len(self.head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                 for row in (self.head, *self.rows)]
        return "\n".join([self.caption, *lines, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="text-align:left">{escape(cell)}</th>' for cell in self.head)
        body = "".join("<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>"
                       for row in self.rows)
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return (f'<table><caption style="text-align:left">{escape(self.caption)}</caption>'
                f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}")


def progress(chapter_name: str | None = None) -> Panel:
    """Points per chapter; with a chapter's name, its exercises one by one."""
    state, note = store.load()
    if chapter_name is not None:
        return _chapter_panel(chapter(chapter_name), state, note)
    rows = []
    for name in chapter_names():
        asked = chapter(name)
        rows.append((name, asked.title, f"{_points(asked, state):g} of {asked.points:g}"))
    return Panel("Your points", ("chapter", "title", "points"), tuple(rows), note)


def _chapter_panel(asked: Chapter, state: dict[str, Any], note: str) -> Panel:
    rows = []
    for q in asked.questions:
        entry = state["exercises"].get(q.name, _new_entry())
        rows.append((q.name, q.title, entry["status"], f"{min(entry['points'], q.points):g} of {q.points:g}"))
    points, done = _quiz_points(asked, state)
    rows.append((f"{asked.name}.quiz", f"Quiz, {len(asked.quiz)} items", f"{done} answered",
                 f"{points:g} of {sum(item.points for item in asked.quiz):g}"))
    caption = f"{asked.title}: {_points(asked, state):g} of {asked.points:g} points"
    return Panel(caption, ("exercise", "title", "status", "points"), tuple(rows), note)


def _points(asked: Chapter, state: dict[str, Any]) -> float:
    found = (min(state["exercises"].get(q.name, {}).get("points", 0), q.points) for q in asked.questions)
    return sum(found) + _quiz_points(asked, state)[0]


def export_answers(file: str = "answers.json", who: str = "") -> Message:
    """Write one file to hand in: the text of your functions, verdicts, quiz answers, points and library versions.

    The points in it are what this notebook saw; a grader runs the functions again.
    """
    state, note = store.load()
    started = {name: entry for name, entry in state["exercises"].items() if entry["attempts"]}
    if not started and not state["quiz"]:
        return _message("There is nothing to hand in yet, so no file was written.", note)
    points = {name: _points(chapter(name), state) for name in chapter_names()}
    content = {"format": 1, "who": who, "exported": datetime.now(UTC).isoformat(timespec="seconds"),
               "points": points, "exercises": started, "quiz": state["quiz"], "polls": state["polls"],
               "versions": _versions()}
    try:
        Path(file).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        return _message(f"{file} cannot be written ({error.strerror}). Try another name.", note)
    total = ", ".join(f"{name} {points[name]:g} of {chapter(name).points:g}" for name in points)
    counted = f"Exercises: {len(started)}, quiz answers: {len(state['quiz'])}."
    return _message(f"Wrote {file}. {counted}", f"Points: {total}.", note)


def _versions() -> dict[str, str]:
    names = ("course-lib", "torch", "transformers")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}
