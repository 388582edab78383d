"""Chapter 1: what a small student gains from a teacher when labels are few: by the text, and by the softness.

Movie sentences: 500 labels, 6,008 + 2,825 texts, a teacher that has seen the same 500 labels. Student: a BERT of 2
layers x 128 with random weights, the same for every arm of a seed. Between an arm and the baseline of a claim, one
thing differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from course_lib.experiments import few_labels, records
from course_lib.experiments.few_labels import SEEDS, TRIAL_SEEDS, Answers, teacher
from course_lib.shared.batches import Batches
from course_lib.shared.statistics import Prediction
from course_lib.shared.students import new_student
from course_lib.shared.training import Recipe, train

__all__ = ["ABOUT", "ARMS", "PREDICTIONS", "SEEDS", "TRIALS", "TRIAL_SEEDS", "poll_result", "prepare", "run",
           "student", "training_rows"]

ABOUT = "500 labels, 2 x 128 student from scratch: labels, the teacher's class, its soft answers."
SETTING = "sentiment-500"
SHAPE = {"layers": 2, "hidden": 128, "heads": 2, "intermediate": 512}
BATCH_SIZE = 32
TRIALS = [{"steps": steps, "learning_rate": rate} for steps in (300, 1000) for rate in (5e-4, 2e-3)]


@dataclass(frozen=True)
class Arm:
    """What one arm learns from."""

    target: Literal["labels", "soft", "argmax"]
    text: bool = False  # every text, or only those with a label
    temperature: float = 1.0


ARMS = {
    "labels": Arm("labels"),
    "soft answers, all text": Arm("soft", text=True, temperature=2.0),
    "argmax, all text": Arm("argmax", text=True),
    "soft answers, same sentences": Arm("soft", temperature=2.0),
}

# Written before the runs. Table 5: soft targets on 3 % of the data keep a model from overfitting, where hard targets
# fail.
PREDICTIONS = [
    Prediction("On the same few sentences, soft answers beat labels (table 5)", "soft answers, same sentences",
               "labels", "+"),
    Prediction("All text with the teacher's class beats the labels alone", "argmax, all text", "labels", "+"),
    Prediction("All text with soft answers beats the labels alone", "soft answers, all text", "labels", "+"),
    Prediction("Soft answers beat the teacher's class on the same text", "soft answers, all text", "argmax, all text",
               "+"),
    Prediction("Soft answers on all text beat those on the few sentences", "soft answers, all text",
               "soft answers, same sentences", "+"),
]


def prepare() -> None:
    """Ask the teacher about every text before the runs start."""
    few_labels.prepare(SETTING)


def student(seed: int, setting: str = SETTING) -> PreTrainedModel:
    """2 layers x 128, 4.4 million weights, of which 3.9 million are word embeddings; nothing is copied."""
    return new_student(teacher(setting).model, **SHAPE, seed=seed)


def training_rows(arm: Arm) -> list[dict]:
    """The texts of an arm, each with its label (or -100) and the teacher's answer."""
    return few_labels.training_rows(SETTING, text=arm.text)


def run(arm_name: str, seed: int, trial: dict) -> dict:
    """Train one student and measure it: validation accuracy before and after, and every test answer."""
    arm = ARMS[arm_name]
    return trained_and_measured(student(seed), training_rows(arm), Answers(arm.target, arm.temperature), seed, trial)


def trained_and_measured(model: PreTrainedModel, rows: list[dict], told: Answers, seed: int, trial: dict,
                         setting: str = SETTING, max_length: int | None = None) -> dict:
    """One run of any experiment of this chapter."""
    start = few_labels.validation(model, setting, max_length)["validation"]
    train(model, Batches(rows, BATCH_SIZE, seed=seed), few_labels.answer_terms(told), Recipe(**trial, seed=seed),
          parameters=[{"params": list(model.parameters()), "fused": True}])  # a quarter of the time saved
    return few_labels.scores(model, setting, max_length) | {"start": start}


def poll_result() -> tuple[str, str]:
    """The option of chapter 1's poll that fits the measurement, and the numbers that say so."""
    return records.leader("ch01few", {"a": "labels", "b": "soft answers, same sentences", "c": "argmax, all text",
                                      "d": "soft answers, all text"}, "e")
