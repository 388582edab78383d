"""Chapter 2: does a BiLSTM learn from a BERT, and does text that we make ourselves help?

Movie sentences. Teacher: the course's sentiment teacher. Student: one BiLSTM layer over GloVe vectors, with words of
its own. Every arm of a seed starts with the same weights and takes the same number of steps; what differs is what it
learns from. Two arms repeat a mistake of public copies. The last arm is no network: TF-IDF and logistic regression.

The optimiser is the course's AdamW; the paper used Adadelta.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.experiments import records, sentences
from course_lib.experiments.described import Live, Part
from course_lib.experiments.sentences import SEEDS, teacher
from course_lib.material.assets import asset
from course_lib.material.data import load_data
from course_lib.material.word_vectors import glove
from course_lib.methods import bilstm
from course_lib.methods import bilstm_augmentation as augmentation
from course_lib.methods.bilstm import RECORD as BILSTM
from course_lib.mistakes import mutant
from course_lib.shared import probes
from course_lib.shared.batches import Batches, in_order, pad
from course_lib.shared.clock import Latency, latency_ratio
from course_lib.shared.masking import IGNORED
from course_lib.shared.method import Job, Stage
from course_lib.shared.training import History, Recipe

__all__ = ["ABOUT", "ARMS", "MAIN", "SEEDS", "augmented", "fit", "latency", "lexicon", "made_up", "poll_result",
           "prepare", "run", "scores", "student", "tagged", "teacher", "vocabulary", "word_rows"]

ABOUT = "Movie sentences, BiLSTM student: labels alone, the teacher's logits, and the same with augmented text."
COPIES = 3  # new sentences per sentence; the paper made 20


@dataclass(frozen=True)
class Arm:
    """What one arm learns from."""

    alpha: float = 0.0  # weight of the hard label; the logits have 1 - alpha
    text: Literal["original", "augmented", "copied labels"] = "original"
    mistake: str = ""  # a mutant that is switched on
    model: Literal["bilstm", "tf-idf"] = "bilstm"


ARMS = {
    "labels": Arm(alpha=1.0),
    "logits": Arm(),
    "labels + augmented text": Arm(alpha=1.0, text="copied labels"),
    "logits + augmented text": Arm(text="augmented"),
    "both + augmented text": Arm(alpha=0.5, text="augmented"),
    "mistake: mse of probabilities": Arm(text="augmented", mistake="mse_of_probabilities"),
    "mistake: inverted mask": Arm(text="augmented", mistake="inverted_augmentation_mask"),
    "TF-IDF + logistic regression": Arm(alpha=1.0, model="tf-idf"),
}

MAIN = [name for name, arm in ARMS.items() if not arm.mistake]


def stage(arm: Arm) -> Stage:
    """The method's own stage with the arm's weight."""
    return BILSTM.stages(Job(None, 1, BILSTM.recipe_of("laptop", {"alpha": arm.alpha})))[0]


NUMBERS = stage(Arm()).training
RECIPE, BATCH_SIZE = NUMBERS.recipe(), NUMBERS.batch_size

# --- Words ------------------------------------------------------------------------------------------------------------


@cache
def vocabulary() -> bilstm.WordVocabulary:
    """The words of the training sentences that have a GloVe vector."""
    words, vectors = glove()
    return bilstm.WordVocabulary(load_data("sentiment")["train"]["text"], {w: i for i, w in enumerate(words)}, vectors)


def student(seed: int) -> bilstm.BiLstm:
    """One BiLSTM layer, 150 wide in each direction; a tuned and a frozen copy of the GloVe vectors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return bilstm.BiLstm(vocabulary().vectors, classes=2)


@cache
def word_rows(split: str) -> list[dict]:
    """The sentences of a split in the student's words, with label and teacher's logits."""
    texts = load_data("sentiment")[split]["text"]
    return [_row(text, row) for text, row in zip(texts, sentences.examples(split), strict=True)]


def _row(text: str, answered: dict) -> dict:
    # The cache keeps log-probabilities. Taking their mean off gives the logits without their common part.
    logits = np.asarray(answered["teacher_logits"])
    return vocabulary().encode(text) | {"label": answered["label"], "teacher_logits": logits - logits.mean()}


# --- More text --------------------------------------------------------------------------------------------------------


@cache
def lexicon() -> dict[str, str]:
    """The most frequent part of speech of 94,000 words."""
    return augmentation.read_lexicon(asset("pos-lexicon", "en-lexicon.txt"))


@cache
def tagged(split: str = "train") -> list[list[tuple[str, str]]]:
    """The sentences of a split as words with their part of speech."""
    return [augmentation.tags(bilstm.split_words(text), lexicon()) for text in load_data("sentiment")[split]["text"]]


@cache
def made_up(mistake: str = "") -> list[tuple[str, int]]:
    """About three new sentences per training sentence, each with the label of the sentence that it was made from.

    That label may no longer fit. mistake: a mutant of the augmentation that is switched on.
    """
    labels, table = load_data("sentiment")["train"]["label"], augmentation.words_by_tag(tagged())
    with mutant(mistake) if mistake else nullcontext():
        made = [(joined(words), label) for number, (sentence, label) in enumerate(zip(tagged(), labels, strict=True))
                for words in augmentation.augment([sentence], table, n_iter=COPIES, seed=number)]
    return sorted(dict(made).items(), key=lambda row: len(row[0]))  # each text once; equal lengths need no padding


