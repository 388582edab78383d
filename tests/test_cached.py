"""Stored soft labels: equal to a teacher that is present, and never given to the wrong example."""

import math
from itertools import pairwise

import pytest
import torch
from datasets import Dataset
from loss_properties import assert_all, ragged_mask
from oracle import oracle
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, Trainer, TrainingArguments

from course_lib.methods import hinton
from course_lib.methods.cached import (
    CachedRecipe,
    TopK,
    as_columns,
    ask_teacher,
    attach,
    bytes_per_row,
    collate,
    document_student,
    fixed_masks,
    keys_of,
    load_soft_labels,
    log_probs_of,
    stored_probs_loss,
    terms,
    top_k,
    top_k_loss,
    with_teacher_columns,
)
from course_lib.methods.hinton import soft_target_loss, soft_targets
from course_lib.shared.batches import Batches, in_order, mask_tokens, pad
from course_lib.shared.masking import IGNORED
from course_lib.shared.training import Recipe, train

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = 2 * torch.randn(3, 4, 9, generator=GENERATOR, dtype=torch.float64)
TEACHER = 2 * torch.randn(3, 4, 9, generator=GENERATOR, dtype=torch.float64)
MASK = ragged_mask(3, 4)
TINY = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3,
        "intermediate_size": 12, "max_position_embeddings": 16, "initializer_range": 0.5}


def a_model(kind=BertForSequenceClassification, seed=0):
    torch.manual_seed(seed)
    return kind(BertConfig(**TINY)).eval()


def some_examples(count=7):
    generator = torch.Generator().manual_seed(3)
    lengths = [3 + i % 4 for i in range(count)]
    return [{"input_ids": [2, *torch.randint(5, 30, (n,), generator=generator).tolist(), 3], "label": i % 3}
            for i, n in enumerate(lengths)]


def masked_examples(count=7):
    generator = torch.Generator().manual_seed(1)

    def mask(examples):
        batch = pad([{"input_ids": e["input_ids"]} for e in examples])
        batch["input_ids"], batch["labels"] = mask_tokens(batch["input_ids"], batch["input_ids"] > 4, mask_token_id=4,
                                                          vocabulary=30, probability=0.4, generator=generator)
        return batch

    return fixed_masks(some_examples(count), mask)


# ------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_stored_probabilities_are_as_good_as_logits_at_every_temperature(temperature):
    given = oracle("kd_zoo/torchdistill_KDLoss/T4_alpha0.5").inputs
    probs = soft_targets(given["logits_T"], 1.0)
    torch.testing.assert_close(stored_probs_loss(given["logits_S"], probs, temperature=temperature),
                               soft_target_loss(given["logits_S"], given["logits_T"], temperature=temperature))


def test_a_probability_rounded_to_zero_is_harmless():
    assert torch.isfinite(stored_probs_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]), temperature=3.0))


@pytest.mark.parametrize("rows", [[[80.0, 20.0]], [[1.5, -0.5]], [[0.2, 0.3]]])
def test_rows_that_are_no_distribution_are_refused(rows):
    with pytest.raises(ValueError, match="no probabilities"):
        log_probs_of(torch.tensor(rows))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_top_k_of_everything_is_the_full_loss(temperature):
    student = STUDENT.clone().requires_grad_()
    full = soft_target_loss(student, TEACHER, MASK, temperature=temperature)
    cut = top_k_loss(student, top_k(TEACHER, 9, temperature), MASK)
    torch.testing.assert_close(cut, full)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (cut, full)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_top_k_is_a_lower_bound_that_rises_with_k(temperature):
    losses = [top_k_loss(STUDENT, top_k(TEACHER, k, temperature), MASK).item() for k in range(1, 10)]
    assert losses[0] > 0
    assert all(more >= less - 1e-12 for less, more in pairwise(losses))
    assert losses[-1] == pytest.approx(soft_target_loss(STUDENT, TEACHER, MASK, temperature=temperature).item())


@pytest.mark.parametrize(("k", "temperature"), [(1, 1.0), (3, 1.0), (3, 5.0), (9, 1.0)])
def test_top_k_loss_is_a_well_behaved_loss(k, temperature):
    def loss(student, teacher, mask):
        # Shapes are compared before the cut, as the teacher's tensor is what the helper makes wrong.
        if student.shape != teacher.shape:
            return top_k_loss(student, top_k(teacher, 1, temperature), mask)
        return top_k_loss(student, top_k(teacher, k, temperature), mask)

    assert_all(loss, STUDENT, TEACHER, MASK, token_dims=(1,))


