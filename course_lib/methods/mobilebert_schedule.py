"""MobileBERT, progressive transfer: which block learns how fast, and when (Sun et al. 2020, section 3.6).

Block after block gets its own phase. The blocks below the current one are not frozen: they go on with a small
learning rate, because a block below that stays imperfect would spoil everything above it. `parameter_groups` gives
these rates for one training run per phase, as `mobilebert.phases` lists them. Within a phase the training loop's own
schedule holds; the original warms up over a tenth of each phase, too.

The numbers are those of the original TF1 code (google-research, mobilebert/distill_util.py). The method's record stands
here, because it needs the rates as well as the losses.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from course_lib.methods import mobilebert
from course_lib.methods.mobilebert import Phase
from course_lib.shared.method import Aim, Compared, Job, Measured, Method, Stage, Step, Training, inside, step_of
from course_lib.shared.parts import Batch
from course_lib.shared.probes import Reading
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


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = job.recipe
    names = ("feature_map", "mean", "variance", "attention")
    fast, slow = Training(1e-3, schedule="constant", batch_size=16), Training(1e-3, batch_size=16)
    found = []
    for number, phase in enumerate(mobilebert.phases(recipe, job.layers), start=1):
        training = replace(slow if phase.pretraining else fast, **({"steps": phase.steps} | dict(job.training)))
        found.append(Stage(
            f"phase {number}" + (" (task)" if phase.pretraining else f" (blocks {phase.layers[0]}"
                                 + (f" to {phase.layers[-1]})" if len(phase.layers) > 1 else ")")),
            partial(_mobilebert_terms, teacher=job.teacher, recipe=recipe, phase=phase), training,
            dict.fromkeys(names, "tokens"), groups=partial(_groups, phase=phase)))
    return found


def _mobilebert_terms(student: nn.Module, batch: Batch, *, teacher: nn.Module, recipe, phase) -> dict:
    return mobilebert.terms(student, teacher, batch, recipe, phase)


def _groups(student: nn.Module, learning_rate: float, *, phase) -> list[dict]:
    groups = parameter_groups(student, phase, learning_rate)
    return [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups
            if any(p.requires_grad for p in group["params"])]


def _last_block(student: nn.Module, teacher: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Progressive transfer at its dearest: the last block learns, so both models run to their ends."""
    phase = Phase((len(blocks(student)),), False, 0)
    return mobilebert.terms(student, teacher, batch, mobilebert.MobileBertRecipe(), phase)


def _of_the_last_block(mine: Reading) -> list[Tensor]:
    last = max(mine.queries)
    return [mine.hidden_states[last], mine.queries[last], mine.keys[last]]


def _of_every_block(mine: Reading) -> list[Tensor]:
    return [mine.logits, *list(mine.hidden_states.values())[1:], *mine.queries.values(), *mine.keys.values()]


LAPTOP = mobilebert.MobileBertRecipe("auxiliary", steps_per_layer=40, pretraining_steps=120)

RECORD = Method(
    "mobilebert", "MobileBERT", "Sun et al. 2020", stages,
    {"laptop": LAPTOP, "paper": mobilebert.MobileBertRecipe()}, "ch06", student="mobilebert", needs_labels=True,
    own_student=True,
    steps={"MobileBERT, one block": Step(_last_block, inside(_of_the_last_block)),
           "MobileBERT, all blocks": step_of(mobilebert.terms, inside(_of_every_block))},
    compared={"MobileBERT": Compared("6 thin blocks, labels", "stored answers + live",
                                     Measured("ch06", "progressive"), aim=Aim(97, 5.0, 4.3))},
    claim="GLUE 77.7 against 78.3, 4.3 times smaller, 5.5 times faster", measured=Measured("ch06", "auxiliary"))
