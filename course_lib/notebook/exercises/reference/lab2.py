"""What a good learner writes in lab 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def teachers_share(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float,
                   t_squared: bool) -> Tensor:
    gap = torch.softmax(student_logits / temperature, -1) - torch.softmax(teacher_logits / temperature, -1)
    soft = (temperature if t_squared else 1 / temperature) * gap.norm()
    hard = (torch.softmax(student_logits, -1) - F.one_hot(labels, student_logits.shape[-1])).norm()
    return soft / (soft + hard)


def first_adam_step(gradient: Tensor, learning_rate: float, eps: float) -> Tensor:
    return -learning_rate * gradient / (gradient.abs() + eps)


def growth(vocabulary: int, hidden: int, other: int) -> float:
    table = vocabulary * hidden
    return (other + 2 * table) / (other + table)


def tied_gradient(ids: Tensor, input_gradient: Tensor, states: Tensor, logit_gradient: Tensor) -> Tensor:
    return (logit_gradient.T @ states).index_add(0, ids, input_gradient)


def price_of_nothing(teacher_states: Tensor, weight: Tensor, student_width: int, trainable: bool) -> Tensor:
    target = teacher_states
    if weight.shape[0] == student_width:
        target = torch.zeros(()) if trainable else teacher_states @ weight.T
    return (target - target.mean(dim=0)).pow(2).mean() if target.dim() else target


def spread_and_rank(states: Tensor) -> Tensor:
    centred = states - states.mean(dim=0)
    energy = torch.linalg.svdvals(centred) ** 2
    if energy.sum() == 0:
        return torch.tensor([0.0, 1.0])
    rank = torch.special.entr(energy / energy.sum()).sum().exp()
    return torch.stack([centred.pow(2).mean(), rank])


SOLUTIONS = {"lab2.q1": teachers_share, "lab2.q2": first_adam_step, "lab2.q3": growth, "lab2.q4": tied_gradient,
             "lab2.q5": price_of_nothing, "lab2.q6": spread_and_rank}
