"""Chapter 10: solutions, typical mistakes, and the right answers by NumPy and plain Python."""

from __future__ import annotations

import math
import statistics

import numpy as np
import torch

from course_lib.notebook.exercises.reference.ch10 import paired_interval, pareto_front, times_faster
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=g)

    def accuracies(*means, seeds=5, spread=0.6):
        shared = 2 * rand(seeds)
        return torch.tensor(means)[:, None] + shared + spread * rand(len(means), seeds)

    far = torch.tensor([[84.0, 84.3, 83.9, 84.2, 84.1], [83.0, 83.4, 82.8, 83.1, 83.2], [83.9, 84.4, 83.7, 84.3, 84.0]])
    lucky = torch.tensor([[80.0, 80.1, 80.0, 88.0, 80.1], [84.0, 84.2, 83.8, 84.1, 84.0],
                          [81.0, 81.1, 80.9, 81.0, 81.0]])
    near = far[0] - torch.tensor([0.3, 1.5, 0.9, 0.6, 1.2])  # shown to be worse, though single runs overlap
    return {
        "ch10.q1": [
            case("five seeds, teacher 86.6", accuracies=82 + 3 * rand(5), teacher=86.6),
            case("five seeds around 74, teacher 90", accuracies=72 + 4 * rand(5), teacher=90.0),
            case("three seeds, teacher 70", accuracies=60 + 8 * rand(3), teacher=70.0),
            case("a student above its teacher", "extremes", accuracies=torch.tensor([81.0, 83.0]), teacher=80.0),
        ],
        "ch10.q2": [
            case("five points, two of them beaten", costs=torch.tensor([4.0, 1.0, 3.0, 2.0, 5.0]),
                 scores=torch.tensor([85.0, 77.0, 81.0, 82.0, 86.0])),
            case("equal costs and equal scores", costs=torch.tensor([2.0, 2.0, 1.0, 3.0, 1.0]),
                 scores=torch.tensor([80.0, 82.0, 70.0, 82.0, 71.0])),
            case("twins on the front", costs=torch.tensor([3.0, 1.0, 3.0, 2.0]),
                 scores=torch.tensor([84.0, 75.0, 84.0, 79.0])),
            case("the cheapest is the best", costs=torch.tensor([5.0, 1.0, 2.0]),
                 scores=torch.tensor([80.0, 90.0, 85.0])),
            case("one point", "extremes", costs=torch.tensor([2.0]), scores=torch.tensor([1.0])),
            case("three equal points", "extremes", costs=torch.ones(3), scores=torch.ones(3)),
        ],
        "ch10.q3": [
            case("asking 2 s, reading 0.5 s, 6,000 sentences in batches of 32", asking=2.0, reading=0.5,
                 sentences=6000, batch=32),
            case("both cost the same after 250 steps", asking=1.0, reading=0.0, sentences=8000, batch=32),
            case("asking 0.25 s, reading 0.125 s, 999 sentences in batches of 10", asking=0.25, reading=0.125,
                 sentences=999, batch=10),
            case("asking 3 s, reading 1 s, 400 sentences in batches of 8", asking=3.0, reading=1.0, sentences=400,
                 batch=8),
            case("reading as dear as asking", "extremes", asking=0.5, reading=0.5, sentences=100, batch=10),
            case("reading dearer than asking", "extremes", asking=0.5, reading=0.75, sentences=100, batch=10),
        ],
        "ch10.q4": [
            case("three methods, all allowed", scores=far, costs=torch.tensor([3.0, 1.0, 2.0]), limit=5.0, t=2.776),
            case("the best one is too dear", scores=accuracies(80.0, 83.0, 80.2, 85.0),
                 costs=torch.tensor([1.0, 2.0, 3.0, 4.0]), limit=3.0, t=2.776),
            case("a small gap that five seeds show", scores=torch.stack([near, far[0]]), costs=torch.ones(2), limit=1.0,
                 t=2.776),
            case("one lucky seed", scores=lucky, costs=torch.tensor([1.0, 2.0, 2.0]), limit=2.0, t=2.776),
            case("seeds that all methods share", scores=accuracies(82.0, 82.9, 82.8, 81.0, seeds=6, spread=0.4),
                 costs=torch.tensor([1.0, 1.0, 1.0, 1.0]), limit=1.0, t=2.571),
            case("two methods that agree in every seed", "extremes", scores=torch.tensor([[3.0, 4.0], [3.0, 4.0]]),
                 costs=torch.ones(2), limit=1.0, t=12.706),
        ],
        "ch10.q5": [
            case("five seeds that share their luck", ours=far[0] + torch.tensor([0.0, 2.0, -1.0, 1.0, 0.5]),
                 baseline=far[1] + torch.tensor([0.0, 2.0, -1.0, 1.0, 0.5]), t=2.776),
            case("five seeds", ours=84 + rand(5), baseline=83.6 + rand(5), t=2.776),
            case("eight seeds, a loss", ours=79 + rand(8), baseline=80 + rand(8), t=2.365),
            case("the same gain for every seed", "extremes", ours=torch.tensor([81.5, 82.5, 80.5]),
                 baseline=torch.tensor([81.0, 82.0, 80.0]), t=4.303),
        ],
        "ch10.q6": [
            case("12 pairs, 2 of them to warm up", student=torch.cat([5 + rand(2), 1 + rand(10)]),
                 teacher=torch.cat([6 + rand(2), 2 + rand(10)]), warm_up=2),
            case("9 pairs with a busy moment", warm_up=1,
                 student=(1 + 0.2 * rand(9)) * torch.tensor([4.0, 1, 1, 6, 1, 1, 3, 1, 1]),
                 teacher=(4 + 0.5 * rand(9)) * torch.tensor([1.0, 1, 1, 6, 1, 1, 3, 1, 1])),
            case("15 pairs, 3 of them to warm up", student=torch.cat([9 + rand(3), 0.5 + rand(12)]),
                 teacher=torch.cat([9 + rand(3), 0.4 + rand(12)]), warm_up=3),
            case("no warm-up", "extremes", student=1 + rand(8), teacher=2 + rand(8), warm_up=0),
        ],
    }


