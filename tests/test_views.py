"""The explorers: Python and JavaScript say the same numbers, on every host, by mouse and by keyboard."""

import json
import math
import re

import numpy as np
import pytest
import torch
from browser import require_chromium
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForMaskedLM, BertTokenizer
from view_pages import HOSTILE, page_of, show_as_module, values

from course_lib.notebook import plots
from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View, comparable
from course_lib.notebook.views.attention import DIGITS, attention_numbers, attention_view, pack
from course_lib.notebook.views.sentence import guesses, sentence_explorer
from course_lib.notebook.views.temperature import default_presets, temperature_numbers, temperature_view
from course_lib.shared import probes
from course_lib.shared.measures import calibration
from course_lib.shared.training import History

LABELS = ["dog", "wolf", "cat", "lorry"]
TEACHER, STUDENT = [6.0, 4.0, 3.2, -1.0], [3.0, 3.5, 0.0, 0.5]


def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [temperature_view(TEACHER, LABELS, student_logits=STUDENT),
            temperature_view([3.0, 1.0, 0.0], ["a very long name of a class", "unbreakable" * 4, "c"])]


# ---- Temperature: the numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 4.0, 100.0])
def test_temperature_numbers_equal_torch(temperature):
    teacher, student = torch.tensor(TEACHER, dtype=torch.float64), torch.tensor(STUDENT, dtype=torch.float64)
    student.requires_grad_()
    loss = torch.nn.functional.kl_div((student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1),
                                      reduction="sum")
    loss.backward()
    numbers = temperature_numbers(TEACHER, temperature, STUDENT)
    torch.testing.assert_close(torch.tensor(numbers["probs"], dtype=torch.float64), (teacher / temperature).softmax(-1))
    assert numbers["loss"] == pytest.approx(loss.item(), rel=1e-9)
    assert numbers["gradient"] == pytest.approx(student.grad.norm().item(), rel=1e-9)
    assert numbers["loss_times_t2"] == pytest.approx(loss.item() * temperature**2, rel=1e-9)
    assert numbers["gradient_times_t2"] == pytest.approx(student.grad.norm().item() * temperature**2, rel=1e-9)
    assert numbers["entropy"] == pytest.approx(
        torch.distributions.Categorical(logits=teacher / temperature).entropy().item(), abs=1e-6)


def test_with_t2_the_gradient_tends_to_the_limit_of_centred_logits_over_classes():
    numbers = temperature_numbers(TEACHER, 1e5, STUDENT)
    assert numbers["gradient_times_t2"] == pytest.approx(numbers["gradient_limit"], rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=6), st.floats(0.05, 100))
def test_temperature_numbers_stay_finite_up_to_ten_thousand(logits, temperature):
    numbers = temperature_numbers(logits, temperature)
    assert sum(numbers["probs"]) == pytest.approx(1)
    assert all(math.isfinite(numbers[key]) for key in ("entropy", "loss", "loss_times_t2", "gradient"))
    assert -1e-9 <= numbers["entropy"] <= math.log(len(logits)) + 1e-9
    assert numbers["loss"] >= -1e-9


def test_the_runner_ups_are_the_second_and_third_class():
    assert temperature_numbers([0.0, 3.0, 2.0, 1.0], 2.0)["runner_up_ratio"] == pytest.approx(math.exp(0.5))
    assert temperature_numbers([1.0, 0.0], 2.0)["runner_up_ratio"] is None
    assert temperature_numbers([3e4, 2e4, -2e4], 0.05)["runner_up_ratio"] == math.inf


