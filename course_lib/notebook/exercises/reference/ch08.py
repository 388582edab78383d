"""What a good learner writes in chapter 8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def replacing_rate(step: int, base: float, k: float) -> float:
    return min(1.0, base + k * step)


def replaced_modules(chances: Tensor, rates: Tensor) -> Tensor:
    return chances < rates[:, None]


def mixed_loss(hidden: Tensor, target: Tensor, predecessor: Tensor, successor: Tensor, draws: list) -> Tensor:
    x = hidden
    for i, replaced in enumerate(draws):
        for matrix in [successor[i]] if replaced else predecessor[i]:
            x = torch.tanh(x @ matrix)
    return F.mse_loss(x, target)


def plain_names(names: list) -> list:
    return [name.replace(".successor.0.", ".") for name in names if ".predecessor." not in name]


def clip_factor(successor_norm: float, frozen_norm: float, limit: float) -> float:
    norm = (successor_norm**2 + frozen_norm**2) ** 0.5
    return limit / norm if norm > limit else 1.0


def diagnose(draws: Tensor) -> str:
    draws = draws.bool()
    if draws[1:].all():
        return "jumped to 1"
    return "one draw" if (draws.all(dim=1) == draws.any(dim=1)).all() else "healthy"


SOLUTIONS = {"ch08.q1": replacing_rate, "ch08.q2": replaced_modules, "ch08.q3": mixed_loss, "ch08.q4": plain_names,
             "ch08.q5": clip_factor, "ch08.q6": diagnose}
