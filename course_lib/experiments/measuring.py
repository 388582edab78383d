"""Measured numbers: computed once per arm and seed, kept in data/results/, read by the chapters.

    python -m course_lib.experiments            measure everything that is missing (hours; stop and restart as you like)
    python -m course_lib.experiments ch01       one chapter
    python -m course_lib.experiments --list     what is measured and what is missing

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
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, is_dataclass
from multiprocessing import get_context
from types import ModuleType

import torch
import transformers

from course_lib import experiments
from course_lib.experiments import records
from course_lib.shared.statistics import Prediction, judged


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
    record = {"experiment": name, "about": module.ABOUT, "arms": {}, "runs": []}
    record = records.load(name) if records.path_of(name).exists() else record
    arms = _described(module)
    borrowed = _borrowed(module)
    same = [arm for arm in arms if record["arms"].get(arm) == arms[arm]]  # the others have changed
    kept = borrowed + [r for r in record["runs"] if r["arm"] in same
                       and r["arm"] not in getattr(module, "BORROWED", {})]
    kept.sort(key=_in_order_of(arms))
    if record["arms"] != arms:
        record.pop("profile", None)
    record |= {"arms": arms, "runs": kept, "command": f"python -m course_lib.experiments {name}", "where": _where()}
    if borrowed:
        records.write(name, record)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _start_worker, (os.getpid(),)) as pool:
        if hasattr(module, "TRIALS"):
            record["trials"] = [r for r in record.get("trials", []) if r["arm"] in same and r["trial"] in module.TRIALS]
            _measure_claims(pool, module, record)
        else:
            _work(pool, module, record, [(arm, seed) for arm in arms for seed in module.SEEDS])
    if hasattr(module, "profile") and "profile" not in record:
        record["profile"] = module.profile()  # in this process, which nothing of ours disturbs any more
        records.write(name, record)
    return record


def _described(module: ModuleType) -> dict[str, dict]:
    """What the arms are, as the file gives it back: there a tuple has become a list."""
    arms = {arm: asdict(s) if is_dataclass(s) else dict(s) for arm, s in module.ARMS.items()}
    return json.loads(json.dumps(arms))


def _work(pool: Executor, module: ModuleType, record: dict, jobs: list[tuple], into: str = "runs") -> None:
    """Do the jobs (arguments of `run`) that the record has no row of yet; write the record after each."""
    name = record["experiment"]
    missing = [job for job in jobs if not any(_job(row)[: len(job)] == job for row in record[into])]
    if missing:
        module.prepare()
    for done in as_completed(runs := [pool.submit(_run, name, *job) for job in missing]):
        if done.exception():
            continue  # the other runs are worth keeping; the error is raised at the end
        record[into].append(done.result())
        record[into].sort(key=_in_order_of(record["arms"]))
        records.write(name, record)
        print(name, {k: v for k, v in done.result().items() if k != "right"}, flush=True)
    for run in runs:
        run.result()


def _in_order_of(arms: dict[str, dict]) -> Callable[[dict], tuple]:
    """By arm, then trial, then seed: the file does not depend on which run came home first."""
    order = list(arms)
    return lambda row: (order.index(row["arm"]), json.dumps(row.get("trial")), row["seed"])


def _job(row: dict) -> tuple:
    return row["arm"], row["seed"], row.get("trial")


def _measure_claims(pool: Executor, module: ModuleType, record: dict) -> None:
    """Arm by arm: try every trial, choose, run the other seeds, judge the predictions that have their runs."""
    record["chosen"] = {}
    for arm in record["arms"]:
        _work(pool, module, record, [(arm, seed, trial) for trial in module.TRIALS for seed in module.TRIAL_SEEDS],
              "trials")
        best = record["chosen"][arm] = chosen(record["trials"], arm, module.TRIALS)
        of_trials = [r for r in record["trials"] if (r["arm"], r["trial"]) == (arm, best) and r["seed"] in module.SEEDS]
        others = [r for r in record["runs"] if r["arm"] != arm or (r["trial"] == best and r["seed"] not in
                                                                   [t["seed"] for t in of_trials])]
        record["runs"] = sorted(others + of_trials, key=_in_order_of(record["arms"]))
        _work(pool, module, record, [(arm, seed, best) for seed in module.SEEDS])
        record["predictions"] = judge(record, module.PREDICTIONS, len(module.SEEDS))
        records.write(record["experiment"], record)


def chosen(trials: list[dict], arm: str, options: list[dict]) -> dict:
    """The trial with the best mean accuracy on validation; of equal ones the first (the shortest)."""
    scores = [[r["validation"] for r in trials if r["arm"] == arm and r["trial"] == option] for option in options]
    return options[max(range(len(options)), key=lambda i: sum(scores[i]) / len(scores[i]))]


def judge(record: dict, predictions: list[Prediction], seeds: int) -> list[dict]:
    """Every prediction with gain and verdict, from the packed answers; Holm counts those whose runs are all there."""
    there = [p for p in predictions if all(sum(r["arm"] == arm for r in record["runs"]) == seeds
                                           for arm in (p.arm, p.baseline))]
    measures = {p.measure: {arm: records.right_of(record, arm, p.measure) for q in there if q.measure == p.measure
                            for arm in (q.arm, q.baseline)} for p in there}
    return judged(there, measures)


def _borrowed(module: ModuleType) -> list[dict]:
    """The runs that other experiments measured for this one, under this one's names. Raises: ValueError for a gap."""
    found = []
    for arm, (other, its_arm) in getattr(module, "BORROWED", {}).items():
        runs = [r for r in records.load(other)["runs"] if r["arm"] == its_arm and r["seed"] in module.SEEDS]
        if len(runs) < len(module.SEEDS):
            raise ValueError(f"'{arm}' is '{its_arm}' of {other}, which has {len(runs)} of {len(module.SEEDS)} runs; "
                             f"`python -m course_lib.experiments {other}` makes the others.")
        found += [r | {"arm": arm, "measured_in": other} for r in runs]
    return found


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


def _where() -> dict:
    return {"hardware": f"{platform.machine()}, {os.cpu_count()} cores, one process of one thread on each, "
                        + ("GPU" if torch.cuda.is_available() else "no GPU"),
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}


def main(arguments: list[str]) -> None:
    for name in [a for a in arguments if not a.startswith("-")] or names():
        if "--list" in arguments:
            module, have = experiment(name), records.load(name)["runs"] if records.path_of(name).exists() else []
            print(f"{name}: {len(have)} of {len(module.ARMS) * len(module.SEEDS)} runs. {module.ABOUT}")
        else:
            measure(name)
