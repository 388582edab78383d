"""The Pareto picture: a front that nobody beats, claims that respect their intervals, equal numbers in the browser."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_pages import page_of, show_as_module

from course_lib.notebook.views import comparable
from course_lib.notebook.views.pareto import Axis, Point, best_within, front, pareto_numbers, pareto_view, verdict
from course_lib.shared.seeds import mean_and_interval, paired_difference

XS = [Axis("size", "parameters, millions"), Axis("time", "time, share of the teacher's", 3)]
YS = [Axis("accuracy", "accuracy, %", 2, teacher=86.6), Axis("agreement", "agreement, %")]
LUCK = (0.0, 0.3, -0.2, 0.1, -0.2)


def point(name, size, time, accuracy, agreement, baseline=False, luck=LUCK):
    return Point(name, {"size": size, "time": time}, baseline=baseline, note="a note" if baseline else "", y={
        "accuracy": [accuracy + one for one in luck], "agreement": [agreement - one for one in luck]})


POINTS = [point("tiny", 4.4, 0.06, 77.0, 80.0), point("half", 17.4, 0.5, 84.5, 89.0),
          point("half, again", 17.4, 0.52, 84.4, 89.5, luck=LUCK[::-1]),
          point("plain", 17.4, 0.5, 84.1, 88.8, baseline=True), point("worse and larger", 20.0, 0.7, 80.0, 85.0),
          point("narrow", 5.8, 0.2, 79.0, 83.0, baseline=True)]


def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [pareto_view(POINTS, XS, YS)]


# ---- The numbers -----------------------------------------------------------------------------------------------------

PLACES = st.lists(st.tuples(st.integers(1, 6).map(float), st.integers(1, 6).map(float)), max_size=9)


@settings(max_examples=300, deadline=None)
@given(PLACES)
def test_the_front_is_exactly_what_nobody_beats(points):
    def beats(b, a):
        return b[0] <= a[0] and b[1] >= a[1] and b != a
    found = front(points)
    assert sorted(found) == [i for i, a in enumerate(points) if not any(beats(b, a) for b in points)]
    assert [points[i] for i in found] == sorted(points[i] for i in found)


@settings(max_examples=200, deadline=None)
@given(PLACES, st.integers(0, 7))
def test_the_best_within_a_limit_lies_on_the_front(points, limit):
    found = best_within(points, limit)
    allowed = [score for cost, score in points if cost <= limit]
    if not allowed:
        assert found is None
    else:
        assert points[found][0] <= limit and points[found][1] == max(allowed)
        assert found in front(points)


def test_two_equal_points_are_both_on_the_front_and_the_first_is_named():
    twice = [(2.0, 5.0), (1.0, 3.0), (2.0, 5.0)]
    assert front(twice) == [1, 0, 2] and best_within(twice, 9) == 0


def test_what_is_said_about_two_points_is_their_paired_difference():
    found = pareto_numbers(POINTS, "size", "accuracy")
    assert found["front"] == ["tiny", "narrow", "half"]
    assert (found["best"], found["alike"]) == ("half", ["half, again"])
    gap = paired_difference(POINTS[1].y["accuracy"], POINTS[5].y["accuracy"]).interval
    assert found["steps"][1] == (gap.mean, gap.low, gap.high)
    assert pareto_numbers(POINTS, "size", "accuracy", baselines=False)["front"] == ["tiny", "half"]
    small = pareto_numbers(POINTS, "size", "accuracy", 5.0)
    assert (small["best"], small["alike"]) == ("tiny", [])
    assert pareto_numbers(POINTS, "size", "accuracy", 1.0)["best"] is None


def test_a_verdict_in_words_needs_its_interval():
    assert verdict(0.4, 0.1, 0.7) == "+0.40 [+0.10, +0.70]: better"
    assert verdict(0.4, -0.1, 0.9).endswith("not distinguishable")
    assert verdict(-0.4, -0.7, -0.1).endswith("worse")


@pytest.mark.parametrize(("make", "says"), [
    (lambda: pareto_view(POINTS[:1], XS, YS), "two points or more"),
    (lambda: pareto_view([POINTS[0], POINTS[0]], XS, YS), "same name"),
    (lambda: pareto_view([*POINTS, point("free", 0.0, 1, 1, 1)], XS, YS), "'free' has no 'size' above 0"),
    (lambda: pareto_view([*POINTS, point("few", 1, 1, 1, 1, luck=(0.0, 1.0))], XS, YS), "'few': 'accuracy' needs 5"),
])
def test_a_wrong_input_is_explained(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


# ---- The output ------------------------------------------------------------------------------------------------------


def test_the_view_is_small():
    assert len(pareto_view(POINTS, XS, YS)._repr_html_()) < 45_000


def test_the_numbers_are_readable_without_a_script():
    html = comparable(pareto_view(POINTS, XS, YS)._repr_html_())
    assert "<script" not in html and html.count("<table") == 3
    row = re.search(r'<th scope="row">half</th>(.*?)</tr>', html)[1]
    found = mean_and_interval(POINTS[1].y["accuracy"])
    assert re.findall(r"<td>(.*?)</td>", row)[:4] == [
        "method", "17.40", "0.500", f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"]
    assert "not distinguishable" not in html.split("The front for")[1]


# ---- In a real browser -----------------------------------------------------------------------------------------------


@pytest.fixture
def watched(watched):
    watched.page.set_content(page_of(pareto_view(POINTS, XS, YS)))
    return watched


def limit_of(page):
    said = page.get_attribute("[data-quantity=limit]", "data-value")
    return float("inf") if said is None else float(said)


def assert_same(page, x, y, baselines=True):
    wanted = pareto_numbers(POINTS, x, y, limit_of(page), baselines=baselines)
    read = page.evaluate("""() => ({
        front: [...document.querySelectorAll("[data-front]")].map(e => e.dataset.front),
        steps: [...document.querySelectorAll("[data-step]")].map(e => JSON.parse(e.dataset.step)),
        shown: [...document.querySelectorAll("[data-point]")].map(e => e.dataset.point),
        best: document.querySelector("[data-best]").dataset.best,
        alike: JSON.parse(document.querySelector("[data-alike]").dataset.alike) })""")
    assert read["front"] == wanted["front"] and read["shown"] == wanted["shown"]
    assert (read["best"] or None, read["alike"]) == (wanted["best"], wanted["alike"])
    for ours, theirs in zip(read["steps"], wanted["steps"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-9)
    return wanted


@pytest.mark.browser
def test_javascript_and_python_agree_for_every_choice(watched):
    page, seen = watched.page, set()
    for i, x in enumerate(XS):
        page.select_option("[data-control=x]", str(i))
        for j, y in enumerate(YS):
            page.select_option("[data-control=y]", str(j))
            for step in ("0", "40", "90", "130", "170", "200"):
                page.locator("[data-control=limit]").fill(step)
                for shown in (False, True):
                    page.locator("[data-control=baselines]").click()
                    seen.add(assert_same(page, x.key, y.key, shown)["best"])
    assert {None, "tiny", "half"} <= seen
    watched.check()


@pytest.mark.browser
def test_a_linear_axis_moves_the_limit_and_not_the_verdict(watched):
    page = watched.page
    page.locator("[data-control=limit]").fill("100")
    logarithmic = limit_of(page)
    page.locator("[data-control=log]").click()
    assert limit_of(page) == float("inf")
    page.locator("[data-control=limit]").fill("100")
    assert limit_of(page) == pytest.approx(20 * 1.06 / 2) != logarithmic
    assert_same(page, "size", "accuracy")
    watched.check()


@pytest.mark.browser
def test_the_front_in_random_places_is_pythons(watched):
    """The pure function alone, on many small cases with equal values."""
    import random

    code = pareto_view(POINTS, XS, YS).module()
    numbers = random.Random(0)
    cases = [[[float(numbers.randint(1, 5)), float(numbers.randint(1, 5))] for _ in range(numbers.randint(1, 9))]
             for _ in range(200)]
    found = watched.page.evaluate("""async ([code, cases]) => {
        const module = await import(URL.createObjectURL(new Blob([code + "\\nexport { front, bestWithin };"],
                                                                 { type: "text/javascript" })));
        return cases.map(one => [module.front(one), module.bestWithin(one, 3)]); }""", [code, cases])
    assert found == [[front(one), best_within(one, 3)] for one in cases]


@pytest.mark.browser
def test_the_keyboard_walks_from_the_cheapest_to_the_dearest(watched):
    page = watched.page
    page.locator(".cv-chart").focus()
    for key, name in (("ArrowRight", "tiny"), ("ArrowRight", "narrow"), ("ArrowLeft", "tiny"), ("ArrowLeft", "tiny"),
                      ("End", "worse and larger"), ("Home", "tiny"), ("ArrowRight", "narrow")):
        page.keyboard.press(key)
        assert page.get_attribute("[data-chosen]", "data-chosen") == name
    assert "a note" in page.inner_text("[data-chosen]") and "Against half: −5.50" in page.inner_text("[data-chosen]")
    page.wait_for_function("document.querySelector('[aria-live]').textContent.startsWith('narrow')")
    slider = page.locator("[data-control=limit]")
    slider.press("ArrowLeft")
    assert limit_of(page) < float("inf") and slider.get_attribute("aria-valuetext").startswith("at most")
    page.locator("[data-control=log]").press("Enter")
    assert page.get_attribute("[data-control=log]", "aria-pressed") == "false"
    watched.check()


@pytest.mark.browser
def test_everything_can_be_reached_by_tab_and_shows_the_focus(watched):
    page, reached = watched.page, []
    for _ in range(7):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => { const e = document.activeElement;
            return [e.dataset.control || e.className, getComputedStyle(e).outlineStyle]; }""")
        reached.append(name)
        assert outline == "solid", name
    assert {"x", "log", "y", "baselines", "limit", "cv-chart"} <= set(reached)


@pytest.mark.browser
def test_a_click_chooses_and_a_hidden_baseline_is_no_longer_chosen(watched):
    page = watched.page
    page.locator("[data-point=plain] .cv-halo").click()
    assert page.get_attribute("[data-chosen]", "data-chosen") == "plain"
    page.locator("[data-control=baselines]").click()
    assert page.get_attribute("[data-chosen]", "data-chosen") == ""
    assert "half" in page.get_attribute(".cv-chart svg", "aria-label")
    watched.check()


@pytest.mark.browser
def test_two_pictures_on_one_page_and_an_anywidget_module(watched):
    page, view = watched.page, pareto_view(POINTS, XS, YS)
    page.set_content(page_of(view, view))
    page.locator("[data-control=baselines]").nth(1).click()
    assert page.locator("[data-point]").count() == 2 * len(POINTS) - 2
    show_as_module(page, view)
    assert_same(page, "size", "accuracy")
    watched.check()
