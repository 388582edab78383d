"""Draw a quiz: plain HTML that works on a static page, and the same words as text where there is no HTML.

Choosing an option shows why it is right or wrong. That part is style alone and needs no script; `quiz.js` adds the
count and the line that carries the answers into Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import resources

from course_lib.notebook.exercises.questions import Chapter, Option, QuizItem, letter

_STYLE = """
.course-quiz{max-width:46em}
.course-quiz fieldset{border:1px solid #767676;border-radius:4px;margin:0 0 1em;padding:.4em 1em .6em}
.course-quiz legend{font-weight:600;padding:0 .4em}
.course-quiz .option{margin:.25em 0}
.course-quiz input{margin-right:.5em}
.course-quiz input:focus-visible{outline:3px solid #0072b2;outline-offset:2px}
.course-quiz .why{display:none;margin:.2em 0 .5em 1.6em;padding-left:.7em;border-left:4px solid #d55e00}
.course-quiz .right .why{border-left-color:#009e73}
.course-quiz .option:has(input:checked) .why{display:block}
.course-quiz code{white-space:pre-wrap}
@media print{.course-quiz .why{display:block}}
"""


@dataclass(frozen=True)
class Quiz:
    """All items of a chapter's quiz, ready to be shown."""

    chapter: Chapter

    def __repr__(self) -> str:
        blocks = []
        for number, item in enumerate(self.chapter.quiz, start=1):
            options = [f"   {letter(i)}) {option.text}" for i, option in enumerate(item.options)]
            blocks.append("\n".join([f"{number}. {item.ask}", *options]))
        return "\n".join([*blocks, f'Answer with answer("{self.chapter.name}.quiz1", "a"), and so on.'])

    def _repr_html_(self) -> str:
        name = self.chapter.name
        script = resources.files(__package__).joinpath("quiz.js").read_text(encoding="utf-8")
        items = "\n".join(_item_html(number, item) for number, item in enumerate(self.chapter.quiz, start=1))
        # The notebook must not typeset '$', nor take the arrow keys of the radio buttons for its own.
        return (f'<form class="course-quiz tex2jax_ignore mathjax_ignore" data-quiz="{name}" '
                'data-lm-suppress-shortcuts="true" autocomplete="off" '
                f'aria-label="Quiz of chapter {escape(self.chapter.title)}" onsubmit="return false">\n'
                f"<style>{_STYLE}</style>\n{items}\n"
                f'<p class="count" role="status">Choose an answer to see why it is right or wrong.</p>\n'
                f"<script>{script}</script>\n</form>")


def _item_html(number: int, item: QuizItem) -> str:
    options = "\n".join(_option_html(number, i, option) for i, option in enumerate(item.options))
    return f"<fieldset><legend>{number}. {_text(item.ask)}</legend>\n{options}\n</fieldset>"


def _option_html(number: int, index: int, option: Option) -> str:
    # The radio names are the same in every copy of the quiz; the form around them keeps two copies on a page apart.
    return (f'<div class="option{" right" if option.right else ""}"><label>'
            f'<input type="radio" name="item{number}" value="{letter(index)}">'
            f"{letter(index)}) {_text(option.text)}</label>{_why(option)}</div>")


def _why(option: Option) -> str:
    return f'<p class="why"><strong>{"Right." if option.right else "No."}</strong> {_text(option.why)}</p>'


def _text(words: str) -> str:
    """Escape, and show `code` between backticks as code."""
    parts = escape(words).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
