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
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.experiments import ch01_hinton as ch01
from course_lib.experiments import ch02_bilstm as ch02
from course_lib.experiments import ch05_tinybert as ch05
from course_lib.experiments import ch06_mobilebert as ch06
from course_lib.experiments import ch07_minilm as ch07
from course_lib.experiments import ch09_cached as ch09
from course_lib.experiments import described, measuring, records, sentences
from course_lib.experiments.described import Part
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
from course_lib.experiments.speed import training_cost
from course_lib.experiments.speed.training_cost import Reader, Trained, without_words
from course_lib.material.assets import DATA
from course_lib.material.data import load_data
from course_lib.methods.cached import RECORD as CACHED
from course_lib.methods.distilbert import cosine_loss
from course_lib.methods.table import METHODS as METHODS_OF_THE_COURSE
from course_lib.notebook.views.pareto import Axis, Point, pareto_numbers
from course_lib.shared.batches import Batches
from course_lib.shared.clock import Latency
from course_lib.shared.measures import gradient_shares
from course_lib.shared.method import QUICK, Compared, Method, Training
from course_lib.shared.seeds import Difference, Interval, mean_and_interval, paired_difference
from course_lib.shared.training import History, Terms

__all__ = ["ABOUT", "AIMS", "ARMS", "BORROWED", "METHODS", "SEEDS", "SITUATIONS", "STUDENTS", "XS", "Arm", "asked",
           "choose", "cost", "document_classifier", "fit", "gain", "loss_terms", "numbers_of", "one_layer", "points",
           "poll_result", "prepare", "profile", "reached", "retention", "run", "scores", "start", "teacher",
           "timed_against_teacher", "trained", "training", "values", "without_words", "word_counts", "ys"]

ABOUT = "Movie sentences, every method of the course: accuracy and agreement beside size, speed and cost of training."
FRESH_LAYER = replace(QUICK, learning_rate=CACHED.recipe["laptop"].learning_rate)  # chapter 9's rate
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


@dataclass(frozen=True)
class Baseline:
    """A student that learns from the labels alone. measured: experiment and arm; None: it is trained here."""

    student: str
    measured: tuple[str, str] | None = None


# Which start stands beside which: every method names one of these as its baseline.
BASELINES = {
    "2 x 128, labels": Baseline("2 x 128", ("ch01", "labels")),
    "BiLSTM, labels": Baseline("BiLSTM", ("ch02", "labels")),
    "3 x 384, labels": Baseline("3 x 384", ("ch04", "labels")),
    "First layers, labels": Baseline("3 x 384", ("ch08", "successor alone")),
    "General start, labels": Baseline("3 x 384", ("ch07", "half depth, more fine-tuning")),
    "3 x 192, labels": Baseline("3 x 192", ("ch07", "narrow, more fine-tuning")),
    "2 x 156, labels": Baseline("2 x 156", ("ch05", "labels")),
    "6 thin blocks, labels": Baseline("6 thin blocks", ("ch06", "labels")),
    "1 x 384, labels": Baseline("1 x 384"),
}
OWN = {"DistilBERT": {"answers": True, "cosine_weight": COSINE_WEIGHT},
       "1 layer, cached answers": {"answers": True, "temperature": 2.0}}
REFERENCE = "3 x 384, labels"  # the unit of cost: 300 steps of this arm are 1


def arms() -> dict[str, Arm]:
    """Every baseline, and behind it the methods that are compared with it, as their records say.

    Raises: ValueError for a method whose baseline there is not.
    """
    found = {}
    for baseline, one in BASELINES.items():
        found[baseline] = Arm(one.student)
        for name, compared in all_compared().items():
            if compared.baseline not in BASELINES:
                raise ValueError(f"'{name}' names the baseline '{compared.baseline}'. There are: "
                                 f"{', '.join(BASELINES)}.")
            if compared.baseline == baseline:
                found[name] = Arm(one.student, baseline, compared.needs, compared.more_text, **OWN.get(name, {}))
    return found


def all_compared() -> dict[str, Compared]:
    """The arms of all methods, by their names."""
    return {name: one for method in METHODS_OF_THE_COURSE.values() for name, one in method.compared.items()}


def borrowed() -> dict[str, tuple[str, str]]:
    """The arms that a chapter measures: their names here -> experiment and arm."""
    measured = {name: one.measured for name, one in BASELINES.items()}
    measured |= {name: one.measured and (one.measured.experiment, one.measured.arm)
                 for name, one in all_compared().items()}
    return {name: measured[name] for name in arms() if measured[name]}


