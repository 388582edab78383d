"""Theseus' film: the library's schedules, the same numbers in the browser, and a film that obeys its viewer."""

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
from view_pages import page_of, show_as_module, values

from course_lib.methods.theseus import TheseusRecipe, constant_rate, layer_path, linear_rate
from course_lib.notebook.views import comparable
from course_lib.notebook.views.theseus import default_presets, draw_chances, drawn, theseus_numbers, theseus_view

STEPS = 300
LINEAR = TheseusRecipe(3, "linear", base=0.3, k=0.0035)
CONSTANT = TheseusRecipe(3, "constant", rate=0.5, replacing_steps=150)
CHANCES = draw_chances(STEPS, 3)


def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [theseus_view(), theseus_view(modules=6), theseus_view(modules=12, layers_per_module=4)]


# ---- The numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 100, 149, 150, 200, 299])
def test_a_frame_says_what_the_library_says(step):
    for recipe, schedule in ((LINEAR, partial(linear_rate, base=0.3, k=0.0035)),
                             (CONSTANT, partial(constant_rate, rate=0.5, replacing_steps=150))):
        found = theseus_numbers(recipe, CHANCES, step)
        rate = schedule(step)
        assert found["rate"] == rate and found["expected"] == pytest.approx(3 * rate)
        assert found["path"] == layer_path(found["draws"], 2)
        assert found["replaced"] == sum(found["draws"]) and found["nobody"] == pytest.approx((1 - rate) ** 3)


def test_what_was_learned_and_what_was_idle_are_counts_of_the_draws():
    found = theseus_numbers(LINEAR, CHANCES, 120)
    draws = [drawn(LINEAR, CHANCES, step) for step in range(121)]
    assert found["learned"] == [sum(column) for column in zip(*draws, strict=True)]
    assert found["idle"] == draws.count([False] * 3) > 0
    assert found["recent"] == pytest.approx(sum(map(sum, draws[-20:])) / 20)
    assert theseus_numbers(LINEAR, CHANCES, 0)["recent"] == sum(draws[0])


def test_the_chance_of_a_replacement_is_the_rate_and_each_module_has_its_own():
    chances = draw_chances(1000, 6, seed=3)
    draws = [drawn(TheseusRecipe(6, "constant", rate=0.3), chances, step) for step in range(1000)]
    for column in zip(*draws, strict=True):
        assert sum(column) / 1000 == pytest.approx(0.3, abs=0.05)
    mixed = sum(0 < sum(row) < 6 for row in draws) / 1000
    assert mixed == pytest.approx(1 - 0.3**6 - 0.7**6, abs=0.04)


def test_a_higher_rate_replaces_the_same_modules_and_more():
    low, high = (TheseusRecipe(3, "constant", rate=rate) for rate in (0.3, 0.7))
    for step in range(STEPS):
        assert all(b or not a for a, b in zip(drawn(low, CHANCES, step), drawn(high, CHANCES, step), strict=True))


def test_at_rate_1_everything_is_replaced_and_the_same_seed_is_the_same_film():
    assert all(all(drawn(CONSTANT, CHANCES, step)) for step in range(150, STEPS))
    assert draw_chances(20, 4, seed=5) == draw_chances(20, 4, seed=5) != draw_chances(20, 4, seed=6)


