"""A class of students, made by a script: good ones, hurried ones, accidents and attacks, each with its due score.

    python tests/simulated_class.py             a hundred files in a temporary folder, graded and checked, and the odd
                                                ones of simulated_odd.py
    python tests/simulated_class.py 37          fewer: at least one of every kind

`make_class` writes the files and says what each must get; `wrong` compares that with the results.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from classroom import assignments  # noqa: E402

from course_lib.notebook.exercises.questions import Chapter, chapter  # noqa: E402


@dataclass(frozen=True)
class Expected:
    """One file and what its row must say."""

    file: str
    kind: str
    chapter: str  # empty if the file cannot be graded
    points: float
    note: str = ""  # must stand in the notes
    messages: dict[str, str] | None = None  # exercise -> what its diagnosis must contain


# --- what students write ----------------------------------------------------------------------------------------------


def solution_text(name: str) -> str:
    """The reference solution of an exercise as text, with the helpers it calls."""
    module = _reference(name)
    function = module.SOLUTIONS[name]
    tree = {node.name: node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.FunctionDef)}
    wanted, todo = [], [function.__name__]
    while todo:
        found = todo.pop()
        if found in tree and found not in wanted:
            wanted.append(found)
            todo += [node.id for node in ast.walk(tree[found]) if isinstance(node, ast.Name)]
    return "\n\n\n".join(ast.unparse(tree[found]) for found in reversed(wanted))


def _reference(name: str) -> ModuleType:
    return importlib.import_module(f"course_lib.notebook.exercises.reference.{name.partition('.')[0]}")


def mistake_text(name: str, number: int) -> str:
    """A typical mistake of an exercise. Mistakes share helpers, so the cell carries their module in one string."""
    module = importlib.import_module(f"solutions.{name.partition('.')[0]}")
    mistake = list(module.MISTAKES[name])[number]
    function = next(q.function for q in chapter(name.partition(".")[0]).questions if q.name == name)
    # A sandbox knows neither `solutions` nor the reference: the mistakes carry what they use of both.
    imports = r"^from (solutions|course_lib\.notebook\.exercises\.reference\.\w+) import (\(.*?\)|[^\n]*)\n"
    own = re.sub(imports, "", inspect.getsource(module), flags=re.M | re.S)
    text = inspect.getsource(_reference(name)) + own.replace("from __future__ import annotations\n", "")
    return (f"hurried = {{'__name__': 'hurried'}}\nexec({text!r}, hurried)\n"
            f"{function} = hurried['MISTAKES']['{name}']['{mistake}']")


def same_for_all(asked: Chapter, body: str) -> dict[str, str]:
    """One body for the functions of all exercises."""
    return {q.name: f"def {q.function}(*args, **kwargs):\n    {body}" for q in asked.questions}


def right_letters(asked: Chapter) -> str:
    """All quiz answers."""
    return "".join(item.right for item in asked.quiz)


# --- what students hand in --------------------------------------------------------------------------------------------


class Student:
    """One assignment with answers put in; every method changes the notebook in some way and returns the student."""

    def __init__(self, release: NotebookNode, name: str) -> None:
        self.notebook, self.asked = nbformat.from_dict(json.loads(json.dumps(release))), chapter(name)
        # The first exercise that no other solution brings along as a helper: breaking it costs its own points only.
        self.first = next(q for q in self.asked.questions if not any(
            f"def {q.function}(" in solution_text(other.name) for other in self.asked.questions if other is not q))

    def cell(self, name: str) -> NotebookNode:
        """The cell of an exercise or of the quiz, such as ch01.q1 or ch01.quiz."""
        return next(c for c in self.notebook.cells
                    if c.metadata.get("nbgrader", {}).get("grade_id") == name.replace(".", "-"))

    def writes(self, answers: dict[str, str]) -> Student:
        for name, text in answers.items():
            self.cell(name).source = text
        return self

    def solves(self) -> Student:
        self.writes({q.name: solution_text(q.name) for q in self.asked.questions})
        quiz = f"{self.asked.name}.quiz"
        return self.writes({quiz: f'answer("{quiz}", "{right_letters(self.asked)}")'})

    def first_is(self, body: str) -> Student:
        """The first exercise does something else than it should."""
        return self.writes({self.first.name: f"def {self.first.function}(*args, **kwargs):\n    {body}"})

    def adds(self, text: str, place: int = 3) -> Student:
        self.notebook.cells.insert(place, new_code_cell(text))
        return self


FULL, BUT_FIRST, NOTHING = "full", "all but the first", "nothing"
FORGED = """\
import json
from IPython.display import display
from course_lib.notebook.exercises import checking, guard
right = {"answer": {"kind": "float", "shape": [], "dtype": "", "items": [0.0]}, "gradient": None, "trouble": "",
         "not_started": False}