@cache
def augmented(mistake: str = "") -> list[dict]:
    """`made_up` in the student's words, answered by the teacher (the first time this takes minutes)."""
    made = made_up(mistake)
    tokens = teacher().tokenizer([text for text, _ in made], truncation=True, max_length=sentences.MAX_LENGTH)
    rows = [{"input_ids": ids, "label": label} for ids, (_, label) in zip(tokens["input_ids"], made, strict=True)]
    digest = hashlib.sha256("\n".join(text for text, _ in made).encode()).hexdigest()[:12]
    answered = sentences.with_answers(rows, f"augmented-{digest}")
    return [_row(text, row) for (text, _), row in zip(made, answered, strict=True)]


def joined(words: Sequence[str]) -> str:
    """Words as a text again; contractions close up, so that the teacher reads "don't" and not "do n't"."""
    return re.sub(r" (n['’]t|['’](?:s|re|ve|ll|d|m))\b", r"\1", " ".join(words))


def training_set(arm: Arm) -> list[dict]:
    """What an arm reads. Augmented sentences have no true label: only a control arm takes over the original's."""
    if arm.text == "original":
        return word_rows("train")
    new = augmented(arm.mistake if arm.mistake == "inverted_augmentation_mask" else "")
    return word_rows("train") + [row if arm.text == "copied labels" else row | {"label": IGNORED} for row in new]


# --- Runs -------------------------------------------------------------------------------------------------------------


def loss_terms(arm: Arm):
    """The terms of the loss as the training loop wants them."""
    return stage(arm).terms


def scores(model: nn.Module, split: str = "test") -> dict[str, float]:
    """Accuracy, agreement with the teacher and calibration error of a student that reads words."""
    return sentences.scores(model, split, word_rows(split))


def training(arm: Arm, seed: int) -> tuple[nn.Module, list[Part]]:
    """The student of an arm and the one part of its training."""
    return student(seed), [Part(stage(arm), Batches(training_set(arm), BATCH_SIZE, seed=seed))]


def fit(model: nn.Module, arm: Arm, seed: int, recipe: Recipe = RECIPE, evaluate=None) -> History:
    """Train a student as the arm says."""
    batches = Batches(training_set(arm), BATCH_SIZE, seed=seed)
    with mutant(arm.mistake) if arm.mistake else nullcontext():
        return stage(arm).learn(model, batches, replace(recipe, seed=seed), evaluate=evaluate)[1]


def live() -> Live:
    """A step with the teacher beside the student: it reads the same sentences in its own tokens."""
    rows = [row | {"words": word["input_ids"]} for row, word in
            zip(sentences.examples("train"), word_rows("train"), strict=True)]

    def both(some: list[dict]) -> dict[str, Tensor]:
        tokens = pad([{"input_ids": row["input_ids"]} for row in some])
        words = pad([{"input_ids": row["words"], "label": row["label"]} for row in some])
        return words | {"tokens": tokens["input_ids"], "tokens_mask": tokens["attention_mask"]}

    def ask(batch: dict[str, Tensor]) -> Tensor:
        source = teacher().model.to(batch["tokens"].device)
        return probes.teacher_logits_of(source, {"input_ids": batch["tokens"], "attention_mask": batch["tokens_mask"]})
    return Live(student(0), None, in_order(rows[: 10 * BATCH_SIZE], BATCH_SIZE, both), ask)


def bag_of_words(split: str = "test") -> Tensor:
    """Logits of TF-IDF (single words) + logistic regression, learned from the labels. No randomness, no seeds."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    data = load_data("sentiment")
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10.0, max_iter=1000))
    model.fit(data["train"]["text"], data["train"]["label"])
    positive = torch.as_tensor(model.decision_function(data[split]["text"]), dtype=torch.float32)
    return torch.stack([-positive / 2, positive / 2], dim=-1)


def latency(model: nn.Module, count: int = 32, repeats: int = 15) -> Latency:
    """Time of the student as a share of the teacher's, for the first `count` test sentences."""
    return latency_ratio(model, teacher().model, pad(word_rows("test")[:count]), repeats,
                         teacher_batch=pad(sentences.examples("test")[:count]))


def prepare() -> None:
    """Ask the teacher about all sentences, the real ones and the new ones."""
    sentences.prepare()
    augmented()
    augmented("inverted_augmentation_mask")


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split."""
    arm = ARMS[arm_name]
    if arm.model == "tf-idf":
        return sentences.scores_of(bag_of_words())
    model = student(seed)
    fit(model, arm, seed)
    return scores(model) | {"times_faster": round(1 / latency(model, repeats=7).ratio, 1)}


def poll_result() -> tuple[str, str]:
    """The option of the chapter's poll that fits the measurement, and the numbers that say so."""
    arms = ("labels", "logits", "labels + augmented text", "logits + augmented text")
    return records.leader("ch02", dict(zip("abcd", arms, strict=True)), "e")
