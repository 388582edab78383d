"""Chapter 3's experiment: the head on the hidden words alone gives the same loss, and the arms differ as they say."""

from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from course_lib.experiments import ch03_distilbert as lab
from course_lib.methods import distilbert
from course_lib.shared.students import blocks

BATCH = {"input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
         "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
         "labels": torch.tensor([[-100, 11, 9, -100], [-100, 5, -100, -100]])}


@pytest.fixture
def tiny(monkeypatch):
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=40, hidden_size=12, num_hidden_layers=6, num_attention_heads=3,
                                       intermediate_size=24, max_position_embeddings=16, hidden_dropout_prob=0.0,
                                       attention_probs_dropout_prob=0.0)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    monkeypatch.setattr(lab, "teacher", lambda: SimpleNamespace(model=model))
    return model


@pytest.mark.parametrize("name", lab.ARMS)
def test_the_cheap_loss_equals_the_methods_loss_and_has_its_gradient(tiny, name):
    arm = lab.ARMS[name]
    student = lab.student(0, arm.copied)
    recipe = distilbert.DistilBertRecipe(soft_weight=arm.soft_weight, mlm_weight=arm.mlm_weight,
                                         cosine_weight=arm.cosine_weight, positions="masked")
    cheap, whole = lab.loss_terms(arm)(student, BATCH), distilbert.terms(student, tiny, BATCH, recipe)
    assert cheap.keys() == whole.keys()
    watched = blocks(student)[0].ffn.lin1.weight
    for term in cheap:
        torch.testing.assert_close(cheap[term], whole[term])
    gradients = [torch.autograd.grad(sum(terms.values()), watched)[0] for terms in (cheap, whole)]
    torch.testing.assert_close(*gradients)


def test_an_arm_copies_the_blocks_that_it_names_and_freezes_the_words(tiny):
    for copied, expected in (("2, 4, 6", [2, 4, 6]), ("1, 3, 5", [1, 3, 5])):
        student = lab.student(0, copied)
        for block, layer in zip(blocks(student), expected, strict=True):
            assert torch.equal(block.attention.q_lin.weight, blocks(tiny)[layer - 1].attention.self.query.weight)
        assert not student.get_input_embeddings().weight.requires_grad
    assert lab.COPIED == ((1, 2), (2, 4), (3, 6)) and lab.LOWER == ((1, 1), (2, 3), (3, 5))


def test_a_random_start_depends_on_the_seed_only(tiny):
    one, again, other = (lab.student(seed, "").get_input_embeddings().weight for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and one.requires_grad


def test_answers_stand_in_the_order_of_the_hidden_words(tiny, monkeypatch):
    monkeypatch.setattr(lab, "fixed_masks", lambda split, count: [BATCH])
    monkeypatch.setattr(lab, "truth", lambda split, count: torch.tensor([11, 9, 5]))
    monkeypatch.setattr(lab, "teacher_answers", lambda split, count: lab.answers(tiny, split, count))
    with torch.no_grad():
        whole = tiny(BATCH["input_ids"], attention_mask=BATCH["attention_mask"]).logits.argmax(-1)
    assert lab.answers(tiny).tolist() == [whole[0, 1], whole[0, 2], whole[1, 1]]
    found = lab.scores(tiny)
    assert found["agreement"] == 100.0 and 0 <= found["top1"] <= 100 and found["commonest"] >= 33.3
