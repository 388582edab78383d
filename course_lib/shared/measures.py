"""Measures: what is counted before anyone says that a student is good.

Every table of the course takes its numbers from here. Logits come first, labels second; every function that returns
one number returns a Python float. A measure that cannot be computed honestly (no example, one single seed) raises a
ValueError and says why; it never returns NaN.

Sources: expected calibration error, Guo et al. 2017 (arXiv 1706.04599, section 2). Reading only the masked positions:
Devlin et al. 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from course_lib.shared.masking import IGNORED, at_least_float32, require_mask, require_same_shape
from course_lib.shared.probes import logits_of
from course_lib.shared.students import count_parameters, evaluating

__all__ = [
    "Calibration", "CalibrationBin", "MaskedLM", "accuracy", "agreement", "calibration", "count_parameters", "evaluate",
    "evaluate_masked_lm", "gradient_shares", "masked_lm_measures", "predict_logits",
]



# --- classification ---------------------------------------------------------------------------------------------------


def accuracy(logits: Float[Tensor, "*where classes"], labels: Int[Tensor, "*where"], k: int = 1) -> float:
    """Share of examples whose label is among the `k` largest logits. Labels of -100 are left out.

    Raises: ValueError when the shapes disagree, a label does not exist, or no example is left.
    """
    rows, wanted = _labelled_rows(logits, labels)
    if not 1 <= k <= rows.shape[-1]:
        raise ValueError(f"accuracy: k = {k} must lie between 1 and the number of classes, {rows.shape[-1]}.")
    hits = (rows.topk(k, dim=-1).indices == wanted[:, None]).any(dim=-1)  # (N, k) == (N, 1) -> (N,)
    return hits.double().mean().item()


def agreement(student_logits: Float[Tensor, "*where classes"], teacher_logits: Float[Tensor, "*where classes"],
              mask: Shaped[Tensor, "*where"] | None = None) -> float:
    """Share of positions where student and teacher give the same answer, whether it is right or not.

    mask: 1 or True = keep this position; None keeps all. Raises: ValueError for unequal shapes or an empty mask.
    """
    require_same_shape(student_logits, teacher_logits, "agreement",
                       "Agreement needs the same examples and the same classes on both sides.")
    if student_logits.numel() == 0:
        raise ValueError("agreement: there is no example.")
    same = student_logits.argmax(dim=-1) == teacher_logits.argmax(dim=-1)
    return (same if mask is None else same[require_mask(mask, same.shape)]).double().mean().item()


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of confidences: how sure the model was there, and how often it was right."""

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error and the table that it sums up. Empty bins are not in the table."""

    ece: float
    bins: tuple[CalibrationBin, ...]


def calibration(logits: Float[Tensor, "*where classes"], labels: Int[Tensor, "*where"], bins: int = 15) -> Calibration:
    """Expected calibration error: does 80 % sure mean right 80 times in a hundred?

    ECE = sum_b (n_b / n) |accuracy_b - confidence_b| over `bins` bins of equal width, (lower, upper].

    The confidence is the largest probability. Pass logits, not probabilities: a second softmax would hide everything.
    Raises: ValueError for unequal shapes, no example, or fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"calibration: bins = {bins}; at least one bin is needed.")
    rows, wanted = _labelled_rows(logits, labels)
    confidences, answers = rows.double().softmax(dim=-1).max(dim=-1)
    right = (answers == wanted).double()
    index = (confidences * bins).ceil().long().clamp(1, bins) - 1
    table = []
    for b in index.unique().tolist():  # sorted
        here = index == b
        table.append(CalibrationBin(b / bins, (b + 1) / bins, int(here.sum()),
                                    confidences[here].mean().item(), right[here].mean().item()))
    ece = sum(row.count * abs(row.accuracy - row.confidence) for row in table) / len(rows)
    return Calibration(ece, tuple(table))


