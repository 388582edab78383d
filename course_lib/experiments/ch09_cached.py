"""Chapter 9: a document classifier of one layer that learns from stored probabilities.

Wikipedia leads, eleven topics. The teacher (6 layers x 384) answers every document once (some minutes); the file is
kept, so no arm runs it. All arms of a seed see the same batches in the same order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from course_lib.experiments import records
from course_lib.experiments.answers import kept
from course_lib.experiments.described import Live, Part
from course_lib.material.data import load_data
from course_lib.material.teachers import Teacher, load_teacher
from course_lib.methods import cached
from course_lib.methods.cached import RECORD as CACHED
from course_lib.methods.cached import SoftLabels, ask_teacher, attach
from course_lib.shared import layer_maps, probes
from course_lib.shared.batches import Batches, encode, in_order
from course_lib.shared.clock import ratio_in_turns
from course_lib.shared.measures import accuracy, agreement, calibration, count_parameters, predict_logits
from course_lib.shared.method import Job, Training
from course_lib.shared.starts import copy_factorised_embeddings, copy_layers
from course_lib.shared.students import new_student
from course_lib.shared.training import History, Recipe, autocast, train

SPLITS = ("train", "validation", "test")
ABOUT = "Wikipedia leads, one layer from stored probabilities: rate, start, size, budget, shuffled cache, TF-IDF."
SEEDS = range(5)
MAX_LENGTH = 128
BATCH_SIZE = 32
STEPS = 300  # 1.3 epochs


@dataclass(frozen=True)
class Arm:
    """One way to get a small document classifier."""

    soft_weight: float = 0.5
    hard_weight: float = 0.5
    temperature: float = 2.0
    learning_rate: float = cached.CachedRecipe.learning_rate
    start: str = "embeddings"  # what is copied: "embeddings", "first layer" (and the embeddings), or "narrow"
    cache: str = "right"  # or "shuffled": the stored rows were zipped with documents in another order
    model: str = "BERT"  # or "TF-IDF": word counts and logistic regression, no neural network at all
    steps: int = STEPS


@dataclass(frozen=True)
class Longer(Arm):
    """Three times as many steps; `words`: the copied word embeddings are trained too, as in the report."""

    steps: int = 3 * STEPS
    words: bool = True


ARMS = {
    "labels": Arm(soft_weight=0.0, hard_weight=1.0),
    "labels + answers": Arm(),
    "labels + answers, rate 1e-5": Arm(learning_rate=1e-5),
    "first layer copied": Arm(start="first layer"),
    "narrow": Arm(start="narrow"),
    "shuffled cache": Arm(cache="shuffled"),
    "TF-IDF": Arm(soft_weight=0.0, hard_weight=1.0, model="TF-IDF", steps=0),
    "labels, long": Longer(soft_weight=0.0, hard_weight=1.0, words=False),
    "labels + answers, long": Longer(words=False),
    "labels, all weights": Longer(soft_weight=0.0, hard_weight=1.0),
    "labels + answers, all weights": Longer(),
}
LONGER = [name for name, arm in ARMS.items() if isinstance(arm, Longer)]
MAIN = [name for name, arm in ARMS.items()  # the first table
        if arm.cache == "right" and arm.learning_rate > 1e-5 and name not in LONGER]


# --- Documents and the teacher's stored answers ----------------------------------------------------------------------


@cache
def teacher() -> Teacher:
    """The topics teacher: 6 layers x 384, 11 classes."""
    return load_teacher("topics")


def class_names() -> list[str]:
    """The eleven topics, in the order of the labels."""
    return load_data("topics")["test"].features["label"].names


@cache
def documents(split: str) -> list[dict]:
    """The encoded documents of a split, at most 128 tokens each: input_ids, token_type_ids, label."""
    return encode(load_data("topics")[split], teacher().tokenizer, MAX_LENGTH)


@cache
def answers(split: str) -> SoftLabels:
    """The teacher's distributions for `documents(split)`, asked for once."""
    return kept("topics", split, lambda: ask(split))