@pytest.mark.parametrize(("logits", "options", "says"), [
    ([1.0, 2.0], {}, "2 numbers for 4 labels"),
    ([1.0, 2.0, 3.0, math.nan], {}, "finite"),
    (TEACHER, {"student_logits": [1.0]}, "student_logits: 1 numbers"),
    (TEACHER, {"presets": {"mine": [1.0]}}, "preset 'mine'"),
    (TEACHER, {"temperature": 0.0}, "0.05 to 100"),
])
def test_a_wrong_input_is_explained(logits, options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        temperature_view(logits, LABELS, **options)


def test_temperature_zero_is_refused():
    with pytest.raises(ValueError, match="greater than 0"):
        temperature_numbers(TEACHER, 0.0)


# ---- Views: one output, safe and always the same ---------------------------------------------------------------------


def test_hostile_labels_stay_text():
    html = temperature_view(TEACHER[:2], [HOSTILE, "cat"])._repr_html_()
    assert html.count("</script>") == 2  # the data and the code, nothing else
    assert "<b>" not in html
    data = re.search(r'class="cv-data">(.*?)</script>', html, re.S)[1]
    assert json.loads(data)["labels"][0] == HOSTILE


def test_a_number_that_json_cannot_write_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        View("temperature", {"x": math.nan}, "alt", Table("t", ["a"], []))._repr_html_()


def test_the_numbers_are_readable_without_a_script():
    html = comparable(temperature_view(TEACHER, LABELS)._repr_html_())
    assert "<script" not in html
    row = re.search(r'<th scope="row">4</th>(.*?)</tr>', html)[1]
    cells = [float(cell) for cell in re.findall(r"<td>(.*?)</td>", row)]
    numbers = temperature_numbers(TEACHER, 4.0)
    others = [numbers[name] for name in ("entropy", "loss", "loss_times_t2")]
    assert cells == pytest.approx([*numbers["probs"], *others], abs=5e-4)


def test_what_two_runs_compare_has_no_code_and_no_packed_data():
    one = temperature_view(TEACHER, LABELS)._repr_html_()
    other = temperature_view(TEACHER, LABELS, temperature=2.0)._repr_html_()
    assert one != other
    assert comparable(one) == comparable(other)
    assert comparable(one) != comparable(temperature_view([5.0, 4.0, 3.2, -1.0], LABELS)._repr_html_())


def test_plain_text_of_a_view_is_one_line():
    bundle = temperature_view(TEACHER, LABELS)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "\n" not in bundle["text/plain"] and len(bundle["text/plain"]) < 300


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-2.0, "−2.000"), (0.00002, "2.0e−05"), (0.0, "0.000"),
                                             (math.inf, "∞"), (-3e-17, "0.000"), (3e6, "3.0e+06")])
def test_numbers_have_fixed_digits(value, text):
    assert readable(value) == text


def test_presets_fit_every_number_of_classes():
    for classes in range(2, 13):
        for logits in default_presets(classes).values():
            assert len(logits) == classes and logits == sorted(logits, reverse=True)


# ---- Attention: the numbers ------------------------------------------------------------------------------------------

WORDS = ["[CLS]", "not", "bad", "$5", "[SEP]"]


