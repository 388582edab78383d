"""Measures against numbers worked out by hand or by another library."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from course_lib.shared import clock, seeds
from course_lib.shared import measures as m

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.5], [0.0, 0.1, 0.2]])
LABELS = torch.tensor([0, 1, 2, 0])


def tiny(cls=BertForSequenceClassification, layers=1):
    torch.manual_seed(0)
    return cls(BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
                          intermediate_size=16, max_position_embeddings=16, num_labels=3))


def batches(n=3):
    g = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(5, 40, (4, 6 + i), generator=g), "attention_mask": torch.ones(4, 6 + i).long(),
             "labels": torch.randint(0, 3, (4,), generator=g), "teacher_logits": torch.zeros(4, 3)} for i in range(n)]


class TestAccuracy:
    def test_counts_right_answers(self):
        assert m.accuracy(LOGITS, LABELS) == 0.5

    def test_top_k_counts_the_label_among_the_k_best(self):
        assert m.accuracy(LOGITS, LABELS, k=2) == 0.75
        assert m.accuracy(LOGITS, LABELS, k=3) == 1.0

    def test_leaves_out_labels_of_minus_100(self):
        assert m.accuracy(LOGITS, torch.tensor([0, -100, 2, -100])) == 0.5

    @pytest.mark.parametrize(("logits", "labels", "words"), [
        (LOGITS, LABELS[:2], "do not fit"),
        (LOGITS, LABELS.unsqueeze(0), "do not fit"),
        (LOGITS, torch.full((4,), -100), "no labelled example"),
        (LOGITS, torch.tensor([0, 1, 2, 3]), "3 classes"),
        (LOGITS.log() * math.nan, LABELS, "NaN"),
    ])
    def test_refuses_what_it_cannot_measure(self, logits, labels, words):
        with pytest.raises(ValueError, match=words):
            m.accuracy(logits, labels)

    def test_refuses_more_answers_than_classes(self):
        with pytest.raises(ValueError, match="number of classes"):
            m.accuracy(LOGITS, LABELS, k=4)


class TestAgreement:
    def test_compares_answers_not_logits(self):
        teacher = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [9.0, 0, 0], [0, 0, 9.0]])
        assert m.agreement(LOGITS, teacher) == 0.75
        assert m.agreement(LOGITS, 100 * LOGITS) == 1.0

    def test_a_mask_leaves_positions_out(self):
        teacher = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [9.0, 0, 0], [0, 0, 9.0]])
        assert m.agreement(LOGITS, teacher, torch.tensor([1, 1, 0, 0])) == 0.5

    def test_refuses_unequal_shapes_and_empty_masks(self):
        with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 2\)"):
            m.agreement(LOGITS, LOGITS[:, :2])
        with pytest.raises(ValueError, match="keeps no position"):
            m.agreement(LOGITS, LOGITS, torch.zeros(4))
        with pytest.raises(ValueError, match="no example"):
            m.agreement(LOGITS[:0], LOGITS[:0])


class TestCalibration:
    def test_a_hand_worked_table(self):
        # Confidences 0.9, 0.9, 0.6, 0.6; right, wrong, right, right. ECE = 0.5*|0.5-0.9| + 0.5*|1-0.6| = 0.4
        p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
        result = m.calibration(p.log(), torch.tensor([0, 1, 0, 1]), bins=4)
        assert result.ece == pytest.approx(0.4, abs=1e-6)
        low, high = result.bins
        assert (low.lower, low.upper, low.count, low.accuracy) == (0.5, 0.75, 2, 1.0)
        assert (high.lower, high.upper, high.count, high.accuracy) == (0.75, 1.0, 2, 0.5)
        assert high.confidence == pytest.approx(0.9, abs=1e-6)

    def test_equals_a_direct_numpy_computation(self):
        g = np.random.default_rng(0)
        z, y = g.normal(size=(500, 5)) * 2, g.integers(0, 5, 500)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        c, right, ece = p.max(1), p.argmax(1) == y, 0.0
        for lo in np.linspace(0, 1, 11)[:-1]:
            here = (c > lo) & (c <= lo + 0.1)
            ece += here.mean() * abs(right[here].mean() - c[here].mean()) if here.any() else 0
        assert m.calibration(torch.tensor(z), torch.tensor(y), bins=10).ece == pytest.approx(ece, abs=1e-9)

    def test_a_sure_and_right_model_has_no_error(self):
        assert m.calibration(1e4 * LOGITS, torch.tensor([0, 1, 0, 2])).ece == pytest.approx(0.0, abs=1e-12)

    def test_refuses_zero_bins(self):
        with pytest.raises(ValueError, match="one bin"):
            m.calibration(LOGITS, LABELS, bins=0)


class TestRunningModels:
    def test_a_shared_tensor_counts_once(self):
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
        model[1].weight = model[0].weight
        assert m.count_parameters(model) == 9 + 8

    def test_predictions_are_in_order_and_without_dropout(self):
        model = tiny().train()
        data = batches()
        logits = m.predict_logits(model, data)
        assert model.training and model.bert.training  # the mode is put back
        assert not logits.requires_grad
        model.eval()
        first = model(input_ids=data[0]["input_ids"], attention_mask=data[0]["attention_mask"]).logits
        assert torch.equal(logits[:4], first) and logits.shape == (12, 3)

    def test_a_part_that_was_frozen_in_eval_mode_stays_there(self):
        model = tiny().train()
        model.bert.embeddings.eval()
        m.predict_logits(model, batches(1))
        assert model.training and not model.bert.embeddings.training

    def test_evaluate_reports_accuracy_calibration_and_agreement(self):
        model, data = tiny(), batches()
        logits = m.predict_logits(model, data)
        result = m.evaluate(model, data, teacher_logits=logits)
        assert result["agreement"] == 1.0
        assert result["accuracy"] == m.accuracy(logits, torch.cat([b["labels"] for b in data]))
        assert set(m.evaluate(model, data)) == {"accuracy", "ece"}

    def test_any_model_with_logits_will_do(self):
        class Counter(nn.Module):
            def forward(self, input_ids):
                return SequenceClassifierOutput(logits=torch.stack([input_ids.sum(1).float(), -input_ids.sum(1)], 1))

        assert m.predict_logits(Counter(), batches(1)).argmax(1).tolist() == [0, 0, 0, 0]

    def test_refuses_no_batch_and_token_logits(self):
        with pytest.raises(ValueError, match="no batch"):
            m.predict_logits(tiny(), [])
        with pytest.raises(ValueError, match="evaluate_masked_lm"):
            m.predict_logits(tiny(BertForMaskedLM), batches(1))
        with pytest.raises(ValueError, match="no labels"):
            m.evaluate(tiny(), [{"input_ids": torch.ones(2, 3).long()}])


class TestMaskedLanguageModel:
    UNIGRAM = torch.tensor([6.0, 3.0, 1.0, 0.0])

    def test_a_collapsed_model_is_recognised(self):
        logits = self.UNIGRAM.clamp(min=1e-30).log().expand(2, 3, 4)
        labels = torch.tensor([[0, -100, 2], [-100, 1, 0]])
        result = m.masked_lm_measures(logits, labels, self.UNIGRAM, k=2, frequent=1)
        assert result.positions == 4 and result.top1 == 0.5 and result.top_k == 0.75
        assert result.distinct_answers == 1 and result.commonest == ((0, 1.0),)
        assert result.frequent_share == 1.0
        assert result.unigram_distance == pytest.approx(0.0, abs=1e-6)

    def test_a_model_that_reads_is_far_from_the_unigram(self):
        logits = 100 * torch.eye(4)[torch.tensor([[3, 0, 2]])]
        result = m.masked_lm_measures(logits, torch.tensor([[3, 0, 2]]), self.UNIGRAM, k=1, frequent=1)
        assert result.top1 == 1.0 and result.distinct_answers == 3
        assert result.frequent_share == pytest.approx(1 / 3)
        assert result.unigram_distance == pytest.approx((1.0 + 0.4 + 0.9) / 3, abs=1e-6)

    def test_the_most_frequent_answer_comes_first(self):
        logits = torch.eye(4)[torch.tensor([3, 0, 3, 1])]
        result = m.masked_lm_measures(logits, torch.zeros(4).long(), k=1)
        assert result.commonest == ((3, 0.5), (0, 0.25), (1, 0.25))
        assert result.frequent_share is None and result.unigram_distance is None

    def test_batches_of_different_length_give_the_same_as_all_at_once(self):
        model, data = tiny(BertForMaskedLM), batches(2)
        for batch in data:
            batch["labels"] = torch.where(batch["input_ids"] % 3 == 0, batch["input_ids"], -100)
        unigram = torch.arange(40.0)
        streamed = m.evaluate_masked_lm(model, data, unigram)
        model.eval()
        rows = [model(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits.flatten(0, 1) for b in data]
        at_once = m.masked_lm_measures(torch.cat(rows).detach(), torch.cat([b["labels"].flatten() for b in data]),
                                       unigram)
        assert streamed.commonest == at_once.commonest and streamed.top_k == at_once.top_k
        assert streamed.unigram_distance == pytest.approx(at_once.unigram_distance, abs=1e-6)

    def test_refuses_unmasked_data_and_a_wrong_unigram(self):
        nothing = {"input_ids": torch.ones(1, 3).long(), "labels": torch.full((1, 3), -100)}
        with pytest.raises(ValueError, match="no position is masked"):
            m.evaluate_masked_lm(tiny(BertForMaskedLM), [nothing])
        with pytest.raises(ValueError, match=r"\(4,\)"):
            m.masked_lm_measures(torch.zeros(1, 4), torch.tensor([0]), torch.ones(3), k=1)
        with pytest.raises(ValueError, match="size of the vocabulary"):
            m.masked_lm_measures(torch.zeros(1, 4), torch.tensor([0]), k=5)


class TestLatency:
    def test_a_deeper_model_is_slower_and_the_spread_is_stated(self):
        class Slow(nn.Module):
            def __init__(self, rounds):
                super().__init__()
                self.rounds, self.weight = rounds, nn.Parameter(torch.ones(160, 160))

            def forward(self, input_ids):
                x = self.weight
                for _ in range(self.rounds):
                    x = (x @ self.weight) / 160
                return x

        result = clock.latency_ratio(Slow(2), Slow(80), batches(1)[0], repeats=7)
        low, high = result.ratio_quartiles
        assert 0 < low <= result.ratio <= high < 0.7
        assert result.threads == torch.get_num_threads() and f"{result.threads} thread" in str(result)

    def test_runs_alternate_so_that_both_meet_the_same_machine(self):
        calls = []

        class Named(nn.Module):
            def __init__(self, name):
                super().__init__()
                self.name = name

            def forward(self, input_ids):
                calls.append(self.name)
                return torch.zeros(1, 2)

        clock.latency_ratio(Named("s"), Named("t"), batches(1)[0], repeats=4)
        assert "".join(calls) == "stts" + "st" + "ts" + "st" + "ts"  # two rounds warm up

    def test_refuses_too_few_repeats(self):
        with pytest.raises(ValueError, match="spread"):
            clock.latency_ratio(tiny(), tiny(), batches(1)[0], repeats=2)


class TestSeeds:
    def test_equals_scipy(self):
        values = [0.81, 0.79, 0.83, 0.80, 0.82]
        low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
        result = seeds.mean_and_interval(values)
        assert (result.mean, result.sd) == (pytest.approx(0.81), pytest.approx(np.std(values, ddof=1)))
        assert (result.low, result.high) == (pytest.approx(low), pytest.approx(high))

    @pytest.mark.parametrize(("ours", "baseline", "verdict"), [
        ([0.82, 0.81, 0.83, 0.82, 0.81], [0.78, 0.77, 0.80, 0.78, 0.77], "better"),
        ([0.78, 0.77, 0.80, 0.78, 0.77], [0.82, 0.81, 0.83, 0.82, 0.81], "worse"),
        ([0.82, 0.75, 0.83], [0.80, 0.79, 0.78], "no difference shown"),
        ([0.1 + 0.2, 0.5], [0.3, 0.5], "no difference shown"),
        ([0.3, 0.3], [0.3, 0.3], "no difference shown"),
    ])
    def test_the_verdict_follows_the_interval(self, ours, baseline, verdict):
        assert seeds.paired_difference(ours, baseline).verdict == verdict

    def test_pairing_removes_the_luck_of_the_seed(self):
        luck = [0.0, 0.1, 0.2, 0.3, 0.4]
        ours = [0.52 + v + e for v, e in zip(luck, [0.001, -0.001, 0, 0.002, -0.002], strict=True)]
        assert seeds.paired_difference(ours, [0.5 + v for v in luck]).verdict == "better"

    @pytest.mark.parametrize(("values", "words"), [([0.8], "two seeds"), ([0.8, math.nan], "NaN")])
    def test_refuses_what_has_no_interval(self, values, words):
        with pytest.raises(ValueError, match=words):
            seeds.mean_and_interval(values)

    def test_refuses_unequal_lists(self):
        with pytest.raises(ValueError, match="cannot be paired"):
            seeds.paired_difference([0.1, 0.2], [0.1, 0.2, 0.3])


class TestGradientShares:
    def test_the_shares_are_gradient_norms_and_not_values(self):
        model = nn.Linear(2, 1, bias=False)

        def terms(model, batch):
            return {"large": 100 + 3 * model.weight[0, 0], "small": -1.0 * model.weight[0, 1]}

        assert m.gradient_shares(model, terms, {}) == pytest.approx({"large": 75.0, "small": 25.0})
        assert model.training and model.weight.grad is None

    def test_nothing_to_pull_at_is_refused(self):
        model = nn.Linear(2, 1)
        with pytest.raises(ValueError, match="frozen, or detached"):
            m.gradient_shares(model, lambda model, batch: {"a": model.weight.sum() * 0}, {})
