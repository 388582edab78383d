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
from functools import partial
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


def take_turns(work: Mapping[str, Callable[[int], float]], rounds: int, warm_up: int = 0) -> Times:
    """Do every piece of work once per round; each round begins with another piece.

    work: pieces that say how many seconds they took; each is told the number of the round. warm_up: so many rounds
    come first and do not count. Raises: ValueError for less than one round.
    """
    if rounds < 1:
        raise ValueError(f"take_turns: {rounds} rounds measure nothing.")
    names, found = list(work), {name: [] for name in work}
    was_collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection in the middle of a round would be counted for whoever met it
    try:
        for i in range(warm_up + rounds):
            first = i % len(names)
            for name in names[first:] + names[:first]:
                seconds = work[name](i)
                if i >= warm_up:
                    found[name].append(seconds)
    finally:
        if was_collecting:
            gc.enable()
    return found


def in_turns(work: Mapping[str, Work], seconds: float, *, least: int = 7, most: int = 25,
             where: torch.device | None = None) -> Times:
    """`take_turns` for about so many seconds, with pieces that are timed from outside.

    least, most: bounds on the number of rounds. One more round comes first and is not counted: it allocates, and says
    how many rounds fit into `seconds`. Raises: ValueError for less than 3 rounds.
    """
    if least < LEAST:
        raise ValueError(f"in_turns: {least} rounds say nothing about the spread; take {LEAST} or more.")
    timed = {name: partial(_timed, piece, where=where or torch.device("cpu")) for name, piece in work.items()}
    first = sum(times[0] for times in take_turns(timed, 1).values())
    return take_turns(timed, max(least, min(most, int(seconds / first))))


def ratio_in_turns(ours: Callable[[int], float], reference: Callable[[int], float], pairs: int) -> list[float]:
    """Quartiles [low, middle, high] of  ours(i) / reference(i);  both say how many seconds they took."""
    times = take_turns({"ours": ours, "reference": reference}, pairs, warm_up=2)
    return quartiles(_ratios(times, "ours", "reference"))


def _timed(piece: Work, i: int, *, where: torch.device) -> float:
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
    return quartiles(_ratios(times, piece, reference))


def _ratios(times: Times, piece: str, reference: str) -> list[float]:
    return [ours / theirs for ours, theirs in zip(times[piece], times[reference], strict=True)]


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
        return (f"student {self.student_ms:.1f} ms, teacher {self.teacher_ms:.1f} ms: {self.ratio:.2f} "
                f"({low:.2f} to {high:.2f}, {self.repeats} pairs, {self.threads} thread{'s' * (self.threads > 1)})")


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
        work = {"student": partial(_seconds, student, batch), "teacher": partial(_seconds, teacher, theirs)}
        times = take_turns(work, repeats, warm_up=2)  # the first runs also allocate
    low, middle, high = quantiles(_ratios(times, "student", "teacher"), n=4, method="inclusive")
    return Latency(1000 * median(times["student"]), 1000 * median(times["teacher"]), middle, (low, high), repeats,
                   torch.get_num_threads())


def _seconds(model: nn.Module, batch: Mapping[str, Tensor], _round: int) -> float:
    start = time.perf_counter()
    logits_of(model, batch).sum().item()  # .item() waits for a GPU
    return time.perf_counter() - start
