"""Measured numbers: computed once per arm and seed, kept in data/results/, read by the chapters.

    python -m course_lib.results            measure everything that is missing (hours; stop and restart as you like)
    python -m course_lib.results ch01       one chapter
    python -m course_lib.results --list     what is measured and what is missing

An experiment is a module of `course_lib.experiments` with ABOUT (one sentence), SEEDS, ARMS (name -> what differs),
`prepare()` (fills the caches that all runs share) and `run(arm, seed) -> dict of numbers`. Every finished run is
written at once, so nothing is lost when the measurement is stopped. BORROWED (arm -> experiment and arm) names the
arms that another experiment measures in exactly the same way: their runs are taken over, not trained a second time.
`profile()` returns what no run says (size, speed): it is measured once, after all runs, and again when an arm changes.

An experiment that makes claims has more: PREDICTIONS (what the paper lets us expect, written before the runs), TRIALS
(the same list of steps and rates for every arm) and TRIAL_SEEDS. Then the call is `run(arm, seed, trial)`; each arm
first runs every trial, the best mean `validation` chooses, and the other seeds run with the chosen one. A run returns
`right`, the packed answers of the test split, and the record holds every prediction with its gain and its verdict.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, is_dataclass
from multiprocessing import get_context
from types import ModuleType

import numpy as np
import torch
import transformers

from course_lib import experiments
from course_lib.assets import DATA
from course_lib.measures import Difference, Interval, mean_and_interval, paired_difference
from course_lib.statistics import Prediction, judged, unpack
from course_lib.training import write_atomically


def _modules() -> dict[str, str]:
    """Name of the experiment -> its module. Modules without a chapter's number are shared ground."""
    found = [m.name for m in pkgutil.iter_modules(experiments.__path__)]
    return {module.split("_")[0]: module for module in found if re.match(r"(ch|lab)\d+[a-z]*_", module)}


def names() -> list[str]:
    """The experiments there are: one per chapter or lab."""
    return list(_modules())


def experiment(name: str) -> ModuleType:
    """The module of chapter `name` ("ch01"). Raises: ValueError with the names there are."""
    if name not in _modules():
        raise ValueError(f"No experiment '{name}'. There are: {', '.join(names())}.")
    return importlib.import_module(f"course_lib.experiments.{_modules()[name]}")


def measure(name: str) -> dict:
    """Run what is missing of an experiment and return everything that is measured by then.

    One process per core, one thread each: small models waste most of a second thread on waiting.
    """
    module = experiment(name)
    record = load(name) if _path(name).exists() else {"experiment": name, "about": module.ABOUT, "arms": {}, "runs": []}
    arms = _described(module)
    borrowed = _borrowed(module)
    same = [arm for arm in arms if record["arms"].get(arm) == arms[arm]]  # the others have changed
    kept = borrowed + [r for r in record["runs"] if r["arm"] in same
                       and r["arm"] not in getattr(module, "BORROWED", {})]
    kept.sort(key=_in_order_of(arms))
    if record["arms"] != arms:
        record.pop("profile", None)
    record |= {"arms": arms, "runs": kept, "command": f"python -m course_lib.results {name}", "where": _where()}
    if borrowed:
        _write(name, record)
    if hasattr(module, "TRIALS"):
        record["trials"] = [r for r in record.get("trials", []) if r["arm"] in same and r["trial"] in module.TRIALS]
        _measure_claims(name, module, record)
    else:
        _work(name, module, record, [(arm, seed) for arm in arms for seed in module.SEEDS])
    if hasattr(module, "profile") and "profile" not in record:
        record["profile"] = module.profile()  # in this process, which nothing of ours disturbs any more
        _write(name, record)
    return record


def _described(module: ModuleType) -> dict[str, dict]:
    """What the arms are, as the file gives it back: there a tuple has become a list."""
    arms = {arm: asdict(s) if is_dataclass(s) else dict(s) for arm, s in module.ARMS.items()}
    return json.loads(json.dumps(arms))


