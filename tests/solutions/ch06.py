"""Chapter 6: solutions, typical mistakes, and the right answers by NumPy and plain Python."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.notebook.exercises.reference.ch06 import (
    attention_loss,
    attention_loss_of_probs,
    block_size,
    rates_of_blocks,
)
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape):
        return torch.randn(*shape, generator=g)

    def features(about, lengths, tokens=6, width=8, scale=2.0, **more):
        mask = (torch.arange(tokens) < torch.tensor(lengths)[:, None]).long()
        return case(about, student=z(len(lengths), tokens, width) + 0.5, teacher=scale * z(len(lengths), tokens, width),
                    mask=mask, **more)

    def attention(about, heads, tokens, kept, **more):
        return case(about, student=z(heads, tokens, tokens), teacher=2 * z(heads, tokens, tokens),
                    mask=(torch.arange(tokens) < kept).long(), **more)

    def probabilities(about, heads, queries, keys, **more):
        student, teacher = z(heads, queries, keys), 2 * z(heads, queries, keys)
        return case(about, student=student.softmax(-1), teacher=teacher.softmax(-1), **more)

    with_zeros = probabilities("zeros where keys are padded", 2, 4, 6, stage="extremes")
    for name in ("student", "teacher"):
        cut = with_zeros["args"][name].clone()
        cut[..., 4:] = 0
        with_zeros["args"][name] = cut / cut.sum(-1, keepdim=True)

    def log(about, kind, layers=4, tokens=7, layer=2, stage="numbers"):
        student, teacher = z(tokens, 5), z(layers + 1, tokens, 5)
        gap = (student.double().mean(-1) - teacher.double().mean(-1)) ** 2
        reported = {"healthy": gap[layer].mean(), "sum over tokens": gap[layer].sum(), "all layers": gap.mean(),
                    "squared differences": (student - teacher[layer]).double().square().mean(),
                    "last layer": gap[-1].mean()}[kind].item()
        return case(about, stage, reported=reported * 1.0002, student=student, teacher_layers=teacher, layer=layer)

    return {
        "ch06.q1": [
            case("MobileBERT: body 512, inner 128, 4 networks", body=512, inner=128, feed_forwards=4),
            case("our student: body 384, inner 96, 4 networks", body=384, inner=96, feed_forwards=4),
            case("body 384, inner 96, 2 networks", body=384, inner=96, feed_forwards=2),
            case("body 64, inner 64, 3 networks", body=64, inner=64, feed_forwards=3),
            case("body 8, inner 2, 1 network", "extremes", body=8, inner=2, feed_forwards=1),
        ],
        "ch06.q2": [
            features("two sentences of 6 and 4 tokens", (6, 4), gradient_of="student"),
            features("three sentences of 2, 6 and 5 tokens", (2, 6, 5), gradient_of="student"),
            features("one sentence of 3 tokens, padded", (3,), width=16),
            features("two full sentences", (6, 6), width=4),
            features("features of thousands", (5, 6), stage="extremes", scale=4000.0),
        ],
        "ch06.q3": [
            attention("2 heads, 5 tokens, 1 of them padding", 2, 5, 4, gradient_of="student"),
            attention("4 heads, 6 tokens, 2 of them padding", 4, 6, 4, gradient_of="student"),
            attention("3 heads, 4 tokens, no padding", 3, 4, 4),
            attention("one head, 7 tokens, 4 of them padding", 1, 7, 3),
            case("scores of a thousand", "extremes", student=1000 * z(2, 4, 4), teacher=1000 * z(2, 4, 4),
                 mask=torch.ones(4).long()),
        ],
        "ch06.q4": [
            case("block 3 of 6, rate 0.001", current=3, layers=6, rate=0.001),
            case("block 1 of 4, rate 0.01", current=1, layers=4, rate=0.01),
            case("block 4 of 4, rate 0.02", current=4, layers=4, rate=0.02),
            case("block 12 of 24, rate 0.5", current=12, layers=24, rate=0.5),
            case("one block", "extremes", current=1, layers=1, rate=0.1),
        ],
        "ch06.q5": [
            probabilities("2 heads, 4 queries, 6 keys", 2, 4, 6),
            probabilities("3 heads, 5 queries, 5 keys", 3, 5, 5),
            probabilities("one head, 2 queries, 9 keys", 1, 2, 9),
            with_zeros,
        ],
        "ch06.q6": [
            log("block 2 of 4", "healthy"),
            log("block 1 of 6", "healthy", layers=6, layer=1),
            log("block 2 of 4, another log", "sum over tokens"),
            log("block 3 of 4, 9 tokens", "all layers", tokens=9, layer=3),
            log("block 4 of 5", "squared differences", layers=5, layer=4),
            log("block 3 of 5", "last layer", layers=5, layer=3),
            log("one token", "sum over tokens", tokens=1, stage="extremes"),
        ],
    }


# --- the right answers, without PyTorch -------------------------------------------------------------------------------


def _size(body, inner, feed_forwards):
    layers = [(body, inner)] * 3 + [(inner, inner)] * 3 + [(inner, body)]
    layers += [(inner, 4 * inner), (4 * inner, inner)] * feed_forwards
    return int(sum((a + 1) * b for a, b in layers))


def _normalised(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)


def _features(student, teacher, mask):
    student, teacher, kept = student.double().numpy(), teacher.double().numpy(), mask.numpy().astype(bool)
    return np.mean((_normalised(student)[kept] - _normalised(teacher)[kept]) ** 2)


def _features_gradient(student, teacher, mask):
    x, kept = student.double().numpy(), mask.numpy().astype(bool)
    hat = _normalised(x)
    back = 2 * (hat - _normalised(teacher.double().numpy())) / (kept.sum() * x.shape[-1]) * kept[..., None]
    spread = np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return (back - back.mean(-1, keepdims=True) - hat * (back * hat).mean(-1, keepdims=True)) / spread


def _log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _kept_scores(student, teacher, mask):
    kept = np.flatnonzero(mask.numpy())
    return [_log_softmax(a.double().numpy()[:, kept][:, :, kept]) for a in (student, teacher)]


def _attention(student, teacher, mask):
    s, t = _kept_scores(student, teacher, mask)
    return np.mean(np.sum(np.exp(t) * (t - s), axis=-1))


def _attention_gradient(student, teacher, mask):
    s, t = _kept_scores(student, teacher, mask)
    kept, gradient = np.flatnonzero(mask.numpy()), np.zeros(student.shape)
    gradient[np.ix_(range(len(student)), kept, kept)] = (np.exp(s) - np.exp(t)) / (len(student) * len(kept))
    return gradient


def _rates(current, layers, rate):
    return [rate * (3 if block == current else 0.3 if block < current else 0) for block in range(1, layers + 1)]


def _probabilities(student, teacher):
    s, t = student.double().numpy(), teacher.double().numpy()
    ratio = np.log(t, where=t > 0, out=np.zeros_like(t)) - np.log(s, where=t > 0, out=np.zeros_like(s))
    return np.mean(np.sum(t * ratio, axis=-1))


def _candidates(student, teacher_layers, layer):
    s, t = student.double().numpy(), teacher_layers.double().numpy()
    gap = (s.mean(-1) - t.mean(-1)) ** 2
    return {"healthy": gap[layer].mean(), "sum over tokens": gap[layer].sum(), "all layers": gap.mean()}


def _diagnosis(reported, student, teacher_layers, layer):
    found = _candidates(student, teacher_layers, layer)
    return next((name for name, value in found.items() if abs(reported - value) <= 1e-3 * abs(value)), "unknown")


EXPECTED = {"ch06.q1": _size, "ch06.q2": _features, "ch06.q3": _attention, "ch06.q4": _rates,
            "ch06.q5": _probabilities, "ch06.q6": _diagnosis}
GRADIENTS = {"ch06.q2": _features_gradient, "ch06.q3": _attention_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-12)


def _per_token(student, teacher):
    return (_norm(student) - _norm(teacher)).square().mean(-1)


def _over_tokens(student, teacher, mask):
    s, t = (_norm(x.transpose(1, 2)).transpose(1, 2) for x in (student, teacher))
    return (s - t).square().mean(-1)[mask.bool()].mean()


def _sample_variance(student, teacher, mask):
    s, t = ((x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-12).sqrt() for x in (student, teacher))
    return (s - t).square().mean(-1)[mask.bool()].mean()


def _logs(student, teacher, mask, again=False):
    kept = mask.bool()
    cut = [a[:, kept][:, :, kept] for a in (student, teacher)]
    return [(a.softmax(-1) if again else a).log_softmax(-1) for a in cut]


def _kl(s, t):
    return (t.exp() * (t - s)).sum(-1)


def _padded_keys(student, teacher, mask):
    s, t = (a.log_softmax(-1) for a in (student, teacher))
    return _kl(s, t)[:, mask.bool()].mean()


def _padded_queries(student, teacher, mask):
    s, t = (a[:, :, mask.bool()].log_softmax(-1) for a in (student, teacher))
    return _kl(s, t).mean()


def _no_softmax(student, teacher, mask):
    kept = mask.bool()
    s, t = (a[:, kept][:, :, kept] for a in (student, teacher))
    return (s - t).square().mean()


def _by_block(rule):
    return lambda current, layers, rate: [rule(block, current) * rate for block in range(1, layers + 1)]


def _diagnosis_by(gap_of, without=(), exact=False):
    """A diagnosis whose gaps between the means, or whose comparison, are wrong."""
    def diagnose(reported, student, teacher_layers, layer):
        gap, at = gap_of(student, teacher_layers, layer)
        found = {"healthy": gap[at].mean(), "sum over tokens": gap[at].sum(), "all layers": gap.mean()}
        near = (lambda a, b: a == b) if exact else (lambda a, b: abs(a - b) <= 1e-3 * abs(b))
        return next((name for name, value in found.items() if name not in without and near(reported, value)), "unknown")
    return diagnose


def _gaps(student, teacher_layers, layer):
    return (student.mean(-1) - teacher_layers.mean(-1)).square(), layer


MISTAKES = {
    "ch06.q1": {
        "no_bias": lambda body, inner, feed_forwards: (
            4 * body * inner + 3 * inner**2 + 8 * feed_forwards * inner**2),
        "one_feed_forward": lambda body, inner, feed_forwards: block_size(body, inner, 1),
        "half_feed_forward": lambda body, inner, feed_forwards: (
            block_size(body, inner, 0) + feed_forwards * (4 * inner**2 + 4 * inner)),
        "narrow_value": lambda body, inner, feed_forwards: (
            block_size(body, inner, feed_forwards) - body * inner + inner**2),
        "one_bottleneck": lambda body, inner, feed_forwards: (
            block_size(body, inner, feed_forwards) - body * inner - inner),
        "no_way_back": lambda body, inner, feed_forwards: (
            block_size(body, inner, feed_forwards) - body * inner - body),
    },
    "ch06.q2": {
        "raw": lambda student, teacher, mask: (student - teacher).square().mean(-1)[mask.bool()].mean(),
        "student_only": lambda student, teacher, mask: (_norm(student) - teacher).square().mean(-1)[mask.bool()].mean(),
        "padding": lambda student, teacher, mask: _per_token(student, teacher).mean(),
        "all_tokens": lambda student, teacher, mask: (_per_token(student, teacher) * mask).mean(),
        "sum_of_features": lambda student, teacher, mask: (
            _per_token(student, teacher)[mask.bool()].mean() * student.shape[-1]),
        "over_tokens": _over_tokens,
        "sample_variance": _sample_variance,
    },
    "ch06.q3": {
        "reversed": lambda student, teacher, mask: _kl(*reversed(_logs(student, teacher, mask))).mean(),
        "padded_keys": _padded_keys,
        "padded_queries": _padded_queries,
        "no_softmax": _no_softmax,
        "softmax_twice": lambda student, teacher, mask: _kl(*_logs(student, teacher, mask, again=True)).mean(),
        "cross_entropy": lambda student, teacher, mask: -(
            _logs(student, teacher, mask)[1].exp() * _logs(student, teacher, mask)[0]).sum(-1).mean(),
        "mean_over_keys": lambda student, teacher, mask: attention_loss(student, teacher, mask) / mask.sum(),
        "sum_of_heads": lambda student, teacher, mask: attention_loss(student, teacher, mask) * len(student),
    },
    "ch06.q4": {
        "frozen_below": _by_block(lambda block, current: 3.0 if block == current else 0.0),
        "same_below": _by_block(lambda block, current: 3.0 if block <= current else 0.0),
        "above_learns": _by_block(lambda block, current: 3.0 if block == current else 0.3),
        "from_zero": lambda current, layers, rate: rates_of_blocks(current + 1, layers, rate),
        "without_rate": lambda current, layers, rate: rates_of_blocks(current, layers, 1.0),
        "upside_down": _by_block(lambda block, current: 3.0 if block == current else 0.3 if block > current else 0.0),
    },
    "ch06.q5": {
        "softmax_again": lambda student, teacher: _kl(student.log_softmax(-1), teacher.log_softmax(-1)).mean(),
        "reversed": lambda student, teacher: attention_loss_of_probs(teacher, student),
        "cross_entropy": lambda student, teacher: -torch.xlogy(teacher, student).sum(-1).mean(),
        "no_logarithm": lambda student, teacher: (teacher * (teacher - student)).sum(-1).mean(),
        "mean_over_keys": lambda student, teacher: attention_loss_of_probs(student, teacher) / student.shape[-1],
        "absolute": lambda student, teacher: (teacher - student).abs().sum(-1).mean(),
    },
    "ch06.q6": {
        "exact": _diagnosis_by(_gaps, exact=True),
        "off_by_one": _diagnosis_by(lambda student, teacher_layers, layer: (
            _gaps(student, teacher_layers, layer)[0], layer - 1)),
        "difference_first": _diagnosis_by(lambda student, teacher_layers, layer: (
            (student - teacher_layers).square().mean(-1), layer)),
        "last_layer": _diagnosis_by(lambda student, teacher_layers, layer: (
            _gaps(student, teacher_layers, layer)[0], -1)),
        "no_sum": _diagnosis_by(_gaps, without=("sum over tokens",)),
        "no_list": _diagnosis_by(_gaps, without=("all layers",)),
    },
}
