"""The most memory that a training step takes, every method in a process of its own.

On a processor: the high-water mark of the resident memory, which Linux sets back on request. On a GPU: the largest
amount allocated. 1 MB is a million bytes.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch

STEPS = 3
PROCESS = Path("/proc/self")
# From this size on (bytes) glibc hands memory back to the system at once; otherwise freed tensors would be counted.
HAND_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}


def measure(seconds: float, quick: bool = False) -> dict:
    """One row per method of `cost.CASES`; as many processes at a time as there are cores (one on a GPU)."""
    from course_lib.experiments.speed import cost
    from course_lib.shared import clock

    on_processor = clock.device().type != "cuda"
    if on_processor and not os.access(PROCESS / "clear_refs", os.W_OK):
        return {"left_out": "this system does not set back the high-water mark of a process (Linux does)."}
    names = list(cost.CASES)[:1] if quick else list(cost.CASES)
    workers = os.cpu_count() if on_processor else 1
    # A fresh process for every method, so that none inherits the memory of another.
    with _environment(HAND_BACK), ProcessPoolExecutor(workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        return {"steps": STEPS, "methods": list(pool.map(of_method, names))}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Processes that start inside have these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def of_method(name: str) -> dict:
    """at_rest_mb (libraries, data and both models), bare_mb and real_mb (the most in so many steps)."""
    from datasets import disable_progress_bars

    from course_lib.experiments.speed import cost
    from course_lib.shared import clock

    disable_progress_bars()
    case, where = cost.CASES[name](), clock.device()
    gc.collect()
    set_back(where)
    found = {"method": name, "at_rest_mb": peak_mb(where)}
    for which, loss in (("bare_mb", case.bare), ("real_mb", case.real)):
        step = case.step(loss)
        set_back(where)
        for i in range(STEPS):
            step(i)
        found[which] = peak_mb(where)
    return found


def set_back(where: torch.device) -> None:
    """From now on count anew: the mark becomes what is held at this moment."""
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    else:
        (PROCESS / "clear_refs").write_text("5")


def peak_mb(where: torch.device) -> int:
    """The most memory since `set_back`."""
    if where.type == "cuda":
        return round(torch.cuda.max_memory_allocated(where) / 1e6)
    kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text())[1])
    return round(kilobytes * 1024 / 1e6)
