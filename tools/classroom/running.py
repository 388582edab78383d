"""A whole class: several submissions at a time, only those that changed, and no failure stops the others.

Each submission is graded in a process of its own, forked from a server that has imported everything once; a process
that hangs or dies costs one row, not the run. `here` works on this machine, `on_dask` on the workers of a Dask
cluster: files go there and come back as bytes, so workers need no shared folder, only the same checkout.

Ctrl-C ends the running ones and keeps what is graded; the next run does the rest.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

from classroom import grading, overrides, pages, sandbox, submissions
from classroom.grading import Result
from classroom.submissions import grade_id
from classroom.untrusted import folder_name, short, shown

MOST_SECONDS = 900  # for one file, whatever it does; a chapter in it has its own, shorter limits
RESULTS = "results.json"
# What a grader's processes need of the instructor's environment; the rest may hold secrets.
NEEDED = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Task:
    """One file that was handed in. `name` is its folder in class/graded; `student` is how the class calls them."""

    file: Path
    student: str
    name: str
    key: str  # the student's name for folders and databases, which no other student shares


# --- what was handed in -----------------------------------------------------------------------------------------------


def collect(folder: Path) -> list[Task]:
    """Everything below `folder` that is no folder. In a folder of its own the student is the folder's name, else the
    file's."""
    tasks = []
    for place in sorted(_places(folder)):
        parts = place.parts
        student = parts[0] if len(parts) > 1 else place.stem
        key = folder_name(student)
        tasks.append(Task(folder / place, shown(student), f"{key}-{short(str(place))}", key))
    return tasks


def _places(folder: Path) -> Iterator[Path]:
    for above, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(above, name))]
        for name in (*files, *links):
            yield Path(above, name).relative_to(folder)


def stamp(task: Task, course: Path, shared: bytes = b"") -> str:
    """What a result depends on: the file, the assignments with their hidden tests, the grader, its sandbox.

    shared: what `_shared(course)` returned, so that it is not computed again for every file.
    """
    digest = hashlib.sha256(shared or _shared(course))
    try:
        found = os.stat(task.file, follow_symlinks=False)
        digest.update(f"{stat.S_IFMT(found.st_mode)} {found.st_size}".encode())
        if stat.S_ISREG(found.st_mode) and found.st_size <= submissions.MOST_BYTES:
            with task.file.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
    except OSError as error:
        digest.update(type(error).__name__.encode())
    return digest.hexdigest()


def _shared(course: Path) -> bytes:
    """A digest of what all results of a class depend on."""
    digest = hashlib.sha256(sandbox.kind().encode())
    library = Path(grading.guard.__file__).parent
    for file in (*sorted(course.glob("source/*/*.ipynb")), *sorted(course.glob("hidden/ch*.json")),
                 *sorted(course.glob("hidden/lab*.json")), *sorted(Path(__file__).parent.glob("*.py")),
                 *sorted(library.glob("*.py")), *sorted(library.glob("golden/*.json"))):
        digest.update(file.read_bytes())
    return digest.digest()


# --- one submission, in a process that may die ------------------------------------------------------------------------


def supervised(file: Path, student: str, course: Path, target: Path, stopped: threading.Event | None = None) -> None:
    """Grade one file in a process of its own; whatever happens to it, `target` holds a result afterwards.

    stopped: set when the whole run is to end; then `target` stays empty.
    """
    shutil.rmtree(target, ignore_errors=True)
    process = _server().Process(target=grading.in_a_process, args=(file, student, course.absolute(), target.absolute()))
    process.start()
    deadline = time.monotonic() + MOST_SECONDS
    while process.is_alive() and time.monotonic() < deadline and not (stopped and stopped.is_set()):
        process.join(0.2)
    late = process.is_alive()
    if late:
        process.kill()
        process.join()
    if not (target / RESULTS).exists() and not (stopped and stopped.is_set()):
        why = f"took longer than {MOST_SECONDS} seconds" if late else f"stopped the grader (status {process.exitcode})"
        grading.save([grading.not_graded(file, student, f"This file {why}; look at it by hand.")], target)


def _server() -> multiprocessing.context.BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["classroom.grading"])
    with _bare_environment():
        multiprocessing.forkserver.ensure_running()
    return context


_changing = threading.Lock()


@contextmanager
def _bare_environment() -> Iterator[None]:
    """Without what a grader does not need: a student's code may find a way to read it."""
    with _changing:
        before = dict(os.environ)
        for name in before:
            if name not in NEEDED and not name.startswith(("PYTHON", "COURSE_", "LC_", "OMP_", "HF_", "XDG_")):
                del os.environ[name]
        try:
            yield
        finally:
            os.environ.update(before)


# --- many submissions -------------------------------------------------------------------------------------------------

Engine = Callable[[list[Task], Path, Path], Iterator[Task]]


