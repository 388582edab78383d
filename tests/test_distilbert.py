"""DistilBERT: the original step's numbers and gradients, and a student that starts as a copy."""

import pytest
import torch
from loss_properties import (
    assert_all,
    assert_finite_at_extremes,
    assert_gradient_is_exact,
    assert_gradient_scale_survives_temperature,
    assert_ignores_padding,
    assert_safe_in_half_precision,
    ragged_mask,
)
from oracle import names, oracle
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from course_lib.methods import distilbert
from course_lib.methods.distilbert import DistilBertRecipe
from course_lib.shared import layer_maps
from course_lib.shared.students import blocks, count_parameters

TINY = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 24,
        "max_position_embeddings": 16}
BATCH = {"input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
         "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
         "labels": torch.tensor([[-100, 11, -100, -100], [-100, 5, -100, -100]])}


def teacher_of(kind=BertForMaskedLM, **changes):
    torch.manual_seed(0)
    teacher = kind(BertConfig(**(TINY | changes))).eval()
    for parameter in teacher.parameters():  # also biases and LayerNorms: a forgotten copy must show
        parameter.data += 0.3 * torch.randn_like(parameter)
    return teacher


def pair(*shape):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


# --- The loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("distilbert/step/"))
def test_every_term_and_both_gradients_equal_the_original_step(name):
    truth = oracle(name)
    p = truth.params
    logits, hidden = truth.leaf("logits_S"), truth.leaf("last_hidden_S")
    weights = {"soft_weight": p["alpha_ce"], "mlm_weight": p["alpha_mlm"], "cosine_weight": p["alpha_cos"],
               "mse_weight": p["alpha_mse"]}
    recipe = DistilBertRecipe(temperature=p["temperature"],
                              positions="masked" if p["restrict_ce_to_mask"] else "all", **weights)
    terms = distilbert.triple_loss(logits, truth.inputs["logits_T"], hidden, truth.inputs["last_hidden_T"],
                                   truth.inputs["mlm_labels"], truth.inputs["attention_mask"], recipe)
    truth.check("loss_ce", terms["soft"] / p["alpha_ce"])
    truth.check("loss_mlm", terms["mlm"] / p["alpha_mlm"])
    truth.check("loss_cos", terms["cosine"] / p["alpha_cos"])
    truth.check("loss_mse", terms["mse"] / p["alpha_mse"])
    loss = sum(terms.values())
    truth.check("loss", loss)
    for key, gradient in zip(("grad_logits", "grad_hidden"), torch.autograd.grad(loss, (logits, hidden)), strict=True):
        truth.check(key, gradient)


@pytest.mark.parametrize("loss", [distilbert.soft_loss, distilbert.logit_mse])
def test_logit_losses_are_well_behaved(loss):
    assert_all(loss, *pair(3, 5, 7), ragged_mask(3, 5), token_dims=(1,))


def test_the_soft_loss_keeps_its_gradient_at_high_temperature_and_stays_finite():
    logits = pair(3, 5, 7)
    assert_gradient_scale_survives_temperature(lambda s, t, T: distilbert.soft_loss(s, t, temperature=T), *logits)
    for temperature in (0.05, 100.0):
        assert_finite_at_extremes(lambda s, t, T=temperature: distilbert.soft_loss(s, t, temperature=T), *logits)


def test_the_cosine_loss_is_well_behaved_and_blind_to_length():
    student, teacher = pair(3, 5, 8)
    assert_all(distilbert.cosine_loss, student, teacher, ragged_mask(3, 5), token_dims=(1,))
    torch.testing.assert_close(distilbert.cosine_loss(9 * student, teacher), distilbert.cosine_loss(student, teacher))


def test_the_cosine_loss_runs_from_zero_to_two():
    h = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert distilbert.cosine_loss(h, h) == pytest.approx(0.0)
    assert distilbert.cosine_loss(h, -h) == pytest.approx(2.0)
    assert distilbert.cosine_loss(h, h.flip(0)) == pytest.approx(1.0)


