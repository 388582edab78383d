"""The most memory that a training step takes, every method in a process of its own.

On a processor: the largest resident memory of the process so far (`getrusage`), read before the first step, after
steps of the bare minimum, and after steps with the real losses. On a GPU: the largest amount allocated in each of the
two. 1 MB is a million bytes.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

STEPS = 3


def measure(seconds: float, quick: bool = False) -> dict:
    """One row per method of `cost.CASES`; as many processes at a time as there are cores (one on a GPU)."""
    from course_lib.bench import clock, cost

    names = list(cost.CASES)[:1] if quick else list(cost.CASES)
    workers = 1 if clock.device().type != "cpu" else os.cpu_count()
    # A fresh process for every method: the high-water mark of a process never falls.
    with ProcessPoolExecutor(workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        return {"steps": STEPS, "methods": list(pool.map(of_method, names))}


def of_method(name: str) -> dict:
    """at_rest_mb (libraries, data and both models), bare_mb, real_mb."""
    from course_lib.bench import clock, cost

    case, where = cost.CASES[name](), clock.device()
    found = {"method": name, "at_rest_mb": _peak_mb(where)}
    for which, loss in (("bare_mb", case.bare), ("real_mb", case.real)):
        if where.type == "cuda":
            torch.cuda.reset_peak_memory_stats(where)
        step = case.step(loss)
        for i in range(STEPS):
            step(i)
        found[which] = _peak_mb(where)
    return found


def _peak_mb(where: torch.device) -> int:
    if where.type == "cuda":
        return round(torch.cuda.max_memory_allocated(where) / 1e6)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
