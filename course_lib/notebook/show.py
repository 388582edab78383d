"""Show a function of the library in a chapter: first the lines that are its equation, then the whole function.

    show(pkd.patience_loss)

Every loss checks its arguments, and then calls a small function whose name ends in `_equation`. That one has nothing
but the mathematics: its docstring is the equation, and the comment behind a line names the term that the line computes:

    def patience_equation(h_S, h_T, mean=batchmean):
        \"\"\"L_PT = mean_n sum_j || u_S - u_T ||^2\"\"\"
        u_S = F.normalize(h_S, dim=-1)  # u_S = h_S / ||h_S||
        u_T = F.normalize(h_T, dim=-1)  # u_T = h_T / ||h_T||
        return mean((u_S - u_T).pow(2))  # mean_n sum_j || u_S - u_T ||^2

`show` finds it because the loss calls it, so the page shows what runs. On the page a term lights up its line, and a
line its term, by mouse and by keyboard. Where terms lie inside each other, a symbol belongs to the shortest one.

A comment may name several terms (`# p, q`), and say after ` = ` or `: ` what they are. In the equation `_` starts an
index and `^` a power: `z_S`, `T^2`.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from types import CodeType, FunctionType

from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, _TokenType

from course_lib.notebook.tables import file, squeezed, stylesheet

EQUATION = "_equation"
# The colour of a kind of word: the variable of show.css, and the light colour where that sheet is missing.
COLOURS = (
    (Comment, "var(--cc-comment,#57606a)"), (String, "var(--cc-string,#0a3069)"), (Number, "var(--cc-number,#0550ae)"),
    (Keyword, "var(--cc-keyword,#7b2fb5)"), (Operator.Word, "var(--cc-keyword,#7b2fb5)"),
    (Name.Function, "var(--cc-name,#8a3800)"), (Name.Class, "var(--cc-name,#8a3800)"),
    (Name.Builtin, "var(--cc-number,#0550ae)"), (Name.Decorator, "var(--cc-name,#8a3800)"),
)
SIGNS = {"||": "‖", "sum": "Σ", "-": "−", "alpha": "α", "beta": "β", "mu": "μ"}


def show(function: Callable, *, docstring: bool = False, equation: bool = True) -> Source:
    """The source of `function` as it is imported here, with its equation; without its docstring unless asked for.

    equation: False leaves it out, where a page has shown it already.
    """
    found = equation_of(function) if equation else None
    return Source(_source(function, docstring), _where(function),
                  None if found is None else Equation(_where(found), *_read_equation(found)))


def equation_of(loss: Callable) -> FunctionType | None:
    """The equation that a loss calls, or that a function which it calls does; None if there is none.

    The nearest one counts, and of equally near ones the first in the source.
    """
    seen, reached = set(), [loss]
    while reached:
        called = [found for function in reached for found in _called(function)]
        for found in called:
            if found.__name__.endswith(EQUATION):
                return found
        reached = [found for found in dict.fromkeys(called) if found not in seen]
        seen.update(reached)
    return None


def _called(function: Callable) -> list[FunctionType]:
    """The functions of this library that `function` names, in the order of its source."""
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        return []
    named = (function.__globals__.get(name) for name in _names(function.__code__))
    return [found for found in map(inspect.unwrap, filter(inspect.isfunction, named))
            if found.__module__.startswith(__package__.partition(".")[0] + ".")]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _where(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _source(function: Callable, docstring: bool = False) -> str:
    text = textwrap.dedent(inspect.getsource(function)).rstrip()
    if not docstring:
        first = ast.parse(text).body[0].body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            lines = text.splitlines()
            text = "\n".join(lines[: first.lineno - 1] + lines[first.end_lineno :])
    return text


def _read_equation(function: Callable) -> tuple[str, str, dict[int, tuple[str, ...]]]:
    """The formula, the code, and the terms of each line of it (0 = the line with `def`)."""
    code = _source(function)
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    terms = {token.start[0] - 1: _terms(token.string) for token in tokens if token.type == tokenize.COMMENT}
    return inspect.getdoc(function), code, terms


def _terms(comment: str) -> tuple[str, ...]:
    """`# p, q = softmax(z): (N, C)` -> ("p", "q")"""
    named = re.split(r" = |: ", comment.removeprefix("#").strip())[0]
    return tuple(part.strip() for part in re.split(r",\s+(?![^()]*\))", named))


@dataclass(frozen=True)
class Equation:
    """A formula, the few lines that compute it, and which line computes which term."""

    where: str
    formula: str
    code: str
    terms: dict[int, tuple[str, ...]]

    @cached_property
    def places(self) -> list[list[int]]:
        """For every character of the formula the lines whose terms cover it, the shortest term first."""
        covers: list[list[tuple[int, int]]] = [[] for _ in self.formula]
        for line, terms in self.terms.items():
            for term in terms:
                for found in re.finditer(rf"(?<!\w){re.escape(term)}(?!\w)", self.formula):
                    for place in range(*found.span()):
                        covers[place].append((len(term), line))
        return [[line for _, line in sorted(cover)] for cover in covers]

    def formula_html(self) -> str:
        """The formula, each term in an element of its own that knows its line."""
        parts, start, linked = [], 0, set()
        for end in range(1, len(self.formula) + 1):
            if end < len(self.formula) and self.places[end] == self.places[start]:
                continue
            text, lines = self.formula[start:end], self.places[start]
            if lines and text.strip():
                # One stop for the keyboard per line: the first place where its term stands.
                stop = "" if lines[0] in linked else f' tabindex="0" title="line {lines[0]}"'
                linked.add(lines[0])
                inside = " ".join(map(str, dict.fromkeys(lines)))
                parts.append(f'<span class="cc-term" data-line="{lines[0]}" data-inside="{inside}"{stop}>'
                             f"{_mathematics(text)}</span>")
            else:
                parts.append(_mathematics(text))
            start = end
        return "".join(parts)

    def code_html(self) -> str:
        """The code, each line that computes a term in an element of its own."""
        return "".join(
            f'<span class="cc-line" data-line="{number}" tabindex="0">{line}</span>' if number in self.terms else
            f'<span class="cc-line">{line}</span>' for number, line in enumerate(_coloured(self.code)))


@dataclass(frozen=True)
class Source:
    """Source text that shows itself with colours where there is HTML."""

    text: str
    where: str
    equation: Equation | None = None

    def __repr__(self) -> str:
        whole = f"# {self.where}\n{self.text}"
        return whole if self.equation is None else f"# {self.equation.formula}\n{self.equation.code}\n\n{whole}"

    def _repr_html_(self) -> str:
        whole = _block(self.where, "".join(f'<span class="cc-line">{line}</span>' for line in _coloured(self.text)))
        if self.equation is not None:
            equation = self.equation
            whole = (f'<p class="cc-equation">{equation.formula_html()}</p>'
                     f"{_block(equation.where, equation.code_html())}"
                     f"<details><summary>The whole function, with its checks: {escape(self.where)}</summary>{whole}"
                     "</details>")
        script = squeezed(file("show.js"))
        # The notebook's own typesetting must not read a '$' as the start of a formula: hence the *_ignore.
        return (f'<div class="course-view course-code tex2jax_ignore mathjax_ignore">\n'
                f'<style>{stylesheet("show")}{squeezed(file("show.css"))}</style>\n{whole}\n'
                f'<script>(() => {{ "use strict";\nconst root = document.currentScript.parentElement;\n{script}\n}})();'
                "</script>\n</div>")


def _block(where: str, code: str) -> str:
    return (f'<div class="cc-box"><p class="cc-where"><span>{escape(where)}</span></p>'
            f'<pre tabindex="0"><code>{code}</code></pre></div>')


def _coloured(text: str) -> list[str]:
    """The lines of a Python text in HTML; each still ends with its line break, so that a copy is the text itself."""
    html = ""
    for kind, word in PythonLexer(stripnl=False).get_tokens(text):
        colour = _colour(kind)
        for part in re.split(r"(\n)", word):
            shown = escape(part, quote=False)
            html += shown if colour is None or not part.strip() else f'<span style="color:{colour}">{shown}</span>'
    return html.rstrip("\n").splitlines(keepends=True)


def _colour(kind: _TokenType) -> str | None:
    return next((colour for wanted, colour in COLOURS if kind in wanted), None)


def _mathematics(text: str) -> str:
    """Plain text such as `T^2 sum_i p_i` in HTML: indices, powers, italic letters, the usual signs."""
    pattern = r"_(?P<low>\w+(?:,\w)?)|\^(?P<high>\w+)|(?P<word>[A-Za-z]+)|(?P<sign>\|\||-)|(?P<other>[\s\S])"
    html = ""
    for found in re.finditer(pattern, text):
        kind, part = found.lastgroup, found[found.lastgroup]
        part = SIGNS.get(part, escape(part, quote=False))
        if kind in ("low", "high"):
            html += f"<sub>{part}</sub>" if kind == "low" else f"<sup>{part}</sup>"
        else:
            html += f"<i>{part}</i>" if kind == "word" and len(part) == 1 and part.isascii() else part
    return html
