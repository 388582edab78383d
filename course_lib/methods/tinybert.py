"""TinyBERT: Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding" (2020, arXiv 1909.10351).

Every student layer m learns from teacher layer g(m), in four places:

    L_attn = mean over heads of MSE(A_S, A_T)       A = QK^T / sqrt(d), BEFORE the softmax       (eq. 7)
    L_hidn = MSE(H_S W_h, H_T)                      m = 1..M                                     (eq. 8)
    L_embd = MSE(E_S W_e, E_T)                      m = 0                                        (eq. 9)
    L_pred = CE(z_T / t, z_S / t)                   m = M + 1, t = 1                             (eq. 10)

in two stages: general distillation (pre-trained teacher, any text; no prediction term), then task-specific
distillation (fine-tuned teacher, augmented data; first the intermediate terms, then the prediction term alone):

    attach_projection(student, teacher)
    train(student, batches, lambda s, b: terms(s, teacher, b, INTERMEDIATE), ...)
    train(student, batches, lambda s, b: terms(s, teacher, b, PREDICTION), ...)
    detach_projection(student)

The augmentation is in `tinybert_augmentation.py`. Transformers never returns scores; `probes.read` recomputes them.

## Deviations of the original code

| what | paper | code | here |
|---|---|---|---|
| which scores count | one sentence, no padding | scores <= -100 (padded keys) become 0 on both sides; the mean still counts padding, so a longer batch gives a smaller loss. TextBrewer, without a mask: every score <= -0.001 becomes 0 | `as_in="paper"`: real query and real key only, one flat mean; `"code"` |
| which states count | one sentence, no padding | a plain mean, padding included | `as_in="paper"`: real tokens only; `"code"` |
| projections | two, W_e and W_h, matrices | one shared linear layer with bias | `Projection(maps="two")`; `maps="shared", bias=True` |
| L_pred | cross-entropy, one sum over classes | mean over the classes too | `as_in="paper"`; `"code"` |
| what the classifier reads | not said | `classifier(relu(pooled))`: negative halves of the pooled vector are cut off before the last layer | BERT's own head, without the relu: weights of the original code answer differently here |
| g(m) for depths that do not divide | not said | k = floor(L_T / L_S): the top of the teacher is never seen | a ValueError; `layer_maps.uniform(..., when_uneven="round")` |
| the teacher's dropout | off | left on: the teacher stays in train mode | a ValueError |
| last, smaller batch | not said | dropped | kept |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.methods.hinton import soft_cross_entropy
from course_lib.shared import layer_maps, probes
from course_lib.shared.layer_maps import LayerMap
from course_lib.shared.masking import at_least_float32, keep, require_mask, require_same_shape
from course_lib.shared.method import (
    BOTH_TASKS,
    CLASSIFICATION,
    MASKED_LM,
    Aim,
    Compared,
    Job,
    Measured,
    Method,
    Stage,
    Training,
    inside,
    step_of,
)
from course_lib.shared.probes import Reading
from course_lib.shared.projections import Projection
from course_lib.shared.students import require_eval
from course_lib.shared.words import AsIn, require_word

Scores = Float[Tensor, "batch heads queries keys"]
States = Float[Tensor, "batch tokens hidden"]
Mask = Shaped[Tensor, "batch tokens"]
ByLayer = Mapping[int, Tensor] | Sequence[Tensor]

MASKED_KEY = -1e4  # what BERT of that time added to the score of a padded key
ZERO_BELOW = -1e2  # task_distill.py: a score this low must come from a padded key


# --- One pair of layers ----------------------------------------------------------------------------------------------


def attention_loss(student_scores: Scores, teacher_scores: Scores, mask: Mask | None = None, *, as_in: AsIn = "paper"
                   ) -> Float[Tensor, ""]:
    """MSE between the attention scores of two layers, head by head.

        paper   mean over heads and over all (query, key) pairs of real tokens
        code    padded keys get -10,000, scores <= -100 become 0 on both sides, mean over everything

    student_scores, teacher_scores: QK^T / sqrt(d), before the softmax, no mask added (scores that carry a mask of
        -10,000 give the same numbers). The hidden sizes may differ, the head counts may not.
    mask: 1 = a real token.
    Raises: ValueError for other head counts, with two ways out. Source: eq. 7; TinyBERT/task_distill.py.
    """
    _require_same_heads(student_scores, teacher_scores)
    student, teacher = at_least_float32(student_scores), at_least_float32(teacher_scores)
    kept = None if mask is None else require_mask(mask, (student.shape[0], student.shape[-1]), "attention")
    if require_word(as_in, AsIn, "as_in") == "code":
        if kept is not None:
            student, teacher = (x.masked_fill(~kept[:, None, None, :], MASKED_KEY) for x in (student, teacher))
        student, teacher = (x.masked_fill(x <= ZERO_BELOW, 0.0) for x in (student, teacher))
        kept = None
    return attention_equation(student, teacher, torch.mean if kept is None else partial(_mean_of_pairs, kept=kept))


def attention_equation(A_S, A_T, mean=torch.mean):
    """L_attn = mean_a,t (A_S - A_T)^2"""
    difference = A_S - A_T  # A_S - A_T
    return mean(difference.pow(2))  # mean_a,t (A_S - A_T)^2


def _mean_of_pairs(squares: Scores, kept: Mask) -> Float[Tensor, ""]:
    pairs = kept[:, :, None] & kept[:, None, :]  # (B, T, 1) x (B, 1, T) -> (B, T, T)
    return squares.mean(dim=1)[pairs].mean()


def hidden_loss(student: States, teacher: States, mask: Mask | None = None, *, as_in: AsIn = "paper"
                ) -> Float[Tensor, ""]:
    """MSE between the states of two layers that have one width by now (`projections.Projection` sees to that).

        paper   mean over real tokens and hidden units
        code    mean over everything, padding included: the mask is not used

    Raises: ValueError for other widths. Source: eq. 8 and 9; TinyBERT/task_distill.py.
    """
    require_same_shape(student, teacher, "hidden states",
                       "Map the student's side with projections.Projection(student_width, teacher_width), or let "
                       "attach_projection(student, teacher) do it in training.")
    if mask is not None:
        require_mask(mask, student.shape[:-1], "hidden states")
    rows = mask if require_word(as_in, AsIn, "as_in") == "paper" else None
    return hidden_equation(at_least_float32(keep(student, rows)), at_least_float32(keep(teacher, rows)))


def hidden_equation(H_S, H_T):
    """L_hidn = mean_t,i (H_S - H_T)^2"""
    difference = H_S - H_T  # H_S - H_T
    return difference.pow(2).mean()  # mean_t,i (H_S - H_T)^2


def prediction_loss(student_logits: Float[Tensor, "batch classes"], teacher_logits: Float[Tensor, "batch classes"], *,
                    temperature: float = 1.0, as_in: AsIn = "paper") -> Float[Tensor, ""]:
    """Soft cross-entropy with the teacher's prediction, no factor T^2; the code takes the mean over the classes too.

    Source: eq. 10 ("we find t = 1 performs well"); TinyBERT/task_distill.py, `soft_cross_entropy`.
    """
    reduction = "batchmean" if require_word(as_in, AsIn, "as_in") == "paper" else "mean"
    return soft_cross_entropy(student_logits, teacher_logits, temperature=temperature, reduction=reduction)


# --- All pairs of a layer map -----------------------------------------------------------------------------------------


def attention_over_layers(student_scores: ByLayer, teacher_scores: ByLayer, layer_map: LayerMap,
                          mask: Mask | None = None, *, as_in: AsIn = "paper") -> Float[Tensor, ""]:
    """Sum of `attention_loss` over the map. The pair (0, 0) has no attention: skipped.

    student_scores, teacher_scores: {layer: scores}, or a tuple that begins with block 1.
    """
    ours, theirs = (layer_maps.by_layer(scores, first=1) for scores in (student_scores, teacher_scores))
    pairs = layer_maps.check(layer_map, max(ours), max(theirs))
    return _sum(attention_loss(ours[s], theirs[t], mask, as_in=as_in) for s, t in layer_maps.blocks_only(pairs))


def hidden_over_layers(student_states: ByLayer, teacher_states: ByLayer, layer_map: LayerMap,
                       mask: Mask | None = None, *, projection: Projection | None = None, as_in: AsIn = "paper"
                       ) -> Float[Tensor, ""]:
    """Sum of `hidden_loss` over the map.

    student_states, teacher_states: {layer: states}, 0 = the embedding output, or the tuple `hidden_states`.
    projection: brings both sides to one width. None: they have one width already.
    """
    ours, theirs = (layer_maps.by_layer(states, first=0) for states in (student_states, teacher_states))
    total = []
    for s, t in layer_maps.check(layer_map, max(ours), max(theirs)):
        pair = ours[s], theirs[t]
        if projection is not None:
            pair = projection(*pair, layer=s)
        total.append(hidden_loss(*pair, mask, as_in=as_in))
    return _sum(total)


# --- Both models at once ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TinyBertRecipe:
    """Which terms a stage trains, and for how long. All layers weigh the same; a weight of 0 is an ablation."""

    attention_weight: float = 1.0
    hidden_weight: float = 1.0
    embedding_weight: float = 1.0
    prediction_weight: float = 0.0
    temperature: float = 1.0
    layer_map: LayerMap | None = None  # None: layer_maps.uniform of the two depths
    as_in: AsIn = "paper"
    learning_rate: float = 5e-5
    schedule: Literal["linear", "constant"] = "linear"
    epochs: int = 3
    batch_size: int = 32


# Section 4.2. The prediction stage searches batch {16, 32} x rate {1e-5, 2e-5, 3e-5}; this is one point of that grid.
GENERAL = TinyBertRecipe()
INTERMEDIATE = TinyBertRecipe(epochs=20, schedule="constant")
PREDICTION = TinyBertRecipe(attention_weight=0.0, hidden_weight=0.0, embedding_weight=0.0, prediction_weight=1.0,
                            learning_rate=3e-5)


def terms(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], recipe: TinyBertRecipe = INTERMEDIATE,
          projection: Projection | None = None) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms {"attention", "hidden", "embedding", "prediction"}; a term of weight 0 is left out.

    batch: input_ids, attention_mask; labels are not used. projection: default the student's own, if
    `attach_projection` gave it one. Raises: ValueError for a teacher in train mode, other head counts, other widths
    without projection, an impossible layer map.
    """
    with torch.no_grad():
        theirs = probes.read(require_eval(teacher), batch)
    mine = probes.read(student, batch)
    projection = projection or getattr(student, "projection", None)
    layer_map = recipe.layer_map or layer_maps.uniform(max(mine.hidden_states), max(theirs.hidden_states))
    mask, knobs = mine.attention_mask, {"as_in": recipe.as_in}
    embeddings, blocks = tuple(p for p in layer_map if 0 in p), layer_maps.blocks_only(layer_map)
    out = {}
    if recipe.attention_weight:
        out["attention"] = recipe.attention_weight * attention_over_layers(
            mine.attention_scores, theirs.attention_scores, blocks, mask, **knobs)
    for name, weight, pairs in (("hidden", recipe.hidden_weight, blocks),
                                ("embedding", recipe.embedding_weight, embeddings)):
        if weight and pairs:
            out[name] = weight * hidden_over_layers(mine.hidden_states, theirs.hidden_states, pairs, mask,
                                                 projection=projection, **knobs)
    if recipe.prediction_weight:
        if mine.logits is None or theirs.logits is None:
            raise ValueError("The prediction term needs a head on both models; a bare BertModel has none.")
        out["prediction"] = recipe.prediction_weight * prediction_loss(
            mine.logits, theirs.logits, temperature=recipe.temperature, **knobs)
    return out


