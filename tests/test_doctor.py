"""The doctor: silent on healthy pairs of every method, and the planted cause among its first two findings."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification

from course_lib.__main__ import main
from course_lib.doctor import diagnose
from course_lib.doctor.logit_loss import FORMS, HARD, KL, recognise
from course_lib.methods import (
    bilstm,
    cached,
    distilbert,
    hinton,
    minilm,
    mobilebert,
    mobilebert_model,
    pkd,
    theseus,
    tinybert,
)
from course_lib.shared import layer_maps, probes
from course_lib.shared.projections import Projection
from course_lib.shared.starts import copy_layers
from course_lib.shared.students import new_student
from course_lib.shared.training import History, Recipe

SHAPE = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 32,
         "max_position_embeddings": 16, "num_labels": 3, "initializer_range": 0.25, "pad_token_id": 0}
MASK_ID = 4
ROWS, TOKENS = 16, 10


def trained(model, seed=0):
    """Weights that look trained: no bias is 0, no scale is 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval().requires_grad_(False)


def make_teacher(kind, seed=1, **changes):
    torch.manual_seed(seed)
    model = trained(kind(BertConfig(**(SHAPE | changes))), seed)
    model.bert.embeddings.position_embeddings.weight.data *= 4  # so that not every [MASK] gets the same answer
    return model


def make_batch(kind=BertForMaskedLM, seed=3):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, SHAPE["vocab_size"], (ROWS, TOKENS), generator=generator)
    lengths = torch.randint(6, TOKENS + 1, (ROWS,), generator=generator)
    real = torch.arange(TOKENS)[None] < lengths[:, None]
    ids = ids.masked_fill(~real, 0)
    batch = {"input_ids": ids, "attention_mask": real.long()}
    if kind is BertForMaskedLM:
        chosen = (torch.rand(ids.shape, generator=generator) < 0.25) & real
        chosen[:, 2] = True
        return batch | {"labels": ids.masked_fill(~chosen, -100), "input_ids": ids.masked_fill(chosen, MASK_ID)}
    return batch | {"labels": torch.randint(SHAPE["num_labels"], (ROWS,), generator=generator)}


class Pair:
    """A healthy pair; a test breaks one thing in it."""

    def __init__(self, kind=BertForMaskedLM, **student):
        self.teacher = make_teacher(kind)
        self.student = new_student(self.teacher, seed=2, **({"layers": 2} | student)).requires_grad_(True)
        self.batch = make_batch(kind)
        self.recipe = hinton.HintonRecipe(positions="labelled" if kind is BertForMaskedLM else "all")

    def diagnose(self, terms="healthy", recipe="own", **more):
        recipe = self.recipe if recipe == "own" else recipe
        if terms == "healthy":
            terms = lambda s, b: hinton.terms(s, self.teacher, b, self.recipe)  # noqa: E731
        return diagnose(self.student, self.teacher, self.batch, recipe, terms=terms, **more)


@pytest.fixture(params=[BertForMaskedLM, BertForSequenceClassification], ids=["masked LM", "classifier"])
def pair(request):
    return Pair(request.param)


def first_two(report):
    return [f.name for f in report.findings[:2] if f.severity in ("error", "warning")]


def assert_names(report, name, severity=None):
    assert name in first_two(report), str(report)
    assert severity in (None, report.named(name)[0].severity), str(report)
    finding = report.named(name)[0]
    assert finding.why and finding.fix and finding.chapter, str(finding)
    return finding


def assert_silent(report):
    assert report.healthy, str(report)
    assert not [f for f in report.findings if "could not be looked at" in f.what], str(report)


# --- Healthy ----------------------------------------------------------------------------------------------------------


def healthy_hinton():
    pair = Pair()
    return pair.student, pair.teacher, pair.batch, pair.recipe, hinton.terms


def healthy_classifier():
    pair = Pair(BertForSequenceClassification)
    return pair.student, pair.teacher, pair.batch, pair.recipe, hinton.terms


def healthy_bilstm():
    teacher, batch = make_teacher(BertForSequenceClassification), make_batch(BertForSequenceClassification)
    student = bilstm.BiLstm(bilstm.random_vectors(60, 8), 3, hidden=6, fc=5)
    return student, teacher, batch, bilstm.BilstmRecipe(), bilstm.terms


def healthy_bilstm_with_words():
    student, teacher, batch, recipe, terms = healthy_bilstm()
    stored = probes.teacher_logits_of(teacher, batch)
    student = bilstm.BiLstm(bilstm.random_vectors(90, 8), 3, hidden=6, fc=5)
    words = {"input_ids": (batch["input_ids"] + 29) * batch["attention_mask"], "teacher_logits": stored}
    return student, teacher, batch | words, recipe, terms


def healthy_distilbert():
    teacher = make_teacher(BertForMaskedLM)
    return distilbert.student_from(teacher), teacher, make_batch(), distilbert.DistilBertRecipe(), distilbert.terms


def healthy_pkd():
    teacher = make_teacher(BertForSequenceClassification)
    student = pkd.first_layers_of(make_teacher(BertForSequenceClassification, seed=8), 2).requires_grad_(True)
    return student, teacher, make_batch(BertForSequenceClassification), pkd.PkdRecipe(), pkd.terms


def tiny(recipe):
    teacher = make_teacher(BertForSequenceClassification)
    student = new_student(teacher, layers=2, hidden=8)
    tinybert.attach_projection(student, teacher)
    return student, teacher, make_batch(BertForSequenceClassification), recipe, tinybert.terms