def test_the_three_presets_are_the_two_schedules_and_the_trap():
    constant, linear, trap = default_presets(3, STEPS).values()
    assert (constant, linear) == (CONSTANT, LINEAR)
    assert [trap.rate_at(step) for step in range(3)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(("make", "says"), [
    (lambda: theseus_numbers(LINEAR, CHANCES, 300), "300 batches"),
    (lambda: theseus_numbers(LINEAR, CHANCES, -1), "count from 0"),
    (lambda: theseus_view({"mine": LINEAR}, modules=4), "3 modules and the film 4"),
    (lambda: theseus_view({}), "at least one schedule"),
    (lambda: theseus_view({"none": replace(CONSTANT, rate=0.0)}), "Replacement rate"),
    (lambda: theseus_view(modules=13), "1 to 12 modules"),
    (lambda: theseus_view(layers_per_module=0), "1 to 4 layers"),
    (lambda: theseus_view(steps=5000), "2 to 1000 batches"),
])
def test_a_wrong_input_is_explained(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


# ---- The output ------------------------------------------------------------------------------------------------------


def test_the_view_is_small_and_brings_its_chances():
    html = theseus_view()._repr_html_()
    assert len(html) < 45_000
    data = json.loads(re.search(r'class="cv-data">(.*?)</script>', html, re.S)[1])
    assert len(data["chances"]) == 3 * 3 * STEPS


def test_the_numbers_are_readable_without_a_script():
    html = comparable(theseus_view()._repr_html_())
    assert "<script" not in html and html.count("<table") == 3
    found = theseus_numbers(CONSTANT, CHANCES, 100)
    row = re.search(r'<th scope="row">100</th>(.*?)</tr>', html)[1]
    cells = re.findall(r"<td>(.*?)</td>", row)
    assert cells[:3] == ["0.500", "1.50", " ".join(found["path"])] and cells[4] == " ".join(map(str, found["learned"]))


# ---- In a real browser -----------------------------------------------------------------------------------------------


@pytest.fixture
def watched(watched):
    watched.page.set_content(page_of(theseus_view()))
    return watched


@contextmanager
def with_a_clock(browser_page, motion="no-preference"):
    """A page of its own whose time stands still until the test lets it run."""
    context = browser_page.context.browser.new_context(reduced_motion=motion, viewport={"width": 1000, "height": 1200})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.clock.install(time=0)
    page.set_content(page_of(theseus_view()))
    page.clock.pause_at(60_000)  # a minute passes
    yield page
    context.close()
    assert errors == []


def go_to(page, step):
    page.locator("[data-control=step]").fill(str(step))


def step_of(page):
    return int(page.get_attribute("[data-quantity=step]", "data-value"))


def assert_same(page, recipe, chances, step, layers_per_module=2):
    wanted = theseus_numbers(recipe, chances, step, layers_per_module)
    for name in ("rate", "expected", "replaced", "nobody", "idle", "recent"):
        assert values(page, f"[data-quantity={name}]") == [pytest.approx(wanted[name], rel=1e-9, abs=1e-12)], name
    assert page.get_attribute(".cv-film", "data-path") == " ".join(wanted["path"])
    assert values(page, "[data-draw]") == wanted["draws"]
    assert values(page, "[data-learned]") == wanted["learned"]


@pytest.mark.browser
def test_javascript_and_python_agree_on_every_schedule(watched):
    page = watched.page
    for name, recipe in default_presets(3, STEPS).items():
        page.get_by_role("button", name=name).click()
        for step in (0, 1, 2, 19, 20, 87, 149, 150, 199, 200, 299):
            go_to(page, step)
            assert_same(page, recipe, CHANCES, step)
    watched.check()


@pytest.mark.browser
def test_edited_numbers_change_the_schedule_and_nonsense_is_refused_with_a_word(watched):
    page = watched.page
    go_to(page, 200)
    for knob, text, recipe in (("rate", "0.35", replace(CONSTANT, rate=0.35)),
                               ("replacing_steps", "", replace(CONSTANT, rate=0.35, replacing_steps=None)),
                               ("replacing_steps", "201", replace(CONSTANT, rate=0.35, replacing_steps=201))):
        page.fill(f"[data-control={knob}]", text)
        assert_same(page, recipe, CHANCES, 200)
    page.locator("[data-schedule=linear]").click()
    assert not page.locator("[data-control=rate]").is_visible()
    page.fill("[data-control=base]", "0.1")
    page.fill("[data-control=k]", "0.00123")
    slow = TheseusRecipe(3, "linear", base=0.1, k=0.00123)
    assert_same(page, slow, CHANCES, 200)
    for knob, text in (("base", "0"), ("base", ""), ("k", "-1"), ("base", "1.5")):
        page.fill(f"[data-control={knob}]", text)
        assert "Please write a number" in page.inner_text(".cv-complaint")
        assert_same(page, slow, CHANCES, 200)
        page.locator(f"[data-control={knob}]").blur()
        assert page.input_value("[data-control=base]") == "0.1" and page.inner_text(".cv-complaint") == ""
    assert page.locator("[data-preset][aria-pressed=true]").count() == 0
    watched.check()


@pytest.mark.browser
def test_a_deeper_ship_has_its_own_paths(watched):
    page = watched.page
    recipe, chances = TheseusRecipe(6, "linear"), draw_chances(400, 6, seed=1)
    page.set_content(page_of(theseus_view({"The paper": recipe}, modules=6, layers_per_module=2, steps=400, seed=1)))
    for step in (0, 250, 399):
        go_to(page, step)
        assert_same(page, recipe, chances, step)
    assert page.locator(".cv-prd").count() == 12 and page.locator(".cv-scc").count() == 6
    watched.check()


@pytest.mark.browser
def test_the_keyboard_steps_and_the_screen_reader_hears_where_the_film_stands(watched):
    page = watched.page
    film = page.locator(".cv-film")
    film.focus()
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 299), ("ArrowRight", 299),
                      ("Home", 0), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        assert step_of(page) == step
    slider = page.locator("[data-control=step]")
    slider.press("End")
    slider.press("ArrowLeft")
    assert step_of(page) == 298 and slider.get_attribute("aria-valuetext") == "batch 298"
    page.locator("[data-control=on]").press("Enter")
    assert step_of(page) == 299
    page.locator("[data-control=back]").press("Space")
    assert step_of(page) == 298
    assert page.locator("[data-control=play]").inner_text() == "Play", "the button kept its own space bar"
    page.wait_for_function("said => document.querySelector('[aria-live]').textContent.startsWith(said)",
                           arg="Batch 298: p = 1.000")
    assert "scc0, scc1, scc2" in page.get_attribute(".cv-scene svg", "aria-label")
    watched.check()


@pytest.mark.browser
def test_everything_can_be_reached_by_tab_and_shows_the_focus(watched):
    page, reached = watched.page, []
    for _ in range(13):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => { const e = document.activeElement;
            const name = e.dataset.control || e.dataset.preset || e.dataset.schedule || e.className;
            return [name, getComputedStyle(e).outlineStyle]; }""")
        reached.append(name)
        assert outline == "solid", name
        assert page.evaluate("document.activeElement.hasAttribute('data-lm-suppress-shortcuts')"), name
    assert {"Linear curriculum", "linear", "rate", "cv-film", "play", "back", "on", "first", "step"} <= set(reached)


@pytest.mark.browser
@pytest.mark.parametrize(("motion", "frame"), [("no-preference", 125), ("reduce", 1000)])
def test_the_film_never_starts_by_itself_and_runs_slowly_where_motion_is_not_wanted(browser_page, motion, frame):
    with with_a_clock(browser_page, motion) as page:
        assert step_of(page) == 0 and page.locator("[data-control=play]").inner_text() == "Play"
        page.locator("[data-control=play]").click()
        page.clock.run_for(3 * frame + 10)
        assert step_of(page) == 3
        page.locator(".cv-film").press("Space")
        page.clock.run_for(5000)
        assert step_of(page) == 3
        page.locator("[data-control=step]").press("Space")
        page.clock.run_for(frame + 10)
        assert step_of(page) == 4
        page.locator(".cv-film").press("ArrowRight")  # to step is to pause
        page.clock.run_for(5000)
        assert step_of(page) == 5
        duration = page.evaluate("getComputedStyle(document.querySelector('.cv-on rect')).transitionDuration")
        assert (duration == "0s") == (motion == "reduce")


@pytest.mark.browser
def test_the_film_stops_at_its_end_and_begins_again(browser_page):
    with with_a_clock(browser_page) as page:
        go_to(page, 297)
        page.locator("[data-control=play]").click()
        page.clock.run_for(1000)
        assert step_of(page) == 299 and page.locator("[data-control=play]").inner_text() == "Play"
        page.locator("[data-control=play]").click()
        page.clock.run_for(260)
        assert step_of(page) == 2
        clock = page.query_selector("[data-quantity=step]")
        page.evaluate("document.body.replaceChildren()")  # the cell is run again while the film plays
        page.clock.run_for(1000)
        assert clock.get_attribute("data-value") == "2", "a film that nobody sees stands still"


@pytest.mark.browser
def test_two_films_on_one_page_run_apart(watched):
    page, view = watched.page, theseus_view()
    page.set_content(page_of(view, view))
    page.locator("[data-control=step]").nth(1).fill("40")
    assert values(page, "[data-quantity=step]") == [0, 40]
    watched.check()


@pytest.mark.browser
def test_the_module_is_an_anywidget_module(watched):
    page, view = watched.page, theseus_view()
    show_as_module(page, view)
    assert_same(page, CONSTANT, CHANCES, 0)
    watched.check()