def attach_projection(student: PreTrainedModel, teacher: PreTrainedModel, *, maps: Literal["two", "shared"] = "two",
                      bias: bool = False) -> Projection:
    """Make `student.projection`, so that the training loop trains, clips and saves it with the student.

    Take it off again with `detach_projection` before you save or count the student: it is scaffolding.
    """
    student.projection = Projection(student.config.hidden_size, teacher.config.hidden_size, maps=maps, bias=bias).to(
        student.device, student.dtype)
    return student.projection


def detach_projection(student: PreTrainedModel) -> None:
    """Remove what `attach_projection` added."""
    del student.projection


def _require_same_heads(student: Scores, teacher: Scores) -> None:
    if student.ndim == teacher.ndim == 4 and student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"attention scores: student {tuple(student.shape)} has {student.shape[1]} heads and teacher "
            f"{tuple(teacher.shape)} has {teacher.shape[1]}. TinyBERT compares head with head: build the student with "
            f"new_student(teacher, heads={teacher.shape[1]}), or use MiniLM v2, which cuts both into relation heads.")
    require_same_shape(student, teacher, "attention scores", "Both models must read the same tokens.")


def _sum(losses) -> Tensor:
    losses = list(losses)
    if not losses:
        raise ValueError("The layer map holds no pair for this term: attention needs pairs of blocks (1..L).")
    return torch.stack(losses).sum()


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = job.recipe
    over = {"attention": "token pairs", "hidden": "tokens", "embedding": "tokens"} if recipe.as_in == "paper" else {}
    found = [Stage(
        "inside", lambda student, batch: terms(student, job.teacher, batch, recipe),
        job.numbers(Training(2e-3 if job.narrow else 2e-4, steps=200, schedule="constant"),
              Training(recipe.learning_rate, epochs=recipe.epochs, batch_size=recipe.batch_size,
                       schedule=recipe.schedule)), over, masked=job.task == MASKED_LM,
        before=partial(_with_projection, teacher=job.teacher) if job.narrow else lambda student: None,
        after=detach_projection if job.narrow else lambda student: None)]
    if job.task == CLASSIFICATION:
        last = PREDICTION
        found.append(Stage(
            "prediction", lambda student, batch: {"prediction": prediction_loss(
                probes.logits_of(student, batch), probes.teacher_logits_of(job.teacher, batch),
                temperature=recipe.temperature, as_in=recipe.as_in)},
            job.numbers(Training(1e-3 if job.narrow else 2e-4, steps=150),
                  Training(last.learning_rate, epochs=last.epochs, batch_size=last.batch_size))))
    return found


def _with_projection(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # every process starts with the same one
        attach_projection(student, teacher)


def _all_inside(mine: Reading) -> list[Tensor]:
    return [*mine.hidden_states.values(), *mine.queries.values(), *mine.keys.values()]


_AIM = Aim(96, 9.0, 7.5)

RECORD = Method(
    "tinybert", "TinyBERT", "Jiao et al. 2020", stages,
    {"laptop": INTERMEDIATE, "paper": INTERMEDIATE}, "ch05", tasks=BOTH_TASKS, student="third",
    same_heads=True,
    steps={"TinyBERT, inside": step_of(terms, inside(_all_inside), INTERMEDIATE),
           "TinyBERT, prediction": step_of(terms, inside(lambda mine: [mine.logits]), PREDICTION)},
    compared={"TinyBERT": Compared("2 x 156, labels", "stored answers + live", Measured("ch05", "two stages"),
                                   aim=_AIM),
              "TinyBERT, more text": Compared("2 x 156, labels", "stored answers + live",
                                              Measured("ch05", "augmented text"), True, _AIM)},
    claim="96.8 % of GLUE, 7.5 times smaller, 9.4 times faster", measured=Measured("ch05", "two stages"))
