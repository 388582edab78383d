"""The text of the distilled BiLSTM: three small edits make twenty sentences out of one (Tang et al. 2019, section 3.3).

A BiLSTM with a small labelled set cannot learn what the teacher knows. The teacher can label any text, also text that
makes little sense; so we make much of it.

    per word, ONE draw X from [0, 1):   X < p_mask                       -> [MASK]
                                        p_mask <= X < p_mask + p_pos     -> another word with the same part of speech
                                        else                             -> the word
    then, with p_ngram:                 keep only one n-gram, n from 1 to 5
    n_iter times per sentence; duplicates are dropped

One draw per word means that a word is never both masked and replaced, and that the rates are exactly p_mask and
p_pos. Two draws would replace only (1 - p_mask) * p_pos of the words. A known trap in public copies is the inverted
mask, `if X > p_mask`: it hides 90 % of the words, the loss still falls, and only a measured rate (`measured_rates`)
shows it.

All functions take tagged words and a `seed` (a number, or a `random.Random` that goes on where it stands), return new
lists and change none they got.

## Deviations of the original code

Original code: castorini/d-bert, `augment_data.py` (single sentences) and `augment_paired_data.py`.

| what | paper | code | here |
|---|---|---|---|
| start of the n-gram | any place | `randrange(len - n)`: never the last possible one | `as_in="paper"` or `"code"` |
| n-gram as long as the sentence or longer | not said | pair script: sentence stays whole; single script: no further copies of this sentence | stays whole |
| p_ngram | 0.25 | argument `window_prob`, default 0: must be set | 0.25 |
| which sentence of a pair | first, second, both in turn | a random one of the three, 1/3 each | `as_in="paper"` or `"code"` |
| order of the two draws | mask, then POS | pair script: POS, then mask (same rates) | mask, then POS |
| every word edited | not said | single script drops such a sentence | kept |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from course_lib.shared.generators import Seed, generator
from course_lib.shared.words import AsIn, require_word

Tagged = Sequence[tuple[str, str]]  # [("good", "JJ"), ("film", "NN")]
Strategy = Literal["first", "second", "both"]

MASK = "[MASK]"
NGRAM_LENGTHS = (1, 2, 3, 4, 5)
STRATEGIES: tuple[Strategy, ...] = ("first", "second", "both")

# --- One sentence ----------------------------------------------------------------------------------------------------


def augment_words(sentence: Tagged, words_by_tag: Mapping[str, Sequence[str]], seed: Seed, *,
                  p_mask: float = 0.1, p_pos: float = 0.1, p_ngram: float = 0.25,
                  ngram_lengths: Sequence[int] = NGRAM_LENGTHS, as_in: AsIn = "paper") -> list[str]:
    """One noisy copy of a tagged sentence.

    words_by_tag: from `words_by_tag(training set)`.
    Raises: ValueError for probabilities that leave no room, and for a tag that the training set does not have.
    Source: section 3.3; `augment_paired_data.py`, `generate`.
    """
    _require_probabilities(p_mask, p_pos, p_ngram)
    words, rng = [], generator(seed)
    for word, tag in sentence:
        draw = rng.random()
        if draw < p_mask:
            words.append(MASK)
        elif draw < p_mask + p_pos:
            words.append(_same_kind(word, tag, words_by_tag, rng))
        else:
            words.append(word)
    return ngram(words, rng, ngram_lengths, as_in=as_in) if rng.random() < p_ngram else words


def ngram(words: Sequence[str], seed: Seed, lengths: Sequence[int] = NGRAM_LENGTHS, *, as_in: AsIn = "paper"
          ) -> list[str]:
    """One random window of n words, n drawn from `lengths`; a sentence that is not longer than n stays whole."""
    require_word(as_in, AsIn, "as_in")
    rng = generator(seed)
    n = rng.choice(lengths)
    starts = len(words) - n + (as_in == "paper")  # 12 words, n = 5 -> 8 starts; the code forgets the last one
    if len(words) <= n or starts < 1:
        return list(words)
    start = rng.randrange(starts)
    return list(words[start : start + n])


def _same_kind(word: str, tag: str, words_by_tag: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    if not words_by_tag.get(tag):
        raise ValueError(f"No word with tag {tag!r} (of {word!r}) to draw from. Build words_by_tag from the training "
                         "set that you augment.")
    return rng.choice(words_by_tag[tag])


def _require_probabilities(p_mask: float, p_pos: float, p_ngram: float) -> None:
    if min(p_mask, p_pos, p_ngram) < 0 or p_mask + p_pos > 1 or p_ngram > 1:
        raise ValueError(f"p_mask={p_mask}, p_pos={p_pos}, p_ngram={p_ngram}: none may be negative, p_mask + p_pos "
                         "may not pass 1 (they share one draw), nor may p_ngram.")


# --- A data set ------------------------------------------------------------------------------------------------------


def augment(sentences: Iterable[Tagged], words_by_tag: Mapping[str, Sequence[str]], *, n_iter: int = 20, seed: Seed = 0,
            p_mask: float = 0.1, p_pos: float = 0.1, p_ngram: float = 0.25,
            ngram_lengths: Sequence[int] = NGRAM_LENGTHS, as_in: AsIn = "paper") -> list[list[str]]:
    """Up to `n_iter` new sentences per sentence; no copy of an original and no sentence twice.

    Returns the new sentences only, as word lists, in the order they were made. Same seed, same sentences.
    Source: section 3.3; n_iter = 20 for single sentences.
    """
    sentences, rng = list(sentences), generator(seed)
    seen = {_words(sentence) for sentence in sentences}
    made = []
    for sentence in sentences:
        for _ in range(n_iter):
            words = augment_words(sentence, words_by_tag, rng, p_mask=p_mask, p_pos=p_pos, p_ngram=p_ngram,
                                  ngram_lengths=ngram_lengths, as_in=as_in)
            if words and tuple(words) not in seen:
                seen.add(tuple(words))
                made.append(words)
    return made


def augment_pairs(pairs: Iterable[tuple[Tagged, Tagged]], words_by_tag: Mapping[str, Sequence[str]], *,
                  n_iter: int = 10, strategies: Sequence[Strategy] = STRATEGIES, seed: Seed = 0, p_mask: float = 0.1,
                  p_pos: float = 0.1, p_ngram: float = 0.25, ngram_lengths: Sequence[int] = NGRAM_LENGTHS,
                  as_in: AsIn = "paper") -> list[tuple[list[str], list[str]]]:
    """Up to `n_iter` new pairs per pair, by changing the first sentence only, the second only, or both.

    strategies: those that are used. "paper" goes through them in turn, "code" draws one each time.
    Source: section 3.3, last paragraph; n_iter = 10; `augment_paired_data.py`, `main`.
    """
    require_word(as_in, AsIn, "as_in")
    unknown = set(strategies) - set(STRATEGIES)
    if unknown or not strategies:
        raise ValueError(f"strategies {list(strategies)}: choose some of {list(STRATEGIES)}.")
    pairs, rng = list(pairs), generator(seed)
    seen = {(_words(first), _words(second)) for first, second in pairs}
    made = []
    for pair in pairs:
        for turn in range(n_iter):
            strategy = strategies[turn % len(strategies)] if as_in == "paper" else rng.choice(strategies)
            first, second = (
                augment_words(sentence, words_by_tag, rng, p_mask=p_mask, p_pos=p_pos, p_ngram=p_ngram,
                              ngram_lengths=ngram_lengths, as_in=as_in)
                if strategy in (side, "both") else list(_words(sentence))
                for side, sentence in zip(("first", "second"), pair, strict=True))
            key = (tuple(first), tuple(second))
            if first and second and key not in seen:
                seen.add(key)
                made.append((first, second))
    return made


def _words(sentence: Tagged) -> tuple[str, ...]:
    return tuple(word for word, _ in sentence)


# --- Parts of speech -------------------------------------------------------------------------------------------------


def words_by_tag(sentences: Iterable[Tagged]) -> dict[str, list[str]]:
    """All words of the training set under their tag, as often as they occur: a draw follows the corpus frequencies."""
    table = defaultdict(list)
    for sentence in sentences:
        for word, tag in sentence:
            table[tag].append(word)
    return dict(table)


def read_lexicon(path: str | Path) -> dict[str, str]:
    """Brill's lexicon: one `word TAG` per line, the most frequent tag of that word; lines with ;;; are comments."""
    lines = Path(path).read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line and not line.startswith(";;;"))


