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

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from course_lib.shared.masking import IGNORED, at_least_float32, batchmean, keep, require_mask, require_same_shape
from course_lib.shared.method import (
    BOTH_TASKS,
    FINE_TUNING,
    FRESH,
    MASKED_LM,
    QUICK,
    Compared,
    Job,
    Measured,
    Method,
    Stage,
    only_logits,
    step_of,
)
from course_lib.shared.probes import logits_of, teacher_logits_of
from course_lib.shared.words import require_word

Form = Literal["kl", "cross_entropy", "mse"]
Reduction = Literal["batchmean", "mean"]
Positions = Literal["all", "labelled"]
MEANS = {"batchmean": batchmean, "mean": torch.mean}  # of (rows, classes)


def log_soft_targets(logits: Float[Tensor, "*where classes"], temperature: float) -> Float[Tensor, "*where classes"]:
    """Logarithm of the softened probabilities: log softmax(z / T). Arguments as in `soft_targets`."""
    temperature = require_temperature(temperature)
    logits = at_least_float32(logits)
    # The largest logit becomes 0 BEFORE the division: at 10,000 / 0.05 float32 has lost what tells classes apart.
    centred = logits - logits.amax(dim=-1, keepdim=True).detach()
    return F.log_softmax(centred / temperature, dim=-1)


def require_temperature(temperature: float | Tensor) -> float | Float[Tensor, ""]:
    """One temperature for all rows, a number or a tensor that holds one (a learned T keeps its gradient).

    Raises: ValueError if it is not positive and finite, or is several.
    """
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1:
            raise ValueError(f"temperature is a tensor of shape {tuple(temperature.shape)}; one number for all rows is "
                             "needed. For a temperature per row divide the logits yourself.")
        temperature = temperature.reshape(())
    if not temperature > 0 or temperature == float("inf"):
        raise ValueError(f"temperature must be a positive, finite number, not {temperature}. T=1 is the plain softmax.")
    return temperature


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
        The teacher's logits are not detached: take them under `torch.no_grad()`, or the teacher learns as well.
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
    rows, temperature = _rows(student_logits, teacher_logits, mask), require_temperature(temperature)
    mean = MEANS[require_word(reduction, Reduction, "reduction")]
    if require_word(form, Form, "form") == "kl":
        loss = kl_equation(*rows, temperature, mean)
        return loss if scale_by_t_squared else loss / temperature**2
    equation = {"cross_entropy": cross_entropy_equation, "mse": mse_equation}[form]
    loss = equation(*rows, temperature, mean)
    return loss * temperature**2 if scale_by_t_squared else loss


# The equations: called by the losses, shown by the chapters. A comment names the term that its line computes.


def kl_equation(z_S, z_T, T, mean=batchmean):
    """L = T^2 mean_n sum_i p_i (log p_i - log q_i)"""
    log_p = log_soft_targets(z_T, T)  # log p_i = log softmax(z_T / T)
    log_q = log_soft_targets(z_S, T)  # log q_i = log softmax(z_S / T)
    kl = log_p.exp() * (log_p - log_q)  # p_i (log p_i - log q_i)
    return T**2 * mean(kl)  # T^2 mean_n sum_i


def cross_entropy_equation(z_S, z_T, T, mean=batchmean):
    """L = mean_n sum_i - p_i log q_i"""
    p = soft_targets(z_T, T)  # p_i = softmax(z_T / T)
    log_q = log_soft_targets(z_S, T)  # log q_i = log softmax(z_S / T)
    return mean(-p * log_q)  # mean_n sum_i -


def mse_equation(z_S, z_T, T, mean=batchmean):
    """L = mean_n sum_i ((z_S - z_T) / T)^2"""
    difference = (z_S - z_T) / T  # (z_S - z_T) / T
    return mean(difference**2)  # mean_n sum_i ((z_S - z_T) / T)^2


