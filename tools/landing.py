"""The front page of the book: what it shows first, and the small picture of every chapter, drawn by code.

`tools/book.py` calls this. The numbers come from data/results; the pictures take the colour of the text around them,
so they fit a light page, a dark page and paper.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from course_lib.experiments import records
from course_lib.material.assets import DATA
from course_lib.notebook.plots import ROLES
from course_lib.shared.seeds import Interval, mean_and_interval

RESULT = "<!-- RESULT -->"  # the places on the page
EXPLORER = "<!-- EXPLORER -->"

# --- One result -------------------------------------------------------------------------------------------------------

SHOWN = {  # arm of chapter 1's experiment -> what a stranger reads, and whose colour it has
    "labels": ("a small student learns from 500 labels", "baseline"),
    "soft answers, all text": ("the same student learns from a teacher's answers to 8,833 sentences", "student"),
}
CHANCE = 50.0  # two classes: a coin


def found() -> tuple[dict[str, Interval], float]:
    """Accuracy on new sentences in percent: of the students (mean and interval over seeds), and of the teacher."""
    students = {arm: mean_and_interval(records.values("ch01few", arm, "accuracy")) for arm in SHOWN}
    card = json.loads((DATA / "teachers" / "sentiment-500" / "card.json").read_text(encoding="utf-8"))
    return students, card["accuracy_percent"]["test"]


def result() -> str:
    """The first result as bars of HTML, which follow the theme of the page; a bar begins at the coin's 50 %."""
    students, teacher = found()
    rows = [_bar(text, students[arm].mean, ROLES[role].colour) for arm, (text, role) in SHOWN.items()]
    rows.append(_bar("the teacher: six layers, and the same 500 labels", teacher, ROLES["teacher"].colour))
    seeds, sentences = records.right_of(records.load("ch01few"), "labels").shape
    return ("`````{raw} html\n<figure class=\"front-result\">\n<figcaption>Is a movie sentence positive or negative? "
            f"Right answers on {sentences:,} new sentences; a coin has 50 %.</figcaption>\n" + "\n".join(rows)
            + f"\n<p class=\"front-source\">Students: 2 layers x 128, from scratch, mean of {seeds} seeds. "
            '<a href="notebooks/ch01_hinton.html">Chapter 1</a> trains them in front of you.</p>\n</figure>\n`````')


def _bar(text: str, percent: float, colour: str) -> str:
    width = max(0.0, percent - CHANCE) / (85 - CHANCE) * 100
    return (f'<div class="front-row"><span class="front-what">{text}</span><span class="front-bar">'
            f'<span style="width:{width:.1f}%;background:{colour}"></span></span>'
            f'<strong class="front-number">{percent:.1f} %</strong></div>')


# --- Small pictures ---------------------------------------------------------------------------------------------------


