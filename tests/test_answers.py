"""Kept answers: asked for once, committed if small, never those of another teacher."""

import pytest
import torch

from course_lib.experiments import answers
from course_lib.methods.cached import SoftLabels


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty repository and an empty cache with one teacher."""
    monkeypatch.setattr(answers, "DATA", tmp_path / "data")
    monkeypatch.setattr(answers, "cache_folder", lambda: tmp_path / "cache")
    adapter = tmp_path / "data/teachers/sentiment/adapter.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.write_bytes(b"first teacher")
    return adapter


def some(value: float) -> SoftLabels:
    return SoftLabels(torch.zeros(1, 16, dtype=torch.uint8), torch.ones(1, dtype=torch.long),
                      {"log_probs": torch.full((1, 2), value)}, 2, 1.0)


def value(found: SoftLabels) -> float:
    return found.tensors["log_probs"][0, 0].item()


def test_the_teacher_is_asked_once_and_a_new_teacher_again(house):
    assert value(answers.kept("sentiment", "train", lambda: some(1.0))) == 1.0
    assert value(answers.kept("sentiment", "train", lambda: some(2.0))) == 1.0
    house.write_bytes(b"second teacher")
    assert value(answers.kept("sentiment", "train", lambda: some(3.0))) == 3.0


def test_small_files_are_copied_to_the_repository_and_read_from_there(house, capsys, monkeypatch):
    answers.kept("sentiment", "train", lambda: some(1.0))
    answers.main(["sentiment-train", "sentiment-test"])
    assert "sentiment-test: not in the cache folder" in capsys.readouterr().out
    assert answers.committed("sentiment", "train").exists()
    monkeypatch.setattr(answers, "cache_folder", lambda: pytest.fail("the committed file is enough"))
    assert value(answers.kept("sentiment", "train", lambda: some(9.0))) == 1.0


def test_a_teacher_whose_name_begins_like_another_has_its_own_files(house, capsys):
    other = house.parent.parent / "sentiment-500/adapter.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"few labels")
    answers.kept("sentiment-500", "test", lambda: some(5.0))
    answers.main(["sentiment-500-test"])
    assert answers.committed("sentiment-500", "test").exists() and not answers.committed("sentiment", "test").exists()


def test_a_large_file_stays_in_the_cache(house, capsys, monkeypatch):
    monkeypatch.setattr(answers, "LARGEST", 10)
    answers.kept("sentiment", "train", lambda: some(1.0))
    answers.main(["sentiment-train"])
    assert "too large" in capsys.readouterr().out and not answers.committed("sentiment", "train").exists()