def soft_cross_entropy(
    student_logits: Float[Tensor, "*where classes"],
    teacher_logits: Float[Tensor, "*where classes"],
    mask: Shaped[Tensor, "*where"] | None = None,
    *,
    temperature: float,
    reduction: Reduction = "batchmean",
) -> Float[Tensor, ""]:
    """The form without the factor T^2 that PKD and TinyBERT print. Arguments and errors as in `soft_target_loss`."""
    mean = MEANS[require_word(reduction, Reduction, "reduction")]
    rows = _rows(student_logits, teacher_logits, mask)
    return cross_entropy_equation(*rows, require_temperature(temperature), mean)


def _rows(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None
          ) -> tuple[Float[Tensor, "kept classes"], Float[Tensor, "kept classes"]]:
    require_same_shape(student_logits, teacher_logits, "soft targets",
                       "Both models need the same classes (or the same vocabulary) and the same tokens.")
    student, teacher = (at_least_float32(keep(z, mask)) for z in (student_logits, teacher_logits))  # -> (kept, C)
    return student, teacher


def teacher_entropy(teacher_logits: Float[Tensor, "*where classes"], mask: Shaped[Tensor, "*where"] | None = None, *,
                    temperature: float) -> Float[Tensor, ""]:
    """The part of the soft cross-entropy that no student can remove: -sum_i p_i log p_i, mean over kept rows."""
    return entropy_equation(keep(teacher_logits, mask), temperature)


def entropy_equation(z_T, T):
    """H = mean_n sum_i - p_i log p_i"""
    log_p = log_soft_targets(z_T, T)  # log p_i = log softmax(z_T / T)
    return -(log_p.exp() * log_p).sum(dim=-1).mean()  # mean_n sum_i - p_i


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
    return logit_matching_equation(*(at_least_float32(keep(z, mask)) for z in (student_logits, teacher_logits)))


def logit_matching_equation(z_S, z_T):
    """L = 1/2 mean_n mean_i (d_i - mean_j d_j)^2"""
    d = z_S - z_T  # d_i = z_S,i - z_T,i
    centred = d - d.mean(dim=-1, keepdim=True)  # d_i - mean_j d_j
    return 0.5 * (centred**2).mean(dim=-1).mean()  # 1/2 mean_n mean_i


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
    return hard_equation(at_least_float32(rows), labels)


def hard_equation(z_S, y):
    """L = mean_n - log q(y)"""
    log_q = z_S.log_softmax(dim=-1)  # log q = log softmax(z_S)
    return F.nll_loss(log_q, y)  # mean_n - log q(y)


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
    soft = hard = 0.0
    if soft_weight:
        soft = soft_target_loss(
            student_logits, _needed(teacher_logits, "teacher_logits", "soft_weight"), mask, temperature=temperature,
            form=form, reduction=reduction, scale_by_t_squared=scale_by_t_squared)
    if hard_weight:
        hard = hard_loss(student_logits, _needed(labels, "labels", "hard_weight"), mask)
    return distillation_equation(soft, hard, soft_weight, hard_weight)


def distillation_equation(L_soft, L_hard, w_soft, w_hard):
    """L = w_soft L_soft + w_hard L_hard"""
    soft = w_soft * L_soft  # w_soft L_soft
    hard = w_hard * L_hard  # w_hard L_hard
    return soft + hard  # +


def _needed(tensor: Tensor | None, name: str, weight: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"{name} is missing. Give it, or set {weight}=0.")
    return tensor


# --- Reading two models --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HintonRecipe:
    """T = 2 and equal weights, as in the speech experiment (section 4); the paper tried T = 1, 2, 5, 10 there.

    In general the paper gives the hard term "a considerably lower weight" (section 2); the experiments with few labels
    take 0.1 beside 0.9.
    """

    temperature: float = 2.0
    hard_weight: float = 0.5
    soft_weight: float = 0.5
    form: Form = "kl"
    reduction: Reduction = "batchmean"
    scale_by_t_squared: bool = True
    # For a masked-LM head: distil at every real token, or only where there is a label (the masked positions)?
    positions: Positions = "all"


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


