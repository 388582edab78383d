"""Chapter 10: all methods on one task: what they gain, and what they cost.

Movie sentences, the course's sentiment teacher (6 layers x 384). Most runs are those of the chapters, taken over as
they are (BORROWED). Which arm stands for a method was fixed by its paper, before any number was seen: PKD-skip,
Theseus' linear schedule, progressive MobileBERT. Two papers count new sentences as a part of the method; they have two
arms, because new sentences are also more data. Every student has its own baseline: the same start without a teacher.

Own arms are the two methods that had no number on this task:

| arm | differs from its neighbour by |
|---|---|
| DistilBERT | "Answers" and, beside it, the direction of the last hidden states (the live teacher's) |
| 1 layer, cached answers | chapter 9's student and recipe, on movie sentences |

The chapters' budgets are not equal: a step of a BiLSTM is cheap, so it may take more of them. `profile` measures what a
step costs, and the comparison counts cost, not steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import quantiles

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.experiments import ch01_hinton as ch01
from course_lib.experiments import ch02_bilstm as ch02
from course_lib.experiments import ch04_pkd as ch04
from course_lib.experiments import ch05_tinybert as ch05
from course_lib.experiments import ch06_mobilebert as ch06
from course_lib.experiments import ch07_minilm as ch07
from course_lib.experiments import ch08_theseus as ch08
from course_lib.experiments import ch09_cached as ch09
from course_lib.experiments import records, sentences
from course_lib.experiments.sentences import (
    BATCH_SIZE,
    LABELS,
    LABELS_AND_ANSWERS,
    RECIPE,
    SEEDS,
    answer_losses,
    half_depth,
    scores,
    teacher,
)
from course_lib.material.assets import DATA
from course_lib.material.data import load_data
from course_lib.methods.distilbert import cosine_loss
from course_lib.methods.theseus import TheseusRecipe
from course_lib.notebook.views.pareto import Axis, Point, pareto_numbers
from course_lib.shared.batches import Batches, pad
from course_lib.shared.clock import latency_ratio
from course_lib.shared.measures import count_parameters, gradient_shares
from course_lib.shared.seeds import Difference, Interval, mean_and_interval, paired_difference
from course_lib.shared.training import History, Recipe, Terms, autocast

__all__ = ["ABOUT", "AIMS", "ARMS", "BORROWED", "METHODS", "SEEDS", "SITUATIONS", "STUDENTS", "XS", "Aim", "Arm",
           "Phase", "asked", "choose", "cost", "document_classifier", "fit", "gain", "loss_terms", "numbers_of",
           "one_layer", "phases", "points", "poll_result", "prepare", "profile", "reached", "retention", "run",
           "scores", "start", "teacher", "timed_against_teacher", "values", "word_counts", "ys"]

ABOUT = "Movie sentences, every method of the course: accuracy and agreement beside size, speed and cost of training."
CACHED_RECIPE = replace(RECIPE, learning_rate=5e-4)  # chapter 9's rate, for a layer that is fresh
# By chapter 4's rule: a tenth of the gradient on the first batch, before any training. The README's proportion (1
# beside 5 + 2, so 1/7 here) would be 2 %, and "no difference" could mean "no pull". A run reports the share.
COSINE_WEIGHT = 1.0


@dataclass(frozen=True)
class Arm:
    """One point of the comparison. The last three fields say what an own arm learns from; borrowed arms leave them."""

    student: str  # a name in STUDENTS
    baseline: str = ""  # the arm with the same start and no teacher; "": this is one
    teacher: str = "none"  # what training needs: "none", "stored answers", "stored states", "live", or a sum of them
    more_text: bool = False  # reads new sentences beside the training split
    answers: bool = False
    cosine_weight: float = 0.0
    temperature: float = 4.0


ARMS = {
    "2 x 128, labels": Arm("2 x 128"),
    "Soft targets": Arm("2 x 128", "2 x 128, labels", "stored answers"),
    "BiLSTM, labels": Arm("BiLSTM"),
    "Distilled BiLSTM": Arm("BiLSTM", "BiLSTM, labels", "stored answers"),
    "Distilled BiLSTM, more text": Arm("BiLSTM", "BiLSTM, labels", "stored answers", more_text=True),
    "3 x 384, labels": Arm("3 x 384"),
    "Answers": Arm("3 x 384", "3 x 384, labels", "stored answers"),
    "DistilBERT": Arm("3 x 384", "3 x 384, labels", "stored answers + live", answers=True, cosine_weight=COSINE_WEIGHT),
    "PKD": Arm("3 x 384", "3 x 384, labels", "stored states"),
    "First layers, labels": Arm("3 x 384"),
    "Theseus": Arm("3 x 384", "First layers, labels", "live"),
    "General start, labels": Arm("3 x 384"),
    "MiniLM": Arm("3 x 384", "General start, labels", "live"),
    "3 x 192, labels": Arm("3 x 192"),
    "MiniLM, narrow": Arm("3 x 192", "3 x 192, labels", "live"),
    "2 x 156, labels": Arm("2 x 156"),
    "TinyBERT": Arm("2 x 156", "2 x 156, labels", "stored answers + live"),
    "TinyBERT, more text": Arm("2 x 156", "2 x 156, labels", "stored answers + live", more_text=True),
    "6 thin blocks, labels": Arm("6 thin blocks"),
    "MobileBERT": Arm("6 thin blocks", "6 thin blocks, labels", "stored answers + live"),
    "1 x 384, labels": Arm("1 x 384"),
    "1 layer, cached answers": Arm("1 x 384", "1 x 384, labels", "stored answers", answers=True, temperature=2.0),
}
BORROWED = {
    "2 x 128, labels": ("ch01", "labels"),
    "Soft targets": ("ch01", "both, T=4"),
    "BiLSTM, labels": ("ch02", "labels"),
    "Distilled BiLSTM": ("ch02", "logits"),
    "Distilled BiLSTM, more text": ("ch02", "logits + augmented text"),
    "3 x 384, labels": ("ch04", "labels"),
    "Answers": ("ch04", "labels + answers"),
    "PKD": ("ch04", "PKD-skip"),
    "First layers, labels": ("ch08", "successor alone"),
    "Theseus": ("ch08", "Theseus, linear"),
    "General start, labels": ("ch07", "half depth, more fine-tuning"),
    "MiniLM": ("ch07", "half depth, attention + values"),
    "3 x 192, labels": ("ch07", "narrow, more fine-tuning"),
    "MiniLM, narrow": ("ch07", "narrow, attention + values"),
    "2 x 156, labels": ("ch05", "labels"),
    "TinyBERT": ("ch05", ch05.WHOLE),
    "TinyBERT, more text": ("ch05", "augmented text"),
    "6 thin blocks, labels": ("ch06", "labels"),
    "MobileBERT": ("ch06", "progressive"),
}
METHODS = [name for name, arm in ARMS.items() if arm.baseline]
REFERENCE = "3 x 384, labels"  # the unit of cost: 300 steps of this arm are 1


@dataclass(frozen=True)
class Aim:
    """What the course aimed for before it measured, near to what the papers report about BERT-base.

    kept: percent of the teacher's score. faster, smaller: how many times.
    """

    kept: float
    faster: float | None = None
    smaller: float | None = None


AIMS = {
    "DistilBERT": Aim(97, 1.6),
    "PKD": Aim(98, 1.9),
    "Theseus": Aim(98, 1.9),
    "MiniLM": Aim(99, smaller=2.0),
    "TinyBERT": Aim(96, 9.0, 7.5),
    "TinyBERT, more text": Aim(96, 9.0, 7.5),
    "MobileBERT": Aim(97, 5.0, 4.3),
    "Distilled BiLSTM": Aim(95, 15.0),
    "Distilled BiLSTM, more text": Aim(95, 15.0),
}


# --- Own arms ---------------------------------------------------------------------------------------------------------


def one_layer(seed: int) -> PreTrainedModel:
    """Chapter 9's student: the teacher's embeddings (words frozen), one fresh layer, fresh pooler and classifier."""
    return ch09.student(seed, source=teacher().model)


def start(arm: Arm, seed: int) -> PreTrainedModel:
    """The student of an own arm before training."""
    return one_layer(seed) if arm.student == "1 x 384" else half_depth(seed)


def recipe_of(arm: Arm) -> Recipe:
    """The common budget; a fresh layer learns faster than a copied one."""
    return CACHED_RECIPE if arm.student == "1 x 384" else RECIPE


def loss_terms(arm: Arm) -> Terms:
    """Labels; with answers also the stored ones; with a cosine weight also the live teacher's last hidden states."""
    recipe = replace(LABELS_AND_ANSWERS, temperature=arm.temperature) if arm.answers else LABELS

    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        text = {name: batch[name] for name in ("input_ids", "attention_mask")}
        mine = model(**text, output_hidden_states=bool(arm.cosine_weight))
        out = answer_losses(mine.logits, batch, recipe)
        if arm.cosine_weight:
            with torch.no_grad():
                theirs = teacher().model.base_model(**text).last_hidden_state
            out["cosine"] = arm.cosine_weight * cosine_loss(mine.hidden_states[-1], theirs, batch["attention_mask"])
        return out
    return terms


