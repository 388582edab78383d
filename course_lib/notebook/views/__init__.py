"""Views: pictures that answer, from one cell output, with or without a kernel.

The pattern (every explorer of the course has these two files, some a `<name>.css` beside them):

* `<name>.py` computes. A pure Python function returns plain numbers that a test can compare; a second function puts
  them into a `View`.
* `<name>.js` draws. It is an ES module of anywidget's shape, `export default { render({ model, el }) { ... } }`, and
  may import from `./shared.js` only. `model.get(key)` gives the entries of `View.data`.

A `View` shows itself as one `text/html` output: style, data, script and a table of the numbers in a single
`<div class="course-view" data-view="...">`. That is alive in JupyterLab, in Colab (whose outputs live in an iframe)
and on the static page of the book, and it asks nothing from the network. The table comes first in the file and needs no
script: print, a screen reader, and a notebook that nobody has trusted yet still have the numbers. The script then
draws the picture and folds the table away.

Adding an explorer: write the two files, return `View("<name>", data, alt=..., table=...)`, test that the numbers in
the page equal Python's (tests/test_views.py shows how).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources

from course_lib.notebook.tables import Table, squeezed, stylesheet

__all__ = ["View", "comparable"]


@cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class View:
    """One explorer as a cell output.

    name   the JavaScript module `<name>.js` in this folder
    data   what the module reads with `model.get(key)`: lists, numbers and text only
    alt    one sentence that says what the picture shows, for those who do not see it
    table  the same numbers without a script: one table, or several

    The output depends on these four alone: no random ids, no time. The same view twice on one page works twice.
    """

    name: str
    data: Mapping[str, object]
    alt: str
    table: Table | tuple[Table, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"A view's name is a file name of lower-case letters, not {self.name!r}.")

    def module(self) -> str:
        """The drawing code as one ES module (`shared.js` joined in), as anywidget's `_esm` wants it."""
        shared = re.sub(r"^export (?=function|const)", "", _file("shared.js"), flags=re.M)
        own = re.sub(r'^import .*? from "\./shared\.js";\n', "", _file(f"{self.name}.js"), flags=re.M | re.S)
        return f"{shared}\n{own}"

    def _repr_html_(self) -> str:
        script, count = re.subn(r"^export default ", "const view = ", self.module(), flags=re.M)
        if count != 1:
            raise ValueError(f"{self.name}.js must have exactly one line that starts with 'export default'.")
        for kind, text in (("script", script), ("style", stylesheet(self.name))):
            if f"</{kind}" in text.lower():
                raise ValueError(f"'</{kind}' inside {self.name} would end the {kind} element early.")
        tables = (self.table,) if isinstance(self.table, Table) else self.table
        numbers = "".join(table.html() for table in tables)
        # The notebook's own typesetting must not read a '$' in a token as the start of a formula: hence the *_ignore.
        return (
            f'<div class="course-view tex2jax_ignore mathjax_ignore" data-view="{self.name}">\n'
            f"<style>{stylesheet(self.name)}</style>\n"
            f'<p class="cv-alt">{escape(self.alt)}</p>\n'
            f'<div class="cv-numbers">{numbers}</div>\n'
            f'<script type="application/json" class="cv-data">{_json(self.data)}</script>\n'
            f'<script class="cv-code">(() => {{ "use strict";\n{squeezed(script)}\n'
            f'mount(view, "{self.name}"); }})();</script>\n'
            "</div>"
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def __repr__(self) -> str:
        return f"<{self.name} view: {self.alt}>"


def _json(data: Mapping[str, object]) -> str:
    """JSON that cannot end its script element; NaN and infinity are refused because JSON has no word for them."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def comparable(html: str) -> str:
    """Reduce a stored output to what should be compared between two runs: the words and numbers of its table.

    Packed data, pictures, style and script are left out. Packed numbers change in the last digit from one processor to
    the next, and the drawing code has its own tests.
    """
    html = re.sub(r"<(style|script)\b.*?</\1>", "", html, flags=re.S)
    return re.sub(r'src="data:[^"]*"', 'src="data:"', html)
