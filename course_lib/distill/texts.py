"""Your own texts: files, a folder, or a data set of the hub; and errors that name the row.

    texts = read("reviews.csv")
    print(*texts.notes, sep="\\n")       # what was guessed
    texts.splits["train"][0]            # {"text": "...", "label": 1}

Nothing is trained on a file that is not understood completely: a bad row stops the reading, or (`skip_bad_rows`) is
left out and counted. Which split a text belongs to follows from the text itself, in any script.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict

from course_lib.material.data import hash_position, load_data, split_at, table

LONGEST_LINE = 1_000_000  # characters; a longer one is an unclosed quotation mark, or no text
SPLITS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
TEXT_NAMES = ("text", "sentence", "sentence1", "question1", "premise", "review", "content", "document", "comment",
              "body", "question")
PAIR_NAMES = ("text_pair", "sentence2", "question2", "hypothesis")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "topic", "stars", "rating")

Row = dict[str, object]


@dataclass(frozen=True)
class Texts:
    """Rows with `text`, perhaps `text_pair`, perhaps `label` (a number); the names of the classes; what was guessed."""

    splits: DatasetDict
    class_names: tuple[str, ...]  # () = there are no labels
    notes: tuple[str, ...]


@dataclass
class _Reader:
    text: str | None
    label: str | None
    encoding: str
    skip_bad_rows: bool
    notes: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def read(source: str, *, text: str | None = None, label: str | None = None, encoding: str = "utf-8",
         skip_bad_rows: bool = False) -> Texts:
    """Read a file (CSV, TSV, JSON lines, Parquet, plain text), a folder of files for the splits, or a data set.

    source: a path, a name of the course ("sentiment"), or a hub data set with a slash.
    text, label: names of the columns; without them they are guessed, and the guess is said in `notes`.
    skip_bad_rows: leave out rows without text or label, and broken ones, instead of stopping.
    Raises: ValueError that names the file, the row and the way out.
    """
    path, reader = Path(source), _Reader(text, label, encoding, skip_bad_rows)
    if path.is_file():
        files = {"train": path}
    elif path.is_dir() and not (path / "dataset_dict.json").exists():
        files = _files_of(path)
    else:
        return _from_data_set(source)
    rows = {split: _rows_of(file, reader) for split, file in files.items()}
    if reader.bad and not skip_bad_rows:
        more = f"\n  and {len(reader.bad) - 5} more" if len(reader.bad) > 5 else ""
        raise ValueError("These rows cannot be used:\n  " + "\n  ".join(reader.bad[:5]) + more
                         + "\nMend them, or leave them out with --skip-bad-rows.")
    if reader.bad:
        reader.notes.append(f"{len(reader.bad)} bad row(s) left out, the first: {reader.bad[0]}.")
    names = _number_labels(rows, source)
    return Texts(_in_splits(rows, names, reader), tuple(names), tuple(reader.notes))


# --- Files ------------------------------------------------------------------------------------------------------------


def _files_of(folder: Path) -> dict[str, Path]:
    """The files of a folder that are called after a split."""
    found = {}
    for split, names in SPLITS.items():
        matching = [file for file in sorted(folder.iterdir()) if file.stem in names and file.suffix in READERS]
        if len(matching) > 1:
            raise ValueError(f"{folder} has {len(matching)} files for '{split}': "
                             f"{', '.join(file.name for file in matching)}. Keep one of them.")
        if matching:
            found[split] = matching[0]
    if "train" not in found:
        raise ValueError(f"{folder} has no file train{{{','.join(READERS)}}}.")
    return found


def _rows_of(file: Path, reader: _Reader) -> list[Row]:
    """The rows of one file with the standard names of columns; what is wrong is added to `reader.bad`."""
    if file.suffix not in READERS:
        raise ValueError(f"{file.name}: the course reads {', '.join(READERS)}; the end of the name says which.")
    if file.stat().st_size == 0:
        raise ValueError(f"{file.name} is empty.")
    rows = list(READERS[file.suffix](file, reader))
    if not rows:
        raise ValueError(f"{file.name} has no row that can be used."
                         + (f" The first problem: {reader.bad[0]}." if reader.bad else ""))
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    names = _columns(file, columns, reader)
    return [kept for number, row in rows if (kept := _checked(file, number, row, names, reader)) is not None]


def _lines(file: Path, encoding: str) -> Iterator[str]:
    """The lines of a file; a wrong byte or an endless line is named before it fills the memory."""
    with file.open("rb") as stream:
        number = 0
        while raw := stream.readline(4 * LONGEST_LINE):
            number += 1
            try:
                line = raw.decode("utf-8-sig" if number == 1 and encoding == "utf-8" else encoding)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{file.name}, line {number}: byte {raw[error.start]:#04x} at place {error.start + 1} is no "
                    f"{encoding}. Give the file's real encoding, for example --encoding cp1252 (Windows, Western "
                    "Europe), shift_jis (Japanese), gb18030 (Chinese) or cp949 (Korean).") from error
            if len(line) > LONGEST_LINE:
                raise ValueError(f"{file.name}, line {number} has more than {LONGEST_LINE:,} characters. Is a line "
                                 "break missing, or is this no text file?")
            yield line


def _csv(file: Path, reader: _Reader) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(LONGEST_LINE)
    table = csv.reader(_lines(file, reader.encoding), delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
    try:
        header = next(table, [])
        if len(set(header)) < len(header):
            raise ValueError(f"{file.name}: two columns have one name ({', '.join(header)}).")
        for cells in table:
            if len(cells) == len(header):
                yield table.line_num, dict(zip(header, cells, strict=True))
            elif cells:
                reader.bad.append(f"{file.name}, line {table.line_num}: {len(cells)} cells, but the header has "
                                  f"{len(header)} (is a text with a comma not in quotation marks?)")
    except csv.Error as error:
        raise ValueError(f"{file.name}, line {table.line_num}: {error}. Is a quotation mark opened and never closed?"
                         ) from error


def _json_lines(file: Path, reader: _Reader) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(_lines(file, reader.encoding), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            reader.bad.append(f"{file.name}, line {number}: no JSON ({error.msg})")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            reader.bad.append(f"{file.name}, line {number}: {type(row).__name__} where an object {{...}} was expected")


def _parquet(file: Path, reader: _Reader) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file.name} is no Parquet file, or it is damaged ({error}).") from error
    yield from enumerate(table.to_pylist(), start=1)


def _plain(file: Path, reader: _Reader) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(_lines(file, reader.encoding), start=1):
        if line.strip():
            yield number, {"text": line}


READERS = {".csv": _csv, ".tsv": _csv, ".jsonl": _json_lines, ".json": _json_lines, ".parquet": _parquet,
           ".txt": _plain}


# --- Columns ----------------------------------------------------------------------------------------------------------


def _columns(file: Path, columns: Sequence[str], reader: _Reader) -> dict[str, str]:
    """Which column of the file is `text`, `text_pair` and `label`; guesses are said."""
    names = {}
    for kind, asked, known in (("text", reader.text, TEXT_NAMES), ("text_pair", None, PAIR_NAMES),
                               ("label", reader.label, LABEL_NAMES)):
        if asked is not None and asked not in columns:
            raise ValueError(f"{file.name} has no column '{asked}'; it has {', '.join(map(repr, columns))}.")
        fitting = [c for name in known for c in columns if c.strip().lower() == name and c not in names.values()]
        if asked or fitting:
            names[kind] = asked or fitting[0]
    if "text" not in names:
        raise ValueError(f"{file.name}: which column is the text? It has {', '.join(map(repr, columns))}. Say it with "
                         "--text NAME (and --label NAME).")
    said = ", ".join(f"{kind} = column '{column}'" for kind, column in names.items())
    reader.notes.append(f"{file.name}: {said}" + ("" if "label" in names else "; no column of labels") + ".")
    return names


def _checked(file: Path, number: int, row: Row, names: dict[str, str], reader: _Reader) -> Row | None:
    """The row with standard names, or None and a complaint."""
    kept: Row = {}
    for kind, column in names.items():
        value = row.get(column)
        if isinstance(value, str):
            value = value.strip()
        if kind == "label":
            missing = value is None or value == "" or str(value).lower() in ("nan", "none", "null")
            fault = f"no label in column '{column}' ({value!r})" if missing else ""
            # 1.0 is what pandas makes of 1 in a column where another label is missing.
            value = int(value) if isinstance(value, float) and not missing and value.is_integer() else value
        elif not isinstance(value, str) or not value:
            fault = f"no text in column '{column}' ({value!r})"
        else:
            fault = ""
        if fault:
            where = "row" if file.suffix == ".parquet" else "line"
            reader.bad.append(f"{file.name}, {where} {number}: {fault}")
            return None
        kept[kind] = value
    return kept


def _number_labels(rows: dict[str, list[Row]], source: str) -> list[str]:
    """Replace the labels by numbers 0..C-1 and return the names; numbers keep their order, words are sorted.

    Raises: ValueError for a single class, for labels that are not classes, and for classes that train lacks.
    """
    if not all("label" in row for part in rows.values() for row in part):
        return []
    found = {split: {str(row["label"]) for row in part} for split, part in rows.items()}
    names = sorted(found["train"], key=lambda name: (0, float(name), "") if _is_number(name) else (1, 0.0, name))
    if len(names) < 2:
        raise ValueError(f"{source}: all {len(rows['train'])} rows have the label '{names[0]}'. A classifier needs two "
                         "classes or more. Is this the right column (--label NAME)?")
    if len(names) > max(20, len(rows["train"]) // 2):
        raise ValueError(f"{source}: {len(names)} different labels in {len(rows['train'])} rows, for example "
                         f"'{names[0]}' and '{names[1]}'. These are no classes. Is this the right column (--label "
                         "NAME)?")
    for split, labels in found.items():
        if unknown := sorted(labels - set(names)):
            raise ValueError(f"{source}: the {split} split has the label '{unknown[0]}', which train does not have.")
    for part in rows.values():
        for row in part:
            row["label"] = names.index(str(row["label"]))
    return names


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


# --- Splits -----------------------------------------------------------------------------------------------------------


def _in_splits(rows: dict[str, list[Row]], names: list[str], reader: _Reader) -> DatasetDict:
    """Validation and test are cut off from train where they have no file; repeated texts are dropped before that."""
    test, validation = (0.0 if split in rows else 0.15 for split in ("test", "validation"))
    cut = {split: [] for split in SPLITS}
    for text, row in {_signature(row): row for row in reversed(rows["train"])}.items():  # the first of equal texts
        cut[split_at(hash_position(text), test=test, validation=validation)].append(row)
    splits = {split: rows[split] if split in rows and split != "train" else cut[split][::-1] for split in SPLITS}
    repeated = len(rows["train"]) - sum(len(part) for part in cut.values())
    if repeated:
        reader.notes.append(f"{repeated} repeated text(s) of the train file dropped.")
    empty = [split for split, part in splits.items() if not part]
    if empty:
        raise ValueError(f"Only {len(rows['train'])} texts: nothing is left for {' and '.join(empty)}. Take more "
                         "texts, or a folder with files of your own: train, validation, test.")
    reader.notes.append("texts: " + ", ".join(f"{split} {len(part):,}" for split, part in splits.items())
                        + ("" if len(rows) == 3 else " (split by a hash of the text)") + ".")
    missing = set(range(len(names))) - {row["label"] for row in splits["train"]} if names else set()
    if missing:
        raise ValueError(f"After the split no training text has the label '{names[min(missing)]}': it is too rare.")
    return DatasetDict({split: table(part, names) for split, part in splits.items()})


def _signature(row: Row) -> str:
    """What two copies of one text have in common: its letters and digits, of any script."""
    texts = [str(row[name]) for name in ("text", "text_pair") if name in row]
    return "|".join(" ".join(re.findall(r"\w+", text.lower())) or text for text in texts)


def _from_data_set(source: str) -> Texts:
    """A data set of the course, of the hub, or a folder of `save_to_disk`."""
    try:
        splits = load_data(source)
    except (FileNotFoundError, ConnectionError) as error:
        raise ValueError(f"{source} is no file, no folder, and no data set that can be reached "
                         f"({type(error).__name__}: {str(error).splitlines()[0]}).") from error
    if "text" not in splits["train"].column_names:
        raise ValueError(f"{source}: which column is the text? It has {', '.join(splits['train'].column_names)}. "
                         "Save it as a file and say it with --text NAME.")
    if "validation" not in splits or "test" not in splits:
        keys = ["text", *[c for c in ("text_pair", "label") if c in splits["train"].column_names]]
        features, kept = splits["train"].features, {}
        for split in set(splits) & set(SPLITS):
            kept[split] = splits[split].select_columns(keys).to_list()
        reader = _Reader(None, None, "utf-8", False)
        names = list(getattr(features.get("label"), "names", None) or []) or _number_labels(kept, source)
        return Texts(_in_splits(kept, names, reader), tuple(names), tuple(reader.notes))
    feature = splits["train"].features.get("label")
    names = tuple(feature.names) if isinstance(feature, ClassLabel) else ()
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in splits.items())
    return Texts(splits, names, (f"{source}: {sizes}.",))
