"""Relations view: the library's relations, the same numbers in the browser, and switches that show the mistakes."""

import re

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel
from view_pages import assert_fits, page_of, show_on_a_phone, values

from course_lib.methods import minilm
from course_lib.notebook.views import comparable
from course_lib.notebook.views.relations import KINDS, pack, relation_numbers, relation_scores, relations_view, unpack
from course_lib.shared import probes

WORDS = ["[CLS]", "not", "bad", "$5", "[SEP]", "[PAD]", "[PAD]"]
BATCH = {"input_ids": torch.tensor([[2, 5, 6, 7, 8, 9, 3], [2, 7, 6, 9, 3, 0, 0]]),
         "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2])}


def reading(layers, width, heads=3, seed=0, batch=BATCH):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        config = BertConfig(vocab_size=12, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                            intermediate_size=16, max_position_embeddings=24, initializer_range=0.6)
        return probes.read(BertModel(config).eval(), batch)


TEACHER, STUDENT = reading(3, 24), reading(2, 12, seed=1)


def view(**options):
    return relations_view(TEACHER, STUDENT, WORDS, **({"example": 1} | options))


def scores_on_the_page(data, kind):
    return [unpack(side, len(data["tokens"]), symmetric=kind != "qk") for side in data["packed"][kind]]


def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [view()]


# ---- The numbers -----------------------------------------------------------------------------------------------------


def test_the_mean_over_heads_is_the_loss_of_the_library():
    """One sentence, so the loss per sentence is the mean KL of the heads."""
    one = {name: tensor[1:] for name, tensor in BATCH.items()}
    teacher, student = reading(3, 24, batch=one), reading(2, 12, seed=1, batch=one)
    found = {kind: relation_numbers(relation_scores(teacher)[kind], relation_scores(student)[kind],
                                    one["attention_mask"][0])["kl"].mean() for kind in KINDS}
    mask, (t, s) = one["attention_mask"], (3, 2)
    v1 = {"qk": minilm.attention_relation_transfer(student.queries[s], student.keys[s], teacher.queries[t],
                                                   teacher.keys[t], mask),
          "vv": minilm.value_relation_transfer(student.values[s], teacher.values[t], mask)}
    v2 = {kind: minilm.relation_transfer(probes.merge_heads(mine[s]), probes.merge_heads(theirs[t]), mask,
                                         relation_heads=3)
          for kind, mine, theirs in (("qq", student.queries, teacher.queries), ("kk", student.keys, teacher.keys))}
    for kind, loss in (v1 | v2).items():
        assert found[kind] == pytest.approx(loss.item(), rel=1e-5), kind


def test_the_attention_is_the_models_own():
    numbers = relation_numbers(relation_scores(TEACHER, example=1)["qk"], relation_scores(STUDENT, example=1)["qk"],
                               BATCH["attention_mask"][1])
    real = TEACHER.attention_probs[3][1, :, :5, :5].double().numpy()
    np.testing.assert_allclose(numbers["teacher"][:, :5, :5], real, atol=1e-6)


def test_padding_is_0_everywhere_and_changes_nothing():
    mask = BATCH["attention_mask"][1]
    padded = relation_numbers(*(relation_scores(one, example=1)["vv"] for one in (TEACHER, STUDENT)), mask)
    cut = {"input_ids": BATCH["input_ids"][1:, :5], "attention_mask": BATCH["attention_mask"][1:, :5]}
    alone = reading(3, 24, batch=cut), reading(2, 12, seed=1, batch=cut)
    short = relation_numbers(*(relation_scores(one)["vv"] for one in alone), mask[:5])
    np.testing.assert_allclose(padded["kl"], short["kl"], atol=1e-5)
    assert padded["teacher"][:, 5:].max() == padded["teacher"][:, :, 5:].max() == padded["row_kl"][:, 5:].max() == 0
    assert padded["teacher"][:, :5].sum(-1) == pytest.approx(1)


def test_a_teacher_is_at_distance_zero_from_itself():
    scores = relation_scores(TEACHER, example=1)["vv"]
    assert relation_numbers(scores, scores, BATCH["attention_mask"][1])["kl"] == pytest.approx(0, abs=1e-12)


def test_a_smaller_scale_makes_every_relation_flatter():
    scores = relation_scores(TEACHER)["vv"]
    right, flat = (relation_numbers(scores, scores, np.ones(7), factors=(factor, factor)) for factor in (1.0, 0.2))
    assert (flat["teacher"].max(-1) < right["teacher"].max(-1)).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_packing_keeps_the_scores_to_a_hundred_thousandth_of_the_largest(symmetric):
    scores = 40 * torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    scores = scores + scores.swapaxes(1, 2) if symmetric else scores
    packed = pack(scores, symmetric=symmetric)
    assert np.abs(unpack(packed, 5, symmetric=symmetric) - scores).max() <= 0.51 * packed["step"] < 1e-3
    assert len(packed["text"]) == 3 * 3 * (15 if symmetric else 25)
    assert (unpack(pack(np.zeros((1, 2, 2)), symmetric=symmetric), 2, symmetric=symmetric) == 0).all()


@pytest.mark.parametrize(("options", "says"), [
    ({"tokens": WORDS[:5]}, "5 tokens for 7 positions"),
    ({"head": 3}, "Head 3 does not exist"),
    ({"layers": (4, None)}, "no layer 4; there are [1, 2, 3]"),
    ({"student": reading(2, 12, heads=2)}, "relation_transfer"),
])
def test_a_wrong_input_is_explained(options, says):
    given = {"teacher": TEACHER, "student": STUDENT, "tokens": WORDS} | options
    with pytest.raises(ValueError, match=re.escape(says)):
        relations_view(**given)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="0 kept tokens"):
        relation_numbers(np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), np.zeros(3))


