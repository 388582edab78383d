"""MiniLM: Wang et al. 2020 (arXiv 2002.10957), and its second version, Wang et al. 2021 (arXiv 2012.15828).

The student copies how the teacher's tokens relate to each other, in ONE layer, the last. A relation is a table of
probabilities, tokens x tokens, so the hidden sizes may differ and no projection is needed:

    attention relation   softmax(Q K^T / sqrt(d_k))      what the layer does anyway
    value relation       softmax(V V^T / sqrt(d_k))      what the tokens carry to each other

    L = L_AT + L_VR,   each a KL(teacher || student), averaged over heads and over the real query positions

Version 1 needs the same number of heads on both sides. Version 2 puts the heads side by side, cuts them again into
A_r relation heads, and compares QQ, KK and VV: now the head counts may differ too. There is no masked-LM loss; the
authors say that adding it hurts.

## Deviations of the original code

The authors never published distillation code. The table compares the re-implementations that people use.

| what | paper | code | here |
|---|---|---|---|
| average over positions | 1/\\|x\\| for one sentence; batches are not mentioned | Bloomberg: per sentence, then over the batch. PaddleNLP: padded queries count too, divided by the padded length | `average="sentence"` (default), `"tokens"` (one flat mean), `"padded"` |
| mask on the value relation | not mentioned | both relations masked in Bloomberg's code; an author confirms it (unilm issue 198) | padded keys are masked before BOTH softmaxes |
| mask in `average="padded"` | none | padded keys masked, padded queries kept | the same: only the mean differs |
| relations of version 2 | QQ, KK, VV, one weight for each | Bloomberg: any pair, each with a weight | the three, with `weights` |
| dropout on the probabilities | before dropout | `output_attentions` of transformers comes after dropout | recomputed from queries and keys |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from transformers import PretrainedConfig

from course_lib.methods import labels
from course_lib.shared import probes
from course_lib.shared.masking import at_least_float32, masked_mean, mean_per_sentence, require_mask, require_same_shape
from course_lib.shared.method import (
    BOTH_TASKS,
    CLASSIFICATION,
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
from course_lib.shared.probes import Reading, merge_heads, scaled_dot_products, split_heads
from course_lib.shared.students import require_eval
from course_lib.shared.words import require_word

Version = Literal["v1", "v2"]
Average = Literal["sentence", "tokens", "padded"]

PerHead = Float[Tensor, "batch heads tokens d_head"]
Unsplit = Float[Tensor, "batch tokens width"]
Projections = dict[str, PerHead]  # "q", "k", "v" of one layer


def relation_kl(
    student_scores: Float[Tensor, "batch heads queries keys"],
    teacher_scores: Float[Tensor, "batch heads queries keys"],
    mask: Shaped[Tensor, "batch tokens"] | None = None,
    *,
    average: Average = "sentence",
) -> Float[Tensor, ""]:
    """How far the student's relations are from the teacher's: the one equation that both versions share.

        1/(A |x|) * sum_a sum_t KL(R_T[a, t] || R_S[a, t])       a: heads, t: real query positions

    student_scores, teacher_scores: scaled dot products BEFORE the softmax, no mask added.
    mask: (batch, tokens), 1 = a real token. Padded keys leave both softmaxes, padded queries leave the mean.
    average: "sentence" - each sentence over its own length, then over the batch (the paper's |x|);
        "tokens" - one mean over all real positions, so long sentences weigh more;
        "padded" - padded queries count as well, as in PaddleNLP (do not use it: the loss depends on the padding).
    Raises: ValueError for other head counts (with the way out), lengths, an empty mask, or an unknown average.
    Source: v1 eq. 3 and 5; v2 eq. 6.
    """
    _require_same_relations(student_scores, teacher_scores)
    student_scores, teacher_scores = at_least_float32(student_scores), at_least_float32(teacher_scores)
    batch, _, tokens, _ = student_scores.shape
    if mask is None:
        mask = torch.ones(batch, tokens, dtype=torch.bool, device=student_scores.device)
    padded = ~require_mask(mask, (batch, tokens), "relation")[:, None, None, :]  # (B, 1, 1, T)
    lowest = torch.finfo(student_scores.dtype).min
    means = {"sentence": partial(mean_per_sentence, mask=mask), "tokens": partial(masked_mean, mask=mask),
             "padded": torch.mean}  # each: (B, T) -> ()
    return relation_equation(student_scores.masked_fill(padded, lowest), teacher_scores.masked_fill(padded, lowest),
                             means[require_word(average, Average, "average")])


def relation_equation(S_S, S_T, mean=torch.mean):
    """L = mean_t mean_a KL(R_T || R_S)"""
    log_R_S = S_S.log_softmax(dim=-1)  # R_S = softmax(S_S)
    log_R_T = S_T.log_softmax(dim=-1)  # R_T = softmax(S_T)
    kl = (log_R_T.exp() * (log_R_T - log_R_S)).sum(dim=-1)  # KL(R_T || R_S)
    return mean(kl.mean(dim=1))  # mean_t mean_a: (B, A, T) -> (B, T) -> ()


def _require_same_relations(student: Tensor, teacher: Tensor) -> None:
    if student.ndim == teacher.ndim == 4 and student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"relation: the student {tuple(student.shape)} has {student.shape[1]} heads and the teacher "
            f"{tuple(teacher.shape)} has {teacher.shape[1]}. MiniLM v1 needs equal head counts (choose the student's "
            "num_attention_heads); v2 does not: use relation_transfer with relation_heads, or version='v2'.")
    require_same_shape(student, teacher, "relation", "Both models must read the same batch, tokenised in the same way.")


# --- Version 1: attention and value relation of the last layer ------------------------------------------------------


def attention_relation_transfer(student_queries: PerHead, student_keys: PerHead, teacher_queries: PerHead,
                                teacher_keys: PerHead, mask: Shaped[Tensor, "batch tokens"] | None = None, *,
                                average: Average = "sentence") -> Float[Tensor, ""]:
    """L_AT: the student attends where the teacher attends. Each side divides by its own sqrt(d_k).

    Arguments are per head, (batch, heads, tokens, d_head); d_head may differ, heads must not. Source: v1 eq. 3.
    """
    student_scores = scaled_dot_products(student_queries, student_keys)  # (B, A, T, d_S) x (B, A, d_S, T)
    teacher_scores = scaled_dot_products(teacher_queries, teacher_keys)  # (B, A, T, d_T) x (B, A, d_T, T)
    return relation_kl(student_scores, teacher_scores, mask, average=average)


def value_relation_transfer(student_values: PerHead, teacher_values: PerHead,
                            mask: Shaped[Tensor, "batch tokens"] | None = None, *, average: Average = "sentence"
                            ) -> Float[Tensor, ""]:
    """L_VR: the student's values are as similar to each other as the teacher's. Source: v1 eq. 4-5.

        VR = softmax(V V^T / sqrt(d_k))
    """
    student_scores = scaled_dot_products(student_values, student_values)
    teacher_scores = scaled_dot_products(teacher_values, teacher_values)
    return relation_kl(student_scores, teacher_scores, mask, average=average)


# --- Version 2: relations between all heads, split anew -------------------------------------------------------------


def relation_transfer(student_vectors: Unsplit, teacher_vectors: Unsplit,
                      mask: Shaped[Tensor, "batch tokens"] | None = None, *, relation_heads: int,
                      average: Average = "sentence") -> Float[Tensor, ""]:
    """One self-relation of version 2: give it both queries (QQ), both keys (KK), or both values (VV).

        R = softmax(X X^T / sqrt(d_r))        X split into A_r relation heads of width d_r = width / A_r

    student_vectors, teacher_vectors: (batch, tokens, width), all attention heads side by side; widths may differ.
    relation_heads: A_r, a divisor of both widths. More, thinner heads show finer relations.
    Raises: ValueError if A_r does not divide a width, and as in `relation_kl`. Source: v2 eq. 3-8.
    """
    student_heads = split_heads(student_vectors, relation_heads)  # (B, T, A_r*d_r) -> (B, A_r, T, d_r)
    teacher_heads = split_heads(teacher_vectors, relation_heads)
    return value_relation_transfer(student_heads, teacher_heads, mask, average=average)


# --- Which layer, which student -------------------------------------------------------------------------------------


def suggested_teacher_layer(teacher_layers: int) -> int:
    """The last layer of a base-size teacher; an upper-middle one of a large teacher (version 2).

    The last layers of a large model turn to its own masked-LM task and say less about language. The paper takes
    layer 21 of 24 for BERT-large; other depths are scaled here.
    """
    return teacher_layers if teacher_layers <= 12 else round(teacher_layers * 21 / 24)


def assistant_advised(student_config: PretrainedConfig, teacher_config: PretrainedConfig) -> bool:
    """Whether to distil through a teacher assistant: the student has at most half the layers AND half the width."""
    shallow = student_config.num_hidden_layers <= teacher_config.num_hidden_layers / 2
    return shallow and student_config.hidden_size <= teacher_config.hidden_size / 2


def assistant_config(student_config: PretrainedConfig, teacher_config: PretrainedConfig) -> PretrainedConfig:
    """The assistant between the two: the teacher's depth, the student's width. Source: v1 section 3.3.

    Distil teacher -> assistant first, then assistant -> student, with the same loss.
    """
    shape = student_config.to_dict() | {"num_hidden_layers": teacher_config.num_hidden_layers}
    return type(student_config).from_dict(shape)


# --- Both models at once --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MiniLmRecipe:
    """The papers' choices. `relation_heads` 48 for a base-size teacher, 64 for a large one (v2 only)."""

    version: Version = "v1"
    relation_heads: int = 48
    average: Average = "sentence"
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)  # v1: attention, value relation; v2: QQ, KK, VV
    student_layer: int | None = None  # None: the last
    teacher_layer: int | None = None  # None: the last; see `suggested_teacher_layer`


