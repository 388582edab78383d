"""The scaffold: a stranger's first minute. Its tests fail with the sentences that say what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import scaffold  # noqa: E402


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository without data, outputs and history."""
    root = tmp_path_factory.mktemp("copy") / "course"
    root.mkdir()
    for name in ("course_lib", "tests", "tools", "notebooks", "book"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("*.ipynb", "_build", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "data").symlink_to(ROOT / "data")
    return root


def run(root, *command):
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(root)})
    return done.returncode, done.stdout + done.stderr


def test_the_promised_tests_fail_with_the_promised_sentences(copy):
    assert run(copy, "tools/scaffold.py", "method", "fitnets")[0] == 0
    code, said = run(copy, "tools/scaffold.py", "chapter", "ch11_fitnets")
    assert code == 0 and ".venv/bin/pytest tests/test_ch11_fitnets.py" in said
    code, said = run(copy, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_fitnets.py",
                     "tests/test_ch11_fitnets.py")
    assert code == 1 and re.search(r"12 failed, 1 passed", said), said[-2000:]  # the chapter finds its method
    for sentence in (
            "fitnets_loss: write equation 1 here, then delete this line.",
            "fitnets: run the original code on three small inputs and write its numbers into ORIGINAL.",
            "fitnets: fill the table 'Deviations of the original code'", "fitnets: name the paper in RECORD.",
            "ch11: describe a baseline and the method in ARMS of experiments/ch11_fitnets.py.",
            "ch11: measure it: python -m course_lib.experiments ch11",
            "ch11: course_lib/notebook/exercises/ch11.py is missing", "ch11: these sections are empty: 1 · A question",
            "ch11: draw the idea in course_lib/notebook/figures.py", "ch11: add two real mistakes of chapter 11",
            "ch11: add healthy_fitnets to the healthy runs", "ch11: write the paper's entry in book/references.bib"):
        assert sentence in said, sentence


def test_what_was_made_is_clean_and_the_command_knows_the_method(copy):
    code, said = run(copy, "-m", "ruff", "check", "course_lib", "tests", "tools")
    assert code == 0, said
    code, said = run(copy, "-m", "course_lib", "distill", "--help")
    assert code == 0 and "fitnets" in said


def test_nothing_is_overwritten_and_a_wrong_name_is_explained(copy, capsys):
    before = (copy / "course_lib" / "methods" / "table.py").read_text("utf-8")
    with pytest.raises(ValueError, match=r"pkd.py is there already; nothing was written"):
        scaffold.method("pkd", copy)
    with pytest.raises(ValueError, match="'Fit-Nets' is no name for a Python file"):
        scaffold.method("Fit-Nets", copy)
    with pytest.raises(ValueError, match=r"Chapter 5 is there: ch05_tinybert\. Take the next number\."):
        scaffold.chapter("ch05_other", copy)
    with pytest.raises(ValueError, match="'fitnets' is no name for a chapter"):
        scaffold.chapter("fitnets", copy)
    assert (copy / "course_lib" / "methods" / "table.py").read_text("utf-8") == before
    assert scaffold.main(["method"]) == 2 and "make method NAME=fitnets" in capsys.readouterr().err


def test_a_table_of_another_form_is_not_damaged():
    with pytest.raises(ValueError, match="add the method by hand"):
        scaffold._with_method("from course_lib.methods.pkd import terms\nMETHODS = {}\n", "fitnets")
