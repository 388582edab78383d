"""Explorers on the pages that show them: the book, JupyterLab and Colab, and what every explorer must hold there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from browser import Watched

from course_lib.notebook.views import View

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "</script><script>window.hurt = 1</script><!--<b>$x$"  # a label that must stay text
HOSTS = {  # how the page says that it is dark, its background and its colour
    "book": ("<html>", "#ffffff", "#222832"),
    "book dark": ('<html data-theme="dark">', "#14181e", "#ced6dd"),
    "lab dark": ('<html><body data-jp-theme-light="false">', "#111111", "#ffffff"),
    "colab dark": ('<html theme="dark">', "#383838", "#000000"),
}


def page_of(*views: View, host: str = "book") -> str:
    """A page with these explorers, as one of HOSTS shows it."""
    opening, background, colour = HOSTS[host]
    look = f"<style>body{{margin:8px;background:{background};color:{colour}}}</style>"
    return f"<!doctype html>{opening}<meta charset=utf-8>{look}{''.join(view._repr_html_() for view in views)}"


def values(page: Page, selector: str) -> list[float]:
    """The numbers that the elements carry, with all their digits."""
    return [float(one) for one in page.eval_on_selector_all(selector, "all => all.map(one => one.dataset.value)")]


def show_as_module(page: Page, view: View) -> None:
    """Draw a view as anywidget does: `View.module()` is an ES module whose default export needs { model, el } alone."""
    page.set_content("<!doctype html><div id=here></div>")
    page.evaluate("""async ([code, data]) => {
        const module = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
        const values = JSON.parse(data);
        module.default.render({ model: { get: key => values[key] }, el: document.getElementById("here") }); }""",
                  [view.module(), json.dumps(view.data)])


def show_on_a_phone(watched: Watched, *views: View) -> None:
    """Open a page with these explorers on a screen of 360 x 740; each shows its stage, with a picture if it has one."""
    watched.page.set_viewport_size({"width": 360, "height": 740})
    watched.page.set_content(page_of(*views))
    drawn(watched)
    unseen = watched.page.eval_on_selector_all(".cv-stage", """all => all.filter(e => !e.checkVisibility()
        || (e.querySelector("svg") && ![...e.querySelectorAll("svg")].some(s => s.checkVisibility())))
        .map(e => e.parentElement.dataset.view)""")
    assert watched.page.locator(".cv-stage").count() == len(views) and unseen == []


def drawn(watched: Watched) -> None:
    """Wait until the explorers have drawn in the size that they have now: they do so between two frames."""
    watched.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def assert_fits(watched: Watched) -> None:
    """The page needs no sideways scrolling, and nothing is cut off but what scrolls by itself."""
    assert watched.sideways_overflow() == 0
    hidden = watched.page.evaluate("""() => [...document.querySelectorAll(".cv-stage *")].filter(e =>
        !e.closest("svg, option, .cv-scroll") && e.getBoundingClientRect().right > innerWidth)
        .map(e => e.outerHTML.slice(0, 80))""")
    assert hidden == []


CONTRAST = """background => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const onto = (colour, under) => { canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1); canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1); return `rgb(${[...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)})`; };
    const light = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const paper = (e) => { const above = e ? paper(e.parentElement) : background;
        return e ? onto(getComputedStyle(e).backgroundColor, above) : onto(background, background); };
    return [...document.querySelectorAll(".cv-stage *")].filter(e => !(e instanceof SVGElement) && e.checkVisibility()
        && ([...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || e.type === "number"))
        .map(e => { const under = paper(e), over = onto(getComputedStyle(e).color, under);
            const [a, b] = [light(under), light(over)].sort((x, y) => y - x);
            return [(a + 0.05) / (b + 0.05), e.className || e.tagName]; }).sort((x, y) => x[0] - y[0]).slice(0, 3); }"""


def assert_readable(watched: Watched, host: str) -> None:
    """All text has the contrast of WCAG AA on this host's background, 4.5 to 1."""
    lowest = watched.page.evaluate(CONTRAST, HOSTS[host][1])
    assert lowest[0][0] >= 4.5, lowest
