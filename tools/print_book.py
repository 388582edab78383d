"""The book to take away: one page that holds everything (print.html), a PDF of it, and a zip of all pages.

`make book` calls this after the pages are built. The PDF is printed by headless Chromium, if there is one; nothing else
needs it. In print an explorer shows its first state and its numbers, and a quiz shows its questions: no dead buttons.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag

# Made from docstrings and for makers; they are to be searched, not to be read in a row.
NOT_PRINTED = ("library", "add_a_paper", "instructors", "changelog")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FOOTER = """<div style="font: 8px sans-serif; width: 100%; text-align: center; color: #555">
<span class="title"></span> · <span class="pageNumber"></span></div>"""


def page_names(toc: Path) -> list[str]:
    """The pages to print, in the order of the side bar: "index", "notebooks/ch01_hinton", ..."""
    content = yaml.safe_load(toc.read_text(encoding="utf-8"))
    names = [content["root"], *(chapter["file"] for part in content["parts"] for chapter in part["chapters"])]
    return [name for name in names if name not in NOT_PRINTED]


def slug(name: str) -> str:
    return name.rpartition("/")[2]


def article(html: Path, name: str, printed: list[str]) -> Tag:
    """The body of one page, ready to stand beside the others: own ids, links that lead to the right place."""
    page = BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    body = page.select_one("article.bd-article")
    body["id"] = slug(name)
    for mark in body.select("a.headerlink, button.copybtn"):
        mark.decompose()
    for fold in body.select("details.cv-fold"):
        fold["open"] = ""  # paper has nothing to click on
    for tag in body.select("[id]"):
        if tag is not body:
            tag["id"] = f"{slug(name)}--{tag['id']}"
    folder = (html / name).parent
    for attribute in ("src", "href"):
        for tag in body.select(f"[{attribute}]"):
            target = moved(tag[attribute], name, folder, html, printed)
            if target is None:
                tag.unwrap()  # it led to a page that is not printed
            else:
                tag[attribute] = target
    for tag in body.select("[aria-labelledby], label[for]"):
        for attribute in ("aria-labelledby", "for"):
            if tag.get(attribute):
                tag[attribute] = f"{slug(name)}--{tag[attribute]}"
    return body


def moved(address: str, name: str, folder: Path, html: Path, printed: list[str]) -> str | None:
    """Where a link or picture of page `name` leads from the single page; None for a page that is not printed."""
    path, _, fragment = address.partition("#")
    if ":" in path.split("/")[0]:
        return address  # https: mailto: data:
    to = name if not path else os.path.relpath(folder / path, html).removesuffix(".html")
    if path and not path.endswith(".html"):
        return os.path.relpath(folder / path, html)
    if to not in printed:
        return None
    return f"#{slug(to)}--{fragment}" if fragment else f"#{slug(to)}"


def single_page(html: Path, toc: Path) -> Path:
    """Write print.html: all pages in one, in order, each with its own start of a page."""
    printed = page_names(toc)
    index = BeautifulSoup((html / "index.html").read_text(encoding="utf-8"), "html.parser")
    styles = "\n".join(str(link) for link in index.select('head link[rel="stylesheet"]'))
    maths = "\n".join(str(script) for script in index.select("head script") if "MathJax" in str(script))
    title = index.select_one("h1").find(string=True).strip()
    articles = "\n".join(str(article(html, name, printed)) for name in printed)
    page = html / "print.html"
    page.write_text(f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{styles}
{maths}
</head>
<body class="whole-book"><main class="bd-content bd-main">
{articles}
</main></body></html>
""", encoding="utf-8")
    return page


def chromium_path() -> str | None:
    """The browser to drive: the variable CHROMIUM, or the first of the usual names on the PATH."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in CHROMIUM if (found := shutil.which(name))), None)


# True when all formulas of a page are set, or when it has none.
READY = """() => !document.querySelector('.math') || (window.MathJax && MathJax.Hub && MathJax.Hub.queue.pending === 0
    && !MathJax.Hub.queue.running && document.querySelector('.MathJax') !== null)"""


def pdf(page: Path, target: Path) -> str:
    """Print the single page. Returns an empty text, or one sentence that says why there is no PDF."""
    target.unlink(missing_ok=True)
    chromium = chromium_path()
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        return "No PDF: the package playwright is missing."
    if chromium is None:
        return "No PDF: no Chromium found (apt-get install chromium, or set CHROMIUM to its path)."
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=["--no-sandbox"])
            sheet = browser.new_page()
            sheet.set_default_timeout(300_000)
            sheet.emulate_media(media="print")  # before the formulas are set: they measure the width of the page
            sheet.goto(page.as_uri(), wait_until="load")
            sheet.wait_for_function(READY)
            sheet.pdf(path=str(target), format="A4", scale=0.8, outline=True, tagged=True, display_header_footer=True,
                      header_template="<span></span>", footer_template=FOOTER, print_background=True,
                      margin={"top": "18mm", "bottom": "18mm", "left": "18mm", "right": "18mm"})
            browser.close()
    except Error as error:
        target.unlink(missing_ok=True)
        return f"No PDF: Chromium could not print the book ({str(error).splitlines()[0]})."
    return ""


def pack(html: Path, target: Path) -> None:
    """Zip all pages; index.html in it opens from the disk, without a server and without the network."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(html.rglob("*")):
            if path.is_file() and path.name not in (".buildinfo", "objects.inv"):
                file.write(path, Path("course-book") / path.relative_to(html))
