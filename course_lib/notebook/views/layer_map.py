"""Layer-map editor: which student layer learns from which teacher layer, and which loss terms that makes.

The maps come from `layer_maps`, which is the truth. `layer_map.js` repeats its rules for the mouse and the keyboard; a
test holds the two together, word by word, for every preset and every pair of depths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from course_lib.notebook.tables import Table
from course_lib.notebook.views import View
from course_lib.shared import layer_maps
from course_lib.shared.layer_maps import LayerMap

DEEPEST = 12  # 13 nodes in a row still fit on a phone

# What a line of the picture may stand for; the first three are losses, the others are not.
KINDS = {
    "hidden": "hidden states",
    "attention": "attention",
    "cls": "[CLS], length 1",
    "copy": "copied weights",
    "replace": "replaced blocks",
}
LOSSES = ("hidden", "attention", "cls")


class Preset(NamedTuple):
    """A published map: its name on the button, the rule, and what its paper does with a matched pair."""

    label: str
    rule: Callable[[int, int], LayerMap]
    terms: tuple[str, ...]


PRESETS = {
    "skip": Preset("PKD-skip", layer_maps.skip, ("cls",)),
    "last": Preset("PKD-last", layer_maps.last, ("cls",)),
    "uniform": Preset("TinyBERT uniform", layer_maps.uniform, ("hidden", "attention")),
    "top": Preset("TinyBERT top", layer_maps.top, ("hidden", "attention")),
    "bottom": Preset("TinyBERT bottom", layer_maps.bottom, ("hidden", "attention")),
    "distilbert": Preset("DistilBERT (paper)", layer_maps.distilbert, ("copy",)),
    "distilbert_code": Preset("DistilBERT (code)", lambda s, t: layer_maps.distilbert(s, t, as_in="code"), ("copy",)),
    "theseus": Preset("Theseus", layer_maps.groups, ("replace",)),
}


def layer_map_numbers(pairs: Iterable[Sequence[int]], student_layers: int, teacher_layers: int,
                      terms: Sequence[str]) -> dict[str, object]:
    """What one state of the picture shows.

    pairs   (student layer, teacher layer), 0 = embedding output; may be impossible, which is explained
    terms   what a line stands for: some of `KINDS`

    Returns `problem` (why this map cannot be, or None), `terms` (rows: line, kind, text; empty if there is a problem)
    and `notes` (sentences on a map that is possible: layers without a line, lines that cross, ...).
    Raises: ValueError for a kind that does not exist.
    """
    unknown = [kind for kind in terms if kind not in KINDS]
    if unknown:
        raise ValueError(f"terms {unknown} do not exist; there are {list(KINDS)}.")
    pairs = [tuple(pair) for pair in pairs]
    kinds = [kind for kind in KINDS if kind in terms]
    problem = _problem(pairs, student_layers, teacher_layers, kinds)
    if problem:
        return {"problem": problem, "terms": [], "notes": []}
    rows = [row for kind in kinds for row in _rows(kind, pairs)]
    return {"problem": None, "terms": rows, "notes": _notes(pairs, student_layers, teacher_layers, kinds)}


def preset_numbers(preset: str, student_layers: int, teacher_layers: int, terms: Sequence[str] | None = None
                   ) -> dict[str, object]:
    """The same for a published map, with its `pairs`; `terms` None takes those of its paper.

    Depths for which the rule gives no map are no error here: `pairs` is empty and `problem` says why.
    Raises: ValueError for a preset that does not exist.
    """
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}; there are {list(PRESETS)}.")
    terms = PRESETS[preset].terms if terms is None else terms
    try:
        pairs = PRESETS[preset].rule(student_layers, teacher_layers)
    except ValueError as why:
        return {"pairs": (), "problem": str(why), "terms": [], "notes": []}
    return {"pairs": pairs} | layer_map_numbers(pairs, student_layers, teacher_layers, terms)


def _problem(pairs: list[tuple[int, ...]], student_layers: int, teacher_layers: int, kinds: list[str]) -> str | None:
    try:
        layer_maps.check(pairs, student_layers, teacher_layers)
    except ValueError as why:
        return str(why)
    return next(_refusals(pairs, student_layers, teacher_layers, kinds), None)


def _refusals(pairs: list[tuple[int, ...]], student_layers: int, teacher_layers: int, kinds: list[str]
              ) -> Iterator[str]:
    """Why these kinds of terms refuse a map whose layers all exist."""
    if not kinds:
        yield "No kind of term is chosen: the lines mean nothing."
    if "cls" in kinds and (zero := _first(pairs, lambda s, t: 0 in (s, t))):
        yield (f"Pair ({zero[0]}, {zero[1]}) compares [CLS] at layer 0, the embeddings. There [CLS] is the same "
               "vector for every sentence: it teaches nothing.")
    if "copy" in kinds and (mixed := _first(pairs, lambda s, t: 0 in (s, t) and s != t)):
        yield f"Pair ({mixed[0]}, {mixed[1]}): embeddings can only be copied from embeddings, a block from a block."
    if "copy" in kinds and (many := _first(pairs, lambda s, _: len(_theirs(pairs, s)) > 1)):
        yield (f"Student layer {many[0]} cannot start as a copy of {len(_theirs(pairs, many[0]))} teacher layers: "
               "the last copy would overwrite the others.")
    if "replace" in kinds and not _covers(pairs, student_layers, teacher_layers):
        yield (f"Replacing needs groups: the groups of student layers 1 to {student_layers}, in order, must be the "
               f"teacher layers 1 to {teacher_layers}, each of them once.")
    if kinds == ["attention"] and all(0 in pair for pair in pairs):
        yield "Attention exists only in blocks, and no pair joins two blocks: no term is left."


def _rows(kind: str, pairs: list[tuple[int, ...]]) -> list[list[str]]:
    if kind == "replace":
        groups = [(s, _theirs(pairs, s)) for s in dict.fromkeys(s for s, _ in pairs)]
        return [[f"{s} ← {', '.join(map(str, theirs))}", KINDS[kind],
                 f"student layer {s} in the place of teacher layer{'s' * (len(theirs) > 1)} {_listed(theirs)}"]
                for s, theirs in groups]
    write = {
        "hidden": lambda s, t: f"MSE({_named('student', s)}, {_named('teacher', t)})",
        "attention": lambda s, t: f"MSE(attention of student layer {s}, attention of teacher layer {t})",
        "cls": lambda s, t: f"‖[CLS] of student layer {s} − [CLS] of teacher layer {t}‖²",
        "copy": lambda s, t: f"{_named('student', s)} start{'s' * (s > 0)} as a copy of {_named('teacher', t)}",
    }[kind]
    blocks = kind == "attention"
    return [[f"{s} ← {t}", KINDS[kind], write(s, t)] for s, t in pairs if not (blocks and 0 in (s, t))]


def _notes(pairs: list[tuple[int, ...]], student_layers: int, teacher_layers: int, kinds: list[str]) -> list[str]:
    notes = []
    if "attention" in kinds and any(0 in pair for pair in pairs):
        notes.append("Attention exists only in blocks: a line at layer 0 makes no attention term.")
    if "cls" in kinds and any(t == teacher_layers for _, t in pairs):
        notes.append("The teacher’s last layer is in the map. PKD leaves it out: the teacher’s answers already "
                     "speak for it.")
    if "copy" in kinds:
        notes.append("Weights are copied once, before training: that is no loss term.")
    if "replace" in kinds:
        notes.append("Replaced blocks learn from the task’s own loss: the lines are no loss terms.")
    if any(a[0] < b[0] and a[1] > b[1] for a in pairs for b in pairs):
        notes.append("Lines cross: a later student layer learns from an earlier teacher layer.")
    for who, side, depth in (("Student", 0, student_layers), ("Teacher", 1, teacher_layers)):
        free = [layer for layer in range(1, depth + 1) if layer not in [pair[side] for pair in pairs]]
        if free:
            notes.append(f"{who} layer{'s' * (len(free) > 1)} without a line: {_listed(free)}.")
    return notes


def _first(pairs: list[tuple[int, ...]], test: Callable[[int, int], bool]) -> tuple[int, ...] | None:
    return next((pair for pair in pairs if test(*pair)), None)


def _theirs(pairs: list[tuple[int, ...]], student: int) -> list[int]:
    return [t for s, t in pairs if s == student]


def _covers(pairs: list[tuple[int, ...]], student_layers: int, teacher_layers: int) -> bool:
    groups = [_theirs(pairs, s) for s in range(1, student_layers + 1)]
    taken = [t for group in groups for t in group]
    return all(groups) and all(s for s, _ in pairs) and taken == list(range(1, teacher_layers + 1))


def _named(who: str, layer: int) -> str:
    return f"{who} layer {layer}" if layer else f"{who} embeddings"


def _listed(layers: Sequence[int]) -> str:
    """[1, 2, 3] -> "1, 2 and 3"."""
    *others, final = map(str, layers)
    return f"{', '.join(others)} and {final}" if others else final


def layer_map_view(student_layers: int = 3, teacher_layers: int = 6, preset: str = "skip",
                   terms: Sequence[str] | None = None, title: str = "Who learns from whom?", *,
                   layer_map: Iterable[Sequence[int]] | None = None) -> View:
    """The editor: two rows of layers, lines to move, published maps, and the terms that the lines make.

    student_layers, teacher_layers  where the depths stand at first, 1 to 12
    preset     the map at first: skip, last, uniform, top, bottom, distilbert, distilbert_code or theseus
    terms      what a line stands for at first: hidden, attention, cls, copy, replace; None takes the preset's own
    layer_map  your own pairs instead of the preset's; they may be impossible, and the editor then says why

    Raises: ValueError for depths outside 1..12, an unknown preset or kind, or pairs that are no pairs of integers.
    """
    for who, depth in (("student", student_layers), ("teacher", teacher_layers)):
        if not 1 <= depth <= DEEPEST:
            raise ValueError(f"The editor draws 1 to {DEEPEST} layers; the {who} has {depth}.")
    numbers = preset_numbers(preset, student_layers, teacher_layers, terms)
    terms = list(PRESETS[preset].terms if terms is None else dict.fromkeys(terms))
    if layer_map is not None:
        pairs = sorted({_integers(pair) for pair in layer_map})
        numbers = {"pairs": pairs} | layer_map_numbers(pairs, student_layers, teacher_layers, terms)
    data = {
        "title": title, "depths": [student_layers, teacher_layers], "deepest": DEEPEST,
        "preset": preset if layer_map is None else None, "pairs": [list(pair) for pair in numbers["pairs"]],
        "terms": terms, "kinds": [[key, label] for key, label in KINDS.items()], "losses": list(LOSSES),
        "presets": [[key, one.label, list(one.terms)] for key, one in PRESETS.items()],
    }
    lines = ", ".join(f"{s} from {t}" for s, t in numbers["pairs"]) or "nothing"
    alt = (f"{title}: a row of {teacher_layers} teacher layers above a row of {student_layers} student layers; "
           f"student layers learn: {lines}.")
    return View("layer_map", data, alt, (_terms_table(numbers), _presets_table(student_layers, teacher_layers)))


def _integers(pair: Sequence[int]) -> tuple[int, int]:
    if len(tuple(pair)) != 2 or any(isinstance(index, bool) or not isinstance(index, int) for index in pair):
        raise ValueError(f"{tuple(pair)} is not a pair of integers (student layer, teacher layer).")
    return tuple(pair)


def _terms_table(numbers: dict[str, object]) -> Table:
    rows = numbers["terms"] or [["none", "", numbers["problem"]]]
    return Table("What the lines make", ["student ← teacher", "kind", "term"], rows)


def _presets_table(student_layers: int, teacher_layers: int) -> Table:
    rows = []
    for key, preset in PRESETS.items():
        numbers = preset_numbers(key, student_layers, teacher_layers)
        pairs = ", ".join(f"{s} ← {t}" for s, t in numbers["pairs"])
        rows.append([preset.label, pairs or numbers["problem"], ", ".join(KINDS[kind] for kind in preset.terms)])
    return Table(f"Published maps for {student_layers} student and {teacher_layers} teacher layers",
                 ["map", "student ← teacher", "a line means"], rows)
