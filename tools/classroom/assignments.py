"""From chapters to nbgrader assignments: the same cells, with tests behind them.

The chapter's text is the only source: its stubs and check calls, the paragraphs above them, its quiz. A stub that
differs from its question stops the generator. Solutions never enter an assignment, so none can be left in it by
mistake; the hidden inputs and their right numbers stand in `class/hidden/` alone.

    class/release.zip               what students get: the course without solutions, and the assignments
    class/release/ch01/ch01.ipynb   one assignment
    class/source/ch01/ch01.ipynb    the same as the grader keeps it
    class/hidden/ch01.json          inputs and right numbers, made with a seed that only this folder knows
    class/gradebook.db              nbgrader's database, with every assignment in it

Only its owner may open the folder.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from traitlets.config import Config

from classroom import handout
from classroom.submissions import grade_id, squeezed
from course_lib.notebook.exercises.questions import Chapter, Question, chapter, chapter_names
from course_lib.shared.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
IMPORTS = ["import torch", "import torch.nn.functional as F", "from torch import Tensor"]
# Their imports read models or data, which an exercise does not need.
HEAVY = ("course_lib", "transformers", "datasets", "importlib", "IPython")
# Delete this line in a release to let the class open solutions as lone learners do.
NO_SOLUTIONS = 'os.environ["COURSE_SOLUTIONS"] = "off"'

RULES = """\
Write your code in place of the lines with `raise`. Run each cell, then the check below it. Hand in this notebook, or
the file that `export_answers()` writes. The checks show you your points. Hidden tests with other numbers decide in the
end: a function that is right passes both. You may add cells. Changed tests are put back before grading.
"""


class DriftError(Exception):
    """Chapter, question and assignment do not say the same; the message says where."""


# --- the notebook -----------------------------------------------------------------------------------------------------


def text_of(name: str, folder: Path = NOTEBOOKS) -> Path | None:
    """The chapter's text source, if it is written already."""
    return next(iter(sorted(folder.glob(f"{name}_*.md"))), None)


def available(folder: Path = NOTEBOOKS) -> list[str]:
    """Chapters and labs that have exercises and a text."""
    return [name for name in chapter_names() if text_of(name, folder)]


def assignment(name: str, folder: Path = NOTEBOOKS) -> NotebookNode:
    """The assignment of one chapter, hidden tests included. Raises: DriftError."""
    asked, file = chapter(name), text_of(name, folder)
    if file is None:
        raise DriftError(f"{name} has no text in {folder.name}/.")
    cells = jupytext.read(file, fmt="md:myst").cells
    title = next(line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()
                 if line.startswith("# "))
    made = [new_markdown_cell(f"{title}: exercises\n\n{RULES}"), _setup(cells, name),
            new_code_cell("\n".join(_imports(cells)), metadata={"tags": ["imports"]})]
    for q in asked.questions:
        made += _exercise(q, cells, file.name)
    made += _quiz(asked, cells, file.name)
    notebook = nbformat.v4.new_notebook(cells=made, metadata={
        "kernelspec": KERNEL,
        "course": {"cells": sorted({squeezed(cell.source) for cell in cells if cell.cell_type == "code"})}})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{number}"
    return notebook


def _setup(cells: list[NotebookNode], name: str) -> NotebookNode:
    for cell in cells:
        if cell.cell_type == "code" and "from course_lib.notebook import start" in cell.source:
            return new_code_cell(cell.source)
    raise DriftError(f"{name} has no setup cell.")


def _imports(cells: list[NotebookNode]) -> list[str]:
    """What the chapter has imported for its exercises: torch always, and light libraries that it uses."""
    lines = dict.fromkeys(IMPORTS)
    for cell in cells:
        if cell.cell_type != "code":
            continue
        for node in ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.M)).body:
            if isinstance(node, ast.Import) and not any(a.name.startswith(HEAVY) for a in node.names):
                lines[ast.unparse(node)] = None
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(HEAVY):
                lines[ast.unparse(node)] = None
    return [*lines, "import os", "",
            "from course_lib.notebook.exercises import answer, check, export_answers, hint, quiz, solution", "",
            NO_SOLUTIONS]


def _exercise(q: Question, cells: list[NotebookNode], file: str) -> list[NotebookNode]:
    line = f'check("{q.name}", {q.function})'
    stub = squeezed(q.stub)
    place = next((i for i, c in enumerate(cells) if c.cell_type == "code" and squeezed(c.source).endswith(stub)), None)
    if place is None:
        raise DriftError(f"{file}: no cell ends with the stub of {q.name}, character for character.")
    if not any(c.cell_type == "code" and line in c.source for c in cells[place:]):
        raise DriftError(f"{file}: {line} is missing after the stub.")
    said = next((c.source for c in reversed(cells[:place]) if c.cell_type == "markdown"), "")
    said = said[max(said.rfind("\n### "), said.rfind("\n## ")) + 1:]
    return [new_markdown_cell(said), new_code_cell(q.stub.strip(), metadata=_solution(q.name)),
            new_code_cell(line, metadata=_test(q.name, q.points))]


