"""The parameter budget of a bottleneck block: what each part of a BERT or a MobileBERT holds, and what it computes.

`bottleneck_numbers` counts by formula; tests compare it with the networks themselves. `bottleneck.js` repeats the same
arithmetic for the controls, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from course_lib.notebook.tables import Table
from course_lib.notebook.views import View

PARTS = {"words": "word table", "embeddings": "other embeddings", "bottlenecks": "bottlenecks",
         "attention": "attention", "feed_forward": "feed-forward", "pooler": "pooler"}
WORD_TABLES = {"full": "as wide as the body", "quarter": "a quarter as wide",
               "trigrams": "a quarter as wide, with trigrams"}
VOCABULARIES = (8_000, 30_522, 32_768, 120_000)
LIMITS = {"layers": (1, 48), "body": (16, 2048), "bottleneck": (0, 2048), "feed_forwards": (1, 8)}
POSITIONS, TYPES, WIDER, TOKENS = 512, 2, 4, 128


@dataclass(frozen=True)
class Shape:
    """What the learner moves. bottleneck=0: none, a plain BERT block. Each feed-forward network is 4 times as wide
    inside as what it reads."""

    layers: int
    body: int
    bottleneck: int
    feed_forwards: int
    words: str = "full"
    vocabulary: int = 30_522


PRESETS = {
    "BERT-base": Shape(12, 768, 0, 1),
    "MobileBERT": Shape(24, 512, 128, 4, "trigrams"),
    "our teacher": Shape(6, 384, 0, 1),
    "our student": Shape(6, 384, 96, 4),
    "our student, small word table": Shape(6, 384, 96, 4, "quarter"),
}


def bottleneck_numbers(shape: Shape, tokens: int = TOKENS) -> dict[str, object]:
    """Parameters and floating-point operations of an encoder with pooler, by part.

    A linear layer a -> b holds a * b + b numbers and costs 2 * a * b operations per token (one product, one sum each).
    A (No)Norm holds two numbers per feature; norms, activations and sums are left out of the cost, as is usual. The
    attention itself costs 4 * tokens * width per token: the scores and the weighted sum of the values.

    shape   see `Shape`
    tokens  length of the text, for the cost of the attention
    Returns `parameters` (part -> count), `total`, `blocks` (all layers together), `block` (one layer), `operations`
    (part -> per token), `flops` (their sum), `inner` (width inside a block), `balance` (parameters of the feed-forward
    networks divided by those of the rest of the block: attention and bottlenecks; 2 in BERT).
    Raises: ValueError for a shape outside the limits, with the limits.
    Source: Sun et al. 2020, section 3.1 to 3.4, and `methods/mobilebert_model.py`. The pooler works once per text and
    is left out of the cost per token.
    """
    _require_possible(shape)
    body, layers, count = shape.body, shape.layers, shape.feed_forwards
    inner = shape.bottleneck or body
    wide = WIDER * inner
    inside = bool(shape.bottleneck)
    table = body if shape.words == "full" else body // 4
    read = 0 if shape.words == "full" else table * (3 if shape.words == "trigrams" else 1)
    parameters = {
        "words": shape.vocabulary * table,
        "embeddings": (POSITIONS + TYPES) * body + (_linear(read, body) if read else 0) + 2 * body,
        # in: one for the residual, one for queries and keys; out: one. Each with its norm.
        "bottlenecks": layers * inside * (2 * (_linear(body, inner) + 2 * inner) + _linear(inner, body) + 2 * body),
        # query, key, output; the values read the body
        "attention": layers * (3 * _linear(inner, inner) + _linear(body, inner) + 2 * inner),
        "feed_forward": layers * count * (_linear(inner, wide) + _linear(wide, inner) + 2 * inner),
        "pooler": _linear(body, body),
    }
    operations = {
        "embeddings": 2 * read * body,
        "bottlenecks": layers * inside * 6 * body * inner,
        "attention": layers * (6 * inner**2 + 2 * body * inner + 4 * tokens * inner),
        "feed_forward": layers * count * 4 * inner * wide,
    }
    blocks = sum(parameters[part] for part in ("bottlenecks", "attention", "feed_forward"))
    return {"parameters": parameters, "total": sum(parameters.values()), "blocks": blocks, "block": blocks // layers,
            "operations": operations, "flops": sum(operations.values()), "inner": inner,
            "balance": parameters["feed_forward"] / (blocks - parameters["feed_forward"])}


def _linear(width_in: int, width_out: int) -> int:
    return width_in * width_out + width_out


def _require_possible(shape: Shape) -> None:
    for name, (low, high) in LIMITS.items():
        value = getattr(shape, name)
        if not (isinstance(value, int) and low <= value <= high):
            raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
    if shape.words not in WORD_TABLES:
        raise ValueError(f"words must be one of {', '.join(WORD_TABLES)}, not {shape.words!r}.")
    if shape.vocabulary < 1:
        raise ValueError(f"A vocabulary has at least one word, not {shape.vocabulary}.")


def bottleneck_view(presets: Mapping[str, Shape] | None = None, *, start: str | None = None, tokens: int = TOKENS,
                    title: str = "A block with a bottleneck, and its budget") -> View:
    """The explorer: one block as a diagram, whose boxes are as wide as the tensors, and the parameters of each part.

    presets  name -> shape; None gives BERT-base, MobileBERT, the course's teacher and two students. Every preset can
             also be chosen as the model to compare with
    start    the preset to begin with; None: MobileBERT, or the first one where there is none
    tokens   length of the text, for the cost of the attention
    """
    presets = PRESETS if presets is None else presets
    if not presets:
        raise ValueError("The explorer needs at least one shape.")
    if start is None:
        start = "MobileBERT" if "MobileBERT" in presets else next(iter(presets))
    if start not in presets:
        raise ValueError(f"There is no preset {start!r}. There are: {', '.join(presets)}.")
    found = {name: bottleneck_numbers(shape, tokens) for name, shape in presets.items()}
    vocabularies = sorted({*VOCABULARIES, *(shape.vocabulary for shape in presets.values())})
    data = {"title": title, "tokens": tokens, "start": start, "limits": LIMITS, "parts": PARTS,
            "word_tables": WORD_TABLES, "vocabularies": vocabularies,
            "constants": {"positions": POSITIONS, "types": TYPES, "wider": WIDER},
            "presets": [{"name": name, **asdict(shape)} for name, shape in presets.items()]}
    alt = (f"{title}: a diagram of one block, as wide at each height as the tensor there, and the parameters of the "
           "model by part, as a stacked bar beside that of another model.")
    rows = [[name, *(f"{numbers['parameters'][part]:,}" for part in PARTS), f"{numbers['total']:,}",
             f"{numbers['block']:,}", f"{numbers['flops'] / 1e6:,.1f}"] for name, numbers in found.items()]
    table = Table(f"Parameters by part; operations per token in a text of {tokens} tokens, in millions",
                  ["model", *PARTS.values(), "all", "one block", "operations, millions"], rows)
    return View("bottleneck", data, alt, table)
