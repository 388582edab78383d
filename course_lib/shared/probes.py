"""Reading a model: everything a distillation loss may want to see, from one forward pass.

Layer-wise methods compare the inside of two models: hidden states, attention scores, queries, keys, values.
Hugging Face returns the hidden states if asked. It never returns attention scores: the default attention returns
nothing, and `attn_implementation="eager"` returns probabilities after dropout. So we listen to the three linear layers
that make the queries, keys and values, and compute the rest from them. The model itself is not changed: every hook is
removed before `read` returns, also when the forward pass fails.

    reading = read(student, batch)
    reading.hidden_states[0]       # embedding output, (batch, tokens, hidden)
    reading.attention_scores[3]    # block 3, before the softmax, (batch, heads, tokens, tokens)

Layer 0 is the embedding output; layers 1..L are the outputs of blocks 1..L.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.shared.masking import at_least_float32
from course_lib.shared.students import require_eval

# How the encoders of transformers spell the three linear layers: BERT and its family, then DistilBERT.
SPELLINGS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))

# The attention classes of transformers that compute softmax(QK^T / sqrt(d)) V and nothing else, in an encoder whose
# last block is its output. Many others also have a `query` layer, but rotate it (RoFormer, ESM), add a position bias
# (LayoutLMv2) or approximate the softmax (Nystromformer): Q and K alone would give wrong scores there, silently.
PLAIN_ATTENTION = frozenset(
    f"{family}SelfAttention"
    for family in ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "DistilBert", "MobileBert", "Ernie",
                   "RoCBert", "LayoutLM", "Data2VecText", "Splinter", "RemBert", "Tapas")
) | {"AlbertAttention"}

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")


@dataclass(frozen=True)
class Reading:
    """What one forward pass showed. Dictionaries are keyed by layer number; gradients flow where the model has them.

    logits: whatever the head returns, or None for a model without a head
    hidden_states: layers 0..L, each (batch, tokens, hidden)
    queries, keys, values: layers 1..L, each (batch, heads, tokens, d_head)
    attention_mask: (batch, tokens), 1 = a real token
    output: the model's own answer, for heads that give more than logits
    """

    logits: Tensor | None
    hidden_states: dict[int, Float[Tensor, "batch tokens hidden"]]
    queries: dict[int, Float[Tensor, "batch heads tokens d_head"]]
    keys: dict[int, Float[Tensor, "batch heads tokens d_head"]]
    values: dict[int, Float[Tensor, "batch heads tokens d_head"]]
    attention_mask: Int[Tensor, "batch tokens"]
    output: object = None

    @cached_property
    def attention_scores(self) -> Mapping[int, Float[Tensor, "batch heads tokens tokens"]]:
        """`QK^T / sqrt(d_head)` per layer: before the softmax, and with no mask added."""
        return _WhenAsked(self.queries, lambda layer: _with_its_gradient(
            scaled_dot_products, self.queries[layer], self.keys[layer]))

    @cached_property
    def attention_probs(self) -> Mapping[int, Float[Tensor, "batch heads tokens tokens"]]:
        """Softmax of the scores over the real keys, before dropout; padded keys get exactly 0."""
        return _WhenAsked(self.queries, lambda layer: _with_its_gradient(
            softmax_over_kept, self.attention_scores[layer], self.attention_mask))


class _WhenAsked(Mapping):
    """layer -> tensor; each is computed when somebody asks for it, once. Most losses look at few layers."""

    def __init__(self, layers: Iterable[int], compute: Callable[[int], Tensor]):
        self._layers, self._compute, self._found = tuple(layers), compute, {}

    def __getitem__(self, layer: int) -> Tensor:
        if layer not in self._layers:
            raise KeyError(layer)
        if layer not in self._found:
            self._found[layer] = self._compute(layer)
        return self._found[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def read(model: nn.Module, batch: Mapping[str, Tensor]) -> Reading:
    """Run `model` once on `batch` and return what happened inside it.

    Works with or without a head, in train or eval mode, in any precision and under autocast. It neither switches the
    mode nor the gradients: wrap the teacher's call in `torch.no_grad()`.

    model: a BERT-like encoder of transformers, or any module whose blocks stand in a `ModuleList` and whose attention
        holds linear layers under one of the names in `SPELLINGS`
    batch: `input_ids` (batch, tokens) and, if you have padding, `attention_mask`; labels and other columns are ignored

    Raises: ValueError for an architecture whose attention cannot be recomputed from its queries and keys.
    """
    inputs = _inputs_for(model, batch)
    with _listening(model) as heard:
        output = model(**inputs)
    if not heard["query"]:
        raise ValueError(f"{type(model).__name__}: the forward pass ran, but none of its attention layers did.")
    shape = heard["hidden"][0].shape[:2]
    mask = inputs.get("attention_mask")
    return Reading(
        logits=_logits(output),
        hidden_states=dict(enumerate(heard["hidden"])),
        queries=dict(enumerate(heard["query"], start=1)),
        keys=dict(enumerate(heard["key"], start=1)),
        values=dict(enumerate(heard["value"], start=1)),
        attention_mask=torch.ones(shape, dtype=torch.long, device=heard["hidden"][0].device) if mask is None else mask,
        output=output,
    )


def split_heads(projection: Float[Tensor, "batch tokens width"], heads: int
                ) -> Float[Tensor, "batch heads tokens d_head"]:
    """Cut the width of a projection into `heads` slices. Raises: ValueError if `heads` does not divide the width."""
    batch, tokens, width = projection.shape
    if heads < 1 or width % heads:
        raise ValueError(f"A projection of width {width} cannot be split into {heads} heads of equal size; "
                         "choose a divisor of the width.")
    return projection.reshape(batch, tokens, heads, -1).transpose(1, 2)  # (B, T, h*d) -> (B, h, T, d)


def merge_heads(per_head: Float[Tensor, "batch heads tokens d_head"]) -> Float[Tensor, "batch tokens width"]:
    """Put the heads side by side again: the inverse of `split_heads`."""
    return per_head.transpose(1, 2).flatten(start_dim=2)  # (B, h, T, d) -> (B, T, h*d)


def scaled_dot_products(query: Float[Tensor, "batch heads tokens d_head"],
                        key: Float[Tensor, "batch heads tokens d_head"]
                        ) -> Float[Tensor, "batch heads tokens tokens"]:
    """`QK^T / sqrt(d_head)` in float32 or better, also when the model ran in half precision."""
    query, key = at_least_float32(query), at_least_float32(key)
    with torch.autocast(query.device.type, enabled=False):
        return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # (B, h, T, d) x (B, h, d, T) -> (B, h, T, T)


def softmax_over_kept(scores: Float[Tensor, "batch heads tokens tokens"], mask: Shaped[Tensor, "batch tokens"]
                      ) -> Float[Tensor, "batch heads tokens tokens"]:
    """Softmax over the keys that `mask` keeps. A sentence without any real token gets a uniform row, not NaN."""
    padded_keys = ~mask.bool()[:, None, None, :]  # (B, T) -> (B, 1, 1, T)
    return scores.masked_fill(padded_keys, torch.finfo(scores.dtype).min).softmax(dim=-1)


def _with_its_gradient(compute: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    """Compute with a gradient exactly if the inputs carry one.

    A cached result must not depend on who looked first: a look under `no_grad` would cut the loss from the student.
    """
    with torch.set_grad_enabled(first.requires_grad or second.requires_grad):
        return compute(first, second)


def _inputs_for(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    inputs = text_of(model, batch, MODEL_INPUTS)
    return inputs | {"return_dict": True} if isinstance(model, PreTrainedModel) else inputs


def _logits(output: object) -> Tensor | None:
    """The head's answer; models with two pre-training heads call it `prediction_logits`."""
    logits = getattr(output, "logits", None)
    return getattr(output, "prediction_logits", None) if logits is None else logits


