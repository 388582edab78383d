"""Lab 2: the runs wear the catalogue's mistakes, the measures see a collapse, and the view shows what is stored."""

import json
import math
import re

import pytest
import torch
from solutions import lab2 as solutions
from view_pages import page_of, values

from course_lib.experiments import lab2_mistakes as lab
from course_lib.experiments.lab2_mistakes import TEXTS, explorer, stored_curves
from course_lib.mistakes import MUTANTS
from course_lib.notebook.exercises.reference import lab2 as reference
from course_lib.notebook.views import comparable
from course_lib.notebook.views.failure_lab import failure_lab, lab_text, reading, shown_runs, thinned

# ---- The experiment ------------------------------------------------------------------------------------------------


def states(*shape, seed=0, size=1.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_arm_names_mistakes_of_the_catalogue_and_healthy_ones_none():
    for name, arm in lab.ARMS.items():
        assert set(arm.mistakes) <= MUTANTS.keys(), name
    for where, healthy in lab.HEALTHY.items():
        assert lab.ARMS[healthy].lab == where and not lab.ARMS[healthy].mistakes
        assert lab.ARMS[lab.WRONG[where]].lab == where and lab.ARMS[lab.WRONG[where]].mistakes


def test_an_unknown_arm_lists_the_known_ones():
    with pytest.raises(ValueError, match="untied, random head"):
        lab.train_one("tyed")


def test_spread_and_rank_are_those_of_the_exercise():
    for case in solutions.cases(5)["lab2.q6"][:4]:
        ours = [lab.variance(case["args"]["states"]), lab.effective_rank(case["args"]["states"])]
        assert ours == pytest.approx(solutions._spread(case["args"]["states"]).tolist(), rel=1e-4)


def test_a_hair_of_noise_has_no_variance_and_a_high_rank():
    collapsed = torch.ones(200, 16) + states(200, 16, size=1e-3)
    assert lab.variance(collapsed) < 2e-6 and lab.effective_rank(collapsed) > 14


def test_the_readable_share_is_1_for_a_linear_map_and_about_0_for_noise():
    ours = states(400, 6)
    assert lab.readable_share(ours, ours @ states(6, 9, seed=1) + 3) == pytest.approx(1, abs=1e-6)
    assert lab.readable_share(1e-4 * ours, ours @ states(6, 9, seed=1)) == pytest.approx(1, abs=1e-3)
    assert lab.readable_share(ours, states(400, 9, seed=2)) < 0.05
    assert lab.readable_share(torch.ones(400, 6), states(400, 9, seed=2)) < 0.01  # equal states: no error, nothing


@pytest.mark.assets
def test_the_gradient_shares_are_those_of_the_exercise():
    model = lab.reader(0)
    rows = lab.sentences.examples("train")[:64]
    teacher = torch.stack([torch.as_tensor(row["teacher_logits"]) for row in rows])
    labels = torch.tensor([row["label"] for row in rows])
    from course_lib.mistakes import mutant

    for squared in (True, False):
        wanted = reference.teachers_share(lab.answers(model, rows), teacher, labels, 4.0, squared)
        if squared:
            found = lab.teachers_share(model, 4.0)
        else:
            with mutant("missing_t_squared"):
                found = lab.teachers_share(model, 4.0)
        assert found == pytest.approx(100 * wanted.item(), abs=0.02)


@pytest.mark.assets
def test_few_labels_leave_all_the_text():
    rows = lab.partly_labelled(500, seed=3)
    assert sum(row["label"] != lab.IGNORED for row in rows) == 500 and len(rows) == 8042
    assert lab.partly_labelled(0, seed=3) == lab.sentences.examples("train")


@pytest.mark.assets
def test_the_shown_blanks_hide_their_words_and_nothing_else():
    rows, texts = lab.shown_words()
    tokenizer = lab.masked_teacher().tokenizer
    for window in lab.shown_windows():
        hidden = [i for i, label in enumerate(window["label"]) if label != lab.IGNORED]
        assert hidden == [i for i, token in enumerate(window["input_ids"]) if token == tokenizer.mask_token_id]
    assert [number for number, _ in rows] == [str(i + 1) for i in range(len(rows))]
    assert all(f"[{number}]" in " ".join(texts) for number, _ in rows) and len(rows) == 12


@pytest.mark.assets
def test_the_students_of_the_tying_lab_wear_their_mistakes():
    from course_lib.mistakes import mutant

    def made(*mistakes):
        from contextlib import ExitStack

        with ExitStack() as on:
            for name in mistakes:
                on.enter_context(mutant(name))
            return lab.masked_student(0)

    table = lab.masked_teacher().model.get_input_embeddings().weight
    healthy, untied, both = made(), made("untied_head"), made("untied_head", "head_left_at_random")
    assert healthy.vocab_projector.weight is healthy.get_input_embeddings().weight
    assert untied.vocab_projector.weight is not untied.get_input_embeddings().weight
    assert torch.equal(untied.vocab_projector.weight, table) and not torch.equal(both.vocab_projector.weight, table)
    extra = lab.count_parameters(untied) - lab.count_parameters(healthy)
    assert extra == table.numel() and lab.count_parameters(both) == lab.count_parameters(untied)
    ratio = solutions.growth(*table.shape, lab.count_parameters(healthy) - table.numel())
    assert lab.count_parameters(untied) / lab.count_parameters(healthy) == pytest.approx(ratio)


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize("arm", ["500 labels, no T²", "untied, random head", "teacher side, frozen"])
def test_a_short_run_of_each_lab_gives_numbers_and_a_curve_that_fits_the_view(arm, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "0")
    code = [MUTANTS[name].value() for name in lab.ARMS[arm].mistakes]
    found, curve = lab.train_one(arm, seed=1, steps=2)
    assert all(math.isfinite(value) for value in found.values()) and "training_loss" in found
    assert curve["steps"] == [0, 1, 2] and len(curve["loss"]) == 2 and curve["arm"] == arm
    text = lab_text(lab.ARMS[arm].lab, TEXTS)
    assert {m.key for m in text.measures} - {"loss"} <= curve["measures"].keys()
    assert all(len(shown) == len(curve["rows"]) for shown in curve["shown"])
    assert json.loads(json.dumps(curve)) == curve
    assert [MUTANTS[name].value() for name in lab.ARMS[arm].mistakes] == code, "the mistake is still on"
    again, _ = lab.train_one(arm, seed=1, steps=2, watch=False)
    assert again == found, "looking at a run must not change it"


@pytest.mark.assets
def test_the_map_of_the_projection_lab_stands_on_the_side_of_its_arm():
    from course_lib.mistakes import mutant

    assert lab.narrow_student(0, frozen=False).projection.side == "student"
    with mutant("teacher_side_projection"):
        wrong, cured = (lab.narrow_student(0, frozen=frozen).projection for frozen in (False, True))
    assert wrong.side == cured.side == "teacher"
    assert all(p.requires_grad for p in wrong.parameters()) and not any(p.requires_grad for p in cured.parameters())


# ---- The view: which runs, which numbers -----------------------------------------------------------------------------


def curve(arm, number=0):
    """A made-up run: every number says which run, which measure and which step it belongs to."""
    text = next(text for text in TEXTS if arm in text.runs.values())
    steps = [0, 10, 20, 30, 40]
    wanted = [m.key for m in text.measures if m.key != "loss"]
    rows = {"words": [["1", "the"], ["2", ","], ["3", "##ization"]],
            "chance": [["a <b>fine</b> film", "positive"], ["dull & long", "negative"]],
            "distance": [["[CLS]", ""], ["film", ""], ["[SEP]", ""]]}[text.rows]
    shown = {"words": lambda i: ["the", "," if i > 2 else "of", "$x$"][: len(rows)],
             "chance": lambda i: [50 + 10 * i, 90 - 20 * i],
             "distance": lambda i: [4.0 - i / 2, 2.0, 0.25 * (number + 1)]}[text.rows]
    return {"lab": text.key, "arm": arm, "steps": steps,
            "measures": {key: [1 + 10 * number + place + step / 100 for step in steps] for place, key in
                         enumerate(wanted)},
            "loss": [2 + number + 1 / (i + 1) for i in range(40)], "rows": rows,
            "text": ["The [1] stood [2] and [3]."] if text.rows == "words" else [],
            "shown": [shown(i) for i in range(len(steps))]}


CURVES = {arm: curve(arm, number) for number, arm in enumerate(lab.ARMS)}


def examples():
    """Each lab with all its mistakes switched on, and a run of one's own."""
    return [failure_lab(CURVES, TEXTS, lab=text.key, on=[switch.key for switch in text.switches],
                        yours=curve(next(iter(text.runs.values())), 30)) for text in TEXTS]


def test_every_arm_can_be_reached_by_the_switches_and_every_position_of_the_switches_has_a_run():
    assert {arm for text in TEXTS for arm in text.runs.values()} == lab.ARMS.keys()
    for text in TEXTS:
        keys = [switch.key for switch in text.switches]
        for number in range(2 ** len(keys)):
            healthy, shown = shown_runs(text, [key for i, key in enumerate(keys) if number >> i & 1])
            assert not lab.ARMS[healthy].mistakes and lab.ARMS[shown].lab == text.key
            assert lab.ARMS[healthy].labels == lab.ARMS[shown].labels  # the setting holds for both
        assert shown_runs(text, []) == (lab.HEALTHY[text.key],) * 2


def test_the_switches_say_what_the_arms_do():
    for text in TEXTS:
        for on, name in text.runs.items():
            arm = lab.ARMS[name]
            if text.key == "temperature":
                assert (arm.temperature == 1, arm.labels == 0) == ("t1" in on, "all" in on)
                assert (arm.mistakes == ("missing_t_squared",)) == ("t2" in on and "t1" not in on)
            elif text.key == "tying":
                switched = ("untied_head" in arm.mistakes, "head_left_at_random" in arm.mistakes)
                assert switched == ("untied" in on, "random" in on)
            else:
                assert (bool(arm.mistakes), arm.frozen) == ("side" in on, "frozen" in on)


def test_a_switch_without_what_it_needs_is_off():
    assert shown_runs(lab_text("projection", TEXTS), ["frozen"]) == ("student side", "student side")
    with pytest.raises(ValueError, match="it has untied, random"):
        shown_runs(lab_text("tying", TEXTS), ["t2"])


def test_a_loss_curve_is_thinned_without_losing_its_mean_or_its_ends():
    steps, loss = thinned([float(i) for i in range(1, 241)])
    assert len(steps) == len(loss) == 48 and steps == loss == [3 + 5 * i for i in range(48)]
    assert thinned([0.5, 0.25]) == ([1, 2], [0.5, 0.25])


def test_a_step_shows_the_last_look_up_to_there():
    run = curve("tied")
    assert reading(run, 25)["accuracy"] == run["measures"]["accuracy"][2]
    assert reading(run, 0) == {key: values[0] for key, values in run["measures"].items()} | {"loss": run["loss"][0]}
    assert reading(run, 40)["loss"] == run["loss"][-1] == pytest.approx(reading(run, 99)["loss"], rel=1e-3)


def test_a_missing_run_names_the_command():
    with pytest.raises(ValueError, match=r"untied.*course_lib\.experiments lab2"):
        failure_lab({arm: c for arm, c in CURVES.items() if arm != "untied"}, TEXTS)
    with pytest.raises(ValueError, match="temperature, tying, projection"):
        failure_lab(CURVES, TEXTS, lab="commas")


def test_without_a_script_the_last_step_of_every_run_is_there():
    html = comparable(failure_lab(CURVES, TEXTS, yours=curve("untied", 20) | {"arm": "untied"})._repr_html_())
    for arm, stored in CURVES.items():
        cells = re.search(f'<th scope="row">{re.escape(arm)}</th>(.*?)</tr>', html)[1]
        shown = [float(cell.split()[0]) for cell in re.findall("<td>(.*?)</td>", cells)]
        measures = lab_text(stored["lab"], TEXTS).measures
        last = reading(stored, 40)
        assert shown == [pytest.approx(last[m.key], abs=0.5 * 10**-m.digits + 1e-9) for m in measures], arm
    assert html.count("your run") == 1


def test_the_stored_runs_are_there_for_every_switch_and_stay_small():
    view = explorer()
    assert stored_curves().keys() == lab.ARMS.keys()
    assert len(json.dumps(view.data).encode()) < 60_000


# ---- In a real browser -----------------------------------------------------------------------------------------------


def expect(page, key, on, step, yours=None):
    """All numbers in the page are Python's."""
    text = lab_text(key, TEXTS)
    healthy, shown = shown_runs(text, on)
    runs = {"healthy": CURVES[healthy]} | ({"switched": CURVES[shown]} if shown != healthy else {})
    runs |= {"yours": yours} if yours else {}
    for measure in text.measures:
        for role in ("healthy", "switched", "yours"):
            wanted = [reading(runs[role], step)[measure.key]] if role in runs else []
            assert values(page, f"[data-measure={measure.key}][data-role={role}]") == pytest.approx(wanted), measure
    look = max(i for i, at in enumerate(CURVES[healthy]["steps"]) if at <= step)
    for role, run in runs.items():
        cells = page.locator(f"[data-row-role={role}]").all_inner_texts()
        for cell, value in zip(cells, run["shown"][look], strict=True):
            assert (f"{value:.2f}" if isinstance(value, float) else str(value)) in cell
    assert page.locator("[data-row-role]").count() == len(runs) * len(CURVES[healthy]["rows"])


@pytest.mark.browser
def test_every_position_of_the_switches_shows_the_runs_that_python_names(watched):
    page = watched.page
    page.set_content(page_of(failure_lab(CURVES, TEXTS)))
    for text in TEXTS:
        page.locator(f"[data-lab={text.key}]").check()
        expect(page, text.key, [], 40)
        on = []
        for switch in text.switches:
            page.locator(f"[data-switch={switch.key}]").check()
            on.append(switch.key)
            expect(page, text.key, on, 40)
            assert page.locator(f"[data-why={switch.key}]").is_visible()
        page.locator(f"[data-switch={text.switches[0].key}]").uncheck()
        expect(page, text.key, on[1:], 40)
    watched.check()


@pytest.mark.browser
def test_the_keyboard_alone_chooses_lab_mistake_and_step(watched):
    page = watched.page
    page.set_content(page_of(failure_lab(CURVES, TEXTS)))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.lab") == "temperature"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.lab") == "tying"
    expect(page, "tying", [], 40)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page, "tying", ["untied"], 40)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page, "tying", ["untied", "random"], 40)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.control") == "step"
    page.keyboard.press("Home")
    expect(page, "tying", ["untied", "random"], 0)
    page.keyboard.press("ArrowRight")
    expect(page, "tying", ["untied", "random"], 10)
    assert page.locator("[data-control=step]").get_attribute("aria-valuetext") == "step 10 of 40"
    page.wait_for_function("document.querySelector('[aria-live=polite]').textContent"
                           ".startsWith('Step 10, hidden words found: healthy')")
    for _ in range(2):
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert page.evaluate("document.activeElement.hasAttribute('data-lm-suppress-shortcuts')")
        page.keyboard.press("Shift+Tab")
    watched.check()


