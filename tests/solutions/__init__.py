"""Typical mistakes of every exercise, and the numbers that answers must give. Not part of the wheel.

Each chapter has one file with

    cases(seed)  inputs per exercise: what it is about, the stage, the arguments, whose gradient is wanted
    EXPECTED     the right answer, computed in another way than the solution (float64 NumPy, by the formula)
    GRADIENTS    its gradient, by the formula
    MISTAKES     what a learner in a hurry writes, by the name of the mistake

What a good learner writes stands in `course_lib/notebook/exercises/reference/`, because `solution()` shows it.
"""

from __future__ import annotations


def case(about: str, stage: str = "numbers", gradient_of: str | None = None, **args: object) -> dict[str, object]:
    """One call of an exercise; `gradient_of` names the argument whose gradient is checked too."""
    return {"about": about, "stage": stage, "args": args} | ({"gradient_of": gradient_of} if gradient_of else {})
