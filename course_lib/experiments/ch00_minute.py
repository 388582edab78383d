"""Chapter 0's first distillation: one minute on two cores, and the distilled student is far ahead.

Chapter 1's students and sentences, 300 steps for each: one has 500 labels, the other one has the same labels and the
teacher's answers on all text. Ten seeds say how much of the difference a learner sees on any day.
"""

from __future__ import annotations

from course_lib.experiments import ch01few_hinton as ch01
from course_lib.experiments.few_labels import SEEDS, Answers, answer_terms
from course_lib.shared.batches import Batches
from course_lib.shared.statistics import Prediction
from course_lib.shared.training import Terms

__all__ = ["ABOUT", "ARMS", "PREDICTIONS", "RECIPE", "SEEDS", "TRIALS", "TRIAL_SEEDS", "batches", "prepare", "run",
           "student", "terms"]

ABOUT = "The first distillation: 300 steps with 500 labels, and with the teacher's answers on all text beside them."
RECIPE = {"steps": 300, "learning_rate": 2e-3}
TRIALS, TRIAL_SEEDS = [RECIPE], range(2)  # a minute leaves nothing to choose
ARMS = {"labels": ch01.ARMS["labels"], "distilled": ch01.ARMS["soft answers, all text"]}
PREDICTIONS = [Prediction("In one minute, the distilled student is ahead", "distilled", "labels", "+")]
prepare, student = ch01.prepare, ch01.student


def batches(arm: str, seed: int) -> Batches:
    """The sentences that an arm reads: those with a label, or all of them."""
    return Batches(ch01.training_rows(ARMS[arm]), ch01.BATCH_SIZE, seed=seed)


def terms(arm: str) -> Terms:
    """What its student is told: the labels, or the teacher's answers and a little label."""
    return answer_terms(_told(arm))


def _told(arm: str) -> Answers:
    return Answers(ARMS[arm].target, ARMS[arm].temperature)


def run(arm: str, seed: int, trial: dict) -> dict:
    """Train one student and measure it."""
    return ch01.trained_and_measured(student(seed), ch01.training_rows(ARMS[arm]), _told(arm), seed, trial)
