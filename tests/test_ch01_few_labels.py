"""Chapter 1 with few labels: arms differ in one thing, predictions are about arms that exist, runs can be repeated."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from course_lib.experiments import (
    ch00_minute,
    ch01all_crossfitted,
    ch01few_hinton,
    ch01topics_temperature,
    few_labels,
    measuring,
)
from course_lib.shared import statistics

CLAIMING = [name for name in measuring.names() if hasattr(measuring.experiment(name), "PREDICTIONS")]


@pytest.mark.parametrize("name", CLAIMING)
def test_every_prediction_is_about_two_arms_that_exist(name):
    module = measuring.experiment(name)
    assert module.PREDICTIONS and len(module.SEEDS) >= 10 and set(module.TRIAL_SEEDS) <= set(module.SEEDS)
    for prediction in module.PREDICTIONS:
        assert {prediction.arm, prediction.baseline} <= set(module.ARMS) and prediction.arm != prediction.baseline
        assert prediction.sign in ("+", "-", "0") and prediction.measure == "accuracy"
    assert len({p.claim for p in module.PREDICTIONS}) == len(module.PREDICTIONS)


@pytest.mark.parametrize(("module", "arm", "baseline", "differs"), [
    (ch01few_hinton, "soft answers, same sentences", "labels", {"target", "temperature"}),
    (ch01few_hinton, "soft answers, all text", "argmax, all text", {"target", "temperature"}),
    (ch01few_hinton, "soft answers, all text", "soft answers, same sentences", {"text"}),
    (ch01topics_temperature, "T=5", "T=1", {"temperature"}),
    (ch01all_crossfitted, "all labels, cross-fitted answers", "all labels, answers", {"answers"}),
])
def test_one_thing_differs_between_an_arm_and_its_baseline(module, arm, baseline, differs):
    """A temperature belongs to soft answers: labels and classes have none."""
    ours, theirs = asdict(module.ARMS[arm]), asdict(module.ARMS[baseline])
    assert {key for key in ours if ours[key] != theirs[key]} == differs


@pytest.fixture
def small(monkeypatch):
    """Forty texts of random words in place of every split; every second one has a label."""
    def examples(name, split, max_length=None):
        random, classes = np.random.default_rng(len(split)), {"topics-440": 11}.get(name, 2)
        return [{"input_ids": [101, *random.integers(2000, 3000, random.integers(3, 9)).tolist(), 102],
                 "label": int(random.integers(classes)) if i % 2 or split in ("test", "validation") else -100,
                 "teacher_logits": random.normal(size=classes).astype(np.float16)} for i in range(40)]

    monkeypatch.setattr(few_labels, "examples", examples)


@pytest.mark.assets
@pytest.mark.parametrize(("module", "arm"), [
    (ch01few_hinton, "labels"), (ch01few_hinton, "argmax, all text"), (ch01topics_temperature, "T=5"),
    (ch00_minute, "distilled")])
def test_a_run_leaves_what_a_record_needs_and_can_be_repeated(small, module, arm):
    trial = {"steps": 3, "learning_rate": 1e-3}
    first, second = module.run(arm, 0, trial), module.run(arm, 0, trial)
    assert first == second and set(first) == {"accuracy", "validation", "start", "right"}
    right = statistics.unpack(first["right"]["accuracy"])
    assert len(right) == 40 and first["accuracy"] == pytest.approx(100 * right.mean())


@pytest.mark.assets
def test_a_seed_has_one_start_for_every_arm_and_another_seed_another_one():
    one, same, other = (ch01few_hinton.student(seed).classifier.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_arms_without_text_read_the_labelled_sentences_only(small):
    alone, every = (ch01few_hinton.training_rows(ch01few_hinton.ARMS[arm])
                    for arm in ("labels", "soft answers, all text"))
    assert len(alone) == 20 and all(row["label"] != -100 for row in alone)
    assert len(every) == 80 and sum(row["label"] == -100 for row in every) == 40
