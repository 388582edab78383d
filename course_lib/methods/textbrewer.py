"""TextBrewer's losses in the words of this course: a phrase book for people who come from that toolkit.

TextBrewer (Yang et al. 2020, arXiv 2002.12620) names its intermediate losses by strings. Most of them are one call of
a function that a paper of the course needs anyway; this file says which. What no paper here needs, the cross-entropy
between attention maps and the two similarity matrices, is written out.

    kd_ce, kd_mse              hinton.soft_target_loss, without T^2
    attention_mse              tinybert.attention_loss
    hidden_mse                 tinybert.hidden_loss
    cos                        distilbert.cosine_loss
    pkd                        pkd.patience_loss of one layer

## Deviations of the original code

TextBrewer is a toolkit; its paper gives names, not formulas. The table compares it with the papers it implements.

| what | paper | code | here |
|---|---|---|---|
| factor T^2 | Hinton: yes | no: at temperature 8 the soft gradient is about 64 times smaller | as the code: `hinton` has the knob |
| scores without a mask | TinyBERT's code: <= -100 becomes 0 | <= -0.001 becomes 0: every negative score is dropped, not only padded keys | as the code, if no mask is given; give one |
| attention cross-entropy with a mask | padded keys are masked before the softmax | the softmax runs over all keys, then padded keys are dropped from the sum | as the code |
| patience | PKD's code: mean over hidden units too | sum over hidden units, mean over examples | the paper's form |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from course_lib.methods.distilbert import cosine_loss
from course_lib.methods.hinton import soft_target_loss
from course_lib.methods.pkd import patience_loss
from course_lib.methods.tinybert import attention_loss, hidden_loss
from course_lib.shared.masking import at_least_float32, masked_mean, require_mask, require_same_shape

NEGATIVE_SCORE = -1e-3  # losses.py: without a mask, a score this low is taken for a padded key

Scores = Float[Tensor, "batch heads queries keys"]
States = Float[Tensor, "batch tokens hidden"]
Mask = Shaped[Tensor, "batch tokens"]
Heads = Literal["each", "sum", "mean"]


def kd_ce(student_logits: Float[Tensor, "*where classes"], teacher_logits: Float[Tensor, "*where classes"],
          mask: Shaped[Tensor, "*where"] | None = None, *, temperature: float = 1.0) -> Float[Tensor, ""]:
    """Soft cross-entropy, mean over kept rows, no T^2. losses.py, `kd_ce_loss`."""
    return soft_target_loss(student_logits, teacher_logits, mask, temperature=temperature, form="cross_entropy",
                            scale_by_t_squared=False)


def kd_mse(student_logits: Float[Tensor, "*where classes"], teacher_logits: Float[Tensor, "*where classes"],
           mask: Shaped[Tensor, "*where"] | None = None, *, temperature: float = 1.0) -> Float[Tensor, ""]:
    """MSE of z / T, mean over rows and classes, no T^2. losses.py, `kd_mse_loss`."""
    return soft_target_loss(student_logits, teacher_logits, mask, temperature=temperature, form="mse",
                            reduction="mean", scale_by_t_squared=False)


def attention_mse(student_scores: Scores, teacher_scores: Scores, mask: Mask | None = None, *, heads: Heads = "each"
                  ) -> Float[Tensor, ""]:
    """MSE of scores; heads="sum" compares the sums over the heads. losses.py, `att_mse_loss`, `att_mse_sum_loss`."""
    student, teacher = _merge(student_scores, heads), _merge(teacher_scores, heads)
    return attention_loss(student, teacher, mask, zero_below=NEGATIVE_SCORE if mask is None else None)


def attention_ce(student_scores: Scores, teacher_scores: Scores, mask: Mask | None = None, *, heads: Heads = "each"
                 ) -> Float[Tensor, ""]:
    """Cross-entropy of attention maps; heads="mean" averages scores first. losses.py, `att_ce_loss`, `att_ce_mean...`.

    - sum_j softmax(A_T)_ij * log softmax(A_S)_ij, over kept keys j; mean over heads and kept queries i
    """
    require_same_shape(student_scores, teacher_scores, "attention scores", "Both sides need the same heads and tokens.")
    student, teacher = (at_least_float32(_merge(x, heads)) for x in (student_scores, teacher_scores))
    probs = teacher.softmax(dim=-1)
    if mask is None:
        probs = probs.masked_fill(teacher <= NEGATIVE_SCORE, 0.0)
    else:
        kept = require_mask(mask, (student.shape[0], student.shape[-1]), "attention")
        probs = probs.masked_fill(~kept[:, None, None, :], 0.0)
    per_query = -(probs * student.log_softmax(dim=-1)).sum(dim=-1)  # (B, h, T)
    return masked_mean(per_query.mean(dim=1), mask)


def hidden_mse(student: States, teacher: States, mask: Mask | None = None) -> Float[Tensor, ""]:
    """MSE over kept tokens and hidden units. losses.py, `hid_mse_loss`."""
    return hidden_loss(student, teacher, mask)


def cos(student: States, teacher: States, mask: Mask | None = None) -> Float[Tensor, ""]:
    """1 - cosine, mean over kept tokens. losses.py, `cos_loss`."""
    return cosine_loss(student, teacher, mask)


def pkd(student: States, teacher: States) -> Float[Tensor, ""]:
    """PKD's patience of one layer, from states or from (batch, hidden) [CLS] vectors. losses.py, `pkd_loss`."""
    student, teacher = (states[:, 0] if states.ndim == 3 else states for states in (student, teacher))
    return patience_loss(student[:, None], teacher[:, None])


