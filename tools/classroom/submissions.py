"""Whatever a student hands in becomes a notebook of the assignment: their cells first, the original tests after them.

A file can be the assignment's notebook, the chapter's own notebook, or the file of `export_answers()`. Cells may be
missing, doubled, in another order or edited: what is there is graded, with the tests of the assignment and no others.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from course_lib.notebook.exercises.questions import Chapter, Question, chapter

MOST_BYTES = 200_000_000
MOST_SOURCE = 1_000_000  # characters of code; an honest notebook has a few thousand
# What the check calls are made of: they show something to the learner and define nothing.
SHOWN = {"check", "hint", "quiz", "answer", "predict", "recall", "progress", "export_answers", "start", "find_spec"}


class NotAnAnswerError(Exception):
    """A file that cannot be graded; the message is one sentence for the student."""


@dataclass
class Handed:
    """What one file holds for one chapter."""

    chapter: str
    cells: list[str]  # code, in the file's order, without tests and without the chapter's own unchanged cells
    quiz: dict[int, str] = field(default_factory=dict)  # item -> letter
    notes: list[str] = field(default_factory=list)


def read(path: Path, released: dict[str, NotebookNode]) -> list[Handed]:
    """Everything that can be graded in a file, one entry per chapter.

    released: chapter -> its assignment with the tests. Raises: NotAnAnswerError with one sentence.
    """
    if path.suffix.lower() not in (".ipynb", ".json"):
        raise NotAnAnswerError(f"{path.suffix or 'A file without an ending'} is neither a notebook (.ipynb) nor a file "
                               "of export_answers() (.json).")
    if path.stat().st_size > MOST_BYTES:
        raise NotAnAnswerError(f"The file has more than {MOST_BYTES / 1e6:.0f} MB.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise NotAnAnswerError("The file is damaged: it is not valid JSON.") from error
    if isinstance(content, dict) and isinstance(content.get("cells"), list):
        return [_from_notebook(content, released)]
    if isinstance(content, dict) and isinstance(content.get("exercises"), dict):
        return _from_export(content, released)
    raise NotAnAnswerError("The file holds neither a notebook nor exported answers.")


# --- a notebook -------------------------------------------------------------------------------------------------------


def _from_notebook(content: dict, released: dict[str, NotebookNode]) -> Handed:
    cells = [cell for cell in content["cells"] if isinstance(cell, dict)]
    texts = [(cell, _source(cell)) for cell in cells if cell.get("cell_type") == "code"]
    if sum(len(text) for _, text in texts) > MOST_SOURCE:
        raise NotAnAnswerError(f"The notebook holds more than {MOST_SOURCE:,} characters of code.")
    name = _which_chapter([_grade_id(cell) for cell in cells], "\n".join(text for _, text in texts), released)
    asked, assignment = chapter(name), released[name]
    tests = {cell.metadata.nbgrader.grade_id: cell.source for cell in assignment.cells if is_test(cell)}
    handed = Handed(name, [])
    known = _chapter_cells(assignment)
    whole_chapter = not any(_grade_id(cell) for cell in cells)
    for cell, text in texts:
        handed.quiz |= _letters(asked, text)
        if _grade_id(cell) in tests:
            if _is_edited(text, tests[_grade_id(cell)]):
                handed.notes.append(f"The test {_grade_id(cell)} was edited; the original was used.")
        elif text.strip() and not _only_shows(text) and _is_theirs(text, known, asked, whole_chapter):
            handed.cells.append(text)
    handed.cells = _without_stubs(asked, handed)
    return handed


def _source(cell: dict) -> str:
    source = cell.get("source", "")
    return "".join(str(line) for line in source) if isinstance(source, list) else str(source)


def _grade_id(cell: dict) -> str:
    metadata = cell.get("metadata")
    ours = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return str(ours.get("grade_id", "")) if isinstance(ours, dict) else ""


def is_test(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def _which_chapter(ids: Sequence[str], code: str, released: dict[str, NotebookNode]) -> str:
    named = [name for text in ids for name in [text.partition("-")[0]] if name in released]
    named = named or [name for name in re.findall(r"""["']((?:ch\d\d|lab\d)?)\.q\d""", code) if name in released]
    if named:
        return max(set(named), key=named.count)
    count = {name: sum(_defines(q, code) for q in chapter(name).questions) for name in released}
    best = max(count, key=count.get, default="")
    if not best or not count[best]:
        raise NotAnAnswerError("The notebook holds no exercise of a released assignment.")
    return best


