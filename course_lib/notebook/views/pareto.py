"""The Pareto picture: what a method keeps against what it costs, with a limit to move and intervals to respect.

`front` and `best_within` decide, from means alone; `pareto_numbers` puts the uncertainty beside them. `pareto.js`
repeats the same arithmetic in the page, and a test holds the two together.

A point is on the front if no other point costs at most as much, scores at least as high, and is better in one of the
two. That says nothing about luck. So every claim about two points comes with the paired difference over the seeds: if
its 95 % interval includes 0, the two are said to be not distinguishable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy import stats

from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View
from course_lib.shared.seeds import mean_and_interval, paired_difference


@dataclass(frozen=True)
class Point:
    """One method.

    name      shown in the list and the table
    x         measure -> what it costs; less is better
    y         measure -> what it reaches, one value per seed; more is better
    baseline  a student that no teacher helped: drawn differently, and may be hidden
    note      a few words, shown when the point is chosen
    """

    name: str
    x: Mapping[str, float]
    y: Mapping[str, Sequence[float]]
    baseline: bool = False
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """A measure to choose: its key, its name with the unit, digits to write, and (upright) the teacher's own value."""

    key: str
    name: str
    digits: int = 2
    teacher: float | None = None


Pair = tuple[float, float]


def front(points: Sequence[Pair]) -> list[int]:
    """Which points (cost, score) nobody beats: positions, from the cheapest to the dearest.

    b beats a if b costs at most as much, scores at least as high, and one of the two is strictly better. Two points
    that are equal in both do not beat each other: both stay, the earlier one first.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] > points[kept[-1]][1] or tuple(points[i]) == tuple(points[kept[-1]]):
            kept.append(i)
    return kept


def best_within(points: Sequence[Pair], limit: float) -> int | None:
    """The highest score among points that cost at most `limit`: its position; the cheaper one of two equals.

    None if nothing is that cheap.
    """
    allowed = [i for i, (cost, _) in enumerate(points) if cost <= limit]
    return min(allowed, key=lambda i: (-points[i][1], points[i][0], i), default=None)


def pareto_numbers(points: Sequence[Point], x: str, y: str, limit: float = float("inf"), *, baselines: bool = True
                   ) -> dict[str, object]:
    """Everything that the picture says about one choice of axes.

    Returns `shown` (names), `front` (names, cheapest first), `steps` (for each point of the front but the first: its
    paired difference to the one before, as (mean, low, high)), `best` (a name, or None), `alike` (names of allowed
    points whose paired difference to the best includes 0).
    """
    shown = [point for point in points if baselines or not point.baseline]
    pairs = [(point.x[x], mean_and_interval(point.y[y]).mean) for point in shown]
    line, chosen = front(pairs), best_within(pairs, limit)
    alike = [] if chosen is None else [
        point.name for i, point in enumerate(shown) if i != chosen and pairs[i][0] <= limit
        and paired_difference(shown[chosen].y[y], point.y[y]).verdict == "no difference shown"]
    return {"shown": [point.name for point in shown], "front": [shown[i].name for i in line],
            "steps": [_difference(shown[b], shown[a], y) for a, b in pairwise(line)],
            "best": None if chosen is None else shown[chosen].name, "alike": alike}


def _difference(one: Point, other: Point, y: str) -> tuple[float, float, float]:
    found = paired_difference(one.y[y], other.y[y]).interval
    return found.mean, found.low, found.high


def pareto_view(points: Sequence[Point], xs: Sequence[Axis], ys: Sequence[Axis], *,
                title: str = "What a method keeps, and what it costs") -> View:
    """The explorer: two axes to choose, a limit to move, baselines to hide, points to walk through.

    points  at least two, each with every measure of xs (above 0) and ys (the same number of seeds, two or more)
    xs, ys  the measures to choose from; the first of each is shown at the start
    Raises: ValueError for points that lack a measure, cost nothing, or have other numbers of seeds.
    """
    seeds = _check(points, xs, ys)
    found = [{"name": point.name, "baseline": point.baseline, "note": point.note,
              "x": [point.x[axis.key] for axis in xs], "y": [_summary(point.y[axis.key]) for axis in ys]}
             for point in points]
    data = {"title": title, "points": found, "t": float(stats.t.ppf(0.975, seeds - 1)), "seeds": seeds,
            "xs": [{"key": a.key, "name": a.name, "digits": a.digits} for a in xs],
            "ys": [{"key": a.key, "name": a.name, "digits": a.digits, "teacher": a.teacher} for a in ys]}
    alt = (f"{title}: {len(points)} methods as points, {xs[0].name} to the right and {ys[0].name} upwards, with the "
           "95 % interval of each and a line through those that no other method beats.")
    return View("pareto", data, alt, (_table(points, xs, ys), *(_front_table(points, x, ys[0]) for x in xs)))


def _check(points: Sequence[Point], xs: Sequence[Axis], ys: Sequence[Axis]) -> int:
    if len(points) < 2 or not xs or not ys:
        raise ValueError("A Pareto picture needs two points or more, and a measure for each axis.")
    if len({point.name for point in points}) < len(points):
        raise ValueError("Two points have the same name.")
    seeds = len(points[0].y[ys[0].key])
    for point in points:
        for axis in xs:
            if not point.x.get(axis.key, 0) > 0:
                raise ValueError(f"'{point.name}' has no '{axis.key}' above 0; a logarithmic axis needs one.")
        for axis in ys:
            if len(point.y.get(axis.key, ())) != seeds or seeds < 2:
                raise ValueError(f"'{point.name}': '{axis.key}' needs {max(seeds, 2)} values, one per seed.")
    return seeds


def _summary(values: Sequence[float]) -> dict[str, object]:
    found = mean_and_interval(values)
    return {"values": [float(value) for value in values], "mean": found.mean, "low": found.low,
            "high": found.high}


def _table(points: Sequence[Point], xs: Sequence[Axis], ys: Sequence[Axis]) -> Table:
    rows = []
    for point in points:
        cells = [readable(point.x[axis.key], axis.digits) for axis in xs]
        for axis in ys:
            found = mean_and_interval(point.y[axis.key])
            low, high = (readable(value, axis.digits) for value in (found.low, found.high))
            cells.append(f"{readable(found.mean, axis.digits)} [{low}, {high}]")
        rows.append([point.name, "baseline" if point.baseline else "method", *cells])
    return Table("All points: mean over the seeds, with the 95 % interval of the mean in brackets",
                 ["", "kind", *(axis.name for axis in (*xs, *ys))], rows)


def _front_table(points: Sequence[Point], x: Axis, y: Axis) -> Table:
    found, by_name = pareto_numbers(points, x.key, y.key), {point.name: point for point in points}
    rows = []
    for name, step in zip(found["front"], [None, *found["steps"]], strict=True):
        said = "the cheapest" if step is None else verdict(*step, digits=y.digits)
        rows.append([name, readable(by_name[name].x[x.key], x.digits), said])
    return Table(f"The front for {x.name} and {y.name}", ["", x.name, "against the point before"], rows)


def verdict(mean: float, low: float, high: float, *, digits: int = 2) -> str:
    """A paired difference in words: "+0.40 [+0.10, +0.70]: better"; with 0 in the interval "not distinguishable"."""
    numbers = [("+" if value > 0 else "") + readable(value, digits) for value in (mean, low, high)]
    said = "better" if low > 1e-9 else "worse" if high < -1e-9 else "not distinguishable"
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]: {said}"
