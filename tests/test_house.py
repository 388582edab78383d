"""The house: rooms import only the rooms below them, and the linter that says so is really looking."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINTER = Path(sys.executable).with_name("lint-imports")
# What stood side by side in course_lib before it had rooms.
OLD = ("answers|assets|bench|classroom|data|exercises|figures|japanese|layer_maps|masking|measures|mutants|narrowing|"
       "parts|plots|probes|projections|results|show|students|teachers|training|views|word_vectors")


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LINTER, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The library alone, without its neighbours, in a folder that may be broken."""
    shutil.copytree(ROOT / "course_lib", tmp_path / "course_lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_an_arrow_upwards_a_circle_and_an_unknown_room_are_refused(copy: Path) -> None:
    assert linted(copy).returncode == 0, linted(copy).stdout
    masking = copy / "course_lib" / "shared" / "masking.py"
    right = masking.read_text("utf-8")
    masking.write_text(right + "\nfrom course_lib.methods import pkd\n", "utf-8")
    upwards = linted(copy)
    assert upwards.returncode == 1 and "course_lib.shared is not allowed to import course_lib.methods" in upwards.stdout
    masking.write_text(right + "\nfrom course_lib.shared import probes\n", "utf-8")
    circle = linted(copy)
    assert circle.returncode == 1 and re.search(r"No circle inside a room BROKEN", circle.stdout)
    masking.write_text(right, "utf-8")
    (copy / "course_lib" / "attic.py").write_text("", "utf-8")
    assert linted(copy).returncode == 1 and "attic" in linted(copy).stdout


def test_nothing_names_a_module_at_its_old_place() -> None:
    pattern = re.compile(rf"\bcourse_lib[./]({OLD})\b")
    files = [file for kind in ("*.py", "*.md", "*.ipynb", "*.js", "*.toml", "*.yml", "*.json", "Makefile")
             for folder in ("course_lib", "tests", "tools", "notebooks", "book", "data")
             for file in (ROOT / folder).rglob(kind) if "_build" not in file.parts]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")]
    found = [f"{file.relative_to(ROOT)}: {match[0]}" for file in files if file != Path(__file__)
             for match in pattern.finditer(file.read_text("utf-8"))]
    assert len(files) > 200 and found == []