def _defines(asked: Question, code: str) -> bool:
    return re.search(rf"^(?:async )?(?:def|class) {asked.function}\b|^{asked.function}\s*(?::[^=\n]+)?=[^=]", code,
                     flags=re.M) is not None


def _only_shows(text: str) -> bool:
    """A cell of imports and of calls such as check(...) that define nothing."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_show(node) for node in body)


def _is_show(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").startswith(("course_lib.notebook", "importlib.util"))
    test = node.test if isinstance(node, ast.Assert) else node.value if isinstance(node, ast.Expr) else None
    if isinstance(test, ast.BoolOp):
        test = test.values[0]
    return isinstance(test, ast.Constant) or (isinstance(test, ast.Call) and isinstance(test.func, ast.Name)
                                              and test.func.id in SHOWN)


def _chapter_cells(assignment: NotebookNode) -> set[str]:
    """Digestible text of the chapter's own code cells; the generator left it in the assignment's metadata."""
    return set(assignment.metadata.get("course", {}).get("cells", []))


def _is_theirs(text: str, known: set[str], asked: Chapter, whole_chapter: bool) -> bool:
    """A cell of the student's own. Of a whole chapter only definitions are kept: nothing is trained while grading."""
    if any(_defines(q, text) for q in asked.questions):
        return True
    if squeezed(text) in known:
        return False
    return not whole_chapter or _is_definition(text)


def _is_definition(text: str) -> bool:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)) or
               (isinstance(node, (ast.Assign, ast.AnnAssign)) and not _calls(node)) for node in body)


