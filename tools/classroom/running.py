"""A whole class: several submissions at a time, only those that changed, and no failure stops the others.

Each submission is graded in a process of its own, forked from a server that has imported everything once; a process
that hangs or dies costs one row, not the run. `here` works on this machine, `on_dask` on the workers of a Dask
cluster: files go there and come back as bytes, so workers need no shared folder, only the same checkout.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from html import escape
from pathlib import Path

from nbgrader.api import Gradebook

from classroom import grading, sandbox
from classroom.grading import Result
from classroom.submissions import grade_id

MOST_SECONDS = 400  # for one file, whatever it does; a chapter in it has its own, shorter limit
RESULTS = "results.json"


@dataclass(frozen=True)
class Task:
    """One file that was handed in. `name` is its folder in class/graded; `student` is how the class calls them."""

    file: Path
    student: str
    name: str


# --- what was handed in -----------------------------------------------------------------------------------------------


def collect(folder: Path) -> list[Task]:
    """Every file below `folder`. In a folder of its own the student is the folder's name, else the file's."""
    tasks = []
    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder)
        if any(part.startswith(".") for part in place.parts) or (file.is_dir() and not file.is_symlink()):
            continue
        student = place.parts[0] if len(place.parts) > 1 else file.stem
        tasks.append(Task(file, student, f"{plain(student)}-{_short(str(place))}"))
    return tasks


def plain(name: str) -> str:
    """A name for files and databases: letters, digits and - only; one that had others gets a number of its own."""
    simple = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:40]
    return simple if simple == name else f"{simple or 'student'}-{_short(name)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def stamp(task: Task, course: Path, shared: bytes = b"") -> str:
    """What a result depends on: the file, the assignments with their hidden tests, the grader, its sandbox.

    shared: what `_shared(course)` returned, so that it is not computed again for every file.
    """
    digest = hashlib.sha256(shared or _shared(course))
    if not task.file.is_symlink():
        digest.update(task.file.read_bytes())
    return digest.hexdigest()


def _shared(course: Path) -> bytes:
    """A digest of what all results of a class depend on."""
    digest = hashlib.sha256(sandbox.kind().encode())
    library = Path(grading.guard.__file__).parent
    for file in (*sorted(course.glob("source/*/*.ipynb")), *sorted(course.glob("hidden/ch*.json")),
                 *sorted(course.glob("hidden/lab*.json")), *sorted(Path(__file__).parent.glob("*.py")),
                 *sorted(library.glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.digest()


# --- one submission, in a process that may die ------------------------------------------------------------------------


def supervised(file: Path, student: str, course: Path, target: Path) -> None:
    """Grade one file in a process of its own; whatever happens to it, `target` holds a result afterwards."""
    shutil.rmtree(target, ignore_errors=True)
    if file.is_symlink():
        grading.save([Result(student, file.name, notes=["This is a link and no file."])], target)
        return
    process = _server().Process(target=grading.grade, args=(file, student, course.absolute(), target.absolute()))
    process.start()
    process.join(MOST_SECONDS)
    late = process.is_alive()
    if late:
        process.kill()
        process.join()
    if not (target / RESULTS).exists():
        why = f"took longer than {MOST_SECONDS} seconds" if late else f"stopped the grader (status {process.exitcode})"
        grading.save([Result(student, file.name, notes=[f"This file {why}; look at it by hand."])], target)


def _server() -> multiprocessing.context.BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["classroom.grading"])
    return context


# --- many submissions -------------------------------------------------------------------------------------------------

Engine = Callable[[list[Task], Path, Path], Iterator[Task]]


def here(workers: int) -> Engine:
    """Grade on this machine, `workers` at a time."""
    def engine(tasks: list[Task], course: Path, graded: Path) -> Iterator[Task]:
        with ThreadPoolExecutor(workers) as pool:
            waiting = {pool.submit(supervised, task.file, task.student, course, graded / task.name): task
                       for task in tasks}
            for done in as_completed(waiting):
                done.result()
                yield waiting[done]

    return engine


def on_dask(address: str) -> Engine:
    """Grade on the workers of the Dask scheduler at `address`; each takes one submission at a time."""
    def engine(tasks: list[Task], course: Path, graded: Path) -> Iterator[Task]:
        from distributed import Client, as_completed

        with Client(address) as client:
            files = client.scatter(_course_files(course), broadcast=True)
            waiting = {client.submit(elsewhere, task.file.name, _content(task.file), task.student, files, pure=False,
                                     retries=2): task for task in tasks}
            for done in as_completed(waiting):
                target = graded / waiting[done].name
                shutil.rmtree(target, ignore_errors=True)
                _unpack(done.result(), target)
                yield waiting[done]

    return engine


def elsewhere(name: str, content: bytes, student: str, course: dict[str, bytes]) -> dict[str, bytes]:
    """Grade one file on a worker that shares no folder with the one who asks: bytes in, bytes out."""
    with tempfile.TemporaryDirectory(prefix="course-") as temporary:
        work = Path(temporary)
        _unpack(course, work / "course")
        _unpack({name: content}, work)
        supervised(work / name, student, work / "course", work / "graded")
        return {file.name: file.read_bytes() for file in (work / "graded").iterdir()}


def _course_files(course: Path) -> dict[str, bytes]:
    files = [course / "gradebook.db", *course.glob("source/*/*.ipynb"), *course.glob("hidden/*.json")]
    return {str(file.relative_to(course)): file.read_bytes() for file in files}


def _content(file: Path) -> bytes:
    return b"" if file.is_symlink() else file.read_bytes()


def _unpack(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def grade_all(submissions: Path, course: Path, engine: Engine, say: Callable[[str], None] = print) -> list[Result]:
    """Grade what changed, put everything into the gradebook, and return all results in the order of the files."""
    tasks, graded = collect(submissions), course / "graded"
    shared = _shared(course)
    stamps = {task.name: stamp(task, course, shared) for task in tasks}
    fresh = [task for task in tasks if _stamped(graded / task.name) != stamps[task.name]]
    say(f"{len(tasks)} files, {len(fresh)} of them new or changed. {sandbox.explained()}")
    stored = {}
    for count, task in enumerate(engine(fresh, course, graded), start=1):
        stored[task.name] = results(graded, task)
        (graded / task.name / "stamp.txt").write_text(stamps[task.name], encoding="utf-8")
        points = ", ".join(f"{r.chapter or 'not graded'} {r.points:g} of {r.out_of:g}" for r in stored[task.name])
        say(f"[{count}/{len(fresh)}] {task.file.name}: {points}")
    book, found = Book(course), []
    for task in tasks:
        of_this = stored.get(task.name) or results(graded, task)
        book.enter(task, of_this, graded / task.name)
        found += of_this
    book.override(course / "overrides.csv")
    book.correct(found)
    return found


def results(graded: Path, task: Task) -> list[Result]:
    """The stored results of one file."""
    return [Result(**entry) for entry in json.loads((graded / task.name / RESULTS).read_text(encoding="utf-8"))]


def _stamped(folder: Path) -> str:
    file = folder / "stamp.txt"
    return file.read_text(encoding="utf-8") if file.exists() and (folder / RESULTS).exists() else ""


# --- nbgrader's gradebook ---------------------------------------------------------------------------------------------


class Book:
    """nbgrader's gradebook of the class, and its folders, so that nbgrader's own tools show what was graded."""

    def __init__(self, course: Path) -> None:
        self.course = course
        self.address = f"sqlite:///{(course / 'gradebook.db').absolute()}"

    def enter(self, task: Task, found: Iterable[Result], folder: Path) -> None:
        """Store the automatic points. Points that somebody gave by hand stay."""
        with Gradebook(self.address, "distilling-bert") as book:
            for result in found:
                student = plain(result.student)
                self._pages(result, student, folder)
                if not result.questions:
                    continue
                book.update_or_create_student(student, first_name=result.student, last_name="")
                book.update_or_create_submission(result.chapter, student)
                for name, entry in result.questions.items():
                    grade = book.find_grade(f"{grade_id(name)}-test", result.chapter, result.chapter, student)
                    grade.auto_score, grade.needs_manual_grade = entry["points"], False
                book.db.commit()

    def _pages(self, result: Result, student: str, folder: Path) -> None:
        feedback = self.course / "feedback" / student
        feedback.mkdir(parents=True, exist_ok=True)
        if not result.questions:
            page = feedback / f"{plain(result.file)}.html"
            text = NOT_GRADED.format(file=escape(result.file), why=escape(" ".join(result.notes)))
            page.write_text(text, encoding="utf-8")
            return
        shutil.copy(folder / f"{result.chapter}.html", feedback / f"{result.chapter}.html")
        autograded = self.course / "autograded" / student / result.chapter
        autograded.mkdir(parents=True, exist_ok=True)
        target = autograded / f"{result.chapter}.ipynb"
        target.unlink(missing_ok=True)  # nbgrader writes it read-only
        shutil.copy(folder / f"{result.chapter}.ipynb", target)

    def override(self, file: Path) -> None:
        """Points given by hand: student, chapter, question, points, reason. Empty points take the override back."""
        if not file.exists():
            return
        with Gradebook(self.address, "distilling-bert") as book, file.open(encoding="utf-8-sig", newline="") as rows:
            for number, row in enumerate(csv.DictReader(rows), start=2):
                try:
                    chapter, student = row["chapter"], plain(row["student"])
                    cell = grade_id(f"{chapter}.{row['question']}")
                    points = float(row["points"]) if row["points"].strip() else None
                    book.find_grade(f"{cell}-test", chapter, chapter, student).manual_score = points
                    book.find_comment(cell, chapter, chapter, student).manual_comment = row.get("reason") or None
                    book.db.commit()
                except Exception as error:  # one wrong line must not keep the others from counting
                    print(f"{file.name}, line {number} was not used: {type(error).__name__}: {error}")

    def correct(self, found: Iterable[Result]) -> None:
        """Take over into the results what was given by hand, here or in nbgrader's formgrader."""
        with Gradebook(self.address, "distilling-bert") as book:
            for result in found:
                for name, entry in result.questions.items():
                    grade = book.find_grade(f"{grade_id(name)}-test", result.chapter, result.chapter,
                                            plain(result.student))
                    if grade.manual_score is not None and grade.manual_score != entry["points"]:
                        entry["points"] = grade.manual_score
                        result.notes.append(f"{name}: {grade.manual_score:g} points given by hand.")
                result.points = sum(entry["points"] for entry in result.questions.values())


NOT_GRADED = ('<!doctype html><html lang="en"><meta charset="utf-8"><title>Not graded</title>'
              "<h1>{file}</h1><p>This file was not graded. {why}</p></html>\n")


def workers() -> int:
    """As many submissions at a time as there are cores."""
    return max(1, os.cpu_count() or 1)
