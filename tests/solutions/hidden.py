"""Hidden cases: other inputs of the same kinds, for a grader. None of them is one of the public inputs.

Most questions draw their inputs from the seed, and another seed gives others. The questions below have inputs that were
written by hand, or that are too special to be drawn: for them OTHERS draws new ones. Their stage is "extremes", because
nobody asks which typical mistake was made: an answer that comes so far was right with all public inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from course_lib.notebook.exercises.questions import chapter
from solutions import ch02, ch08
from solutions.make_golden import golden, module_of, stored

TRIES = 200  # draws until enough inputs are found that no public case has
FEWEST = 4  # hidden cases of a question whose inputs are drawn here


def hidden(name: str, seed: int) -> dict[str, Any]:
    """Hidden inputs of a chapter and what they must give, in the form of `golden/<name>.json`."""
    public, drawn = golden(name), golden(name, seed)
    return {q.name: _without(public[q.name], [*drawn[q.name], *_others(q.name, seed)]) for q in chapter(name).questions}


def _without(public: list[dict], cases: list[dict]) -> list[dict]:
    known = [case["args"] for case in public]
    return [case for case in cases if case["args"] not in known]


def _others(question: str, seed: int) -> list[dict]:
    if question not in OTHERS:
        return []
    dice = random.Random(f"{seed} {question}")
    public, found = golden(question.partition(".")[0])[question], []
    for _ in range(TRIES):
        case = {"about": "other inputs", "stage": "extremes", "args": OTHERS[question](dice)}
        new = _without([*public, *found], [stored(module_of(question), question, {}, case)])
        found += new
        if len(found) == 2 * FEWEST:
            break
    return found


def _word(dice: random.Random, shortest: int = 1, longest: int = 4) -> str:
    return "".join(dice.choices("abcde", k=dice.randint(shortest, longest)))


def _wordpiece(dice: random.Random) -> dict[str, Any]:
    starts = [_word(dice) for _ in range(8)]
    inside = [_word(dice, 1, 3) for _ in range(10)]
    built = dice.choice(starts) + "".join(dice.choices(inside, k=dice.randint(0, 3)))
    return {"word": dice.choice([built, built, _word(dice, 3, 8)]),
            "vocabulary": {*starts, *("##" + piece for piece in inside), "[UNK]"}}


def _factor(dice: random.Random) -> dict[str, Any]:
    return {"reduction": dice.choice(["mean", "batchmean", "sum"]), "batch": dice.randint(2, 64),
            "tokens": dice.randint(2, 128), "classes": dice.randint(2, 9000)}


def _ngrams(dice: random.Random) -> dict[str, Any]:
    words = dice.choices(["a", "dull", "plot", "but", "the", "acting", "is", "fine", "so", "slow"],
                         k=dice.randint(1, 12))
    return {"words": words, "n": dice.randint(1, 6)}


def _rule(dice: random.Random) -> dict[str, Any]:
    while True:
        p_mask, p_pos = round(dice.uniform(0.05, 0.45), 2), round(dice.uniform(0.1, 0.6), 2)
        shares = ch02._shares(p_mask, p_pos)
        apart = min(abs(a[0] - b[0]) + abs(a[1] - b[1]) for n, a in shares.items() for m, b in shares.items() if n < m)
        if apart > 0.04:  # else the measured shares fit two codes
            masked, replaced = shares[dice.choice(list(shares))]
            return {"masked": round(masked + 0.003, 4), "replaced": round(abs(replaced - 0.004), 4), "p_mask": p_mask,
                    "p_pos": p_pos}


def _encoder(dice: random.Random) -> dict[str, Any]:
    hidden_size = 4 * dice.randint(2, 200)
    return {"layers": dice.randint(1, 24), "hidden": hidden_size, "feed_forward": dice.randint(1, 5) * hidden_size + 3,
            "vocabulary": dice.randint(50, 40_000), "positions": dice.randint(8, 600),
            "token_types": dice.choice([0, 2]), "pooler": dice.random() < 0.5}


def _skip(dice: random.Random) -> dict[str, Any]:
    student = dice.randint(2, 9)
    return {"student_layers": student, "teacher_layers": student * dice.randint(2, 6)}


def _beta(dice: random.Random) -> dict[str, Any]:
    return {"beta_of_the_mean": float(dice.randint(2, 2000)), "student_layers": dice.randint(2, 12),
            "hidden": 4 * dice.randint(10, 300)}


def _question(dice: random.Random) -> dict[str, Any]:
    middle = dice.choices(range(5, 12), k=dice.randint(2, 9))
    return {"ids": [101, *middle, 102], "position": dice.randint(1, len(middle)), "mask_id": dice.randint(103, 110)}


def _block(dice: random.Random) -> dict[str, Any]:
    inner = dice.randint(2, 160)
    return {"body": inner + dice.randint(1, 500), "inner": inner, "feed_forwards": dice.randint(1, 6)}


def _rates(dice: random.Random) -> dict[str, Any]:
    layers = dice.randint(2, 20)
    return {"current": dice.randint(1, layers), "layers": layers, "rate": round(dice.uniform(0.001, 0.9), 4)}


def _replacing(dice: random.Random) -> dict[str, Any]:
    return {"step": dice.choice([0, dice.randint(1, 400), dice.randint(400, 9000)]),
            "base": round(dice.uniform(0.05, 0.9), 3), "k": round(dice.uniform(0.0001, 0.004), 5)}


def _names(dice: random.Random) -> dict[str, Any]:
    parts = dice.sample(["attention.self.key.weight", "attention.output.dense.bias", "output.dense.weight",
                         "intermediate.dense.weight"], k=dice.randint(1, 3))
    return {"names": ch08._ship_names(dice.randint(1, 13), dice.randint(1, 3), tuple(parts))}


def _clip(dice: random.Random) -> dict[str, Any]:
    return {"successor_norm": round(dice.uniform(0.0, 6.0), 2), "frozen_norm": round(dice.uniform(0.0, 6.0), 2),
            "limit": float(dice.choice([1, 2, 3, 5]))}


def _rows(dice: random.Random) -> dict[str, Any]:
    keys = [f"d{number}" for number in range(12)]
    return {"document_keys": dice.choices([*keys, "new", "newer"], k=dice.randint(1, 8)),
            "cache_keys": dice.choices(keys, k=dice.randint(1, 10))}


def _parameters(dice: random.Random) -> dict[str, Any]:
    hidden_size = 4 * dice.randint(2, 200)
    return {"layers": dice.randint(0, 24), "vocabulary": dice.randint(40, 40_000), "positions": dice.randint(8, 600),
            "hidden": hidden_size, "intermediate": dice.randint(1, 5) * hidden_size + 1,
            "classes": dice.randint(2, 20)}


def _front(dice: random.Random) -> dict[str, Any]:
    size = dice.randint(2, 9)
    return {"costs": torch.tensor([float(dice.randint(1, 6)) for _ in range(size)]),
            "scores": torch.tensor([float(dice.randint(70, 78)) for _ in range(size)])}


def _even(dice: random.Random) -> dict[str, Any]:  # quarters of a second have no rounding
    return {"asking": dice.randint(1, 16) / 4, "reading": dice.randint(0, 8) / 4, "sentences": dice.randint(50, 9000),
            "batch": dice.choice([8, 16, 32, 64])}


def _escaped(dice: random.Random) -> dict[str, Any]:
    size, stride = dice.randint(1, 9), dice.choice([5, 10, 25])
    return {"steps": [stride * i + 5 for i in range(size)], "top1": [dice.randint(2, 24) / 2 for _ in range(size)],
            "plateau": dice.randint(4, 16) / 2}


def _growth(dice: random.Random) -> dict[str, Any]:
    return {"vocabulary": dice.randint(50, 60_000), "hidden": dice.randint(8, 1024),
            "other": dice.randint(0, 90_000_000)}


OTHERS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "ch00.q1": _wordpiece, "ch01.q5": _factor, "ch02.q4": _ngrams, "ch02.q5": _rule, "ch03.q4": _encoder,
    "ch04.q1": _skip, "ch04.q5": _beta, "ch05.q5": _question, "ch06.q1": _block, "ch06.q4": _rates,
    "ch07.q5": lambda dice: {"layers": dice.randint(1, 60)}, "ch08.q1": _replacing, "ch08.q4": _names,
    "ch08.q5": _clip, "ch09.q3": _rows, "ch09.q6": _parameters, "ch10.q2": _front, "ch10.q3": _even,
    "lab1.q6": _escaped, "lab2.q3": _growth,
}
