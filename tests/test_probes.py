"""Reading a model: equal to an independent recomputation, and without a trace left in the model."""

import copy

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraModel,
    GPT2Config,
    GPT2Model,
    MobileBertConfig,
    MobileBertForMaskedLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    RoFormerConfig,
    RoFormerModel,
)

from course_lib.shared import probes

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 24, "max_position_embeddings": 20}
MODELS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SMALL)),
    "bert without head": lambda: BertModel(BertConfig(**SMALL), add_pooling_layer=False),
    "bert masked lm": lambda: BertForMaskedLM(BertConfig(**SMALL)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SMALL)),
    "electra": lambda: ElectraModel(ElectraConfig(**SMALL, embedding_size=8)),
    "albert, one shared block": lambda: AlbertModel(AlbertConfig(**SMALL, embedding_size=8)),
    "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(
        vocab_size=50, dim=16, n_layers=3, n_heads=4, hidden_dim=24, max_position_embeddings=20)),
    "mobilebert": lambda: MobileBertForMaskedLM(MobileBertConfig(
        **SMALL, embedding_size=8, intra_bottleneck_size=8, num_feedforward_networks=2)),
}


def build(name):
    torch.manual_seed(0)
    return MODELS[name]().double().eval()


@pytest.fixture
def batch():
    ids = torch.randint(5, 50, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(7)[None] < torch.tensor([[7], [4], [2]])).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def hooks_of(model):
    return {path: (list(m._forward_hooks), list(m._forward_pre_hooks)) for path, m in model.named_modules()}


@pytest.mark.parametrize("name", MODELS)
def test_equals_what_transformers_returns_when_asked(name, batch):
    model = build(name)
    reading = probes.read(model, batch)
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    asked = twin(**batch, output_hidden_states=True, output_attentions=True)
    assert list(reading.hidden_states) == [0, 1, 2, 3]
    for layer, expected in enumerate(asked.hidden_states):
        torch.testing.assert_close(reading.hidden_states[layer], expected, rtol=0, atol=1e-6)
    assert list(reading.attention_probs) == list(reading.values) == [1, 2, 3]
    for layer, expected in enumerate(asked.attentions, start=1):
        torch.testing.assert_close(reading.attention_probs[layer], expected, rtol=0, atol=1e-6)
    if "logits" in asked:
        torch.testing.assert_close(reading.logits, asked.logits, rtol=0, atol=1e-6)
    else:
        assert reading.logits is None


def test_scores_and_values_equal_a_recomputation_from_the_weights(batch):
    model = build("bert")
    reading = probes.read(model, batch)
    for layer, block in enumerate(model.bert.encoder.layer, start=1):
        inputs = reading.hidden_states[layer - 1]
        attention = block.attention.self
        q, k, v = (torch.einsum("bti,oi->bto", inputs, linear.weight) + linear.bias
                   for linear in (attention.query, attention.key, attention.value))
        for head in range(4):
            cut = slice(4 * head, 4 * head + 4)
            scores = torch.einsum("bqd,bkd->bqk", q[..., cut], k[..., cut]) / 2.0  # sqrt(d_head = 4)
            torch.testing.assert_close(reading.attention_scores[layer][:, head], scores, rtol=0, atol=1e-6)
            torch.testing.assert_close(reading.values[layer][:, head], v[..., cut], rtol=0, atol=1e-6)
            torch.testing.assert_close(reading.queries[layer][:, head], q[..., cut], rtol=0, atol=1e-6)
            torch.testing.assert_close(reading.keys[layer][:, head], k[..., cut], rtol=0, atol=1e-6)


def test_padded_keys_get_no_attention_and_no_mask_is_added_to_the_scores(batch):
    reading = probes.read(build("bert"), batch)
    padded = batch["attention_mask"] == 0
    probs = reading.attention_probs[2].permute(0, 3, 1, 2)  # keys next to the batch
    assert not probs[padded].any()
    torch.testing.assert_close(reading.attention_probs[2].sum(-1), torch.ones(3, 4, 7).double())
    assert reading.attention_scores[2].abs().max() < 100


def test_more_padding_changes_no_real_position(batch):
    model = build("roberta")
    short = probes.read(model, batch)
    pad = {"input_ids": 1, "attention_mask": 0}
    longer = {key: torch.nn.functional.pad(value, (0, 5), value=pad[key]) for key, value in batch.items()}
    long = probes.read(model, longer)
    kept = batch["attention_mask"].bool()
    torch.testing.assert_close(long.hidden_states[3][:, :7][kept], short.hidden_states[3][kept])


def test_a_batch_without_mask_counts_every_token(batch):
    reading = probes.read(build("distilbert"), {"input_ids": batch["input_ids"]})
    assert reading.attention_mask.tolist() == [[1] * 7] * 3


def test_labels_and_other_columns_stay_outside(batch):
    model = build("distilbert")
    more = {**batch, "labels": torch.zeros(3).long(), "teacher_logits": torch.zeros(3, 2),
            "token_type_ids": torch.ones_like(batch["input_ids"])}
    given = []
    model.register_forward_pre_hook(lambda _model, _args, kwargs: given.extend(kwargs), with_kwargs=True)
    logits = probes.read(model, more).logits
    assert set(given) == {"input_ids", "attention_mask", "return_dict"}  # DistilBERT has no token types
    torch.testing.assert_close(logits, model(**batch).logits)


