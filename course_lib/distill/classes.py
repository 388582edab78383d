"""Which class is which: the classes of the data and those of the teacher.

    agreed = match(texts, teacher.class_names)
    print(agreed)      # no = 0 LABEL_0, yes = 1 LABEL_1 (by number)

Names are matched by name, "4" with "4 stars" by the number in the name, and numbers by number. Nothing is matched by
alphabet. Every match is printed and tried: texts of every class are shown to the teacher, and where another order would
make it right clearly more often, the command stops and asks (`--classes`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from datasets import DatasetDict
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers import AutoConfig

from course_lib.distill.texts import Texts, in_shell
from course_lib.material.data import table
from course_lib.material.kinds import positions_of
from course_lib.material.teachers import Teacher
from course_lib.shared.batches import encode, in_order, pad
from course_lib.shared.measures import predict_logits

SHOWN = 256  # texts that the teacher is asked about, from every class as many
CLEAR = 3.0  # standard deviations: chance alone gives that much once in a thousand orders


@dataclass(frozen=True)
class Match:
    """The teacher's number for each class of the data, and how it was found ("" = nobody can say)."""

    names: tuple[str, ...]
    known: tuple[str, ...]
    numbers: tuple[int, ...]
    how: str

    def __str__(self) -> str:
        pairs = zip(self.names, self.numbers, strict=True)
        return ", ".join(f"{name} = {number} {self.known[number]}" for name, number in pairs) + f" ({self.how})"

    @property
    def option(self) -> str:
        """What the user types to say the same."""
        alike = len(set(self.known)) < len(self.known)
        theirs = [str(number) if alike else self.known[number] for number in self.numbers]
        return "--classes " + in_shell([f"{name}={their}" for name, their in zip(self.names, theirs, strict=True)])


def match(texts: Texts, known: Sequence[str]) -> Match:
    """Match the classes of the texts with the teacher's, without a look at its answers.

    Raises: ValueError for a class that the teacher lacks; for --classes that name none of its classes.
    """
    names = texts.class_names
    if texts.meant:
        return Match(names, tuple(known), tuple(_as_said(texts, known)), "as --classes says")
    for how, form in (("by name", str), ("by name, whatever capitals and hyphens", _loose),
                      ("by the number in the name", _number_in)):
        found = _positions([form(name) for name in names], [form(name) for name in known])
        if found:
            return Match(names, tuple(known), found, how)
    by_number = _positions(names, [str(i) for i in range(len(known))])
    if by_number:
        return Match(names, tuple(known), by_number, "by number")
    if all(name.isdecimal() for name in names) and [int(name) for name in names] == list(range(1, len(known) + 1)):
        return Match(names, tuple(known), tuple(range(len(known))), "by number: the data count from 1, the teacher "
                     "from 0")
    if len(names) <= len(known) and all(re.fullmatch(r"LABEL_\d+", name) for name in known):
        return Match(names, tuple(known), tuple(range(len(names))), "")
    unknown = next((name for name in names if name not in known), names[0])
    raise ValueError(f"The data has the class '{unknown}', which the teacher does not know. The teacher's classes: "
                     f"{', '.join(known)}; the data's: {', '.join(names)}. Say which is which: --classes "
                     f"{in_shell([f'{names[0]}={known[0]}'])} and so on for every class; or rename them in the data.")


def _positions(names: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """Where each name stands among the known ones; () if one is missing, empty, or there twice."""
    if any(not name or known.count(name) != 1 for name in names) or len(set(names)) < len(names):
        return ()
    return tuple(known.index(name) for name in names)


def _loose(name: str) -> str:
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name.casefold()).strip()  # the sign of -1 stays


def _number_in(name: str) -> str:
    """"4" for "4 stars" and for "4"; "" where there is no number or more than one, and for transformers' LABEL_4."""
    found = [name] if re.fullmatch(r"[+-]?\d+", name) else re.findall(r"\d+", name)
    return "" if len(found) != 1 or name.startswith("LABEL_") else str(int(found[0]))


def _as_said(texts: Texts, known: Sequence[str]) -> list[int]:
    """NAME=TEACHERS_NAME or NAME=NUMBER; a list of names alone is in the order of the teacher's numbers."""
    if None in texts.meant.values():
        if len(texts.meant) > len(known):
            raise ValueError(f"--classes names {len(texts.meant)} classes, and the teacher has {len(known)}: "
                             f"{', '.join(known)}.")
        by_name = _positions(texts.class_names, list(known))
        return list(by_name or range(len(texts.class_names)))
    numbers = []
    for name, theirs in texts.meant.items():
        by_number = theirs.isdecimal() and int(theirs) < len(known)
        if theirs not in known and not by_number:
            raise ValueError(f"--classes {name}={theirs}: the teacher has no class '{theirs}'. It has "
                             f"{', '.join(f'{i} {other}' for i, other in enumerate(known))}.")
        numbers.append(list(known).index(theirs) if theirs in known else int(theirs))
    if len(set(numbers)) < len(numbers):
        raise ValueError("--classes gives two classes of the data one class of the teacher. A student learns the "
                         "teacher's classes; join the two in the data.")
    return numbers


# --- Tried on texts ---------------------------------------------------------------------------------------------------


def in_teachers_classes(texts: Texts, teacher: Teacher, max_length: int, say: Callable[[str], None], *,
                        ask: bool = True) -> Texts:
    """The texts with the teacher's class names and numbers, after the match was tried on the teacher's answers.

    ask: False for a model that is still to be fine-tuned; its answers say nothing.
    Raises: ValueError where the match cannot be made, or where the teacher's answers speak for another one.
    """
    if not texts.class_names:
        return texts
    agreed = match(texts, teacher.class_names)
    if ask:
        agreed = tried(agreed, *_shown_to(teacher, texts, max_length), say)
    return renumbered(texts, agreed.numbers, teacher.class_names)


