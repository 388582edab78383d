"""Your own sentence: ask a masked-language model what stands behind [MASK].

Here Python must answer, because only the kernel has the model: stock ipywidgets, so that it also runs in Colab. On
the static page the same cell shows the answers to the first sentence as a table.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets
import torch

from course_lib.notebook.tables import Table, readable, stylesheet

WAIT = 0.4  # seconds after the last key before the model is asked


@dataclass(frozen=True)
class Guess:
    """One answer: the how-manieth [MASK] it is for, its rank (1 = likeliest), the token and its probability."""

    mask: int
    rank: int
    token: str
    probability: float


def guesses(model: object, tokenizer: object, sentence: str, k: int = 5) -> list[Guess]:
    """The `k` likeliest tokens for every mask of `sentence`, masks from left to right, likeliest first.

    The sentence is written with the tokenizer's own mask token ([MASK] for BERT).
    Raises: ValueError if there is no mask, if the sentence is too long for the model, or if `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"k = {k}: at least one guess per mask.")
    batch = tokenizer(sentence, return_tensors="pt")
    places = (batch["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    if not places:
        raise ValueError(f"Write {tokenizer.mask_token} where the model shall guess, "
                         f"for example: Paris is the {tokenizer.mask_token} of France.")
    longest = getattr(model.config, "max_position_embeddings", 512)
    if batch["input_ids"].shape[1] > longest:
        raise ValueError(f"{batch['input_ids'].shape[1]} tokens, but the model has positions for {longest}. "
                         "Write a shorter sentence.")
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = model(**{name: values.to(device) for name, values in batch.items()}).logits[0, places]
    best = logits.float().softmax(-1).topk(min(k, logits.shape[-1]))  # (masks, vocabulary) -> (masks, k)
    rows = []
    for mask, (indices, probabilities) in enumerate(zip(best.indices, best.values, strict=True), start=1):
        words = tokenizer.convert_ids_to_tokens(indices.tolist())
        ranked = enumerate(zip(words, probabilities.tolist(), strict=True), start=1)
        rows += [Guess(mask, rank, word, probability) for rank, (word, probability) in ranked]
    return rows


class SentenceExplorer(widgets.VBox):
    """A line to write in, and the model's guesses as bars below it. Made by `sentence_explorer`."""

    def __init__(self, model: object, tokenizer: object, sentence: str, k: int):
        self._ask = lambda text: guesses(model, tokenizer, text, k)
        self._waiting: asyncio.TimerHandle | None = None
        wide = widgets.Layout(width="100%")
        self.line = widgets.Text(value=sentence, description="Sentence", layout=wide,
                                 placeholder=f"A sentence with {tokenizer.mask_token}")
        self.answer = widgets.HTML(layout=wide)
        super().__init__([self.line, self.answer], layout=widgets.Layout(width="100%", max_width="54rem"))
        self.line.observe(self._later, names="value")
        self.refresh()

    def _later(self, _change: object) -> None:
        """Ask when the learner stops typing. Without a running event loop (a script, a test) ask at once."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        try:
            self._waiting = asyncio.get_running_loop().call_later(WAIT, self.refresh)
        except RuntimeError:
            self.refresh()

    def refresh(self) -> None:
        """Ask the model. Whatever goes wrong is shown in the widget: an exception in a callback is lost otherwise."""
        try:
            self.answer.value = _page(_bars(self._ask(self.line.value)))
        except Exception as problem:
            what = str(problem) if isinstance(problem, ValueError) else f"{type(problem).__name__}: {problem}"
            self.answer.value = _page(f'<p class="cv-problem" role="alert">{escape(what)}</p>')

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        """The live widget, and for the static page the guesses as a table."""
        bundle = dict(super()._repr_mimebundle_(**options) or {})
        return bundle | {"text/plain": repr(self), "text/html": _page(self._table())}

    def _table(self) -> str:
        try:
            rows = [[str(one.mask), one.token, readable(one.probability)] for one in self._ask(self.line.value)]
        except ValueError as problem:
            return f'<p class="cv-problem">{escape(str(problem))}</p>'
        return Table(f"Guesses for: {self.line.value}", ["mask", "token", "probability"], rows).html()

    def __repr__(self) -> str:
        return f"<sentence explorer: {self.line.value}>"


def sentence_explorer(teacher: object, sentence: str | None = None, *, k: int = 5) -> SentenceExplorer:
    """A live widget: write a sentence with [MASK], see what the model expects there.

    teacher  has `model` (a masked-language model) and `tokenizer`, as `load_teacher("mlm")` returns it
    """
    mask = teacher.tokenizer.mask_token
    return SentenceExplorer(teacher.model, teacher.tokenizer, sentence or f"Paris is the {mask} of France.", k)


def _bars(rows: list[Guess]) -> str:
    several = max(one.mask for one in rows) > 1
    parts = []
    for one in rows:
        if several and one.rank == 1:
            parts.append(f'<div class="cv-name cv-which">mask {one.mask}</div>')
        parts.append(f'<div class="cv-guess"><span class="cv-label">{escape(one.token)}</span>'
                     f'<span class="cv-track"><span class="cv-fill" style="width:{100 * one.probability:.1f}%"></span>'
                     f'</span><span class="cv-prob">{100 * one.probability:.1f} %</span></div>')
    return "".join(parts)


def _page(content: str) -> str:
    return (f'<div class="course-view tex2jax_ignore mathjax_ignore" data-view="sentence"><style>'
            f'{stylesheet("sentence")}</style><div class="cv-stage">{content}</div></div>')
