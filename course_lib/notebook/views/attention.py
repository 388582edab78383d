"""Attention view: where each token looks, head by head, for one model or for a teacher and its student.

`attention_numbers` compares two layers; `attention_view` packs all heads of all layers into one output. Probabilities
are rounded to three digits and written as two characters each, so six layers of twelve heads stay below 150 kB.
`attention_examples` puts several such views behind one row of buttons: other sentences, or other students.

Heads have no order of their own: head 3 of a student need not do what head 3 of its teacher does, and head counts may
differ. So every teacher head is compared with every student head, and the nearest one (smallest KL) is offered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SMALLEST = 1e-12  # a student's probability below this counts as this: float32 underflows where the logarithm needs > 0


def attention_numbers(teacher: object, student: object | None = None, mask: object | None = None) -> dict[str, object]:
    r"""Entropy and most-attended token per head, and how far the student's head is from the teacher's.

    KL of one head: the mean over the real query rows i of $\sum_j A^T_{ij} \log (A^T_{ij} / A^S_{ij})$.

    teacher, student  probabilities (heads, tokens, tokens): rows are queries, columns are keys
    mask              (tokens,), 1 = real token; padded rows and columns are cut off first. None: all are real

    Returns `entropy` (nats, one per head), `most_attended` (per head, one key index per query) and, with a student,
    `student_entropy`, `student_most_attended`, `kl` (one per head, head by head; None if the head counts differ),
    `kl_matrix` (one row per teacher head, one column per student head), `nearest` (per teacher head the student head
    with the smallest KL; of equal ones the first) and `nearest_kl`.
    Raises: ValueError if a row does not sum to 1 over the real tokens, or if the token counts differ.
    """
    p = _real_part(teacher, mask, "teacher")
    numbers: dict[str, object] = {"entropy": _entropy(p), "most_attended": p.argmax(-1).tolist()}
    if student is None:
        return numbers
    q = _real_part(student, mask, "student")
    if p.shape[1:] != q.shape[1:]:
        raise ValueError(f"Attention maps: teacher {p.shape} and student {q.shape} must see the same tokens. "
                         "Give both models the same input_ids.")
    # KL(p || q) = sum p log p - sum p log q; the second sum for every pair of heads: (a, i, j) x (b, i, j) -> (a, b)
    both = np.einsum("aij,bij->ab", p, -_log(q)) / p.shape[1] - np.array(_entropy(p))[:, None]
    matrix = np.maximum(both, 0.0)  # a head compared with itself may come out at -1e-16
    nearest = matrix.argmin(axis=1)
    return numbers | {
        "student_entropy": _entropy(q), "student_most_attended": q.argmax(-1).tolist(),
        "kl": matrix.diagonal().tolist() if p.shape == q.shape else None, "kl_matrix": matrix.tolist(),
        "nearest": nearest.tolist(), "nearest_kl": matrix[np.arange(len(nearest)), nearest].tolist()}


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, SMALLEST))


def _entropy(p: np.ndarray) -> list[float]:
    return (-(p * _log(p)).sum(-1).mean(-1)).tolist()  # mean over the queries


def _real_part(attention: object, mask: object | None, who: str) -> np.ndarray:
    """(heads, tokens, tokens) as float64 without the padded rows and columns."""
    tensor = hasattr(attention, "detach")
    values = np.asarray(attention.detach().cpu().double() if tensor else attention, dtype=np.float64)
    if values.ndim != 3 or values.shape[1] != values.shape[2]:
        raise ValueError(f"{who}: attention of shape {values.shape}; one sentence of one layer is "
                         "(heads, tokens, tokens). From a batch take attention_probs[layer][example].")
    if mask is not None:
        kept = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask).astype(bool)
        if kept.shape != values.shape[1:2]:
            raise ValueError(f"{who}: a mask of shape {kept.shape} does not fit {values.shape[1]} tokens.")
        values = np.ascontiguousarray(values[:, kept][:, :, kept])  # sums then run in one order, padded or not
    off = np.abs(values.sum(-1) - 1).max() if values.size else 1.0
    if not off < 0.01 or values.min() < 0:
        raise ValueError(f"{who}: the rows are no probabilities over the real tokens (a sum is off by {off:.2g}). "
                         "Pass attention_probs, not attention_scores, of a model that saw the attention_mask.")
    return values


def attention_view(attention: object, tokens: Sequence[str], *, layer_map: Sequence[tuple[int, int]] | None = None,
                   titles: tuple[str, str] = ("teacher", "student"), example: int = 0, mask: object | None = None,
                   title: str = "Where does each token look?", layer: int | None = None, head: int = 0) -> View:
    """Heat maps of one model, or of teacher and student side by side on the same sentence.

    The layer is chosen through the layer map, the teacher's head by a menu or in the small bars (KL per head). The
    student's head follows it: with the same number, or as the nearest one (the start where the head counts differ).

    attention  one model, or a pair (teacher, student). A model is a `probes.Reading`, or a dict of
               layer -> probabilities (heads, tokens, tokens)
    tokens     the words of the sentence, real tokens first; what the mask (or the end of the list) leaves out is cut
    layer_map  pairs (student_layer, teacher_layer), as in `layer_maps`; needed when the layer numbers differ
    example    which sentence of a `Reading`'s batch
    mask       (tokens,), 1 = real token; a `Reading` brings its own
    layer      the teacher layer to show first (None: the last one); `head` counts from 0, as the arrays do
    """
    pair = isinstance(attention, Sequence)
    models = [_layers(one, example) for one in (attention if pair else [attention])]
    if len(models) > 2:
        raise ValueError(f"One model or a pair (teacher, student), not {len(models)}.")
    reading = attention[0] if pair else attention
    if mask is None and hasattr(reading, "attention_mask"):
        mask = reading.attention_mask[example]
    if mask is None:
        size = next(iter(models[0].values())).shape[-1]
        mask = np.arange(size) < len(tokens)
    kept = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask).astype(bool)
    words = [str(word) for word in (np.asarray(tokens, dtype=object)[kept] if len(tokens) == len(kept) else tokens)]
    if len(words) != kept.sum():
        raise ValueError(f"{len(words)} tokens for {kept.sum()} real positions: "
                         "use tokenizer.convert_ids_to_tokens(input_ids[example]).")

    pairs = _pairs(models, layer_map)
    shown = [[_real_part(model[one[side]], kept, titles[side]) for one in pairs] for side, model in enumerate(models)]
    numbers = [attention_numbers(*(part[index] for part in shown)) for index in range(len(pairs))]
    start = len(pairs) - 1 if layer is None else next((i for i, one in enumerate(pairs) if one[0] == layer), None)
    if start is None:
        raise ValueError(f"Layer {layer} is not shown; there are {[one[0] for one in pairs]}.")
    if not 0 <= head < shown[0][0].shape[0]:
        raise ValueError(f"Head {head} does not exist; heads count from 0 to {shown[0][0].shape[0] - 1}.")

    data = {
        "title": title, "tokens": words, "titles": list(titles[: len(models)]), "pairs": pairs,
        "heads": [part[0].shape[0] for part in shown],
        "packed": [[pack(values) for values in part] for part in shown],
        "entropy": [[_short(one[key]) for one in numbers] for key in ("entropy", "student_entropy")[: len(models)]],
        "kl_matrix": [pack(one["kl_matrix"], 3) for one in numbers] if pair else None,
        "nearest": [one["nearest"] for one in numbers] if pair else None,
        "start": [start, head],
    }
    who = f"{titles[0]} and {titles[1]}" if pair else titles[0]
    alt = (f"Attention of the {who} on “{' '.join(words)}”: one square per pair of tokens, brighter where the row's "
           "token looks at the column's token.")
    return View("attention", data, alt, _tables(data, shown, numbers))


def attention_examples(views: Mapping[str, View], *, title: str = "Where does each token look?") -> View:
    """Several attention views in one, with a row of buttons: presets to choose from.

    views  name of the button -> `attention_view(...)`: other sentences, or other students on one sentence
    Raises: ValueError without a view, or for a view of another kind.
    """
    if not views or any(view.name != "attention" or "tokens" not in view.data for view in views.values()):
        raise ValueError("attention_examples takes a dict: name of the button -> attention_view(...).")
    tables = tuple(Table(f"{name}. {table.caption}", table.head, table.rows)
                   for name, view in views.items() for table in view.table)
    alt = f"{title} (one picture each for: {', '.join(views)}). {next(iter(views.values())).alt}"
    data = {"title": title, "examples": [{**view.data, "title": "", "name": name} for name, view in views.items()]}
    return View("attention", data, alt, tables)


def pack(values: np.ndarray, characters: int = 2) -> str:
    """Thousandths in base 64: 0.417 -> 417 = 6 * 64 + 33 -> 'Gh'. Two characters reach 4.095, three 262.143."""
    thousandths = np.rint(np.asarray(values) * 1000).astype(int).ravel()
    places = [64**power for power in reversed(range(characters))]
    return "".join(DIGITS[value // place % 64] for value in thousandths for place in places)


def _layers(model: object, example: int) -> dict[int, object]:
    if hasattr(model, "attention_probs"):
        return {layer: values[example] for layer, values in model.attention_probs.items()}
    if not isinstance(model, Mapping) or not model:
        raise ValueError("A model is a probes.Reading or a dict: layer -> probabilities (heads, tokens, tokens).")
    return dict(model)


def _pairs(models: list[dict[int, object]], layer_map: Sequence[tuple[int, int]] | None) -> list[list[int]]:
    """[teacher layer] or [teacher layer, student layer], in the order of the menu."""
    if len(models) == 1:
        return [[layer] for layer in models[0]]
    teacher, student = models
    if layer_map is None:
        if list(teacher) != list(student):
            raise ValueError(f"Teacher layers {list(teacher)} and student layers {list(student)} differ: say with "
                             "layer_map=((student_layer, teacher_layer), ...) which belong together.")
        return [[layer, layer] for layer in teacher]
    missing = [one for one in layer_map if one[0] not in student or one[1] not in teacher]
    if missing or not layer_map:
        raise ValueError(f"layer_map {tuple(layer_map)}: {missing} is not there. The student has layers "
                         f"{list(student)}, the teacher {list(teacher)}; a pair is (student_layer, teacher_layer).")
    return [[theirs, ours] for ours, theirs in layer_map]


def _short(values: Sequence[float]) -> list[float]:
    return [round(value, 3) + 0.0 for value in values]


def _tables(data: dict, shown: list, numbers: list) -> tuple[Table, ...]:
    index, head = data["start"]
    words, titles, pairs = data["tokens"], data["titles"], data["pairs"]
    head_of = [min(head, count - 1) for count in data["heads"]]
    rows = []
    for query, word in enumerate(words):
        row = [word]
        for side, part in enumerate(shown):
            values = part[index][head_of[side], query]
            row += [words[int(values.argmax())], readable(float(values.max()))]
        rows.append(row)
    names = [f"{name} layer {layer}" for name, layer in zip(titles, pairs[index], strict=True)]
    looks = Table(f"Where each token looks most: {', '.join(names)}, head {head}",
                  ["token", *(cell for name in titles for cell in (f"{name} looks at", "with"))], rows)
    key = "entropy" if numbers[0].get("kl") is None else "kl"
    captions = {"kl": f"KL({' ‖ '.join(titles)}) of each head, in nats",
                "entropy": f"Entropy of each head of the {titles[0]}, in nats"}
    per_head = Table(captions[key], ["layer", *(f"head {number}" for number in range(data["heads"][0]))],
                     [[" → ".join(map(str, pair)), *(readable(value) for value in one[key])]
                      for pair, one in zip(pairs, numbers, strict=True)])
    if len(titles) == 1:
        return looks, per_head
    caption = f"Nearest head of the {titles[1]} for each head of the {titles[0]}: its number, its KL"
    nearest = Table(caption, per_head.head,
                    [[" → ".join(map(str, pair)), *(f"{at}: {readable(value)}" for at, value in zip(
                        one["nearest"], one["nearest_kl"], strict=True))]
                     for pair, one in zip(pairs, numbers, strict=True)])
    return looks, per_head, nearest