def tried(agreed: Match, labels: Int[Tensor, "*texts"], answers: Int[Tensor, "*texts"],
          say: Callable[[str], None]) -> Match:
    """The match, said with how often the teacher is right under it.

    labels: of the data, as positions in `agreed.names`; answers: the teacher's class numbers.
    A teacher whose classes have no names gets the order in which it is right, where that is clear.
    Raises: ValueError where another order is clearly better, or none is clear; it names the option that decides.
    """
    counts = torch.zeros(len(agreed.names), len(agreed.known), dtype=torch.long)
    counts.index_put_((labels, answers), torch.ones_like(labels), accumulate=True)  # (data's classes, teacher's)
    best = replace(agreed, numbers=tuple(linear_sum_assignment(counts.numpy(), maximize=True)[1].tolist()))
    right, better = (100 * _share(counts, numbers) for numbers in (agreed.numbers, best.numbers))
    under = "Matched as {}, the teacher is right for {:.1f} % of {} texts (from every class as many)."
    if not agreed.how:
        if not _is_clear(counts, best.numbers):
            raise ValueError("The teacher's classes have no names, so nobody can say which is which: "
                             f"{', '.join(agreed.names)} and {', '.join(agreed.known)}. "
                             f"{under.format(best.option[10:], better, len(labels))} If that is meant, say it: "
                             f"{best.option}. Else put them in the right order.")
        agreed, right = replace(best, how="the teacher's classes have no names; so it is right most often"), better
    elif agreed.how != "as --classes says" and _is_better(counts, best.numbers, agreed.numbers):
        raise ValueError(f"Which class is which? {under.format(agreed, right, len(labels))} Matched as "
                         f"{best.option[10:]}, it would be right for {better:.1f} %. If that is meant: {best.option}; "
                         f"if not, {agreed.option}.")
    say(f"Classes of the data = classes of the teacher: {agreed}. So the teacher is right for {right:.1f} % of "
        f"{len(labels)} training texts (from every class as many, where there are).")
    if unused := [name for i, name in enumerate(agreed.known) if i not in agreed.numbers]:
        say(f"Classes of the teacher that the data does not have: {', '.join(unused)}.")
    return agreed


def _share(counts: Int[Tensor, "ours theirs"], numbers: Sequence[int]) -> float:
    return (sum(counts[i, n] for i, n in enumerate(numbers)) / counts.sum()).item()


def _is_better(counts: Int[Tensor, "ours theirs"], one: Sequence[int], other: Sequence[int]) -> bool:
    """McNemar's test: of the texts that are right in one order only, does the first have clearly more?

    And the first order must be good: a teacher that always says one class is no witness for any order.
    """
    moved = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    wins, losses = (sum(int(counts[i, numbers[i]]) for i in moved) for numbers in (one, other))
    return wins - losses > CLEAR * (wins + losses) ** 0.5 and _share(counts, one) > 1.5 / len(one)


def _is_clear(counts: Int[Tensor, "ours theirs"], numbers: Sequence[int]) -> bool:
    """Whether every class of the data gets one answer at least twice as often as any other, and three times or more."""
    for row, number in zip(counts, numbers, strict=True):
        others = torch.cat([row[:number], row[number + 1 :]])
        if row[number] < 3 or row[number] < 2 * others.max():
            return False
    return True


def _shown_to(teacher: Teacher, texts: Texts, max_length: int) -> tuple[Tensor, Tensor]:
    """(labels, the teacher's answers) for training texts, from every class as many where there are."""
    labels = texts.splits["train"]["label"]
    of_class: dict[int, list[int]] = {}
    for i, label in enumerate(labels):
        of_class.setdefault(label, []).append(i)
    turns = sorted((turn, label, i) for label, mine in of_class.items() for turn, i in enumerate(mine))
    rows = texts.splits["train"].select(sorted(i for _, _, i in turns[: max(SHOWN, 4 * len(of_class))]))
    asked = encode(rows, teacher.tokenizer, min(max_length, positions_of(teacher.model) or max_length))
    collate = partial(pad, pad_token_id=teacher.tokenizer.pad_token_id or 0)
    return torch.tensor(list(rows["label"])), predict_logits(teacher.model, in_order(asked, 64, collate)).argmax(-1)


def renumbered(texts: Texts, numbers: Sequence[int], names: Sequence[str]) -> Texts:
    """The same texts, their labels as numbers of another list of names."""
    splits = {split: table([row | {"label": numbers[row["label"]]} for row in rows], list(names))
              for split, rows in texts.splits.items()}
    return replace(texts, splits=DatasetDict(splits), class_names=tuple(names))


def as_the_model_numbers(texts: Texts, name: str) -> Texts:
    """For fine-tuning a model that has a head for these very classes: its numbers, not the alphabet's."""
    if not (Path(name).is_dir() or "/" in name):  # an encoder of the course
        return texts
    try:
        known = AutoConfig.from_pretrained(name).id2label
    except (OSError, ValueError):  # no such model: whoever loads it says so
        return texts
    names = [known[i] for i in sorted(known)]
    if names == list(texts.class_names) or sorted(names) != sorted(texts.class_names):
        return texts
    numbers = [names.index(name) for name in texts.class_names]
    shown = ", ".join(f"{i} = {name}" for i, name in enumerate(names))
    note = f"The model has a head for these classes, so its numbers hold: {shown}."
    return replace(renumbered(texts, numbers, names), notes=(*texts.notes, note))