def ask(split: str) -> SoftLabels:
    """One run of the teacher over a split, short documents first: that saves a quarter of the padding."""
    rows = documents(split)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    soft = ask_teacher(teacher().model, [rows[i] for i in order])
    back = torch.tensor(order).argsort()
    return SoftLabels(soft.keys[back], soft.rows[back], {n: t[back] for n, t in soft.tensors.items()}, soft.classes,
                      soft.temperature)


@cache
def examples(split: str) -> list[dict]:
    """Documents with their stored distribution as the column `teacher_log_probs`, checked by key."""
    return attach(documents(split), answers(split))


def shuffled(rows: list[dict], seed: int) -> list[dict]:
    """The classical bug: the stored column is zipped with the documents in another order."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [row | {"teacher_log_probs": rows[i]["teacher_log_probs"]} for row, i in zip(rows, order, strict=True)]


def prepare() -> None:
    """Ask the teacher before the runs start, if its answers are not there yet."""
    for split in SPLITS:
        examples(split)


# --- Students --------------------------------------------------------------------------------------------------------


def student(seed: int, start: str = "embeddings", source: PreTrainedModel | None = None, *,
            train_words: bool = False) -> PreTrainedModel:
    """A one-layer student. "embeddings": the practitioner's (`cached.document_student`). "first layer": the teacher's
    first block as well. "narrow": 192 wide, 6 heads, the embeddings by principal components.

    Copied word embeddings stay frozen (a step is cheaper) unless `train_words`. The narrow ones are new and
    always trained. source: the model to copy from (default: this chapter's teacher).
    """
    model = source or teacher().model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if start == "narrow":
            found = new_student(model, layers=1, hidden=192, heads=6)
            copy_factorised_embeddings(found, model)
        else:
            found = cached.document_student(model)
            found.get_input_embeddings().requires_grad_(train_words)
    if start == "first layer":
        copy_layers(found, model, layer_maps.blocks_only(layer_maps.bottom(1, 6)))
    return found.train()


def paper_size(layers: int) -> PreTrainedModel:
    """The practitioner's Japanese BERT with 12 layers, or its student with 1, on the meta device: shapes, no memory."""
    with torch.device("meta"):
        return BertForSequenceClassification(BertConfig(vocab_size=32_768, num_hidden_layers=layers, num_labels=2))


# --- Training and measuring ------------------------------------------------------------------------------------------


def loss_terms(arm: Arm):
    """The terms of the loss as the training loop wants them; the teacher is in the batch."""
    weights = {name: getattr(arm, name) for name in ("hard_weight", "soft_weight", "temperature")}
    return CACHED.stages(Job(None, 1, CACHED.recipe_of("laptop", weights)))[0].terms


def part(arm: Arm, seed: int, steps: int | None = None) -> Part:
    """The one part of an arm's training; `steps` replaces the arm's own number."""
    rows = shuffled(examples("train"), seed) if arm.cache == "shuffled" else examples("train")
    numbers = Training(arm.learning_rate, steps=arm.steps if steps is None else steps, batch_size=BATCH_SIZE)
    return Part.of(loss_terms(arm), numbers, Batches(rows, BATCH_SIZE, seed=seed))


def training(arm: Arm, seed: int) -> tuple[PreTrainedModel, list[Part]]:
    """The student of an arm and the one part of its training. (TF-IDF has none.)"""
    words = isinstance(arm, Longer) and arm.words
    return student(seed, arm.start, train_words=words), [part(arm, seed)]


def fit(model: nn.Module, arm: Arm, seed: int, *, steps: int | None = None) -> History:
    """Train one student on stored answers; `steps` replaces the arm's own number."""
    return part(arm, seed, steps).learn(model, seed)[1]


def live() -> Live:
    """No teacher in the step: its answers are in the batch."""
    return Live(student(0), None, Batches(examples("train"), BATCH_SIZE))


def loss_ends(history: History) -> tuple[float, float]:
    """The mean of the whole loss over the first and over the last twenty steps."""
    losses = [sum(row.get(name, 0.0) for name in ("soft", "hard")) for row in history.steps]
    return sum(losses[:20]) / len(losses[:20]), sum(losses[-20:]) / len(losses[-20:])


def doctor(model: nn.Module, arm: Arm, history: History, steps: int):
    """The doctor's report on a student after its run, with one batch of training documents."""
    from course_lib.doctor import diagnose

    batch = Batches(examples("train"), 16, seed=0)[0]
    return diagnose(model, teacher().model, batch, part(arm, 0, steps).recipe(), history, terms=loss_terms(arm))


def live_against_cached(pairs: int = 5) -> float:
    """Time of a training step with a live teacher, as a multiple of a step from the cache; median of pairs."""
    model, arm = student(0), ARMS["labels + answers"]
    optimizer, terms = torch.optim.AdamW(model.parameters(), lr=5e-4), loss_terms(arm)
    batch = in_order(examples("train")[:BATCH_SIZE], BATCH_SIZE)[0]

    def seconds(live: bool, _round: int) -> float:
        started = time.perf_counter()
        with autocast("auto"):
            row = {"teacher_log_probs": probes.teacher_logits_of(teacher().model, batch)} if live else {}
            sum(terms(model, batch | row).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    return ratio_in_turns(partial(seconds, True), partial(seconds, False), pairs)[1]


def scores(model: nn.Module, split: str = "test") -> dict[str, float]:
    """Accuracy, agreement with the teacher and calibration error on a split, in percent."""
    return _scores(predict_logits(model, in_order(examples(split))), split)


def _scores(logits: Tensor, split: str) -> dict[str, float]:
    labels = torch.tensor([row["label"] for row in examples(split)])
    stored = torch.tensor(np.array([row["teacher_log_probs"] for row in examples(split)]))
    return {"accuracy": round(100 * accuracy(logits, labels), 2),
            "agreement": round(100 * agreement(logits, stored), 2),
            "calibration_error": round(100 * calibration(logits, labels).ece, 2)}


def tf_idf_scores() -> dict[str, float]:
    """Words and pairs of words, weighed by how rare they are, and logistic regression. The same splits, no teacher."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    data = load_data("topics")
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    model = LogisticRegression(C=30.0, max_iter=300)
    model.fit(words.fit_transform(data["train"]["text"]), data["train"]["label"])
    log_probs = torch.tensor(model.predict_log_proba(words.transform(data["test"]["text"])), dtype=torch.float32)
    return _scores(log_probs, "test") | {"parameters": int(model.coef_.size + model.intercept_.size)}


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Make one classifier and measure it on the test split. TF-IDF has no seed: its five runs are equal."""
    arm = ARMS[arm_name]
    if arm.model == "TF-IDF":
        return tf_idf_scores()
    model, (only,) = training(arm, seed)
    first, last = loss_ends(only.learn(model, seed)[1])
    return scores(model) | {"loss_at_the_start": round(first, 4), "loss_at_the_end": round(last, 4),
                            "parameters": count_parameters(model)}


def poll_result() -> tuple[str, str]:
    """The option of chapter 9's poll that fits the measurement, and the numbers that say so."""

    options = {"a": "TF-IDF", "b": "labels", "c": "labels + answers", "d": "first layer copied"}
    return records.leader("ch09", options, "e")


# --- The same in Japanese: mechanics only ----------------------------------------------------------------------------


def japanese_teacher(vocabulary: int, rows: list[dict]) -> PreTrainedModel:
    """A random BERT of 4 layers x 64 that learns three topics from the given sentences: about two seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(
            vocab_size=vocabulary, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=64, num_labels=3, initializer_range=0.1, attn_implementation="eager"))
    labels_only = loss_terms(Arm(soft_weight=0.0, hard_weight=1.0))
    train(model, Batches(rows, 16, seed=0), labels_only, Recipe(steps=80, learning_rate=1e-3))
    return model.requires_grad_(False)


def japanese_student(model: PreTrainedModel, rows: list[dict]) -> PreTrainedModel:
    """A student of one layer with the teacher's embeddings; `rows` carry the stored answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        found = cached.document_student(model).requires_grad_(True)
    train(found, Batches(rows, 16, seed=1), loss_terms(Arm()), Recipe(steps=80, learning_rate=1e-3))
    return found


def same_answers(ours: nn.Module, theirs: nn.Module, rows: list[dict]) -> float:
    """The share of examples on which two models have the same favourite, 0 to 1."""
    return agreement(*(predict_logits(model, in_order(rows)) for model in (ours, theirs)))
