"""MiniLM: equal to the reference numbers, and a well-behaved loss."""

import pytest
import torch
from loss_properties import assert_all, ragged_mask
from oracle import oracle
from transformers import BertConfig, BertForMaskedLM, BertModel

from course_lib.methods import minilm
from course_lib.shared.probes import scaled_dot_products, split_heads

V1 = "minilm/v1_last_layer"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_v1_equals_the_reference_in_value_and_gradient():
    truth = oracle(V1)
    q, k, v = (truth.leaf(name) for name in ("q_S", "k_S", "v_S"))
    given = truth.inputs
    attention = minilm.attention_relation_transfer(q, k, given["q_T"], given["k_T"], given["attention_mask"])
    relation = minilm.value_relation_transfer(v, given["v_T"], given["attention_mask"])
    truth.check("loss_at", attention)
    truth.check("loss_vr", relation)
    truth.check("loss", attention + relation)
    for name, gradient in zip("qkv", torch.autograd.grad(attention + relation, (q, k, v)), strict=True):
        truth.check(f"grad_{name}_S", gradient)


@pytest.mark.parametrize(("average", "suffix"), [("tokens", "flat_over_tokens"), ("padded", "padded_denominator")])
def test_v1_equals_the_reference_under_the_other_averages(average, suffix):
    truth = oracle(V1)
    q, k, v, mask = (truth.inputs[name] for name in ("q_S", "k_S", "v_S", "attention_mask"))
    attention = minilm.attention_relation_transfer(q, k, truth.inputs["q_T"], truth.inputs["k_T"], mask,
                                                   average=average)
    truth.check(f"loss_at_{suffix}", attention)
    truth.check(f"loss_vr_{suffix}",
                minilm.value_relation_transfer(v, truth.inputs["v_T"], mask, average=average))


def test_v2_equals_the_reference_in_value_and_gradient():
    truth = oracle("minilm/v2_relations/Ar4")
    mask = truth.inputs["attention_mask"]
    leaves = {kind: truth.leaf(f"{kind}_S") for kind in "qkv"}
    losses = {kind: minilm.relation_transfer(leaf, truth.inputs[f"{kind}_T"], mask, **truth.params)
              for kind, leaf in leaves.items()}
    for kind, loss in losses.items():
        truth.check(f"loss_{2 * kind}", loss)
    total = sum(losses.values())
    truth.check("loss", total)
    truth.check("grad_q", torch.autograd.grad(total, leaves["q"])[0])


@pytest.mark.parametrize("average", ["sentence", "tokens"])
def test_relation_kl_is_a_well_behaved_loss(average):
    mask = ragged_mask(3, 5)
    student, teacher = normal(3, 2, 5, 5), normal(3, 2, 5, 5, seed=1)
    assert_all(lambda s, t, m: minilm.relation_kl(s, t, m, average=average), student, teacher, mask, token_dims=(2, 3))


def test_queries_keys_and_values_survive_extremes():
    for scale in (1e4, 0.0):
        student = (scale * normal(2, 2, 4, 3).sign()).float().requires_grad_()
        teacher = (-scale * normal(2, 2, 4, 3, seed=2).sign()).float()
        loss = minilm.value_relation_transfer(student, teacher, ragged_mask(2, 4))
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_half_precision_inputs_give_a_float32_loss():
    low = normal(2, 2, 4, 3).bfloat16()
    other = normal(2, 2, 4, 3, seed=3).bfloat16()
    loss = minilm.value_relation_transfer(low, other)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), minilm.value_relation_transfer(low.double(), other.double()),
                               rtol=1e-5, atol=1e-6)


def test_the_three_averages_agree_without_padding_and_differ_with_it():
    student, teacher = normal(3, 2, 5, 5), normal(3, 2, 5, 5, seed=1)
    full = {a: float(minilm.relation_kl(student, teacher, average=a)) for a in ("sentence", "tokens", "padded")}
    assert max(full.values()) - min(full.values()) < 1e-12
    ragged = {float(minilm.relation_kl(student, teacher, ragged_mask(3, 5), average=a)) for a in full}
    assert len(ragged) == 3


def test_a_student_of_another_width_can_be_perfect():
    wide = normal(2, 6, 16)
    # Any change that keeps the dot products inside each relation head keeps the relations.
    orthogonal = torch.linalg.qr(normal(4, 4, seed=5))[0]
    rotated = torch.cat([split @ orthogonal for split in wide.split(4, dim=-1)], dim=-1)
    assert minilm.relation_transfer(rotated, wide, relation_heads=4) < 1e-12
    thin = torch.cat([wide, torch.zeros(2, 6, 16)], dim=-1)
    assert minilm.relation_transfer(thin, wide, relation_heads=1) > 1e-3  # its own sqrt(d): the same dots are softer


