"""Points given by hand: class/overrides.csv, as an editor or a spreadsheet writes it.

    student,chapter,question,points,reason
    Zoë,ch01,q3,2,the idea is right

Excel writes semicolons in half of Europe, the code page of Windows, decimal commas, and a mark of three bytes in front.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classroom.grading import Result
from classroom.untrusted import clean, shown

COLUMNS = ("student", "chapter", "question", "points")
MOST_BYTES = 10_000_000


@dataclass(frozen=True)
class Override:
    """One line that can be used. points: None takes an override back."""

    key: str
    question: str  # ch01.q3
    points: float | None
    reason: str


def read(file: Path, results: Sequence[Result]) -> tuple[list[Override], list[str]]:
    """The lines that can be used, and a sentence for each that cannot."""
    if not file.exists():
        return [], []
    rows, problem = _rows(file)
    if problem:
        return [], [f"{file.name} was not used: {problem}"]
    found, said = [], []
    for number, row in rows:
        try:
            found.append(_override(row, results))
        except ValueError as error:
            said.append(f"{file.name}, line {number} was not used: {error}")
    return found, said


def _rows(file: Path) -> tuple[list[tuple[int, dict[str, str]]], str]:
    if not file.is_file() or file.stat().st_size > MOST_BYTES:
        return [], "it is no table of an ordinary size."
    content = file.read_bytes()
    text = _decoded(content)
    first = text.lstrip().partition("\n")[0]
    if first.lower().startswith("sep="):  # Excel's own first line
        text = text.partition("\n")[2]
        first = text.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text.replace("\0", ""), newline=""), delimiter=mark))
    except csv.Error as error:
        return [], f"it is no table ({error})."
    head = [cell.strip().lower() for cell in lines[0]] if lines else []
    if missing := [name for name in COLUMNS if name not in head]:
        return [], f"its first line must name the columns {', '.join(COLUMNS)}, reason; {missing[0]} is missing."
    rows = [(number, dict(zip(head, (cell.strip() for cell in cells), strict=False)))
            for number, cells in enumerate(lines[1:], start=2) if any(cell.strip() for cell in cells)]
    return rows, ""


def _decoded(content: bytes) -> str:
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def _override(row: dict[str, str], results: Sequence[Result]) -> Override:
    name = row.get("chapter", "")
    asked = f"{name}.{row.get('question', '').removeprefix(f'{name}.')}"
    key = _key(row.get("student", ""), results)
    mine = [result for result in results if result.key == key and result.chapter == name]
    if not mine:
        raise ValueError(f"{shown(row.get('student', ''))} has handed in nothing for the chapter {clean(name)[:40]!r}.")
    if asked not in mine[0].questions:
        raise ValueError(f"there is no exercise {clean(asked)[:40]!r}; {name} has {', '.join(mine[0].questions)}.")
    most = mine[0].questions[asked]["out_of"]
    return Override(key, asked, _points(row.get("points", ""), asked, most), clean(row.get("reason", ""))[:1000])


def _points(text: str, asked: str, most: float) -> float | None:
    if not text:
        return None
    number = text.replace(",", ".") if re.fullmatch(r"[+-]?\d+,\d+", text) else text
    try:
        points = float(number)
    except ValueError:
        raise ValueError(f"the points {clean(text)[:40]!r} are no number.") from None
    if not math.isfinite(points) or not 0 <= points <= most:
        raise ValueError(f"{clean(text)[:40]} points are not possible; {asked} gives 0 to {most:g}.")
    return points


def _key(student: str, results: Sequence[Result]) -> str:
    """The student of a line, by the name in the tables or by the name of the feedback folder."""
    wanted = shown(student).removeprefix("'") if student else ""
    exact = {result.key for result in results if result.key == student}
    keys = exact or {result.key for result in results if wanted and result.student == wanted}
    if not keys:
        raise ValueError(f"no student is called {wanted!r}.")
    if len(keys) > 1:
        raise ValueError(f"{len(keys)} students are called {wanted!r}; write the name of the folder in feedback/: "
                         f"{', '.join(sorted(keys))}.")
    return keys.pop()

