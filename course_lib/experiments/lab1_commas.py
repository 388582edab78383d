"""The comma lab: why a masked-LM student answers ',' for every [MASK], and what gets it off that plateau.

Wikipedia text. Teacher: the course's masked-LM teacher (6 x 384). Student: narrow, 6 x 256, unless an arm says
otherwise. All arms see the same windows in the same order; each arm changes one thing, or one more thing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.experiments import records
from course_lib.material.data import load_data
from course_lib.material.teachers import Teacher, load_teacher
from course_lib.methods import hinton, tinybert
from course_lib.notebook.views import View
from course_lib.notebook.views.failure_lab import LabText, Measure, Switch, failure_lab
from course_lib.shared.batches import Batches, MaskedBatch, in_order, windows
from course_lib.shared.masking import IGNORED
from course_lib.shared.measures import evaluate_masked_lm
from course_lib.shared.narrowing import Kept, choose, copy_narrowed
from course_lib.shared.probes import logits_of
from course_lib.shared.projections import Projection
from course_lib.shared.starts import copy_factorised_embeddings
from course_lib.shared.students import evaluating, new_student
from course_lib.shared.training import History, Recipe, autocast, train

ABOUT = "Wikipedia text, masked LM, 6 x 256 student: one remedy at a time against the answer ','."
SEEDS = range(5)
WINDOW = 48  # tokens
WINDOW_SHOWN = 4  # the held-out window whose answers are shown
SHAPE = {"layers": 6, "hidden": 256, "heads": 8, "intermediate": 1024}


@dataclass(frozen=True)
class Arm:
    """One recipe. The defaults are the practitioner's: nothing but KL on all positions, and a fine-tuning rate."""

    temperature: float = 1.0
    hard_weight: float = 0.0
    soft_weight: float = 1.0
    positions: str = "all"  # or "masked"
    reduction: str = "batchmean"
    tied: bool = False
    start: str = "random"  # "pca": the teacher's embeddings, projected; "picked", "rotated": all matrices (narrowing)
    projection: str = "none"  # a hidden-state loss with a trainable projection on the "student" or "teacher" side
    learning_rate: float = 5e-5
    steps: int = 100
    batch_size: int = 16


REPORTED = Arm()
REMEDIES = Arm(temperature=2.0, hard_weight=0.5, soft_weight=0.5, positions="masked")  # no rate, no head, no start
CURE = replace(REMEDIES, tied=True, start="picked", learning_rate=1e-3)


def _cell(rate: float, tied: bool, start: str) -> str:
    return f"rate {rate:g}, {'tied' if tied else 'untied'}, {start} start"


FACTORIAL = {_cell(rate, tied, start): replace(REMEDIES, learning_rate=rate, tied=tied, start=start)
             for rate in (5e-5, 1e-3) for tied in (False, True) for start in ("random", "picked")}

ARMS = {
    "as reported": REPORTED,
    "masked positions only": replace(REPORTED, positions="masked"),
    "masked + temperature 2": replace(REPORTED, positions="masked", temperature=2.0),
    "masked + hard loss": replace(REPORTED, positions="masked", hard_weight=0.5, soft_weight=0.5),
    **FACTORIAL,
    "cure, temperature 1": replace(CURE, temperature=1.0),
    "cure, soft loss only": replace(CURE, hard_weight=0.0, soft_weight=1.0),
    "cure, labels only (no teacher)": replace(CURE, hard_weight=1.0, soft_weight=0.0),
    "cure, reduction 'mean'": replace(CURE, reduction="mean"),
    "cure, PCA embeddings, random blocks": replace(CURE, start="pca"),
    "cure, PCA of all matrices": replace(CURE, start="rotated"),
    "random start, student-side projection": replace(CURE, start="random", projection="student"),
    "random start, teacher-side projection": replace(CURE, start="random", projection="teacher"),
    "the recipe": replace(CURE, steps=300, batch_size=32, learning_rate=5e-4),
}
HIS_REMEDIES = _cell(5e-5, False, "random")
WITHOUT_START = _cell(1e-3, True, "random")
SHORT_CURE = _cell(1e-3, True, "picked")


@cache
def teacher() -> Teacher:
    return load_teacher("mlm")


@cache
def text(split: str) -> list[dict]:
    """Windows of at most 48 tokens; for measuring, 384 of the test windows."""
    rows = windows(load_data("wikipedia")[split], teacher().tokenizer, WINDOW)
    return rows if split == "train" else rows[:384]


@cache
def test_batches() -> list[dict[str, Tensor]]:
    """Masks drawn once (seed 0), so that every arm answers the same questions."""
    masks = MaskedBatch(teacher().tokenizer, generator=torch.Generator().manual_seed(0))
    return in_order(text("test"), 64, masks)