def healthy_mobilebert(recipe=None, phase=None):
    shape = {"vocab_size": 60, "hidden_size": 32, "embedding_size": 16, "num_hidden_layers": 2,
             "num_attention_heads": 4, "intermediate_size": 32, "intra_bottleneck_size": 16,
             "max_position_embeddings": 16, "initializer_range": 0.25}
    torch.manual_seed(5)
    teacher = trained(mobilebert_model.MobileBertForMaskedLM(mobilebert_model.teacher_config(
        **shape | {"intra_bottleneck_size": 48})))
    student = mobilebert_model.MobileBertForMaskedLM(mobilebert_model.student_config(**shape))
    return (student, teacher, make_batch(), recipe or mobilebert.MobileBertRecipe(),
            partial(mobilebert.terms, phase=phase))


def healthy_minilm(recipe=None):
    teacher = make_teacher(BertForMaskedLM)
    student = new_student(teacher, layers=2, hidden=8)
    return student, teacher, make_batch(), recipe or minilm.MiniLmRecipe(), minilm.terms


def healthy_theseus():
    teacher = make_teacher(BertForSequenceClassification)
    student = theseus.Theseus(teacher, 2)
    return student, teacher, make_batch(BertForSequenceClassification), theseus.TheseusRecipe(2), theseus.terms


def healthy_cached():
    teacher, batch = make_teacher(BertForSequenceClassification), make_batch(BertForSequenceClassification)
    stored = probes.teacher_logits_of(teacher, batch).log_softmax(-1)
    return (cached.document_student(teacher), teacher, batch | {"teacher_log_probs": stored}, cached.CachedRecipe(),
            cached.terms)


def healthy_cached_top_k():
    teacher, batch = make_teacher(BertForMaskedLM), make_batch()
    top = cached.top_k(probes.teacher_logits_of(teacher, batch)[batch["labels"] != -100], 8, 2.0)
    columns = {"teacher_top_ids": top.ids, "teacher_top_log_probs": top.log_probs,
               "teacher_rest_log_prob": top.rest_log_prob, "teacher_temperature": torch.full((ROWS,), 2.0),
               "teacher_classes": torch.full((ROWS,), 60)}
    return (new_student(teacher, layers=2), teacher, batch | columns, cached.CachedRecipe(temperature=2.0),
            cached.terms)


HEALTHY = {
    "hinton": healthy_hinton,
    "hinton, a classifier": healthy_classifier,
    "bilstm": healthy_bilstm,
    "bilstm with its own words": healthy_bilstm_with_words,
    "distilbert": healthy_distilbert,
    "pkd": healthy_pkd,
    "tinybert, intermediate": partial(tiny, tinybert.INTERMEDIATE),
    "tinybert, prediction": partial(tiny, tinybert.PREDICTION),
    "mobilebert, auxiliary": healthy_mobilebert,
    "mobilebert, first block": partial(healthy_mobilebert, phase=mobilebert.Phase((1,), False, 10)),
    "minilm": healthy_minilm,
    "minilm 2": partial(healthy_minilm, minilm.MiniLmRecipe(version="v2", relation_heads=4)),
    "theseus": healthy_theseus,
    "cached": healthy_cached,
    "cached, top k of a masked LM": healthy_cached_top_k,
}


@pytest.mark.parametrize("method", HEALTHY)
def test_a_healthy_pair_of_every_method_gets_no_warning(method):
    student, teacher, batch, recipe, terms = HEALTHY[method]()
    report = diagnose(student, teacher, batch, recipe, terms=lambda s, b: terms(s, teacher, b, recipe))
    assert_silent(report)
    assert report.named("gradient share") or len(report.named("loss")) < 2


def test_nothing_is_changed_by_a_diagnosis(pair):
    pair.student.train()
    state = torch.get_rng_state()
    before = {n: t.clone() for m in (pair.student, pair.teacher) for n, t in m.state_dict().items()}
    tensors = {n: t.clone() for n, t in pair.batch.items()}
    pair.diagnose()
    assert torch.equal(torch.get_rng_state(), state)
    assert pair.student.training and not pair.teacher.training
    assert all(p.grad is None for m in (pair.student, pair.teacher) for p in m.parameters())
    after = {n: t for m in (pair.student, pair.teacher) for n, t in m.state_dict().items()}
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert all(torch.equal(tensors[n], pair.batch[n]) for n in tensors)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (*pair.student.modules(), *pair.teacher.modules()))


def test_a_theseus_student_keeps_its_count_of_batches():
    student, teacher, batch, recipe, terms = healthy_theseus()
    student.train()
    diagnose(student, teacher, batch, recipe, terms=lambda s, b: terms(s, teacher, b, recipe))
    assert int(student.batches_seen) == 0 and student.training


# --- The loss, read from its gradient ---------------------------------------------------------------------------------


def logits_and_labels():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(12, 40, generator=generator), 2 * torch.randn(12, 40, generator=generator)
    labels = torch.randint(40, (12,), generator=generator)
    labels[5:] = -100
    return student.requires_grad_(), teacher, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 10.0])
