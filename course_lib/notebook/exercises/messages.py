"""What every answer of this package is: a few lines or a small table, which show themselves as text or as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Message:
    """A few lines that show themselves, as text or as HTML."""

    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return f'<div class="course-message">{"<br>".join(escape(line) for line in self.lines)}</div>'


def message(*lines: str) -> Message:
    """A message of the lines that are not empty."""
    return Message(tuple(line for line in lines if line))


@dataclass(frozen=True)
class Panel:
    """A small table that shows itself, as text or as HTML."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __repr__(self) -> str:
        widths = [max(len(row[i]) for row in (self.head, *self.rows)) for i in range(len(self.head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                 for row in (self.head, *self.rows)]
        return "\n".join([self.caption, *lines, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="text-align:left">{escape(cell)}</th>' for cell in self.head)
        body = "".join("<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>"
                       for row in self.rows)
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return (f'<table><caption style="text-align:left">{escape(self.caption)}</caption>'
                f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}")
