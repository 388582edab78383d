"""Measured numbers: computed once per arm and seed, kept in data/results/, read by the chapters.

    python -m course_lib.experiments            measure everything that is missing (hours; stop and restart as you like)
    python -m course_lib.experiments ch01       one chapter
    python -m course_lib.experiments --list     what is measured and what is missing

An experiment is a module of `course_lib.experiments` with ABOUT (one sentence), SEEDS, ARMS (name -> what differs),
`prepare()` (fills the caches that all runs share) and `run(arm, seed) -> dict of numbers`. Every finished run is
written at once, so nothing is lost when the measurement is stopped. BORROWED (arm -> experiment and arm) names the
arms that another experiment measures in exactly the same way: their runs are taken over, not trained a second time.
`profile()` returns what no run says (size, speed): it is measured once, after all runs, and again when an arm changes.
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
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, is_dataclass
from multiprocessing import get_context
from types import ModuleType

import torch
import transformers

from course_lib import experiments
from course_lib.experiments import records


def _modules() -> dict[str, str]:
    """Name of the experiment -> its module. Modules without a chapter's number are shared ground."""
    found = [m.name for m in pkgutil.iter_modules(experiments.__path__)]
    return {module.split("_")[0]: module for module in found if re.match(r"(ch|lab)\d+_", module)}


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
    arms = {arm: asdict(s) if is_dataclass(s) else dict(s) for arm, s in module.ARMS.items()}
    arms = json.loads(json.dumps(arms))  # as the file gives them back, where a tuple has become a list
    borrowed = _borrowed(module)
    kept = borrowed + [r for r in record["runs"] if r["arm"] not in getattr(module, "BORROWED", {})
                       and record["arms"].get(r["arm"]) == arms.get(r["arm"])]  # the others have changed
    kept.sort(key=lambda r: (list(arms).index(r["arm"]), r["seed"]))
    if record["arms"] != arms:
        record.pop("profile", None)
    record |= {"arms": arms, "runs": kept, "command": f"python -m course_lib.experiments {name}", "where": _where()}
    missing = [(arm, seed) for arm in arms for seed in module.SEEDS if not any(
        r["arm"] == arm and r["seed"] == seed for r in kept)]
    if borrowed:
        records.write(name, record)
    if missing:
        module.prepare()
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _start_worker, (os.getpid(),)) as pool:
        for done in as_completed(runs := [pool.submit(_run, name, arm, seed) for arm, seed in missing]):
            if done.exception():
                continue  # the other runs are worth keeping; the error is raised at the end
            record["runs"].append(done.result())
            record["runs"].sort(key=lambda r: (list(arms).index(r["arm"]), r["seed"]))
            records.write(name, record)
            print(name, done.result(), flush=True)
        for run in runs:
            run.result()
    if hasattr(module, "profile") and "profile" not in record:
        record["profile"] = module.profile()  # in this process, which nothing of ours disturbs any more
        records.write(name, record)
    return record


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


def _run(name: str, arm: str, seed: int) -> dict:
    started = time.time()
    numbers = experiment(name).run(arm, seed)
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
