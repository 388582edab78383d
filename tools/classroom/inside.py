"""The sandbox's side: take the limits on, run the student's cells, call their functions, send plain text and numbers.

    python inside.py        requests come through standard input, replies go to standard output

This file is alone in there with `limits.py`: it may import what learners have, nothing of `classroom`. The numbers that
would be right are never here, and the hidden inputs come only when all cells have run and all texts have left.

A frame is four bytes of length and JSON. Requests:

    {"cell": text, "space": ""}             run a cell; reply: {"text", "error"}. Another space is another namespace
    {"letters": true}                       reply: {"letters": [[name, choice], ...]}, the calls of answer(...) so far
    {"question": name, "cases": [...], "space": "", "checked": false}
                                            call the student's function; reply: {"refused", "outcomes", "checked"}
"""

from __future__ import annotations

import ast
import builtins
import io
import json
import linecache
import os
import struct
import sys
from dataclasses import asdict
from importlib.abc import MetaPathFinder
from typing import Any

import limits

MOST_TEXT = 4_000  # characters of output of one cell that are kept
MOST_LETTERS = 500  # calls of answer()
# What learners import from the course while they answer; everything else of it holds solutions.
SHOWN = ("course_lib.notebook", "course_lib.notebook.exercises")


class Kept(io.RawIOBase):
    """A stream that keeps the beginning of what is written and lets the rest fall."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(data)
        if len(self.data) < 4 * MOST_TEXT:
            self.data += bytes(data[:4 * MOST_TEXT])
        return size


class NotWhileGrading(MetaPathFinder):
    """Importing the course's own solutions says why it cannot be done."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.startswith("course_lib.") and name not in SHOWN and not name.startswith(f"{SHOWN[1]}."):
            raise ModuleNotFoundError(f"{name} is not there while your notebook is graded: the exercises ask for "
                                      "functions of your own", name=name)


