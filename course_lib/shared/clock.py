"""The clock: pieces of work in turns, so that whatever disturbs the machine disturbs all of them.

Milliseconds do not travel from one machine to the next; ratios of times from the same round travel better.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import torch
import transformers
from torch import Tensor, nn

from course_lib.shared.parts import begin
from course_lib.shared.probes import logits_of
from course_lib.shared.students import evaluating
from course_lib.shared.training import cpu_has_bf16

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


@dataclass(frozen=True)
class Latency:
    """Time of a student as a share of its teacher's, both measured in one process, in turns."""

    student_ms: float
    teacher_ms: float
    ratio: float  # student / teacher: 0.25 = four times as fast
    ratio_quartiles: tuple[float, float]
    repeats: int
    threads: int

    def __str__(self) -> str:
        low, high = self.ratio_quartiles
        return (f"student {self.student_ms:.1f} ms, teacher {self.teacher_ms:.1f} ms, ratio {self.ratio:.2f} "
                f"(middle half {low:.2f} to {high:.2f}; {self.repeats} pairs of runs, {self.threads} thread(s))")


@torch.no_grad()
def latency_ratio(student: nn.Module, teacher: nn.Module, batch: Mapping[str, Tensor], repeats: int = 15, *,
                  teacher_batch: Mapping[str, Tensor] | None = None) -> Latency:
    """Median over `repeats` pairs of runs of  time(student) / time(teacher),  with its quartiles.

    The two run in turns and swap who goes first, so a busy machine slows both. Milliseconds do not travel from one
    machine to the next; the ratio travels better. teacher_batch: the same sentences, for a teacher that reads other
    tokens. Raises: ValueError for fewer than 3 repeats.
    """
    theirs = batch if teacher_batch is None else teacher_batch
    if repeats < 3:
        raise ValueError(f"latency_ratio: {repeats} repeats say nothing about the spread; take 3 or more.")
    with evaluating(student, teacher):
        for _ in range(2):  # warm up: the first runs also allocate
            _seconds(student, batch)
            _seconds(teacher, theirs)
        pairs = []
        for i in range(repeats):
            order = (student, teacher) if i % 2 == 0 else (teacher, student)
            times = [_seconds(model, batch if model is student else theirs) for model in order]
            pairs.append(times if i % 2 == 0 else times[::-1])  # (student, teacher)
    ratios = [s / t for s, t in pairs]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return Latency(1000 * median(s for s, _ in pairs), 1000 * median(t for _, t in pairs), middle, (low, high),
                   repeats, torch.get_num_threads())


def _seconds(model: nn.Module, batch: Mapping[str, Tensor]) -> float:
    start = time.perf_counter()
    logits_of(model, batch).sum().item()  # .item() waits for a GPU
    return time.perf_counter() - start