def random_maps(layers, heads, tokens, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return {layer: (2 * torch.randn(heads, tokens, tokens, generator=noise)).softmax(-1)
            for layer in range(1, layers + 1)}


MAPS = random_maps(4, 3, 5)
SMALL = random_maps(2, 3, 5, seed=1)


def test_attention_numbers_equal_a_recomputation_by_hand():
    p, q = MAPS[1].double(), SMALL[1].double()
    numbers = attention_numbers(p, q)
    for head in range(3):
        kl = sum(p[head, i, j] * math.log(p[head, i, j] / q[head, i, j]) for i in range(5) for j in range(5)) / 5
        entropy = -sum(p[head, i, j] * math.log(p[head, i, j]) for i in range(5) for j in range(5)) / 5
        assert numbers["kl"][head] == pytest.approx(float(kl), rel=1e-9)
        assert numbers["entropy"][head] == pytest.approx(float(entropy), rel=1e-9)
        assert numbers["most_attended"][head] == p[head].argmax(-1).tolist()


def test_padding_changes_nothing():
    padded_p, padded_q = torch.full((3, 7, 7), 1 / 7), torch.full((3, 7, 7), 0.5)  # rubbish in the padded rows
    for padded, real in ((padded_p, MAPS[1]), (padded_q, SMALL[1])):
        padded[:, :5] = 0.0
        padded[:, :5, :5] = real
    mask = torch.tensor([1, 1, 1, 1, 1, 0, 0])
    assert attention_numbers(padded_p, padded_q, mask) == attention_numbers(MAPS[1], SMALL[1])
    with pytest.raises(ValueError, match="no probabilities over the real tokens"):
        attention_numbers(torch.full((3, 7, 7), 1 / 7), mask=mask)  # the model never saw the mask


def test_a_teacher_is_at_distance_zero_from_itself():
    assert attention_numbers(MAPS[1], MAPS[1])["kl"] == pytest.approx([0.0] * 3)


def test_a_student_that_underflows_is_far_away_but_not_infinitely():
    certain = torch.eye(5).expand(3, 5, 5)
    assert all(20 < kl < 30 for kl in attention_numbers(certain.roll(1, -1), certain)["kl"])


def test_scores_are_refused_where_probabilities_belong():
    with pytest.raises(ValueError, match="attention_scores"):
        attention_numbers(torch.randn(3, 5, 5))


def test_packing_keeps_three_digits():
    values = np.array([0.0, 0.0004, 0.417, 0.9996, 1.0])
    text = pack(values)
    back = [(64 * DIGITS.index(a) + DIGITS.index(b)) / 1000 for a, b in zip(text[::2], text[1::2], strict=True)]
    assert back == [0.0, 0.0, 0.417, 1.0, 1.0]
    assert pack(np.array([0.417])) == "Gh"


def test_six_layers_of_twelve_heads_for_two_models_stay_small():
    maps = random_maps(6, 12, 20)
    assert len(attention_view((maps, maps), [f"token{i}" for i in range(20)])._repr_html_().encode()) < 150_000


def test_layers_that_do_not_match_ask_for_a_layer_map():
    with pytest.raises(ValueError, match="layer_map"):
        attention_view((MAPS, SMALL), WORDS)
    with pytest.raises(ValueError, match=re.escape("(2, 9)")):
        attention_view((MAPS, SMALL), WORDS, layer_map=((1, 2), (2, 9)))
    view = attention_view((MAPS, SMALL), WORDS, layer_map=((1, 2), (2, 4)))
    assert view.data["pairs"] == [[2, 1], [4, 2]]  # as shown: teacher first


def test_a_reading_brings_its_own_mask():
    model = tiny_model()
    batch = {"input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]),
             "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}
    with torch.no_grad():
        reading = probes.read(model, batch)
    words = ["[CLS]", "good", "[SEP]", "[PAD]"]
    assert attention_view(reading, words, example=1).data["tokens"] == words[:3]
    per_head = attention_view((reading, reading), words, example=1).table[1]
    assert per_head.rows == [["1 → 1", "0.000", "0.000"], ["2 → 2", "0.000", "0.000"]]


# ---- Your own sentence -----------------------------------------------------------------------------------------------

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "good", "bad", "<b>"]


def tiny_model():
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                      intermediate_size=16, max_position_embeddings=12)).eval()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    file.write_text("\n".join(VOCABULARY), encoding="utf-8")

    class Teacher:
        model, tokenizer = tiny_model(), BertTokenizer(str(file))

    return Teacher


def test_guesses_are_the_models_softmax_at_each_mask(teacher):
    rows = guesses(teacher.model, teacher.tokenizer, "the [MASK] good [MASK]", k=3)
    with torch.no_grad():
        probs = teacher.model(torch.tensor([[2, 5, 4, 7, 4, 3]])).logits[0].softmax(-1)
    assert [(row.mask, row.rank) for row in rows] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    for row in rows:
        wanted = probs[{1: 2, 2: 4}[row.mask]]
        assert row.token == VOCABULARY[wanted.topk(3).indices[row.rank - 1]]
        assert row.probability == pytest.approx(wanted.topk(3).values[row.rank - 1].item(), abs=1e-6)


