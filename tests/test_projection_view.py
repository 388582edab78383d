"""The projection explorer: its numbers are those of real projections, and JavaScript agrees with Python."""

import re

import pytest
import torch
from view_pages import page_of, show_as_module, values

from course_lib.notebook.views.projection import principal_spreads, projection_numbers, projection_view
from course_lib.shared.probes import Reading
from course_lib.shared.projections import Projection, price_of_collapse

WIDTH = 48
QUANTITIES = ("kept", "lost_error", "parameters", "best", "constant", "taught", "bert_parameters")


def states(seed=0, tokens=90):
    """Teacher states whose directions have very different lengths, and whose mean is not 0."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 2 * 0.9 ** torch.arange(WIDTH)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)).Q
    return torch.randn(1, tokens, WIDTH, generator=generator, dtype=torch.float64) * lengths @ rotation + 3.0


STATES = {layer: states(layer) for layer in (0, 1, 2)}


def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [view(), view(side="teacher")]


# ---- The numbers -----------------------------------------------------------------------------------------------------


def test_spreads_are_singular_values_of_the_centred_states():
    rows = STATES[1][0]
    expected = torch.linalg.svdvals(rows - rows.mean(0)) / len(rows) ** 0.5
    torch.testing.assert_close(torch.tensor(principal_spreads(STATES[1]), dtype=torch.float64), expected)
    assert sum(s**2 for s in principal_spreads(rows)) / WIDTH == pytest.approx(price_of_collapse(rows).item())


def test_padding_is_not_a_direction():
    padded = torch.cat([STATES[1], torch.full((1, 7, WIDTH), 50.0)], dim=1)
    mask = torch.tensor([[1] * 90 + [0] * 7])
    assert principal_spreads(padded, mask) == pytest.approx(principal_spreads(STATES[1]))
    assert principal_spreads(padded)[0] > 2 * principal_spreads(STATES[1])[0]


def real_loss(side, scale, width, constant):
    """The loss of `Projection` itself, for a student that holds the principal components, or nothing."""
    teacher = STATES[1][0] - STATES[1][0].mean(0)
    directions = torch.linalg.svd(teacher, full_matrices=False).Vh[:width]  # (k, d), orthonormal rows
    projection = Projection(width, WIDTH, side=side).double()
    with torch.no_grad():
        projection.blocks.weight.copy_(scale * (directions.T if side == "student" else directions))
        best = teacher @ directions.T * (1.0 if side == "student" else scale)
        ours, theirs = projection(torch.zeros_like(best) if constant else best, teacher, layer=1)
    return (ours - theirs).pow(2).mean().item()


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("scale", [1.0, 0.4, 0.0])
@pytest.mark.parametrize("width", [16, 24, WIDTH])
def test_the_losses_are_those_of_a_real_projection(side, scale, width):
    numbers = projection_numbers(principal_spreads(STATES[1]), width, side=side, scale=scale)
    assert numbers["best"] == pytest.approx(real_loss(side, scale, width, constant=False), abs=1e-12)
    assert numbers["constant"] == pytest.approx(real_loss(side, scale, width, constant=True), abs=1e-12)
    assert numbers["taught"] == pytest.approx(numbers["constant"] - numbers["best"])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_the_parameters_are_those_of_a_real_projection(side, bias):
    projection = Projection(20, WIDTH, side=side, maps="shared", bias=bias)
    counted = sum(parameter.numel() for parameter in projection.parameters())
    numbers = projection_numbers([1.0] * WIDTH, 20, side=side)
    assert numbers["parameters_with_bias" if bias else "parameters"] == counted


def test_the_sizes_of_the_question_768_to_256_and_back():
    numbers = projection_numbers([1.0] * 384, 128)
    assert (numbers["bert_width"], numbers["bert_parameters"]) == (256, 196_608)
    assert numbers["parameters"] == 49_152


def test_a_shrinking_map_frees_the_constant_student_on_the_teachers_side_only():
    spreads = principal_spreads(STATES[1])
    price = price_of_collapse(STATES[1][0]).item()
    for scale in (1.0, 0.5, 0.1, 0.0):
        assert projection_numbers(spreads, 16, side="student", scale=scale)["constant"] == pytest.approx(price)
    falling = [projection_numbers(spreads, 16, side="teacher", scale=scale)["constant"] for scale in (1.0, 0.5, 0.1, 0)]
    assert falling == sorted(falling, reverse=True) and falling[-1] == 0.0


def test_more_width_keeps_more_and_the_full_width_loses_nothing():
    spreads = principal_spreads(STATES[1])
    kept = [projection_numbers(spreads, width)["kept"] for width in range(1, WIDTH + 1)]
    assert kept == sorted(kept) and kept[-1] == 1.0
    assert projection_numbers(spreads, WIDTH)["lost_error"] == 0.0


@pytest.mark.parametrize(("options", "says"), [
    ({"width": 49}, "from 1 to the teacher's 48"), ({"width": 0}, "from 1"), ({"width": 1.5}, "whole number"),
    ({"width": 16, "side": "both"}, "side must be"), ({"width": 16, "scale": 1.1}, "outside 0 to 1"),
])
def test_impossible_numbers_are_refused(options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        projection_numbers([1.0] * WIDTH, **options)


# ---- The view --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "options", "says"), [
    (STATES, {"width": 8}, "from 16 to 48"), (STATES, {"layer": 9}, "there are [0, 1, 2]"),
    (STATES, {"side": "both", "width": 16}, "side must be"),
    ({1: torch.ones(1, 9, WIDTH)}, {"width": 16}, "All states are equal"),
    ({1: torch.ones(1, 1, WIDTH)}, {"width": 16}, "1 real tokens"),
    ({1: [1.0] * 20, 2: [1.0] * 24}, {"width": 16}, "one width"),
    ({1: [2.0, -1.0] * 10}, {"width": 16}, "not negative"),
    ([1.0, 2.0], {}, "probes.Reading"),
])
def test_a_wrong_input_is_explained(given, options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        projection_view(given, **options)


def view(**options):
    return projection_view(STATES, **{"width": 24, **options})


def stored(shown, layer=-1):
    return shown.data["layers"][layer][1]


def test_a_reading_brings_its_own_mask():
    padded = torch.cat([STATES[1], torch.full((1, 3, WIDTH), 50.0)], dim=1)
    mask = torch.tensor([[1] * 90 + [0] * 3])
    reading = Reading(None, {0: padded, 1: padded}, {}, {}, {}, mask)
    assert stored(projection_view(reading, width=24)) == pytest.approx(principal_spreads(STATES[1]), rel=1e-4)


def test_seven_layers_of_width_384_stay_small():
    generator = torch.Generator().manual_seed(0)
    layers = {layer: torch.randn(500, 384, generator=generator) for layer in range(7)}
    html = projection_view(layers)._repr_html_()
    assert len(html.encode()) < 60_000


def test_the_table_has_the_numbers_without_a_script():
    html = view()._repr_html_()
    row = re.search(r'<th scope="row">24</th>(.*?)</tr>', html)[1]
    numbers = projection_numbers(stored(view()), 24)
    assert f"{100 * numbers['kept']:.1f} %" in row and f"{24 * WIDTH:,}" in row


# ---- In a real browser -----------------------------------------------------------------------------------------------


def set_slider(page, control, value):
    page.eval_on_selector(f"[data-control={control}]", """(slider, value) => {
        slider.value = value; slider.dispatchEvent(new Event("input", { bubbles: true })); }""", value)


def shown_numbers(page):
    return {name: values(page, f"[data-quantity={name}]")[0] for name in QUANTITIES}


def agrees(page, spreads, width, side, scale):
    numbers = projection_numbers(spreads, width, side=side, scale=scale)
    assert shown_numbers(page) == pytest.approx({name: numbers[name] for name in QUANTITIES}, rel=1e-9, abs=1e-12)


@pytest.mark.browser
def test_javascript_and_python_agree_over_all_controls(watched):
    page, shown = watched.page, view()
    page.set_content(page_of(shown))
    for layer in (0, 2):
        page.select_option("[data-control=layer]", index=layer)
        for side in ("student", "teacher"):
            page.click(f"[data-side={side}]")
            for width in (16, 20, 32, 48):
                set_slider(page, "width", width)
                for scale in (100, 37, 1, 0):
                    set_slider(page, "scale", scale)
                    agrees(page, stored(shown, layer), width, side, scale / 100)
    watched.check()


@pytest.mark.browser
def test_sliders_and_buttons_obey_the_keyboard_and_say_their_values(watched):
    page, shown = watched.page, view()
    page.set_content(page_of(shown))
    width, scale = page.locator("[data-control=width]"), page.locator("[data-control=scale]")
    for key, value in (("Home", 16), ("ArrowRight", 20), ("End", 48), ("ArrowLeft", 44)):
        width.press(key)
        assert width.get_attribute("aria-valuetext") == f"{value} of 48"
        agrees(page, stored(shown), value, "student", 1.0)
    page.locator("[data-side=teacher]").press("Enter")
    scale.press("Home")
    assert scale.get_attribute("aria-valuetext") == "scale 0.00"
    agrees(page, stored(shown), 44, "teacher", 0.0)
    page.wait_for_function("document.querySelector('[aria-live=polite]').textContent.includes('trivial optimum')")
    page.locator("[data-side=student]").press(" ")
    assert values(page, "[data-quantity=constant]")[0] > 0.01
    watched.check()


@pytest.mark.browser
def test_everything_can_be_reached_by_tab_and_shows_the_focus(watched):
    page = watched.page
    page.set_content(page_of(view()))
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => { const e = document.activeElement;
            return [e.dataset.control || e.dataset.side || e.dataset.preset, getComputedStyle(e).outlineStyle]; }""")
        reached.append(name)
        assert outline == "solid", name
        assert page.evaluate("document.activeElement.hasAttribute('data-lm-suppress-shortcuts')"), name
    assert {"The trap", "student", "teacher", "layer", "width", "scale"} <= set(reached)


@pytest.mark.browser
def test_the_presets_go_to_their_places(watched):
    page, shown = watched.page, view()
    page.set_content(page_of(shown))
    for preset in shown.data["presets"]:
        page.get_by_role("button", name=preset["name"]).click()
        agrees(page, stored(shown), preset["width"], preset["side"], preset["scale"])
        assert page.get_by_role("button", name=preset["name"]).get_attribute("aria-pressed") == "true"
    assert "Teacher" in page.inner_text("[aria-pressed=true][data-side]")
    watched.check()


@pytest.mark.browser
def test_two_views_on_one_page_live_apart(watched):
    page, shown = watched.page, view()
    page.set_content(page_of(shown, shown))
    page.locator("[data-side=teacher]").nth(1).click()
    assert values(page, "[data-quantity=best]") == [projection_numbers(stored(shown), 24)["best"], 0.0]
    watched.check()


@pytest.mark.browser
def test_the_module_is_an_anywidget_module(watched):
    page, shown = watched.page, view()
    show_as_module(page, shown)
    agrees(page, stored(shown), 24, "student", 1.0)
    watched.check()