# --- the right answers, without PyTorch -------------------------------------------------------------------------------


def _kept(accuracies, teacher):
    return float(np.mean([100 * value / teacher for value in accuracies.double().numpy()]))


def _front(costs, scores):
    points = list(zip(costs.tolist(), scores.tolist(), strict=True))
    free = [i for i, (cost, score) in enumerate(points) if all(
        c > cost or s < score or (c, s) == (cost, score) for c, s in points)]
    return sorted(free, key=lambda i: points[i][0])


def _break_even(asking, reading, sentences, batch):
    if reading >= asking:
        return -1
    return math.floor(sentences * asking / (batch * (asking - reading))) + 1


def _paired(ours, baseline, t):
    gaps = (ours.double() - baseline.double()).tolist()
    mean, half = statistics.fmean(gaps), t * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return np.array([mean, mean - half, mean + half])


def _candidates(scores, costs, limit, t):
    allowed = [i for i, cost in enumerate(costs.tolist()) if cost <= limit]
    best = max(allowed, key=lambda i: statistics.fmean(scores[i].tolist()))
    return [best, *(i for i in allowed if i != best and _paired(scores[best], scores[i], t)[1] <= 0)]


def _faster(student, teacher, warm_up):
    ratios = (teacher.double() / student.double()).numpy()[warm_up:]
    return np.percentile(ratios, [25, 50, 75])


EXPECTED = {"ch10.q1": _kept, "ch10.q2": _front, "ch10.q3": _break_even, "ch10.q4": _candidates, "ch10.q5": _paired,
            "ch10.q6": _faster}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _front_by(beats, order=True):
    """A front whose idea of "beats" is wrong: beats(cost b, score b, cost a, score a)."""
    def found(costs, scores):
        points = list(zip(costs.tolist(), scores.tolist(), strict=True))
        free = [a for a in range(len(points)) if not any(
            b != a and beats(*points[b], *points[a]) for b in range(len(points)))]
        return sorted(free, key=lambda i: (points[i][0], i)) if order else free
    return found


def _right(cb, sb, ca, sa):
    return cb <= ca and sb >= sa and (cb < ca or sb > sa)


def _no_twins(costs, scores):
    seen, found = set(), []
    for i in pareto_front(costs, scores):
        place = (costs[i].item(), scores[i].item())
        if place not in seen:
            found.append(i)
        seen.add(place)
    return found


def _border(asking, reading, sentences, batch):
    return sentences * asking / (batch * (asking - reading))


def _guarded(rule):
    return lambda asking, reading, sentences, batch: -1 if reading >= asking else int(
        rule(asking, reading, sentences, batch))


def _choose(allow=lambda cost, limit: cost <= limit, value=lambda row: row.mean().item(), low=None, keep=None):
    """A choice with one wrong part."""
    low = low or (lambda d, a, b, t: d.mean() - t * d.std() / len(d) ** 0.5)

    def found(scores, costs, limit, t):
        allowed = [i for i in range(len(costs)) if allow(costs[i].item(), limit)] or [0]
        best = max(allowed, key=lambda i: value(scores[i]))
        if keep is not None:
            return [best, *(i for i in allowed if i != best and keep)]
        return [best, *(i for i in allowed if i != best and low(
            scores[best] - scores[i], scores[best], scores[i], t) <= 0)]
    return found


