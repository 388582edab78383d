"""The two networks of MobileBERT: Sun et al. 2020 (arXiv 2004.02984), section 3 and table 1.

A MobileBERT block is a BERT block inside a pair of linear layers. The body between the blocks is 512 wide on both
sides, so that feature maps can be compared without projections; inside, the student is thin and the teacher is fat:

                         body 512 --> bottleneck --> attention --> FFN x n --> bottleneck --> body 512

    student  MobileBERT   512 -> 128 -> 512     4 stacked FFNs, NoNorm, ReLU, key and query share a bottleneck
    teacher  IB-BERT      512 -> 1024 -> 512    1 FFN, LayerNorm, GELU, attention reads the body ("inverted bottleneck")

One set of classes builds both; the differences are values in a `MobileBertConfig` of transformers. `transformers`
itself cannot run the teacher: its query layer expects the bottleneck's width, but without a shared bottleneck it is
given the body. Here every projection has the width of what it reads. Parameter names are those of transformers, so
that published MobileBERT weights load with `load_state_dict`; the tests show equal outputs on all common shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import MobileBertConfig, PretrainedConfig

Body = Float[Tensor, "batch tokens body"]  # between the blocks, 512
Inner = Float[Tensor, "batch tokens inner"]  # inside a block, 128 or 1024


def student_config(**changes) -> MobileBertConfig:
    """MobileBERT, 24 blocks: 24,844,544 parameters with its pooler (the paper says 25.3M)."""
    return MobileBertConfig(**changes)


def teacher_config(**changes) -> MobileBertConfig:
    """IB-BERT-large, the teacher whose weights were never published. Source: uncased_L-24_H-1024_B-512_A-4.json."""
    inverted = {"intra_bottleneck_size": 1024, "intermediate_size": 4096, "num_feedforward_networks": 1,
                "key_query_shared_bottleneck": False, "normalization_type": "layer_norm", "hidden_act": "gelu",
                "hidden_dropout_prob": 0.1}
    return MobileBertConfig(**inverted | changes)


def student_config_for(teacher: PretrainedConfig, **changes) -> MobileBertConfig:
    """A MobileBERT that can learn block by block from a plain BERT: the body, heads, depth and vocabulary of `teacher`.

    The bottleneck defaults to a quarter of the body (as 512 -> 128), rounded up to a multiple of the head count.
    For MiniLM-L6 (6 x 384, 12 heads) that is a bottleneck of 96 with heads of width 8.
    """
    heads = teacher.num_attention_heads
    bottleneck = -(-teacher.hidden_size // (4 * heads)) * heads
    fitting = {"vocab_size": teacher.vocab_size, "hidden_size": teacher.hidden_size, "num_attention_heads": heads,
               "num_hidden_layers": teacher.num_hidden_layers, "intra_bottleneck_size": bottleneck,
               "intermediate_size": 4 * bottleneck, "type_vocab_size": teacher.type_vocab_size,
               "max_position_embeddings": teacher.max_position_embeddings, "pad_token_id": teacher.pad_token_id}
    return MobileBertConfig(**fitting | changes)


def initialise(module: nn.Module, config: MobileBertConfig) -> nn.Module:
    """Normal weights with the config's width, zero biases, a zero row for [PAD]."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=config.initializer_range)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
    return module


