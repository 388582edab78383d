"""Chapter 10's experiment: fair neighbours for every method, two methods of its own, and costs that add up."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from course_lib.experiments import ch09_cached as ch09
from course_lib.experiments import ch10_comparison as lab
from course_lib.experiments import measuring, records, sentences
from course_lib.experiments.speed import training_cost
from course_lib.methods.table import METHODS, PKD
from course_lib.notebook.views.pareto import pareto_view
from course_lib.shared.batches import pad
from course_lib.shared.method import Training

TINY = {"vocab_size": 60, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 48, "num_labels": 2,
        "max_position_embeddings": 16, "initializer_range": 0.3}
OWN = [name for name in lab.ARMS if name not in lab.BORROWED]


@pytest.fixture
def small(monkeypatch):
    """A tiny teacher of 6 layers and 64 sentences of 3 words."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=6, **TINY)).eval().requires_grad_(False)
    words = np.random.default_rng(0).integers(5, 60, (64, 3)).tolist()
    rows = [{"input_ids": [2, *three, 3], "label": int(three[0] > 30), "teacher_logits": np.array([0.0, 0.1 * i])}
            for i, three in enumerate(words)]
    for module in (lab, sentences):
        monkeypatch.setattr(module, "teacher", lambda: SimpleNamespace(model=model))
    monkeypatch.setattr(sentences, "examples", lambda split: rows)
    return model, rows


def test_every_method_has_a_baseline_of_the_same_student_that_no_teacher_helps():
    for name in lab.METHODS:
        arm, base = lab.ARMS[name], lab.ARMS[lab.ARMS[name].baseline]
        assert base.student == arm.student and base.teacher == "none" and not base.baseline and arm.teacher != "none"
    assert {arm.student for arm in lab.ARMS.values()} == set(lab.STUDENTS)
    assert set(lab.AIMS) <= set(lab.METHODS)


def test_what_is_borrowed_exists_and_what_is_borrowed_is_not_described_twice():
    for name, (source, theirs) in lab.BORROWED.items():
        assert theirs in measuring.experiment(source).ARMS, name
        assert not lab.ARMS[name].answers and not lab.ARMS[name].cosine_weight
    assert OWN == ["DistilBERT", "1 x 384, labels", "1 layer, cached answers"]


def test_distilbert_is_the_common_baseline_and_a_cosine(small):
    model, rows = small
    student, batch = lab.start(lab.ARMS["DistilBERT"], 0).eval(), pad(rows[:8])
    found = lab.loss_terms(lab.ARMS["DistilBERT"])(student, batch)
    cosine = found.pop("cosine")
    torch.testing.assert_close(found, sentences.answer_terms(sentences.LABELS_AND_ANSWERS)(student, batch))
    assert 0 < cosine.item() < 2 * lab.COSINE_WEIGHT and cosine.requires_grad
    itself = lab.loss_terms(lab.ARMS["DistilBERT"])(model, batch)["cosine"]
    assert itself.item() == pytest.approx(0, abs=1e-6)


