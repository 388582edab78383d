"""The layer-map editor: its maps are those of `layer_maps`, and JavaScript says what Python says."""

import json
import re
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_pages import page_of, show_on_a_phone

from course_lib.methods import pkd
from course_lib.notebook.views import comparable
from course_lib.notebook.views.layer_map import KINDS, PRESETS, layer_map_numbers, layer_map_view, preset_numbers
from course_lib.shared import layer_maps

DEPTHS = list(product(range(1, 13), repeat=2))


def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [layer_map_view(3, 6, "uniform"), layer_map_view(6, 12, "uniform"),
            layer_map_view(5, 12, "uniform")]  # the last one is impossible


# ---- The numbers -----------------------------------------------------------------------------------------------------


def test_presets_are_the_published_maps_or_their_own_words_of_refusal():
    rules = {"skip": layer_maps.skip, "last": layer_maps.last, "uniform": layer_maps.uniform, "top": layer_maps.top,
             "bottom": layer_maps.bottom, "distilbert": layer_maps.distilbert, "theseus": layer_maps.groups}
    for (student, teacher), (name, rule) in product(DEPTHS, rules.items()):
        numbers = preset_numbers(name, student, teacher)
        try:
            assert numbers["pairs"] == rule(student, teacher)
            assert numbers["problem"] is None and numbers["terms"]
        except ValueError as why:
            assert (numbers["pairs"], numbers["problem"], numbers["terms"]) == ((), str(why), [])
    assert preset_numbers("distilbert_code", 3, 6)["pairs"] == layer_maps.distilbert(3, 6, as_in="code")


def test_the_terms_of_pkd_skip_name_both_layers():
    texts = [text for _, _, text in preset_numbers("skip", 3, 6, ("hidden",))["terms"]]
    assert texts == ["MSE(student layer 1, teacher layer 2)", "MSE(student layer 2, teacher layer 4)"]
    assert len(preset_numbers("skip", 3, 6)["terms"]) == 2


def test_tinybert_has_one_hidden_term_more_than_attention_terms():
    kinds = [kind for _, kind, _ in preset_numbers("uniform", 3, 6)["terms"]]
    assert (kinds.count(KINDS["hidden"]), kinds.count(KINDS["attention"])) == (4, 3)
    assert any("no attention term" in note for note in preset_numbers("uniform", 3, 6)["notes"])


def test_theseus_makes_no_loss_term_and_takes_two_blocks_each():
    numbers = preset_numbers("theseus", 3, 6)
    assert [line for line, _, _ in numbers["terms"]] == ["1 ← 1, 2", "2 ← 3, 4", "3 ← 5, 6"]
    assert any("no loss terms" in note for note in numbers["notes"])


@pytest.mark.parametrize(("pairs", "terms", "says"), [
    ([], ["hidden"], "The layer map is empty"),
    ([(1, 7)], ["hidden"], "there is no teacher layer 7"),
    ([(4, 6)], ["hidden"], "there is no student layer 4"),
    ([(1, 2)], [], "No kind of term"),
    ([(0, 0), (1, 2)], ["cls"], "Pair (0, 0) compares [CLS] at layer 0"),
    ([(1, 0)], ["copy"], "Pair (1, 0): embeddings"),
    ([(1, 2), (1, 3)], ["copy"], "Student layer 1 cannot start as a copy of 2"),
    ([(1, 2), (2, 4), (3, 6)], ["replace"], "Replacing needs groups"),
    ([(0, 0)], ["attention"], "no pair joins two blocks"),
])
def test_an_impossible_map_is_explained_and_has_no_terms(pairs, terms, says):
    numbers = layer_map_numbers(pairs, 3, 6, terms)
    assert says in numbers["problem"]
    assert numbers["terms"] == numbers["notes"] == []


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1))
def test_cls_is_impossible_exactly_where_pkd_refuses_the_map(pairs):
    import torch

    states = {layer: torch.ones(1, 2, 3) for layer in range(5)}
    problem = layer_map_numbers(sorted(pairs), 2, 4, ["cls"])["problem"]
    if problem is None:
        pkd.matched_cls(states, states, tuple(sorted(pairs)))
    else:
        with pytest.raises(ValueError, match="layer 0"):
            pkd.matched_cls(states, states, tuple(sorted(pairs)))


def test_a_possible_map_may_still_deserve_a_word():
    notes = layer_map_numbers([(1, 4), (2, 6)], 3, 6, ["cls"])["notes"]
    assert "PKD leaves it out" in notes[0]
    assert notes[1:] == ["Student layer without a line: 3.", "Teacher layers without a line: 1, 2, 3 and 5."]
    assert "Lines cross" in layer_map_numbers([(1, 4), (2, 3)], 3, 6, ["hidden"])["notes"][0]