class NoNorm(nn.Module):
    """gamma * h + beta: what LayerNorm leaves when mean and variance cost too much time on a phone (section 3.4)."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor) -> Tensor:
        return self.weight * h + self.bias


def norm(config: MobileBertConfig, width: int) -> nn.Module:
    if config.normalization_type == "no_norm":
        return NoNorm(width)
    return nn.LayerNorm(width, eps=config.layer_norm_eps)


def activation(config: MobileBertConfig) -> nn.Module:
    if config.hidden_act not in ("relu", "gelu"):
        raise ValueError(f"hidden_act must be 'relu' (student) or 'gelu' (teacher), not {config.hidden_act!r}.")
    return nn.ReLU() if config.hidden_act == "relu" else nn.GELU()


class Embeddings(nn.Module):
    """Words at width 128; three neighbours side by side, then one linear layer to the body: a convolution of size 3."""

    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.trigram = config.trigram_input
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        width = config.embedding_size * (3 if self.trigram else 1)
        self.embedding_transformation = nn.Linear(width, config.hidden_size)
        self.LayerNorm = norm(config, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        # transformers builds the linear layer in any case and skips it here; so do we, for equal parameter names
        self.skip_transformation = not self.trigram and config.embedding_size == config.hidden_size

    def forward(self, input_ids: Int[Tensor, "batch tokens"], token_type_ids: Int[Tensor, "batch tokens"]) -> Body:
        words = self.word_embeddings(input_ids)  # (B, T, 128)
        if self.trigram:
            # The order is next, this, previous. Trap: the last real token sees its right neighbour [PAD]. That row of
            # the table is zero here, like the zeros beyond the sentence; a table copied from a teacher changes it.
            following = F.pad(words[:, 1:], (0, 0, 0, 1))
            previous = F.pad(words[:, :-1], (0, 0, 1, 0))
            words = torch.cat([following, words, previous], dim=-1)  # (B, T, 384)
        h = words if self.skip_transformation else self.embedding_transformation(words)  # (B, T, 384) x (384, 512)
        positions = self.position_embeddings.weight[: input_ids.shape[1]]  # (T, 512)
        h = h + positions + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(h))


class LinearNorm(nn.Module):
    """Linear, then normalise; with a residual added in between where the caller has one."""

    def __init__(self, config: MobileBertConfig, width_in: int, width_out: int, dropout: float = 0.0):
        super().__init__()
        self.dense = nn.Linear(width_in, width_out)
        self.LayerNorm = norm(config, width_out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, residual: Tensor | float = 0.0) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(h)) + residual)


class Bottleneck(nn.Module):
    """Decides what the attention reads: (query and key, value, residual)."""

    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.everything = config.use_bottleneck_attention
        self.shared = config.key_query_shared_bottleneck
        self.input = LinearNorm(config, config.hidden_size, config.true_hidden_size)
        if self.shared:
            self.attention = LinearNorm(config, config.hidden_size, config.true_hidden_size)

    def forward(self, body: Body) -> tuple[Tensor, Tensor, Inner]:
        residual = self.input(body)  # (B, T, 512) -> (B, T, inner)
        if self.everything:
            return residual, residual, residual
        # Queries and keys share one bottleneck, values read the body; the teacher reads the body for all three.
        query_and_key = self.attention(body) if self.shared else body
        return query_and_key, body, residual


class SelfAttention(nn.Module):
    """Plain multi-head attention whose three inputs may have different widths."""

    def __init__(self, config: MobileBertConfig):
        super().__init__()
        body, inner = config.hidden_size, config.true_hidden_size  # the same width if there is no bottleneck
        value_width = inner if config.use_bottleneck_attention else body
        query_width = inner if config.key_query_shared_bottleneck and config.use_bottleneck else value_width
        self.num_attention_heads = config.num_attention_heads
        self.query = nn.Linear(query_width, inner)
        self.key = nn.Linear(query_width, inner)
        self.value = nn.Linear(value_width, inner)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, query_and_key: Tensor, value: Tensor, mask: Int[Tensor, "batch tokens"]) -> Inner:
        q, k, v = (self._split(x) for x in (self.query(query_and_key), self.key(query_and_key), self.value(value)))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B, h, T, d) x (B, h, d, T) -> (B, h, T, T)
        scores = scores.masked_fill(~mask.bool()[:, None, None, :], torch.finfo(scores.dtype).min)
        probs = self.dropout(scores.softmax(dim=-1))
        return (probs @ v).transpose(1, 2).flatten(2)  # (B, h, T, T) x (B, h, T, d) -> (B, T, h*d)

    def _split(self, x: Inner) -> Float[Tensor, "batch heads tokens d_head"]:
        return x.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)  # (B, T, h*d) -> (B, h, T, d)


class Attention(nn.Module):
    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.self = SelfAttention(config)
        dropout = 0.0 if config.use_bottleneck else config.hidden_dropout_prob
        self.output = LinearNorm(config, config.true_hidden_size, config.true_hidden_size, dropout)


class Intermediate(nn.Module):
    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.dense = nn.Linear(config.true_hidden_size, config.intermediate_size)
        self.activation = activation(config)

    def forward(self, h: Inner) -> Float[Tensor, "batch tokens intermediate"]:
        return self.activation(self.dense(h))


class FeedForward(nn.Module):
    """One FFN of the stack. A thin block has a big attention for its small FFN; four of them restore the balance."""

    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.intermediate = Intermediate(config)
        self.output = LinearNorm(config, config.intermediate_size, config.true_hidden_size)

    def forward(self, h: Inner) -> Inner:
        return self.output(self.intermediate(h), h)


class Block(nn.Module):
    """Body in, body out. Without a bottleneck this is exactly a BERT block."""

    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.bottleneck = Bottleneck(config) if config.use_bottleneck else None
        self.attention = Attention(config)
        self.ffn = nn.ModuleList(FeedForward(config) for _ in range(config.num_feedforward_networks - 1))
        self.intermediate = Intermediate(config)
        dropout = 0.0 if config.use_bottleneck else config.hidden_dropout_prob
        self.output = LinearNorm(config, config.intermediate_size, config.true_hidden_size, dropout)
        if config.use_bottleneck:
            self.output.bottleneck = LinearNorm(config, config.true_hidden_size, config.hidden_size,
                                                config.hidden_dropout_prob)

    def forward(self, body: Body, mask: Int[Tensor, "batch tokens"]) -> Body:
        query_and_key, value, residual = self.bottleneck(body) if self.bottleneck else (body, body, body)
        h = self.attention.output(self.attention.self(query_and_key, value, mask), residual)
        for ffn in self.ffn:
            h = ffn(h)
        h = self.output(self.intermediate(h), h)
        return self.output.bottleneck(h, body) if self.bottleneck else h  # (B, T, inner) -> (B, T, 512)


class Encoder(nn.Module):
    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.layer = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))


class Pooler(nn.Module):
    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size) if config.classifier_activation else None

    def forward(self, body: Body) -> Float[Tensor, "batch body"]:
        return torch.tanh(self.dense(body[:, 0])) if self.dense else body[:, 0]


@dataclass(frozen=True)
class Output:
    """What a forward pass returns, under the names that Hugging Face models use."""

    logits: Tensor | None
    hidden_states: tuple[Body, ...]  # 0 = embedding output, 1..L = blocks
    pooler_output: Float[Tensor, "batch body"] | None = None
    next_sentence_logits: Float[Tensor, "batch 2"] | None = None
    loss: Tensor | None = None

    @property
    def last_hidden_state(self) -> Body:
        return self.hidden_states[-1]


class MobileBert(nn.Module):
    """The encoder: embeddings, blocks, pooler. Builds the student and the IB-BERT teacher alike."""

    def __init__(self, config: MobileBertConfig, add_pooling_layer: bool = True):
        super().__init__()
        _require_possible(config)
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self.apply(lambda module: initialise(module, config))

    def forward(self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"] | None = None,
                token_type_ids: Int[Tensor, "batch tokens"] | None = None) -> Output:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        states = [self.embeddings(input_ids, types)]
        for block in self.encoder.layer:
            states.append(block(states[-1], mask))
        return Output(None, tuple(states), self.pooler(states[-1]) if self.pooler else None)


class Transform(nn.Module):
    """The layer before the decoder. It keeps LayerNorm in the student too: it runs once, not in every block."""

    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, body: Body) -> Body:
        return self.LayerNorm(self.activation(self.dense(body)))


class PredictionHead(nn.Module):
    """Masked-LM head. The decoder is as wide as the body: the word embeddings (128), tied, and 384 rows of its own."""

    def __init__(self, config: MobileBertConfig, words: nn.Parameter):
        super().__init__()
        extra = config.hidden_size - config.embedding_size
        self.transform = Transform(config)
        self.dense = nn.Linear(config.vocab_size, extra, bias=False) if extra else None
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)
        self.apply(lambda module: initialise(module, config))
        self.decoder.weight = words  # the very parameter of the embedding table, not a copy
        self.bias = self.decoder.bias

    def forward(self, body: Body) -> Float[Tensor, "batch tokens vocab"]:
        rows = self.decoder.weight.t()  # (128, V)
        if self.dense:
            rows = torch.cat([rows, self.dense.weight])  # (128, V) above (384, V) -> (512, V)
        return self.transform(body) @ rows + self.bias  # (B, T, 512) x (512, V) -> (B, T, V)


class PretrainingHeads(nn.Module):
    def __init__(self, config: MobileBertConfig, words: nn.Parameter, next_sentence: bool):
        super().__init__()
        self.predictions = PredictionHead(config, words)
        self.seq_relationship = initialise(nn.Linear(config.hidden_size, 2), config) if next_sentence else None


class MobileBertForMaskedLM(nn.Module):
    """Encoder, masked-LM head and, for pre-training distillation, the next-sentence head."""

    def __init__(self, config: MobileBertConfig, next_sentence: bool = False):
        super().__init__()
        self.config = config
        self.mobilebert = MobileBert(config, add_pooling_layer=next_sentence)
        self.cls = PretrainingHeads(config, self.mobilebert.embeddings.word_embeddings.weight, next_sentence)

    def forward(self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"] | None = None,
                token_type_ids: Int[Tensor, "batch tokens"] | None = None,
                labels: Int[Tensor, "batch tokens"] | None = None) -> Output:
        encoded = self.mobilebert(input_ids, attention_mask, token_type_ids)
        logits = self.cls.predictions(encoded.last_hidden_state)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())  # -100 = no label
        next_sentence = self.cls.seq_relationship and self.cls.seq_relationship(encoded.pooler_output)
        return Output(logits, encoded.hidden_states, encoded.pooler_output, next_sentence, loss)


class MobileBertForSequenceClassification(nn.Module):
    """Encoder with a linear classifier on the pooled first token."""

    def __init__(self, config: MobileBertConfig):
        super().__init__()
        self.config = config
        self.mobilebert = MobileBert(config)
        self.dropout = nn.Dropout(config.classifier_dropout or config.hidden_dropout_prob)
        self.classifier = initialise(nn.Linear(config.hidden_size, config.num_labels), config)

    def forward(self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"] | None = None,
                token_type_ids: Int[Tensor, "batch tokens"] | None = None,
                labels: Int[Tensor, " batch"] | None = None) -> Output:
        encoded = self.mobilebert(input_ids, attention_mask, token_type_ids)
        logits = self.classifier(self.dropout(encoded.pooler_output))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return Output(logits, encoded.hidden_states, encoded.pooler_output, loss=loss)


def _require_possible(config: MobileBertConfig) -> None:
    if config.true_hidden_size % config.num_attention_heads:
        raise ValueError(f"{config.num_attention_heads} heads do not divide the width inside a block, "
                         f"{config.true_hidden_size}; choose intra_bottleneck_size as a multiple of the head count.")
    if config.embedding_size > config.hidden_size:
        raise ValueError(f"embedding_size {config.embedding_size} is wider than the body, hidden_size "
                         f"{config.hidden_size}; the tied decoder cannot be cut to fit. Choose a smaller one.")
