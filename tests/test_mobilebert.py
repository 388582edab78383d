"""MobileBERT: the networks equal transformers', the losses equal the original code, the phases do what they say."""

import copy

import pytest
import torch
import transformers
from loss_properties import assert_all, assert_minimum_at_teacher, ragged_mask
from oracle import oracle
from transformers import BertConfig, BertForMaskedLM, BertModel, MobileBertModel

from course_lib.methods import mobilebert, mobilebert_schedule
from course_lib.methods import mobilebert_model as models
from course_lib.shared import probes

STAGE = "mobilebert/tf2_layerwise/stage1"
SMALL = {"vocab_size": 60, "num_hidden_layers": 2, "hidden_size": 32, "intra_bottleneck_size": 16,
         "intermediate_size": 20, "embedding_size": 8, "max_position_embeddings": 16}
# transformers gives some of its LayerNorms the default epsilon, whatever the config says: the same one everywhere here
NORMED = {"layer_norm_eps": 1e-5}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def batch():
    ids = torch.randint(5, 60, (3, 7), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(7)[None] < torch.tensor([[7], [4], [2]])).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": (ids % 2) * mask}


# --- networks -------------------------------------------------------------------------------------------------------


def test_parameter_counts_are_exact():
    with torch.device("meta"):
        student = models.MobileBert(models.student_config())
        teacher = models.MobileBert(models.teacher_config())
    assert sum(p.numel() for p in student.parameters()) == 24_844_544
    assert 293e6 < sum(p.numel() for p in teacher.parameters()) < 295e6  # the paper says 293M


SHAPES = {
    "the student": models.student_config(**SMALL),
    "an inverted bottleneck that is shared": models.teacher_config(
        **SMALL | NORMED | {"intra_bottleneck_size": 64, "key_query_shared_bottleneck": True}),
    "the teacher's wiring, at equal widths": models.teacher_config(**SMALL | NORMED | {"intra_bottleneck_size": 32}),
    "everything through the bottleneck": models.student_config(**SMALL, use_bottleneck_attention=True),
    "no bottleneck": models.teacher_config(**SMALL | NORMED, use_bottleneck=False),
}
HEADS = {
    "MobileBertModel": models.MobileBert,
    "MobileBertForMaskedLM": models.MobileBertForMaskedLM,
    "MobileBertForPreTraining": lambda config: models.MobileBertForMaskedLM(config, next_sentence=True),
    "MobileBertForSequenceClassification": models.MobileBertForSequenceClassification,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("head", HEADS)
def test_equals_transformers_with_the_same_weights(shape, head, batch):
    torch.manual_seed(0)
    theirs = getattr(transformers, head)(SHAPES[shape]).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = HEADS[head](SHAPES[shape]).double().eval()
    ours.load_state_dict(theirs.state_dict())
    expected, found = theirs(**batch, output_hidden_states=True), ours(**batch)
    for layer, state in enumerate(expected.hidden_states):
        torch.testing.assert_close(found.hidden_states[layer], state, rtol=0, atol=1e-6)
    if found.logits is not None:
        logits = expected.logits if "logits" in expected else expected.prediction_logits
        torch.testing.assert_close(found.logits, logits, rtol=0, atol=1e-6)
    if found.next_sentence_logits is not None:
        torch.testing.assert_close(found.next_sentence_logits, expected.seq_relationship_logits, rtol=0, atol=1e-6)


def test_without_a_bottleneck_a_block_is_a_bert_block():
    config = models.teacher_config(**SMALL | {"intermediate_size": 48}, use_bottleneck=False)
    shape = BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    bert = transformers.BertModel(shape).double().eval()
    block = models.Block(config).double().eval()
    block.load_state_dict(bert.encoder.layer[0].state_dict())
    body, mask = normal(3, 7, 32), ragged_mask(3, 7)
    expected = bert.encoder.layer[0](body, torch.where(mask.bool(), 0.0, -1e9)[:, None, None, :].double())
    torch.testing.assert_close(block(body, mask), expected, rtol=0, atol=1e-6)


def test_transformers_cannot_run_the_teacher_and_we_can(batch):
    config = models.teacher_config(**SMALL | {"intra_bottleneck_size": 64})
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        MobileBertModel(config)(**batch)
    teacher = models.MobileBert(config)
    assert teacher(**batch).last_hidden_state.shape == (3, 7, 32)
    attention = teacher.encoder.layer[0].attention.self
    assert (attention.query.in_features, attention.query.out_features) == (32, 64)


def test_padding_changes_no_real_token(batch):
    model = models.MobileBert(models.student_config(**SMALL)).eval()
    longer = {name: torch.nn.functional.pad(tensor, (0, 4)) for name, tensor in batch.items()}
    kept = batch["attention_mask"].bool()
    torch.testing.assert_close(model(**longer).last_hidden_state[:, :7][kept], model(**batch).last_hidden_state[kept])
    assert not model.embeddings.word_embeddings.weight[0].any()


def test_masked_lm_decoder_is_tied_also_after_a_deep_copy():
    model = copy.deepcopy(models.MobileBertForMaskedLM(models.student_config(**SMALL)))
    assert model.cls.predictions.decoder.weight is model.mobilebert.embeddings.word_embeddings.weight
    assert not model.mobilebert.embeddings.word_embeddings.weight[0].any()


def test_losses_of_the_heads(batch):
    masked = models.MobileBertForMaskedLM(models.student_config(**SMALL)).eval()
    labels = torch.full((3, 7), -100)
    labels[0, 2] = 9
    expected = -masked(**batch).logits[0, 2].log_softmax(-1)[9]
    torch.testing.assert_close(masked(**batch, labels=labels).loss, expected)
    classifier = models.MobileBertForSequenceClassification(models.student_config(**SMALL, num_labels=3)).eval()
    assert classifier(**batch, labels=torch.tensor([0, 1, 2])).loss.isfinite()


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match=r"4 heads do not divide.*18"):
        models.MobileBert(models.student_config(**SMALL | {"intra_bottleneck_size": 18}))
    with pytest.raises(ValueError, match=r"embedding_size 64.*hidden_size 32"):
        models.MobileBert(models.student_config(**SMALL | {"embedding_size": 64}))
    with pytest.raises(ValueError, match="hidden_act"):
        models.MobileBert(models.student_config(**SMALL, hidden_act="silu"))