def test_the_rest_keeps_its_digits_where_one_minus_the_sum_has_none():
    logits = torch.tensor([[30.0, 0.0, 0.0, 0.0]])
    rest = top_k(logits, 1).rest_log_prob
    assert rest.item() == pytest.approx(math.log(3) - 30, rel=1e-5)
    assert 1 - top_k(logits, 1).log_probs.exp().item() == 0


def test_temperature_comes_before_the_cut():
    hot = top_k(TEACHER, 3, 4.0)
    torch.testing.assert_close(hot.log_probs.exp(), soft_targets(TEACHER, 4.0).topk(3).values)
    torch.testing.assert_close(hot.log_probs.exp().sum(-1) + hot.rest_log_prob.exp(), torch.ones(3, 4).double())
    with pytest.raises(ValueError, match="top_k=10"):
        top_k(TEACHER, 10)


def test_another_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 4, 8\).*9 classes"):
        top_k_loss(STUDENT[..., :8], top_k(TEACHER, 3))


def test_storage_of_one_row():
    assert bytes_per_row(30_522) == 122_088 and bytes_per_row(30_522, 64) == 772


# ------------------------------------------------------------------------------------------ cache and training


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_training_with_the_cache_equals_training_with_the_teacher(temperature):
    teacher, student, examples = a_model(), a_model(seed=1), some_examples()
    attached = attach(examples, ask_teacher(teacher, examples, batch_size=3))
    recipe = CachedRecipe(temperature=temperature, hard_weight=0.3, soft_weight=0.6)
    reference = hinton.HintonRecipe(temperature=temperature, hard_weight=0.3, soft_weight=0.6)
    for step in range(4):
        batch, plain = Batches(attached, 3, collate=collate)[step], Batches(examples, 3)[step]
        found, expected = terms(student, None, batch, recipe), hinton.terms(student, teacher, plain, reference)
        for name in ("soft", "hard"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("k", "temperature"), [(None, 1.0), (30, 1.0), (30, 2.0)])
