"""Failure lab: switch a mistake on and look at its run beside the healthy one, step by step.

The runs were trained before (`course_lib.experiments.lab2_mistakes`, seed 0) and lie in the page, so the switches
also work without a kernel. A run of your own can be drawn beside them.

`shown_runs` says which two runs a position of the switches shows, and `reading` which numbers a step shows;
`failure_lab.js` repeats both, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from course_lib.mutants import MUTANTS

from . import Table, View, readable

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


def _mistake(name: str) -> str:
    return f"{MUTANTS[name].mistake} {MUTANTS[name].symptom}"


def _on(*keys: str) -> frozenset[str]:
    return frozenset(keys)


LOSS = Measure("loss", "training loss", digits=3, log=True)
LABS = (
    LabText(
        "temperature", "No temperature, no T²",
        "Is a film sentence positive? A student of 2 layers learns half from labels, half from its teacher at T = 4.",
        "chance",
        (Switch("t2", "T² is missing", _mistake("missing_t_squared")),
         Switch("t1", "T = 1", "No temperature: small probabilities stay too small to be felt. T² is 1 then, "
                "so forgetting it as well changes nothing."),
         Switch("all", "all 8,042 sentences have labels", "Otherwise 500 have one; the teacher answers all of them.",
                setting=True)),
        {_on(): "500 labels", _on("t2"): "500 labels, no T²", _on("t1"): "500 labels, T = 1",
         _on("t1", "t2"): "500 labels, T = 1", _on("all"): "all labels", _on("all", "t2"): "all labels, no T²",
         _on("all", "t1"): "all labels, T = 1", _on("all", "t1", "t2"): "all labels, T = 1"},
        (Measure("accuracy", "validation accuracy", "%"), Measure("agreement", "same answer as the teacher", "%"),
         Measure("teachers_share", "the teacher's share of the gradient", "%"), LOSS)),
    LabText(
        "tying", "No tying",
        "Which word stood there? A student of 2 layers, copied from the masked-LM teacher, learns at the hidden words.",
        "words",
        (Switch("untied", "output matrix of its own", _mistake("untied_head")),
         Switch("random", "head left at random", _mistake("head_left_at_random"))),
        {_on(): "tied", _on("untied"): "untied", _on("random"): "random head",
         _on("untied", "random"): "untied, random head"},
        (Measure("accuracy", "hidden words found", "%"), Measure("distinct", "different answers", digits=0, log=True),
         Measure("frequent_share", "answers among the ten commonest tokens", "%"), LOSS)),
    LabText(
        "projection", "Wrong projection",
        "Hidden states only: a student of width 128 learns layer 3 of a teacher of width 384 through a map.",
        "distance",
        (Switch("side", "map on the teacher's side", _mistake("teacher_side_projection")),
         Switch("frozen", "freeze that map", "A map that cannot be trained cannot shrink.", needs="side")),
        {_on(): "student side", _on("side"): "teacher side", _on("side", "frozen"): "teacher side, frozen"},
        (Measure("state_variance", "variance of the student's states", digits=4, log=True),
         Measure("target_variance", "variance of the target", digits=4, log=True),
         Measure("effective_rank", "effective rank of the states"), LOSS)),
)


def lab_text(key: str, labs: Sequence[LabText] = LABS) -> LabText:
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


def stored_curves() -> dict[str, dict]:
    """The curves of seed 0 in data/results/lab2.json, by the name of the arm."""
    from course_lib import results

    return {run["arm"]: run["curve"] for run in results.load("lab2")["runs"] if "curve" in run}


def failure_lab(curves: Mapping[str, Mapping] | None = None, *, lab: str = "temperature", on: Sequence[str] = (),
                yours: Mapping | None = None, title: str = "Three classic mistakes", labs: Sequence[LabText] = LABS
                ) -> View:
    """The view: choose a lab, switch its mistakes, move the step; curves and predictions of two runs side by side.

    curves  the name of an arm -> its curve (`lab2_mistakes.train_one` says what is in it); None: the stored ones
    lab, on the lab and the switches that are on at the start
    yours   a curve of your own; it is drawn beside the stored runs of its lab, and the view starts there
    labs    other labs than the three; they need `curves` of their own

    Raises: ValueError if a run that a switch needs is missing, or for an unknown lab or switch.
    """
    curves = stored_curves() if curves is None else curves
    lab = yours["lab"] if yours else lab
    shown_runs(lab_text(lab, labs), on)
    missing = sorted({arm for text in labs for arm in text.runs.values()} - curves.keys())
    if missing:
        raise ValueError(f"These runs are missing: {', '.join(missing)}. `python -m course_lib.results lab2` trains "
                         "them.")
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
