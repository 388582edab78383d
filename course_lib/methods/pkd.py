"""BERT-PKD: Sun, Cheng, Gan, Liu, "Patient Knowledge Distillation for BERT Model Compression" (2019, arXiv 1908.09355).

The student listens not only to the teacher's last word but to its way of getting there: the [CLS] states between.

    L = (1 - alpha) * L_CE  +  alpha * L_DS  +  beta * L_PT

    L_CE    the true labels
    L_DS    the teacher's softened class distribution
    L_PT    the squared distance between the NORMALISED [CLS] states of matched layers ("patience")

Which layers: "skip" (every second one) or "last" (the last ones); see `layer_maps.skip` and `layer_maps.last`. The last
layer of both models is left out, because L_DS already speaks to it. The student starts as the first blocks of the
PRE-TRAINED model, not of the fine-tuned teacher:

    student = pkd.first_layers_of(pretrained, layers=6)

The teacher never changes, so its outputs can be computed once: put `pkd.teacher_outputs` of every batch into the
examples as `teacher_logits` and `teacher_cls`, and `terms` runs no teacher.

## Deviations of the original code

| what | paper | code | here |
|---|---|---|---|
| patience | sum over layers and hidden units | mean over examples, layers AND hidden units: 1/(layers * hidden) of the paper's; hence beta up to 1000. TextBrewer: the paper's sum over hidden units | `as_in="paper"`; `"code"` |
| sum over examples | written as a sum | mean | mean in both readings, as for every other loss |
| number format of the patience | none | returned as float16 | the precision of the inputs, at least float32 |
| L_DS | cross-entropy with soft targets, no factor T^2 | `KLDivLoss(reduction="mean")` (divides by the classes too), times T^2 | `as_in="paper"`; `"code"` |
| order of the examples | not said | cached once and never shuffled | shuffled: `batches.Batches` |
| dropout of the student | yes | only in the first epoch | the training loop calls `train()` before every step |
| accumulation | none | divides the loss after `backward`, so that it has no effect | the training loop divides before |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.methods.hinton import hard_loss, soft_cross_entropy, soft_target_loss
from course_lib.shared import layer_maps, probes
from course_lib.shared.layer_maps import LayerMap
from course_lib.shared.masking import at_least_float32, batchmean, require_same_shape
from course_lib.shared.method import QUICK, Aim, Compared, Job, Measured, Method, Stage, Training, inside, step_of
from course_lib.shared.probes import Reading
from course_lib.shared.starts import copy_layers
from course_lib.shared.students import blocks, new_student, require_eval
from course_lib.shared.words import AsIn, require_word

Cls = Float[Tensor, "batch layers hidden"]
Logits = Float[Tensor, "batch classes"]

# Section 4.2: first fix alpha and T with beta = 0 (plain distillation), then search beta with both held.
ALPHA_GRID = (0.2, 0.5, 0.7)
TEMPERATURE_GRID = (5, 10, 20)
BETA_GRID = (10, 100, 500, 1000)
LEARNING_RATE_GRID = (5e-5, 2e-5, 1e-5)


def patience_loss(student_cls: Cls, teacher_cls: Cls, *, normalise: bool = True, as_in: AsIn = "paper"
                  ) -> Float[Tensor, ""]:
    """How far apart the [CLS] states of matched layers are.

        paper   mean over examples of  sum_j || h_S,j / ||h_S,j||  -  h_T,j / ||h_T,j|| ||^2
        code    the same squares, mean over examples, layers and hidden units

    student_cls, teacher_cls: (batch, layers, hidden), already matched: slot j of one learns from slot j of the other
        (`matched_cls` picks them). Only [CLS] is compared, so there is no padding and no mask.
    normalise: False compares the raw states, whose lengths then dominate the loss.
    Raises: ValueError for other widths, depths or batches. Source: eq. 7; src/KD_loss.py, `patience_loss`.
    """
    require_same_shape(student_cls, teacher_cls, "patience",
                       "PKD has no projection: take a student of the teacher's width, or map one side with "
                       "projections.Projection first. Other layer counts: match them with matched_cls.")
    mean = batchmean if require_word(as_in, AsIn, "as_in") == "paper" else torch.mean
    equation = patience_equation if normalise else raw_patience_equation
    return equation(at_least_float32(student_cls), at_least_float32(teacher_cls), mean)


def patience_equation(h_S, h_T, mean=batchmean):
    """L_PT = mean_n sum_j || u_S - u_T ||^2"""
    u_S = F.normalize(h_S, dim=-1)  # u_S = h_S / ||h_S||
    u_T = F.normalize(h_T, dim=-1)  # u_T = h_T / ||h_T||
    return mean((u_S - u_T).pow(2))  # mean_n sum_j || u_S - u_T ||^2


def raw_patience_equation(h_S, h_T, mean=batchmean):
    """L = mean_n sum_j || h_S - h_T ||^2"""
    difference = h_S - h_T  # h_S - h_T
    return mean(difference.pow(2))  # mean_n sum_j || h_S - h_T ||^2


def soft_loss(student_logits: Logits, teacher_logits: Logits, *, temperature: float, as_in: AsIn = "paper"
              ) -> Float[Tensor, ""]:
    """L_DS: the teacher's softened distribution.

        paper   - sum_c softmax(z_T / T)_c * log softmax(z_S / T)_c, mean over examples
        code    T^2 * KL, mean over examples AND classes

    Raises: as `hinton.soft_target_loss`. Source: eq. 4; src/KD_loss.py, `distillation_loss`.
    """
    if require_word(as_in, AsIn, "as_in") == "paper":
        return soft_cross_entropy(student_logits, teacher_logits, temperature=temperature)
    return soft_target_loss(student_logits, teacher_logits, temperature=temperature, reduction="mean")


def logit_terms(student_logits: Logits, teacher_logits: Logits | None, labels: Int[Tensor, " batch"] | None, *,
                temperature: float, alpha: float, as_in: AsIn = "paper") -> dict[str, Float[Tensor, ""]]:
    """Plain distillation, PKD's baseline: (1 - alpha) * L_CE + alpha * L_DS, as weighted terms {"soft", "hard"}.

    A weight of 0 removes its term. Raises: ValueError for an alpha outside 0..1, or for a missing tensor that a term
    needs. Source: eq. 6; src/KD_loss.py, `distillation_loss`.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: it divides the weight between labels (1 - alpha) and teacher (alpha), 0..1.")
    out = {}
    if alpha:
        if teacher_logits is None:
            raise ValueError("teacher_logits are missing. Give them, or set alpha=0.")
        out["soft"] = alpha * soft_loss(student_logits, teacher_logits, temperature=temperature, as_in=as_in)
    if alpha < 1:
        if labels is None:
            raise ValueError("labels are missing. Give them, or set alpha=1.")
        out["hard"] = (1 - alpha) * hard_loss(student_logits, labels)
    return out


