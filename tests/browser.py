"""One way to open a real browser in tests: headless Chromium, a fresh profile, and a record of everything suspicious.

    from browser import open_page

    with open_page() as watched:
        watched.page.goto(address)
        ...
        watched.check()     # no console error, no exception in the page, nothing asked from outside this machine

Chromium itself is a system package (`apt-get install chromium`); the Python side is the `playwright` package. Where
one of them is missing the test is skipped and says so; with CI=true it fails, because a silent skip would hide that
nothing was tested.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from print_book import chromium_path

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
# What cells of a page of the book have said as text or as tables of results.
TEXT_RESULTS = ".cell_output :is(.stream, .text_plain) pre, .course-view[data-view=results] :is(table, td, th, pre)"
TOO_WIDE = """selector => [...document.querySelectorAll(selector)].filter(e => e.checkVisibility()
    && getComputedStyle(e.closest("thead") || e).clipPath === "none"
    && (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth + 1))
    .map(e => e.outerHTML.slice(0, 100))"""
HERE = {"", "localhost", "127.0.0.1", "::1"}


def require_chromium() -> str:
    """Return the path of Chromium; without one skip the test, or fail it where CI=true."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        problem = "the Python package playwright is missing: pip install -e '.[dev]'"
    else:
        path = chromium_path()
        if path and Path(path).exists():
            return path
        problem = "no Chromium found: apt-get install chromium, or set CHROMIUM to its path"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"Browser test cannot run: {problem}.", pytrace=False)
    pytest.skip(f"Browser test skipped: {problem}.")


@dataclass
class Watched:
    """A page, and what it did that a course page must not do."""

    page: Page
    context: BrowserContext
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Fail if a script raised, the console reported an error, or the page asked for anything outside."""
        assert not self.outside, f"requests left this machine: {self.outside}"
        assert not self.errors, f"errors in the page: {self.errors}"

    def sideways_overflow(self) -> int:
        """How many pixels the page is wider than its window (0: no horizontal scrolling)."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def too_wide(self, selector: str) -> list[str]:
        """Which of these elements must be scrolled sideways, or are cut off (a head that a phone hides is not)."""
        return self.page.evaluate(TOO_WIDE, selector)


def _watch(watched: Watched, page: Page) -> None:
    page.on("pageerror", lambda error: watched.errors.append(f"exception: {error}"))
    page.on("console", lambda said: watched.errors.append(said.text) if said.type == "error" else None)
    page.on("websocket", lambda socket: watched.outside.append(socket.url) if _is_outside(socket.url) else None)


def _is_outside(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in {"file", "data", "blob", "about"} and (parts.hostname or "") not in HERE


@contextmanager
def open_page(width: int = 1280, height: int = 900, **options: object) -> Iterator[Watched]:
    """Yield a `Watched` page in a new Chromium with an empty profile; requests to other machines are refused.

    `options` go to Playwright's `new_context`: color_scheme="dark", reduced_motion="reduce", has_touch=True, ...
    """
    path = require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        try:
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            page = context.new_page()
            watched = Watched(page, context)
            _watch(watched, page)
            context.on("page", lambda other: _watch(watched, other))

            def gate(route, request) -> None:
                if _is_outside(request.url):
                    watched.outside.append(request.url)
                    route.abort()
                else:
                    route.continue_()

            context.route("**/*", gate)
            yield watched
        finally:
            browser.close()
