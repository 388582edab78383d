"""Do method, teacher, student and data belong together? Asked before anything is trained or written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from course_lib.distill.settings import Settings
from course_lib.distill.texts import Texts
from course_lib.material.assets import asset
from course_lib.material.kinds import positions_of, tokenizer_of, with_classes
from course_lib.material.teachers import TEACHERS, Teacher, load_teacher
from course_lib.methods.specs import Made
from course_lib.methods.table import METHODS
from course_lib.shared import probes
from course_lib.shared.batches import encode
from course_lib.shared.method import CLASSIFICATION, MASKED_LM, Method
from course_lib.shared.students import evaluating


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
            return _with_new_head(settings.teacher, texts, settings.seed)
        return load_teacher(settings.teacher)
    except OSError as error:
        raise ValueError(f"{settings.teacher} could not be loaded ({str(error).splitlines()[0]}). Give a teacher of "
                         "the course, the folder of a saved model, or a hub name.") from error


def _with_new_head(name: str, texts: Texts, seed: int) -> Teacher:
    if (name in TEACHERS and not Path(name).is_dir()) or not texts.class_names:
        return load_teacher(name)
    where = str(asset(name)) if name == "minilm-l6" else name
    torch.manual_seed(seed)  # the new head is a part of the run: the same command makes the same one
    return Teacher(with_classes(where, texts.class_names), tokenizer_of(where))


def require_fit(method: Method, task: str, teacher: Teacher, texts: Texts) -> None:
    """Raises: ValueError if method, teacher and data do not belong together."""
    if task not in method.tasks:
        can = [m.name for m in METHODS.values() if task in m.tasks]
        raise ValueError(f"{method.name} works on {' and '.join(method.tasks)}; this teacher does {task}. For it take "
                         f"one of: {', '.join(can)}."
                         + (" To distil classes, fine-tune it first (finetune)." if task == MASKED_LM else ""))
    if method.needs_labels and not texts.class_names and task == CLASSIFICATION:
        raise ValueError(f"{method.name} needs labels, and the data has none. Say which column it is (--label NAME), "
                         "or take a method that learns from the teacher alone: "
                         f"{_names(lambda m: task in m.tasks and not m.needs_labels)}.")


def require_embeddings(teacher: Teacher, texts: Texts) -> None:
    """Raises: ValueError for a word of the training texts that the teacher has no embedding for."""
    rows = teacher.model.get_input_embeddings().num_embeddings
    if len(teacher.tokenizer) > rows:  # else it cannot happen
        require_known_tokens(encode(texts.splits["train"], teacher.tokenizer), teacher.tokenizer, teacher.model,
                             "teacher")


def same_reading(made: Made, teacher: Teacher, texts: Texts) -> Made:
    """The student, marked as a reader of other tokens if its tokenizer cuts the texts differently (casing, say)."""
    if made.own_tokens or made.tokenizer is teacher.tokenizer:
        return made
    some = all_texts(texts)[:256]
    ours, theirs = (reader(some, truncation=True, max_length=128)["input_ids"]
                    for reader in (made.tokenizer, teacher.tokenizer))
    return made if ours == theirs else replace(made, own_tokens=True, start=f"{made.start}, with a tokenizer that "
                                               "cuts the texts in another way")


def tokens_per_text(asked: int, made: Made, teacher: Teacher) -> tuple[int, str]:
    """How many tokens of a text are read, and a sentence if a model has room for fewer than were asked for."""
    limits = {who: limit for who, model in (("teacher", teacher.model), ("student", made.model))
              if (limit := positions_of(model)) is not None and limit < asked}
    if not limits:
        return asked, ""
    who, most = min(limits.items(), key=lambda limit: limit[1])
    return most, f"The {who} has {most} positions: texts are read up to {most} tokens, not {asked}."


def texts_cut(rows: Dataset, examples: Sequence[dict], split: str, length: int, made: Made, teacher: Teacher) -> str:
    """How many texts lose their end, and whether the rest would fit; "" if none does."""
    if not isinstance(made.tokenizer, PreTrainedTokenizerBase):
        return ""
    full = [i for i, example in enumerate(examples) if len(example["input_ids"]) >= length]
    if not full:
        return ""
    chosen = rows.select(full)
    pairs = [list(chosen["text_pair"])] if "text_pair" in rows.column_names else []
    sizes = [len(ids) for ids in made.tokenizer(list(chosen["text"]), *pairs, verbose=False)["input_ids"]]
    cut, longest = sum(size > length for size in sizes), max(sizes)
    if not cut:
        return ""
    room = tokens_per_text(longest, made, teacher)[0]
    way = (f"--max-length {longest} takes them whole." if room >= longest else
           "The models have no more positions: put what matters first, or split the texts." if room <= length else
           f"--max-length {room} is the most that the models can read.")
    return (f"{cut:,} of {len(rows):,} {split} texts ({cut / len(rows):.0%}) are cut after {length} tokens; the "
            f"longest has {longest:,}. {way}")


def require_known_tokens(examples: Sequence[dict], tokenizer: object, model: torch.nn.Module, who: str) -> str:
    """A sentence with the share of unknown words, if it is more than one in a hundred; else "".

    Raises: ValueError if half of the words are unknown, or if the model has no embedding for a token.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return ""
    ids = torch.cat([torch.as_tensor(example["input_ids"]) for example in examples])
    rows = model.get_input_embeddings().num_embeddings if isinstance(model, PreTrainedModel) else int(ids.max()) + 1
    if int(ids.max()) >= rows:
        largest = int(ids.max())
        raise ValueError(f"The tokenizer of the {who} makes the token {tokenizer.convert_ids_to_tokens(largest)} "
                         f"(number {largest}), and the model knows {rows} tokens. Tokenizer and model belong to two "
                         "models, or words were added: model.resize_token_embeddings(len(tokenizer)), then train it.")
    if tokenizer.unk_token_id is None:
        return ""
    special = torch.tensor([i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id])
    words = ids[~torch.isin(ids, special)]
    share = (words == tokenizer.unk_token_id).double().mean().item()
    said = f"{share:.0%} of the words are unknown to the tokenizer of the {who} (it reads {tokenizer.unk_token})"
    if share > 0.5:
        raise ValueError(f"{said}: all texts look alike to it. Take a model for the language, the script and the "
                         "casing of your texts.")
    return f"{said}." if share > 0.01 else ""


