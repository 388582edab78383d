"""What a method is, in one frozen record that everybody reads who trains, times or compares it.

| reader | what it reads |
|---|---|
| the `distill` command | everything: which models fit, the stages with their numbers, the last line of a run |
| the experiments of the chapters | the stages: loss, order, and the numbers that the command calls "laptop" |
| chapter 10's comparison | `compared`: the arms that stand for the method |
| the table of what teaching costs | `steps`: the kinds of training step |

A record itself stands at the end of its paper's file in `course_lib.methods`; here is only its shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from course_lib.shared import probes
from course_lib.shared.layer_maps import LayerMap
from course_lib.shared.parts import AveragedOver, Batch
from course_lib.shared.probes import Reading
from course_lib.shared.training import History, Recipe, Terms, train

CLASSIFICATION, MASKED_LM = "classification", "masked LM"
BOTH_TASKS = (CLASSIFICATION, MASKED_LM)

# --- How a student is trained -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """How long and how fast one stage trains."""

    learning_rate: float
    epochs: float = 0.0
    steps: int = 0  # instead of epochs
    batch_size: int = 32
    warmup: float = 0.1
    schedule: str = "linear"
    precision: str = "auto"

    def recipe(self, **more) -> Recipe:
        """The same for the training loop. more: other fields of its Recipe; `steps`, where the epochs are known."""
        return Recipe(**{"steps": self.steps, "learning_rate": self.learning_rate, "warmup": self.warmup,
                         "schedule": self.schedule, "precision": self.precision} | more)


FINE_TUNING = Training(2e-5, epochs=3)  # Devlin et al. 2019, appendix A.3: one point of the grid
QUICK = Training(2e-4, steps=300)  # the chapters' common budget, for layers that start as copies
FRESH = Training(1e-3, steps=500)  # and for layers that start at random


@dataclass(frozen=True)
class Stage:
    """One call of the training loop: a loss, how long it is followed, and what must be done around it."""

    name: str
    terms: Terms
    training: Training
    averaged_over: Mapping[str, AveragedOver] = field(default_factory=dict)
    masked: bool = False  # a masked-LM batch
    groups: Callable[[nn.Module, float], Sequence[dict]] | None = None
    before: Callable[[nn.Module], None] = lambda student: None
    after: Callable[[nn.Module], nn.Module | None] = lambda student: None  # may return the student of the next stage

    def learn(self, student: nn.Module, batches: Sequence[Batch], recipe: Recipe, **options
              ) -> tuple[nn.Module, History]:
        """Train; returns the student of the next stage and what happened. options: those of `training.train`."""
        self.before(student)
        groups = self.groups(student, recipe.learning_rate) if self.groups else None
        history = train(student, batches, self.terms, recipe, parameters=groups, averaged_over=self.averaged_over,
                        **options)
        return self.after(student) or student, history


@dataclass(frozen=True)
class Job:
    """A teacher and a student for whom a method is asked for its stages.

    layers: the student's. copied: its layers start as copies, so it wants small steps. narrow: it is thinner than the
    teacher. recipe: the method's, with all changes. training: changed fields of every stage's training.
    """

    teacher: nn.Module | None
    layers: int
    recipe: object = None
    copied: bool = False
    narrow: bool = False
    labels: bool = True
    preset: str = "laptop"
    task: str = CLASSIFICATION
    training: Mapping[str, object] = field(default_factory=dict)

    def numbers(self, laptop: Training, paper: Training) -> Training:
        """How long and how fast: those of the preset, with the changes of this job."""
        return replace(laptop if self.preset == "laptop" else paper, **self.training)


# --- What a step costs ------------------------------------------------------------------------------------------------

Bare = Callable[[nn.Module, nn.Module | None, Batch], Sequence[Tensor]]


@dataclass(frozen=True)
class Step:
    """One kind of training step, ready to be timed.

    terms(student, teacher, batch): the real loss. bare(student, teacher, batch): the same two models without it; gives
    the student's outputs that the loss looks at.
    """

    terms: Callable[[nn.Module, nn.Module | None, Batch], dict[str, Tensor]]
    bare: Bare


def step_of(terms: Callable, bare: Callable, *recipe: object) -> Step:
    """A step of the method with a recipe of its own."""
    return Step(lambda student, teacher, batch: terms(student, teacher, batch, *recipe), bare)


def only_logits(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> list[Tensor]:
    """What a loss looks at that compares answers; without a teacher there is nothing to run beside the student."""
    if teacher is not None:
        probes.teacher_logits_of(teacher, batch)
    return [probes.logits_of(student, batch)]


def inside(looked_at: Callable[[Reading], Sequence[Tensor]]) -> Bare:
    """For a loss that looks inside both models. looked_at: a reading of the student -> what counts."""
    def bare(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Sequence[Tensor]:
        with torch.no_grad():
            probes.read(teacher, batch)
        return looked_at(probes.read(student, batch))
    return bare


# --- What a method is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Where the course measured something: an arm of an experiment, by one of its teachers, on some texts."""

    experiment: str  # "ch04"
    arm: str
    teacher: str = "sentiment"
    texts: str = "movie sentences"


