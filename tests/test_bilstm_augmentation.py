"""Augmentation: the published rates, the one-draw rule, and originals that nobody changes."""

import copy
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import oracle

from course_lib.methods.bilstm_augmentation import (
    MASK,
    augment,
    augment_pairs,
    augment_words,
    measured_rates,
    ngram,
    read_lexicon,
    tags,
    words_by_tag,
)

CORPUS = [[("good", "JJ"), ("film", "NN")], [("bad", "JJ"), ("long", "JJ"), ("plot", "NN"), ("ends", "VBZ")],
          [("the", "DT"), ("film", "NN"), ("ends", "VBZ")]]
TABLE = words_by_tag(CORPUS)


@pytest.mark.parametrize("as_in", ["paper", "code"])
def test_rates_are_those_of_the_original(as_in):
    truth = oracle("bilstm/augment_generate_rates")
    found = measured_rates(truth.inputs["tags"], truth.inputs["pos_dict"], as_in=as_in, p_mask=truth.params["p_mask"],
                           p_pos=truth.params["p_pos"], p_ngram=truth.params["p_ng"], repeats=60_000)
    for rate in ("mask_rate", "pos_rate", "kept_rate", "ngram_rate"):
        truth.check(rate, found[rate])
    assert found["ngram_length_share"].keys() == truth.outputs["ngram_length_share"].keys()
    for n, share in truth.outputs["ngram_length_share"].items():
        assert found["ngram_length_share"][n] == pytest.approx(share, abs=truth.atol)


def test_one_draw_decides_so_the_rates_add_up_exactly():
    """Two draws would replace only (1 - p_mask) * p_pos = 0.25 of the words."""
    sentence = [("a", "X")] * 10
    rates = measured_rates(sentence, {"X": ["b"]}, p_mask=0.5, p_pos=0.5, repeats=4000)
    assert rates["kept_rate"] == 0
    assert rates["mask_rate"] == pytest.approx(0.5, abs=0.01) and rates["pos_rate"] == pytest.approx(0.5, abs=0.01)


def test_a_low_mask_probability_masks_little():
    """The inverted mask of public copies (X > p_mask) would hide 90 %."""
    rates = measured_rates([("a", "X")] * 10, {"X": ["b"]}, p_mask=0.1, p_pos=0.0, repeats=4000)
    assert rates["mask_rate"] == pytest.approx(0.1, abs=0.01)


def test_replacement_follows_the_corpus_frequencies_of_the_same_tag():
    table = words_by_tag([[("film", "NN")], [("film", "NN")], [("film", "NN")], [("plot", "NN")], [("ran", "VBD")]])
    drawn = Counter(augment_words([("x", "NN")], table, random.Random(i), p_mask=0, p_pos=1, p_ngram=0)[0]
                    for i in range(4000))
    assert drawn.keys() == {"film", "plot"}
    assert drawn["film"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_ngram_of_the_paper_reaches_the_last_word_and_that_of_the_code_does_not():
    words = list("abcdef")
    seen = {as_in: {tuple(ngram(words, random.Random(i), [2], as_in=as_in)) for i in range(300)}
            for as_in in ("paper", "code")}
    assert seen["paper"] == {tuple(words[i : i + 2]) for i in range(5)}
    assert seen["code"] == {tuple(words[i : i + 2]) for i in range(4)}


@pytest.mark.parametrize("as_in", ["paper", "code"])
@pytest.mark.parametrize("words", [[], ["a"], ["a", "b"]])
def test_sentence_not_longer_than_the_window_stays_whole(words, as_in):
    assert ngram(words, random.Random(0), [2], as_in=as_in) == words


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n_iter=st.integers(0, 30), p=st.floats(0, 0.5))
def test_new_sentences_are_new_unique_and_the_originals_unchanged(seed, n_iter, p):
    corpus, table = copy.deepcopy(CORPUS), copy.deepcopy(TABLE)
    made = augment(corpus, table, n_iter=n_iter, seed=seed, p_mask=p, p_pos=p)
    assert corpus == CORPUS and table == TABLE
    assert len(made) <= n_iter * len(CORPUS)
    tuples = [tuple(words) for words in made]
    originals = {tuple(w for w, _ in s) for s in CORPUS}
    assert len(set(tuples)) == len(tuples) and not set(tuples) & originals and all(tuples)
    assert made == augment(corpus, table, n_iter=n_iter, seed=seed, p_mask=p, p_pos=p), "same seed, same sentences"


def test_other_seed_makes_other_sentences():
    assert augment(CORPUS, TABLE, seed=0) != augment(CORPUS, TABLE, seed=1)


