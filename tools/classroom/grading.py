"""One submission: its cells run in the sandbox, and what comes out of the sandbox is judged here.

`grade` takes a file and leaves a folder: one result per chapter in it (points, diagnoses, notes), and what a page needs
to show it. Nothing in that folder is more than text. Any number of files can be graded side by side.

The order keeps the hidden inputs hidden. First all cells run, and each function is called with the public inputs; texts
that come out until then may be shown. Then the hidden inputs go in, and from then on only numbers are taken.
"""

from __future__ import annotations

import builtins
import json
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from classroom import sandbox, submissions
from classroom.submissions import Cell, Handed
from classroom.untrusted import clean, shown
from course_lib.notebook.exercises import definitions, guard
from course_lib.notebook.exercises.checking import Verdict, assess
from course_lib.notebook.exercises.questions import Question, case, chapter, golden, question
from course_lib.shared.files import write_atomically

IMPORT_SECONDS = 60  # the assignment's own imports
CELL_SECONDS = 20  # a student's own cell
MOST_ANSWER = 20_000_000  # bytes
MOST_MESSAGE = 400  # characters
MOST_LEFT_OUT = 6  # cells or functions that end the process; each is left out, and the others run again
ENDED = "Your function ended the whole Python process."
HIDDEN = "a hidden input"


@dataclass
class Result:
    """What grading one chapter of one file gave: a row of scores.csv."""

    student: str
    file: str
    chapter: str = ""
    points: float = 0.0
    out_of: float = 0.0
    questions: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> points, out_of, status, message
    notes: list[str] = field(default_factory=list)
    sandbox: str = ""
    seconds: float = 0.0
    key: str = ""  # the student's name for folders and databases; no other student has it
    attachment: bool = False  # a file that nobody wants graded, such as a picture


@dataclass
class Ran:
    """What came out of the sandbox for one chapter."""

    cells: list[dict[str, Any]] = field(default_factory=list)  # text, space, output, error, left_out
    public: dict[str, dict[str, Any]] = field(default_factory=dict)  # exercise -> reply on the public inputs
    hidden: dict[str, dict[str, Any]] = field(default_factory=dict)
    letters: list[Any] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)  # exercise -> how it ended the process


# --- in the sandbox ---------------------------------------------------------------------------------------------------


def run(handed: Handed, assignment: NotebookNode, hidden: dict[str, list[dict[str, Any]]]) -> Ran:
    """Run the cells and call the functions. What ends the process is left out, and all others run again."""
    left_out: dict[int | str, str] = {}
    while True:
        ran = Ran(ended={key: why for key, why in left_out.items() if isinstance(key, str)})
        step: list[int | str] = ["start"]
        try:
            with sandbox.Box() as box:
                _run_once(box, handed, assignment, hidden, left_out, ran, step)
            return ran
        except sandbox.Ended as error:
            left_out[step[0]] = str(error)
        if step[0] == "start" or len(left_out) > MOST_LEFT_OUT:
            ran.ended |= {q.name: str(list(left_out.values())[-1]) for q in chapter(handed.chapter).questions}
            return ran


def _run_once(box: sandbox.Box, handed: Handed, assignment: NotebookNode, hidden: dict[str, list[dict[str, Any]]],
              left_out: dict[int | str, str], ran: Ran, step: list[int | str]) -> None:
    imports = next(cell.source for cell in assignment.cells if "imports" in cell.metadata.get("tags", []))
    for space in dict.fromkeys(["", *(cell.space for cell in handed.cells)]):
        box.ask({"cell": imports, "space": space}, IMPORT_SECONDS)
    for number, cell in enumerate(handed.cells):
        step[0] = number
        ran.cells.append(_cell(box, cell, left_out.get(number, "")))
    step[0] = "start"
    ran.letters = box.ask({"letters": True}, CELL_SECONDS)["letters"]
    asked = [q for q in chapter(handed.chapter).questions if q.name not in left_out]
    checked = {}
    for q in asked:
        step[0] = q.name
        stored = golden(handed.chapter)[q.name]
        reply, checked[q.name] = _ask(box, q, handed, stored, checked=False), False
        if reply.get("checked") and (reply.get("refused") or _not_started(reply)):  # checked under another name
            reply, checked[q.name] = _ask(box, q, handed, stored, checked=True), True
        ran.public[q.name] = reply
    for q in asked:  # from here on no text is taken
        step[0] = q.name
        if _verdict(q, ran.public[q.name], golden(handed.chapter)[q.name]).status == "correct":
            ran.hidden[q.name] = _ask(box, q, handed, hidden[q.name], checked=checked[q.name])


