"""Masks and means: which tokens count, and what we divide by.

Most of the differences between two published distillation losses are hidden in these two questions. Every loss of
the course asks them here, aloud: it takes a `mask`, and it names its mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

IGNORED = -100  # PyTorch's and Hugging Face's label for "no label here"; cross-entropy skips it


def at_least_float32(values: Tensor) -> Tensor:
    """Raise half precision to float32 and leave float32 and float64 alone.

    A log-softmax over 30,522 classes in bfloat16 keeps about three digits; the loss must not lose the rest.
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def require_same_shape(student: Tensor, teacher: Tensor, what: str, way_out: str = "") -> None:
    """Refuse two tensors that PyTorch would silently broadcast against each other.

    Raises: ValueError that shows both shapes and, where there is one, the way out.
    """
    if student.shape != teacher.shape:
        message = f"{what}: student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ."
        raise ValueError(f"{message} {way_out}".strip())


def require_mask(mask: Tensor, shape: tuple[int, ...] | torch.Size, what: str = "mask") -> Tensor:
    """Return `mask` as booleans after checking that it has `shape` and keeps at least one position.

    Raises: ValueError for another shape or for a mask that keeps nothing (the mean of nothing is NaN).
    """
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(f"{what}: mask {tuple(mask.shape)} does not fit values {tuple(shape)}.")
    kept = mask.bool()
    if not kept.any():
        raise ValueError(f"{what}: the mask keeps no position, so there is nothing to average. "
                         "Skip this batch, or look for an inverted or empty mask.")
    return kept


def keep(values: Shaped[Tensor, "*where features"], mask: Shaped[Tensor, "*where"] | None
         ) -> Shaped[Tensor, "kept features"]:
    """Flatten all positions into rows and keep the rows that `mask` marks.

    values (batch, tokens, classes), mask (batch, tokens) -> (kept, classes). This is what makes `batchmean` mean
    "per token": on an unflattened (batch, tokens, classes) tensor it would divide by the batch only.
    """
    if mask is None:
        return values.reshape(-1, values.shape[-1])
    rows = require_mask(mask, values.shape[:-1]).flatten().nonzero().squeeze(1)
    # values[mask] gives the same rows, but its gradient is added number by number. This one goes row by row, which on
    # 30,522 classes saves a quarter of a loss's time.
    return values.reshape(-1, values.shape[-1]).index_select(0, rows)


def batchmean(values: Float[Tensor, rows *each]) -> Float[Tensor, ""]:
    """Sum each row (example or token) up, then take the mean over the rows: what PyTorch calls `batchmean`."""
    return values.sum(dim=tuple(range(1, values.ndim))).mean()


def masked_mean(values: Float[Tensor, "*where"], mask: Shaped[Tensor, "*where"] | None = None) -> Float[Tensor, ""]:
    """One flat mean over all kept positions: a long sentence weighs more than a short one."""
    if mask is None:
        return values.mean()
    return values[require_mask(mask, values.shape)].mean()


def mean_per_sentence(values: Float[Tensor, "batch tokens"], mask: Shaped[Tensor, "batch tokens"]
                      ) -> Float[Tensor, ""]:
    """Mean over each sentence's own tokens, then over the batch: every sentence weighs the same.

    Raises: ValueError if a sentence keeps no token at all.
    """
    kept = require_mask(mask, values.shape)
    lengths = kept.sum(dim=-1)
    if (lengths == 0).any():
        empty = (lengths == 0).nonzero().flatten().tolist()
        raise ValueError(f"mask: sentence(s) {empty} of the batch keep no token; drop them before the loss.")
    per_sentence = values.masked_fill(~kept, 0.0).sum(dim=-1) / lengths  # (B, T) -> (B,)
    return per_sentence.mean()
