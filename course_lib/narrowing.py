"""Start a narrower student from the teacher's own numbers: keep the coordinates, heads and neurons that matter most.

    kept = choose(teacher, batches, width=256, heads=8, intermediate=1024)
    copy_narrowed(student, teacher, kept)

Every matrix of the student is then a block of the teacher's matrix. A coordinate of the hidden states is kept in all
layers or in none, because the residual connection adds the layers up. Picking coordinates loses more of the hidden
states than a projection on principal components would, but it keeps LayerNorm intact: its scale and shift belong to
single coordinates, and a rotation mixes them. The comma lab measures the difference; it is large.

Source: the selection by size of activation is the oldest idea of structured pruning (for Transformers, e.g. Fan et al.
2020, LayerDrop, and McCarley et al. 2019, arXiv 1910.06360, who cut heads and feed-forward units of BERT).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from course_lib import layer_maps, probes
from course_lib.layer_maps import LayerMap
from course_lib.students import blocks


@dataclass(frozen=True)
class Kept:
    """What stays of the teacher: indices, in ascending order."""

    hidden: Int[Tensor, " width"]
    heads: dict[int, Int[Tensor, " heads"]]  # per teacher layer 1..L, counted from 0
    neurons: dict[int, Int[Tensor, " intermediate"]]  # of the feed-forward part, per teacher layer
    share: float  # of the squared length of the teacher's hidden states, mean over layers, 0..1


@torch.no_grad()
def choose(teacher: nn.Module, batches: Iterable[Mapping[str, Tensor]], *, width: int, heads: int, intermediate: int
           ) -> Kept:
    """Rank coordinates, heads and neurons of a BERT-like teacher by how large they are on real text; keep the first.

    A coordinate counts by its mean square, each layer scaled to the same size, word embeddings included. A head counts
    by the norm of its value-and-output product, a neuron by its activation times the norm of its outgoing weights.

    batches: some hundred sentences are enough (`input_ids`, `attention_mask`).
    Raises: ValueError if more is asked for than the teacher has.
    """
    config = teacher.config
    for name, wanted, have in (("width", width, config.hidden_size), ("heads", heads, config.num_attention_heads),
                               ("intermediate", intermediate, config.intermediate_size)):
        if not 1 <= wanted <= have:
            raise ValueError(f"{name}={wanted}, but the teacher has {have}: a narrower student needs 1 to {have}.")
    states = _real_states(teacher, batches)
    words = teacher.get_input_embeddings().weight
    size = sum(x.square().mean(0) / x.square().mean() for x in [*states.values(), words])
    hidden = _largest(size, width)
    share = sum((x[:, hidden].square().sum() / x.square().sum()).item() for x in states.values()) / len(states)
    kept_heads, neurons = {}, {}
    for layer, block in enumerate(blocks(teacher), start=1):
        kept_heads[layer] = _largest(_head_sizes(block, config.num_attention_heads), heads)
        inner, outer = block.intermediate.dense, block.output.dense
        fired = block.intermediate.intermediate_act_fn(inner(states[layer - 1]))  # close enough: before attention
        neurons[layer] = _largest(fired.square().mean(0).sqrt() * outer.weight.norm(dim=0), intermediate)
    return Kept(hidden, kept_heads, neurons, share)


@torch.no_grad()
def copy_narrowed(student: nn.Module, teacher: nn.Module, kept: Kept, layer_map: LayerMap | None = None) -> None:
    """Copy the kept block of every matrix: embeddings, blocks (after `layer_map`, default one to one), masked-LM head.

    The student has the teacher's class, `len(kept.hidden)` hidden units and heads of the teacher's size.
    Raises: ValueError for a student whose shapes do not fit what was kept.
    """
    ours, theirs = blocks(student), blocks(teacher)
    size = teacher.config.hidden_size // teacher.config.num_attention_heads
    h = kept.hidden
    _require(student.config.hidden_size == len(h), f"a hidden size of {len(h)}", student)
    _require(student.config.hidden_size == size * student.config.num_attention_heads, f"heads of {size}", student)
    target, source = student.base_model.embeddings, teacher.base_model.embeddings
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        getattr(target, name).weight.copy_(getattr(source, name).weight[:, h])
    _copy_norm(target.LayerNorm, source.LayerNorm, h)
    for s, t in layer_maps.blocks_only(layer_map or layer_maps.uniform(len(ours), len(theirs))):
        _copy_block(ours[s - 1], theirs[t - 1], h, _head_rows(kept.heads[t], size), kept.neurons[t])
    if hasattr(student, "cls"):
        ours_head, their_head = student.cls.predictions, teacher.cls.predictions
        _copy_linear(ours_head.transform.dense, their_head.transform.dense, h, h)
        _copy_norm(ours_head.transform.LayerNorm, their_head.transform.LayerNorm, h)
        ours_head.decoder.bias.copy_(their_head.decoder.bias)
        if ours_head.decoder.weight is not target.word_embeddings.weight:
            ours_head.decoder.weight.copy_(their_head.decoder.weight[:, h])


def _copy_block(ours: nn.Module, theirs: nn.Module, h: Tensor, rows: Tensor, neurons: Tensor) -> None:
    for name in ("query", "key", "value"):
        _copy_linear(getattr(ours.attention.self, name), getattr(theirs.attention.self, name), rows, h)
    _copy_linear(ours.attention.output.dense, theirs.attention.output.dense, h, rows)
    _copy_norm(ours.attention.output.LayerNorm, theirs.attention.output.LayerNorm, h)
    _copy_linear(ours.intermediate.dense, theirs.intermediate.dense, neurons, h)
    _copy_linear(ours.output.dense, theirs.output.dense, h, neurons)
    _copy_norm(ours.output.LayerNorm, theirs.output.LayerNorm, h)


def _copy_linear(ours: nn.Linear, theirs: nn.Linear, outputs: Tensor, inputs: Tensor) -> None:
    if ours.weight.shape != (len(outputs), len(inputs)):
        raise ValueError(f"The student's layer is {tuple(ours.weight.shape)} (outputs, inputs), but of the teacher's "
                         f"{(len(outputs), len(inputs))} was kept. Build the student with those sizes.")
    ours.weight.copy_(theirs.weight[outputs][:, inputs])
    ours.bias.copy_(theirs.bias[outputs])


def _copy_norm(ours: nn.LayerNorm, theirs: nn.LayerNorm, kept: Tensor) -> None:
    ours.weight.copy_(theirs.weight[kept])
    ours.bias.copy_(theirs.bias[kept])


def _real_states(teacher: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> dict[int, Tensor]:
    """layer -> (tokens, hidden): the states of all real tokens, padding left out."""
    found: dict[int, list[Tensor]] = {}
    for batch in batches:
        reading = probes.read(teacher.base_model, batch)
        real = reading.attention_mask.bool()
        for layer, states in reading.hidden_states.items():
            found.setdefault(layer, []).append(states[real].float())
    if not found:
        raise ValueError("choose() got no batches: give it some real text to rank the teacher's units by.")
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def _head_sizes(block: nn.Module, heads: int) -> Tensor:
    values, output = block.attention.self.value.weight, block.attention.output.dense.weight
    pairs = zip(output.chunk(heads, dim=1), values.chunk(heads, dim=0), strict=True)
    return torch.stack([(o @ v).norm() for o, v in pairs])  # (H, d) x (d, H) -> (H, H) per head


def _head_rows(heads: Tensor, size: int) -> Tensor:
    return (heads[:, None] * size + torch.arange(size)).flatten()


def _largest(values: Tensor, count: int) -> Tensor:
    return values.topk(count).indices.sort().values


def _require(true: bool, what: str, student: nn.Module) -> None:
    if not true:
        raise ValueError(f"What was kept of the teacher needs {what}; the student has hidden_size="
                         f"{student.config.hidden_size}, num_attention_heads={student.config.num_attention_heads}.")