def test_probes_read_our_networks(batch):
    model = models.MobileBertForMaskedLM(models.student_config(**SMALL)).eval()
    reading = probes.read(model, batch)
    found = model(**batch)
    for layer in range(3):
        assert torch.equal(reading.hidden_states[layer], found.hidden_states[layer])
    assert torch.equal(reading.logits, found.logits)
    assert reading.attention_scores[2].shape == (3, 4, 7, 7)


# --- losses against the original code -------------------------------------------------------------------------------


def test_layer_transfer_equals_the_tf2_code():
    truth = oracle(STAGE)
    given, weights = truth.inputs, truth.params
    args = (given["student"], given["teacher"], given["student_attention"], given["teacher_attention"])
    knobs = {"divide_by": weights["stage"] + 1, "feature_map_weight": weights["hidden"], "mean_weight": weights["beta"],
             "variance_weight": weights["gamma"], "attention_weight": weights["attention"], "as_in": "code"}
    truth.check("total_mean", sum(mobilebert.layer_transfer(*args, **knobs).values()))
    total = sum(mobilebert.layer_transfer(*args, **knobs, over_tokens="sum").values())
    truth.check("total_sum_as_differentiated", total)
    single = mobilebert.layer_transfer(*args, **knobs | {"divide_by": 1})
    for ours, theirs in (("feature_map", "feature_transfer_mean"), ("mean", "beta_loss"), ("variance", "gamma_loss"),
                         ("attention", "attention_loss")):
        truth.check(theirs, single[ours])
    per_token = mobilebert.feature_map_mse(given["student"], given["teacher"], as_in="code", over_tokens="none")
    truth.check("feature_transfer_per_token", weights["hidden"] * per_token)


