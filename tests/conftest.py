"""Fixtures that many test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Watched, open_page

# Workers take whole files. Whoever takes a long one last works alone at the end, so these come first, by their seconds.
LONGEST = ["test_book.py", "test_exercises.py", "test_distill.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def short_lane(pytestconfig: pytest.Config) -> bool:
    """Whether `make test` runs, without what is slow: then a fixture makes less for the tests that stay."""
    return "not slow" in pytestconfig.getoption("markexpr")


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Watched]:
    """One Chromium for a whole file: starting it costs more than most tests."""
    with open_page() as opened:
        yield opened


@pytest.fixture
def watched(browser_page: Watched) -> Watched:
    """The file's page with an empty record, at desk width. A file whose tests all show one view fills it there."""
    browser_page.errors.clear()
    browser_page.outside.clear()
    browser_page.page.set_viewport_size({"width": 1000, "height": 1200})
    browser_page.page.mouse.move(0, 0)  # some views follow the pointer
    return browser_page