# ---- The output ------------------------------------------------------------------------------------------------------


def long_batch(tokens):
    return {"input_ids": torch.arange(tokens)[None] % 12, "attention_mask": torch.ones(1, tokens).long()}


def test_twelve_heads_over_sixteen_tokens_stay_below_80_kilobytes():
    models = [reading(1, 24, heads=12, seed=seed, batch=long_batch(16)) for seed in (0, 1)]
    found = relations_view(*models, ["token"] * 16)
    data = re.search(r'class="cv-data">(.*?)</script>', found._repr_html_(), re.S)[1]
    assert len(data.encode()) < 80_000
    models = [reading(1, 24, heads=12, seed=seed, batch=long_batch(22)) for seed in (0, 1)]
    with pytest.raises(ValueError, match="shorter sentence"):
        relations_view(*models, ["token"] * 22)


def test_the_table_holds_the_numbers_of_python():
    html = comparable(view(head=1)._repr_html_())
    data = view().data
    found = {kind: relation_numbers(*scores_on_the_page(data, kind), data["mask"]) for kind in KINDS}
    row = re.search(r'<th scope="row">2</th>(.*?)</tr>', html)[1]
    assert [float(cell) for cell in re.findall(r"<td>(.*?)</td>", row)] == pytest.approx(
        [found[kind]["kl"][2] for kind in KINDS], abs=6e-4)
    strongest = found["vv"]["student"][1, 2]
    assert f"{WORDS[strongest.argmax()]} {strongest.max():.3f}" in html
    assert "[PAD]" not in html  # padding has no row and is nobody's partner


# ---- In the browser --------------------------------------------------------------------------------------------------


def expect(page, data, kinds, head, query, scale=0, masked=True):
    mask = data["mask"] if masked else [1] * len(data["mask"])
    factors = [one[scale] for one in data["factors"]]
    for kind in kinds:
        numbers = relation_numbers(*scores_on_the_page(data, kind), mask, factors=factors)
        kept = np.flatnonzero(mask)
        for side, who in enumerate(("teacher", "student")):
            shown = values(page, f"[data-relation={kind}][data-side='{side}']")
            assert shown == pytest.approx(numbers[who][head, query, kept], abs=1e-9), (kind, who)
        assert values(page, f"[data-row-kl={kind}]") == pytest.approx([numbers["row_kl"][head, query]], abs=1e-9)
        assert values(page, f"[data-kl={kind}]") == pytest.approx([numbers["kl"][head]], abs=1e-9)
        assert values(page, f"[data-head-kl={kind}]") == pytest.approx(numbers["kl"], abs=1e-9)


