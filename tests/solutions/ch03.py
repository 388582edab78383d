"""Chapter 3: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.notebook.exercises.reference.ch03 import (
    cosine_gradient,
    cosine_loss,
    encoder_size,
    hide_words,
    soft_loss,
    triple_loss,
)
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape, size=2.0):
        return size * torch.randn(*shape, generator=g)

    def words(about, batch, tokens):
        """A text with [CLS] and [SEP], draws that choose three words in ten, so that every case occurs."""
        maskable = torch.ones(batch, tokens).bool()
        maskable[:, 0] = maskable[:, -1] = False
        return case(about, input_ids=torch.randint(200, 900, (batch, tokens), generator=g), maskable=maskable,
                    draw=0.5 * torch.rand(batch, tokens, generator=g), how=torch.rand(batch, tokens, generator=g),
                    random_ids=torch.randint(1000, 2000, (batch, tokens), generator=g), mask_id=103)

    def triple(about, stage="numbers", size=2.0, gradient_of=None, **knobs):
        labels = torch.tensor([[-100, 1, -100, 3, -100], [0, -100, -100, -100, -100], [-100, 2, -100, -100, -100]])
        return case(about, stage, gradient_of, student_logits=z(3, 5, 4, size=size),
                    teacher_logits=z(3, 5, 4, size=size), student_states=z(3, 5, 6), teacher_states=z(3, 5, 6),
                    labels=labels, attention_mask=long_mask, **knobs)

    long_mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    pair_mask = torch.tensor([[True] * 4, [True, True, False, False]])
    padded = z(2, 4, 3)
    padded[1, 2:] = 1e4
    states = "student_states"
    return {
        "ch03.q1": [
            case("one sentence of a word and a padding", student_states=torch.tensor([[[2.0, 0.0], [1.0, 1.0]]]),
                 teacher_states=torch.tensor([[[1.0, 1.0], [0.0, 5.0]]]), mask=torch.tensor([[1, 0]])),
            case("3 sentences of 4, 5 and 2 tokens", gradient_of=states, student_states=z(3, 5, 6),
                 teacher_states=z(3, 5, 6), mask=long_mask),
            case("a mask of True and False", student_states=z(2, 4, 3), teacher_states=z(2, 4, 3), mask=pair_mask),
            case("no padding at all", student_states=z(2, 3, 4), teacher_states=z(2, 3, 4),
                 mask=torch.ones(2, 3).long()),
            case("10,000 in the padding", "extremes", student_states=padded, teacher_states=-padded, mask=pair_mask),
            case("states of 10,000", "extremes", student_states=z(2, 4, 3, size=1e4), teacher_states=z(2, 4, 3),
                 mask=pair_mask),
        ],
        "ch03.q2": [
            case("[CLS], three words, [SEP]", input_ids=torch.tensor([[101, 7, 8, 9, 102]]),
                 maskable=torch.tensor([[False, True, True, True, False]]),
                 draw=torch.tensor([[0.05, 0.1, 0.05, 0.1, 0.9]]), how=torch.tensor([[0.1, 0.5, 0.95, 0.85, 0.1]]),
                 random_ids=torch.tensor([[1, 2, 3, 5, 6]]), mask_id=103),
            words("2 texts of 24 tokens", 2, 24), words("4 texts of 16 tokens", 4, 16),
                    words("1 text of 40 tokens", 1, 40)],
        "ch03.q3": [
            case("one sentence of two words, the second one hidden", student_logits=torch.tensor(
                     [[[2.0, 0.0], [0.0, 1.0]]]), teacher_logits=torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]),
                 student_states=torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), teacher_states=torch.tensor(
                     [[[1.0, 1.0], [3.0, 4.0]]]), labels=torch.tensor([[-100, 1]]),
                 attention_mask=torch.ones(1, 2).long(), temperature=2.0, soft_weight=3.0, mlm_weight=2.0,
                 cosine_weight=1.0),
            triple("weights 5, 2 and 1 at T = 2", gradient_of="student_logits", temperature=2.0, soft_weight=5.0,
                   mlm_weight=2.0, cosine_weight=1.0),
            triple("weights 0.5, 1 and 3 at T = 4", gradient_of="student_logits", temperature=4.0, soft_weight=0.5,
                   mlm_weight=1.0, cosine_weight=3.0),
            triple("L_ce alone at T = 3", temperature=3.0, soft_weight=1.0, mlm_weight=0.0, cosine_weight=0.0),
            triple("logits of 10,000", "extremes", size=1e4, temperature=2.0, soft_weight=5.0, mlm_weight=2.0,
                   cosine_weight=1.0),
        ],
        "ch03.q4": [
            case(about, layers=layers, hidden=hidden, feed_forward=ffn, vocabulary=words_, positions=512,
                 token_types=types, pooler=pooler)
            for about, layers, hidden, ffn, words_, types, pooler in [
                ("BERT-base", 12, 768, 3072, 30522, 2, True), ("DistilBERT", 6, 768, 3072, 30522, 0, False),
                ("this chapter's teacher, with a pooler", 6, 384, 1536, 30522, 2, True),
                ("this chapter's student", 3, 384, 1536, 30522, 0, False),
                ("a small model without a pooler", 2, 128, 500, 1000, 2, False)]
        ],
        "ch03.q5": [
            case("2 positions of 2 numbers, 2 types", position_embeddings=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
                 token_type_embeddings=torch.tensor([[10.0, 20.0], [0.0, 5.0]])),
            case("6 positions of 4 numbers, 2 types", position_embeddings=z(6, 4), token_type_embeddings=z(2, 4)),
            case("5 positions of 3 numbers, 3 types", position_embeddings=z(5, 3), token_type_embeddings=z(3, 3)),
            case("2 positions of 7 numbers, 2 types", position_embeddings=z(2, 7), token_type_embeddings=z(2, 7)),
        ],
        "ch03.q6": [
            case("one token of 2 numbers", student_states=torch.tensor([[3.0, 4.0]]),
                 teacher_states=torch.tensor([[2.0, 0.0]])),
            case("4 tokens of 6 numbers", student_states=z(4, 6), teacher_states=z(4, 6)),
            case("7 tokens of 3 numbers", student_states=z(7, 3), teacher_states=z(7, 3, size=5.0)),
            case("1 token of 5 numbers", student_states=z(1, 5), teacher_states=z(1, 5, size=0.5)),
            case("states of 1,000", "extremes", student_states=z(4, 3), teacher_states=z(4, 3, size=1e3)),
        ],
    }


# --- the right numbers, by the formulas, in float64 -------------------------------------------------------------------


def _unit(vectors):
    vectors = vectors.double().numpy()
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _cosine(student_states, teacher_states, mask):
    kept = mask.bool().numpy()
    return 1 - (_unit(student_states) * _unit(teacher_states)).sum(-1)[kept].mean()


def _turn(student_states, teacher_states):
    """The gradient of 1 - cos for each vector."""
    s, t = _unit(student_states), _unit(teacher_states)
    lengths = np.linalg.norm(student_states.double().numpy(), axis=-1, keepdims=True)
    return -(t - (s * t).sum(-1, keepdims=True) * s) / lengths


def _cosine_gradient_masked(student_states, teacher_states, mask):
    kept = mask.bool().numpy()
    return _turn(student_states, teacher_states) * kept[..., None] / kept.sum()


def _hidden(input_ids, maskable, draw, how, random_ids, mask_id):
    ids, labels = input_ids.numpy().copy(), np.full(input_ids.shape, -100)
    for place in np.argwhere((draw.numpy() < 0.15) & maskable.numpy()):
        at = tuple(place)
        labels[at] = ids[at]
        if how[at] < 0.8:
            ids[at] = mask_id
        elif how[at] >= 0.9:
            ids[at] = random_ids[at]
    return ids, labels


def _log_p(logits, temperature):
    z = logits.double().numpy()
    z = (z - z.max(axis=-1, keepdims=True)) / temperature
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _triple(student_logits, teacher_logits, student_states, teacher_states, labels, attention_mask, temperature,
            soft_weight, mlm_weight, cosine_weight):
    real, asked = attention_mask.bool().numpy(), labels.numpy() != -100
    q, p = _log_p(student_logits, temperature), _log_p(teacher_logits, temperature)
    soft = temperature**2 * (np.exp(p) * (p - q)).sum(-1)[real].mean()
    mlm = -np.take_along_axis(_log_p(student_logits, 1.0)[asked], labels.numpy()[asked][:, None], axis=-1).mean()
    return (soft_weight * soft + mlm_weight * mlm
            + cosine_weight * _cosine(student_states, teacher_states, attention_mask))


def _triple_gradient(student_logits, teacher_logits, student_states, teacher_states, labels, attention_mask,
                     temperature, soft_weight, mlm_weight, cosine_weight):
    real, asked = attention_mask.bool().numpy(), labels.numpy() != -100
    gap = np.exp(_log_p(student_logits, temperature)) - np.exp(_log_p(teacher_logits, temperature))
    soft = temperature * gap * real[..., None] / real.sum()
    one_hot = np.eye(student_logits.shape[-1])[np.where(asked, labels.numpy(), 0)]
    mlm = (np.exp(_log_p(student_logits, 1.0)) - one_hot) * asked[..., None] / asked.sum()
    return soft_weight * soft + mlm_weight * mlm


def _size(layers, hidden, feed_forward, vocabulary, positions, token_types, pooler):
    shapes = [(vocabulary, hidden), (positions, hidden), (token_types, hidden), (2, hidden)]
    for _ in range(layers):
        shapes += [(hidden, hidden), (1, hidden)] * 4 + [(hidden, feed_forward), (1, feed_forward)]
        shapes += [(feed_forward, hidden), (1, hidden), (2, hidden), (2, hidden)]
    shapes += [(hidden, hidden), (1, hidden)] if pooler else []
    return int(sum(np.prod(shape, dtype=np.int64) for shape in shapes))


EXPECTED = {
    "ch03.q1": _cosine,
    "ch03.q2": _hidden,
    "ch03.q3": _triple,
    "ch03.q4": _size,
    "ch03.q5": lambda position_embeddings, token_type_embeddings: (
        position_embeddings.double().numpy() + token_type_embeddings.double().numpy()[:1]),
    "ch03.q6": lambda student_states, teacher_states: _turn(student_states, teacher_states) / len(student_states),
}
GRADIENTS = {"ch03.q1": _cosine_gradient_masked, "ch03.q3": _triple_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _tokens(combine):
    """1 - cos of every token, put together in some wrong way."""
    def loss(student_states, teacher_states, mask):
        return combine(1 - F.cosine_similarity(student_states, teacher_states, dim=-1), mask.to(student_states.dtype))
    return loss


def _on_rows(compare):
    def loss(student_states, teacher_states, mask):
        return compare(student_states[mask.bool()], teacher_states[mask.bool()])
    return loss


def _chosen(draw, maskable):
    return (draw < 0.15) & maskable


def _hide(ids=None, labels=None, chosen=_chosen):
    """The solution with one part exchanged."""
    def function(input_ids, maskable, draw, how, random_ids, mask_id):
        picked = chosen(draw, maskable)
        new = (ids or _new_ids)(input_ids, picked, how, random_ids, mask_id)
        return new, (labels or _labels)(input_ids, new, picked, how)
    return function


def _new_ids(input_ids, chosen, how, random_ids, mask_id):
    return torch.where(chosen & (how >= 0.9), random_ids, input_ids.masked_fill(chosen & (how < 0.8), mask_id))


def _labels(input_ids, new, chosen, how):
    return input_ids.masked_fill(~chosen, -100)


def _kl(s, t, temperature, reduction="batchmean"):
    return F.kl_div(F.log_softmax(s / temperature, -1), F.softmax(t / temperature, -1), reduction=reduction)


def _three(soft=None, mlm=None, cosine=None):
    """The triple loss with one term exchanged; each term sees (student, teacher, labels, mask, temperature)."""
    def loss(student_logits, teacher_logits, student_states, teacher_states, labels, attention_mask, *, temperature,
             soft_weight, mlm_weight, cosine_weight):
        logits = student_logits, teacher_logits, labels, attention_mask.bool(), temperature
        states = student_states, teacher_states, labels, attention_mask.bool(), temperature
        return (soft_weight * (soft or (lambda s, t, y, m, T: soft_loss(s[m], t[m], T)))(*logits)
                + mlm_weight * (mlm or (lambda s, t, y, m, T: F.cross_entropy(s[y != -100], y[y != -100])))(*logits)
                + cosine_weight * (cosine or (lambda s, t, y, m, T: cosine_loss(s, t, m)))(*states))
    return loss


def _swapped_weights(*tensors, soft_weight, mlm_weight, **others):
    return triple_loss(*tensors, soft_weight=mlm_weight, mlm_weight=soft_weight, **others)


def _named(function):
    """Take the first six arguments by position or by name, as the stored cases give them."""
    names = ("student_logits", "teacher_logits", "student_states", "teacher_states", "labels", "attention_mask")

    def loss(student_logits, teacher_logits, student_states, teacher_states, labels, attention_mask, *, temperature,
             soft_weight, mlm_weight, cosine_weight):
        here = locals()
        return function(*(here[name] for name in names), temperature=temperature, soft_weight=soft_weight,
                        mlm_weight=mlm_weight, cosine_weight=cosine_weight)
    return loss


def _count(bias=1, norms=2, embedding_norm=2, attention=4, pooled=bool, embeddings=1):
    def size(layers, hidden, feed_forward, vocabulary, positions, token_types, pooler):
        def matrix(rows, columns):
            return rows * columns + bias * columns

        table = embeddings * (vocabulary + positions + token_types) * hidden + embedding_norm * hidden
        layer = (attention * matrix(hidden, hidden) + matrix(hidden, feed_forward) + matrix(feed_forward, hidden)
                 + norms * 2 * hidden)
        return table + layers * layer + (matrix(hidden, hidden) if pooled(pooler) else 0)
    return size


def _with(**fixed):
    def size(layers, hidden, feed_forward, vocabulary, positions, token_types, pooler):
        given = {"layers": layers, "positions": positions, "token_types": token_types} | fixed
        return encoder_size(hidden=hidden, feed_forward=feed_forward, vocabulary=vocabulary, pooler=pooler, **given)
    return size


def _first_position_only(position_embeddings, token_type_embeddings):
    folded = position_embeddings.clone()
    folded[0] += token_type_embeddings[0]
    return folded


def _gradient(sign=-1, mean=len, project=True, length=True, unit_teacher=True):
    def gradient(student_states, teacher_states):
        s, t = F.normalize(student_states, dim=-1), F.normalize(teacher_states, dim=-1)
        goal = t if unit_teacher else teacher_states
        turn = goal - (s * goal).sum(-1, keepdim=True) * s if project else goal
        return sign * turn / (student_states.norm(dim=-1, keepdim=True) if length else 1.0) / mean(student_states)
    return gradient


MISTAKES = {
    "ch03.q1": {
        "similarity": _tokens(lambda rows, mask: 1 - (rows * mask).sum() / mask.sum()),
        "no_mask": _tokens(lambda rows, mask: rows.mean()),
        "divides_by_all": _tokens(lambda rows, mask: (rows * mask).mean()),
        "per_sentence": _tokens(lambda rows, mask: ((rows * mask).sum(1) / mask.sum(1)).mean()),
        "wrong_dim": lambda student_states, teacher_states, mask: (
            1 - F.cosine_similarity(student_states, teacher_states)).mean(),
        "dot": _on_rows(lambda s, t: (1 - (s * t).sum(-1)).mean()),
        "mse": _on_rows(F.mse_loss),
        "sum": _tokens(lambda rows, mask: (rows * mask).sum()),
        "inverted": _tokens(lambda rows, mask: (rows * (1 - mask)).sum() / (1 - mask).sum()),
    },
    "ch03.q2": {
        "labels_everywhere": _hide(labels=lambda ids, new, chosen, how: ids.clone()),
        "specials": _hide(chosen=lambda draw, maskable: draw < 0.15),
        "overwritten": _hide(ids=lambda ids, chosen, how, random_ids, mask_id: ids.masked_fill(
            chosen & ((how < 0.8) | (how >= 0.9)), mask_id)),
        "all_mask": _hide(ids=lambda ids, chosen, how, random_ids, mask_id: ids.masked_fill(chosen, mask_id)),
        "labels_after": _hide(labels=lambda ids, new, chosen, how: new.masked_fill(~chosen, -100)),
        "label_of_mask_only": _hide(labels=lambda ids, new, chosen, how: ids.masked_fill(~chosen | (how >= 0.8), -100)),
        "inverted": _hide(chosen=lambda draw, maskable: (draw >= 0.15) & maskable),
        "zero": _hide(labels=lambda ids, new, chosen, how: ids.masked_fill(~chosen, 0)),
        "no_random": _hide(ids=lambda ids, chosen, how, random_ids, mask_id: ids.masked_fill(
            chosen & (how < 0.8), mask_id)),
        "none_stays": _hide(ids=lambda ids, chosen, how, random_ids, mask_id: torch.where(
            chosen & (how >= 0.8), random_ids, ids.masked_fill(chosen & (how < 0.8), mask_id))),
        "swapped": lambda input_ids, maskable, draw, how, random_ids, mask_id: hide_words(
            input_ids, maskable, draw, how, random_ids, mask_id)[::-1],
    },
    "ch03.q3": {
        "no_t2": _three(soft=lambda s, t, y, m, T: _kl(s[m], t[m], T)),
        "ce_at_hidden_words": _three(soft=lambda s, t, y, m, T: soft_loss(s[y != -100], t[y != -100], T)),
        "ce_with_padding": _three(soft=lambda s, t, y, m, T: soft_loss(s.flatten(0, 1), t.flatten(0, 1), T)),
        "cosine_with_padding": _three(cosine=lambda s, t, y, m, T: cosine_loss(s, t, torch.ones_like(m))),
        "cosine_at_hidden_words": _three(cosine=lambda s, t, y, m, T: cosine_loss(s, t, y != -100)),
        "batchmean_3d": _three(soft=lambda s, t, y, m, T: T**2 * (
            _kl(s, t, T, "none").sum(-1) * m).sum() / len(s)),
        "mlm_softened": _three(mlm=lambda s, t, y, m, T: F.cross_entropy(s[y != -100] / T, y[y != -100])),
        "mlm_of_teacher": _three(mlm=lambda s, t, y, m, T: F.cross_entropy(t[y != -100], y[y != -100])),
        "swapped_kl": _three(soft=lambda s, t, y, m, T: soft_loss(t[m], s[m], T)),
        "swapped_weights": _named(_swapped_weights),
    },
    "ch03.q4": {
        "no_bias": _count(bias=0),
        "no_layer_norm": _count(norms=0, embedding_norm=0),
        "no_embedding_norm": _count(embedding_norm=0),
        "one_norm_per_layer": _count(norms=1),
        "three_matrices": _count(attention=3),
        "pooler_always": _count(pooled=lambda pooler: True),
        "pooler_never": _count(pooled=lambda pooler: False),
        "no_embeddings": _count(embeddings=0),
        "words_only": _with(positions=0, token_types=0),
        "no_types": _with(token_types=0),
        "one_layer": _with(layers=1),
    },
    "ch03.q5": {
        "dropped": lambda position_embeddings, token_type_embeddings: position_embeddings.clone(),
        "all_types": lambda position_embeddings, token_type_embeddings: (
            position_embeddings + token_type_embeddings.sum(0)),
        "mean_type": lambda position_embeddings, token_type_embeddings: (
            position_embeddings + token_type_embeddings.mean(0)),
        "last_type": lambda position_embeddings, token_type_embeddings: position_embeddings + token_type_embeddings[-1],
        "first_position_only": _first_position_only,
        "subtracted": lambda position_embeddings, token_type_embeddings: position_embeddings - token_type_embeddings[0],
        "averaged": lambda position_embeddings, token_type_embeddings: (
            position_embeddings + token_type_embeddings[0]) / 2,
        "only_type": lambda position_embeddings, token_type_embeddings: (
            token_type_embeddings[0].expand(position_embeddings.shape).clone()),
        "added_twice": lambda position_embeddings, token_type_embeddings: (
            position_embeddings + 2 * token_type_embeddings[0]),
        "multiplied": lambda position_embeddings, token_type_embeddings: position_embeddings * token_type_embeddings[0],
    },
    "ch03.q6": {
        "sign": _gradient(sign=1),
        "no_mean": _gradient(mean=lambda rows: 1),
        "no_projection": _gradient(project=False),
        "no_length": _gradient(length=False),
        "long_teacher": _gradient(unit_teacher=False),
        "per_number": _gradient(mean=lambda rows: rows.numel()),
        "length_squared": lambda student_states, teacher_states: (
            cosine_gradient(student_states, teacher_states) / student_states.norm(dim=-1, keepdim=True)),
        "teachers_length": lambda student_states, teacher_states: cosine_gradient(student_states, teacher_states) * (
            student_states.norm(dim=-1, keepdim=True) / teacher_states.norm(dim=-1, keepdim=True)),
        "for_the_teacher": lambda student_states, teacher_states: cosine_gradient(teacher_states, student_states),
    },
}
