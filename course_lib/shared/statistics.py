"""What a difference between two recipes is worth: bootstrap over sentences and seeds, Holm inside a table, a verdict.

A measured accuracy depends on two draws: which sentences stand in the test split, and which seed began the student. An
interval over seeds alone says nothing about other sentences: 3,323 of them leave one accuracy a standard error of 0.7
points, however many students are trained. So the runs keep, for every seed and sentence, whether the answer was right:

    ours, baseline: (seeds, sentences) of 0 and 1; row s of both has the same seed
    D = ours - baseline                            the gain is its mean
    gain* = mean of D[seeds drawn again, sentences drawn again]        10,000 times; 2.5 % lie below and above

Drawing both again counts the luck of a single answer three times, and few seeds too little; `_spread` says how wide the
draws should be, and they are scaled to that width.

Sources: Owen 2007, "The pigeonhole bootstrap" (both draws, and how much too wide they are); Cameron, Gelbach and Miller
2011, "Robust inference with multiway clustering" (the width); Holm 1979, "A simple sequentially rejective multiple test
procedure".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import stats

Verdict = Literal["better", "worse", "no difference shown"]
DRAWS = 10_000
ALPHA = 0.05

# --- right or wrong, sentence by sentence ----------------------------------------------------------------------------


def pack(right: Bool[np.ndarray, " sentences"] | Sequence[bool]) -> str:
    """Right (1) or wrong (0) for every sentence as text: eight sentences a byte, base64. `unpack` gives them back."""
    right = np.asarray(right)
    if right.ndim != 1 or not np.isin(right, (0, 1)).all():
        raise ValueError(f"pack: one 0 or 1 per sentence is needed, not {right.dtype} of shape {right.shape}.")
    return f"{len(right)}:{base64.b64encode(np.packbits(right.astype(bool))).decode()}"


def unpack(text: str) -> Bool[np.ndarray, " sentences"]:
    """What `pack` wrote. Raises: ValueError if bytes are missing."""
    length, _, bits = text.partition(":")
    found = np.unpackbits(np.frombuffer(base64.b64decode(bits), dtype=np.uint8))
    if not 0 <= len(found) - int(length) < 8:
        raise ValueError(f"unpack: {len(found)} bits for {length} sentences; the text was cut.")
    return found[: int(length)].astype(bool)


# --- a gain and its interval -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gain:
    """Our accuracy minus the baseline's, in points, with an interval over seeds and sentences."""

    mean: float
    low: float
    high: float
    level: float  # of the interval: 0.95, or more after Holm's correction
    seeds: int
    sentences: int

    @property
    def verdict(self) -> Verdict:
        """By the interval: it must lie on one side of zero."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"

    def __str__(self) -> str:
        said = self.verdict
        if said == "no difference shown":
            said += f" (up to {max(abs(self.low), abs(self.high)):.1f} points possible)"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]: {said}"


def gain(ours: Shaped[np.ndarray, "seeds sentences"], baseline: Shaped[np.ndarray, "seeds sentences"],
         level: float = 1 - ALPHA) -> Gain:
    """The gain of ours over the baseline in points (of 100), with its bootstrap interval.

    ours, baseline: right (1) or wrong (0), one row per seed, the same seeds and sentences in both. A baseline of one
        row (a teacher) is compared with every seed.
    Raises: ValueError for fewer than two seeds, shapes that cannot be paired, or a level outside (0, 1).
    """
    return _gain(*_drawn(ours, baseline), level)


def gains(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], alpha: float = ALPHA) -> dict[str, Gain]:
    """The gains of a whole table, (ours, baseline) by claim, with Holm's correction.

    Of m claims the clearest is tested at alpha / m, the next at alpha / (m - 1), and so on; the first one that fails
    ends it, and the later ones fail too. The intervals have these levels, so that they and the verdicts agree.
    """
    drawn = {claim: _drawn(*pair) for claim, pair in pairs.items()}
    p = {claim: two_sided(draws) for claim, (_, draws, _) in drawn.items()}
    found, shares, still = {}, iter(range(len(p), 0, -1)), True
    for claim in sorted(p, key=p.get):
        if still:
            share = alpha / next(shares)
        found[claim] = _gain(*drawn[claim], 1 - share)
        still = still and found[claim].verdict != "no difference shown"
    return {claim: found[claim] for claim in pairs}


def two_sided(draws: Float[np.ndarray, " draws"]) -> float:
    """p: twice the share of the draws on the other side of zero (never 0: one draw more is counted on each side)."""
    return min(1.0, 2 * min((draws <= 0).sum() + 1, (draws >= 0).sum() + 1) / (len(draws) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p: the k-th smallest of m times (m - k + 1), never smaller than the one before, at most 1."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def _gain(mean: float, draws: np.ndarray, shape: tuple[int, int], level: float) -> Gain:
    if not 0 < level < 1:
        raise ValueError(f"level = {level} must lie between 0 and 1.")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Gain(*(round(float(100 * number), 3) for number in (mean, low, high)), level, *shape)


def _drawn(ours: np.ndarray, baseline: np.ndarray) -> tuple[float, np.ndarray, tuple[int, int]]:
    """Mean gain, 10,000 gains of the bootstrap, and how many seeds and sentences stand behind them."""
    ours, baseline = np.atleast_2d(np.asarray(ours, float)), np.atleast_2d(np.asarray(baseline, float))
    if ours.shape != baseline.shape and not (len(baseline) == 1 and ours.shape[1] == baseline.shape[1]):
        raise ValueError(f"Runs of shape {ours.shape} and {baseline.shape} (seeds, sentences) cannot be paired: the "
                         "same seeds and the same test sentences are needed on both sides.")
    if len(ours) < 2:
        raise ValueError("One seed has no interval: train two seeds or more (ten where a page claims something).")
    difference = ours - baseline
    return difference.mean(), _draws(difference), difference.shape


def _draws(difference: Float[np.ndarray, "seeds sentences"]) -> Float[np.ndarray, " draws"]:
    """Means of D with seeds and sentences drawn again, with replacement; always from the same random numbers."""
    if not difference.any():
        return np.zeros(DRAWS)
    random, (seeds, sentences) = np.random.default_rng(0), difference.shape
    found = []
    for _ in range(10):  # in ten parts: the counts of all draws together would fill 130 MB
        of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS // 10)
        of_sentences = _counts(random, sentences, DRAWS // 10)
        found.append(((of_seeds @ difference) * of_sentences).sum(axis=1))  # (draws, S) x (S, N) * (draws, N)
    draws = np.concatenate(found) / (seeds * sentences)
    return difference.mean() + (draws - difference.mean()) * _spread(difference) / draws.std()


def _spread(difference: Float[np.ndarray, "seeds sentences"]) -> float:
    """The standard error of the mean of D, when seeds and sentences are samples: sqrt(seeds' part + sentences' part).

    The means of the sentences carry the luck of the single answers, those of the seeds carry it too: it counts once.
    Ten seeds know their own spread badly; Student's t is 1.15 times as wide as the normal distribution there.
    """
    seeds, sentences = difference.shape
    single_answers = difference.var(ddof=1) / difference.size
    of_seeds = max(0.0, difference.mean(axis=1).var(ddof=1) / seeds - single_answers)
    of_sentences = max(single_answers, difference.mean(axis=0).var(ddof=1) / sentences)
    few = stats.t.ppf(1 - ALPHA / 2, seeds - 1) / stats.norm.ppf(1 - ALPHA / 2)
    return float(few**2 * of_seeds + of_sentences) ** 0.5


def _counts(random: np.random.Generator, sentences: int, draws: int) -> Float[np.ndarray, "draws sentences"]:
    """How often each sentence is drawn when as many as there are are drawn with replacement."""
    chosen = random.integers(sentences, size=(draws, sentences)) + sentences * np.arange(draws)[:, None]
    return np.bincount(chosen.ravel(), minlength=draws * sentences).reshape(draws, sentences)


# --- predictions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """What the paper lets us expect of an arm against its baseline, written down before the runs."""

    claim: str
    arm: str
    baseline: str
    sign: Literal["+", "-", "0"]  # better, worse, no difference
    measure: str = "accuracy"


def judged(predictions: Sequence[Prediction], right: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict]:
    """Every prediction with its gain [mean, low, high] and verdict, corrected by Holm within the list.

    right: measure -> arm -> (seeds, sentences).
    """
    found = gains({str(i): (right[p.measure][p.arm], right[p.measure][p.baseline]) for i, p in enumerate(predictions)})
    expected = {"+": "better", "-": "worse", "0": "no difference shown"}
    return [{"claim": p.claim, "arm": p.arm, "baseline": p.baseline, "measure": p.measure, "sign": p.sign,
             "gain": [g.mean, g.low, g.high], "level": round(g.level, 6), "seeds": g.seeds, "verdict": g.verdict,
             "as_predicted": g.verdict == expected[p.sign]}
            for p, g in zip(predictions, found.values(), strict=True)]
