"""The picture that moves: a point at every evaluation, one place on the page, a still picture at the end."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from course_lib.notebook import live
from course_lib.shared.training import Recipe

RECIPE = Recipe(steps=50, learning_rate=0.1, evaluate_every=20)


class Place:
    def __init__(self):
        self.shown = []

    def update(self, picture):
        self.shown.append(picture)


@pytest.fixture
def place(monkeypatch):
    place = Place()
    monkeypatch.delenv("COURSE_PROGRESS", raising=False)
    monkeypatch.setattr(live, "display", lambda picture, display_id: place.update(picture) or place)
    monkeypatch.setattr(live, "clear_output", lambda wait: place.shown.append("cleared"))
    return place


def watched(watch):
    student = nn.Linear(1, 1)
    batches = [{"x": torch.ones(4, 1)}] * RECIPE.steps
    return watch.train("student, taught", student, batches,
                       lambda model, batch: {"hard": (model(batch["x"]) - 1).pow(2).mean()}, RECIPE)


def distance(student):
    return {"accuracy": 100 - (student.weight + student.bias - 1).abs().item()}


def test_the_line_begins_before_the_first_step_and_has_the_loop_s_own_steps(place):
    watch = live.Watch(distance)
    history = watched(watch)
    assert [row["step"] for row in history.scores] == [0, 20, 40, 50]
    assert history.scores[-1]["accuracy"] > history.scores[0]["accuracy"]
    assert watch.histories == {"student, taught": history}


def test_it_is_drawn_again_in_one_place_at_every_evaluation_and_replaced_by_the_still_one(place):
    watch = live.Watch(distance, teacher=100.0)
    watched(watch)
    assert len(place.shown) == 3 and len({picture.image for picture in place.shown}) == 3
    still = watch.picture("The line rises to 100.")
    assert place.shown[-1] == "cleared" and still.image == place.shown[-2].image
    assert 'alt="The line rises to 100."' in still._repr_html_() and "student, taught" in still._repr_html_()


def test_a_notebook_that_is_being_built_gets_the_still_picture_only(place, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "0")
    watch = live.Watch(distance)
    watched(watch)
    watch.picture("The line rises.")
    assert place.shown == []
