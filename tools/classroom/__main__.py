"""python -m classroom assignments|grade: see `__init__.py` and the instructor's page of the book."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from classroom import assignments


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m classroom", description="Assignments for a class.")
    parser.add_argument("--course", type=Path, default=assignments.ROOT / "class", help="folder of the class (class/)")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("assignments", help="write the assignments of all chapters, or of the named ones")
    make.add_argument("chapters", nargs="*", metavar="ch01")
    grade = commands.add_parser("grade", help="grade every file in a folder")
    grade.add_argument("submissions", type=Path)
    grade.add_argument("--workers", type=int, help="submissions at a time on this machine (default: its cores)")
    grade.add_argument("--dask", metavar="ADDRESS", help="grade on the workers of this Dask scheduler")
    asked = parser.parse_args(arguments)
    return _make(asked) if asked.command == "assignments" else _grade(asked)


def _make(asked: argparse.Namespace) -> int:
    unknown = [name for name in asked.chapters if name not in assignments.available()]
    if unknown:
        print(f"No chapter {unknown[0]}. There are: {', '.join(assignments.available())}.", file=sys.stderr)
        return 2
    try:
        said = assignments.generate(asked.course, asked.chapters or assignments.available())
    except assignments.DriftError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(said))
    return 0


def _grade(asked: argparse.Namespace) -> int:
    from classroom import report, running, sandbox

    if not asked.submissions.is_dir():
        print(f"There is no folder {asked.submissions}. Use: make grade SUBMISSIONS=folder", file=sys.stderr)
        return 2
    if not (asked.course / "gradebook.db").exists() and (failed := _make(argparse.Namespace(course=asked.course,
                                                                                           chapters=[]))):
        return failed
    started = time.monotonic()
    engine = running.on_dask(asked.dask) if asked.dask else running.here(asked.workers or running.workers())
    sandbox.close_to_others()
    stopped = ""
    try:
        results = running.grade_all(asked.submissions, asked.course, engine, say=lambda text: print(text, flush=True))
    except running.Stopped as error:
        results, stopped = error.results, str(error)
    about = f"Graded in {time.monotonic() - started:.0f} s. {sandbox.explained()}"
    scores, page = report.write(results, asked.course, about)
    print(f"{about}\n{len(results)} rows: {scores}\nclass report: {page}\nfeedback: {asked.course / 'feedback'}")
    if stopped:
        print(stopped, file=sys.stderr)
    return 130 if stopped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
