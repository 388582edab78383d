"""A chapter's two files: the source (.md) and the executed notebook (.ipynb) with what it was made from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import badges
import freshness
import jupytext
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
FORMAT = "md:myst"
LONGEST = ("ch05", "ch01", "ch03", "ch06", "ch08")  # chapters, by their seconds
# The kernel would add the version of this machine's Python.
METADATA = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}
START = "from course_lib.notebook import start"
PLUMBING = {"hide-input", "hide-cell", "remove-input", "remove-cell"}  # MyST-NB's words


def setup_cell(root: Path = ROOT) -> str:
    """The first code cell of every notebook: it starts the course, and without the library it knows the way to it.

    With an address ([project.urls] Repository in pyproject.toml) it installs from there. Without one it can only say
    what to do; a SystemExit shows its text alone, no traceback.
    """
    address = badges.address(root)
    install = [f"    %pip install -q git+{address}", f"    {START}"] if address else [
        '    raise SystemExit("""The course is not installed here. In Colab: click on the',
        "folder icon at the left, upload course_lib-*.whl, and run in a new code cell",
        "this line: %pip install course_lib-*.whl",
        'Then run this cell again.""")']
    return "\n".join([f"try: {START}", "except ImportError:", *install, "start()"])


def is_setup(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and START in cell.source


def is_plumbing(cell: NotebookNode) -> bool:
    """Whether the book and JupyterLab fold the code of this cell."""
    return bool(PLUMBING & set(cell.metadata.get("tags", [])))


def sources(names: list[str]) -> list[Path]:
    """The chapters' texts, all of them or those whose name starts with one of `names`."""
    found = sorted(FOLDER.glob("*.md"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            raise SystemExit(f"There is no chapter '{name}' in notebooks/.")
    return [path for path in found if not names or any(path.name.startswith(name) for name in names)]


def longest_first(paths: list[Path]) -> list[Path]:
    """The order for several workers: whoever gets a long chapter last works alone at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    return sorted(paths, key=lambda path: places.get(path.stem.partition("_")[0], len(places)))


def read_source(path: Path) -> NotebookNode:
    """Read the text as a notebook without outputs, with cell ids made from the content.

    A cell whose code the book hides behind a click is folded in JupyterLab too.
    """
    notebook = jupytext.read(path, fmt=FORMAT)
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = "setup" if is_setup(cell) else hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        if is_plumbing(cell):
            cell.metadata["jupyter"] = nbformat.from_dict({"source_hidden": True})
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def fingerprint(path: Path, root: Path = ROOT) -> dict[str, str]:
    """What a chapter's outputs depend on: part -> digest, where a part is "chapter", "versions" or a file.

    The text of the setup cell is left out: it changes with the address only. What it imports counts.
    """
    cells = read_source(path).cells
    said = [f"{cell.cell_type}\0{cell.metadata.get('tags', [])}\0{cell.source}" for cell in cells if not is_setup(cell)]
    chapter = {"chapter": freshness.digest("\0".join(said).encode())}
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    if not code:
        return chapter
    return {**chapter, "versions": freshness.versions(root),
            **freshness.digests(freshness.depends_on(code, root), root)}


def why_stale(path: Path, root: Path = ROOT) -> str:
    """An empty text if the .ipynb is as new as everything it depends on; otherwise what changed."""
    target = path.with_suffix(".ipynb")
    if not target.exists():
        return "never built"
    stored, now = nbformat.read(target, as_version=4).metadata.get("course", {}), fingerprint(path, root)
    changed = [part for part in dict.fromkeys([*now, *stored]) if stored.get(part) != now.get(part)]
    named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return f"{named} changed" if changed else ""


def inputs(notebook: NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(cell.cell_type, cell.source.rstrip(), tuple(cell.metadata.get("tags", []))) for cell in notebook.cells]


def drift(path: Path) -> str:
    """An empty text if the .md and the .ipynb hold the same cells; otherwise the first difference."""
    target = path.with_suffix(".ipynb")
    if not target.exists():
        return f"{target.name} is missing: run `make notebooks`"
    text, stored = inputs(read_source(path)), inputs(nbformat.read(target, as_version=4))
    for number, (a, b) in enumerate(zip(text, stored, strict=False)):
        if a != b:
            return (f"cell {number} differs: {path.name} has {_short(a)}, {target.name} has {_short(b)}. The .md is "
                    "the source: put the change there and run `make notebooks`")
    if len(text) != len(stored):
        return f"{path.name} has {len(text)} cells, {target.name} has {len(stored)}: run `make notebooks`"
    return ""


def _short(cell: tuple[str, str, tuple[str, ...]]) -> str:
    kind, source, tags = cell
    first = source.splitlines()[0][:60] if source else ""
    return f"{kind} {first!r}" + (f" {list(tags)}" if tags else "")


def write(notebook: NotebookNode, target: Path) -> None:
    """Write whole or not at all: a build that is killed leaves the old notebook."""
    nbformat.validate(notebook)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, target)


def carry_text(path: Path) -> None:
    """Put changed prose from the .md into the .ipynb. Outputs stay, so nothing happens where code has changed."""
    target = path.with_suffix(".ipynb")
    new, old = read_source(path), nbformat.read(target, as_version=4)
    if inputs(new) == inputs(old) or [c.source for c in new.cells if c.cell_type == "code"] != [
            c.source for c in old.cells if c.cell_type == "code"]:
        return
    run = [cell for cell in old.cells if cell.cell_type == "code"]
    old.cells = [run.pop(0) if cell.cell_type == "code" else cell for cell in new.cells]
    if "course" in old.metadata:
        old.metadata["course"]["chapter"] = fingerprint(path)["chapter"]
    write(old, target)