def terms(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], recipe: MiniLmRecipe | None = None
          ) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms for one batch: {"attention", "value_relation"} in v1, {"qq", "kk", "vv"} in v2.

    A term with weight 0 is left out. Labels are not needed. Raises: ValueError for a layer that does not exist, or a
    teacher in train mode.
    """
    recipe = recipe or MiniLmRecipe()
    with torch.no_grad():
        teacher_qkv, _ = _layer(probes.read(require_eval(teacher), batch), recipe.teacher_layer, "teacher")
    student_qkv, mask = _layer(probes.read(student, batch), recipe.student_layer, "student")
    losses_of = {"v1": _v1, "v2": _v2}[require_word(recipe.version, Version, "version")]
    losses = losses_of(student_qkv, teacher_qkv, mask, recipe)
    weighted = zip(losses.items(), recipe.weights, strict=False)  # v1 has two terms and leaves the third weight
    return {name: weight * loss for (name, loss), weight in weighted if weight}


def _v1(student: Projections, teacher: Projections, mask: Tensor, recipe: MiniLmRecipe) -> dict[str, Tensor]:
    return {
        "attention": attention_relation_transfer(student["q"], student["k"], teacher["q"], teacher["k"], mask,
                                                 average=recipe.average),
        "value_relation": value_relation_transfer(student["v"], teacher["v"], mask, average=recipe.average),
    }


def _v2(student: Projections, teacher: Projections, mask: Tensor, recipe: MiniLmRecipe) -> dict[str, Tensor]:
    return {
        2 * kind: relation_transfer(merge_heads(student[kind]), merge_heads(teacher[kind]), mask,
                                    relation_heads=recipe.relation_heads, average=recipe.average)
        for kind in ("q", "k", "v")
    }


def _layer(reading: Reading, number: int | None, whose: str) -> tuple[Projections, Tensor]:
    last = max(reading.queries)
    number = last if number is None else number
    if number not in reading.queries:
        raise ValueError(f"The {whose} has layers 1 to {last}; there is no attention in layer {number}.")
    qkv = {"q": reading.queries[number], "k": reading.keys[number], "v": reading.values[number]}
    return qkv, reading.attention_mask


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = job.recipe
    over = {name: "tokens" for name in ("attention", "value_relation", "qq", "kk", "vv")}
    found = [Stage("relations", lambda student, batch: terms(student, job.teacher, batch, recipe),
                    job.numbers(Training(5e-4 if job.copied else 1e-3, steps=200),
                          Training(5e-4, steps=400_000, batch_size=1024, warmup=0.01)),
                    over if recipe.average == "tokens" else {})]
    if job.task == CLASSIFICATION and job.labels:
        found += [replace(stage, name="fine-tuning") for stage in labels.stages(job)]
    return found


def _last_attention(mine: Reading) -> list[Tensor]:
    return [kind[max(kind)] for kind in (mine.queries, mine.keys, mine.values)]


RECORD = Method(
    "minilm", "MiniLM", "Wang et al. 2020", stages,
    {"laptop": MiniLmRecipe(), "paper": MiniLmRecipe()}, "ch07", tasks=BOTH_TASKS, same_heads=True,
    steps={"MiniLM": step_of(terms, inside(_last_attention)),
           "MiniLM v2": step_of(terms, inside(_last_attention),
                              MiniLmRecipe(version="v2", relation_heads=12))},
    compared={"MiniLM": Compared("General start, labels", "live", Measured("ch07", "half depth, attention + values"),
                                 aim=Aim(99, smaller=2.0)),
              "MiniLM, narrow": Compared("3 x 192, labels", "live", Measured("ch07", "narrow, attention + values"))},
    claim="more than 99 % on SQuAD 2.0 with half the parameters, 2.0 times faster",
    measured=Measured("ch07", "half depth, attention + values"))
