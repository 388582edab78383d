"""Chapter 1: does a small student learn more from the teacher's soft targets than from the labels alone?

Movie sentences. Teacher: the course's sentiment teacher. Student: a BERT of 2 layers x 128 with random weights, the
same for every arm of a seed. Only the loss differs between arms, and in the last two the number of labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from course_lib.experiments import records
from course_lib.experiments.described import Live, Part, sentence_batches
from course_lib.experiments.sentences import SEEDS, examples, prepare, scores, teacher
from course_lib.methods import hinton
from course_lib.shared.batches import Batches
from course_lib.shared.masking import IGNORED
from course_lib.shared.method import FRESH, Training
from course_lib.shared.students import new_student

__all__ = ["ABOUT", "ARMS", "MAIN", "SEEDS", "examples", "live", "loss_terms", "poll_result", "prepare", "run",
           "scores", "student", "teacher", "training", "training_set"]

ABOUT = "Movie sentences, 2 x 128 student from scratch: labels alone against soft targets."
SHAPE = {"layers": 2, "hidden": 128, "heads": 2, "intermediate": 512}
BATCH_SIZE = 64


@dataclass(frozen=True)
class Arm:
    """What one arm learns from."""

    hard_weight: float
    soft_weight: float
    temperature: float = 1.0
    labels: int = 0  # how many training sentences keep their label; 0: all of them
    text: int = 0  # how many training sentences are read at all; 0: all of them
    steps: int = FRESH.steps
    learning_rate: float = FRESH.learning_rate


ARMS = {
    "labels": Arm(hard_weight=1.0, soft_weight=0.0),
    "soft, T=1": Arm(hard_weight=0.0, soft_weight=1.0, temperature=1.0),
    "soft, T=2": Arm(hard_weight=0.0, soft_weight=1.0, temperature=2.0),
    "soft, T=4": Arm(hard_weight=0.0, soft_weight=1.0, temperature=4.0),
    "soft, T=20": Arm(hard_weight=0.0, soft_weight=1.0, temperature=20.0),
    "both, T=4": Arm(hard_weight=0.5, soft_weight=0.5, temperature=4.0),
    "500 labels": Arm(hard_weight=1.0, soft_weight=0.0, labels=500, text=500),
    "500 labels + unlabelled text": Arm(hard_weight=0.5, soft_weight=0.5, temperature=4.0, labels=500),
}

MAIN = [name for name, arm in ARMS.items() if not arm.labels]  # the arms that see all labels: the chapter's first table


def student(seed: int) -> PreTrainedModel:
    """2 layers x 128, 4.4 million weights, of which 3.9 million are word embeddings; nothing is copied."""
    return new_student(teacher().model, **SHAPE, seed=seed)


def training_set(arm: Arm, seed: int) -> list[dict]:
    """The training sentences of an arm; those beyond `labels` lose their label (-100)."""
    order = torch.randperm(len(examples("train")), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [examples("train")[i] for i in order[: arm.text or None]]
    return rows if not arm.labels else [
        row if i < arm.labels else row | {"label": IGNORED} for i, row in enumerate(rows)]


def loss_terms(arm: Arm):
    """The terms of the loss as the training loop wants them. A batch without any label has no hard term."""
    def terms(model, batch):
        hard_weight = arm.hard_weight if (batch["labels"] != IGNORED).any() else 0.0
        recipe = hinton.HintonRecipe(temperature=arm.temperature, hard_weight=hard_weight,
                                     soft_weight=arm.soft_weight)
        return hinton.terms(model, None, batch, recipe)
    return terms


def training(arm: Arm, seed: int) -> tuple[PreTrainedModel, list[Part]]:
    """The student of an arm and the one part of its training."""
    numbers = Training(arm.learning_rate, steps=arm.steps, batch_size=BATCH_SIZE, precision="fp32")
    return student(seed), [Part.of(loss_terms(arm), numbers, Batches(training_set(arm, seed), BATCH_SIZE, seed=seed))]


def live() -> Live:
    """A step with the teacher beside the student."""
    return Live(student(0), teacher().model, sentence_batches())


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split."""
    model, (part,) = training(ARMS[arm_name], seed)
    part.learn(model, seed)
    return scores(model)


def poll_result() -> tuple[str, str]:
    """The option of chapter 1's poll that fits the measurement, and the numbers that say so."""

    return records.leader("ch01", {"a": "labels", "b": "soft, T=1", "c": "soft, T=4", "d": "soft, T=20"}, "e")
