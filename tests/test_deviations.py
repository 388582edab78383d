"""The table "paper, code, here" of every method reaches the book as it stands in the code."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import book  # noqa: E402

# Files that are part of a method but compute no loss of a paper.
WITHOUT = {"__init__", "labels", "mobilebert_model", "mobilebert_schedule", "specs", "table"}
METHODS = sorted(p for p in (ROOT / "course_lib" / "methods").glob("*.py") if p.stem not in WITHOUT)


def table_of(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    after = docstring.partition("## Deviations of the original code")[2]
    return [line for line in after.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("path", METHODS, ids=lambda p: p.stem)
def test_every_method_has_a_table_of_four_columns(path):
    rows = table_of(path)
    assert rows[0] == "| what | paper | code | here |"
    assert len(rows) >= 3, "a head, a rule and at least one row"
    for row in rows:
        assert row.replace(r"\|", "").count("|") == 5, f"not four cells: {row}"


@pytest.mark.parametrize("path", METHODS, ids=lambda p: p.stem)
def test_every_row_stands_on_the_page_of_the_book(path):
    page = book.deviations()
    assert f"`course_lib.methods.{path.stem}`" in page
    for row in table_of(path):
        assert row in page
