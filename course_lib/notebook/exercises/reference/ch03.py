"""What a good learner writes in chapter 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_loss(student_states: Tensor, teacher_states: Tensor, mask: Tensor) -> Tensor:
    kept = mask.bool()
    return (1 - F.cosine_similarity(student_states[kept], teacher_states[kept], dim=-1)).mean()


def hide_words(input_ids, maskable, draw, how, random_ids, mask_id):
    chosen = (draw < 0.15) & maskable
    ids = input_ids.masked_fill(chosen & (how < 0.8), mask_id)
    return torch.where(chosen & (how >= 0.9), random_ids, ids), input_ids.masked_fill(~chosen, -100)


def soft_loss(student_rows: Tensor, teacher_rows: Tensor, temperature: float) -> Tensor:
    student = F.log_softmax(student_rows / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, F.softmax(teacher_rows / temperature, dim=-1), reduction="batchmean")


def triple_loss(student_logits, teacher_logits, student_states, teacher_states, labels, attention_mask, *, temperature,
                soft_weight, mlm_weight, cosine_weight):
    real, hidden = attention_mask.bool(), labels != -100
    return (soft_weight * soft_loss(student_logits[real], teacher_logits[real], temperature)
            + mlm_weight * F.cross_entropy(student_logits[hidden], labels[hidden])
            + cosine_weight * cosine_loss(student_states, teacher_states, attention_mask))


def encoder_size(layers, hidden, feed_forward, vocabulary, positions, token_types, pooler):
    def matrix(rows, columns):
        return rows * columns + columns

    embeddings = (vocabulary + positions + token_types) * hidden + 2 * hidden
    layer = 4 * matrix(hidden, hidden) + matrix(hidden, feed_forward) + matrix(feed_forward, hidden) + 4 * hidden
    return embeddings + layers * layer + (matrix(hidden, hidden) if pooler else 0)


def fold_token_types(position_embeddings: Tensor, token_type_embeddings: Tensor) -> Tensor:
    return position_embeddings + token_type_embeddings[0]


def cosine_gradient(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    s, t = F.normalize(student_states, dim=-1), F.normalize(teacher_states, dim=-1)
    towards = t - (s * t).sum(dim=-1, keepdim=True) * s
    return -towards / student_states.norm(dim=-1, keepdim=True) / len(student_states)


SOLUTIONS = {"ch03.q1": cosine_loss, "ch03.q2": hide_words, "ch03.q3": triple_loss, "ch03.q4": encoder_size,
             "ch03.q5": fold_token_types, "ch03.q6": cosine_gradient}
