"""Whatever a student hands in becomes cells of an assignment: the student's code in its order, and their quiz answers.

A file can be the assignment's notebook, the chapter's own notebook, or the file of `export_answers()`. Cells may be
missing, doubled, in another order or edited: what is there is graded, with the tests of the assignment and no others.
"""

from __future__ import annotations

import ast
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode

from classroom.untrusted import UnreadableError, clean, code_text, parsed
from course_lib.notebook.exercises import definitions
from course_lib.notebook.exercises.questions import Chapter, chapter

MOST_BYTES = 100_000_000
MOST_SOURCE = 1_000_000  # characters of code; an honest notebook has a few thousand
MOST_CELLS = 1_000
# What the check calls are made of: they show something to the learner and define nothing.
SHOWN = {"check", "hint", "solution", "quiz", "answer", "predict", "recall", "progress", "export_answers", "start"}
TOLD = {"check", "answer"}  # of these, the calls that say something to the grader
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".bmp", ".heic", ".tif", ".tiff")


class NotAnAnswerError(Exception):
    """A file that cannot be graded; the message is one sentence for the student."""


@dataclass(frozen=True)
class Cell:
    """Code of a student. `space` separates the exported answers, each of which brings its own helpers along."""

    text: str
    space: str = ""


@dataclass
class Handed:
    """What one file holds for one chapter."""

    chapter: str
    cells: list[Cell]  # in the file's order, without tests and without the chapter's own unchanged cells
    quiz: dict[int, str] = field(default_factory=dict)  # item -> letter, as far as it can be read without running
    notes: list[str] = field(default_factory=list)
    exported: bool = False
    missing: dict[str, str] = field(default_factory=dict)  # exercise -> why nothing can be found for it


