"""The bottleneck explorer: counts that equal the networks', the same numbers in the browser, keyboard and phone."""

import json
import re
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel
from view_pages import page_of, show_as_module, values

from course_lib.methods.mobilebert_model import MobileBert, student_config
from course_lib.notebook.views import comparable
from course_lib.notebook.views.bottleneck import PRESETS, Shape, bottleneck_numbers, bottleneck_view
from course_lib.shared.students import bert_config, count_parameters

SMALL = Shape(3, 48, 16, 2, "quarter", 200)
SHAPES = {"plain": replace(SMALL, bottleneck=0, words="full", feed_forwards=1), "thin": replace(SMALL, words="full"),
          "factorised": SMALL, "trigrams": replace(SMALL, words="trigrams", feed_forwards=4),
          "wide inside": replace(SMALL, bottleneck=64, words="full")}


def network(shape):
    """The model that a shape stands for, without the linear layer that is skipped at equal widths."""
    common = {"vocab_size": shape.vocabulary, "hidden_size": shape.body, "num_hidden_layers": shape.layers,
              "num_attention_heads": 4}
    if not shape.bottleneck:
        return BertModel(BertConfig(intermediate_size=4 * shape.body, attn_implementation="eager", **common)).eval()
    table = shape.body if shape.words == "full" else shape.body // 4
    model = MobileBert(student_config(
        embedding_size=table, trigram_input=shape.words == "trigrams", intra_bottleneck_size=shape.bottleneck,
        intermediate_size=4 * shape.bottleneck, num_feedforward_networks=shape.feed_forwards, **common)).eval()
    if model.embeddings.skip_transformation:
        model.embeddings.embedding_transformation = torch.nn.Identity()
    return model


def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [bottleneck_view()]


# ---- The numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_the_formula_counts_what_the_network_holds(name):
    model, found = network(SHAPES[name]), bottleneck_numbers(SHAPES[name])
    assert found["total"] == sum(p.numel() for p in model.parameters())
    assert found["blocks"] == sum(p.numel() for p in model.encoder.parameters())
    assert found["parameters"]["words"] == model.embeddings.word_embeddings.weight.numel()
    assert found["parameters"]["pooler"] == sum(p.numel() for p in model.pooler.parameters())
    assert found["block"] * 3 == found["blocks"]


@pytest.mark.parametrize("name", SHAPES)
def test_the_cost_is_what_pytorch_counts(name):
    shape, tokens = SHAPES[name], 24
    model = network(shape)
    model.pooler = None
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.randint(1, 200, (2, tokens)))
    assert bottleneck_numbers(shape, tokens)["flops"] == counter.get_total_flops() / (2 * tokens)


def test_the_presets_are_the_published_sizes():
    totals = {name: bottleneck_numbers(shape)["total"] for name, shape in PRESETS.items()}
    assert totals["BERT-base"] == count_parameters(bert_config("bert-base")) == 109_482_240
    assert totals["our teacher"] == count_parameters(bert_config("minilm-6x384")) == 22_713_216
    assert totals["MobileBERT"] == 24_844_544
    ratio = bottleneck_numbers(PRESETS["our teacher"])["blocks"] / bottleneck_numbers(PRESETS["our student"])["blocks"]
    assert ratio == pytest.approx(3.74, abs=0.01)


def test_a_stack_brings_a_thin_block_near_the_balance_of_a_bert_block():
    assert bottleneck_numbers(PRESETS["BERT-base"])["balance"] == pytest.approx(2, abs=0.01)
    one, four = (bottleneck_numbers(replace(PRESETS["MobileBERT"], feed_forwards=n))["balance"] for n in (1, 4))
    assert one < 0.5 and 1.5 < four == pytest.approx(4 * one)


