"""Chapter 1: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.notebook.exercises.reference.ch01 import soft_loss, softened, token_loss, whole_loss
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape, size=2.0):
        return size * torch.randn(*shape, generator=g)

    pair = {"student_logits": torch.tensor([[2.0, 0.0]]), "teacher_logits": torch.tensor([[0.0, 1.0]])}
    huge = torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, 1e4]])
    other = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 0.0, 0.0]])
    labels = torch.tensor([0, 2, 1, 1])
    weights = {"hard_weight": 0.3, "soft_weight": 0.9}
    long_mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    padded = z(2, 4, 3)
    padded[1, 2:] = 1e4
    pair_mask = torch.tensor([[True] * 4, [True, True, False, False]])
    student = "student_logits"
    return {
        "ch01.q1": [
            case("three logits at T = 2", logits=torch.tensor([2.0, 1.0, 0.0]), temperature=2.0),
            case("4 x 3 logits at T = 2", logits=z(4, 3), temperature=2.0),
            case("5 x 5 logits at T = 4", logits=z(5, 5), temperature=4.0),
            case("2 x 3 x 4 logits at T = 0.5", logits=z(2, 3, 4), temperature=0.5),
            case("one row of logits at T = 1", logits=z(6), temperature=1.0),
            case("logits of 10,000 at T = 0.05", "extremes", logits=huge, temperature=0.05),
            case("logits of 10,000 at T = 100", "extremes", logits=huge, temperature=100.0),
        ],
        "ch01.q2": [
            case("one example with two classes at T = 2", temperature=2.0, **pair),
            case("4 x 3 logits at T = 4", gradient_of=student, student_logits=z(4, 3), teacher_logits=z(4, 3),
                 temperature=4.0),
            case("7 x 5 logits at T = 2", gradient_of=student, student_logits=z(7, 5), teacher_logits=z(7, 5),
                 temperature=2.0),
            case("3 x 2 logits at T = 1", student_logits=z(3, 2), teacher_logits=z(3, 2), temperature=1.0),
            case("logits of 10,000 at T = 0.05", "extremes", student_logits=huge, teacher_logits=other,
                 temperature=0.05),
            case("large logits at T = 100", "extremes", student_logits=z(4, 3, size=200.0),
                 teacher_logits=z(4, 3, size=200.0), temperature=100.0),
        ],
        "ch01.q3": [
            case("one example with two classes", labels=torch.tensor([1]), temperature=2.0, **pair, **weights),
            case("weights 0.3 and 0.9 at T = 4", gradient_of=student, student_logits=z(4, 3), teacher_logits=z(4, 3),
                 labels=labels, temperature=4.0, **weights),
            case("weights 0.5 and 0.5 at T = 2", student_logits=z(4, 5), teacher_logits=z(4, 5), labels=labels,
                 temperature=2.0, hard_weight=0.5, soft_weight=0.5),
            case("weights 1 and 2 at T = 8", student_logits=z(4, 3), teacher_logits=z(4, 3), labels=labels,
                 temperature=8.0, hard_weight=1.0, soft_weight=2.0),
            case("logits of 10,000 at T = 0.05", "extremes", student_logits=huge, teacher_logits=other,
                 labels=torch.tensor([1, 2]), temperature=0.05, **weights),
        ],
        "ch01.q4": [
            case("two words, and a word with a padding", student_logits=torch.tensor(
                     [[[2.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]), teacher_logits=torch.tensor(
                     [[[0.0, 1.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 2.0]]]), mask=torch.tensor([[1, 1], [1, 0]]),
                 temperature=2.0),
            case("3 sentences of 3, 5 and 1 tokens at T = 2", gradient_of=student, student_logits=z(3, 5, 4),
                 teacher_logits=z(3, 5, 4), mask=long_mask, temperature=2.0),
            case("a mask of True and False at T = 4", student_logits=z(2, 4, 6), teacher_logits=z(2, 4, 6),
                 mask=pair_mask, temperature=4.0),
            case("no padding at all at T = 1", student_logits=z(2, 3, 5), teacher_logits=z(2, 3, 5),
                 mask=torch.ones(2, 3).long(), temperature=1.0),
            case("logits of 10,000 in the padding", "extremes", student_logits=padded, teacher_logits=-padded,
                 mask=pair_mask, temperature=0.5),
            case("a single kept token", "extremes", student_logits=z(2, 4, 3), teacher_logits=z(2, 4, 3),
                 mask=torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]), temperature=2.0),
        ],
        "ch01.q5": [
            case(f'"{reduction}" with {batch} sentences of {tokens} tokens and {classes} classes', reduction=reduction,
                 batch=batch, tokens=tokens, classes=classes)
            for reduction, batch, tokens, classes in [("mean", 8, 16, 100), ("batchmean", 8, 16, 100),
                                                      ("sum", 8, 16, 100), ("mean", 3, 7, 30522),
                                                      ("batchmean", 5, 64, 2), ("sum", 2, 3, 5)]
        ],
        "ch01.q6": [
            case("one example with two classes at T = 2", temperature=2.0, **pair),
            case("4 x 3 logits at T = 4", student_logits=z(4, 3), teacher_logits=z(4, 3), temperature=4.0),
            case("3 x 5 logits at T = 2", student_logits=z(3, 5), teacher_logits=z(3, 5), temperature=2.0),
            case("6 x 2 logits at T = 0.5", student_logits=z(6, 2), teacher_logits=z(6, 2), temperature=0.5),
            case("logits of 10,000 at T = 0.05", "extremes", student_logits=huge, teacher_logits=other,
                 temperature=0.05),
        ],
    }


# --- the right numbers, by the formulas, in float64 -------------------------------------------------------------------


def _log_p(logits, temperature):
    z = logits.double().numpy()
    z = (z - z.max(axis=-1, keepdims=True)) / temperature
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _kl_rows(student_logits, teacher_logits, temperature):
    q, p = _log_p(student_logits, temperature), _log_p(teacher_logits, temperature)
    return (np.exp(p) * (p - q)).sum(axis=-1)


def _soft(student_logits, teacher_logits, temperature):
    return temperature**2 * _kl_rows(student_logits, teacher_logits, temperature).mean()


def _soft_gradient(student_logits, teacher_logits, temperature):
    gap = np.exp(_log_p(student_logits, temperature)) - np.exp(_log_p(teacher_logits, temperature))
    return temperature * gap / len(gap)


def _hard(student_logits, labels):
    return -np.mean([row[label] for row, label in zip(_log_p(student_logits, 1.0), labels.tolist(), strict=True)])


def _whole(student_logits, teacher_logits, labels, temperature, hard_weight, soft_weight):
    return hard_weight * _hard(student_logits, labels) + soft_weight * _soft(student_logits, teacher_logits,
                                                                             temperature)


def _whole_gradient(student_logits, teacher_logits, labels, temperature, hard_weight, soft_weight):
    one_hot = np.eye(student_logits.shape[1])[labels.numpy()]
    hard = (np.exp(_log_p(student_logits, 1.0)) - one_hot) / len(one_hot)
    return hard_weight * hard + soft_weight * _soft_gradient(student_logits, teacher_logits, temperature)


def _token(student_logits, teacher_logits, mask, temperature):
    kept = mask.bool().numpy()
    return temperature**2 * _kl_rows(student_logits, teacher_logits, temperature)[kept].mean()


def _token_gradient(student_logits, teacher_logits, mask, temperature):
    gap = np.exp(_log_p(student_logits, temperature)) - np.exp(_log_p(teacher_logits, temperature))
    kept = mask.bool().numpy()
    return temperature * gap * kept[..., None] / kept.sum()


def _factor(reduction, batch, tokens, classes):
    divided_by = {"mean": batch * tokens * classes, "batchmean": batch, "sum": 1}[reduction]
    return float(np.float64(divided_by) / (batch * tokens))


EXPECTED = {
    "ch01.q1": lambda logits, temperature: np.exp(_log_p(logits, temperature)),
    "ch01.q2": _soft,
    "ch01.q3": _whole,
    "ch01.q4": _token,
    "ch01.q5": _factor,
    "ch01.q6": _soft_gradient,
}
GRADIENTS = {"ch01.q2": _soft_gradient, "ch01.q3": _whole_gradient, "ch01.q4": _token_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _kl(student_logits, teacher_logits, t_student, t_teacher, reduction="batchmean", dim=-1):
    return F.kl_div(F.log_softmax(student_logits / t_student, dim=dim), F.softmax(teacher_logits / t_teacher, dim=dim),
                    reduction=reduction)


def _hard_and(soft):
    """Variants of the whole loss that differ in the soft term only."""
    def loss(student_logits, teacher_logits, labels, *, temperature, hard_weight, soft_weight):
        hard = F.cross_entropy(student_logits, labels)
        return hard_weight * hard + soft_weight * soft(student_logits, teacher_logits, temperature)
    return loss


def _swapped_weights(student_logits, teacher_logits, labels, *, temperature, hard_weight, soft_weight):
    return whole_loss(student_logits, teacher_logits, labels, temperature=temperature, hard_weight=soft_weight,
                      soft_weight=hard_weight)


def _t2_on_both(student_logits, teacher_logits, labels, *, temperature, hard_weight, soft_weight):
    hard = F.cross_entropy(student_logits, labels)
    return temperature**2 * (hard_weight * hard
                             + soft_weight * _kl(student_logits, teacher_logits, temperature, temperature))


def _hard_at_t(student_logits, teacher_logits, labels, *, temperature, hard_weight, soft_weight):
    hard = F.cross_entropy(student_logits / temperature, labels)
    return hard_weight * hard + soft_weight * soft_loss(student_logits, teacher_logits, temperature)


def _teacher_hard(student_logits, teacher_logits, labels, *, temperature, hard_weight, soft_weight):
    hard = F.cross_entropy(teacher_logits, labels)
    return hard_weight * hard + soft_weight * soft_loss(student_logits, teacher_logits, temperature)


def _softmax_before_ce(student_logits, teacher_logits, labels, *, temperature, hard_weight, soft_weight):
    hard = F.cross_entropy(student_logits.softmax(-1), labels)
    return hard_weight * hard + soft_weight * soft_loss(student_logits, teacher_logits, temperature)


def _one_alpha(student_logits, teacher_logits, labels, *, temperature, hard_weight, soft_weight):
    hard = F.cross_entropy(student_logits, labels)
    return hard_weight * hard + (1 - hard_weight) * soft_loss(student_logits, teacher_logits, temperature)


def _tokens(divide):
    """T^2 times the sum over kept tokens, divided in some wrong way."""
    def loss(student_logits, teacher_logits, mask, temperature):
        rows = _kl(student_logits, teacher_logits, temperature, temperature, "none").sum(-1) * temperature**2
        return divide(rows, mask.to(rows.dtype), student_logits.shape[-1])
    return loss


def _integer_index(student_logits, teacher_logits, mask, temperature):
    if mask.dtype == torch.bool:
        return token_loss(student_logits, teacher_logits, mask, temperature)
    chosen = student_logits[mask], teacher_logits[mask]
    return soft_loss(*(z.reshape(-1, z.shape[-1]) for z in chosen), temperature)


def _factors(mean, batchmean, total):
    def factor(reduction, batch, tokens, classes):
        return float({"mean": mean, "batchmean": batchmean, "sum": total}[reduction](batch, tokens, classes))
    return factor


def _right_but(**changed):
    right = {"mean": lambda b, t, c: c, "batchmean": lambda b, t, c: 1 / t, "total": lambda b, t, c: 1 / (b * t)}
    return _factors(**(right | changed))


def _gradient(scale, t_inside=True):
    def gradient(student_logits, teacher_logits, temperature):
        t = temperature if t_inside else 1.0
        gap = softened(student_logits, t) - softened(teacher_logits, t)
        return scale(temperature, len(gap)) * gap
    return gradient


MISTAKES = {
    "ch01.q1": {
        "multiplied": lambda logits, temperature: torch.softmax(logits * temperature, dim=-1),
        "no_temperature": lambda logits, temperature: torch.softmax(logits, dim=-1),
        "after_softmax": lambda logits, temperature: torch.softmax(logits, dim=-1) / temperature,
        "dim_0": lambda logits, temperature: torch.softmax(logits / temperature, dim=0),
        "dim_1": lambda logits, temperature: torch.softmax(logits / temperature, dim=min(1, logits.dim() - 1)),
        "log": lambda logits, temperature: torch.log_softmax(logits / temperature, dim=-1),
        "sum_of_all": lambda logits, temperature: (logits / temperature).exp() / (logits / temperature).exp().sum(),
        "exp_only": lambda logits, temperature: (logits / temperature).exp(),
        "largest_is_1": lambda logits, temperature: (
            (logits - logits.amax(-1, keepdim=True)) / temperature).exp(),
        "sigmoid": lambda logits, temperature: torch.sigmoid(logits / temperature),
        "minus": lambda logits, temperature: torch.softmax(-logits / temperature, dim=-1),
        "power": lambda logits, temperature: torch.softmax(logits, dim=-1) ** (1 / temperature),
    },
    "ch01.q2": {
        "no_t2": lambda student_logits, teacher_logits, temperature: _kl(
            student_logits, teacher_logits, temperature, temperature),
        "t_once": lambda student_logits, teacher_logits, temperature: temperature * _kl(
            student_logits, teacher_logits, temperature, temperature),
        "mean": lambda student_logits, teacher_logits, temperature: temperature**2 * _kl(
            student_logits, teacher_logits, temperature, temperature, "mean"),
        "sum": lambda student_logits, teacher_logits, temperature: temperature**2 * _kl(
            student_logits, teacher_logits, temperature, temperature, "sum"),
        "swapped": lambda student_logits, teacher_logits, temperature: soft_loss(
            teacher_logits, student_logits, temperature),
        "probabilities": lambda student_logits, teacher_logits, temperature: temperature**2 * F.kl_div(
            softened(student_logits, temperature), softened(teacher_logits, temperature), reduction="batchmean"),
        "only_student": lambda student_logits, teacher_logits, temperature: temperature**2 * _kl(
            student_logits, teacher_logits, temperature, 1.0),
        "only_teacher": lambda student_logits, teacher_logits, temperature: temperature**2 * _kl(
            student_logits, teacher_logits, 1.0, temperature),
        "cross_entropy": lambda student_logits, teacher_logits, temperature: temperature**2 * F.cross_entropy(
            student_logits / temperature, softened(teacher_logits, temperature)),
        "dim_0": lambda student_logits, teacher_logits, temperature: temperature**2 * _kl(
            student_logits, teacher_logits, temperature, temperature, dim=0),
        "probabilities_mean": lambda student_logits, teacher_logits, temperature: temperature**2 * F.kl_div(
            softened(student_logits, temperature), softened(teacher_logits, temperature)),
        "both_logs": lambda student_logits, teacher_logits, temperature: temperature**2 * F.kl_div(
            F.log_softmax(student_logits / temperature, -1), F.log_softmax(teacher_logits / temperature, -1),
            reduction="batchmean"),
        "squares": lambda student_logits, teacher_logits, temperature: temperature**2 * (
            softened(student_logits, temperature) - softened(teacher_logits, temperature)).square().sum(-1).mean(),
    },
    "ch01.q3": {
        "swapped_weights": _swapped_weights,
        "no_t2": _hard_and(lambda s, t, temperature: _kl(s, t, temperature, temperature)),
        "t2_on_both": _t2_on_both,
        "hard_at_t": _hard_at_t,
        "mean": _hard_and(lambda s, t, temperature: temperature**2 * _kl(s, t, temperature, temperature, "mean")),
        "teacher_hard": _teacher_hard,
        "one_alpha": _one_alpha,
        "swapped_kl": _hard_and(lambda s, t, temperature: soft_loss(t, s, temperature)),
        "t2_twice": _hard_and(lambda s, t, temperature: temperature**2 * soft_loss(s, t, temperature)),
        "softmax_before_ce": _softmax_before_ce,
        "no_hard": lambda student_logits, teacher_logits, labels, temperature, hard_weight, soft_weight: (
            soft_weight * soft_loss(student_logits, teacher_logits, temperature)),
        "soft_cross_entropy": _hard_and(lambda s, t, temperature: temperature**2 * F.cross_entropy(
            s / temperature, softened(t, temperature))),
    },
    "ch01.q4": {
        "batchmean_3d": _tokens(lambda rows, mask, classes: (rows * mask).sum() / len(rows)),
        "divides_by_all": _tokens(lambda rows, mask, classes: (rows * mask).mean()),
        "no_mask": _tokens(lambda rows, mask, classes: rows.mean()),
        "mean": _tokens(lambda rows, mask, classes: (rows * mask).sum() / mask.sum() / classes),
        "inverted": _tokens(lambda rows, mask, classes: (rows * (1 - mask)).sum() / (1 - mask).sum()),
        "per_sentence": _tokens(lambda rows, mask, classes: ((rows * mask).sum(1) / mask.sum(1)).mean()),
        "integer_index": _integer_index,
        "integer_index_raw": lambda student_logits, teacher_logits, mask, temperature: soft_loss(
            student_logits[mask], teacher_logits[mask], temperature),
        "t_once": lambda student_logits, teacher_logits, mask, temperature: token_loss(
            student_logits, teacher_logits, mask, temperature) / temperature,
        "sum": _tokens(lambda rows, mask, classes: (rows * mask).sum()),
        "swapped": lambda student_logits, teacher_logits, mask, temperature: token_loss(
            teacher_logits, student_logits, mask, temperature),
        "no_t2": lambda student_logits, teacher_logits, mask, temperature: token_loss(
            student_logits, teacher_logits, mask, temperature) / temperature**2,
    },
    "ch01.q5": {
        "inverse": _factors(lambda b, t, c: 1 / c, lambda b, t, c: t, lambda b, t, c: b * t),
        "one": _factors(*[lambda b, t, c: 1] * 3),
        "batchmean_is_right": _right_but(batchmean=lambda b, t, c: 1),
        "sum_by_batch": _right_but(total=lambda b, t, c: 1 / b),
        "mean_is_right": _right_but(mean=lambda b, t, c: 1),
        "mean_and_tokens": _right_but(mean=lambda b, t, c: t * c),
        "batchmean_and_classes": _right_but(batchmean=lambda b, t, c: 1 / (t * c)),
        "sum_by_classes": _right_but(total=lambda b, t, c: 1 / (b * t * c)),
        "tokens_for_batch": _right_but(batchmean=lambda b, t, c: 1 / b),
    },
    "ch01.q6": {
        "sign": _gradient(lambda t, n: -t / n),
        "no_t": _gradient(lambda t, n: 1 / n),
        "t_squared": _gradient(lambda t, n: t * t / n),
        "without_t2": _gradient(lambda t, n: 1 / (t * n)),
        "no_batch": _gradient(lambda t, n: t),
        "t_is_1": _gradient(lambda t, n: t / n, t_inside=False),
        "of_logits": lambda student_logits, teacher_logits, temperature: (
            temperature * (student_logits - teacher_logits) / len(student_logits)),
        "of_logs": lambda student_logits, teacher_logits, temperature: temperature / len(student_logits) * (
            F.log_softmax(student_logits / temperature, -1) - F.log_softmax(teacher_logits / temperature, -1)),
        "per_number": lambda student_logits, teacher_logits, temperature: temperature / student_logits.numel() * (
            softened(student_logits, temperature) - softened(teacher_logits, temperature)),
    },
}