def tags(words: Sequence[str], lexicon: Mapping[str, str] | str | Path) -> list[tuple[str, str]]:
    """Each word with its most frequent Penn Treebank tag; unknown words are judged by their look.

    About 9 words in 10 get the right tag so, without a model. (The paper used NLTK's tagger.)
    """
    if isinstance(lexicon, str | Path):
        lexicon = read_lexicon(lexicon)
    return [(word, lexicon.get(word) or lexicon.get(word.lower()) or _by_look(word)) for word in words]


# Brill 1992, the part for unknown words, cut down to the suffixes that decide most of them.
_LOOKS = (
    (r"[^\w\s]+", "."), (r"[\d.,:/-]*\d[\d.,:/-]*(s|st|nd|rd|th)?", "CD"), (r"[A-Z].*", "NNP"), (r".*ing", "VBG"),
    (r".*ed", "VBN"), (r".*ly", "RB"), (r".*(able|ible|al|ful|ic|ish|ive|less|ous|y)|.+-.+", "JJ"),
    (r".*[^s]s", "NNS"),
)


def _by_look(word: str) -> str:
    return next((tag for look, tag in _LOOKS if re.fullmatch(look, word)), "NN")


# --- Measuring -------------------------------------------------------------------------------------------------------


def measured_rates(sentence: Tagged, words_by_tag: Mapping[str, Sequence[str]], *, repeats: int = 20_000,
                   seed: Seed = 0, p_mask: float = 0.1, p_pos: float = 0.1, p_ngram: float = 0.25,
                   ngram_lengths: Sequence[int] = NGRAM_LENGTHS, as_in: AsIn = "paper") -> dict:
    """What really happens to the words: rates of masked, replaced and kept words, of n-grams, and of their lengths.

    A replaced word is recognised because it differs, so give it `words_by_tag` without the words of the sentence.
    Returns: mask_rate, pos_rate, kept_rate (per word), ngram_rate (per sentence), ngram_length_share ({"1": ...}).
    """
    rng, original = generator(seed), _words(sentence)
    words, lengths = Counter(), Counter()
    for _ in range(repeats):
        whole = augment_words(sentence, words_by_tag, rng, p_mask=p_mask, p_pos=p_pos, p_ngram=0, as_in=as_in)
        words.update("mask" if new == MASK else "kept" if new == old else "pos"
                     for new, old in zip(whole, original, strict=True))
        cut = augment_words(sentence, words_by_tag, rng, p_mask=p_mask, p_pos=p_pos, p_ngram=p_ngram,
                            ngram_lengths=ngram_lengths, as_in=as_in)
        lengths[len(cut)] += 1
    grams = {n: lengths[n] for n in sorted(lengths) if n != len(original)}
    return {f"{kind}_rate": words[kind] / words.total() for kind in ("mask", "pos", "kept")} | {
        "ngram_rate": sum(grams.values()) / repeats,
        "ngram_length_share": {str(n): count / sum(grams.values()) for n, count in grams.items()},
    }
