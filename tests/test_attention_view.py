"""The attention view for two models: every head is compared with every other, and the nearest one is offered."""

import json
import math
import re

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from course_lib.methods import distilbert
from course_lib.notebook.views import comparable
from course_lib.notebook.views.attention import attention_examples, attention_numbers, attention_view
from course_lib.notebook.views.temperature import temperature_view
from course_lib.shared import layer_maps, probes

WORDS = ["[CLS]", "not", "bad", "at", "[SEP]"]


def random_maps(layers, heads, tokens=5, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return {layer: (2 * torch.randn(heads, tokens, tokens, generator=noise)).softmax(-1)
            for layer in range(1, layers + 1)}


TEACHER, STUDENT, NARROW = random_maps(4, 3), random_maps(2, 3, seed=1), random_maps(2, 2, seed=2)
MAP = ((1, 2), (2, 4))


def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [attention_view((TEACHER, TEACHER), WORDS),
            attention_view(random_maps(2, 12, 24), ["token"] * 22 + ["uncharacteristically"] * 2),
            attention_examples({"a copy of layers 2, 4 and 6": wide(), "random start, all weights": wide()})]


def wide():
    maps = random_maps(3, 12, 14)
    return attention_view((maps, maps), ["uncharacteristically"] * 14)


# ---- The numbers -----------------------------------------------------------------------------------------------------


def by_hand(p, q):
    return sum(float(p[i, j]) * math.log(p[i, j] / q[i, j]) for i in range(5) for j in range(5)) / 5


def test_every_teacher_head_is_compared_with_every_student_head():
    p, q = TEACHER[1].double(), NARROW[1].double()
    numbers = attention_numbers(p, q)
    wanted = [[by_hand(p[a], q[b]) for b in range(2)] for a in range(3)]
    assert numbers["kl"] is None
    assert np.array(numbers["kl_matrix"]) == pytest.approx(np.array(wanted), rel=1e-9)
    assert numbers["nearest"] == [row.index(min(row)) for row in wanted]
    assert numbers["nearest_kl"] == pytest.approx([min(row) for row in wanted])


def test_with_equal_head_counts_the_diagonal_is_the_kl_head_by_head():
    numbers = attention_numbers(TEACHER[1], STUDENT[1])
    assert numbers["kl"] == np.array(numbers["kl_matrix"]).diagonal().tolist()


def test_a_student_whose_heads_stand_in_another_order_is_found_out():
    order = [2, 0, 1]  # head i of the student is head order[i] of the teacher
    numbers = attention_numbers(TEACHER[1], TEACHER[1][order])
    assert min(numbers["kl"]) > 0.1
    assert numbers["nearest"] == [order.index(head) for head in range(3)]
    assert numbers["nearest_kl"] == pytest.approx([0.0] * 3, abs=1e-9)


def test_of_two_equal_heads_the_first_is_the_nearest():
    same = TEACHER[1][:1].expand(3, 5, 5)
    assert attention_numbers(same, same)["nearest"] == [0, 0, 0]


def test_no_distance_is_below_zero_and_padding_changes_none():
    padded = [torch.full((heads, 7, 7), 0.5) for heads in (3, 2)]
    for into, real in zip(padded, (TEACHER[1], NARROW[1]), strict=True):
        into[:, :5] = 0.0
        into[:, :5, :5] = real
    mask = torch.tensor([1, 1, 1, 1, 1, 0, 0])
    cut, plain = attention_numbers(*padded, mask), attention_numbers(TEACHER[1], NARROW[1])
    assert np.array(cut["kl_matrix"]) == pytest.approx(np.array(plain["kl_matrix"]), abs=1e-12)
    assert cut["nearest"] == plain["nearest"]
    assert np.min(attention_numbers(TEACHER[1], TEACHER[1])["kl_matrix"]) >= 0


# ---- The output ------------------------------------------------------------------------------------------------------


def test_the_table_names_the_nearest_head_and_its_distance():
    view = attention_view((TEACHER, NARROW), WORDS, layer_map=MAP)
    html = comparable(view._repr_html_())
    numbers = attention_numbers(TEACHER[4], NARROW[2])
    row = re.search(r"Nearest head of the student.*?4 → 2</th>(.*?)</tr>", html, re.S)[1]
    assert re.findall(r"<td>(.*?)</td>", row) == [
        f"{at}: {kl:.3f}" for at, kl in zip(numbers["nearest"], numbers["nearest_kl"], strict=True)]


def test_a_single_model_has_no_partner():
    view = attention_view(TEACHER, WORDS)
    assert view.data["kl_matrix"] is None and view.data["nearest"] is None and len(view.table) == 2


def test_the_output_is_small():
    big = random_maps(6, 12, 20)
    words = [f"token{i}" for i in range(20)]
    assert len(attention_view((big, big), words)._repr_html_().encode()) < 150_000
    small = attention_view((random_maps(6, 12, 12), random_maps(3, 12, 12)), words[:12],
                           layer_map=((1, 2), (2, 4), (3, 6)))
    three = attention_examples({"a": small, "b": small, "c": small})._repr_html_()
    assert len(three.encode()) < 120_000


def test_a_full_copy_is_at_distance_zero_in_its_first_layer_and_padding_is_cut():
    torch.manual_seed(0)
    teacher = BertForMaskedLM(BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                         intermediate_size=16, max_position_embeddings=12)).eval()
    student = distilbert.student_from(teacher, layers=1, layer_map=((1, 1),)).eval()
    batch = {"input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]),
             "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}
    with torch.no_grad():
        readings = [probes.read(model, batch) for model in (teacher, student)]
    view = attention_view(readings, ["[CLS]", "good", "[SEP]", "[PAD]"], example=1,
                          layer_map=layer_maps.bottom(1, 2)[1:])
    assert view.data["tokens"] == ["[CLS]", "good", "[SEP]"] and view.data["pairs"] == [[1, 1]]
    assert view.table[1].rows == [["1 → 1", "0.000", "0.000"]] and view.data["nearest"] == [[0, 1]]


def test_examples_keep_every_view_and_its_tables():
    one, other = attention_view((TEACHER, STUDENT), WORDS, layer_map=MAP), attention_view(TEACHER, WORDS)
    view = attention_examples({"pair": one, "teacher alone": other}, title="Two")
    assert [example["name"] for example in view.data["examples"]] == ["pair", "teacher alone"]
    assert [table.caption.split(".")[0] for table in view.table] == ["pair"] * 3 + ["teacher alone"] * 2
    assert json.dumps(view.data["examples"][0]["packed"]) == json.dumps(one.data["packed"])
    for wrong in ({}, {"t": temperature_view([1.0, 0.0], ["a", "b"])}, {"nested": view}):
        with pytest.raises(ValueError, match="attention_examples takes"):
            attention_examples(wrong)


# ---- In a real browser -----------------------------------------------------------------------------------------------


@pytest.fixture
def page(watched):
    yield watched.page
    watched.check()


def show(page, view):
    page.set_content(f"<!doctype html><meta charset=utf-8><body style='margin:8px'>{view._repr_html_()}")


def shown(page, side):
    return [float(one) for one in page.eval_on_selector_all(
        f"[data-attention='{side}']", "all => all.map(one => one.dataset.value)")]


def bars(page):
    return [float(one) for one in page.eval_on_selector_all(
        "[data-head-value]", "all => all.map(one => one.dataset.headValue)")]


def expect_heads(page, teacher, student, heads):
    """First rows of both maps, and the KL that is said aloud."""
    for side, maps in enumerate((teacher, student)):
        wanted = np.rint(maps[heads[side], 0].double().numpy() * 1000) / 1000
        assert shown(page, side) == pytest.approx(wanted, abs=1e-12)
    kl = attention_numbers(teacher, student)["kl_matrix"][heads[0]][heads[1]]
    what = "this head" if heads[0] == heads[1] else f"heads {heads[0]} and {heads[1]}"
    page.wait_for_function("said => document.querySelector('[aria-live]').textContent.includes(said)",
                           arg=f"KL of {what}: {kl:.3f} nats")


@pytest.mark.browser
def test_where_head_counts_differ_the_nearest_head_stands_beside(page):
    show(page, attention_view((TEACHER, NARROW), WORDS, layer_map=MAP))
    numbers = attention_numbers(TEACHER[4], NARROW[2])
    options = page.eval_on_selector_all("[data-control=student-head] option", "all => all.map(one => one.textContent)")
    assert options == ["nearest to it", "head 0", "head 1"]
    assert bars(page) == pytest.approx(numbers["nearest_kl"], abs=5e-4)
    for head in range(3):
        page.locator("[data-control=head]").select_option(f"head {head}")
        expect_heads(page, TEACHER[4], NARROW[2], (head, numbers["nearest"][head]))


@pytest.mark.browser
def test_equal_head_counts_start_head_by_head_and_can_be_matched(page):
    mixed = {layer: maps[[2, 0, 1]] for layer, maps in TEACHER.items()}
    show(page, attention_view((TEACHER, mixed), WORDS))
    expect_heads(page, TEACHER[4], mixed[4], (0, 0))
    assert bars(page) == pytest.approx(attention_numbers(TEACHER[4], mixed[4])["kl"], abs=5e-4)
    page.locator("[data-control=student-head]").select_option("nearest to it")
    expect_heads(page, TEACHER[4], mixed[4], (0, 1))
    assert bars(page) == pytest.approx([0.0] * 3, abs=5e-4)
    page.locator(".cv-strip span").nth(2).click()
    expect_heads(page, TEACHER[4], mixed[4], (2, 0))
    page.locator("[data-control=student-head]").select_option("head 2")
    expect_heads(page, TEACHER[4], mixed[4], (2, 2))


@pytest.mark.browser
def test_the_layer_map_chooses_both_layers(page):
    show(page, attention_view((TEACHER, STUDENT), WORDS, layer_map=MAP))
    page.locator("[data-control=layer]").select_option("teacher 2 → student 1")
    page.locator("[data-control=student-head]").select_option("nearest to it")
    expect_heads(page, TEACHER[2], STUDENT[1], (0, attention_numbers(TEACHER[2], STUDENT[1])["nearest"][0]))


@pytest.mark.browser
def test_examples_change_by_a_button_and_keep_what_was_chosen(page):
    show(page, attention_examples({"first": attention_view((TEACHER, STUDENT), WORDS, layer_map=MAP),
                                   "second": attention_view((TEACHER, NARROW), WORDS, layer_map=MAP)}))
    assert page.locator("[aria-pressed=true]").inner_text() == "first"
    page.locator("[data-control=layer]").select_option("teacher 2 → student 1")
    page.locator("[data-control=head]").select_option("head 2")
    page.get_by_role("button", name="second").press("Enter")
    assert page.locator("[aria-pressed=true]").inner_text() == "second"
    expect_heads(page, TEACHER[2], NARROW[1], (2, attention_numbers(TEACHER[2], NARROW[1])["nearest"][2]))
    page.get_by_role("button", name="first").click()
    expect_heads(page, TEACHER[2], STUDENT[1], (2, 2))  # "nearest" was never chosen by hand, so the default is back