@cache
def unigram() -> Tensor:
    """How often each token occurs in the training windows: (vocabulary,), special tokens not counted."""
    counts = torch.zeros(len(teacher().tokenizer))
    for row in text("train"):
        counts += torch.bincount(torch.tensor(row["input_ids"][1:-1]), minlength=len(counts))
    return counts


@cache
def kept(by: str) -> Kept:
    """What is largest in the teacher on 640 training windows: coordinates ("pick") or components ("pca")."""
    return choose(teacher().model, [Batches(text("train"), 32, seed=99)[i] for i in range(20)], width=SHAPE["hidden"],
                  heads=SHAPE["heads"], intermediate=SHAPE["intermediate"], by=by)


def prepare() -> None:
    """Fetch the data once, before the processes start."""
    text("train")


def student(arm: Arm, seed: int) -> PreTrainedModel:
    """A narrow student, tied or not, that starts as the arm says."""
    model = new_student(teacher().model, **SHAPE, seed=seed)
    if arm.start == "pca":
        copy_factorised_embeddings(model, teacher().model)
    elif arm.start in ("picked", "rotated"):
        copy_narrowed(model, teacher().model, kept("pick" if arm.start == "picked" else "pca"))
    if not arm.tied:
        untie(model, fresh=arm.start == "random", seed=seed)
    if arm.projection != "none":
        model.projection = Projection(SHAPE["hidden"], teacher().model.config.hidden_size, side=arm.projection)
    return model.train()


def untie(model: PreTrainedModel, *, fresh: bool, seed: int) -> None:
    """Give the output matrix numbers of its own: random ones (fresh), or a copy of the word embeddings."""
    words = model.get_input_embeddings().weight
    drawn = torch.randn(words.shape, generator=torch.Generator().manual_seed(seed)) * model.config.initializer_range
    model.config.tie_word_embeddings = False
    model.get_output_embeddings().weight = nn.Parameter(drawn if fresh else words.detach().clone())


def loss_terms(arm: Arm):
    """Terms of the loss: hard and soft at the arm's positions; hidden states, if there is a projection."""
    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        masked = batch["labels"] != IGNORED
        chosen = masked if arm.positions == "masked" else batch["attention_mask"].bool()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")} | {"output_hidden_states": True}
        with torch.no_grad():
            target = teacher().model.bert(**inputs)
            teacher_logits = teacher().model.cls(target.last_hidden_state[chosen])
        ours = model.bert(**inputs)
        logits = model.cls(ours.last_hidden_state[chosen])  # (B, T, H) -> (chosen, vocabulary)
        found = {}
        if arm.hard_weight:
            found["hard"] = arm.hard_weight * nn.functional.cross_entropy(
                logits.float(), batch["labels"][chosen], ignore_index=IGNORED)
        if arm.soft_weight:
            found["soft"] = arm.soft_weight * hinton.soft_target_loss(
                logits, teacher_logits, temperature=arm.temperature, reduction=arm.reduction)
        if arm.projection != "none":
            layers = range(1, SHAPE["layers"] + 1)
            pairs = [model.projection(ours.hidden_states[i], target.hidden_states[i], i) for i in layers]
            found["hidden"] = sum(tinybert.hidden_loss(s, t, batch["attention_mask"]) for s, t in pairs) / len(pairs)
        return found
    return terms


def fit(model: PreTrainedModel, arm: Arm, seed: int, *, evaluate_every: int = 0, evaluate: Callable | None = None
        ) -> History:
    """Train with the arm's recipe; with `evaluate_every`, the history holds the way off the plateau."""
    masks = MaskedBatch(teacher().tokenizer)
    recipe = Recipe(steps=arm.steps, learning_rate=arm.learning_rate, warmup=0.05, precision="auto", seed=seed,
                    evaluate_every=evaluate_every)
    return train(model, Batches(text("train"), arm.batch_size, seed=seed, collate=masks), loss_terms(arm), recipe,
                 evaluate=(evaluate or scores) if evaluate_every else None)


def scores(model: nn.Module) -> dict[str, float]:
    """Held-out masked top-1 and top-5, the share of the four commonest answers (percent), how many different tokens
    are answered, and the distance of the predictions to the unigram distribution (0 to 1)."""
    with autocast("auto"):
        found = evaluate_masked_lm(model, test_batches(), unigram(), frequent=4)
    return {"top1": round(100 * found.top1, 2), "top5": round(100 * found.top_k, 2),
            "top4_share": round(100 * sum(share for _, share in found.commonest[:4]), 2),
            "distinct": found.distinct_answers, "unigram_distance": round(found.unigram_distance, 4)}


