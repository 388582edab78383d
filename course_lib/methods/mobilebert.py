"""MobileBERT: Sun et al. 2020 (arXiv 2004.02984), section 3.5 and 3.6: how the thin student learns from the fat teacher.

Student and teacher (`mobilebert_model.py`) have the same body width and the same heads, so they can be
compared block by block, without projections. For every block l:

    feature map    100   mean over features of (norm(H_T) - norm(H_S))^2     norm: LayerNorm without parameters
    mean          5000   (mean(H_T) - mean(H_S))^2                            what the normalisation took away
    variance         5   |var(H_T) - var(H_S)|
    attention        1   KL(attention_T || attention_S) per head

divided by the number of layers. Afterwards comes pre-training distillation: the masked-LM target is half the true
word, half the teacher's distribution, plus next-sentence prediction. Three strategies order these steps: auxiliary
(everything in one sum), joint (all blocks at once, then pre-training), progressive (block after block, then
pre-training; its learning rates are in `mobilebert_schedule.py`). In the paper progressive and joint transfer are close,
and only the auxiliary one is clearly lower (table 8). The embeddings and the classifier are copied, not learned.

There are two published codes. `as_in="code"` is the TF2 port (tensorflow/models, official/projects/mobilebert), and so is
"code" in the table where no other name stands. The first one, TF1 (google-research, mobilebert), is a mixture that no
single word sets; write its sum from the parts, with recipe.as_in="paper" for all else:

    feature map       100 * feature_map_mse(student, teacher, mask)                      epsilon 1e-12, as the paper
    mean, variance    5000 and 5 * over_all_teacher_layers(mean_difference, student, teacher_layers, mask)
    attention         attention_transfer(student_scores, teacher_scores, mask, as_in="code")          cross-entropy
    everything        divided by the number of layers; masked LM with as_in="code"                 denominator + 1e-5

## Deviations of the original code

| what | paper | code | here |
|---|---|---|---|
| feature map | eq. 2: squared difference of the raw features; the text then splits it into normalised features and their statistics | the split, always | `normalise=True`; `False` is eq. 2 |
| epsilon of that normalisation | none | 1e-12 (TF1), 1e-3 (TF2, the Keras default) | `as_in="paper"`: 1e-12; `"code"`: 1e-3 |
| mean over tokens | yes | TF1: yes. TF2: the loss stays a [batch, length] tensor, so its gradient is the SUM over tokens, of all four terms | `over_tokens="mean"`; `"sum"` repeats TF2 |
| attention transfer | KL | cross-entropy: same gradient, but never 0 | `as_in` |
| scores in the attention transfer | before the softmax | TF1: scores, with padded keys at -6. TF2: Keras returns probabilities, so a softmax is taken of a softmax | scores; padded keys and padded queries are left out if a mask is given |
| mean and variance of the teacher | of one layer | TF1: of the list of all layers where one was meant (fixed in TF2) | one layer; `over_all_teacher_layers` repeats TF1 |
| division | number of layers | TF1: number of layers. TF2: stage + 1, so later blocks count less | `divide_by`; `terms` follows `as_in` |
| layers below the current one | a small learning rate instead of a freeze | TF1: 0.3 against 3.0. TF2: the same rate as the current one | `mobilebert_schedule.parameter_groups(current=3.0, below=0.3)` |
| denominator of the masked-LM loss | number of masked positions | + 1e-5 | `as_in` |
| distillation temperature | none | TF1 multiplies the teacher's last hidden state by it, before a LayerNorm that takes the factor out again | `temperature` divides the teacher's logits |
| padded keys inside the model | no attention | TF1: a score of -6, so they keep a weight of about e^-6 | no attention, as in transformers |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from course_lib.methods.hinton import hard_loss, require_temperature
from course_lib.shared import probes
from course_lib.shared.masking import IGNORED, at_least_float32, masked_mean, require_mask, require_same_shape
from course_lib.shared.probes import Reading
from course_lib.shared.students import require_eval
from course_lib.shared.words import AsIn, require_word

OverTokens = Literal["mean", "sum"]
Strategy = Literal["auxiliary", "joint", "progressive"]
Features = Float[Tensor, "batch tokens body"]
Scores = Float[Tensor, "batch heads queries keys"]
Mask = Shaped[Tensor, "batch tokens"]
Terms = dict[str, Float[Tensor, ""]]

EPSILON = {"paper": 1e-12, "code": 1e-3}
SAME_BODY = ("MobileBERT compares features without a projection: give both models the same body width "
             "(mobilebert_model.student_config_for builds a student that fits a plain BERT).")
SAME_HEADS = "Attention is compared head by head: give the student the teacher's num_attention_heads."


# --- What one block learns ------------------------------------------------------------------------------------------


def feature_map_mse(student: Features, teacher: Features, mask: Mask | None = None, *, normalise: bool = True,
                    as_in: AsIn = "paper", over_tokens: Literal["mean", "sum", "none"] = "mean"
                    ) -> Float[Tensor, ""] | Float[Tensor, "batch tokens"]:
    """Feature map transfer (FMT): squared difference of the blocks' outputs, mean over the body's features.

        1/(T N) * sum_t sum_n (norm(H_T)[t, n] - norm(H_S)[t, n])^2

    student, teacher: (batch, tokens, body). mask: 1 = a real token.
    normalise: False compares the raw features (eq. 2). as_in: sets the epsilon, see the table above.
    over_tokens: "mean"; "sum", which is what TF2 differentiates; "none" returns the (batch, tokens) tensor.
    Raises: ValueError for other shapes, with the way out; for an empty mask.
    Source: paper eq. 2 and the text below it; code: build_losses.
    """
    student, teacher = _same(student, teacher, "feature map", SAME_BODY)
    eps = EPSILON[require_word(as_in, AsIn, "as_in")]
    require_word(over_tokens, ("mean", "sum", "none"), "over_tokens")

    def mean(per_token: Float[Tensor, "batch tokens"]) -> Tensor:
        if over_tokens == "none":
            return per_token
        return masked_mean(per_token, mask) * _summed_positions(per_token, mask, over_tokens)

    if normalise:
        return feature_map_equation(student, teacher, eps, mean)
    return raw_feature_map_equation(student, teacher, mean)


def feature_map_equation(H_S, H_T, eps=EPSILON["paper"], mean=torch.mean):
    """L_FMT = mean_t mean_n (norm(H_T) - norm(H_S))^2"""
    norm_S = F.layer_norm(H_S, H_S.shape[-1:], eps=eps)  # norm(H_S)
    norm_T = F.layer_norm(H_T, H_T.shape[-1:], eps=eps)  # norm(H_T)
    squares = (norm_S - norm_T).square()  # (norm(H_T) - norm(H_S))^2
    return mean(squares.mean(dim=-1))  # mean_t mean_n: (B, T, N) -> ()


def raw_feature_map_equation(H_S, H_T, mean=torch.mean):
    """L_FMT = mean_t mean_n (H_T - H_S)^2"""
    squares = (H_S - H_T).square()  # (H_T - H_S)^2
    return mean(squares.mean(dim=-1))  # mean_t mean_n


def mean_difference(student: Features, teacher: Features, mask: Mask | None = None) -> Float[Tensor, ""]:
    """Squared difference of the features' means, mean over tokens: ("beta loss" in the code)."""
    return mean_equation(*_same(student, teacher, "feature mean", SAME_BODY), partial(masked_mean, mask=mask))


