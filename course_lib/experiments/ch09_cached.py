"""Chapter 9: a document classifier of one layer that learns from stored probabilities.

Wikipedia leads, eleven topics. The teacher (6 layers x 384) answered every document once; its distributions lie in
`data/answers/`, so no arm runs it. All arms of a seed see the same batches in the same order.

    python -m course_lib.experiments.ch09_cached     ask the teacher again (minutes), after a new teacher
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel

from course_lib import layer_maps
from course_lib.assets import DATA, cache_folder
from course_lib.data import Batches, encode, in_order, load_data
from course_lib.measures import accuracy, agreement, calibration, predict_logits
from course_lib.methods import cached
from course_lib.methods.cached import SoftLabels, ask_teacher, attach, load_soft_labels
from course_lib.students import copy_factorised_embeddings, copy_layers, new_student
from course_lib.teachers import Teacher, load_teacher
from course_lib.training import History, Recipe, train

ABOUT = "Wikipedia leads, one layer from stored probabilities: learning rate, start, size, shuffled cache, TF-IDF."
SEEDS = range(5)
MAX_LENGTH = 128
BATCH_SIZE = 32
STEPS = 450  # two epochs
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Arm:
    """One way to get a small document classifier."""

    soft_weight: float = 0.5
    hard_weight: float = 0.5
    temperature: float = 2.0
    learning_rate: float = 5e-4
    start: str = "embeddings"  # what is copied: "embeddings", "first layer" (and the embeddings), or "narrow"
    cache: str = "right"  # or "shuffled": the stored rows were zipped with documents in another order
    model: str = "BERT"  # or "TF-IDF": word counts and logistic regression, no neural network at all
    steps: int = STEPS


ARMS = {
    "labels": Arm(soft_weight=0.0, hard_weight=1.0),
    "labels + answers": Arm(),
    "labels + answers, rate 1e-5": Arm(learning_rate=1e-5),
    "first layer copied": Arm(start="first layer"),
    "narrow": Arm(start="narrow"),
    "shuffled cache": Arm(cache="shuffled"),
    "TF-IDF": Arm(soft_weight=0.0, hard_weight=1.0, model="TF-IDF", steps=0),
}


# --- Documents and the teacher's stored answers ----------------------------------------------------------------------


@cache
def teacher() -> Teacher:
    """The topics teacher: 6 layers x 384, 11 classes."""
    return load_teacher("topics")


@cache
def documents(split: str) -> list[dict]:
    """The encoded documents of a split, at most 128 tokens each: input_ids, token_type_ids, label."""
    return encode(load_data("topics")[split], teacher().tokenizer, MAX_LENGTH)


def answer_file(split: str, folder: Path | None = None) -> Path:
    """Where a split's stored distributions lie. The name carries the teacher's version: an old cache is never read."""
    version = hashlib.sha256((DATA / "teachers/topics/adapter.safetensors").read_bytes()).hexdigest()[:12]
    return (folder or DATA / "answers") / f"topics-{split}-{version}.safetensors"


@cache
def answers(split: str) -> SoftLabels:
    """The teacher's distributions for `documents(split)`: committed, else from the cache folder, else asked for."""
    if answer_file(split).exists():
        return load_soft_labels(answer_file(split))
    path = answer_file(split, cache_folder() / "answers")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        ask_teacher(teacher().model, documents(split)).save(path)
    return load_soft_labels(path)


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


def student(seed: int, start: str = "embeddings") -> PreTrainedModel:
    """A one-layer student. "embeddings": the practitioner's (`cached.document_student`). "first layer": the teacher's
    first block as well. "narrow": 192 wide, 6 heads, the embeddings by principal components."""
    model = teacher().model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if start == "narrow":
            found = new_student(model, layers=1, hidden=192, heads=6)
            copy_factorised_embeddings(found, model)
        else:
            found = cached.document_student(model)
    if start == "first layer":
        copy_layers(found, model, layer_maps.blocks_only(layer_maps.bottom(1, 6)))
    return found.train()


def paper_size(layers: int) -> PreTrainedModel:
    """The practitioner's Japanese BERT with 12 layers, or its student with 1, on the meta device: shapes, no memory."""
    from transformers import BertForSequenceClassification

    with torch.device("meta"):
        return BertForSequenceClassification(BertConfig(vocab_size=32_768, num_hidden_layers=layers, num_labels=2))


# --- Training and measuring ------------------------------------------------------------------------------------------


def loss_terms(arm: Arm):
    """The terms of the loss as the training loop wants them; the teacher is in the batch."""
    recipe = cached.CachedRecipe(hard_weight=arm.hard_weight, soft_weight=arm.soft_weight, temperature=arm.temperature)

    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return cached.terms(model, None, batch, recipe)

    return terms


def fit(model: nn.Module, arm: Arm, seed: int, *, rows: list[dict] | None = None, **more) -> History:
    """Train one student on stored answers. `more` goes to the training loop."""
    rows = examples("train") if rows is None else rows
    rows = shuffled(rows, seed) if arm.cache == "shuffled" else rows
    recipe = Recipe(steps=arm.steps, learning_rate=arm.learning_rate, precision="auto", seed=seed)
    return train(model, Batches(rows, BATCH_SIZE, seed=seed), loss_terms(arm), recipe, **more)


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
    model = student(seed, arm.start)
    history = fit(model, arm, seed)
    first, last = (np.mean([sum(row[n] for n in ("soft", "hard") if n in row) for row in part])
                   for part in (history.steps[:20], history.steps[-20:]))
    return scores(model) | {"loss_at_the_start": round(float(first), 4), "loss_at_the_end": round(float(last), 4),
                            "parameters": sum(p.numel() for p in model.parameters())}


if __name__ == "__main__":
    for name in SPLITS:
        (DATA / "answers").mkdir(exist_ok=True)
        ask_teacher(teacher().model, documents(name)).save(answer_file(name))
