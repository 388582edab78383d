"""What a difference is worth: numbers worked out by hand, simulated truth, and tables with too many tests."""

from __future__ import annotations

import numpy as np
import pytest

from course_lib.shared import statistics as s
from course_lib.shared.statistics import Prediction


def simulated(gain: float, *, seeds=10, sentences=400, random, of_seed=0.02, of_sentence=1.0):
    """Two recipes with a known difference: some sentences are hard for both, some seeds are lucky for one."""
    hard = random.normal(0, of_sentence, sentences)
    both = []
    for shift in (gain, 0.0):
        own = hard + random.normal(0, 0.5 * of_sentence, sentences)  # what is hard for this recipe only
        chance = 0.75 + shift + 0.1 * np.tanh(own) + random.normal(0, of_seed, seeds)[:, None]
        both.append(random.random((seeds, sentences)) < chance)
    return both


class TestPacking:
    @pytest.mark.parametrize("length", [1, 7, 8, 9, 3323])
    def test_what_was_packed_comes_back(self, length):
        right = np.random.default_rng(length).random(length) < 0.7
        assert (s.unpack(s.pack(right)) == right).all() and len(s.unpack(s.pack(right))) == length

    def test_eight_sentences_are_one_byte(self):
        assert s.pack([1, 0, 0, 0, 0, 0, 0, 1]) == "8:gQ=="  # 10000001 = 0x81

    def test_logits_and_cut_text_are_refused(self):
        with pytest.raises(ValueError, match="0 or 1 per sentence"):
            s.pack(np.array([0.3, 1.0]))
        with pytest.raises(ValueError, match="cut"):
            s.unpack("100:gQ==")


class TestGain:
    def test_the_mean_is_the_difference_in_points(self):
        ours, baseline = np.array([[1, 1, 1, 0], [1, 1, 0, 0]]), np.array([[1, 0, 0, 0], [1, 0, 0, 0]])
        assert s.gain(ours, baseline).mean == 37.5  # 5 / 8 - 2 / 8

    def test_the_width_is_that_of_the_formula_when_only_sentences_differ(self):
        """Equal rows: seeds add nothing, and a mean of N sentences has the standard error sd / sqrt(N)."""
        row = np.random.default_rng(1).random(2000) < 0.3
        found = s.gain(np.tile(row, (5, 1)), np.zeros((5, 2000)))
        assert (found.high - found.low) / 2 == pytest.approx(100 * 1.96 * row.std() / 2000**0.5, rel=0.04)

    def test_the_width_is_that_of_the_formula_when_only_seeds_differ(self):
        """All sentences of a seed alike: 40 seeds, as if there were 40 numbers."""
        of_seed = (np.random.default_rng(2).random(40) < 0.5).astype(float)
        found = s.gain(np.tile(of_seed[:, None], (1, 50)), np.zeros((40, 50)))
        assert (found.high - found.low) / 2 == pytest.approx(100 * 2.023 * of_seed.std() / 40**0.5, rel=0.04)  # t, 39

    def test_few_sentences_widen_the_interval_however_many_seeds_there_are(self):
        random = np.random.default_rng(3)
        of_sentence = random.random(100) < 0.5
        ours = np.where(random.random((50, 100)) < 0.02, ~of_sentence, of_sentence)
        found = s.gain(ours, np.full((50, 100), 0.4))
        assert found.high - found.low > 15  # over 50 seeds alone: less than 1 point

    def test_the_same_data_give_the_same_interval(self):
        ours, baseline = simulated(0.03, random=np.random.default_rng(4))
        assert s.gain(ours, baseline) == s.gain(ours, baseline)

    def test_a_teacher_of_one_run_is_compared_with_every_seed(self):
        ours, baseline = simulated(0.0, random=np.random.default_rng(5))
        assert s.gain(ours, baseline[:1]) == s.gain(ours, np.tile(baseline[:1], (10, 1)))

    @pytest.mark.parametrize("luck", [{"of_seed": 0.0}, {"of_seed": 0.03}, {"of_seed": 0.0, "of_sentence": 9.0}])
    def test_the_interval_covers_the_truth_and_is_no_wider_than_it_must_be(self, luck, monkeypatch):
        """Of 300 experiments with a true gain of 3 points; whether single answers, seeds or sentences are the luck."""
        monkeypatch.setattr(s, "DRAWS", 1000)
        random = np.random.default_rng(6)
        found = [s.gain(*simulated(0.03, random=random, **luck)) for _ in range(300)]
        assert 0.92 <= np.mean([g.low <= 3 <= g.high for g in found]) <= 0.98
        needed = 2 * 1.96 * np.std([g.mean for g in found])
        assert 0.9 < np.mean([g.high - g.low for g in found]) / needed < 1.25

    @pytest.mark.parametrize(("ours", "baseline", "words"), [
        (np.zeros((2, 5)), np.zeros((2, 6)), "paired"), (np.zeros((3, 5)), np.zeros((2, 5)), "paired"),
        (np.zeros((1, 5)), np.zeros((1, 5)), "two seeds")])
    def test_what_cannot_be_paired_is_refused(self, ours, baseline, words):
        with pytest.raises(ValueError, match=words):
            s.gain(ours, baseline)


