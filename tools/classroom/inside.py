"""The kernel's side of the sandbox: take the limits on, give root's rights away, start the kernel.

    python inside.py CONNECTION_FILE

This file is alone in there: it may import the standard library and what learners have, nothing of `classroom`. The
hidden tests call `answers`. It sends back what the function under test returned, as plain numbers. The numbers that
would be right are not here, so no trick in the notebook can read them or change the verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from dataclasses import asdict
from typing import Any

ANSWERS = "application/x-course-answers"
GIGABYTE = 1024**3


def limit(memory_gb: float, processes: int, cpu_seconds: int, file_mb: int) -> None:
    """Limits of this process and of everything that it starts."""
    wanted = {resource.RLIMIT_AS: int(memory_gb * GIGABYTE), resource.RLIMIT_NPROC: processes,
              resource.RLIMIT_CPU: cpu_seconds, resource.RLIMIT_FSIZE: file_mb * 1024**2, resource.RLIMIT_CORE: 0}
    for kind, most in wanted.items():
        with contextlib.suppress(ValueError, OSError):  # the system's own limit may be lower, or there is none
            resource.setrlimit(kind, (most, most))


def become(user: int, connection_file: str) -> None:
    """Give root's rights away for good. The user's number is used by nobody else, so its processes can be counted."""
    if user and os.getuid() == 0:
        for path in (connection_file, os.path.dirname(connection_file)):
            os.chown(path, user, user)
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


def main(connection_file: str) -> None:
    settings = json.loads(os.environ["COURSE_SANDBOX"])
    os.environ.clear()
    os.environ.update(settings["environment"])
    become(settings["user"], connection_file)
    limit(**settings["limits"])
    os.chdir(settings["folder"])
    sys.argv = ["kernel", "-f", connection_file, "--HistoryManager.enabled=False"]
    from ipykernel.kernelapp import launch_new_instance

    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what the notebook prints goes through the kernel; the grader's screen is not for it
        os.dup2(nowhere, stream)
    launch_new_instance()


def answers(name: str, namespace: dict[str, Any]) -> None:
    """Call the student's function for exercise `name` with the hidden inputs, and send the outcomes out."""
    from IPython.display import display

    from course_lib.notebook.exercises import checking, guard
    from course_lib.notebook.exercises.questions import call, question

    asked, sent = question(name), {}
    if asked.function not in namespace:
        sent["refused"] = f"There is no function {asked.function} in the notebook."
    else:
        function = namespace[asked.function]
        sent["refused"] = checking.not_the_function(asked, function)
    if not sent["refused"]:
        with open(os.environ["COURSE_HIDDEN_INPUTS"], encoding="utf-8") as file:
            stored = json.load(file)[name]
        calls = checking.all_calls(asked, [call(asked, entry) for entry in stored])
        sent["outcomes"] = [asdict(outcome) for outcome in guard.run(function, calls, asked.seconds)]
    display({ANSWERS: json.dumps(sent), "text/plain": ""}, raw=True)  # as text: JSON proper knows no NaN


if __name__ == "__main__":
    main(sys.argv[1])
