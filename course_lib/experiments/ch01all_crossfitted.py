"""Chapter 1, every label given: does a teacher help a student that has all the labels itself?

Movie sentences, 6,008 labels, the student of 2 layers x 128. Asked about sentences that it was trained on, a teacher
says the label again. Cross-fitted answers come from a teacher that has never seen the sentence: two teachers, each
trained on one half, answer the other half. Nothing else differs between the arms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from course_lib.experiments import few_labels
from course_lib.experiments.ch01few_hinton import TRIALS, student, trained_and_measured
from course_lib.experiments.few_labels import SEEDS, TRIAL_SEEDS, Answers
from course_lib.material.data import load_data
from course_lib.shared.statistics import Prediction

__all__ = ["ABOUT", "ARMS", "PREDICTIONS", "SEEDS", "TRIALS", "TRIAL_SEEDS", "prepare", "run", "training_rows"]

ABOUT = "Movie sentences, every label given: labels, the answers of a teacher that knows them, cross-fitted answers."
SETTING, HALVES = "sentiment-all", ("sentiment-half-0", "sentiment-half-1")


@dataclass(frozen=True)
class Arm:
    """What one arm learns from; every sentence has its label."""

    target: Literal["labels", "soft"]
    answers: Literal["none", "own", "cross-fitted"] = "none"
    hard_weight: float = 0.5
    temperature: float = 2.0


ARMS = {
    "all labels": Arm("labels"),
    "all labels, answers": Arm("soft", "own"),
    "all labels, cross-fitted answers": Arm("soft", "cross-fitted"),
}

# Written before the runs. The paper's first claim (MNIST: 146 -> 74 errors) has all labels; its teacher was so strongly
# regularised (dropout, jittered images) that its answers on training images were no labels.
PREDICTIONS = [
    Prediction("Cross-fitted answers beat the labels alone", "all labels, cross-fitted answers", "all labels", "+"),
    Prediction("Cross-fitted answers beat those of a teacher that knows the labels", "all labels, cross-fitted answers",
               "all labels, answers", "+"),
    Prediction("A teacher that knows the labels only repeats them", "all labels, answers", "all labels", "0"),
]


def prepare() -> None:
    """Ask the three teachers before the runs start."""
    few_labels.prepare(SETTING)
    for half in HALVES:
        few_labels.examples(half, "train")


def training_rows(arm: Arm) -> list[dict]:
    """The training sentences, each with its label and the answer that the arm's student gets."""
    rows = few_labels.examples(SETTING, "train")
    if arm.answers != "cross-fitted":
        return rows
    texts = load_data("sentiment", labels="all")["train"]["text"]
    return few_labels.cross_fitted(rows, [few_labels.examples(half, "train") for half in HALVES], list(texts))


def run(arm_name: str, seed: int, trial: dict) -> dict:
    """Train one student and measure it."""
    arm = ARMS[arm_name]
    told = Answers(arm.target, arm.temperature, arm.hard_weight)
    return trained_and_measured(student(seed), training_rows(arm), told, seed, trial, SETTING)