def feature_similarity(student: tuple[States, States], teacher: tuple[States, States], mask: Mask | None = None
                       ) -> Float[Tensor, ""]:
    """MSE of H_1^T H_2 / length, hidden x hidden, from two layers of each model. losses.py, `fsp_loss`."""
    def gram(first: States, second: States) -> Tensor:
        kept = torch.ones(first.shape[:2], device=first.device) if mask is None else mask
        kept = require_mask(kept, first.shape[:2], "feature similarity")[..., None]
        first, second = (at_least_float32(x).masked_fill(~kept, 0.0) for x in (first, second))
        # (B, d, T) x (B, T, d) -> (B, d, d)
        return first.transpose(1, 2) @ second / kept.sum(dim=1, keepdim=True).clamp(min=1)

    ours, theirs = gram(*student), gram(*teacher)
    require_same_shape(ours, theirs, "feature similarity", "Use token_similarity for models of other widths.")
    return (ours - theirs).pow(2).mean()


def token_similarity(student: tuple[States, States], teacher: tuple[States, States], mask: Mask | None = None
                     ) -> Float[Tensor, ""]:
    """MSE of H_1 H_2^T / width, tokens x tokens: the widths may differ. losses.py, `mmd_loss` (named "nst")."""
    def gram(first: States, second: States) -> Tensor:
        first, second = at_least_float32(first), at_least_float32(second)
        return first @ second.transpose(1, 2) / second.shape[-1]  # (B, T, d) x (B, d, T) -> (B, T, T)

    ours, theirs = gram(*student), gram(*teacher)
    require_same_shape(ours, theirs, "token similarity", "Both models must read the same tokens.")
    return attention_loss(ours[:, None], theirs[:, None], mask)


def _merge(scores: Scores, heads: Heads) -> Scores:
    """All heads apart, or one map that is their sum or mean; (batch, T, T) counts as merged already."""
    if scores.ndim == 3:
        return scores[:, None]
    if heads not in ("each", "sum", "mean"):
        raise ValueError(f"heads must be 'each', 'sum' or 'mean', not {heads!r}.")
    return scores if heads == "each" else getattr(scores, heads)(dim=1, keepdim=True)
