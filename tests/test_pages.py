"""The book's own pages: what they say about the code is run or looked up."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"


def test_the_code_of_the_faq_runs():
    page = (BOOK / "faq.md").read_text("utf-8")
    parts = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(parts) > 10
    exec(compile("\n".join(parts), "faq.md", "exec"), {})  # one after the other: they share the first one's names


def test_the_faq_answers_every_question_with_something_to_check():
    sections = re.split(r"^### ", (BOOK / "faq.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert len(sections) >= 17
    silent = [s.split("\n")[0] for s in sections if not re.search(r"\d|`|\]\(|chapter", s.split("\n", 1)[1])]
    assert not silent


def names_in_course_lib() -> set[str]:
    """Every parameter, function, class, attribute and dictionary key that the library's source has."""
    found: set[str] = set()
    for file in (ROOT / "course_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.Attribute(attr=name) | ast.AnnAssign(target=ast.Name(id=name)) | ast.Name(id=name):
                    found.add(name)
                case ast.Constant(value=str() as name):
                    found.add(name)
    return found


def notation_rows() -> list[list[str]]:
    lines = (BOOK / "notation.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("| $")]
    assert len(rows) > 30
    return rows


def test_every_name_of_the_notation_page_is_in_the_code():
    known = names_in_course_lib()
    for symbol, names, shape, _ in notation_rows():
        for name in re.findall(r"`([A-Za-z_]\w*)", names):
            assert name in known, f"{symbol}: no {name} in course_lib"
        assert shape, f"{symbol} has no shape"


def test_the_symbols_of_the_chapters_are_on_the_notation_page():
    page = (BOOK / "notation.md").read_text("utf-8")
    for chapter in sorted((ROOT / "notebooks").glob("ch*.md")):
        table = re.search(r"^\| symbol \|.*?(?=\n\n)", chapter.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        if table:
            for name in re.findall(r"`([A-Za-z_]+)", " ".join(row.split("|")[2] for row in table[0].splitlines()[2:])):
                assert f"`{name}" in page, f"{chapter.stem} uses {name}, which the notation page does not have"


@pytest.mark.parametrize("term", ["temperature", "patience", "value relation", "only commas", "student", "teacher"])
def test_the_glossary_has_the_word_in_four_languages(term):
    entry = re.search(rf"^{term}\n((?:  .*\n)+)", (BOOK / "glossary.md").read_text("utf-8"), re.MULTILINE)
    assert entry and all(f"{language} " in entry[1] for language in ("JA", "KO", "ZH"))


def test_every_entry_of_the_glossary_has_all_languages():
    text = re.search(r"```{glossary}\n(.*?)```", (BOOK / "glossary.md").read_text("utf-8"), re.DOTALL)[1]
    entries = re.findall(r"^(\S.*)\n((?:  .*\n)+)", text, re.MULTILINE)
    assert len(entries) > 40 and [e for e, _ in entries] == sorted((e for e, _ in entries), key=str.casefold)
    assert not [e for e, body in entries if not re.search(r"JA .+ · KO .+ · ZH .+", body)]
