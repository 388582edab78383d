"""Chapter 6's experiment: one start, one number of steps, three orders; and a measure of how near the blocks are."""

from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from course_lib.experiments import ch06_mobilebert as lab
from course_lib.experiments import records
from course_lib.methods import hinton, mobilebert
from course_lib.shared import method, probes


def sentences(count=40):
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 9, (count,), generator=g).tolist()
    return [{"input_ids": [2, *torch.randint(5, 60, (n,), generator=g).tolist(), 3], "label": i % 2,
             "teacher_logits": torch.randn(2, generator=g).numpy()} for i, n in enumerate(lengths)]


ROWS = sentences()


@pytest.fixture
def tiny(monkeypatch):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=6, num_attention_heads=3, intermediate_size=48,
        max_position_embeddings=16, initializer_range=0.3, attn_implementation="eager")).eval().requires_grad_(False)
    monkeypatch.setattr(lab, "teacher", lambda: SimpleNamespace(model=model))
    monkeypatch.setattr(lab, "examples", lambda split: ROWS)
    monkeypatch.setattr(lab, "BATCH_SIZE", 4)
    return model


@pytest.fixture
def batch(tiny):
    return lab.Batches(ROWS, 4, seed=0)[0]


def test_the_course_student_is_thin_in_its_blocks_only():
    config = lab.student_config_for(BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                                               intermediate_size=1536))
    assert (config.intra_bottleneck_size, config.intermediate_size, config.num_feedforward_networks) == (96, 384, 4)
    assert config.normalization_type == "no_norm" and config.key_query_shared_bottleneck


def test_the_embeddings_are_the_teachers_and_still(tiny, batch):
    student = lab.student(0)
    mine, theirs = (probes.read(model.eval(), batch).hidden_states[0] for model in (student, tiny))
    torch.testing.assert_close(mine, theirs)  # up to the order of the sums
    assert not any(p.requires_grad for p in student.mobilebert.embeddings.parameters())
    assert torch.equal(student.classifier.weight, tiny.classifier.weight)
    assert all(torch.equal(a, b) for a, b in zip(lab.student(0).parameters(), lab.student(0).parameters(), strict=True))
    first = "mobilebert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(lab.student(1).state_dict()[first], lab.student(0).state_dict()[first])


def test_the_parts_add_up(tiny):
    found = lab.sizes()
    for column in range(2):
        assert found["all"][column] == sum(found[part][column] for part in ("blocks", "word embeddings", "rest"))
    assert found["word embeddings"][0] == found["word embeddings"][1] == 60 * 24
    assert found["all"][1] == sum(p.numel() for p in lab.student(0).parameters())


def test_the_auxiliary_loss_is_the_methods_transfer_and_chapter_1s_task(tiny, batch):
    student = lab.student(0).eval()
    arm = lab.ARMS["auxiliary"]
    phase = lab.phases_of(arm)[0]
    found = lab.terms_of(arm, phase)(student, batch)
    transfer = mobilebert.terms(student, tiny, batch, arm.transfer, mobilebert.Phase(phase.layers, False, 1))
    task = hinton.terms(student, None, batch, arm.task)
    assert found.keys() == transfer.keys() | task.keys()
    for name, loss in (transfer | task).items():
        torch.testing.assert_close(found[name], loss)


def test_a_progressive_phase_equals_the_whole_models_loss(tiny, batch):
    student = lab.student(0).eval()
    arm = lab.ARMS["progressive"]
    for phase in lab.phases_of(arm)[:-1]:
        found = lab.terms_of(arm, phase)(student, batch)
        for name, loss in mobilebert.terms(student, tiny, batch, arm.transfer, phase).items():
            torch.testing.assert_close(found[name], loss)
    assert len(student.mobilebert.encoder.layer) == len(tiny.bert.encoder.layer) == 6


def test_the_models_are_whole_again_after_an_error(tiny):
    with pytest.raises(RuntimeError), lab.only_the_first(2, tiny):
        assert len(tiny.bert.encoder.layer) == 2
        raise RuntimeError
    assert len(tiny.bert.encoder.layer) == 6


@pytest.mark.parametrize("name", lab.ARMS)
def test_every_arm_reads_the_same_batches_once_and_in_order(tiny, monkeypatch, name):
    read = []
    monkeypatch.setattr(method, "train", lambda model, batches, *_, **__: read.extend(b["input_ids"] for b in batches))
    lab.learn(lab.student(0), lab.ARMS[name], seed=0)
    expected = lab.Batches(ROWS, 4, seed=0)
    assert len(read) == lab.STEPS
    assert all(torch.equal(seen, expected[step]["input_ids"]) for step, seen in enumerate(read))


@pytest.mark.parametrize("name", lab.ARMS)
def test_every_arm_trains_and_is_measured(tiny, monkeypatch, name):
    plan = lab.phases_of(lab.ARMS[name], per_layer=1, task_steps=1)
    monkeypatch.setattr(lab, "phases_of", lambda arm: plan)
    monkeypatch.setattr(lab, "scores", lambda model: {"accuracy": 50.0})
    found = lab.run(name, 0)
    assert {"accuracy", "unexplained", "unexplained_6"} <= found.keys()
    assert ("transfer_1" in found) == (len(plan) > 1)


def test_transfer_brings_the_blocks_nearer_and_a_copy_has_nothing_left(tiny):
    student, arm = lab.student(0), lab.ARMS["joint"]
    before = lab.unexplained(student, 20)
    lab.learn(student, arm, 0, [lab.Phase(tuple(range(1, 7)), False, 60)])
    assert all(now < then for now, then in zip(lab.unexplained(student, 20), before, strict=True))
    assert lab.unexplained(tiny, 20) == pytest.approx([0] * 6)


def test_the_poll_follows_the_measurement(monkeypatch):
    flat = {arm: [80.0, 81.0, 79.0] for arm in lab.ARMS}
    monkeypatch.setattr(records, "values", lambda name, arm, number: flat[arm])
    assert lab.poll_result()[0] == "e"
    flat["progressive"] = [85.0, 86.2, 84.1]
    assert lab.poll_result()[0] == "d"
