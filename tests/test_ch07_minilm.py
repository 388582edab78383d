"""Chapter 7's experiment: who is copied, who learns from whom, and in which order."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from course_lib.experiments import ch07_minilm as lab
from course_lib.experiments import sentences
from course_lib.methods import minilm
from course_lib.shared.students import blocks

SHAPE = {"vocab_size": 60, "num_hidden_layers": 6, "num_attention_heads": 12, "max_position_embeddings": 40,
         "initializer_range": 0.3}
WINDOWS = [{"input_ids": [2, *(5 + (7 * i + j) % 50 for j in range(3 + i % 5)), 3]} for i in range(40)]


def classifier(seed):
    torch.manual_seed(seed)
    config = BertConfig(hidden_size=48, intermediate_size=96, **SHAPE)
    return BertForSequenceClassification(config).eval().requires_grad_(False)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Small models in the place of the fetched ones; nothing is read from the network or kept in the real cache."""
    general, tuned = classifier(0).bert, classifier(1)
    monkeypatch.setattr(lab, "general_teacher", lambda: general)
    monkeypatch.setattr(sentences, "teacher", lambda: type("Teacher", (), {"model": tuned}))
    monkeypatch.setattr(lab, "general_text", lambda split: WINDOWS)
    monkeypatch.setattr(lab, "WIDTH", 24)
    monkeypatch.setattr(lab, "ASSISTANT", replace(lab.ASSISTANT, distil_steps=2))
    monkeypatch.setattr(lab, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(lab, "asset_hash", lambda: "tiny")
    remembered = lab.assistant  # a test may put something else in its place
    remembered.cache_clear()
    yield general
    remembered.cache_clear()


def test_half_depth_is_layers_2_4_and_6_of_the_general_teacher_and_not_of_the_tuned_one(tiny):
    student = lab.half_depth(0)
    for mine, theirs in ((0, 1), (1, 3), (2, 5)):
        for a, b in zip(blocks(student)[mine].parameters(), blocks(tiny)[theirs].parameters(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(student.bert.embeddings.word_embeddings.weight, tiny.embeddings.word_embeddings.weight)
    assert not student.get_input_embeddings().weight.requires_grad


def test_the_narrow_student_has_half_the_width_all_heads_and_other_blocks_for_each_seed(tiny):
    one, other = lab.narrow(0), lab.narrow(1)
    assert one.config.hidden_size * 2 == tiny.config.hidden_size and one.config.num_attention_heads == 12
    weights = [model.bert.encoder.layer[0].attention.self.query.weight for model in (one, other, lab.narrow(0))]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])
    assert torch.equal(one.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_an_assistant_is_advised_for_the_narrow_student_and_has_the_teachers_depth(tiny):
    assert minilm.assistant_advised(lab.narrow(0).config, tiny.config)
    assert not minilm.assistant_advised(lab.half_depth(0).config, tiny.config)
    wanted, made = minilm.assistant_config(lab.narrow(0).config, tiny.config), lab.assistant().config
    assert (made.num_hidden_layers, made.hidden_size) == (wanted.num_hidden_layers, wanted.hidden_size) == (6, 24)


def test_the_assistant_is_trained_once_and_nothing_unfinished_stays(tiny, tmp_path, monkeypatch):
    first = {name: tensor.clone() for name, tensor in lab.assistant().state_dict().items()}
    assert not list((tmp_path / "runs").iterdir()) and len(list((tmp_path / "students").iterdir())) == 1
    lab.assistant.cache_clear()
    monkeypatch.setattr(lab, "distil", lambda *_, **__: pytest.fail("it was trained again"))
    second = lab.assistant()
    assert all(torch.equal(first[name], tensor) for name, tensor in second.state_dict().items())
    assert not second.training and not any(p.requires_grad for p in second.parameters())


@pytest.mark.parametrize("name", lab.ARMS)
def test_every_arm_distils_without_labels_first_and_fine_tunes_afterwards(tiny, monkeypatch, name):
    arm, done = lab.ARMS[name], []
    monkeypatch.setattr(lab, "distil", lambda student, teacher, arm, seed: done.append(("distil", teacher)))
    monkeypatch.setattr(lab, "assistant", lambda: "the assistant")
    monkeypatch.setattr(lab, "relation_distance", lambda student: done.append(("measure", None)) or {"attention_kl": 1})
    monkeypatch.setattr(lab, "fine_tune", lambda student, arm, seed: done.append(("fine-tune", None)))
    monkeypatch.setattr(lab, "scores", lambda student: {"accuracy": 50.0})
    assert lab.run(name, 0) == {"accuracy": 50.0, "attention_kl": 1}
    expected = ["measure", "fine-tune"] if arm.copies == "nothing" else ["distil", "measure", "fine-tune"]
    assert [what for what, _ in done] == expected
    if arm.copies != "nothing":
        assert done[0][1] == ("the assistant" if arm.teacher == "assistant" else tiny)


@pytest.mark.parametrize(("copies", "terms"), [("attention", {"attention"}), ("QQ + KK + VV", {"qq", "kk", "vv"}),
                                               ("attention + values", {"attention", "value_relation"})])
def test_a_distillation_reads_what_the_arm_copies_and_leaves_word_vectors_and_classifier(tiny, copies, terms):
    student = lab.narrow(0)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    arm = replace(lab.ARMS["narrow, attention + values"], copies=copies, distil_steps=2)
    history = lab.distil(student, tiny, arm, seed=0)
    assert terms <= history.steps[0].keys() and len(terms & {"attention", "value_relation", "qq", "kk", "vv"}) == len(
        {"attention", "value_relation", "qq", "kk", "vv"} & history.steps[0].keys())
    changed = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("bert.") for name in changed)
    assert not any("word_embeddings" in name or "pooler" in name for name in changed)


def test_the_distance_of_the_teacher_from_itself_is_zero_and_the_mode_is_kept(tiny):
    assert lab.relation_distance(tiny) == {"attention_kl": 0.0, "value_relation_kl": 0.0}
    student = lab.narrow(0).train()
    assert all(value > 0 for value in lab.relation_distance(student).values()) and student.training


def test_the_fair_baseline_takes_as_many_steps_as_the_students_with_a_teacher():
    steps = {name: arm.steps + arm.distil_steps for name, arm in lab.ARMS.items() if arm.student == "narrow"}
    assert set(steps.values()) == {300, 500} and [n for n, count in steps.items() if count == 300] == ["narrow"]


def test_the_arms_are_the_same_after_a_trip_through_json():
    """`measuring.measure` compares stored and present arms; a tuple would come back as a list, and nothing be kept."""
    for arm in lab.ARMS.values():
        assert json.loads(json.dumps(asdict(arm))) == asdict(arm)
