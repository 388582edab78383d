"""Find what a learner has defined, and what it needs: one way for `check`, for the exported answers and for a grader.

A notebook is a row of cells, and a cell a row of statements. A statement binds names, in whatever way (`def`, a tuple
on the left, inside an `if` or a `with`, an import), and it uses names. What a function needs is what its statement
uses, and what those statements use in turn.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import linecache
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# Cell magics that run the cell's text as it stands; others do something else with it.
TRANSPARENT = ("time", "timeit", "capture", "prun", "python3", "python")
ALWAYS_THERE = frozenset({*dir(builtins), "get_ipython", "display", "__file__"})
MOST_SOURCE = 200_000  # characters of a cell that is taken apart


@dataclass(frozen=True)
class Statement:
    """One statement of a cell: its text, the names that it binds or changes, and the names that it uses."""

    text: str
    binds: frozenset[str]
    uses: frozenset[str]


def plain_python(cell: str) -> str:
    """A cell's text without magics: `%` and `!` lines become empty, a transparent cell magic leaves its body.

    Returns: "" for a cell in another language, such as %%bash or %%html.
    """
    lines = cell.splitlines()
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if lines and (magic := re.match(r"%%(\w+)", lines[first].lstrip())):
        if magic[1] not in TRANSPARENT:
            return ""
        lines[:first + 1] = [""] * (first + 1)
    # The magic that stands behind an assignment (`files = !ls`) leaves the rest of its line empty too.
    return "\n".join("" if re.match(r"\s*(%|!|\?|[\w, ]+=\s*[%!])|.*\?\s*$", line) and not _in_python(line) else line
                     for line in lines)


def _in_python(line: str) -> bool:
    """A line such as `% 7` that goes on with an expression; only whole statements can be told apart from magics."""
    try:
        ast.parse(line.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def parsed(cell: str) -> ast.Module | None:
    """The cell's tree; None where it is no Python."""
    if len(cell) > MOST_SOURCE:
        return None
    for text in (cell, plain_python(cell)):
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def statements(cell: str) -> list[Statement]:
    """The statements of a cell in their order; none where it is no Python."""
    tree = parsed(cell)
    if tree is None:
        return []
    try:
        lines = plain_python(cell).splitlines()
        if ast.dump(ast.parse("\n".join(lines))) != ast.dump(tree):
            lines = cell.splitlines()
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lines = cell.splitlines()
    return [Statement(_text(node, lines), frozenset(bound(node)), frozenset(used(node))) for node in tree.body]


def _text(node: ast.stmt, lines: Sequence[str]) -> str:
    start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    picked = list(lines[start - 1:node.end_lineno])
    if len(picked) == 1 and (node.col_offset or node.end_col_offset < len(picked[0].encode())):  # `a = 1; b = 2`
        return picked[0].encode()[node.col_offset:node.end_col_offset].decode()
    return "\n".join(picked)


