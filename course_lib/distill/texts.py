"""Your own texts: files, a folder, or a data set of the hub; and errors that name the row.

    texts = read("reviews.csv")
    print(*texts.notes, sep="\\n")       # what was guessed
    texts.splits["train"][0]            # {"text": "...", "label": 1}

Nothing is trained on a file that is not understood completely: a bad row stops the reading, or (`skip_bad_rows`) is
left out and counted; a label that may be a class or a missing one is asked for. Which split a text belongs to follows
from the text itself, in any script.

`course_lib.material.text_files` makes rows of a file; `classes` matches these classes with a teacher's.
"""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from datasets import Dataset, DatasetDict, load_from_disk

from course_lib.material.data import hash_position, load_data, split_at, table
from course_lib.material.text_files import READERS, How, Row, Table, class_names, columns_of, read_file, said
from course_lib.shared.masking import IGNORED

SPLITS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
MAYBE_MISSING = ("nan", "none", "null", "na", "n/a", "\\n", "-", "?")  # a class, or a program's word for "nothing"
NAMED_AT_MOST = 20  # classes in one note


@dataclass(frozen=True)
class Texts:
    """Rows with `text`, perhaps `text_pair`, perhaps `label` (a number); the names of the classes; what was guessed."""

    splits: DatasetDict
    class_names: tuple[str, ...]  # () = there are no labels
    notes: tuple[str, ...]
    meant: dict[str, str | None] = field(default_factory=dict)  # --classes: name here -> name at the teacher


@dataclass
class _Reader:
    text: str | None
    label: str | None
    skip_bad_rows: bool
    no_label: Sequence[str]  # names that mean "no label"
    classes: Sequence[str]  # as the user wrote them: NAME, or NAME=TEACHERS_NAME
    notes: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    unlabelled: dict[str, list[str]] = field(default_factory=dict)  # split -> complaints about missing labels
    hidden: Counter = field(default_factory=Counter)  # split -> rows whose label says "no label"
    marked: set[str] = field(default_factory=set)  # the names that meant it
    known: list[str] = field(default_factory=list)  # the classes in the order of the data set's own numbers


def read(source: str, *, text: str | None = None, label: str | None = None, encoding: str = "utf-8",
         skip_bad_rows: bool = False, separator: str | None = None, quotes: str | None = None, header: bool = True,
         no_label: Sequence[str] = (), classes: Sequence[str] = ()) -> Texts:
    """Read a file (CSV, TSV, JSON, Parquet, plain text), a folder of files for the splits, or a data set.

    source: a path, a name of the course ("sentiment"), or a hub data set with a slash; what is on the disk comes first.
    text, label: names of the columns; without them they are guessed, and the guess is said in `notes`.
    skip_bad_rows: leave out rows without text or label, and broken ones, instead of stopping.
    encoding, separator, quotes, header: as in `text_files.How`; a file shows them, unless it is in doubt.
    no_label: labels that mean "nobody knows" (such rows are left out and counted). classes: the names of the classes in
    the order of their numbers, or NAME=TEACHERS_NAME each.
    Raises: ValueError that names the file, the row and the way out.
    """
    reader = _Reader(text, label, skip_bad_rows, [class_name(name) for name in no_label], classes)
    rows = {}
    for split, (name, found) in _tables(source, How(encoding, separator, quotes, header), reader).items():
        rows[split] = _rows_of(split, name, found, reader)
    if never := [name for name in reader.no_label if name not in reader.marked]:
        raise ValueError(f"--no-label {in_shell(never)}: no row has this label.")
    rows = _with_labels_or_without(rows, reader)
    if reader.bad and not skip_bad_rows:
        more = f"\n  and {len(reader.bad) - 5} more" if len(reader.bad) > 5 else ""
        raise ValueError("These rows cannot be used:\n  " + "\n  ".join(reader.bad[:5]) + more
                         + "\nMend them, or leave them out with --skip-bad-rows.")
    if reader.bad:
        reader.notes.append(f"{len(reader.bad)} bad row(s) left out, the first: {reader.bad[0]}.")
    names, meant = _number_labels(rows, source, reader)
    return Texts(_in_splits(rows, names, reader), tuple(names), tuple(reader.notes), meant)