def test_other_head_counts_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"4 heads.*12.*relation_heads"):
        minilm.relation_kl(normal(2, 4, 3, 3), normal(2, 12, 3, 3))
    with pytest.raises(ValueError, match="width 12 cannot be split into 5"):
        minilm.relation_transfer(normal(2, 3, 12), normal(2, 3, 10), relation_heads=5)
    with pytest.raises(ValueError, match="average must be"):
        minilm.relation_kl(normal(2, 4, 3, 3), normal(2, 4, 3, 3), average="mean")


def test_a_sentence_of_padding_only_is_refused():
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"sentence\(s\) \[1\]"):
        minilm.relation_kl(normal(2, 2, 3, 3), normal(2, 2, 3, 3, seed=1), mask)


def test_assistant_is_advised_only_for_half_the_layers_and_half_the_width():
    def shape(layers, width):
        return BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=12)

    teacher = shape(12, 768)
    advised = {(layers, width): minilm.assistant_advised(shape(layers, width), teacher)
               for layers in (6, 12) for width in (384, 768)}
    assert advised == {(6, 384): True, (6, 768): False, (12, 384): False, (12, 768): False}
    assistant = minilm.assistant_config(shape(6, 384), teacher)
    assert (assistant.num_hidden_layers, assistant.hidden_size) == (12, 384)
    assert [minilm.suggested_teacher_layer(n) for n in (6, 12, 24)] == [6, 12, 21]


SHAPE = {"vocab_size": 40, "intermediate_size": 32, "max_position_embeddings": 16}


@pytest.fixture
def models():
    torch.manual_seed(0)
    teacher = BertForMaskedLM(BertConfig(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, **SHAPE)).eval()
    student = BertModel(BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, **SHAPE))
    for parameter in (*teacher.parameters(), *student.parameters()):
        torch.nn.init.normal_(parameter, std=0.4)  # a fresh BERT attends almost evenly: nothing could go wrong
    ids = torch.randint(5, 40, (3, 6))
    return student, teacher, {"input_ids": ids, "attention_mask": ragged_mask(3, 6)}


def eager(model):
    model.set_attn_implementation("eager")
    return model


def test_terms_read_the_last_layer_of_both_models(models):
    student, teacher, batch = models
    student.eval()
    found = minilm.terms(student, teacher, batch)
    states = teacher.bert(**batch, output_hidden_states=True).hidden_states[2]
    mine = student(**batch, output_hidden_states=True).hidden_states[1]

    def values(model, hidden):
        return split_heads(model.encoder.layer[-1].attention.self.value(hidden), 4)

    s, t = values(student, mine), values(teacher.bert, states)
    expected = minilm.relation_kl(scaled_dot_products(s, s), scaled_dot_products(t, t), batch["attention_mask"])
    torch.testing.assert_close(found["value_relation"], expected)
    probs = [m.attentions[-1] for m in (eager(teacher)(**batch, output_attentions=True),
                                        eager(student)(**batch, output_attentions=True))]
    divergence = (probs[0] * (probs[0].log() - probs[1].log())).nan_to_num().sum(-1).mean(1)  # padded keys: 0 log 0
    per_sentence = (divergence * batch["attention_mask"]).sum(-1) / batch["attention_mask"].sum(-1)
    torch.testing.assert_close(found["attention"], per_sentence.mean())
    assert set(found) == {"attention", "value_relation"}


def test_terms_train_the_student_and_only_the_student(models):
    student, teacher, batch = models
    sum(minilm.terms(student, teacher, batch).values()).backward()
    assert student.encoder.layer[-1].attention.self.value.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


def test_v2_terms_take_other_head_counts(models):
    _, teacher, batch = models
    student = BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, **SHAPE))
    found = minilm.terms(student, teacher, batch, minilm.MiniLmRecipe(version="v2", relation_heads=8))
    assert set(found) == {"qq", "kk", "vv"}
    with pytest.raises(ValueError, match="version='v2'"):
        minilm.terms(student, teacher, batch)


def test_weights_scale_and_switch_off(models):
    student, teacher, batch = models
    student.eval()
    one = minilm.terms(student, teacher, batch)
    half = minilm.terms(student, teacher, batch, minilm.MiniLmRecipe(weights=(0.5, 0.0)))
    assert set(half) == {"attention"}
    torch.testing.assert_close(half["attention"], 0.5 * one["attention"])


def test_a_model_is_its_own_perfect_student_and_impossible_layers_are_named(models):
    _, teacher, batch = models
    assert all(loss.abs() < 1e-6 for loss in minilm.terms(teacher, teacher, batch).values())
    with pytest.raises(ValueError, match=r"teacher has layers 1 to 3.*layer 4"):
        minilm.terms(teacher, teacher, batch, minilm.MiniLmRecipe(teacher_layer=4))


def test_a_teacher_in_train_mode_is_refused(models):
    student, teacher, batch = models
    teacher.train()
    with pytest.raises(ValueError, match="train mode"):
        minilm.terms(student, teacher, batch)