def as_described(name: str) -> Method | None:
    """The method whose record alone says how this arm is trained; None for the arms of a chapter, and OWN ones."""
    return next((method for method in METHODS_OF_THE_COURSE.values() if name in method.compared
                 and name not in OWN and not method.compared[name].measured), None)


ARMS, BORROWED = arms(), borrowed()
METHODS = [name for name, arm in ARMS.items() if arm.baseline]

# --- Own arms ---------------------------------------------------------------------------------------------------------


def one_layer(seed: int) -> PreTrainedModel:
    """Chapter 9's student: the teacher's embeddings (words frozen), one fresh layer, fresh pooler and classifier."""
    return ch09.student(seed, source=teacher().model)


def start(arm: Arm, seed: int) -> PreTrainedModel:
    """The student of an own arm before training."""
    return one_layer(seed) if arm.student == "1 x 384" else half_depth(seed)


def numbers_for(arm: Arm) -> Training:
    """The common budget; a fresh layer learns faster than a copied one."""
    return FRESH_LAYER if arm.student == "1 x 384" else QUICK


def training(arm: Arm, seed: int, steps: int = 0) -> tuple[PreTrainedModel, list[Part]]:
    """The student of an own arm and the one part of its training."""
    numbers = numbers_for(arm)
    return start(arm, seed), [Part.of(loss_terms(arm), replace(numbers, steps=steps or numbers.steps),
                                      Batches(sentences.examples("train"), BATCH_SIZE, seed=seed))]


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
    _, (part,) = training(arm, seed, steps or 0)
    return part.learn(model, seed, evaluate=evaluate, evaluate_every=evaluate_every)[1]


def prepare() -> None:
    """Ask the teacher before the runs start."""
    sentences.prepare()


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split. share_...: the cosine term's share of the gradient."""
    if method := as_described(arm_name):
        return described.run(method, seed)
    arm = ARMS[arm_name]
    model, (part,) = training(arm, seed)
    terms, first = part.stage.terms, part.batches[0]
    shares = {"share_first": gradient_shares(model, terms, first)} if arm.cosine_weight else {}
    part.learn(model, seed)
    if arm.cosine_weight:
        shares["share_last"] = gradient_shares(model, terms, first)
    return scores(model) | {name: round(found["cosine"], 1) for name, found in shares.items()}


# --- What no training run says: size, speed, cost ---------------------------------------------------------------------

STUDENTS = {
    "2 x 128": Reader(lambda: ch01.student(0)),
    "BiLSTM": Reader(lambda: ch02.student(0), lambda: ch02.word_rows("test")),
    "3 x 384": Reader(lambda: half_depth(0)),
    "3 x 192": Reader(lambda: ch07.narrow(0)),
    "2 x 156": Reader(lambda: ch05.student(0)),
    "6 thin blocks": Reader(lambda: ch06.student(0)),
    "1 x 384": Reader(lambda: one_layer(0)),
}


# What the course aimed for; students with words of their own stand last.
AIMS = {name: all_compared()[name].aim for name in sorted(METHODS, key=lambda name: bool(
    STUDENTS[ARMS[name].student].rows)) if all_compared()[name].aim}


def timed_against_teacher(name: str, model: nn.Module, count: int, repeats: int) -> Latency:
    """`latency_ratio` on `count` test sentences of about median length; the BiLSTM reads them as its own words."""
    return training_cost.timed_against_teacher(STUDENTS[name], model, count, repeats)


def asked(name: str) -> int:
    """How many sentences the teacher answers once, before training, for an arm."""
    if "stored" not in ARMS[name].teacher:
        return 0
    more = measuring.experiment(BORROWED[name][0]).augmented() if ARMS[name].more_text else []
    return len(load_data("sentiment")["train"]) + len(more)


def trained(name: str) -> Trained:
    """The training of an arm as its chapter, or the method's record, does it."""
    if name in BORROWED:
        source, theirs = BORROWED[name]
        chapter = measuring.experiment(source)
        arm = getattr(chapter, "typical", lambda arm: arm)(chapter.ARMS[theirs])
        return Trained(*chapter.training(arm, 0), asked(name))
    if method := as_described(name):
        student, parts = described.training(method, 0)
        return Trained(student.model, parts, asked(name))
    return Trained(*training(ARMS[name], 0), asked(name))


def profile(pairs: int = 15) -> dict:
    """Size, latency and training cost of all arms: see `training_cost.profile`."""
    return training_cost.profile({name: partial(trained, name) for name in ARMS}, STUDENTS, REFERENCE, pairs)


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
