"""Common ground of the chapters on movie sentences: one teacher, one data set, one student of half depth, one budget.

Arms of different chapters can be compared because all of them start here. A chapter's experiment adds its own loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.experiments.answers import kept
from course_lib.material.data import load_data
from course_lib.material.teachers import Teacher, load_teacher
from course_lib.methods import hinton
from course_lib.methods.cached import ask_teacher, attach
from course_lib.shared import layer_maps
from course_lib.shared.batches import Batches, encode, in_order
from course_lib.shared.layer_maps import LayerMap
from course_lib.shared.measures import accuracy, agreement, calibration, predict_logits
from course_lib.shared.method import QUICK
from course_lib.shared.starts import copy_embeddings, copy_head, copy_layers
from course_lib.shared.students import new_student
from course_lib.shared.training import History, Recipe, Terms, train

SEEDS = range(5)
MAX_LENGTH = 64
RECIPE, BATCH_SIZE = QUICK.recipe(), QUICK.batch_size  # the budget: 300 batches of 32 sentences


@cache
def teacher() -> Teacher:
    """The sentiment teacher: 6 layers x 384."""
    return load_teacher("sentiment")


@cache
def examples(split: str) -> list[dict]:
    """The encoded sentences of a split, each with the teacher's logits (up to a constant) as `teacher_logits`."""
    return with_answers(encode(load_data("sentiment")[split], teacher().tokenizer, MAX_LENGTH), split)


def with_answers(rows: list[dict], name: str) -> list[dict]:
    """New rows with the teacher's logits (up to a constant) as `teacher_logits`.

    rows: sentences in the teacher's tokens. The teacher is asked once per sentence; its answers are kept under
    `name` (see `course_lib.experiments.answers`) and checked against the sentences.
    """
    log_probs = attach(rows, kept("sentiment", name, lambda: ask_teacher(teacher().model, rows)))
    return [row | {"teacher_logits": answer["teacher_log_probs"]} for row, answer in zip(rows, log_probs, strict=True)]


def prepare() -> None:
    """Ask the teacher before the runs start, so that they do not all ask at once."""
    for split in ("train", "validation", "test"):
        examples(split)


def half_depth(seed: int, layer_map: LayerMap | None = None) -> PreTrainedModel:
    """3 layers x 384: embeddings, head and (by default) layers 2, 4 and 6 are copies of the teacher's.

    The word embeddings stay frozen: they are half of all weights and good already; a step takes a third less time.
    """
    student = new_student(teacher().model, layers=3, seed=seed)
    copy_embeddings(student, teacher().model)
    copy_layers(student, teacher().model, layer_map or layer_maps.uniform(3, 6))
    copy_head(student, teacher().model)
    student.get_input_embeddings().requires_grad_(False)
    return student


def answer_terms(recipe: hinton.HintonRecipe) -> Terms:
    """Chapter 1's loss (labels, the teacher's stored logits, or both): the baseline of every later chapter."""
    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return hinton.terms(model, None, batch, recipe)
    return terms


def answer_losses(logits: Tensor, batch: dict[str, Tensor], recipe: hinton.HintonRecipe) -> dict[str, Tensor]:
    """The same loss for a student that was read already, because other terms need its states: logits (batch, classes).

    The labels always count; the stored logits do if the recipe gives them a weight.
    """
    terms = {"hard": recipe.hard_weight * hinton.hard_loss(logits, batch["labels"])}
    if recipe.soft_weight:
        terms["soft"] = recipe.soft_weight * hinton.soft_target_loss(logits, batch["teacher_logits"],
                                                                     temperature=recipe.temperature)
    return terms


LABELS = hinton.HintonRecipe(temperature=1.0, hard_weight=1.0, soft_weight=0.0)
LABELS_AND_ANSWERS = hinton.LAPTOP  # T = 4, both weights 0.5


def fit(student: nn.Module, terms: Terms, seed: int, recipe: Recipe = RECIPE, *, rows: list[dict] | None = None,
        parameters: Sequence[dict] | None = None, evaluate: Callable | None = None) -> History:
    """Train with the common budget: the same batches in the same order for every arm of a seed."""
    batches = Batches(examples("train") if rows is None else rows, BATCH_SIZE, seed=seed)
    changed = Recipe(**{**recipe.__dict__, "seed": seed})
    return train(student, batches, terms, changed, parameters=parameters, evaluate=evaluate)


def scores(model: nn.Module, split: str = "test", rows: list[dict] | None = None) -> dict[str, float]:
    """Accuracy, agreement with the teacher and calibration error on the sentences of a split, in percent.

    rows: the same sentences, in the same order, in the tokens of a student that does not read the teacher's.
    """
    return scores_of(predict_logits(model, in_order(examples(split) if rows is None else rows)), split)


def scores_of(logits: Tensor, split: str = "test") -> dict[str, float]:
    """The same measures for logits that are there already: (sentences of the split, classes)."""
    rows = examples(split)
    labels = torch.tensor([row["label"] for row in rows])
    answers = torch.tensor(np.array([row["teacher_logits"] for row in rows]))
    return {"accuracy": round(100 * accuracy(logits, labels), 2),
            "agreement": round(100 * agreement(logits, answers), 2),
            "calibration_error": round(100 * calibration(logits, labels).ece, 2)}
