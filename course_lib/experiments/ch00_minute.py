"""Chapter 0's first distillation: one minute on two cores, and the distilled student is far ahead.

Chapter 1's students and sentences, 300 steps for each: one has 500 labels, the other one has the same labels and the
teacher's answers on all text. Ten seeds say how much of the difference a learner sees on any day.
"""

from __future__ import annotations

from course_lib.experiments import ch01few_hinton as ch01
from course_lib.experiments.few_labels import SEEDS, Answers
from course_lib.shared.statistics import Prediction

__all__ = ["ABOUT", "ARMS", "PREDICTIONS", "RECIPE", "SEEDS", "TRIALS", "TRIAL_SEEDS", "prepare", "run", "told"]

ABOUT = "The first distillation: 300 steps with 500 labels, and with the teacher's answers on all text beside them."
RECIPE = {"steps": 300, "learning_rate": 2e-3}
TRIALS, TRIAL_SEEDS = [RECIPE], range(2)  # a minute leaves nothing to choose
ARMS = {"labels": ch01.ARMS["labels"], "distilled": ch01.ARMS["soft answers, all text"]}
PREDICTIONS = [Prediction("In one minute, the distilled student is ahead", "distilled", "labels", "+")]
prepare = ch01.prepare


def told(arm: str) -> Answers:
    """What the student of an arm is told."""
    return Answers(ARMS[arm].target, ARMS[arm].temperature)


def run(arm: str, seed: int, trial: dict) -> dict:
    """Train one student and measure it."""
    return ch01.trained_and_measured(ch01.student(seed), ch01.training_rows(ARMS[arm]), told(arm), seed, trial)
