"""MobileBERT, progressive transfer: which block learns how fast, and when (Sun et al. 2020, section 3.6).

Block after block gets its own phase. The blocks below the current one are not frozen: they go on with a small
learning rate, because a block below that stays imperfect would spoil everything above it. `parameter_groups` gives
these rates for one training run per phase, as `mobilebert.phases` lists them. Within a phase the training loop's own
schedule holds; the original warms up over a tenth of each phase, too.

The numbers are those of the original TF1 code (google-research, mobilebert/distill_util.py).
"""

from __future__ import annotations

from torch import nn

from course_lib.methods.mobilebert import Phase
from course_lib.shared.students import blocks


def layer_groups(student: nn.Module, learning_rate: float) -> list[dict]:
    """Optimiser groups, one per block (key "layer": 1..L) and one for everything else ("layer": None)."""
    stack = blocks(student)
    inside = {id(p): layer for layer, block in enumerate(stack, start=1) for p in block.parameters()}
    groups = [{"params": [], "lr": learning_rate, "layer": layer} for layer in (*range(1, len(stack) + 1), None)]
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