def test_temperature_and_weights_are_read_from_the_gradient(temperature):
    student, teacher, labels = logits_and_labels()
    loss = hinton.distillation_loss(student, teacher, labels, temperature=temperature, hard_weight=0.3, soft_weight=0.6)
    found = recognise(torch.autograd.grad(loss, student)[0], student.detach(), teacher, labels)
    assert found.form == KL and found.explained > 0.9999
    assert found.temperature == pytest.approx(temperature, rel=0.005)
    assert (found.soft, found.hard) == pytest.approx((0.6, 0.3), rel=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_told_from_the_others(form):
    student, teacher, labels = logits_and_labels()
    T = 2.0
    q, p, z, t = (student / T).softmax(-1), (teacher / T).softmax(-1), student.softmax(-1), teacher.softmax(-1)
    losses = dict(zip(FORMS, (
        F.kl_div(q.log(), p, reduction="sum"), F.mse_loss(student, teacher), F.kl_div(p.log(), q, reduction="sum"),
        F.mse_loss(q, p),
        F.kl_div(q, p, reduction="sum"), -(q.log() * p.log()).sum(),
        F.kl_div(q.log(), (t / T).softmax(-1), reduction="sum"),
        F.kl_div((z / T).log_softmax(-1), (t / T).softmax(-1), reduction="sum"),
        F.kl_div(q.log(), t, reduction="sum"), F.kl_div(z.log(), p, reduction="sum")), strict=True))
    loss = losses[form] + 0.2 * F.cross_entropy(student, labels)
    found = recognise(torch.autograd.grad(loss, student)[0], student.detach(), teacher, labels)
    assert found.form == form and found.explained > 0.999


def test_a_hard_loss_alone_is_no_soft_loss():
    student, teacher, labels = logits_and_labels()
    gradient = torch.autograd.grad(0.7 * F.cross_entropy(student, labels), student)[0]
    found = recognise(gradient, student.detach(), teacher, labels)
    assert found.form == HARD and found.hard == pytest.approx(0.7, rel=1e-3)


# --- Planted causes: the models ---------------------------------------------------------------------------------------


def test_a_student_that_is_its_own_teacher(pair):
    pair.student = pair.teacher
    assert_names(pair.diagnose(), "shared tensors", "error")


def test_layers_that_are_shared_instead_of_copied(pair):
    pair.student.bert.encoder.layer[0] = pair.teacher.bert.encoder.layer[0].requires_grad_(True)
    assert_names(pair.diagnose(), "shared tensors", "error")


def test_true_copies_are_no_alias(pair):
    copy_layers(pair.student, pair.teacher, layer_maps.skip(2, 4))
    assert_silent(pair.diagnose())


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_weights_that_are_not_numbers(pair, whose):
    getattr(pair, whose).bert.encoder.layer[1].output.dense.weight.data[0, 0] = float("nan")
    assert_names(pair.diagnose(), "weights", "error")


def test_half_precision_weights(pair):
    pair.student = pair.student.bfloat16()
    assert_names(pair.diagnose(), "precision", "warning")


def test_a_teacher_in_train_mode(pair):
    pair.teacher.train()
    report = pair.diagnose()
    assert_names(report, "teacher mode", "error")
    assert pair.teacher.training and "two runs differ by" in report.named("teacher mode")[0].what


def test_a_loss_that_switches_the_teacher_to_train_mode(pair):
    def careless(student, batch):
        out = hinton.terms(student, pair.teacher, batch, pair.recipe)
        pair.teacher.train()
        pair.teacher(batch["input_ids"], attention_mask=batch["attention_mask"])
        return out

    assert_names(pair.diagnose(careless), "teacher mode", "error")
    assert not pair.teacher.training


def test_one_forgotten_dropout_in_an_evaluated_teacher(pair):
    pair.teacher.bert.embeddings.dropout.train()
    assert_names(pair.diagnose(), "teacher mode", "error")


def test_a_teacher_without_no_grad(pair):
    pair.teacher.requires_grad_(True)

    def careless(student, batch):
        teacher_logits = probes.logits_of(pair.teacher, batch)
        return hinton.terms(student, None, batch | {"teacher_logits": teacher_logits}, pair.recipe)

    assert_names(pair.diagnose(careless), "teacher gradients", "error")
    assert_silent(pair.diagnose())  # requires_grad alone does no harm


def test_a_teacher_in_the_optimiser(pair):
    both = [*pair.student.parameters(), *pair.teacher.parameters()]
    assert_names(pair.diagnose(optimizer=torch.optim.SGD(both, lr=0.1)), "teacher gradients", "error")


def test_parameters_left_out_of_the_optimiser(pair):
    optimizer = torch.optim.AdamW(pair.student.bert.encoder.parameters())
    report = pair.diagnose(optimizer=optimizer)
    assert_names(report, "frozen parameters", "warning")
    assert_silent(pair.diagnose(optimizer=torch.optim.AdamW(pair.student.parameters())))


def test_frozen_blocks(pair):
    pair.student.bert.encoder.layer[0].requires_grad_(False)
    assert_names(pair.diagnose(), "frozen parameters", "warning")


def test_a_student_that_is_frozen_altogether(pair):
    pair.student.requires_grad_(False)
    assert pair.diagnose().findings[0].severity == "error"
    assert "frozen parameters" in [f.name for f in pair.diagnose().problems]


def test_a_gradient_that_is_cut_on_its_way_down(pair):
    handle = pair.student.bert.encoder.layer[0].register_forward_hook(lambda _m, _a, out: out.detach())
    assert_names(pair.diagnose(), "frozen parameters", "warning")
    handle.remove()


def test_an_untied_head():
    pair = Pair()
    config = copy.deepcopy(pair.teacher.config)
    config.tie_word_embeddings = False
    pair.student = BertForMaskedLM(config)
    assert_names(pair.diagnose(), "tied head", "warning")


def test_heads_and_widths_that_do_not_fit_the_loss():
    pair = Pair(BertForSequenceClassification, heads=2)
    recipe = tinybert.INTERMEDIATE
    report = pair.diagnose(lambda s, b: tinybert.terms(s, pair.teacher, b, recipe), recipe)
    assert_names(report, "width and heads", "error")
    pair = Pair(BertForSequenceClassification, hidden=8)
    report = pair.diagnose(lambda s, b: tinybert.terms(s, pair.teacher, b, recipe), recipe)
    assert_names(report, "width and heads", "error")
    assert_silent(pair.diagnose())  # logits do not care


SENSELESS = {"counts from 0": ((0, 1), (1, 3)), "crossed": ((1, 4), (2, 2)), "one off": ((0, 0), (1, 3)),
             "too deep": ((1, 5),), "twice": ((2, 4), (2, 4))}


@pytest.mark.parametrize("layer_map", SENSELESS.values(), ids=SENSELESS)
def test_layer_maps_without_sense(layer_map):
    pair = Pair(BertForSequenceClassification)
    recipe = replace(tinybert.INTERMEDIATE, layer_map=layer_map)
    assert_names(pair.diagnose(lambda s, b: tinybert.terms(s, pair.teacher, b, recipe), recipe), "layer map")


@pytest.mark.parametrize("make", [layer_maps.uniform, layer_maps.top, layer_maps.bottom, layer_maps.skip,
                                  layer_maps.last, layer_maps.distilbert])
def test_published_layer_maps_make_sense(make):
    pair = Pair(BertForSequenceClassification)
    assert_silent(pair.diagnose(recipe=(pair.recipe, {"layer_map": make(2, 4)})))


# --- Planted causes: the loss -----------------------------------------------------------------------------------------


def soft_by_hand(pair, change):
    """A loss as people write it: `change(z_S, z_T, T)` is the soft part, 0.5 + 0.5 with the hard one."""
    def terms(student, batch):
        z = probes.logits_of(student, batch)
        t = probes.teacher_logits_of(pair.teacher, batch)
        keep = batch["labels"] != -100
        hard = F.cross_entropy(z[keep], batch["labels"][keep])
        return {"soft": 0.5 * change(z[keep], t[keep], 2.0), "hard": 0.5 * hard}
    return terms


def textbook(z, t, T):
    return F.kl_div((z / T).log_softmax(-1), (t / T).softmax(-1), reduction="batchmean") * T**2


def test_the_textbook_loss_written_by_hand_is_healthy_with_and_without_a_recipe(pair):
    for recipe in (pair.recipe, None):
        report = pair.diagnose(soft_by_hand(pair, textbook), recipe)
        assert_silent(report)
        assert report.named("scale of the loss")[0].value == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("recipe", ["own", None])
def test_t_squared_is_missing(pair, recipe):
    report = pair.diagnose(soft_by_hand(pair, lambda z, t, T: textbook(z, t, T) / T**2), recipe)
    assert_names(report, "T squared", "warning")
    assert report.named("T squared")[0].value == pytest.approx(1 / 4, rel=0.02)


@pytest.mark.parametrize("recipe", ["own", None])
def test_the_mean_over_classes(pair, recipe):
    report = pair.diagnose(soft_by_hand(pair, lambda z, t, T: textbook(z, t, T) / z.shape[-1]), recipe)
    assert_names(report, "reduction", "error")


def test_batchmean_over_sentences_instead_of_tokens():
    pair = Pair()
    report = pair.diagnose(soft_by_hand(pair, lambda z, t, T: textbook(z, t, T) * len(z) / ROWS))
    assert_names(report, "reduction", "error")
    assert "sentences" in report.named("reduction")[0].what


def test_a_reduction_that_the_recipe_asks_for_is_only_noted(pair):
    pair.recipe = replace(pair.recipe, reduction="mean")
    assert_silent(pair.diagnose())
    assert pair.diagnose().named("reduction")[0].severity == "note"


@pytest.mark.parametrize(("change", "recipe", "severity"), [
    (lambda z, t, T: textbook(z, t, T) / z.shape[-1] / T**2, {"reduction": "mean"}, "error"),
    (lambda z, t, T: textbook(z, t, T) / z.shape[-1] / T**2, {"reduction": "mean", "scale_by_t_squared": False},
     "note"),
    (lambda z, t, T: textbook(z, t, T) * len(z), {"reduction": "mean"}, "error")])
def test_a_recipe_excuses_only_the_factor_that_it_asks_for(pair, change, recipe, severity):
    report = pair.diagnose(soft_by_hand(pair, change), replace(pair.recipe, **recipe))
    assert report.named("reduction")[0].severity == severity


def test_another_temperature_than_the_recipes(pair):
    report = pair.diagnose(recipe=replace(pair.recipe, temperature=8.0))
    assert_names(report, "temperature", "warning")


def test_probabilities_passed_as_log_probabilities(pair):
    report = pair.diagnose(soft_by_hand(pair, lambda z, t, T: F.kl_div(
        (z / T).softmax(-1), (t / T).softmax(-1), reduction="batchmean") * T**2))
    assert_names(report, "form of the loss", "error")


def test_softmax_taken_twice(pair):
    report = pair.diagnose(soft_by_hand(pair, lambda z, t, T: textbook(z.softmax(-1), t.softmax(-1), T)))
    assert_names(report, "form of the loss", "error")


def test_swapped_arguments(pair):
    assert_names(pair.diagnose(soft_by_hand(pair, lambda z, t, T: textbook(t, z, T))), "form of the loss", "warning")


def test_the_teacher_compared_with_itself(pair):
    def careless(student, batch):
        out = hinton.terms(pair.teacher, pair.teacher, batch, replace(pair.recipe, hard_weight=0.0))
        return out | {"hard": hinton.terms(student, pair.teacher, batch, pair.recipe)["hard"]}

    assert_names(pair.diagnose(careless), "gradient", "error")


def test_the_student_compared_with_itself(pair):
    def careless(student, batch):
        own = batch | {"teacher_logits": probes.logits_of(student, batch).detach()}
        soft = hinton.terms(student, None, own, replace(pair.recipe, hard_weight=0.0))
        return soft | {"hard": hinton.terms(student, pair.teacher, batch, pair.recipe)["hard"]}

    assert_names(pair.diagnose(careless), "gradient", "error")


def test_two_weights_that_changed_places(pair):
    meant = replace(pair.recipe, soft_weight=0.8, hard_weight=0.2)
    swapped = replace(meant, soft_weight=0.2, hard_weight=0.8)
    report = pair.diagnose(lambda s, b: hinton.terms(s, pair.teacher, b, swapped), meant)
    assert_names(report, "weights", "warning")


def test_a_mask_that_is_not_passed(pair):
    def careless(student, batch):
        everything = dict(batch)
        mask = everything.pop("attention_mask")
        logits = probes.logits_of(student, everything)
        teacher = probes.teacher_logits_of(pair.teacher, batch)
        return {"soft": hinton.soft_target_loss(logits, teacher, mask if logits.ndim == 3 else None, temperature=2.0)}

    assert_names(pair.diagnose(careless, None), "attention mask", "error")


def hidden_mse(teacher, student, batch):
    with torch.no_grad():
        theirs = probes.read(teacher, batch)
    return {"hidden": F.mse_loss(probes.read(student, batch).hidden_states[2], theirs.hidden_states[4])}


def value_relation_without_mask(teacher, student, batch):
    with torch.no_grad():
        theirs = probes.read(teacher, batch)
    mine = probes.read(student, batch)
    return {"values": minilm.value_relation_transfer(mine.values[2], theirs.values[4], None)}


@pytest.mark.parametrize("careless", [hidden_mse, value_relation_without_mask])
def test_padding_in_a_loss_on_layers(pair, careless):
    assert_names(pair.diagnose(partial(careless, pair.teacher), None), "padding", "warning")


def test_padding_in_a_loss_on_logits():
    pair = Pair()
    report = pair.diagnose(lambda s, b: {"soft": hinton.soft_target_loss(
        probes.logits_of(s, b), probes.teacher_logits_of(pair.teacher, b), temperature=2.0)}, None)
    assert_names(report, "padding", "warning")


def test_a_loss_at_unmasked_positions_only():
    pair = Pair()

    def inverted(student, batch):
        mask = batch["attention_mask"].bool() & (batch["labels"] == -100)
        return {"soft": hinton.soft_target_loss(probes.logits_of(student, batch), probes.teacher_logits_of(
            pair.teacher, batch), mask, temperature=2.0)}

    assert_names(pair.diagnose(inverted, None), "loss positions", "error")


def test_a_loss_everywhere_although_the_recipe_says_masked_positions():
    pair = Pair()
    everywhere = replace(pair.recipe, positions="all")
    report = pair.diagnose(lambda s, b: hinton.terms(s, pair.teacher, b, everywhere))
    assert_names(report, "loss positions", "error")


def test_labels_at_positions_that_were_not_masked():
    pair = Pair()
    shown = pair.batch["input_ids"] != MASK_ID
    pair.batch["labels"] = torch.where(shown & pair.batch["attention_mask"].bool(), pair.batch["input_ids"], -100)
    assert_names(pair.diagnose(), "loss positions", "error")


def test_a_trainable_projection_on_the_teachers_side():
    pair = Pair(hidden=8)
    for side, trainable in (("teacher", True), ("teacher", False), ("student", True)):
        projection = Projection(8, 16, side=side, trainable=trainable)

        def terms(student, batch, projection=projection):
            with torch.no_grad():
                theirs = probes.read(pair.teacher, batch).hidden_states[4]
            mine, theirs = projection(probes.read(student, batch).hidden_states[2], theirs, layer=2)
            return {"hidden": tinybert.hidden_loss(mine, theirs, batch["attention_mask"])}

        report = pair.diagnose(terms, None)
        if side == "teacher" and trainable:
            assert_names(report, "projection side", "error")
        else:
            assert_silent(report)


def test_a_term_without_a_say(pair):
    recipe = replace(pair.recipe, soft_weight=1e-8)
    report = pair.diagnose(lambda s, b: hinton.terms(s, pair.teacher, b, recipe), recipe)
    assert_names(report, "gradient share", "warning")


def test_a_loss_that_changes_its_batch(pair):
    def careless(student, batch):
        out = hinton.terms(student, pair.teacher, batch, pair.recipe)
        batch["input_ids"][:, 1] = 7
        return out

    assert_names(pair.diagnose(careless), "batch", "error")


def test_a_loss_that_is_not_a_number(pair):
    report = pair.diagnose(lambda s, b: {"soft": probes.logits_of(s, b).sum() * float("nan")}, None)
    assert_names(report, "loss", "error")


def test_a_loss_that_is_not_a_number_is_not_said_to_teach_nothing(pair):
    """The value is NaN, so its gradient is: the advice about detached students belongs to another illness."""
    report = pair.diagnose(lambda s, b: {"soft": probes.logits_of(s, b).sum() * float("nan")}, None)
    assert not [finding for finding in report.named("gradient") if finding.severity == "error"]


def test_a_number_whose_gradient_is_none(pair):
    def root(student, batch):
        logits = probes.logits_of(student, batch)
        return {"distance": (logits - logits.detach()).pow(2).sum().sqrt()}  # 0, and its slope is 0 / 0

    report = pair.diagnose(root, None)
    assert "square root" in assert_names(report, "gradient", "error").why


def test_the_soft_term_was_dropped_on_the_way():
    """Trainer dropped the column: the recipe speaks of the teacher, the loss of the labels alone."""
    pair = Pair(BertForSequenceClassification)
    pair.recipe = hinton.HintonRecipe(hard_weight=0.5, soft_weight=0.5)
    report = pair.diagnose(lambda s, b: {"loss": 0.5 * F.cross_entropy(probes.logits_of(s, b), b["labels"])})
    assert "weight 0.5" in assert_names(report, "soft term", "error").why
    assert not pair.diagnose(lambda s, b: {"loss": sum(hinton.terms(s, pair.teacher, b, pair.recipe).values())}
                             ).problems


# --- Planted causes: the cache, the answers, the training -------------------------------------------------------------


def test_a_very_sure_teacher_may_give_two_texts_one_answer():
    pair = Pair(BertForSequenceClassification)
    pair.teacher.classifier.weight.data.mul_(1e-6)
    pair.teacher.classifier.bias.data.copy_(torch.tensor([60.0, 0.0, 0.0]))
    pair.batch["teacher_logits"] = probes.teacher_logits_of(pair.teacher, pair.batch).log_softmax(-1)
    assert len(pair.batch["teacher_logits"].unique(dim=0)) < ROWS
    assert not [f for f in pair.diagnose().named("cached teacher") if f.severity != "ok"]


def test_a_cache_that_was_shuffled(pair):
    pair.batch["teacher_logits"] = probes.teacher_logits_of(pair.teacher, pair.batch)
    assert_silent(pair.diagnose())
    pair.batch["teacher_logits"] = pair.batch["teacher_logits"].roll(1, dims=0)
    report = pair.diagnose()
    assert_names(report, "cached teacher", "error")
    if pair.batch["teacher_logits"].ndim == 2:
        assert "shuffled" in report.named("cached teacher")[0].why


def test_a_cache_with_one_row_for_all():
    pair = Pair(BertForSequenceClassification)
    stored = probes.teacher_logits_of(pair.teacher, pair.batch)
    pair.batch["teacher_logits"] = stored[:1].expand_as(stored).clone()
    assert_names(pair.diagnose(), "cached teacher", "error")


def test_a_cache_of_another_teacher(pair):
    pair.batch["teacher_logits"] = probes.teacher_logits_of(make_teacher(type(pair.teacher), seed=77), pair.batch)
    assert_names(pair.diagnose(), "cached teacher", "error")


def make_talkative(model):
    """Give a random model many different answers, as a real teacher has."""
    noise = 50 * torch.randn(ROWS, TOKENS, SHAPE["vocab_size"], generator=torch.Generator().manual_seed(0))

    def speak(_module, _args, output):
        output.logits = output.logits + noise
        return output

    model.register_forward_hook(speak)


def test_commas_everywhere():
    pair = Pair()
    make_talkative(pair.teacher)
    trained(pair.student).requires_grad_(True)
    pair.student.cls.predictions.bias.data[7] = 50.0
    report = pair.diagnose(tokenizer=Words())
    assert_names(report, "unigram collapse", "error")
    assert "'word7' 100%" in report.named("unigram collapse")[0].what
    pair.student = pair.teacher
    assert pair.diagnose().named("unigram collapse")[0].severity == "ok"


def test_a_fresh_student_that_says_one_word_is_not_ill():
    pair = Pair()
    pair.student.cls.predictions.bias.data[7] = 50.0
    assert_silent(pair.diagnose())


@pytest.mark.parametrize("more", [{"steps": 500}, {}])
def test_a_fine_tuning_rate_for_a_fresh_student(pair, more):
    report = pair.diagnose(recipe=(pair.recipe, {"learning_rate": 1e-5} | more))
    assert_names(report, "learning rate", "warning")
    copy_layers(pair.student, pair.teacher, layer_maps.skip(2, 4)[:1])
    pair.student.bert.encoder.layer[1].load_state_dict(pair.teacher.bert.encoder.layer[3].state_dict())
    assert_silent(pair.diagnose(recipe=(pair.recipe, {"learning_rate": 1e-5} | more)))


def test_a_loss_that_does_not_move(pair):
    flat = History(steps=[{"step": i, "soft": 2.0 - 1e-5 * i, "learning_rate": 1e-6} for i in range(100)])
    report = pair.diagnose(history=flat)
    assert_names(report, "learning rate", "warning")
    assert_names(report, "history", "warning")
    falling = History(steps=[{"step": i, "soft": 2.0 - 0.01 * i, "learning_rate": 2e-3} for i in range(100)])
    assert_silent(pair.diagnose(recipe=(pair.recipe, Recipe(steps=100, learning_rate=2e-3)), history=falling))


def test_dead_attention(pair):
    trained(pair.student).requires_grad_(True)
    with torch.no_grad():
        for layer in pair.student.bert.encoder.layer:
            layer.attention.self.query.weight.zero_()
            layer.attention.self.query.bias.zero_()
    assert_names(pair.diagnose(), "dead attention", "warning")
    with torch.no_grad():
        for layer in pair.student.bert.encoder.layer:
            layer.attention.self.query.weight.normal_(std=100)
    assert_names(pair.diagnose(), "dead attention", "warning")


def test_a_student_that_is_too_sure():
    pair = Pair(BertForSequenceClassification)
    pair.batch = {name: tensor.repeat(8, *[1] * (tensor.ndim - 1)) for name, tensor in pair.batch.items()}
    pair.student.classifier.weight.data *= 100
    assert_names(pair.diagnose(), "calibration", "warning")


def test_a_student_with_one_answer_for_every_text():
    pair = Pair(BertForSequenceClassification)
    pair.student = make_teacher(BertForSequenceClassification, seed=9).requires_grad_(True)
    assert not [f for f in pair.diagnose().named("constant answers") if f.severity != "ok"]
    pair.student.classifier.weight.data.mul_(1e-4)
    pair.student.classifier.bias.data.copy_(torch.tensor([0.0, 3.0, 0.0]))
    found = assert_names(diagnose(pair.student, pair.teacher, pair.batch), "constant answers", "error")
    assert f"'LABEL_1' to all {ROWS}" in found.why


def test_a_tagger_is_no_masked_lm():
    student, teacher = (make_teacher(BertForTokenClassification, seed=seed) for seed in (2, 1))
    student.requires_grad_(True)
    batch = make_batch(BertForSequenceClassification)
    keep = batch["attention_mask"].bool()
    batch["labels"] = teacher(batch["input_ids"], batch["attention_mask"]).logits.argmax(-1).masked_fill(~keep, -100)

    def terms(model, given):
        asked = given["labels"] != -100
        mine = probes.logits_of(model, given)[asked]
        theirs = probes.teacher_logits_of(teacher, given)[asked]
        return {"soft": hinton.soft_target_loss(mine, theirs, temperature=2.0),
                "hard": F.cross_entropy(mine, given["labels"][asked])}

    report = diagnose(student, teacher, batch, terms=terms)
    assert not [f for f in report.findings if f.severity == "error"], report
    assert not report.named("loss positions") and not report.named("unigram collapse")
    assert "inverted mask" not in str(report)


def test_a_softmax_of_one_number_is_not_judged():
    pair = Pair(BertForSequenceClassification)
    student, teacher = (make_teacher(BertForSequenceClassification, seed=seed, num_labels=1) for seed in (2, 1))
    pair.batch["labels"] = torch.randn(ROWS)
    stored = probes.teacher_logits_of(teacher, pair.batch)
    report = diagnose(student.requires_grad_(True), teacher, pair.batch | {"teacher_logits": stored.roll(1, dims=0)},
                      terms=lambda s, b: {"mse": F.mse_loss(probes.logits_of(s, b), b["teacher_logits"])})
    assert not report.named("cached teacher") and not report.named("form of the loss")
    assert any("one number per text" in finding.what for finding in report.named("kind of model"))


def test_texts_that_the_tokenizer_does_not_know():
    pair = Pair(BertForSequenceClassification)
    reader = Words()
    reader.unk_token_id, reader.unk_token, reader.all_special_ids = 1, "[UNK]", [0, 1, 2, 3, 4]
    assert not [f for f in pair.diagnose(tokenizer=reader).named("unknown words") if f.severity != "ok"]
    pair.batch["input_ids"][:, 1:] = 1
    assert "[UNK]" in assert_names(diagnose(pair.student, pair.teacher, pair.batch, tokenizer=reader), "unknown words",
                                   "error").what


# --- Bad input --------------------------------------------------------------------------------------------------------


class Words:
    """As much of a tokenizer as the doctor uses."""

    mask_token_id = MASK_ID

    def __init__(self, shift=0):
        self.shift = shift

    def get_vocab(self):
        return {f"word{i + self.shift}": i for i in range(60)}

    def convert_ids_to_tokens(self, token):
        return f"word{token}"


def test_a_masked_lm_and_a_classifier():
    pair = Pair()
    pair.student = Pair(BertForSequenceClassification).student
    assert_names(pair.diagnose(), "kind of model", "error")


def test_a_bare_encoder_beside_a_masked_lm(pair):
    report = diagnose(pair.student.bert, pair.teacher, pair.batch)
    assert report.healthy and report.named("kind of model")


def test_another_vocabulary():
    pair = Pair()
    pair.student = new_student(make_teacher(BertForMaskedLM, vocab_size=70), layers=2)
    assert_names(pair.diagnose(), "vocabulary", "error")
    pair.student = new_student(make_teacher(BertForMaskedLM, vocab_size=30), layers=2)  # ids that it does not have
    assert_names(pair.diagnose(), "vocabulary", "error")


def test_another_number_of_classes():
    pair = Pair(BertForSequenceClassification)
    pair.student = new_student(make_teacher(BertForSequenceClassification, num_labels=5), layers=2)
    assert_names(pair.diagnose(), "vocabulary", "error")


def test_classes_in_another_order():
    pair = Pair(BertForSequenceClassification)
    pair.student.config.id2label = {0: "LABEL_1", 1: "LABEL_0", 2: "LABEL_2"}
    assert_names(pair.diagnose(), "class order", "error")


def test_two_tokenizers_of_one_size(pair):
    assert_names(pair.diagnose(tokenizer=Words(), teacher_tokenizer=Words(shift=1)), "tokenizer", "error")
    assert_silent(pair.diagnose(tokenizer=Words(), teacher_tokenizer=Words()))


def test_an_inverted_augmentation_mask():
    pair = Pair(BertForSequenceClassification)
    pair.batch["input_ids"][:, :8] = MASK_ID
    assert_names(pair.diagnose(tokenizer=Words()), "mask tokens", "warning")


def test_padding_without_a_mask(pair):
    pair.batch["input_ids"][:, -3:] = 0
    mask = pair.batch.pop("attention_mask")
    report = pair.diagnose(None)
    assert_names(report, "attention mask", "warning")
    pair.batch["attention_mask"] = mask * 0
    assert_names(pair.diagnose(), "batch", "error")


@pytest.mark.parametrize("shape", [(0, 8), (4, 0)])
def test_an_empty_batch(pair, shape):
    pair.batch = {"input_ids": torch.zeros(shape, dtype=torch.long)}
    assert_names(pair.diagnose(), "batch", "error") if pair.diagnose().findings[0].chapter else None
    assert pair.diagnose().findings[0].name == "batch"


def test_sentences_that_are_too_long(pair):
    pair.batch = {name: F.pad(t, (0, 30)) if t.ndim == 2 else t for name, t in pair.batch.items()}
    assert_names(pair.diagnose(), "batch", "error")


def test_labels_that_are_missing_or_do_not_exist(pair):
    labels = pair.batch.pop("labels")
    assert_names(pair.diagnose(None), "labels", "error")
    assert pair.diagnose(None, None).healthy
    pair.batch["labels"] = torch.where(labels != -100, labels + 60, labels)
    assert_names(pair.diagnose(), "labels", "error")
    pair.batch["labels"] = labels[:, None].expand(ROWS, 3) if labels.ndim == 1 else labels[:, 0]
    assert_names(pair.diagnose(), "labels", "error")


def test_a_student_whose_forward_pass_fails(pair):
    class Broken(nn.Module):
        def forward(self, input_ids, attention_mask=None):
            return input_ids @ torch.ones(3, 3)

    report = diagnose(Broken(), pair.teacher, pair.batch, pair.recipe, terms=lambda s, b: {})
    assert_names(report, "forward pass", "error")


def test_a_loss_that_raises_becomes_a_finding(pair):
    report = pair.diagnose(lambda s, b: {"soft": probes.logits_of(s, b) @ torch.ones(2, 2)}, None)
    assert_names(report, "loss", "error")
    assert "RuntimeError" in report.named("loss")[0].what
    assert_names(pair.diagnose(lambda s, b: {"soft": probes.logits_of(s, b)}, None), "loss", "error")
    assert_names(pair.diagnose(lambda s, b: {}, None), "loss", "error")


def test_arguments_of_the_wrong_kind_are_refused(pair):
    def with_mask_of(shape):
        pair.batch["attention_mask"] = torch.ones(shape)
        return pair.diagnose()

    wrong = [
        ("student must be a model", lambda: diagnose("bert-base", pair.teacher, pair.batch)),
        ("teacher must be a model", lambda: diagnose(pair.student, "bert-base", pair.batch)),
        ("batch must be a dict", lambda: diagnose(pair.student, pair.teacher, [1, 2])),
        ("input_ids", lambda: diagnose(pair.student, pair.teacher, {"labels": torch.ones(2)})),
        ("whole numbers", lambda: diagnose(pair.student, pair.teacher, {"input_ids": torch.rand(2, 3)})),
        ("attention_mask", lambda: with_mask_of((2, 2))),
        ("terms must be a function", lambda: pair.diagnose(terms=3)),
        ("recipe must be", lambda: pair.diagnose(recipe="fast")),
        ("history must be", lambda: pair.diagnose(history=[1.0])),
    ]
    for message, call in wrong:
        mask = pair.batch["attention_mask"]
        with pytest.raises(ValueError, match=message):
            call()
        pair.batch["attention_mask"] = mask


# --- The report -------------------------------------------------------------------------------------------------------


def test_the_report_is_sorted_and_readable_in_three_forms(pair):
    pair.teacher.train()
    report = pair.diagnose()
    order = ["error", "warning", "note", "ok"]
    severities = [order.index(f.severity) for f in report.findings]
    assert severities == sorted(severities)
    data = json.loads(report.to_json())
    assert data["healthy"] is False
    assert set(data["findings"][0]) == {"severity", "name", "what", "value", "healthy", "threshold", "why", "fix",
                                        "chapter"}
    assert "ERROR   teacher mode" in str(report) and "teacher.eval()" in str(report)
    html = report._repr_html_()
    assert "<script" not in html and "background" not in html and "teacher mode" in html


def test_json_has_no_nan_and_html_is_escaped():
    from course_lib.doctor.report import Finding, Report

    report = Report.of([Finding("error", "x", "<b>", float("nan"), why="a & b", fix="if a < b: pass")])
    assert json.loads(report.to_json())["findings"][0]["value"] is None
    assert "<b>" not in report._repr_html_() and "a &lt; b" in report._repr_html_()


# --- The shell --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders as save_pretrained leaves them: a teacher, a healthy student, one with NaN, a classifier."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("models")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(55))])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]",
                                        mask_token="[MASK]", cls_token="[CLS]", sep_token="[SEP]")
    teacher = make_teacher(BertForMaskedLM)
    broken = new_student(teacher, layers=2)
    broken.bert.embeddings.LayerNorm.bias.data[0] = float("inf")
    for name, model in (("teacher", teacher), ("student", new_student(teacher, layers=2)), ("broken", broken),
                        ("classifier", make_teacher(BertForSequenceClassification))):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    teacher.save_pretrained(root / "bare")
    (root / "text.txt").write_text("w1 w2 w3 w4 w5\nw6 w7 w8\n\nw9 w10 w11 w12 w13 w14\n", "utf-8")
    return root


