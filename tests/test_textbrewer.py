"""A second opinion on the losses of the papers: TextBrewer, a toolkit of other authors, computes the same numbers."""

import pytest
import torch
from oracle import oracle

from course_lib.methods import hinton, tinybert
from course_lib.methods.distilbert import cosine_loss
from course_lib.methods.pkd import patience_loss


def kd_ce(student, teacher, mask=None, *, temperature):
    return hinton.soft_cross_entropy(student, teacher, mask, temperature=temperature)


def kd_mse(student, teacher, *, temperature):
    return hinton.soft_target_loss(student, teacher, temperature=temperature, form="mse", reduction="mean",
                                   scale_by_t_squared=False)


def patience_of_one_layer(student, teacher):
    return patience_loss(student[:, :1], teacher[:, :1])  # (B, tokens, hidden): [CLS] as the only layer


@pytest.mark.parametrize("name, loss, kind", [
    ("kd_ce_loss/T4", kd_ce, "logits"),
    ("kd_mse_loss/T4", kd_mse, "logits"),
    ("kd_ce_loss_masked_tokens/T4", kd_ce, "logits"),
    ("att_mse_loss/masked_scores/mask", tinybert.attention_loss, "attention"),
    ("hid_mse_loss/mask", tinybert.hidden_loss, "state"),
    ("cos_loss/mask", cosine_loss, "state"),
    ("pkd_loss/nomask", patience_of_one_layer, "state"),
])
def test_value_and_gradient_equal_the_toolkit(name, loss, kind):
    truth = oracle(f"textbrewer/{name}")
    student = truth.leaf(f"{kind}_S")
    mask = (truth.inputs["mask"],) if "mask" in truth.inputs else ()
    value = loss(student, truth.inputs[f"{kind}_T"], *mask, **truth.params)
    truth.check("loss", value)
    if "grad_S" in truth.outputs:
        truth.check("grad_S", torch.autograd.grad(value, student)[0])
