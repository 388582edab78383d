"""A narrow student that starts from blocks of the teacher's matrices."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from course_lib.shared.narrowing import choose, copy_narrowed
from course_lib.shared.students import new_student


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=60, hidden_size=24, num_hidden_layers=4, num_attention_heads=6,
                        intermediate_size=48, max_position_embeddings=16)
    model = BertForMaskedLM._from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)  # biases and LayerNorm must not be 0 and 1
    return model


@pytest.fixture
def batch():
    ids = torch.randint(60, (5, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(5, 9).long()
    mask[2, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_keeping_everything_gives_the_teacher_itself(teacher, batch):
    student = new_student(teacher, seed=3).eval()
    copy_narrowed(student, teacher, choose(teacher, [batch], width=24, heads=6, intermediate=48))
    torch.testing.assert_close(student(**batch).logits, teacher(**batch).logits)


def test_the_student_owns_its_numbers_and_stays_tied(teacher, batch):
    student = new_student(teacher, hidden=16, heads=4, intermediate=20, seed=3)
    copy_narrowed(student, teacher, choose(teacher, [batch], width=16, heads=4, intermediate=20))
    before = teacher(**batch).logits
    assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert torch.equal(teacher(**batch).logits, before)


def test_what_is_large_on_the_text_is_kept_and_every_matrix_is_a_block_of_the_teachers(teacher, batch):
    with torch.no_grad():
        teacher.bert.embeddings.word_embeddings.weight[:, [3, 17]] *= 30
        for layer in teacher.bert.encoder.layer:
            layer.output.LayerNorm.weight[[3, 17]] = 40.0
    kept = choose(teacher, [batch], width=8, heads=2, intermediate=10)
    assert {3, 17} <= set(kept.basis.argmax(1).tolist()) and 0.5 < kept.share <= 1
    student = new_student(teacher, layers=2, hidden=8, heads=2, intermediate=10, seed=3)
    copy_narrowed(student, teacher, kept, [(1, 2), (2, 4)])
    ours, theirs = (m.bert.encoder.layer[i].attention.self.query for m, i in ((student, 1), (teacher, 3)))
    rows = [head * 4 + i for head in kept.heads[4].tolist() for i in range(4)]
    assert torch.equal(ours.weight, theirs.weight[rows][:, kept.basis.argmax(1)])
    assert torch.equal(student.bert.encoder.layer[1].output.LayerNorm.weight,
                       teacher.bert.encoder.layer[3].output.LayerNorm.weight[kept.basis.argmax(1)])


def test_padding_has_no_say_in_what_is_kept(teacher, batch):
    other = {"input_ids": torch.where(batch["attention_mask"] == 1, batch["input_ids"], 59),
             "attention_mask": batch["attention_mask"]}
    first, second = (choose(teacher, [b], width=12, heads=3, intermediate=24) for b in (batch, other))
    assert torch.equal(first.basis, second.basis) and first.share == pytest.approx(second.share)


def test_principal_components_keep_at_least_as_much_and_a_flat_layernorm_loses_nothing(teacher, batch):
    picked, rotated = (choose(teacher, [batch], width=12, heads=3, intermediate=24, by=by) for by in ("pick", "pca"))
    assert rotated.share > picked.share
    torch.testing.assert_close(rotated.basis @ rotated.basis.T, torch.eye(12), atol=1e-5, rtol=0)
    student = new_student(teacher, hidden=12, heads=3, intermediate=24, seed=3)
    copy_narrowed(student, teacher, rotated)
    ours, theirs = student.bert.encoder.layer[0].intermediate.dense, teacher.bert.encoder.layer[0].intermediate.dense
    states = torch.randn(7, 12) @ rotated.basis  # what the student can see at all
    torch.testing.assert_close(ours(states @ rotated.basis.T), theirs(states)[:, rotated.neurons[1]], atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrong", [{"width": 25}, {"heads": 0}, {"intermediate": 49}])
def test_asking_for_more_than_the_teacher_has_is_refused(teacher, batch, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*the teacher has"):
        choose(teacher, [batch], **({"width": 8, "heads": 2, "intermediate": 8} | wrong))


def test_no_text_and_a_student_of_another_shape_are_refused(teacher, batch):
    with pytest.raises(ValueError, match="no batches"):
        choose(teacher, [], width=8, heads=2, intermediate=8)
    kept = choose(teacher, [batch], width=8, heads=2, intermediate=10)
    with pytest.raises(ValueError, match="hidden size of 8"):
        copy_narrowed(new_student(teacher, hidden=12, heads=3), teacher, kept)
    with pytest.raises(ValueError, match="heads of 4"):
        copy_narrowed(new_student(teacher, hidden=8, heads=4), teacher, kept)
    with pytest.raises(ValueError, match="was kept"):
        copy_narrowed(new_student(teacher, hidden=8, heads=2, intermediate=12), teacher, kept)
