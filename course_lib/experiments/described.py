"""How an arm is trained, for everybody who trains or times it; and any method of the table on the movie sentences.

An experiment has `training(arm, seed)`: the student of an arm, and its parts in their order. `run` trains them, and
chapter 10 times them. A method that has no chapter yet is trained here as its record says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from course_lib.experiments import sentences
from course_lib.material.data import load_data
from course_lib.methods.specs import Made, by_spec
from course_lib.shared.batches import Batches
from course_lib.shared.method import CLASSIFICATION, Job, Method, Stage, Training
from course_lib.shared.parts import Batch
from course_lib.shared.training import History, Recipe, Terms


@dataclass(frozen=True)
class Part:
    """One stage of an arm's training with the batches that it reads."""

    stage: Stage
    batches: Sequence[Batch]

    @classmethod
    def of(cls, terms: Terms, training: Training, batches: Sequence[Batch], **more) -> Part:
        """A part that needs no more than a loss. more: other fields of the Stage."""
        return cls(Stage("distillation", terms, training, **more), batches)

    def recipe(self, **more) -> Recipe:
        """The part's numbers for the training loop."""
        return self.stage.training.recipe(**more)

    def learn(self, student: nn.Module, seed: int, *, evaluate_every: int = 0, **options) -> tuple[nn.Module, History]:
        """Train; returns the student of the next part. options: those of `training.train`."""
        return self.stage.learn(student, self.batches, self.recipe(seed=seed, evaluate_every=evaluate_every), **options)


@dataclass(frozen=True)
class Live:
    """What a step of a method is timed with: both models, and batches without stored answers.

    teacher: None where nothing runs beside the student. ask(batch): the answers of a teacher that reads other tokens.
    """

    student: nn.Module
    teacher: nn.Module | None
    batches: Sequence[Batch]
    ask: Callable[[Batch], Tensor] | None = None


# --- A method without a chapter ---------------------------------------------------------------------------------------


def made(method: Method, seed: int = 0) -> Made:
    """The student that a method takes where none is given, cut out of the sentiment teacher.

    Raises: ValueError for a method that cannot teach a classifier.
    """
    if CLASSIFICATION not in method.tasks:
        raise ValueError(f"{method.name} works on {' and '.join(method.tasks)}; movie sentences want a classifier. "
                         "Give the method an experiment of its own.")
    return by_spec(method.student, method, sentences.teacher(), load_data("sentiment")["train"]["text"], seed=seed)


def rows_of(student: Made, split: str) -> list[dict]:
    """The sentences of a split in the student's tokens, with the teacher's answers."""
    answered = sentences.examples(split)
    mine = student.examples(load_data("sentiment")[split], sentences.MAX_LENGTH) if student.own_tokens else answered
    return [row | own for row, own in zip(answered, mine, strict=True)]


def training(method: Method, seed: int) -> tuple[Made, list[Part]]:
    """The method's own student and its stages, with the chapters' numbers, on the training sentences."""
    student, teacher = made(method, seed), sentences.teacher().model
    job = Job(teacher, student.layers, method.recipe_of("laptop"), student.copied, student.narrower_than(teacher))
    rows = rows_of(student, "train")
    return student, [Part(stage, Batches(rows, stage.training.batch_size, seed=seed)) for stage in method.stages(job)]


def run(method: Method, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split."""
    student, parts = training(method, seed)
    model = student.model
    for part in parts:
        model, _ = part.learn(model, seed)
    return sentences.scores(model, rows=rows_of(student, "test"))


def live(method: Method) -> Live:
    """Both models and training sentences, as the method's steps are timed."""
    student = made(method)
    return Live(student.model, sentences.teacher().model if method.teacher == "live" else None, sentence_batches(
        stored=method.teacher == "stored"))


def sentence_batches(size: int = sentences.BATCH_SIZE, *, stored: bool = False) -> Batches:
    """Training sentences with their labels; stored: with the teacher's answers, which make it needless."""
    kept = ("input_ids", "token_type_ids", "label", *(["teacher_logits"] if stored else []))
    return Batches([{name: row[name] for name in kept if name in row} for row in sentences.examples("train")], size)
