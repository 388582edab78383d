"""One visual language for all pictures of the course: a colour and a line for each role, the same everywhere.

Every function returns a matplotlib `Figure` that pyplot does not know of, so a notebook does not show it twice.
`picture(fig, alt)` turns it into what a notebook should end a cell with: an image with alternative text, and the
numbers behind it as a table that folds out.

Why white paper: text in a picture cannot follow the theme of the page around it. A transparent picture with black
text is unreadable in dark mode, one with white text vanishes in print. So a picture brings its own white sheet, as a
photograph does; the views, which are HTML, follow the theme instead.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import ContextDecorator
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator

from course_lib.notebook.tables import Table, readable, stylesheet
from course_lib.shared.measures import Calibration
from course_lib.shared.seeds import mean_and_interval
from course_lib.shared.training import History

# Okabe and Ito's palette: these eight stay apart for all common forms of colour blindness.
OKABE_ITO = {"black": "#000000", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73",
             "yellow": "#F0E442", "blue": "#0072B2", "vermillion": "#D55E00", "purple": "#CC79A7"}


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of one role. The line and the marker say the same again for a print in grey."""

    colour: str
    line: str
    marker: str


ROLES = {
    "teacher": Look(OKABE_ITO["blue"], "-", "s"),
    "student": Look(OKABE_ITO["vermillion"], "-", "o"),  # the distilled one
    "baseline": Look(OKABE_ITO["black"], "--", "D"),  # the same student without distillation
    "hard": Look(OKABE_ITO["orange"], ":", "^"),  # loss on the labels
    "soft": Look(OKABE_ITO["green"], "-.", "v"),  # loss on the teacher's distribution
    "hidden": Look(OKABE_ITO["purple"], (0, (5, 1, 1, 1, 1, 1)), "P"),
    "attention": Look(OKABE_ITO["sky"], (0, (3, 1)), "X"),
}
SPARE = (Look(OKABE_ITO["sky"], "-", "P"), Look(OKABE_ITO["purple"], "-.", "X"), Look(OKABE_ITO["green"], ":", "v"),
         Look(OKABE_ITO["orange"], (0, (5, 1)), "^"))

STYLE = {
    "figure.figsize": (6.4, 3.6), "figure.facecolor": "white", "savefig.facecolor": "white", "axes.facecolor": "white",
    "font.family": "DejaVu Sans", "font.size": 10.5, "axes.titlesize": 11.5, "axes.titlelocation": "left",
    "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#444444",
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#E3E3E3", "grid.linewidth": 0.8, "lines.linewidth": 2.0,
    "legend.frameon": False, "xtick.color": "#333333", "ytick.color": "#333333", "text.color": "#111111",
    "axes.labelcolor": "#111111",
    # Without these two, every save draws new random names into the file.
    "svg.hashsalt": "course", "svg.fonttype": "path",
}


def style() -> ContextDecorator:
    """The look of the course for your own pictures: `with plots.style(): ...`, or `@plots.style()` over a function."""
    return mpl.rc_context(STYLE)


def look(name: str, number: int = 0) -> Look:
    """The look of a role; the role is the first word of the name ("student, 5 seeds"). Others get a spare one."""
    first = name.lower().replace(",", " ").split()[:1]
    return ROLES.get(first[0] if first else "", SPARE[number % len(SPARE)])


def canvas(columns: int = 1, **options: object) -> tuple[Figure, np.ndarray]:
    """An empty figure and its axes as a flat array; call it inside `style()`."""
    figure = Figure(layout="constrained", **options)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


@dataclass(frozen=True)
class Picture:
    """An image with alternative text and a table, as HTML: the book would lose a text in the display metadata."""

    image: str
    alt: str
    table: Table | None

    def _repr_html_(self) -> str:
        # Inline styles and the class dark-light keep the themes of the book and of Lab from filtering the picture.
        html = (f'<img class="dark-light" alt="{escape(self.alt)}" src="data:image/svg+xml;base64,{self.image}" '
                'style="background:#fff;color:#000;max-width:100%;height:auto;padding:6px;border-radius:6px;filter:none">')
        if self.table is not None:
            html += ('<details class="cv-details"><summary>The numbers as a table</summary>'
                     f'<div class="cv-numbers">{self.table.html()}</div></details>')
        return ('<div class="course-view tex2jax_ignore mathjax_ignore" data-view="picture">'
                f'<style>{stylesheet("picture")}</style>{html}</div>')

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def __repr__(self) -> str:
        return f"<picture: {self.alt}>"


def picture(figure: Figure, alt: str, table: Table | None = None) -> Picture:
    """The figure as an SVG image. `alt` is one sentence that says what is to be seen. Same figure, same bytes.

    Raises: ValueError without an alternative text.
    """
    if not alt.strip():
        raise ValueError("alt: write one sentence for those who do not see the picture.")
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(base64.b64encode(buffer.getvalue()).decode("ascii"), alt, table)