@pytest.mark.parametrize(("sentence", "says"), [("the film", r"Write \[MASK\]"),
                                                ("the " * 20 + "[MASK]", "positions for 12")])
def test_a_sentence_that_cannot_be_answered_says_why(teacher, sentence, says):
    with pytest.raises(ValueError, match=says):
        guesses(teacher.model, teacher.tokenizer, sentence)


def test_the_widget_answers_and_shows_its_own_errors(teacher):
    explorer = sentence_explorer(teacher, "the [MASK]", k=10)
    assert explorer.answer.value.count("cv-guess") >= 10
    assert "&lt;b&gt;" in explorer.answer.value and "<b>" not in explorer.answer.value
    explorer.line.value = "no hole"
    assert 'role="alert"' in explorer.answer.value and "[MASK]" in explorer.answer.value
    explorer.line.value = "the [MASK] film"
    assert 'role="alert"' not in explorer.answer.value
    explorer._ask = lambda text: 1 / 0  # an error that nobody foresaw
    explorer.line.value = "good [MASK]"
    assert "ZeroDivisionError" in explorer.answer.value


def test_the_widget_waits_until_the_typing_stops(teacher, monkeypatch):
    import asyncio

    from course_lib.notebook.views import sentence

    monkeypatch.setattr(sentence, "WAIT", 0.01)
    explorer = sentence_explorer(teacher, "the [MASK]")
    asked = []
    explorer._ask = lambda text: asked.append(text) or guesses(teacher.model, teacher.tokenizer, text)

    async def typing():
        for text in ("g [MASK]", "go [MASK]", "good [MASK]"):
            explorer.line.value = text
        await asyncio.sleep(0.1)

    asyncio.run(typing())
    assert asked == ["good [MASK]"]


def test_the_static_page_gets_a_table_of_guesses(teacher):
    bundle = sentence_explorer(teacher, "the [MASK]")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"].count("<tr>") == 6 and "<script" not in bundle["text/html"]
    assert bundle["text/plain"] == "<sentence explorer: the [MASK]>"


# ---- Pictures --------------------------------------------------------------------------------------------------------


def history(*values):
    return History(scores=[{"step": 10 * (i + 1), "accuracy": value} for i, value in enumerate(values)],
                   steps=[{"step": i, "soft": 1.0 / (i + 1)} for i in range(4)])


def figures():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0], [3.0, 0.0]])
    return {
        "curves": plots.learning_curves({"student": [history(0.6, 0.8), history(0.5, 0.7)],
                                         "baseline": history(0.5, 0.6)}, teacher=0.9),
        "terms": plots.learning_curves({"student": history(0.6, 0.8)}, "soft"),
        "dots": plots.dot_and_interval({"student": [0.81, 0.82, 0.8], "one seed": [0.7]}, teacher=0.9),
        "calibration": plots.calibration_plot({"teacher": calibration(logits, torch.tensor([0, 1, 1, 0]), 5)}),
    }


def test_the_same_picture_gives_the_same_bytes():
    first, second = figures(), figures()
    for name in first:
        assert plots.picture(first[name], "alt").image == plots.picture(second[name], "alt").image, name


def test_a_picture_has_its_text_and_its_numbers():
    rows = {"student": [0.8, 0.82, 0.81], "baseline": [0.7, 0.71, 0.72]}
    html = plots.picture(plots.dot_and_interval(rows), 'dots "and" bars', plots.intervals_table(rows))._repr_html_()
    assert 'alt="dots &quot;and&quot; bars"' in html
    assert ">0.810<" in html and ">0.710<" in html
    with pytest.raises(ValueError, match="alt"):
        plots.picture(plots.dot_and_interval(rows), " ")