@pytest.mark.parametrize(("make", "says"), [
    (lambda: bottleneck_numbers(replace(SMALL, layers=0)), "layers must be a whole number from 1 to 48"),
    (lambda: bottleneck_numbers(replace(SMALL, body=12.5)), "body must be a whole number"),
    (lambda: bottleneck_numbers(replace(SMALL, words="half")), "words must be one of"),
    (lambda: bottleneck_numbers(replace(SMALL, vocabulary=0)), "at least one word"),
    (lambda: bottleneck_view({}), "at least one shape"),
    (lambda: bottleneck_view(start="BERT-huge"), "no preset 'BERT-huge'"),
])
def test_a_wrong_input_is_explained(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


# ---- The output ------------------------------------------------------------------------------------------------------


def test_the_view_is_small_and_knows_the_presets():
    html = bottleneck_view()._repr_html_()
    assert len(html) < 40_000
    data = json.loads(re.search(r'class="cv-data">(.*?)</script>', html, re.S)[1])
    assert [preset["name"] for preset in data["presets"]] == list(PRESETS)


def test_the_numbers_are_readable_without_a_script():
    html = comparable(bottleneck_view()._repr_html_())
    assert "<script" not in html and html.count("<table") == 1
    row = re.search(r'<th scope="row">MobileBERT</th>(.*?)</tr>', html)[1]
    assert "24,844,544" in re.findall(r"<td>(.*?)</td>", row)


# ---- In a real browser -----------------------------------------------------------------------------------------------


@pytest.fixture
def watched(watched):
    watched.page.set_content(page_of(bottleneck_view()))
    return watched


def assert_same(page, shape):
    wanted = bottleneck_numbers(shape)
    for name in ("total", "block", "flops", "balance"):
        assert values(page, f"[data-quantity={name}]") == [pytest.approx(wanted[name], rel=1e-9)], name
    assert values(page, "[data-part]") == list(wanted["parameters"].values())


@pytest.mark.browser
def test_javascript_and_python_agree_on_every_preset_and_after_every_control(watched):
    page = watched.page
    for name, shape in PRESETS.items():
        page.get_by_role("button", name=name, exact=True).click()
        assert_same(page, shape)
        assert page.locator("[data-preset][aria-pressed=true]").inner_text() == name
    shape = PRESETS["our student, small word table"]
    for knob, value in (("layers", 12), ("body", 500), ("bottleneck", 100), ("feed_forwards", 7), ("bottleneck", 0)):
        page.fill(f"[data-control={knob}]", str(value))
        shape = replace(shape, **{knob: value})
        assert_same(page, shape)
    for knob, value in (("words", "trigrams"), ("vocabulary", 120_000), ("words", "full")):
        page.select_option(f"[data-control={knob}]", str(value))
        shape = replace(shape, **{knob: value})
        assert_same(page, shape)
    assert page.locator("[data-preset][aria-pressed=true]").count() == 0
    watched.check()


@pytest.mark.browser
def test_the_comparison_says_how_many_times_smaller(watched):
    page = watched.page
    assert "4.41 × smaller than BERT-base" in page.inner_text(".cv-tile:has([data-quantity=total])")
    page.select_option("[data-control=other]", label="our teacher")
    assert "1.09 × our teacher" in page.inner_text(".cv-tile:has([data-quantity=total])")
    page.get_by_role("button", name="our teacher", exact=True).click()
    assert "as our teacher" in page.inner_text(".cv-tile:has([data-quantity=total])")
    assert page.inner_text(".cv-legend thead th:last-child") == "our teacher"
    watched.check()


@pytest.mark.browser
def test_nonsense_is_refused_with_a_word(watched):
    page = watched.page
    for text in ("0", "", "49", "2.5"):
        page.fill("[data-control=layers]", text)
        assert "whole number from 1 to 48" in page.inner_text(".cv-complaint")
        assert_same(page, PRESETS["MobileBERT"])
        page.locator("[data-control=layers]").blur()
        assert page.input_value("[data-control=layers]") == "24" and page.inner_text(".cv-complaint") == ""
    watched.check()


@pytest.mark.browser
def test_boxes_are_as_wide_as_the_tensors(watched):
    page = watched.page
    widths = page.evaluate("""() => Object.fromEntries([...document.querySelectorAll(".cv-scene polygon")].map(p =>
        [p.classList[1], p.getBBox().width]))""")
    assert widths["cv-part-body"] / widths["cv-part-attention"] == pytest.approx(512 / 128, rel=0.01)
    assert page.locator(".cv-scene .cv-part-feed_forward").count() == 8 and page.locator(".cv-rail").count() == 1
    page.get_by_role("button", name="BERT-base", exact=True).click()
    assert page.locator(".cv-scene .cv-part-feed_forward").count() == 2
    assert page.locator(".cv-scene .cv-part-bottlenecks").count() == page.locator(".cv-rail").count() == 0
    bars = page.evaluate("""() => [...document.querySelectorAll(".cv-bars g")].map(g =>
        [...g.querySelectorAll("rect")].reduce((sum, r) => sum + r.width.baseVal.value, 0))""")
    assert bars[0] == pytest.approx(bars[1]), "BERT-base beside BERT-base"


@pytest.mark.browser
def test_the_keyboard_reaches_everything_and_shows_the_focus(watched):
    page, reached = watched.page, []
    for _ in range(12):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => { const e = document.activeElement;
            return [e.dataset.control || e.dataset.preset || e.className, getComputedStyle(e).outlineStyle]; }""")
        reached.append(name)
        assert outline == "solid", name
        assert page.evaluate("document.activeElement.hasAttribute('data-lm-suppress-shortcuts')"), name
    assert reached == [*PRESETS, "layers", "body", "bottleneck", "feed_forwards", "words", "vocabulary", "other"]
    page.locator("[data-control=layers]").press("ArrowUp")
    assert_same(page, replace(PRESETS["MobileBERT"], layers=25))
    page.wait_for_function("() => document.querySelector('[aria-live]').textContent.startsWith('25,')")
    assert "bottleneck 128" in page.get_attribute(".cv-scene svg", "aria-label")
    assert page.locator(".cv-stage :is(input, select)").evaluate_all(
        "all => all.every(one => one.labels.length === 1 && one.labels[0].innerText.trim())")
    watched.check()


@pytest.mark.browser
def test_two_explorers_on_one_page_stay_apart(watched):
    page, view = watched.page, bottleneck_view()
    page.set_content(page_of(view, view))
    page.locator("[data-control=layers]").nth(1).fill("6")
    both = values(page, "[data-quantity=total]")
    assert both == [24_844_544, bottleneck_numbers(replace(PRESETS["MobileBERT"], layers=6))["total"]]
    watched.check()


@pytest.mark.browser
def test_the_module_is_an_anywidget_module(watched):
    page, view = watched.page, bottleneck_view()
    show_as_module(page, view)
    assert_same(page, PRESETS["MobileBERT"])
    watched.check()