def test_masked_positions_from_the_cache_equal_the_teacher(k, temperature):
    teacher, student, examples = a_model(BertForMaskedLM), a_model(BertForMaskedLM, seed=1), masked_examples()
    attached = attach(examples, ask_teacher(teacher, examples, k=k, temperature=temperature, batch_size=2))
    recipe = CachedRecipe(temperature=temperature, hard_weight=0.3, soft_weight=0.6)
    reference = hinton.HintonRecipe(temperature=temperature, hard_weight=0.3, soft_weight=0.6, positions="labelled")
    for step in range(3):
        batch = Batches(attached, 3, collate=collate)[step]
        found, expected = terms(student, None, batch, recipe), hinton.terms(student, teacher, batch, reference)
        for name in ("soft", "hard"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_small_top_k_of_masked_positions_is_a_lower_bound():
    teacher, student, examples = a_model(BertForMaskedLM), a_model(BertForMaskedLM, seed=1), masked_examples()
    losses = [terms(student, None, collate(attach(examples, ask_teacher(teacher, examples, k=k))))["soft"].item()
              for k in (2, 10, 30)]
    assert losses == sorted(losses)


def test_fixed_masks_hide_the_answer_and_keep_it_as_label():
    examples = masked_examples(40)
    original = {tuple(e["input_ids"]) for e in some_examples(40)}
    hidden = 0
    for example in examples:
        restored = [i if label == IGNORED else label
                    for i, label in zip(example["input_ids"], example["labels"], strict=True)]
        assert tuple(restored) in original
        hidden += sum(label != IGNORED for label in example["labels"])
    assert hidden > 40


def test_a_student_learns_without_the_teacher_in_memory():
    teacher, examples = a_model(), some_examples()
    attached = attach(examples, ask_teacher(teacher, examples))
    student = document_student(teacher)
    del teacher
    recipe = CachedRecipe(hard_weight=0.0, soft_weight=1.0)
    history = train(student, Batches(attached, 7, collate=collate), lambda s, b: terms(s, None, b, recipe),
                    Recipe(steps=60, learning_rate=1e-2))
    assert history.steps[-1]["soft"] < 0.2 * history.steps[0]["soft"]


@pytest.mark.parametrize("k", [None, 2])
def test_a_saved_cache_comes_back(tmp_path, k):
    examples = some_examples()
    soft = ask_teacher(a_model(), examples, k=k, temperature=1.0 if k is None else 2.0)
    soft.save(tmp_path / "soft.safetensors")
    again = load_soft_labels(tmp_path / "soft.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["soft.safetensors"], "no unfinished file is left"
    assert (again.classes, again.temperature) == (soft.classes, soft.temperature)
    for name, tensor in {**soft.tensors, "keys": soft.keys, "rows": soft.rows}.items():
        other = getattr(again, name, None) if name in ("keys", "rows") else again.tensors[name]
        assert torch.equal(tensor, other), name
    one, other = (collate(attach(examples, s)) for s in (soft, again))
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_failed_write_leaves_the_earlier_cache(tmp_path, monkeypatch):
    soft = ask_teacher(a_model(), some_examples())
    soft.save(tmp_path / "soft.safetensors")
    before = (tmp_path / "soft.safetensors").read_bytes()

    def full_disk(_tensors, path, _notes):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("course_lib.methods.cached.save_file", full_disk)
    with pytest.raises(OSError, match="untouched"):
        soft.save(tmp_path / "soft.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["soft.safetensors"]
    assert (tmp_path / "soft.safetensors").read_bytes() == before


def test_damaged_and_foreign_files_are_refused(tmp_path):
    file = tmp_path / "soft.safetensors"
    ask_teacher(a_model(), some_examples()).save(file)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ValueError, match="damaged"):
        load_soft_labels(file)
    save_file({"x": torch.ones(1)}, file)
    with pytest.raises(ValueError, match="no soft labels"):
        load_soft_labels(file)


# ------------------------------------------------------------------------------------------ whose row is it?


def test_a_data_set_that_does_not_match_is_refused():
    examples = some_examples()
    soft = ask_teacher(a_model(), examples)
    changed = [*examples[:4], examples[4] | {"input_ids": [2, 9, 3]}, *examples[5:]]
    for other, says in ((examples[::-1], "another order"), (examples[:-1], "7 examples, the data set 6"),
                        (examples + examples, "doubled"), (changed, "1 of 7 rows, first in row 4: other examples")):
        with pytest.raises(ValueError, match=says):
            attach(other, soft)


def test_by_key_finds_the_rows_of_shuffled_shortened_and_doubled_sets():
    examples = some_examples()
    soft = ask_teacher(a_model(), examples)
    right = {tuple(e["input_ids"]): e["teacher_log_probs"].tolist() for e in attach(examples, soft)}
    for other in (examples[::-1], examples[2:5], examples + examples):
        for example in attach(other, soft, by_key=True):
            assert example["teacher_log_probs"].tolist() == right[tuple(example["input_ids"])]
    with pytest.raises(ValueError, match="1 of 1 examples are not in the cache"):
        attach([{"input_ids": [2, 9, 3], "label": 0}], soft, by_key=True)


def test_other_masks_are_other_examples():
    examples = masked_examples()
    soft = ask_teacher(a_model(BertForMaskedLM), examples)
    moved = [e | {"labels": e["labels"][::-1]} for e in examples]
    with pytest.raises(ValueError, match="new masks"):
        attach(moved, soft)


def test_keys_follow_the_text_and_not_the_label():
    one = keys_of([{"text": "a", "label": 0}, {"text": "b", "label": 0}, {"text": "a", "text_pair": "b"}])
    assert torch.equal(one[0], keys_of([{"text": "a", "label": 1}])[0])
    assert len({bytes(k) for k in one.tolist()}) == 3
    glued = keys_of([{"text": "a", "text_pair": "b"}, {"text": "ab", "text_pair": ""}])
    assert not torch.equal(*glued)


def test_attach_leaves_the_given_examples_alone():
    examples = some_examples()
    attach(examples, ask_teacher(a_model(), examples))
    assert examples == some_examples()


def test_columns_of_a_dataset_travel_with_their_rows():
    examples = some_examples()
    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(7)], "label": [e["label"] for e in examples]})
    soft = ask_teacher(a_model(), examples, identify_by=rows)
    stored = as_columns(rows, soft)
    assert "teacher_log_probs" in stored.column_names and "teacher_log_probs" not in rows.column_names
    order = stored.shuffle(seed=1)
    shuffled = with_teacher_columns([examples[int(t.split()[1])] for t in order["text"]], order)
    right = {tuple(e["input_ids"]): e["teacher_log_probs"] for e in attach(examples, soft, identify_by=rows)}
    for example in shuffled:
        torch.testing.assert_close(torch.tensor(example["teacher_log_probs"]),
                                   torch.tensor(right[tuple(example["input_ids"])]))
    assert torch.isfinite(terms(a_model(seed=1), None, collate(shuffled))["soft"])
    with pytest.raises(ValueError, match="another order"):
        as_columns(rows.select(range(6, -1, -1)), soft)


