"""python -m course_lib.experiments.speed [part ...] [--quick]"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence

import torch
from datasets import disable_progress_bars

from course_lib.experiments.speed import page, record
from course_lib.shared import clock

# Part -> how many seconds its clock may take; building, training and exporting come on top.
PARTS = {"shapes": 90.0, "deployment": 40.0, "cost": 90.0, "memory": 0.0}


def run(part: str, quick: bool = False) -> dict:
    """Measure one part and say under which conditions. Raises: ValueError for a part that does not exist."""
    if part not in PARTS:
        raise ValueError(f"No part '{part}'. There are: {', '.join(PARTS)}.")
    started = time.monotonic()
    module = importlib.import_module(f"course_lib.experiments.speed.{part}")
    found = module.measure(0.0 if quick else PARTS[part], quick)
    where = clock.device() if part != "deployment" else torch.device("cpu")
    return {"command": f"python -m course_lib.experiments.speed {part}", "where": clock.conditions(where),
            "minutes": round((time.monotonic() - started) / 60, 1)} | found


def main(arguments: Sequence[str]) -> int:
    """Measure the named parts (default: all), print their tables and keep them, one part after the other."""
    quick, parts = "--quick" in arguments, [a for a in arguments if a != "--quick"] or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        print(f"No part '{unknown[0]}'. There are: {', '.join(PARTS)}, and --quick.", file=sys.stderr)
        return 2
    disable_progress_bars()  # of `datasets`, between our tables
    for part in parts:
        found = run(part, quick)
        print(f"{page.section(part, found)}\n\n{part}: {found['minutes']} minutes\n", flush=True)
        if not quick:
            record.store(part, found, list(PARTS))
    print("A quick run keeps nothing." if quick else f"Kept in {record.FILE}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
