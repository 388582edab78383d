"""Which student layer learns from which teacher layer.

Layers are numbered as `hidden_states` is: 0 = the embedding output, 1..L = the output of block 1..L. A layer map is a
tuple of pairs `(student layer, teacher layer)`:

    uniform(4, 12) -> ((0, 0), (1, 3), (2, 6), (3, 9), (4, 12))

Every paper counts in its own way. Convert at the border, then forget the other numbering:

| source | counts | becomes here |
|---|---|---|
| PKD, paper | blocks from 1 | the same number |
| PKD, code (`fc_layer_idx`) | blocks from 0 | `from_zero_based_blocks` |
| DistilBERT, script | blocks from 0 | `from_zero_based_blocks` |
| TinyBERT, paper | 0 = embeddings, 1..M = blocks, M+1 = prediction | the same number; M+1 is no layer |
| TinyBERT, code, `att` lists | blocks from 0 | `from_zero_based_blocks` |
| TinyBERT, code, `rep` lists | 0 = embeddings | the same number |
| Hugging Face, `hidden_states` | 0 = embeddings | the same number |
| Hugging Face, `attentions` | blocks from 0 | `from_zero_based_blocks` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import Tensor

from course_lib.shared.words import AsIn, require_word

LayerMap = tuple[tuple[int, int], ...]
Uneven = Literal["refuse", "round"]


def skip(student_layers: int, teacher_layers: int, *, when_uneven: Uneven = "refuse") -> LayerMap:
    """Every k-th teacher block, without the last block of either side (BERT-PKD, "PKD-Skip").

    12 -> 6: student blocks 1..5 learn from 2, 4, 6, 8, 10. 12 -> 3: student blocks 1, 2 learn from 4, 8.
    The last block is left out because the prediction loss already speaks to it (Sun et al. 2019, section 3.2).
    """
    _require_depths(student_layers, teacher_layers, smallest_student=2)
    return tuple((i, _multiple(i, student_layers, teacher_layers, when_uneven)) for i in range(1, student_layers))


def last(student_layers: int, teacher_layers: int) -> LayerMap:
    """The teacher's last blocks but one, in order (BERT-PKD, "PKD-Last"). 12 -> 6: 1..5 learn from 7..11."""
    _require_depths(student_layers, teacher_layers, smallest_student=2)
    return tuple((i, teacher_layers - student_layers + i) for i in range(1, student_layers))


def uniform(student_layers: int, teacher_layers: int, *, when_uneven: Uneven = "refuse") -> LayerMap:
    """Student layer i learns from teacher layer i*k, k = teacher_layers / student_layers (TinyBERT).

    The embeddings belong to it: 0 learns from 0. Depths that do not divide raise a ValueError, or, with
    `when_uneven="round"`, go to the nearest teacher layer (ties go down). The original code takes k = floor(...)
    silently, so that a 5-layer student of 12 layers never sees teacher layers 11 and 12.
    """
    _require_depths(student_layers, teacher_layers)
    return tuple((i, _multiple(i, student_layers, teacher_layers, when_uneven)) for i in range(student_layers + 1))


def top(student_layers: int, teacher_layers: int) -> LayerMap:
    """The teacher's last blocks (TinyBERT, table 4): i learns from i + teacher_layers - student_layers, 0 from 0."""
    _require_depths(student_layers, teacher_layers)
    return ((0, 0), *((i, i + teacher_layers - student_layers) for i in range(1, student_layers + 1)))


def bottom(student_layers: int, teacher_layers: int) -> LayerMap:
    """The teacher's first blocks (TinyBERT, table 4): i learns from i. Also the initialisation of PKD and Theseus."""
    _require_depths(student_layers, teacher_layers)
    return tuple((i, i) for i in range(student_layers + 1))


def distilbert(student_layers: int, teacher_layers: int, *, as_in: AsIn = "paper",
               when_uneven: Uneven = "refuse") -> LayerMap:
    """Which teacher blocks the student's blocks are copied from (DistilBERT's initialisation).

    "paper": "one layer out of two", read as the first block of every group of k: 12 -> 6 copies 1, 3, 5, 7, 9, 11.
    "code": the first and the last block and, between them, the blocks nearest to an even spacing: 12 -> 6 copies
    1, 3, 5, 8, 10, 12, which is the script's zero-based list [0, 2, 4, 7, 9, 11]. For other depths the same spacing
    is used, ties go down: 6 -> 3 copies 1, 3, 6 (the paper's reading: 1, 3, 5).
    """
    _require_depths(student_layers, teacher_layers)
    if require_word(as_in, AsIn, "as_in") == "paper":
        return tuple((i, _multiple(i - 1, student_layers, teacher_layers, when_uneven) + 1)
                     for i in range(1, student_layers + 1))
    gaps = max(student_layers - 1, 1)
    return tuple((i + 1, _nearest(i * (teacher_layers - 1), gaps) + 1) for i in range(student_layers))


