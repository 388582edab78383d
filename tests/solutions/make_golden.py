"""Store inputs, right numbers and the numbers of typical mistakes:  python tests/solutions/make_golden.py ch00 ch01

The right numbers come from EXPECTED (NumPy, float64), never from the solution that they will judge. Another seed gives
a hidden set of the same kind.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from course_lib.notebook.exercises.questions import chapter  # noqa: E402
from course_lib.notebook.exercises.values import to_json  # noqa: E402

SEED = 20151503
FOLDER = HERE.parents[1] / "course_lib" / "notebook" / "exercises" / "golden"


@cache
def golden(name: str, seed: int = SEED) -> dict[str, Any]:
    """The content of `golden/<name>.json`, made once per process and seed. Read it, and leave it as it is."""
    module = module_of(name)
    made = module.cases(seed)
    return {question.name: [stored(module, question.name, question.mistakes, case) for case in made[question.name]]
            for question in chapter(name).questions}


def module_of(name: str) -> Any:
    """The solutions of a chapter, by its name or by the name of one of its questions."""
    return importlib.import_module(f"solutions.{name.partition('.')[0]}")


def stored(module: Any, question: str, mistakes: dict[str, str], case: dict[str, Any]) -> dict[str, Any]:
    """One case in the form of a golden file: inputs, right numbers, and what each of the mistakes gives."""
    args = case["args"]
    entry = {"about": case["about"], "stage": case["stage"], "args": {k: to_json(v) for k, v in args.items()},
              "expected": to_json(_tensors(module.EXPECTED[question](**args)))}
    if "gradient_of" in case:
        gradient = torch.tensor(module.GRADIENTS[question](**args), dtype=torch.float32)
        entry["gradient"] = {"of": case["gradient_of"], "expected": to_json(gradient)}
    if case["stage"] == "numbers":
        entry["mistakes"] = {name: to_json(_mistaken(module.MISTAKES[question][name], args)) for name in mistakes}
    return entry


def _tensors(answer: Any) -> Any:
    """NumPy results in the form in which a learner returns them."""
    if isinstance(answer, tuple):
        return tuple(_tensors(part) for part in answer)
    if hasattr(answer, "dtype"):
        answer = torch.as_tensor(answer)
        return answer.float() if answer.is_floating_point() else answer
    return answer


def _mistaken(function: Any, args: dict[str, Any]) -> Any:
    copies = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in args.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch warns of reduction="mean": that is the mistake
        return function(**copies)


def text(name: str) -> str:
    """The file's text: one case on a line, so that a change shows in a diff."""
    lines = [f"{json.dumps(question)}: [\n" + ",\n".join(json.dumps(case, sort_keys=True) for case in cases) + "\n]"
             for question, cases in golden(name).items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for chapter_name in sys.argv[1:]:
        (FOLDER / f"{chapter_name}.json").write_text(text(chapter_name), encoding="utf-8")