@torch.no_grad()
def answers(model: nn.Module, window: int = WINDOW_SHOWN) -> list[tuple[int, str, str]]:
    """(position, true token, predicted token) for every masked position of one held-out window."""
    row, places = _shown(window)
    with evaluating(model):
        best = logits_of(model, row)[0, places].argmax(-1)
    return list(zip(places.tolist(), _tokens(row["labels"][0, places]), _tokens(best), strict=True))


def _shown(window: int) -> tuple[dict[str, Tensor], Tensor]:
    row = {name: values[window:window + 1] for name, values in test_batches()[0].items()}
    return row, (row["labels"][0] != IGNORED).nonzero().flatten()


def _tokens(ids: Tensor) -> list[str]:
    return teacher().tokenizer.convert_ids_to_tokens(ids.tolist())


WATCHED = ["as reported", *FACTORIAL, "the recipe"]  # seed 0 of these keeps its way off the plateau


def run(arm_name: str, seed: int) -> dict:
    """Train one student and measure it."""
    arm, model = ARMS[arm_name], student(ARMS[arm_name], seed)
    if seed != 0 or arm_name not in WATCHED:
        history = fit(model, arm, seed)
        return scores(model) | {"training_seconds": round(history.seconds, 1)}
    looks = [_look(model)]

    def look(trained: nn.Module) -> dict[str, float]:
        looks.append(_look(trained))
        return looks[-1][0]

    history = fit(model, arm, seed, evaluate_every=max(arm.steps // 10, 1), evaluate=look)
    return scores(model) | {"training_seconds": round(history.seconds, 1), "curve": curve(arm_name, history, looks)}


def _look(model: nn.Module) -> tuple[dict[str, float], list[str]]:
    return scores(model), [predicted for _, _, predicted in answers(model)]


def curve(name: str, history: History, looks: list[tuple[dict[str, float], list[str]]]) -> dict:
    """One run as the view `failure_lab` wants it: measures and answers at every look, the loss at every step."""
    row, places = _shown(WINDOW_SHOWN)
    blanks = {place: f"[{number}]" for number, place in enumerate(places.tolist(), start=1)}
    real = row["input_ids"][0, : int(row["attention_mask"].sum())]
    words = [blanks.get(i, token) for i, token in enumerate(_tokens(real))][1:-1]
    return {"lab": "commas", "arm": name, "steps": [0, *(score["step"] for score in history.scores)],
            "measures": {key: [scored[key] for scored, _ in looks] for key in looks[0][0]},
            "loss": [float(f"{sum(v for k, v in step.items() if k in ('hard', 'soft', 'hidden')):.4g}")
                     for step in history.steps],
            "rows": [[str(i), token] for i, token in enumerate(_tokens(row["labels"][0, places]), start=1)],
            "text": [" ".join(words).replace(" ##", "")], "shown": [shown for _, shown in looks]}


def explorer() -> View:
    """The recorded runs of seed 0: take the start, the rate or the tied head away from the cure, and move the step."""

    curves = {run["arm"]: run["curve"] for run in records.load("lab1")["runs"] if "curve" in run}
    switches = (Switch("start", "random start", "The student starts from random numbers, not from the teacher's."),
                Switch("rate", "rate 5e-5", "A fine-tuning learning rate in place of 1e-3."),
                Switch("head", "untied head", "The output matrix is a tensor of its own."))
    runs = {}
    for name, arm in FACTORIAL.items():
        wrong = {"start": arm.start == "random", "rate": arm.learning_rate == 5e-5, "head": not arm.tied}
        runs[frozenset(key for key, on in wrong.items() if on)] = name
    measures = (Measure("top1", "hidden words found", "%"),
                Measure("distinct", "different answers", digits=0, log=True),
                Measure("unigram_distance", "distance to the unigram distribution", digits=2),
                Measure("top4_share", "share of the four commonest answers", "%"),
                Measure("loss", "training loss", digits=3, log=True))
    about = "Which word stood there? A narrow student learns at the hidden words: labels and the teacher, T = 2."
    lab = LabText("commas", "The comma lab", about, "words", switches, runs, measures)
    return failure_lab(curves, (lab,), title="The way off the plateau")


def poll_result() -> tuple[str, str]:
    """The option of the lab's poll that fits the measurement, and the numbers that say so."""

    changes = {"a": ("masked + temperature 2", "masked positions only"),
               "b": ("masked + hard loss", "masked positions only"),
               "c": (_cell(5e-5, True, "random"), HIS_REMEDIES),
               "d": (_cell(1e-3, False, "random"), HIS_REMEDIES),
               "e": (_cell(5e-5, False, "picked"), HIS_REMEDIES)}
    gains = {letter: records.summary("lab1", "top1", before, [after])[0].gain.interval.mean
             for letter, (after, before) in changes.items()}
    said = ", ".join(f"{letter} {gain:+.1f}" for letter, gain in gains.items())
    return max(gains, key=gains.get), f"Points of masked top-1 that each change brought, alone: {said}."
