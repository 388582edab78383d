"""Chapter 1, three times as long: do soft answers keep a student from overfitting to its teacher's mistakes?

The students of `ch01few_hinton` stop after 300 steps, because validation chose so, and there the teacher's class is as
good a target as its soft answer. In that experiment's trials (two seeds) the student of the class lost two points from
300 to 1,000 steps, the student of the soft answers half a point. So here are ten seeds that no trial has seen, 1,000
steps for both arms, and nothing else changed.
"""

from __future__ import annotations

from course_lib.experiments import ch01few_hinton as ch01
from course_lib.shared.statistics import Prediction

__all__ = ["ABOUT", "ARMS", "PREDICTIONS", "RECIPE", "SEEDS", "TRIALS", "TRIAL_SEEDS", "prepare", "run"]

ABOUT = "500 labels, all text, 1,000 steps instead of 300: the teacher's class and its soft answers."
RECIPE = {"steps": 1000, "learning_rate": 5e-4}
TRIALS, SEEDS = [RECIPE], range(10, 20)
TRIAL_SEEDS = SEEDS[:2]
ARMS = {arm: ch01.ARMS[arm] for arm in ("argmax, all text", "soft answers, all text")}

# Written before the runs. Section 6 of the paper: soft targets keep a model from overfitting, where hard targets need
# early stopping.
PREDICTIONS = [Prediction("After 1,000 steps, soft answers beat the teacher's class", "soft answers, all text",
                          "argmax, all text", "+")]
prepare, run = ch01.prepare, ch01.run