@contextmanager
def _listening(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Hooks on every block and on its three projections. They append in call order, so ALBERT's shared block,
    which runs L times, gives L layers."""
    heard: dict[str, list[Tensor]] = defaultdict(list)

    def hear_block(_block: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
        if not heard["hidden"]:
            heard["hidden"].append(args[0] if args else kwargs["hidden_states"])
        heard["hidden"].append(output[0] if isinstance(output, tuple) else output)

    def hear(kind: str, heads: int) -> Callable[..., None]:
        return lambda _linear, _args, output: heard[kind].append(split_heads(output, heads))

    handles = []
    try:
        for block, attention, names in _blocks(model):
            handles.append(block.register_forward_hook(hear_block, with_kwargs=True))
            for kind, name in zip(("query", "key", "value"), names, strict=True):
                linear = getattr(attention, name)
                handles.append(linear.register_forward_hook(hear(kind, _number_of_heads(attention))))
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _blocks(model: nn.Module) -> list[tuple[nn.Module, nn.Module, tuple[str, str, str]]]:
    """Every (block, its attention, the names of its three projections); refuse what we could not recompute."""
    found = []
    for path, module in model.named_modules():
        names = next((s for s in SPELLINGS if all(isinstance(getattr(module, n, None), nn.Module) for n in s)), None)
        if names is None:
            continue
        _require_plain_attention(model, module)
        segments = path.split(".")
        numbers = [i for i, segment in enumerate(segments) if segment.isdigit()]
        if not numbers:
            raise ValueError(f"{type(model).__name__}: {path or 'the model'} has {', '.join(names)}, but no block "
                             "around it: expected the attention inside a numbered entry of an nn.ModuleList.")
        found.append((model.get_submodule(".".join(segments[:numbers[-1] + 1])), module, names))
    if not found:
        spelled = " or ".join("/".join(names) for names in SPELLINGS)
        raise ValueError(f"{type(model).__name__} cannot be read: no attention with linear layers named {spelled} was "
                         "found. Use a BERT-like encoder, or give your own attention these names.")
    return found


def _require_plain_attention(model: nn.Module, attention: nn.Module) -> None:
    name = type(attention).__name__
    ours_or_known = name in PLAIN_ATTENTION or not type(attention).__module__.startswith("transformers.")
    if not ours_or_known:
        raise ValueError(f"{type(model).__name__} cannot be read: {name} has query and key layers, but is not among "
                         f"the attentions that equal softmax(QK^T/sqrt(d)): {', '.join(sorted(PLAIN_ATTENTION))}.")
    if getattr(attention, "is_decoder", False):
        raise ValueError(f"{type(model).__name__} cannot be read: {name} is a decoder, whose causal mask is not in the "
                         "batch. Set config.is_decoder=False.")


def _number_of_heads(attention: nn.Module) -> int:
    for name in ("num_attention_heads", "n_heads"):
        if hasattr(attention, name):
            return getattr(attention, name)
    raise ValueError(f"{type(attention).__name__}: the number of heads is unknown; give it `num_attention_heads`.")


TEXT = ("input_ids", "attention_mask", "token_type_ids")


def text_of(model: nn.Module, batch: Mapping[str, Tensor], names: Sequence[str] = TEXT) -> dict[str, Tensor]:
    """The entries of the batch that are text and that this model's `forward` takes, where the model stands.

    Labels, stored teacher logits and whatever else lies in the batch stay outside: the loss is ours. DistilBERT, for
    one, knows no token types. A wrapper with **kwargs gets everything: its mask must not be lost.
    """
    known = inspect.signature(model.forward).parameters
    more = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    takes_all = not any(name in known for name in names) or (more and not isinstance(model, PreTrainedModel))
    device = next((parameter.device for parameter in model.parameters()), None)
    return {name: batch[name].to(device) for name in names
            if (takes_all or name in known) and batch.get(name) is not None}


def logits_of(model: nn.Module, batch: Mapping[str, Tensor]) -> Float[Tensor, "*where classes"]:
    """Run a model on the text of the batch. Its output has `.logits`, or is the logits.

    Raises: ValueError for a model without a head.
    """
    output = model(**text_of(model, batch))
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise ValueError(f"{type(model).__name__} returned no logits; use a model with a head.")
    return logits


@torch.no_grad()
def teacher_logits_of(teacher: nn.Module | None, batch: dict[str, Tensor]) -> Float[Tensor, "*where classes"]:
    """Stored logits if the batch carries them, otherwise one run of the teacher without gradients."""
    if "teacher_logits" in batch:
        return batch["teacher_logits"]
    if teacher is None:
        raise ValueError("There is neither a teacher nor batch['teacher_logits']. Give one of them.")
    require_eval(teacher)
    return logits_of(teacher, batch)
