"""DistilBERT: Sanh, Debut, Chaumond, Wolf 2019 (arXiv 1910.01108).

Distil during pre-training: a student of half the depth reads the same masked text as its teacher.

    L = soft_weight * L_ce  +  mlm_weight * L_mlm  +  cosine_weight * L_cos

    L_ce    the teacher's softened distribution over the vocabulary, at every real token
    L_mlm   the hidden words themselves, at the masked positions
    L_cos   1 - cos(h_S, h_T), the direction of the last hidden state, at every real token

The student is BERT without token-type embeddings and without pooler (section 3, "Student architecture"). It starts as a
copy: embeddings, masked-LM head and every second block of the teacher. Without that copy the paper loses 3.69 points,
more than without any of the three losses (Table 4).

Two parts of the recipe live elsewhere, because other papers need them too: masks drawn anew for every batch
(`batches.MaskedBatch`), and large batches by gradient accumulation (`training.Recipe.accumulate`).

## Deviations of the original code

| what | paper | code | here |
|---|---|---|---|
| blocks that are copied | "one layer out of two" | zero-based 0, 2, 4, 7, 9, 11: both ends are kept | `layer_maps.distilbert(..., as_in="paper")`; `"code"` repeats the script |
| form of L_ce | cross-entropy with the softened teacher | KL divergence, mean per token, times T^2 | as the code: the gradient is that of T^2 times the cross-entropy, and 0 means perfect |
| where L_ce counts | not said | all real tokens; with `--restrict_ce_to_mask` only masked positions | `positions="all"`; `"masked"` |
| token-type embeddings | removed | dropped: the student's first embedding sum misses a vector that the teacher always adds | `token_types="fold"` adds the vector of type 0 to every position; `"drop"` repeats the script |
| fourth term | none | MSE of the selected logits, summed over the vocabulary, mean per row; weight 0 in the published recipe | `logit_mse`, weight 0 |
| weights | "a linear combination" | 5 (L_ce), 2 (L_mlm), 1 (L_cos) | 5, 2, 1 |
| which tokens are masked | 15 %, as RoBERTa | 15 %, rare tokens more often: probability ~ count^-0.7 | uniform 15 % (`batches.mask_tokens`) |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
    PreTrainedModel,
)

from course_lib.methods.hinton import distillation_loss, hard_loss, soft_target_loss
from course_lib.shared import layer_maps, probes
from course_lib.shared.layer_maps import LayerMap
from course_lib.shared.masking import IGNORED, at_least_float32, batchmean, keep, require_mask, require_same_shape
from course_lib.shared.method import MASKED_LM, Aim, Compared, Job, Measured, Method, Stage, Training, inside, step_of
from course_lib.shared.probes import Reading
from course_lib.shared.starts import copy_module
from course_lib.shared.students import blocks, require_eval
from course_lib.shared.words import AsIn, require_word

Positions = Literal["all", "masked"]
TokenTypes = Literal["fold", "drop"]
Logits = Float[Tensor, "batch tokens vocabulary"]
States = Float[Tensor, "*where hidden"]


# --- The triple loss -------------------------------------------------------------------------------------------------


def soft_loss(student_logits: Logits, teacher_logits: Logits, mask: Shaped[Tensor, "batch tokens"] | None = None, *,
              temperature: float = 2.0) -> Float[Tensor, ""]:
    """L_ce: how far the student's softened word distribution is from the teacher's, mean over the kept tokens.

        T^2 * KL(softmax(z_T / T) || softmax(z_S / T)),   one sum over the vocabulary per token

    mask: 1 = this token counts; see `positions_that_count`. Raises: as `hinton.soft_target_loss`.
    Source: section 2; distillation/distiller.py, `step`.
    """
    return soft_target_loss(student_logits, teacher_logits, mask, temperature=temperature)


def masked_lm_loss(student_logits: Logits, labels: Int[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
    """L_mlm: cross-entropy with the hidden words, mean over the masked positions (label other than -100)."""
    return hard_loss(student_logits, labels)


def cosine_loss(student: States, teacher: States, mask: Shaped[Tensor, "*where"] | None = None) -> Float[Tensor, ""]:
    """L_cos: 1 - cos(h_S, h_T), mean over the kept tokens.

    student, teacher: (batch, tokens, hidden) of the LAST layer; only directions count, lengths do not.
    Raises: ValueError for different widths: a direction can only be compared in one space.
    Source: section 2; distiller.py, `step` (`CosineEmbeddingLoss`).
    """
    require_same_shape(student, teacher, "cosine loss", "For other widths, map one side with projections.Projection.")
    return cosine_equation(at_least_float32(keep(student, mask)), at_least_float32(keep(teacher, mask)))


def cosine_equation(h_S, h_T):
    """L_cos = mean_n (1 - cos(h_S, h_T))"""
    cos = F.cosine_similarity(h_S, h_T, dim=-1)  # cos(h_S, h_T)
    return (1 - cos).mean()  # mean_n (1 - cos(h_S, h_T))


def logit_mse(student_logits: Logits, teacher_logits: Logits, mask: Shaped[Tensor, "batch tokens"] | None = None
              ) -> Float[Tensor, ""]:
    """The code's fourth term: sum_i (z_S,i - z_T,i)^2 over the vocabulary, mean over the kept tokens.

    Source: distiller.py, `step` (`MSELoss(reduction="sum")` divided by the rows); not in the paper.
    """
    require_same_shape(student_logits, teacher_logits, "logit MSE", "Both models need one vocabulary.")
    return logit_mse_equation(*(at_least_float32(keep(z, mask)) for z in (student_logits, teacher_logits)))


def logit_mse_equation(z_S, z_T):
    """L = mean_n sum_i (z_S - z_T)^2"""
    difference = z_S - z_T  # z_S - z_T
    return batchmean(difference.pow(2))  # mean_n sum_i (z_S - z_T)^2


def positions_that_count(attention_mask: Int[Tensor, "batch tokens"], labels: Int[Tensor, "batch tokens"] | None,
                         positions: Positions) -> Shaped[Tensor, "batch tokens"]:
    """The mask of L_ce: every real token ("all"), or only where a word was hidden ("masked")."""
    require_word(positions, Positions, "positions")
    if positions == "all":
        return attention_mask.bool()
    if labels is None:
        raise ValueError("positions='masked' needs labels: the masked positions are those whose label is not -100.")
    return attention_mask.bool() & (labels != IGNORED)


@dataclass(frozen=True)
class DistilBertRecipe:
    """The published recipe: weights and rates from the original README, the batch size from section 3."""

    temperature: float = 2.0
    soft_weight: float = 5.0
    mlm_weight: float = 2.0
    cosine_weight: float = 1.0
    mse_weight: float = 0.0
    positions: Positions = "all"
    learning_rate: float = 5e-4
    warmup: float = 0.05
    epochs: int = 3
    effective_batch: int = 4000  # "up to 4k examples per batch", by accumulation


def triple_loss(student_logits: Logits, teacher_logits: Logits, student_hidden: States, teacher_hidden: States,
                labels: Int[Tensor, "batch tokens"] | None, attention_mask: Int[Tensor, "batch tokens"],
                recipe: DistilBertRecipe | None = None) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms {"soft", "mlm", "cosine", "mse"}; their sum is the loss. A term of weight 0 is left out."""
    recipe = recipe or DistilBertRecipe()
    real = require_mask(attention_mask, student_logits.shape[:-1], "DistilBERT")
    out = {}
    if recipe.soft_weight or recipe.mse_weight:
        counted = positions_that_count(attention_mask, labels, recipe.positions)
    if recipe.soft_weight:
        out["soft"] = recipe.soft_weight * soft_loss(student_logits, teacher_logits, counted,
                                                     temperature=recipe.temperature)
    if recipe.mlm_weight:
        if labels is None:
            raise ValueError("The masked-LM term needs labels (-100 = not masked). Give them, or set mlm_weight=0.")
        out["mlm"] = recipe.mlm_weight * masked_lm_loss(student_logits, labels)
    if recipe.cosine_weight:
        out["cosine"] = recipe.cosine_weight * cosine_loss(student_hidden, teacher_hidden, real)
    if recipe.mse_weight:
        out["mse"] = recipe.mse_weight * logit_mse(student_logits, teacher_logits, counted)
    return out