def _boxes(*boxes: tuple[float, float, float, float], solid: bool = False) -> str:
    """Rectangles (left, top, width, height) on a sheet of 96 x 40."""
    fill = "#000" if solid else "none"
    return "".join(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="2" fill="{fill}"/>' for x, y, w, h in boxes)


def _path(*lines: str) -> str:
    return "".join(f'<path d="{line}"/>' for line in lines)


def _stack(left: float, layers: int, *, width: float = 22, solid: range | None = None) -> str:
    step = 36 / layers
    return "".join(_boxes((left, 2 + i * step, width, step - 2), solid=solid is not None and i in solid)
                   for i in range(layers))


def _dots(*centres: tuple[float, float], radius: float = 2.6) -> str:
    return "".join(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="#000"/>' for x, y in centres)


ICONS = {
    "ch00_start_here": _boxes((6, 4, 32, 32)) + _path("M42 20h20", "M57 15l5 5-5 5")
    + _boxes((68, 12, 16, 16), solid=True),
    "ch01_hinton": _boxes((10, 4, 14, 34), (30, 26, 14, 12), (50, 31, 14, 7), (70, 35, 14, 3), solid=True),
    "ch02_bilstm": "".join(_boxes((x, 14, 14, 12)) for x in (6, 30, 54, 78))
    + _path("M6 7h82", "M84 3l5 4-5 4", "M90 33H8", "M12 29l-5 4 5 4"),
    "ch03_distilbert": _stack(14, 6) + _path("M42 20h14", "M52 16l4 4-4 4") + _stack(62, 3),
    "ch04_pkd": _stack(10, 6) + _stack(64, 3) + _path("M32 11L64 8", "M32 23L64 20"),
    "ch05_tinybert": _boxes((8, 3, 24, 34)) + _path("M36 5L62 14V26L36 35Z") + _boxes((66, 11, 12, 18), solid=True),
    "ch06_mobilebert": _path("M8 4H30L44 15H52L66 4H88", "M8 36H30L44 25H52L66 36H88", "M8 4V36", "M88 4V36"),
    "ch07_minilm": "".join(_boxes((28 + 10 * c, 2 + 9 * r, 8, 7), solid=(r * c + r + c) % 3 != 1)
                           for r in range(4) for c in range(4)),
    "ch08_theseus": _stack(20, 4, width=24, solid=range(1)) + _path("M50 20h8")
    + _stack(62, 4, width=14, solid=range(3)),
    "ch09_cached": _path("M20 8C20 3 52 3 52 8V32C52 37 20 37 20 32Z", "M20 8C20 13 52 13 52 8",
                         "M20 20C20 25 52 25 52 20", "M58 20h12", "M66 16l4 4-4 4")
    + _boxes((74, 13, 12, 14), solid=True),
    "ch10_comparison": _path("M10 3V37H90", "M16 32C24 14 44 9 86 7")
    + _dots((18, 28), (34, 16), (58, 10), (52, 26), (76, 19)),
    "lab1_commas": "".join(_path(f"M{x} 12c5 0 6 6 1 12") + _dots((x - 1, 14), radius=4) for x in (16, 36, 56, 76)),
    "lab2_mistakes": _path("M48 3L70 37H26Z", "M48 14V26") + _dots((48, 31), radius=2.2),
}


def icon(name: str) -> str:
    """The picture of a chapter as SVG, 96 x 40, black on nothing: it is used as a mask, so only its shape counts."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 40" fill="none" stroke="#000" stroke-width="2.4" '
            f'stroke-linecap="round" stroke-linejoin="round">{ICONS[name]}</svg>')


def stylesheet() -> str:
    """One rule per chapter. A page opened from the disk may not load a mask from a file, so each is in the rule.

    Sphinx writes the class of a card with hyphens.
    """
    rule = '.front-card.{} .sd-card-body::before {{ --picture: url("data:image/svg+xml,{}"); }}\n'
    return "".join(rule.format(name.replace("_", "-"), quote(icon(name))) for name in ICONS)


# --- What other sites show of this one --------------------------------------------------------------------------------


def social_picture(path: Path) -> None:
    """A picture of 1200 x 630 for links to the book: its name, and the same result."""
    students, teacher = found()
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="#10222e")
    figure.text(0.06, 0.80, "Distilling BERT", fontsize=46, color="white", family="serif", weight="bold")
    figure.text(0.06, 0.70, "A small model learns from a large one. Every line can be read and run.", fontsize=19,
                color="#cfe3f0")
    bars = [("500 labels", students["labels"].mean, "#e8e8e8"),
            ("the teacher's answers on more text", students["soft answers, all text"].mean, "#ff8a3d"),
            ("the teacher", teacher, "#5bb4ea")]
    axes = figure.add_axes((0.06, 0.12, 0.86, 0.48))
    axes.barh([name for name, *_ in bars], [value - CHANCE for _, value, _ in bars], left=CHANCE, height=0.5,
              color=[colour for *_, colour in bars])
    for row, (name, value, colour) in enumerate(bars):
        axes.text(CHANCE, row - 0.42, name, color="white", fontsize=17, va="center")
        axes.text(value + 0.4, row, f"{value:.1f} %", color=colour, fontsize=22, va="center", weight="bold")
    axes.set(xlim=(CHANCE, 88), ylim=(2.5, -0.7))
    axes.axis("off")
    content = io.BytesIO()
    figure.savefig(content, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    path.write_bytes(content.getvalue())


# --- The page ---------------------------------------------------------------------------------------------------------


def explorer() -> str:
    """The temperature explorer: what a reader gets, in ten seconds and without a kernel."""
    from course_lib.notebook.views.temperature import temperature_view

    view = temperature_view([5.0, 3.0, 1.0, 0.0], ["great", "good", "dull", "awful"], title="Soften a teacher's answer")
    return f"`````{{raw}} html\n{view._repr_html_()}\n`````"


def write(source: Path) -> None:
    """Complete index.md in the folder that Sphinx reads, and put the pictures beside it."""
    page, pictures = source / "index.md", source / "_static"
    pictures.mkdir(exist_ok=True)
    page.write_text(page.read_text(encoding="utf-8").replace(RESULT, result()).replace(EXPLORER, explorer()),
                    encoding="utf-8")
    (pictures / "cards.css").write_text(stylesheet(), encoding="utf-8")
    social_picture(pictures / "social.png")