def _labelled_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten to (N, classes) and (N,), without the positions labelled -100; refuse what does not fit."""
    if logits.dim() != labels.dim() + 1 or logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit: "
                         "logits need exactly one more dimension, the classes, and it comes last.")
    asked = labels != IGNORED
    rows, wanted = at_least_float32(logits[asked]), labels[asked]
    if len(wanted) == 0:
        raise ValueError("There is no labelled example, so there is nothing to measure.")
    if wanted.min() < 0 or wanted.max() >= rows.shape[-1]:
        raise ValueError(f"Labels run from {int(wanted.min())} to {int(wanted.max())}, but the model has "
                         f"{rows.shape[-1]} classes, numbered from 0.")
    if rows.isnan().any():
        raise ValueError("The logits contain NaN. Look at the training run; a measure of NaN means nothing.")
    return rows, wanted


# --- running a model over data ----------------------------------------------------------------------------------------


@torch.no_grad()
def predict_logits(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Float[Tensor, "examples classes"]:
    """Logits of a classifier for all batches, in order, on the CPU, without dropout and without gradients.

    The model's train/eval mode is put back afterwards. Raises: ValueError if there is no batch.
    """
    with evaluating(model):
        rows = [logits_of(model, batch).cpu() for batch in batches]
    if not rows:
        raise ValueError("predict_logits: there is no batch.")
    if rows[0].dim() != 2:
        raise ValueError(f"predict_logits: logits have shape {tuple(rows[0].shape)}; (batch, classes) was expected. "
                         "For a masked-LM model use evaluate_masked_lm.")
    return torch.cat(rows)


def evaluate(model: nn.Module, batches: Iterable[Mapping[str, Tensor]],
             teacher_logits: Float[Tensor, "examples classes"] | None = None) -> dict[str, float]:
    """Accuracy and calibration of a classifier on labelled batches; with `teacher_logits` also the agreement.

    teacher_logits: what `predict_logits(teacher, batches)` returned for the SAME batches in the same order.
    Returns: {"accuracy": …, "ece": …, "agreement": … where asked}.
    """
    batches = list(batches)
    logits = predict_logits(model, batches)
    if any("labels" not in batch for batch in batches):
        raise ValueError("evaluate: a batch has no labels.")
    labels = torch.cat([batch["labels"].cpu() for batch in batches])
    result = {"accuracy": accuracy(logits, labels), "ece": calibration(logits, labels).ece}
    if teacher_logits is not None:
        result["agreement"] = agreement(logits, teacher_logits.cpu())
    return result


# --- masked language models -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskedLM:
    """What a masked-LM model answers at the masked positions, and whether it looks at the context at all."""

    positions: int
    top1: float
    top_k: float
    k: int
    distinct_answers: int
    commonest: tuple[tuple[int, float], ...]  # (token id, share of all answers), the most frequent answer first
    frequent_share: float | None  # share of answers among the corpus' most frequent tokens
    unigram_distance: float | None  # 0 = every answer is the corpus' unigram distribution: no context used


def masked_lm_measures(logits: Float[Tensor, "*where vocabulary"], labels: Int[Tensor, "*where"],
                       unigram: Float[Tensor, " vocabulary"] | None = None, *, k: int = 5, frequent: int = 10
                       ) -> MaskedLM:
    """Measure the answers at the positions whose label is not -100.

    unigram: how often each token occurs in the corpus (counts or shares). With it come two signs of a collapse:
    `frequent_share`, the share of answers among its `frequent` commonest tokens, and `unigram_distance`, the mean over
    positions of the total variation  1/2 sum_v |p(v) - unigram(v)|.
    Raises: ValueError for shapes that do not fit, or if no position is masked.
    """
    rows, wanted = _labelled_rows(logits, labels)
    return _sum_up([_answers(rows, wanted, unigram, k)], unigram, k, frequent)


@torch.no_grad()
def evaluate_masked_lm(model: nn.Module, batches: Iterable[Mapping[str, Tensor]],
                       unigram: Float[Tensor, " vocabulary"] | None = None, *, k: int = 5, frequent: int = 10
                       ) -> MaskedLM:
    """`masked_lm_measures` over many batches; keeps the answers, not the logits (30,522 numbers a position)."""
    parts = []
    with evaluating(model):
        for batch in batches:
            if (batch["labels"] != IGNORED).any():
                rows, wanted = _labelled_rows(logits_of(model, batch).cpu(), batch["labels"].cpu())
                parts.append(_answers(rows, wanted, unigram, k))
    if not parts:
        raise ValueError("evaluate_masked_lm: no position is masked. Did the collator mask this data?")
    return _sum_up(parts, unigram, k, frequent)


def _answers(rows: Tensor, wanted: Tensor, unigram: Tensor | None, k: int) -> dict[str, Tensor]:
    classes = rows.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"k = {k} must lie between 1 and the size of the vocabulary, {classes}.")
    best = rows.topk(k, dim=-1).indices  # (N, k)
    part = {"answer": best[:, 0], "first": best[:, 0] == wanted, "within": (best == wanted[:, None]).any(dim=-1)}
    if unigram is not None:
        if unigram.shape != (classes,) or (unigram < 0).any() or not unigram.sum() > 0:
            raise ValueError(f"unigram {tuple(unigram.shape)}: one count per token of the vocabulary ({classes},) is "
                             "needed, none of them negative and not all zero.")
        shares = unigram.cpu().double() / unigram.cpu().double().sum()
        part["distance"] = 0.5 * (rows.softmax(dim=-1) - shares.to(rows.dtype)).abs().sum(dim=-1).double()
    return part


def _sum_up(parts: list[dict[str, Tensor]], unigram: Tensor | None, k: int, frequent: int) -> MaskedLM:
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    answers, positions = joined["answer"], len(joined["answer"])
    tokens, counts = answers.unique(return_counts=True)
    order = sorted(zip(counts.tolist(), tokens.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
    share = distance = None
    if unigram is not None:
        share = torch.isin(answers, unigram.cpu().topk(min(frequent, len(unigram))).indices).double().mean().item()
        distance = joined["distance"].mean().item()
    return MaskedLM(positions, joined["first"].double().mean().item(), joined["within"].double().mean().item(), k,
                    len(tokens), tuple((token, count / positions) for count, token in order[:5]), share, distance)


# --- loss terms -------------------------------------------------------------------------------------------------------


def gradient_shares(model: nn.Module, terms: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]],
                    batch: Mapping[str, Tensor]) -> dict[str, float]:
    """How much of the pull each term of a loss has: its gradient norm over the sum of all norms, in percent.

    Dropout is off. A weight says nothing about this: a mean over 768 numbers is small, whatever stands in front of it.
    terms: as in `training.train`. Raises: ValueError if no term has a gradient.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = {}
    with evaluating(model):
        for name, loss in terms(model, batch).items():
            parts = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            sizes[name] = sum(part.pow(2).sum().item() for part in parts if part is not None) ** 0.5
    total = sum(sizes.values())
    if not total > 0:
        raise ValueError(f"No term of {list(sizes)} has a gradient: is everything frozen, or detached?")
    return {name: 100 * size / total for name, size in sizes.items()}
