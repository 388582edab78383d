"""The comma lab: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.notebook.exercises.reference.lab1 import escaped_at, masked_soft_loss
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape, size=2.0):
        return size * torch.randn(*shape, generator=g)

    def ids(n, top):
        return torch.randint(top, (n,), generator=g) + 1000

    def counts(n):
        return torch.randint(1, 400, (n,), generator=g).float()

    with_a_gap = counts(6)
    with_a_gap[2] = 0
    labels = torch.tensor([[-100, 2, -100, 0], [1, -100, 3, -100]])
    huge = torch.tensor([[[1e4, -1e4, 0.0], [0.0, 1e4, 1e4]]])
    student = "student_logits"
    scaled = z(8, 7) * torch.tensor([3.0, 1.0, 0.2, 2.0, 5.0, 0.5, 4.0]) + torch.tensor([0, 0, 3.0, 0, 0, 0, 0])
    wave = [4.0, 6.0, 5.0, 5.5, 8.0, 12.0]
    return {
        "lab1.q1": [
            case("40 answers, the commonest 4", answers=ids(40, 9), k=4),
            case("25 answers, the commonest 2", answers=ids(25, 12), k=2),
            case("60 answers, the commonest 3", answers=ids(60, 20), k=3),
            case("a single answer everywhere", "extremes", answers=torch.full((9,), 1010), k=4),
            case("one position", "extremes", answers=torch.tensor([7]), k=1),
        ],
        "lab1.q2": [
            case("5 positions, 6 words", probs=z(5, 6).softmax(-1), counts=counts(6)),
            case("8 positions, 4 words", probs=z(8, 4).softmax(-1), counts=counts(4)),
            case("a word that never occurs", probs=z(3, 6).softmax(-1), counts=with_a_gap),
            case("counts of a billion", "extremes", probs=z(3, 4).softmax(-1), counts=counts(4) * 1e9),
        ],
        "lab1.q3": [
            case("6 words", counts=counts(6)),
            case("20 words", counts=counts(20)),
            case("3 words", counts=counts(3)),
            case("a word that never occurs", "extremes", counts=with_a_gap),
        ],
        "lab1.q4": [
            case("2 x 4 tokens, 5 words at T = 2", gradient_of=student, student_logits=z(2, 4, 5),
                 teacher_logits=z(2, 4, 5), labels=labels, temperature=2.0),
            case("2 x 4 tokens, 9 words at T = 4", student_logits=z(2, 4, 9), teacher_logits=z(2, 4, 9), labels=labels,
                 temperature=4.0),
            case("logits of 10,000", "extremes", student_logits=huge, teacher_logits=-huge,
                 labels=torch.tensor([[-100, 1]]), temperature=0.05),
        ],
        "lab1.q5": [
            case("4 x 5, keep 2 x 3", weight=z(4, 5), states=z(10, 5), outputs=2, inputs=3),
            case("6 x 7, keep 3 x 3", weight=z(6, 7), states=scaled, outputs=3, inputs=3),
            case("5 x 7, keep 4 x 5", weight=z(5, 7), states=scaled.flip(0), outputs=4, inputs=5),
            case("states of 10,000", "extremes", weight=z(3, 5), states=z(6, 5) * 1e4, outputs=2, inputs=2),
        ],
        "lab1.q6": [
            case("above, back, above for good", steps=[0, 10, 20, 30, 40, 50], top1=wave, plateau=5.2),
            case("never for good", steps=[0, 10, 20, 30], top1=[2.0, 7.0, 8.0, 5.0], plateau=6.0),
            case("equal to the plateau once", steps=[5, 15, 25, 35, 45], top1=[7.0, 6.0, 8.0, 9.0, 9.5], plateau=6.0),
            case("one measurement", "extremes", steps=[100], top1=[3.0], plateau=2.0),
        ],
    }


# --- the right numbers, by the formulas -------------------------------------------------------------------------------


def _share(answers, k):
    _, counts = np.unique(answers.numpy(), return_counts=True)
    return float(np.sort(counts)[::-1][:k].sum() / len(answers))


def _distance(probs, counts):
    shares = counts.double().numpy() / counts.double().sum().item()
    return np.mean(0.5 * np.abs(probs.double().numpy() - shares).sum(-1))


def _entropy(counts):
    shares = counts.double().numpy()[counts.numpy() > 0]
    shares = shares / shares.sum()
    return -(shares * np.log(shares)).sum()


def _log_p(logits, temperature):
    z = logits.double().numpy()
    z = (z - z.max(axis=-1, keepdims=True)) / temperature
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _masked(student_logits, teacher_logits, labels, temperature):
    q, p = _log_p(student_logits, temperature), _log_p(teacher_logits, temperature)
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1)[labels.numpy() != -100].mean()


def _masked_gradient(student_logits, teacher_logits, labels, temperature):
    gap = np.exp(_log_p(student_logits, temperature)) - np.exp(_log_p(teacher_logits, temperature))
    kept = labels.numpy() != -100
    return temperature * gap * kept[..., None] / kept.sum()


def _block(weight, states, outputs, inputs):
    w, x = weight.double().numpy(), states.double().numpy()
    columns = np.sort(np.argsort(-(x**2).mean(0))[:inputs])
    rows = np.sort(np.argsort(-((x @ w.T) ** 2).mean(0))[:outputs])
    return w[np.ix_(rows, columns)]


def _escape(steps, top1, plateau):
    below = [i for i, value in enumerate(top1) if value <= plateau]
    after = below[-1] + 1 if below else 0
    return steps[after] if after < len(steps) else -1


EXPECTED = {"lab1.q1": _share, "lab1.q2": _distance, "lab1.q3": _entropy, "lab1.q4": _masked, "lab1.q5": _block,
            "lab1.q6": _escape}
GRADIENTS = {"lab1.q4": _masked_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _kl(student_logits, teacher_logits, temperature, reduction="batchmean"):
    return temperature**2 * F.kl_div(F.log_softmax(student_logits / temperature, dim=-1),
                                     F.softmax(teacher_logits / temperature, dim=-1), reduction=reduction)


def _cut(weight, columns_by, rows_by, outputs, inputs, largest=True, sort=True):
    columns, rows = columns_by.topk(inputs, largest=largest).indices, rows_by.topk(outputs, largest=largest).indices
    if sort:
        columns, rows = columns.sort().values, rows.sort().values
    return weight[rows][:, columns]


def _share_by(pick):
    def share(answers, k):
        ids, counts = answers.unique(return_counts=True)
        return float(pick(ids, counts, k, len(answers)))
    return share


def _distance_by(compute):
    return lambda probs, counts: compute(probs, counts, counts / counts.sum())


def _entropy_by(compute):
    return lambda counts: compute(counts[counts > 0] / counts.sum(), counts[counts > 0])


def _kl_where(keep, scale=None):
    def loss(student_logits, teacher_logits, labels, temperature):
        kept = keep(labels)
        value = _kl(student_logits[kept], teacher_logits[kept], temperature)
        return value * scale(labels, temperature) if scale else value
    return loss


def _block_by(**changed):
    def block(weight, states, outputs, inputs):
        columns_by, rows_by = states.square().mean(0), (states @ weight.T).square().mean(0)
        if changed.get("by") == "weights":
            columns_by, rows_by = weight.square().mean(0), weight.square().mean(1)
        if changed.get("by") == "mean":
            columns_by, rows_by = states.mean(0), (states @ weight.T).mean(0)
        return _cut(weight, columns_by, rows_by, outputs, inputs, changed.get("largest", True),
                    changed.get("sort", True))
    return block


def _first_above(steps, top1, plateau):
    return next((s for s, v in zip(steps, top1, strict=True) if v > plateau), -1)


MISTAKES = {
    "lab1.q1": {
        "count": _share_by(lambda ids, counts, k, n: counts.sort(descending=True).values[:k].sum()),
        "distinct": _share_by(lambda ids, counts, k, n: counts.sort(descending=True).values[:k].sum() / len(ids)),
        "smallest": _share_by(lambda ids, counts, k, n: counts.sort().values[:k].sum() / n),
        "first_ids": _share_by(lambda ids, counts, k, n: counts[:k].sum() / n),
        "only_one": _share_by(lambda ids, counts, k, n: counts.max() / n),
    },
    "lab1.q2": {
        "no_half": _distance_by(lambda p, c, u: (p - u).abs().sum(-1).mean()),
        "counts": _distance_by(lambda p, c, u: 0.5 * (p - c).abs().sum(-1).mean()),
        "mean": _distance_by(lambda p, c, u: 0.5 * (p - u).abs().mean()),
        "sum": _distance_by(lambda p, c, u: 0.5 * (p - u).abs().sum()),
        "squared": _distance_by(lambda p, c, u: 0.5 * (p - u).square().sum(-1).mean()),
        "signed": _distance_by(lambda p, c, u: 0.5 * (p - u).sum(-1).mean()),
        "averaged_first": _distance_by(lambda p, c, u: 0.5 * (p.mean(0) - u).abs().sum()),
    },
    "lab1.q3": {
        "bits": _entropy_by(lambda p, c: -(p * p.log2()).sum()),
        "mean": _entropy_by(lambda p, c: -(p * p.log()).mean()),
        "uniform": _entropy_by(lambda p, c: torch.tensor(float(len(p))).log()),
        "counts": _entropy_by(lambda p, c: -(c * c.log()).sum()),
        "best_word": _entropy_by(lambda p, c: -p.max().log()),
        "sign": _entropy_by(lambda p, c: (p * p.log()).sum()),
    },
    "lab1.q4": {
        "all": _kl_where(lambda labels: torch.ones_like(labels).bool()),
        "inverted": _kl_where(lambda labels: labels == -100),
        "no_t2": _kl_where(lambda labels: labels != -100, lambda labels, t: 1 / t**2),
        "mean": lambda student_logits, teacher_logits, labels, temperature: _kl(
            student_logits[labels != -100], teacher_logits[labels != -100], temperature, "mean"),
        "divided_by_all": _kl_where(lambda labels: labels != -100,
                                    lambda labels, t: (labels != -100).float().mean()),
        "swapped": lambda student_logits, teacher_logits, labels, temperature: masked_soft_loss(
            teacher_logits, student_logits, labels, temperature),
        "positive": _kl_where(lambda labels: labels > 0),
    },
    "lab1.q5": {
        "unsorted": _block_by(sort=False),
        "first": lambda weight, states, outputs, inputs: weight[:outputs, :inputs],
        "weights_only": _block_by(by="weights"),
        "smallest": _block_by(largest=False),
        "mean": _block_by(by="mean"),
    },
    "lab1.q6": {
        "first": _first_above,
        "index": lambda steps, top1, plateau: steps.index(escaped_at(steps, top1, plateau))
        if escaped_at(steps, top1, plateau) != -1 else -1,
        "last_below": lambda steps, top1, plateau: max(
            (s for s, v in zip(steps, top1, strict=True) if v <= plateau), default=-1),
        "equal": lambda steps, top1, plateau: escaped_at(steps, [v + 1e-9 for v in top1], plateau),
        "none": lambda steps, top1, plateau: escaped_at([*steps, -2], [*top1, 99.0], plateau)
        if escaped_at(steps, top1, plateau) == -1 else escaped_at(steps, top1, plateau),
    },
}
