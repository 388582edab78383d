"""What a good learner writes in chapter 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def softened(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits / temperature, dim=-1)


def soft_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    student = F.log_softmax(student_logits / temperature, dim=-1)
    teacher = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean")


def whole_loss(student_logits, teacher_logits, labels, *, temperature, hard_weight, soft_weight):
    hard = F.cross_entropy(student_logits, labels)
    return hard_weight * hard + soft_weight * soft_loss(student_logits, teacher_logits, temperature)


def token_loss(student_logits, teacher_logits, mask, temperature):
    kept = mask.bool()
    return soft_loss(student_logits[kept], teacher_logits[kept], temperature)


def missing_factor(reduction: str, batch: int, tokens: int, classes: int) -> float:
    return {"mean": classes, "batchmean": 1 / tokens, "sum": 1 / (batch * tokens)}[reduction]


def soft_gradient(student_logits, teacher_logits, temperature):
    gap = softened(student_logits, temperature) - softened(teacher_logits, temperature)
    return temperature * gap / len(gap)


SOLUTIONS = {"ch01.q1": softened, "ch01.q2": soft_loss, "ch01.q3": whole_loss, "ch01.q4": token_loss,
             "ch01.q5": missing_factor, "ch01.q6": soft_gradient}
