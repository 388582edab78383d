"""Show the source of a library function in a chapter: shown, then imported, never copied."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Source:
    """Source text that shows itself with colours where there is HTML."""

    text: str
    where: str

    def __repr__(self) -> str:
        return f"# {self.where}\n{self.text}"

    def _repr_html_(self) -> str:
        return (f'<pre class="course-source" tabindex="0" style="overflow-x:auto"><code>'
                f"# {escape(self.where)}\n{escape(self.text)}</code></pre>")


def show(function: Callable, *, docstring: bool = False) -> Source:
    """The source of `function` as it is imported here; without its docstring unless asked for."""
    text = textwrap.dedent(inspect.getsource(function)).rstrip()
    if not docstring:
        first = ast.parse(text).body[0].body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            lines = text.splitlines()
            text = "\n".join(lines[: first.lineno - 1] + lines[first.end_lineno :])
    return Source(text, f"{function.__module__}.{function.__qualname__}")
