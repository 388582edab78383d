"""The page "How fast, how small, what teaching costs", made from data/results/bench.json.

What the page says about the numbers is computed from them, so that a new measurement cannot leave an old sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

HEAD = """# How fast, how small, what teaching costs

`make bench` measures every number of this page, in about ten minutes on two cores that have nothing else to do.
`python -m course_lib.experiments.speed cost` measures one part again; the parts are `shapes`, `deployment`, `cost` and
`memory`.

Milliseconds belong to one machine, so the tables show **ratios**. In every round of a measurement all models take
their turn, and the ratio is taken inside the round. First stands the median over the rounds; between the brackets
lies the middle half of them. Measure on your own machine before you decide: ratios move as well, only less.
"""
MISSING = "Nothing is measured yet in this copy of the course. `make bench` writes `data/results/bench.json`."


def page(record: dict[str, dict]) -> str:
    """The whole page; parts that were not measured are left out."""
    return "\n\n".join([HEAD.strip(), *([section(part, found) for part, found in record.items()] or [MISSING])]) + "\n"


def section(part: str, found: dict) -> str:
    """One part as Markdown: how it was measured, its tables, and what they say."""
    title, body = SECTIONS[part]
    where = found["where"]
    how = (f"`{found['command']}` · {where['hardware']} · {where['threads']} thread{'s' * (where['threads'] > 1)} · "
           f"torch {where['torch']} · transformers {where['transformers']}")
    return "\n\n".join([f"## {title}", how, *body(found)])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table whose columns stand below each other in a terminal too."""
    cells = [list(head), ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
                     for row in cells)


def spread(ratio: Sequence[float], digits: int = 2) -> str:
    """Quartiles [low, middle, high] as "middle (low to high)"."""
    low, middle, high = ratio
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def times_faster(ratio: Sequence[float]) -> str:
    """A ratio of times, turned round: 0.5 of the time is 2 times as fast."""
    return spread([1 / value for value in reversed(ratio)], 1)


def reached(ratio: Sequence[float], aim: float, *, at_least: bool = False) -> str:
    """By the middle half of the rounds: "yes", "no", or "on the line" if the aim lies inside."""
    low, _, high = ratio
    above, below = low > aim, high < aim
    if not above and not below and aim not in (low, high):
        return "on the line"
    return "yes" if (low >= aim if at_least else high <= aim) else "no"


