"""Measure the numbers in the chapters' tables again: runs every tools/results_<chapter>.py.

    python tools/results.py [ch01 ...]

Each of them writes data/results/<chapter>.json with one row per seed; the chapters and the book read those files.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main(names: list[str]) -> int:
    scripts = [path for path in sorted(FOLDER.glob("results_*.py"))
               if not names or path.stem.removeprefix("results_").startswith(tuple(names))]
    if not scripts:
        print("There is no tools/results_<chapter>.py to run.", file=sys.stderr)
        return 1
    for script in scripts:
        started = time.monotonic()
        if subprocess.run([sys.executable, str(script)], cwd=FOLDER.parent, check=False).returncode:
            print(f"{script.stem} failed; its results were not written.", file=sys.stderr)
            return 1
        print(f"{script.stem}: {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