def test_masked_lm_mixture_equals_the_tf1_code():
    truth = oracle("mobilebert/pretrain_mlm_mixture")
    given = truth.inputs
    loss = mobilebert.masked_lm_mixture(given["logits"], given["teacher_logits"], given["label_ids"],
                                        given["label_weights"], as_in="code",
                                        hard_weight=truth.params["distill_ground_truth_ratio"],
                                        temperature=truth.params["temperature"])
    truth.check("loss", loss)


def test_the_rates_of_the_blocks_equal_the_tf1_code():
    truth = oracle("mobilebert/lr_schedule")
    layers, per_phase = truth.params["layers"], truth.params["steps_per_phase"]
    student = BertModel(BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=layers, num_attention_heads=1,
                                   intermediate_size=4))
    seen = set()
    for row in truth.outputs["per_step"]:
        phase = -(-row["step"] // per_phase)  # steps 1..P belong to the first phase
        if row["step"] == 0 or phase > layers or not row["background"]:
            continue
        groups = mobilebert_schedule.parameter_groups(student, mobilebert.Phase((phase,), False, 1), row["background"])
        found = [group["lr"] for group in groups if group["layer"]]
        assert found == pytest.approx(row["multiplier"], rel=truth.rtol, abs=truth.atol)
        assert row["gate"] == [float(layer == phase) for layer in range(1, layers + 1)]
        seen.add(phase)
    assert seen == set(range(1, layers + 1))


# --- properties -----------------------------------------------------------------------------------------------------


FEATURE_LOSSES = {
    "feature map": mobilebert.feature_map_mse,
    "raw feature map": lambda s, t, m: mobilebert.feature_map_mse(s, t, m, normalise=False),
    "mean": mobilebert.mean_difference,
}


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_feature_losses_are_well_behaved(name):
    assert_all(FEATURE_LOSSES[name], normal(3, 4, 5), normal(3, 4, 5, seed=1), ragged_mask(3, 4), token_dims=(1,))


def test_variance_difference_is_well_behaved():
    assert_all(mobilebert.variance_difference, normal(3, 4, 5), normal(3, 4, 5, seed=1), ragged_mask(3, 4),
               token_dims=(1,))


def test_attention_transfer_is_well_behaved_and_the_code_adds_the_entropy():
    student, teacher, mask = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1), ragged_mask(3, 4)
    assert_all(mobilebert.attention_transfer, student, teacher, mask, token_dims=(2, 3))

    def code(s, t, m=None):
        return mobilebert.attention_transfer(s, t, m, as_in="code")

    entropy = code(teacher, teacher, mask)
    assert entropy > 0.1
    assert_minimum_at_teacher(code, teacher, mask, at_teacher=entropy)
    torch.testing.assert_close(code(student, teacher, mask) - mobilebert.attention_transfer(student, teacher, mask),
                               entropy)


def test_layer_transfer_ignores_padding_and_sums_over_kept_tokens():
    args = (normal(3, 4, 5), normal(3, 4, 5, seed=1), normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1))
    mask = ragged_mask(3, 4)
    mean = mobilebert.layer_transfer(*args, mask)
    summed = mobilebert.layer_transfer(*args, mask, over_tokens="sum", divide_by=3)
    for name, loss in mean.items():
        torch.testing.assert_close(summed[name], loss * int(mask.sum()) / 3)
    assert set(mobilebert.layer_transfer(*args, mean_weight=0, attention_weight=0)) == {"feature_map", "variance"}


