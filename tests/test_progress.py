"""Waiting: a training says which run it is, how long it takes here, how good it is; a stored notebook says nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from course_lib.material.data import table
from course_lib.shared import progress
from course_lib.shared.training import Recipe, train


class Clock:
    """Half a second passes between two looks at it."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.5
        return self.now


def train_a_little(steps: int = 40) -> None:
    model = nn.Linear(2, 1)
    batches = [{"x": torch.ones(4, 2)}] * steps
    train(model, batches, lambda m, b: {"square": m(b["x"]).square().mean()}, Recipe(steps=steps, evaluate_every=10),
          evaluate=lambda m: {"accuracy": 78.26, "other": 1.0})


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_PROGRESS", "1")


def test_runs_are_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    for name in progress.runs("labels only", "labels and answers"):
        assert name in ("labels only", "labels and answers")
        train_a_little()
    said = capsys.readouterr().err
    assert "run 1 of 2: labels only" in said and "run 2 of 2: labels and answers" in said
    assert said.index("run 1 of 2") < said.index("run 2 of 2")
    train_a_little()
    assert "training" in (after := capsys.readouterr().err) and "run" not in after


def test_one_run_is_not_counted_and_an_announcement_is_for_the_next_training_only(capsys) -> None:
    for _ in progress.runs("the student"):
        train_a_little()
    said = capsys.readouterr().err
    assert "the student" in said and "run 1" not in said
    progress.announce("run 2 of 3: stage 1")
    train_a_little()
    train_a_little()
    said = capsys.readouterr().err
    assert "run 2 of 3: stage 1" in said and "training" in said[said.rindex("stage 1"):]


def test_a_loop_that_is_left_early_forgets_its_name(capsys) -> None:
    for _ in progress.runs("first", "second"):
        break
    train_a_little()
    assert "first" not in capsys.readouterr().err


def test_the_live_score_and_the_expected_time_stand_beside_the_bar(capsys, monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock.perf_counter)
    train_a_little(400)  # the fake clock ticks once between the two looks: 0.5 s for five steps, 40 s for all
    said = capsys.readouterr().err
    assert "training, about 40 s" in said and "accuracy 78.3" in said and "other" not in said


@pytest.mark.parametrize(("seconds", "words"), [
    (0.2, "about 1 s"), (4.4, "about 4 s"), (41.0, "about 40 s"), (88.0, "about 90 s"), (170.0, "about 3 min"),
    (8000.0, "about 2 h")])
def test_a_duration_is_said_in_round_numbers(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_nothing_is_said_where_notebooks_are_stored(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COURSE_PROGRESS", "0")
    for _ in progress.runs("a", "b"):
        train_a_little()
    assert capsys.readouterr() == ("", "")


def test_a_table_with_class_names_shows_no_foreign_bar(capsys, monkeypatch) -> None:
    monkeypatch.delenv("HF_DATASETS_DISABLE_PROGRESS_BARS", raising=False)
    found = table([{"text": "good", "label": 1}, {"text": "bad", "label": 0}], ["negative", "positive"])
    assert found.features["label"].names == ["negative", "positive"] and found["label"][:] == [1, 0]
    assert capsys.readouterr() == ("", "")
