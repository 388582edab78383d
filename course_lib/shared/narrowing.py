"""Start a narrower student from the teacher's own numbers: keep the directions, heads and neurons that matter most.

    kept = choose(teacher, batches, width=256, heads=8, intermediate=1024)
    copy_narrowed(student, teacher, kept)

Directions of the hidden states are kept in all layers or in none, because the residual connection adds the layers up.
`by="pick"` keeps single coordinates: every matrix of the student is a block of the teacher's. `by="pca"` keeps
principal components: every matrix becomes P W P^T. Components keep more of the states, but LayerNorm's scale and shift
belong to single coordinates, and a rotation mixes them. The comma lab measures what that costs.

Source: the selection by size of activation is the oldest idea of structured pruning (for Transformers, e.g. Fan et al.
2020, LayerDrop, and McCarley et al. 2019, arXiv 1910.06360, who cut heads and feed-forward units of BERT).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.shared import layer_maps, probes
from course_lib.shared.layer_maps import LayerMap
from course_lib.shared.students import blocks
from course_lib.shared.words import require_word

By = Literal["pick", "pca"]


@dataclass(frozen=True)
class Kept:
    """What stays of the teacher; indices are in ascending order."""

    basis: Float[Tensor, "width hidden"]  # orthonormal rows; with by="pick", each holds a single 1
    heads: dict[int, Int[Tensor, " heads"]]  # per teacher layer 1..L, counted from 0
    neurons: dict[int, Int[Tensor, " intermediate"]]  # of the feed-forward part, per teacher layer
    share: float  # of the squared length of the teacher's hidden states, mean over layers, 0..1


@torch.no_grad()
def choose(teacher: nn.Module, batches: Iterable[Mapping[str, Tensor]], *, width: int, heads: int, intermediate: int,
           by: By = "pick") -> Kept:
    """Rank directions, heads and neurons of a BERT-like teacher by how large they are on real text; keep the first.

    A direction counts by its mean square, each layer scaled to the same size, word embeddings included. A head counts
    by the norm of its value-and-output product, a neuron by its activation times the norm of its outgoing weights.

    batches: some hundred sentences are enough (`input_ids`, `attention_mask`).
    Raises: ValueError if more is asked for than the teacher has.
    """
    require_word(by, By, "by")
    config = teacher.config
    for name, wanted, have in (("width", width, config.hidden_size), ("heads", heads, config.num_attention_heads),
                               ("intermediate", intermediate, config.intermediate_size)):
        if not 1 <= wanted <= have:
            raise ValueError(f"{name}={wanted}, but the teacher has {have}: a narrower student needs 1 to {have}.")
    states = _real_states(teacher, batches)
    words = teacher.get_input_embeddings().weight
    everything = sum(x.T @ x / x.square().sum() for x in [*states.values(), words])  # (N, H) x (H, N) -> (H, H)
    if by == "pca":
        basis = torch.linalg.eigh(everything.double()).eigenvectors.flip(-1)[:, :width].T.to(words.dtype)
    else:
        basis = torch.eye(config.hidden_size)[_largest(everything.diagonal(), width)]
    share = sum(((x @ basis.T).square().sum() / x.square().sum()).item() for x in states.values()) / len(states)
    kept_heads, neurons = {}, {}
    for layer, block in enumerate(blocks(teacher), start=1):
        kept_heads[layer] = _largest(_head_sizes(block, config.num_attention_heads), heads)
        inner, outer = block.intermediate.dense, block.output.dense
        fired = block.intermediate.intermediate_act_fn(inner(states[layer - 1]))  # close enough: before attention
        neurons[layer] = _largest(fired.square().mean(0).sqrt() * outer.weight.norm(dim=0), intermediate)
    return Kept(basis, kept_heads, neurons, share)


@torch.no_grad()
def copy_narrowed(student: nn.Module, teacher: nn.Module, kept: Kept, layer_map: LayerMap | None = None) -> None:
    """Copy what was kept of every matrix: embeddings, blocks (after `layer_map`, default uniform), masked-LM head.

    The student has the teacher's class, `len(kept.basis)` hidden units and heads of the teacher's size.
    Raises: ValueError for a student whose shapes do not fit what was kept.
    """
    ours, theirs = blocks(student), blocks(teacher)
    size = teacher.config.hidden_size // teacher.config.num_attention_heads
    basis = kept.basis
    _require(student.config.hidden_size == len(basis), f"a hidden size of {len(basis)}", student)
    _require(student.config.hidden_size == size * student.config.num_attention_heads, f"heads of {size}", student)
    target, source = student.base_model.embeddings, teacher.base_model.embeddings
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        getattr(target, name).weight.copy_(getattr(source, name).weight @ basis.T)  # (V, d) x (d, w) -> (V, w)
    _copy_norm(target.LayerNorm, source.LayerNorm, basis)
    for s, t in layer_maps.blocks_only(layer_map or layer_maps.uniform(len(ours), len(theirs))):
        _copy_block(ours[s - 1], theirs[t - 1], basis, _head_rows(kept.heads[t], size), kept.neurons[t])
    if hasattr(student, "cls"):
        ours_head, their_head = student.cls.predictions, teacher.cls.predictions
        _copy_linear(ours_head.transform.dense, their_head.transform.dense, basis, basis)
        _copy_norm(ours_head.transform.LayerNorm, their_head.transform.LayerNorm, basis)
        ours_head.decoder.bias.copy_(their_head.decoder.bias)
        if ours_head.decoder.weight is not target.word_embeddings.weight:
            ours_head.decoder.weight.copy_(their_head.decoder.weight @ basis.T)


def _copy_block(ours: nn.Module, theirs: nn.Module, basis: Tensor, rows: Tensor, neurons: Tensor) -> None:
    for name in ("query", "key", "value"):
        _copy_linear(getattr(ours.attention.self, name), getattr(theirs.attention.self, name), rows, basis)
    _copy_linear(ours.attention.output.dense, theirs.attention.output.dense, basis, rows)
    _copy_norm(ours.attention.output.LayerNorm, theirs.attention.output.LayerNorm, basis)
    _copy_linear(ours.intermediate.dense, theirs.intermediate.dense, neurons, basis)
    _copy_linear(ours.output.dense, theirs.output.dense, basis, neurons)
    _copy_norm(ours.output.LayerNorm, theirs.output.LayerNorm, basis)


def _copy_linear(ours: nn.Linear, theirs: nn.Linear, outputs: Tensor, inputs: Tensor) -> None:
    """W -> (outputs) W (inputs)^T, where each side is a basis (a matrix) or a list of indices."""
    if ours.weight.shape != (len(outputs), len(inputs)):
        raise ValueError(f"The student's layer is {tuple(ours.weight.shape)} (outputs, inputs), but of the teacher's "
                         f"{(len(outputs), len(inputs))} was kept. Build the student with those sizes.")
    ours.weight.copy_(_along(inputs, _along(outputs, theirs.weight).T).T)
    ours.bias.copy_(_along(outputs, theirs.bias))


def _along(kept: Tensor, values: Tensor) -> Tensor:
    return values[kept] if kept.dim() == 1 else kept @ values


def _copy_norm(ours: nn.LayerNorm, theirs: nn.LayerNorm, basis: Tensor) -> None:
    """The shift follows the basis; of the scale, P diag(g) P^T, a LayerNorm can hold the diagonal only."""
    ours.weight.copy_(basis.square() @ theirs.weight)
    ours.bias.copy_(basis @ theirs.bias)


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