def _work(name: str, module: ModuleType, record: dict, jobs: list[tuple], into: str = "runs") -> None:
    """Do the jobs (arguments of `run`) that the record has no row of yet; write the record after each."""
    missing = [job for job in jobs if not any(_job(row)[: len(job)] == job for row in record[into])]
    if missing:
        module.prepare()
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _start_worker, (os.getpid(),)) as pool:
        for done in as_completed(runs := [pool.submit(_run, name, *job) for job in missing]):
            if done.exception():
                continue  # the other runs are worth keeping; the error is raised at the end
            record[into].append(done.result())
            record[into].sort(key=_in_order_of(record["arms"]))
            _write(name, record)
            print(name, {k: v for k, v in done.result().items() if k != "right"}, flush=True)
        for run in runs:
            run.result()


def _in_order_of(arms: dict[str, dict]) -> Callable[[dict], tuple]:
    """By arm, then trial, then seed: the file does not depend on which run came home first."""
    order = list(arms)
    return lambda row: (order.index(row["arm"]), json.dumps(row.get("trial")), row["seed"])


def _job(row: dict) -> tuple:
    return row["arm"], row["seed"], row.get("trial")


def _measure_claims(name: str, module: ModuleType, record: dict) -> None:
    """Arm by arm: try every trial, choose, run the other seeds, judge the predictions that have their runs."""
    record["chosen"] = {}
    for arm in record["arms"]:
        _work(name, module, record, [(arm, seed, trial) for trial in module.TRIALS for seed in module.TRIAL_SEEDS],
              "trials")
        best = record["chosen"][arm] = chosen(record["trials"], arm, module.TRIALS)
        of_trials = [r for r in record["trials"] if (r["arm"], r["trial"]) == (arm, best) and r["seed"] in module.SEEDS]
        others = [r for r in record["runs"] if r["arm"] != arm or (r["trial"] == best and r["seed"] not in
                                                                   [t["seed"] for t in of_trials])]
        record["runs"] = sorted(others + of_trials, key=_in_order_of(record["arms"]))
        _work(name, module, record, [(arm, seed, best) for seed in module.SEEDS])
        record["predictions"] = judge(record, module.PREDICTIONS, len(module.SEEDS))
        _write(name, record)


def chosen(trials: list[dict], arm: str, options: list[dict]) -> dict:
    """The trial with the best mean accuracy on validation; of equal ones the first (the shortest)."""
    scores = [[r["validation"] for r in trials if r["arm"] == arm and r["trial"] == option] for option in options]
    return options[max(range(len(options)), key=lambda i: sum(scores[i]) / len(scores[i]))]


def judge(record: dict, predictions: list[Prediction], seeds: int) -> list[dict]:
    """Every prediction with gain and verdict, from the packed answers; Holm counts those whose runs are all there."""
    there = [p for p in predictions if all(sum(r["arm"] == arm for r in record["runs"]) == seeds
                                           for arm in (p.arm, p.baseline))]
    measures = {p.measure: {arm: right_of(record, arm, p.measure) for q in there if q.measure == p.measure
                            for arm in (q.arm, q.baseline)} for p in there}
    return judged(there, measures)


def right_of(record: dict, arm: str, measure: str = "accuracy") -> np.ndarray:
    """Which test texts each run of an arm got right: (seeds, texts), ordered by seed."""
    runs = sorted((r for r in record["runs"] if r["arm"] == arm), key=lambda r: r["seed"])
    if not runs:
        raise ValueError(f"{record['experiment']} has no run of '{arm}'; it has {', '.join(record['arms'])}.")
    return np.stack([unpack(run["right"][measure]) for run in runs])


