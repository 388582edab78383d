"""Chapter 4: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.notebook.exercises.reference.ch04 import matched_cls, patience, patience_gradient, skip_map
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape, size=1.0):
        return size * torch.randn(*shape, generator=g)

    zeros = z(3, 2, 4)
    zeros[1, 0] = 0.0
    huge = torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, 1e4]])
    other = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 0.0, 0.0]])
    student = "student_cls"
    return {
        "ch04.q1": [
            *(case(f"a student of {s} and a teacher of {t} layers", student_layers=s, teacher_layers=t)
              for s, t in ((6, 12), (3, 12), (3, 6), (4, 12), (8, 24))),
            case("a student of two layers", "extremes", student_layers=2, teacher_layers=12),
        ],
        "ch04.q2": [
            case("3 student and 6 teacher layers", student_states=z(4, 2, 5, 3),
                 teacher_states=z(7, 2, 5, 3), layer_map=[(1, 2), (2, 4)]),
            case("PKD-last", student_states=z(4, 3, 4, 5), teacher_states=z(7, 3, 4, 5), layer_map=[(1, 4), (2, 5)]),
            case("a map that is not in order", student_states=z(3, 2, 3, 4), teacher_states=z(5, 2, 3, 4),
                 layer_map=[(2, 1), (1, 3)]),
            case("one pair and one sentence", "extremes", student_states=z(3, 1, 2, 4), teacher_states=z(5, 1, 2, 4),
                 layer_map=[(1, 2)]),
        ],
        "ch04.q3": [
            case("4 sentences, 3 layers, width 5", gradient_of=student, student_cls=z(4, 3, 5), teacher_cls=z(4, 3, 5)),
            case("2 sentences, 5 layers, width 8", gradient_of=student, student_cls=z(2, 5, 8, size=3.0),
                 teacher_cls=z(2, 5, 8, size=0.5)),
            case("3 sentences, 2 layers, width 2", student_cls=z(3, 2, 2), teacher_cls=z(3, 2, 2, size=9.0)),
            case("a state of zeros", "extremes", student_cls=zeros, teacher_cls=z(3, 2, 4)),
            case("states of length ten million", "extremes", student_cls=z(2, 2, 4, size=1e7),
                 teacher_cls=z(2, 2, 4, size=1e7)),
        ],
        "ch04.q4": [
            case("alpha 0.7, beta 0.3, T = 5", gradient_of="student_logits", student_logits=z(4, 3),
                 teacher_logits=z(4, 3), labels=torch.tensor([0, 2, 1, 1]), student_cls=z(4, 2, 6),
                 teacher_cls=z(4, 2, 6), temperature=5.0, alpha=0.7, beta=0.3),
            case("alpha 0.2, beta 2, T = 10", student_logits=z(3, 2), teacher_logits=z(3, 2),
                 labels=torch.tensor([1, 0, 1]), student_cls=z(3, 5, 4), teacher_cls=z(3, 5, 4), temperature=10.0,
                 alpha=0.2, beta=2.0),
            case("logits of 10,000 and a state of zeros", "extremes", student_logits=huge, teacher_logits=other,
                 labels=torch.tensor([1, 2]), student_cls=zeros[:2], teacher_cls=z(2, 2, 4), temperature=0.5, alpha=0.5,
                 beta=1.0),
        ],
        "ch04.q5": [
            *(case(f"beta {b:g}, {n} layers, width {h}", beta_of_the_mean=b, student_layers=n, hidden=h)
              for b, n, h in ((100.0, 6, 768), (500.0, 3, 768), (1000.0, 3, 384), (10.0, 12, 312))),
            case("a student of two layers", "extremes", beta_of_the_mean=100.0, student_layers=2, hidden=384),
        ],
        "ch04.q6": [
            case("4 sentences, 3 layers, width 5", student_cls=z(4, 3, 5), teacher_cls=z(4, 3, 5)),
            case("2 sentences, 2 layers, width 8", student_cls=z(2, 2, 8, size=3.0), teacher_cls=z(2, 2, 8, size=0.5)),
            case("states of length ten million", "extremes", student_cls=z(2, 2, 4, size=1e7),
                 teacher_cls=z(2, 2, 4, size=1e7)),
        ],
    }


# --- the right numbers, by the formulas, in float64 -------------------------------------------------------------------


def _unit(states):
    x = states.double().numpy()
    return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), 1e-12)


def _patience(student_cls, teacher_cls):
    return ((_unit(student_cls) - _unit(teacher_cls)) ** 2).sum(axis=(1, 2)).mean()


def _patience_gradient(student_cls, teacher_cls):
    a, b = _unit(student_cls), _unit(teacher_cls)
    length = np.linalg.norm(student_cls.double().numpy(), axis=-1, keepdims=True)
    return -2 * (b - (a * b).sum(axis=-1, keepdims=True) * a) / length / len(a)


def _log_p(logits, temperature=1.0):
    z = logits.double().numpy()
    z = (z - z.max(axis=-1, keepdims=True)) / temperature
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _whole(student_logits, teacher_logits, labels, student_cls, teacher_cls, temperature, alpha, beta):
    hard = -_log_p(student_logits)[np.arange(len(labels)), labels.numpy()].mean()
    soft = -(np.exp(_log_p(teacher_logits, temperature)) * _log_p(student_logits, temperature)).sum(axis=-1).mean()
    return (1 - alpha) * hard + alpha * soft + beta * _patience(student_cls, teacher_cls)


def _whole_gradient(student_logits, teacher_logits, labels, student_cls, teacher_cls, temperature, alpha, beta):
    one_hot = np.eye(student_logits.shape[1])[labels.numpy()]
    hard = np.exp(_log_p(student_logits)) - one_hot
    soft = (np.exp(_log_p(student_logits, temperature)) - np.exp(_log_p(teacher_logits, temperature))) / temperature
    return ((1 - alpha) * hard + alpha * soft) / len(labels)


def _matched(student_states, teacher_states, layer_map):
    s, t = zip(*layer_map, strict=True)
    return tuple(np.moveaxis(states.numpy()[list(which), :, 0], 0, 1)
                 for states, which in ((student_states, s), (teacher_states, t)))


EXPECTED = {
    "ch04.q1": lambda student_layers, teacher_layers: [
        (int(i), int(np.int64(i) * teacher_layers // student_layers)) for i in range(1, student_layers)],
    "ch04.q2": _matched,
    "ch04.q3": _patience,
    "ch04.q4": _whole,
    "ch04.q5": lambda beta_of_the_mean, student_layers, hidden: float(
        np.float64(beta_of_the_mean) / ((student_layers - 1) * hidden)),
    "ch04.q6": _patience_gradient,
}
GRADIENTS = {"ch04.q3": _patience_gradient, "ch04.q4": _whole_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _squares(student_cls, teacher_cls):
    return (student_cls - teacher_cls).pow(2).sum(dim=(1, 2)).mean()


def _divided(states, dims):
    return states / states.pow(2).sum(dim=dims, keepdim=True).sqrt()


def _picked(pick=lambda states, layer: states[layer][:, 0], student_shift=0, teacher_shift=0):
    def matched(student_states, teacher_states, layer_map):
        student = torch.stack([pick(student_states, s - student_shift) for s, _ in layer_map], dim=1)
        return student, torch.stack([pick(teacher_states, t - teacher_shift) for _, t in layer_map], dim=1)
    return matched


def _loss(hard=lambda s, y, t: F.cross_entropy(s, y),
          soft=lambda s, z, t: F.cross_entropy(s / t, (z / t).softmax(-1)),
          pull=patience, add=lambda hard, soft, pull, alpha, beta: (1 - alpha) * hard + alpha * soft + beta * pull):
    """Variants of the whole loss that differ in one term, or in the sum."""
    def loss(student_logits, teacher_logits, labels, student_cls, teacher_cls, *, temperature, alpha, beta):
        return add(hard(student_logits, labels, temperature), soft(student_logits, teacher_logits, temperature),
                   pull(student_cls, teacher_cls), alpha, beta)
    return loss


def _kl(student_logits, teacher_logits, temperature):
    return F.kl_div((student_logits / temperature).log_softmax(-1), (teacher_logits / temperature).softmax(-1),
                    reduction="batchmean")


def _parts(student_cls, teacher_cls):
    a, b = F.normalize(student_cls, dim=-1), F.normalize(teacher_cls, dim=-1)
    length = student_cls.norm(dim=-1, keepdim=True)
    return a, b, b - (a * b).sum(dim=-1, keepdim=True) * a, length, len(a)


def _no_projection(student_cls, teacher_cls):
    a, b, _, length, n = _parts(student_cls, teacher_cls)
    return 2 * (a - b) / length / n


def _no_length(student_cls, teacher_cls):
    _, _, across, _, n = _parts(student_cls, teacher_cls)
    return -2 * across / n


def _teacher_length(student_cls, teacher_cls):
    _, _, across, _, n = _parts(student_cls, teacher_cls)
    return -2 * across / teacher_cls.norm(dim=-1, keepdim=True) / n


MISTAKES = {
    "ch04.q1": {
        "with_the_last": lambda student_layers, teacher_layers: [
            (i, i * (teacher_layers // student_layers)) for i in range(1, student_layers + 1)],
        "from_zero": lambda student_layers, teacher_layers: [
            (s - 1, t - 1) for s, t in skip_map(student_layers, teacher_layers)],
        "pkd_last": lambda student_layers, teacher_layers: [
            (i, teacher_layers - student_layers + i) for i in range(1, student_layers)],
        "first_of_group": lambda student_layers, teacher_layers: [
            (i, (i - 1) * (teacher_layers // student_layers) + 1) for i in range(1, student_layers)],
        "swapped": lambda student_layers, teacher_layers: [
            (t, s) for s, t in skip_map(student_layers, teacher_layers)],
        "every_second": lambda student_layers, teacher_layers: [(i, 2 * i) for i in range(1, student_layers)],
    },
    "ch04.q2": {
        "off_by_one": _picked(student_shift=1, teacher_shift=1),
        "teacher_off_by_one": _picked(teacher_shift=1),
        "last_token": _picked(lambda states, layer: states[layer][:, -1]),
        "mean_of_tokens": _picked(lambda states, layer: states[layer].mean(dim=1)),
        "swapped": lambda student_states, teacher_states, layer_map: matched_cls(
            student_states, teacher_states, layer_map)[::-1],
        "ignores_the_map": lambda student_states, teacher_states, layer_map: matched_cls(
            student_states, teacher_states, [(i, i) for i in range(1, len(layer_map) + 1)]),
    },
    "ch04.q3": {
        "not_normalised": _squares,
        "only_teacher": lambda student_cls, teacher_cls: _squares(student_cls, F.normalize(teacher_cls, dim=-1)),
        "over_layers": lambda student_cls, teacher_cls: _squares(_divided(student_cls, 1), _divided(teacher_cls, 1)),
        "over_all": lambda student_cls, teacher_cls: _squares(
            _divided(student_cls, (1, 2)), _divided(teacher_cls, (1, 2))),
        "mean": lambda student_cls, teacher_cls: F.mse_loss(
            F.normalize(student_cls, dim=-1), F.normalize(teacher_cls, dim=-1)),
        "distance": lambda student_cls, teacher_cls: (
            F.normalize(student_cls, dim=-1) - F.normalize(teacher_cls, dim=-1)).norm(dim=-1).sum(dim=1).mean(),
        "sum_over_batch": lambda student_cls, teacher_cls: patience(student_cls, teacher_cls) * len(student_cls),
        "norm_of_difference": lambda student_cls, teacher_cls: F.normalize(
            student_cls - teacher_cls, dim=-1).pow(2).sum(dim=(1, 2)).mean(),
    },
    "ch04.q4": {
        "swapped_alpha": _loss(
            add=lambda hard, soft, pull, alpha, beta: alpha * hard + (1 - alpha) * soft + beta * pull),
        "beta_inside": _loss(
            add=lambda hard, soft, pull, alpha, beta: (1 - alpha) * hard + alpha * (soft + beta * pull)),
        "t_squared": _loss(soft=lambda s, z, t: t * t * F.cross_entropy(s / t, (z / t).softmax(-1))),
        "kl": _loss(soft=_kl),
        "no_patience": _loss(add=lambda hard, soft, pull, alpha, beta: (1 - alpha) * hard + alpha * soft),
        "mean_patience": _loss(pull=lambda s, t: F.mse_loss(F.normalize(s, dim=-1), F.normalize(t, dim=-1))),
        "hard_at_t": _loss(hard=lambda s, y, t: F.cross_entropy(s / t, y)),
    },
    "ch04.q5": {
        "inverse": lambda beta_of_the_mean, student_layers, hidden: beta_of_the_mean * (student_layers - 1) * hidden,
        "with_the_last": lambda beta_of_the_mean, student_layers, hidden: beta_of_the_mean / (student_layers * hidden),
        "only_hidden": lambda beta_of_the_mean, student_layers, hidden: beta_of_the_mean / hidden,
        "only_layers": lambda beta_of_the_mean, student_layers, hidden: beta_of_the_mean / (student_layers - 1),
        "unchanged": lambda beta_of_the_mean, student_layers, hidden: beta_of_the_mean,
    },
    "ch04.q6": {
        "no_projection": _no_projection,
        "no_length": _no_length,
        "teacher_length": _teacher_length,
        "sign": lambda student_cls, teacher_cls: -patience_gradient(student_cls, teacher_cls),
        "no_batch": lambda student_cls, teacher_cls: len(student_cls) * patience_gradient(student_cls, teacher_cls),
        "raw": lambda student_cls, teacher_cls: 2 * (student_cls - teacher_cls) / len(student_cls),
    },
}
