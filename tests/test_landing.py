"""The front page: its numbers are those of the record, and every chapter has its small picture."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import contents
import landing
from bs4 import BeautifulSoup
from matplotlib.image import imread

from course_lib.experiments import records


def bars() -> list[tuple[float, float]]:
    """(width of the bar in percent, the number beside it), from the top."""
    page = BeautifulSoup(landing.result(), "html.parser")
    return [(float(re.search(r"width:([\d.]+)%", row.select_one(".front-bar > span")["style"])[1]),
             float(row.select_one("strong").text.rstrip(" %"))) for row in page.select(".front-row")]


def test_the_bars_show_the_mean_of_the_seeds_and_the_teacher() -> None:
    shown = [number for _, number in bars()]
    runs = records.load("ch01few")["runs"]
    for number, arm in zip(shown, landing.SHOWN, strict=False):
        accuracies = [run["accuracy"] for run in runs if run["arm"] == arm]
        assert len(accuracies) == 10 and number == round(sum(accuracies) / 10, 1)
    assert shown[-1] == 79.1 and len(shown) == len(landing.SHOWN) + 1


def test_a_bar_is_as_long_as_its_number_is_above_the_coin() -> None:
    (short, low), (long, high) = min(bars()), max(bars())
    assert abs(long / short - (high - 50) / (low - 50)) < 0.02
    assert all(0 < width <= 100 for width, _ in bars())


def test_every_chapter_has_a_picture_of_its_own_and_a_rule_that_shows_it() -> None:
    files = [entry.file for entry in contents.entries()]
    assert list(landing.ICONS) == files and len(set(landing.ICONS.values())) == len(files)
    for name, rule in zip(files, landing.stylesheet().splitlines(), strict=True):
        assert rule.startswith(f".front-card.{name.replace('_', '-')} ")
        drawn = BeautifulSoup(unquote(rule.partition("image/svg+xml,")[2].rpartition('"')[0]), "html.parser").svg
        assert drawn["viewbox"] == "0 0 96 40" and drawn.find(["path", "rect", "circle"])


def test_the_page_is_completed_and_the_picture_for_other_sites_has_their_size(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text(f"{landing.RESULT}\n\n{landing.EXPLORER}\n")
    landing.write(tmp_path)
    page = (tmp_path / "index.md").read_text()
    assert "front-result" in page and "course-view" in page and "<!-- RESULT" not in page
    assert imread(tmp_path / "_static" / "social.png").shape[:2] == (630, 1200)