def _calls(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def squeezed(text: str) -> str:
    """Text without blanks at line ends and empty lines, for comparing cells."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines() if line.strip())


def _is_edited(text: str, original: str) -> bool:
    shown = re.sub(r"^### BEGIN HIDDEN TESTS.*?^### END HIDDEN TESTS$", "", original, flags=re.M | re.S)
    return squeezed(text) not in (squeezed(shown), squeezed(original))


def _without_stubs(asked: Chapter, handed: Handed) -> list[str]:
    """Leave a stub out where another cell answers the question, and say so where a question is answered twice."""
    kept = handed.cells
    for q in asked.questions:
        mine = [i for i, text in enumerate(kept) if _defines(q, text)]
        stubs = {i for i in mine if squeezed(kept[i]) == squeezed(q.stub)}
        different = {_definition(q, kept[i]) for i in mine if i not in stubs}
        if len(different) > 1:
            handed.notes.append(f"{q.name} is answered in {len(different)} ways; the last one counts.")
        kept = [text for i, text in enumerate(kept) if i not in stubs]
    return kept


def _definition(asked: Question, text: str) -> str:
    try:
        found = [node for node in ast.parse(text).body if getattr(node, "name", "") == asked.function]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    return ast.unparse(found[-1]) if found else text


def _letters(asked: Chapter, text: str) -> dict[int, str]:
    """Quiz answers written as answer("ch01.quiz", "bca-dbca") or answer("ch01.quiz3", "b"). The call is not run."""
    found: dict[int, str] = {}
    call = rf"""answer\(\s*["']{asked.name}\.quiz(\d*)["']\s*,\s*["']([^"'\n]*)["']"""
    for item, written in re.findall(call, text):
        letters = written.lower().replace(" ", "")
        pairs = [(int(item), letters)] if item else list(enumerate(letters, start=1))
        found |= {number: picked for number, picked in pairs if re.fullmatch("[a-h]", picked)}
    return found


# --- exported answers -------------------------------------------------------------------------------------------------


def _from_export(content: dict, released: dict[str, NotebookNode]) -> list[Handed]:
    found: dict[str, Handed] = {}
    quiz = content.get("quiz") if isinstance(content.get("quiz"), dict) else {}
    for name in sorted({str(key).partition(".")[0] for key in (*content["exercises"], *quiz)}):
        if name not in released:
            continue
        asked = chapter(name)
        entries = {q.function: content["exercises"].get(q.name) for q in asked.questions}
        entries = {function: entry for function, entry in entries.items()
                   if isinstance(entry, dict) and isinstance(entry.get("source"), str)}
        helpers = {name: text for entry in entries.values() if isinstance(entry.get("needs"), dict)
                   for name, text in entry["needs"].items() if name not in entries}
        texts = sorted(map(str, helpers.values()), key=_turn)
        cells = ["\n\n".join(texts), *(entry["source"] for entry in entries.values())]
        letters = {int(m[1]): str(v) for k, v in quiz.items() if (m := re.fullmatch(rf"{name}\.quiz(\d+)", str(k)))}
        found[name] = Handed(name, [text for text in cells if text.strip()],
                             {item: picked for item, picked in letters.items() if re.fullmatch("[a-h]", picked)})
    if not found:
        raise NotAnAnswerError("The exported answers hold nothing of a released assignment.")
    if sum(len(cell) for handed in found.values() for cell in handed.cells) > MOST_SOURCE:
        raise NotAnAnswerError(f"The file holds more than {MOST_SOURCE:,} characters of code.")
    return list(found.values())


def _turn(text: str) -> int:
    """Imports first, then constants, then definitions, whose annotations and defaults may use both."""
    return 0 if text.startswith(("import ", "from ")) else 2 if text.startswith(("def ", "class ", "@")) else 1


# --- the notebook that is graded --------------------------------------------------------------------------------------


def notebook(handed: Handed, assignment: NotebookNode) -> NotebookNode:
    """The student's cells in their order, then the assignment's tests in theirs."""
    asked = chapter(handed.chapter)
    made = nbformat.v4.new_notebook(metadata={"kernelspec": assignment.metadata.kernelspec})
    originals = {c.metadata.nbgrader.grade_id: c for c in assignment.cells if "nbgrader" in c.metadata}
    imports = next(cell for cell in assignment.cells if "imports" in cell.metadata.get("tags", []))
    made.cells = [new_code_cell(text) for text in handed.cells]
    made.cells.insert(0, new_code_cell(imports.source, metadata=imports.metadata))
    for q in asked.questions:
        original = originals[grade_id(q.name)]
        mine = [cell for cell in made.cells if _defines(q, cell.source)]
        free = [cell for cell in mine if "nbgrader" not in cell.metadata]  # a cell may answer several exercises
        if free:
            free[-1].metadata = nbformat.from_dict(dict(original.metadata))
        elif not mine:
            made.cells.append(nbformat.from_dict(dict(original)))  # the stub: nothing was handed in
    letters = "".join(handed.quiz.get(i, "-") for i in range(1, len(asked.quiz) + 1))
    for cell in assignment.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id(f"{asked.name}.quiz"):
            made.cells.append(new_code_cell(f'# answer("{asked.name}.quiz", "{letters}")', metadata=cell.metadata))
        elif is_test(cell):
            made.cells.append(nbformat.from_dict(dict(cell)))
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"
    return made


def grade_id(name: str) -> str:
    """The name of an exercise in nbgrader, which allows no dots: ch01.q2 -> ch01-q2."""
    return name.replace(".", "-")

