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
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.experiments import records, sentences
from course_lib.experiments.sentences import SEEDS, teacher
from course_lib.material.assets import asset
from course_lib.material.data import load_data
from course_lib.material.word_vectors import glove
from course_lib.methods import bilstm
from course_lib.methods import bilstm_augmentation as augmentation
from course_lib.mistakes import mutant
from course_lib.shared.batches import Batches, pad
from course_lib.shared.clock import Latency, latency_ratio
from course_lib.shared.masking import IGNORED
from course_lib.shared.training import History, Recipe, train

__all__ = ["ABOUT", "ARMS", "MAIN", "SEEDS", "augmented", "fit", "latency", "lexicon", "made_up", "poll_result",
           "prepare", "run", "scores", "student", "tagged", "teacher", "vocabulary", "word_rows"]

ABOUT = "Movie sentences, BiLSTM student: labels alone, the teacher's logits, and the same with augmented text."
BATCH_SIZE = 50  # the paper's
COPIES = 3  # new sentences per sentence; the paper made 20
RECIPE = Recipe(steps=900, learning_rate=2e-3, precision="auto")


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
    recipe = bilstm.BilstmRecipe(alpha=arm.alpha)
    return lambda model, batch: bilstm.terms(model, None, batch, recipe)


def scores(model: nn.Module, split: str = "test") -> dict[str, float]:
    """Accuracy, agreement with the teacher and calibration error of a student that reads words."""
    return sentences.scores(model, split, word_rows(split))


def fit(model: nn.Module, arm: Arm, seed: int, recipe: Recipe = RECIPE, evaluate=None) -> History:
    """Train a student as the arm says."""
    batches = Batches(training_set(arm), BATCH_SIZE, seed=seed)
    with mutant(arm.mistake) if arm.mistake else nullcontext():
        return train(model, batches, loss_terms(arm), Recipe(**recipe.__dict__ | {"seed": seed}), evaluate=evaluate)


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