def _quiz(asked: Chapter, cells: list[NotebookNode], file: str) -> list[NotebookNode]:
    call = f'quiz("{asked.name}")'
    if not any(line.startswith(call) for c in cells if c.cell_type == "code" for line in c.source.splitlines()):
        raise DriftError(f"{file}: {call} is missing.")
    # A notebook that is handed in carries the letters as text: the clicks stay on the student's machine.
    letters = f'answer("{asked.name}.quiz", "{"-" * len(asked.quiz)}")  # the quiz above writes this line for you'
    points = sum(item.points for item in asked.quiz)
    name = f"{asked.name}.quiz"
    return [new_markdown_cell(f"## Quiz\n\n{len(asked.quiz)} items, {points:g} points."), new_code_cell(call),
            new_code_cell(letters, metadata=_solution(name)),
            new_code_cell("# The letters above are counted when the notebook is graded.", metadata=_test(name, points)),
            new_markdown_cell("## Hand in"), new_code_cell('export_answers("answers.json", who="")')]


def _solution(name: str) -> dict[str, Any]:
    return _nbgrader(grade_id=grade_id(name), grade=False, locked=False, solution=True)


def _test(name: str, points: float) -> dict[str, Any]:
    return _nbgrader(grade_id=f"{grade_id(name)}-test", grade=True, locked=True, solution=False, points=points)


def _nbgrader(**settings: Any) -> dict[str, Any]:
    return {"nbgrader": {**settings, "task": False, "schema_version": 3, "cell_type": "code"}}


# --- hidden tests -----------------------------------------------------------------------------------------------------


def hidden_cases(name: str, seed: int) -> dict[str, Any]:
    """Inputs of another seed and their right numbers, computed as the public ones were: by NumPy, from the formulas."""
    for folder in (ROOT / "tests", ROOT):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return importlib.import_module("solutions.hidden").hidden(name, seed)


# --- the course folder ------------------------------------------------------------------------------------------------

CONFIG = '''\
# nbgrader's settings, written by `make assignments`. Start `jupyter lab` in this folder for nbgrader's formgrader.
import sys

sys.path.insert(0, {tools!r})
from classroom.assignments import settings

c = get_config()
c.merge(settings("."))
'''


def settings(root: Path | str) -> Config:
    """nbgrader's configuration of a course folder."""
    programs = str(Path(sys.executable).parent)
    if programs not in os.environ["PATH"].split(os.pathsep):  # nbgrader calls the program alembic by its bare name
        os.environ["PATH"] = os.pathsep.join([programs, os.environ["PATH"]])
    config = Config()
    config.CourseDirectory.root = str(Path(root).absolute())
    config.CourseDirectory.course_id = "distilling-bert"
    # The notebooks hold no solutions, so the step that would strip them is left out.
    from nbgrader import preprocessors as steps

    config.GenerateAssignment.preprocessors = [steps.LockCells, steps.ClearOutput, steps.CheckCellMetadata,
                                               steps.ComputeChecksums, steps.SaveCells]
    config.NbGraderAPI.log_level = "ERROR"
    return config


def generate(root: Path, names: list[str], folder: Path = NOTEBOOKS, seed: int | None = None) -> list[str]:
    """Write source, hidden tests and release of the named chapters, and tell nbgrader of them.

    seed: of the hidden inputs. By default each assignment has a random one of its own, drawn when the assignment is
    new or has changed, and kept in hidden/seeds.json, so that grading again gives the same numbers.
    Returns: one line per chapter. Raises: DriftError before anything of that chapter is written.
    """
    from nbgrader.apps import NbGraderAPI

    for folder_of_owner in (root, root / "hidden"):
        folder_of_owner.mkdir(parents=True, exist_ok=True)
        folder_of_owner.chmod(0o700)
    tools = str(Path(__file__).resolve().parents[1])
    (root / "nbgrader_config.py").write_text(CONFIG.format(tools=tools), encoding="utf-8")
    api, said = NbGraderAPI(config=settings(root)), []
    for name in names:
        target = root / "source" / name / f"{name}.ipynb"
        text = nbformat.writes(assignment(name, folder), indent=1) + "\n"
        numbers = json.dumps(hidden_cases(name, _seed(root, name, seed, fresh=not _same(target, text))))
        hidden = root / "hidden" / f"{name}.json"
        released = root / "release" / name / f"{name}.ipynb"
        if not (_same(target, text) and _same(hidden, numbers) and released.exists()):
            _write(target, text)
            _write(hidden, numbers)
            done = api.generate_assignment(name, force=True)
            if not done["success"]:
                raise RuntimeError(f"nbgrader could not make the assignment {name}:\n{done.get('log')}")
            _without_course_metadata(released)
        said.append(f"{name}: {chapter(name).points:g} points, {released}")
    said.append(f"to hand out: {handout.write(root)}")
    return said


def _seed(root: Path, name: str, asked: int | None, *, fresh: bool) -> int:
    """The seed of one assignment. Another assignment has another one, so that none tells about the next."""
    if asked is not None:
        return int.from_bytes(hashlib.sha256(f"{asked} {name}".encode()).digest()[:4], "big") >> 1
    file = root / "hidden" / "seeds.json"
    seeds = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if fresh or name not in seeds:
        seeds[name] = secrets.randbelow(2**31)
        _write(file, json.dumps(seeds))
    return seeds[name]


def _same(file: Path, text: str) -> bool:
    return file.exists() and file.read_text(encoding="utf-8") == text


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def _without_course_metadata(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    notebook.metadata.pop("course", None)
    file.chmod(0o644)
    _write(file, nbformat.writes(notebook, indent=1) + "\n")
