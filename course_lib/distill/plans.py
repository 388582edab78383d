"""What each method does with your models: which student, which stages, which loss, whose numbers.

A plan is a student and a list of stages; a stage is one call of `training.train`. The losses are those of the chapters,
`course_lib/methods`; nothing is computed here. Two presets: "laptop" holds the values that the chapters measured on
two cores, "paper" holds the paper's (where a paper gives a grid, one point of it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from course_lib.distill.students import Made
from course_lib.methods import bilstm, cached, distilbert, hinton, minilm, mobilebert, pkd, theseus, tinybert
from course_lib.methods.mobilebert_schedule import parameter_groups
from course_lib.shared import probes
from course_lib.shared.parts import AveragedOver, Batch
from course_lib.shared.students import blocks
from course_lib.shared.training import Terms


@dataclass(frozen=True)
class Training:
    """How long and how fast one stage trains."""

    learning_rate: float
    epochs: float = 0.0
    steps: int = 0  # instead of epochs
    batch_size: int = 32
    warmup: float = 0.1
    schedule: str = "linear"


@dataclass(frozen=True)
class Stage:
    """One call of the training loop."""

    name: str
    terms: Terms
    training: Training
    averaged_over: Mapping[str, AveragedOver] = field(default_factory=dict)
    masked: bool = False  # a masked-LM batch
    groups: Callable[[nn.Module, float], Sequence[dict]] | None = None
    before: Callable[[nn.Module], None] = lambda student: None
    after: Callable[[nn.Module], nn.Module | None] = lambda student: None  # may return the student of the next stage


@dataclass(frozen=True)
class Job:
    """What a method is asked to do."""

    teacher: PreTrainedModel
    made: Made
    labels: bool
    recipes: Mapping[str, object]  # changed fields of the method's recipe
    preset: str
    task: str  # "classification" or "masked LM"
    training: Mapping[str, object] = field(default_factory=dict)  # changed fields of every stage's training


@dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    student: the spec that is taken where none is given. same_tokens: whether the loss compares the models token by
    token (then both must have one vocabulary). answers: whether the teacher is asked once, before the training.
    """

    name: str
    paper: str
    chapter: str
    tasks: tuple[str, ...]
    student: str
    stages: Callable[[Job], list[Stage]]
    recipe: Mapping[str, object]  # preset -> the method's recipe; None: there is nothing to set
    same_tokens: bool = True
    needs_labels: bool = False
    answers: bool = False
    claim: str = ""  # what the paper reports
    measured: tuple[str, str] | None = None  # experiment and arm of ours


CLASSIFICATION, MASKED_LM = "classification", "masked LM"
FINE_TUNING = Training(2e-5, epochs=3)  # Devlin et al. 2019, appendix A.3: one point of the grid
QUICK = Training(2e-4, steps=300)  # the chapters' common budget, for layers that start as copies
FRESH = Training(1e-3, steps=500)  # and for layers that start at random


def recipe_of(method: Method, job: Job):
    """The method's recipe with the changed fields (`checks.method_of` has looked at their names)."""
    return replace(method.recipe[job.preset], **job.recipes)


def _ours(job: Job, laptop: Training, paper: Training) -> Training:
    return replace(laptop if job.preset == "laptop" else paper, **job.training)


# --- One function per method: its stages -----------------------------------------------------------------------------


def _no_teacher(job: Job) -> list[Stage]:
    def terms(student: nn.Module, batch: Batch) -> dict:
        return {"hard": hinton.hard_loss(probes.logits_of(student, batch), batch["labels"])}

    training = _ours(job, Training(5e-5, epochs=3) if job.made.copied else FRESH, FINE_TUNING)
    if job.task == MASKED_LM:
        return [Stage("labels", terms, training, {"hard": "labels"}, masked=True)]
    return [Stage("labels", terms, training)]


def _hinton(job: Job) -> list[Stage]:
    recipe = recipe_of(METHODS["hinton"], job)
    if not job.labels:
        recipe = replace(recipe, hard_weight=0.0)
    teacher = job.teacher if job.task == MASKED_LM else None  # a classifier's answers are in the batch
    over = {"soft": "tokens" if recipe.positions == "all" else "labels", "hard": "labels"}
    return [Stage("distillation", lambda student, batch: hinton.terms(student, teacher, batch, recipe),
                  _ours(job, QUICK if job.made.copied else FRESH, FINE_TUNING),
                  over if job.task == MASKED_LM else {}, masked=job.task == MASKED_LM)]


def _cached(job: Job) -> list[Stage]:
    recipe = recipe_of(METHODS["cached"], job)
    if not job.labels:
        recipe = replace(recipe, hard_weight=0.0)
    # The rate is the recipe's: most of the student is fresh.
    return [Stage("distillation", lambda student, batch: cached.terms(student, None, batch, recipe),
                  _ours(job, Training(recipe.learning_rate, epochs=3), Training(recipe.learning_rate, epochs=3)))]