@pytest.mark.browser
def test_javascript_and_python_agree_for_every_switch(watched):
    page, shown = watched.page, view()
    page.set_content(page_of(shown))
    expect(page, shown.data, ("qk", "vv"), 0, 1)
    for scale, name in enumerate(shown.data["scales"]):
        page.locator("[data-control=scale]").select_option(name)
        expect(page, shown.data, ("qk", "vv"), 0, 1, scale)
    page.locator("[data-control=mask]").uncheck()
    expect(page, shown.data, ("qk", "vv"), 0, 1, 2, masked=False)
    page.locator("[data-control=version-1]").click()
    page.locator("[data-control=head]").select_option("head 2")
    expect(page, shown.data, ("qq", "kk", "vv"), 2, 1, 2, masked=False)
    page.locator("[data-control=paper]").click()
    expect(page, shown.data, ("qq", "kk", "vv"), 0, 1)
    watched.check()


@pytest.mark.browser
def test_without_padding_there_is_no_mask_to_forget(watched):
    page, shown = watched.page, view(example=0)
    page.set_content(page_of(shown))
    assert page.locator("[data-control=mask]").count() == 0
    expect(page, shown.data, ("qk", "vv"), 0, 1)
    watched.check()


@pytest.mark.browser
def test_tokens_answer_to_keyboard_and_pointer_and_padding_does_not(watched):
    page, shown = watched.page, view()
    page.set_content(page_of(shown))
    page.locator("[data-query='1']").focus()
    for key, query in (("ArrowRight", 2), ("End", 4), ("ArrowRight", 0), ("ArrowLeft", 4), ("Home", 0)):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.query") == str(query)
        expect(page, shown.data, ("qk", "vv"), 0, query)
    page.locator("[data-query='3']").hover()
    expect(page, shown.data, ("qk", "vv"), 0, 3)
    page.locator("[data-kind=vv] .cv-map rect").nth(2 * 7 + 1).hover()  # any cell of the third row
    expect(page, shown.data, ("qk", "vv"), 0, 2)
    assert page.locator("[data-query='5']").is_disabled()
    page.locator("[data-control=mask]").uncheck()
    page.locator("[data-query='5']").click()
    expect(page, shown.data, ("qk", "vv"), 0, 5, masked=False)
    page.wait_for_function("document.querySelector('[aria-live]').textContent.startsWith('“[PAD]” in the teacher')")
    page.locator("[data-control=mask]").check()  # the chosen token leaves: another one is chosen
    expect(page, shown.data, ("qk", "vv"), 0, 1)
    watched.check()


@pytest.mark.browser
def test_presets_find_the_nearest_and_the_farthest_head(watched):
    page, shown = watched.page, view()
    page.set_content(page_of(shown))
    total = sum(relation_numbers(*scores_on_the_page(shown.data, kind), shown.data["mask"])["kl"]
                for kind in ("qk", "vv"))
    for name, head in (("nearest", total.argmin()), ("farthest", total.argmax())):
        page.locator(f"[data-control={name}]").press("Enter")
        expect(page, shown.data, ("qk", "vv"), int(head), 1)
    page.locator("[data-kind=qk] .cv-strip span").nth(1).click()
    expect(page, shown.data, ("qk", "vv"), 1, 1)


@pytest.mark.browser
def test_two_views_on_one_page_live_apart_and_hostile_tokens_stay_text(watched):
    page = watched.page
    hostile = ["</script><script>window.hurt = 1</script><b>$x$", *WORDS[1:]]
    page.set_content(page_of(view(), relations_view(TEACHER, STUDENT, hostile, example=1)))
    page.locator("[data-control=head]").nth(1).select_option("head 2")
    assert page.locator("[data-control=head]").nth(0).input_value() == "head 0"
    assert page.evaluate("window.hurt") is None and page.locator("b:has-text('$x$')").count() == 0
    watched.check()


@pytest.mark.browser
def test_both_versions_with_long_words_fit_on_a_phone(watched):
    models = [reading(1, 24, heads=12, seed=seed, batch=long_batch(16)) for seed in (0, 1)]
    show_on_a_phone(watched, relations_view(*models, ["token"] * 14 + ["uncharacteristically"] * 2))
    for version in ("version-0", "version-1"):
        watched.page.locator(f"[data-control={version}]").click()
        assert_fits(watched)