# --- Where the rows come from -----------------------------------------------------------------------------------------


def _tables(source: str, how: How, reader: _Reader) -> dict[str, tuple[str, Table]]:
    """{split: (name for messages, its rows)}."""
    path, asked = Path(source), [name for name in (reader.text, reader.label) if name]
    if path.is_file():
        return {"train": (path.name, read_file(path, how, asked))}
    if path.is_dir() and not any((path / file).exists() for file in ("dataset_dict.json", "state.json")):
        return {split: (file.name, read_file(file, how, asked)) for split, file in _files_of(path).items()}
    splits = _saved_splits(path) if path.is_dir() else _data_set(source)
    others = [f"{name} ({len(rows):,})" for name, rows in splits.items() if name not in SPLITS]
    if others:
        reader.notes.append(f"Splits that are not used: {', '.join(others)}.")
    if "train" not in splits:
        raise ValueError(f"{source} has no split 'train'; it has {', '.join(splits)}.")
    return {name: (f"{source}, {name}", _table_of(splits[name])) for name in SPLITS if name in splits}


def _files_of(folder: Path) -> dict[str, Path]:
    """The files of a folder that are called after a split."""
    found = {}
    for split, names in SPLITS.items():
        matching = [file for file in sorted(folder.iterdir())
                    if file.stem.lower() in names and file.suffix.lower() in READERS]
        if len(matching) > 1:
            raise ValueError(f"{folder} has {len(matching)} files for '{split}': "
                             f"{', '.join(file.name for file in matching)}. Keep one of them.")
        if matching:
            found[split] = matching[0]
    if "train" not in found:
        raise ValueError(f"{folder} has no file train{{{','.join(READERS)}}}.")
    return found


def _saved_splits(folder: Path) -> DatasetDict:
    """What `save_to_disk` wrote: a data set with splits, or one without, which is all for training."""
    saved = load_from_disk(str(folder))
    return saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})


def _data_set(source: str) -> DatasetDict:
    """A data set of the course or of the hub."""
    try:
        return load_data(source)
    except (FileNotFoundError, ConnectionError) as error:
        raise ValueError(f"{source} is no file, no folder, and no data set that can be reached "
                         f"({type(error).__name__}: {str(error).splitlines()[0]}).") from error


def _table_of(rows: Dataset) -> Table:
    return Table(rows.column_names, [(f"row {i}", row) for i, row in enumerate(rows.to_list(), start=1)],
                 class_names=class_names(rows.features))


# --- Rows -------------------------------------------------------------------------------------------------------------


def _rows_of(split: str, name: str, found: Table, reader: _Reader) -> list[Row]:
    """The rows of one table with the standard names of columns; what is wrong is added to the reader."""
    reader.bad += found.bad
    names = columns_of(name, found, reader.text, reader.label)
    reader.notes.append(said(name, found, names))
    numbered = [class_name(kind) for kind in found.class_names.get(names.get("label", ""), [])]
    if reader.known and numbered and numbered != reader.known:
        raise ValueError(f"{name} numbers its classes {', '.join(numbered)}, another split {', '.join(reader.known)}.")
    reader.known = reader.known or numbered
    rows = []
    for where, row in found.rows:
        text = {kind: _text(row.get(names[kind])) for kind in ("text", "text_pair") if kind in names}
        lacks = next((kind for kind, value in text.items() if not value), None)
        if lacks:
            reader.bad.append(f"{name}, {where}: no text in column '{names[lacks]}' ({row.get(names[lacks])!r})")
            continue
        if "label" in names:
            label = _label(split, f"{name}, {where}", row.get(names["label"]), numbered, reader)
            text |= {"label": label} if label is not None else {}
        rows.append(text)
    return rows


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _label(split: str, where: str, value: object, numbered: Sequence[str], reader: _Reader) -> str | None:
    """The name of the row's class, or None where there is none; the reader counts why.

    Raises: ValueError for a list (several labels) and for a number that the data set has no name for.
    """
    if isinstance(value, list | dict):
        raise ValueError(f"{where}: the label is {value!r}, several values for one text. A class is one word or one "
                         "number. Is this the right column (--label NAME)?")
    if numbered and isinstance(value, int):
        if value >= len(numbered):
            raise ValueError(f"{where}: the label is {value}, but the data set names the classes 0 to "
                             f"{len(numbered) - 1}.")
        value = numbered[value] if value >= 0 else IGNORED
    name = class_name(value)
    if name in reader.no_label or name == str(IGNORED):
        reader.hidden[split] += 1
        reader.marked.add(name)
        return None
    if not name or (name == "NaN" and not numbered and name not in reader.classes):
        reader.unlabelled.setdefault(split, []).append(f"{where}: no label ({value!r})")
        return None
    return name