class Runner:
    """A notebook's kernel without Jupyter: IPython runs cells, and what they show is plain text of a fixed length."""

    def __init__(self) -> None:
        from course_lib.notebook import exercises
        from course_lib.notebook.exercises import checking, guard, questions, values

        self.run, self.refused, self.all_calls = guard.run, checking.not_the_function, checking.all_calls
        self.question, self.call, self.plain = questions.question, questions.call, values.from_python
        self.checked: dict[str, Any] = {}  # exercise -> what the student's own check(...) was given
        self.seen: dict[tuple[str, str], Any] = {}  # (space, name) -> the last function of that name
        self.letters: list[tuple[str, str]] = []
        self.spaces: dict[str, dict[str, Any]] = {}
        self.shell = _shell()
        self.parts = 0
        for name in ("hint", "quiz", "predict", "recall", "progress", "export_answers"):
            setattr(exercises, name, lambda *_, **__: None)
        exercises.check, exercises.answer = self._check, self._answer

    def _check(self, name: str, function: Any = None, *_: Any, **__: Any) -> None:
        self.checked[str(name)] = function

    def _answer(self, name: str, choice: str = "", *_: Any, **__: Any) -> None:
        if len(self.letters) < MOST_LETTERS:
            self.letters.append((str(name)[:40], str(choice)[:60]))

    def space(self, name: str) -> dict[str, Any]:
        """The namespace of a request: the notebook's, or one of its own for each exported answer."""
        if not name:
            return self.shell.user_ns
        return self.spaces.setdefault(name, {"__name__": "__main__", "__builtins__": builtins})

    def cell(self, text: str, space: str) -> dict[str, str]:
        """Run a cell, statement by statement: one that fails does not keep the next from defining a function."""
        kept = Kept()
        out = io.TextIOWrapper(io.BufferedWriter(kept, 1), encoding="utf-8", errors="replace", write_through=True)
        sys.stdout = sys.stderr = out
        error = ""
        for part in self._statements(text):
            problem = self._execute(part, space)
            error = error or problem
            self._remember(space)
        return {"text": bytes(kept.data).decode("utf-8", "replace")[:MOST_TEXT], "error": error[:500]}

    def _statements(self, text: str) -> list[str]:
        """The cell's statements as Python text; the whole cell if it cannot be taken apart."""
        try:
            python = self.shell.transform_cell(text)
            body, lines = ast.parse(python).body, python.splitlines()
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return [text]
        starts = [min(node.lineno, *(d.lineno for d in getattr(node, "decorator_list", [])), node.lineno)
                  for node in body]
        apart = all(a.end_lineno < start for a, start in zip(body, starts[1:], strict=False))
        if not apart:  # two statements on one line
            return [python]
        return ["\n" * (start - 1) + "\n".join(lines[start - 1:node.end_lineno])
                for node, start in zip(body, starts, strict=True)]

    def _execute(self, text: str, space: str) -> str:
        if not space and self._for_ipython(text):
            done = self.shell.run_cell(text, store_history=False, silent=False)
            problem = done.error_before_exec or done.error_in_exec
            return "" if problem is None or isinstance(problem, SystemExit) else _said(problem)
        self.parts += 1
        name = f"<part {self.parts}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)  # for inspect.getsource
        try:
            exec(self.shell.compile(text, name, "exec"), self.space(space))
        except SystemExit:
            return ""
        except BaseException as problem:
            return _said(problem)
        return ""

    def _for_ipython(self, text: str) -> bool:
        """Magics, a value to be shown, `await`, and what is no Python. A long sum is too deep for IPython."""
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return True
        return len(body) != 1 or isinstance(body[0], (ast.Expr, ast.AsyncFor, ast.AsyncWith)) or "await" in text

    def _remember(self, space: str) -> None:
        """Keep every function by its name: %reset, del, or `f = f(x)` in a later cell must not lose an answer."""
        for name, value in list(self.space(space).items()):
            if type(name) is str and not name.startswith("_") and callable(value):
                self.seen[space, name] = value

    def answers(self, name: str, cases: list[dict[str, Any]], space: str, checked: bool) -> dict[str, Any]:
        """Call the student's function for an exercise. checked: take what their check(...) was given."""
        asked = self.question(name)
        function = self.checked.get(name) if checked else self.seen.get((space, asked.function))
        sent = {"refused": "", "outcomes": [], "checked": callable(self.checked.get(name))}
        if function is None:
            return sent | {"refused": f"There is no function {asked.function} in the notebook."}
        if refused := self.refused(asked, function):
            return sent | {"refused": refused}
        calls = self.all_calls(asked, [self.call(asked, case) for case in cases])
        outcomes = [shortened(asdict(outcome)) for outcome in self.run(function, calls, asked.seconds)]
        return sent | {"outcomes": outcomes}

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one request asks."""
        if "cell" in request:
            return self.cell(request["cell"], request["space"])
        if "question" in request:
            return self.answers(request["question"], request["cases"], request["space"], request["checked"])
        return {"letters": self.letters}


def _shell() -> Any:
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Text(DisplayPublisher):
        def publish(self, data: Any, *_: Any, **__: Any) -> None:
            print(str(data.get("text/plain", "") if isinstance(data, dict) else "")[:MOST_TEXT])

    class Shell(InteractiveShell):
        def ask_exit(self) -> None:
            """exit() and quit() in a cell end nothing here."""

        def enable_gui(self, gui: object = None) -> None:
            """There are no windows here."""

        def showtraceback(self, *_: Any, **__: Any) -> None:
            """The grader says what happened, in one line."""

        showsyntaxerror = showindentationerror = showtraceback

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.display_pub_class = Text
    shell = Shell.instance(config=config, display_pub_class=Text)
    shell.display_formatter.active_types = ["text/plain"]
    return shell


def _said(problem: BaseException) -> str:
    try:
        said = " ".join(str(problem).split())[:300]
    except Exception:
        said = ""
    return f"{type(problem).__name__}: {said}" if said else type(problem).__name__


# --- frames -----------------------------------------------------------------------------------------------------------


def _read(source: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = os.read(source, size - len(data))
        if not chunk:
            os._exit(0)  # the grader has closed
        data += chunk
    return data


def receive(source: int) -> dict[str, Any]:
    """The next request."""
    (size,) = struct.unpack("<I", _read(source, 4))
    return json.loads(_read(source, size))


def send(target: int, reply: dict[str, Any]) -> None:
    """Send a reply; as text, because JSON proper knows no NaN and a string may hold half a character."""
    body = json.dumps(reply).encode("ascii")
    message = struct.pack("<I", len(body)) + body
    while message:
        message = message[os.write(target, message):]


def shortened(plain: Any) -> Any:
    """The same numbers, every text cut: an answer's type and a sentence may carry a name of any length."""
    if isinstance(plain, dict):
        return {key: shortened(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [shortened(value) for value in plain]
    return plain[:MOST_TEXT] if isinstance(plain, str) else plain


def main() -> None:
    source, target = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # the pipes are for the grader's questions, not for what a notebook prints
        os.dup2(nowhere, stream)
    settings = receive(source)
    limits.become(settings["user"])
    limits.end_with_parent()
    os.chdir(settings["folder"])
    sys.meta_path.insert(0, NotWhileGrading())
    runner = Runner()
    limits.limit(**settings["limits"])
    send(target, {"ready": True, "forbidden": limits.forbid()})
    while True:
        send(target, runner.reply(receive(source)))


if __name__ == "__main__":
    main()
