"""Chapter 1: what a small student gains from a teacher when labels are few: the text, the softness, the temperature.

Student: a BERT of 2 layers x 128 with random weights, the same for every arm of a seed. Movie sentences: 500 labels,
6,008 + 2,825 texts, a teacher that has seen the same 500 labels. Topics: 40 labels for each of eleven classes, 5,455
texts of which the student reads 32 tokens. Between an arm and the baseline of a claim, one thing differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from course_lib.experiments import few_labels
from course_lib.experiments.few_labels import SEEDS, TRIAL_SEEDS, Answers, teacher
from course_lib.shared.batches import Batches
from course_lib.shared.statistics import Prediction
from course_lib.shared.students import new_student
from course_lib.shared.training import Recipe, train

__all__ = ["ABOUT", "ARMS", "PREDICTIONS", "SEEDS", "TRIALS", "TRIAL_SEEDS", "prepare", "run", "student",
           "training_rows"]

ABOUT = "Few labels, 2 x 128 student from scratch: labels, the teacher's class, its soft answers, and the temperature."
SHAPE = {"layers": 2, "hidden": 128, "heads": 2, "intermediate": 512}
BATCH_SIZE = 32
TRIALS = [{"steps": steps, "learning_rate": rate} for steps in (300, 1000) for rate in (5e-4, 2e-3)]
MAX_LENGTH = {"sentiment-500": 64, "topics-440": 32}  # tokens that the student reads


@dataclass(frozen=True)
class Arm:
    """What one arm learns from."""

    target: Literal["labels", "soft", "argmax"]
    text: bool = False  # every text, or only those with a label
    temperature: float = 1.0
    setting: str = "sentiment-500"


ARMS = {
    "labels": Arm("labels"),
    "soft answers, same sentences": Arm("soft", temperature=2.0),
    "argmax, all text": Arm("argmax", text=True),
    "soft answers, all text": Arm("soft", text=True, temperature=2.0),
    "topics, labels": Arm("labels", setting="topics-440"),
    "topics, argmax": Arm("argmax", text=True, setting="topics-440"),
    "topics, T=1": Arm("soft", text=True, temperature=1.0, setting="topics-440"),
    "topics, T=2": Arm("soft", text=True, temperature=2.0, setting="topics-440"),
    "topics, T=5": Arm("soft", text=True, temperature=5.0, setting="topics-440"),
    "topics, T=10": Arm("soft", text=True, temperature=10.0, setting="topics-440"),
    "topics, T=20": Arm("soft", text=True, temperature=20.0, setting="topics-440"),
}

# Written before the runs. Table 5: soft targets on 3 % of the data keep a model from overfitting, where hard targets
# fail. Section 3: with 30 units a layer, T from 2.5 to 4 was best, better than higher and lower ones.
PREDICTIONS = [
    Prediction("On the same few sentences, soft answers beat labels (table 5)", "soft answers, same sentences",
               "labels", "+"),
    Prediction("All text with the teacher's class beats the labels alone", "argmax, all text", "labels", "+"),
    Prediction("All text with soft answers beats the labels alone", "soft answers, all text", "labels", "+"),
    Prediction("Soft answers beat the teacher's class on the same text", "soft answers, all text", "argmax, all text",
               "+"),
    Prediction("Soft answers on all text beat those on the few sentences", "soft answers, all text",
               "soft answers, same sentences", "+"),
    Prediction("Eleven classes: soft answers at T = 2 beat the teacher's class", "topics, T=2", "topics, argmax", "+"),
    Prediction("Eleven classes: T = 2 beats T = 1", "topics, T=2", "topics, T=1", "+"),
    Prediction("Eleven classes: T = 5 beats T = 1", "topics, T=5", "topics, T=1", "+"),
    Prediction("Eleven classes: T = 20 is too high for a small student", "topics, T=20", "topics, T=2", "-"),
]


def prepare() -> None:
    """Ask both teachers about every text before the runs start."""
    few_labels.prepare(*MAX_LENGTH)


def student(seed: int, setting: str = "sentiment-500") -> PreTrainedModel:
    """2 layers x 128, 4.4 million weights, of which 3.9 million are word embeddings; nothing is copied."""
    return new_student(teacher(setting).model, **SHAPE, seed=seed)


def training_rows(arm: Arm) -> list[dict]:
    """The texts of an arm, each with its label (or -100) and the teacher's answer."""
    return few_labels.training_rows(arm.setting, text=arm.text, max_length=MAX_LENGTH[arm.setting])


def run(arm_name: str, seed: int, trial: dict) -> dict:
    """Train one student and measure it: validation accuracy before and after, and every test answer."""
    arm, length = ARMS[arm_name], MAX_LENGTH[ARMS[arm_name].setting]
    model = student(seed, arm.setting)
    start = few_labels.validation(model, arm.setting, length)["validation"]
    train(model, Batches(training_rows(arm), BATCH_SIZE, seed=seed),
          few_labels.answer_terms(Answers(arm.target, arm.temperature)), Recipe(**trial, seed=seed),
          parameters=[{"params": list(model.parameters()), "fused": True}])  # a quarter of the time saved
    return few_labels.scores(model, arm.setting, length) | {"start": start}