def class_name(value: object) -> str:
    """The name of a class: "" for nothing; 1.0 is what pandas makes of 1 in a column where another label is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return unicodedata.normalize("NFC", re.sub(r"^([+-]?\d+)\.0+$", r"\1", str(value).strip()))


# --- Labels -----------------------------------------------------------------------------------------------------------


def _with_labels_or_without(rows: dict[str, list[Row]], reader: _Reader) -> dict[str, list[Row]]:
    """The splits that can be used: where train has labels, the others need labels too.

    A test split without one single label (GLUE's, Kaggle's) is left out and said: nothing can be measured on it. A
    split of -1 only is one of them, if train has no -1.
    """
    labelled = {split: [row for row in part if "label" in row] for split, part in rows.items()}
    if not labelled["train"]:
        if reader.unlabelled.get("train") or reader.hidden["train"]:
            reader.notes.append("No text of train has a label: the texts are used without labels.")
        return {split: [{kind: row[kind] for kind in row if kind != "label"} for row in part]
                for split, part in rows.items()}
    classes = {row["label"] for row in labelled["train"]}
    for split in [split for split in rows if split != "train"]:
        if {row["label"] for row in labelled[split]} <= {"-1"} - classes:
            reader.unlabelled.pop(split, None)
            reader.hidden.pop(split, None)
            reader.notes.append(f"The {split} split has no labels ({len(rows[split]):,} rows): it is left out, and "
                                "texts of train are held out in its place.")
            del labelled[split]
    for complaints in reader.unlabelled.values():
        reader.bad += complaints
    for split, count in reader.hidden.items():
        reader.notes.append(f"{count:,} row(s) of {split} are marked as without a label: left out.")
    return labelled


def _number_labels(rows: dict[str, list[Row]], source: str, reader: _Reader) -> tuple[list[str], dict[str, str | None]]:
    """Replace the labels by numbers 0..C-1; the names, and what the user says about them.

    The numbers are the user's (`classes`), the data set's own, those of numbers in their order, or of words in that of
    the alphabet; the notes say which.
    Raises: ValueError for a single class, for labels that are no classes or may be none, and for classes that train
    lacks.
    """
    if not any("label" in row for row in rows["train"]):
        if reader.classes or reader.no_label:
            raise ValueError(f"{source} has no labels, so --classes and --no-label say nothing. Which column are they "
                             "in (--label NAME)?")
        return [], {}
    counts = {split: Counter(row["label"] for row in part) for split, part in rows.items()}
    meant = spoken(reader.classes, set().union(*counts.values()))
    if not meant:
        _require_two_classes(source, counts["train"])
    if not meant and not reader.known:
        _require_no_doubt(source, counts)
    if meant:
        names, order = list(meant), "as --classes says"
    elif reader.known:
        names, order = reader.known, "as the data set numbers them"
    elif all(map(_is_number, counts["train"])):
        names, order = sorted(counts["train"], key=float), "by number"
    else:
        names, order = sorted(counts["train"]), "in the order of the alphabet"
    for split, found in counts.items():
        if unknown := sorted(found.keys() - (set(meant) or counts["train"].keys())):
            where = "--classes" if meant else "train"
            raise ValueError(f"{source}: the {split} split has the label '{unknown[0]}', which {where} does not have.")
    shown = [f"{i} = {name} ({sum(found[name] for found in counts.values()):,})" for i, name in enumerate(names)]
    more = f", and {len(shown) - NAMED_AT_MOST} more" if len(shown) > NAMED_AT_MOST else ""
    reader.notes.append(f"Classes with their rows, numbered {order}: {', '.join(shown[:NAMED_AT_MOST])}{more}.")
    for part in rows.values():
        for row in part:
            row["label"] = names.index(row["label"])
    return names, meant


def spoken(classes: Sequence[str], found: set[str]) -> dict[str, str | None]:
    """--classes as {name in the data: name at the teacher, or None}. A name of the data may hold a "=" itself."""
    meant: dict[str, str | None] = {}
    for text in classes:
        cuts = [i for i, sign in enumerate(text) if sign == "="]
        cut = next((i for i in cuts if class_name(text[:i]) in found), cuts[0] if cuts else None)
        if class_name(text) in found or cut is None:
            meant[class_name(text)] = None
        else:
            meant[class_name(text[:cut])] = text[cut + 1 :].strip()
    if len(meant) != len(classes):
        raise ValueError(f"--classes {' '.join(classes)}: a class is named twice.")
    if 0 < sum(name is None for name in meant.values()) < len(meant):
        raise ValueError(f"--classes {' '.join(classes)}: give NAME=TEACHERS_NAME for every class, or for none.")
    return meant


def _require_two_classes(source: str, train: Counter) -> None:
    """Raises: ValueError for a single class, or for nearly as many labels as rows."""
    total, names = sum(train.values()), sorted(train)
    if len(names) < 2:
        raise ValueError(f"{source}: all {total} rows have the label '{names[0]}'. A classifier needs two classes or "
                         "more. Is this the right column (--label NAME)?")
    if len(names) > max(20, total // 2):
        raise ValueError(f"{source}: {len(names)} different labels in {total} rows, for example '{names[0]}' and "
                         f"'{names[1]}'. These are no classes. Is this the right column (--label "
                         "NAME)?")


def _require_no_doubt(source: str, counts: dict[str, Counter]) -> None:
    """Raises: ValueError where a label is perhaps no class, or two labels are perhaps one class."""
    every = sum(counts.values(), Counter())
    names = sorted(every)
    if all(map(_is_number, every)) and (broken := [name for name in names if not float(name).is_integer()]):
        raise ValueError(f"{source}: the label '{broken[0]}' is a number with a fraction, so the {len(names)} labels "
                         f"look like scores and not like classes. Is this the right column (--label NAME)? If they are "
                         f"classes all the same, name them: --classes {in_shell(sorted(names, key=float))}.")
    order = sorted(every, key=lambda name: (0, float(name), "") if _is_number(name) else (1, 0.0, name))
    maybe = [name for name in order if name.lower() in MAYBE_MISSING or (name == "-1" and "0" in every)]
    if maybe:
        raise ValueError(f"{source}: is '{maybe[0]}' ({every[maybe[0]]:,} rows) a class, or does it mean that nobody "
                         f"knows the label? If it is a class, name them all: --classes {in_shell(order)}. If not, "
                         f"leave these rows out: --no-label {in_shell(maybe)}.")
    alike = Counter(name.casefold() for name in every)
    if twins := [name for name in order if alike[name.casefold()] > 1]:
        raise ValueError(f"{source}: the labels {' and '.join(map(repr, twins))} differ in capitals only. Write them "
                         f"alike; if they are classes of their own, name them all: --classes {in_shell(order)}.")


def in_shell(words: Sequence[str]) -> str:
    """Words as one types them: in quotation marks where they need them, and none that looks like an option."""
    return shlex.join(f" {word}" if re.match(r"-(?!\d*$)", word) else word for word in words)


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


# --- Splits -----------------------------------------------------------------------------------------------------------


def _in_splits(rows: dict[str, list[Row]], names: list[str], reader: _Reader) -> DatasetDict:
    """Validation and test are cut off from train where they have no file; repeated texts are dropped before that."""
    test, validation = (0.0 if split in rows else 0.15 for split in ("test", "validation"))
    train = _without_copies(rows["train"], reader)
    cut, learned = {split: [] for split in SPLITS}, set()
    for known_by, row in train:
        split = split_at(hash_position(known_by), test=test, validation=validation)
        cut[split].append(row)
        learned |= {known_by} if split == "train" else set()
    splits = {split: rows[split] if split in rows and split != "train" else cut[split] for split in SPLITS}
    empty = [split for split, part in splits.items() if not part]
    if empty:
        raise ValueError(f"Only {len(rows['train'])} texts: nothing is left for {' and '.join(empty)}. Take more "
                         "texts, or a folder with files of your own: train, validation, test.")
    for split, part in rows.items():
        if split != "train" and (shared := sum(signature(row) in learned for row in part)):
            reader.notes.append(f"{shared:,} of {len(part):,} {split} texts stand in train too (whatever their "
                                "capitals and punctuation): the score on them says little.")
    reader.notes.append("texts: " + ", ".join(f"{split} {len(part):,}" for split, part in splits.items())
                        + ("" if len(rows) == 3 else " (split by a hash of the text)") + ".")
    lost = {row["label"] for _, row in train} - {row["label"] for row in splits["train"]} if names else set()
    if lost:
        name = names[min(lost)]
        raise ValueError(f"After the split no training text has the label '{name}': it is too rare "
                         f"({sum(row['label'] == min(lost) for _, row in train)} different texts).")
    return DatasetDict({split: table(part, names) for split, part in splits.items()})


def _without_copies(rows: list[Row], reader: _Reader) -> list[tuple[str, Row]]:
    """The first of equal texts, each with its signature.

    Texts that differ in punctuation and have two labels are two texts: "Really." and "Really?".
    One text with two labels contradicts itself: its first label is kept, and that is said.
    """
    kept, copies, exact, repeated, contradicting = [], set(), set(), 0, []
    for row in rows:
        known_by = signature(row)
        word_for_word = tuple(" ".join(str(row[kind]).split()) for kind in ("text", "text_pair") if kind in row)
        if (known_by, row.get("label")) in copies:
            repeated += 1
        elif word_for_word in exact:
            contradicting.append(row["text"])
        else:
            kept.append((known_by, row))
            copies.add((known_by, row.get("label")))
            exact.add(word_for_word)
    if repeated:
        reader.notes.append(f"{repeated} repeated text(s) of the train file dropped.")
    if contradicting:
        reader.notes.append(f"{len(contradicting)} text(s) have two labels, word for word the same; the first label is "
                            f"kept. One of them: {contradicting[0][:60]!r}.")
    return kept


def signature(row: Row) -> str:
    """What two copies of one text have in common: letters with their marks, digits, and signs such as emoji.

    Capitals, spaces and punctuation do not count, but for smileys made of it, :) and :( .
    """
    return "|".join(_signature(str(row[kind])) for kind in ("text", "text_pair") if kind in row)


def _signature(text: str) -> str:
    plain = unicodedata.normalize("NFC", text.lower())
    words = []
    for word in plain.split():
        parts = [word] if word.isalnum() else "".join(map(_kept, word)).split()
        words += parts or ([word] if len(set(word)) > 1 else [])
    return " ".join(words) or text


@cache
def _kept(sign: str) -> str:
    """The sign, "" for one that nobody sees (a variation selector, a soft hyphen), or a space for punctuation."""
    if sign == "_" or sign in "\u200c\u200d":  # joiners make other letters and other emoji
        return sign
    kind = unicodedata.category(sign)
    if kind == "Cf" or "\ufe00" <= sign <= "\ufe0f":
        return ""
    return " " if kind[0] in "PZC" or (kind[0] == "S" and sign.isascii()) else sign