@pytest.mark.parametrize(("options", "says"), [
    ({"preset": "skipp"}, "There is no preset 'skipp'; there are ['skip'"),
    ({"terms": ["hiden"]}, "terms ['hiden'] do not exist"),
    ({"teacher_layers": 24}, "1 to 12 layers; the teacher has 24"),
    ({"layer_map": [(1, 2.0)]}, "not a pair of integers"),
])
def test_a_wrong_argument_is_named(options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        layer_map_view(**options)


def test_the_table_says_the_terms_and_every_published_map_without_a_script():
    html = comparable(layer_map_view(5, 12, "last")._repr_html_())
    assert "<script" not in html
    assert "[CLS] of student layer 4 − [CLS] of teacher layer 11" in html
    assert "5 student layers do not divide 12 teacher layers evenly" in html  # the row of PKD-skip
    assert all(preset.label in html for preset in PRESETS.values())
    assert layer_map_view()._repr_html_() == layer_map_view()._repr_html_()


# ---- In a real browser -----------------------------------------------------------------------------------------------


READ = """stage => ({
    pairs: JSON.parse(stage.dataset.pairs),
    problem: stage.querySelector(".cv-verdict[data-problem]")?.textContent.replace("Impossible. ", "") ?? null,
    terms: [...stage.querySelectorAll("[data-term]")].map(row => [...row.children].map(cell => cell.textContent)),
    notes: [...stage.querySelectorAll(".cv-notes li")].map(one => one.textContent),
    edges: [...stage.querySelectorAll("[data-edge]")].map(one => one.dataset.edge) })"""


def shown(page):
    return page.eval_on_selector(".cv-stage", READ)


def expect(page, pairs, student_layers, teacher_layers, terms):
    """The picture, the table and the explanation are Python's for these pairs."""
    state = shown(page)
    assert state["pairs"] == [list(pair) for pair in pairs]
    numbers = layer_map_numbers(pairs, student_layers, teacher_layers, terms)
    assert {key: state[key] for key in numbers} == numbers
    assert sorted(state["edges"]) == sorted(f"{s}-{t}-{kind}" for s, t in pairs for kind in terms)


@pytest.mark.browser
def test_javascript_and_python_agree_on_every_preset_and_depth(watched):
    page = watched.page
    page.set_content(page_of(layer_map_view()))
    # One call for all 1,152 cases: the same clicks and menus as by hand, without a round trip for each.
    all_shown = page.evaluate("""([read, presets]) => {
        const stage = document.querySelector(".cv-stage"), out = [];
        const set = (who, depth) => { const menu = stage.querySelector(`[data-control=${who}-layers]`);
            menu.value = depth; menu.dispatchEvent(new Event("change")); };
        for (const preset of presets) { stage.querySelector(`[data-preset=${preset}]`).click();
            for (let s = 1; s <= 12; s++) { set("student", s);
                for (let t = 1; t <= 12; t++) { set("teacher", t);
                    const { pairs, problem, terms, notes } = eval(read)(stage);
                    out.push([preset, s, t, { pairs, problem, terms, notes }]); } } }
        return out; }""", [READ, list(PRESETS)])
    assert len(all_shown) == 8 * 144
    for preset, student, teacher, state in all_shown:
        numbers = preset_numbers(preset, student, teacher)
        assert state == numbers | {"pairs": [list(pair) for pair in numbers["pairs"]]}, (preset, student, teacher)
    watched.check()


@pytest.mark.browser
@pytest.mark.parametrize("pairs", [[(0, 0)], [(1, 0), (2, 3)], [(1, 4), (2, 2), (3, 6)], [(1, 1), (1, 2), (2, 3)],
                                   [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)], [(1, 9)], [(5, 2)], [(-1, 2)], []])
def test_javascript_and_python_agree_on_own_maps_under_every_kind(watched, pairs):
    page = watched.page
    page.set_content(page_of(layer_map_view(3, 6, layer_map=pairs, terms=())))
    chosen = set()
    for kind in ["hidden", "attention", "hidden", "cls", "attention", "copy", "cls", "replace", "copy"]:
        page.evaluate("kind => document.querySelector(`[data-kind=${kind}]`).click()", kind)
        chosen ^= {kind}
        state, numbers = shown(page), layer_map_numbers(pairs, 3, 6, chosen)
        assert state["pairs"] == [list(pair) for pair in pairs]
        assert {key: state[key] for key in numbers} == numbers, chosen
    watched.check()


@pytest.mark.browser
def test_the_mouse_moves_adds_and_removes_a_line(watched):
    page = watched.page
    page.set_content(page_of(layer_map_view(3, 6, "skip", ("hidden",))))
    expect(page, [(1, 2), (2, 4)], 3, 6, ["hidden"])
    page.click("[data-student='2']")
    page.click("[data-teacher='5']")
    expect(page, [(1, 2), (2, 5)], 3, 6, ["hidden"])
    assert page.locator("[data-preset][aria-pressed=true]").count() == 0
    page.click("[data-teacher='3']", modifiers=["Shift"])
    expect(page, [(1, 2), (2, 3), (2, 5)], 3, 6, ["hidden"])
    page.click("[data-teacher='5']")
    expect(page, [(1, 2), (2, 3)], 3, 6, ["hidden"])
    page.click("[data-student='3']")
    page.click("[data-teacher='6']")
    expect(page, [(1, 2), (2, 3), (3, 6)], 3, 6, ["hidden"])
    watched.check()


