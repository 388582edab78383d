"""Check a function in a fresh Python, where a fork is not safe: its text goes there, plain numbers come back.

    python -m course_lib.notebook.exercises.fresh    the other side: a request on standard input, a line per outcome

An endless loop is ended from outside, `os._exit` ends the fresh Python only, and nothing of this notebook can change.
Starting it takes about three seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from course_lib.notebook.exercises import definitions, guard
from course_lib.notebook.exercises.values import from_json, to_json

START_SECONDS = 60  # Python and its imports, on a slow machine
NAME = "the_function_to_check"
ENDED = guard.Outcome(trouble="Your function ended the whole Python process.")


def run(function: Callable[..., Any], calls: Sequence[guard.Call], seconds: float) -> list[guard.Outcome] | None:
    """The outcomes of the calls. None if the function cannot be carried: then it has to run where it is."""
    own = definitions.carried(function, NAME, "")
    if not own.source or own.missing or not all(_has_a_plain_form([*c.args, *c.kwargs.values()]) for c in calls):
        return None
    request = {"text": "\n".join([*own.needs.values(), own.source]), "calls": [
        {"args": [to_json(a) for a in c.args], "kwargs": {k: to_json(v) for k, v in c.kwargs.items()},
         "gradient_of": c.gradient_of} for c in calls]}
    root = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen([sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
                               env=os.environ | {"PYTHONPATH": paths, "COURSE_PROGRESS_FILE": "off"})
    try:
        return _outcomes(process, json.dumps(request), len(calls), seconds)
    finally:
        process.kill()
        process.wait()


def _has_a_plain_form(values: Any) -> bool:
    if isinstance(values, dict):
        return False
    return all(map(_has_a_plain_form, values)) if isinstance(values, (list, tuple)) else True


def _outcomes(process: subprocess.Popen[str], request: str, count: int, seconds: float) -> list[guard.Outcome] | None:
    ready = _within(START_SECONDS, process, lambda: (process.stdin.write(request + "\n"), process.stdin.flush(),
                                                     process.stdout.readline())[2])
    if ready != "ready\n":  # its imports or its helpers do not work elsewhere
        return None
    lines: list[str] = []
    finished = _within(seconds, process, lambda: lines.extend(process.stdout) or True)
    outcomes = [guard.from_plain(json.loads(line)) for line in lines if line.endswith("\n")]
    complete = len(outcomes) == count or (outcomes and (outcomes[-1].trouble or outcomes[-1].not_started))
    return outcomes if complete else [*outcomes, ENDED if finished else guard.late(seconds)]


def _within(seconds: float, process: subprocess.Popen[str], action: Callable[[], Any]) -> Any:
    """What the action gives; None if the process has to be ended before it does."""
    found: list[Any] = []

    def act() -> None:
        try:
            found.append(action())
        except (OSError, ValueError):  # the other side is gone
            found.append(None)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        process.kill()
        thread.join()
        return None
    return found[0]


def main() -> None:
    """The other side: define the function, say `ready`, make the calls."""
    request = json.loads(sys.stdin.readline())
    sent, nowhere = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(request["text"], "<your function>", "exec"), space)  # the learner's own text
    print("ready", file=sent, flush=True)
    calls = [guard.Call(tuple(from_json(c["args"])), {k: from_json(v) for k, v in c["kwargs"].items()},
                        c["gradient_of"]) for c in request["calls"]]
    guard.each(space[NAME], calls, lambda outcome: print(json.dumps(asdict(outcome)), file=sent, flush=True))
    os._exit(0)


if __name__ == "__main__":
    main()
