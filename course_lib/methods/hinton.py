"""Soft targets: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015, arXiv 1503.02531).

The teacher's probabilities, softened by a temperature T, are the labels of the student:

    L = soft_weight * T^2 * CE(softmax(z_T / T), softmax(z_S / T))  +  hard_weight * CE(y, softmax(z_S))

Every later paper of this course has this loss somewhere, and almost every code base computes it a little differently.
The differences are four knobs (form, reduction, T^2, weights), and each knob has a name here. `LOGIT_LOSSES` at the
end of the file sets them as twelve known codes set them.

## Deviations of the original code

Hinton's group published no code. The table compares the codes that people copy instead.

| what | paper | code | here |
|---|---|---|---|
| form of the soft loss | cross-entropy | KL divergence (torchdistill, haitongli, PKD, RepDistiller); MSE of logits / T (TextBrewer `kd_mse`) | `form="kl"` is the default: it is 0 when the student is perfect |
| mean over classes too | no: one sum over classes per example | yes in haitongli, PKD, TinyBERT (`nn.KLDivLoss()` and `.mean()` divide by the classes) | `reduction="batchmean"`; `"mean"` repeats the codes |
| factor T^2 | yes | dropped by TextBrewer, by TinyBERT, and by torchdistill when alpha is 0 | `scale_by_t_squared=True` |
| what alpha weighs | two weights, no alpha | the HARD loss in torchdistill, the SOFT loss in haitongli and PKD | two named weights, no alpha |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from course_lib.shared.masking import IGNORED, at_least_float32, keep, require_mask, require_same_shape
from course_lib.shared.probes import logits_of, teacher_logits_of

Form = Literal["kl", "cross_entropy", "mse"]
Reduction = Literal["batchmean", "mean"]


def log_soft_targets(logits: Float[Tensor, "*where classes"], temperature: float) -> Float[Tensor, "*where classes"]:
    """Logarithm of the softened probabilities: log softmax(z / T). Arguments as in `soft_targets`."""
    if not temperature > 0 or temperature == float("inf"):
        raise ValueError(f"temperature must be a positive, finite number, not {temperature}. T=1 is the plain softmax.")
    logits = at_least_float32(logits)
    # The largest logit becomes 0 BEFORE the division: at 10,000 / 0.05 float32 has lost what tells classes apart.
    centred = logits - logits.amax(dim=-1, keepdim=True).detach()
    return F.log_softmax(centred / temperature, dim=-1)


def soft_targets(logits: Float[Tensor, "*where classes"], temperature: float) -> Float[Tensor, "*where classes"]:
    """Soften a model's prediction: the larger T, the more the small probabilities show.

        q_i = exp(z_i / T) / sum_j exp(z_j / T)

    logits: (..., classes), raw. temperature: T > 0; 1 is the plain softmax, infinity would be uniform.
    Raises: ValueError if T is not positive and finite.
    Source: eq. 1.
    """
    return log_soft_targets(logits, temperature).exp()


def soft_target_loss(
    student_logits: Float[Tensor, "*where classes"],
    teacher_logits: Float[Tensor, "*where classes"],
    mask: Shaped[Tensor, "*where"] | None = None,
    *,
    temperature: float,
    form: Form = "kl",
    reduction: Reduction = "batchmean",
    scale_by_t_squared: bool = True,
) -> Float[Tensor, ""]:
    """How far the student's softened prediction is from the teacher's.

        kl             sum_i p_i (log p_i - log q_i)      p = softmax(z_T / T), q = softmax(z_S / T)
        cross_entropy  - sum_i p_i log q_i                = kl + entropy of the teacher: same gradient, never 0
        mse            sum_i (z_T,i / T - z_S,i / T)^2

    student_logits, teacher_logits: (examples, classes) or (batch, tokens, classes).
    mask: one mark per example or token, 1 = keep.
    temperature: T, for both models.
    reduction: "batchmean" = mean over the kept rows of the sum over classes; "mean" divides by the classes as well
        (a hidden factor 1/2 on two classes, 1/30,522 on a masked-LM head).
    scale_by_t_squared: times T^2. The soft gradient shrinks like 1/T^2; the factor keeps its size, so that the
        balance with the hard loss does not move when T does. (It also magnifies rounding: at T = 100 the value of
        `kl` in float32 is good to about three digits; its gradient is better.)
    Raises: ValueError for different shapes (other vocabulary or class count), a mask that does not fit or keeps
        nothing, a bad temperature or knob.
    Source: section 2 and eq. 1-2.
    """
    require_same_shape(student_logits, teacher_logits, "soft targets",
                       "Both models need the same classes (or the same vocabulary) and the same tokens.")
    student_rows = at_least_float32(keep(student_logits, mask))  # (B, T, C) -> (kept, C)
    teacher_rows = at_least_float32(keep(teacher_logits, mask))
    per_class = _per_class(student_rows, teacher_rows, temperature, form)  # (kept, C)
    if reduction not in ("batchmean", "mean"):
        raise ValueError(f"reduction must be 'batchmean' or 'mean', not {reduction!r}.")
    loss = per_class.sum(dim=-1).mean() if reduction == "batchmean" else per_class.mean()
    return loss * temperature**2 if scale_by_t_squared else loss


def _per_class(student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"],
               temperature: float, form: Form) -> Float[Tensor, "rows classes"]:
    student_log_probs = log_soft_targets(student, temperature)
    teacher_log_probs = log_soft_targets(teacher, temperature)
    match form:
        case "kl":
            return teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)
        case "cross_entropy":
            return -teacher_log_probs.exp() * student_log_probs
        case "mse":
            return ((student - teacher) / temperature) ** 2
    raise ValueError(f"form must be 'kl', 'cross_entropy' or 'mse', not {form!r}.")


def teacher_entropy(teacher_logits: Float[Tensor, "*where classes"], mask: Shaped[Tensor, "*where"] | None = None, *,
                    temperature: float) -> Float[Tensor, ""]:
    """The part of the soft cross-entropy that no student can remove: -sum_i p_i log p_i, mean over kept rows."""
    log_probs = log_soft_targets(keep(teacher_logits, mask), temperature)
    return -(log_probs.exp() * log_probs).sum(dim=-1).mean()


def high_temperature_limit(
    student_logits: Float[Tensor, "*where classes"],
    teacher_logits: Float[Tensor, "*where classes"],
    mask: Shaped[Tensor, "*where"] | None = None,
) -> Float[Tensor, ""]:
    """What T^2 * KL becomes when T goes to infinity: logit matching.

        sum_i (c_T,i - c_S,i)^2 / (2 * classes)      c = logits minus their mean over the classes

    A softmax cannot see a constant added to all logits, so the means are taken off first.
    Source: section 2.1, eq. 3-4 (there the logits are assumed to have zero mean already).
    """
    require_same_shape(student_logits, teacher_logits, "logit matching")
    difference = at_least_float32(keep(student_logits, mask)) - at_least_float32(keep(teacher_logits, mask))
    centred = difference - difference.mean(dim=-1, keepdim=True)
    return 0.5 * (centred**2).mean(dim=-1).mean()


def hard_loss(student_logits: Float[Tensor, "*where classes"], labels: Int[Tensor, "*where"],
              mask: Shaped[Tensor, "*where"] | None = None) -> Float[Tensor, ""]:
    """Cross-entropy with the true labels at temperature 1; labels of -100 do not count.

    Raises: ValueError if no label is left, or a label is not a class of the student.
    """
    if labels.shape != student_logits.shape[:-1]:
        raise ValueError(f"hard loss: labels {tuple(labels.shape)} do not fit student logits "
                         f"{tuple(student_logits.shape)}; expected {tuple(student_logits.shape[:-1])}.")
    counted = labels != IGNORED
    if mask is not None:
        counted = counted & require_mask(mask, labels.shape)
    rows, labels = keep(student_logits, counted), labels[counted]
    if labels.min() < 0 or labels.max() >= rows.shape[-1]:
        raise ValueError(f"hard loss: labels reach from {labels.min()} to {labels.max()}, but the student has "
                         f"{rows.shape[-1]} classes (0 to {rows.shape[-1] - 1}). Use {IGNORED} for 'no label'.")
    return F.cross_entropy(at_least_float32(rows), labels)


def distillation_loss(
    student_logits: Float[Tensor, "*where classes"],
    teacher_logits: Float[Tensor, "*where classes"] | None,
    labels: Int[Tensor, "*where"] | None,
    mask: Shaped[Tensor, "*where"] | None = None,
    *,
    temperature: float,
    hard_weight: float,
    soft_weight: float,
    form: Form = "kl",
    reduction: Reduction = "batchmean",
    scale_by_t_squared: bool = True,
) -> Float[Tensor, ""]:
    """Hinton's sum: soft_weight * (soft targets at T) + hard_weight * (true labels at T = 1).

    A weight of 0 removes its term altogether: then labels (or teacher_logits) may be None.
    labels: class numbers, -100 = no label here (for tokens: the hard loss counts only labelled AND kept positions).
    The other arguments are those of `soft_target_loss`; `reduction` acts on the soft part only.
    Raises: ValueError for a negative weight, for two zeros, and for whatever the two parts refuse.
    """
    if min(hard_weight, soft_weight) < 0 or hard_weight == soft_weight == 0:
        raise ValueError(f"hard_weight={hard_weight}, soft_weight={soft_weight}: none may be negative, one must count.")
    loss = torch.zeros((), dtype=at_least_float32(student_logits).dtype, device=student_logits.device)
    if soft_weight:
        loss = loss + soft_weight * soft_target_loss(
            student_logits, _needed(teacher_logits, "teacher_logits", "soft_weight"), mask, temperature=temperature,
            form=form, reduction=reduction, scale_by_t_squared=scale_by_t_squared)
    if hard_weight:
        loss = loss + hard_weight * hard_loss(student_logits, _needed(labels, "labels", "hard_weight"), mask)
    return loss


def _needed(tensor: Tensor | None, name: str, weight: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"{name} is missing. Give it, or set {weight}=0.")
    return tensor


# --- Reading two models --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HintonRecipe:
    """T = 2 and equal weights, as in the speech experiment (section 4); the paper tried T = 1, 2, 5, 10 there."""

    temperature: float = 2.0
    hard_weight: float = 0.5
    soft_weight: float = 0.5
    form: Form = "kl"
    reduction: Reduction = "batchmean"
    scale_by_t_squared: bool = True
    # For a masked-LM head: distil at every real token, or only where there is a label (the masked positions)?
    positions: Literal["all", "labelled"] = "all"


def terms(student: nn.Module, teacher: nn.Module | None, batch: dict[str, Tensor],
          recipe: HintonRecipe | None = None) -> dict[str, Tensor]:
    """The weighted terms {"soft": ..., "hard": ...} of one batch; a term of weight 0 is left out.

    batch: input_ids, attention_mask, labels, and optionally teacher_logits (then the teacher is not run).
    """
    recipe = recipe or HintonRecipe()
    logits = logits_of(student, batch)
    mask = positions_that_count(logits, batch, recipe.positions)
    out = {}
    if recipe.soft_weight:
        out["soft"] = recipe.soft_weight * soft_target_loss(
            logits, teacher_logits_of(teacher, batch), mask, temperature=recipe.temperature, form=recipe.form,
            reduction=recipe.reduction, scale_by_t_squared=recipe.scale_by_t_squared)
    if recipe.hard_weight:
        out["hard"] = recipe.hard_weight * hard_loss(logits, batch["labels"], mask)
    return out


def positions_that_count(logits: Tensor, batch: dict[str, Tensor], positions: Literal["all", "labelled"]
                         ) -> Tensor | None:
    """None for sentence logits; for token logits the real tokens, or only those that have a label."""
    if logits.ndim == 2:
        return None
    real = batch["attention_mask"].bool()
    return real & (batch["labels"] != IGNORED) if positions == "labelled" else real


# --- One logit loss, a dozen numbers -------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogitLoss:
    """How one code base sets the knobs. `fixed_temperature` None = the caller's T."""

    who: str
    why: str
    hard: bool = True
    soft: bool = True
    form: Form = "kl"
    reduction: Reduction = "batchmean"
    scale_by_t_squared: bool = True
    fixed_temperature: float | None = None

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None,
                 mask: Tensor | None = None, *, temperature: float = 4.0, hard_weight: float = 0.5) -> Tensor:
        """The number this code base would report: `distillation_loss` with these knobs.

        hard_weight: the share of the hard loss; the soft loss gets the rest. A code with one part only ignores it.
        """
        both = self.hard and self.soft
        return distillation_loss(
            student_logits, teacher_logits, labels, mask,
            temperature=self.fixed_temperature or temperature,
            hard_weight=hard_weight if both else float(self.hard),
            soft_weight=1 - hard_weight if both else float(self.soft),
            form=self.form, reduction=self.reduction, scale_by_t_squared=self.scale_by_t_squared)