def _bilstm(job: Job) -> list[Stage]:
    recipe = recipe_of(METHODS["bilstm"], job)
    # The paper's Adadelta with rate 1.0 has no place in a loop with AdamW; 1e-3 is AdamW's own default.
    return [Stage("distillation", lambda student, batch: bilstm.terms(student, None, batch, recipe),
                  _ours(job, Training(2e-3, steps=900, batch_size=50),
                        Training(1e-3, epochs=recipe.epochs, batch_size=recipe.batch_size)))]


def _pkd(job: Job) -> list[Stage]:
    recipe = recipe_of(METHODS["pkd"], job)
    paper = Training(recipe.learning_rate, epochs=recipe.epochs, batch_size=recipe.batch_size)
    return [Stage("distillation", lambda student, batch: pkd.terms(student, job.teacher, batch, recipe),
                  _ours(job, QUICK, paper))]


def _distilbert(job: Job) -> list[Stage]:
    recipe = recipe_of(METHODS["distilbert"], job)
    over = {"soft": "tokens" if recipe.positions == "all" else "labels", "mlm": "labels", "cosine": "tokens"}
    return [Stage("distillation", lambda student, batch: distilbert.terms(student, job.teacher, batch, recipe),
                  _ours(job, Training(5e-4, steps=500),
                        Training(recipe.learning_rate, epochs=recipe.epochs, batch_size=recipe.effective_batch,
                                 warmup=recipe.warmup)), over | {"mse": over["soft"]}, masked=True)]


def _tinybert(job: Job) -> list[Stage]:
    inside = recipe_of(METHODS["tinybert"], job)
    over = {"attention": "token pairs", "hidden": "tokens", "embedding": "tokens"} if inside.as_in == "paper" else {}
    narrow = job.made.model.config.hidden_size != job.teacher.config.hidden_size
    stages = [Stage(
        "inside", lambda student, batch: tinybert.terms(student, job.teacher, batch, inside),
        _ours(job, Training(2e-3 if narrow else 2e-4, steps=200, schedule="constant"),
              Training(inside.learning_rate, epochs=inside.epochs, batch_size=inside.batch_size,
                       schedule=inside.schedule)), over, masked=job.task == MASKED_LM,
        before=partial(_with_projection, teacher=job.teacher) if narrow else lambda student: None,
        after=tinybert.detach_projection if narrow else lambda student: None)]
    if job.task == CLASSIFICATION:
        last = tinybert.PREDICTION
        stages.append(Stage(
            "prediction", lambda student, batch: {"prediction": tinybert.prediction_loss(
                probes.logits_of(student, batch), probes.teacher_logits_of(job.teacher, batch),
                temperature=inside.temperature, as_in=inside.as_in)},
            _ours(job, Training(1e-3 if narrow else 2e-4, steps=150),
                  Training(last.learning_rate, epochs=last.epochs, batch_size=last.batch_size))))
    return stages