@pytest.mark.parametrize(("call", "says"), [
    (lambda: ask_teacher(a_model().train(), some_examples()), r"eval\(\)"),
    (lambda: ask_teacher(a_model(), some_examples(), temperature=2.0), "T = 1"),
    (lambda: ask_teacher(a_model(), some_examples(), k=4), "top_k=4"),
    (lambda: terms(a_model(), None, pad(some_examples())), "remove_unused_columns"),
    (lambda: terms(a_model(), None, collate(attach(some_examples(), ask_teacher(a_model(), some_examples(), k=2))),
                   CachedRecipe(temperature=4.0)), "T=1.0.*T=4.0"),
])
def test_wrong_use_is_refused_with_a_way_out(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_weights_of_zero_leave_their_term_out():
    examples = some_examples()
    batch = collate(attach(examples, ask_teacher(a_model(), examples)))
    assert terms(a_model(), None, batch, CachedRecipe(hard_weight=0.0)).keys() == {"soft"}
    assert terms(a_model(), None, pad(examples), CachedRecipe(soft_weight=0.0)).keys() == {"hard"}


# ------------------------------------------------------------------------------------------ Trainer, and the student


class SoftLabelTrainer(Trainer):
    """The way out of the module's docstring."""

    def compute_loss(self, model, inputs, **_more):
        return sum(terms(model, None, inputs).values())


def trainer(folder, kind, **arguments):
    examples = some_examples()
    attached = attach(examples, ask_teacher(a_model(), examples))
    return kind(model=a_model(seed=1), train_dataset=Dataset.from_list(attached), data_collator=collate,
                args=TrainingArguments(output_dir=folder, max_steps=2, per_device_train_batch_size=4, report_to=[],
                                       disable_tqdm=True, use_cpu=True, **arguments))


def test_trainer_learns_from_stored_labels_when_they_reach_it(tmp_path):
    assert trainer(tmp_path, SoftLabelTrainer, remove_unused_columns=False).train().training_loss > 0


def test_trainer_drops_the_columns_that_forward_does_not_name(tmp_path):
    with pytest.raises(ValueError, match="remove_unused_columns"):
        trainer(tmp_path, SoftLabelTrainer).train()


def test_plain_forward_never_learns_from_the_columns_that_reach_it():
    examples, model = some_examples(), a_model(seed=1)
    batch = collate(attach(examples, ask_teacher(a_model(), examples)))
    try:
        loss = model(**batch).loss
    except TypeError:
        return  # a version that refuses unknown names: loud, and so no trap
    torch.testing.assert_close(loss, hinton.hard_loss(model(**pad(examples)).logits, batch["labels"]))


def test_document_classifier_has_the_published_sizes():
    with torch.device("meta"):
        teacher = BertForSequenceClassification(BertConfig(vocab_size=32_768, num_labels=2))
        student = document_student(teacher)
    assert teacher.num_parameters() == 111_208_706
    assert student.num_parameters() == 33_242_114


def test_document_student_owns_copies_of_the_embeddings_and_a_fresh_rest():
    teacher = a_model()
    before = {n: p.clone() for n, p in teacher.state_dict().items()}
    student = document_student(teacher)
    for name, parameter in student.bert.embeddings.named_parameters():
        assert torch.equal(parameter, teacher.bert.embeddings.get_parameter(name)), name
    fresh = student.bert.encoder.layer[0].attention.self.query.weight
    assert not torch.equal(fresh, teacher.bert.encoder.layer[0].attention.self.query.weight)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(7)
    assert all(torch.equal(p, before[n]) for n, p in teacher.state_dict().items())
    assert teacher.config.num_hidden_layers == 2


def test_in_order_batches_keep_rows_and_examples_together():
    examples = some_examples()
    attached = attach(examples, ask_teacher(a_model(), examples))
    rows = torch.cat([batch["teacher_log_probs"] for batch in in_order(attached, 2, collate)])
    torch.testing.assert_close(rows, ask_teacher(a_model(), examples).tensors["log_probs"])
    assert isinstance(top_k(TEACHER, 2), TopK)