# --- Both models at once ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PkdRecipe:
    """One point of the published grids; batch 32, 4 epochs.

    `as_in="code"`, because the published beta belongs to the code's mean: in the paper's form the same pull needs
    beta / (layers * hidden).
    """

    alpha: float = 0.5
    temperature: float = 10.0
    beta: float = 100.0
    layer_map: LayerMap | None = None  # None: layer_maps.skip of the two depths
    normalise: bool = True
    as_in: AsIn = "code"
    learning_rate: float = 2e-5
    batch_size: int = 32
    epochs: int = 4


def terms(student: nn.Module, teacher: nn.Module | None, batch: dict[str, Tensor], recipe: PkdRecipe | None = None
          ) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms {"soft", "hard", "patience"} of one batch; a term of weight 0 is left out.

    batch: input_ids, attention_mask, labels; with `teacher_logits` and `teacher_cls` from `teacher_outputs` in it, the
    teacher may be None. Raises: ValueError for a teacher in train mode, other widths, an impossible layer map.
    """
    recipe = recipe or PkdRecipe()
    theirs = _cached(batch) or teacher_outputs(teacher, batch)
    mine = probes.read(student, batch)
    out = logit_terms(mine.logits, theirs["teacher_logits"], batch.get("labels"), temperature=recipe.temperature,
                      alpha=recipe.alpha, as_in=recipe.as_in)
    if recipe.beta:
        depths = max(mine.hidden_states), theirs["teacher_cls"].shape[1]
        layer_map = layer_maps.check(recipe.layer_map or layer_maps.skip(*depths), *depths)
        teacher_states = dict(enumerate(theirs["teacher_cls"].unsqueeze(2).unbind(dim=1), start=1))
        out["patience"] = recipe.beta * patience_loss(*matched_cls(mine.hidden_states, teacher_states, layer_map),
                                                      normalise=recipe.normalise, as_in=recipe.as_in)
    return out


def matched_cls(student_states: Mapping[int, Float[Tensor, "batch tokens hidden"]],
                teacher_states: Mapping[int, Float[Tensor, "batch tokens hidden"]], layer_map: LayerMap
                ) -> tuple[Cls, Cls]:
    """The [CLS] states (position 0) of every pair of the map, as two tensors (batch, pairs, hidden).

    Raises: ValueError for layer 0: the embedding of [CLS] is the same for every sentence and teaches nothing.
    """
    if any(0 in pair for pair in layer_map):
        raise ValueError(f"{layer_map} names layer 0. The embedding of [CLS] is the same vector for every sentence; "
                         "use layer_maps.blocks_only(layer_map).")
    student = torch.stack([student_states[s][:, 0] for s, _ in layer_map], dim=1)  # L x (B, hidden) -> (B, L, hidden)
    teacher = torch.stack([teacher_states[t][:, 0] for _, t in layer_map], dim=1)
    return student, teacher


@torch.no_grad()
def teacher_outputs(teacher: nn.Module | None, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What PKD needs of the teacher: teacher_logits (batch, classes), teacher_cls (batch, layers 1..L, hidden)."""
    if teacher is None:
        raise ValueError("There is no teacher, and the batch lacks teacher_logits or teacher_cls. Give one of them.")
    reading = probes.read(require_eval(teacher), batch)
    layers = range(1, max(reading.hidden_states) + 1)
    return {"teacher_logits": reading.logits,
            "teacher_cls": torch.stack([reading.hidden_states[layer][:, 0] for layer in layers], dim=1)}