def _with_projection(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # every process starts with the same one
        tinybert.attach_projection(student, teacher)


def _minilm(job: Job) -> list[Stage]:
    recipe = recipe_of(METHODS["minilm"], job)
    over = {name: "tokens" for name in ("attention", "value_relation", "qq", "kk", "vv")}
    stages = [Stage("relations", lambda student, batch: minilm.terms(student, job.teacher, batch, recipe),
                    _ours(job, Training(5e-4 if job.made.copied else 1e-3, steps=200),
                          Training(5e-4, steps=400_000, batch_size=1024, warmup=0.01)),
                    over if recipe.average == "tokens" else {})]
    if job.task == CLASSIFICATION and job.labels:
        stages += [replace(stage, name="fine-tuning") for stage in _no_teacher(job)]
    return stages


def _mobilebert(job: Job) -> list[Stage]:
    recipe = recipe_of(METHODS["mobilebert"], job)
    layers = len(blocks(job.made.model))
    names = ("feature_map", "mean", "variance", "attention")
    fast, slow = Training(1e-3, schedule="constant", batch_size=16), Training(1e-3, batch_size=16)
    stages = []
    for number, phase in enumerate(mobilebert.phases(recipe, layers), start=1):
        training = replace(slow if phase.pretraining else fast, steps=phase.steps, **job.training)
        stages.append(Stage(
            f"phase {number}" + (" (task)" if phase.pretraining else f" (blocks {phase.layers[0]}"
                                 + (f" to {phase.layers[-1]})" if len(phase.layers) > 1 else ")")),
            partial(_mobilebert_terms, teacher=job.teacher, recipe=recipe, phase=phase), training,
            dict.fromkeys(names, "tokens"), groups=partial(_groups, phase=phase)))
    return stages


def _mobilebert_terms(student: nn.Module, batch: Batch, *, teacher: nn.Module, recipe, phase) -> dict:
    return mobilebert.terms(student, teacher, batch, recipe, phase)


def _groups(student: nn.Module, learning_rate: float, *, phase) -> list[dict]:
    groups = parameter_groups(student, phase, learning_rate)
    return [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups
            if any(p.requires_grad for p in group["params"])]


def _theseus(job: Job) -> list[Stage]:
    recipe = replace(recipe_of(METHODS["theseus"], job), successor_layers=job.made.layers)
    training = _ours(job, QUICK, Training(2e-5, epochs=4))
    ship = Stage("replacing", lambda student, batch: theseus.terms(student, None, batch, recipe), training,
                 before=lambda student: setattr(student, "schedule", recipe.rate_at),
                 after=lambda student: student.to_successor_model(train="all"))
    return [ship, Stage("successor alone", lambda student, batch: theseus.terms(student, None, batch, recipe),
                        _ours(job, replace(QUICK, steps=100, learning_rate=5e-5), Training(2e-5, epochs=2)))]


# --- The table of methods --------------------------------------------------------------------------------------------

QUICK_MOBILEBERT = {"steps_per_layer": 40, "pretraining_steps": 120}

METHODS = {method.name: method for method in (
    Method("labels", "no teacher: the baseline", "Chapter 1", (CLASSIFICATION, MASKED_LM), "half", _no_teacher,
           {"laptop": None, "paper": None}, same_tokens=False, needs_labels=True, measured=("ch04", "labels")),
    Method("hinton", "Hinton et al. 2015", "Chapter 1", (CLASSIFICATION, MASKED_LM), "half", _hinton,
           {"laptop": hinton.HintonRecipe(temperature=4.0), "paper": hinton.HintonRecipe()}, same_tokens=False,
           answers=True, measured=("ch04", "labels + answers")),
    Method("bilstm", "Tang et al. 2019", "Chapter 2", (CLASSIFICATION,), "bilstm", _bilstm,
           {"laptop": bilstm.BilstmRecipe(), "paper": bilstm.BilstmRecipe()}, same_tokens=False, answers=True,
           measured=("ch02", "logits")),
    Method("distilbert", "Sanh et al. 2019", "Chapter 3", (MASKED_LM,), "half", _distilbert,
           {"laptop": distilbert.DistilBertRecipe(), "paper": distilbert.DistilBertRecipe()},
           claim="97 % of GLUE, 40 % fewer parameters, 60 % faster", measured=("ch10", "DistilBERT")),
    Method("pkd", "Sun et al. 2019", "Chapter 4", (CLASSIFICATION,), "half", _pkd,
           {"laptop": pkd.PkdRecipe(temperature=4.0, beta=1000.0), "paper": pkd.PkdRecipe()}, needs_labels=True,
           claim="SST-2 92.0 at 6 layers, 1.94 times faster", measured=("ch04", "PKD-skip")),
    Method("tinybert", "Jiao et al. 2020", "Chapter 5", (CLASSIFICATION, MASKED_LM), "third", _tinybert,
           {"laptop": tinybert.INTERMEDIATE, "paper": tinybert.INTERMEDIATE},
           claim="96.8 % of GLUE, 7.5 times smaller, 9.4 times faster", measured=("ch05", "two stages")),
    Method("mobilebert", "Sun et al. 2020", "Chapter 6", (CLASSIFICATION,), "mobilebert", _mobilebert,
           {"laptop": mobilebert.MobileBertRecipe("auxiliary", **QUICK_MOBILEBERT),
            "paper": mobilebert.MobileBertRecipe()}, needs_labels=True,
           claim="GLUE 77.7 against 78.3, 4.3 times smaller, 5.5 times faster", measured=("ch06", "auxiliary")),
    Method("minilm", "Wang et al. 2020", "Chapter 7", (CLASSIFICATION, MASKED_LM), "half", _minilm,
           {"laptop": minilm.MiniLmRecipe(), "paper": minilm.MiniLmRecipe()},
           claim="more than 99 % on SQuAD 2.0 with half the parameters, 2.0 times faster",
           measured=("ch07", "half depth, attention + values")),
    Method("theseus", "Xu et al. 2020", "Chapter 8", (CLASSIFICATION,), "half", _theseus,
           {"laptop": theseus.TheseusRecipe(base=0.3, k=0.0035), "paper": theseus.TheseusRecipe()}, needs_labels=True,
           claim="98 % of GLUE dev, 1.94 times faster", measured=("ch08", "Theseus, linear")),
    Method("cached", "stored soft labels", "Chapter 9", (CLASSIFICATION,), "cached", _cached,
           {"laptop": cached.CachedRecipe(), "paper": cached.CachedRecipe()}, same_tokens=False, answers=True,
           measured=("ch09", "labels + answers, all weights")),
)}
