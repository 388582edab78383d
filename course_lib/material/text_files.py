"""Files of texts that somebody else wrote, as rows: which encoding, separator and quotation marks, header or not.

    table = read_file(Path("reviews.csv"))
    table.columns   # ["text", "label"]
    table.rows[0]   # ("line 2", {"text": "...", "label": "..."})
    table.shape     # "separated by ';', utf-16"

What a file looks like is found out from the whole file, never from its name alone, and said in `shape`. A file that
can be read in two ways is refused, and the error names the option that decides (`How`).
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import ClassLabel, Features

LONGEST_LINE = 1_000_000  # characters; a longer one is an unclosed quotation mark, or no text
TEXT_NAMES = ("text", "sentence", "sentence1", "question1", "premise", "review", "content", "document", "comment",
              "body", "question", "tweet", "message", "utterance", "headline")
PAIR_NAMES = ("text_pair", "sentence2", "question2", "hypothesis")
PAIRS = (("question", "sentence"), ("question", "context"), ("question", "passage"), ("query", "passage"))  # QNLI, ...
LABEL_NAMES = ("label", "labels", "gold_label", "class", "category", "target", "sentiment", "topic", "stars", "rating",
               "stance", "intent", "emotion", "polarity")
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
# UTF-32 stands before UTF-16: its mark begins with the same two bytes.
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
NO_TEXT = {b"PK\x03\x04": "a zip archive, or a table of Excel (.xlsx)", b"\x1f\x8b": "packed with gzip",
           b"PAR1": "a Parquet file", b"\xd0\xcf\x11\xe0": "a table of an old Excel (.xls)"}
SAMPLE = 1000  # lines from which the separator is found out

Row = dict[str, object]


@dataclass(frozen=True)
class How:
    """What the user says about a file; None: the file shows it."""

    encoding: str = "utf-8"
    separator: str | None = None  # a word of SEPARATORS, or one sign
    quotes: str | None = None  # "cells": they hold a cell together; "letters": they are part of the text
    header: bool = True  # False: the first line is data


@dataclass(frozen=True)
class Table:
    """Rows with where they stand ("line 7"); what could not be read; how the file was read, in words."""

    columns: list[str]
    rows: list[tuple[str, Row]]
    bad: list[str] = field(default_factory=list)
    shape: str = ""
    header: bool = True
    class_names: dict[str, list[str]] = field(default_factory=dict)  # columns that are numbers of named classes


def read_file(file: Path, how: How | None = None, asked: Sequence[str] = ()) -> Table:
    """Read one file. asked: names of columns that the user has said; a first line with them is a header.

    Raises: ValueError that names the file, the line and the way out.
    """
    kind = file.suffix.lower()
    if kind not in READERS:
        raise ValueError(f"{file.name}: the course reads {', '.join(READERS)}; the end of the name says which. Save a "
                         "table of Excel as \"CSV UTF-8\", and unpack what is packed.")
    if file.stat().st_size == 0:
        raise ValueError(f"{file.name} is empty.")
    table = READERS[kind](file, how or How(), asked)
    if not table.rows:
        raise ValueError(f"{file.name} has no row that can be used."
                         + (f" The first problem: {table.bad[0]}." if table.bad else ""))
    return table


# --- Bytes to lines ---------------------------------------------------------------------------------------------------


def encoding_of(file: Path, asked: str) -> str:
    """The encoding that the first bytes show, or the one that was asked for. Raises: ValueError for what is no text."""
    with file.open("rb") as stream:
        start = stream.read(4096)
    for sign, kind in NO_TEXT.items():
        if start.startswith(sign):
            raise ValueError(f"{file.name} is {kind}, whatever its name says. Unpack it, save it as \"CSV UTF-8\", or "
                             "give it the right name.")
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return encoding
    try:
        name = codecs.lookup(asked).name
    except LookupError as error:
        raise ValueError(f"There is no encoding '{asked}'. Common ones: utf-8, utf-16, cp1252, shift_jis, gb18030."
                         ) from error
    if b"\0" in start and not name.startswith(("utf-16", "utf-32")):
        little = start[1::2].count(0) >= start[::2].count(0)  # the upper byte of a Latin letter is 0
        raise ValueError(f"{file.name} has bytes of zero, which no text in {asked} has. If it comes from Windows, say "
                         f"--encoding utf-16-{'le' if little else 'be'}.")
    return asked


def lines_of(file: Path, encoding: str) -> list[str]:
    """The lines with their ends, of any kind; a wrong byte or an endless line is named."""
    found: list[str] = []
    try:
        with file.open(encoding=encoding, newline="") as stream:
            while line := stream.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    raise ValueError(f"{file.name}, line {len(found) + 1} has more than {LONGEST_LINE:,} characters. "
                                     "Is a line break missing, or is this no text file?")
                found.append(line)
    except UnicodeError as error:
        raise ValueError(_wrong_byte(file, encoding)) from error
    return found


def _wrong_byte(file: Path, encoding: str) -> str:
    name = encoding.removesuffix("-sig")
    way_out = ("Give the file's real encoding, for example --encoding cp1252 (Windows, Western Europe), shift_jis "
               "(Japanese), gb18030 (Chinese) or cp949 (Korean).")
    if not name.lower().startswith(("utf-16", "utf_16", "utf16", "utf-32", "utf_32", "utf32")):  # a byte is a sign
        for number, line in enumerate(re.split(rb"\r\n|\n|\r", file.read_bytes()), start=1):
            try:
                line.decode(name)
            except UnicodeDecodeError as error:
                return (f"{file.name}, line {number}: byte {line[error.start]:#04x} at place {error.start + 1} is no "
                        f"{name}. {way_out}")
    return f"{file.name} is no {name}. {way_out}"


# --- Cells ------------------------------------------------------------------------------------------------------------

Records = list[tuple[int, list[str]]]  # (number of the last line, cells)
QUOTES = {"cells": {"strict": True}, "letters": {"quoting": csv.QUOTE_NONE},
          "backslashes": {"strict": True, "doublequote": False, "escapechar": "\\"}}


def _separated(file: Path, how: How, asked: Sequence[str]) -> Table:
    encoding = encoding_of(file, how.encoding)
    lines = lines_of(file, encoding)
    separator = SEPARATORS.get(how.separator or "", how.separator)
    if excel := re.fullmatch(r"sep=(.)\s*", lines[0]):  # Excel's own way to say it
        separator, lines[0] = separator or excel[1], "\n"
    if separator is not None and len(separator) != 1:
        raise ValueError(f"--separator {how.separator}: give one sign, or one of {', '.join(SEPARATORS)}.")
    separator = separator or _separator(file, lines, asked)
    quotes = how.quotes or _quotes(lines, separator)
    try:
        records = _records(lines, separator, quotes)
    except csv.Error as error:
        raise ValueError(_broken(file, lines, separator, str(error))) from error
    return _with_columns(file, records, how, asked, separator, _shape(separator, quotes, encoding))


def _word(separator: str) -> str:
    return next((word for word, sign in SEPARATORS.items() if sign == separator), repr(separator))


def _shape(separator: str, quotes: str, encoding: str) -> str:
    marks = {"cells": "", "letters": ", quotation marks are letters", "backslashes": ", \\ before a quotation mark"}
    return f"separated by {_word(separator)}, {encoding.removesuffix('-sig')}{marks[quotes]}"


def _records(lines: Sequence[str], separator: str, quotes: str) -> Records:
    """The rows that are not empty. Raises: csv.Error."""
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(lines, delimiter=separator, **QUOTES[quotes])
    return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]


def _broken(file: Path, lines: Sequence[str], separator: str, fault: str) -> str:
    """Where the reading of cells stopped, and the way out."""
    reader = csv.reader(lines, delimiter=separator, **QUOTES["cells"])
    last = 0
    try:
        for _ in reader:
            last = reader.line_num
    except csv.Error:
        pass
    return (f"{file.name}, the row that begins in line {last + 1}: {fault}. Is a quotation mark opened and never "
            "closed? Double each quotation mark in a text (\"\"), or, if quotation marks are letters in this file, say "
            "--quotes letters.")


def _width(records: Records) -> int:
    return len(records[0][1]) if records else 0


def _fits(cells: Sequence[str], width: int) -> bool:
    """As many cells as the first row has; empty ones at the end do not count."""
    return len(cells) == width or (len(cells) > width and not any(cell.strip() for cell in cells[width:]))


def _all_fit(records: Records | None) -> bool:
    return records is not None and all(_fits(cells, _width(records)) for _, cells in records)


def _tried(lines: Sequence[str], separator: str, quotes: str) -> Records | None:
    try:
        return _records(lines, separator, quotes)
    except csv.Error:
        return None


def _separator(file: Path, lines: Sequence[str], asked: Sequence[str]) -> str:
    """The sign that cuts the first line and fits most rows; a first line with names that are known decides before.

    Raises: ValueError if two signs fit as well.
    """
    usual = "," if file.suffix.lower() == ".csv" else "\t"
    sample, found = lines[:SAMPLE], {}
    for sign in SEPARATORS.values():
        for quotes in ("cells", "letters"):
            records = _tried(sample, sign, quotes) or []
            if _width(records) > 1:
                share = sum(_fits(cells, _width(records)) for _, cells in records) / len(records)
                known = _is_known(records[0][1], asked)
                found[sign] = max(found.get(sign, (False, 0.0)), (known, share))
    if not found:
        return usual
    best = [sign for sign, fit in found.items() if fit == max(found.values())]
    if len(best) == 1 or (usual in best and found[usual][0]):
        return best[0] if len(best) == 1 else usual
    words = [word for word, sign in SEPARATORS.items() if sign in best]
    raise ValueError(f"{file.name}: {' and '.join(words)} cut every row into as many cells as the first. Say which one "
                     f"separates them: --separator {words[-1]}.")


def _is_known(cells: Sequence[str], asked: Sequence[str]) -> bool:
    """Whether a line has a name of a column that was asked for, or that everybody uses for texts or labels."""
    names = [cell.strip() for cell in cells]
    return bool({*asked} & {*names} or {*TEXT_NAMES, *PAIR_NAMES, *LABEL_NAMES} & {name.lower() for name in names})


def _quotes(lines: Sequence[str], separator: str) -> str:
    """What a quotation mark is in this file, as a key of QUOTES.

    It is a letter in files with tabs (GLUE's) where every line has as many cells as the first, and a cell has a
    quotation mark that a table would have doubled or put around the whole cell. A CSV is never read so unless told.
    """
    if not any('"' in line for line in lines):
        return "cells"
    cells, letters = _tried(lines, separator, "cells"), _tried(lines, separator, "letters")
    if separator == "\t" and _all_fit(letters):
        loose = any('"' in cell and not _is_quoted(cell) for _, row in letters for cell in row)
        if loose and not all(map(_is_quoted, letters[0][1])):
            return "letters"
    if not _all_fit(cells) and any('\\"' in line for line in lines) and _all_fit(
            _tried(lines, separator, "backslashes")):
        return "backslashes"
    return "cells"


def _is_quoted(cell: str) -> bool:
    """Whether a cell, taken with its quotation marks, is what a program writes that quotes cells."""
    return re.fullmatch(r'"(?:[^"]|"")*"', cell.strip()) is not None


# --- Header -----------------------------------------------------------------------------------------------------------


def _with_columns(file: Path, records: Records, how: How, asked: Sequence[str], separator: str, shape: str) -> Table:
    """Records as rows with names. Rows that repeat the header are dropped; rows of another width are bad."""
    if not records:
        return Table([], [])
    first, data = records[0][1], records[1:]
    header = how.header and _has_header(first, [cells for _, cells in data], asked)
    if header:
        columns = [cell.strip() for cell in first]
        repeated = sum(cells == first for _, cells in data)
        data = [(number, cells) for number, cells in data if cells != first]
        shape += f", {repeated} repeated header(s) dropped" if repeated else ""
    else:
        columns, data = [f"column {i}" for i in range(1, len(first) + 1)], records
        shape += ", no header"
    _require_one_name(file, columns, asked)
    rows, bad = [], []
    for number, cells in data:
        if _fits(cells, len(columns)):
            rows.append((f"line {number}", dict(zip(columns, cells, strict=False))))
        else:
            bad.append(f"{file.name}, line {number}: {len(cells)} cells, but the first line has {len(columns)} (is a "
                       f"text with a {_word(separator)} not in quotation marks?)")
    return Table(columns, rows, bad, shape, header)


def _has_header(first: Sequence[str], rows: Sequence[Sequence[str]], asked: Sequence[str]) -> bool:
    """Whether the first line names columns: it does not where one of its cells is a class of the rows, or a number."""
    names = [cell.strip() for cell in first]
    if {*asked} & {*names}:
        return True
    if names in ([str(i) for i in range(len(names))], ["", *(str(i) for i in range(len(names) - 1))]):  # of pandas
        return True
    others = [cells for cells in rows if list(cells) != list(first)]
    for column, name in enumerate(names):
        values = Counter(cells[column].strip() for cells in others if column < len(cells))
        if name and name in values and len(values) <= max(20, len(others) // 2):
            return False
    return _is_known(names, ()) or not any(re.fullmatch(r"[+-]?\d+(\.\d+)?", name) for name in names)


def _require_one_name(file: Path, columns: Sequence[str], asked: Sequence[str]) -> None:
    """Raises: ValueError if two columns have one name, and it is one that may be read."""
    for name, count in Counter(columns).items():
        if count > 1 and _is_known([name], asked):
            raise ValueError(f"{file.name}: two columns have one name ({', '.join(columns)}). Give '{name}' two names "
                             "in the first line.")


# --- JSON, Parquet, plain text ----------------------------------------------------------------------------------------


def _json(file: Path, how: How, asked: Sequence[str]) -> Table:
    encoding = encoding_of(file, how.encoding)
    if _first_sign(file, encoding) == "[":
        return _of_objects(file, _whole_json(file, encoding), f"a JSON array, {encoding.removesuffix('-sig')}")
    rows, bad, lines = [], [], lines_of(file, encoding)
    if sum(line.startswith("{") for line in lines) == 1:  # one object, on one line or on many
        return _of_one_object(file, _whole_json(file, encoding))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            bad.append(f"{file.name}, line {number}: no JSON ({error.msg})")
            continue
        if isinstance(row, dict):
            rows.append((f"line {number}", row))
        else:
            bad.append(f"{file.name}, line {number}: {type(row).__name__} where an object {{...}} was expected")
    return Table(_keys(rows), rows, bad, f"JSON lines, {encoding.removesuffix('-sig')}")


def _keys(rows: Sequence[tuple[str, Row]]) -> list[str]:
    return list(dict.fromkeys(name for _, row in rows for name in row))


def _first_sign(file: Path, encoding: str) -> str:
    try:
        with file.open(encoding=encoding) as stream:
            while (sign := stream.read(1)) and sign.isspace():
                pass
            return sign
    except UnicodeError as error:
        raise ValueError(_wrong_byte(file, encoding)) from error


def _whole_json(file: Path, encoding: str) -> object:
    try:
        return json.loads(file.read_text(encoding))
    except UnicodeError as error:
        raise ValueError(_wrong_byte(file, encoding)) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{file.name}, line {error.lineno}: no JSON ({error.msg}). The course reads one object per "
                         'line, {"text": "...", "label": "..."}, or an array of such objects, [{...}, {...}].'
                         ) from error


def _of_objects(file: Path, content: Sequence[object], shape: str) -> Table:
    rows, bad = [], []
    for number, row in enumerate(content, start=1):
        if isinstance(row, dict):
            rows.append((f"row {number}", row))
        else:
            bad.append(f"{file.name}, row {number}: {type(row).__name__} where an object {{...}} was expected")
    return Table(_keys(rows), rows, bad, shape)


def _of_one_object(file: Path, content: object) -> Table:
    """One object: a single row, columns with their values (as pandas writes them), or rows below a single name."""
    if not isinstance(content, dict) or not any(isinstance(value, list | dict) for value in content.values()):
        return _of_objects(file, [content], "JSON, one object")
    values = list(content.values())
    if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        content = {name: list(column.values()) for name, column in content.items()}
    below = [name for name, value in content.items()
             if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)]
    if len(below) == 1:
        return _of_objects(file, content[below[0]], f"JSON, the rows below '{below[0]}'")
    columns = list(content.values())
    if not below and all(isinstance(c, list) for c in columns) and len({len(c) for c in columns}) == 1:
        rows = [dict(zip(content, cells, strict=True)) for cells in zip(*columns, strict=True)]
        return _of_objects(file, rows, "JSON, one list for each column")
    raise ValueError(f"{file.name} holds one JSON object ({', '.join(map(repr, content))}) that is no table. The "
                     'course reads one object per line, {"text": "...", "label": "..."}, or an array of such objects; '
                     "a file for each split.")


def _parquet(file: Path, how: How, asked: Sequence[str]) -> Table:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file.name} is no Parquet file, or it is damaged ({error}).") from error
    rows = [(f"row {number}", row) for number, row in enumerate(table.to_pylist(), start=1)]
    return Table(table.column_names, rows, shape="Parquet", class_names=class_names(_features(table.schema)))


def _features(schema) -> Features:
    """What `datasets` has written beside the columns; a file of somebody else has nothing there, or another type."""
    try:
        return Features.from_arrow_schema(schema)
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return Features()


def class_names(features: Features) -> dict[str, list[str]]:
    """The names of the classes, for each column that is a number of a named class."""
    return {name: list(kind.names) for name, kind in features.items() if isinstance(kind, ClassLabel)}


def _plain(file: Path, how: How, asked: Sequence[str]) -> Table:
    encoding = encoding_of(file, how.encoding)
    lines = [(number, line) for number, line in enumerate(lines_of(file, encoding), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"{file.name} has no line with text.")
    tabs = {line.strip("\r\n").count("\t") for _, line in lines}
    if len(tabs) == 1 and tabs != {0}:
        raise ValueError(f"{file.name} has {tabs.pop() + 1} cells in every line, with a tab between them: it is a "
                         "table, and in a .txt every line is one text. Give it a name that ends in .tsv.")
    names = re.split("[,;\t]", lines[0][1].strip())
    if len(names) > 1 and all(_is_known([name], ()) for name in names):
        raise ValueError(f"{file.name} begins with the names of columns ({lines[0][1].strip()}), but in a .txt every "
                         "line is one text. Give it a name that ends in .csv.")
    return Table(["text"], [(f"line {number}", {"text": line}) for number, line in lines], [],
                 f"one text per line, {encoding.removesuffix('-sig')}")


READERS: dict[str, Callable[[Path, How, Sequence[str]], Table]] = {
    ".csv": _separated, ".tsv": _separated, ".tab": _separated, ".jsonl": _json, ".ndjson": _json, ".json": _json,
    ".parquet": _parquet, ".txt": _plain}


# --- Columns ----------------------------------------------------------------------------------------------------------


def columns_of(name: str, table: Table, text: str | None = None, label: str | None = None) -> dict[str, str]:
    """Which column is `text`, `text_pair` and `label`: as asked, or by the names that everybody uses.

    name: of the file, for messages. Raises: ValueError for a column that is not there, or where none can be guessed.
    """
    shown = ", ".join(map(repr, table.columns))
    names: dict[str, str] = {}
    lower = {column.strip().lower() for column in table.columns}
    first, second = next((pair for pair in PAIRS if lower.issuperset(pair) and text is None), ("", ""))
    for kind, asked, known in (("text", text, (first, *TEXT_NAMES)), ("text_pair", None, (second, *PAIR_NAMES)),
                               ("label", label, LABEL_NAMES)):
        if asked is not None and asked not in table.columns:
            raise ValueError(f"{name} has no column '{asked}'; it has {shown}."
                             + (" If its first line is a row and no header, say --no-header." if table.header else ""))
        fitting = [c for known_name in known for c in table.columns
                   if known_name and c.strip().lower() == known_name and c not in {*names.values(), text, label}]
        if asked or fitting:
            names[kind] = asked or fitting[0]
    if "text" not in names and not table.header and text is None and label is None:
        names = _without_header(table)
    if "text" not in names:
        first = "; ".join(f"{c}: {str(table.rows[0][1].get(c))[:40]!r}" for c in table.columns)
        example = table.columns[-1]
        raise ValueError(f"{name}: which column is the text? It has {shown}. The first row: {first}. Say it with "
                         f"--text NAME (and --label NAME), for example --text '{example}'."
                         + (" If the first line is a row and no header, say --no-header." if table.header else ""))
    return names


def said(name: str, table: Table, names: dict[str, str]) -> str:
    """How many rows were read, how, and which column is what: the line that every command prints of a file."""
    what = ", ".join(f"{kind} = column '{column}'" for kind, column in names.items())
    return (f"{name}: {len(table.rows):,} rows{f' ({table.shape})' if table.shape else ''}; {what}"
            + ("" if "label" in names else "; no column of labels") + ".")


def _without_header(table: Table) -> dict[str, str]:
    """A table without names: with one column it is the text; with two, the one with few values is the label."""
    if len(table.columns) == 1:
        return {"text": table.columns[0]}
    values = {column: len({row.get(column) for _, row in table.rows}) for column in table.columns}
    label, text = sorted(values, key=values.get) if len(values) == 2 else ("", "")
    return {"text": text, "label": label} if label and values[label] * 2 <= values[text] else {}