def shell(*arguments):
    return subprocess.run([sys.executable, "-m", "course_lib", "doctor", *map(str, arguments)], capture_output=True,
                          text=True, timeout=600, check=False)


@pytest.mark.slow
def test_the_shell_diagnoses_two_folders(saved):
    done = shell(saved / "student", saved / "teacher", "--text", saved / "text.txt", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["healthy"]


def test_the_shell_speaks_text_and_tells_an_error_by_its_exit_status(saved, capsys):
    assert main(["doctor", str(saved / "broken"), str(saved / "teacher")]) == 1
    assert "ERROR   weights" in capsys.readouterr().out
    assert main(["doctor", str(saved / "classifier"), str(saved / "teacher")]) == 1
    assert "kind of model" in capsys.readouterr().out


def test_the_shell_says_in_one_line_why_it_could_not_run(saved, capsys, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    wrong = [([saved / "nowhere", saved / "teacher"], "is no folder"),
             ([tmp_path, saved / "teacher"], "could not be loaded"),
             ([saved / "student", saved / "teacher", "--text", tmp_path / "empty.txt"], "no line with text"),
             ([saved / "student", saved / "teacher", "--text", tmp_path / "none.txt"], "none.txt")]
    for arguments, message in wrong:
        assert main(["doctor", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_folders_without_a_tokenizer_are_looked_at_too(saved, capsys):
    assert main(["doctor", str(saved / "bare"), str(saved / "bare")]) == 0
    assert "no tokenizer was given" in capsys.readouterr().out
