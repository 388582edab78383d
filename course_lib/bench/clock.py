"""The clock: pieces of work in turns, so that whatever disturbs the machine disturbs all of them.

Milliseconds do not travel from one machine to the next; ratios of times from the same round travel better.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles

import torch
import transformers

from course_lib.parts import begin
from course_lib.training import cpu_has_bf16

LEAST = 3  # rounds: fewer say nothing about the spread
Work = Callable[[int], object]  # does one piece of work; is told the number of the round
Times = dict[str, list[float]]  # seconds of every piece, one number per round


def device() -> torch.device:
    """Where the models run: the accelerator that `accelerate` finds, or the processor."""
    return begin().device


def synchronise(where: torch.device) -> None:
    """Wait until the device has done what it was asked. A processor has when the call returns."""
    if where.type != "cpu":
        torch.accelerator.synchronize(where)


def in_turns(work: Mapping[str, Work], seconds: float, *, least: int = 7, most: int = 25,
             where: torch.device | None = None) -> Times:
    """Do every piece of work once per round, for about so many seconds; each round begins with another piece.

    least, most: bounds on the number of rounds. One more round comes first and is not counted: it allocates, and says
    how many rounds fit into `seconds`. Raises: ValueError for less than 3 rounds.
    """
    if least < LEAST:
        raise ValueError(f"in_turns: {least} rounds say nothing about the spread; take {LEAST} or more.")
    names, found, where = list(work), {name: [] for name in work}, where or torch.device("cpu")
    was_collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection in the middle of a round would be counted for whoever met it
    try:
        first = sum(_timed(work[name], 0, where) for name in names)
        rounds = max(least, min(most, int(seconds / first)))
        for i in range(rounds):
            for name in names[i % len(names):] + names[:i % len(names)]:
                found[name].append(_timed(work[name], i, where))
    finally:
        if was_collecting:
            gc.enable()
    return found


def _timed(piece: Work, i: int, where: torch.device) -> float:
    synchronise(where)
    started = time.perf_counter()
    piece(i)
    synchronise(where)
    return time.perf_counter() - started


def quartiles(values: Sequence[float], digits: int = 4) -> list[float]:
    """[low, middle, high]: the middle half of the values lies between low and high."""
    return [significant(value, digits) for value in quantiles(values, n=4, method="inclusive")]


def ratio(times: Times, piece: str, reference: str) -> list[float]:
    """Quartiles over the rounds of  time(piece) / time(reference)."""
    return quartiles([ours / theirs for ours, theirs in zip(times[piece], times[reference], strict=True)])


def milliseconds(times: Times, piece: str) -> float:
    """Median over the rounds."""
    return significant(1000 * median(times[piece]))


def significant(value: float, digits: int = 4) -> float:
    """Rounded to so many digits, wherever the decimal point is."""
    return float(f"{value:.{digits}g}")


def conditions(where: torch.device) -> dict[str, str | int]:
    """What a reader must know about the machine; its name is not among it."""
    chip = "no GPU" if where.type == "cpu" else f"on {_name(where)}"
    width = torch.backends.cpu.get_cpu_capability()
    bf16 = "with bfloat16" if cpu_has_bf16() else "without bfloat16"
    tuned = ", MALLOC_ variables set" if any(name.startswith("MALLOC_") for name in os.environ) else ""
    return {"hardware": f"{platform.machine()} ({width}, {bf16}), {os.cpu_count()} cores, {chip}{tuned}",
            "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__,
            "transformers": transformers.__version__}


def _name(where: torch.device) -> str:
    return torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
