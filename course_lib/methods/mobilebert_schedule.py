"""MobileBERT, progressive transfer: which block learns how fast, and when (Sun et al. 2020, section 3.6).

Block after block gets its own phase. The blocks below the current one are not frozen: they go on with a small
learning rate, because a block below that stays imperfect would spoil everything above it. Two ways to use it:

    parameter_groups        one training run per phase, as `mobilebert.phases` lists them
    progressive_scheduler   one run over all phases, with the original's rate at every step

The numbers are those of the original TF1 code (google-research, mobilebert/distill_util.py).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from course_lib.methods.mobilebert import Phase


def background_rate(step: int, steps_per_phase: int) -> float:
    """The rate inside a phase: a short warm-up from 0, then a slow fall towards 0.9. Source: get_background_lr."""
    if steps_per_phase <= 1:
        return 1.0
    share = (step % steps_per_phase) / steps_per_phase
    return min(0.9 + 0.1 * (1 - share) ** 0.5, 10 * share)


def layer_rate(step: int, layer: int, steps_per_phase: int, *, current: float = 3.0, below: float = 0.3) -> float:
    """What multiplies the learning rate of block `layer` (1..L) at `step`, in progressive transfer.

        background * {0 before its phase, 3 during, 0.3 after}

    Its phase is the steps (layer - 1) * P < step <= layer * P. Source: layer_wise_learning_rate.
    """
    return background_rate(step, steps_per_phase) * _of_phase(step, layer, steps_per_phase, 0.0, current, below)


def layer_gate(step: int, layer: int, steps_per_phase: int) -> float:
    """1 while the loss of block `layer` is on, else 0."""
    return _of_phase(step, layer, steps_per_phase, 0.0, 1.0, 0.0)


def _of_phase(step: int, layer: int, steps_per_phase: int, before: float, during: float, after: float) -> float:
    if layer < 1:
        raise ValueError(f"Blocks are numbered from 1; there is no block {layer}.")
    if step <= (layer - 1) * steps_per_phase:
        return before
    return during if step <= layer * steps_per_phase else after


def layer_groups(student: nn.Module, learning_rate: float) -> list[dict]:
    """Optimiser groups, one per block (key "layer": 1..L) and one for everything else ("layer": None)."""
    blocks = _blocks(student)
    inside = {id(p): layer for layer, block in enumerate(blocks, start=1) for p in block.parameters()}
    groups = [{"params": [], "lr": learning_rate, "layer": layer} for layer in (*range(1, len(blocks) + 1), None)]
    for parameter in student.parameters():
        groups[inside.get(id(parameter), 0) - 1]["params"].append(parameter)  # 0 - 1: the last group
    return groups


def parameter_groups(student: nn.Module, phase: Phase, learning_rate: float, *, current: float = 3.0,
                     below: float = 0.3) -> list[dict]:
    """Groups for one phase: the current block fast, the blocks below slow, the rest still.

    Phases with more than one layer, or with pre-training, train everything at `learning_rate`. Groups with rate 0
    stay in the optimiser: their gradients must still be cleared, and count in the clipping, as in the original.
    """
    groups = layer_groups(student, learning_rate)
    if phase.pretraining or len(phase.layers) != 1:
        return groups
    for group in groups:
        distance = phase.layers[0] - (group["layer"] or float("inf"))
        group["lr"] = learning_rate * (current if distance == 0 else below if distance > 0 else 0.0)
    return groups


def progressive_scheduler(optimizer: torch.optim.Optimizer, steps_per_phase: int) -> torch.optim.lr_scheduler.LambdaLR:
    """All progressive phases in one run, for an optimiser over `layer_groups`: `layer_rate` at every step."""
    def still(_step: int) -> float:
        return 0.0  # embeddings and heads are copied, not trained, during layer transfer

    layers = [group["layer"] for group in optimizer.param_groups]
    rates = [still if layer is None else partial(layer_rate, layer=layer, steps_per_phase=steps_per_phase)
             for layer in layers]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, rates)


def _blocks(student: nn.Module) -> nn.ModuleList:
    for name, module in student.named_modules():
        if name.split(".")[-2:] in (["encoder", "layer"], ["transformer", "layer"]):
            return module
    raise ValueError(f"{type(student).__name__} has no encoder.layer, so its parameters cannot be grouped by block.")
