"""Projection explorer: what a narrow student can hold of a wide teacher, and on whose side the linear map may sit.

`principal_spreads` reads real hidden states once; `projection_numbers` computes everything that the picture shows from
them. `projection.js` repeats the same arithmetic for the sliders, and a test holds the two together.

## The model behind the numbers

The teacher's states (width d, centred) have variance lambda_1 >= lambda_2 >= ... along their principal directions. A
student of width k can at best hold the first k of them; `projections.Projection` is the map W between the widths.

    side      loss                      best student                          student that says the same everywhere
    student   mean (s W h_S - h_T)^2    (lost + (1 - s)^2 kept) / d           (lost + kept) / d
    teacher   mean (h_S - s W h_T)^2    0                                     s^2 kept / k

with kept = lambda_1 + ... + lambda_k and lost = the rest. W has orthonormal rows, and the scale s says how large W is.
The mean costs nothing: a bias, or one unit of the student that is always on, carries it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View
from course_lib.shared.masking import keep

Side = Literal["student", "teacher"]
NARROWEST, STEP = 16, 4
BERT_WIDTH = 768  # the width for which the parameters are counted as well


def principal_spreads(states: Float[Tensor, "*where width"], mask: Shaped[Tensor, "*where"] | None = None
                      ) -> list[float]:
    r"""Singular values of the centred states, divided by $\sqrt{\text{tokens}}$, largest first.

    Their squares are the variances along the principal directions; the sum of the squares, divided by the width, is
    `projections.price_of_collapse`.

    states  (tokens, width) or (batch, tokens, width)
    mask    1 = a real token; padding is left out. None: everything counts
    Raises: ValueError for fewer than two tokens, or if all states are equal.
    """
    rows = keep(states, mask).detach().double()
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} real tokens have no spread: give the states of some sentences.")
    centred = rows - rows.mean(dim=0)
    found = torch.linalg.eigvalsh(centred.T @ centred / len(rows)).flip(0).clamp(min=0).sqrt()  # (d, n) x (n, d)
    if not found[0] > 0:
        raise ValueError("All states are equal: there is nothing to project.")
    return found.tolist()


def projection_numbers(spreads: Sequence[float], width: int, *, side: Side = "student", scale: float = 1.0
                       ) -> dict[str, float]:
    """Everything that one position of the sliders shows; the equations are at the top of this file.

    spreads  singular values of the teacher's states, one per unit of its width (`principal_spreads`)
    width    the student's, from 1 to the teacher's
    side     whose states are mapped
    scale    size of the map, 0 to 1; 1 has orthonormal rows

    Returns `kept` (share of the variance, 0..1), `lost_error` (mean squared error of teacher states that went through
    `width` numbers and back), `parameters` of the matrix, `parameters_with_bias`, `best` and `constant` (the losses of
    the two students), `taught` (their difference: all that the loss can teach), `bert_width` and `bert_parameters`
    (the same share of 768, and its matrix).
    Raises: ValueError for an impossible width, side or scale.
    """
    teacher_width = len(spreads)
    if not 1 <= width <= teacher_width or width != int(width):
        raise ValueError(f"width {width}: a whole number from 1 to the teacher's {teacher_width} is needed.")
    if side not in ("student", "teacher"):
        raise ValueError(f"side must be 'student' or 'teacher', not {side!r}.")
    if not 0 <= scale <= 1:
        raise ValueError(f"scale {scale} is outside 0 to 1.")
    variances = [spread**2 for spread in spreads]
    kept, lost = sum(variances[:width]), sum(variances[width:])
    if side == "student":
        best, constant = (lost + (1 - scale) ** 2 * kept) / teacher_width, (lost + kept) / teacher_width
    else:
        best, constant = 0.0, scale**2 * kept / width
    bert_width = round(BERT_WIDTH * width / teacher_width)
    return {
        "kept": kept / (kept + lost),
        "lost_error": lost / teacher_width,
        "parameters": width * teacher_width,
        "parameters_with_bias": width * teacher_width + (teacher_width if side == "student" else width),
        "best": best,
        "constant": constant,
        "taught": constant - best,
        "bert_width": bert_width,
        "bert_parameters": BERT_WIDTH * bert_width,
    }


def projection_view(states: object, *, mask: Tensor | None = None, width: int = 128, side: Side = "student",
                    layer: int | None = None, title: str = "A projection between two widths") -> View:
    """The explorer: whose side is mapped, how narrow the student is, how large the map is; and what the loss sees.

    states  the teacher's: a `probes.Reading` (with its own mask), a dict of layer -> states (batch, tokens, width), or
            a dict of layer -> singular values (`principal_spreads`). Layer 0 is the embedding output
    mask    (batch, tokens), 1 = a real token, for a dict of states
    width   where the slider stands at first; it goes in steps of 4 from 16 to the teacher's width
    layer   the layer to show first; None: the last one

    Only the singular values go into the output, with five digits (about 3 kB per layer of width 384).
    Raises: ValueError for a width, side or layer that is not there, and for teachers narrower than 20.
    """
    found = _spreads(states, mask)
    layers = list(found)
    first = layers[-1] if layer is None else layer
    if first not in found:
        raise ValueError(f"Layer {first} is not there; there are {layers}.")
    teacher_width = len(found[first])
    if teacher_width < NARROWEST + STEP or any(len(spreads) != teacher_width for spreads in found.values()):
        raise ValueError(f"Widths {sorted({len(s) for s in found.values()})}: all layers need one width of at least "
                         f"{NARROWEST + STEP}.")
    if not NARROWEST <= width <= teacher_width:
        raise ValueError(f"The slider goes from {NARROWEST} to {teacher_width}; width {width} is outside.")
    projection_numbers(found[first], width, side=side)  # refuses an unknown side
    data = {"title": title, "layers": [[layer, spreads] for layer, spreads in found.items()],
            "start": layers.index(first), "width": int(width), "side": side,
            "narrowest": NARROWEST, "step": STEP, "bert": BERT_WIDTH, "presets": _presets(teacher_width)}
    numbers = projection_numbers(found[first], width)
    alt = (f"{title}: the singular values of the teacher’s layer {first}, of which {width} of {teacher_width} keep "
           f"{100 * numbers['kept']:.1f} % of the variance; and the loss over the size of the map, which falls to 0 on "
           "the teacher’s side without teaching anything.")
    return View("projection", data, alt, _tables(first, found[first], width))


def _presets(teacher_width: int) -> list[dict[str, object]]:
    """Three places to begin at; widths in the proportions of the papers."""
    def at(width: int) -> int:
        wanted = teacher_width * width / BERT_WIDTH
        return max(NARROWEST, min(teacher_width, NARROWEST + STEP * round((wanted - NARROWEST) / STEP)))

    return [
        {"name": "As narrow as TinyBERT-4 (312 of 768)", "width": at(312), "side": "student", "scale": 1},
        {"name": "A third (256 of 768)", "width": at(256), "side": "student", "scale": 1},
        {"name": "The trap", "width": at(256), "side": "teacher", "scale": 0.05},
    ]


def _spreads(states: object, mask: Tensor | None) -> dict[int, list[float]]:
    if hasattr(states, "hidden_states") and hasattr(states, "attention_mask"):
        states, mask = states.hidden_states, states.attention_mask
    if not isinstance(states, Mapping) or not states:
        raise ValueError("states: a probes.Reading, or a dict of layer -> states or singular values.")
    found = {}
    for layer, values in states.items():
        spreads = principal_spreads(values, mask) if isinstance(values, Tensor) and values.ndim > 1 else values
        # Five digits, and the same ones for Python and JavaScript: what is computed is what is stored.
        found[int(layer)] = sorted((float(f"{float(value):.4e}") for value in spreads), reverse=True)
        if not found[int(layer)][0] > 0 or found[int(layer)][-1] < 0:
            raise ValueError(f"Layer {layer}: singular values are not negative, and the largest is above 0.")
    return found


def _tables(layer: int, spreads: Sequence[float], width: int) -> tuple[Table, ...]:
    teacher_width = len(spreads)
    shown = sorted({w for w in (16, 32, 64, 128, 192, 256, 320, 384, teacher_width) if w <= teacher_width} | {width})
    widths = []
    for one in shown:
        numbers = projection_numbers(spreads, one)
        widths.append([str(one), readable(spreads[one - 1]), f"{100 * numbers['kept']:.1f} %",
                       readable(numbers["lost_error"], 4), f"{numbers['parameters']:,}"])
    scales = []
    for scale in (1.0, 0.5, 0.1, 0.0):
        both = [projection_numbers(spreads, width, side=side, scale=scale) for side in ("student", "teacher")]
        scales.append([f"{scale:g}", *(readable(one[key], 4) for one in both for key in ("best", "constant"))])
    return (
        Table(f"What a narrow student can hold of the teacher’s layer {layer} (width {teacher_width})",
              ["student’s width", "singular value", "variance kept", "error of the rest", "numbers in the map"],
              widths),
        Table(f"The loss at width {width}, over the scale of the map",
              ["scale", "student’s side, best student", "constant student", "teacher’s side, best student",
               "constant student"],
              scales))
