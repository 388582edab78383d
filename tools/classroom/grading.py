"""One submission: nbgrader runs it in the sandbox, and what comes out of the sandbox is judged here.

`grade` takes a file and leaves a folder: one result per chapter in it (points, diagnoses, notes), the graded notebook
and its feedback page. It works in a folder of its own with a copy of the course's empty gradebook, so any number of
them can run side by side, on one machine or on several.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.apps import NbGraderAPI
from nbgrader.preprocessors import CheckCellMetadata, Execute, LimitOutput, NbGraderPreprocessor, SaveAutoGrades
from nbgrader.utils import setenv
from traitlets import Dict, Float, Unicode

from classroom import sandbox, submissions
from classroom.assignments import settings
from classroom.inside import ANSWERS
from course_lib.notebook.exercises import guard
from course_lib.notebook.exercises.checking import Verdict, assess
from course_lib.notebook.exercises.questions import Question, case, chapter, question
from course_lib.shared.files import write_atomically

START_SECONDS = 180  # the kernel and its imports, on a busy machine
CELL_SECONDS = 20  # a student's own cell
WHOLE_SECONDS = 150  # the notebook
TEST_SECONDS = 45  # a hidden test; the function in it has its own, shorter limit
MOST_ANSWER = 20_000_000  # characters
TIMES_STARTED = 4  # a cell that ends the kernel, or never ends, is left out, and the others run again


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


# --- nbgrader's steps -------------------------------------------------------------------------------------------------


class Sandboxed(Execute):
    """Run the notebook in the sandbox's kernel. A cell that ends the kernel, or never ends, is left out, and all others
    run again in a fresh one."""

    def preprocess(self, nb: NotebookNode, resources: dict, km: Any = None) -> tuple[NotebookNode, dict]:
        for _ in range(TIMES_STARTED):
            self.timeout_func = _clock()
            with contextlib.suppress(DeadKernelError):
                return super().preprocess(nb, resources)
            _leave_out(nb, self.reached)
        return nb, resources

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        self.reached = index
        return super().preprocess_cell(cell, resources, index)

    async def _async_handle_timeout(self, timeout: int, cell: NotebookNode | None = None) -> None:
        # An interrupt is a request; a kernel that has stopped listening would make every later cell wait as well.
        raise DeadKernelError("the cell takes too long")


def _leave_out(nb: NotebookNode, index: int) -> None:
    killer = nb.cells[index]
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    said = "This cell was left out: it ended the Python process, or it did not come to an end."
    killer.source = "\n".join(f"# {line}" for line in (said, *killer.source.splitlines()))
    killer.metadata["course"] = {"left_out": True}


def _clock() -> Callable[[NotebookNode], float]:
    """Seconds that a cell may take. The time of the whole notebook starts after the imports, slow on a busy machine."""
    started: list[float] = []

    def seconds(cell: NotebookNode) -> float:
        if "imports" in cell.metadata.get("tags", []):
            return START_SECONDS
        started.append(time.monotonic())
        left = started[0] + WHOLE_SECONDS - time.monotonic()
        return TEST_SECONDS if submissions.is_test(cell) else max(1, min(CELL_SECONDS, left))

    return seconds


class Judge(NbGraderPreprocessor):
    """Put a verdict and its points in place of the answers that came out of the sandbox."""

    hidden = Unicode(help="File of the hidden inputs and right numbers").tag(config=True)
    letters = Dict(help="The student's quiz answers").tag(config=True)
    seconds = Float(0.0).tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        hidden = json.loads(Path(self.hidden).read_text(encoding="utf-8"))
        found = {}
        for cell in nb.cells:
            if not submissions.is_test(cell):
                continue
            name = cell.metadata.nbgrader.grade_id.removesuffix("-test").replace("-", ".")
            verdict = (_quiz(name, self.letters) if name.endswith(".quiz")
                       else judged(question(name), cell.outputs, hidden[name]))
            found[name] = asdict(verdict)
            # nbgrader reads the points from the cell's result.
            cell.outputs = [new_output("display_data", {"text/html": _shown(verdict), "text/plain": repr(verdict)}),
                            new_output("execute_result", {"text/plain": f"{verdict.points:g}"})]
        left_out = sum(1 for cell in nb.cells if cell.metadata.get("course", {}).get("left_out"))
        nb.metadata["course"] = {"verdicts": found, "left_out": left_out}
        return nb, resources


def judged(asked: Question, outputs: list[NotebookNode], hidden: list[dict[str, Any]]) -> Verdict:
    """The verdict on what one hidden test sent out of the sandbox. Nothing in there is trusted."""
    def refused(message: str) -> Verdict:
        return Verdict(asked.name, "not yet", 0, asked.points, message, 1)

    sent = next((output.data[ANSWERS] for output in outputs if ANSWERS in output.get("data", {})), None)
    if sent is None:
        return refused("No answer came out of the notebook: a cell has ended or spoilt its Python process.")
    try:
        if len(sent) > MOST_ANSWER:
            return refused("The answer is far too large.")
        content = json.loads(sent)
        if content["refused"]:
            return refused(str(content["refused"])[:300])
        stored = [case(asked, entry) for entry in hidden]
        return assess(asked, stored, [guard.from_plain(outcome) for outcome in content["outcomes"]])
    except Exception:  # whatever a student's code has forged
        return refused("The answer that came out of the notebook cannot be read.")


def _quiz(name: str, letters: dict[str, str]) -> Verdict:
    items = chapter(name.removesuffix(".quiz")).quiz
    given = {i: letters.get(str(i)) for i in range(1, len(items) + 1)}
    right = [i for i, item in enumerate(items, start=1) if given[i] == item.right]
    points, most = sum(items[i - 1].points for i in right), sum(item.points for item in items)
    answered = sum(value is not None for value in given.values())
    wrong = [f"{i}: {_why(items[i - 1], given[i])}" for i in given if given[i] and i not in right]
    status = "correct" if points == most else "not yet" if answered else "not started"
    return Verdict(name, status, points, most, f"{answered} of {len(items)} answered. {' '.join(wrong)}".strip(), 2)


def _why(item: Any, picked: str) -> str:
    place = "abcdefgh".find(picked)
    return item.options[place].why if 0 <= place < len(item.options) else "There is no such option."


def _shown(verdict: Verdict) -> str:
    return f"<p><strong>{escape(verdict.headline)}</strong><br>{escape(verdict.message)}</p>"


# --- one file ---------------------------------------------------------------------------------------------------------


def released(course: Path) -> dict[str, NotebookNode]:
    """Every assignment of a course folder, with its tests."""
    return {file.stem: nbformat.read(file, as_version=4) for file in sorted((course / "source").glob("*/*.ipynb"))}


def grade(file: Path, student: str, course: Path, target: Path) -> list[Result]:
    """Grade everything in `file`. `target`: folder for results.json, and per chapter the notebook and its feedback.

    Never raises for what a student handed in: a file that cannot be graded gives a result with a note and 0 points.
    """
    started = time.monotonic()
    assignments = released(course)
    try:
        handed = submissions.read(file, assignments)
        results = [_grade_chapter(part, student, file, course, target, assignments[part.chapter]) for part in handed]
    except submissions.NotAnAnswerError as error:
        results = [Result(student, file.name, notes=[str(error)])]
    for result in results:
        result.seconds = round(time.monotonic() - started, 1)
    save(results, target)
    return results


def save(results: list[Result], target: Path) -> None:
    """Write results.json whole or not at all: it says that this submission is done."""
    target.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(result) for result in results], indent=1, ensure_ascii=False)
    write_atomically(target / "results.json", lambda file: file.write_text(text, encoding="utf-8"))


def _grade_chapter(handed: submissions.Handed, student: str, file: Path, course: Path, target: Path,
                   assignment: NotebookNode) -> Result:
    asked, name = chapter(handed.chapter), handed.chapter
    result = Result(student, file.name, name, 0.0, asked.points, notes=handed.notes, sandbox=sandbox.kind())
    with tempfile.TemporaryDirectory(prefix="course-", ignore_cleanup_errors=True) as temporary:
        work = Path(temporary)
        graded = _with_nbgrader(handed, course, work, assignment)
        for question_name, verdict in graded.metadata["course"]["verdicts"].items():
            result.questions[question_name] = {k: verdict[k] for k in ("points", "out_of", "status", "message")}
        if count := graded.metadata["course"]["left_out"]:
            result.notes.append(f"{count} cell(s) ended the Python process or never ended; they were left out.")
        result.points = sum(entry["points"] for entry in result.questions.values())
        target.mkdir(parents=True, exist_ok=True)
        for kind, ending in (("autograded", "ipynb"), ("feedback", "html")):
            shutil.copy(work / kind / "student" / name / f"{name}.{ending}", target / f"{name}.{ending}")
    return result


def _with_nbgrader(handed: submissions.Handed, course: Path, work: Path, assignment: NotebookNode) -> NotebookNode:
    """nbgrader's own way through: restore the tests, run, judge, save the grades, write the feedback."""
    name = handed.chapter
    notebook = work / "submitted" / "student" / name / f"{name}.ipynb"
    notebook.parent.mkdir(parents=True)
    (work / "run").mkdir()
    nbformat.write(submissions.notebook(handed, assignment), notebook)
    shutil.copy(course / "gradebook.db", work / "gradebook.db")
    inputs = work / "inputs.json"
    shutil.copy(course / "hidden" / f"{name}.inputs.json", inputs)
    os.chmod(work, 0o711)
    user = sandbox.kernelspec(work, inputs)
    config = settings(work)
    config.Sandboxed.kernel_name = sandbox.KERNEL
    config.Sandboxed.startup_timeout, config.Sandboxed.iopub_timeout = START_SECONDS, 30
    config.Sandboxed.raise_on_iopub_timeout = False
    config.Sandboxed.shutdown_kernel = "immediate"
    config.KernelManager.transport = "ipc"
    config.KernelManager.connection_file = str(work / "run" / "k.json")
    config.Judge.hidden = str((course / "hidden" / f"{name}.json").absolute())
    config.Judge.letters = {str(item): letter for item, letter in handed.quiz.items()}
    config.Autograde.autograde_preprocessors = [Sandboxed, Judge, LimitOutput, SaveAutoGrades, CheckCellMetadata]
    api = NbGraderAPI(config=config)
    try:
        with setenv(JUPYTER_PATH=str(work)):  # where the kernel is found
            _must(api.autograde(name, "student", force=True, create=True))
        _must(api.generate_feedback(name, "student", force=True))
    finally:
        sandbox.sweep(user)
    return nbformat.read(work / "autograded" / "student" / name / f"{name}.ipynb", as_version=4)


def _must(done: dict[str, Any]) -> None:
    if not done["success"]:
        raise RuntimeError(done.get("log") or done.get("error") or "nbgrader stopped without a word")