@pytest.mark.browser
def test_the_step_stays_between_switches_and_marks_follow_it(watched):
    page = watched.page
    page.set_content(page_of(failure_lab(CURVES, TEXTS, lab="tying", on=["untied"])))
    right = "[data-row-role=healthy].cv-right"
    assert page.locator(right).count() == 2
    page.locator("[data-control=step]").fill("1")
    assert page.locator(right).count() == 1
    page.locator("[data-switch=random]").check()
    expect(page, "tying", ["untied", "random"], 10)
    assert page.locator("[data-row-role=switched] [aria-label=wrong]").count() == 2
    assert page.locator("text=The [1] stood").is_visible()
    watched.check()


@pytest.mark.browser
def test_a_switch_that_needs_another_one_waits_for_it(watched):
    page = watched.page
    page.set_content(page_of(failure_lab(CURVES, TEXTS, lab="projection", on=["side", "frozen"])))
    expect(page, "projection", ["side", "frozen"], 40)
    page.locator("[data-switch=side]").uncheck()
    assert page.locator("[data-switch=frozen]").is_disabled() and not page.locator("[data-switch=frozen]").is_checked()
    expect(page, "projection", [], 40)
    page.locator("[data-switch=side]").check()
    expect(page, "projection", ["side"], 40)
    assert page.locator("[data-switch=frozen]").is_enabled()