def groups(student_layers: int, teacher_layers: int) -> LayerMap:
    """Every student block with the k teacher blocks it stands in for (BERT-of-Theseus, section 3.1).

    6 -> 3: 1 with 1 and 2, 2 with 3 and 4, 3 with 5 and 6. One student block has several teacher blocks here.
    """
    _require_depths(student_layers, teacher_layers)
    _multiple(1, student_layers, teacher_layers, "refuse")
    size = teacher_layers // student_layers
    return tuple(((t - 1) // size + 1, t) for t in range(1, teacher_layers + 1))


def check(layer_map: Iterable[Sequence[int]], student_layers: int, teacher_layers: int) -> LayerMap:
    """Return `layer_map` as a tuple of integer pairs after checking every index against both depths.

    Raises: ValueError that names the impossible index, both depths and the valid range; also for an empty map, for
    a pair that stands there twice (its loss would count double) and for something that is not a pair of integers.
    """
    pairs = tuple(tuple(pair) for pair in layer_map)
    if not pairs:
        raise ValueError("The layer map is empty: no student layer would learn anything.")
    for pair in pairs:
        if len(pair) != 2 or any(isinstance(index, bool) or not isinstance(index, int) for index in pair):
            raise ValueError(f"{pair} is not a pair of integers (student layer, teacher layer).")
        for side, index, depth in (("student", pair[0], student_layers), ("teacher", pair[1], teacher_layers)):
            if not 0 <= index <= depth:
                raise ValueError(
                    f"Layer map {pair}: there is no {side} layer {index}. The student has {student_layers} layers and "
                    f"the teacher {teacher_layers}; valid {side} layers are 0..{depth} (0 = embedding output). "
                    "A list that counts blocks from 0 goes through from_zero_based_blocks first."
                )
        if pairs.count(pair) > 1:
            raise ValueError(f"The pair {pair} stands in the layer map more than once; its loss would count double.")
    return pairs


def from_zero_based_blocks(student_blocks: Iterable[int], teacher_blocks: Iterable[int]) -> LayerMap:
    """Pair two lists that count blocks from 0, as most codes do: ([0, 1], [5, 11]) -> ((1, 6), (2, 12)).

    Raises: ValueError for lists of different length and for negative indices (-1 for "last" hides the depth).
    """
    student_blocks, teacher_blocks = list(student_blocks), list(teacher_blocks)
    if len(student_blocks) != len(teacher_blocks):
        raise ValueError(f"{len(student_blocks)} student blocks {student_blocks} cannot be paired with "
                         f"{len(teacher_blocks)} teacher blocks {teacher_blocks}.")
    if min(student_blocks + teacher_blocks, default=0) < 0:
        raise ValueError(f"Blocks count from 0; {student_blocks} / {teacher_blocks} contains a negative index. "
                         "Write the block number out.")
    return tuple((s + 1, t + 1) for s, t in zip(student_blocks, teacher_blocks, strict=True))


def to_zero_based_blocks(layer_map: LayerMap) -> tuple[list[int], list[int]]:
    """The inverse, for use with codes that count blocks from 0. Raises: ValueError if the embeddings are in the map."""
    if any(0 in pair for pair in layer_map):
        raise ValueError(f"{layer_map} contains layer 0, the embedding output, which is no block; "
                         "use blocks_only(layer_map) first.")
    return [s - 1 for s, _ in layer_map], [t - 1 for _, t in layer_map]


def blocks_only(layer_map: LayerMap) -> LayerMap:
    """The map without the embedding layer: attention exists only in blocks."""
    return tuple(pair for pair in layer_map if 0 not in pair)


def by_layer(states: Mapping[int, Tensor] | Sequence[Tensor], *, first: Literal[0, 1]) -> Mapping[int, Tensor]:
    """{layer: tensor}, also from the tuples that transformers returns: they begin with layer `first`.

    first: 0 for `hidden_states`, whose entry 0 is the embedding output; 1 for what only blocks have.
    """
    return states if isinstance(states, Mapping) else dict(enumerate(states, start=first))


def _nearest(numerator: int, denominator: int) -> int:
    """numerator / denominator to the nearest integer, ties down, in exact integers: 5/2 -> 2."""
    return -((denominator - 2 * numerator) // (2 * denominator))


def _multiple(i: int, student_layers: int, teacher_layers: int, when_uneven: Uneven) -> int:
    """i * teacher_layers / student_layers, refusing or rounding where the depths do not divide."""
    require_word(when_uneven, Uneven, "when_uneven")
    if teacher_layers % student_layers and when_uneven == "refuse":
        divisors = [d for d in range(1, teacher_layers + 1) if teacher_layers % d == 0]
        raise ValueError(
            f"{student_layers} student layers do not divide {teacher_layers} teacher layers evenly. Take a student of "
            f"{divisors} layers, pass when_uneven='round', or write the pairs yourself and pass them to check()."
        )
    return _nearest(i * teacher_layers, student_layers)


def _require_depths(student_layers: int, teacher_layers: int, smallest_student: int = 1) -> None:
    if student_layers < smallest_student:
        why = ", because the last layer is left out" if smallest_student > 1 else ""
        raise ValueError(f"A student of {student_layers} layer(s) is too shallow: it needs {smallest_student}{why}.")
    if student_layers > teacher_layers:
        raise ValueError(f"The student ({student_layers} layers) is deeper than its teacher ({teacher_layers} layers); "
                         "write the pairs yourself and pass them to check().")