def content_of(path: Path) -> bytes:
    """A file's bytes, if it is an ordinary file of an ordinary size. Raises: NotAnAnswerError."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except (OSError, ValueError) as error:
        raise NotAnAnswerError(f"The file cannot be opened ({type(error).__name__}).") from error
    if stat.S_ISLNK(found.st_mode):
        raise NotAnAnswerError("This is a link and no file.")
    if not stat.S_ISREG(found.st_mode):
        raise NotAnAnswerError("This is no ordinary file, and it was not opened.")
    if found.st_size > MOST_BYTES:
        raise NotAnAnswerError(f"The file has {found.st_size / 1e6:,.0f} MB, and {MOST_BYTES / 1e6:.0f} MB is the most."
                               " Clear the outputs of the notebook and hand it in again.")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise NotAnAnswerError(f"The file cannot be read ({error.strerror}).") from error


def read(path: Path, released: dict[str, NotebookNode]) -> list[Handed]:
    """Everything that can be graded in a file, one entry per chapter.

    released: chapter -> its assignment with the tests. Raises: NotAnAnswerError with one sentence.
    """
    if reason := _nothing_to_grade(path):
        raise NotAnAnswerError(reason)
    try:
        content = parsed(content_of(path), MOST_BYTES)
    except UnreadableError as error:
        raise NotAnAnswerError(f"The file cannot be read. {error} Save the notebook, or export the answers, "
                               "and hand it in again.") from error
    if isinstance(content, dict) and isinstance(content.get("exercises"), dict):
        return _from_export(content, released)
    if isinstance(content, dict) and (cells := _cells(content)) is not None:
        return [_from_notebook(cells, released)]
    raise NotAnAnswerError("The file holds neither a notebook nor exported answers.")


def is_attachment(path: Path) -> bool:
    """A file that nobody wants graded: a picture beside the answers, or something that a system leaves in folders."""
    return path.suffix.lower() in PICTURES or _of_a_system(path)


def _of_a_system(path: Path) -> bool:
    return path.name in (".DS_Store", "Thumbs.db", "desktop.ini") or path.name.startswith("._") or bool(
        {"__MACOSX", ".ipynb_checkpoints", "__pycache__"} & set(path.parts))


def _nothing_to_grade(path: Path) -> str:
    if _of_a_system(path):
        return "A file that the system or Jupyter keeps for itself: there is nothing to grade in it."
    if path.suffix.lower() in PICTURES:
        return "A picture: there is nothing to grade in it."
    if path.suffix.lower() not in (".ipynb", ".json"):
        kind = clean(path.suffix)[:20] or "A file without an ending"
        return f"{kind} is neither a notebook (.ipynb) nor a file of export_answers() (.json)."
    return ""


# --- a notebook -------------------------------------------------------------------------------------------------------


def _cells(content: dict) -> list[dict] | None:
    """The cells of a notebook of any format; until 2014 they stood in worksheets."""
    sheets = content.get("worksheets")
    found = content.get("cells")
    if found is None and isinstance(sheets, list):
        found = [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or []]
    return [cell for cell in found if isinstance(cell, dict)] if isinstance(found, list) else None


def _from_notebook(cells: list[dict], released: dict[str, NotebookNode]) -> Handed:
    texts = [(cell, _source(cell)) for cell in cells if cell.get("cell_type") == "code"]
    if sum(len(text) for _, text in texts) > MOST_SOURCE or len(texts) > MOST_CELLS:
        raise NotAnAnswerError(f"The notebook holds more than {MOST_SOURCE:,} characters or {MOST_CELLS:,} cells of "
                               "code.")
    name = _which_chapter([_grade_id(cell) for cell in cells], "\n".join(text for _, text in texts), released)
    asked, assignment = chapter(name), released[name]
    tests = {cell.metadata.nbgrader.grade_id: cell.source for cell in assignment.cells if is_test(cell)}
    handed, mine = Handed(name, []), []
    known, whole_chapter = _chapter_cells(assignment), not any(_grade_id(cell) for cell in cells)
    for cell, text in texts:
        handed.quiz |= letters(asked, text)
        if _grade_id(cell) in tests:
            if squeezed(text) != squeezed(tests[_grade_id(cell)]):
                handed.notes.append(f"The test {_grade_id(cell)} was edited; the original was used.")
            if not definitions.defines_any(text):
                continue
        if text.strip() and not _says_nothing(text) and (squeezed(text) not in known or _answers(asked, text)):
            mine.append(text)
    mine = _without_stubs(asked, mine, handed)
    if whole_chapter:
        mine = _what_is_needed(asked, mine, [text for _, text in texts if squeezed(text) in known], handed)
    handed.cells = [Cell(text) for text in mine]
    _look_into_text_cells(asked, cells, handed)
    return handed


def _source(cell: dict) -> str:
    source = cell.get("source", cell.get("input", ""))
    return code_text("".join(str(line) for line in source) if isinstance(source, list) else str(source))


def _grade_id(cell: dict) -> str:
    metadata = cell.get("metadata")
    ours = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return clean(str(ours.get("grade_id", "")))[:100] if isinstance(ours, dict) else ""


def is_test(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def _which_chapter(ids: Sequence[str], code: str, released: dict[str, NotebookNode]) -> str:
    named = [name for text in ids for name in [text.partition("-")[0]] if name in released]
    named = named or [name for name in re.findall(r"""["']((?:ch\d\d|lab\d)?)\.q\d""", code) if name in released]
    if named:
        return max(set(named), key=named.count)
    count = {name: sum(re.search(rf"\b{q.function}\b", code) is not None for q in chapter(name).questions)
             for name in released}
    best = max(count, key=count.get, default="")
    if not best or not count[best]:
        raise NotAnAnswerError("The notebook holds no exercise of a released assignment.")
    return best


def _answers(asked: Chapter, text: str) -> bool:
    """Whether a cell gives a value to one of the names that the exercises ask for."""
    return any(q.function in statement.binds for statement in definitions.statements(text) for q in asked.questions)


def _says_nothing(text: str) -> bool:
    """A cell of imports and of calls such as hint(...) that define nothing and tell a grader nothing."""
    tree = definitions.parsed(text)
    return tree is not None and all(_is_show(node) for node in tree.body) and not _calls(tree, TOLD)