def test_gradients_reach_the_student_and_stop_at_a_teacher_under_no_grad(batch):
    model = build("bert").train()
    reading = probes.read(model, batch)
    with torch.no_grad():
        reading.attention_probs  # noqa: B018  a look in between must not cut the gradient
    (reading.attention_scores[3].square().mean() + reading.hidden_states[1].square().mean()).backward()
    assert model.bert.encoder.layer[2].attention.self.query.weight.grad.abs().sum() > 0
    assert model.bert.embeddings.word_embeddings.weight.grad.abs().sum() > 0
    with torch.no_grad():
        silent = probes.read(model, batch)
    assert not silent.attention_scores[1].requires_grad
    assert not silent.hidden_states[3].requires_grad


def test_the_mode_is_left_alone_and_one_forward_is_enough(batch):
    model = build("bert").train()
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(5)
    first = probes.read(model, batch)
    assert model.training
    assert len(calls) == 1
    handle.remove()
    torch.manual_seed(5)
    torch.testing.assert_close(model(**batch).logits, first.logits)  # the same dropout as a plain forward


@pytest.mark.parametrize("name", MODELS)
def test_no_hook_stays_behind(name, batch):
    model = build(name)
    before = hooks_of(model)
    probes.read(model, batch)
    assert hooks_of(model) == before


def test_no_hook_stays_behind_after_a_failed_forward(batch):
    model = build("bert")
    before = hooks_of(model)
    with pytest.raises(IndexError):
        probes.read(model, {**batch, "input_ids": batch["input_ids"] + 1000})
    assert hooks_of(model) == before


def test_half_precision_and_autocast_give_float32_scores(batch):
    model = build("bert").float()
    exact = probes.read(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reading = probes.read(model, batch)
        scores = reading.attention_scores[2]
    assert reading.queries[2].dtype == torch.bfloat16
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact.attention_scores[2], rtol=0.05, atol=0.02)
    low = probes.read(build("bert").bfloat16(), batch)
    assert low.attention_probs[1].dtype == torch.float32


def test_a_sentence_of_padding_only_gives_a_uniform_row():
    probs = probes.softmax_over_kept(torch.randn(1, 2, 3, 3), torch.zeros(1, 3))
    torch.testing.assert_close(probs, torch.full((1, 2, 3, 3), 1 / 3))


def test_two_pretraining_heads_give_the_masked_lm_logits(batch):
    reading = probes.read(BertForPreTraining(BertConfig(**SMALL)), batch)
    assert reading.logits.shape == (3, 7, 50)


def test_heads_are_split_and_merged_without_loss():
    x = torch.arange(24.0).reshape(1, 2, 12)
    split = probes.split_heads(x, 3)
    assert split.shape == (1, 3, 2, 4)
    assert split[0, 1, 0].tolist() == [4.0, 5.0, 6.0, 7.0]
    assert torch.equal(probes.merge_heads(split), x)
    with pytest.raises(ValueError, match="width 12 cannot be split into 5"):
        probes.split_heads(x, 5)


def test_models_that_cannot_be_read_are_refused_by_name(batch):
    with pytest.raises(ValueError, match=r"GPT2Model.*query/key/value or q_lin/k_lin/v_lin"):
        probes.read(GPT2Model(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=50)), batch)
    roformer = RoFormerModel(RoFormerConfig(**SMALL, embedding_size=16))
    with pytest.raises(ValueError, match="RoFormerSelfAttention"):  # rotates queries and keys: Q K^T is not its score
        probes.read(roformer, batch)
    with pytest.raises(ValueError, match="causal"):
        probes.read(BertModel(BertConfig(**SMALL, is_decoder=True)), batch)
    with pytest.raises(ValueError, match="Linear cannot be read"):
        probes.read(torch.nn.Linear(2, 2), batch)


class Plain(torch.nn.Linear):
    """A model whose output is the logits."""

    def forward(self, input_ids):
        return super().forward(input_ids)


class Wrapper(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.got = None

    def forward(self, input_ids, **more):
        self.got = {"input_ids": input_ids} | more
        return input_ids.float()


def test_a_model_is_run_on_its_text_alone_and_a_wrapper_never_loses_the_mask():
    batch = {"input_ids": torch.ones(1, 2), "attention_mask": torch.ones(1, 2), "labels": torch.ones(1)}
    plain, wrapper = Plain(2, 3), Wrapper()
    assert probes.text_of(plain, batch).keys() == {"input_ids"}
    assert torch.equal(probes.logits_of(plain, batch), plain(batch["input_ids"]))
    assert torch.equal(probes.logits_of(wrapper, batch), batch["input_ids"])
    assert wrapper.got.keys() == {"input_ids", "attention_mask"}


def test_a_model_without_a_head_is_named():
    class Headless(torch.nn.Module):
        def forward(self, input_ids):
            return {"last_hidden_state": input_ids}

    with pytest.raises(ValueError, match="Headless returned no logits"):
        probes.logits_of(Headless(), {"input_ids": torch.ones(1, 2)})
