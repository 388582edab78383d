"""What every explorer must hold, on every page that shows it; its own numbers and controls have their own file."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from view_pages import HOSTS, assert_fits, assert_readable, drawn, page_of, show_on_a_phone

from course_lib.notebook import views

# view -> the file with its own tests, whose examples() are shown here
FILES = {"attention": "test_attention_view", "augmentation": "test_augmentation_view",
         "bottleneck": "test_bottleneck_view", "failure_lab": "test_failure_lab", "layer_map": "test_layer_map_view",
         "pareto": "test_pareto_view", "projection": "test_projection_view", "relations": "test_relations_view",
         "temperature": "test_views", "theseus": "test_theseus_view"}
EVERY_VIEW = pytest.mark.parametrize("view", FILES)


def examples(view: str) -> list[views.View]:
    return import_module(FILES[view]).examples()


def test_no_view_is_forgotten() -> None:
    scripts = {path.stem for path in Path(views.__file__).parent.glob("*.js")} - {"shared"}
    assert scripts == FILES.keys()
    for view in FILES:
        assert {shown.name for shown in examples(view)} == {view}


@EVERY_VIEW
def test_the_same_view_gives_the_same_bytes(view: str) -> None:
    assert [one._repr_html_() for one in examples(view)] == [one._repr_html_() for one in examples(view)]


@EVERY_VIEW
def test_a_view_asks_for_nothing_from_outside(view: str) -> None:
    for shown in examples(view):
        addresses = set(re.findall(r"https?://[^\s\"')]+", shown._repr_html_()))
        assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of SVG, which nobody fetches


@pytest.mark.browser
@EVERY_VIEW
def test_a_phone_needs_no_sideways_scrolling(watched, view: str) -> None:
    show_on_a_phone(watched, *examples(view))
    assert_fits(watched)
    watched.check()


@pytest.mark.browser
@EVERY_VIEW
@pytest.mark.parametrize("host", HOSTS)
def test_all_text_has_the_contrast_of_wcag_aa(watched, view: str, host: str) -> None:
    watched.page.set_content(page_of(*examples(view), host=host))
    drawn(watched)
    assert_readable(watched, host)
    watched.check()
