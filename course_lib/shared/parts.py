"""One batch in parts: where memory is too small for it (accumulation), and where several processes share the work.

    for part in parts_of(batch, 4):
        sum(part.weight(averaged_over) * loss).backward()

The gradients of the parts add up to the gradient of the whole batch, exactly. That needs weights, because a loss is a
mean: over the examples, over the real tokens, over the labels. A part with few real tokens must count less. The usual
mean of the parts' means does not do that, and then a student depends on the number of processes it was trained with.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn

from course_lib.shared.masking import IGNORED

Batch = dict[str, Tensor]
AveragedOver = Literal["examples", "tokens", "token pairs", "labels"]


@dataclass(frozen=True)
class Part:
    """Some rows of a batch. empty: there were too few, so this part holds a row of another part, without weight."""

    batch: Batch
    whole: Batch
    empty: bool = False

    def weight(self, over: AveragedOver = "examples") -> float | Tensor:
        """This part's share of the whole, counted in what the loss is a mean over; all parts together have 1."""
        if self.batch is self.whole:
            return 1.0
        return 0.0 if self.empty else size(self.batch, over) / size(self.whole, over)


def size(batch: Batch, over: AveragedOver) -> float:
    """How many examples, real tokens, pairs of real tokens or labels a batch holds; at least 1."""
    match over:
        case "examples":
            return float(_rows(batch))
        case "tokens":
            return max(1.0, float(batch["attention_mask"].sum()))
        case "token pairs":  # attention: every real query with every real key
            return max(1.0, float(batch["attention_mask"].sum(dim=1).square().sum()))
        case "labels":
            return max(1.0, float((batch["labels"] != IGNORED).sum()))
    raise ValueError(f"A loss is a mean over 'examples', 'tokens', 'token pairs' or 'labels', not {over!r}.")


def parts_of(batch: Batch, count: int) -> list[Part]:
    """Cut a batch into `count` parts of nearly equal size, row by row; every tensor keeps its name.

    The rows are dealt out like cards: a batch that is sorted by length gives parts of similar length.
    Raises: ValueError for a batch whose tensors have different numbers of rows.
    """
    if count == 1:
        return [Part(batch, batch)]
    rows = _rows(batch)
    parts = []
    for number in range(count):
        empty = number >= rows
        chosen = torch.arange(0 if empty else number, 1 if empty else rows, count)
        parts.append(Part({name: tensor[chosen] for name, tensor in batch.items()}, batch, empty))
    return parts


def _rows(batch: Batch) -> int:
    found = {name: len(tensor) for name, tensor in batch.items()}
    if len(set(found.values())) > 1:
        raise ValueError(f"A batch can only be cut into parts if all its tensors have one row per example; here: "
                         f"{found}. Use accumulate=1 and one process.")
    return next(iter(found.values()))


# --- Several processes ------------------------------------------------------------------------------------------------


def begin() -> PartialState:
    """Find this process's device, and the other processes if `accelerate launch` (or torchrun) started some.

    ACCELERATE_USE_CPU=true keeps everything on the CPU. On the CPU accelerate must be told so, or it starts alone.
    """
    wished = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return PartialState(cpu=wished or not torch.accelerator.is_available())


def processes() -> int:
    """How many processes train together: 1, unless `accelerate launch` (or torchrun) started more."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_number() -> int:
    """This one's number, from 0. Number 0 writes; the others only compute."""
    return distributed.get_rank() if distributed.is_initialized() else 0


@torch.no_grad()
def add_up(parameters: Sequence[nn.Parameter], values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace every gradient, and every value, by its sum over all processes: one message per step.

    This is what DistributedDataParallel does, without a wrapper around the student, whose inside the losses read.
    A parameter that no process has used keeps no gradient. Returns the summed values.
    """
    if processes() == 1:
        return values
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=_device(parameters))
    numbers = torch.stack([v.detach().float() for v in values.values()])
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    message = torch.cat([used, numbers, *(g.float().flatten() for g in grads)])
    distributed.all_reduce(message)
    used, numbers, rest = message.split([len(used), len(numbers), len(message) - len(used) - len(numbers)])
    summed = rest.split([p.numel() for p in parameters])
    for parameter, users, grad in zip(parameters, used.tolist(), summed, strict=True):
        parameter.grad = grad.view_as(parameter).to(parameter.dtype) if users else None
    return dict(zip(values, numbers.unbind(), strict=True))


@torch.no_grad()
def start_alike(tensors: Sequence[Tensor]) -> None:
    """Give every process the numbers of process 0: two students that start apart would stay apart."""
    if processes() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """Go on when every process has come here: nobody reads a file that process 0 has not finished."""
    if processes() > 1:
        distributed.barrier()


def _device(parameters: Sequence[nn.Parameter]) -> torch.device:
    return parameters[0].device
