"""The built book: every page alive and quiet, from a web server and as a file, with the rest of the world forbidden."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from browser import TEXT_RESULTS, Watched, open_page
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import badges  # noqa: E402
import chapter_files  # noqa: E402
import print_book  # noqa: E402

import book  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HTML = ROOT / "book" / "_build" / "html"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages() -> list[str]:
    """The pages of the book as built by `make book`; it is built here if it is not there or older than its parts."""
    parts = [*(ROOT / "book").glob("*.*"), *(ROOT / "notebooks").glob("*.ipynb"), ROOT / "tools" / "book.py"]
    index = HTML / "index.html"
    if not index.exists() or index.stat().st_mtime < max(part.stat().st_mtime for part in parts):
        assert book.build(ROOT / "book", ROOT / "notebooks", ROOT / "book" / "_build") == 0, "the book has warnings"
    return sorted(page.relative_to(HTML).as_posix() for page in HTML.rglob("*.html")
                  if "_static" not in page.parts and page.name != "print.html")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(HTML))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# --- One visit of every page in each colour scheme ------------------------------------------------------------------

SPHINXS_OWN = '<div role="list" class="citation-list">'  # the bibliography's markup, which is not ours
PHONE = {"width": 390, "height": 800}


@dataclass
class Visit:
    """What a visit of all pages found: page -> what is wrong there, by question. An empty dictionary is good news."""

    scheme: str
    noise: dict[str, list[str]] = field(default_factory=dict)
    formulas: dict[str, int] = field(default_factory=dict)
    barriers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    too_wide: dict[str, int] = field(default_factory=dict)
    cut_off: dict[str, list[str]] = field(default_factory=dict)
    dead: dict[str, list[str]] = field(default_factory=dict)
    quizzes: dict[str, str] = field(default_factory=dict)
    operated: set[str] = field(default_factory=set)


# From a web server and with the keyboard, then from the disk and with the mouse: each in one scheme.
@pytest.fixture(scope="module", params=["light", pytest.param("dark", marks=pytest.mark.slow)])
def visit(request: pytest.FixtureRequest, pages: list[str], address: str) -> Visit:
    """Every page is opened once in each scheme, and everything is looked at while it is open."""
    base, way = {"light": (address, by_keyboard), "dark": (HTML.as_uri(), by_mouse)}[request.param]
    found = Visit(request.param)
    with open_page(color_scheme=request.param) as watched:
        watched.page.set_default_timeout(120_000)
        for page in pages:
            watched.errors.clear()
            watched.outside.clear()
            watched.page.set_viewport_size({"width": 1280, "height": 900})
            watched.page.goto(f"{base}/{page}", wait_until="load")
            watched.page.wait_for_function(print_book.READY)
            look_at(watched, page, way, found)
            if watched.errors or watched.outside:
                found.noise[page] = [*watched.errors, *watched.outside]
    return found


def look_at(watched: Watched, name: str, way: Callable[[Locator, str], Iterator[None]], found: Visit) -> None:
    """All questions to one open page. `way` is by_keyboard or by_mouse."""
    page = watched.page
    found.formulas |= {name: wrong} if (wrong := page.locator(".MathJax_Error, .merror").count()) else {}
    found.barriers |= {name: serious} if (serious := serious_barriers(page, found.scheme)) else {}
    views = page.locator(".course-view:not([data-view=picture]):has(.cv-stage)")
    for view in [views.nth(number) for number in range(views.count())]:
        kind = view.get_attribute("data-view")
        count, dead = operate(view, way)
        found.operated.add(kind)
        if dead or not count:
            found.dead.setdefault(name, []).append(f"{kind}: {dead or 'no control'}")
    if page.locator(".course-quiz").count() and (problem := quiz_problem(page.locator(".course-quiz"), way)):
        found.quizzes[name] = problem
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(100)  # explorers draw again in their new width
    if (pixels := watched.sideways_overflow()) > 1:
        found.too_wide[name] = pixels
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    for width in (390, 820, 1400):
        page.set_viewport_size(PHONE | {"width": width})
        if wide := watched.too_wide(TEXT_RESULTS):
            found.cut_off[f"{name} at {width} pixels"] = wide


def serious_barriers(page: Page, scheme: str) -> list[tuple[str, str]]:
    """What axe calls serious or critical, as (rule, element). In dark colours only what colours can change is asked."""
    from axe_playwright_python.sync_playwright import Axe

    # Without preload: axe would fetch the style sheets once more, which a page from the disk must not do.
    options = {"resultTypes": ["violations"], "preload": False}
    colours = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
    options |= colours if scheme == "dark" else {}
    found = Axe().run(page, options=options).response["violations"]
    return [(v["id"], node["html"]) for v in found if v["impact"] in ("serious", "critical")
            for node in v["nodes"] if node["html"] != SPHINXS_OWN]


def test_every_page_is_quiet(visit: Visit) -> None:
    assert not visit.noise


def test_no_formula_is_broken(visit: Visit) -> None:
    assert not visit.formulas


def test_axe_finds_no_serious_barrier(visit: Visit) -> None:
    assert not visit.barriers


def test_no_page_scrolls_sideways_on_a_phone(visit: Visit) -> None:
    assert not visit.too_wide, f"pixels wider than a phone: {visit.too_wide}"


def test_no_text_result_scrolls_sideways_or_is_cut_off(visit: Visit) -> None:
    assert not visit.cut_off


def test_every_explorer_answers_to_keyboard_and_mouse(visit: Visit) -> None:
    assert not visit.dead
    assert {"temperature", "layer_map", "projection", "attention", "augmentation", "bottleneck", "theseus",
            "failure_lab"} <= visit.operated


def test_every_quiz_counts_and_explains(visit: Visit) -> None:
    assert not visit.quizzes


# --- What the pages say, without a browser --------------------------------------------------------------------------


def test_no_page_names_another_host_as_a_source(pages: list[str]) -> None:
    for page in pages:
        text = (HTML / page).read_text(encoding="utf-8")
        outside = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"'](?:https?:)?//[^\"']*", text)
        assert not outside, f"{page}: {outside}"


def test_every_picture_of_a_page_has_alternative_text(pages: list[str]) -> None:
    """Pictures in the text of the page; what a script draws is axe's to find."""
    silent = {page: [str(picture)[:200] for picture in soup.select("main img") if not picture.get("alt", "").strip()]
              for page, soup in read(pages).items()}
    assert sum(len(soup.select("main img")) for soup in read(pages).values()) > 20
    assert not {page: found for page, found in silent.items() if found}


