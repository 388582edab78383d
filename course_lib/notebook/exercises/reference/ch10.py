"""What a good learner writes in chapter 10."""

from __future__ import annotations

import torch
from torch import Tensor


def kept(accuracies: Tensor, teacher: float) -> float:
    return 100 * accuracies.mean().item() / teacher


def pareto_front(costs: Tensor, scores: Tensor) -> list:
    def beats(b, a):
        at_least = costs[b] <= costs[a] and scores[b] >= scores[a]
        return at_least and (costs[b] < costs[a] or scores[b] > scores[a])

    kept = [a for a in range(len(costs)) if not any(beats(b, a) for b in range(len(costs)))]
    return sorted(kept, key=lambda i: (costs[i].item(), i))


def break_even(asking: float, reading: float, sentences: int, batch: int) -> int:
    if reading >= asking:
        return -1
    return int(sentences * asking / (batch * (asking - reading))) + 1


def candidates(scores: Tensor, costs: Tensor, limit: float, t: float) -> list:
    allowed = [i for i in range(len(costs)) if costs[i] <= limit]
    best = max(allowed, key=lambda i: scores[i].mean().item())
    others = []
    for i in allowed:
        d = scores[best] - scores[i]
        if i != best and d.mean() - t * d.std() / len(d) ** 0.5 <= 0:
            others.append(i)
    return [best, *others]


def paired_interval(ours: Tensor, baseline: Tensor, t: float) -> Tensor:
    d = ours - baseline
    half = t * d.std() / len(d) ** 0.5
    return torch.stack([d.mean(), d.mean() - half, d.mean() + half])


def times_faster(student: Tensor, teacher: Tensor, warm_up: int) -> Tensor:
    ratios = teacher[warm_up:] / student[warm_up:]
    return torch.quantile(ratios, torch.tensor([0.25, 0.5, 0.75]))


SOLUTIONS = {"ch10.q1": kept, "ch10.q2": pareto_front, "ch10.q3": break_even, "ch10.q4": candidates,
             "ch10.q5": paired_interval, "ch10.q6": times_faster}
