"""What a good learner writes in chapter 5."""

from __future__ import annotations

import torch
from torch import Tensor


def scores_of(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def attention_loss(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    real = mask.bool()
    pairs = (real[:, :, None] & real[:, None, :])[:, None].expand(student_scores.shape)
    return (student_scores[pairs] - teacher_scores[pairs]).pow(2).mean()


def hidden_loss(student_states: Tensor, teacher_states: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    real = mask.bool()
    return (student_states[real] @ weight.T - teacher_states[real]).pow(2).mean()


def smallest_error(teacher_states: Tensor, width: int) -> Tensor:
    centred = teacher_states - teacher_states.mean(dim=0)
    return torch.linalg.svdvals(centred)[width:].pow(2).sum() / centred.numel()


def question_for(ids: list[int], position: int, mask_id: int) -> list[int]:
    return [mask_id if token == ids[position] else token for token in ids]


def price_of_silence(teacher_states: Tensor, mask: Tensor) -> Tensor:
    states = teacher_states[mask.bool()]
    return (states - states.mean(dim=0)).pow(2).mean()


SOLUTIONS = {"ch05.q1": scores_of, "ch05.q2": attention_loss, "ch05.q3": hidden_loss, "ch05.q4": smallest_error,
             "ch05.q5": question_for, "ch05.q6": price_of_silence}