for _ in range(3):
    display({"application/x-course-answers": json.dumps({"refused": "", "outcomes": [right] * 20})}, raw=True)
guard.run = lambda function, calls, seconds: [guard.from_plain(right)] * len(calls)
checking.assess = lambda *_: checking.Verdict("", "correct", 99, 99, "", 2)
checking.equal = lambda *_, **__: True"""
LIAR = """\
class Yes(float):
    shape, dtype, kind = (), 'float32', 'tensor'
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = lambda self, other: True
    __hash__ = None
    def __getattr__(self, name):
        return Yes()
    def __call__(self, *_, **__):
        return self"""
READER = """\
import glob, os
        found = [f for p in {places!r} for f in glob.glob(p + '/**/*', recursive=True) if f.endswith(('.json', '.py'))]
        found = [f for f in found if any(s in f for s in ('hidden/', 'solutions/', 'reference/', 'gradebook'))]
        raise ValueError('found %d files' % len(found))""".replace("\n        ", "\n    ")
NETWORK = "import socket; socket.create_connection(('1.1.1.1', 53), timeout=3); raise ValueError('the network is open')"


# kind -> (what the student does, points, note, what the first exercise's diagnosis says)
ACCIDENTS: dict[str, tuple[Callable[[Student], object], str, str, str]] = {
    "empty": (lambda s: s, NOTHING, "", "Replace the line"),
    "naive": (lambda s: s.writes(same_for_all(s.asked, "return torch.tensor(0.5)")), NOTHING, "", ""),
    "not a number": (lambda s: s.writes(same_for_all(s.asked, "return torch.tensor(float('nan'))")), NOTHING, "", ""),
    "always equal": (lambda s: s.adds(LIAR).writes(same_for_all(s.asked, "return Yes()")), NOTHING, "", ""),
    "forged answers": (lambda s: s.adds(FORGED), NOTHING, "", ""),
    "syntax error": (lambda s: s.solves().writes({s.first.name: f"def {s.first.function}(:\n    return ]"}), BUT_FIRST,
                     "", "There is no function"),
    "endless loop": (lambda s: s.solves().first_is("while True: pass"), BUT_FIRST, "", "did not finish within"),
    "endless cell": (lambda s: s.solves().adds("import time\nwhile True:\n    try:\n        time.sleep(1)\n"
                                               "    except BaseException:\n        pass"), FULL, "left out", ""),
    "exit in the function": (lambda s: s.solves().first_is("import os; os._exit(0)"), BUT_FIRST, "",
                             "ended the whole Python process"),
    "exit in a cell": (lambda s: s.solves().adds("import os\nos._exit(3)"), FULL, "left out", ""),
    "kill in a cell": (lambda s: s.solves().adds(
        "import os\nfor process in (1, os.getppid(), os.getpid()):\n    try:\n        os.kill(process, 9)\n"
        "    except OSError:\n        pass"), FULL, "left out", ""),
    "fork bomb": (lambda s: s.solves().first_is("import os\n    while True: os.fork()"), BUT_FIRST, "", ""),
    "memory hog": (lambda s: s.solves().first_is("return torch.ones(10**13)"), BUT_FIRST, "",
                   "memory"),
    "memory hog in a cell": (lambda s: s.solves().adds("hoard = [torch.empty(10**9) for _ in range(100)]"),
                             FULL, "", ""),
    "huge output": (lambda s: s.solves().adds("print('x' * 30_000_000)"), FULL, "", ""),
    "reads solutions": (lambda s: s.solves().first_is(READER.format(places=[str(ROOT), "/root", "/home", "/course"])),
                        BUT_FIRST, "", "found 0 files"),
    "network": (lambda s: s.solves().first_is(NETWORK), BUT_FIRST, "", "unreachable"),
    "changes its input": (lambda s: s.solves().first_is("args[0].clear() if hasattr(args[0], 'clear') else "
                                                        "args[0].zero_(); return args[0]"), BUT_FIRST, "", ""),
    "library's own": (lambda s: s.solves().first_is("from course_lib.methods import hinton; return hinton"), BUT_FIRST,
                      "", "course_lib.methods"),
}


def _edited_tests(student: Student) -> None:
    for cell in student.notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = f"{cell.metadata.nbgrader.points}"
            cell.metadata.nbgrader.points = 1000


def _deleted_tests(student: Student) -> None:
    student.solves().notebook.cells = [c for c in student.notebook.cells
                                       if not c.metadata.get("nbgrader", {}).get("grade")]


def _duplicated(student: Student) -> None:
    stubs = [nbformat.from_dict(dict(c)) for c in student.notebook.cells if c.metadata.get("nbgrader")]
    student.solves().notebook.cells += stubs


def _reordered(student: Student) -> None:
    student.solves().notebook.cells.reverse()


def _large(student: Student) -> None:
    student.solves().notebook.cells[1].outputs = [new_output("stream", name="stdout", text="x" * 50_000_000)]


REARRANGED: dict[str, tuple[Callable[[Student], None], str, str]] = {
    "edited tests": (_edited_tests, NOTHING, "was edited"),
    "deleted tests": (_deleted_tests, FULL, ""),
    "duplicated cells": (_duplicated, FULL, ""),
    "reordered cells": (_reordered, FULL, ""),
    "50 MB": (_large, FULL, ""),
}

# file name -> content: nothing of these can be graded
BROKEN: dict[str, bytes] = {
    "corrupt.ipynb": b'{"cells": [{"cell_type": "code", "source": ["def so',
    "empty file.ipynb": b"",
    "nested.ipynb": b"[" * 200_000,
    "binary.ipynb": bytes(range(256)) * 100,
    "another language.json": b'{"answer": 42}',
    "essay.pdf": b"%PDF-1.7\n" + bytes(2000),
    "strange cells.ipynb": b'{"cells": [3, null, {"cell_type": "code", "source": {"a": 1}}], "nbformat": "x"}',
}


def exported(asked: Chapter) -> str:
    """The file of export_answers() of somebody who solved everything."""
    exercises = {q.name: {"status": "correct", "points": 0, "attempts": 1, "hints": 0, "message": "",
                          "source": solution_text(q.name), "needs": {"torch": "import torch as torch"}}
                 for q in asked.questions}
    quiz = {f"{asked.name}.quiz{i}": item.right for i, item in enumerate(asked.quiz, start=1)}
    return json.dumps({"format": 1, "who": "", "exercises": exercises, "quiz": quiz, "polls": {}})


def whole_chapter(asked: Chapter) -> NotebookNode:
    """The chapter's own notebook, trainings and all, with the exercises solved in it."""
    notebook = jupytext.read(assignments.text_of(asked.name), fmt="md:myst")
    for cell in notebook.cells:
        for q in asked.questions:
            if cell.cell_type == "code":
                cell.source = cell.source.replace(q.stub.strip(), solution_text(q.name))
    notebook.cells.append(new_code_cell(f'answer("{asked.name}.quiz", "{right_letters(asked)}")'))
    return notebook


