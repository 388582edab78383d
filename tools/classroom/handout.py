"""What students get: one zip of the course without solutions and without the grader, with the assignments in it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Solutions and the tests that hold them, the grader, and what a machine builds for itself.
LEFT_OUT = ("tests", "tools/classroom", "course_lib/notebook/exercises/reference", "book/_build", "dist", "build",
            "class")
NEVER = ("__pycache__", ".git", ".venv", ".ipynb_checkpoints", ".pytest_cache", ".ruff_cache", "node_modules")
FOLDER = "distilling-bert"
DATE = (2020, 1, 1, 0, 0, 0)  # the same files give the same zip


def files(root: Path = ROOT) -> list[Path]:
    """The course's own files that students get, relative to `root`."""
    return sorted(_below(root, root))


def _below(folder: Path, root: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        place = Path(entry.path).relative_to(root)
        own = entry.name.startswith(("progress", "answers")) and entry.name.endswith(".json")
        built = entry.name in NEVER or entry.name.endswith(".egg-info")
        if own or built or entry.is_symlink() or place.as_posix() in LEFT_OUT:
            continue
        if entry.is_dir():
            yield from _below(Path(entry.path), root)
        elif entry.is_file():
            yield place


def write(course: Path, root: Path = ROOT) -> Path:
    """Write release.zip into the course folder, if its content has changed. Returns: the zip."""
    target, temporary = course / "release.zip", course / ".release.zip"
    inside = course.resolve()
    wanted = [(f"{FOLDER}/{place.as_posix()}", root / place) for place in files(root)
              if inside not in (root / place).resolve().parents]
    wanted += [(f"{FOLDER}/assignments/{file.name}", file) for file in sorted((course / "release").glob("*/*.ipynb"))]
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as made:
        for name, file in wanted:
            made.writestr(zipfile.ZipInfo(name, DATE), file.read_bytes(), zipfile.ZIP_DEFLATED)
    if target.exists() and target.read_bytes() == temporary.read_bytes():
        temporary.unlink()
    else:
        os.replace(temporary, target)
    return target