def bound(node: ast.AST) -> set[str]:
    """Names that a statement binds in its cell, or whose value it changes: `T["a"] = 1` and `f.cache = {}` as well."""
    found: set[str] = set()
    todo = [node]
    while todo:
        here = todo.pop()
        if isinstance(here, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(here.name)
            todo += here.decorator_list
            continue  # what its body binds is its own
        if isinstance(here, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            continue
        if isinstance(here, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name.partition(".")[0]) for alias in here.names}
        if isinstance(here, ast.Name) and isinstance(here.ctx, (ast.Store, ast.Del)):
            found.add(here.id)
        if isinstance(here, (ast.Subscript, ast.Attribute)) and isinstance(here.ctx, ast.Store):
            found |= {part.id for part in ast.walk(here.value) if isinstance(part, ast.Name)}
        if isinstance(here, ast.ExceptHandler) and here.name:
            found.add(here.name)
        if isinstance(here, ast.Expr) and (owner := _owner(here.value)):
            found.add(owner)
        todo += ast.iter_child_nodes(here)
    return found


def _owner(value: ast.AST) -> str:
    """Of an expression such as `table.append(1)` that stands alone, the name whose value it may change."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute):
        return ""
    owner = value.func.value
    while isinstance(owner, (ast.Attribute, ast.Subscript)):
        owner = owner.value
    return owner.id if isinstance(owner, ast.Name) else ""


def used(node: ast.AST) -> set[str]:
    """Names that a statement reads, with those in the bodies, annotations and defaults of its functions."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}


def defines(cell: str, name: str) -> bool:
    """Whether the cell gives the name a value, in whatever way."""
    return any(name in statement.binds for statement in statements(cell))


def defines_any(cell: str) -> bool:
    """Whether the cell gives a value to any name at all."""
    return any(statement.binds for statement in statements(cell))


# --- what a function needs --------------------------------------------------------------------------------------------


def needed(names: Iterable[str], history: Sequence[Statement]) -> list[Statement]:
    """The statements that give these names their values, and all that those need, in the order of the history.

    Of several that bind a name the last one counts, and an earlier one only if the last one uses the name itself.
    """
    picked: set[int] = set()
    todo = [(name, len(history)) for name in names]
    done: set[tuple[str, int]] = set()
    while todo:
        name, before = todo.pop()
        if (name, before) in done:
            continue
        done.add((name, before))
        for place in _bindings(name, before, history):
            if place not in picked:
                picked.add(place)
                # At the time of the call every other name has its last value, unless this statement binds it too.
                todo += [(other, place if other in history[place].binds else len(history))
                         for other in history[place].uses]
    return [history[place] for place in sorted(picked)]


def _bindings(name: str, before: int, history: Sequence[Statement]) -> list[int]:
    """The last statement that gives the name a new value, and those after it that change this value."""
    found: list[int] = []
    for place in range(before - 1, -1, -1):
        if name in history[place].binds:
            found.append(place)
            if name not in history[place].uses:
                break
    return found


def history(function: Any) -> list[Statement]:
    """All statements of the learner's notebook so far, or of the file that the function stands in."""
    cells = _cells()
    if cells is None:
        code = getattr(function, "__code__", None)
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        cells = ["".join(linecache.getlines(code.co_filename if code else main or ""))]
    return [statement for cell in cells for statement in statements(cell)]


def _cells() -> list[str] | None:
    """What has been run in this notebook, in order; None outside of one."""
    shell = _shell()
    return None if shell is None else [str(cell) for cell in shell.history_manager.input_hist_raw]


def _shell() -> Any:
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


@dataclass(frozen=True)
class Carried:
    """A function as text that works elsewhere: its own statement, those that it needs, and names that stay behind."""

    source: str | None
    needs: dict[str, str]  # the names that a statement binds -> its text, in the order of the notebook
    missing: tuple[str, ...] = ()


def carried(function: Any, wanted: str, question: str) -> Carried:
    """The text of a learner's function, which gives the name `wanted` its value wherever it is run.

    question: the exercise, such as ch01.q1: `check("ch01.q1", lambda ...)` has a function without a name.
    Names that the text uses and that no statement binds (made by `exec`, or typed elsewhere) are `missing`.
    """
    past = history(function)
    name = _name_of(function, wanted, past)
    if name:
        own = needed([name], past)
        last = max(i for i, statement in enumerate(own) if name in statement.binds)
        source = own[last].text if name == wanted else f"{own[last].text}\n{wanted} = {name}"
        own, before = [*own[:last], *own[last + 1:]], own[last]
    elif inline := _inline(question, past):
        before = statements(f"{wanted} = {inline}")[0]
        own, source = needed(before.uses, past), before.text
    else:
        return Carried(_source(function), {}, (wanted,))
    missing = unbound([*own, before])
    needs: dict[str, str] = {}
    for statement in own:
        key = ", ".join(sorted(statement.binds))
        needs[key] = f"{needs[key]}\n{statement.text}" if key in needs else statement.text
    return Carried(source, needs, tuple(sorted(missing)))


def unbound(own: Sequence[Statement]) -> set[str]:
    """Names that statements use and that none of them gives a value."""
    known = {name for statement in own for name in statement.binds | _inside(statement.text)}
    return {name for statement in own for name in statement.uses} - known - ALWAYS_THERE


def _inside(text: str) -> set[str]:
    """Names that are bound somewhere inside a statement: arguments, variables of functions and comprehensions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        found |= {node.arg} if isinstance(node, ast.arg) else set()
        found |= {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
        found |= bound(node) if isinstance(node, ast.stmt) else set()
    return found


def _name_of(function: Any, wanted: str, past: Sequence[Statement]) -> str:
    """The name under which the learner has this function; the one of the stub first."""
    shell, home = _shell(), sys.modules.get(getattr(function, "__module__", None) or "__main__")
    space = shell.user_ns if shell is not None else vars(home) if home else {}
    mine = {name for statement in past for name in statement.binds if space.get(name) is function}
    return next((name for name in (wanted, getattr(function, "__name__", ""), *sorted(mine)) if name in mine), "")


def _inline(question: str, past: Sequence[Statement]) -> str:
    """What stands in the last check("ch01.q1", ...) itself, if it is more than a name."""
    for statement in reversed(past):
        for node in ast.walk(ast.parse(statement.text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1 \
                    and isinstance(node.args[0], ast.Constant) and node.args[0].value == question:
                text = ast.get_source_segment(statement.text, node.args[1]) or ""
                return "" if text.isidentifier() else text
    return ""


def _source(function: object) -> str | None:
    with contextlib.suppress(Exception):  # it has none, or its file is gone
        return textwrap.dedent(inspect.getsource(function))
    return None