def _cached(batch: dict[str, Tensor]) -> dict[str, Tensor] | None:
    names = ("teacher_logits", "teacher_cls")
    # A cache is often stored in float16, which a bfloat16 student under autocast cannot be stacked with.
    return {name: at_least_float32(batch[name]) for name in names} if all(name in batch for name in names) else None


def first_layers_of(pretrained: PreTrainedModel, layers: int, *, seed: int | None = None) -> PreTrainedModel:
    """A student of the model's class: embeddings and first blocks copied, its task head fresh (section 4.2).

    pretrained: give it the task's class, e.g. `BertForSequenceClassification` with the PRE-TRAINED encoder.
    """
    student = new_student(pretrained, layers=layers, seed=seed)
    copy_layers(student, pretrained, layer_maps.bottom(layers, len(blocks(pretrained))))
    return student


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = job.recipe
    paper = Training(recipe.learning_rate, epochs=recipe.epochs, batch_size=recipe.batch_size)
    return [Stage("distillation", lambda student, batch: terms(student, job.teacher, batch, recipe),
                  job.numbers(QUICK, paper))]


def _matched_cls(mine: Reading) -> list[Tensor]:
    """The blocks that PKD-skip pairs with a block of the teacher: all but the last."""
    return [mine.logits, *(mine.hidden_states[layer][:, 0] for layer in list(mine.hidden_states)[1:-1])]


RECORD = Method(
    "pkd", "PKD", "Sun et al. 2019", stages,
    {"laptop": PkdRecipe(temperature=4.0, beta=1000.0), "paper": PkdRecipe()}, "ch04", needs_labels=True,
    cache=("teacher_logits", "teacher_cls"), copies=layer_maps.bottom,
    steps={"PKD": step_of(terms, inside(_matched_cls))},
    compared={"PKD": Compared("3 x 384, labels", "stored states", Measured("ch04", "PKD-skip"), aim=Aim(98, 1.9))},
    claim="SST-2 92.0 at 6 layers, 1.94 times faster", measured=Measured("ch04", "PKD-skip"))
