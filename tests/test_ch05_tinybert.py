"""Chapter 5's experiment: TinyBERT-4's proportions, stages that follow each other, measures of the inside."""

from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from course_lib.experiments import ch05_tinybert as lab
from course_lib.experiments import records
from course_lib.methods import tinybert
from course_lib.shared.students import SHAPES, blocks


def sentences(count=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [{"input_ids": [2, *torch.randint(5, 60, (int(torch.randint(3, 9, (1,), generator=g)),), generator=g), 3],
             "label": i % 2, "teacher_logits": torch.randn(2, generator=g).numpy()} for i in range(count)]


@pytest.fixture
def tiny(monkeypatch):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=6, num_attention_heads=3, intermediate_size=48,
        max_position_embeddings=16, initializer_range=0.3)).eval().requires_grad_(False)
    monkeypatch.setattr(lab, "teacher", lambda: SimpleNamespace(model=model))
    monkeypatch.setattr(lab, "SHAPE", {"layers": 2, "hidden": 12, "intermediate": 24})
    monkeypatch.setattr(lab, "examples", lambda split: ROWS)
    return model


ROWS = [row | {"input_ids": [int(token) for token in row["input_ids"]]} for row in sentences()]


def test_the_student_has_tinyberts_proportions():
    (layers, hidden, heads, intermediate), (depth, width, _, wide) = SHAPES["tinybert-4"], SHAPES["bert-base"]
    assert lab.SHAPE["layers"] * depth == layers * 6 and heads == 12
    assert lab.SHAPE["hidden"] * width == hidden * 384 and lab.SHAPE["intermediate"] * wide == intermediate * 1536


@pytest.mark.parametrize("name", lab.ARMS)
def test_every_arm_reads_the_same_number_of_batches_and_ends_without_projection(tiny, monkeypatch, name):
    read = []
    for stage in ("first_stage", "second_stage"):
        def listen(model, arm, seed, steps=lab.STEPS[0], skip=0, stage=stage):
            read.extend((stage, step) for step in range(skip, skip + steps))
            assert hasattr(model, "projection") == (stage == "first_stage")
        monkeypatch.setattr(lab, stage, listen)
    monkeypatch.setattr(lab, "augmented", lambda: [])
    monkeypatch.setattr(lab, "scores", lambda model: {"accuracy": 50.0})
    found = lab.run(name, 0)
    assert [step for _, step in read] == list(range(sum(lab.STEPS)))
    inside = lab.ARMS[name].inside
    assert {"accuracy", "states"} <= found.keys() and ("silence_2" in found) == (inside is not None)
    if inside:
        assert ("share_attention_last" in found) == bool(inside.attention_weight)
        assert sum(v for k, v in found.items() if k.endswith("_first")) == pytest.approx(100, abs=0.2)


def test_the_second_stage_goes_on_behind_the_first(tiny, monkeypatch):
    seen = []

    def remember(model, batch):
        seen.append(batch["input_ids"])
        return {"prediction": model(batch["input_ids"]).logits.pow(2).mean()}

    monkeypatch.setitem(lab.SECOND_TERMS, "answers", remember)
    monkeypatch.setattr(lab, "BATCH_SIZE", 8)
    arm = lab.ARMS["only stage 2"]
    lab.second_stage(lab.student(0), arm, 0, steps=4)
    lab.second_stage(lab.student(0), arm, 0, steps=2, skip=2)
    assert len(seen) == 6 and all(torch.equal(a, b) for a, b in zip(seen[2:4], seen[4:], strict=True))


def test_the_second_stage_is_the_methods_prediction_term(tiny):
    student = lab.student(0).eval()
    batch = {"input_ids": torch.tensor([[2, 7, 9, 3]]), "attention_mask": torch.ones(1, 4).long()}
    with torch.no_grad():
        batch["teacher_logits"] = tiny(**batch).logits
    stored = lab.SECOND_TERMS["answers"](student, batch)["prediction"]
    live = tinybert.terms(student, tiny, batch, tinybert.PREDICTION)["prediction"]
    torch.testing.assert_close(stored, live)


def test_a_teacher_explains_itself_and_a_silent_student_explains_nothing(tiny):
    assert lab.explained_states(tiny, 30) == pytest.approx(100, abs=1)
    silent = lab.student(0)
    torch.nn.init.zeros_(blocks(silent)[-1].output.LayerNorm.weight)
    assert lab.explained_states(silent, 30) < 1  # the mean of one half is no better than the mean of the other


def test_a_map_of_zeros_pays_more_than_the_price_of_silence_by_the_mean(tiny):
    student = lab.student(0, projection=True)
    for parameter in student.projection.parameters():
        torch.nn.init.zeros_(parameter)
    found = lab.inside_losses(student, count=30)
    assert list(found) == [(0, 0), (1, 3), (2, 6)]
    assert all(loss >= price > 0 for loss, price in found.values())
    assert student.training


def test_the_poll_follows_the_measurement(monkeypatch):
    flat = {arm: [80.0, 81.0, 79.0] for arm in lab.ARMS}
    monkeypatch.setattr(records, "values", lambda name, arm, number: flat[arm])
    assert lab.poll_result()[0] == "e"
    flat["without hidden"] = [70.0, 71.2, 69.1]
    assert lab.poll_result()[0] == "b"


def test_what_an_apostrophe_cuts_off_is_left_alone():
    assert {"s", "t", "not", "never", "the"} <= lab.KEPT_WORDS
    assert not {"good", "bad", "dull", "great"} & lab.KEPT_WORDS