def positions_that_count(logits: Tensor, batch: dict[str, Tensor], positions: Positions) -> Tensor | None:
    """None for sentence logits; for token logits the real tokens, or only those that have a label.

    Raises: ValueError for another word: DistilBERT's "masked" is called "labelled" here.
    """
    require_word(positions, Positions, "positions")
    if logits.ndim == 2:
        return None
    real = batch["attention_mask"].bool()
    return real & (batch["labels"] != IGNORED) if positions == "labelled" else real


# --- One logit loss, a dozen numbers -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
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


class _ByName(dict[str, Published]):
    def __missing__(self, name: str) -> Published:
        theirs = [short for short, loss in self.items() if name.lower() in loss.who.lower()]
        meant = f"{name} computes {' or '.join(map(repr, theirs))}. " if theirs else ""
        raise KeyError(f"No logit loss is called {name!r}. {meant}Known: {', '.join(self)}.")


LOGIT_LOSSES = _ByName({
    "hard": Published("no teacher", "cross-entropy with the labels alone", soft=False),
    "textbook": Published("torchdistill, the common Trainer tutorial", "hard CE + T^2 KL, summed over classes"),
    "paper": Published("Hinton's formula as printed", "CE instead of KL: the teacher's entropy is added",
                       form="cross_entropy"),
    "mean": Published("haitongli, PKD as shipped", "KLDivLoss 'mean' divides by the classes too", reduction="mean"),
    "soft_only": Published("RepDistiller, KD-Zoo", "the soft part only, times T^2", hard=False),
    "no_t_squared": Published("torchdistill with alpha = 0", "that branch forgets T^2", hard=False,
                              scale_by_t_squared=False),
    "tinybert_t1": Published("TinyBERT, T = 1", "CE, mean over classes too", hard=False, form="cross_entropy",
                             reduction="mean", scale_by_t_squared=False, fixed_temperature=1.0),
    "tinybert": Published("TinyBERT, same T as the others", "the same, and no T^2", hard=False, form="cross_entropy",
                          reduction="mean", scale_by_t_squared=False),
    "textbrewer_ce": Published("TextBrewer kd_ce", "CE = KL + entropy of the teacher, no T^2", hard=False,
                               form="cross_entropy", scale_by_t_squared=False),
    "textbrewer_mse": Published("TextBrewer kd_mse", "squared difference of logits / T, mean over classes, no T^2",
                                hard=False, form="mse", reduction="mean", scale_by_t_squared=False),
    "bilstm_paper": Published("Distilled BiLSTM, paper", "squared distance of raw logits, summed over classes",
                              hard=False, form="mse", fixed_temperature=1.0),
    "bilstm_code": Published("Distilled BiLSTM, code", "nn.MSELoss: mean over classes too", hard=False, form="mse",
                             reduction="mean", fixed_temperature=1.0),
})


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


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = job.recipe if job.labels else replace(job.recipe, hard_weight=0.0)
    teacher = job.teacher if job.task == MASKED_LM else None  # a classifier's answers are in the batch
    over = {"soft": "tokens" if recipe.positions == "all" else "labels", "hard": "labels"}
    return [Stage("distillation", lambda student, batch: terms(student, teacher, batch, recipe),
                  job.numbers(QUICK if job.copied else FRESH, FINE_TUNING),
                  over if job.task == MASKED_LM else {}, masked=job.task == MASKED_LM)]


LAPTOP = HintonRecipe(temperature=4.0)  # the chapters' answers: T = 4, both weights 0.5


RECORD = Method(
    "hinton", "Soft targets", "Hinton et al. 2015", stages,
    {"laptop": LAPTOP, "paper": HintonRecipe()}, "ch01", tasks=BOTH_TASKS, teacher="stored",
    cache=("teacher_logits",), same_tokens=False, steps={"Soft targets": step_of(terms, only_logits, LAPTOP)},
    compared={"Soft targets": Compared("2 x 128, labels", "stored answers", Measured("ch01", "both, T=4")),
              "Answers": Compared("3 x 384, labels", "stored answers", Measured("ch04", "labels + answers"))},
    measured=Measured("ch04", "labels + answers"))