def here(workers: int) -> Engine:
    """Grade on this machine, `workers` at a time."""
    def engine(tasks: list[Task], course: Path, graded: Path) -> Iterator[Task]:
        stopped = threading.Event()
        pool = ThreadPoolExecutor(workers)
        try:
            waiting = {pool.submit(supervised, task.file, task.student, course, graded / task.name, stopped): task
                       for task in tasks}
            left = set(waiting)
            while left:
                done, left = wait(left, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    yield waiting[future]
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)

    return engine


def on_dask(address: str) -> Engine:
    """Grade on the workers of a Dask scheduler; see the instructor's page for how to start them."""
    def engine(tasks: list[Task], course: Path, graded: Path) -> Iterator[Task]:
        from distributed import Client, as_completed

        with Client(address) as client:
            files = client.scatter(_course_files(course), broadcast=True)
            waiting = {}
            for task in tasks:
                try:
                    content = submissions.content_of(task.file)
                except submissions.NotAnAnswerError as error:
                    grading.save([grading.not_graded(task.file, task.student, str(error))], graded / task.name)
                    yield task
                    continue
                waiting[client.submit(elsewhere, os.fsencode(task.file.name), content, task.student, files, pure=False,
                                      retries=2)] = task
            for done in as_completed(waiting):
                target = graded / waiting[done].name
                shutil.rmtree(target, ignore_errors=True)
                _unpack(done.result(), target)
                yield waiting[done]

    return engine


def elsewhere(name: bytes, content: bytes, student: str, course: dict[str, bytes]) -> dict[str, bytes]:
    """Grade one file on a worker that shares no folder with the one who asks: bytes in, bytes out."""
    with tempfile.TemporaryDirectory(prefix="course-") as temporary:
        work = Path(temporary)
        _unpack(course, work / "course")
        _unpack({os.fsdecode(name): content}, work / "handed in")
        supervised(work / "handed in" / os.fsdecode(name), student, work / "course", work / "graded")
        return {file.name: file.read_bytes() for file in (work / "graded").iterdir()}


def _course_files(course: Path) -> dict[str, bytes]:
    files = [*course.glob("source/*/*.ipynb"), *course.glob("hidden/*.json")]
    return {str(file.relative_to(course)): file.read_bytes() for file in files}