def _is_show(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").startswith("course_lib.")
    if isinstance(node, ast.Try):  # a chapter's setup cell: it starts the course, or says how to install it
        return all(_is_show(one) for one in [*node.body, *(part for way in node.handlers for part in way.body)])
    shown = node.value if isinstance(node, ast.Expr) else None
    return isinstance(node, ast.Raise | ast.Pass) or isinstance(shown, ast.Constant) or (
        isinstance(shown, ast.Call) and isinstance(shown.func, ast.Name) and shown.func.id in SHOWN)


def _calls(tree: ast.AST, names: Iterable[str]) -> bool:
    return any(isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
               for node in ast.walk(tree))


def _chapter_cells(assignment: NotebookNode) -> set[str]:
    """Digestible text of the chapter's own code cells; the generator left it in the assignment's metadata."""
    return set(assignment.metadata.get("course", {}).get("cells", []))


def squeezed(text: str) -> str:
    """Text without blanks at line ends and empty lines, for comparing cells."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines() if line.strip())


def _without_stubs(asked: Chapter, cells: list[str], handed: Handed) -> list[str]:
    """Leave a stub out where another cell answers the question, and say so where a question is answered twice."""
    kept = cells
    for q in asked.questions:
        answers = {i: found for i, text in enumerate(kept) if (found := [
            statement.text for statement in definitions.statements(text) if q.function in statement.binds])}
        stubs = {i for i in answers if squeezed(kept[i]) == squeezed(q.stub)}
        different = {squeezed(found[-1]) for i, found in answers.items() if i not in stubs}
        if len(different) > 1:
            handed.notes.append(f"{q.name} is answered in {len(different)} ways; the last one counts.")
        if different:
            kept = [text for i, text in enumerate(kept) if i not in stubs]
    return kept


def _what_is_needed(asked: Chapter, mine: list[str], known: list[str], handed: Handed) -> list[str]:
    """Of a whole chapter: the student's cells that the exercises need, with what those need. Nothing is trained.

    A light cell of the chapter (imports, functions, constants) is taken along where an answer uses it.
    """
    own = [text for text in mine if not definitions.statements(text)]  # no Python: it will say so when it is run
    pool = [(text, definitions.statements(text)) for text in (*filter(_is_light, known), *mine) if text not in own]
    wanted = {q.function for q in asked.questions}
    picked: set[int] = {i for i, (text, parts) in enumerate(pool)
                        if text in mine and (_calls_of(parts) or all(_only_defines(part) for part in parts))}
    while True:
        wanted |= {name for i in picked for part in pool[i][1] for name in part.uses}
        more = {i for i, (_, parts) in enumerate(pool) if any(part.binds & wanted for part in parts)} - picked
        if not more:
            break
        picked |= more
    left = sum(1 for i, (text, _) in enumerate(pool) if text in mine and i not in picked)
    if left:
        handed.notes.append(f"{left} cell(s) of the student's own that no exercise needs were not run.")
    return [text for i, (text, _) in enumerate(pool) if i in picked]


def _calls_of(parts: Sequence[definitions.Statement]) -> bool:
    return any(_calls(ast.parse(part.text), TOLD) for part in parts)


def _only_defines(part: definitions.Statement) -> bool:
    (node,) = ast.parse(part.text).body
    return isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _is_light(text: str) -> bool:
    """A cell of the chapter that costs nothing: imports, functions, and values without a call."""
    tree = definitions.parsed(text)
    return tree is not None and all(
        isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)) or
        (isinstance(node, (ast.Assign, ast.AnnAssign)) and not any(isinstance(n, ast.Call) for n in ast.walk(node)))
        for node in tree.body)


def _look_into_text_cells(asked: Chapter, cells: list[dict], handed: Handed) -> None:
    """A cell that was turned into Markdown by a slip of a key is not run; its owner should hear of it."""
    texts = [_source(cell) for cell in cells if cell.get("cell_type") in ("markdown", "raw", "heading")]
    for q in asked.questions:
        answered = any(q.function in part.binds and squeezed(cell.text) != squeezed(q.stub)
                       for cell in handed.cells for part in definitions.statements(cell.text))
        if not answered and any(re.search(rf"^\s*def {q.function}\b", text, flags=re.M) for text in texts):
            handed.missing[q.name] = (f"The code of {q.function} stands in a Markdown cell, which Python does not run. "
                                      "Make it a code cell (press Y) and hand in again.")
            handed.notes.append(f"{q.name}: the answer stands in a Markdown cell, which is not run.")


# --- the quiz ---------------------------------------------------------------------------------------------------------


def letters(asked: Chapter, text: str) -> dict[int, str]:
    """Quiz answers that stand in a cell as plain strings: answer("ch01.quiz", "bca-dbca"). Nothing is run for this.

    What a student computes (a variable, a loop) is told by the sandbox; see `told`.
    """
    tree = definitions.parsed(text)
    found: dict[int, str] = {}
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "answer":
            given = dict(zip(("name", "choice"), node.args, strict=False)) | {k.arg: k.value for k in node.keywords}
            constants = [given[key].value for key in ("name", "choice")
                         if isinstance(given.get(key), ast.Constant) and isinstance(given[key].value, str)]
            if len(constants) == 2:
                found |= told(asked, [constants])
    return found


def told(asked: Chapter, calls: Sequence[Sequence[str]]) -> dict[int, str]:
    """Item -> letter, from the calls answer(name, choice) in their order; the last answer counts."""
    found: dict[int, str] = {}
    for name, choice in calls:
        item = re.fullmatch(rf"{asked.name}\.quiz(\d{{0,3}})", str(name).strip())
        written = re.sub(r"[\s,;]", "", str(choice).lower())
        if item:
            pairs = [(int(item[1]), written)] if item[1] else list(enumerate(written, start=1))
            found |= {number: picked for number, picked in pairs if re.fullmatch("[a-h]", picked)}
    return found


# --- exported answers -------------------------------------------------------------------------------------------------


def _from_export(content: dict, released: dict[str, NotebookNode]) -> list[Handed]:
    found: dict[str, Handed] = {}
    exercises, quiz = content["exercises"], content.get("quiz") if isinstance(content.get("quiz"), dict) else {}
    for name in sorted({str(key).partition(".")[0] for key in (*exercises, *quiz)} & set(released)):
        asked, handed = chapter(name), Handed(name, [], exported=True)
        imports = next(cell.source for cell in released[name].cells if "imports" in cell.metadata.get("tags", []))
        there = {bound for part in definitions.statements(imports) for bound in part.binds}
        for q in asked.questions:
            entry = exercises.get(q.name)
            if not isinstance(entry, dict):
                continue
            if isinstance(entry.get("source"), str):
                handed.cells.append(Cell(_exported(entry, q.function), q.name))
                if lacks := sorted(definitions.unbound(definitions.statements(handed.cells[-1].text)) - there):
                    named = clean(", ".join(lacks))[:80]
                    handed.notes.append(f"{q.name} uses {named}, which the exported file does not hold; ask for the "
                                        "notebook.")
            elif entry.get("attempts"):
                handed.missing[q.name] = ("The exported file does not hold the text of this function. Hand in the "
                                          "notebook itself.")
                handed.notes.append(f"{q.name}: its function is not in the exported file; ask for the notebook.")
        handed.quiz = told(asked, [(str(key), str(value)) for key, value in quiz.items()])
        found[name] = handed
    if not found:
        raise NotAnAnswerError("The exported answers hold nothing of a released assignment.")
    if sum(len(cell.text) for handed in found.values() for cell in handed.cells) > MOST_SOURCE:
        raise NotAnAnswerError(f"The file holds more than {MOST_SOURCE:,} characters of code.")
    return list(found.values())


def _exported(entry: dict, function: str) -> str:
    """An exported answer with what it needs, as one cell."""
    needs = entry.get("needs") if isinstance(entry.get("needs"), dict) else {}
    # A file from before the needs were kept in order: imports, then constants, then functions.
    texts = sorted(map(str, needs.values()), key=_turn) if "missing" not in entry else list(map(str, needs.values()))
    cell = code_text("\n".join([*texts, entry["source"]]))
    own = definitions.statements(entry["source"])
    if own and not any(function in part.binds for part in own):  # checked under another name
        last = sorted(own[-1].binds)
        cell += f"\n{function} = {last[0]}" if len(last) == 1 else ""
    return cell


def _turn(text: str) -> int:
    return 0 if text.startswith(("import ", "from ")) else 2 if text.startswith(("def ", "class ", "@")) else 1


def grade_id(name: str) -> str:
    """The name of an exercise in nbgrader, which allows no dots: ch01.q2 -> ch01-q2."""
    return name.replace(".", "-")
