"""Chapter 4's experiment: arms that differ by patience alone, states that are asked once, measures of a target."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from course_lib.experiments import answers, records, sentences
from course_lib.experiments import ch04_pkd as lab
from course_lib.methods import pkd
from course_lib.shared.batches import pad

TINY = {"vocab_size": 60, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 48,
        "max_position_embeddings": 16, "initializer_range": 0.3}


def rows_of(count=12):
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 9, (count,), generator=g).tolist()
    return [{"input_ids": [2, *torch.randint(5, 60, (n,), generator=g).tolist(), 3], "label": i % 2,
             "teacher_logits": torch.randn(2, generator=g).numpy()} for i, n in enumerate(lengths)]


def model(layers, seed=0):
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(num_hidden_layers=layers, **TINY)).eval()


@pytest.fixture
def teacher(monkeypatch, tmp_path):
    frozen = model(6).requires_grad_(False)
    rows = rows_of()
    monkeypatch.setattr(lab, "teacher", lambda: SimpleNamespace(model=frozen))
    monkeypatch.setattr(answers, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(sentences, "examples", lambda split: rows)
    monkeypatch.setattr(lab, "RECIPE", sentences.Recipe(steps=1))  # float32
    lab.examples.cache_clear()
    yield frozen
    lab.examples.cache_clear()


def test_stored_states_are_the_teachers_in_the_order_of_the_sentences(teacher):
    stored = lab.examples("train")
    for row in stored:
        live = pkd.teacher_outputs(teacher, pad([{"input_ids": row["input_ids"]}]))["teacher_cls"][0]
        torch.testing.assert_close(torch.tensor(row["teacher_cls"]).float(), live, rtol=2e-3, atol=2e-3)
    teacher.forward = None  # a second reading asks nobody
    lab.examples.cache_clear()
    assert np.array_equal(lab.examples("train")[3]["teacher_cls"], stored[3]["teacher_cls"])


def test_patience_is_the_only_difference_between_the_arms(teacher):
    batch, student = pad(lab.examples("train")), model(3, seed=1)
    plain = lab.loss_terms(lab.ARMS["labels + answers"])(student, batch)
    common = sentences.answer_terms(sentences.LABELS_AND_ANSWERS)(student, batch)
    labels = sentences.answer_terms(sentences.LABELS)(student, batch)
    torch.testing.assert_close(plain, {name: common[name] for name in plain})
    torch.testing.assert_close(lab.loss_terms(lab.ARMS["labels"])(student, batch), labels)
    for name in ("PKD-skip", "PKD-last", "PKD-skip, centred", "PKD-skip, first layers"):
        terms = lab.loss_terms(lab.ARMS[name])(student, batch)
        assert terms.pop("patience") > 0
        torch.testing.assert_close(terms, plain)


def test_the_patience_term_is_that_of_pkd(teacher):
    batch, student = pad(lab.examples("train")), model(3, seed=1)
    recipe = pkd.PkdRecipe(beta=lab.BETA, as_in="code")
    wanted = pkd.terms(student, None, batch, recipe)["patience"]
    torch.testing.assert_close(lab.loss_terms(lab.ARMS["PKD-skip"])(student, batch)["patience"], wanted)


def test_centring_takes_away_what_all_sentences_share():
    states = torch.randn(5, 2, 8)
    torch.testing.assert_close(lab.centred(states + 100 * torch.ones(2, 8)), lab.centred(states), atol=1e-4, rtol=1e-4)


def test_distances_are_0_for_the_teacher_itself_and_bounded_for_others(teacher):
    own, other = (lab.cls_distances(one, {"same": ((2, 2), (4, 4))})["same"] for one in (teacher, model(6, seed=3)))
    assert own == pytest.approx(0, abs=1e-4) and 0.01 < other < 4


def test_the_spread_of_a_constant_target_is_0(teacher):
    spread = lab.teacher_spread()
    assert list(spread) == [1, 2, 3, 4, 5, 6] and all(0 < value < 4 for value in spread.values())
    for row in lab.examples("test"):
        row["teacher_cls"] = np.ones((6, 24), dtype=np.float16)
    assert set(lab.teacher_spread().values()) == {0.0}


def test_a_run_reports_shares_only_where_there_is_patience(teacher, monkeypatch):
    monkeypatch.setattr(lab, "start", lambda arm, seed: model(3, seed=seed))
    monkeypatch.setattr(sentences, "fit", lambda *_, **__: None)
    monkeypatch.setattr(lab, "scores", lambda model: {"accuracy": 50.0})
    assert lab.run("labels", 0)["share_first"] == 0
    found = lab.run("PKD-last", 0)
    assert 0 < found["share_first"] <= 100 and {"accuracy", "skip_distance", "last_distance"} <= found.keys()


def test_the_paper_starts_from_the_first_layers_before_fine_tuning(monkeypatch):
    pretrained = model(6, seed=5)
    monkeypatch.setattr(lab, "new_model", lambda made: pretrained)
    student = lab.first_layers(seed=0)
    for ours, theirs in zip(student.bert.encoder.layer, pretrained.bert.encoder.layer[:3], strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert not student.get_input_embeddings().weight.requires_grad
    assert not torch.equal(student.classifier.weight, pretrained.classifier.weight)


def test_the_poll_needs_a_lead_that_its_interval_shows(monkeypatch):
    options = ("labels", "labels + answers", "PKD-skip", "PKD-last")

    def measured(numbers):
        runs = [{"arm": arm, "seed": seed, "accuracy": value + 0.01 * seed} for arm, value in
                zip(options, numbers, strict=True) for seed in range(5)]
        monkeypatch.setattr(records, "load", lambda name: {"arms": dict.fromkeys(options), "runs": runs})
        return lab.poll_result()[0]

    assert measured((80, 81, 83, 82)) == "c"
    assert measured((80, 81, 82, 82)) == "e"