@pytest.mark.browser
def test_your_own_run_is_drawn_beside_the_stored_ones(watched):
    page = watched.page
    yours = curve("untied", 30)
    page.set_content(page_of(failure_lab(CURVES, TEXTS, on=["random"], yours=yours)))
    expect(page, "tying", ["random"], 40, yours)
    page.wait_for_selector("[data-chart=accuracy] path[data-curve=yours]")
    assert page.locator("[data-chart=accuracy] path").count() == 3
    page.locator("[data-control=step]").fill("2")
    expect(page, "tying", ["random"], 20, yours)
    page.locator("[data-lab=projection]").check()
    expect(page, "projection", [], 40)
    watched.check()


@pytest.mark.browser
def test_curves_lie_inside_their_picture_and_say_their_ends(watched):
    page = watched.page
    page.set_content(page_of(failure_lab(CURVES, TEXTS, lab="projection", on=["side"])))
    page.wait_for_selector("[data-chart=loss] path")
    boxes = page.evaluate("""() => [...document.querySelectorAll("path[data-curve]")].map(e => {
        const a = e.getBBox(), p = e.ownerSVGElement;
        return [a.x, a.y, p.clientWidth - a.x - a.width, p.clientHeight - a.y - a.height]; })""")
    assert len(boxes) == 8 and all(min(box) >= 0 for box in boxes)
    label = page.locator("[data-chart=loss] svg").get_attribute("aria-label")
    assert "healthy ends at" in label and "switched ends at" in label


@pytest.mark.browser
def test_two_labs_on_one_page_live_apart(watched):
    page = watched.page
    view = failure_lab(CURVES, TEXTS)
    page.set_content(page_of(view, view))
    first, second = page.locator(".course-view").all()
    second.locator("[data-lab=tying]").check()
    assert first.locator("[data-lab=temperature]").is_checked() and second.locator("[data-lab=tying]").is_checked()
    second.locator("[data-switch=untied]").check()
    assert first.locator("[data-run=switched]").count() == 0 and second.locator("[data-run=switched]").count() == 1
    watched.check()


@pytest.mark.browser
def test_words_of_the_texts_stay_text(watched):
    page = watched.page
    page.set_content(page_of(failure_lab(CURVES, TEXTS)))
    assert page.locator(".cv-rows tbody th").first.inner_text() == "a <b>fine</b> film"
    watched.check()
