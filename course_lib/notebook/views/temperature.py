"""Temperature explorer: what dividing the logits by T does to a teacher's answer.

`temperature_numbers` computes everything that the picture shows; `temperature.js` repeats the same arithmetic for
the slider, and a test holds the two together to 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View

LOWEST, HIGHEST = 0.05, 100.0


def log_softmax(logits: Sequence[float], temperature: float) -> list[float]:
    """`log p_i = z_i / T - log sum_j exp(z_j / T)`; the largest logit is subtracted first, so exp cannot overflow."""
    top = max(logits)
    shifted = [(logit - top) / temperature for logit in logits]
    log_sum = math.log(sum(math.exp(value) for value in shifted))
    return [value - log_sum for value in shifted]


def temperature_numbers(logits: Sequence[float], temperature: float,
                        student_logits: Sequence[float] | None = None) -> dict[str, object]:
    r"""Everything that one position of the slider shows.

    $p = \mathrm{softmax}(z^T / T)$, $q = \mathrm{softmax}(z^S / T)$, soft loss $\mathrm{KL}(p \,\|\, q)$, and its
    gradient with respect to the student's logits, $(q - p) / T$, whose length is reported with and without $T^2$.

    logits          the teacher's, one per class (at least two)
    temperature     greater than 0; the explorer goes from 0.05 to 100
    student_logits  one per class; None is a student that knows nothing: all its logits are equal

    Returns `probs`, `student_probs` (lists), `entropy` (nats), `top` (index of the likeliest class), `runner_up_ratio`
    (how many times likelier the second class is than the third; None for two classes, inf when too large to write),
    `loss`, `loss_times_t2`, `gradient`, `gradient_times_t2`, `gradient_limit` (the last one for T to infinity).
    Raises: ValueError for a temperature that is not positive, or for two lists of different length.
    Source: Hinton, Vinyals, Dean 2015, section 2 and equations 2 to 4.
    """
    teacher = [float(logit) for logit in logits]
    student = [0.0] * len(teacher) if student_logits is None else [float(logit) for logit in student_logits]
    if not temperature > 0:
        raise ValueError(f"The temperature must be greater than 0, not {temperature}.")
    if len(teacher) < 2 or len(student) != len(teacher):
        raise ValueError(f"Teacher has {len(teacher)} logits and student {len(student)}: "
                         "both need one per class, and at least two.")

    log_p, log_q = log_softmax(teacher, temperature), log_softmax(student, temperature)
    p, q = [math.exp(value) for value in log_p], [math.exp(value) for value in log_q]
    order = sorted(range(len(p)), key=lambda index: -teacher[index])
    # p * log p tends to 0 where p does, but 0 * -inf is NaN: leave those classes out.
    loss = sum(a * (log_a - log_b) for a, log_a, log_b in zip(p, log_p, log_q, strict=True) if a > 0)
    gradient = math.dist(q, p) / temperature
    return {
        "probs": p,
        "student_probs": q,
        "entropy": -sum(a * log_a for a, log_a in zip(p, log_p, strict=True) if a > 0),
        "top": order[0],
        "runner_up_ratio": _ratio(teacher, order, temperature),
        "loss": loss,
        "loss_times_t2": loss * temperature**2,
        "gradient": gradient,
        "gradient_times_t2": gradient * temperature**2,
        "gradient_limit": math.dist(_centred(student), _centred(teacher)) / len(teacher),
    }


def _ratio(logits: Sequence[float], order: Sequence[int], temperature: float) -> float | None:
    if len(order) < 3:
        return None
    exponent = (logits[order[1]] - logits[order[2]]) / temperature
    return math.exp(exponent) if exponent < 700 else math.inf


def _centred(logits: Sequence[float]) -> list[float]:
    mean = sum(logits) / len(logits)
    return [logit - mean for logit in logits]


def default_presets(classes: int) -> dict[str, list[float]]:
    """Three teachers to begin with: the class order is the same, the certainty is not."""
    shapes = {
        "One clear winner": [9.0, 4.0, 1.0, 0.0, -1.0],
        "Two rivals": [5.0, 4.4, 0.0, -1.0, -1.5],
        "A teacher in doubt": [1.2, 0.9, 0.6, 0.3, 0.0],
    }
    return {name: (shape + [shape[-1] - 0.5 * extra for extra in range(1, classes)])[:classes]
            for name, shape in shapes.items()}


def temperature_view(logits: Sequence[float], labels: Sequence[str], *, title: str = "What temperature does",
                     presets: Mapping[str, Sequence[float]] | None = None,
                     student_logits: Sequence[float] | None = None, temperature: float = 1.0) -> View:
    """The explorer: a slider for T, logits to edit, presets, and bars, entropy, losses and gradients that follow.

    logits, labels  the teacher's logits and the names of the classes, in the same order (2 to 12 of them)
    presets         name -> logits; None gives `default_presets`
    student_logits  a student to compare with; None is one that knows nothing
    temperature     where the slider stands at first, 0.05 to 100

    All logits are rounded to three decimals first, so that the fields show exactly what is computed with.
    """
    presets = default_presets(len(labels)) if presets is None else presets
    rows = {"logits": logits, **{f"preset {name!r}": values for name, values in presets.items()}}
    if student_logits is not None:
        rows["student_logits"] = student_logits
    for what, values in rows.items():
        if len(values) != len(labels):
            raise ValueError(f"{what}: {len(values)} numbers for {len(labels)} labels; give one per label.")
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{what}: every logit must be a finite number.")
    if not 2 <= len(labels) <= 12:
        raise ValueError(f"The bars are for 2 to 12 classes, not {len(labels)}: choose the likeliest few.")
    if not LOWEST <= temperature <= HIGHEST:
        raise ValueError(f"The slider goes from {LOWEST} to {HIGHEST:g}; temperature {temperature} is outside.")

    start, student = _rounded(logits), None if student_logits is None else _rounded(student_logits)
    data = {"title": title, "labels": [str(label) for label in labels], "logits": start, "student_logits": student,
            "presets": [{"name": name, "logits": _rounded(values)} for name, values in presets.items()],
            "temperature": float(temperature)}
    top = labels[temperature_numbers(start, 1.0)["top"]]
    alt = (f"{title}: bars with the teacher's probabilities for {', '.join(map(str, labels))}. At a low temperature "
           f"“{top}” takes everything; at a high one all classes become equal.")
    return View("temperature", data, alt, _table(start, labels, student))


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 3) + 0.0 for value in values]  # + 0.0 turns -0.0 into 0.0


def _table(logits: Sequence[float], labels: Sequence[str], student: Sequence[float] | None) -> Table:
    rows = []
    for temperature in (0.5, 1.0, 2.0, 4.0, 10.0):
        numbers = temperature_numbers(logits, temperature, student)
        shown = [*numbers["probs"], numbers["entropy"], numbers["loss"], numbers["loss_times_t2"]]
        rows.append([f"{temperature:g}", *(readable(value) for value in shown)])
    return Table("The teacher's probabilities at five temperatures",
                 ["T", *map(str, labels), "entropy (nats)", "soft loss", "soft loss × T²"], rows)