def test_the_one_layer_arms_are_those_of_chapter_9(small):
    model, rows = small
    labels, answers = (lab.ARMS[name] for name in ("1 x 384, labels", "1 layer, cached answers"))
    theirs, student, batch = ch09.ARMS["labels + answers"], lab.one_layer(0).eval(), pad(rows[:8])
    assert (lab.FRESH_LAYER.learning_rate, answers.temperature) == (theirs.learning_rate, theirs.temperature)
    wanted = ch09.loss_terms(theirs)(student, batch | {"teacher_log_probs": batch["teacher_logits"].log_softmax(-1)})
    torch.testing.assert_close(lab.loss_terms(answers)(student, batch), wanted, check_dtype=False)
    assert lab.loss_terms(labels)(student, batch).keys() == {"hard"}
    assert len(student.bert.encoder.layer) == 1 and not student.get_input_embeddings().weight.requires_grad
    torch.testing.assert_close(student.bert.embeddings.state_dict(), model.bert.embeddings.state_dict())
    again, other = lab.one_layer(0), lab.one_layer(1)
    assert torch.equal(student.classifier.weight, again.classifier.weight)
    assert not torch.equal(student.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize("name", OWN)
def test_an_own_run_trains_and_reports_what_the_others_report(small, monkeypatch, name):
    monkeypatch.setattr(lab, "QUICK", Training(1e-3, steps=2))
    monkeypatch.setattr(lab, "FRESH_LAYER", Training(1e-3, steps=2))
    found = lab.run(name, 0)
    assert {"accuracy", "agreement", "calibration_error"} <= found.keys()
    assert ("share_first" in found) == (name == "DistilBERT")
    assert all(0 <= value <= 100 for value in found.values())


def test_a_step_that_is_timed_learns(small, monkeypatch):
    monkeypatch.setattr(lab, "load_data", lambda name: {"train": [0] * 64})
    trained = lab.trained("DistilBERT")
    before = [p.clone() for p in trained.student.parameters() if p.requires_grad]
    assert training_cost.step(trained.student, trained.parts[0])(0) > 0
    learning = [p for p in trained.student.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, learning, strict=True))
    assert all(p.grad is None for p in trained.student.parameters())
    assert trained.asked == 64 and trained.parts[0].stage.training.steps == 300


def test_a_profile_holds_every_student_and_every_phase_of_every_arm(small, monkeypatch):
    """On two threads again afterwards, whatever happened."""
    model, _ = small
    monkeypatch.setattr(lab, "load_data", lambda name: {"train": [0] * 64})
    for module in (training_cost, sentences):
        monkeypatch.setattr(module, "teacher", lambda: SimpleNamespace(
            model=model, card={"accuracy_percent": {"test": 80.0}}))
    monkeypatch.setattr(training_cost, "examples", sentences.examples)
    threads = torch.get_num_threads()
    found = training_cost.profile({name: partial(lab.trained, name) for name in OWN},
                                  {"1 x 384": lab.STUDENTS["1 x 384"]}, "1 x 384, labels", pairs=3)
    assert torch.get_num_threads() == threads and found["threads"] == 1 and found["teacher"]["accuracy"] == 80.0
    phases = {name: [part["steps"] for part in one["phases"]] for name, one in found["training"].items()}
    assert phases == {name: [300] for name in OWN}
    assert found["students"]["1 x 384"]["without_words"] < found["students"]["1 x 384"]["parameters"]
    assert [one["asked"] for one in found["training"].values()] == [64, 0, 64]


@pytest.mark.parametrize("name", sorted(lab.BORROWED))
def test_a_borrowed_arm_is_trained_where_it_is_measured(name):
    """The steps that are timed are those of the chapter's arm: nothing is written down twice."""
    source, theirs = lab.BORROWED[name]
    module = measuring.experiment(source)
    assert callable(module.training) and theirs in module.ARMS


def test_a_method_that_names_an_unknown_baseline_is_refused(monkeypatch):
    lost = replace(PKD, name="lost", compared={"Lost": replace(PKD.compared["PKD"], baseline="5 x 384, labels")})
    monkeypatch.setitem(METHODS, "lost", lost)
    with pytest.raises(ValueError, match=r"'Lost' names the baseline '5 x 384, labels'. There are: 2 x 128, labels"):
        lab.arms()


def test_the_cost_counts_the_steps_and_the_asking():
    measured = {"asked": 3200, "phases": [{"steps": 200, "sentences": 32, "step": [1.9, 2.0, 2.1]},
                                          {"steps": 100, "sentences": 64, "step": [0.4, 0.5, 0.6]}]}
    found = lab.cost(measured, asking=0.6)
    assert found == pytest.approx({"steps": 300, "sentences": 12_800, "once": 100 * 0.6 / 300,
                                   "training": (400 + 50) / 300, "total": 0.2 + 1.5})


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (97.0, 98.0, "yes"), (96.0, 98.0, "not decided"), (95.0, 96.9, "no"), (96.0, 97.0, "not decided")])
def test_an_aim_is_reached_by_the_whole_interval_or_not_at_all(low, high, verdict):
    assert lab.reached(low, high, 97) == verdict
    assert lab.reached(low, high, None) == "no aim"