@cache
def _soup(page: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / page).read_text("utf-8"), "html.parser")


def read(pages: list[str]) -> dict[str, BeautifulSoup]:
    return {page: _soup(page) for page in pages}


# --- Landing page, search, launch buttons ---------------------------------------------------------------------------


def test_the_landing_page_has_an_explorer_that_answers(pages: list[str]) -> None:
    with open_page() as watched:
        watched.page.goto(f"{HTML.as_uri()}/index.html")
        view = watched.page.locator(".course-view[data-view=temperature]").first
        before = view.locator("[data-prob]").all_inner_texts()
        view.locator("input[type=range][data-control=temperature]").press("End")
        after = view.locator("[data-prob]").all_inner_texts()
        assert before != after and len(after) == 4
        watched.check()


def test_every_chapter_stands_on_the_front_page_with_its_picture(pages: list[str]) -> None:
    with open_page() as watched:
        watched.page.goto(f"{HTML.as_uri()}/index.html")
        masks = watched.page.evaluate("() => [...document.querySelectorAll('.front-card .sd-card-body')].map("
                                      "card => getComputedStyle(card, '::before').maskImage)")
        watched.check()
    assert len(set(masks)) == len(masks) == sum(page.startswith("notebooks/") for page in pages)
    assert all("image/svg+xml" in mask for mask in masks)


@pytest.mark.parametrize(("word", "page"), [("temperature", "ch01_hinton"), ("patience", "ch04_pkd"),
                                            ("commas", "lab1_commas"), ("value relation", "ch07_minilm")])
def test_search_finds(pages: list[str], address: str, word: str, page: str) -> None:
    with open_page() as watched:
        watched.page.goto(f"{address}/search.html?q={word}")
        watched.page.locator("#search-results li a").first.wait_for(timeout=15_000)
        watched.page.wait_for_function("page => [...document.querySelectorAll('#search-results li a')]"
                                       ".some(a => a.href.includes(page))", arg=page, timeout=15_000)
        watched.check()


def test_with_an_address_the_built_page_has_launch_buttons_and_asks_nobody(monkeypatch, tmp_path: Path) -> None:
    """A book of two pages with the course's own settings and a made-up address."""
    source = tmp_path / "src"
    (source / "notebooks").mkdir(parents=True)
    (source / "references.bib").write_text("")
    (source / "index.md").write_text("# Small\n")
    (source / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n- file: notebooks/ch01_a\n")
    cell = nbformat.v4.new_markdown_cell("# A")
    page = nbformat.v4.new_notebook(cells=[cell], metadata=chapter_files.METADATA)
    nbformat.write(page, source / "notebooks" / "ch01_a.ipynb")
    monkeypatch.setattr(badges, "address", lambda root: "https://github.com/someone/distil")
    settings = badges.config(yaml.safe_load((ROOT / "book" / "_config.yml").read_text("utf-8")))
    (source / "_config.yml").write_text(yaml.safe_dump(settings))
    shutil.copytree(ROOT / "book" / "_static", source / "_static")
    assert book.run_sphinx(source, tmp_path) == 0
    text = (tmp_path / "_build" / "html" / "notebooks" / "ch01_a.html").read_text("utf-8")
    assert "https://colab.research.google.com/github/someone/distil/blob/main/notebooks/ch01_a.ipynb" in text
    assert re.search(r"https://mybinder\.org/v2/gh/someone/distil/main\?urlpath=\S*notebooks/ch01_a\.ipynb", text)
    assert 'href="https://github.com/someone/distil"' in text
    assert not re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"'](?:https?:)?//[^\"']*", text)


