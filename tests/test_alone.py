"""Colab: one notebook, copied alone into an empty folder, with the built wheel and nothing of this folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import set_up  # noqa: E402
import simulated_class as simulated  # noqa: E402
from classroom import assignments  # noqa: E402

from course_lib.notebook.exercises.questions import chapter  # noqa: E402

pytestmark = pytest.mark.slow
RUN = ("import sys, nbclient, nbformat; notebook = nbformat.read(sys.argv[1], as_version=4); "
       "nbclient.NotebookClient(notebook, timeout=300).execute(); nbformat.write(notebook, sys.argv[1])")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COURSE_"))}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python with the packages of this one and the built wheel in place of this folder's course_lib."""
    folder = tmp_path_factory.mktemp("clean")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=False)
    if built.returncode and not set_up.index_answers(sys.executable):
        pytest.skip("pip's index cannot be reached, and building a wheel asks it for hatchling")
    (wheel,) = folder.glob("course_lib-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    # The packages' own .pth files are not read this way, so this folder's editable course_lib stays out.
    (site / "packages.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    return folder / "venv" / "bin" / "python"


@pytest.fixture
def alone(tmp_path):
    """The exercises of chapter 1, solved, as the only file of a folder."""
    student = simulated.Student(assignments.assignment("ch01"), "ch01").solves()
    file = tmp_path / "ch01.ipynb"
    nbformat.write(student.notebook, file)
    return file


def test_the_bootstrap_line_the_checks_and_the_export_work(python, alone):
    done = subprocess.run([python, "-c", RUN, alone.name], cwd=alone.parent, env=CLEAN, text=True, capture_output=True,
                          check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    said = "\n".join(str(output.get("data", {}).get("text/plain", output.get("text", "")))
                     for cell in nbformat.read(alone, as_version=4).cells for output in cell.get("outputs", []))
    asked = chapter("ch01")
    assert "Ready: fast tier" in said
    for question in asked.questions:
        assert f"{question.name}: correct ({question.points:g} of {question.points:g} points)" in said
    assert "Wrote answers.json" in said and f"ch01 {asked.points:g} of {asked.points:g}" in said
    handed_in = json.loads((alone.parent / "answers.json").read_text(encoding="utf-8"))
    assert set(handed_in["exercises"]) == {question.name for question in asked.questions}
    assert all(entry["source"] for entry in handed_in["exercises"].values())
    assert sorted(path.name for path in alone.parent.iterdir()) == ["answers.json", "ch01.ipynb", "progress.json"]


def test_the_course_comes_from_the_wheel(python, tmp_path):
    code = "import course_lib; print(course_lib.__file__)"
    where = subprocess.run([python, "-c", code], cwd=tmp_path, env=CLEAN, text=True, capture_output=True, check=True)
    assert str(python.parent.parent) in where.stdout and str(ROOT) not in where.stdout


def test_the_wheel_holds_no_right_numbers_of_the_tests_and_no_grader(python):
    site = next((python.parent.parent / "lib").glob("python*")) / "site-packages"
    assert not (site / "course_lib" / "classroom").exists() and not (site / "solutions").exists()
    assert not [path for path in (site / "course_lib").rglob("*") if "solutions" in path.parts]


def test_the_wheel_holds_what_solution_shows(python):
    site = next((python.parent.parent / "lib").glob("python*")) / "site-packages"
    assert (site / "course_lib" / "notebook" / "exercises" / "reference" / "ch01.py").exists()