def _unpack(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


class Stopped(KeyboardInterrupt):
    """Ctrl-C while grading; `results` are those that were finished, and a row for each of the others."""

    def __init__(self, results: list[Result], done: int, of: int) -> None:
        super().__init__(f"Stopped: {done} of {of} files are graded and kept. The same command does the rest.")
        self.results = results


def grade_all(handed_in: Path, course: Path, engine: Engine, say: Callable[[str], None] = print) -> list[Result]:
    """Grade what changed, put everything into the gradebook, and return all results in the order of the files.

    Raises: Stopped after Ctrl-C, when everything that was graded is in the gradebook and has its page.
    """
    tasks, graded = collect(handed_in), course / "graded"
    say(f"{len(tasks)} files. {sandbox.explained()}")
    shared = _shared(course)
    stamps = {task.name: stamp(task, course, shared) for task in tasks}
    fresh = [task for task in tasks if _stamped(graded / task.name) != stamps[task.name]]
    say(f"{len(fresh)} of them are new or changed.")
    stopped = False
    try:
        for count, task in enumerate(engine(fresh, course, graded), start=1):
            if not _to_be_repeated(results(graded, task)):
                (graded / task.name / "stamp.txt").write_text(stamps[task.name], encoding="utf-8")
            points = ", ".join(_in_short(result) for result in results(graded, task))
            say(f"[{count}/{len(fresh)}] {shown(task.file.name)}: {points}")
    except KeyboardInterrupt:
        stopped = True
    unfinished = [task for task in tasks if stopped and _stamped(graded / task.name) != stamps[task.name]]
    found = {task.name: [_waiting(task)] if task in unfinished else results(graded, task) for task in tasks}
    everything = [result for task in tasks for result in found[task.name]]
    _note_doubles(everything)
    book = Book(course)
    for sentence in book.take(everything, overrides.read(course / "overrides.csv", everything)):
        say(sentence)
    book.show(tasks, found)
    if stopped:
        raise Stopped(everything, len(tasks) - len(unfinished), len(tasks))
    return everything


def _to_be_repeated(found: Iterable[Result]) -> bool:
    """Whether the machine failed and not the student: the next run tries again."""
    return any(note.startswith("The sandbox did not start") for result in found for note in result.notes)


def results(graded: Path, task: Task) -> list[Result]:
    """The stored results of one file."""
    stored = json.loads((graded / task.name / RESULTS).read_text(encoding="utf-8"))
    return [Result(**entry | {"key": task.key}) for entry in stored]


def _in_short(result: Result) -> str:
    what = result.chapter or ("nothing to grade" if result.attachment else "not graded")
    return f"{what} {result.points:g} of {result.out_of:g}" if result.out_of else what


def _waiting(task: Task) -> Result:
    return Result(task.student, shown(task.file.name), notes=["Not graded yet: the run was stopped."], key=task.key)


def _note_doubles(everything: Iterable[Result]) -> None:
    """Say so where a student hands in a chapter twice: the gradebook has one place for both."""
    last: dict[tuple[str, str], Result] = {}
    for result in everything:
        if result.chapter:
            earlier = last.get((result.key, result.chapter))
            if earlier:
                earlier.notes.append(f"Handed in again as {result.file}, which the gradebook holds.")
            last[result.key, result.chapter] = result


def _stamped(folder: Path) -> str:
    file = folder / "stamp.txt"
    return file.read_text(encoding="utf-8") if file.exists() and (folder / RESULTS).exists() else ""


# --- nbgrader's gradebook ---------------------------------------------------------------------------------------------


class Book:
    """nbgrader's gradebook of the class, and its folders, so that nbgrader's own tools show what was graded."""

    def __init__(self, course: Path) -> None:
        self.course = course
        self.address = f"sqlite:///{(course / 'gradebook.db').absolute()}"

    def take(self, everything: list[Result], asked: tuple[list[overrides.Override], list[str]]) -> list[str]:
        """Store the automatic points and those given by hand, and take over what was given by hand earlier.

        Returns: a sentence for each line of the overrides that was not used.
        """
        with Gradebook(self.address, "distilling-bert") as book:
            for result in everything:
                if result.questions:
                    self._enter(book, result)
            book.db.commit()
            for override in asked[0]:
                chapter = override.question.partition(".")[0]
                book.find_grade(f"{grade_id(override.question)}-test", chapter, chapter,
                                override.key).manual_score = override.points
                book.find_comment(grade_id(override.question), chapter, chapter,
                                  override.key).manual_comment = harmless(override.reason) or None
            book.db.commit()
            for result in everything:
                self._correct(book, result)
        return asked[1]

    def _enter(self, book: Gradebook, result: Result) -> None:
        book.update_or_create_student(result.key, first_name=harmless(result.student), last_name="")
        with book.db.no_autoflush:  # nbgrader builds the row in an order that SQLAlchemy warns of
            book.update_or_create_submission(result.chapter, result.key)
        for name, entry in result.questions.items():
            grade = book.find_grade(f"{grade_id(name)}-test", result.chapter, result.chapter, result.key)
            grade.auto_score, grade.needs_manual_grade = entry["points"], False

    def _correct(self, book: Gradebook, result: Result) -> None:
        for name, entry in result.questions.items():
            grade = book.find_grade(f"{grade_id(name)}-test", result.chapter, result.chapter, result.key)
            if grade.manual_score is not None and grade.manual_score != entry["points"]:
                comment = book.find_comment(grade_id(name), result.chapter, result.chapter, result.key)
                entry |= {"automatic": entry["points"], "points": grade.manual_score,
                          "reason": comment.manual_comment or ""}
                result.notes.append(f"{name}: {grade.manual_score:g} points given by hand, instead of "
                                    f"{entry['automatic']:g}.")
        result.points = sum(entry["points"] for entry in result.questions.values())

    def show(self, tasks: Iterable[Task], found: dict[str, list[Result]]) -> None:
        """Write every student's feedback pages, and the notebooks that formgrader opens."""
        assignments = grading.released(self.course)
        for task in tasks:
            for result in found[task.name]:
                self._pages(task, result, assignments)

    def _pages(self, task: Task, result: Result, assignments: dict[str, nbformat.NotebookNode]) -> None:
        feedback = self.course / "feedback" / task.key
        feedback.mkdir(parents=True, exist_ok=True)
        if not result.questions:
            (feedback / f"{folder_name(task.file.name)}.html").write_text(pages.not_graded(result), encoding="utf-8")
            return
        kept = json.loads((self.course / "graded" / task.name / f"{result.chapter}.json").read_text(encoding="utf-8"))
        again = any("Handed in again as" in note for note in result.notes)
        name = f"{result.chapter}-{short(task.file.name)}" if again else result.chapter
        (feedback / f"{name}.html").write_text(pages.feedback(result, kept), encoding="utf-8")
        if not again:
            target = self.course / "autograded" / task.key / result.chapter / f"{result.chapter}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # nbgrader writes it read-only
            notebook = pages.autograded(result, kept, assignments[result.chapter])
            target.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")


def harmless(text: str) -> str:
    """A name or a reason as formgrader may put it into a page: without the signs that HTML reads."""
    return text.translate(str.maketrans({"<": "‹", ">": "›", "&": "+", '"': "'", "`": "'"}))


def workers() -> int:
    """As many submissions at a time as there are cores."""
    return max(1, os.cpu_count() or 1)
