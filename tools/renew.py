"""A chapter as it came, or as it is now, with your answers put back in.

    make reset CHAPTER=ch01      the chapter as it came
    make update                  the newest course (`git pull`), every chapter that you changed included

Your file is first copied to notebooks/mine/, whole; nothing is ever deleted there. Then the answers of your exercises
go into the fresh chapter: the cells in which you replaced `raise NotImplementedError("ch01.q1")`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import chapter_files
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
STUB = re.compile(r"""NotImplementedError\(["']((?:ch|lab)\d+\.q\d+)["']\)""")
NAME = re.compile(r"^(?:def|class) (\w+)", flags=re.M)


def keep(path: Path) -> Path:
    """Copy a notebook to notebooks/mine/ under a name of its own, and return where it is."""
    folder = path.parent / "mine"
    folder.mkdir(exist_ok=True)
    stamp = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    copy = folder / f"{path.stem}-{stamp}.ipynb"
    shutil.copy2(path, copy)
    return copy


def carry_answers(fresh: NotebookNode, mine: NotebookNode) -> list[str]:
    """Put the exercise cells of `mine` into `fresh`; returns the questions whose answers were carried.

    A cell is found by its id, which JupyterLab keeps; where the course has changed the exercise meanwhile, by the name
    of the function.
    """
    carried = []
    for cell in fresh.cells:
        stub = STUB.search(cell.source) if cell.cell_type == "code" else None
        answer = _answer(cell, mine) if stub else None
        if answer and answer != cell.source and not STUB.search(answer):
            cell.source, cell.outputs, cell.execution_count = answer, [], None
            carried.append(stub[1])
    return carried


def _answer(stub: NotebookNode, mine: NotebookNode) -> str | None:
    code = [cell for cell in mine.cells if cell.cell_type == "code"]
    same = [cell.source for cell in code if cell.get("id") == stub.get("id")]
    name = NAME.search(stub.source)
    named = [cell.source for cell in code if name and re.search(rf"^(?:def|class) {name[1]}\b", cell.source, re.M)]
    return next(iter([*same, *named]), None)


def as_it_came(path: Path) -> NotebookNode:
    """The chapter of the last commit; without git (an unpacked zip) its text, to be run by the learner."""
    committed = _git("show", f"HEAD:{path.relative_to(ROOT).as_posix()}", check=False)
    if committed.returncode == 0:
        return nbformat.reads(committed.stdout, as_version=4)
    return chapter_files.read_source(path.with_suffix(".md"))


def renew(path: Path, fresh: NotebookNode, mine: NotebookNode) -> str:
    """Write the fresh chapter with the answers in it, and say so in one sentence."""
    carried = carry_answers(fresh, mine)
    chapter_files.write(fresh, path)
    return f"{path.name}: fresh" + (f", with your answers to {', '.join(carried)}" if carried else "")


def reset(name: str) -> None:
    """One chapter as it came. Raises: SystemExit for a chapter that there is not, or a file that is no notebook."""
    if not name:
        raise SystemExit("Say which chapter: make reset CHAPTER=ch01")
    for path in (source.with_suffix(".ipynb") for source in chapter_files.sources([name])):
        if not path.exists():
            chapter_files.write(as_it_came(path), path)
            print(f"{path.name}: it was missing, and is there again")
            continue
        copy = keep(path)
        try:
            mine = nbformat.read(path, as_version=4)
        except Exception as problem:  # whatever is in it: the copy has it, and the chapter must come back
            print(f"{path.name} could not be read ({type(problem).__name__}), so no answer could be carried.")
            mine = nbformat.v4.new_notebook()
        print(renew(path, as_it_came(path), mine) + f"; your file is kept as {copy.relative_to(ROOT)}")


def changed() -> list[Path]:
    """The chapters that differ from the last commit."""
    listed = _git("diff", "--name-only", "-z", "HEAD", "--", "notebooks/*.ipynb").stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def update() -> None:
    """`git pull` with the learner's chapters out of its way. Raises: SystemExit where that cannot work.

    If the pull fails, every chapter is as it was before.
    """
    if _git("rev-parse", "--is-inside-work-tree", check=False).returncode:
        raise SystemExit("This folder was not cloned with git: unpack the new course beside it, and copy your chapters "
                         "into its notebooks/ folder.")
    mine = {path: (keep(path), nbformat.read(path, as_version=4)) for path in changed()}
    for path in mine:
        _git("checkout", "HEAD", "--", str(path.relative_to(ROOT)))
    pulled = _git("pull", "--ff-only", check=False)
    if pulled.returncode:
        for path, (copy, _) in mine.items():
            shutil.copy2(copy, path)
        reason = (pulled.stderr.strip() or pulled.stdout.strip()).splitlines()[-1]
        raise SystemExit(f"git pull did not work, and nothing was changed: {reason}")
    print(pulled.stdout.strip().splitlines()[-1])
    for path, (copy, old) in mine.items():
        kept = f"your file is kept as {copy.relative_to(ROOT)}"
        print(f"{renew(path, nbformat.read(path, as_version=4), old)}; {kept}" if path.exists()
              else f"{path.name}: the course has no such chapter any more; {kept}")


def _git(*words: str, check: bool = True) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=check)


if __name__ == "__main__":
    if sys.argv[1:2] == ["update"]:
        update()
    else:
        reset("".join(sys.argv[1:2]))
