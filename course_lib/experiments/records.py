"""Measured numbers: kept in data/results/, read by the chapters; `python -m course_lib.experiments` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from course_lib.material.assets import DATA
from course_lib.notebook.results import Line, Verdicts
from course_lib.shared.files import write_atomically
from course_lib.shared.seeds import Difference, Interval, mean_and_interval, paired_difference
from course_lib.shared.statistics import unpack


def write(name: str, record: dict) -> None:
    path_of(name).parent.mkdir(parents=True, exist_ok=True)
    text = _as_text(record)
    write_atomically(path_of(name), lambda path: path.write_text(text, "utf-8"))


def path_of(name: str) -> Path:
    return DATA / "results" / f"{name}.json"


def _as_text(record: dict) -> str:
    """JSON with one line per run, so that a difference between two versions can be read."""
    lists = [name for name in ("predictions", "trials", "runs") if name in record]
    text = json.dumps({k: v for k, v in record.items() if k not in lists}, indent=1)[:-2]
    for name in lists:
        rows = ",\n  ".join(json.dumps(row) for row in record[name])
        text += f',\n "{name}": [\n  {rows}\n ]'
    return text + "\n}\n"


def load(name: str) -> dict:
    """The committed record of an experiment. Raises: FileNotFoundError that names the command which makes it."""
    if not path_of(name).exists():
        raise FileNotFoundError(f"data/results/{name}.json is missing; `python -m course_lib.experiments {name}` makes "
                                "it.")
    return json.loads(path_of(name).read_text("utf-8"))


def values(name: str, arm: str, number: str) -> list[float]:
    """One number of one arm, ordered by seed, so that two arms can be compared in pairs.

    Raises: ValueError for an arm without runs.
    """
    runs = sorted((r for r in load(name)["runs"] if r["arm"] == arm), key=lambda r: r["seed"])
    if not runs:
        raise ValueError(f"data/results/{name}.json has no run of '{arm}'; it has {', '.join(load(name)['arms'])}.")
    return [run[number] for run in runs]


def right(name: str, arm: str, measure: str = "accuracy") -> np.ndarray:
    """Which test texts the runs of an arm got right: (seeds, texts). `statistics.gain` compares two arms with it."""
    return right_of(load(name), arm, measure)


def right_of(record: dict, arm: str, measure: str = "accuracy") -> np.ndarray:
    """The same for a record that is at hand, ordered by seed. Raises: ValueError for an arm without runs."""
    runs = sorted((r for r in record["runs"] if r["arm"] == arm), key=lambda r: r["seed"])
    if not runs:
        raise ValueError(f"{record['experiment']} has no run of '{arm}'; it has {', '.join(record['arms'])}.")
    return np.stack([unpack(run["right"][measure]) for run in runs])


def predictions(name: str) -> list[dict]:
    """What the experiment predicted, each with its gain [mean, low, high] in points and its verdict."""
    return load(name)["predictions"]


def claims(name: str) -> dict[str, Difference]:
    """The gains of the predictions by claim, for a table (`notebook.results.Claims`): points, with Holm's intervals."""
    return {p["claim"]: Difference(Interval(p["gain"][0], float("nan"), *p["gain"][1:], p["seeds"]), p["verdict"])
            for p in predictions(name)}


def summary(name: str, number: str, baseline: str, arms: list[str] | None = None) -> Verdicts:
    """Every arm's mean and 95 % interval, and its paired difference to `baseline` (same seeds): a table of lines."""
    base = values(name, baseline, number)
    lines = []
    for arm in arms or load(name)["arms"]:
        ours = values(name, arm, number)
        lines.append(Line(arm, mean_and_interval(ours), None if arm == baseline else paired_difference(ours, base)))
    return Verdicts(tuple(lines), number.replace("_", " "), baseline)


def leader(name: str, options: dict[str, str], otherwise: str, number: str = "accuracy", *,
           lowest: bool = False) -> tuple[str, str]:
    """Which option of a chapter's poll fits the measurement, and the numbers that say so.

    options: letter -> arm. The arm with the highest mean wins if it is better than the second, pair by pair; if their
    difference is not shown, the letter is `otherwise`. lowest: the arm with the lowest mean wins, in the same way.
    """
    measured = {letter: values(name, arm, number) for letter, arm in options.items()}
    first, second = sorted(options, key=lambda letter: mean_and_interval(measured[letter]).mean,
                           reverse=not lowest)[:2]
    low, high = (first, second) if lowest else (second, first)
    lead = paired_difference(measured[high], measured[low])
    gap = lead.interval
    return first if lead.verdict == "better" else otherwise, (
        f"The two {'lowest' if lowest else 'best'} are '{options[first]}' and '{options[second]}'; they differ by "
        f"{gap.mean:.2f} points, interval {gap.low:+.2f} to {gap.high:+.2f}.")
