"""Measured results as tables that fit every page: wide in a book, cards on a phone, text where there is no HTML.

`Verdicts` is what `summary(...)` of the records gives: one row per arm with its mean, its gain over the baseline, the
interval as a small bar, and the verdict in words and colour. `Claims` puts what a paper says beside what was measured.
`fold(anything, title)` shows a title that opens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import overload

from course_lib.notebook.tables import Cell, page, plain, table_html, table_text
from course_lib.shared.seeds import Difference, Interval, deserved_digits
from course_lib.shared.statistics import Gain

MOST_DIGITS = 4
MINUS = str.maketrans("-", "−")  # a hyphen may break at the end of a line


def number(value: float, digits: int, sign: str = "") -> str:
    """A number with a fixed count of digits and a minus as long as the plus; what is rounded to zero has no sign."""
    if round(value, digits) == 0:
        return f"{0:.{digits}f}"
    return f"{value:{sign}.{digits}f}".translate(MINUS)


def ends_of(difference: Difference | Gain) -> Interval | Gain:
    """Where a difference keeps its mean and the ends of its interval."""
    return difference.interval if isinstance(difference, Difference) else difference


def spread(interval: Interval | Gain, sign: str = "") -> tuple[str, str]:
    """The mean and the ends of its interval, with the digits that the interval deserves; no ends if all runs agree.

    More digits where an end of a difference would be rounded onto zero: its verdict hangs on the side of zero.
    """
    ends = (interval.low, interval.high)
    digits = deserved_digits(*ends)
    while sign and digits < MOST_DIGITS and any(end and round(end, digits) == 0 for end in ends):
        digits += 1
    low, high = (number(end, digits, sign) for end in ends)
    return number(interval.mean, digits, sign), f"[{low}, {high}]" if interval.high > interval.low else ""


def measured(interval: Interval | Gain, sign: str = "") -> Cell:
    """A mean with its interval."""
    mean, ends = spread(interval, sign)
    return Cell(f"{mean} <span class=\"cv-range\">{ends}</span>" if ends else mean, f"{mean} {ends}".strip())


MARKS = {"better": "▲", "worse": "▼", "no difference shown": "○"}


def verdict(difference: Difference | Gain) -> Cell:
    """The verdict in words; colour and mark say it again."""
    word = difference.verdict
    return Cell(f'<span class="cv-verdict{role(difference)}">{MARKS[word]} {word}</span>', word)


def role(difference: Difference | Gain) -> str:
    """The class, in the style sheet, of a verdict that has a colour."""
    return f" cv-{difference.verdict}" if difference.verdict in ("better", "worse") else ""


def bar(difference: Difference | Gain, low: float, high: float) -> Cell:
    """The interval as a bar on a scale from `low` to `high`, with a dashed line at zero.

    A screen reader passes it by: its numbers stand beside it.
    """
    interval = ends_of(difference)

    def at(value: float) -> str:
        return f"{4 + 112 * (value - low) / ((high - low) or 1):.1f}"

    lines = [("zero", 0.0, 0.0, 2, 18), ("whole", interval.low, interval.high, 10, 10),
             ("mean", interval.mean, interval.mean, 5, 15)]
    drawn = "".join(f'<line class="cv-{kind}" x1="{at(a)}" x2="{at(b)}" y1="{top}" y2="{bottom}"/>'
                    for kind, a, b, top, bottom in lines)
    return Cell(f'<svg class="cv-bar{role(difference)}" viewBox="0 0 120 20" preserveAspectRatio="none" '
                f'aria-hidden="true">{drawn}</svg>', "")


def scale(differences: Sequence[Difference | Gain]) -> tuple[float, float]:
    """One scale for all bars of a table: it holds every interval, and zero."""
    ends = [0.0, *(end for one in map(ends_of, differences) for end in (one.low, one.high))]
    return min(ends), max(ends)


@dataclass(frozen=True)
class Line:
    """One arm of an experiment: the mean over seeds with its interval, and the difference to the baseline."""

    arm: str
    measured: Interval
    gain: Difference | Gain | None  # None for the baseline itself

    def cells(self, low: float, high: float) -> list[Cell]:
        """Name, mean, gain, bar, verdict."""
        rest = [Cell("", ""), Cell("", ""), plain("the baseline")]
        if self.gain:
            rest = [measured(ends_of(self.gain), "+"), bar(self.gain, low, high), verdict(self.gain)]
        return [plain(self.arm), measured(self.measured), *rest]

    def __str__(self) -> str:
        return "  ".join(str(cell) for cell in self.cells(0, 1) if str(cell))


@dataclass(frozen=True)
class Verdicts(Sequence[Line]):
    """The arms of an experiment, one line each. It shows itself as a table, and is a sequence of its lines."""

    lines: tuple[Line, ...]
    number: str  # what was measured
    baseline: str

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Line, ...]: ...
    def __getitem__(self, index):
        return self.lines[index]

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def _rows(self) -> list[list[Cell]]:
        ends = scale([line.gain for line in self.lines if line.gain])
        return [line.cells(*ends) for line in self.lines]

    def __repr__(self) -> str:
        return table_text([("arm", self.number, f"gain over {self.baseline}", "", "verdict"), *self._rows()])

    def _repr_html_(self) -> str:
        seeds = max(line.measured.n for line in self.lines)
        caption = (f"{self.number}: the mean over {seeds} seeds and its 95 % interval. "
                   f"Gain: the difference to “{self.baseline}”, seed by seed.")
        return page(table_html(caption, ["arm", self.number, "gain", "", "verdict"], self._rows()))


@dataclass(frozen=True)
class Claims:
    """What a paper says beside what we measured: rows of (claim, the paper's number, ours).

    Ours is a `Difference` or a `Gain` (its verdict becomes a column), an `Interval`, or text. you: what the learner's
    own run gave, one text per row; without it there is no such column.
    """

    rows: Sequence[tuple[str, str, Difference | Gain | Interval | str]]
    caption: str = "What the paper says, and what we measured"
    you: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.you and len(self.you) != len(self.rows):
            raise ValueError(f"{len(self.you)} results of yours for {len(self.rows)} claims; "
                             "give one for each, or none.")

    def _head(self) -> list[str]:
        return ["claim", "paper", "we", "", "verdict", *(["you, one start"] if self.you else [])]

    def _rows(self) -> list[list[Cell]]:
        differences = [we for _, _, we in self.rows if isinstance(we, Difference | Gain)]
        made = []
        for row, (claim, paper, we) in enumerate(self.rows):
            if isinstance(we, Difference | Gain):
                rest = [measured(ends_of(we), "+"), bar(we, *scale(differences)), verdict(we)]
            else:
                rest = [measured(we) if isinstance(we, Interval) else plain(we), Cell("", ""), Cell("", "")]
            yours = [plain(self.you[row].translate(MINUS))] if self.you else []
            printed = paper.translate(MINUS) if paper.startswith("-") else paper
            made.append([plain(claim), plain(printed), *rest, *yours])
        return made

    def __repr__(self) -> str:
        return table_text([self._head(), *self._rows()])

    def _repr_html_(self) -> str:
        return page(table_html(self.caption, self._head(), self._rows()))


@dataclass(frozen=True)
class Folded:
    """Something behind a title that opens."""

    shown: object
    title: str

    def __repr__(self) -> str:
        return f"{self.title}\n{self.shown}"

    def _repr_html_(self) -> str:
        if isinstance(self.shown, str):
            inner = f'<pre class="cv-lines">{escape(self.shown)}</pre>'
        else:
            inner = self.shown._repr_html_()
        return page(f'<details class="cv-fold"><summary>{escape(self.title)}</summary>{inner}</details>')


def fold(shown: object, title: str) -> Folded:
    """Show `shown` (a table, a picture, a view, or lines of text) behind `title`.

    Raises: `TypeError` for something that has no HTML.
    """
    if not isinstance(shown, str) and not hasattr(shown, "_repr_html_"):
        raise TypeError(f"fold: a {type(shown).__name__} shows itself as text only; give the text, or a table.")
    return Folded(shown, title)
