"""Chapter 8: solutions, typical mistakes, and the right answers by NumPy and plain Python."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------


def _ship_names(blocks, layers, parts=("attention.self.query.weight", "output.dense.bias")):
    names = ["bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm.bias"]
    for i in range(blocks):
        sides = [f"predecessor.{j}" for j in range(layers)] + ["successor.0"]
        names += [f"bert.encoder.layer.{i}.{side}.{part}" for side in sides for part in parts]
    return [*names, "bert.pooler.dense.weight", "classifier.weight", "classifier.bias"]


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=g)

    def z(*shape):
        return torch.randn(*shape, generator=g)

    def ship(about, draws, modules=3, layers=2, width=5, **more):
        return case(about, hidden=z(4, width), target=z(4, width), predecessor=z(modules, layers, width, width),
                    successor=z(modules, width, width), draws=draws, **more)

    one_draw = (rand(40, 1) < 0.5).expand(40, 4).clone()
    jumped = torch.ones(40, 4, dtype=torch.bool)
    first_mixed, first_kept = jumped.clone(), jumped.clone()
    first_mixed[0] = torch.tensor([True, False, False, True])
    first_kept[0] = False
    pairs = rand(60, 2) < 0.5
    pairs[5] = torch.tensor([True, False])
    return {
        "ch08.q1": [
            case("the first batch, base 0.3", step=0, base=0.3, k=0.0006),
            case("batch 100, base 0.3, k 0.0006", step=100, base=0.3, k=0.0006),
            case("batch 2,000, base 0.3, k 0.0006", step=2000, base=0.3, k=0.0006),
            case("batch 50, base 0.1, k 0.02", step=50, base=0.1, k=0.02),
            case("batch 10, base 0.2, k 0.03", step=10, base=0.2, k=0.03),
            case("the first batch, base 0.25, k 0.5", step=0, base=0.25, k=0.5),
            case("batch 1,000,000", "extremes", step=1_000_000, base=0.5, k=0.001),
        ],
        "ch08.q2": [
            case("8 batches of 3 modules, rising rates", chances=rand(8, 3), rates=torch.linspace(0.3, 1.0, 8)),
            case("5 batches of 6 modules, falling rates", chances=rand(5, 6), rates=torch.linspace(0.9, 0.1, 5)),
            case("as many batches as modules", chances=rand(4, 4), rates=torch.tensor([0.1, 0.9, 0.2, 0.8])),
            case("12 batches of 2 modules", chances=rand(12, 2), rates=rand(12)),
            case("rate 1 and a rate of almost 0", "extremes", chances=rand(2, 30).clamp(0.01, 0.999),
                 rates=torch.tensor([1.0, 0.001])),
        ],
        "ch08.q3": [
            ship("draws True, False, True", [True, False, True], gradient_of="successor"),
            ship("draws False, True, False", [False, True, False]),
            ship("draws True, True, False and three layers per module", [True, True, False], layers=3, width=4,
                 gradient_of="successor"),
            ship("two modules, both kept", [False, False], modules=2),
            ship("two modules, both replaced", [True, True], modules=2, gradient_of="successor"),
        ],
        "ch08.q4": [
            case("a ship of 2 modules of 2 layers", names=_ship_names(2, 2)),
            case("a ship of 3 modules of 2 layers", names=_ship_names(3, 2)),
            case("a ship of 12 modules of 1 layer", names=_ship_names(12, 1, ("output.dense.weight",))),
            case("a list without any block", "extremes", names=["embeddings.weight", "classifier.bias"]),
        ],
        "ch08.q5": [
            case("norms 3 and 4, limit 1", successor_norm=3.0, frozen_norm=4.0, limit=1.0),
            case("norms 0.3 and 0.4, limit 1", successor_norm=0.3, frozen_norm=0.4, limit=1.0),
            case("norms 0.6 and 6, limit 1", successor_norm=0.6, frozen_norm=6.0, limit=1.0),
            case("norms 5 and 0.5, limit 2", successor_norm=5.0, frozen_norm=0.5, limit=2.0),
            case("norms 1.5 and 0, limit 1", successor_norm=1.5, frozen_norm=0.0, limit=1.0),
            case("no gradient at all", "extremes", successor_norm=0.0, frozen_norm=0.0, limit=1.0),
        ],
        "ch08.q6": [
            case("40 batches of 4 modules, each module with its own draw", draws=rand(40, 4) < 0.5),
            case("one draw for all modules of a batch", draws=one_draw),
            case("a first batch of its own, then Trues", draws=first_mixed),
            case("nothing but Trues", draws=jumped),
            case("a first batch of Falses, then Trues", draws=first_kept),
            case("60 batches of 2 modules", draws=pairs),
        ],
    }


# --- the right answers, without PyTorch -------------------------------------------------------------------------------


def _rate(step, base, k):
    return float(np.clip(np.polyval([k, base], step), None, 1.0))


def _draws(chances, rates):
    return np.array([[chance < rate for chance in row]
                     for row, rate in zip(chances.numpy(), rates.numpy(), strict=True)])


def _chain(predecessor, successor, draws):
    """The matrices of the path, each with the module it belongs to if it is a successor's (else None)."""
    chain = []
    for i, replaced in enumerate(draws):
        chain += [(successor[i], i)] if replaced else [(matrix, None) for matrix in predecessor[i]]
    return chain


