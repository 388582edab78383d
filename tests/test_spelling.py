"""Spelling: every word that a reader meets is an English word, or one of ours (book/words.txt)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from spellchecker import SpellChecker

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "book" / "words.txt"

PAGES = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.md"),
         *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
MODULES = sorted((ROOT / "course_lib").rglob("*.py"))

NO_PROSE = [re.compile(pattern, re.DOTALL | re.MULTILINE) for pattern in (
    r"\A---\n.*?\n---\n",  # the head of a notebook
    r"<!--.*?-->",
    r"^(`{3,}|~{3,})(?!\{(?:note|admonition|glossary)).*?^\1[`~]*$",  # blocks of code
    r"\$\$.*?\$\$", r"\$[^$\n]+(?:\n[^$\n]+)?\$",  # mathematics
    r"\{[\w:]+\}`[^`]*`", r"(`+).+?\1",  # citations, code in a line
    r"\]\([^)]*\)", r"https?://\S+", r"<[^>]+>",
)]
WORD = re.compile(r"(?<![\w./-])[A-Za-z]+(?:['’][a-z]+)?(?!\w|[./_(=]\w)")


def words(text: str) -> set[str]:
    """The words of a text without its code, mathematics and addresses; teacher's -> teacher, doesn't -> does."""
    for pattern in NO_PROSE:
        text = pattern.sub(" ", text)
    return {re.sub(r"(n['’]t|['’][a-z]+)$", "", word.lower()) for word in WORD.findall(text)}


def texts_of(module: Path) -> Iterator[str]:
    """Docstrings, and in the exercises everything that is said to the learner."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            yield ast.get_docstring(node) or ""
        elif (module.parent.name == "exercises" and isinstance(node, ast.Constant) and isinstance(node.value, str)
              and " " in node.value):
            yield node.value


@cache
def dictionary() -> set[str]:
    """English, and the names of the packages that the course is built on."""
    packages = re.findall(r'^    "([A-Za-z]\w*)', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return set(SpellChecker(language="en").word_frequency.dictionary) | {name.lower() for name in packages}


def unknown(found: set[str]) -> set[str]:
    return {word for word in found if word not in dictionary() and len(word) > 1}


def ours() -> list[str]:
    return [line for line in OURS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_word_of_a_page_is_known(page: Path) -> None:
    new = unknown(words(page.read_text(encoding="utf-8"))) - set(ours())
    assert not new, f"mend the spelling, or put into book/words.txt: {sorted(new)}"


def test_every_word_of_the_docstrings_and_exercises_is_known() -> None:
    new = {(module.name, word) for module in MODULES for text in texts_of(module)
           for word in unknown(words(text)) - set(ours())}
    assert not new, f"mend the spelling, or put into book/words.txt: {sorted(new)}"


def test_our_words_are_in_order_and_the_dictionary_lacks_them() -> None:
    assert ours() == sorted(unknown(set(ours())))


def test_a_slip_is_seen_and_code_is_not_prose() -> None:
    assert unknown(words("The techer's temperture is `tmprature`, $tempr$ or [here](adress.md).")) == {
        "techer", "temperture"}
    assert unknown(words("```python\nnott = a_word\n```\n{cite:t}`hinton2015`; the model doesn't lern.")) == {"lern"}