def _cell(box: sandbox.Box, cell: Cell, left_out: str) -> dict[str, Any]:
    if left_out:
        return {"text": cell.text, "space": cell.space, "output": "", "left_out": True,
                "error": f"This cell was left out: it {left_out}."}
    reply = box.ask({"cell": cell.text, "space": cell.space}, CELL_SECONDS)
    # A plain process can read the instructor's files: what it says stays off the pages.
    said = (str(reply.get("text", "")), str(reply.get("error", ""))) if sandbox.holds() else ("", "")
    return {"text": cell.text, "space": cell.space, "left_out": False, "output": clean(said[0], 4_000),
            "error": clean(said[1], 500)}


def _ask(box: sandbox.Box, asked: Question, handed: Handed, stored: list[dict[str, Any]], *, checked: bool
         ) -> dict[str, Any]:
    space = asked.name if handed.exported else ""
    return box.ask({"question": asked.name, "cases": inputs_only(stored), "space": space, "checked": checked},
                   sandbox.PATIENCE * asked.seconds + 30, MOST_ANSWER)


def inputs_only(stored: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the sandbox may see of stored cases: the inputs."""
    return [{"args": entry["args"]} | ({"gradient": {"of": entry["gradient"]["of"]}} if "gradient" in entry else {})
            for entry in stored]


def _not_started(reply: dict[str, Any]) -> bool:
    outcomes = reply.get("outcomes")
    return isinstance(outcomes, list) and bool(outcomes) and isinstance(outcomes[0], dict) and bool(
        outcomes[0].get("not_started"))


# --- judged outside of it ---------------------------------------------------------------------------------------------


def judged(asked: Question, handed: Handed, ran: Ran, hidden: list[dict[str, Any]]) -> Verdict:
    """The verdict on one exercise. Nothing that came out of the sandbox is trusted."""
    if asked.name in ran.ended:
        why = ran.ended[asked.name]
        return _refused(asked, ENDED if why == "ended the Python process" else f"Your function {why}.")
    public = golden(asked.name.partition(".")[0])[asked.name]
    first = _verdict(asked, ran.public.get(asked.name, {}), public)
    if first.status == "correct":
        second = _verdict(asked, ran.hidden.get(asked.name, {}), hidden, about=HIDDEN)
        message = "Right with the inputs of the check, but not with others like them. "
        return second if second.status == "correct" else replace(
            second, message=message + _without_their_words(second, f" with {HIDDEN}"), example=())
    if not sandbox.holds():
        first = replace(first, message=_without_their_words(first), example=())
    missing = handed.missing.get(asked.name)
    return replace(first, status="not yet", message=missing) if missing and first.tier < 2 else first


def _verdict(asked: Question, reply: dict[str, Any], stored: list[dict[str, Any]], about: str = "") -> Verdict:
    try:
        if reply["refused"]:
            return _refused(asked, str(reply["refused"]))
        cases = [case(asked, entry) for entry in stored]
        cases = [replace(one, about=about) for one in cases] if about else cases
        verdict = assess(asked, cases, [guard.from_plain(outcome) for outcome in reply["outcomes"]])
        example = tuple((label, clean(value, MOST_MESSAGE)) for label, value in verdict.example)
        return replace(verdict, message=clean(verdict.message, MOST_MESSAGE), example=example)
    except Exception:  # whatever a student's code has forged
        return _refused(asked, "The answer that came out of the notebook cannot be read.")


def _refused(asked: Question, message: str) -> Verdict:
    return Verdict(asked.name, "not yet", 0, asked.points, clean(message, MOST_MESSAGE), 1)


# What may be said of a function that fails with a hidden input, or in a process that sees the instructor's files. An
# error's own words could hold either.
_FIXED = ("Your function did not finish", "Your function changes its input",
          "Your function asks for more memory than there is", "Your function ended the whole Python process",
          "Your function returns nothing", "Your function returns the shape", "Your function returns")


def _without_their_words(verdict: Verdict, where: str = "") -> str:
    if verdict.tier != 1:
        return verdict.message
    if verdict.message.startswith("There is no function"):
        return f"There is no function {question(verdict.question).function} in the notebook."
    error = verdict.message.removeprefix("Your function stops with ").partition(":")[0].partition(" ")[0].rstrip(".")
    if error in dir(builtins):
        return f"Your function stops with {error}{where}."
    said = next((text for text in _FIXED if verdict.message.startswith(text)), "")
    said = {"Your function returns the shape": "Your function returns another shape than it should",
            "Your function returns": "Your function returns another type than it should"}.get(said, said)
    return f"{said or 'Your function does not give an answer'}{where}."


def quiz_verdict(name: str, letters: dict[int, str]) -> Verdict:
    """Points and explanations for the quiz of a chapter."""
    items = chapter(name).quiz
    given = {i: letters.get(i) for i in range(1, len(items) + 1)}
    right = [i for i, item in enumerate(items, start=1) if given[i] == item.right]
    points, most = sum(items[i - 1].points for i in right), sum(item.points for item in items)
    answered = sum(value is not None for value in given.values())
    wrong = [f"{i}: {_why(items[i - 1], given[i])}" for i in given if given[i] and i not in right]
    status = "correct" if points == most else "not yet" if answered else "not started"
    return Verdict(f"{name}.quiz", status, points, most, f"{answered} of {len(items)} answered. {' '.join(wrong)}"
                   .strip(), 2)


def _why(item: Any, picked: str) -> str:
    place = "abcdefgh".find(picked)
    return item.options[place].why if 0 <= place < len(item.options) else "There is no such option."


# --- one file ---------------------------------------------------------------------------------------------------------


def released(course: Path) -> dict[str, NotebookNode]:
    """Every assignment of a course folder, with its tests."""
    return {file.stem: nbformat.read(file, as_version=4) for file in sorted((course / "source").glob("*/*.ipynb"))}


def grade(file: Path, student: str, course: Path, target: Path) -> list[Result]:
    """Grade everything in `file`. `target`: folder for results.json, and per chapter what its page shows.

    Never raises for what a student handed in: a file that cannot be graded gives a result with a note and 0 points.
    """
    started = time.monotonic()
    try:
        assignments = released(course)
        results = [_grade_chapter(part, student, file, course, target, assignments[part.chapter])
                   for part in submissions.read(file, assignments)]
    except submissions.NotAnAnswerError as error:
        results = [not_graded(file, student, str(error))]
    except sandbox.NotStartedError as error:
        results = [not_graded(file, student, str(error))]
    for result in results:
        result.seconds = round(time.monotonic() - started, 1)
    save(results, target)
    return results


def not_graded(file: Path, student: str, why: str) -> Result:
    """The row of a file that gives no points."""
    return Result(student, shown(file.name), notes=[clean(why, MOST_MESSAGE)],
                  attachment=submissions.is_attachment(file))


def in_a_process(file: Path, student: str, course: Path, target: Path) -> None:
    """`grade` for a process of its own: Ctrl-C is for the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    grade(file, student, course, target)


def save(results: list[Result], target: Path) -> None:
    """Write results.json whole or not at all: it says that this submission is done."""
    target.mkdir(parents=True, exist_ok=True)
    _write(target / "results.json", [asdict(result) for result in results])


def _write(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def _grade_chapter(handed: Handed, student: str, file: Path, course: Path, target: Path,
                   assignment: NotebookNode) -> Result:
    asked, name = chapter(handed.chapter), handed.chapter
    hidden = json.loads((course / "hidden" / f"{name}.json").read_text(encoding="utf-8"))
    ran = run(handed, assignment, hidden)
    letters = handed.quiz | _told(asked, ran.letters)
    verdicts = [*(judged(q, handed, ran, hidden[q.name]) for q in asked.questions), quiz_verdict(name, letters)]
    result = Result(student, shown(file.name), name, 0.0, asked.points, notes=handed.notes, sandbox=sandbox.kind())
    result.questions = {v.question: {"points": v.points, "out_of": v.out_of, "status": v.status, "message": v.message,
                                     "example": v.example} for v in verdicts}
    result.points = sum(entry["points"] for entry in result.questions.values())
    if count := sum(cell["left_out"] for cell in ran.cells):
        result.notes.append(f"{count} cell(s) ended the Python process or never ended; they were left out.")
    if not letters and not ran.letters and any(re.search(r"answer\(.*\.quiz", cell.text) for cell in handed.cells):
        result.notes.append("The quiz answers could not be read; look at them by hand.")
    target.mkdir(parents=True, exist_ok=True)
    _write(target / f"{name}.json", {"cells": ran.cells, "letters": {str(i): v for i, v in sorted(letters.items())}})
    return result


def _told(asked: Any, calls: Any) -> dict[int, str]:
    try:
        return submissions.told(asked, [(str(name), str(choice)) for name, choice in calls])
    except (TypeError, ValueError):  # forged
        return {}


def defined_in(cells: Sequence[dict[str, Any]], name: str) -> list[int]:
    """Which of the graded cells give an exercise its answer; the last one counts."""
    function = question(name).function
    return [i for i, cell in enumerate(cells) if cell["space"] == name or (
        not cell["space"] and definitions.defines(cell["text"], function))]