def terms(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], recipe: DistilBertRecipe | None = None
          ) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms for one masked batch: input_ids, attention_mask, labels (-100 = not masked).

    Raises: ValueError for a teacher in train mode, another vocabulary, or other widths (unless cosine_weight is 0).
    """
    with torch.no_grad():
        theirs = probes.read(require_eval(teacher), batch)
    mine = probes.read(student, batch)
    last, teachers_last = max(mine.hidden_states), max(theirs.hidden_states)
    return triple_loss(mine.logits, theirs.logits, mine.hidden_states[last], theirs.hidden_states[teachers_last],
                       batch.get("labels"), mine.attention_mask, recipe)


# --- Second step: distil again while fine-tuning on SQuAD (section 4.1) ---------------------------------------------


def span_loss(student_spans: Float[Tensor, "2 batch tokens"], teacher_spans: Float[Tensor, "2 batch tokens"],
              positions: Int[Tensor, "2 batch"] | None, mask: Shaped[Tensor, "batch tokens"] | None = None, *,
              temperature: float = 2.0, hard_weight: float = 0.5, soft_weight: float = 0.5) -> Float[Tensor, ""]:
    """Question answering: soft and hard loss on the start and on the end of the answer, each averaged over the two.

    student_spans, teacher_spans: start logits and end logits, stacked; positions: the true start and end, or None
        with hard_weight=0. A weight of 0 removes its term.
    mask: tokens that can be an answer. The original compares padded positions as well; with a mask they drop out.
    Source: distillation/run_squad_w_distillation.py.
    """
    require_same_shape(student_spans, teacher_spans, "answer spans")
    if mask is not None:
        student_spans, teacher_spans = (_without_padding(x, mask, temperature) for x in (student_spans, teacher_spans))
    # (2, B, T): the tokens are the classes
    return distillation_loss(student_spans, teacher_spans, positions, temperature=temperature, hard_weight=hard_weight,
                             soft_weight=soft_weight)


def _without_padding(logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Push padded positions so far down that they get probability 0, but keep them finite (0 * inf is NaN)."""
    kept = require_mask(mask, logits.shape[1:]).expand_as(logits)
    logits = at_least_float32(logits)
    lowest = logits.detach().masked_fill(~kept, torch.inf).amin(dim=-1, keepdim=True)
    return torch.where(kept, logits, lowest - 1e4 * max(temperature, 1.0))


