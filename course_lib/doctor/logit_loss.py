"""Which logit loss is this? Read from its gradient, without its source.

For every common loss the gradient at the student's logits has its own direction. With q = softmax(z_S / T) and
p = softmax(z_T / T), one row of the gradient of KL(p || q) is (q - p) / T. So the gradient of an unknown loss is
compared with a handful of directions at many temperatures, each together with the direction of the hard loss:

    dL/dz  =  soft * direction(T)  +  hard * (softmax(z_S) - one_hot(y))

The best fit names the form and T; the size of `soft` then tells what the sum was multiplied with or divided by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.shared.masking import IGNORED

Rows = Float[Tensor, "rows classes"]

KL = "KL divergence or soft cross-entropy"
HARD = "hard loss only"
MSE = "squared distance of logits"
REVERSED_KL = "KL with its arguments swapped"
PROBABILITY_MSE = "the squared distance of probabilities"
HARD_TWICE = "softmax taken twice in the hard loss"
SAMPLE = 400_000  # numbers that are fitted; a whole batch of a masked LM would not fit in memory
WELL = 0.999  # share of the squared gradient, beyond the hard loss, that a fit must explain
NOTHING = 1e-11  # a rest this small, relative to the squared gradient, is float32's rounding


def kl(z: Rows, t: Rows, T: float) -> Rows:
    return (z / T).softmax(-1) - (t / T).softmax(-1)


def reversed_kl(z: Rows, t: Rows, T: float) -> Rows:
    log_q, log_p = (z / T).log_softmax(-1), (t / T).log_softmax(-1)
    q = log_q.exp()
    return q * (log_q - log_p - (q * (log_q - log_p)).sum(-1, keepdim=True))


def student_probabilities_as_logarithms(z: Rows, t: Rows, T: float) -> Rows:
    q, p = (z / T).softmax(-1), (t / T).softmax(-1)
    return -q * (p - (q * p).sum(-1, keepdim=True))


def teacher_logarithms_as_probabilities(z: Rows, t: Rows, T: float) -> Rows:
    q, log_p = (z / T).softmax(-1), (t / T).log_softmax(-1)
    return q * log_p.sum(-1, keepdim=True) - log_p


def teacher_softmax_twice(z: Rows, t: Rows, T: float) -> Rows:
    return (z / T).softmax(-1) - (t.softmax(-1) / T).softmax(-1)


def both_softmax_twice(z: Rows, t: Rows, T: float) -> Rows:
    s = z.softmax(-1)
    outer = kl(s, t.softmax(-1), T)
    return s * (outer - (s * outer).sum(-1, keepdim=True))  # the chain rule through the inner softmax


def student_softened_only(z: Rows, t: Rows, T: float) -> Rows:
    return (z / T).softmax(-1) - t.softmax(-1)


def teacher_softened_only(z: Rows, t: Rows, T: float) -> Rows:
    return z.softmax(-1) - (t / T).softmax(-1)


def logit_mse(z: Rows, t: Rows, T: float) -> Rows:
    return z - t


def probability_mse(z: Rows, t: Rows, T: float) -> Rows:
    q, p = (z / T).softmax(-1), (t / T).softmax(-1)
    return through_softmax(q, q - p)


def through_softmax(probs: Rows, gradient: Rows) -> Rows:
    """The chain rule: a gradient at the probabilities becomes one at the logits."""
    return probs * (gradient - (probs * gradient).sum(-1, keepdim=True))


def hard_loss_of_probabilities(z: Rows, one_hot: Rows) -> Rows:
    probs = z.softmax(-1)
    return through_softmax(probs, probs.softmax(-1) - one_hot)


FORMS: dict[str, Callable[[Rows, Rows, float], Rows]] = {
    KL: kl,
    MSE: logit_mse,
    REVERSED_KL: reversed_kl,
    PROBABILITY_MSE: probability_mse,
    "probabilities where log-probabilities belong": student_probabilities_as_logarithms,
    "the teacher's log-probabilities where probabilities belong": teacher_logarithms_as_probabilities,
    "softmax taken twice of the teacher's logits": teacher_softmax_twice,
    "softmax taken twice of both models' logits": both_softmax_twice,
    "the temperature on the student's side only": student_softened_only,
    "the temperature on the teacher's side only": teacher_softened_only,
}
MISTAKES = (*tuple(FORMS)[4:], HARD_TWICE)  # nobody means these; the two before are sometimes meant


@dataclass(frozen=True)
class LogitLoss:
    """What the gradient says. `soft` and `hard` are the weights of the two parts, for a mean over `rows` / `labelled`.

    form: one of FORMS, or HARD if there is no soft part at all
    soft: for KL the factor in front of T * (q - p), so 1 = a plain mean over rows with T^2 and without other factors
    explained: share of the squared gradient, beyond the hard loss, that this form explains, 0..1
    """

    form: str
    temperature: float
    soft: float
    hard: float
    rows: int
    labelled: int
    explained: float


def recognise(gradient: Rows, student: Rows, teacher: Rows, labels: Int[Tensor, " rows"] | None,
              temperature: float | None = None) -> LogitLoss | None:
    """Find form, temperature and size of a logit loss from its gradient.

    Rows without gradient do not take part. `temperature`: the one that the recipe names, tried first.
    Returns None if there is no gradient, or too few numbers to tell one form from another.
    """
    taking_part = (gradient != 0).any(-1)
    hard_rows = torch.zeros_like(taking_part) if labels is None else taking_part & (labels != IGNORED)
    rows, labelled = int(taking_part.sum()), int(hard_rows.sum())
    if rows * (gradient.shape[-1] - 1) < 6:
        return None
    chosen = _sample(taking_part, hard_rows, max(8, SAMPLE // gradient.shape[-1]))
    g, z, t = (x[chosen].double() for x in (gradient, student, teacher))
    hard, hard_twice = torch.zeros_like(g), torch.zeros_like(g)
    if labelled:
        kept = hard_rows[chosen]
        one_hot = F.one_hot(labels[chosen][kept], g.shape[-1]).double()
        hard[kept] = z[kept].softmax(-1) - one_hot
        hard_twice[kept] = hard_loss_of_probabilities(z[kept], one_hot)
    size, rest = _norm2(g), _norm2(g - _weight(g, hard) * hard)
    if rest < NOTHING * size:
        return LogitLoss(HARD, 1.0, 0.0, _weight(g, hard) * labelled, rows, labelled, 1.0)

    def fit(form: str, T: float) -> LogitLoss:
        second = hard_twice if form == HARD_TWICE else hard
        soft = FORMS.get(form, kl)(z, t, T)
        a, b = _two_weights(g, soft, second)
        explained = 1 - _norm2(g - a * soft - b * second) / rest
        return LogitLoss(form, T, a * rows / (T if form == KL else 1.0), b * labelled, rows, labelled, explained)

    if temperature is not None and temperature > 0:
        stated = fit(KL, float(temperature))
        if stated.explained > WELL:
            return stated
    best = _best_temperature(fit, KL)
    if best.explained > WELL:
        return best
    forms = [form for form in FORMS if form != KL] + [HARD_TWICE] * bool(labelled)
    others = [_best_temperature(fit, form) for form in forms]
    other = max(others, key=lambda found: found.explained)
    return other if other.explained > best.explained + 1e-3 else best


def _best_temperature(fit: Callable[[str, float], LogitLoss], form: str) -> LogitLoss:
    """A coarse grid from 0.25 to 64, then three finer ones, each around the best point so far."""
    if form == MSE:
        return fit(form, 1.0)
    best = max((fit(form, 2 ** (k / 2)) for k in range(-4, 13)), key=lambda found: found.explained)
    for step in (0.125, 0.02, 0.004):
        near = [best.temperature * 2 ** (k * step) for k in range(-4, 5)]
        best = max((fit(form, T) for T in near), key=lambda found: found.explained)
    return best


def _norm2(x: Rows) -> float:
    return x.pow(2).sum().item()


def _weight(g: Rows, direction: Rows) -> float:
    """Least squares with one direction."""
    return (g * direction).sum().item() / max(_norm2(direction), 1e-300)


def _two_weights(g: Rows, soft: Rows, hard: Rows) -> tuple[float, float]:
    """Least squares with two directions: take the hard one out of the soft one first (Gram and Schmidt)."""
    a = _weight(g, soft - _weight(soft, hard) * hard)
    return a, _weight(g - a * soft, hard)


def _sample(taking_part: Tensor, hard_rows: Tensor, count: int) -> Tensor:
    """Up to `count` row numbers, evenly spaced, half of them with a label where there are both kinds."""
    with_label = (taking_part & hard_rows).nonzero().flatten()
    without = (taking_part & ~hard_rows).nonzero().flatten()
    each = count // 2 if len(with_label) and len(without) else count
    return torch.cat([_spaced(with_label, each), _spaced(without, each)])


def _spaced(numbers: Tensor, count: int) -> Tensor:
    if len(numbers) <= count:
        return numbers
    return numbers[torch.linspace(0, len(numbers) - 1, count).long()]
