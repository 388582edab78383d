"""Do method, teacher, student and data belong together? Asked before anything is trained or written."""

from __future__ import annotations

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from course_lib.assets import asset
from course_lib.distill.plans import CLASSIFICATION, METHODS, Method
from course_lib.distill.settings import Settings
from course_lib.distill.texts import Texts
from course_lib.teachers import TEACHERS, Teacher, load_teacher


def method_of(settings: Settings) -> Method:
    if settings.method not in METHODS:
        raise ValueError(f"No method '{settings.method}'. There are: {', '.join(METHODS)}.")
    if settings.preset not in ("laptop", "paper"):
        raise ValueError(f"No preset '{settings.preset}'. There are: laptop (the chapters' values), paper.")
    for name in ("steps", "batch_size", "accumulate", "max_length", "learning_rate", "epochs", "save_every"):
        if (value := getattr(settings, name)) is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be larger than 0, not {value}.")
    if settings.steps and settings.epochs:
        raise ValueError("--steps and --epochs say the same thing in two ways; give one of them.")
    return METHODS[settings.method]


def teacher_of(settings: Settings, method: Method, texts: Texts) -> Teacher:
    """The teacher; for fine-tuning, the encoder with a new head for the classes of the data."""
    try:
        if method.name == "labels":
            return _with_new_head(settings.teacher, texts)
        return load_teacher(settings.teacher)
    except OSError as error:
        raise ValueError(f"{settings.teacher} could not be loaded ({str(error).splitlines()[0]}). Give a teacher of "
                         "the course, the folder of a saved model, or a hub name.") from error


def _with_new_head(name: str, texts: Texts) -> Teacher:
    where = str(asset("minilm-l6")) if name == "minilm-l6" else name
    if name in TEACHERS or not texts.class_names:
        return load_teacher(name)
    names = list(texts.class_names)
    model = AutoModelForSequenceClassification.from_pretrained(
        where, num_labels=len(names), id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)}, ignore_mismatched_sizes=True, use_safetensors=True,
        attn_implementation="eager")
    return Teacher(model, AutoTokenizer.from_pretrained(where))


def require_fit(method: Method, task: str, teacher: Teacher, texts: Texts) -> None:
    """Raises: ValueError if method, teacher and data do not belong together."""
    if task not in method.tasks:
        can = [m.name for m in METHODS.values() if task in m.tasks]
        raise ValueError(f"{method.name} works on {' and '.join(method.tasks)}; this teacher does {task}. For it take "
                         f"one of: {', '.join(can)}.")
    if method.needs_labels and not texts.class_names and task == CLASSIFICATION:
        raise ValueError(f"{method.name} needs labels, and the data has none. Say which column it is (--label NAME), "
                         "or take a method that learns from the teacher alone: hinton, cached, bilstm, tinybert, "
                         "minilm.")
    if texts.class_names and task == CLASSIFICATION:
        for name in texts.class_names:
            class_number(name, teacher, texts.class_names, method)


def class_number(name: str, teacher: Teacher, names: tuple[str, ...], method: Method) -> int:
    """The teacher's number for a class of the data. Raises: ValueError if the teacher does not know the class."""
    known = teacher.class_names
    if name in known:
        return known.index(name)
    numbers = [str(i) for i in range(len(known))]
    unnamed = all(k.startswith("LABEL_") for k in known)
    if (set(names) <= set(numbers)) or (unnamed and len(names) == len(known)):
        return numbers.index(name) if name in numbers else names.index(name)
    raise ValueError(f"The data has the class '{name}', which the teacher does not know. The teacher's classes: "
                     f"{', '.join(known)}; the data's: {', '.join(names)}. Rename them in the data, or use the numbers "
                     f"0 to {len(known) - 1}.")


def all_texts(texts: Texts) -> list[str]:
    rows = texts.splits["train"]
    return [text for name in ("text", "text_pair") if name in rows.column_names for text in rows[name]]