def test_a_role_keeps_its_colour_whatever_its_place():
    assert plots.look("student, 5 seeds", 3) == plots.ROLES["student"]
    assert plots.look("Baseline", 0) == plots.ROLES["baseline"]
    assert len({role.colour for role in plots.ROLES.values()}) == len(plots.ROLES)
    assert len({str(role.line) + role.marker for role in plots.ROLES.values()}) == len(plots.ROLES)  # print in grey


def test_curves_that_cannot_be_averaged_or_found_are_refused():
    with pytest.raises(ValueError, match="it has accuracy, soft"):
        plots.learning_curves({"student": history(0.5)}, "f1")
    with pytest.raises(ValueError, match="different steps"):
        plots.learning_curves({"student": [history(0.5), history(0.5, 0.6)]})


def test_without_a_browser_a_test_is_skipped_but_never_in_ci(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        require_chromium()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        require_chromium()


# ---- In a real browser -----------------------------------------------------------------------------------------------


def set_temperature(page, temperature):
    page.fill("[data-control=temperature-number]", repr(temperature))


@pytest.mark.browser
@pytest.mark.parametrize("logits", [TEACHER, [1e4, 9999.0, -1e4, 0.0], [0.0, 0.0, 0.0, 0.0], [1e4, 1e4, 1e4, -1e4]])
def test_javascript_and_python_agree_over_the_whole_scale(watched, logits):
    page = watched.page
    page.set_content(page_of(temperature_view(logits, LABELS, student_logits=STUDENT)))
    for temperature in (0.05, 0.07, 0.5, 1.0, 2.0, 7.3, 50.0, 100.0):
        set_temperature(page, temperature)
        numbers = temperature_numbers(logits, temperature, STUDENT)
        assert values(page, "[data-prob]") == pytest.approx(numbers["probs"], abs=1e-6)
        assert values(page, "[data-student-prob]") == pytest.approx(numbers["student_probs"], abs=1e-6)
        for name in ("entropy", "loss", "loss_times_t2", "gradient", "gradient_times_t2"):
            assert values(page, f"[data-quantity={name}]") == [pytest.approx(numbers[name], rel=1e-6, abs=1e-6)], name
        shown = page.get_attribute("[data-quantity=ratio]", "data-value").replace("Infinity", "inf")
        assert float(shown) == pytest.approx(numbers["runner_up_ratio"], rel=1e-6)
    watched.check()


@pytest.mark.browser
def test_the_slider_obeys_the_keyboard_and_says_its_value(watched):
    page = watched.page
    page.set_content(page_of(temperature_view(TEACHER, LABELS)))
    slider = page.locator("input[type=range][data-control=temperature]")
    for key, temperature in (("Home", 0.05), ("End", 100.0), ("ArrowLeft", 95.5)):
        slider.press(key)
        assert slider.get_attribute("aria-valuetext") == f"T = {temperature:g}"
        wanted = temperature_numbers(TEACHER, temperature)["probs"]
        assert values(page, "[data-prob]") == pytest.approx(wanted, abs=1e-6)
    page.wait_for_function("document.querySelector('[aria-live=polite]').textContent.startsWith('At T = 95.5')")
    watched.check()


@pytest.mark.browser
def test_everything_can_be_reached_by_tab_and_shows_the_focus(watched):
    page = watched.page
    page.set_content(page_of(temperature_view(TEACHER, LABELS)))
    reached = []
    for _ in range(11):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => { const e = document.activeElement;
            const name = e.getAttribute("aria-label") || e.textContent || e.dataset.control;
            return [name, getComputedStyle(e).outlineStyle]; }""")
        reached.append(name)
        assert outline == "solid", name
        # JupyterLab reads this mark on the focused element itself: without it, an arrow key would leave the cell.
        assert page.evaluate("document.activeElement.hasAttribute('data-lm-suppress-shortcuts')"), name
    assert {"This example", "Two rivals", "Temperature", "temperature-number", "Logit of lorry"} <= set(reached)


@pytest.mark.browser
def test_presets_and_edited_logits_change_the_bars(watched):
    page = watched.page
    page.set_content(page_of(temperature_view(TEACHER, LABELS)))
    page.get_by_role("button", name="Two rivals").press("Enter")
    rivals = default_presets(4)["Two rivals"]
    assert values(page, "[data-prob]") == pytest.approx(temperature_numbers(rivals, 1.0)["probs"], abs=1e-6)
    page.fill("[data-logit='3']", "7.25")
    edited = temperature_numbers([*rivals[:3], 7.25], 1.0)["probs"]
    assert values(page, "[data-prob]") == pytest.approx(edited, abs=1e-6)
    assert page.locator("[aria-pressed=true]").count() == 0
    page.get_by_role("button", name="This example").click()
    assert values(page, "[data-prob]") == pytest.approx(temperature_numbers(TEACHER, 1.0)["probs"], abs=1e-6)


@pytest.mark.browser
def test_an_impossible_temperature_is_refused_with_a_word(watched):
    page = watched.page
    page.set_content(page_of(temperature_view(TEACHER, LABELS)))
    before = values(page, "[data-prob]")
    for text in ("0", "101", ""):
        page.fill("[data-control=temperature-number]", text)
        assert "0.05 to 100" in page.inner_text(".cv-complaint")
        assert values(page, "[data-prob]") == before
    page.locator("[data-control=temperature-number]").blur()
    assert page.input_value("[data-control=temperature-number]") == "1"
    watched.check()


@pytest.mark.browser
def test_two_equal_views_on_one_page_live_apart(watched):
    page = watched.page
    view = temperature_view(TEACHER, LABELS)
    page.set_content(page_of(view, view, attention_view(MAPS, WORDS)))
    assert page.locator(".cv-stage").count() == 3
    page.locator("[data-control=temperature-number]").nth(1).fill("4")
    both = values(page, "[data-prob]")
    assert both[:4] == pytest.approx(temperature_numbers(TEACHER, 1.0)["probs"], abs=1e-6)
    assert both[4:] == pytest.approx(temperature_numbers(TEACHER, 4.0)["probs"], abs=1e-6)
    watched.check()


@pytest.mark.browser
def test_a_host_that_inserts_the_output_later_gets_a_living_view(watched):
    """JupyterLab sets innerHTML, where scripts sleep, and then puts a copy of every script in its place."""
    page = watched.page
    page.set_content("<!doctype html><div id=output></div>")
    page.evaluate("""html => { const host = document.getElementById("output"); host.innerHTML = html;
        for (const old of [...host.querySelectorAll("script")]) {
            const copy = document.createElement("script");
            for (const { name, value } of old.attributes) copy.setAttribute(name, value);
            copy.textContent = old.textContent;
            old.replaceWith(copy);
        } }""", temperature_view(TEACHER, LABELS)._repr_html_())
    set_temperature(page, 2.0)
    assert values(page, "[data-prob]") == pytest.approx(temperature_numbers(TEACHER, 2.0)["probs"], abs=1e-6)
    watched.check()


@pytest.mark.browser
def test_a_host_that_hides_the_script_element_still_finds_each_root_once(watched):
    """Some hosts run the text of a script by themselves: then the script cannot ask where it stands."""
    page = watched.page
    page.set_content("<!doctype html><div id=output></div>")
    page.evaluate("""html => { const host = document.getElementById("output"); host.innerHTML = html;
        for (const code of host.querySelectorAll(".cv-code")) new Function(code.textContent)(); }""",
                  temperature_view(TEACHER, LABELS)._repr_html_() * 2)
    assert [len(values(root, "[data-prob]")) for root in page.query_selector_all(".course-view")] == [4, 4]
    watched.check()


@pytest.mark.browser
def test_the_module_is_an_anywidget_module(watched):
    """`View.module()` is a plain ES module whose default export draws with nothing but { model, el }."""
    page = watched.page
    view = temperature_view(TEACHER, LABELS)
    show_as_module(page, view)
    assert values(page, "[data-prob]") == pytest.approx(temperature_numbers(TEACHER, 1.0)["probs"], abs=1e-6)
    watched.check()


@pytest.mark.browser
def test_hostile_labels_do_nothing_in_the_page(watched):
    page = watched.page
    page.set_content(page_of(temperature_view(TEACHER[:2], [HOSTILE, "cat"]),
                             attention_view({1: MAPS[1][:, :2, :2].softmax(-1)}, [HOSTILE, "cat"])))
    assert page.evaluate("window.hurt") is None
    assert page.locator(".cv-label").first.inner_text() == HOSTILE
    assert page.locator("[data-query='0']").inner_text() == HOSTILE
    watched.check()


@pytest.mark.browser
def test_the_table_is_there_before_and_after_the_script(watched):
    page = watched.page
    page.set_content(page_of(temperature_view(TEACHER, LABELS)))
    assert not page.locator(".cv-numbers table").is_visible()
    page.get_by_text("The numbers as a table").click()
    assert page.locator(".cv-numbers table").is_visible()


@pytest.mark.browser
def test_a_broken_view_still_shows_its_numbers(watched):
    page = watched.page
    page.set_content(page_of(View("temperature", {"labels": None}, "alt", Table("t", ["a"], [["1.5"]]))))
    assert "could not be drawn" in page.inner_text("[role=alert]")
    assert page.get_by_text("1.5").is_visible()


@pytest.mark.browser
def test_reduced_motion_is_respected(watched):
    duration = "getComputedStyle(document.querySelector('.cv-fill')).transitionDuration"
    watched.page.set_content(page_of(temperature_view(TEACHER, LABELS)))
    assert watched.page.evaluate(duration) != "0s"
    watched.page.emulate_media(reduced_motion="reduce")
    assert watched.page.evaluate(duration) == "0s"
    watched.page.emulate_media(reduced_motion="no-preference")


@pytest.mark.browser
def test_the_attention_view_follows_layer_head_and_token(watched):
    page = watched.page
    teacher, student = random_maps(4, 3, 5), random_maps(2, 3, 5, seed=1)
    page.set_content(page_of(attention_view((teacher, student), WORDS, layer_map=((1, 2), (2, 4)))))

    def expect(layers, head, query):
        for side, maps in enumerate((teacher, student)):
            wanted = np.rint(maps[layers[side]][head, query].double().numpy() * 1000) / 1000
            assert values(page, f"[data-attention='{side}']") == pytest.approx(wanted, abs=1e-12)
        kl = attention_numbers(teacher[layers[0]], student[layers[1]])["kl"][head]
        said = f"KL of this head: {kl:.3f} nats"
        page.wait_for_function("said => document.querySelector('[aria-live]').textContent.includes(said)", arg=said)

    expect((4, 2), 0, 0)
    page.locator("[data-control=layer]").select_option("teacher 2 → student 1")
    expect((2, 1), 0, 0)
    page.locator("[data-control=head]").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect((2, 1), 2, 0)
    page.locator("[data-query='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect((2, 1), 2, 2)
    page.keyboard.press("End")
    expect((2, 1), 2, 4)
    page.locator(".cv-map rect").nth(1 * 5 + 2).hover()  # any cell of the second row
    expect((2, 1), 2, 1)
    watched.check()


@pytest.mark.browser
def test_models_with_different_head_counts_have_two_menus(watched):
    page = watched.page
    teacher, student = random_maps(2, 4, 5), random_maps(2, 2, 5, seed=1)
    page.set_content(page_of(attention_view((teacher, student), WORDS)))
    page.locator("[data-control=head]").select_option("head 3")
    page.locator("[data-control=student-head]").select_option("head 1")
    assert values(page, "[data-attention='0']") == pytest.approx(np.rint(teacher[2][3, 0].numpy() * 1000) / 1000)
    assert values(page, "[data-attention='1']") == pytest.approx(np.rint(student[2][1, 0].numpy() * 1000) / 1000)
    watched.check()