@dataclass(frozen=True)
class Aim:
    """What the course aimed for before it measured, near to what the papers report about BERT-base.

    kept: percent of the teacher's score. faster, smaller: how many times.
    """

    kept: float
    faster: float | None = None
    smaller: float | None = None


@dataclass(frozen=True)
class Compared:
    """An arm of chapter 10 that stands for a method.

    baseline: the arm with the same start and no teacher (a name in chapter 10's BASELINES). needs: what training needs
    of the teacher: "stored answers", "stored states", "live", or a sum of them. measured: None = chapter 10 trains it
    itself, as `stages` says. more_text: it reads new sentences beside the training split.
    """

    baseline: str
    needs: str
    measured: Measured | None = None
    more_text: bool = False
    aim: Aim | None = None


@dataclass(frozen=True)
class Method:
    """One method of the course.

    student: the word for the student that is taken where none is given (`course_lib.methods.specs`).
    recipe: preset ("laptop": the chapters' values, "paper") -> the method's recipe; None: there is nothing to set.
    teacher: "none", "stored" (asked once, before the training), or "live" (beside the student in every step).
    cache: the columns of a batch that make a live teacher needless. same_tokens: the loss compares the models token by
    token, so both must have one vocabulary. same_heads: it compares head with head. own_student: its student is of a
    kind of its own. copies(layers, teacher's layers): which layers a student starts with; None: evenly spread ones.
    wraps(teacher, layers): builds the model that is trained, if the student grows inside a copy of the teacher.
    claim: what the paper reports. measured: the arm that the last line of a run quotes.
    """

    name: str
    title: str
    paper: str
    stages: Callable[[Job], list[Stage]]
    recipe: Mapping[str, object]
    chapter: str = ""  # the experiment whose models and texts are timed; "": movie sentences and `student`
    tasks: tuple[str, ...] = (CLASSIFICATION,)
    student: str = "half"
    teacher: Literal["none", "stored", "live"] = "live"
    cache: tuple[str, ...] = ()
    needs_labels: bool = False
    same_tokens: bool = True
    same_heads: bool = False
    own_student: bool = False
    copies: Callable[[int, int], LayerMap] | None = None
    wraps: Callable[[nn.Module, int], nn.Module] | None = None
    steps: Mapping[str, Step] = field(default_factory=dict)
    compared: Mapping[str, Compared] = field(default_factory=dict)
    claim: str = ""
    measured: Measured | None = None

    def recipe_of(self, preset: str, changes: Mapping[str, object] | None = None) -> object:
        """The recipe of a preset with changed fields; None where the method has none."""
        return replace(self.recipe[preset], **changes) if changes else self.recipe[preset]