# --- Explorers -------------------------------------------------------------------------------------------------------

# What can be operated in an explorer now: a selector for each, at most two of a kind. A button that is pressed already
# would rightly change nothing.
CONTROLS = """view => {
    const kinds = {};
    return [...view.querySelectorAll('.cv-stage :is(button, select, input)')].flatMap((e) => {
        const name = [...e.attributes].find((a) => a.name.startsWith('data-') && !a.name.includes('suppress'));
        const kind = `${e.tagName} ${e.type} ${name?.name === 'data-control' ? name.value : name?.name}`;
        const idle = e.getAttribute('aria-pressed') === 'true' || e.getAttribute('aria-checked') === 'true' || e.checked
            || e.disabled || e.options?.length === 1 || !e.checkVisibility() || !name;
        if (idle || (kinds[kind] = (kinds[kind] || 0) + 1) > 2) return [];
        return [{ selector: `${e.tagName.toLowerCase()}[${name.name}=${JSON.stringify(name.value)}]`, type: e.type }];
    });
}"""
# Everything that is shown except the controls themselves.
SHOWN = """view => {
    const copy = view.querySelector('.cv-stage').cloneNode(true);
    copy.querySelectorAll('button:not(.cv-node, .cv-word), select, input').forEach((e) => e.remove());
    copy.querySelectorAll('button').forEach((e) => e.replaceWith(e.textContent));
    return copy.innerHTML;
}"""
KEYS = {"range": ["ArrowRight", "ArrowLeft"], "number": ["ArrowUp", "ArrowDown"],
        "select-one": ["ArrowDown", "ArrowUp"], "checkbox": ["Space"], "radio": ["Space"], "button": ["Enter"]}


def by_keyboard(control: Locator, kind: str) -> Iterator[None]:
    for key in KEYS[kind]:
        control.focus()
        control.page.keyboard.press(key)
        yield


def by_mouse(control: Locator, kind: str) -> Iterator[None]:
    """A browser without a screen opens no menu, so a choice is made in it directly; a number is clicked, then typed."""
    control.scroll_into_view_if_needed()
    if kind == "select-one":
        for index in range(control.locator("option").count()):
            control.select_option(index=index)
            yield
    elif kind == "range":
        for share in (0.3, 0.8):
            box = control.bounding_box()
            control.page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
            yield
    elif kind == "number":
        for value in {control.get_attribute("min") or "1", control.get_attribute("max") or "2"}:
            control.click(click_count=3)
            control.page.keyboard.type(value)
            yield
    else:
        control.click()
        yield


def answers(view: Locator, before: str, seconds: float = 1.0) -> bool:
    """Whether the explorer shows something else soon: a player takes a moment, and so does a busy machine."""
    deadline = time.monotonic() + seconds
    while view.evaluate(SHOWN) == before:
        if time.monotonic() > deadline:
            return False
        view.page.wait_for_timeout(50)
    return True


def operate(view: Locator, way: Callable[[Locator, str], Iterator[None]]) -> tuple[int, list[str]]:
    """Use every control once; returns how many there were, and those that changed nothing."""
    dead, controls = [], view.evaluate(CONTROLS)
    for found in controls:
        control = view.locator(found["selector"]).first
        if not view.locator(found["selector"]).evaluate_all("all => all.some(e => !e.disabled && e.checkVisibility())"):
            continue  # another control took it away
        before = view.evaluate(SHOWN)
        if not any(answers(view, before) for _ in way(control, found["type"])) and not answers(view, before, seconds=5):
            dead.append(found["selector"])
        if "play" in found["selector"]:
            control.click()  # stop it again
    return len(controls), dead


def quiz_problem(quiz: Locator, way: Callable[[Locator, str], Iterator[None]]) -> str:
    """Answer two questions of a quiz; an empty text if it counts both and explains the second."""
    first, second = quiz.locator("fieldset").nth(0), quiz.locator("fieldset").nth(1)
    if way is by_keyboard:
        first.locator("input").first.focus()
        quiz.page.keyboard.press("Space")
        second.locator("input").nth(1).focus()
        quiz.page.keyboard.press("Space")
    else:
        first.locator("label").first.click()
        second.locator("label").nth(1).click()
    said = quiz.locator(".count").inner_text()
    if "2 of " not in said:
        return f"after two answers it says {said!r}"
    return "" if second.locator(".why").nth(1).is_visible() else "the explanation stays hidden"