@style()
def learning_curves(histories: Mapping[str, History | Sequence[History]], measure: str = "accuracy", *,
                    title: str | None = None, teacher: float | None = None) -> Figure:
    """`measure` over the steps, one line per entry; several histories (seeds) give their mean and their range.

    histories  name -> History or list of Histories. The first word of a name is its role: "student", "baseline", ...
    measure    a column of `History.scores`, or else of `History.steps` (a loss term)
    teacher    the teacher's own value, drawn as a level line
    Raises: ValueError if a history has no such column, or if the seeds were looked at in different steps.
    """
    figure, (axes,) = canvas()
    for number, (name, runs) in enumerate(histories.items()):
        curves = [_curve(run, measure, name) for run in ([runs] if isinstance(runs, History) else runs)]
        steps = curves[0][0]
        if any(curve[0] != steps for curve in curves):
            raise ValueError(f"{name}: the seeds were evaluated at different steps; they cannot be averaged.")
        values, as_drawn = np.array([curve[1] for curve in curves]), look(name, number)
        if len(curves) > 1:
            axes.fill_between(steps, values.min(0), values.max(0), color=as_drawn.colour, alpha=0.18, linewidth=0)
        axes.plot(steps, values.mean(0), color=as_drawn.colour, linestyle=as_drawn.line, label=name,
                  marker=as_drawn.marker, markersize=5, markevery=max(1, len(steps) // 8))
    if teacher is not None:
        axes.axhline(teacher, color=ROLES["teacher"].colour, linewidth=1.5, label="teacher")
    axes.set(xlabel="training step", ylabel=measure, title=title or "")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _legend_below(axes)
    return figure


def _curve(history: History, measure: str, name: str) -> tuple[list[float], list[float]]:
    for rows in (history.scores, history.steps):
        found = [(row["step"], row[measure]) for row in rows if measure in row]
        if found:
            return [step for step, _ in found], [value for _, value in found]
    known = sorted({key for rows in (history.scores, history.steps) for row in rows for key in row} - {"step"})
    raise ValueError(f"{name}: no '{measure}' in this history; it has {', '.join(known) or 'nothing'}.")


def curves_table(histories: Mapping[str, History | Sequence[History]], measure: str = "accuracy") -> Table:
    """The ends of the learning curves: first, best and last value (means over the seeds)."""
    rows = []
    for name, runs in histories.items():
        values = np.array([_curve(run, measure, name)[1] for run in ([runs] if isinstance(runs, History) else runs)])
        mean = values.mean(0)
        cells = (mean[0], mean.min(), mean.max(), mean[-1])
        rows.append([name, str(len(values)), *(readable(float(cell)) for cell in cells)])
    return Table(f"{measure} over the training", ["run", "seeds", "first", "lowest", "highest", "last"], rows)


@style()
def dot_and_interval(rows: Mapping[str, Sequence[float]], *, measure: str = "accuracy", title: str | None = None,
                     teacher: float | None = None) -> Figure:
    """One line per method: each seed a small dot, their mean a large one, the 95 % interval of the mean a bar.

    rows  name -> one value per seed; one single value is drawn without an interval. The first word names the role.
    The axis does not start at zero: dots, unlike bars, do not claim a length.
    """
    figure, (axes,) = canvas(figsize=(6.4, 1.3 + 0.5 * len(rows)))
    for number, (name, values) in enumerate(rows.items()):
        as_drawn = look(name, number)
        axes.plot(values, [number + 0.24] * len(values), "o", color=as_drawn.colour, alpha=0.35, markersize=4.5,
                  markeredgewidth=0)
        mean = float(np.mean(values))
        if len(values) > 1:
            interval = mean_and_interval(values)
            axes.plot([interval.low, interval.high], [number, number], color=as_drawn.colour, linewidth=2.5)
        axes.plot(mean, number, as_drawn.marker, color=as_drawn.colour, markersize=8.5, markeredgecolor="white")
        axes.annotate(readable(mean), (mean, number), textcoords="offset points", xytext=(0, 9), ha="center",
                      fontsize=9.5)
    if teacher is not None:
        axes.axvline(teacher, color=ROLES["teacher"].colour, linewidth=1.5)
        axes.annotate(f"teacher {readable(teacher)} ", (teacher, 1.0), xycoords=("data", "axes fraction"), ha="right",
                      va="bottom", color=ROLES["teacher"].colour, fontsize=9.5)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(ylim=(len(rows) - 0.4, -0.7), xlabel=measure)
    axes.set_title(title or "", pad=18 if teacher is not None else 6)
    axes.grid(axis="y", visible=False)
    return figure


def intervals_table(rows: Mapping[str, Sequence[float]], measure: str = "accuracy") -> Table:
    """The numbers of `dot_and_interval`: mean, standard deviation between seeds, and the 95 % interval of the mean."""
    lines = []
    for name, values in rows.items():
        if len(values) > 1:
            found = mean_and_interval(values)
            cells = [readable(found.mean), readable(found.sd), f"{readable(found.low)} to {readable(found.high)}"]
        else:
            cells = [readable(float(values[0])), "one seed only", "one seed only"]
        lines.append([name, str(len(values)), *cells])
    return Table(measure, ["method", "seeds", "mean", "sd between seeds", "95 % interval"], lines)


@style()
def calibration_plot(calibrations: Mapping[str, Calibration], *, title: str | None = None) -> Figure:
    """How often a model is right (up) when it is so sure (right). On the diagonal it knows what it knows.

    The area of a dot grows with the number of examples in its bin. Input: name -> `measures.calibration(...)`.
    """
    figure, (axes,) = canvas(figsize=(4.6, 4.4))
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=1)
    for number, (name, found) in enumerate(calibrations.items()):
        as_drawn = look(name, number)
        total = sum(one.count for one in found.bins)
        sure, right = [one.confidence for one in found.bins], [one.accuracy for one in found.bins]
        axes.plot(sure, right, color=as_drawn.colour, linestyle=as_drawn.line, linewidth=1.6)
        axes.scatter(sure, right, [14 + 220 * one.count / total for one in found.bins], color=as_drawn.colour,
                     marker=as_drawn.marker, edgecolor="white", zorder=3, label=f"{name} (ECE {readable(found.ece)})")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", title=title or "", aspect="equal")
    for handle in _legend_below(axes, columns=1).legend_handles:
        handle.set_sizes([45])
    return figure


def _legend_below(axes: Axes, columns: int = 3) -> Legend:
    return axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