def test_the_tf1_list_bug_pulls_towards_every_layer():
    student, layers = normal(2, 3, 5), [normal(2, 3, 5, seed=seed) for seed in range(1, 5)]
    stacked = torch.stack(layers)
    teacher_mean = stacked.mean(-1, keepdim=True)  # the list of layers, where one was meant
    expected = (teacher_mean - student.mean(-1, keepdim=True)).square().mean()
    found = mobilebert.over_all_teacher_layers(mobilebert.mean_difference, student, layers)
    torch.testing.assert_close(found, expected)
    assert abs(found - mobilebert.mean_difference(student, layers[1])) > 1e-3
    teacher_variance = (stacked - teacher_mean).square().mean(-1, keepdim=True)
    variance = (student - student.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)
    torch.testing.assert_close(mobilebert.over_all_teacher_layers(mobilebert.variance_difference, student, layers),
                               (teacher_variance - variance).abs().mean())


def test_masked_lm_mixture_is_well_behaved():
    labels = torch.tensor([[1, -100, 3], [-100, 0, -100]])
    student, teacher = normal(2, 3, 6), normal(2, 3, 6, seed=1)

    def soft(s, t):
        return mobilebert.masked_lm_mixture(s, t, labels, hard_weight=0.0)

    log_probs = teacher[labels >= 0].log_softmax(-1)
    assert_all(soft, student, teacher, at_teacher=-(log_probs.exp() * log_probs).sum(-1).mean())
    hard = mobilebert.masked_lm_mixture(student, teacher, labels, hard_weight=1.0)
    torch.testing.assert_close(hard, torch.nn.functional.cross_entropy(student.flatten(0, 1), labels.flatten()))
    half = mobilebert.masked_lm_mixture(student, teacher, labels)
    torch.testing.assert_close(half, (hard + soft(student, teacher)) / 2)
    for temperature in (0.05, 100.0):
        assert mobilebert.masked_lm_mixture(1e4 * student, 1e4 * teacher, labels, temperature=temperature).isfinite()


def test_bad_arguments_are_refused_with_the_two_sides():
    with pytest.raises(ValueError, match=r"\(2, 3, 8\).*\(2, 3, 6\).*body width"):
        mobilebert.feature_map_mse(normal(2, 3, 8), normal(2, 3, 6))
    with pytest.raises(ValueError, match="num_attention_heads"):
        mobilebert.attention_transfer(normal(2, 3, 4, 4), normal(2, 6, 4, 4))
    with pytest.raises(ValueError, match="as_in"):
        mobilebert.feature_map_mse(normal(2, 3, 8), normal(2, 3, 8), as_in="tf1")
    labels = torch.tensor([0, -100])
    with pytest.raises(ValueError, match="same vocabulary"):
        mobilebert.masked_lm_mixture(normal(2, 5), normal(2, 6), labels)
    with pytest.raises(ValueError, match="-100"):
        mobilebert.masked_lm_mixture(normal(2, 5), normal(2, 5), labels, torch.ones(2))
    with pytest.raises(ValueError, match="keeps no position"):
        mobilebert.masked_lm_mixture(normal(2, 5), normal(2, 5), torch.tensor([-100, -100]))
    with pytest.raises(ValueError, match="hard_weight"):
        mobilebert.masked_lm_mixture(normal(2, 5), normal(2, 5), labels, hard_weight=2.0)


# --- strategies -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    torch.manual_seed(0)
    teacher = BertForMaskedLM(BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                         intermediate_size=48, max_position_embeddings=16)).eval()
    config = models.student_config_for(teacher.config, embedding_size=8, num_feedforward_networks=2)
    return models.MobileBertForMaskedLM(config), teacher


@pytest.fixture
def masked_batch(batch):
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
    labels[:, 1::2] = -100
    return {**batch, "labels": labels}


def test_the_three_strategies_have_the_phases_of_the_paper():
    def listed(strategy):
        recipe = mobilebert.MobileBertRecipe(strategy=strategy, steps_per_layer=10, pretraining_steps=50)
        return [(phase.layers, phase.pretraining, phase.steps) for phase in mobilebert.phases(recipe, 3)]

    assert listed("auxiliary") == [((1, 2, 3), True, 80)]
    assert listed("joint") == [((1, 2, 3), False, 30), ((), True, 50)]
    assert listed("progressive") == [((1,), False, 10), ((2,), False, 10), ((3,), False, 10), ((), True, 50)]
    with pytest.raises(ValueError, match="strategy"):
        listed("all at once")