LOGIT_LOSSES: dict[str, LogitLoss] = {
    "hard": LogitLoss("no teacher", "cross-entropy with the labels alone", soft=False),
    "textbook": LogitLoss("torchdistill, the common Trainer tutorial", "hard CE + T^2 KL, summed over classes"),
    "paper": LogitLoss("Hinton's formula as printed", "CE instead of KL: the teacher's entropy is added",
                       form="cross_entropy"),
    "mean": LogitLoss("haitongli, PKD as shipped", "KLDivLoss 'mean' divides by the classes too", reduction="mean"),
    "soft_only": LogitLoss("RepDistiller, KD-Zoo", "the soft part only, times T^2", hard=False),
    "no_t_squared": LogitLoss("torchdistill with alpha = 0", "that branch forgets T^2", hard=False,
                              scale_by_t_squared=False),
    "tinybert_t1": LogitLoss("TinyBERT, T = 1", "CE, mean over classes too", hard=False, form="cross_entropy",
                             reduction="mean", scale_by_t_squared=False, fixed_temperature=1.0),
    "tinybert": LogitLoss("TinyBERT, same T as the others", "the same, and no T^2", hard=False, form="cross_entropy",
                          reduction="mean", scale_by_t_squared=False),
    "textbrewer_ce": LogitLoss("TextBrewer kd_ce", "CE = KL + entropy of the teacher, no T^2", hard=False,
                               form="cross_entropy", scale_by_t_squared=False),
    "textbrewer_mse": LogitLoss("TextBrewer kd_mse", "squared difference of logits / T, mean over classes, no T^2",
                                hard=False, form="mse", reduction="mean", scale_by_t_squared=False),
    "bilstm_paper": LogitLoss("Distilled BiLSTM, paper", "squared distance of raw logits, summed over classes",
                              hard=False, form="mse", fixed_temperature=1.0),
    "bilstm_code": LogitLoss("Distilled BiLSTM, code", "nn.MSELoss: mean over classes too", hard=False, form="mse",
                             reduction="mean", fixed_temperature=1.0),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: who computes it, the value, the knob that makes the difference."""

    who: str
    value: float
    why: str


def a_dozen_numbers(student_logits: Float[Tensor, "*where classes"], teacher_logits: Float[Tensor, "*where classes"],
                    labels: Int[Tensor, "*where"], *, temperature: float = 4.0, hard_weight: float = 0.5) -> list[Row]:
    """The same logits and labels through every entry of `LOGIT_LOSSES`: one idea, twelve numbers."""
    return [Row(loss.who, loss(student_logits, teacher_logits, labels, temperature=temperature,
                               hard_weight=hard_weight).item(), loss.why) for loss in LOGIT_LOSSES.values()]
