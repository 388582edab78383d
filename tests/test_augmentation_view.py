"""The augmentation player: Python and the page make the same sentences from the same draws."""

from __future__ import annotations

import json
import re

import pytest
from view_pages import HOSTILE, page_of, values

from course_lib.methods.bilstm_augmentation import MASK, words_by_tag
from course_lib.notebook.views import comparable
from course_lib.notebook.views.augmentation import (
    PRESETS,
    Draw,
    augmentation_numbers,
    augmentation_rates,
    augmentation_view,
    changed_view,
    changes,
    draw,
)

SENTENCE = [("The", "DT"), ("plot", "NN"), ("is", "VBZ"), ("thin", "JJ"), (",", ","), ("but", "CC"), ("moving", "JJ"),
            (".", ".")]
CORPUS = [[("a", "DT"), ("good", "JJ"), ("film", "NN"), ("has", "VBZ"), ("bad", "JJ"), ("taste", "NN")],
          [("and", "CC"), ("so", "CC"), (";", ","), ("!", ".")], SENTENCE]
TABLE = words_by_tag(CORPUS)
SETTINGS = [{"p_mask": 0.1, "p_pos": 0.1, "p_ngram": 0.25}, {"p_mask": 0.0, "p_pos": 0.0, "p_ngram": 0.0},
            {"p_mask": 0.33, "p_pos": 0.67, "p_ngram": 1.0}, {"p_mask": 0.7, "p_pos": 0.2, "p_ngram": 0.6}]

def examples():
    """Shown on every host and on a phone by test_every_view.py."""
    return [augmentation_view(SENTENCE * 3, TABLE),
            augmentation_view(SENTENCE, TABLE, p_mask=0.5, p_pos=0.5, p_ngram=1.0),
            augmentation_view([("uncharacteristically" * 2, "NN")] * 5, TABLE, p_mask=0.4),
            changed_view([changes("a b", "a c")]),
            changed_view([changes("a b c", "x y z", dict(zip("abc", "123", strict=True)).get)],
                         kinds={"1": "one", "2": "two", "3": "three"})]


# ---- The numbers -----------------------------------------------------------------------------------------------------

STORED = Draw((0.005, 0.105, 0.205, 0.995, 0.095, 0.305, 0.195, 0.505), ("a", "film", "has", "good", ";", "and", "bad",
                                                                        "!"), 0.245, 3, 0.995)


def test_one_draw_decides_between_mask_other_word_and_the_word_itself():
    copy = augmentation_numbers(SENTENCE, STORED, p_ngram=0.0)
    assert copy["words"] == [MASK, "film", "is", "thin", MASK, "but", "bad", "."]
    assert copy["kinds"] == ["masked", "replaced", "", "", "masked", "", "replaced", ""]
    assert copy["window"] == (0, 8) and copy["new"] == copy["words"]


def test_the_ngram_is_cut_from_the_edited_words():
    copy = augmentation_numbers(SENTENCE, STORED)
    assert copy["window"] == (5, 8)  # 6 starts, and 0.995 of the way is the last one
    assert copy["new"] == ["but", "bad", "."]
    assert len(copy["words"]) == 8


def test_a_sentence_that_is_not_longer_than_the_ngram_stays_whole():
    stored = Draw((0.995,) * 3, ("a", "film", "has"), 0.005, 3, 0.5)
    assert augmentation_numbers(SENTENCE[:3], stored)["new"] == ["The", "plot", "is"]
    assert augmentation_numbers(SENTENCE[:3], stored)["window"] == (0, 3)


def test_draws_never_stand_on_a_border_and_depend_on_the_seed_only():
    for seed in range(30):
        one = draw(SENTENCE, TABLE, seed)
        assert one == draw(SENTENCE, TABLE, seed)
        assert all(round(1000 * x) % 10 == 5 and 0 < x < 1 for x in (*one.words, one.ngram, one.start))
        assert one.length in (1, 2, 3, 4, 5)
    assert len({draw(SENTENCE, TABLE, seed) for seed in range(30)}) == 30


def test_a_candidate_is_another_word_of_the_same_kind():
    for seed in range(30):
        for (word, tag), other in zip(SENTENCE, draw(SENTENCE, TABLE, seed).candidates, strict=True):
            assert other in TABLE[tag] and other.lower() != word.lower()
    alone = draw([("only", "RB")], {"RB": ["only"]}, 0)
    assert alone.candidates == ("only",)  # there is no other
    assert augmentation_numbers([("only", "RB")], alone, p_mask=0, p_pos=1)["kinds"] == ["replaced"]