def mean_equation(H_S, H_T, mean=torch.mean):
    """L_mean = mean_t (mu_S - mu_T)^2"""
    mu_S = H_S.mean(dim=-1)  # mu_S = mean_n H_S: (B, T, N) -> (B, T)
    mu_T = H_T.mean(dim=-1)  # mu_T = mean_n H_T
    return mean((mu_S - mu_T).square())  # mean_t (mu_S - mu_T)^2


def variance_difference(student: Features, teacher: Features, mask: Mask | None = None) -> Float[Tensor, ""]:
    """Absolute difference of the features' variances, mean over tokens ("gamma loss" in the code)."""
    return variance_equation(*_same(student, teacher, "feature variance", SAME_BODY), partial(masked_mean, mask=mask))


def variance_equation(H_S, H_T, mean=torch.mean):
    """L_var = mean_t | var(H_S) - var(H_T) |"""
    var_S, var_T = _variance(H_S), _variance(H_T)  # var(H_S), var(H_T)
    return mean((var_S - var_T).abs())  # mean_t | var(H_S) - var(H_T) |


def _variance(h: Features) -> Float[Tensor, "batch tokens"]:
    # Written out: on a processor it takes half the time of torch.var.
    return (h - h.mean(dim=-1, keepdim=True)).square().mean(dim=-1)


