"""Lab 2: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.notebook.exercises.reference.lab2 import growth
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape, size=2.0):
        return size * torch.randn(*shape, generator=g)

    def pull(about, batch, classes, temperature, t_squared, stage="numbers", size=2.0):
        labels = torch.randint(classes, (batch,), generator=g)
        return case(about, stage, student_logits=z(batch, classes, size=size),
                    teacher_logits=z(batch, classes, size=size), labels=labels, temperature=temperature,
                    t_squared=t_squared)

    def tied(about, ids, positions, vocabulary, hidden, stage="numbers"):
        return case(about, stage, ids=torch.tensor(ids), input_gradient=z(len(ids), hidden),
                    states=z(positions, hidden), logit_gradient=z(positions, vocabulary))

    def price(about, tokens, teacher, student, side, trainable, stage="numbers", shift=3.0):
        shape = (teacher, student) if side == "student" else (student, teacher)
        return case(about, stage, teacher_states=z(tokens, teacher) + shift, weight=z(*shape, size=0.5),
                    student_width=student, trainable=trainable)

    return {
        "lab2.q1": [
            pull("4 x 3 logits at T = 4 with T^2", 4, 3, 4.0, True),
            pull("4 x 3 logits at T = 4 without T^2", 4, 3, 4.0, False),
            pull("6 x 11 logits at T = 2 with T^2", 6, 11, 2.0, True),
            pull("5 x 2 logits at T = 8 without T^2", 5, 2, 8.0, False),
            pull("logits of size 10,000 at T = 0.05", 3, 4, 0.05, True, "extremes", 1e4),
        ],
        "lab2.q2": [
            case("4 x 3 numbers", gradient=z(4, 3), learning_rate=0.01, eps=1e-8),
            case("a large eps", gradient=z(5), learning_rate=0.001, eps=0.5),
            case("small gradients", gradient=z(2, 3, size=1e-3), learning_rate=0.1, eps=1e-4),
            case("gradients of 0", "extremes", gradient=torch.tensor([0.0, 1e-12, -2.0]), learning_rate=0.1, eps=1e-8),
        ],
        "lab2.q3": [
            case("BERT-base", vocabulary=30522, hidden=768, other=86_000_000),
            case("a student of 2 x 384", vocabulary=30522, hidden=384, other=3_925_434),
            case("a tiny vocabulary", vocabulary=100, hidden=16, other=5000),
            case("nothing but the table", "extremes", vocabulary=30522, hidden=128, other=0),
        ],
        "lab2.q4": [
            tied("5 tokens, one of them twice", [1, 4, 1, 0, 2], 3, 6, 4),
            tied("a token three times", [3, 3, 3, 5], 2, 8, 3),
            tied("one position, two tokens", [0, 0], 1, 4, 2),
            tied("a vocabulary of 50", [7, 49, 7, 7, 12, 30, 49], 5, 50, 3, "extremes"),
        ],
        "lab2.q5": [
            price("a map 4 -> 6 on the student's side", 7, 6, 4, "student", True),
            price("a frozen map 4 -> 6 on the student's side", 7, 6, 4, "student", False),
            price("a trainable map 6 -> 4 on the teacher's side", 7, 6, 4, "teacher", True),
            price("a frozen map 6 -> 4 on the teacher's side", 7, 6, 4, "teacher", False),
            price("a frozen map 5 -> 8 on the teacher's side", 9, 5, 8, "teacher", False),
            price("teacher states around 1,000", 6, 5, 3, "student", True, "extremes", 1000.0),
        ],
        "lab2.q6": [
            case("8 states of width 5, around 3", states=z(8, 5) + 3),
            case("6 states of width 12", states=z(6, 12) + 1),
            case("10 states of width 4 that differ by a hair", states=1e-2 * z(10, 4) + 1.0),
            case("20 states on a line", states=z(20, 1) * torch.tensor([[1.0, -2.0, 0.5]]) + 0.02 * z(20, 3) + 2),
            case("equal states", "extremes", states=torch.full((4, 3), 0.5)),
        ],
    }


# --- the right numbers, by the formulas, in float64 -------------------------------------------------------------------


def _softmax(logits, temperature=1.0):
    z = logits.double().numpy() / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _share(student_logits, teacher_logits, labels, temperature, t_squared):
    gap = _softmax(student_logits, temperature) - _softmax(teacher_logits, temperature)
    soft = np.sqrt((gap**2).sum()) / temperature * (temperature**2 if t_squared else 1)
    one_hot = np.eye(student_logits.shape[1])[labels.numpy()]
    hard = np.sqrt(((_softmax(student_logits) - one_hot) ** 2).sum())
    return np.float64(soft / (soft + hard))


def _adam(gradient, learning_rate, eps):
    g = gradient.double().numpy()
    return -learning_rate * g / (np.sqrt(g * g) + eps)


def _growth(vocabulary, hidden, other):
    return float(1 + vocabulary * hidden / (vocabulary * hidden + other))


def _tied(ids, input_gradient, states, logit_gradient):
    total = np.einsum("pv,ph->vh", logit_gradient.double().numpy(), states.double().numpy())
    for row, i in zip(input_gradient.double().numpy(), ids.tolist(), strict=True):
        total[i] += row
    return total


def _price(teacher_states, weight, student_width, trainable):
    states = teacher_states.double().numpy()
    if weight.shape[0] == student_width:
        states = states @ weight.double().numpy().T * (not trainable)
    return np.float64(states.var(axis=0).mean())


def _spread(states):
    x = states.double().numpy()
    x = x - x.mean(axis=0)
    shares = np.linalg.eigvalsh(x.T @ x)
    shares = shares[shares > 1e-14 * max(shares.max(), 1e-300)]
    rank = 1.0 if not len(shares) or shares.sum() < 1e-20 else np.exp(-np.sum(
        shares / shares.sum() * np.log(shares / shares.sum())))
    return np.array([(x**2).mean(), rank])


EXPECTED = {"lab2.q1": _share, "lab2.q2": _adam, "lab2.q3": _growth, "lab2.q4": _tied, "lab2.q5": _price,
            "lab2.q6": _spread}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _shares(soft_factor=lambda t, squared: t if squared else 1 / t, soft_t=lambda t: t, hard_t=lambda t: 1.0,
            out=lambda soft, hard: soft / (soft + hard)):
    def share(student_logits, teacher_logits, labels, temperature, t_squared):
        t = soft_t(temperature)
        gap = torch.softmax(student_logits / t, -1) - torch.softmax(teacher_logits / t, -1)
        soft = soft_factor(temperature, t_squared) * gap.norm()
        at = torch.softmax(student_logits / hard_t(temperature), -1)
        return out(soft, (at - F.one_hot(labels, student_logits.shape[-1])).norm())
    return share


def _ways(way_in, scale=1.0, out=1.0):
    def gradient(ids, input_gradient, states, logit_gradient):
        both = out * logit_gradient.T @ states
        return scale * (both + way_in(torch.zeros_like(both), ids, input_gradient))
    return gradient


def _overwritten(empty, ids, rows):
    for i, row in zip(ids.tolist(), rows, strict=True):
        empty[i] = row
    return empty


def _averaged(empty, ids, rows):
    return empty.index_add(0, ids, rows / torch.bincount(ids)[ids][:, None])


def _error(target, centre=True, mean=True):
    target = target - target.mean(dim=0) if centre else target
    return target.pow(2).mean() if mean else target.pow(2).sum(dim=-1).mean()


def _prices(free=lambda trainable: trainable, **knobs):
    def price(teacher_states, weight, student_width, trainable):
        on_teachers_side = weight.shape[0] == student_width
        if on_teachers_side and free(trainable):
            return torch.zeros(())
        return _error(teacher_states @ weight.T if on_teachers_side else teacher_states, **knobs)
    return price


def _swapped_sides(teacher_states, weight, student_width, trainable):
    if weight.shape[0] == student_width:
        return _error(teacher_states)
    return torch.zeros(()) if trainable else _error(teacher_states @ weight)


def _spreads(centre=True, power=2, base=None, exp=True, rank=None, mean=True):
    def spread(states):
        x = states - states.mean(dim=0) if centre else states
        values = torch.linalg.svdvals(x) ** power
        entropy = torch.special.entr(values / values.sum()).sum() / (1.0 if base is None else np.log(base))
        second = torch.linalg.matrix_rank(x).float() if rank else entropy.exp() if exp else entropy
        return torch.stack([x.pow(2).mean() if mean else x.pow(2).sum(dim=-1).mean(), second])
    return spread


MISTAKES = {
    "lab2.q1": {
        "always_t_squared": _shares(lambda t, squared: t),
        "never_t_squared": _shares(lambda t, squared: 1 / t),
        "t_squared_alone": _shares(lambda t, squared: t * t if squared else 1.0),
        "softmax_at_1": _shares(soft_t=lambda t: 1.0),
        "ratio": _shares(out=lambda soft, hard: soft / hard),
        "hard_share": _shares(out=lambda soft, hard: hard / (soft + hard)),
        "hard_at_t": _shares(hard_t=lambda t: t),
    },
    "lab2.q2": {
        "sgd": lambda gradient, learning_rate, eps: -learning_rate * gradient,
        "plus": lambda gradient, learning_rate, eps: learning_rate * gradient / (gradient.abs() + eps),
        "norm": lambda gradient, learning_rate, eps: -learning_rate * gradient / (gradient.norm() + eps),
        "no_correction": lambda gradient, learning_rate, eps: -learning_rate * 0.1 * gradient / (
            (0.001 * gradient**2).sqrt() + eps),
        "v_without_root": lambda gradient, learning_rate, eps: -learning_rate * gradient / (gradient**2 + eps),
    },
    "lab2.q3": {
        "inverse": lambda vocabulary, hidden, other: 1 / growth(vocabulary, hidden, other),
        "added_share": lambda vocabulary, hidden, other: growth(vocabulary, hidden, other) - 1,
        "tied_without_table": lambda vocabulary, hidden, other: (other + 2 * vocabulary * hidden) / max(other, 1),
        "hidden_squared": lambda vocabulary, hidden, other: (
            other + vocabulary * hidden + hidden**2) / (other + vocabulary * hidden),
        "three_tables": lambda vocabulary, hidden, other: (
            other + 3 * vocabulary * hidden) / (other + vocabulary * hidden),
    },
    "lab2.q4": {
        "only_in": _ways(lambda empty, ids, rows: empty.index_add(0, ids, rows), out=0.0),
        "only_out": _ways(lambda empty, ids, rows: empty),
        "mean": _ways(lambda empty, ids, rows: empty.index_add(0, ids, rows), scale=0.5),
        "overwritten": _ways(_overwritten),
        "in_scaled": _ways(_averaged),
    },
    "lab2.q5": {
        "sides_swapped": _swapped_sides,
        "always_student": lambda teacher_states, weight, student_width, trainable: _error(teacher_states),
        "trainable_ignored": _prices(free=lambda trainable: False),
        "always_free": _prices(free=lambda trainable: True),
        "not_centred": _prices(centre=False),
        "sum": _prices(mean=False),
    },
    "lab2.q6": {
        "not_centred": _spreads(centre=False),
        "values_not_squared": _spreads(power=1),
        "bits": _spreads(base=2.0),
        "entropy": _spreads(exp=False),
        "whole_rank": _spreads(rank=True),
        "summed": _spreads(mean=False),
    },
}
