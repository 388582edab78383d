"""Points: of a quiz, of a chapter, of everything; and the file to hand in."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from course_lib.notebook.exercises import store
from course_lib.notebook.exercises.messages import Message, Panel, message
from course_lib.notebook.exercises.questions import Chapter, chapter, chapter_names


def new_entry() -> dict[str, Any]:
    """What is kept of an exercise before its first check."""
    return {"status": "not started", "points": 0, "attempts": 0, "hints": 0, "message": "", "source": None, "needs": {},
            "missing": []}


def quiz_points(asked: Chapter, state: dict[str, Any]) -> tuple[float, int]:
    """Points of a chapter's quiz, and how many of its items have an answer."""
    given = {i: state["quiz"].get(f"{asked.name}.quiz{i}") for i in range(1, len(asked.quiz) + 1)}
    points = sum(item.points for i, item in enumerate(asked.quiz, start=1) if given[i] == item.right)
    return points, sum(value is not None for value in given.values())


def quiz_score(asked: Chapter, state: dict[str, Any]) -> str:
    """One sentence about a chapter's quiz."""
    points, done = quiz_points(asked, state)
    total = sum(item.points for item in asked.quiz)
    return f"{asked.name} quiz: {done} of {len(asked.quiz)} answered, {points:g} of {total:g} points."


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
        entry = state["exercises"].get(q.name, new_entry())
        rows.append((q.name, q.title, entry["status"], f"{min(entry['points'], q.points):g} of {q.points:g}"))
    points, done = quiz_points(asked, state)
    rows.append((f"{asked.name}.quiz", f"Quiz, {len(asked.quiz)} items", f"{done} answered",
                 f"{points:g} of {sum(item.points for item in asked.quiz):g}"))
    caption = f"{asked.title}: {_points(asked, state):g} of {asked.points:g} points"
    return Panel(caption, ("exercise", "title", "status", "points"), tuple(rows), note)


def _points(asked: Chapter, state: dict[str, Any]) -> float:
    found = (min(state["exercises"].get(q.name, {}).get("points", 0), q.points) for q in asked.questions)
    return sum(found) + quiz_points(asked, state)[0]


def export_answers(file: str = "answers.json", who: str = "") -> Message:
    """Write one file to hand in: the text of your functions, verdicts, quiz answers, points and library versions.

    The points in it are what this notebook saw; a grader runs the functions again.
    """
    state, note = store.load()
    started = {name: entry for name, entry in state["exercises"].items() if entry["attempts"]}
    if not started and not state["quiz"]:
        return message("There is nothing to hand in yet, so no file was written.", note)
    points = {name: _points(chapter(name), state) for name in chapter_names()}
    content = {"format": 1, "who": who, "exported": datetime.now(UTC).isoformat(timespec="seconds"),
               "points": points, "exercises": started, "quiz": state["quiz"], "polls": state["polls"],
               "versions": _versions()}
    try:
        Path(file).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        return message(f"{file} cannot be written ({error.strerror}). Try another name.", note)
    total = ", ".join(f"{name} {points[name]:g} of {chapter(name).points:g}" for name in points)
    counted = f"Exercises: {len(started)}, quiz answers: {len(state['quiz'])}."
    return message(f"Wrote {file}. {counted}", f"Points: {total}.", *_left_behind(started), note)


def _left_behind(started: dict[str, Any]) -> list[str]:
    """A sentence for each answer that the file cannot carry whole: a grader could not run it."""
    said = []
    for name, entry in started.items():
        if not entry["source"]:
            said.append(f"{name}: the text of your function was not found, so it cannot be graded from this file. "
                        "Hand in the notebook, or define the function in a cell and check it again.")
        elif entry.get("missing"):
            said.append(f"{name} uses {', '.join(entry['missing'])}, and no cell of this notebook says what that is. "
                        "Define it in a cell, run the check again and export again, or hand in the notebook.")
    return said


def _versions() -> dict[str, str]:
    names = ("course-lib", "torch", "transformers")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}