def _loss_and_gradient(hidden, target, predecessor, successor, draws):
    x, target, old, new = (t.double().numpy() for t in (hidden, target, predecessor, successor))
    chain, inputs = _chain(old, new, draws), []
    for matrix, _ in chain:
        inputs.append(x)
        x = np.tanh(x @ matrix)
    loss, gradient = np.mean((x - target) ** 2), np.zeros_like(new)
    back, after = 2 * (x - target) / x.size, x
    for (matrix, module), before in zip(reversed(chain), reversed(inputs), strict=True):
        back = back * (1 - after**2)
        if module is not None:
            gradient[module] = before.T @ back
        back, after = back @ matrix.T, before
    return loss, gradient


def _names(names):
    plain = []
    for name in names:
        pieces = name.split(".")
        if "predecessor" in pieces:
            continue
        if "successor" in pieces:
            at = pieces.index("successor")
            pieces = pieces[:at] + pieces[at + 2:]
        plain.append(".".join(pieces))
    return plain


def _factor(successor_norm, frozen_norm, limit):
    norm = np.linalg.norm([successor_norm, frozen_norm])
    return float(limit / norm) if norm > limit else 1.0


def _diagnosis(draws):
    rows = [set(row) for row in draws.bool().tolist()]
    if all(row == {True} for row in rows[1:]):
        return "jumped to 1"
    return "one draw" if all(len(row) == 1 for row in rows) else "healthy"


EXPECTED = {
    "ch08.q1": _rate,
    "ch08.q2": _draws,
    "ch08.q3": lambda **args: _loss_and_gradient(**args)[0],
    "ch08.q4": _names,
    "ch08.q5": _factor,
    "ch08.q6": _diagnosis,
}
GRADIENTS = {"ch08.q3": lambda **args: _loss_and_gradient(**args)[1]}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _loss_by(run_module, reduction="mean"):
    """A mixture whose modules do something wrong: run_module(x, predecessor[i], successor[i], draws, i)."""
    def loss(hidden, target, predecessor, successor, draws):
        x = hidden
        for i in range(len(draws)):
            x = run_module(x, predecessor[i], successor[i], draws, i)
        return F.mse_loss(x, target, reduction=reduction)
    return loss


def _layers(x, matrices):
    for matrix in matrices:
        x = torch.tanh(x @ matrix)
    return x


def _right_module(x, old, new, draws, i):
    return _layers(x, [new] if draws[i] else old)


def _from_the_start(hidden, target, predecessor, successor, draws):
    for i in range(len(draws)):
        x = _right_module(hidden, predecessor[i], successor[i], draws, i)
    return F.mse_loss(x, target)


def _hyp(successor_norm, frozen_norm):
    return (successor_norm**2 + frozen_norm**2) ** 0.5


def _one_piece(draws, dim=1):
    return draws.all(dim=dim) == draws.any(dim=dim)


