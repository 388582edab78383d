"""Does a test notice? Every mutant of the catalogue is switched on, and its tests must fail.

    python tools/mistakes.py                                   all of them: what `make mistakes` runs
    python tools/mistakes.py missing_t_squared untied_head     only these
    python tools/mistakes.py --tests tests/test_pkd.py untied_head    against other tests than the declared ones

Importing torch costs seconds, a test costs milliseconds. So one process imports everything, and every mutant gets a
fork of it. At the end the tests that caught a mutant run once more without any mutant: they must pass, or they prove
nothing.
A mutant that survives is a missing test, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = max(1, min(4, os.cpu_count() or 1))
SECONDS = 300  # for one mutant, on a busy machine; a test that hangs has not noticed anything
# Set before torch is imported: with one thread it starts no pool, and a process without threads can be forked.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COURSE_PROGRESS": "0", "COURSE_OFFLINE": "1",
               "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
               "MPLBACKEND": "agg",
               "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # importing nbval takes longer than most mutants
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--no-header",
           "-m", "not browser and not assets and not slow"]


@dataclass(frozen=True)
class Verdict:
    """What happened to one mutant. `killed_by` is the first test that failed; None = it survived."""

    name: str
    killed_by: str | None
    seconds: float
    trouble: str = ""  # the tests could not run: that is neither caught nor missed

    @property
    def ok(self) -> bool:
        return self.killed_by is not None and not self.trouble


class FirstFailure:
    """A pytest plugin that remembers the first test that failed, and errors outside of tests."""

    def __init__(self) -> None:
        self.test: str | None = None
        self.trouble, self.passed = "", 0

    def pytest_runtest_logreport(self, report) -> None:
        self.passed += report.when == "call" and report.passed
        if report.failed and self.test is None:
            self.test = report.nodeid

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.trouble = f"{report.nodeid} could not be collected"


def run_tests(tests: Sequence[str]) -> FirstFailure:
    """Run pytest in this process, silently."""
    import pytest

    plugin = FirstFailure()
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence), warnings.catch_warnings():
        code = pytest.main([*OPTIONS, *tests], plugins=[plugin])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not plugin.trouble:
        plugin.trouble = f"pytest ended with {pytest.ExitCode(code).name}"
    if not plugin.passed and plugin.test is None and not plugin.trouble:
        plugin.trouble = "no test ran"
    return plugin


def child(name: str | None, tests: Sequence[str], report: Connection) -> None:
    """In the fork: switch the mutant on, run its tests, say what happened."""
    from course_lib.mistakes import mutant

    start = time.monotonic()
    try:
        with mutant(name) if name else contextlib.nullcontext():
            found = run_tests(tests)
        report.send(Verdict(name or "", found.test, time.monotonic() - start, found.trouble))
    except BaseException as error:  # also SystemExit: the parent must hear of it
        report.send(Verdict(name or "", None, time.monotonic() - start, f"{type(error).__name__}: {error}"))
    finally:
        report.close()


def judge(jobs: dict[str, Sequence[str]], workers: int = WORKERS) -> Iterator[Verdict]:
    """Yield a verdict per mutant as they come in; at most `workers` forks at a time."""
    context, waiting = multiprocessing.get_context("fork"), list(jobs.items())
    running: dict[Connection, tuple[str, multiprocessing.Process, float]] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            name, tests = waiting.pop(0)
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(name, tests, send))
            process.start()
            send.close()
            running[receive] = (name, process, time.monotonic())
        ready = wait(list(running), timeout=1.0)
        late = [c for c, (_, _, start) in running.items() if time.monotonic() - start > SECONDS and c not in ready]
        for connection in (*ready, *late):
            name, process, start = running.pop(connection)
            trouble = f"stopped after {SECONDS} s" if connection in late else "the process died"
            verdict = Verdict(name, None, time.monotonic() - start, trouble)
            with contextlib.suppress(EOFError):
                verdict = connection.recv() if connection in ready else verdict
            process.kill() if connection in late else None
            process.join()
            yield verdict


def shown(verdict: Verdict) -> str:
    if verdict.trouble:
        return f"TROUBLE: {verdict.trouble}"
    return verdict.killed_by.removeprefix("tests/") if verdict.killed_by else "SURVIVED: a test is missing"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="mutants; default: all")
    parser.add_argument("--tests", action="append", metavar="FILE", help="run these instead of the declared tests")
    parser.add_argument("--workers", type=int, default=WORKERS, help="mutants at a time (default: %(default)s)")
    options = parser.parse_args(arguments)
    if "fork" not in multiprocessing.get_all_start_methods():
        print("This needs fork, which Windows does not have. Use WSL, or read the result in the CI.", file=sys.stderr)
        return 2
    os.environ |= ENVIRONMENT
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests"))
    start = time.monotonic()
    import_everything()
    from course_lib.mistakes import MUTANTS

    unknown = [name for name in options.names if name not in MUTANTS]
    if unknown:
        print(f"No mutant {unknown[0]!r}. There are: {', '.join(MUTANTS)}.", file=sys.stderr)
        return 2
    jobs = {name: options.tests or MUTANTS[name].tests for name in options.names or MUTANTS}
    print(f"{len(jobs)} mutants, {options.workers} at a time", flush=True)
    verdicts = []
    for verdict in judge(jobs, options.workers):
        verdicts.append(verdict)
        mark = "ok " if verdict.ok else "RED"
        print(f"{mark}  {verdict.name:34s} {verdict.seconds:5.1f} s  {shown(verdict)}", flush=True)
    killers = sorted({verdict.killed_by for verdict in verdicts if verdict.ok})
    control = control_run(killers) if killers else None
    caught = sum(verdict.ok for verdict in verdicts)
    print(f"{caught} of {len(verdicts)} mutants caught in {time.monotonic() - start:.0f} s")
    if control:
        print(f"RED  without any mutant: {control}. A test that always fails catches nothing.")
    return 0 if caught == len(verdicts) and not control else 1


def control_run(tests: Sequence[str]) -> str | None:
    """The tests that caught something must pass with the right code; return the first that does not."""
    verdict = next(judge({"": tests}))
    return verdict.trouble or verdict.killed_by


def import_everything() -> None:
    """What the tests import, so that no fork has to do it again. Nothing is computed here."""
    import hypothesis
    import pytest
    import torch
    import transformers

    import course_lib.mistakes

    torch.set_num_threads(1)
    gc.freeze()  # the forks need not look through all these modules for garbage
    transformers.logging.set_verbosity_error()
    # transformers loads its models when they are first asked for
    for name in ("BertModel", "BertForMaskedLM", "DistilBertModel", "Trainer", "MobileBertModel"):
        getattr(transformers, name)
    assert hypothesis and pytest and course_lib.mistakes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