# --- the class --------------------------------------------------------------------------------------------------------


def make_class(folder: Path, course: Path, count: int = 100) -> list[Expected]:
    """Write `count` files (or as many as there are kinds, if that is more) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in (course / "release").iterdir())
    releases = {name: nbformat.read(course / "release" / name / f"{name}.ipynb", as_version=4) for name in names}
    made = [*_broken(folder), *_everyone_once(folder, releases), *_hurried(folder, releases)]
    for number in range(len(made), count):  # the rest of the class is good
        name = names[number % len(names)]
        made.append(_write(folder, f"student {number}", Student(releases[name], name).solves(), FULL))
    return made


# What goes wrong most often, and what would hurt most: the short lane of the tests looks at these.
QUICK = ("empty", "always equal", "forged answers", "syntax error", "endless loop", "exit in the function",
         "exit in a cell", "reads solutions", "network", "library's own")


def make_quick(folder: Path, course: Path) -> list[Expected]:
    """One right submission of every chapter, and ten accidents."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in (course / "release").iterdir())
    releases = {name: nbformat.read(course / "release" / name / f"{name}.ipynb", as_version=4) for name in names}
    made = [_write(folder, f"good {name}", Student(releases[name], name).solves(), FULL) for name in names]
    for kind in QUICK:
        does, points, note, first = ACCIDENTS[kind]
        student = Student(releases[names[len(made) % len(names)]], names[len(made) % len(names)])
        does(student)
        made.append(_write(folder, kind, student, points, note, first))
    return made


def _broken(folder: Path) -> list[Expected]:
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
    (folder / "link.ipynb").symlink_to(ROOT / "pyproject.toml")
    return [Expected(name, "broken", "", 0) for name in (*BROKEN, "link.ipynb")]


