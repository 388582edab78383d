"""The words that an argument knows: `as_in="paper"`, `schedule="linear"`.

A word that nobody knows must not be read as the default: a run with `as_in="papre"` looks like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

AsIn = Literal["paper", "code"]  # as the paper writes it, or as its authors' code computes it


def require_word(word: str, known: object, name: str) -> str:
    """Return `word` if it is one of `known`.

    known: a `Literal` of typing, or the words themselves. name: the argument's name.
    Raises: ValueError that lists the words.
    """
    words: Iterable[str] = get_args(known) or known
    words = list(words)
    if word not in words:
        listed = ", ".join(map(repr, words[:-1])) + f" or {words[-1]!r}" if len(words) > 1 else repr(words[0])
        raise ValueError(f"{name} must be {listed}, not {word!r}.")
    return word
