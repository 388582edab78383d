"""Failure lab: switch a mistake on and look at its run beside the healthy one, step by step.

The runs were trained before and lie in the page, so the switches also work without a kernel. A run of your own can be
drawn beside them. Texts and curves are handed in: `course_lib.experiments.lab2_mistakes` has those of lab 2.

`shown_runs` says which two runs a position of the switches shows, and `reading` which numbers a step shows;
`failure_lab.js` repeats both, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View

POINTS = 48  # of a loss curve; more cannot be told apart in the picture


@dataclass(frozen=True)
class Switch:
    """One checkbox. A setting is no mistake: the healthy run beside has it too. `needs` is another switch's key."""

    key: str
    label: str
    about: str
    setting: bool = False
    needs: str = ""


@dataclass(frozen=True)
class Measure:
    """One curve: its key in the stored run, its name, unit and digits, whether its axis is logarithmic."""

    key: str
    name: str
    unit: str = ""
    digits: int = 1
    log: bool = False


@dataclass(frozen=True)
class LabText:
    """Everything about one lab that is not measured. `runs`: keys of the switches that are on -> name of the arm."""

    key: str
    name: str
    about: str
    rows: str  # "words", "chance" or "distance": what the row of a step shows
    switches: tuple[Switch, ...]
    runs: Mapping[frozenset[str], str]
    measures: tuple[Measure, ...]


def lab_text(key: str, labs: Sequence[LabText]) -> LabText:
    """One lab by its key. Raises: ValueError with the keys there are."""
    for lab in labs:
        if lab.key == key:
            return lab
    raise ValueError(f"There is no lab {key!r}; there are {', '.join(lab.key for lab in labs)}.")


def shown_runs(lab: LabText, on: Collection[str]) -> tuple[str, str]:
    """The healthy arm and the arm of these switches. Settings hold for both; a switch without what it needs is off.

    Raises: ValueError for a switch that the lab does not have.
    """
    known = {switch.key: switch for switch in lab.switches}
    if unknown := set(on) - known.keys():
        raise ValueError(f"{lab.key} has no switch {', '.join(sorted(unknown))}; it has {', '.join(known)}.")
    chosen = {key for key in on if not known[key].needs or known[key].needs in on}
    settings = {key for key in chosen if known[key].setting}
    return lab.runs[frozenset(settings)], lab.runs[frozenset(chosen)]


def thinned(loss: Sequence[float], points: int = POINTS) -> tuple[list[float], list[float]]:
    """Steps and values of a loss curve, averaged over neighbours so that at most `points` remain.

    The step of a point is the middle of its stretch; step 1 is the first batch.
    """
    width = -(-len(loss) // points)
    stretches = [(start, loss[start:start + width]) for start in range(0, len(loss), width)]
    steps = [start + (len(part) + 1) / 2 for start, part in stretches]
    return steps, [float(f"{sum(part) / len(part):.4g}") for _, part in stretches]


def reading(curve: Mapping, step: float) -> dict[str, float]:
    """What a run shows at `step`: every measure at its last look up to there, and the loss at its last point."""
    look = max(i for i, at in enumerate(curve["steps"]) if at <= step or i == 0)
    steps, loss = thinned(curve["loss"])
    point = max(i for i, at in enumerate(steps) if at <= step or i == 0)
    return {name: values[look] for name, values in curve["measures"].items()} | {"loss": loss[point]}


def failure_lab(curves: Mapping[str, Mapping], labs: Sequence[LabText], *, lab: str | None = None,
                on: Sequence[str] = (), yours: Mapping | None = None, title: str = "Three classic mistakes") -> View:
    """The view: choose a lab, switch its mistakes, move the step; curves and predictions of two runs side by side.

    curves  the name of an arm -> its curve (`lab2_mistakes.train_one` says what is in it)
    labs    what the labs are about; every arm that they name needs a curve
    lab, on the lab (None: the first) and the switches that are on at the start
    yours   a curve of your own; it is drawn beside the stored runs of its lab, and the view starts there

    Raises: ValueError if a run that a switch needs is missing, or for an unknown lab or switch.
    """
    lab = yours["lab"] if yours else lab or labs[0].key
    shown_runs(lab_text(lab, labs), on)
    missing = sorted({arm for text in labs for arm in text.runs.values()} - curves.keys())
    if missing:
        raise ValueError(f"These runs are missing: {', '.join(missing)}. `python -m course_lib.experiments lab2` "
                         "trains them.")
    data = {"title": title, "lab": lab, "on": list(on), "labs": [_lab_data(text, curves) for text in labs],
            "yours": _run_data(yours) if yours else None, "yourLab": lab if yours else None}
    alt = (f"{title}: {', '.join(text.name for text in labs)}. Curves and predictions of a run with a mistake beside "
           "the healthy run, for every step of a short training.")
    tables = tuple(_table(text, curves, yours if yours and yours["lab"] == text.key else None) for text in labs)
    return View("failure_lab", data, alt, tables)


def _lab_data(lab: LabText, curves: Mapping[str, Mapping]) -> dict[str, object]:
    arms = list(dict.fromkeys(lab.runs.values()))
    first = curves[arms[0]]
    return {"key": lab.key, "name": lab.name, "about": lab.about, "kind": lab.rows, "rows": first["rows"],
            "text": first["text"], "measures": [vars(measure) for measure in lab.measures],
            "switches": [vars(switch) for switch in lab.switches],
            "arms": [[sorted(keys), arms.index(arm)] for keys, arm in lab.runs.items()],
            "runs": [_run_data(curves[arm]) for arm in arms]}


def _run_data(curve: Mapping) -> dict[str, object]:
    steps, loss = thinned(curve["loss"])
    return {"name": curve["arm"], "steps": curve["steps"], "measures": dict(curve["measures"]), "lossSteps": steps,
            "loss": loss, "shown": curve["shown"], "end": len(curve["loss"])}


def _table(lab: LabText, curves: Mapping[str, Mapping], yours: Mapping | None) -> Table:
    runs = [(arm, curves[arm]) for arm in dict.fromkeys(lab.runs.values())]
    runs += [("your run", yours)] if yours else []
    rows = []
    for name, curve in runs:
        at_the_end = reading(curve, len(curve["loss"]))
        rows.append([name, *(readable(at_the_end[m.key], m.digits) + (f" {m.unit}" if m.unit else "")
                             for m in lab.measures)])
    return Table(f"{lab.name}: the last step of each run, seed 0", ["run", *(m.name for m in lab.measures)], rows)