def over_all_teacher_layers(difference: Callable[..., Tensor], student: Features, teacher_layers: Sequence[Features],
                            mask: Mask | None = None) -> Float[Tensor, ""]:
    """What TF1 computes for `mean_difference` and `variance_difference`: the list where one layer was meant.

    TensorFlow stacks the list and broadcasts, so the student's one block is pulled towards the statistics of all
    teacher layers (embedding output included) on average. Nothing fails; that is why it stayed.
    """
    return torch.stack([difference(student, teacher, mask) for teacher in teacher_layers]).mean()


def attention_transfer(student_scores: Scores, teacher_scores: Scores, mask: Mask | None = None, *,
                       as_in: AsIn = "paper") -> Float[Tensor, ""]:
    """Attention transfer (AT): the student's heads look where the teacher's heads look.

        paper  1/(T A) sum_t sum_a KL(softmax(A_T) || softmax(A_S))        code  - sum softmax(A_T) log softmax(A_S)

    student_scores, teacher_scores: before the softmax, no mask added. mask: padded keys leave both softmaxes, padded
    queries leave the mean. Source: paper eq. 3; code: _get_attention_loss.
    """
    student_scores, teacher_scores = _same(student_scores, teacher_scores, "attention", SAME_HEADS)
    padded = torch.zeros_like(student_scores[:, :1, :1], dtype=torch.bool)
    if mask is not None:
        padded = ~require_mask(mask, student_scores.shape[::3], "attention")[:, None, None, :]  # (B, 1, 1, keys)
    lowest = torch.finfo(student_scores.dtype).min
    equation = {"paper": attention_equation, "code": attention_cross_entropy_equation}
    return equation[require_word(as_in, AsIn, "as_in")](
        *(scores.masked_fill(padded, lowest) for scores in (student_scores, teacher_scores)),
        partial(masked_mean, mask=mask))


def attention_equation(A_S, A_T, mean=torch.mean):
    """L_AT = mean_t mean_a KL(p || q)"""
    log_p = A_T.log_softmax(dim=-1)  # p = softmax(A_T)
    log_q = A_S.log_softmax(dim=-1)  # q = softmax(A_S)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)  # KL(p || q)
    return mean(kl.mean(dim=1))  # mean_t mean_a: (B, A, T) -> (B, T) -> ()


def attention_cross_entropy_equation(A_S, A_T, mean=torch.mean):
    """L = mean_t mean_a sum_i - p_i log q_i"""
    p = A_T.log_softmax(dim=-1).exp()  # p_i = softmax(A_T)
    log_q = A_S.log_softmax(dim=-1)  # log q_i = log softmax(A_S)
    cross_entropy = -(p * log_q).sum(dim=-1)  # sum_i - p_i log q_i
    return mean(cross_entropy.mean(dim=1))  # mean_t mean_a


def layer_transfer(student: Features, teacher: Features, student_scores: Scores, teacher_scores: Scores,
                   mask: Mask | None = None, *, divide_by: int = 1, feature_map_weight: float = 100.0,
                   mean_weight: float = 5000.0, variance_weight: float = 5.0, attention_weight: float = 1.0,
                   as_in: AsIn = "paper", over_tokens: OverTokens = "mean") -> Terms:
    """All that one block learns: the weighted terms; their sum is the loss of this block.

    divide_by: the number of layers; TF2 divides by stage + 1, which is this block's layer number.
    over_tokens: "sum" multiplies every term by the number of (kept) positions, as TF2's gradient does.
    A term with weight 0 is left out. Source of the weights: LayerWiseDistillConfig in the TF2 code.
    """
    losses = {  # computed only where the weight asks for it
        "feature_map": (feature_map_weight, lambda: feature_map_mse(student, teacher, mask, as_in=as_in)),
        "mean": (mean_weight, lambda: mean_difference(student, teacher, mask)),
        "variance": (variance_weight, lambda: variance_difference(student, teacher, mask)),
        "attention": (attention_weight, lambda: attention_transfer(student_scores, teacher_scores, mask, as_in=as_in)),
    }
    scale = _summed_positions(student[..., 0], mask, over_tokens) / divide_by
    return {name: weight * scale * loss() for name, (weight, loss) in losses.items() if weight}


def _same(student: Tensor, teacher: Tensor, what: str, way_out: str) -> tuple[Tensor, Tensor]:
    require_same_shape(student, teacher, what, way_out)
    return at_least_float32(student), at_least_float32(teacher)


def _summed_positions(per_token: Tensor, mask: Tensor | None, over_tokens: str) -> float:
    if require_word(over_tokens, OverTokens, "over_tokens") == "mean":
        return 1.0
    return float(per_token.numel() if mask is None else mask.bool().sum())


# --- Pre-training distillation --------------------------------------------------------------------------------------


