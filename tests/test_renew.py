"""A fresh chapter keeps the learner's answers, and the learner's file is never lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import chapter_files
import nbformat
import pytest
import renew
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

STUB = 'def softened(x):\n    raise NotImplementedError("ch01.q1")'
ANSWER = "def softened(x):\n    return x.softmax(-1)"


def chapter(answer: str = STUB, text: str = "# One", extra: str = "1 + 1") -> nbformat.NotebookNode:
    cells = [new_markdown_cell(text, id="text"), new_code_cell(answer, id="q1"), new_code_cell(extra, id="more")]
    return new_notebook(cells=cells, metadata=chapter_files.METADATA)


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learner's clone of a course with one chapter, beside the repository that it came from."""
    origin = tmp_path / "origin"
    (origin / "notebooks").mkdir(parents=True)
    (origin / "notebooks" / "ch01_a.md").write_text("# One\n")
    chapter_files.write(chapter(), origin / "notebooks" / "ch01_a.ipynb")
    git(origin, "init", "-q", "-b", "main")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", str(origin), "learner")
    learner = tmp_path / "learner"
    monkeypatch.setattr(renew, "ROOT", learner)
    monkeypatch.setattr(chapter_files, "FOLDER", learner / "notebooks")
    return learner


def read(folder: Path) -> nbformat.NotebookNode:
    return nbformat.read(folder / "notebooks" / "ch01_a.ipynb", as_version=4)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "notebooks" / "mine").glob("ch01_a-*.ipynb"))


def test_a_reset_chapter_is_as_it_came_with_the_answers_in_it(clone: Path, capsys) -> None:
    chapter_files.write(chapter(ANSWER, extra="what I tried"), clone / "notebooks" / "ch01_a.ipynb")
    renew.reset("ch01")
    assert [cell.source for cell in read(clone).cells] == ["# One", ANSWER, "1 + 1"]
    (copy,) = kept(clone)
    assert nbformat.read(copy, as_version=4).cells[2].source == "what I tried"
    assert "with your answers to ch01.q1" in capsys.readouterr().out


def test_a_chapter_that_cannot_be_read_comes_back_and_its_file_is_kept(clone: Path, capsys) -> None:
    (clone / "notebooks" / "ch01_a.ipynb").write_text("{ half a file")
    renew.reset("ch01")
    assert read(clone).cells[1].source == STUB and kept(clone)[0].read_text() == "{ half a file"
    assert "no answer could be carried" in capsys.readouterr().out


def test_a_reset_without_git_takes_the_text_and_without_a_name_it_asks(clone: Path) -> None:
    (clone / ".git").rename(clone / ".no_git")
    renew.reset("ch01")
    assert [cell.source for cell in read(clone).cells] == ["# One"]
    with pytest.raises(SystemExit, match="make reset CHAPTER=ch01"):
        renew.reset("")
    with pytest.raises(SystemExit, match="no chapter 'ch77'"):
        renew.reset("ch77")


def test_an_update_brings_the_new_chapter_and_keeps_the_answers(clone: Path, capsys) -> None:
    chapter_files.write(chapter(ANSWER), clone / "notebooks" / "ch01_a.ipynb")
    new = chapter(STUB + "  # a better stub", text="# One, better")
    new.cells[1].id = "other"  # the id is made from the content
    chapter_files.write(new, clone.parent / "origin" / "notebooks" / "ch01_a.ipynb")
    git(clone.parent / "origin", "commit", "-qam", "two")
    renew.update()
    assert [cell.source for cell in read(clone).cells] == ["# One, better", ANSWER, "1 + 1"]
    assert len(kept(clone)) == 1 and "with your answers to ch01.q1" in capsys.readouterr().out


def test_an_update_that_fails_leaves_every_chapter_as_it_was(clone: Path) -> None:
    chapter_files.write(chapter(ANSWER, extra="mine"), clone / "notebooks" / "ch01_a.ipynb")
    before = (clone / "notebooks" / "ch01_a.ipynb").read_bytes()
    git(clone, "remote", "set-url", "origin", str(clone.parent / "gone"))
    with pytest.raises(SystemExit, match="nothing was changed"):
        renew.update()
    assert (clone / "notebooks" / "ch01_a.ipynb").read_bytes() == before


def test_an_update_of_a_folder_without_git_says_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renew, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="not cloned with git"):
        renew.update()


def test_a_stub_that_was_never_filled_is_no_answer() -> None:
    fresh = chapter()
    assert renew.carry_answers(fresh, chapter(STUB + "\n# later")) == [] and fresh.cells[1].source == STUB
