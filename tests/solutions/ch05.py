"""Chapter 5: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.notebook.exercises.reference.ch05 import attention_loss, hidden_loss, scores_of
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape, size=1.0):
        return size * torch.randn(*shape, generator=g)

    three = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    two = torch.tensor([[True] * 4, [True, True, False, False]])
    full = torch.ones(2, 3).long()
    padded = (two[:, None, :, None] & two[:, None, None, :]).logical_not()
    wild_scores = z(2, 3, 4, 4).masked_fill(padded, 1e30)
    wild_states = z(2, 4, 3).masked_fill(~two[..., None], 1e30)
    wild_teacher = z(2, 4, 5).masked_fill(~two[..., None], -1e30)
    slanted = z(20, 3, size=2.0) @ z(3, 6) + z(20, 6, size=0.3) + 2.0
    return {
        "ch05.q1": [
            case("2 sentences, 3 heads, 4 tokens, heads of width 5", query=z(2, 3, 4, 5), key=z(2, 3, 4, 5)),
            case("1 sentence, 2 heads, 6 tokens, heads of width 8", query=z(1, 2, 6, 8), key=z(1, 2, 6, 8)),
            case("queries and keys of 100,000", "extremes", query=z(1, 2, 3, 4, size=1e5), key=z(1, 2, 3, 4, size=1e5)),
        ],
        "ch05.q2": [
            case("3 sentences of 3, 5 and 2 tokens", gradient_of="student_scores", student_scores=z(3, 2, 5, 5),
                 teacher_scores=z(3, 2, 5, 5), mask=three),
            case("a mask of True and False, large scores", student_scores=z(2, 3, 4, 4, size=4.0),
                 teacher_scores=z(2, 3, 4, 4, size=4.0), mask=two),
            case("no padding at all", "extremes", student_scores=z(2, 3, 3, 3), teacher_scores=z(2, 3, 3, 3),
                 mask=full),
            case("numbers of 1e30 in the padding", "extremes", student_scores=wild_scores, teacher_scores=-wild_scores,
                 mask=two),
        ],
        "ch05.q3": [
            case("3 sentences of 3, 5 and 2 tokens, 4 -> 6", gradient_of="student_states", student_states=z(3, 5, 4),
                 teacher_states=z(3, 5, 6), weight=z(6, 4), mask=three),
            case("a mask of True and False, 3 -> 5", student_states=z(2, 4, 3), teacher_states=z(2, 4, 5),
                 weight=z(5, 3), mask=two),
            case("no padding at all", "extremes", student_states=z(2, 3, 2), teacher_states=z(2, 3, 4),
                 weight=z(4, 2), mask=full),
            case("numbers of 1e30 in the padding", "extremes", student_states=wild_states, teacher_states=wild_teacher,
                 weight=z(5, 3), mask=two),
        ],
        "ch05.q4": [
            case("20 states of width 6, student of width 2", teacher_states=slanted, width=2),
            case("20 states of width 6, student of width 4", teacher_states=slanted, width=4),
            case("30 states of width 5, student of width 1", teacher_states=z(30, 5) + 1.0, width=1),
            case("the full width", "extremes", teacher_states=slanted, width=6),
            case("states far away from 0", "extremes", teacher_states=slanted + 100.0, width=2),
        ],
        "ch05.q5": [
            case("a word that stands twice", ids=[101, 7, 8, 7, 9, 102], position=3, mask_id=103),
            case("a word that stands once", ids=[101, 5, 6, 9, 102], position=2, mask_id=103),
            case("a word that stands three times, and [MASK] has the number 4", ids=[2, 3, 5, 3, 6, 3, 1], position=1,
                 mask_id=4),
        ],
        "ch05.q6": [
            case("3 sentences of 3, 5 and 2 tokens, width 4", teacher_states=z(3, 5, 4) + z(4), mask=three),
            case("a mask of True and False, width 6", teacher_states=z(2, 4, 6) + 2 * z(6), mask=two),
            case("numbers of 1e30 in the padding", "extremes", teacher_states=wild_teacher, mask=two),
        ],
    }


# --- the right numbers, by the formulas, in float64 -------------------------------------------------------------------


def _np(tensor):
    return tensor.double().numpy()


def _scores(query, key):
    return np.einsum("bhid,bhjd->bhij", _np(query), _np(key)) / np.sqrt(query.shape[-1])


def _pairs(mask, heads):
    real = mask.bool().numpy()
    return np.repeat((real[:, :, None] & real[:, None, :])[:, None], heads, axis=1)


def _attention(student_scores, teacher_scores, mask):
    chosen = _pairs(mask, student_scores.shape[1])
    return np.mean((_np(student_scores)[chosen] - _np(teacher_scores)[chosen]) ** 2)


def _attention_gradient(student_scores, teacher_scores, mask):
    chosen = _pairs(mask, student_scores.shape[1])
    return np.where(chosen, 2 * (_np(student_scores) - _np(teacher_scores)) / chosen.sum(), 0.0)


def _hidden(student_states, teacher_states, weight, mask):
    real = mask.bool().numpy()
    mapped = np.einsum("tk,dk->td", _np(student_states)[real], _np(weight))
    return np.mean((mapped - _np(teacher_states)[real]) ** 2)


def _hidden_gradient(student_states, teacher_states, weight, mask):
    real = mask.bool().numpy()
    gap = np.einsum("btk,dk->btd", _np(student_states), _np(weight)) - _np(teacher_states)
    gap = np.where(real[..., None], gap, 0.0)
    return 2 * np.einsum("btd,dk->btk", gap, _np(weight)) / (real.sum() * gap.shape[-1])


def _smallest(teacher_states, width):
    states = _np(teacher_states)
    variances = np.linalg.eigvalsh(np.cov(states.T, bias=True))  # smallest first
    return variances[: states.shape[1] - width].sum() / states.shape[1]


def _question(ids, position, mask_id):
    ids = np.array(ids)
    return np.where(ids == ids[position], mask_id, ids).tolist()


def _price(teacher_states, mask):
    return np.var(_np(teacher_states)[mask.bool().numpy()], axis=0).mean()


EXPECTED = {"ch05.q1": _scores, "ch05.q2": _attention, "ch05.q3": _hidden, "ch05.q4": _smallest, "ch05.q5": _question,
            "ch05.q6": _price}
GRADIENTS = {"ch05.q2": _attention_gradient, "ch05.q3": _hidden_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _squares(student_scores, teacher_scores):
    return (student_scores - teacher_scores).pow(2)


def _real(mask):
    return mask.bool()


def _attention_per_sentence(student_scores, teacher_scores, mask):
    one = [attention_loss(*(x[None] for x in row)) for row in zip(student_scores, teacher_scores, mask, strict=True)]
    return torch.stack(one).mean()


def _masked_probabilities(student_scores, teacher_scores, mask):
    hidden = ~_real(mask)[:, None, None, :]
    return attention_loss(*(x.masked_fill(hidden, -1e4).softmax(-1) for x in (student_scores, teacher_scores)), mask)


def _pair_weights(mask, dtype):
    real = mask.to(dtype)
    return (real[:, :, None] * real[:, None, :])[:, None]


def _hidden_per_sentence(student_states, teacher_states, weight, mask):
    rows = zip(student_states, teacher_states, mask, strict=True)
    return torch.stack([hidden_loss(s[None], t[None], weight, m[None]) for s, t, m in rows]).mean()


def _lost(states, width):
    return torch.linalg.svdvals(states - states.mean(dim=0))[width:]


def _shown_beside(ids, position, mask_id):
    asked = list(ids)
    asked[position] = mask_id
    return asked + ids[1:]


def _only_there(ids, position, mask_id):
    return [mask_id if place == position else token for place, token in enumerate(ids)]


def _price_per_sentence(teacher_states, mask):
    squares = [(s[m] - s[m].mean(dim=0)).pow(2) for s, m in zip(teacher_states, mask.bool(), strict=True)]
    return torch.cat(squares).mean()


MISTAKES = {
    "ch05.q1": {
        "softmax": lambda query, key: scores_of(query, key).softmax(-1),
        "not_scaled": lambda query, key: query @ key.transpose(-1, -2),
        "by_d": lambda query, key: query @ key.transpose(-1, -2) / query.shape[-1],
        "all_heads": lambda query, key: query @ key.transpose(-1, -2) / (query.shape[1] * query.shape[-1]) ** 0.5,
        "transposed": lambda query, key: scores_of(key, query),
    },
    "ch05.q2": {
        "no_mask": lambda student_scores, teacher_scores, mask: _squares(student_scores, teacher_scores).mean(),
        "keys_only": lambda student_scores, teacher_scores, mask: _squares(student_scores, teacher_scores)[
            _real(mask)[:, None, None, :].expand(student_scores.shape)].mean(),
        "queries_only": lambda student_scores, teacher_scores, mask: _squares(student_scores, teacher_scores)[
            _real(mask)[:, None, :, None].expand(student_scores.shape)].mean(),
        "divides_by_all": lambda student_scores, teacher_scores, mask: (
            _squares(student_scores, teacher_scores) * _pair_weights(mask, student_scores.dtype)).mean(),
        "per_sentence": _attention_per_sentence,
        "probabilities": _masked_probabilities,
        "sum_over_heads": lambda student_scores, teacher_scores, mask: student_scores.shape[1] * attention_loss(
            student_scores, teacher_scores, mask),
        "absolute": lambda student_scores, teacher_scores, mask: (student_scores - teacher_scores).abs()[
            (_pair_weights(mask, torch.float32) > 0).expand(student_scores.shape)].mean(),
    },
    "ch05.q3": {
        "no_mask": lambda student_states, teacher_states, weight, mask: _squares(
            student_states @ weight.T, teacher_states).mean(),
        "divides_by_all": lambda student_states, teacher_states, weight, mask: (
            _squares(student_states @ weight.T, teacher_states) * mask[..., None].to(weight.dtype)).mean(),
        "sum_over_units": lambda student_states, teacher_states, weight, mask: len(weight) * hidden_loss(
            student_states, teacher_states, weight, mask),
        "teacher_mapped": lambda student_states, teacher_states, weight, mask: _squares(
            student_states, teacher_states @ weight)[_real(mask)].mean(),
        "reshaped": lambda student_states, teacher_states, weight, mask: _squares(
            student_states @ weight.reshape(weight.shape[1], weight.shape[0]), teacher_states)[_real(mask)].mean(),
        "per_sentence": _hidden_per_sentence,
        "absolute": lambda student_states, teacher_states, weight, mask: (
            student_states @ weight.T - teacher_states)[_real(mask)].abs().mean(),
    },
    "ch05.q4": {
        "not_centred": lambda teacher_states, width: torch.linalg.svdvals(
            teacher_states)[width:].pow(2).sum() / teacher_states.numel(),
        "kept": lambda teacher_states, width: _lost(teacher_states, 0)[:width].pow(2).sum() / teacher_states.numel(),
        "not_squared": lambda teacher_states, width: _lost(teacher_states, width).sum() / teacher_states.numel(),
        "per_token": lambda teacher_states, width: _lost(teacher_states, width).pow(2).sum() / len(teacher_states),
        "share": lambda teacher_states, width: (_lost(teacher_states, width).pow(2).sum()
                                                / _lost(teacher_states, 0).pow(2).sum()),
        "first_units": lambda teacher_states, width: teacher_states[:, width:].var(
            dim=0, unbiased=False).sum() / teacher_states.shape[1],
    },
    "ch05.q5": {
        "only_there": _only_there,
        "beside": _shown_beside,
        "removed": lambda ids, position, mask_id: [token for token in ids if token != ids[position]],
        "others": lambda ids, position, mask_id: [token if token == ids[position] else mask_id for token in ids],
        "by_position": lambda ids, position, mask_id: [mask_id if token == position else token for token in ids],
    },
    "ch05.q6": {
        "zero": lambda teacher_states, mask: teacher_states[mask.bool()].pow(2).mean(),
        "with_padding": lambda teacher_states, mask: teacher_states.flatten(end_dim=1).var(0, unbiased=False).mean(),
        "n_minus_1": lambda teacher_states, mask: teacher_states[mask.bool()].var(dim=0).mean(),
        "one_mean": lambda teacher_states, mask: teacher_states[mask.bool()].var(unbiased=False),
        "over_units": lambda teacher_states, mask: teacher_states[mask.bool()].var(dim=1, unbiased=False).mean(),
        "sum_over_units": lambda teacher_states, mask: teacher_states[mask.bool()].var(dim=0, unbiased=False).sum(),
        "per_sentence": _price_per_sentence,
    },
}