def _order(draws):
    if _one_piece(draws)[1:].all():
        return "one draw"
    return "jumped to 1" if draws[1:].all() else "healthy"


def _counts_the_first(draws):
    if draws.all():
        return "jumped to 1"
    return "one draw" if _one_piece(draws).all() else "healthy"


def _any_batch(draws):
    if draws[1:].all():
        return "jumped to 1"
    return "one draw" if _one_piece(draws).any() else "healthy"


def _along_the_batches(draws):
    if draws[1:].all():
        return "jumped to 1"
    return "one draw" if _one_piece(draws, dim=0).all() else "healthy"


MISTAKES = {
    "ch08.q1": {
        "no_lid": lambda step, base, k: k * step + base,
        "no_base": lambda step, base, k: min(1.0, k * step),
        "swapped": lambda step, base, k: min(1.0, base * step + k),
        "from_one": lambda step, base, k: min(1.0, k * (step + 1) + base),
        "max": lambda step, base, k: max(1.0, k * step + base),
    },
    "ch08.q2": {
        "inverted": lambda chances, rates: chances > rates[:, None],
        "one_draw": lambda chances, rates: (chances[:, :1] < rates[:, None]).expand_as(chances),
        "drawn_once": lambda chances, rates: chances[:1] < rates[:, None],
        "first_rate": lambda chances, rates: chances < rates[0],
        "half": lambda chances, rates: chances < 0.5,
        "last_rate": lambda chances, rates: chances < rates[-1],
    },
    "ch08.q3": {
        "inverted": _loss_by(lambda x, old, new, draws, i: _layers(x, old if draws[i] else [new])),
        "both": _loss_by(lambda x, old, new, draws, i: _layers(x, old) + _layers(x, [new])),
        "average": _loss_by(lambda x, old, new, draws, i: (_layers(x, old) + _layers(x, [new])) / 2),
        "one_draw": _loss_by(lambda x, old, new, draws, i: _layers(x, [new] if draws[0] else old)),
        "one_layer": _loss_by(lambda x, old, new, draws, i: _layers(x, [new] if draws[i] else old[:1])),
        "side_by_side": _loss_by(lambda x, old, new, draws, i: _layers(x, [new]) if draws[i] else sum(
            _layers(x, [matrix]) for matrix in old)),
        "from_the_start": _from_the_start,
        "sum": _loss_by(_right_module, reduction="sum"),
    },
    "ch08.q4": {
        "keeps_the_predecessor": lambda names: [name.replace(".successor.0.", ".") for name in names],
        "not_renamed": lambda names: [name for name in names if ".predecessor." not in name],
        "layers_only": lambda names: [name.replace(".successor.0.", ".") for name in names if ".successor." in name],
        "no_number": lambda names: [
            ".".join(piece for piece in name.replace(".successor.0.", ".").split(".") if not piece.isdigit())
            for name in names if ".predecessor." not in name],
        "both_renamed": lambda names: [
            ".".join(piece for at, piece in enumerate(pieces) if piece not in ("successor", "predecessor")
                     and (at == 0 or pieces[at - 1] not in ("successor", "predecessor")))
            for pieces in (name.split(".") for name in names)],
    },
    "ch08.q5": {
        "frozen_ignored": lambda successor_norm, frozen_norm, limit: min(1.0, limit / max(successor_norm, 1e-12)),
        "norms_added": lambda successor_norm, frozen_norm, limit: min(
            1.0, limit / max(successor_norm + frozen_norm, 1e-12)),
        "no_lid": lambda successor_norm, frozen_norm, limit: limit / max(_hyp(successor_norm, frozen_norm), 1e-12),
        "inverse": lambda successor_norm, frozen_norm, limit: max(1.0, _hyp(successor_norm, frozen_norm) / limit),
        "squares": lambda successor_norm, frozen_norm, limit: min(
            1.0, limit / max(_hyp(successor_norm, frozen_norm) ** 2, 1e-12)),
    },
    "ch08.q6": {
        "order": _order,
        "counts_the_first": _counts_the_first,
        "any_batch": _any_batch,
        "along_the_batches": _along_the_batches,
        "never_jumped": lambda draws: "one draw" if _one_piece(draws).all() else "healthy",
    },
}