@pytest.fixture
def measured(monkeypatch):
    """A record with made-up numbers: every arm a little better than the one before it."""
    profile = {
        "teacher": {"accuracy": 80.0, "parameters": 1000, "without_words": 400, "asking": [0.5, 0.6, 0.7]},
        "students": {name: {"parameters": 500, "without_words": 100, "latency_1": [0.4, 0.5, 0.6],
                            "latency_32": [0.2, 0.25, 0.3]} for name in lab.STUDENTS},
        "training": {name: {"asked": 0, "phases": [{"steps": 300, "sentences": 32, "step": [1.0, 2.0, 3.0]}]}
                     for name in lab.ARMS}}
    runs = [{"arm": name, "seed": seed, "accuracy": 60 + i + 0.1 * seed, "agreement": 70.0 + seed}
            for i, name in enumerate(lab.ARMS) for seed in range(5)]
    record = {"arms": dict.fromkeys(lab.ARMS), "runs": runs, "profile": profile}
    monkeypatch.setattr(records, "load", lambda name: record)
    return record


def test_the_numbers_of_an_arm_are_read_from_the_record(measured):
    found = lab.numbers_of("PKD")
    assert (found["smaller"], found["smaller_without_words"], found["cost"]) == (2.0, 4.0, 2.0)
    assert found["faster_32_low"] < found["faster_32"] == 4.0 < found["faster_32_high"]
    position = list(lab.ARMS).index("PKD")
    assert lab.retention("PKD").mean == pytest.approx((60 + position + 0.2) / 80 * 100)
    base = list(lab.ARMS).index(lab.ARMS["PKD"].baseline)
    assert lab.gain("PKD").interval.mean == pytest.approx(position - base)


def test_the_explorer_gets_every_arm_with_every_measure(measured):
    found = {point.name: point for point in lab.points()}
    assert set(found) == set(lab.ARMS) and found["PKD"].x["parameters"] == 500 / 1e6 and not found["PKD"].baseline
    assert found["3 x 384, labels"].baseline and lab.ys()[0].teacher == 80.0
    pareto_view(lab.points(), lab.XS, lab.ys())


def test_a_situation_allows_methods_only_and_names_what_cannot_be_told(measured):
    best, alike = lab.choose(lab.SITUATIONS["of the teacher, only a file of answers"])
    assert (best, alike) == ("1 layer, cached answers", [])  # the last arm is the best in this record
    for run in measured["runs"]:
        if run["arm"] == "PKD":
            run["accuracy"] = 60 + len(lab.ARMS) - 1 + 0.1 * (4 - run["seed"])
    best, alike = lab.choose(lambda name: lab.ARMS[name].teacher.startswith("stored"))
    assert {best, *alike} == {"PKD", "1 layer, cached answers"}
    assert all(lab.choose(rule)[0] in (None, *lab.METHODS) for rule in lab.SITUATIONS.values())


def test_the_poll_needs_a_lead_that_its_interval_shows(measured):
    assert lab.poll_result()[0] == "d"
    for run in measured["runs"]:
        if run["arm"] == "MiniLM":
            run["accuracy"] = 60 + list(lab.ARMS).index("Theseus") + 0.1 * (4 - run["seed"])
    assert lab.poll_result()[0] == "f"


def test_the_committed_profile_knows_every_arm_and_every_student():
    if not records.path_of("ch10").exists():
        pytest.skip("chapter 10 is not measured yet")
    found = records.load("ch10")["profile"]
    assert set(found["training"]) == set(lab.ARMS) and set(found["students"]) == set(lab.STUDENTS)
    assert found == json.loads(json.dumps(found)) and found["threads"] == 1
    for one in found["students"].values():
        assert 0 < one["without_words"] < one["parameters"]
