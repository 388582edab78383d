"""Augmentation player: what a few random draws do to a sentence, copy by copy.

`augmentation_view` plays the rule of the distilled BiLSTM. All random numbers of a copy are drawn here, before any
probability is chosen; the page gets them and applies the rule to them. So the same copy can be watched while a
probability moves. In Python the rule is not written again: `augmentation_numbers` runs the library's own
`augment_words` on the stored draws.

`changed_view` plays sentences that are finished already, word by word with the kind of each change, whatever made
them. `changes` finds the changed words of a sentence; chapter 5 uses both for TinyBERT's augmentation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from course_lib.methods.bilstm_augmentation import MASK, NGRAM_LENGTHS, Tagged, augment_words
from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View

PAPER = {"p_mask": 0.1, "p_pos": 0.1, "p_ngram": 0.25}
PRESETS = {
    "The paper": PAPER,
    "N-grams only": {"p_mask": 0.0, "p_pos": 0.0, "p_ngram": 1.0},
    "Much of all": {"p_mask": 0.3, "p_pos": 0.4, "p_ngram": 0.25},
    # `if X > p_mask` instead of `<`: 90 % masked, and the rest replaced.
    "A bug: inverted mask": {"p_mask": 0.9, "p_pos": 0.1, "p_ngram": 0.25},
}
KINDS = {"masked": "masked", "replaced": "replaced by a word of the same part of speech"}
Change = tuple[str, str, str]  # (the word, what stands there now, the kind of change; "" = none)


@dataclass(frozen=True)
class Draw:
    """All random numbers of one copy of a sentence."""

    words: tuple[float, ...]  # X of each word
    candidates: tuple[str, ...]  # for each word another one with its tag, in case it is replaced
    ngram: float  # below p_ngram: only an n-gram is kept
    length: int  # n
    start: float  # where the n-gram starts: 0 = at the first possible place, 1 (never reached) = behind the last


def draw(sentence: Tagged, words_by_tag: Mapping[str, Sequence[str]], seed: int) -> Draw:
    """Draw the numbers of one copy. Every X lies in the middle of a hundredth: none can stand on a border.

    words_by_tag: from `bilstm_augmentation.words_by_tag(training set)`. The drawn word is another one than the word
    itself if there is any, so that a replacement can be seen. Raises: ValueError for a tag without words.
    """
    rng = random.Random(seed)
    candidates = []
    for word, tag in sentence:
        others = [other for other in words_by_tag.get(tag, ()) if other.lower() != word.lower()]
        if not (others or words_by_tag.get(tag)):
            raise ValueError(f"words_by_tag has no word with the tag {tag!r} (of {word!r}).")
        candidates.append(rng.choice(others or words_by_tag[tag]))
    return Draw(tuple(_hundredth(rng) for _ in sentence), tuple(candidates), _hundredth(rng),
                rng.choice(NGRAM_LENGTHS), _hundredth(rng))


def _hundredth(rng: random.Random) -> float:
    return (rng.randrange(100) + 0.5) / 100


class _Replay:
    """Gives the stored draws to `augment_words` in place of a random generator, and notes what they were used for."""

    def __init__(self, stored: Draw):
        self.stored, self.asked = stored, -1
        self.replaced: set[int] = set()
        self.window = (0, len(stored.words))

    def random(self) -> float:
        self.asked += 1
        return (*self.stored.words, self.stored.ngram)[self.asked]

    def choice(self, options: Sequence) -> object:
        if self.asked == len(self.stored.words):  # behind the last word: the length of the n-gram
            return self.stored.length
        self.replaced.add(self.asked)
        return self.stored.candidates[self.asked]

    def randrange(self, starts: int) -> int:
        start = int(self.stored.start * starts)
        self.window = (start, start + self.stored.length)
        return start


def augmentation_numbers(sentence: Tagged, stored: Draw, *, p_mask: float = 0.1, p_pos: float = 0.1,
                         p_ngram: float = 0.25) -> dict[str, object]:
    """One copy of the sentence, made by `augment_words` from stored draws.

    Returns `words` (what stands at each place before the n-gram is cut out), `kinds` ("masked", "replaced" or "" per
    word), `window` (first word of the n-gram and the one behind it; the whole sentence if there is none) and `new`
    (the new sentence, a list of words).
    Raises: ValueError for probabilities that `augment_words` refuses.
    """
    replay, whole = _Replay(stored), _Replay(stored)
    new = augment_words(sentence, _Anything(), replay, p_mask=p_mask, p_pos=p_pos, p_ngram=p_ngram)
    words = augment_words(sentence, _Anything(), whole, p_mask=p_mask, p_pos=p_pos, p_ngram=0)
    kinds = ["replaced" if i in whole.replaced else "masked" if now == MASK and now != was else ""
             for i, ((was, _), now) in enumerate(zip(sentence, words, strict=True))]
    return {"words": words, "kinds": kinds, "window": replay.window, "new": new}


class _Anything(dict):
    """A table of words for every tag: the candidates are drawn already."""

    def get(self, tag: str, default: object = None) -> tuple[str]:
        return ("drawn",)

    __getitem__ = get


def augmentation_rates(sentence: Tagged, stored: Sequence[Draw], **probabilities: float) -> dict[str, float]:
    """Over all draws: shares of words masked, replaced and kept, share of copies cut to an n-gram, and how many
    different new sentences there are (`different`; the sentence itself does not count)."""
    copies = [augmentation_numbers(sentence, one, **probabilities) for one in stored]
    kinds = [kind for copy in copies for kind in copy["kinds"]]
    cut = [copy["window"] != (0, len(sentence)) for copy in copies]
    different = {tuple(copy["new"]) for copy in copies} - {tuple(word for word, _ in sentence)}
    return {"masked": kinds.count("masked") / len(kinds), "replaced": kinds.count("replaced") / len(kinds),
            "kept": kinds.count("") / len(kinds), "ngram": sum(cut) / len(cut), "different": len(different)}


def augmentation_view(sentence: Tagged, words_by_tag: Mapping[str, Sequence[str]], *, seed: int = 0, seeds: int = 20,
                      p_mask: float = 0.1, p_pos: float = 0.1, p_ngram: float = 0.25,
                      presets: Mapping[str, Mapping[str, float]] | None = None,
                      title: str = "Twenty sentences out of one") -> View:
    """The player: choose a seed and the three probabilities, see what happens to each word, and why.

    sentence, words_by_tag  tagged words (`bilstm_augmentation.tags`), and the words of the training set by tag
    seed, seeds             the copy to begin with, and how many there are (seeds 0 to seeds - 1)
    p_mask, p_pos, p_ngram  where the sliders begin; rounded to hundredths
    presets                 name -> the three probabilities; None gives `PRESETS`
    Raises: ValueError for an empty sentence, a seed that is not there, or impossible probabilities.
    """
    if not sentence or not 0 <= seed < seeds:
        raise ValueError(f"{len(sentence)} words, seed {seed} of {seeds}: a sentence and an existing seed are needed.")
    start = _rounded({"p_mask": p_mask, "p_pos": p_pos, "p_ngram": p_ngram})
    stored = [draw(sentence, words_by_tag, number) for number in range(seeds)]
    chosen = {name: _rounded(preset) for name, preset in (PRESETS if presets is None else presets).items()}
    for probabilities in (start, *chosen.values()):
        augmentation_numbers(sentence, stored[0], **probabilities)  # refuses impossible ones
    data = {
        "title": title, "words": [word for word, _ in sentence], "tags": [tag for _, tag in sentence], "seed": seed,
        "mask": MASK, "kinds": [{"kind": kind, "name": name} for kind, name in KINDS.items()], "start": start,
        "presets": [{"name": name, **probabilities} for name, probabilities in chosen.items()],
        "draws": [{"x": one.words, "candidates": one.candidates, "ngram": one.ngram, "length": one.length,
                   "start": one.start} for one in stored],
    }
    alt = (f"{title}: the words of “{' '.join(data['words'])}” in a row. A draw below p_mask masks a word, one "
           "between p_mask and p_mask + p_pos replaces it, and some copies keep only an n-gram.")
    return View("augmentation", data, alt, _tables(sentence, stored, start))


def _rounded(probabilities: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(probabilities[name]), 2) for name in PAPER}


def _tables(sentence: Tagged, stored: Sequence[Draw], start: Mapping[str, float]) -> tuple[Table, Table]:
    rows = []
    for seed, one in enumerate(stored):
        copy = augmentation_numbers(sentence, one, **start)
        cut = copy["window"] != (0, len(sentence))
        rows.append([str(seed), str(copy["kinds"].count("masked")), str(copy["kinds"].count("replaced")),
                     f"{one.length} words" if cut else "no", " ".join(copy["new"])])
    rates = augmentation_rates(sentence, stored, **start)
    said = ", ".join(f"{name} = {value:g}" for name, value in start.items())
    return (Table(f"The copies of {len(stored)} seeds at {said}",
                  ["seed", "masked", "replaced", "n-gram", "new sentence"], rows),
            Table("All seeds together", ["masked", "replaced", "kept", "cut to an n-gram", "different sentences"],
                  [[*(readable(rates[name]) for name in ("masked", "replaced", "kept", "ngram")),
                    str(rates["different"])]]))


# --- Sentences that are augmented already -----------------------------------------------------------------------------


def changes(original: str, new: str, kind: Callable[[str], str] | str = "replaced") -> list[Change]:
    """Compare two sentences word by word (words are what stands between spaces): [(was, is now, kind), ...].

    kind: the kind of every change, or a function that tells it from the original word.
    Raises: ValueError if the numbers of words differ; then the words cannot be matched by their places.
    """
    before, after = original.split(), new.split()
    if len(before) != len(after):
        raise ValueError(f"{len(before)} words have become {len(after)}: {original!r} and {new!r} cannot be compared "
                         "word by word.")
    return [(was, now, "" if was == now else kind(was) if callable(kind) else kind)
            for was, now in zip(before, after, strict=True)]


def changed_view(copies: Sequence[Sequence[Change]], *, kinds: Mapping[str, str] | None = None, seed: int = 0,
                 title: str = "One sentence, many copies") -> View:
    """The player for finished copies of one sentence: no probabilities, the rest as in `augmentation_view`.

    copies  one list of (was, is now, kind) per copy, as `changes` makes them; all of the same sentence
    kinds   kind -> its name in the legend, at most three of them; None: "replaced"
    seed    the copy to begin with
    Raises: ValueError for copies of different sentences, a kind that has no name, or a copy that is not there.
    """
    kinds = {"replaced": "replaced"} if kinds is None else kinds
    originals = {tuple(was for was, _, _ in copy) for copy in copies}
    if len(originals) != 1 or not 0 <= seed < len(copies):
        raise ValueError(f"{len(copies)} copies of {len(originals)} different sentences, first copy {seed}: give "
                         "copies of one sentence, and one of them to begin with.")
    unknown = {kind for copy in copies for _, _, kind in copy} - set(kinds) - {""}
    if unknown or len(kinds) > 3:
        raise ValueError(f"Kinds without a name: {sorted(unknown)}; kinds with one: {list(kinds)}, three at most.")
    words = list(originals.pop())
    data = {"title": title, "words": words, "seed": seed,
            "kinds": [{"kind": kind, "name": name} for kind, name in kinds.items()],
            "copies": [[[now, kind] for _, now, kind in copy] for copy in copies]}
    rows = []
    for number, copy in enumerate(copies):
        counts = [str(sum(kind == one for _, _, kind in copy)) for one in kinds]
        rows.append([str(number), *counts, " ".join(now for _, now, _ in copy)])
    alt = f"{title}: the words of “{' '.join(words)}” in a row, and what each copy has in their place."
    return View("augmentation", data, alt, Table("All copies", ["copy", *kinds.values(), "new sentence"], rows))