def fit(model: nn.Module, arm: Arm, seed: int, steps: int | None = None, *, evaluate: Callable | None = None,
        evaluate_every: int = 0) -> History:
    """Train a student as an own arm says. steps: another number than the budget's."""
    recipe = recipe_of(arm)
    recipe = replace(recipe, steps=steps or recipe.steps, evaluate_every=evaluate_every)
    return sentences.fit(model, loss_terms(arm), seed, recipe, evaluate=evaluate)


def prepare() -> None:
    """Ask the teacher before the runs start."""
    sentences.prepare()


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split. share_...: the cosine term's share of the gradient."""
    arm = ARMS[arm_name]
    model, terms = start(arm, seed), loss_terms(arm)
    first = Batches(sentences.examples("train"), BATCH_SIZE, seed=seed)[0]
    shares = {"share_first": gradient_shares(model, terms, first)} if arm.cosine_weight else {}
    fit(model, arm, seed)
    if arm.cosine_weight:
        shares["share_last"] = gradient_shares(model, terms, first)
    return scores(model) | {name: round(found["cosine"], 1) for name, found in shares.items()}


# --- What no training run says: size, speed, cost ---------------------------------------------------------------------

STUDENTS: dict[str, Callable[[], nn.Module]] = {
    "2 x 128": lambda: ch01.student(0),
    "BiLSTM": lambda: ch02.student(0),
    "3 x 384": lambda: half_depth(0),
    "3 x 192": lambda: ch07.narrow(0),
    "2 x 156": lambda: ch05.student(0),
    "6 thin blocks": lambda: ch06.student(0),
    "1 x 384": lambda: one_layer(0),
}


