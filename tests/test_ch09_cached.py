"""Chapter 9's experiment: sizes, starts, stored answers, and the two caches that belong to others."""

import pytest
import torch

from course_lib.experiments import ch09_cached as lab
from course_lib.experiments.answers import committed
from course_lib.methods.cached import keys_of
from course_lib.shared.measures import count_parameters
from course_lib.shared.training import History


def test_the_reports_models_are_counted_exactly_without_being_built():
    twelve, one = lab.paper_size(12), lab.paper_size(1)
    assert (count_parameters(twelve), count_parameters(one)) == (111_208_706, 33_242_114)
    assert all(p.is_meta for p in one.parameters())


def test_the_loss_is_averaged_over_the_first_and_the_last_twenty_steps():
    history = History(steps=[{"step": i, "soft": float(i), "hard": 1.0, "learning_rate": 9.0} for i in range(60)])
    assert lab.loss_ends(history) == (10.5, 50.5)


@pytest.mark.assets
@pytest.mark.parametrize("split", lab.SPLITS)
def test_the_stored_answers_belong_to_these_documents_and_are_the_teachers(split):
    if not committed("topics", split).exists():
        pytest.skip(f"the answers to the {split} documents are not committed yet; asking takes minutes")
    soft = lab.answers(split)
    assert torch.equal(soft.keys, keys_of(lab.documents(split)))
    few = lab.ask_teacher(lab.teacher().model, lab.documents(split)[:8])
    torch.testing.assert_close(soft.tensors["log_probs"][:8].exp(), few.tensors["log_probs"].exp(), atol=1e-4, rtol=0)


@pytest.mark.assets
def test_the_three_starts_copy_what_they_say():
    teacher = lab.teacher().model
    fresh, copied, narrow = (lab.student(0, start) for start in ("embeddings", "first layer", "narrow"))
    name = "output.dense.weight"
    theirs = teacher.bert.encoder.layer[0].get_parameter(name)
    assert torch.equal(copied.bert.encoder.layer[0].get_parameter(name), theirs)
    assert not torch.equal(fresh.bert.encoder.layer[0].get_parameter(name), theirs)
    assert torch.equal(fresh.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    assert not fresh.get_input_embeddings().weight.requires_grad and narrow.get_input_embeddings().weight.requires_grad
    assert lab.student(0, train_words=True).get_input_embeddings().weight.requires_grad
    assert count_parameters(narrow) < 0.3 * count_parameters(teacher)
    assert torch.equal(lab.student(3).classifier.weight, lab.student(3).classifier.weight)


ROWS = [{"input_ids": [2, 9, 3], "label": 0}]


def test_the_long_arms_train_three_times_as_long_and_two_of_them_the_words_too(monkeypatch):
    asked = []
    monkeypatch.setattr(lab, "student", lambda seed, start, train_words: asked.append((start, train_words)))
    monkeypatch.setattr(lab, "examples", lambda split: ROWS)
    for name in ("labels", *lab.LONGER):
        _, (only,) = lab.training(lab.ARMS[name], 0)
        asked.append(only.recipe().steps)
    frozen, trained = ("embeddings", False), ("embeddings", True)
    assert asked == [frozen, 300, frozen, 900, frozen, 900, trained, 900, trained, 900]


@pytest.mark.assets
def test_a_shuffled_cache_moves_the_answers_and_nothing_else():
    rows = lab.examples("validation")
    mixed = lab.shuffled(rows, seed=0)
    assert [row["input_ids"] for row in mixed] == [row["input_ids"] for row in rows]
    moved = sum((a["teacher_log_probs"] != b["teacher_log_probs"]).any() for a, b in zip(mixed, rows, strict=True))
    assert moved > 0.9 * len(rows)


def test_a_student_of_the_japanese_teacher_answers_like_it_on_the_training_sentences():
    from course_lib.material import japanese
    from course_lib.methods import cached
    from course_lib.shared.batches import encode

    data = japanese.sentences()["train"]
    tokenizer = japanese.tokenizer(data["text"])
    rows = encode(data, tokenizer)
    teacher = lab.japanese_teacher(len(tokenizer), rows)
    with_answers = cached.as_columns(data, cached.ask_teacher(teacher, rows, identify_by=data)).shuffle(seed=0)
    student = lab.japanese_student(teacher, cached.with_teacher_columns(encode(with_answers, tokenizer), with_answers))
    assert lab.same_answers(student, teacher, rows) > 0.9
    assert len(student.bert.encoder.layer) == 1 and not any(p.requires_grad for p in teacher.parameters())