def test_terms_follow_the_phase(pair, masked_batch):
    student, teacher = pair
    recipe = mobilebert.MobileBertRecipe()
    first, *_, last = mobilebert.phases(recipe, 2)
    transfer = {"feature_map", "mean", "variance", "attention"}
    assert set(mobilebert.terms(student, teacher, masked_batch, recipe, first)) == transfer
    assert set(mobilebert.terms(student, teacher, masked_batch, recipe, last)) == {"masked_lm"}
    assert set(mobilebert.terms(student, teacher, masked_batch)) == transfer | {"masked_lm"}


def test_terms_add_the_layers_and_divide_by_their_number(pair, masked_batch):
    student, teacher = pair
    student.eval()
    mine, theirs = probes.read(student, masked_batch), probes.read(teacher, masked_batch)

    def block(layer, **knobs):
        return mobilebert.layer_transfer(
            mine.hidden_states[layer], theirs.hidden_states[layer], mine.attention_scores[layer],
            theirs.attention_scores[layer], masked_batch["attention_mask"], **knobs)

    joint = mobilebert.terms(student, teacher, masked_batch, phase=mobilebert.Phase((1, 2), False, 1))
    for name, loss in joint.items():
        torch.testing.assert_close(loss, (block(1)[name] + block(2)[name]) / 2)
    # TF2: stage 0 (block 1) is divided by 1, stage 1 by 2
    recipe = mobilebert.MobileBertRecipe(as_in="code")
    stage = mobilebert.terms(student, teacher, masked_batch, recipe, mobilebert.phases(recipe, 2)[0])
    torch.testing.assert_close(stage["attention"], block(1, as_in="code", divide_by=1)["attention"])


def test_a_progressive_phase_sends_no_gradient_above_its_block(pair, masked_batch):
    student, teacher = pair
    sum(mobilebert.terms(student, teacher, masked_batch, phase=mobilebert.Phase((1,), False, 1)).values()).backward()
    first, second = student.mobilebert.encoder.layer
    assert first.attention.self.query.weight.grad.abs().sum() > 0
    assert second.attention.self.query.weight.grad is None
    assert all(p.grad is None for p in teacher.parameters())


def test_a_classifier_learns_by_the_same_mixture(batch):
    torch.manual_seed(0)
    classifier = models.MobileBertForSequenceClassification(models.student_config(**SMALL)).eval()
    found = mobilebert.terms(classifier, classifier, {**batch, "labels": torch.tensor([0, 1, 1])},
                             phase=mobilebert.Phase((), True, 1))
    assert set(found) == {"prediction"}


def test_next_sentence_prediction_joins_when_the_batch_has_it(pair, masked_batch):
    _, teacher = pair
    student = models.MobileBertForMaskedLM(models.student_config_for(teacher.config, embedding_size=8), True).eval()
    more = {**masked_batch, "next_sentence_label": torch.tensor([0, 1, 0])}
    found = mobilebert.terms(student, teacher, more)
    expected = torch.nn.functional.cross_entropy(student(**{k: more[k] for k in (
        "input_ids", "attention_mask", "token_type_ids")}).next_sentence_logits, more["next_sentence_label"])
    torch.testing.assert_close(found["next_sentence"], expected)


def test_unequal_depths_need_a_layer_map(pair, masked_batch):
    student, teacher = pair
    shallow = models.MobileBertForMaskedLM(
        models.student_config_for(teacher.config, num_hidden_layers=1, embedding_size=8))
    with pytest.raises(ValueError, match=r"1 blocks.*2.*layer_map"):
        mobilebert.terms(shallow, teacher, masked_batch)
    mapped = mobilebert.terms(shallow, teacher, masked_batch, mobilebert.MobileBertRecipe(layer_map=((1, 2),)))
    assert "feature_map" in mapped
    with pytest.raises(ValueError, match=r"\(1, 5\)"):
        mobilebert.terms(shallow, teacher, masked_batch, mobilebert.MobileBertRecipe(layer_map=((1, 5),)))
    with pytest.raises(ValueError, match="labels"):
        mobilebert.terms(student, teacher, {k: v for k, v in masked_batch.items() if k != "labels"})


