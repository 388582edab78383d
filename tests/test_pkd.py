"""BERT-PKD: the original numbers, the last layer left out, the teacher run once."""

import pytest
import torch
from loss_properties import assert_all, assert_finite_at_extremes, assert_gradient_scale_survives_temperature
from oracle import oracle
from transformers import BertConfig, BertForSequenceClassification

from course_lib.methods import pkd
from course_lib.methods.hinton import hard_loss, teacher_entropy
from course_lib.methods.pkd import PkdRecipe
from course_lib.shared import layer_maps
from course_lib.shared.students import blocks

TINY = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 24,
        "max_position_embeddings": 16, "num_labels": 3}
BATCH = {"input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
         "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]), "labels": torch.tensor([0, 2])}


def model(**changes):
    torch.manual_seed(changes.pop("seed", 0))
    return BertForSequenceClassification(BertConfig(**(TINY | changes))).eval()


def pair(*shape):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


def oracle_cls(truth, key, layers):
    """The stored stack (layers, batch, hidden) counts blocks from 0; ours is {layer: (batch, tokens, hidden)}."""
    return {layer: truth[key][layer - 1][:, None] for layer in layers}


# --- The loss ---------------------------------------------------------------------------------------------------------


def test_patience_equals_the_original_in_both_readings():
    truth = oracle("pkd/patience_skip/norm")
    student = truth.leaf("student_cls_all_layers")
    layer_map = layer_maps.skip(6, 12)
    matched = pkd.matched_cls(oracle_cls({"s": student}, "s", range(1, 7)),
                              oracle_cls(truth.inputs, "teacher_cls_all_layers", range(1, 13)), layer_map)
    normalise = truth.params["normalized"]
    loss = pkd.patience_loss(*matched, normalise=normalise, as_in="code")
    truth.check("loss", loss)
    truth.check("loss_as_returned_fp16", loss.half())
    truth.check("grad_S", torch.autograd.grad(loss, student)[0])
    truth.check("paper_sum_form", pkd.patience_loss(*matched, normalise=normalise))


def test_the_codes_mean_is_the_papers_sum_divided_by_layers_and_width():
    student, teacher = pair(3, 5, 8)
    paper, code = (pkd.patience_loss(student, teacher, as_in=which) for which in ("paper", "code"))
    torch.testing.assert_close(code * 5 * 8, paper)


def test_the_logit_part_equals_the_original():
    truth = oracle("pkd/total")
    p, inputs = truth.params, truth.inputs
    logits, knobs = (inputs["logits_S"], inputs["logits_T"]), {"temperature": p["T"], "as_in": "code"}
    truth.check("kd", pkd.soft_loss(*logits, **knobs))
    truth.check("ce", hard_loss(inputs["logits_S"], inputs["labels"]))
    truth.check("loss_dl", sum(pkd.logit_terms(*logits, inputs["labels"], alpha=p["alpha"], **knobs).values()))


def test_the_shipped_distillation_loss_and_its_gradient_are_reproduced():
    truth = oracle("kd_zoo/PKD_distillation_loss/T4_alpha0.5")
    student = truth.leaf("logits_S")
    loss = sum(pkd.logit_terms(student, truth.inputs["logits_T"], truth.inputs["labels"],
                               temperature=truth.params["T"], alpha=truth.params["alpha"], as_in="code").values())
    truth.check("loss", loss)
    truth.check("grad_S", torch.autograd.grad(loss, student)[0])


@pytest.mark.parametrize("as_in", ["paper", "code"])
@pytest.mark.parametrize("normalise", [True, False])
def test_patience_is_a_well_behaved_loss(as_in, normalise):
    student, teacher = pair(3, 4, 6)
    assert_all(lambda s, t: pkd.patience_loss(s, t, as_in=as_in, normalise=normalise), student, teacher)


def test_normalised_patience_is_blind_to_length_and_the_raw_one_is_not():
    student, teacher = pair(3, 4, 6)
    torch.testing.assert_close(pkd.patience_loss(5 * student, teacher), pkd.patience_loss(student, teacher))
    raw, longer = (pkd.patience_loss(scale * student, teacher, normalise=False) for scale in (1, 5))
    assert longer > raw


def test_opposite_states_cost_four_per_layer():
    h = torch.randn(2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(pkd.patience_loss(h, -h), torch.tensor(20.0, dtype=torch.float64))


def test_soft_loss_is_well_behaved_and_bottoms_out_at_the_teachers_entropy_in_the_paper():
    student, teacher = pair(5, 3)
    entropy = teacher_entropy(teacher, temperature=10.0)
    assert_all(lambda s, t: pkd.soft_loss(s, t, temperature=10.0), student, teacher, at_teacher=entropy)
    assert_all(lambda s, t: pkd.soft_loss(s, t, temperature=10.0, as_in="code"), student, teacher)
    assert_gradient_scale_survives_temperature(
        lambda s, t, T: pkd.soft_loss(s, t, temperature=T, as_in="code"), student, teacher)
    for temperature in (0.05, 100.0):
        for as_in in ("paper", "code"):
            assert_finite_at_extremes(
                lambda s, t, T=temperature, a=as_in: pkd.soft_loss(s, t, temperature=T, as_in=a), student, teacher)


def test_alpha_switches_terms_off_and_then_their_tensor_is_not_needed():
    student, teacher = pair(4, 3)
    labels = torch.tensor([0, 1, 2, 0])
    only_soft = pkd.logit_terms(student, teacher, None, temperature=4.0, alpha=1.0)
    assert only_soft.keys() == {"soft"}
    torch.testing.assert_close(only_soft["soft"], pkd.soft_loss(student, teacher, temperature=4.0))
    only_hard = pkd.logit_terms(student, None, labels, temperature=4.0, alpha=0.0)
    assert only_hard.keys() == {"hard"}
    torch.testing.assert_close(only_hard["hard"], hard_loss(student, labels))
    with pytest.raises(ValueError, match="alpha=0"):
        pkd.logit_terms(student, None, labels, temperature=4.0, alpha=0.5)
    with pytest.raises(ValueError, match="alpha=1"):
        pkd.logit_terms(student, teacher, None, temperature=4.0, alpha=0.5)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        pkd.logit_terms(student, teacher, labels, temperature=4.0, alpha=1.5)


def test_other_widths_and_other_readings_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 5, 8\).*\(2, 5, 6\).*Projection"):
        pkd.patience_loss(torch.randn(2, 5, 8), torch.randn(2, 5, 6))
    for loss in (lambda a: pkd.patience_loss(*pair(2, 3, 4), as_in=a),
                 lambda a: pkd.soft_loss(*pair(2, 3), temperature=1.0, as_in=a)):
        with pytest.raises(ValueError, match="as_in"):
            loss("blog")


# --- Both models at once ----------------------------------------------------------------------------------------------


def test_terms_match_every_second_layer_and_never_the_last_one():
    teacher, student = model(), model(num_hidden_layers=3, seed=1)
    recipe = PkdRecipe(beta=7.0, as_in="paper")
    terms = pkd.terms(student, teacher, BATCH, recipe)
    assert list(terms) == ["soft", "hard", "patience"]
    mine = student(**BATCH, output_hidden_states=True).hidden_states
    theirs = teacher(**BATCH, output_hidden_states=True).hidden_states
    by_hand = sum(
        (torch.nn.functional.normalize(mine[s][:, 0], dim=-1) - torch.nn.functional.normalize(theirs[t][:, 0], dim=-1))
        .pow(2).sum(-1).mean() for s, t in ((1, 2), (2, 4)))
    torch.testing.assert_close(terms["patience"], 7.0 * by_hand)
    sum(terms.values()).backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_patience_alone_leaves_the_students_last_block_without_gradient():
    teacher, student = model(), model(num_hidden_layers=3, seed=1)
    pkd.terms(student, teacher, BATCH, PkdRecipe())["patience"].backward()
    first, _, last = blocks(student)
    assert first.output.dense.weight.grad.abs().sum() > 0
    assert last.output.dense.weight.grad is None


def test_stored_teacher_outputs_replace_the_teacher():
    teacher, student = model(), model(num_hidden_layers=3, seed=1)
    stored = pkd.teacher_outputs(teacher, BATCH)
    assert stored["teacher_cls"].shape == (2, 6, 12)
    with_teacher, without = pkd.terms(student, teacher, BATCH), pkd.terms(student, None, BATCH | stored)
    for name, term in with_teacher.items():
        torch.testing.assert_close(without[name], term)
    with pytest.raises(ValueError, match="no teacher"):
        pkd.terms(student, None, BATCH)


def test_states_stored_in_half_precision_meet_a_student_under_autocast():
    teacher, student = model(), model(num_hidden_layers=3, seed=1)
    stored = pkd.teacher_outputs(teacher, BATCH)
    halved = stored | {"teacher_cls": stored["teacher_cls"].half()}
    with torch.autocast("cpu", torch.bfloat16):
        exact, near = (pkd.terms(student, None, BATCH | cache)["patience"] for cache in (stored, halved))
    torch.testing.assert_close(near, exact, rtol=0.01, atol=0.01)


def test_weights_of_zero_leave_their_terms_out():
    teacher, student = model(), model(num_hidden_layers=3, seed=1)
    assert list(pkd.terms(student, teacher, BATCH, PkdRecipe(beta=0.0))) == ["soft", "hard"]
    assert list(pkd.terms(student, teacher, BATCH, PkdRecipe(alpha=0.0))) == ["hard", "patience"]


def test_terms_refuse_dropout_other_widths_layer_zero_and_impossible_maps():
    teacher, student = model(), model(num_hidden_layers=3, seed=1)
    with pytest.raises(ValueError, match="train mode"):
        pkd.terms(student, model().train(), BATCH)
    with pytest.raises(ValueError, match="patience"):
        pkd.terms(model(num_hidden_layers=3, hidden_size=6), teacher, BATCH)
    with pytest.raises(ValueError, match="same vector"):
        pkd.terms(student, teacher, BATCH, PkdRecipe(layer_map=layer_maps.uniform(3, 6)))
    with pytest.raises(ValueError, match="no teacher layer 8"):
        pkd.terms(student, teacher, BATCH, PkdRecipe(layer_map=layer_maps.skip(3, 12)))


def test_the_student_starts_as_the_first_layers_with_a_fresh_head():
    pretrained = model()
    student = pkd.first_layers_of(pretrained, 3, seed=5)
    assert len(blocks(student)) == 3
    for ours, theirs in zip(blocks(student), blocks(pretrained), strict=False):
        assert torch.equal(ours.output.dense.weight, theirs.output.dense.weight)
    assert torch.equal(student.get_input_embeddings().weight, pretrained.get_input_embeddings().weight)
    assert not torch.equal(student.classifier.weight, pretrained.classifier.weight)


def test_matched_cls_takes_position_zero_of_every_pair_unchanged():
    student, teacher = ({layer: torch.randn(2, 3, 4) for layer in range(1, depth + 1)} for depth in (3, 6))
    ours, theirs = pkd.matched_cls(student, teacher, ((1, 2), (2, 4)))
    assert torch.equal(ours, torch.stack([student[1][:, 0], student[2][:, 0]], dim=1))
    assert torch.equal(theirs, torch.stack([teacher[2][:, 0], teacher[4][:, 0]], dim=1))
