"""Everything that must hold, stage by stage, in two lanes.

    python tools/check.py                      the short lane: what `make test` runs
    python tools/check.py --all                everything: what `make test ALL=1` and every push run
    python tools/check.py [--all] lint book    only these stages

The short lane leaves out what is marked `slow`, the chapters whose stored outputs are as new as everything that they
depend on, and the stage that switches every known mistake on. A red stage does not stop the others. At the end comes
a table, then one line that sums up all tests.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import chapter_files

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
# Two at a time, each on its own core: a torch process that takes all cores is slower than two that share them.
WORKERS = str(max(1, min(4, os.cpu_count() or 1)))
PYTEST = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-r", "fEs",
          "--durations=20", "--durations-min=10"]  # what it lists belongs under the mark `slow`
# A worker takes whole files, in the order of the collection: the longest come first, so that no core waits at the end.
SPREAD = ["-n", WORKERS, "--dist", "loadfile", "--no-loadscope-reorder"]
NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=600"]

ALWAYS = "ch00"  # this chapter runs in the short lane even when nothing changed: kernels, assets and comparison work
ASIDE = {"book"}  # keeps one core busy, so it runs beside the first stages and is waited for in its place


def stages(everything: bool) -> dict[str, list[str]]:
    """The commands of a lane, by stage, in order."""
    def marked(*wanted: str) -> list[str]:
        marks = " and ".join([*wanted, *([] if everything else ["not slow"])])
        return ["-m", marks] if marks else []

    lane = {
        "assets": [PYTHON, "-m", "course_lib.material.assets"],
        "lint": [PYTHON, "-m", "ruff", "check", "."],
        "house": [str(Path(PYTHON).with_name("lint-imports")), "--no-cache"],
        "pairs": [PYTHON, "tools/notebooks.py", "check"],
        "notebooks": [*PYTEST, *chapters(everything), *NBVAL, *SPREAD],
        "book": [PYTHON, "tools/book.py"],
        "tests": [*PYTEST, "tests", "--ignore=tests/test_classroom.py", *marked("not browser"), *SPREAD],
        "browser": [*PYTEST, "tests", *marked("browser"), *SPREAD],
        # By itself: grading a class uses all cores already.
        "class": [*PYTEST, "tests/test_classroom.py", *marked()],
        "mistakes": [PYTHON, "tools/mistakes.py"],
    }
    return lane if everything else {name: command for name, command in lane.items() if name != "mistakes"}


def chapters(everything: bool) -> list[str]:
    """The notebooks to run, the longest first: all, or those that are older than what they depend on, and one more."""
    found = [path for path in chapter_files.sources([])
             if everything or path.stem.startswith(ALWAYS) or chapter_files.why_stale(path)]
    return [path.with_suffix(".ipynb").relative_to(ROOT).as_posix() for path in chapter_files.longest_first(found)]


@dataclass
class Result:
    name: str
    ok: bool
    seconds: float
    closing: str


def environment(stage: str) -> dict[str, str]:
    """One thread for each process. After the assets are here, everything runs with the network forbidden."""
    env = os.environ | {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg",
                        "OMP_NUM_THREADS": "1"}
    if stage != "assets":
        env |= {"COURSE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return env


def run(stage: str, command: list[str], minutes: float = 30, aside: bool = False) -> Result:
    """Run one stage and keep its last line. Its lines are passed on at once, or in one piece from a stage aside."""
    title = f"\n=== {stage} ".ljust(80, "=")
    start, closing, kept = time.monotonic(), "", [title + "\n"]
    if not aside:
        print(title, flush=True)
    with subprocess.Popen(command, cwd=ROOT, env=environment(stage), text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        watchdog = threading.Timer(minutes * 60, process.kill)
        watchdog.start()
        for line in process.stdout:
            kept.append(line) if aside else print(line, end="", flush=True)
            closing = line.strip() or closing
        code = process.wait()
        watchdog.cancel()
    if aside:
        print("".join(kept), end="", flush=True)
    if code == -9:
        closing = f"stopped after {minutes} minutes: something hangs"
    return Result(stage, code == 0, time.monotonic() - start, closing)


def run_all(lane: dict[str, list[str]]) -> list[Result]:
    """Run a lane in order. Where others can run meanwhile, what stands in ASIDE starts at once."""
    results: list[Result] = []
    with ThreadPoolExecutor(len(ASIDE)) as beside:
        meanwhile: dict[str, Future[Result]] = {
            name: beside.submit(run, name, lane[name], aside=True) for name in lane if name in ASIDE}
        for name, command in lane.items():
            results.append(meanwhile[name].result() if name in meanwhile else run(name, command))
    return results


def total(results: list[Result], seconds: float) -> str:
    """Add up the closing lines of all pytest stages into one of the same form. seconds: from start to end."""
    counts: dict[str, int] = {}
    for result in results:
        closing = result.closing if re.search(r" in \d+\.\d+s", result.closing) else ""  # other tools count otherwise
        for number, word in re.findall(r"(\d+) (failed|passed|skipped|xfailed|error)", closing):
            counts[word] = counts.get(word, 0) + int(number)
    red = [result.name for result in results if not result.ok]
    said = ", ".join(f"{counts[word]} {word}" for word in ("failed", "passed", "skipped", "xfailed", "error")
                     if counts.get(word))
    return f"=== {said or 'no tests'} in {seconds:.2f}s{' (red: ' + ', '.join(red) + ')' if red else ''} ==="


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the long lane")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="only these stages")
    asked = parser.parse_args(arguments)
    start, lane = time.monotonic(), stages(asked.all)
    unknown = [name for name in asked.stages if name not in lane]
    if unknown:
        print(f"No stage '{unknown[0]}' in this lane. There are: {', '.join(lane)}.", file=sys.stderr)
        return 2
    results = run_all({name: lane[name] for name in asked.stages or lane})
    print("\n" + "=" * 80)
    for result in results:
        print(f"{'ok ' if result.ok else 'RED'}  {result.name:10s} {result.seconds:7.1f} s   {result.closing[:90]}")
    if not asked.all:
        print("This was the short lane; `make test ALL=1` runs everything.")
    print(total(results, time.monotonic() - start), flush=True)
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
