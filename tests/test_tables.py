"""Tables of results: right numbers with the digits they deserve, verdicts in words and colour, cards on a phone."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from browser import TEXT_RESULTS, open_page
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from view_pages import CONTRAST, HOSTS

from course_lib.notebook.results import Claims, Line, Verdicts, fold
from course_lib.notebook.tables import Table
from course_lib.shared.seeds import Interval, deserved_digits, mean_and_interval, paired_difference
from course_lib.shared.statistics import Gain

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import badges  # noqa: E402
import chapter_files  # noqa: E402

import book  # noqa: E402

WIDTHS = (1400, 820, 390)


def about(mean: float, half: float) -> Interval:
    return Interval(mean, half, mean - half, mean + half, 5)


@pytest.mark.parametrize(("half", "digits"), [
    (0.827, 1), (0.119, 2), (0.367, 1), (0.354, 2), (0.355, 1), (1.4, 1), (3.6, 0), (35.0, 0), (0.0119, 3), (0.0, 2)])
def test_a_number_has_the_digits_that_its_interval_deserves(half: float, digits: int) -> None:
    assert deserved_digits(84.2345 - half, 84.2345 + half) == digits


def test_an_interval_and_a_difference_are_written_with_these_digits() -> None:
    assert str(about(84.2345, 0.827)) == "84.2 (95 % interval 83.4 to 85.1, 5 seeds)"
    found = paired_difference([3.0, 4.1, 5.2], [1.0, 2.0, 3.0])
    assert str(found) == "+2.10 (95 % interval +1.85 to +2.35, 3 seeds): better"


BASE = [70.0, 71.0, 72.0, 73.0, 74.0]
ARMS = {"baseline <b>": BASE, "two points up": [75.0 + n / 8 for n in (0, 9, 17, 25, 33)],
        "down": [69.0, 70.1, 71.0, 72.1, 73.0], "the same": [70.4, 70.5, 72.3, 72.8, 74.1]}


def verdicts() -> Verdicts:
    return Verdicts(tuple(
        Line(name, mean_and_interval(values), None if values is BASE else paired_difference(values, BASE))
        for name, values in ARMS.items()), "accuracy", "baseline <b>")


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.S)).split())


def test_a_summary_shows_mean_gain_and_verdict_in_words_and_colour() -> None:
    html = verdicts()._repr_html_()
    assert "two points up 76.1" not in html  # mean and name are cells of their own
    found = words(html)
    assert "baseline &lt;b&gt; 72.0 [70.0, 74.0] the baseline" in found
    assert "down 71.0 [69.1, 73.0] −0.96 [−1.03, −0.89] ▼ worse" in found
    assert "▲ better" in found and "○ no difference shown" in found
    assert 'class="cv-verdict cv-better"' in html and 'class="cv-verdict cv-worse"' in html
    assert html.count("<svg") == 3 and html.count('aria-hidden="true"') == 3
    assert html == verdicts()._repr_html_()


def test_a_summary_is_a_sequence_of_its_lines_and_text_where_there_is_no_html() -> None:
    found = verdicts()
    assert [line.arm for line in found] == list(ARMS) and found[1:][0].arm == "two points up" and len(found) == 4
    lines = repr(found).splitlines()
    assert len(lines) == 5 and lines[0].split() == [
        "arm", "accuracy", "gain", "over", "baseline", "<b>", "verdict"]
    assert re.search(r"^down +71\.0 \[69\.1, 73\.0\] +−0\.96 \[−1\.03, −0\.89\] +worse$", lines[3])


def test_a_difference_is_never_rounded_onto_the_zero_that_its_verdict_denies() -> None:
    just = paired_difference([1.81, 1.0, 0.4, 0.15, 0.71], [0.0] * 5)
    assert just.verdict == "better" and f"{just.interval.low:+.1f}" == "+0.0"
    assert "+0.81 [+0.02, +1.61]" in repr(Verdicts((Line("a", about(80.0, 0.8), just),), "x", "b"))


def test_what_is_rounded_to_zero_has_no_sign() -> None:
    none = paired_difference([0.3, -0.4, 0.2, -0.3, 0.1], [0.0] * 5)
    assert "  0.0 [−0.4, +0.4]  " in repr(Verdicts((Line("a", about(80.0, 0.8), none),), "x", "b"))


def test_the_bars_of_a_table_share_one_scale_with_its_zero() -> None:
    html = verdicts()._repr_html_()
    zeros = re.findall(r'class="cv-zero" x1="([\d.]+)"', html)
    wholes = [tuple(map(float, ends)) for ends in re.findall(r'class="cv-whole" x1="([\d.]+)" x2="([\d.]+)"', html)]
    assert len(set(zeros)) == 1 and 4 <= float(zeros[0]) <= 116
    up, down, same = wholes
    assert down[1] < float(zeros[0]) < up[0] and same[0] < float(zeros[0]) < same[1]
    assert min(low for low, _ in wholes) == 4.0 and max(high for _, high in wholes) == 116.0


def test_claims_stand_beside_what_was_measured() -> None:
    table = Claims([("more is better", "-4.6", paired_difference(ARMS["down"], BASE)),
                    ("it is large", "98 %", about(97.6, 0.4)), ("it is fast", "", "33 times")])
    found = words(table._repr_html_())
    assert Claims([("a", "", Gain(1.26, 0.31, 2.2, 0.95, 10, 3323))])._repr_html_().count(" cv-better\"") == 2
    assert "more is better −4.6 −0.96 [−1.03, −0.89] ▼ worse" in found
    assert "it is large 98 % 97.6 [97.2, 98.0]" in found and "it is fast 33 times" in found
    assert repr(table).splitlines()[3].split() == ["it", "is", "fast", "33", "times"]


def test_what_the_learner_measured_stands_beside_it() -> None:
    gain = Gain(1.26, 0.31, 2.2, 0.95, 10, 3323)
    table = Claims([("a", "", gain), ("b", "2", gain)], you=["-3.5", "+12.0"])
    cells = [[cell.get_text() for cell in row.select("th, td")] for row in BeautifulSoup(
        table._repr_html_(), "html.parser").select("tr")]
    assert [row[-1] for row in cells] == ["you, one start", "−3.5", "+12.0"]
    assert "you, one start" not in Claims([("a", "", gain)])._repr_html_()
    with pytest.raises(ValueError, match="1 results of yours for 2 claims"):
        Claims([("a", "", gain), ("b", "2", gain)], you=["1"])


def test_what_is_folded_keeps_its_content_and_needs_one() -> None:
    table = Table("Costs", ["method", "steps"], [["PKD", "300"]])
    for shown, inside in ((table, "<td data-label=\"steps\">300</td>"), ("a < b", "a &lt; b"),
                          (verdicts(), "cv-verdict")):
        folded = fold(shown, "Open & see")
        html = folded._repr_html_()
        assert '<details class="cv-fold"><summary>Open &amp; see</summary>' in html and inside in html
        assert repr(folded).splitlines()[0] == "Open & see" and len(repr(folded).splitlines()) > 1
    with pytest.raises(TypeError, match="a int shows itself as text only"):
        fold(3, "three")


# --- in a browser ----------------------------------------------------------------------------------------------------


def page_of(*shown: object, host: str = "book") -> str:
    opening, background, colour = HOSTS[host]
    look = f"<style>body{{margin:8px;background:{background};color:{colour}}}</style>"
    return f"<!doctype html>{opening}<meta charset=utf-8>{look}{''.join(one._repr_html_() for one in shown)}"


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_needs_no_sideways_scrolling(width: int) -> None:
    wide = Table("Many columns", [f"column {n}" for n in range(8)], [[f"value {n}" for n in range(8)]] * 2)
    with open_page(width) as watched:
        watched.page.set_content(page_of(verdicts(), fold(wide, "More")))
        watched.page.locator("summary").click()
        assert watched.sideways_overflow() == 0
        assert watched.too_wide(".course-view :is(table, td, th, caption)") == []
        name = watched.page.locator("tbody th").nth(1).bounding_box()
        mean = watched.page.locator("tbody tr").nth(1).locator("td").first
        below = mean.bounding_box()["y"] >= name["y"] + name["height"] - 1
        assert below is (width == 390), "a row is a card on a phone, and only there"
        label = mean.evaluate("e => getComputedStyle(e, '::before').content")
        assert (label == '"accuracy: "') is (width == 390)
        watched.check()


@pytest.mark.browser
@pytest.mark.parametrize("host", HOSTS)
def test_verdicts_have_the_contrast_of_wcag_aa(host: str) -> None:
    claims = Claims([("more", "4.6", paired_difference(ARMS["two points up"], BASE))])
    with open_page() as watched:
        watched.page.set_content(page_of(verdicts(), claims, host=host))
        lowest = watched.page.evaluate(CONTRAST.replace(".cv-stage *", ".course-view *"), HOSTS[host][1])
        assert len(lowest) == 3 and lowest[0][0] >= 4.5, lowest


@pytest.mark.browser
@pytest.mark.slow
def test_a_page_of_the_book_shows_results_whole_and_plumbing_folded(tmp_path: Path) -> None:
    """A book of one page, with the course's settings and styles: a long printed line, tables, and folded code."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "references.bib").write_text("")
    (source / "_static").mkdir()
    for file in (ROOT / "book" / "_static").glob("*.css"):
        (source / "_static" / file.name).write_text(file.read_text("utf-8"))
    (source / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    settings = badges.config(yaml.safe_load((ROOT / "book" / "_config.yml").read_text("utf-8")))
    (source / "_config.yml").write_text(yaml.safe_dump(settings))
    shutil.copytree(ROOT / "book" / "_static", source / "_static", dirs_exist_ok=True)

    def shown(one: object) -> nbformat.NotebookNode:
        return new_output("execute_result", {"text/plain": repr(one), "text/html": one._repr_html_()})

    long = "  We, half of the layers: " + "+0.123 (95 % interval -0.1 to +0.4, 5 seeds), " * 3 + "better\n"
    cells = [new_markdown_cell("# Page"), new_code_cell("x = 1", metadata={"tags": ["hide-input"]}, outputs=[
        new_output("stream", name="stdout", text=long)]), new_code_cell("y", outputs=[shown(verdicts())]),
        new_code_cell("z", outputs=[shown(fold(verdicts(), "More"))])]
    nbformat.write(new_notebook(cells=cells, metadata=chapter_files.METADATA), source / "page.ipynb")
    assert book.run_sphinx(source, tmp_path) == 0
    page = (tmp_path / "_build" / "html" / "page.html").as_uri()
    for width in WIDTHS:
        with open_page(width) as watched:
            watched.page.goto(page)
            for one in watched.page.locator("summary").all():
                if "More" in one.inner_text():
                    one.click()
            assert watched.page.locator(TEXT_RESULTS).count() > 20
            assert watched.too_wide(TEXT_RESULTS) == [] and watched.sideways_overflow() <= 1
            assert not watched.page.locator(".cell_input pre").first.is_visible(), "plumbing is folded"
            assert watched.page.locator(".cell_input pre").nth(1).is_visible()
