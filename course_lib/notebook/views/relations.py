"""Relations view: what MiniLM compares, head by head, in the teacher and in the student.

Version 1 shows two tables side by side for each model: the attention softmax(QK^T / sqrt(d)) and the value relation
softmax(VV^T / sqrt(d)). Version 2 shows QQ, KK and VV. The page holds the scores BEFORE the softmax, so it can also
show what goes wrong when the mask is forgotten or the scale is not sqrt(d). `relation_numbers` computes everything
that one position of the switches shows; `relations.js` repeats the same arithmetic, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View
from course_lib.shared.probes import Reading, scaled_dot_products

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LARGEST = 2**17 - 1  # three characters hold 18 bits: a sign and 17 digits
MOST_BYTES = 80_000

# What is multiplied with what, its name, and its formula. Only the first table is not symmetric.
KINDS = {"qk": ("attention", "QKᵀ"), "vv": ("value relation", "VVᵀ"), "qq": ("queries", "QQᵀ"), "kk": ("keys", "KKᵀ")}
VERSIONS = {"MiniLM: attention and values": ("qk", "vv"), "MiniLM v2: QQ, KK, VV": ("qq", "kk", "vv")}
SCALES = ("√d of the head", "√ of the whole width", "nothing")


def scale_factors(d_head: int, heads: int) -> list[float]:
    """What the scores, already divided by sqrt(d), are multiplied with to get each of `SCALES`."""
    return [1.0, heads**-0.5, d_head**0.5]


def relation_numbers(teacher: object, student: object, mask: object, *, factors: Sequence[float] = (1.0, 1.0)
                     ) -> dict[str, np.ndarray]:
    r"""Both relations of one kind, and how far they are from each other, for all heads of one sentence.

    $R = \mathrm{softmax}(S)$ over the kept keys; KL of one row: $\sum_j R^T_{ij} \log (R^T_{ij} / R^S_{ij})$; KL of a
    head: the mean over its kept rows.

    teacher, student  scores (heads, tokens, tokens), divided by sqrt(d); rows ask, columns answer
    mask              (tokens,), 1 = takes part; padded rows and columns are 0 in everything that is returned
    factors           one number for each model that its scores are multiplied with (a wrong scale)

    Returns: `teacher`, `student` (heads, tokens, tokens), `row_kl` (heads, tokens), `kl` (heads,).
    Raises: ValueError for two tables of different shape, or a mask that fits neither or is empty.
    """
    scores = [np.asarray(one, dtype=np.float64) * factor for one, factor in zip((teacher, student), factors,
                                                                                strict=True)]
    kept = np.asarray(mask).astype(bool)
    if scores[0].shape != scores[1].shape:
        raise ValueError(f"Relations: teacher {scores[0].shape} and student {scores[1].shape} need equal heads and the "
                         "same tokens. Other head counts are for minilm.relation_transfer.")
    if kept.shape != scores[0].shape[1:2] or not kept.any():
        raise ValueError(f"A mask of shape {kept.shape} with {kept.sum()} kept tokens for {scores[0].shape[1]} tokens.")
    logs = [_log_softmax(one[:, kept][:, :, kept]) for one in scores]
    row_kl = np.zeros(scores[0].shape[:2])
    row_kl[:, kept] = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1)
    tables = np.zeros((2, *scores[0].shape))
    tables[np.ix_([0, 1], range(len(scores[0])), kept, kept)] = np.exp(logs)
    return {"teacher": tables[0], "student": tables[1], "row_kl": row_kl, "kl": row_kl[:, kept].mean(-1)}


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def relation_scores(reading: Reading, layer: int | None = None, example: int = 0) -> dict[str, np.ndarray]:
    """The scores of all kinds for one sentence: kind -> (heads, tokens, tokens). layer None: the last one.

    Raises: ValueError for a layer that the reading does not have.
    """
    layer = max(reading.queries) if layer is None else layer
    if layer not in reading.queries:
        raise ValueError(f"There is no layer {layer}; there are {list(reading.queries)}.")
    parts = {"q": reading.queries, "k": reading.keys, "v": reading.values}
    parts = {name: per_layer[layer][example:example + 1].detach() for name, per_layer in parts.items()}
    return {kind: scaled_dot_products(parts[kind[0]], parts[kind[1]])[0].double().cpu().numpy() for kind in KINDS}


def pack(scores: np.ndarray, *, symmetric: bool) -> dict[str, object]:
    """Scores as text, three characters each, in steps of 1/131,071 of the largest; a symmetric table only once.

    Returns: {"step": the size of one unit, "text": heads after heads, rows after rows (upper triangle if symmetric)}.
    """
    tokens = scores.shape[-1]
    rows, columns = np.triu_indices(tokens) if symmetric else np.indices((tokens, tokens)).reshape(2, -1)
    values = scores[:, rows, columns].ravel()
    step = float(f"{max(np.abs(values).max(), 1e-6) / LARGEST:.6g}")
    units = np.clip(np.rint(values / step), -LARGEST, LARGEST).astype(int) + LARGEST
    return {"step": step,
            "text": "".join(DIGITS[unit >> 12] + DIGITS[unit >> 6 & 63] + DIGITS[unit & 63] for unit in units)}


def unpack(packed: Mapping[str, object], tokens: int, *, symmetric: bool) -> np.ndarray:
    """The inverse of `pack`, with its rounding: (heads, tokens, tokens)."""
    codes = np.array([DIGITS.index(character) for character in packed["text"]]).reshape(-1, 3)
    values = ((codes @ [4096, 64, 1]) - LARGEST) * packed["step"]
    if not symmetric:
        return values.reshape(-1, tokens, tokens)
    rows, columns = np.triu_indices(tokens)
    whole = np.zeros((len(values) // len(rows), tokens, tokens))
    whole[:, rows, columns] = whole[:, columns, rows] = values.reshape(len(whole), -1)
    return whole


def relations_view(teacher: Reading, student: Reading, tokens: Sequence[str], *, example: int = 0, head: int = 0,
                   layers: tuple[int | None, int | None] = (None, None),
                   titles: tuple[str, str] = ("teacher", "student"),
                   title: str = "What MiniLM compares") -> View:
    """Attention and value relation (or QQ, KK and VV) of teacher and student on the same sentence.

    teacher, student  `probes.Reading`s of the same batch, with equal head counts; widths may differ
    tokens            the words of sentence `example`, padding included ([PAD]): it is shown, and takes no part until
                      the reader switches the mask off
    head              the head to show first, counted from 0
    layers            teacher layer and student layer; None is the last one of each, as in the paper

    In version 2 the relation heads are the attention heads here (A_r = number of heads).
    Raises: ValueError for other head counts, for tokens that do not fit, or a sentence that is too long for a page.
    """
    both = [relation_scores(reading, layer, example) for reading, layer in zip((teacher, student), layers, strict=True)]
    mask = teacher.attention_mask[example].cpu().numpy().astype(int)
    heads, count = both[0]["qk"].shape[:2]
    if both[1]["qk"].shape != (heads, count, count):
        raise ValueError(f"The teacher has {heads} heads over {count} tokens, the student {both[1]['qk'].shape[0]} "
                         f"heads over {both[1]['qk'].shape[1]}. Give both the same batch, and a student with as many "
                         "heads (version 1 needs that; minilm.relation_transfer does not).")
    if len(tokens) != count:
        raise ValueError(f"{len(tokens)} tokens for {count} positions, padding included: use "
                         "tokenizer.convert_ids_to_tokens(input_ids[example]).")
    if not 0 <= head < heads:
        raise ValueError(f"Head {head} does not exist; heads count from 0 to {heads - 1}.")

    packed = {kind: [pack(scores[kind], symmetric=kind != "qk") for scores in both] for kind in KINDS}
    sizes = [reading.queries[max(reading.queries)].shape[-1] for reading in (teacher, student)]
    data = {
        "title": title, "tokens": [str(token) for token in tokens], "titles": list(titles), "mask": mask.tolist(),
        "heads": heads, "head": head, "packed": packed, "kinds": {kind: list(text) for kind, text in KINDS.items()},
        "versions": [[name, list(kinds)] for name, kinds in VERSIONS.items()], "scales": list(SCALES),
        "factors": [scale_factors(size, heads) for size in sizes],
    }
    size = sum(len(side["text"]) for sides in packed.values() for side in sides)
    if size > MOST_BYTES - 2000:
        raise ValueError(f"{heads} heads over {count} tokens need {size:,} bytes; {MOST_BYTES:,} are the most for a "
                         "page. Choose a shorter sentence.")
    numbers = {kind: relation_numbers(*(unpack(side, count, symmetric=kind != "qk") for side in packed[kind]), mask)
               for kind in KINDS}
    words = [word for word, real in zip(data["tokens"], mask, strict=True) if real]
    alt = (f"Relations between the tokens of “{' '.join(words)}” in {titles[0]} and {titles[1]}: one square per "
           "pair of tokens, brighter where the row's token relates more to the column's token.")
    return View("relations", data, alt, _tables(data, numbers))


def _tables(data: dict, numbers: dict) -> tuple[Table, ...]:
    titles, tokens, head = data["titles"], data["tokens"], data["head"]
    per_head = Table(f"KL({' ‖ '.join(titles)}) of each head, in nats", ["head", *(KINDS[kind][0] for kind in KINDS)],
                     [[str(number), *(readable(float(numbers[kind]["kl"][number])) for kind in KINDS)]
                      for number in range(data["heads"])])
    rows = []
    for query, word in enumerate(tokens):
        if not data["mask"][query]:
            continue
        row = [word]
        for kind in ("qk", "vv"):
            for side in ("teacher", "student"):
                values = numbers[kind][side][head, query]
                row.append(f"{tokens[int(values.argmax())]} {readable(float(values.max()))}")
        rows.append(row)
    columns = [f"{KINDS[kind][0]}, {title}" for kind in ("qk", "vv") for title in titles]
    return per_head, Table(f"The strongest relation of each token, head {head}", ["token", *columns], rows)