def _everyone_once(folder: Path, releases: dict[str, NotebookNode]) -> list[Expected]:
    names, made = list(releases), []

    def turn() -> str:
        return names[len(made) % len(names)]

    for kind, (does, points, note, first) in ACCIDENTS.items():
        student = Student(releases[turn()], turn())
        does(student)
        made.append(_write(folder, kind, student, points, note, first))
    for kind, (does, points, note) in REARRANGED.items():
        student = Student(releases[turn()], turn())
        does(student)
        made.append(_write(folder, kind, student, points, note))
    for who in ("Zoë Ångström 学生 🎓", "=HYPERLINK(1)", "dots [a] .. *", "x" * 180):
        made.append(_write(folder, who, Student(releases[turn()], turn()).solves(), FULL, kind="name"))
    for kind in ("exported", "whole chapter"):
        asked = chapter(turn())
        file = folder / kind / ("answers.json" if kind == "exported" else f"{asked.name}_mine.ipynb")
        file.parent.mkdir(exist_ok=True)
        text = exported(asked) if kind == "exported" else nbformat.writes(whole_chapter(asked))
        file.write_text(text, encoding="utf-8")
        made.append(Expected(f"{kind}/{file.name}", kind, asked.name, asked.points))
    return made


def _hurried(folder: Path, releases: dict[str, NotebookNode]) -> list[Expected]:
    """Two typical mistakes in every exercise of every chapter; each must be told by its own sentence."""
    made = []
    for name, release in releases.items():
        asked = chapter(name)
        for number in (0, 1):
            student = Student(release, name).writes({q.name: mistake_text(q.name, number) for q in asked.questions})
            said = {q.name: list(q.mistakes.values())[_place(q.name, number)] for q in asked.questions}
            made.append(_write(folder, f"hurried {name} {number}", student, NOTHING, messages=said, kind="hurried"))
    return made


def _place(name: str, number: int) -> int:
    """Where the mistake stands among the question's sentences."""
    module = importlib.import_module(f"solutions.{name.partition('.')[0]}")
    asked = next(q for q in chapter(name.partition(".")[0]).questions if q.name == name)
    return list(asked.mistakes).index(list(module.MISTAKES[name])[number])


def _write(folder: Path, who: str, student: Student, points: str, note: str = "", first: str = "", *,
           kind: str = "", messages: dict[str, str] | None = None) -> Expected:
    file, asked = folder / f"{who}.ipynb", student.asked
    file.write_text(nbformat.writes(student.notebook), encoding="utf-8")
    worth = {FULL: asked.points, NOTHING: 0.0, BUT_FIRST: asked.points - student.first.points}[points]
    said = messages or ({student.first.name: first} if first else None)
    return Expected(file.name, kind or who, asked.name, worth, note, said)


def wrong(expected: list[Expected], results: list) -> list[str]:
    """Every difference between what the rows must say and what they say."""
    found = {result.file: result for result in results}
    problems = [] if len(results) == len(expected) else [f"{len(results)} rows for {len(expected)} files"]
    for one in expected:
        result = found.get(Path(one.file).name)
        if result is None:
            problems.append(f"{one.file}: no row")
            continue
        if (result.chapter, result.points) != (one.chapter, one.points):
            problems.append(f"{one.file} ({one.kind}): {result.chapter or 'not graded'} {result.points:g}, but "
                            f"{one.chapter or 'not graded'} {one.points:g} was expected; {result.notes} "
                            f"{[(k, v['message']) for k, v in result.questions.items() if v['status'] != 'correct']}")
        if one.note not in " ".join(result.notes) or (not one.chapter and not result.notes):
            problems.append(f"{one.file} ({one.kind}): {one.note!r} is not in its notes {result.notes}")
        for name, said in (one.messages or {}).items():
            message = result.questions.get(name, {}).get("message", "")
            if said not in message:
                problems.append(f"{one.file} ({one.kind}): {name} says {message!r}, not {said!r}")
    return problems


def main(count: int) -> int:
    import simulated_odd  # it builds on this module
    from classroom import report, running

    with tempfile.TemporaryDirectory(prefix="class-") as temporary:
        course, folder = Path(temporary) / "class", Path(temporary) / "handed in"
        assignments.generate(course, assignments.available())
        expected = [*make_class(folder, course, count), *simulated_odd.make_odd(folder, course)]
        started = time.monotonic()
        results = running.grade_all(folder, course, running.here(running.workers()))
        seconds = time.monotonic() - started
        report.write(results, course, f"Graded in {seconds:.0f} s.")
        problems = wrong(expected, results)
        print("\n".join(problems) or f"{len(results)} rows, every one as expected, in {seconds:.0f} s")
        return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