# --- The student ------------------------------------------------------------------------------------------------------

SAME_TASK = {
    BertModel: DistilBertModel,
    BertForMaskedLM: DistilBertForMaskedLM,
    BertForSequenceClassification: DistilBertForSequenceClassification,
    BertForTokenClassification: DistilBertForTokenClassification,
    BertForQuestionAnswering: DistilBertForQuestionAnswering,
}

# One BERT block, piece by piece, in DistilBERT's names.
PIECES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def student_config(teacher: BertConfig, layers: int | None = None) -> DistilBertConfig:
    """DistilBERT's configuration for a BERT teacher: half the depth unless told, everything else the teacher's.

    Raises: ValueError if the teacher's LayerNorm epsilon is not the 1e-12 that DistilBERT has built in.
    """
    if teacher.layer_norm_eps != 1e-12:
        raise ValueError(f"The teacher's LayerNorm epsilon is {teacher.layer_norm_eps}; DistilBERT's is always 1e-12. "
                         "Use students.new_student for a plain BERT student.")
    return DistilBertConfig(
        vocab_size=teacher.vocab_size, max_position_embeddings=teacher.max_position_embeddings,
        n_layers=teacher.num_hidden_layers // 2 if layers is None else layers, n_heads=teacher.num_attention_heads,
        dim=teacher.hidden_size, hidden_dim=teacher.intermediate_size, dropout=teacher.hidden_dropout_prob,
        attention_dropout=teacher.attention_probs_dropout_prob, activation=teacher.hidden_act,
        initializer_range=teacher.initializer_range, pad_token_id=teacher.pad_token_id, id2label=teacher.id2label,
        label2id=teacher.label2id, tie_word_embeddings=teacher.tie_word_embeddings)