# --- Links -----------------------------------------------------------------------------------------------------------


HOSTS = {"arxiv.org": "the papers", "github.com": "the papers' original codes",
         "nbgrader.readthedocs.io": "the gradebook of a class", "distributed.dask.org": "grading on several machines"}


def test_every_link_and_picture_leads_somewhere(pages: list[str]) -> None:
    """Files and anchors of the book are looked up; other hosts are not asked, but each has a reason to be linked."""
    anchors = {page: {tag.get("id") or tag.get("name") for tag in soup.select("[id], a[name]")}
               for page, soup in read(pages).items()}
    wrong = []
    for page, soup in read(pages).items():
        for tag in soup.select("a[href], img[src], link[href], script[src]"):
            to = tag.get("href") or tag.get("src")
            parts = urlsplit(to)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                wrong += [f"{page}: {to}"] if parts.scheme != "https" or parts.hostname not in HOSTS else []
                continue
            target = os.path.normpath((HTML / page).parent / unquote(parts.path)) if parts.path else HTML / page
            name = os.path.relpath(target, HTML)
            if not Path(target).exists() or (parts.fragment and name in anchors
                                             and unquote(parts.fragment) not in anchors[name]):
                wrong.append(f"{page}: {to}")
    assert not wrong, "\n".join(wrong)


# --- To take away ----------------------------------------------------------------------------------------------------

PRINTED = """() => {
    const visible = (e) => e.checkVisibility({ visibilityProperty: true });
    const all = (what) => [...document.querySelectorAll(what)];
    const ids = all('[id]').map((e) => e.id);
    return {
        chapters: all('article').map((a) => a.id),
        wrong: all('.MathJax_Error, .merror').length,
        formulas: all('main .math.notranslate').length, set: all('main .math.notranslate .MathJax').length,
        pictures: all('main img').filter((i) => !i.complete || !i.naturalWidth).map((i) => i.outerHTML.slice(0, 200)),
        views: all('main .course-view').filter((v) => !visible(v)).length,
        controls: all('main :is(button, input):not([aria-pressed="true"], .cv-node, .cv-word, [type="number"])')
            .filter(visible).map((e) => e.outerHTML.slice(0, 200)),
        twice: ids.filter((id, i) => !id.startsWith('MathJax') && ids.indexOf(id) !== i),
        dead: all('main a[href^="#"]').map((a) => a.getAttribute('href').slice(1)).filter((id) => !ids.includes(id)),
    };
}"""


def test_the_print_version_holds_every_chapter_with_its_formulas_and_no_dead_button(pages: list[str]) -> None:
    with open_page(width=900, height=1200) as watched:
        watched.page.set_default_timeout(300_000)  # two hundred sheets of paper
        watched.page.emulate_media(media="print")
        watched.page.goto((HTML / "print.html").as_uri())
        watched.page.wait_for_function(print_book.READY)
        found = watched.page.evaluate(PRINTED)
        watched.check()
    assert {Path(page).stem for page in pages if page.startswith("notebooks/")} <= set(found["chapters"])
    assert found["set"] >= found["formulas"] > 250 and found["wrong"] == 0
    for nothing in ("pictures", "views", "controls", "twice", "dead"):
        assert not found[nothing], f"{nothing}: {found[nothing]}"


def test_the_pdf_has_a_sheet_for_everything(pages: list[str]) -> None:
    content = (HTML.parent / "course-book.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and content.count(b"/Type /Page\n") > 150


def test_the_zip_opens_from_the_disk(pages: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(HTML.parent / "course-book.zip") as packed:
        packed.extractall(tmp_path)
    with open_page() as watched:
        watched.page.goto((tmp_path / "course-book" / "index.html").as_uri())
        watched.page.get_by_role("link", name="1 · Soft targets and temperature").first.click()
        watched.page.wait_for_url("**/ch01_hinton.html")
        watched.page.locator(".course-view[data-view=temperature] svg").first.wait_for()
        watched.check()


def test_without_chromium_the_book_is_built_and_one_sentence_says_what_is_missing(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(print_book, "chromium_path", lambda: None)
    said = print_book.pdf(tmp_path / "print.html", tmp_path / "book.pdf")
    assert "no Chromium" in said and "apt-get install chromium" in said and len(said.splitlines()) == 1
    monkeypatch.setattr(print_book, "chromium_path", lambda: "/bin/false")
    assert print_book.pdf(tmp_path / "print.html", tmp_path / "book.pdf").startswith("No PDF: Chromium could not")
