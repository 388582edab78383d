"""Common ground of the experiments with few labels: everybody gets the same labels, all other text has none.

A setting has the name of its teacher: "sentiment-500" is 500 labelled movie sentences, the teacher that was trained on
exactly these, and the rest of the training text without labels. A chapter's experiment adds its students and losses:

    rows = training_rows("sentiment-500", text=True)       every text, with the teacher's answer
    train(student, Batches(rows, 32, seed=seed), answer_terms(Answers(temperature=2.0)), recipe)
    return scores(student, "sentiment-500")                what a results file keeps of a run
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from torch import Tensor, nn

from course_lib.experiments.answers import kept
from course_lib.experiments.answers import main as publish
from course_lib.material.data import half_of, load_data
from course_lib.material.teachers import TEACHERS, Teacher, load_teacher
from course_lib.methods import hinton
from course_lib.methods.cached import SoftLabels, ask_teacher, attach
from course_lib.shared.batches import encode, in_order
from course_lib.shared.masking import IGNORED
from course_lib.shared.measures import predict_logits
from course_lib.shared.probes import logits_of
from course_lib.shared.statistics import pack
from course_lib.shared.training import Terms

SEEDS = range(10)
TRIAL_SEEDS = range(2)


@cache
def teacher(name: str) -> Teacher:
    """The teacher of a setting: "sentiment-500", "topics-440", "trec-500"."""
    return load_teacher(name)


def splits(name: str) -> list[str]:
    """train, validation, test; and unlabelled, where there is more text than the task's own (plots hold no opinion)."""
    return [split for split in load_data(TEACHERS[name].data, labels=TEACHERS[name].labels) if split != "plots"]


@cache
def examples(name: str, split: str, max_length: int | None = None) -> list[dict]:
    """Encoded texts of a split: input_ids, label (-100: none), and the teacher's logits up to a constant.

    max_length: tokens that the student reads (default: as many as the teacher, which is asked about those in any case).
    """
    made, tokenizer = TEACHERS[name], teacher(name).tokenizer
    rows = load_data(made.data, labels=made.labels)[split]
    read = encode(rows, tokenizer, made.max_length)
    answers = attach(read, kept(name, split, lambda: asked(teacher(name).model, read)))
    seen = read if max_length is None else encode(rows, tokenizer, max_length)
    return [row | {"teacher_logits": answer["teacher_log_probs"]} for row, answer in zip(seen, answers, strict=True)]


def asked(model: nn.Module, rows: list[dict]) -> SoftLabels:
    """The teacher's answers in the order of the rows, in half precision. It reads short rows with short ones: half of
    the time goes into padding otherwise."""
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")
    found, back = ask_teacher(model, [rows[i] for i in order]), np.argsort(order)
    tensors = {name: tensor[back].half() for name, tensor in found.tensors.items()}
    return replace(found, keys=found.keys[back], rows=found.rows[back], tensors=tensors)


SETTINGS = [name for name, made in TEACHERS.items() if isinstance(made.labels, int)]


def prepare(*names: str) -> None:
    """Ask the teachers before the runs start, so that they do not all ask at once."""
    for name in names:
        for split in splits(name):
            examples(name, split)


def training_rows(name: str, *, text: bool, max_length: int | None = None) -> list[dict]:
    """The labelled texts alone, or (text=True) every text there is, labelled or not."""
    rows = examples(name, "train", max_length)
    if not text:
        return [row for row in rows if row["label"] != IGNORED]
    return rows + (examples(name, "unlabelled", max_length) if "unlabelled" in splits(name) else [])


def cross_fitted(rows: list[dict], halves: list[list[dict]], texts: list[str]) -> list[dict]:
    """The same rows; each with the answer of the teacher that was trained on the other half of the texts.

    halves[h]: the rows with the answers of the teacher that was trained on half h.
    """
    return [row | {"teacher_logits": halves[1 - half_of(text)][i]["teacher_logits"]}
            for i, (row, text) in enumerate(zip(rows, texts, strict=True))]


@dataclass(frozen=True)
class Answers:
    """What a student is told. The hard term counts only where there is a label; a batch without one has none."""

    target: Literal["labels", "soft", "argmax"]
    temperature: float = 1.0  # for "soft"
    hard_weight: float = 0.1  # beside the teacher's word the labels count little, as in the paper (section 2)


def answer_terms(told: Answers) -> Terms:
    """The terms of the loss: labels alone; or the teacher's soft answer, or the class it names, and a little label."""
    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return answer_losses(logits_of(model, batch), batch, told)
    return terms


def answer_losses(logits: Tensor, batch: dict[str, Tensor], told: Answers) -> dict[str, Tensor]:
    """The same for a student that was read already, because other terms need its states. logits: (batch, classes)."""
    weight = 1.0 if told.target == "labels" else told.hard_weight
    losses = {}
    if (batch["labels"] != IGNORED).any():
        losses["hard"] = weight * hinton.hard_loss(logits, batch["labels"])
    if told.target == "soft":
        losses["soft"] = (1 - weight) * hinton.soft_target_loss(logits, batch["teacher_logits"],
                                                                temperature=told.temperature)
    if told.target == "argmax":
        losses["argmax"] = (1 - weight) * hinton.hard_loss(logits, batch["teacher_logits"].argmax(dim=-1))
    return losses


def right_answers(model: nn.Module, name: str, split: str, max_length: int | None = None) -> np.ndarray:
    """For every text of the split, whether the student names its class: (texts,) of True and False."""
    rows = examples(name, split, max_length)
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")  # little padding: a third of the time
    logits = predict_logits(model, in_order([rows[i] for i in order]))
    found = np.empty(len(rows), dtype=bool)
    found[order] = logits.argmax(dim=-1).numpy() == np.array([rows[i]["label"] for i in order])
    return found


def scores(model: nn.Module, name: str, max_length: int | None = None) -> dict:
    """What a run leaves behind: accuracy on test and validation in percent, and every test answer, packed."""
    right = right_answers(model, name, "test", max_length)
    return {"accuracy": round(100 * float(right.mean()), 2), **validation(model, name, max_length),
            "right": {"accuracy": pack(right)}}


def validation(model: nn.Module, name: str, max_length: int | None = None) -> dict[str, float]:
    """Accuracy on the validation split in percent: what chooses steps and rate."""
    return {"validation": round(100 * float(right_answers(model, name, "validation", max_length).mean()), 2)}


if __name__ == "__main__":  # as a part of `make teacher`
    prepare(*SETTINGS)
    publish([f"{name}-{split}" for name in SETTINGS for split in splits(name)])
