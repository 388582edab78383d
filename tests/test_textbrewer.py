"""TextBrewer's numbers, each from one call."""

import pytest
import torch
from loss_properties import (
    assert_finite_at_extremes,
    assert_gradient_is_exact,
    assert_ignores_padding,
    assert_minimum_at_teacher,
    assert_refuses_empty_mask,
    assert_safe_in_half_precision,
    ragged_mask,
)
from oracle import oracle

from course_lib.methods import textbrewer


def pair(*shape):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("name, loss, kind", [
    ("kd_ce_loss/T4", textbrewer.kd_ce, "logits"),
    ("kd_mse_loss/T4", textbrewer.kd_mse, "logits"),
    ("kd_ce_loss_masked_tokens/T4", textbrewer.kd_ce, "logits"),
    ("att_mse_loss/masked_scores/mask", textbrewer.attention_mse, "attention"),
    ("hid_mse_loss/mask", textbrewer.hidden_mse, "state"),
    ("cos_loss/mask", textbrewer.cos, "state"),
    ("pkd_loss/nomask", textbrewer.pkd, "state"),
])
def test_value_and_gradient_equal_the_toolkit(name, loss, kind):
    truth = oracle(f"textbrewer/{name}")
    student = truth.leaf(f"{kind}_S")
    mask = (truth.inputs["mask"],) if "mask" in truth.inputs else ()
    value = loss(student, truth.inputs[f"{kind}_T"], *mask, **truth.params)
    truth.check("loss", value)
    if "grad_S" in truth.outputs:
        truth.check("grad_S", torch.autograd.grad(value, student)[0])


def test_without_a_mask_every_negative_score_counts_as_zero():
    student = torch.tensor([[[[2.0, -5.0], [-0.5, 1.0]]]])
    teacher = torch.tensor([[[[1.0, 3.0], [-7.0, 1.0]]]])
    assert textbrewer.attention_mse(student, teacher) == pytest.approx((1.0 + 9.0 + 0.0 + 0.0) / 4)


def test_attention_cross_entropy_by_hand():
    student, teacher = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    log2 = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(textbrewer.attention_ce(student, teacher), log2)
    # one real token: its query stays, and of its two equal probabilities only the real key's half counts
    torch.testing.assert_close(textbrewer.attention_ce(student, teacher, torch.tensor([[1, 0]])), log2 / 2)
    # without a mask a negative teacher score is taken for padding and its probability is dropped
    teacher[..., 1] = -1.0
    kept = teacher.softmax(-1)[0, 0, 0, 0]
    torch.testing.assert_close(textbrewer.attention_ce(student, teacher), kept * log2)


def test_merged_heads_compare_sums_or_means():
    student, teacher = pair(2, 3, 4, 4)
    mask = ragged_mask(2, 4)
    pairs = (mask[:, :, None] * mask[:, None, :]).bool()
    by_hand = (student.sum(1) - teacher.sum(1))[pairs].pow(2).mean()
    torch.testing.assert_close(textbrewer.attention_mse(student, teacher, mask, heads="sum"), by_hand)
    averaged = textbrewer.attention_ce(student.mean(1), teacher.mean(1), mask)
    torch.testing.assert_close(textbrewer.attention_ce(student, teacher, mask, heads="mean"), averaged)
    with pytest.raises(ValueError, match="heads"):
        textbrewer.attention_mse(student, teacher, mask, heads="max")


def test_the_attention_cross_entropy_has_an_exact_gradient():
    student, teacher = pair(3, 2, 5, 5)
    for loss in (textbrewer.attention_ce, lambda s, t, m: textbrewer.attention_ce(s, t)):
        assert_gradient_is_exact(loss, student, teacher, ragged_mask(3, 5))
        assert_safe_in_half_precision(loss, student, teacher, ragged_mask(3, 5))
    with pytest.raises(ValueError, match="same heads"):
        textbrewer.attention_ce(student, teacher[:, :1])


@pytest.mark.parametrize("loss", [textbrewer.feature_similarity, textbrewer.token_similarity])
def test_similarities_are_well_behaved(loss):
    student, teacher = pair(2, 5, 4)
    mask = ragged_mask(2, 5)

    def of_one_layer(s, t, m):
        return loss((s, s), (t, t), m)

    assert_minimum_at_teacher(of_one_layer, teacher, mask)
    assert_gradient_is_exact(of_one_layer, student, teacher, mask)
    assert_finite_at_extremes(of_one_layer, student, teacher, mask)
    assert_safe_in_half_precision(of_one_layer, student, teacher, mask)
    assert_ignores_padding(of_one_layer, student, teacher, mask, token_dims=(1,))
    assert_refuses_empty_mask(of_one_layer, student, teacher, mask)


def test_similarities_by_hand_with_and_without_a_mask():
    (h1, h2), (g1, g2) = pair(1, 3, 4), pair(1, 3, 6)
    tokens = (h1[0] @ h2[0].T / 4 - g1[0] @ g2[0].T / 6).pow(2)
    torch.testing.assert_close(textbrewer.token_similarity((h1, h2), (g1, g2)), tokens.mean())
    mask = torch.tensor([[1, 1, 0]])
    torch.testing.assert_close(textbrewer.token_similarity((h1, h2), (g1, g2), mask), tokens[:2, :2].mean())
    k1, k2 = 2 * h1, h2 - 1
    features = (h1[0].T @ h2[0] / 3 - k1[0].T @ k2[0] / 3).pow(2).mean()
    torch.testing.assert_close(textbrewer.feature_similarity((h1, h2), (k1, k2)), features)
    with pytest.raises(ValueError, match="token_similarity"):
        textbrewer.feature_similarity((h1, h2), (g1, g2))
