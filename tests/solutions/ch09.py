"""Chapter 9: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.notebook.exercises.reference.ch09 import cut, resoften, rows_by_key, share_of_strangers
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape, size=2.0):
        return size * torch.randn(*shape, generator=g)

    def p(*shape):
        return z(*shape).softmax(dim=-1)

    sure = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.75, 0.25]])
    huge = torch.tensor([[1e4, -1e4, 0.0, 3.0], [0.0, 1e4, 9e3, -5.0]])
    stored, live = p(6, 3), p(6, 3)
    live[:2] = stored[:2]
    live[2] = 0.8 * stored[2] + 0.2 * live[2]
    moved = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.6, 0.1, 0.2], [0.1, 0.1, 0.7, 0.1], [0.2, 0.5, 0.2, 0.1]])
    other = torch.tensor([[0.35, 0.25, 0.25, 0.15], [0.2, 0.5, 0.1, 0.2], [0.05, 0.15, 0.7, 0.1], [0.2, 0.2, 0.5, 0.1]])
    shape = {"vocabulary": 32_768, "positions": 512, "hidden": 768, "intermediate": 3072, "classes": 2}
    keys = [f"k{i}" for i in range(6)]
    return {
        "ch09.q1": [
            case("4 x 3 probabilities to T = 2", probs=p(4, 3), temperature=2.0),
            case("2 x 3 x 5 probabilities to T = 4", probs=p(2, 3, 5), temperature=4.0),
            case("one row of 6 to T = 0.5", probs=p(6), temperature=0.5),
            case("probabilities of 0 to T = 2", "extremes", probs=sure, temperature=2.0),
            case("probabilities of 0 to T = 0.05", "extremes", probs=sure, temperature=0.05),
        ],
        "ch09.q2": [
            case("4 documents, 3 classes, T = 4", gradient_of="student_logits", student_logits=z(4, 3),
                 teacher_probs=p(4, 3), temperature=4.0),
            case("7 documents, 11 classes, T = 2", gradient_of="student_logits", student_logits=z(7, 11),
                 teacher_probs=p(7, 11), temperature=2.0),
            case("3 documents, 2 classes, T = 3", student_logits=z(3, 2), teacher_probs=p(3, 2), temperature=3.0),
            case("a teacher with probabilities of 0", "extremes", student_logits=z(2, 3), teacher_probs=sure,
                 temperature=1.0),
            case("student logits of 10,000", "extremes", student_logits=huge, teacher_probs=p(2, 4), temperature=2.0),
        ],
        "ch09.q3": [
            case("a shuffled data set", document_keys=["k3", "k0", "k5", "k1", "k2", "k4"], cache_keys=keys),
            case("a shortened data set with a new document", document_keys=["k4", "new", "k1"], cache_keys=keys),
            case("a document twice, and a key twice in the cache", document_keys=["a", "b", "a", "c"],
                 cache_keys=["c", "a", "x", "a", "b"]),
            case("new documents in front", document_keys=["x", "y", "k2", "k5"], cache_keys=keys),
            case("an empty data set", "extremes", document_keys=[], cache_keys=keys),
            case("an empty cache", "extremes", document_keys=["k1", "k2"], cache_keys=[]),
        ],
        "ch09.q4": [
            case("2 of 6 classes at T = 2", teacher_logits=z(3, 6), k=2, temperature=2.0),
            case("3 of 10 classes at T = 4", teacher_logits=z(4, 10), k=3, temperature=4.0),
            case("1 of 5 classes at T = 0.5", teacher_logits=z(2, 5), k=1, temperature=0.5),
            case("all 4 of 4 classes at T = 2", "extremes", teacher_logits=z(3, 4), k=4, temperature=2.0),
            case("logits of 10,000", "extremes", teacher_logits=huge, k=1, temperature=2.0),
        ],
        "ch09.q5": [
            case("6 documents, 3 classes, tolerance 0.02", stored=stored, live=live, tolerance=0.02),
            case("4 documents that moved a little, tolerance 0.07", stored=moved, live=other, tolerance=0.07),
            case("5 documents, 4 classes, tolerance 0.3", stored=p(5, 4), live=p(5, 4), tolerance=0.3),
            case("7 documents, 5 classes, tolerance 0.35", stored=p(7, 5), live=p(7, 5), tolerance=0.35),
            case("one document, nothing in common", "extremes", stored=torch.tensor([[1.0, 0.0]]),
                 live=torch.tensor([[0.0, 1.0]]), tolerance=0.99),
        ],
        "ch09.q6": [
            case("BERT-base, 12 layers", layers=12, **shape),
            case("the one-layer student", layers=1, **shape),
            case("the course's topics teacher", layers=6, vocabulary=30_522, positions=512, hidden=384,
                 intermediate=1536, classes=11),
            case("a tiny model", layers=2, vocabulary=100, positions=16, hidden=12, intermediate=24, classes=3),
            case("no layer at all", "extremes", layers=0, vocabulary=50, positions=8, hidden=4, intermediate=16,
                 classes=2),
        ],
    }


# --- the right numbers, by the formulas, in float64 -------------------------------------------------------------------


def _softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _resoften(probs, temperature):
    largest = probs.double().numpy().max(axis=-1, keepdims=True)
    power = (probs.double().numpy() / largest) ** (1 / temperature)
    return power / power.sum(axis=-1, keepdims=True)


def _stored(student_logits, teacher_probs, temperature):
    z, p = student_logits.double().numpy() / temperature, _resoften(teacher_probs, temperature)
    z = z - z.max(axis=-1, keepdims=True)
    log_q = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    log_p = np.log(np.where(p > 0, p, 1.0))
    return temperature**2 * (p * (log_p - log_q)).sum(axis=-1).mean()


def _stored_gradient(student_logits, teacher_probs, temperature):
    gap = _softmax(student_logits.double().numpy() / temperature) - _resoften(teacher_probs, temperature)
    return temperature * gap / len(gap)


def _rows(document_keys, cache_keys):
    return [cache_keys.index(key) if key in cache_keys else -1 for key in document_keys]


def _cut(teacher_logits, k, temperature):
    p = _softmax(teacher_logits.double().numpy() / temperature)
    ids = np.argsort(-p, axis=-1, kind="stable")
    kept = np.take_along_axis(p, ids, axis=-1)
    return ids[:, :k].copy(), kept[:, :k], kept[:, k:].sum(axis=-1)


def _strangers(stored, live, tolerance):
    distance = 0.5 * np.abs(stored.double().numpy() - live.double().numpy()).sum(axis=-1)
    return float((distance > tolerance).mean())


def _count(vocabulary, positions, hidden, intermediate, layers, classes):
    def linear(a, b):
        return (a + 1) * b

    layer = 4 * linear(hidden, hidden) + linear(hidden, intermediate) + linear(intermediate, hidden) + 4 * hidden
    table = (vocabulary + positions + 2 + 2) * hidden
    return table + layers * layer + linear(hidden, hidden) + linear(hidden, classes)


EXPECTED = {"ch09.q1": _resoften, "ch09.q2": _stored, "ch09.q3": _rows, "ch09.q4": _cut, "ch09.q5": _strangers,
            "ch09.q6": _count}
GRADIENTS = {"ch09.q2": _stored_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _kl(student_logits, teacher, t_student, reduction="batchmean"):
    return F.kl_div(F.log_softmax(student_logits / t_student, dim=-1), teacher, reduction=reduction)


def _after_the_cut(teacher_logits, k, temperature):
    kept, ids = teacher_logits.topk(k, dim=-1)
    rest = 1 - torch.softmax(teacher_logits, -1).topk(k, -1).values.sum(-1)
    return ids, torch.softmax(kept / temperature, -1) * (1 - rest[:, None]), rest


def _renormalised(teacher_logits, k, temperature):
    ids, probs, rest = cut(teacher_logits, k, temperature)
    return ids, probs / probs.sum(-1, keepdim=True), torch.zeros_like(rest)


def _smallest(teacher_logits, k, temperature):
    p = torch.softmax(teacher_logits / temperature, -1)
    probs, ids = p.topk(k, dim=-1, largest=False)
    return ids, probs, 1 - probs.sum(-1)


def _no_rest(teacher_logits, k, temperature):
    ids, probs, rest = cut(teacher_logits, k, temperature)
    return ids, probs, torch.zeros_like(rest)


def _distances(stored, live):
    return (stored - live).abs()


def _count_with(*, biases=True, pooler=True, types=2, norms=True, maps=4, tables=1):
    def count(vocabulary, positions, hidden, intermediate, layers, classes):
        def linear(a, b):
            return a * b + biases * b

        h, norm = hidden, 2 * hidden * norms
        layer = maps * linear(h, h) + linear(h, intermediate) + linear(intermediate, h) + 2 * norm
        table = (vocabulary + positions + types) * h + norm
        times = layers if tables == "per layer" else 1
        return times * table + layers * layer + pooler * linear(h, h) + linear(h, classes)
    return count


MISTAKES = {
    "ch09.q1": {
        "probs_as_logits": lambda probs, temperature: torch.softmax(probs / temperature, dim=-1),
        "divided": lambda probs, temperature: probs / temperature,
        "power_t": lambda probs, temperature: torch.softmax(probs.log() * temperature, dim=-1),
        "not_normalised": lambda probs, temperature: probs ** (1 / temperature),
        "unchanged": lambda probs, temperature: probs.clone(),
    },
    "ch09.q2": {
        "probs_as_logits": lambda student_logits, teacher_probs, temperature: temperature**2 * _kl(
            student_logits, torch.softmax(teacher_probs / temperature, -1), temperature),
        "teacher_at_1": lambda student_logits, teacher_probs, temperature: temperature**2 * _kl(
            student_logits, teacher_probs, temperature),
        "student_at_1": lambda student_logits, teacher_probs, temperature: temperature**2 * _kl(
            student_logits, resoften(teacher_probs, temperature), 1.0),
        "no_t2": lambda student_logits, teacher_probs, temperature: _kl(
            student_logits, resoften(teacher_probs, temperature), temperature),
        "mean": lambda student_logits, teacher_probs, temperature: temperature**2 * _kl(
            student_logits, resoften(teacher_probs, temperature), temperature, "mean"),
        "cross_entropy": lambda student_logits, teacher_probs, temperature: temperature**2 * F.cross_entropy(
            student_logits / temperature, resoften(teacher_probs, temperature)),
        "swapped": lambda student_logits, teacher_probs, temperature: temperature**2 * F.kl_div(
            resoften(teacher_probs, temperature).log(), torch.softmax(student_logits / temperature, -1),
            reduction="batchmean"),
    },
    "ch09.q3": {
        "in_order": lambda document_keys, cache_keys: list(range(len(document_keys))),
        "inverse": lambda document_keys, cache_keys: rows_by_key(cache_keys, document_keys),
        "last_row": lambda document_keys, cache_keys: [
            {key: row for row, key in enumerate(cache_keys)}.get(key, -1) for key in document_keys],
        "zero_for_missing": lambda document_keys, cache_keys: [
            max(0, row) for row in rows_by_key(document_keys, cache_keys)],
        "left_out": lambda document_keys, cache_keys: [
            row for row in rows_by_key(document_keys, cache_keys) if row >= 0],
    },
    "ch09.q4": {
        "renormalised": _renormalised,
        "after_the_cut": _after_the_cut,
        "temperature_1": lambda teacher_logits, k, temperature: cut(teacher_logits, k, 1.0),
        "no_rest": _no_rest,
        "smallest": _smallest,
    },
    "ch09.q5": {
        "not_halved": lambda stored, live, tolerance: (
            _distances(stored, live).sum(-1) > tolerance).float().mean().item(),
        "largest": lambda stored, live, tolerance: (
            _distances(stored, live).amax(-1) > tolerance).float().mean().item(),
        "mean_distance": lambda stored, live, tolerance: (0.5 * _distances(stored, live).sum(-1)).mean().item(),
        "favourites": lambda stored, live, tolerance: (stored.argmax(-1) != live.argmax(-1)).float().mean().item(),
        "healthy_share": lambda stored, live, tolerance: 1 - share_of_strangers(stored, live, tolerance),
        "mean_over_classes": lambda stored, live, tolerance: (
            _distances(stored, live).mean(-1) > tolerance).float().mean().item(),
    },
    "ch09.q6": {
        "no_biases": _count_with(biases=False),
        "no_pooler": _count_with(pooler=False),
        "no_token_types": _count_with(types=0),
        "no_layer_norms": _count_with(norms=False),
        "three_maps": _count_with(maps=3),
        "embeddings_per_layer": _count_with(tables="per layer"),
    },
}
