"""What a good learner writes in chapter 9."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resoften(probs: Tensor, temperature: float) -> Tensor:
    return torch.softmax(probs.clamp_min(1e-38).log() / temperature, dim=-1)


def stored_loss(student_logits: Tensor, teacher_probs: Tensor, temperature: float) -> Tensor:
    student = F.log_softmax(student_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, resoften(teacher_probs, temperature), reduction="batchmean")


def rows_by_key(document_keys, cache_keys):
    place: dict[str, int] = {}
    for row, key in enumerate(cache_keys):
        place.setdefault(key, row)
    return [place.get(key, -1) for key in document_keys]


def cut(teacher_logits, k, temperature):
    probs, ids = torch.softmax(teacher_logits / temperature, dim=-1).topk(k, dim=-1)
    return ids, probs, (1 - probs.sum(-1)).clamp_min(0)


def share_of_strangers(stored, live, tolerance):
    return (0.5 * (stored - live).abs().sum(-1) > tolerance).float().mean().item()


def bert_parameters(vocabulary, positions, hidden, intermediate, layers, classes):
    h, i = hidden, intermediate
    layer = 4 * (h * h + h) + (h * i + i) + (i * h + h) + 4 * h
    return (vocabulary + positions + 2) * h + 2 * h + layers * layer + h * h + h + h * classes + classes


SOLUTIONS = {"ch09.q1": resoften, "ch09.q2": stored_loss, "ch09.q3": rows_by_key, "ch09.q4": cut,
             "ch09.q5": share_of_strangers, "ch09.q6": bert_parameters}