def listed(names: Sequence[str]) -> str:
    """A, B and C; "none" for an empty list."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "none"


# --- The parts --------------------------------------------------------------------------------------------------------


def _shapes(found: dict) -> list[str]:
    from course_lib.experiments.speed.shapes import MODELS

    networks = {row["network"]: row for row in found["networks"]}
    shown = [(model, networks[model.network]) for model in MODELS if model.network in networks]
    sizes = [key.removeprefix("ratio_") for key in found["networks"][0] if key.startswith("ratio_")]
    whole = found["networks"][0]["parameters"]
    sized = [[model.name, model.network, f"{row['parameters'] / 1e6:.1f}M", model.parameters or "–",
              f"{row['without_words'] / 1e6:.1f}M", f"{row['weights_mb']:.0f}", f"{row['gflops']:.2f}",
              f"{whole / row['parameters']:.2f}", f"{model.smaller:.2f}" if model.smaller else "–"]
             for model, row in shown]
    timed = [[model.name, *(times_faster(row[f"ratio_{size}"]) for size in sizes),
              f"{model.faster:.2f}" if model.faster else "–", model.source] for model, row in shown]
    claims = [(model, [1 / row[f"ratio_{size}"][1] for size in sizes]) for model, row in shown if model.faster]
    near = [model.name for model, speeds in claims if any(abs(s / model.faster - 1) <= 0.1 for s in speeds)]
    far = [f"{model.name} (paper {model.faster:.1f}; here {' and '.join(f'{s:.1f}' for s in speeds)})"
           for model, speeds in claims if model.name not in near]
    rounds = listed([f"{found['networks'][0][f'rounds_{size}']} (batch {size})" for size in sizes])
    return [
        f"Random weights, {found['precision']}, PyTorch's own attention kernel ({found['attention']}), sentences of "
        f"{found['length']} tokens without padding. \"Smaller\" and \"faster\" are against BERT-base. Networks that "
        f"are equal are measured once. GFLOP: billions of operations for one sentence; a multiplication and its "
        f"addition are two. Rounds: {rounds}.",
        table(["model", "layers x width", "parameters", "paper", "without words", "weights, MB", "GFLOP",
               "times smaller", "paper"], sized),
        table(["model", *(f"times faster, batch {size}" for size in sizes), "paper", "the paper's numbers"], timed),
        f"Within a tenth of the paper's speed-up, at one of the batch sizes: {listed(near)}. Further away: "
        f"{listed(far)}. Sizes follow from the shape and must agree; times do not. A paper's number belongs to its "
        "own machine, batch and length, and thin layers gain less than their operations promise where a processor "
        "needs large matrices to be fast."]


def _deployment(found: dict) -> list[str]:
    ready = [row for row in found["formats"] if "left_out" not in row]
    rows = [[row["model"], row["format"], f"{row['file_mb']:.1f}", f"{row['accuracy']:.2f}",
             f"{row['largest_difference']:.2g}", times_faster(row["ratio_1"]), times_faster(row["ratio_32"])]
            for row in ready]
    absent = [f"- {row['model']}, {row['format']}: {row['left_out']}" for row in found["formats"] if "left_out" in row]
    best = {count: min(ready, key=lambda row: row[f"ratio_{count}"][1]) for count in (1, 32)}
    smallest, whole = min(ready, key=lambda row: row["file_mb"]), ready[0]
    small = [row for row in ready if "int8" in row["format"]]
    lost = listed([f"{row['accuracy'] - _plain(ready, row)['accuracy']:+.2f} ({row['model'].split(',')[0]}, "
                   f"{row['format']})" for row in small])
    return [
        f"The sentiment teacher and a student of half its depth, on the processor. Accuracy (percent) on "
        f"{found['sentences']:,} test sentences; the largest difference of a logit is against the same model in "
        f"float32. Times: sentences of {found['tokens']} tokens, against the teacher in plain PyTorch.",
        table(["model", "format", "file, MB", "accuracy", "largest difference", "times faster, batch 1",
               "times faster, batch 32"], rows),
        *(["Left out here:\n\n" + "\n".join(absent)] if absent else []),
        f"Fastest for one sentence: {_named(best[1])}; for 32: {_named(best[32])}. Smallest file: {_named(smallest)}, "
        f"{whole['file_mb'] / smallest['file_mb']:.1f} times smaller than the teacher's. What int8 costs in points of "
        f"accuracy: {lost}. PyTorch's int8 leaves the word table in float32; ONNX Runtime quantises it too, and in "
        "these models it is half of all weights."]


def _plain(ready: list[dict], row: dict) -> dict:
    return next(other for other in ready if other["model"] == row["model"])


def _named(row: dict) -> str:
    return f"{row['model'].split(',')[0]}, {row['format']}"


def _cost(found: dict) -> list[str]:
    from course_lib.experiments.speed.cost import WHY

    aim, methods, (documents,) = found["aim"], found["methods"], found["documents"]
    rows = [[row["method"], f"{row['bare_ms']:.0f}", f"{row['real_ms']:.0f}", spread(row["ratio"], 3), row["rounds"],
             reached(row["ratio"], aim)] for row in methods]
    above = [row["method"] for row in methods if reached(row["ratio"], aim) == "no"]
    first, *stored = found["top_k"]
    answers = [[row["answers"], f"{row['bytes']:,}", f"{row['ms']:.0f}", spread(row["ratio"])] for row in
               (first, *stored)]
    return [
        "One training step with the real losses, over the bare minimum: the same teacher and student read the same "
        "batch, the student learns from the mean of the outputs that the method looks at, and the optimiser steps. "
        f"Everything that the method computes beside that is its cost. Aim: {aim:.2f} or less.",
        table(["method", "bare, ms", "with losses, ms", "ratio", "rounds", "aim reached"], rows),
        f"Above the aim: {listed(above)}. A ratio below 1 is possible: a real gradient can be cheaper than the one "
        "of a mean over everything.",
        *(f"{name}: {WHY[name]}." for name in above if name in WHY),
        "### A teacher that has answered already",
        f"The document classifier of chapter 9: {documents['stored_steps_per_second']:g} steps per second with stored "
        f"answers, {documents['live_steps_per_second']:g} with a live teacher; {spread(documents['faster'])} times as "
        f"fast. Aim: {found['cache_aim']} times; reached: "
        f"{reached(documents['faster'], found['cache_aim'], at_least=True)}.",
        "A masked LM has 30,522 classes. A student of half depth, 16 windows of 64 tokens, the teacher's answers at "
        "the masked positions:",
        table(["answers", "bytes per position", "step, ms", "time, live teacher = 1"], answers),
        f"The top-k cache needs {stored[0]['bytes'] / stored[-1]['bytes']:.0f} times less room than the whole "
        "distributions."]


def _memory(found: dict) -> list[str]:
    if "left_out" in found:
        return [f"Left out here: {found['left_out']}"]
    rows = [[row["method"], row["at_rest_mb"], row["bare_mb"], row["real_mb"],
             f"{row['real_mb'] - row['bare_mb']:+d}"] for row in found["methods"]]
    return [
        "What the process holds before training (libraries, data, both models), the most it takes in "
        f"{found['steps']} steps of the bare minimum, and the most in {found['steps']} steps with the real losses, in "
        "MB (on a GPU: what is allocated there). Every method runs in a fresh process.",
        table(["method", "before training", "bare minimum", "with losses", "the losses' share"], rows)]


SECTIONS = {"shapes": ("The papers' networks", _shapes),
            "deployment": ("Our models as they would be shipped", _deployment),
            "cost": ("What teaching costs", _cost), "memory": ("Memory", _memory)}
