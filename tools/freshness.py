"""What the outputs of a chapter depend on, read from the text alone: nothing is imported or run.

A chapter depends on the modules of course_lib that its cells import, directly or through other modules (also inside
functions); on the scripts, styles and tables that these modules read; on the exercises and measured results that the
chapter names; and on the versions of the packages. An edit of anything else, such as the grader, leaves its page
fresh. Where the text cannot tell, the answer is yes: one run too many costs minutes, an old number costs trust.
"""

from __future__ import annotations

import ast
import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LIBRARY = "course_lib"
CHAPTER_NAME = re.compile(r"(ch\d\d[a-z]*|lab\d)(\.q\d+)?")
ALL_CHAPTERS = {"progress()", "export_answers()"}  # they list the points of every chapter
# Packages that come along with those of pyproject.toml and shape what a cell prints.
INDIRECT = {"numpy", "tokenizers", "ipython"}


def depends_on(code: list[str], root: Path) -> list[Path]:
    """The files of the repository that the code cells of a chapter depend on, sorted."""
    cells = [ast.parse(without_magics(cell)) for cell in code]
    modules = import_closure([name for cell in cells for name in imported(cell, "")], root)
    found = set(modules)
    for module in modules:
        found |= read_by(module, root)
    found |= named_by(cells, uses_results=root / LIBRARY / "experiments" / "records.py" in modules, root=root)
    return sorted(found)


def without_magics(cell: str) -> str:
    """IPython's own lines (%run, !ls) are no Python."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", cell, flags=re.M)


# --- Modules ---------------------------------------------------------------------------------------------------------


def import_closure(names: list[str], root: Path) -> set[Path]:
    """The source files behind module names, and behind everything that these import in turn."""
    found: set[Path] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        file = module_file(name, root)
        if file is None or file in found:
            continue
        found.add(file)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += facts(file, package).imports
        parts = name.split(".")
        waiting += [".".join(parts[:count]) for count in range(1, len(parts))]  # a package's __init__ runs first
    return found


def module_file(name: str, root: Path) -> Path | None:
    """The file of a module of the library; None for other packages, and for names inside a module."""
    path = root.joinpath(*name.split("."))
    if name.partition(".")[0] != LIBRARY:
        return None
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Every name that could be a module: `from a import b` gives a and a.b. Relative imports start at `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@dataclass(frozen=True)
class Facts:
    """What the text of one module says: the names it imports, its string constants, and whether it uses DATA."""

    imports: frozenset[str]
    texts: frozenset[str]
    uses_data: bool


def facts(file: Path, package: str = LIBRARY) -> Facts:
    return _facts(file, package, file.stat().st_mtime_ns)  # many chapters share a module: read it once


@lru_cache(maxsize=1024)
def _facts(file: Path, package: str, _stamp: int) -> Facts:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    uses_data = any(isinstance(node, ast.Name) and node.id == "DATA" for node in ast.walk(tree))
    return Facts(frozenset(imported(tree, package)), frozenset(texts(tree)), uses_data)


# --- Other files -----------------------------------------------------------------------------------------------------


def texts(tree: ast.AST) -> set[str]:
    """All string constants."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def read_by(module: Path, root: Path) -> set[Path]:
    """Files that a module reads: beside it those with its own name or a name it mentions, and its part of data/."""
    known = facts(module)
    said = {text for text in known.texts if len(text) < 100}
    found = {file for file in module.parent.iterdir() if file.is_file() and file.suffix in (".js", ".css", ".json")
             and (file.stem == module.stem or file.name in said)}
    if known.uses_data:
        for entry in (root / "data").iterdir():
            if entry.name != "results" and any(text.split("/")[0] == entry.name for text in said):
                found |= files_in(entry)
    if module.name == "records.py" or f"{LIBRARY}.experiments.records" in known.imports:
        found |= results_named(said, root)
    return found


def named_by(cells: list[ast.Module], *, uses_results: bool, root: Path) -> set[Path]:
    """The exercises and the measured results that a chapter's cells name, as in `check("ch01.q1")`."""
    said = {match[1] for cell in cells for text in texts(cell) if (match := CHAPTER_NAME.fullmatch(text))}
    found = results_named(said, root) if uses_results else set()
    folder = root / LIBRARY / "notebook" / "exercises"
    calls = (node for cell in cells for node in ast.walk(cell) if isinstance(node, ast.Call))
    if any(ast.unparse(node) in ALL_CHAPTERS for node in calls):
        found |= {file for file in folder.glob("*.py") if CHAPTER_NAME.fullmatch(file.stem)}
    exercises = [folder / f"{name}.py" for name in said] + [folder / "golden" / f"{name}.json" for name in said]
    return found | {file for file in exercises if file.is_file()}


def results_named(said: set[str], root: Path) -> set[Path]:
    return {file for name in said if CHAPTER_NAME.fullmatch(name)
            and (file := root / "data" / "results" / f"{name}.json").is_file()}


def files_in(entry: Path) -> set[Path]:
    return {entry} if entry.is_file() else {file for file in entry.rglob("*") if file.is_file()
                                            and not file.name.startswith(".")}


# --- Digests ---------------------------------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


@lru_cache(maxsize=1024)
def _file_digest(file: Path, _stamp: int) -> str:
    return digest(file.read_bytes())


def digests(files: list[Path], root: Path) -> dict[str, str]:
    """Path in the repository -> digest of the content."""
    return {file.relative_to(root).as_posix(): _file_digest(file, file.stat().st_mtime_ns) for file in files}


def versions(root: Path) -> str:
    """Digest of the locked versions that a chapter can see; a new version of a test tool makes no page old."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {normal(re.match(r"[\w.-]+", asked)[0]) for asked in project["dependencies"]} | INDIRECT
    pins = [line for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
            if not line.startswith("#") and normal(line.split("==")[0]) in wanted]
    return digest("\n".join(pins).encode())


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
