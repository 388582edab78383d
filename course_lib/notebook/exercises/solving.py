"""What stands behind an exercise: its solution, once you have tried, and your own function, once it has passed.

A class switches the solutions off with COURSE_SOLUTIONS=off; `make assignments` writes that into every notebook. The
grader's sandbox has neither the switch nor the folder.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from course_lib.notebook.exercises import store
from course_lib.notebook.exercises.messages import Message, message
from course_lib.notebook.exercises.points import new_entry
from course_lib.notebook.exercises.questions import Question, chapter, question

TRIES = 3
HONESTY = "It costs no points, only honesty: write it once more yourself before you go on."
_passed: dict[str, Callable[..., Any]] = {}  # the functions that passed since the kernel started


# --- the solution -----------------------------------------------------------------------------------------------------


def solution(name: str) -> Solution | Message:
    """A good solution: after a pass, or after both hints and three tries.

    Raises: ValueError for an exercise that does not exist.
    """
    asked = question(name)
    # The zip that a class gets (`make assignments`) has no solutions at all.
    missing = not resources.files(__package__).joinpath("reference").is_dir()
    if missing or os.environ.get("COURSE_SOLUTIONS", "").lower() == "off":
        return message(f"{name}: this class has switched the solutions off. Ask your teacher for them.")
    state, note = store.load()
    entry = state["exercises"].get(name, new_entry())
    if entry["status"] == "correct":
        return Solution(name, source(asked), "Yours passed too; another way is not a worse one.", note)
    if entry["hints"] >= len(asked.hints) and entry["attempts"] >= TRIES:
        return Solution(name, source(asked), HONESTY, note)
    so_far = (f"So far: {entry['hints']} of {len(asked.hints)} hints, {min(entry['attempts'], TRIES)} of {TRIES} "
              "tries.")
    return message(f"{name}: the solution opens when your function passes, or after both hints and {TRIES} tries. "
                   f"{so_far}", f'hint("{name}") shows a hint. {HONESTY.split(":", maxsplit=1)[0]}.', note)


def source(asked: Question) -> str:
    """Text of the reference solution. Answers to other exercises that it calls are named, not repeated."""
    chapter_name = asked.name.partition(".")[0]
    text = resources.files(__package__).joinpath(f"reference/{chapter_name}.py").read_text(encoding="utf-8")
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    others = {q.function: q.name for q in chapter(chapter_name).questions if q.name != asked.name}
    parts, notes, todo = [], [], [asked.function]
    while todo:
        name = todo.pop(0)
        if name in others:
            notes.append(f"# {name} is the answer to {others[name]}.")
            continue
        parts.append(ast.get_source_segment(text, functions[name]))
        used = {node.id for node in ast.walk(functions.pop(name)) if isinstance(node, ast.Name)}
        todo += sorted(used & (functions.keys() - set(todo)))
    return "\n\n\n".join(["\n".join([*notes, parts[0]]), *parts[1:]])


def _script() -> str:
    return resources.files(__package__).joinpath("solution.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Solution:
    """A solution that shows itself: highlighted, and with a button that copies it."""

    name: str
    text: str
    said: str
    note: str = ""

    def __repr__(self) -> str:
        return "\n".join(line for line in (f"# {self.name}, a solution. {self.said}", self.text, self.note) if line)

    def _repr_html_(self) -> str:
        # "default" is made for a light ground, so the block brings one, in dark pages too.
        code = highlight(self.text, PythonLexer(), HtmlFormatter(noclasses=True, nowrap=True, style="default"))
        return ('<div class="course-solution tex2jax_ignore mathjax_ignore" style="max-width:52em">'
                f"<p style=\"margin:.2em 0\"><strong>{escape(self.name)}, a solution.</strong> {escape(self.said)}</p>"
                '<pre tabindex="0" style="background:#f8f8f8;color:#1a1a1a;border:1px solid #767676;border-radius:4px;'
                'padding:.6em .8em;margin:0;white-space:pre-wrap;overflow-wrap:break-word">'
                f'<code style="background:none;color:inherit;padding:0">{code}</code></pre>'
                f'<button type="button" style="margin:.4em 0" data-copy>Copy</button> <span role="status"></span>'
                f"<script>{_script()}</script>{f'<p>{escape(self.note)}</p>' if self.note else ''}</div>")


# --- the function that passed -----------------------------------------------------------------------------------------


def keep(name: str, function: Callable[..., Any]) -> None:
    """Remember a function that passed, for `passed`."""
    _passed[name] = function


def passed(name: str, instead: Callable[..., Any] | None = None) -> Mine:
    """Your function that passed an exercise, so that the next run trains with what you wrote.

    instead: what the run uses before that, with the same arguments. It may be left out; then calling the result
    without a pass raises.
    Raises: ValueError for an exercise that does not exist.
    """
    asked = question(name)
    return Mine(name, asked.function, _passed.get(name), instead)


@dataclass(frozen=True)
class Mine:
    """A function of the learner, or what stands in for it; it shows itself as the sentence that says which it is."""

    name: str
    called: str
    own: Callable[..., Any] | None
    instead: Callable[..., Any] | None

    def __bool__(self) -> bool:
        return self.own is not None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function = self.own or self.instead
        if function is None:
            raise RuntimeError(repr(self))
        return function(*args, **kwargs)

    def __repr__(self) -> str:
        if self.own:
            return f"{self.name} passed: what follows runs with your {self.called}."
        first = f"{self.name} has not passed yet in this kernel"
        if self.instead is None:
            return f'{first}, and what follows needs it: solve it, run check("{self.name}", {self.called}), come back.'
        return f"{first}, so what follows runs with the course's own function. Solve it and run this cell again."