@pytest.mark.browser
def test_the_keyboard_does_what_the_mouse_does(watched):
    page = watched.page
    page.set_content(page_of(layer_map_view(3, 6, "skip", ("hidden",))))
    page.locator("[data-student='1']").focus()
    for key, pairs in (("ArrowRight", [(1, 3), (2, 4)]), ("ArrowRight", [(1, 4), (2, 4)]),
                       ("End", [(1, 6), (2, 4)]), ("ArrowRight", [(1, 6), (2, 4)]), ("Home", [(1, 0), (2, 4)]),
                       ("ArrowLeft", [(1, 0), (2, 4)]), ("Delete", [(2, 4)]), ("ArrowUp", [(2, 4)]),
                       ("ArrowLeft", [(2, 3)]), ("ArrowUp", [(2, 3)]), ("ArrowLeft", [(2, 3), (3, 6)])):
        page.keyboard.press(key)
        expect(page, pairs, 3, 6, ["hidden"])
    assert page.evaluate("document.activeElement.dataset.student") == "3"  # redrawing keeps the focus
    assert page.evaluate("document.activeElement.hasAttribute('data-lm-suppress-shortcuts')")
    assert page.get_attribute("[data-student='3']", "aria-label") == "Student layer 3: learns from teacher layer 6"
    page.wait_for_function("document.querySelector('[aria-live]').textContent.startsWith('Student layer 3: learns')")
    watched.check()


@pytest.mark.browser
def test_the_menu_moves_the_line_of_the_chosen_layer(watched):
    page = watched.page
    page.set_content(page_of(layer_map_view(3, 6, "theseus")))
    menu = page.locator("[data-control=learns-from]")
    assert menu.locator("option:checked").inner_text() == "layer 1, layer 2"
    page.click("[data-student='2']")
    menu.select_option("teacher layer 4")
    expect(page, [(1, 1), (1, 2), (2, 4), (3, 5), (3, 6)], 3, 6, ["replace"])
    assert "Replacing needs groups" in page.inner_text(".cv-verdict")
    menu.select_option("nobody")
    expect(page, [(1, 1), (1, 2), (3, 5), (3, 6)], 3, 6, ["replace"])
    watched.check()


@pytest.mark.browser
def test_an_own_map_that_loses_its_layer_is_explained_not_changed(watched):
    page = watched.page
    page.set_content(page_of(layer_map_view(3, 6, layer_map=[(1, 2), (3, 6)], terms=("hidden",))))
    page.locator("[data-control=teacher-layers]").select_option("4")
    assert shown(page)["pairs"] == [[1, 2], [3, 6]]
    assert shown(page)["problem"].startswith("Layer map (3, 6): there is no teacher layer 6.")
    page.locator("[data-control=teacher-layers]").select_option("6")
    expect(page, [(1, 2), (3, 6)], 3, 6, ["hidden"])
    watched.check()


@pytest.mark.browser
def test_a_preset_brings_its_own_kinds_and_shows_that_it_is_chosen(watched):
    page = watched.page
    page.set_content(page_of(layer_map_view(3, 6, "skip")))
    page.get_by_role("button", name="TinyBERT uniform").press("Enter")
    expect(page, layer_maps.uniform(3, 6), 3, 6, ["hidden", "attention"])
    assert page.get_attribute("[data-preset=uniform]", "aria-pressed") == "true"
    watched.check()


@pytest.mark.browser
def test_everything_can_be_reached_by_tab_and_shows_the_focus(watched):
    page = watched.page
    page.set_content(page_of(layer_map_view()))
    reached = []
    for _ in range(17):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => { const e = document.activeElement;
            const name = e.dataset.control || e.getAttribute("aria-label") || e.textContent;
            return [name, getComputedStyle(e).outlineStyle]; }""")
        reached.append(name)
        assert outline == "solid", name
    assert {"PKD-skip", "student-layers", "learns-from", "hidden states", "Student layer 1: learns from teacher layer 2"
            } <= set(reached)


@pytest.mark.browser
def test_two_editors_on_one_page_live_apart_and_a_late_script_draws(watched):
    page = watched.page
    page.set_content("<!doctype html><div id=output></div>")
    page.evaluate("""html => { const host = document.getElementById("output"); host.innerHTML = html;
        for (const code of host.querySelectorAll(".cv-code")) new Function(code.textContent)(); }""",
                  layer_map_view()._repr_html_() * 2)
    page.locator("[data-preset=last]").nth(1).click()
    maps = page.eval_on_selector_all(".cv-stage", "all => all.map(one => one.dataset.pairs)")
    assert [json.loads(text) for text in maps] == [[[1, 2], [2, 4]], [[1, 4], [2, 5]]]
    watched.check()


@pytest.mark.browser
def test_nodes_do_not_touch_on_a_phone(watched):
    show_on_a_phone(watched, layer_map_view(6, 12, "uniform"))
    boxes = watched.page.eval_on_selector_all("[data-teacher]", """all => all.map(e => e.getBoundingClientRect())
        .map(box => [box.left, box.right])""")
    assert all(right <= left for (_, right), (left, _) in pairwise(boxes))
    assert boxes[-1][1] <= 360
    watched.check()