def test_other_widths_point_to_a_projection():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(2, 3, 6\).*Projection"):
        distilbert.cosine_loss(torch.randn(2, 3, 4), torch.randn(2, 3, 6))


def test_span_loss_is_the_mean_of_start_and_end():
    student, teacher = pair(2, 3, 6)
    truth = torch.tensor([[1, 0, 2], [3, 2, 2]])
    both = distilbert.span_loss(student, teacher, truth)
    halves = [distilbert.span_loss(student[i : i + 1], teacher[i : i + 1], truth[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(both, (halves[0] + halves[1]) / 2)


def test_span_loss_ignores_padding_and_keeps_its_gradient_exact():
    student, teacher = pair(2, 3, 6)
    truth, mask = torch.tensor([[1, 0, 2], [3, 2, 2]]), ragged_mask(3, 6)

    def loss(s, t, m):
        return distilbert.span_loss(s, t, truth, m)

    assert_ignores_padding(loss, student, teacher, mask, token_dims=(2,))
    assert_gradient_is_exact(loss, student, teacher, mask)
    assert_finite_at_extremes(loss, student, teacher, mask)
    assert_safe_in_half_precision(loss, student, teacher, mask)


# --- Reading two models -----------------------------------------------------------------------------------------------


def test_terms_of_two_models_follow_the_weights():
    teacher = teacher_of()
    student = distilbert.student_from(teacher).eval()
    plain = distilbert.terms(student, teacher, BATCH)
    assert list(plain) == ["soft", "mlm", "cosine"]
    recipe = DistilBertRecipe(soft_weight=10.0, mlm_weight=0.0, mse_weight=1.0)
    double = distilbert.terms(student, teacher, BATCH, recipe)
    assert list(double) == ["soft", "cosine", "mse"]
    torch.testing.assert_close(double["soft"], 2 * plain["soft"])
    sum(plain.values()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert student.distilbert.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_terms_do_not_see_extra_padding():
    teacher = teacher_of().double()
    student = distilbert.student_from(teacher).eval()
    longer = {name: torch.nn.functional.pad(tensor, (0, 3), value=-100 if name == "labels" else 0)
              for name, tensor in BATCH.items()}
    for name, term in distilbert.terms(student, teacher, BATCH).items():
        torch.testing.assert_close(distilbert.terms(student, teacher, longer)[name], term)


def test_a_teacher_with_dropout_on_is_refused():
    teacher = teacher_of()
    student = distilbert.student_from(teacher)
    with pytest.raises(ValueError, match=r"teacher\.eval"):
        distilbert.terms(student, teacher.train(), BATCH)


def test_missing_labels_and_empty_masks_are_refused():
    teacher = teacher_of()
    student = distilbert.student_from(teacher)
    unlabelled = {k: v for k, v in BATCH.items() if k != "labels"}
    with pytest.raises(ValueError, match="mlm_weight=0"):
        distilbert.terms(student, teacher, unlabelled)
    with pytest.raises(ValueError, match="needs labels"):
        distilbert.terms(student, teacher, unlabelled, DistilBertRecipe(positions="masked"))
    with pytest.raises(ValueError):
        distilbert.terms(student, teacher, BATCH | {"labels": torch.full((2, 4), -100)})
    with pytest.raises(ValueError, match="positions"):
        distilbert.positions_that_count(BATCH["attention_mask"], None, "some")


# --- The student ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertModel])
def test_a_full_depth_copy_with_folded_token_types_computes_what_the_teacher_computes(kind):
    teacher = teacher_of(kind).double()
    student = distilbert.student_from(teacher, layers=4, layer_map=layer_maps.bottom(4, 4)[1:]).eval()
    inputs = {k: v for k, v in BATCH.items() if k != "labels"}
    with torch.no_grad():
        ours, theirs = student(**inputs)[0], teacher(**inputs)[0]
    real = BATCH["attention_mask"].bool()
    torch.testing.assert_close(ours[real], theirs[real])


def test_dropping_the_token_types_changes_what_the_copy_computes():
    teacher = teacher_of()
    same_depth = {"layers": 4, "layer_map": layer_maps.bottom(4, 4)[1:]}
    fold, drop = (distilbert.student_from(teacher, token_types=how, **same_depth).eval() for how in ("fold", "drop"))
    with torch.no_grad():
        assert not torch.allclose(fold(BATCH["input_ids"])[0], drop(BATCH["input_ids"])[0], atol=1e-2)
    assert torch.equal(drop.distilbert.embeddings.position_embeddings.weight,
                       teacher.bert.embeddings.position_embeddings.weight)


def test_half_of_the_depth_is_the_default_and_paper_and_code_copy_other_blocks():
    teacher = teacher_of(num_hidden_layers=6)
    paper, code = (distilbert.student_from(teacher, as_in=which) for which in ("paper", "code"))
    for student, expected in ((paper, [1, 3, 5]), (code, [1, 3, 6])):
        queries = [block.attention.q_lin.weight for block in blocks(student)]
        originals = [blocks(teacher)[layer - 1].attention.self.query.weight for layer in expected]
        assert all(torch.equal(a, b) for a, b in zip(queries, originals, strict=True))


def test_the_copy_shares_no_memory_and_its_head_is_tied():
    teacher = teacher_of()
    student = distilbert.student_from(teacher)
    theirs = {p.data_ptr() for p in teacher.parameters()}
    assert not theirs & {p.data_ptr() for p in student.parameters()}
    assert student.vocab_projector.weight is student.distilbert.embeddings.word_embeddings.weight


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering])
def test_other_tasks_get_the_matching_class_with_the_teachers_labels(kind):
    teacher = teacher_of(kind, **({"num_labels": 5} if kind is not BertForQuestionAnswering else {}))
    student = distilbert.student_from(teacher)
    assert type(student).__name__ == type(teacher).__name__.replace("Bert", "DistilBert")
    assert student.config.num_labels == teacher.config.num_labels


def test_the_student_of_bert_base_has_66_million_parameters():
    with torch.device("meta"):
        student = distilbert.DistilBertModel(distilbert.student_config(BertConfig()))
    assert count_parameters(student) == 66_362_880


def test_impossible_teachers_and_maps_are_refused():
    with pytest.raises(ValueError, match="no DistilBERT counterpart"):
        distilbert.student_from(distilbert.student_from(teacher_of()))
    with pytest.raises(ValueError, match="no teacher layer 9"):
        distilbert.student_from(teacher_of(), layer_map=((1, 9),))
    with pytest.raises(ValueError, match="name blocks only"):
        distilbert.student_from(teacher_of(), layer_map=((0, 0), (1, 1)))
    with pytest.raises(ValueError, match="1e-12"):
        distilbert.student_from(teacher_of(layer_norm_eps=1e-5))


@pytest.mark.parametrize("mask", [None, torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])])
def test_a_weight_of_zero_removes_its_part_of_the_span_loss(mask):
    student, teacher = torch.randn(2, 2, 2, 4, generator=torch.Generator().manual_seed(0)).unbind()
    positions, nan = torch.tensor([[0, 1], [2, 3]]), torch.full_like(teacher, torch.nan)
    soft = distilbert.span_loss(student, teacher, None, mask, hard_weight=0, soft_weight=1)
    hard = distilbert.span_loss(student, nan, positions, mask, hard_weight=1, soft_weight=0)
    both = distilbert.span_loss(student, teacher, positions, mask, hard_weight=0.25, soft_weight=2)
    torch.testing.assert_close(both, 0.25 * hard + 2 * soft)
    with pytest.raises(ValueError, match="labels is missing"):
        distilbert.span_loss(student, teacher, None, mask)
