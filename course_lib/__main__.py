"""The course from a shell.

    python -m course_lib distill METHOD --teacher MODEL --data TEXTS --out FOLDER
    python -m course_lib finetune --model MODEL --data TEXTS --out FOLDER
    python -m course_lib doctor STUDENT TEACHER [--text FILE] [--json]
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 = well, 1 = the doctor found an error, 2 = it could not be run."""
    parser = argparse.ArgumentParser(prog="python -m course_lib", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="look at a student and its teacher, and say what is wrong")
    doctor.add_argument("student", help="folder of a saved model, or its name on the hub")
    doctor.add_argument("teacher", help="folder of a saved model, or its name on the hub")
    doctor.add_argument("--text", metavar="FILE", help="one text per line, or a table with a column of texts; "
                        "default: a few sentences of our own")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of text")
    distill = commands.add_parser("distill", help="distil your teacher into a smaller student, on your texts")
    distill.add_argument("method", help=_known_methods(sys.argv[1:] if arguments is None else arguments))
    distill.add_argument("--teacher", required=True, metavar="MODEL",
                         help="folder of a saved model, a hub name, or one of the course's (sentiment, topics, mlm)")
    distill.add_argument("--student", metavar="SPEC", help="half, third, 3 (layers), 3x192 (layers x width), a shape "
                         "(tinybert-4), bilstm, mobilebert, or a saved model; default: what suits the method")
    finetune = commands.add_parser("finetune", help="train a model on your labels: the teacher of a later run")
    finetune.add_argument("--model", required=True, metavar="MODEL", dest="teacher",
                          help="folder of a saved encoder, a hub name, or minilm-l6 (the course's encoder)")
    for command in (distill, finetune):
        _run_options(command)
    given = parser.parse_args(arguments)
    try:
        return _doctor(given) if given.command == "doctor" else _distill(given)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"python -m course_lib {given.command}: {error}", file=sys.stderr)
        return 2


def _known_methods(arguments: Sequence[str]) -> str:
    """The names of the methods, looked up only for somebody who asks for help: it takes some seconds."""
    if not {"-h", "--help"} & set(arguments):
        return ""
    from course_lib.methods.table import METHODS

    return ", ".join(f"{method.name} ({method.paper})" for method in METHODS.values())


def _run_options(parser: argparse.ArgumentParser) -> None:
    """What `distill` and `finetune` have in common."""
    parser.add_argument("--data", required=True, metavar="TEXTS", help="a file (csv, tsv, json, parquet, txt), a "
                        "folder with train/validation/test files, or a data set of the hub or the course")
    parser.add_argument("--out", required=True, metavar="FOLDER",
                        help="where the run is kept; the same command goes on with a stopped run")
    parser.add_argument("--text", metavar="COLUMN", help="column of the text; default: guessed and said")
    parser.add_argument("--label", metavar="COLUMN", help="column of the label; default: guessed and said")
    parser.add_argument("--encoding", default="utf-8", help="of the file; default utf-8, or what its first bytes say")
    parser.add_argument("--separator", metavar="SIGN", help="between the cells of a table: comma, semicolon, tab, bar "
                        "or another sign; default: seen and said")
    parser.add_argument("--quotes", choices=["cells", "letters"], help="what a quotation mark of a table does: hold a "
                        "cell together, or stand in the text; default: seen and said")
    parser.add_argument("--no-header", action="store_false", dest="header",
                        help="the first line of a table is a row; its columns are called 'column 1', 'column 2', ...")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="the classes in the order of their "
                        "numbers, or each as NAME=TEACHERS_NAME; default: matched by name or number, said and tried")
    parser.add_argument("--no-label", nargs="+", default=[], metavar="LABEL",
                        help="labels that mean that nobody knows, such as -1; these rows are left out and counted")
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave out rows that cannot be used; count them")
    parser.add_argument("--preset", default="laptop", help="laptop (the chapters' values, default) or paper")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="recipe",
                        help="change one value of the method's recipe, e.g. --set temperature=8 (may be repeated)")
    parser.add_argument("--steps", type=int, help="training steps of each stage")
    parser.add_argument("--epochs", type=float, help="or how often each stage sees all texts")
    parser.add_argument("--batch-size", type=int, help="examples per step, over all processes")
    parser.add_argument("--accumulate", type=int, default=1, help="cut each batch into so many parts (less memory)")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--max-length", type=int, default=128, help="tokens per text; default 128")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)


def _doctor(given: argparse.Namespace) -> int:
    from course_lib.doctor.shell import diagnose_folders

    report = diagnose_folders(given.student, given.teacher, given.text,
                              say=lambda line: None if given.json else print(line, flush=True))
    print(report.to_json() if given.json else report)
    return int(any(finding.severity == "error" for finding in report.findings))


def _distill(given: argparse.Namespace) -> int:
    from transformers.utils import logging

    from course_lib.distill import Settings, distill

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # a new head is no accident here
    options = {name: value for name, value in vars(given).items() if name != "command"}
    options["recipe"] = dict(_setting(text) for text in given.recipe)
    if given.command == "finetune":
        options |= {"method": "labels", "student": "itself"}
    distill(Settings(**options), say=lambda line: print(line, flush=True))
    return 0


def _setting(text: str) -> tuple[str, object]:
    """"temperature=8" -> ("temperature", 8). Raises: ValueError for a text without "="."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError(f"--set {text}: write NAME=VALUE, for example --set temperature=8.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a word: --set as_in=code


if __name__ == "__main__":
    raise SystemExit(main())
