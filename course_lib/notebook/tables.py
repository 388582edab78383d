"""Tables that fit their page, and the style sheet that tables, pictures and views share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources

HERE = resources.files(__package__)


@cache
def file(name: str) -> str:
    """The text of a script or a style sheet in this folder."""
    return (HERE / name).read_text(encoding="utf-8")


def stylesheet(name: str) -> str:
    """The shared style sheet and the view's own `<name>.css`, ready for a <style> element.

    Every rule starts with `.course-view`. A view's own rules are narrowed to that view here: a style element counts for
    the whole page, and two explorers may well use the same class name.
    """
    found = [own for own in (HERE / f"{name}.css", HERE / "views" / f"{name}.css") if own.is_file()]
    rules = found[0].read_text(encoding="utf-8") if found else ""
    narrowed = rules.replace(".course-view ", f'.course-view[data-view="{name}"] ')
    return squeezed(file("shared.css") + narrowed)


def readable(value: float, digits: int = 3) -> str:
    """Write a number with a fixed count of digits; very large and very small ones with a power of ten."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "undefined"
    if abs(value) < 1e-9:
        value = 0.0  # rounding noise of another processor must not become a number to compare
    if value != 0 and not 10.0**-digits <= abs(value) < 1e5:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.{digits}f}".replace("-", "−")


@dataclass(frozen=True)
class Cell:
    """One cell of a table: HTML for the page, and the same as text."""

    html: str
    text: str

    def __str__(self) -> str:
        return self.text


def plain(text: object) -> Cell:
    return Cell(escape(str(text)), str(text))


def table_html(caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """One HTML table. Every cell knows the name of its column, which stands in front of it on a phone."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = ""
    for first, *others in rows:
        cells = "".join(f'<td data-label="{escape(name)}">{cell.html}</td>' if cell.html else "<td></td>"
                        for name, cell in zip(head[1:], others, strict=True))
        body += f'<tr><th scope="row">{first.html}</th>{cells}</tr>'
    return (f'<table class="cv-table"><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
            f"<tbody>{body}</tbody></table>")


def page(inner: str) -> str:
    """A piece of HTML in the course's look."""
    return (f'<div class="course-view tex2jax_ignore mathjax_ignore" data-view="results">'
            f"<style>{stylesheet('results')}</style>{inner}</div>")


def table_text(rows: Sequence[Sequence[object]]) -> str:
    """Rows as text, in columns as wide as their longest cell."""
    lines = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)


@dataclass(frozen=True, repr=False)
class Table:
    """The numbers behind a picture: a caption, a head and rows of text (numbers already written with fixed digits)."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self) -> str:
        """One HTML table; the first cell of each row is that row's heading."""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.head)
        body = ""
        for first, *others in self.rows:
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
            body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
        return (f'<table class="cv-table"><caption>{escape(self.caption)}</caption>'
                f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def __repr__(self) -> str:
        return table_text([self.head, *self.rows])

    def _repr_html_(self) -> str:
        """The table by itself on a page, where it folds into cards on a phone."""
        return page(table_html(self.caption, self.head, [[plain(cell) for cell in row] for row in self.rows]))


def squeezed(text: str) -> str:
    """Leave out indentation and lines that are only a comment: every notebook carries this text once per view."""
    lines = (line.strip() for line in re.sub(r"^\s*/\*.*?\*/\s*$", "", text, flags=re.M | re.S).splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))
