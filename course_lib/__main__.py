"""The course from a shell.

    python -m course_lib doctor STUDENT TEACHER [--text FILE] [--json]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 = healthy, 1 = the doctor found an error, 2 = it could not be run."""
    parser = argparse.ArgumentParser(prog="python -m course_lib", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="look at a student and its teacher, and say what is wrong")
    doctor.add_argument("student", help="folder of a saved model, or its name on the hub")
    doctor.add_argument("teacher", help="folder of a saved model, or its name on the hub")
    doctor.add_argument("--text", metavar="FILE", help="one sentence per line; default: a few sentences of our own")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of text")
    given = parser.parse_args(arguments)
    try:
        return _doctor(given)
    except (ValueError, OSError) as error:
        print(f"python -m course_lib {given.command}: {error}", file=sys.stderr)
        return 2


def _doctor(given: argparse.Namespace) -> int:
    from course_lib.doctor.shell import diagnose_folders

    report = diagnose_folders(given.student, given.teacher, given.text)
    print(report.to_json() if given.json else report)
    return int(any(finding.severity == "error" for finding in report.findings))


if __name__ == "__main__":
    raise SystemExit(main())
