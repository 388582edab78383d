"""What a good learner writes in lab 1."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def share_of_commonest(answers: Tensor, k: int) -> float:
    counts = answers.unique(return_counts=True)[1].sort(descending=True).values
    return counts[:k].sum().item() / len(answers)


def unigram_distance(probs: Tensor, counts: Tensor) -> Tensor:
    return 0.5 * (probs - counts / counts.sum()).abs().sum(dim=-1).mean()


def plateau_loss(counts: Tensor) -> Tensor:
    shares = counts[counts > 0] / counts.sum()
    return -(shares * shares.log()).sum()


def masked_soft_loss(student_logits, teacher_logits, labels, temperature):
    hidden = labels != -100
    student = F.log_softmax(student_logits[hidden] / temperature, dim=-1)
    teacher = F.softmax(teacher_logits[hidden] / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean")


def narrowed(weight, states, outputs, inputs):
    columns = states.square().mean(dim=0).topk(inputs).indices.sort().values
    rows = (states @ weight.T).square().mean(dim=0).topk(outputs).indices.sort().values
    return weight[rows][:, columns]


def escaped_at(steps: list, top1: list, plateau: float) -> int:
    answer = -1
    for step, value in zip(reversed(steps), reversed(top1), strict=True):
        if value <= plateau:
            break
        answer = step
    return answer


SOLUTIONS = {"lab1.q1": share_of_commonest, "lab1.q2": unigram_distance, "lab1.q3": plateau_loss,
             "lab1.q4": masked_soft_loss, "lab1.q5": narrowed, "lab1.q6": escaped_at}