def pair_changes(as_in, strategies=("first", "second", "both"), n_iter=300):
    """Which sides differ from the original, for pairs of long sentences (a change then nearly always shows)."""
    first, second = ([(f"{side}{i}", "NN") for i in range(40)] for side in "ab")
    table = {"NN": ["new"]}
    made = augment_pairs([(first, second)], table, n_iter=n_iter, strategies=strategies, as_in=as_in)
    originals = [[w for w, _ in sentence] for sentence in (first, second)]
    return [tuple(new != old for new, old in zip(pair, originals, strict=True)) for pair in made]


@pytest.mark.parametrize("as_in", ["paper", "code"])
def test_pair_strategies_come_a_third_each(as_in):
    counts = Counter(pair_changes(as_in, n_iter=3000))
    assert counts.keys() == {(True, False), (False, True), (True, True)}
    for count in counts.values():
        assert count / counts.total() == pytest.approx(1 / 3, abs=0.03)


def test_the_paper_takes_the_strategies_in_turn():
    assert pair_changes("paper", n_iter=6) == [(True, False), (False, True), (True, True)] * 2


@pytest.mark.parametrize(("strategy", "sides"), [
    ("first", (True, False)), ("second", (False, True)), ("both", (True, True))])
def test_one_strategy_alone(strategy, sides):
    assert set(pair_changes("paper", (strategy,), n_iter=20)) == {sides}


def test_pairs_are_new_unique_and_the_originals_unchanged():
    pairs = [(CORPUS[0], CORPUS[1]), (CORPUS[1], CORPUS[2])]
    before = copy.deepcopy(pairs)
    made = augment_pairs(pairs, TABLE)
    assert pairs == before
    keys = [(tuple(a), tuple(b)) for a, b in made]
    originals = {tuple(tuple(w for w, _ in s) for s in pair) for pair in pairs}
    assert len(set(keys)) == len(keys) <= 20 and not set(keys) & originals
    assert made == augment_pairs(pairs, TABLE)


@pytest.mark.parametrize(("call", "says"), [
    (lambda: augment(CORPUS, TABLE, p_mask=0.6, p_pos=0.6), "p_mask"),
    (lambda: augment(CORPUS, TABLE, p_ngram=1.1), "p_ngram"),
    (lambda: augment(CORPUS, TABLE, p_mask=-0.1), "p_mask"),
    (lambda: augment([[("a", "??")]], TABLE, p_mask=0, p_pos=1), r"'\?\?'"),
    (lambda: augment_pairs([], TABLE, strategies=("third",)), "third"),
    (lambda: augment_pairs([], TABLE, strategies=()), "first"),
    (lambda: ngram(["a"], random.Random(0), as_in="book"), "paper"),
])
def test_wrong_input_is_refused_with_a_way_out(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_tags_come_from_the_lexicon_and_else_from_the_look(tmp_path):
    file = tmp_path / "lexicon.txt"
    file.write_text(";;; a comment\n\ngood JJ\nWindows NNP\n, ,\n", "utf-8")
    assert read_lexicon(file) == {"good": "JJ", "Windows": "NNP", ",": ","}
    words = ["Good", "Windows", ",", "1st", "Zorblatt", "zorblatts", "grokking", "frobbed", "oddly", "??", "snark"]
    expected = ["JJ", "NNP", ",", "CD", "NNP", "NNS", "VBG", "VBN", "RB", ".", "NN"]
    assert tags(words, file) == list(zip(words, expected, strict=True)) == tags(words, read_lexicon(file))


@pytest.mark.assets
def test_real_lexicon_tags_a_real_sentence():
    from course_lib.material.assets import asset

    lexicon = read_lexicon(asset("pos-lexicon", "en-lexicon.txt"))
    assert len(lexicon) > 90_000
    assert tags(["the", "film", "is", "a", "quiet", "triumph"], lexicon) == [
        ("the", "DT"), ("film", "NN"), ("is", "VBZ"), ("a", "DT"), ("quiet", "JJ"), ("triumph", "NN")]


def test_masked_words_are_one_token_for_the_student():
    assert MASK == "[MASK]" and set(augment_words([("a", "X")], {}, random.Random(0), p_mask=1, p_pos=0)) == {MASK}


def test_a_number_and_a_generator_seed_alike_and_a_generator_goes_on():
    options = {"p_mask": 0.3, "p_pos": 0.3}
    for call in (lambda seed: augment_words(CORPUS[0], TABLE, seed, **options),
                 lambda seed: augment(CORPUS, TABLE, seed=seed, **options),
                 lambda seed: augment_pairs([(CORPUS[0], CORPUS[1])], TABLE, seed=seed, **options)):
        assert call(7) == call(random.Random(7))
    rng = random.Random(7)
    assert augment(CORPUS, TABLE, seed=rng, **options) != augment(CORPUS, TABLE, seed=rng, **options)
