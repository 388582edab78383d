"""What no training run says: how large and how fast the students of an experiment are, and what a step of an arm costs.

Everything that depends on a machine is a ratio to a reference arm or to the teacher, with its quartiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from course_lib.experiments.described import Part
from course_lib.experiments.sentences import BATCH_SIZE, RECIPE, examples, teacher
from course_lib.methods.bilstm import BiLstm
from course_lib.shared.batches import Batches, pad
from course_lib.shared.clock import Latency, latency_ratio, ratio_in_turns
from course_lib.shared.measures import count_parameters
from course_lib.shared.training import autocast


@dataclass(frozen=True)
class Trained:
    """An arm's training, to be timed: nothing is trained to its end. asked: sentences that the teacher answers once."""

    student: nn.Module
    parts: list[Part]
    asked: int = 0


@dataclass(frozen=True)
class Reader:
    """A kind of student: how one is made, and the test sentences in its own tokens (None: in the teacher's)."""

    make: Callable[[], nn.Module]
    rows: Callable[[], list[dict]] | None = None

    def __call__(self) -> nn.Module:
        return self.make()


def without_words(model: nn.Module) -> int:
    """Parameters that are not word embeddings: what the layers hold, whatever the vocabulary."""
    if isinstance(model, BiLstm):
        return model.parameters_without_embeddings
    return sum(p.numel() for name, p in model.named_parameters() if "word_embeddings" not in name)


def timed_against_teacher(reader: Reader, model: nn.Module, count: int, repeats: int) -> Latency:
    """`latency_ratio` on `count` test sentences of about median length."""
    rows = examples("test")
    middle = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    chosen = middle[len(rows) // 2 - count // 2 :][:count]
    mine = reader.rows() if reader.rows else rows
    own, theirs = (pad([some[i] for i in chosen]) for some in (mine, rows))
    return latency_ratio(model, teacher().model, own, repeats, teacher_batch=theirs)


def step(student: nn.Module, part: Part) -> Callable[[int], float]:
    """A function that makes training step i of a part and says how many seconds it took."""
    learning, recipe = [p for p in student.parameters() if p.requires_grad], part.recipe()
    optimizer = torch.optim.AdamW(learning, lr=recipe.learning_rate)
    student.train()

    def one(i: int) -> float:
        batch = part.batches[i]
        started = time.perf_counter()
        with autocast(recipe.precision):
            losses = part.stage.terms(student, batch)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(learning, recipe.clip)
        optimizer.step()
        student.zero_grad()
        return time.perf_counter() - started
    return one


def asking() -> Callable[[int], float]:
    """The teacher reads one training batch, as it does when its answers are stored."""
    batches = Batches(examples("train"), BATCH_SIZE)

    def read(i: int) -> float:
        batch = batches[i]
        started = time.perf_counter()
        with torch.no_grad(), autocast(RECIPE.precision):
            teacher().model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return time.perf_counter() - started
    return read


def profile(arms: Mapping[str, Callable[[], Trained]], students: Mapping[str, Reader], reference: str,
            pairs: int = 15) -> dict:
    """Size, latency and training cost.

    teacher: accuracy, parameters, and the price of asking it about one batch. students: parameters; time of a forward
    pass as a share of the teacher's (float32), for one sentence and for 32. training: per arm its phases, each with the
    number of steps, sentences per step and time of a step as a multiple of the reference arm's step.
    """
    def unit() -> Callable[[int], float]:
        trained = arms[reference]()
        return step(trained.student, trained.parts[0])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {"threads": 1, "pairs": pairs, "teacher": _of_the_teacher(unit(), pairs),
                "students": {name: _of_a_student(reader, pairs) for name, reader in students.items()},
                "training": {name: _of_a_training(train(), unit, pairs) for name, train in arms.items()}}
    finally:
        torch.set_num_threads(threads)


def _of_the_teacher(unit: Callable[[int], float], pairs: int) -> dict:
    """The accuracy is that of the teacher's card, as in all chapters."""
    whole = teacher()
    return {"accuracy": whole.card["accuracy_percent"]["test"], "parameters": count_parameters(whole.model),
            "without_words": without_words(whole.model), "asking": ratio_in_turns(asking(), unit, pairs)}


def _of_a_student(reader: Reader, pairs: int) -> dict:
    model = reader()
    found = {"parameters": count_parameters(model), "without_words": without_words(model)}
    for count, repeats in ((1, 4 * pairs), (32, pairs)):
        took = timed_against_teacher(reader, model, count, repeats)
        low, high = took.ratio_quartiles
        found[f"latency_{count}"] = [round(value, 4) for value in (low, took.ratio, high)]
    return found


def _of_a_training(trained: Trained, unit: Callable[[], Callable[[int], float]], pairs: int) -> dict:
    return {"asked": trained.asked, "phases": [
        {"steps": part.stage.training.steps, "sentences": part.stage.training.batch_size,
         "step": ratio_in_turns(step(trained.student, part), unit(), pairs)} for part in trained.parts]}
