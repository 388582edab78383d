"""A picture that moves while students train.

    watch = Watch(score, "accuracy", teacher=79.1)           score(student) -> {"accuracy": ...}
    watch.train("baseline, labels only", alone, batches, labels, recipe)
    watch.train("student, distilled", taught, more_batches, answers, recipe)
    watch.picture("The distilled student ends far above the one that had only the labels.")

Each evaluation (`recipe.evaluate_every`) adds a point and draws the picture again in its place. What stays in the
notebook is a still picture with its alternative text and its numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from IPython.display import clear_output, display
from torch import nn

from course_lib.notebook.plots import Picture, curves_table, learning_curves, picture
from course_lib.shared.training import Batch, History, Recipe, Terms, train


class Watch:
    """One line for each run: a score over the steps, from step 0 on, drawn again whenever a student is evaluated."""

    def __init__(self, score: Callable[[nn.Module], dict[str, float]], measure: str = "accuracy", *,
                 teacher: float | None = None, title: str | None = None):
        """measure: the score that is drawn. teacher: its own value, a level line."""
        self.score, self.measure, self.teacher, self.title = score, measure, teacher, title
        self.histories: dict[str, History] = {}
        self._moves = os.environ.get("COURSE_PROGRESS") != "0"  # nobody watches a notebook that is being built
        self._place = None

    def train(self, name: str, student: nn.Module, batches: Sequence[Batch], terms: Terms, recipe: Recipe, **options
              ) -> History:
        """`shared.training.train`, watched. The first word of the name is its role: "baseline", "student", ..."""
        seen = self.histories[name] = History(scores=[{"step": 0, **self.score(student)}])

        def evaluate(model: nn.Module) -> dict[str, float]:
            found = self.score(model)
            step = min(recipe.steps, seen.scores[-1]["step"] + (recipe.evaluate_every or recipe.steps))
            seen.scores.append({"step": step, **found})
            self._draw()
            return found

        history = train(student, batches, terms, recipe, evaluate=evaluate, **options)
        history.scores.insert(0, seen.scores[0])
        self.histories[name] = history
        return history

    def picture(self, alt: str) -> Picture:
        """The still picture; leave it as the last expression of the cell. alt: one sentence that says what is seen."""
        if self._place is not None:
            clear_output(wait=True)  # the moving one goes when this one comes
        return self._picture(alt)

    def _draw(self) -> None:
        if self._moves and self._place is None:
            self._place = display(self._picture("Accuracy so far; the training is running."), display_id=True)
        elif self._moves:
            self._place.update(self._picture("Accuracy so far; the training is running."))

    def _picture(self, alt: str) -> Picture:
        figure = learning_curves(self.histories, self.measure, title=self.title, teacher=self.teacher)
        return picture(figure, alt, curves_table(self.histories, self.measure))