def _borrowed(module: ModuleType) -> list[dict]:
    """The runs that other experiments measured for this one, under this one's names. Raises: ValueError for a gap."""
    found = []
    for arm, (other, its_arm) in getattr(module, "BORROWED", {}).items():
        runs = [r for r in load(other)["runs"] if r["arm"] == its_arm and r["seed"] in module.SEEDS]
        if len(runs) < len(module.SEEDS):
            raise ValueError(f"'{arm}' is '{its_arm}' of {other}, which has {len(runs)} of {len(module.SEEDS)} runs; "
                             f"`python -m course_lib.results {other}` makes the others.")
        found += [r | {"arm": arm, "measured_in": other} for r in runs]
    return found


def _write(name: str, record: dict) -> None:
    _path(name).parent.mkdir(parents=True, exist_ok=True)
    text = _as_text(record)
    write_atomically(_path(name), lambda path: path.write_text(text, "utf-8"))


def _start_worker(parent: int) -> None:
    """One thread per process; and a worker whose parent was killed must not go on for an hour unseen."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    torch.set_num_threads(1)
    threading.Thread(target=watch, daemon=True).start()


def _run(name: str, arm: str, seed: int, *trial: dict) -> dict:
    started, module = time.time(), experiment(name)
    numbers = ({"trial": trial[0]} if trial else {}) | module.run(arm, seed, *trial)
    return {"arm": arm, "seed": seed, **numbers, "seconds": round(time.time() - started, 1)}


def _path(name: str):
    return DATA / "results" / f"{name}.json"


def _as_text(record: dict) -> str:
    """JSON with one line per run, so that a difference between two versions can be read."""
    lists = [name for name in ("predictions", "trials", "runs") if name in record]
    text = json.dumps({k: v for k, v in record.items() if k not in lists}, indent=1)[:-2]
    for name in lists:
        rows = ",\n  ".join(json.dumps(row) for row in record[name])
        text += f',\n "{name}": [\n  {rows}\n ]'
    return text + "\n}\n"


def _where() -> dict:
    return {"hardware": f"{platform.machine()}, {os.cpu_count()} cores, one process of one thread on each, "
                        + ("GPU" if torch.cuda.is_available() else "no GPU"),
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}


def load(name: str) -> dict:
    """The committed record of an experiment. Raises: FileNotFoundError that names the command which makes it."""
    if not _path(name).exists():
        raise FileNotFoundError(f"data/results/{name}.json is missing; `python -m course_lib.results {name}` makes it.")
    return json.loads(_path(name).read_text("utf-8"))


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


def predictions(name: str) -> list[dict]:
    """What the experiment predicted, each with its gain [mean, low, high] in points and its verdict."""
    return load(name)["predictions"]


@dataclass(frozen=True)
class Line:
    """One arm of an experiment: the mean over seeds with its interval, and the difference to the baseline."""

    arm: str
    measured: Interval
    gain: Difference | None  # None for the baseline itself

    def __str__(self) -> str:
        m, text = self.measured, "the baseline"
        if self.gain:
            g = self.gain.interval
            text = f"gain {g.mean:+.2f} [{g.low:+.2f}, {g.high:+.2f}]: {self.gain.verdict}"
        return f"{self.arm:30s} {m.mean:6.2f} [{m.low:.2f}, {m.high:.2f}]  {text}"


def summary(name: str, number: str, baseline: str, arms: list[str] | None = None) -> list[Line]:
    """Every arm's mean and 95 % interval, and its paired difference to `baseline` (same seeds)."""
    base = values(name, baseline, number)
    lines = []
    for arm in arms or load(name)["arms"]:
        ours = values(name, arm, number)
        lines.append(Line(arm, mean_and_interval(ours), None if arm == baseline else paired_difference(ours, base)))
    return lines


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


def main(arguments: list[str]) -> None:
    for name in [a for a in arguments if not a.startswith("-")] or names():
        if "--list" in arguments:
            module, have = experiment(name), load(name)["runs"] if _path(name).exists() else []
            print(f"{name}: {len(have)} of {len(module.ARMS) * len(module.SEEDS)} runs. {module.ABOUT}")
        else:
            measure(name)


if __name__ == "__main__":
    main(sys.argv[1:])