def _interval(mean, half):
    return torch.stack([mean, mean - half, mean + half])


def _unpaired_half(ours, baseline, t):
    return t * (ours.var() / len(ours) + baseline.var() / len(baseline)) ** 0.5


QUARTERS = torch.tensor([0.25, 0.5, 0.75])

MISTAKES = {
    "ch10.q1": {
        "best_seed": lambda accuracies, teacher: 100 * accuracies.max().item() / teacher,
        "points_lost": lambda accuracies, teacher: accuracies.mean().item() - teacher,
        "share": lambda accuracies, teacher: accuracies.mean().item() / teacher,
        "inverse": lambda accuracies, teacher: 100 * teacher / accuracies.mean().item(),
        "errors": lambda accuracies, teacher: 100 * (100 - accuracies.mean().item()) / (100 - teacher),
        "one_seed": lambda accuracies, teacher: 100 * accuracies[0].item() / teacher,
    },
    "ch10.q2": {
        "both_strict": _front_by(lambda cb, sb, ca, sa: cb < ca and sb > sa),
        "equal_beats": _front_by(lambda cb, sb, ca, sa: cb <= ca and sb >= sa),
        "less_is_better": _front_by(lambda cb, sb, ca, sa: _right(cb, -sb, ca, -sa)),
        "dearest": _front_by(lambda cb, sb, ca, sa: _right(-cb, sb, -ca, sa)),
        "by_position": _front_by(_right, order=False),
        "best_only": lambda costs, scores: [int(scores.argmax())],
        "no_twins": _no_twins,
    },
    "ch10.q3": {
        "not_strict": _guarded(lambda *args: math.ceil(_border(*args))),
        "reading_is_free": _guarded(lambda asking, reading, sentences, batch: sentences / batch + 1),
        "in_epochs": _guarded(lambda asking, reading, sentences, batch: asking / (asking - reading) + 1),
        "batch_forgotten": _guarded(lambda asking, reading, sentences, batch: _border(
            asking, reading, sentences, 1) + 1),
        "asking_is_free": _guarded(lambda *args: 1),
        "one_off": _guarded(lambda *args: _border(*args) + 2),
    },
    "ch10.q4": {
        "no_limit": _choose(allow=lambda cost, limit: True),
        "strict_limit": _choose(allow=lambda cost, limit: cost < limit),
        "best_seed": _choose(value=lambda row: row.max().item()),
        "unpaired": _choose(low=lambda d, a, b, t: d.mean() - _unpaired_half(a, b, t)),
        "no_root": _choose(low=lambda d, a, b, t: d.mean() - t * d.std()),
        "only_the_best": _choose(keep=False),
        "all_allowed": _choose(keep=True),
    },
    "ch10.q5": {
        "unpaired": lambda ours, baseline, t: _interval((ours - baseline).mean(), _unpaired_half(ours, baseline, t)),
        "no_root": lambda ours, baseline, t: _interval((ours - baseline).mean(), t * (ours - baseline).std()),
        "n": lambda ours, baseline, t: _interval(
            (ours - baseline).mean(), t * (ours - baseline).std(correction=0) / len(ours) ** 0.5),
        "normal": lambda ours, baseline, t: paired_interval(ours, baseline, 1.96),
        "swapped": lambda ours, baseline, t: paired_interval(baseline, ours, t),
        "sorted": lambda ours, baseline, t: paired_interval(ours.sort().values, baseline.sort().values, t),
    },
    "ch10.q6": {
        "inverse": lambda student, teacher, warm_up: times_faster(teacher, student, warm_up),
        "warm_up_counts": lambda student, teacher, warm_up: times_faster(student, teacher, 0),
        "not_paired": lambda student, teacher, warm_up: torch.quantile(
            teacher[warm_up:], QUARTERS) / torch.quantile(student[warm_up:], QUARTERS),
        "mean_and_sd": lambda student, teacher, warm_up: _interval(
            (teacher / student)[warm_up:].mean(), (teacher / student)[warm_up:].std())[[1, 0, 2]],
        "extremes": lambda student, teacher, warm_up: torch.quantile(
            (teacher / student)[warm_up:], torch.tensor([0.0, 0.5, 1.0])),
        "warm_up_only": lambda student, teacher, warm_up: torch.quantile(
            (teacher / student)[: max(warm_up, 1)], QUARTERS),
    },
}