def test_over_many_seeds_the_rates_are_those_that_were_asked_for():
    stored = [draw(SENTENCE, TABLE, seed) for seed in range(2000)]
    rates = augmentation_rates(SENTENCE, stored, p_mask=0.2, p_pos=0.3, p_ngram=0.4)
    for name, wanted in {"masked": 0.2, "replaced": 0.3, "kept": 0.5, "ngram": 0.4}.items():
        assert rates[name] == pytest.approx(wanted, abs=0.03), name
    assert augmentation_rates(SENTENCE, stored, p_mask=0, p_pos=0, p_ngram=0)["different"] == 0


@pytest.mark.parametrize(("options", "says"), [
    ({"p_mask": 0.6, "p_pos": 0.5}, "p_mask + p_pos"), ({"seed": 20}, "seed 20 of 20"),
    ({"presets": {"x": {"p_mask": -1, "p_pos": 0, "p_ngram": 0}}}, "negative")])
def test_impossible_settings_are_refused(options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        augmentation_view(SENTENCE, TABLE, **options)


def test_a_tag_without_words_is_named():
    with pytest.raises(ValueError, match="'XX'"):
        augmentation_view([("odd", "XX")], TABLE)


def test_changes_are_found_word_by_word():
    found = changes("A good film .", "A fine movie .", lambda word: "guess" if word == "good" else "neighbour")
    assert found == [("A", "A", ""), ("good", "fine", "guess"), ("film", "movie", "neighbour"), (".", ".", "")]
    with pytest.raises(ValueError, match="2 words have become 3"):
        changes("a film", "a good film")


def test_copies_of_one_sentence_with_named_kinds_are_wanted():
    good, other = changes("a b", "a c"), changes("x y", "x z")
    with pytest.raises(ValueError, match="2 different sentences"):
        changed_view([good, other])
    with pytest.raises(ValueError, match="Kinds without a name"):
        changed_view([good], kinds={"guess": "a guess"})


# ---- One output ------------------------------------------------------------------------------------------------------


def test_the_output_is_small():
    assert len(augmentation_view(SENTENCE, TABLE)._repr_html_().encode()) < 60_000


def test_the_table_holds_every_copy_without_a_script():
    html = comparable(augmentation_view(SENTENCE, TABLE, seeds=12)._repr_html_())
    for seed in range(12):
        copy = augmentation_numbers(SENTENCE, draw(SENTENCE, TABLE, seed))
        row = re.search(rf'<th scope="row">{seed}</th>(.*?)</tr>', html)[1]
        cells = re.findall(r"<td>(.*?)</td>", row)
        assert cells[0] == str(copy["kinds"].count("masked")) and cells[-1] == " ".join(copy["new"])


# ---- In a real browser -----------------------------------------------------------------------------------------------


def set_probabilities(page, settings):
    for name in ("p_mask", "p_pos", "p_ngram"):  # first make room, then set
        page.locator(f"[data-control={name}]").fill("0")
    for name, value in settings.items():
        page.locator(f"[data-control={name}]").fill(str(value))


def shown(page):
    boxes = page.eval_on_selector_all(".cv-box", """all => all.map(one => [one.querySelector(".cv-now").textContent,
        one.dataset.kind, one.dataset.inside === "true", one.querySelector(".cv-was").textContent])""")
    return {"words": [box[0] for box in boxes], "kinds": [box[1] for box in boxes],
            "inside": [box[2] for box in boxes], "was": [box[3] for box in boxes],
            "new": page.inner_text("[data-new]")}


@pytest.mark.browser
@pytest.mark.parametrize("settings", SETTINGS)
def test_javascript_and_python_make_the_same_sentences(watched, settings):
    page = watched.page
    page.set_content(page_of(augmentation_view(SENTENCE, TABLE, seeds=25)))
    set_probabilities(page, settings)
    stored = [draw(SENTENCE, TABLE, seed) for seed in range(25)]
    for seed, one in enumerate(stored):
        page.locator("[data-control=seed]").fill(str(seed))
        copy, here = augmentation_numbers(SENTENCE, one, **settings), shown(page)
        assert here["words"] == copy["words"]
        assert here["kinds"] == copy["kinds"]
        assert here["inside"] == [copy["window"][0] <= i < copy["window"][1] for i in range(len(SENTENCE))]
        assert here["was"] == [word if kind else "" for (word, _), kind in zip(SENTENCE, copy["kinds"], strict=True)]
        assert here["new"] == " ".join(copy["new"])
    rates = augmentation_rates(SENTENCE, stored, **settings)
    wanted = [rates[name] for name in ("masked", "replaced", "ngram", "different")]
    assert values(page, "[data-quantity]") == pytest.approx(wanted, abs=1e-12)
    watched.check()


@pytest.mark.browser
def test_the_keyboard_reaches_and_moves_everything(watched):
    page = watched.page
    page.set_content(page_of(augmentation_view(SENTENCE, TABLE, seed=4)))
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.control ?? document.activeElement.dataset.preset"))
    assert [*PRESETS, "p_mask", "p_pos", "p_ngram", "seed", "previous", "next", "play"] == [
        name for name in dict.fromkeys(reached) if name]
    page.locator("[data-control=p_mask]").focus()
    page.keyboard.press("ArrowRight")
    assert page.input_value("[data-control=p_mask]") == "0.11"
    page.locator("[data-control=next]").focus()
    page.keyboard.press("Enter")
    assert page.input_value("[data-control=seed]") == "5"
    page.locator("[data-control=previous]").focus()
    page.keyboard.press("Space")
    assert page.input_value("[data-control=seed]") == "4"
    wanted = augmentation_numbers(SENTENCE, draw(SENTENCE, TABLE, 4), p_mask=0.11)
    assert shown(page)["new"] == " ".join(wanted["new"])
    page.wait_for_function("document.querySelector('[aria-live]').textContent.startsWith('Seed 4')")
    watched.check()


@pytest.mark.browser
def test_one_probability_gives_way_to_the_other(watched):
    page = watched.page
    page.set_content(page_of(augmentation_view(SENTENCE, TABLE, p_mask=0.2, p_pos=0.5)))
    page.locator("[data-control=p_mask]").fill("0.8")
    assert page.input_value("[data-control=p_pos]") == "0.2"
    assert "p_pos gives way" in page.inner_text(".cv-complaint")
    page.get_by_role("button", name="The paper").click()
    assert [page.input_value(f"[data-control={name}]") for name in ("p_mask", "p_pos", "p_ngram")] == [
        "0.1", "0.1", "0.25"]
    assert page.inner_text(".cv-complaint") == ""


@pytest.mark.browser
def test_an_impossible_seed_is_refused_with_a_word(watched):
    page = watched.page
    page.set_content(page_of(augmentation_view(SENTENCE, TABLE, seed=3)))
    before = shown(page)
    for text in ("20", "-1", "1.5", ""):
        page.fill("[data-control=seed]", text)
        assert "0 to 19" in page.inner_text(".cv-complaint") and shown(page) == before
    page.locator("[data-control=seed]").blur()
    assert page.input_value("[data-control=seed]") == "3" and page.inner_text(".cv-complaint") == ""


@pytest.mark.browser
def test_playing_goes_on_by_itself_until_it_is_stopped(watched):
    page = watched.page
    page.set_content(page_of(augmentation_view(SENTENCE, TABLE, seeds=3, seed=2)))
    page.locator("[data-control=play]").click()
    page.wait_for_function("document.querySelector('[data-control=seed]').value === '0'", timeout=10_000)
    page.locator("[data-control=play]").click()
    seed = page.input_value("[data-control=seed]")
    page.wait_for_timeout(2000)
    assert page.input_value("[data-control=seed]") == seed
    assert page.inner_text("[data-control=play]") == "Play all"


@pytest.mark.browser
def test_a_copy_that_is_dropped_says_so(watched):
    page = watched.page
    page.set_content(page_of(augmentation_view(SENTENCE, TABLE, p_mask=0, p_pos=0, p_ngram=0)))
    assert "this copy is dropped" in page.inner_text(".cv-result")
    assert values(page, "[data-quantity=different]") == [0]
    page.set_content(page_of(changed_view([changes("a b", "a c")] * 2, seed=1)))
    assert "The same as copy 0" in page.inner_text(".cv-result")


@pytest.mark.browser
def test_finished_copies_are_shown_with_their_kinds(watched):
    page = watched.page
    kinds = {"guess": "a guess of the masked LM", "neighbour": "a near word vector"}
    copies = [changes("a good film .", new, lambda word: "guess" if word == "good" else "neighbour")
              for new in ("a fine film .", "a fine movie .", "a bad film .")]
    page.set_content(page_of(changed_view(copies, kinds=kinds, seed=1)))
    assert shown(page) == {"words": ["a", "fine", "movie", "."], "kinds": ["", "guess", "neighbour", ""],
                           "inside": [True] * 4, "was": ["", "good", "film", ""], "new": "a fine movie ."}
    assert values(page, "[data-quantity]") == pytest.approx([3 / 12, 1 / 12, 3])
    assert page.locator("[data-control=p_mask]").count() == 0
    page.locator("[data-control=next]").click()
    assert shown(page)["new"] == "a bad film ."
    watched.check()


@pytest.mark.browser
def test_hostile_words_do_nothing_in_the_page(watched):
    page = watched.page
    view = augmentation_view([(HOSTILE, "NN"), ("cat", "NN")], {"NN": [HOSTILE, "x"]}, p_mask=0, p_pos=1)
    assert json.loads(re.search(r'class="cv-data">(.*?)</script>', view._repr_html_(), re.S)[1])["words"][0] == HOSTILE
    page.set_content(page_of(view, changed_view([changes("cat", HOSTILE.replace(" ", ""))])))
    assert page.evaluate("window.hurt") is None
    watched.check()