def student_from(teacher: PreTrainedModel, *, layers: int | None = None, layer_map: LayerMap | None = None,
                 as_in: AsIn = "paper", token_types: TokenTypes | None = None) -> PreTrainedModel:
    """A DistilBERT student for the teacher's task: embeddings, chosen blocks and masked-LM head copied.

    layers: depth, default half the teacher's. layer_map: pairs (student block, teacher block); default
    `layer_maps.distilbert(layers, teacher_layers, as_in=as_in)`. token_types: "fold" adds the teacher's vector for
    type 0 to every position embedding, so that a full-depth copy computes what the teacher computes for single
    sentences; "drop" leaves it out; default: fold for "paper", drop for "code".
    A classification head starts at random: DistilBERT has no pooler, so the teacher's head does not fit its input.

    Raises: ValueError for a teacher that is no BERT, and for an impossible layer map.
    """
    if type(teacher) not in SAME_TASK:
        raise ValueError(f"{type(teacher).__name__} has no DistilBERT counterpart here; known: "
                         f"{', '.join(kind.__name__ for kind in SAME_TASK)}.")
    student = SAME_TASK[type(teacher)](student_config(teacher.config, layers)).to(teacher.device, teacher.dtype)
    depth, teacher_depth = len(blocks(student)), len(blocks(teacher))
    layer_map = layer_map or layer_maps.distilbert(depth, teacher_depth, as_in=as_in)
    token_types = token_types or ("fold" if require_word(as_in, AsIn, "as_in") == "paper" else "drop")
    fold = require_word(token_types, TokenTypes, "token_types") == "fold"
    _copy_embeddings(student, teacher, fold_token_types=fold)
    for s, t in layer_maps.check(layer_map, depth, teacher_depth):
        if 0 in (s, t):
            raise ValueError(f"Pair {(s, t)}: layer 0 is the embedding layer, always copied; name blocks only.")
        _copy_block(blocks(student)[s - 1], blocks(teacher)[t - 1], f"student layer {s} from teacher layer {t}")
    if isinstance(teacher, BertForMaskedLM):
        _copy_masked_lm_head(student, teacher)
    return student.train()


@torch.no_grad()
def _copy_embeddings(student: PreTrainedModel, teacher: PreTrainedModel, *, fold_token_types: bool) -> None:
    ours, theirs = student.base_model.embeddings, teacher.base_model.embeddings
    for name in ("word_embeddings", "position_embeddings", "LayerNorm"):
        copy_module(getattr(ours, name), getattr(theirs, name), name)
    if fold_token_types:
        # BERT adds word + position + type before LayerNorm; type 0 is one constant, so the position can carry it.
        ours.position_embeddings.weight += theirs.token_type_embeddings.weight[0]


def _copy_block(ours: nn.Module, theirs: nn.Module, what: str) -> None:
    for bert_name, distilbert_name in PIECES.items():
        copy_module(ours.get_submodule(distilbert_name), theirs.get_submodule(bert_name), f"{what}, {bert_name}")


@torch.no_grad()
def _copy_masked_lm_head(student: DistilBertForMaskedLM, teacher: BertForMaskedLM) -> None:
    head = teacher.cls.predictions
    copy_module(student.vocab_transform, head.transform.dense, "masked-LM head")
    copy_module(student.vocab_layer_norm, head.transform.LayerNorm, "masked-LM head")
    copy_module(student.vocab_projector, head.decoder, "masked-LM head")  # tied: this is the word matrix once more


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = job.recipe
    over = {"soft": "tokens" if recipe.positions == "all" else "labels", "mlm": "labels", "cosine": "tokens"}
    return [Stage("distillation", lambda student, batch: terms(student, job.teacher, batch, recipe),
                  job.numbers(Training(5e-4, steps=500),
                        Training(recipe.learning_rate, epochs=recipe.epochs, batch_size=recipe.effective_batch,
                                 warmup=recipe.warmup)), over | {"mse": over["soft"]}, masked=True)]


def _last_states(mine: Reading) -> list[Tensor]:
    return [mine.logits, mine.hidden_states[max(mine.hidden_states)]]


RECORD = Method(
    "distilbert", "DistilBERT", "Sanh et al. 2019", stages,
    {"laptop": DistilBertRecipe(), "paper": DistilBertRecipe()}, "ch03", tasks=(MASKED_LM,),
    steps={"DistilBERT, every token": step_of(terms, inside(_last_states))},
    compared={"DistilBERT": Compared("3 x 384, labels", "stored answers + live", aim=Aim(97, 1.6))},
    claim="97 % of GLUE, 40 % fewer parameters, 60 % faster", measured=Measured("ch10", "DistilBERT"))
