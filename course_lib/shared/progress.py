"""What somebody sees who waits for a training: which run it is, how long it takes here, and how good it is by now.

    for name in runs("labels only", "labels and answers"):      # run 1 of 2: labels only, about 40 s
        train(...)

The bar goes to the screen and nowhere else. COURSE_PROGRESS=0 silences it, so that no notebook stores the speed of a
machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence

from tqdm.auto import tqdm

WARM_UP = 1  # the first step also allocates memory and reads files
LOOK_AFTER = 5  # steps that the expected time is judged by
SHORT = 20  # steps; a bar of fewer goes away when it is full
FORMAT = "{desc}{percentage:3.0f} %|{bar}| {elapsed}, left {remaining}{postfix}"

_run = ""  # what the trainings after `runs` are called
_once = ""  # what the next training alone is called


def runs(*names: str) -> Iterator[str]:
    """Give the names one by one; a training is then shown as "run 1 of 2: name"."""
    global _run  # noqa: PLW0603 (a title for the screen; nothing is computed with it)
    try:
        for number, name in enumerate(names, 1):
            _run = f"run {number} of {len(names)}: {name}" if len(names) > 1 else name
            yield name
    finally:
        _run = ""


def announce(what: str) -> None:
    """Say what the next training does: `announce("run 2 of 3: stage 1, the inside")`."""
    global _once  # noqa: PLW0603
    _once = what


def _title() -> str:
    global _once
    title, _once = _once or _run or "training", ""
    return title


def duration(seconds: float) -> str:
    """A time as one says it: "about 4 s", "about 40 s", "about 3 min", "about 2 h"."""
    if seconds < 10:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {round(seconds / 3600)} h"


class Waiting:
    """Goes through the steps of a training and shows how far it is."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps, self.title = steps, _title()
        self.bar = tqdm(total=len(steps), desc=self.title, bar_format=FORMAT, leave=len(steps) >= SHORT,
                        disable=os.environ.get("COURSE_PROGRESS") == "0")

    def __iter__(self) -> Iterator[int]:
        began = time.perf_counter()
        try:
            for done, step in enumerate(self.steps):
                if done == WARM_UP:
                    began = time.perf_counter()
                if done == WARM_UP + LOOK_AFTER:
                    each = (time.perf_counter() - began) / LOOK_AFTER
                    self.bar.set_description(f"{self.title}, {duration(each * len(self.steps))}")
                yield step
                self.bar.update()
        finally:
            self.bar.close()

    def tell(self, scores: Mapping[str, float]) -> None:
        """Show the first score of an evaluation beside the bar."""
        name, value = next(iter(scores.items()))
        self.bar.set_postfix_str(f"{name} {value:.1f}")
