"""Several seeds: a mean with its interval, and the paired difference of two recipes with its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import stats


def deserved_digits(low: float, high: float) -> int:
    """Decimals that an interval deserves: half its width is written with two digits if they are 35 or less (0.12, 1.4),
    else with one (0.4, 8). Without a width (all runs are equal): 2.

    Source: the rounding rule of the Particle Data Group, Review of Particle Physics, Introduction, section 5.3.
    """
    half = (high - low) / 2
    if half <= 1e-9 * max(1.0, abs(high)):
        return 2
    power = math.floor(math.log10(half))
    return max(0, 1 - power if half / 10.0**power < 3.545 else -power)


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds, the standard deviation between seeds, and the 95 % interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        d = deserved_digits(self.low, self.high)
        return f"{self.mean:.{d}f} (95 % interval {self.low:.{d}f} to {self.high:.{d}f}, {self.n} seeds)"


def mean_and_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean over seeds with the interval  mean ± t_{n-1} · sd / sqrt(n).

    Student's t, not 1.96: with 5 seeds the factor is 2.78. Raises: ValueError for fewer than two values, for NaN, or a
    level outside (0, 1).
    """
    numbers = torch.as_tensor(list(values), dtype=torch.float64)
    if numbers.dim() != 1 or len(numbers) < 2:
        raise ValueError(f"{len(numbers)} value(s): an interval needs two seeds or more.")
    if not numbers.isfinite().all():
        raise ValueError("A value is NaN or infinite. A seed that failed must be reported, not averaged.")
    if not 0 < level < 1:
        raise ValueError(f"level = {level} must lie between 0 and 1.")
    n, mean, sd = len(numbers), numbers.mean().item(), numbers.std(correction=1).item()
    half = stats.t.ppf((1 + level) / 2, n - 1).item() * sd / n**0.5
    return Interval(mean, sd, mean - half, mean + half, n)


@dataclass(frozen=True)
class Difference:
    """Difference of two recipes over the same seeds, and what may be said about it."""

    interval: Interval
    verdict: Literal["better", "worse", "no difference shown"]

    def __str__(self) -> str:
        i, d = self.interval, deserved_digits(self.interval.low, self.interval.high)
        return f"{i.mean:+.{d}f} (95 % interval {i.low:+.{d}f} to {i.high:+.{d}f}, {i.n} seeds): {self.verdict}"


def paired_difference(ours: Sequence[float], baseline: Sequence[float], level: float = 0.95) -> Difference:
    """`ours - baseline`, seed by seed, with a verdict by the interval: it must lie on one side of zero.

    Pair the runs by seed: value i of both lists has the same seed, so the luck of the seed cancels. Higher is better;
    pass losses with a minus sign. Raises: ValueError for lists of unequal length or shorter than two.
    """
    if len(ours) != len(baseline):
        raise ValueError(f"{len(ours)} and {len(baseline)} values cannot be paired: the same seeds are needed twice.")
    interval = mean_and_interval([a - b for a, b in zip(ours, baseline, strict=True)], level)
    noise = 1e-12 * max(1.0, *(abs(v) for v in (*ours, *baseline)))
    if interval.low > noise:
        return Difference(interval, "better")
    return Difference(interval, "worse" if interval.high < -noise else "no difference shown")
