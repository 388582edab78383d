"""Chapter 1, eleven classes: does softness count more where there are ten wrong classes, and at which temperature?

Wikipedia leads: 40 labels for each of eleven topics, 5,455 texts, of which the student reads 32 tokens; a teacher that
has seen the same 440 labels. The student of 2 layers x 128 begins at random, the same for every arm of a seed.
"""

from __future__ import annotations

from course_lib.experiments import few_labels
from course_lib.experiments.ch01few_hinton import TRIALS, Arm, student, trained_and_measured
from course_lib.experiments.few_labels import SEEDS, TRIAL_SEEDS, Answers
from course_lib.shared.statistics import Prediction

__all__ = ["ABOUT", "ARMS", "PREDICTIONS", "SEEDS", "TRIALS", "TRIAL_SEEDS", "prepare", "run"]

ABOUT = "Eleven topics, 440 labels, 2 x 128 student from scratch: the teacher's class, and soft answers at T = 1 to 20."
SETTING, MAX_LENGTH = "topics-440", 32
TEMPERATURES = (1, 2, 5, 10, 20)

ARMS = {
    "labels": Arm("labels"),
    "argmax": Arm("argmax", text=True),
} | {f"T={t}": Arm("soft", text=True, temperature=float(t)) for t in TEMPERATURES}

# Written before the runs. Section 3: with 30 units a layer, T from 2.5 to 4 was best, higher and lower ones were worse.
PREDICTIONS = [
    Prediction("Eleven classes: soft answers at T = 2 beat the teacher's class", "T=2", "argmax", "+"),
    Prediction("Eleven classes: T = 2 beats T = 1", "T=2", "T=1", "+"),
    Prediction("Eleven classes: T = 5 beats T = 1", "T=5", "T=1", "+"),
    Prediction("Eleven classes: T = 20 is too high for a small student", "T=20", "T=2", "-"),
]


def prepare() -> None:
    """Ask the teacher about every text before the runs start."""
    few_labels.prepare(SETTING)


def run(arm_name: str, seed: int, trial: dict) -> dict:
    """Train one student and measure it."""
    arm = ARMS[arm_name]
    rows = few_labels.training_rows(SETTING, text=arm.text, max_length=MAX_LENGTH)
    return trained_and_measured(student(seed, SETTING), rows, Answers(arm.target, arm.temperature), seed, trial,
                                SETTING, MAX_LENGTH)
