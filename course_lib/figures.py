"""The idea of each paper as one figure, drawn by code: boxes are models, arrows are what flows between them."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_lib.plots import OKABE_ITO, ROLES, Picture, canvas, picture, style

GREY = "#555555"


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str = GREY) -> None:
    """A rounded box with its centre at (x, y)."""
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, facecolor="white", edgecolor=colour,
                                  linewidth=2, boxstyle="round,pad=0,rounding_size=0.12"))
    axes.text(x, y, text, ha="center", va="center", fontsize=10.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", colour: str = GREY,
          line: str = "-") -> None:
    """An arrow, with a few words above its middle."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=colour, linewidth=1.8,
                                   linestyle=line, shrinkA=2, shrinkB=2))
    if text:
        axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.16, text, ha="center", fontsize=9.5,
                  color=colour)


def _sheet(width: float, height: float):
    figure, (axes,) = canvas(figsize=(width, height))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


@style()
def distillation_idea() -> Picture:
    """Chapter 0: the same text goes to both models; the student learns from labels and from the teacher."""
    figure, axes = _sheet(8.0, 3.2)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    box(axes, 0.9, 1.6, 1.4, 0.8, "text")
    box(axes, 3.6, 2.5, 2.2, 1.0, "teacher\nlarge, frozen", teacher)
    box(axes, 3.6, 0.7, 1.6, 0.7, "student\nsmall", student)
    box(axes, 6.9, 1.6, 1.5, 0.8, "difference\n= the loss")
    arrow(axes, (1.6, 1.75), (2.5, 2.4))
    arrow(axes, (1.6, 1.45), (2.8, 0.8))
    arrow(axes, (4.7, 2.4), (6.15, 1.8), "", teacher)
    arrow(axes, (4.4, 0.8), (6.15, 1.4), "", student)
    arrow(axes, (6.9, 1.2), (4.4, 0.5), "", OKABE_ITO["orange"], line="--")
    axes.text(5.5, 2.3, "what it answers", fontsize=9.5, color=teacher)
    axes.text(4.5, 1.3, "what it answers", fontsize=9.5, color=student, ha="center")
    axes.text(6.2, 0.4, "gradients change\nthe student only", fontsize=9.5, color="#8a5f00", ha="center", va="center")
    return picture(figure, "A text goes to a large frozen teacher and to a small student; the difference of their "
                           "answers is the loss, and its gradients change the student only.")


@style()
def hinton_idea() -> Picture:
    """Chapter 1: logits divided by T, two softened distributions, two losses."""
    figure, axes = _sheet(9.2, 3.8)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    box(axes, 1.0, 3.1, 1.6, 0.8, "teacher\nlogits $z^T$", teacher)
    box(axes, 1.0, 1.3, 1.6, 0.8, "student\nlogits $z^S$", student)
    box(axes, 3.9, 3.1, 1.9, 0.8, "softmax($z^T / T$)", teacher)
    box(axes, 3.9, 1.9, 1.9, 0.8, "softmax($z^S / T$)", student)
    box(axes, 3.9, 0.6, 1.9, 0.8, "softmax($z^S$)", student)
    box(axes, 7.6, 2.5, 2.6, 0.9, "soft loss\n$T^2$ · KL(teacher ‖ student)", ROLES["soft"].colour)
    box(axes, 7.6, 0.6, 2.6, 0.9, "hard loss\ncross-entropy with the label", "#B87A00")
    for start, end in (((1.8, 3.1), (2.95, 3.1)), ((1.8, 1.45), (2.95, 1.85)), ((1.8, 1.15), (2.95, 0.7)),
                       ((4.85, 3.0), (6.3, 2.65)), ((4.85, 1.95), (6.3, 2.35)), ((4.85, 0.6), (6.3, 0.6))):
        arrow(axes, start, end)
    axes.text(2.4, 3.25, "÷ T", fontsize=10, ha="center")
    axes.text(2.4, 1.8, "÷ T", fontsize=10, ha="center")
    axes.text(2.35, 0.55, "T = 1", fontsize=10, ha="center")
    return picture(figure, "Teacher and student logits are divided by T and compared by the soft loss; the student's "
                           "logits at T = 1 are compared with the label by the hard loss.")
