"""A learner's way through chapter 1, in a real JupyterLab, by clicks and keys alone.

Poll, explorer, a wrong answer, a hint, three tries, the solution, the right answer, the second look at the poll, the
quiz, the points. The page is only READ by script; everything that happens is a mouse or a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import pytest
from browser import open_page
from test_lab import ALL_CELLS, OPENED, PATIENCE, lab, ready  # noqa: F401  (lab is a fixture)

from course_lib.notebook.exercises.questions import chapter

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "notebooks" / "ch01_hinton.md"
COPY = ROOT / "notebooks" / "_test_path.ipynb"
# Section 8 and the trainings of section 7 are not on the way.
STATIONS = ("import predict", "temperature_view(", "from torch import Tensor", "def softened(", 'check("ch01.q1"',
            "recall(", 'quiz("ch01")', 'progress("ch01")')
WRONG = "def softened(logits, temperature):\n    return torch.softmax(logits * temperature, dim=-1)"
RIGHT = WRONG.replace("logits * temperature", "logits / temperature")

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.assets]


@pytest.fixture
def path() -> Iterator[str]:
    """The cells of chapter 1 that a learner meets on this way, as they stand in the chapter."""
    chapter_cells = jupytext.read(SOURCE, fmt="md:myst").cells
    kept = [cell for cell in chapter_cells if cell.cell_type == "code" and (
        "import start" in cell.source or any(word in cell.source for word in STATIONS))]
    place = next(i for i, cell in enumerate(kept) if "recall(" in cell.source)
    kept[place].source = "from course_lib.experiments import ch01few_hinton as lab\n" + kept[place].source
    notebook = nbformat.v4.new_notebook(cells=kept, metadata={"kernelspec": {
        "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}})
    nbformat.write(notebook, COPY)
    yield f"notebooks/{COPY.name}"
    COPY.unlink()


class Learner:
    """Two hands and two eyes in front of JupyterLab."""

    def __init__(self, page):
        self.page = page

    def cells(self) -> list[dict]:
        return self.page.evaluate(ALL_CELLS)

    def finds(self, words: str) -> int:
        """Number of the first cell whose code holds `words`."""
        return next(n for n, cell in enumerate(self.cells()) if words in "".join(cell["source"]))

    def runs(self, number: int) -> int:
        """A click into the cell, Shift+Enter, and wait until the kernel has answered."""
        self.clicks_into(number)
        before = self.cells()[number]["execution_count"]
        self.page.keyboard.press("Shift+Enter")
        self.page.wait_for_function(
            f"([n, before]) => {{ const c = ({ALL_CELLS})()[n].execution_count; return c && c !== before; }}",
            arg=[number, before], timeout=PATIENCE)
        return number

    def box(self, number: int):
        """The cell on the screen."""
        return self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{number}']")

    def clicks_into(self, number: int) -> None:
        editor = self.box(number).locator(".jp-InputArea-editor .cm-content")
        editor.scroll_into_view_if_needed(timeout=PATIENCE)
        editor.click()

    def writes(self, number: int, text: str) -> None:
        self.clicks_into(number)
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(text)

    def adds_below(self, number: int, text: str) -> int:
        """A new cell, with the keys that JupyterLab has for it: Escape, b, Enter."""
        self.clicks_into(number)
        for key in ("Escape", "b", "Enter"):
            self.page.keyboard.press(key)
        self.page.keyboard.insert_text(text)
        return self.runs(number + 1)

    def reads(self, number: int, words: str) -> None:
        """Wait until the cell's output says `words`."""
        self.box(number).locator(".jp-OutputArea").first.get_by_text(re.compile(re.escape(words))).first.wait_for(
            timeout=PATIENCE, state="attached")


def test_a_learner_goes_from_the_poll_to_the_points_by_clicks_and_keys(lab: str, path: str) -> None:  # noqa: F811
    with open_page(width=1400, height=1000) as watched:
        page, me = watched.page, Learner(watched.page)
        ready(page, lab.replace("notebooks/contents.ipynb", path))
        page.wait_for_function(OPENED, arg=path, timeout=PATIENCE)
        page.evaluate("(async () => { const context = window.jupyterapp.shell.currentWidget.context;"
                      " await context.ready; await context.sessionContext.ready; })()")
        me.runs(0)
        poll = me.runs(me.finds('predict("ch01")'))
        me.box(poll).locator(".course-poll").get_by_label(re.compile(r"c\) ")).click()
        me.reads(poll, "Kept: you predict c)")

        me.runs(me.finds("from torch import Tensor"))
        _moves_the_slider(page, me.box(me.runs(me.finds("temperature_view("))))

        exercise = me.finds("def softened(")
        checking = exercise + 1
        for _ in range(3):
            me.writes(exercise, WRONG)
            me.runs(exercise)
            me.runs(checking)
        me.reads(checking, "The logits are multiplied by T")
        me.reads(checking, "[0.5065, 0.3072, 0.1863]")  # what was expected
        me.reads(me.adds_below(checking, 'from course_lib.notebook.exercises import solution\nsolution("ch01.q1")'),
                 "So far: 0 of 2 hints, 3 of 3 tries.")
        me.reads(me.adds_below(checking, 'hint("ch01.q1")'), "hint 1 of 2")
        me.reads(me.adds_below(checking, 'hint("ch01.q1")'), "hint 2 of 2")
        opened = me.adds_below(checking, 'solution("ch01.q1")')
        me.reads(opened, "only honesty")
        me.box(opened).get_by_role("button", name="Copy").click()
        me.reads(opened, "Copied.")
        me.writes(exercise, RIGHT)
        me.runs(exercise)
        me.reads(me.runs(checking), "ch01.q1: correct (2 of 2 points)")

        me.reads(me.runs(me.finds("recall(")), "You predicted c)")
        _answers_the_quiz(me, me.runs(me.finds('quiz("ch01")')))
        me.reads(me.runs(me.finds('progress("ch01")')), "6 of 20 points")
        assert not watched.outside, watched.outside


def _moves_the_slider(page, cell) -> None:
    slider = cell.locator("input[type=range][data-control=temperature]")
    slider.focus(timeout=PATIENCE)
    before = cell.locator("[data-prob]").all_inner_texts()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert cell.locator("[data-prob]").all_inner_texts() != before


def _answers_the_quiz(me: Learner, number: int) -> None:
    form = me.box(number).locator(".course-quiz")
    for item, fieldset in zip(chapter("ch01").quiz, form.locator("fieldset").all(), strict=True):
        fieldset.get_by_label(re.compile(rf"^{item.right}\) ")).click()
    me.reads(number, "8 of 8 answered, 4 of 4 points")
