"""Draw what is answered by a click: plain HTML that is alive on a static page, and the same words as text elsewhere.

Choosing an option shows why it is right or wrong; that is style alone and needs no script. `forms.js` adds the count
and, where Python listens, carries the letters to it: it writes them into a hidden text field of ipywidgets, whose value
the kernel sees. That works the same in JupyterLab and in Colab, with ipywidgets 7 and 8.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from importlib import resources

from course_lib.notebook.exercises.questions import Chapter, Option, Poll, QuizItem, letter

# No colour of its own for text and ground: the form lives in light and in dark pages.
_STYLE = """
.course-form{max-width:46em}
.course-form fieldset{border:1px solid #767676;border-radius:4px;margin:0 0 1em;padding:.4em 1em .6em;min-width:0}
.course-form legend{font-weight:600;float:left;width:100%;padding:.2em 0 .3em;border:0;font-size:inherit;margin:0}
.course-form legend+*{clear:both}
.course-form .option{margin:.25em 0}
.course-form label{display:flex;gap:.5em;align-items:baseline;cursor:pointer}
.course-form input{flex:none;margin:0}
.course-form input:focus-visible{outline:3px solid #0072b2;outline-offset:2px}
.course-form .why{display:none;margin:.2em 0 .5em 1.6em;padding-left:.7em;border-left:4px solid #d55e00}
.course-form .right .why{border-left-color:#009e73}
.course-form .option:has(input:checked) .why{display:block}
.course-form code{white-space:pre-wrap;overflow-wrap:anywhere}
.course-form summary{cursor:pointer}
@media print{.course-form .why{display:block}}
"""


def _script() -> str:
    return resources.files(__package__).joinpath("forms.js").read_text(encoding="utf-8")


def somebody_listens() -> bool:
    """Whether clicks can reach Python here: in a kernel, and not in a run that nobody watches."""
    if os.environ.get("COURSE_PROGRESS_FILE", "").lower() == "off":
        return False
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


@dataclass(frozen=True)
class Form:
    """What a quiz and a poll share: where Python listens, the form comes with a field that carries the clicks.

    Its subclasses have `html(bridge)` and `heard(letters)`, the sentence on what Python has kept.
    """

    def _ipython_display_(self) -> None:
        if not somebody_listens():
            raise NotImplementedError  # IPython goes on to _repr_html_
        from IPython.display import HTML, display

        name = f"course-bridge-{uuid.uuid4().hex}"
        display(HTML(self.html(name)))
        display(_bridge(name, self.heard))

    def _repr_html_(self) -> str:
        return self.html()

    def html(self, bridge: str = "") -> str:
        raise NotImplementedError

    def heard(self, letters: str) -> str:
        raise NotImplementedError


def _bridge(name: str, heard: Callable[[str], str]) -> object:
    """A hidden text field that `forms.js` writes into, and a line for what Python says to it."""
    import ipywidgets as widgets

    field_, said = widgets.Text(layout=widgets.Layout(display="none")), widgets.HTML()
    field_.add_class(name)

    def changed(change: dict) -> None:
        letters = change["new"].partition(":")[2]  # a number stands before it, so that the same letters arrive again
        try:
            words = heard(letters)
        except Exception as problem:  # an exception in a callback would be lost
            words = f"This could not be kept: {type(problem).__name__}: {problem}"
        said.value = f'<p role="status" style="margin:0;white-space:pre-line">{escape(words)}</p>'

    field_.observe(changed, names="value")
    return widgets.VBox([field_, said])


def _form(kind: str, name: str, label: str, bridge: str, content: str) -> str:
    # The notebook must not typeset '$', nor take the arrow keys of the radio buttons for its own.
    return (f'<form class="course-form course-{kind} tex2jax_ignore mathjax_ignore" data-{kind}="{escape(name)}" '
            f'data-bridge="{bridge}" data-lm-suppress-shortcuts="true" autocomplete="off" '
            f'aria-label="{escape(label)}" onsubmit="return false">\n<style>{_STYLE}</style>\n{content}\n'
            f"<script>{_script()}</script>\n</form>")


# --- quiz -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quiz(Form):
    """All items of a chapter's quiz, ready to be shown. `keep` takes one letter per item and says what was kept."""

    chapter: Chapter
    picked: dict[int, str] = field(default_factory=dict)
    keep: Callable[[str], str] = str

    def heard(self, letters: str) -> str:
        return f"Kept. {self.keep(letters)}"

    def __repr__(self) -> str:
        blocks = []
        for number, item in enumerate(self.chapter.quiz, start=1):
            options = [f"   {letter(i)}) {option.text}" for i, option in enumerate(item.options)]
            blocks.append("\n".join([f"{number}. {item.ask}", *options]))
        return "\n".join([*blocks, f'Answer with answer("{self.chapter.name}.quiz1", "a"), and so on.'])

    def html(self, bridge: str = "") -> str:
        items = "\n".join(_item_html(number, item, self.picked.get(number, ""))
                          for number, item in enumerate(self.chapter.quiz, start=1))
        count = '<p class="count" role="status">Choose an answer to see why it is right or wrong.</p>'
        return _form("quiz", self.chapter.name, f"Quiz of chapter {self.chapter.title}", bridge, f"{items}\n{count}")


def _item_html(number: int, item: QuizItem, picked: str) -> str:
    options = "\n".join(_option_html(f"item{number}", i, option.text, picked, option)
                        for i, option in enumerate(item.options))
    return f"<fieldset><legend>{number}. {_text(item.ask)}</legend>\n{options}\n</fieldset>"


def _option_html(group: str, index: int, text: str, picked: str, explained: Option | None = None) -> str:
    # The radio names are the same in every copy of the quiz; the form around them keeps two copies on a page apart.
    checked = " checked" if letter(index) == picked else ""
    right = " right" if explained and explained.right else ""
    return (f'<div class="option{right}"><label><input type="radio" name="{group}" value="{letter(index)}"{checked}>'
            f"<span>{letter(index)}) {_text(text)}</span></label>{_why(explained) if explained else ''}</div>")


def _why(option: Option) -> str:
    return f'<p class="why"><strong>{"Right." if option.right else "No."}</strong> {_text(option.why)}</p>'


def _text(words: str) -> str:
    """Escape, and show `code` between backticks as code."""
    parts = escape(words).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


# --- poll -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PollForm(Form):
    """The question of a poll with its options. `keep` takes the letter and says what was kept."""

    name: str
    poll: Poll
    picked: str
    keep: Callable[[str], str]

    def heard(self, letters: str) -> str:
        return self.keep(letters)

    def __repr__(self) -> str:
        options = [f"  {letter(i)}) {text}" for i, text in enumerate(self.poll.options)]
        return "\n".join([self.poll.ask, *options, f'Write predict("{self.name}", "a") with your letter.'])

    def html(self, bridge: str = "") -> str:
        options = "\n".join(_option_html("poll", i, text, self.picked) for i, text in enumerate(self.poll.options))
        status = '<p class="count" role="status">Choose an answer. Nobody sees it, and it costs no points.</p>'
        return _form("poll", self.name, "Your prediction", bridge,
                     f'<fieldset data-later="{escape(self.poll.later)}"><legend>{_text(self.poll.ask)}</legend>\n'
                     f"{options}\n{status}\n</fieldset>")


@dataclass(frozen=True)
class Recall:
    """A prediction beside the measurement. On a page, a click in the poll fills it in."""

    name: str
    poll: Poll
    chosen: str | None
    measured: str | None
    because: str

    @property
    def lines(self) -> tuple[str, ...]:
        """Question, prediction, measurement, and how they fit; without what is not known."""
        ours = f"You predicted {self.chosen}) {self.poll.text(self.chosen)}" if self.chosen else NO_PREDICTION
        lines = [self.poll.ask, ours, self._seen, self._compared]
        return tuple(line for line in lines if line)

    @property
    def _seen(self) -> str:
        if self.measured is None:
            return self.because
        return f"The measurement says {self.measured}) {self.poll.text(self.measured)} {self.because}".strip()

    @property
    def _compared(self) -> str:
        if not self.chosen or self.measured is None:
            return ""
        return FITS if self.chosen == self.measured else FITS_NOT

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        mine, compared = self.lines[1], self._compared
        words = escape(json.dumps({"fits": FITS, "fitsNot": FITS_NOT, "measured": self.measured}))
        return (f'<div class="course-message course-recall" data-recall="{escape(self.name)}" data-words="{words}">'
                f'{escape(self.poll.ask)}<br><span class="mine">{escape(mine)}</span><br>{escape(self._seen)}'
                f'<br><span class="compared">{escape(compared)}</span></div>')


NO_PREDICTION = "You made no prediction."
FITS, FITS_NOT = "Your prediction fits.", "Your prediction does not fit."