def masked_lm_mixture(student_logits: Float[Tensor, "*where vocab"], teacher_logits: Float[Tensor, "*where vocab"],
                      labels: Int[Tensor, "*where"], mask: Shaped[Tensor, "*where"] | None = None, *,
                      hard_weight: float = 0.5, temperature: float = 1.0, as_in: AsIn = "paper") -> Float[Tensor, ""]:
    """Cross-entropy against a target that is partly the true word and partly the teacher's guess.

        target = hard_weight * one_hot(label) + (1 - hard_weight) * softmax(z_T / T)
        loss   = sum_i w_i CE(target_i, softmax(z_S,i)) / sum_i w_i

    labels: the true words; -100 = not masked, does not count.
    mask: weights w per position; default: 1 where there is a label.
    Raises: ValueError for other vocabularies, a hard_weight outside 0..1, no masked position, a weight without label.
    Source: paper eq. 4; code: get_masked_lm_output (TF1), build_losses (TF2).
    """
    require_same_shape(student_logits, teacher_logits, "masked LM", "Both models need the same vocabulary.")
    if not 0 <= hard_weight <= 1:
        raise ValueError(f"hard_weight is the share of the true word, between 0 and 1, not {hard_weight}.")
    temperature = require_temperature(temperature)
    weights = labels != IGNORED if mask is None else mask
    kept = require_mask(weights, student_logits.shape[:-1], "masked LM")
    true = labels[kept]
    if (true == IGNORED).any():
        raise ValueError("masked LM: the mask keeps positions whose label is -100 (no word was masked there).")
    extra = 1e-5 if require_word(as_in, AsIn, "as_in") == "code" else 0.0
    weights = weights[kept].to(at_least_float32(student_logits).dtype)
    return mixture_equation(
        at_least_float32(student_logits[kept]), at_least_float32(teacher_logits[kept]), true, hard_weight, temperature,
        lambda per_position: (weights * per_position).sum() / (weights.sum() + extra))


def mixture_equation(z_S, z_T, y, a, T, mean=torch.mean):
    """L = mean_n ( a CE(y, q) + (1 - a) CE(p, q) )"""
    log_q = z_S.log_softmax(dim=-1)  # q = softmax(z_S): (N, V)
    p = ((z_T - z_T.amax(dim=-1, keepdim=True)) / T).softmax(dim=-1)  # p
    hard = -log_q.gather(-1, y[:, None]).squeeze(-1)  # CE(y, q)
    soft = -(p * log_q).sum(dim=-1)  # CE(p, q)
    return mean(a * hard + (1 - a) * soft)  # mean_n, a, (1 - a)