def test_groups_of_a_phase_move_the_current_block_fast_and_those_below_slowly(pair):
    student, _ = pair
    rates = {group["layer"]: group["lr"] for group in mobilebert_schedule.parameter_groups(
        student, mobilebert.Phase((2,), False, 1), 1.0)}
    assert rates == {1: 0.3, 2: 3.0, None: 0.0}
    first = mobilebert_schedule.parameter_groups(student, mobilebert.Phase((1,), False, 1), 1.0)
    assert [group["lr"] for group in first] == [3.0, 0.0, 0.0]
    everything = mobilebert_schedule.parameter_groups(student, mobilebert.Phase((), True, 1), 0.5)
    assert [group["lr"] for group in everything] == [0.5, 0.5, 0.5]
    grouped = [id(p) for group in everything for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in student.parameters())


def test_progressive_training_brings_the_blocks_to_the_teacher(pair, masked_batch):
    student, teacher = pair
    recipe = mobilebert.MobileBertRecipe(steps_per_layer=40, pretraining_steps=40)
    for phase in mobilebert.phases(recipe, 2):
        optimizer = torch.optim.AdamW(mobilebert_schedule.parameter_groups(student, phase, 1e-3), weight_decay=0.0)
        losses = []
        for _ in range(phase.steps):
            loss = sum(mobilebert.terms(student, teacher, masked_batch, recipe, phase).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0], phase


# --- copying --------------------------------------------------------------------------------------------------------


def test_everything_outside_the_blocks_is_copied_from_an_ib_bert():
    torch.manual_seed(0)
    teacher = models.MobileBertForMaskedLM(models.teacher_config(**SMALL | {"intra_bottleneck_size": 64}))
    student = models.MobileBertForMaskedLM(models.student_config(**SMALL))
    block = student.mobilebert.encoder.layer[0].output.dense.weight.clone()
    copied = mobilebert.copy_outside_blocks(student, teacher)
    assert "mobilebert.embeddings.embedding_transformation.weight" in copied
    assert torch.equal(student.cls.predictions.transform.dense.weight, teacher.cls.predictions.transform.dense.weight)
    assert torch.equal(student.mobilebert.encoder.layer[0].output.dense.weight, block)
    words = student.mobilebert.embeddings.word_embeddings.weight
    before = teacher.mobilebert.embeddings.word_embeddings.weight.clone()
    assert torch.equal(words, before)
    with torch.no_grad():
        words.add_(1.0)
    assert torch.equal(teacher.mobilebert.embeddings.word_embeddings.weight, before)  # a true copy


def test_embeddings_of_a_bert_are_copied_or_refused_by_width(pair):
    student, teacher = pair
    with pytest.raises(ValueError, match=r"\(60, 8\).*\(60, 32\).*embedding_size=32"):
        mobilebert.copy_outside_blocks(student, teacher)
    fitting = models.MobileBertForMaskedLM(
        models.student_config_for(teacher.config, embedding_size=32, trigram_input=False))
    copied = mobilebert.copy_outside_blocks(fitting, teacher)
    assert torch.equal(fitting.mobilebert.embeddings.word_embeddings.weight,
                       teacher.bert.embeddings.word_embeddings.weight)
    assert "cls.predictions.transform.dense.weight" in copied


def test_a_student_fits_the_course_teacher():
    teacher = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12)
    config = models.student_config_for(teacher)
    assert (config.hidden_size, config.num_hidden_layers, config.intra_bottleneck_size) == (384, 6, 96)
    with torch.device("meta"):
        models.MobileBertForMaskedLM(config)


def test_a_teacher_in_train_mode_is_refused(pair, masked_batch):
    student, teacher = pair
    with pytest.raises(ValueError, match="train mode"):
        mobilebert.terms(student, teacher.train(), masked_batch)
    teacher.eval()
