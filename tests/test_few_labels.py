"""The common ground of few labels: who is told what, and that sorting by length mixes nothing up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForSequenceClassification

from course_lib.experiments import few_labels
from course_lib.experiments.few_labels import Answers, answer_losses
from course_lib.material.data import half_of
from course_lib.methods.cached import ask_teacher
from course_lib.shared import statistics
from course_lib.shared.batches import in_order
from course_lib.shared.measures import predict_logits

STUDENT = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.4, 0.1], [0.0, 2.0, 1.0]])
TEACHER = torch.tensor([[0.3, 0.1, 2.0], [1.0, 0.0, 0.0], [0.0, 3.0, 1.0]])


def batch(labels):
    return {"labels": torch.tensor(labels), "teacher_logits": TEACHER}


class TestLosses:
    def test_labels_alone_are_the_cross_entropy_of_the_labelled_rows(self):
        found = answer_losses(STUDENT, batch([2, -100, 1]), Answers("labels"))
        assert set(found) == {"hard"}
        assert torch.allclose(found["hard"], F.cross_entropy(STUDENT[[0, 2]], torch.tensor([2, 1])))

    def test_soft_answers_count_for_every_row_and_labels_a_tenth(self):
        found = answer_losses(STUDENT, batch([2, -100, 1]), Answers("soft", temperature=2.0))
        p = (TEACHER / 2).softmax(-1)
        kl = (p * (p.log() - (STUDENT / 2).log_softmax(-1))).sum(-1).mean()
        assert torch.allclose(found["soft"], 0.9 * 4 * kl)
        assert torch.allclose(found["hard"], 0.1 * F.cross_entropy(STUDENT[[0, 2]], torch.tensor([2, 1])))

    def test_argmax_is_the_class_that_the_teacher_names(self):
        found = answer_losses(STUDENT, batch([-100] * 3), Answers("argmax"))
        assert set(found) == {"argmax"}, "a batch without any label has no hard term"
        assert torch.allclose(found["argmax"], 0.9 * F.cross_entropy(STUDENT, torch.tensor([2, 0, 1])))

    def test_soft_and_argmax_are_one_at_a_temperature_near_zero(self):
        sure = {"labels": torch.full((3,), -100), "teacher_logits": 1000 * TEACHER}
        soft = answer_losses(STUDENT, sure, Answers("soft", temperature=1.0))["soft"]
        assert torch.allclose(soft, answer_losses(STUDENT, sure, Answers("argmax"))["argmax"])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=3)).eval()


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    return [{"input_ids": random.integers(5, 40, random.integers(3, 20)).tolist(), "label": int(random.integers(3))}
            for _ in range(150)]


def test_the_teacher_s_answers_are_in_the_order_of_the_rows(model, rows):
    ours, plain = few_labels.asked(model, rows), ask_teacher(model, rows)
    assert torch.equal(ours.keys, plain.keys)
    assert ours.tensors["log_probs"].dtype == torch.float16
    assert torch.allclose(ours.tensors["log_probs"].float(), plain.tensors["log_probs"], atol=2e-3)


def test_right_answers_are_in_the_order_of_the_rows(model, rows, monkeypatch):
    monkeypatch.setattr(few_labels, "examples", lambda name, split, max_length=None: rows)
    plain = predict_logits(model, in_order(rows)).argmax(-1).numpy() == [row["label"] for row in rows]
    assert (few_labels.right_answers(model, "sentiment-500", "test") == plain).all() and 0 < plain.sum() < 150
    scores = few_labels.scores(model, "sentiment-500")
    assert (statistics.unpack(scores["right"]["accuracy"]) == plain).all()
    assert scores["accuracy"] == round(100 * plain.mean(), 2) == scores["validation"]


def test_a_cross_fitted_answer_comes_from_the_teacher_that_has_not_seen_the_text():
    texts = [f"sentence {i}" for i in range(40)]
    halves = [[{"teacher_logits": half}] * 40 for half in (0, 1)]
    found = few_labels.cross_fitted([{"label": i} for i in range(40)], halves, texts)
    assert [row["teacher_logits"] for row in found] == [1 - half_of(text) for text in texts]
    assert [row["label"] for row in found] == list(range(40))
    assert 10 < sum(map(half_of, texts)) < 30


@pytest.mark.assets
def test_a_setting_has_the_labels_of_its_teacher_and_all_text():
    few, every = (few_labels.training_rows("sentiment-500", text=text) for text in (False, True))
    assert len(few) == 500 and len(every) == 6008 + 2825
    assert sum(row["label"] != -100 for row in every) == 500
    assert all(len(row["teacher_logits"]) == 2 for row in every)
