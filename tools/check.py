"""Everything that must hold, stage by stage: what `make test` runs.

    python tools/check.py              all stages
    python tools/check.py lint book    only these

A red stage does not stop the others. At the end comes a table, then one line that sums up all tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
# Two at a time, each on its own core: a torch process that takes all cores is slower than two that share them.
WORKERS = str(max(1, min(4, os.cpu_count() or 1)))
PYTEST = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-r", "fEs"]

STAGES: dict[str, list[str]] = {
    "assets": [PYTHON, "-m", "course_lib.material.assets"],
    "lint": [PYTHON, "-m", "ruff", "check", "."],
    "house": [str(Path(PYTHON).with_name("lint-imports")), "--no-cache"],
    "pairs": [PYTHON, "tools/notebooks.py", "check"],
    "tests": [*PYTEST, "tests", "-m", "not browser", "-n", WORKERS, "--dist", "loadfile",
              "--ignore=tests/test_classroom.py"],
    # By itself: grading a class uses all cores already.
    "class": [*PYTEST, "tests/test_classroom.py"],
    "notebooks": [*PYTEST, "notebooks", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=600"],
    "book": [PYTHON, "tools/book.py"],
    "browser": [*PYTEST, "tests", "-m", "browser"],
}


@dataclass
class Result:
    name: str
    ok: bool
    seconds: float
    closing: str


def environment(stage: str) -> dict[str, str]:
    """After the assets are here, everything runs with the network forbidden."""
    env = os.environ | {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg"}
    if stage != "assets":
        env |= {"COURSE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if stage in ("tests", "class"):
        env |= {"OMP_NUM_THREADS": "1"}
    return env


def run(stage: str, minutes: float = 30) -> Result:
    """Run one stage, pass its lines on at once, and keep the last one."""
    print(f"\n=== {stage} ".ljust(80, "="), flush=True)
    start, closing = time.monotonic(), ""
    with subprocess.Popen(STAGES[stage], cwd=ROOT, env=environment(stage), text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        watchdog = threading.Timer(minutes * 60, process.kill)
        watchdog.start()
        for line in process.stdout:
            print(line, end="", flush=True)
            closing = line.strip() or closing
        code = process.wait()
        watchdog.cancel()
    if code == -9:
        closing = f"stopped after {minutes} minutes: something hangs"
    return Result(stage, code == 0, time.monotonic() - start, closing)


def total(results: list[Result]) -> str:
    """Add up the closing lines of all pytest stages into one of the same form."""
    counts: dict[str, int] = {}
    for result in results:
        closing = result.closing if re.search(r" in \d+\.\d+s", result.closing) else ""  # other tools count otherwise
        for number, word in re.findall(r"(\d+) (failed|passed|skipped|xfailed|error)", closing):
            counts[word] = counts.get(word, 0) + int(number)
    red = [result.name for result in results if not result.ok]
    said = ", ".join(f"{counts[word]} {word}" for word in ("failed", "passed", "skipped", "xfailed", "error")
                     if counts.get(word))
    seconds = sum(result.seconds for result in results)
    return f"=== {said or 'no tests'} in {seconds:.2f}s{' (red: ' + ', '.join(red) + ')' if red else ''} ==="


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        print(f"No stage '{unknown[0]}'. There are: {', '.join(STAGES)}.", file=sys.stderr)
        return 2
    results = [run(stage) for stage in names or STAGES]
    print("\n" + "=" * 80)
    for result in results:
        print(f"{'ok ' if result.ok else 'RED'}  {result.name:10s} {result.seconds:7.1f} s   {result.closing[:90]}")
    print(total(results), flush=True)
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
