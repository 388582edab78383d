"""Soft targets: equal to the codes that people copy, and the identities of the paper."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from loss_properties import (
    assert_all,
    assert_finite_at_extremes,
    assert_gradient_scale_survives_temperature,
    ragged_mask,
)
from oracle import names, oracle
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from course_lib.methods.hinton import (
    LOGIT_LOSSES,
    HintonRecipe,
    a_dozen_numbers,
    distillation_loss,
    hard_loss,
    high_temperature_limit,
    soft_target_loss,
    soft_targets,
    teacher_entropy,
    terms,
)

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = 2 * torch.randn(3, 4, 5, generator=GENERATOR, dtype=torch.float64)
TEACHER = 2 * torch.randn(3, 4, 5, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(5, (3, 4), generator=GENERATOR)
MASK = ragged_mask(3, 4)


def gradient(loss, student):
    return torch.autograd.grad(loss, student)[0]


# ------------------------------------------------------------------------------------------ the numbers of others


@pytest.mark.parametrize("name", names("hinton/reference"))
def test_parts_and_total_of_the_paper(name):
    truth = oracle(name)
    student, teacher, labels = truth.leaf("logits_S"), truth.inputs["logits_T"], truth.inputs["labels"]
    temperature = truth.params["temperature"]
    plain = {"temperature": temperature, "scale_by_t_squared": False}
    truth.check("kl_batchmean", soft_target_loss(student, teacher, form="kl", **plain))
    truth.check("soft_cross_entropy", soft_target_loss(student, teacher, form="cross_entropy", **plain))
    truth.check("teacher_entropy", teacher_entropy(teacher, temperature=temperature))
    truth.check("hard_ce", hard_loss(student, labels))
    total = distillation_loss(student, teacher, labels, temperature=temperature,
                              hard_weight=truth.params["alpha_hard"], soft_weight=truth.params["alpha_soft"])
    truth.check("total", total)
    truth.check("grad_S", gradient(total, student))


@pytest.mark.parametrize(("name", "entry"), [
    ("kd_zoo/torchdistill_KDLoss/T4_alpha0.5", "textbook"),
    ("kd_zoo/haitongli_loss_fn_kd/T4_alpha0.5", "mean"),
    ("kd_zoo/PKD_distillation_loss/T4_alpha0.5", "mean"),
    ("kd_zoo/TinyBERT_soft_cross_entropy/T1", "tinybert"),
    ("textbrewer/kd_ce_loss/T4", "textbrewer_ce"),
    ("textbrewer/kd_mse_loss/T4", "textbrewer_mse"),
    ("bilstm/paper_loss", "bilstm_paper"),
])
def test_knobs_of_a_code_base_give_its_number_and_its_gradient(name, entry):
    truth = oracle(name)
    student = truth.leaf("logits_S")
    temperature = truth.params.get("temperature", truth.params.get("T", 1))
    loss = LOGIT_LOSSES[entry](student, truth.inputs["logits_T"], truth.inputs.get("labels"), temperature=temperature)
    truth.check("loss" if "loss" in truth.outputs else "squared_l2_mean", loss)
    truth.check("grad_S", gradient(loss, student))


def test_masked_tokens_are_flattened_before_the_mean():
    truth = oracle("textbrewer/kd_ce_loss_masked_tokens/T4")
    truth.check("loss", LOGIT_LOSSES["textbrewer_ce"](truth.inputs["logits_S"], truth.inputs["logits_T"], None,
                                                      truth.inputs["mask"], temperature=4))


def test_the_dozen_numbers_are_those_of_the_table():
    given = oracle("kd_zoo/torchdistill_KDLoss/T4_alpha0.5").inputs
    rows = a_dozen_numbers(given["logits_S"], given["logits_T"], given["labels"], temperature=4, hard_weight=0.5)
    values = dict(zip(LOGIT_LOSSES, (round(row.value, 4) for row in rows), strict=True))
    assert values == values | {
        "textbook": 2.9145, "mean": 1.4853, "soft_only": 4.2876, "no_t_squared": 0.2680, "tinybert_t1": 0.8246,
        "tinybert": 0.4198, "textbrewer_ce": 1.2595, "textbrewer_mse": 0.6507}
    assert len(rows) == len(set(values.values())) == 12, "a dozen numbers, all different"


def test_hard_share_moves_only_the_codes_that_have_both_parts():
    given = oracle("kd_zoo/torchdistill_KDLoss/T4_alpha0.5").inputs
    low, high = (a_dozen_numbers(given["logits_S"], given["logits_T"], given["labels"], hard_weight=w)
                 for w in (0.2, 0.8))
    for loss, one, other in zip(LOGIT_LOSSES.values(), low, high, strict=True):
        assert (one.value != other.value) == (loss.hard and loss.soft), loss.who


def test_hard_share_goes_to_the_hard_loss():
    student, teacher, labels = STUDENT[:, 0], TEACHER[:, 0], LABELS[:, 0]
    found = LOGIT_LOSSES["textbook"](student, teacher, labels, temperature=4.0, hard_weight=0.2)
    expected = 0.2 * hard_loss(student, labels) + 0.8 * soft_target_loss(student, teacher, temperature=4.0)
    torch.testing.assert_close(found, expected)


# ------------------------------------------------------------------------------------------ properties


@pytest.mark.parametrize("temperature", [0.05, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("form", ["kl", "mse"])
@pytest.mark.parametrize("reduction", ["batchmean", "mean"])
def test_soft_loss_is_well_behaved(temperature, form, reduction):
    # T = 0.05 makes the curve so steep that finite differences need gentler logits.
    scale = min(1.0, temperature)
    assert_all(lambda s, t, m: soft_target_loss(s, t, m, temperature=temperature, form=form, reduction=reduction),
               STUDENT * scale, TEACHER * scale, MASK, token_dims=(1,))


@pytest.mark.parametrize("temperature", [0.05, 100.0])
@pytest.mark.parametrize("form", ["kl", "cross_entropy", "mse"])
def test_soft_loss_is_finite_at_extreme_temperatures(temperature, form):
    assert_finite_at_extremes(lambda s, t, m: soft_target_loss(s, t, m, temperature=temperature, form=form),
                              STUDENT, TEACHER, MASK)


def test_at_temperature_100_float32_keeps_three_digits_of_kl_and_four_of_its_gradient():
    results = []
    for dtype in (torch.float32, torch.float64):
        student = STUDENT.float().to(dtype).requires_grad_()
        loss = soft_target_loss(student, TEACHER.float().to(dtype), temperature=100.0)
        results.append((loss.detach().double(), gradient(loss, student).double()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-3, atol=0)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 7.0])
def test_cross_entropy_has_its_minimum_at_the_entropy_of_the_teacher(temperature):
    entropy = temperature**2 * teacher_entropy(TEACHER, MASK, temperature=temperature)
    assert_all(lambda s, t, m: soft_target_loss(s, t, m, temperature=temperature, form="cross_entropy"),
               STUDENT, TEACHER, MASK, token_dims=(1,), at_teacher=entropy)


def test_cross_entropy_and_kl_have_the_same_gradient():
    student = STUDENT.clone().requires_grad_()
    both = [gradient(soft_target_loss(student, TEACHER, MASK, temperature=3, form=f), student)
            for f in ("kl", "cross_entropy")]
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-12)


def test_gradient_is_the_difference_of_the_softened_probabilities():
    student = STUDENT[:, 0].clone().requires_grad_()
    found = gradient(soft_target_loss(student, TEACHER[:, 0], temperature=3, scale_by_t_squared=False), student)
    expected = (soft_targets(student, 3) - soft_targets(TEACHER[:, 0], 3)) / 3 / len(student)  # eq. 2
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-12)


def test_t_squared_keeps_the_gradient_and_its_absence_loses_it():
    assert_gradient_scale_survives_temperature(
        lambda s, t, T: soft_target_loss(s, t, temperature=T), STUDENT, TEACHER)
    student = STUDENT.clone().requires_grad_()
    norms = [gradient(soft_target_loss(student, TEACHER, temperature=T, scale_by_t_squared=False), student).norm()
             for T in (100.0, 200.0)]
    assert norms[0] / norms[1] == pytest.approx(4, rel=0.05)


def test_high_temperature_turns_kl_into_logit_matching():
    student = STUDENT.clone().requires_grad_()
    limit = high_temperature_limit(student, TEACHER, MASK)
    near = soft_target_loss(student, TEACHER, MASK, temperature=1e4)
    torch.testing.assert_close(near, limit, rtol=1e-3, atol=0)
    torch.testing.assert_close(gradient(near, student), gradient(limit, student), rtol=1e-2, atol=1e-6)
    shifted = high_temperature_limit(student + 100, TEACHER, MASK)
    torch.testing.assert_close(shifted, limit, rtol=1e-9, atol=1e-9)


def test_limit_is_a_well_behaved_loss():
    # A constant on all logits does not count, so only the centred part can move away from the teacher.
    assert_all(high_temperature_limit, STUDENT, TEACHER, MASK, token_dims=(1,))


def test_mean_hides_the_number_of_classes():
    both = [soft_target_loss(STUDENT, TEACHER, MASK, temperature=2, reduction=r) for r in ("batchmean", "mean")]
    torch.testing.assert_close(both[0], 5 * both[1])


def test_soft_targets_sum_to_one_and_flatten_with_temperature():
    for temperature in (0.05, 1.0, 100.0):
        probabilities = soft_targets(torch.tensor([[1e4, -1e4, 0.0], [1.0, 2.0, 3.0]]), temperature)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))
    assert soft_targets(TEACHER, 10.0).max() < soft_targets(TEACHER, 1.0).max()
    assert soft_targets(TEACHER.bfloat16(), 1.0).dtype == torch.float32


def test_division_by_a_small_temperature_does_not_lose_the_order_of_large_logits():
    close = torch.tensor([[10000.0, 10000.0 - 2**-9]])
    torch.testing.assert_close(soft_targets(close, 0.05), soft_targets(close.double(), 0.05).float(), rtol=1e-5, atol=0)


# ------------------------------------------------------------------------------------------ hard part and weights


def test_weights_of_zero_remove_a_term_altogether():
    nan = torch.full_like(STUDENT, math.nan)
    knobs = {"temperature": 2.0}
    hard = distillation_loss(STUDENT, nan, LABELS, hard_weight=1, soft_weight=0, **knobs)
    torch.testing.assert_close(hard, F.cross_entropy(STUDENT.flatten(0, 1), LABELS.flatten()))
    soft = distillation_loss(STUDENT, TEACHER, None, hard_weight=0, soft_weight=1, **knobs)
    torch.testing.assert_close(soft, soft_target_loss(STUDENT, TEACHER, **knobs))
    both = distillation_loss(STUDENT, TEACHER, LABELS, hard_weight=0.3, soft_weight=2, **knobs)
    torch.testing.assert_close(both, 0.3 * hard + 2 * soft)


def test_hard_loss_counts_labelled_and_kept_positions_only():
    labels = LABELS.clone()
    labels[0] = -100
    counted = (labels != -100) & MASK.bool()
    torch.testing.assert_close(hard_loss(STUDENT, labels, MASK), F.cross_entropy(STUDENT[counted], labels[counted]))


@pytest.mark.parametrize(("change", "says"), [
    ({"labels": torch.full((3, 4), -100)}, "keeps no position"),
    ({"labels": LABELS + 3}, "5 classes"),
    ({"labels": LABELS[:, :1]}, r"\(3, 1\).*\(3, 4, 5\)"),
    ({"labels": None}, "labels is missing"),
    ({"teacher_logits": None}, "teacher_logits is missing"),
    ({"teacher_logits": TEACHER[..., :4]}, r"\(3, 4, 5\).*\(3, 4, 4\).*vocabulary"),
    ({"mask": torch.zeros(3, 4)}, "keeps no position"),
    ({"mask": torch.ones(3, 1)}, r"\(3, 1\)"),
    ({"temperature": 0.0}, "temperature"),
    ({"temperature": math.inf}, "temperature"),
    ({"temperature": math.nan}, "temperature"),
    ({"hard_weight": -1.0}, "hard_weight"),
    ({"hard_weight": 0.0, "soft_weight": 0.0}, "one must count"),
    ({"form": "js"}, "cross_entropy"),
    ({"reduction": "sum"}, "batchmean"),
])
def test_wrong_input_is_refused_with_a_way_out(change, says):
    good = {"student_logits": STUDENT, "teacher_logits": TEACHER, "labels": LABELS, "mask": MASK, "temperature": 2.0,
            "hard_weight": 0.5, "soft_weight": 0.5}
    distillation_loss(**good)
    with pytest.raises(ValueError, match=says):
        distillation_loss(**(good | change))


# ------------------------------------------------------------------------------------------ two models


class Echo(nn.Module):
    """A model whose logits are a table of its token ids."""

    def __init__(self, classes=4, tokens=False):
        super().__init__()
        self.table, self.tokens = nn.Embedding(10, classes), tokens

    def forward(self, input_ids, attention_mask):
        logits = self.table(input_ids)
        return SimpleNamespace(logits=logits if self.tokens else logits.mean(1))


def a_batch(tokens=False):
    labels = torch.tensor([[1, -100, 2], [-100, 3, -100]]) if tokens else torch.tensor([1, 3])
    return {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
            "token_type_ids": torch.zeros(2, 3, dtype=torch.long), "labels": labels}


@pytest.mark.parametrize("tokens", [False, True])
def test_terms_are_the_weighted_parts(tokens):
    student, teacher, batch = Echo(tokens=tokens), Echo(tokens=tokens).eval(), a_batch(tokens)
    recipe = HintonRecipe(temperature=3.0, hard_weight=0.2, soft_weight=0.7)
    found = terms(student, teacher, batch, recipe)
    mask = batch["attention_mask"] if tokens else None
    total = distillation_loss(student(batch["input_ids"], None).logits, teacher(batch["input_ids"], None).logits,
                              batch["labels"], mask, temperature=3.0, hard_weight=0.2, soft_weight=0.7)
    torch.testing.assert_close(sum(found.values()), total)
    sum(found.values()).backward()
    assert student.table.weight.grad is not None and teacher.table.weight.grad is None


def test_terms_take_stored_logits_instead_of_a_teacher():
    student, teacher, batch = Echo(), Echo().eval(), a_batch()
    stored = batch | {"teacher_logits": teacher(batch["input_ids"], None).logits.detach()}
    assert terms(student, None, stored)["soft"] == terms(student, teacher, batch)["soft"]
    with pytest.raises(ValueError, match="teacher_logits"):
        terms(student, None, batch)


def test_labelled_positions_only():
    student, teacher, batch = Echo(tokens=True), Echo(tokens=True).eval(), a_batch(tokens=True)
    everywhere, labelled = (terms(student, teacher, batch, HintonRecipe(positions=p))["soft"]
                            for p in ("all", "labelled"))
    expected = soft_target_loss(student.table(batch["input_ids"]), teacher.table(batch["input_ids"]),
                                batch["labels"] != -100, temperature=2.0)
    torch.testing.assert_close(labelled, 0.5 * expected)
    assert everywhere != labelled


def test_zero_weights_leave_their_term_out():
    student, batch = Echo(), a_batch()
    assert terms(student, None, batch, HintonRecipe(soft_weight=0.0)).keys() == {"hard"}
    assert terms(student, Echo().eval(), batch, HintonRecipe(hard_weight=0.0)).keys() == {"soft"}


def test_terms_of_real_models_do_not_see_extra_padding():
    config = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                        initializer_range=0.5)
    torch.manual_seed(0)
    student, teacher = (BertForSequenceClassification(config).double().eval() for _ in range(2))
    longer = {name: F.pad(tensor, (0, 4)) if name != "labels" else tensor for name, tensor in a_batch().items()}
    found = terms(student, teacher, a_batch() | {"labels": torch.tensor([1, 0])})
    for name, term in terms(student, teacher, longer | {"labels": torch.tensor([1, 0])}).items():
        torch.testing.assert_close(term, found[name])


def test_teacher_in_train_mode_is_refused():
    with pytest.raises(ValueError, match=r"eval\(\)"):
        terms(Echo(), Echo().train(), a_batch())


def test_a_tensor_may_be_the_temperature_and_several_are_refused():
    plain = soft_target_loss(STUDENT, TEACHER, temperature=3.0)
    for one in (torch.tensor(3.0), torch.tensor([3.0])):
        assert soft_target_loss(STUDENT, TEACHER, temperature=one).shape == ()
        torch.testing.assert_close(soft_target_loss(STUDENT, TEACHER, temperature=one), plain)
    learned = torch.tensor(3.0, requires_grad=True)
    soft_target_loss(STUDENT, TEACHER, temperature=learned).backward()
    assert learned.grad.abs() > 0
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        soft_target_loss(STUDENT, TEACHER, temperature=torch.ones(2))


def test_the_teacher_is_not_detached_and_no_grad_keeps_it_out():
    teacher = TEACHER.clone().requires_grad_()
    soft_target_loss(STUDENT, teacher, temperature=2.0).backward()
    assert teacher.grad.abs().sum() > 0
    with torch.no_grad():
        outside = teacher * 1
    assert not soft_target_loss(STUDENT, outside, temperature=2.0).requires_grad


def test_an_unknown_logit_loss_names_the_known_ones_and_the_one_that_was_meant():
    with pytest.raises(KeyError, match=r"'RepDistiller'.*RepDistiller computes 'soft_only'.*Known: hard, textbook"):
        LOGIT_LOSSES["RepDistiller"]
    with pytest.raises(KeyError, match=r"No logit loss is called 'comma'\. Known: hard"):
        LOGIT_LOSSES["comma"]
    assert "comma" not in LOGIT_LOSSES and LOGIT_LOSSES.get("comma") is None