def without_words(model: nn.Module) -> int:
    """Parameters that are not word embeddings: what the layers hold, whatever the vocabulary."""
    if isinstance(model, ch02.bilstm.BiLstm):
        return model.parameters_without_embeddings
    return sum(p.numel() for name, p in model.named_parameters() if "word_embeddings" not in name)


def timed_against_teacher(name: str, model: nn.Module, count: int, repeats: int):
    """`latency_ratio` on `count` test sentences of about median length; the BiLSTM reads them as its own words."""
    rows = sentences.examples("test")
    middle = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    chosen = middle[len(rows) // 2 - count // 2 :][:count]
    mine = ch02.word_rows("test") if name == "BiLSTM" else rows
    own, theirs = (pad([mine[i] for i in chosen]), pad([rows[i] for i in chosen]))
    return latency_ratio(model, teacher().model, own, repeats, teacher_batch=theirs)


@dataclass(frozen=True)
class Phase:
    """One part of a training: so many steps of this student, with this loss, on these batches."""

    model: nn.Module
    terms: Terms
    batches: Batches
    recipe: Recipe


def phases(name: str) -> list[Phase]:
    """The training of an arm as its chapter does it, to be timed: nothing is trained to its end."""
    if name not in BORROWED:
        arm = ARMS[name]
        return [Phase(start(arm, 0), loss_terms(arm), _sentences(), recipe_of(arm))]
    source, theirs = BORROWED[name]
    return _PHASES[source](theirs)


def _sentences(rows: list[dict] | None = None) -> Batches:
    return Batches(sentences.examples("train") if rows is None else rows, BATCH_SIZE)


def _soft_targets(name: str) -> list[Phase]:
    arm = ch01.ARMS[name]
    recipe = Recipe(steps=arm.steps, learning_rate=arm.learning_rate)
    return [Phase(ch01.student(0), ch01.loss_terms(arm), Batches(ch01.training_set(arm, 0), ch01.BATCH_SIZE), recipe)]


def _bilstm(name: str) -> list[Phase]:
    arm = ch02.ARMS[name]
    batches = Batches(ch02.training_set(arm), ch02.BATCH_SIZE)
    return [Phase(ch02.student(0), ch02.loss_terms(arm), batches, ch02.RECIPE)]


def _pkd(name: str) -> list[Phase]:
    arm = ch04.ARMS[name]
    return [Phase(ch04.start(arm, 0), ch04.loss_terms(arm), _sentences(ch04.examples("train")), RECIPE)]


def _tinybert(name: str) -> list[Phase]:
    arm, model = ch05.ARMS[name], ch05.student(0, projection=True)
    batches = _sentences(ch05.examples("train") + ch05.augmented() if arm.augmented else None)
    inside, rest = (Recipe(steps=steps, learning_rate=rate, precision="auto")
                    for steps, rate in zip(ch05.STEPS, (arm.inside_rate, arm.rate), strict=True))
    if not arm.inside:
        whole = replace(rest, steps=sum(ch05.STEPS))
        return [Phase(ch05.student(0), ch05.SECOND_TERMS[arm.learns_from], batches, whole)]
    return [Phase(model, ch05.inside_terms(arm.inside), batches, inside),
            Phase(ch05.student(0), ch05.SECOND_TERMS[arm.learns_from], batches, rest)]


def _mobilebert(name: str) -> list[Phase]:
    arm, model = ch06.ARMS[name], ch06.student(0)
    return [Phase(model, ch06.terms_of(arm, part), Batches(sentences.examples("train"), ch06.BATCH_SIZE),
                  Recipe(steps=part.steps, learning_rate=arm.rate, precision="auto")) for part in ch06.phases_of(arm)]


def _minilm(name: str) -> list[Phase]:
    arm = ch07.ARMS[name]
    student = (ch07.narrow if arm.student == "narrow" else ch07.half_depth)(0)
    found = [Phase(student, sentences.answer_terms(sentences.LABELS), _sentences(),
                   Recipe(steps=arm.steps, learning_rate=arm.rate, precision="auto"))]
    if arm.distil_steps:
        relations = ch07.RELATIONS[arm.copies]
        found.insert(0, Phase(student, lambda model, batch: ch07.minilm.terms(
            model, ch07.general_teacher(), batch, relations), Batches(ch07.general_text("train"), ch07.BATCH_SIZE),
            Recipe(steps=arm.distil_steps, learning_rate=arm.distil_rate, precision="auto")))
    return found


def _theseus(name: str) -> list[Phase]:
    """At the constant rate that replaces as often in the mean: its first batches would be dearer than the others."""
    share, _ = ch08.share_learned(ch08.ARMS[name].replacing)
    ship = ch08.build(TheseusRecipe(ch08.MODULES, "constant", rate=share))
    return [Phase(ship, ch08.terms, _sentences(), RECIPE)]


_PHASES = {"ch01": _soft_targets, "ch02": _bilstm, "ch04": _pkd, "ch05": _tinybert, "ch06": _mobilebert,
           "ch07": _minilm, "ch08": _theseus}


def asked(name: str) -> int:
    """How many sentences the teacher answers once, before training, for an arm."""
    if "stored" not in ARMS[name].teacher:
        return 0
    more = {"ch02": ch02.augmented, "ch05": ch05.augmented}[BORROWED[name][0]]() if ARMS[name].more_text else []
    return len(load_data("sentiment")["train"]) + len(more)


def _step(phase: Phase) -> Callable[[int], float]:
    """A function that makes training step i and says how many seconds it took."""
    learning = [p for p in phase.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=phase.recipe.learning_rate)
    phase.model.train()

    def step(i: int) -> float:
        batch = phase.batches[i]
        started = time.perf_counter()
        with autocast(phase.recipe.precision):
            losses = phase.terms(phase.model, batch)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(learning, phase.recipe.clip)
        optimizer.step()
        phase.model.zero_grad()
        return time.perf_counter() - started
    return step


def ratio_in_turns(ours: Callable[[int], float], reference: Callable[[int], float], pairs: int) -> list[float]:
    """Quartiles [low, middle, high] of  ours(i) / reference(i),  the two in turns; who goes first changes."""
    found = []
    for i in range(-2, pairs):  # the first two only warm up
        order = (ours, reference) if i % 2 == 0 else (reference, ours)
        times = [one(i + 2) for one in order]
        found.append(times[0] / times[1] if i % 2 == 0 else times[1] / times[0])
    return [round(value, 4) for value in quantiles(found[2:], n=4, method="inclusive")]


def _asking() -> Callable[[int], float]:
    """The teacher reads one training batch, as it does when its answers are stored."""
    batches = _sentences()

    def read(i: int) -> float:
        batch = batches[i]
        started = time.perf_counter()
        with torch.no_grad(), autocast(RECIPE.precision):
            teacher().model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return time.perf_counter() - started
    return read


def profile(pairs: int = 15) -> dict:
    """Size, latency and training cost: everything that depends on a machine is a ratio, with its quartiles.

    teacher: accuracy, parameters, and the price of asking it about one batch. students: parameters; time of a forward
    pass as a share of the teacher's (float32), for one sentence and for 32. training: per arm its phases, each with the
    number of steps, sentences per step and time of a step as a multiple of the reference arm's step.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {"threads": 1, "pairs": pairs, "teacher": _teacher_profile(pairs),
                "students": {name: _student_profile(name, pairs) for name in STUDENTS},
                "training": {name: _training_profile(name, pairs) for name in ARMS}}
    finally:
        torch.set_num_threads(threads)


def _teacher_profile(pairs: int) -> dict:
    """The accuracy is that of the teacher's card, as in all chapters."""
    return {"accuracy": teacher().card["accuracy_percent"]["test"], "parameters": count_parameters(teacher().model),
            "without_words": without_words(teacher().model),
            "asking": ratio_in_turns(_asking(), _step(phases(REFERENCE)[0]), pairs)}


def _student_profile(name: str, pairs: int) -> dict:
    model = STUDENTS[name]()
    found = {"parameters": count_parameters(model), "without_words": without_words(model)}
    for count, repeats in ((1, 4 * pairs), (32, pairs)):
        took = timed_against_teacher(name, model, count, repeats)
        low, high = took.ratio_quartiles
        found[f"latency_{count}"] = [round(value, 4) for value in (low, took.ratio, high)]
    return found


def _training_profile(name: str, pairs: int) -> dict:
    return {"asked": asked(name), "phases": [
        {"steps": phase.recipe.steps, "sentences": phase.batches.batch_size,
         "step": ratio_in_turns(_step(phase), _step(phases(REFERENCE)[0]), pairs)} for phase in phases(name)]}


# --- Reading the record -----------------------------------------------------------------------------------------------


def values(name: str, number: str = "accuracy") -> list[float]:
    """One number of an arm, one value per seed. "kept": accuracy in percent of the teacher's."""
    if number == "kept":
        whole = records.load("ch10")["profile"]["teacher"]["accuracy"]
        return [100 * value / whole for value in records.values("ch10", name, "accuracy")]
    return records.values("ch10", name, number)


def retention(name: str) -> Interval:
    """Accuracy in percent of the teacher's: mean over the seeds, and its interval."""
    return mean_and_interval(values(name, "kept"))


def gain(name: str, number: str = "accuracy") -> Difference:
    """A method minus its own baseline: the same start, without a teacher."""
    return paired_difference(values(name, number), values(ARMS[name].baseline, number))


def reached(low: float, high: float, aim: float | None) -> str:
    """By the interval: "yes" if all of it is at the aim or above, "no" if all of it is below, else "not decided"."""
    if aim is None:
        return "no aim"
    return "yes" if low >= aim else "no" if high < aim else "not decided"


def cost(measured: dict, asking: float) -> dict[str, float]:
    """What a training cost, as a multiple of 300 steps of the reference arm.

    measured: an arm's part of the profile. asking: price of asking the teacher about one batch, in reference steps.
    Returns: steps, sentences (read in training), once (asking, before training), training (the steps), total.
    """
    unit = RECIPE.steps
    once = measured["asked"] / BATCH_SIZE * asking / unit
    training = sum(phase["steps"] * phase["step"][1] for phase in measured["phases"]) / unit
    return {"steps": sum(phase["steps"] for phase in measured["phases"]),
            "sentences": sum(phase["steps"] * phase["sentences"] for phase in measured["phases"]),
            "once": once, "training": training, "total": once + training}


def numbers_of(name: str) -> dict[str, float]:
    """Everything about one arm that is not measured per seed: size, speed, cost; ready for a table or the explorer."""
    record = records.load("ch10")["profile"]
    student, whole = record["students"][ARMS[name].student], record["teacher"]
    paid = cost(record["training"][name], whole["asking"][1])
    found = {"parameters": student["parameters"], "without_words": student["without_words"], "cost": paid["total"],
             "smaller": whole["parameters"] / student["parameters"],
             "smaller_without_words": whole["without_words"] / student["without_words"]}
    for count in (1, 32):
        low, middle, high = student[f"latency_{count}"]
        found |= {f"latency_{count}": middle, f"faster_{count}": 1 / middle,
                  f"faster_{count}_low": 1 / high, f"faster_{count}_high": 1 / low}
    return found | paid


XS = [Axis("parameters", "parameters, millions", 2), Axis("without_words", "parameters without words, millions", 2),
      Axis("latency_32", "time for 32 sentences, teacher = 1", 3),
      Axis("latency_1", "time for 1 sentence, teacher = 1", 3), Axis("cost", "training cost, reference = 1", 2)]


def ys() -> list[Axis]:
    """The upright axes of the explorer, with the teacher's own accuracy."""
    whole = records.load("ch10")["profile"]["teacher"]["accuracy"]
    return [Axis("accuracy", "accuracy, %", 2, whole), Axis("agreement", "agreement with the teacher, %"),
            Axis("kept", "accuracy kept, % of the teacher", 2, 100.0)]


def points() -> list[Point]:
    """Every arm as a point of the Pareto picture."""
    found = []
    for name, arm in ARMS.items():
        numbers = numbers_of(name)
        x = {axis.key: numbers[axis.key] for axis in XS}
        x |= {key: numbers[key] / 1e6 for key in ("parameters", "without_words")}
        y = {key: values(name, key) for key in ("accuracy", "agreement", "kept")}
        found.append(Point(name, x, y, not arm.baseline, f"{arm.student}; teacher: {arm.teacher}"))
    return found


# What a project may demand: words -> whether a method, by its name, is allowed.
SITUATIONS: dict[str, Callable[[str], bool]] = {
    "no further demand": lambda name: True,
    "of the teacher, only a file of answers": lambda name: ARMS[name].teacher == "stored answers",
    "the same, and no made-up sentences": lambda name: (ARMS[name].teacher, ARMS[name].more_text) == (
        "stored answers", False),
    "a third of the teacher's time (32 sentences)": lambda name: numbers_of(name)["latency_32"] <= 1 / 3,
    "a tenth of the teacher's time (32 sentences)": lambda name: numbers_of(name)["latency_32"] <= 1 / 10,
    "half of the teacher's parameters": lambda name: numbers_of(name)["smaller"] >= 2,
    "training: twice the reference at most": lambda name: numbers_of(name)["cost"] <= 2,
}


def choose(allowed: Callable[[str], bool], number: str = "accuracy") -> tuple[str | None, list[str]]:
    """The allowed method with the highest mean, and the allowed ones that cannot be told from it."""
    found = pareto_numbers([point for point in points() if not point.baseline and allowed(point.name)], "cost", number)
    return found["best"], found["alike"]


def word_counts() -> float:
    """Accuracy of TF-IDF and logistic regression on the same sentences (chapter 2): no network, no teacher."""
    return records.values("ch02", "TF-IDF + logistic regression", "accuracy")[0]


def document_classifier() -> dict:
    """Chapter 9's aim, on its own task: points behind its teacher (an Interval), share of parameters and of time.

    The accuracy is that of the arm that trains every weight, as the report does.
    """
    card = json.loads((DATA / "teachers/topics/card.json").read_text("utf-8"))
    behind = [card["accuracy_percent"]["test"] - value for value in records.values(
        "ch09", "labels + answers, all weights", "accuracy")]
    numbers = numbers_of("1 layer, cached answers")
    return {"behind": mean_and_interval(behind), "parameters": 1 / numbers["smaller"],
            "time": numbers["latency_32"]}


def poll_result() -> tuple[str, str]:
    """The option of chapter 10's poll that fits the measurement, and the numbers that say so."""
    options = {"a": "Answers", "b": "PKD", "c": "Theseus", "d": "MiniLM", "e": "DistilBERT"}
    return records.leader("ch10", options, "f")
