"""Chapter 2's experiment: each arm reads what it says, and teacher and student mean the same sentences."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from course_lib.experiments import ch02_bilstm as lab
from course_lib.methods import bilstm
from course_lib.mistakes import mutant
from course_lib.shared.masking import IGNORED

REAL = [{"input_ids": [3, 4], "label": 1, "teacher_logits": np.array([-1.0, 1.0])}]
MADE = [{"input_ids": [2], "label": 1, "teacher_logits": np.array([0.5, -0.5])}]


@pytest.fixture
def rows(monkeypatch):
    asked = []
    monkeypatch.setattr(lab, "word_rows", lambda split: list(REAL))
    monkeypatch.setattr(lab, "augmented", lambda mistake="": asked.append(mistake) or list(MADE))
    return asked


def test_made_up_text_has_no_label_unless_the_control_copies_it(rows):
    assert [row["label"] for row in lab.training_set(lab.ARMS["logits"])] == [1]
    assert [row["label"] for row in lab.training_set(lab.ARMS["logits + augmented text"])] == [1, IGNORED]
    assert [row["label"] for row in lab.training_set(lab.ARMS["labels + augmented text"])] == [1, 1]
    assert MADE[0]["label"] == 1  # the shared rows are as they were


def test_only_the_inverted_arm_reads_the_inverted_text(rows):
    for name, arm in lab.ARMS.items():
        rows.clear()
        lab.training_set(arm)
        assert rows == ([] if arm.text == "original" else
                        ["inverted_augmentation_mask" if name == "mistake: inverted mask" else ""]), name


@pytest.mark.parametrize("name", [name for name, arm in lab.ARMS.items() if arm.model == "bilstm"])
def test_an_arm_weighs_its_terms_as_it_says(name):
    arm = lab.ARMS[name]
    torch.manual_seed(0)
    student = bilstm.BiLstm(torch.randn(6, 4), 2, hidden=3, fc=3)
    batch = {"input_ids": torch.tensor([[3, 4], [5, 0]]), "attention_mask": torch.tensor([[1, 1], [1, 0]]),
             "labels": torch.tensor([1, IGNORED]), "teacher_logits": torch.tensor([[-1.0, 1.0], [2.0, -2.0]])}
    with mutant(arm.mistake) if arm.mistake else nullcontext():
        terms = lab.loss_terms(arm)(student, batch)
    assert set(terms) == ({"logits"} if arm.alpha < 1 else set()) | ({"hard"} if arm.alpha > 0 else set())


def test_the_teacher_reads_contractions_as_people_write_them():
    words = bilstm.split_words("It isn't the film's fault; they're late .")
    assert "n't" in words and lab.joined(words) == "It isn't the film's fault ; they're late ."


def test_stored_answers_become_logits_without_their_common_part(monkeypatch):
    monkeypatch.setattr(lab, "vocabulary", lambda: SimpleNamespace(encode=lambda text: {"input_ids": [len(text)]}))
    logits = torch.tensor([4.0, 1.0])
    row = lab._row("good", {"label": 0, "teacher_logits": logits.log_softmax(-1).numpy()})
    assert row["input_ids"] == [4] and row["label"] == 0
    np.testing.assert_allclose(row["teacher_logits"], [1.5, -1.5], rtol=1e-6)


@pytest.mark.assets
def test_a_student_depends_on_its_seed_only():
    one, again, other = (lab.student(seed).fc1.weight for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert lab.student(0).parameters_without_embeddings == 363_002


@pytest.mark.assets
def test_made_up_text_is_new_and_its_words_are_known():
    made = [text for text, _ in lab.made_up()]
    assert len(made) == len(set(made)) > 2.5 * len(lab.tagged())
    unknown = [lab.vocabulary().encode(text)["input_ids"].count(1) for text in made[-500:]]
    assert sum(unknown) < 0.02 * sum(len(text.split()) for text in made[-500:])
