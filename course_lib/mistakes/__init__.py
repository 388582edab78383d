"""Mutants: the mistakes of the field, with names, to be switched on and off.

    from course_lib.mistakes import MUTANTS, mutant

    with mutant("missing_t_squared") as found:
        print(found.mistake, found.symptom, found.source, found.diff(), sep="\\n")
        ...                                # everything in here runs with the mistake, wherever it was imported
    # and here it is gone

Each is one edit of the library, taken from a public code or issue where there is one. They serve three things: the
failure labs of the chapters; the doctor, which must recognise them; and the tests, because a mistake that no test
notices is a missing test (`make mistakes`). The chapters and their experiments switch them on; what they change
(papers, what papers share, texts) and what shows them never imports this package. Importing it changes nothing.

    patching.py     how an edit is switched on and off
    logits.py       losses on logits: soft targets, BiLSTM, cached labels
    layers.py       losses on the inside: DistilBERT, PKD, TinyBERT, MobileBERT, MiniLM
    training.py     data, students, Theseus, the training loop
    tiny.py         small models for the numbers
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

from course_lib.mistakes import layers, logits, training
from course_lib.mistakes.patching import Edit, Mutant, edited

__all__ = ["MUTANTS", "Edit", "Mutant", "edited", "mutant"]

# By chapter, then in the order of the files.
MUTANTS: dict[str, Mutant] = {
    found.name: found
    for found in sorted((*logits.MUTANTS, *layers.MUTANTS, *training.MUTANTS), key=lambda found: found.chapter)
}


@contextmanager
def mutant(name: str) -> Iterator[Mutant]:
    """Run the body of the `with` statement with one mistake switched on, and give its description.

    Contexts may be nested: the mistakes add up. Not for several threads at once: the code is changed for all of them.
    Raises: ValueError for an unknown name (with similar ones).
    """
    if name not in MUTANTS:
        near = difflib.get_close_matches(name, MUTANTS, n=3, cutoff=0.4) or list(MUTANTS)
        raise ValueError(f"No mutant is called {name!r}. Did you mean: {', '.join(near)}?")
    with edited(MUTANTS[name].edits):
        yield MUTANTS[name]