def next_sentence_loss(student_logits: Float[Tensor, "batch 2"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Whether the second sentence follows (0) or was drawn at random (1): plain cross-entropy, no teacher."""
    return hard_loss(student_logits, labels)


# --- Strategies: what is learned when -------------------------------------------------------------------------------


@dataclass(frozen=True)
class MobileBertRecipe:
    """The paper's and the original configuration's choices."""

    strategy: Strategy = "progressive"
    feature_map_weight: float = 100.0
    mean_weight: float = 5000.0
    variance_weight: float = 5.0
    attention_weight: float = 1.0
    hard_weight: float = 0.5
    steps_per_layer: int = 10_000
    pretraining_steps: int = 500_000
    layer_map: tuple[tuple[int, int], ...] | None = None  # (student layer, teacher layer); None: block by block
    as_in: AsIn = "paper"
    over_tokens: OverTokens = "mean"


@dataclass(frozen=True)
class Phase:
    """One stretch of training: which student layers learn by layer transfer, and whether pre-training is in the sum."""

    layers: tuple[int, ...]
    pretraining: bool
    steps: int


def phases(recipe: MobileBertRecipe, student_layers: int) -> list[Phase]:
    """The phases of a strategy, in order. Train each with its own call of the training loop:

        for phase in phases(recipe, layers):
            train(student, batches, lambda s, b: terms(s, teacher, b, recipe, phase), Recipe(steps=phase.steps),
                  parameters=mobilebert_schedule.parameter_groups(student, phase, learning_rate))
    """
    every = tuple(range(1, student_layers + 1))
    transfer, pretraining = student_layers * recipe.steps_per_layer, Phase((), True, recipe.pretraining_steps)
    match require_word(recipe.strategy, Strategy, "strategy"):
        case "auxiliary":
            return [Phase(every, True, transfer + recipe.pretraining_steps)]
        case "joint":
            return [Phase(every, False, transfer), pretraining]
        case "progressive":
            return [Phase((layer,), False, recipe.steps_per_layer) for layer in every] + [pretraining]


def terms(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], recipe: MobileBertRecipe | None = None,
          phase: Phase | None = None) -> Terms:
    """The weighted terms of one batch in one phase; default phase: everything at once (auxiliary).

    Layer transfer needs no labels. Pre-training distillation needs `labels` (-100 = not masked); with a
    `next_sentence_label` in the batch and a student that has the head, next-sentence prediction joins.
    """
    recipe = recipe or MobileBertRecipe()
    with torch.no_grad():
        theirs = probes.read(require_eval(teacher), batch)
    mine = probes.read(student, batch)
    layers = tuple(mine.queries)
    phase = phase or Phase(layers, True, 0)
    found: Terms = {}
    for layer in phase.layers:
        # TF2 divides by stage + 1, and stage s trains block s + 1
        divide_by = layer if recipe.as_in == "code" and recipe.strategy == "progressive" else len(layers)
        for name, loss in _transfer(mine, theirs, layer, recipe, divide_by).items():
            found[name] = found.get(name, 0.0) + loss
    return found | (_pretraining(mine, theirs, batch, recipe) if phase.pretraining else {})


def _transfer(mine: Reading, theirs: Reading, layer: int, recipe: MobileBertRecipe, divide_by: int) -> Terms:
    layer_map = dict(recipe.layer_map or ())
    if not layer_map and len(mine.queries) != len(theirs.queries):
        raise ValueError(f"The student has {len(mine.queries)} blocks and the teacher {len(theirs.queries)}. "
                         "MobileBERT pairs them one to one; give recipe.layer_map, e.g. layer_maps.uniform(...).")
    other = layer_map.get(layer, layer)
    if layer not in mine.queries or other not in theirs.queries:
        raise ValueError(f"Layer pair ({layer}, {other}): the student has layers 1 to {len(mine.queries)}, the teacher "
                         f"1 to {len(theirs.queries)}.")
    return layer_transfer(
        mine.hidden_states[layer], theirs.hidden_states[other], mine.attention_scores[layer],
        theirs.attention_scores[other], mine.attention_mask, divide_by=divide_by,
        feature_map_weight=recipe.feature_map_weight, mean_weight=recipe.mean_weight,
        variance_weight=recipe.variance_weight, attention_weight=recipe.attention_weight, as_in=recipe.as_in,
        over_tokens=recipe.over_tokens)


def _pretraining(mine: Reading, theirs: Reading, batch: dict[str, Tensor], recipe: MobileBertRecipe) -> Terms:
    if "labels" not in batch or mine.logits is None or theirs.logits is None:
        raise ValueError("Pre-training distillation needs `labels` in the batch and a head on both models.")
    name = "masked_lm" if mine.logits.ndim == 3 else "prediction"  # the same mixture serves a sentence classifier
    found = {name: masked_lm_mixture(mine.logits, theirs.logits, batch["labels"], hard_weight=recipe.hard_weight,
                                     as_in=recipe.as_in)}
    next_sentence = getattr(mine.output, "next_sentence_logits", None)
    if next_sentence is not None and "next_sentence_label" in batch:
        found["next_sentence"] = next_sentence_loss(next_sentence, batch["next_sentence_label"])
    return found


# --- Copied, not learned --------------------------------------------------------------------------------------------


@torch.no_grad()
def copy_outside_blocks(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Copy embeddings, pooler and heads from the teacher and return what was copied; the blocks stay as they are.

    True copies: training the student does not touch the teacher. What has no counterpart of the same shape stays.
    Raises: ValueError if the word embeddings do not fit. Source: section 3.6; init_embedding in the TF1 code.
    """
    theirs = {_without_prefix(name): tensor for name, tensor in teacher.state_dict().items()}
    copied = []
    for name, tensor in student.state_dict().items():
        other = theirs.get(_without_prefix(name))
        if ".layer." in name or other is None:
            continue
        if other.shape == tensor.shape:
            tensor.copy_(other)
            copied.append(name)
        elif name.endswith("word_embeddings.weight"):
            raise ValueError(f"word embeddings: student {tuple(tensor.shape)} and teacher {tuple(other.shape)} differ. "
                             f"Build the student with embedding_size={other.shape[1]} and trigram_input=False, or "
                             "factorise the teacher's table (starts.factorise_embeddings).")
    return copied


def _without_prefix(name: str) -> str:
    first, _, rest = name.partition(".")
    return rest if first in ("mobilebert", "bert") else name