def require_able(teacher: Teacher, answers: Tensor, labels: Tensor) -> None:
    """Raises: ValueError for a teacher that is no better than naming the commonest class always.

    answers: (texts, classes), logits. Where classes are rare, a teacher may be right less often than that and still
    find them; so it must also find each class no better, on average, than chance.
    """
    right, names = answers.argmax(-1) == labels, teacher.class_names
    counts = labels.bincount(minlength=len(names))
    common, there = int(counts.argmax()), counts > 0
    found = labels[right].bincount(minlength=len(names))[there] / counts[there]  # recall of each class
    noise = (found * (1 - found) / counts[there]).sum().sqrt().item() / len(found)
    accuracy, usual = right.double().mean().item(), counts[common].item() / len(labels)
    if len(found) < 2 or accuracy > usual or found.mean().item() > 1 / len(found) + 2 * noise:
        return
    favourite = int(answers.argmax(-1).bincount(minlength=len(names)).argmax())
    raise ValueError(
        f"The teacher is right for {accuracy:.1%} of {len(labels):,} labelled texts; always '{names[common]}' would be "
        f"right for {usual:.1%}. It has nothing to teach on these texts: its commonest answer is '{names[favourite]}'. "
        f"Are its classes, in their order, those of the data ({', '.join(names)})? Was it trained on such texts? If "
        "not, fine-tune it first (finetune).")


def require_readable(method: Method, made: Made, teacher: Teacher) -> None:
    """Raises: ValueError if a loss that compares tokens would compare those of two vocabularies, or if it looks into a
    model that cannot be read."""
    if made.own_tokens and method.same_tokens:
        alike = _names(lambda m: not (m.same_tokens or m.teacher == "none"))
        raise ValueError(
            f"{method.name} compares teacher and student token by token, but this student reads other tokens than the "
            f"teacher. Take a method that compares sentences only ({alike}), or a student that is made from the "
            "teacher (--student half).")
    if not method.same_tokens or method.wraps:
        return
    batch = teacher.tokenizer("a", return_tensors="pt")
    for who, model in (("teacher", teacher.model), ("student", made.model)):
        try:
            with evaluating(model), torch.no_grad():
                probes.read(model, batch)
        except ValueError as error:
            answers_only = _names(lambda m: not (m.same_tokens or m.own_student or m.teacher == "none"))
            raise ValueError(f"{method.name} looks inside both models, and the {who} cannot be read: {error} Methods "
                             f"that compare answers only take any model: {answers_only} (--student FOLDER).") from error


def _names(wanted: Callable[[Method], bool]) -> str:
    """The methods of a kind; first those that ask least of their student."""
    found = sorted(filter(wanted, METHODS.values()), key=lambda method: (method.same_tokens, method.own_student))
    return ", ".join(method.name for method in found)


def all_texts(texts: Texts) -> list[str]:
    rows = texts.splits["train"]
    return [text for name in ("text", "text_pair") if name in rows.column_names for text in rows[name]]