class TestVerdict:
    @pytest.mark.parametrize(("low", "high", "words"), [
        (0.2, 1.0, "+0.5 [+0.2, +1.0]: better"), (-2.0, -0.1, "worse"),
        (-0.4, 1.3, "no difference shown (up to 1.3 points possible)"),
        (-2.0, 0.0, "no difference shown (up to 2.0 points possible)")])
    def test_it_says_what_the_interval_allows(self, low, high, words):
        assert words in str(s.Gain(0.5, low, high, 0.95, 10, 3000))


class TestHolm:
    def test_the_adjusted_values_are_those_worked_out_by_hand(self):
        """0.01, 0.04, 0.03, 0.005 in order: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not be below 0.06."""
        assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_no_adjusted_value_is_above_one(self):
        assert s.holm([0.5, 0.9, 0.7]) == [1.0, 1.0, 1.0]

    def test_p_counts_the_draws_beyond_zero(self):
        draws = np.concatenate([np.full(990, 1.0), np.full(9, -1.0)])
        assert s.two_sided(draws) == pytest.approx(2 * 10 / 1000)

    def test_the_intervals_of_a_table_agree_with_the_adjusted_values(self):
        random = np.random.default_rng(7)
        table = {f"{points}": simulated(points / 100, random=random) for points in (0, 1, 2, 3, 4, 6)}
        p = [s.two_sided(s._drawn(*pair)[1]) for pair in table.values()]
        found = s.gains(table)
        assert [g.verdict != "no difference shown" for g in found.values()] == [a < 0.05 for a in s.holm(p)]
        assert list(found) == list(table)

    def test_a_difference_that_shows_alone_may_not_show_among_many(self):
        random = np.random.default_rng(8)
        pair = next(pair for pair in iter(lambda: simulated(0.02, random=random), None)
                    if 0.02 < s.two_sided(s._drawn(*pair)[1]) < 0.04)
        nothing = simulated(0.0, random=random)
        assert s.gains({"alone": pair})["alone"].verdict == "better"
        among = s.gains({"it": pair} | {f"nothing {i}": nothing for i in range(5)})["it"]
        assert among.verdict == "no difference shown" and among.level > 0.95


class TestPredictions:
    def test_a_verdict_is_compared_with_the_sign_that_was_predicted(self):
        random = np.random.default_rng(9)
        (much, base), (same, _) = simulated(0.1, random=random), simulated(0.0, random=random)
        right = {"accuracy": {"much": much, "base": base, "same": base.copy(), "other": same}}
        found = s.judged([Prediction("more", "much", "base", "+"), Prediction("less", "much", "base", "-"),
                          Prediction("equal", "same", "base", "0")], right)
        assert [f["verdict"] for f in found] == ["better", "better", "no difference shown"]
        assert [f["as_predicted"] for f in found] == [True, False, True]
        mean, low, high = found[0]["gain"]
        assert low < mean < high and found[0]["seeds"] == 10
