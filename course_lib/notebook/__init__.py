"""The other half of every notebook's first cell.

The cell itself is the same in all chapters: it imports `start` and calls it, and where `course_lib` is not installed
(as on Colab) it installs it, or says how.

Two environment variables choose how a chapter runs: COURSE_TIER=fast (default; 90 seconds on two cores) or full
(more seeds and steps, the book's numbers), and COURSE_THREADS (default 2).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import partialmethod
from typing import TypeVar

TIERS = ("fast", "full")
SEED = 0
# Sums are taken in another order with another number of threads, and the digits that differ grow during a training.
# So the number is fixed, and not the number of cores that happens to be there.
THREADS = 2  # a learner's; stored outputs are made and tested with one, see UNWATCHED

# Libraries read these when they are imported.
HUSH = {"TRANSFORMERS_VERBOSITY": "error", "DATASETS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}  # "Map", "Saving the dataset": nobody here asked for them
# For runs that nobody watches (building and testing notebooks): a stored progress bar would differ from run to run.
UNWATCHED = {"TQDM_DISABLE": "1", "COURSE_PROGRESS": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
             "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
             # Two chapters at a time, each on its own core.
             "COURSE_THREADS": "1", "OMP_NUM_THREADS": "1",
             # A learner's own answers must not change what a test sees.
             "COURSE_PROGRESS_FILE": "off"}

T = TypeVar("T")


@dataclass(frozen=True)
class Ready:
    """What `start()` has set; it shows itself as one sentence."""

    tier: str
    seed: int
    threads: int

    def __repr__(self) -> str:
        return f"Ready: {self.tier} tier, seed {self.seed}, {self.threads} thread{'s' if self.threads > 1 else ''}."


def tier() -> str:
    """Return "fast" or "full", from COURSE_TIER.

    Raises: ValueError for any other value, because a misspelt "full" would silently give the fast numbers.
    """
    chosen = os.environ.get("COURSE_TIER") or "fast"
    if chosen not in TIERS:
        raise ValueError(f"COURSE_TIER is '{chosen}'; it can be 'fast' (the default) or 'full'.")
    return chosen


def pick(*, fast: T, full: T) -> T:
    """Choose a number of steps or seeds by tier: `steps = pick(fast=300, full=3000)`."""
    return full if tier() == "full" else fast


def start(seed: int = SEED) -> Ready:
    """Prepare this kernel: seeds, threads, quiet libraries, the course's look for figures.

    Show what it returns (leave it as the last expression of the cell). Run it again to start from the same seeds.
    Raises: ValueError if COURSE_TIER or COURSE_THREADS is nonsense.
    """
    for name, value in HUSH.items():
        os.environ.setdefault(name, value)
    ready = Ready(tier(), seed, _threads())

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(ready.threads)
    _use_house_style()
    if os.environ.get("COURSE_PROGRESS") == "0":
        _no_notebook_bars()
    return ready


def _threads() -> int:
    asked = os.environ.get("COURSE_THREADS") or str(THREADS)
    if not asked.isdigit() or int(asked) < 1:
        raise ValueError(f"COURSE_THREADS is '{asked}'; it must be a whole number, 1 or more.")
    return int(asked)


def _no_notebook_bars() -> None:
    """tqdm reads TQDM_DISABLE for bars made of text only, not for the widgets that it draws in a notebook."""
    import tqdm.notebook

    tqdm.notebook.tqdm.__init__ = partialmethod(tqdm.notebook.tqdm.__init__, disable=True)


def _use_house_style() -> None:
    import matplotlib as mpl

    from course_lib.notebook.plots import STYLE

    mpl.rcParams.update(STYLE)
