"""Do method, teacher, student and data belong together? Asked before anything is trained or written."""

from __future__ import annotations

from collections.abc import Callable

from transformers import AutoTokenizer

from course_lib.distill.settings import Settings
from course_lib.distill.texts import Texts
from course_lib.material.assets import asset
from course_lib.material.teachers import TEACHERS, Teacher, load_teacher
from course_lib.methods.specs import Made, with_classes
from course_lib.methods.table import METHODS
from course_lib.shared.method import CLASSIFICATION, Method


def method_of(settings: Settings) -> Method:
    """The method that the settings name. Raises: ValueError for a setting that is unknown or out of its range."""
    if settings.method not in METHODS:
        raise ValueError(f"No method '{settings.method}'. There are: {', '.join(METHODS)}.")
    if settings.preset not in ("laptop", "paper"):
        raise ValueError(f"No preset '{settings.preset}'. There are: laptop (the chapters' values), paper.")
    for name in ("steps", "batch_size", "accumulate", "max_length", "learning_rate", "epochs", "save_every"):
        if (value := getattr(settings, name)) is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be larger than 0, not {value}.")
    if settings.steps and settings.epochs:
        raise ValueError("--steps and --epochs say the same thing in two ways; give one of them.")
    method = METHODS[settings.method]
    known = getattr(method.recipe[settings.preset], "__dataclass_fields__", {})
    if unknown := [name for name in settings.recipe if name not in known]:
        raise ValueError(f"{method.name} has no setting '{unknown[0]}'. It has: {', '.join(known) or 'none'}.")
    return method


def teacher_of(settings: Settings, method: Method, texts: Texts) -> Teacher:
    """The teacher; for fine-tuning, the encoder with a new head for the classes of the data."""
    try:
        if method.teacher == "none":
            return _with_new_head(settings.teacher, texts)
        return load_teacher(settings.teacher)
    except OSError as error:
        raise ValueError(f"{settings.teacher} could not be loaded ({str(error).splitlines()[0]}). Give a teacher of "
                         "the course, the folder of a saved model, or a hub name.") from error


def _with_new_head(name: str, texts: Texts) -> Teacher:
    if name in TEACHERS or not texts.class_names:
        return load_teacher(name)
    where = str(asset(name)) if name == "minilm-l6" else name
    return Teacher(with_classes(where, texts.class_names), AutoTokenizer.from_pretrained(where))


def require_fit(method: Method, task: str, teacher: Teacher, texts: Texts) -> None:
    """Raises: ValueError if method, teacher and data do not belong together."""
    if task not in method.tasks:
        can = [m.name for m in METHODS.values() if task in m.tasks]
        raise ValueError(f"{method.name} works on {' and '.join(method.tasks)}; this teacher does {task}. For it take "
                         f"one of: {', '.join(can)}.")
    if method.needs_labels and not texts.class_names and task == CLASSIFICATION:
        raise ValueError(f"{method.name} needs labels, and the data has none. Say which column it is (--label NAME), "
                         "or take a method that learns from the teacher alone: "
                         f"{_names(lambda m: task in m.tasks and not m.needs_labels)}.")


def require_readable(method: Method, made: Made) -> None:
    """Raises: ValueError if a loss that compares tokens would compare those of two vocabularies."""
    if made.own_tokens and method.same_tokens:
        alike = _names(lambda m: not (m.same_tokens or m.teacher == "none"))
        raise ValueError(
            f"{method.name} compares teacher and student token by token, but this student reads other tokens than the "
            f"teacher. Take a method that compares sentences only ({alike}), or a student that is made from the "
            "teacher (--student half).")


def _names(wanted: Callable[[Method], bool]) -> str:
    """The methods of a kind; first those that ask least of their student."""
    found = sorted(filter(wanted, METHODS.values()), key=lambda method: (method.same_tokens, method.own_student))
    return ", ".join(method.name for method in found)


def all_texts(texts: Texts) -> list[str]:
    rows = texts.splits["train"]
    return [text for name in ("text", "text_pair") if name in rows.column_names for text in rows[name]]
