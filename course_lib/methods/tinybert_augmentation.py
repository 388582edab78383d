"""TinyBERT's data augmentation (Jiao et al. 2020, section 3.2 and Algorithm 1).

Task-specific distillation needs many more sentences than a task has. Each word is replaced with probability p by one of
its K candidates, N times per sentence:

    a word that is one WordPiece    ->  the K best guesses of a masked LM for [MASK] at its place
    a word of several pieces        ->  its K nearest neighbours among the GloVe vectors

The teacher then labels the new sentences; the old labels are not needed.

    new = augment(sentences, masked_lm=model, tokenizer=tokenizer, neighbours=nearest_neighbours(words, vectors))

## Deviations of the original code

| what | paper | code | here |
|---|---|---|---|
| what the masked LM sees | the sentence with [MASK] | the sentence with [MASK] AND, as second segment, the untouched sentence: the answer stands beside the question | `as_in="paper"`: one sentence, and every further occurrence of the word is masked too; `"code"` (without the second segment's number) |
| may a word be replaced by itself | not said | yes; the shown answer makes it the likely first candidate | no: a replacement replaces (`"code"`: yes) |
| which words | every word | only letters a-z, and no stop words | words that contain a letter; `skip_words` names others to leave alone |
| candidates that are word pieces | not said | taken among the K, then thrown away, so that fewer than K remain | thrown away first, then K (`"code"`: as the code) |
| how many copies | N = 20 | 10 to 30, by task | `copies=20`; `COPIES_BY_TASK` |
| sentence pairs | not said | the row is changed in place, so the second sentence is augmented beside a replaced first one | `augment_rows`: one column at a time, the other one original |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from course_lib.shared.generators import Seed
from course_lib.shared.students import require_eval
from course_lib.shared.training import autocast
from course_lib.shared.words import AsIn, require_word

# (input_ids, attention_mask, positions): one row per question -> (rows, vocabulary)
Guesser = Callable[[Int[Tensor, "rows tokens"], Int[Tensor, "rows tokens"], Int[Tensor, " rows"]],
                   Float[Tensor, "rows vocabulary"]]
Neighbours = Callable[[str, int], Sequence[str]]

# data_augmentation.py, `default_params`
COPIES_BY_TASK = {"cola": 30, "mnli": 10, "mrpc": 30, "sst2": 20, "stsb": 30, "qqp": 10, "qnli": 20, "rte": 30}


class Word(NamedTuple):
    """A word of a sentence: where its letters stand in the text, and its tokens in the encoded sentence."""

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


def augment(sentences: Sequence[str], *, masked_lm: nn.Module | Guesser, tokenizer: PreTrainedTokenizerBase,
            neighbours: Neighbours | None = None, p: float = 0.4, candidates: int = 15, copies: int = 20,
            seed: Seed = 0, skip_words: Collection[str] = (), batch_size: int = 64, max_length: int = 128,
            as_in: AsIn = "paper") -> list[list[str]]:
    """Return, for every sentence, up to `copies` new sentences; duplicates and unchanged copies are dropped.

    masked_lm: a masked-LM of transformers in eval mode, or a `Guesser`. It is asked once per replaced position, many
        positions at a time, however often the position is drawn.
    neighbours: `neighbours(word, k)` for words of several pieces; None or an unknown word: the word stays.
    p: probability that a word is replaced, drawn for each word of each copy on its own. candidates: K.
    skip_words: words (lower case) that stay. max_length: tokens; words behind it stay.
    Same arguments, same result; sentence i does not depend on the other sentences. `sentences` is not changed.
    Raises: ValueError for a p outside 0..1, for copies or candidates below 1, for a masked LM in train mode.
    """
    if not 0 <= p <= 1 or min(copies, candidates, batch_size) < 1:
        raise ValueError(f"p={p}, copies={copies}, candidates={candidates}, batch_size={batch_size}: "
                         "p is a probability, the others count from 1.")
    require_word(as_in, AsIn, "as_in")
    sentences = list(sentences)
    guess = masked_lm_guesser(masked_lm) if isinstance(masked_lm, nn.Module) else masked_lm
    encoded = [split(sentence, tokenizer, max_length) for sentence in sentences]
    number = seed if isinstance(seed, int) else seed.getrandbits(64)
    # A string seed is hashed in full: sentence i gets its own stream, whoever stands before it.
    streams = [random.Random(f"{number}/{i}") for i in range(len(sentences))]
    drawn = [[[rng.random() < p and _may_change(word, skip_words) for word in words] for _ in range(copies)]
             for rng, (_, words) in zip(streams, encoded, strict=True)]
    asked = [(i, w) for i, (_, words) in enumerate(encoded) for w, word in enumerate(words)
             if len(word.tokens) == 1 and any(copy[w] for copy in drawn[i])]
    guesses = _ask(guess, asked, encoded, tokenizer, candidates, batch_size, as_in)
    return [_write(sentence, i, words, drawn[i], guesses, neighbours, candidates, streams[i])
            for i, (sentence, (_, words)) in enumerate(zip(sentences, encoded, strict=True))]


def augment_rows(rows: Iterable[Mapping], columns: Sequence[str] = ("text",), **options) -> list[dict]:
    """Every row itself, then its augmented copies, one column at a time, with all other columns as they were.

    options: those of `augment`. New dictionaries; the given rows are not changed. Duplicate rows are dropped.
    """
    rows = [dict(row) for row in rows]
    versions = {column: augment([row[column] for row in rows], **options) for column in columns}
    out, seen = [], set()
    for i, row in enumerate(rows):
        for new in (row, *(row | {column: text} for column in columns for text in versions[column][i])):
            key = tuple(new[column] for column in columns)
            if key not in seen:
                seen.add(key)
                out.append(dict(new))
    return out


def split(sentence: str, tokenizer: PreTrainedTokenizerBase, max_length: int = 128) -> tuple[list[int], list[Word]]:
    """The token numbers of a sentence ([CLS] and [SEP] included) and its words with their tokens."""
    encoding = tokenizer(sentence, truncation=True, max_length=max_length)
    tokens_of: dict[int, list[int]] = {}
    for position, word in enumerate(encoding.word_ids()):
        if word is not None:
            tokens_of.setdefault(word, []).append(position)
    words = []
    for word, tokens in tokens_of.items():
        start, end = encoding.word_to_chars(word)
        words.append(Word(sentence[start:end], start, end, tuple(tokens)))
    return list(encoding["input_ids"]), words


def masked_lm_guesser(model: nn.Module, precision: str = "fp32") -> Guesser:
    """Turn a masked-LM of transformers into a `Guesser`; its head runs on the asked positions only, if it is BERT's.

    precision: as in `training.Recipe`; "auto" takes a third of the time where the processor computes with bf16.
    Raises: ValueError for a model in train mode.
    """
    require_eval(model)
    device = next(model.parameters()).device

    @torch.inference_mode()
    def guess(input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
        rows = torch.arange(len(positions), device=device)
        with autocast(precision, device.type):
            if hasattr(model, "cls"):  # a head over 30,522 words costs as much as six layers of width 384
                states = model.base_model(**inputs)[0]
                logits = model.cls(states[rows, positions.to(device)])  # (rows, hidden) -> (rows, V)
            else:
                logits = model(**inputs).logits[rows, positions.to(device)]
        return logits.float().cpu()

    return guess


def nearest_neighbours(words: Sequence[str], vectors: Float[Tensor, "words width"], *, limit: int = 100_000
                       ) -> Neighbours:
    """A `Neighbours` function: the words of largest cosine, never the word itself.

    words, vectors: GloVe's, most frequent first. limit: only the first so many, as in the original code.
    """
    words = list(words[:limit])
    unit = nn.functional.normalize(torch.as_tensor(vectors[:limit]).float(), dim=-1)
    number = {word: i for i, word in enumerate(words)}

    @cache
    def neighbours(word: str, k: int) -> tuple[str, ...]:
        index = number.get(word.lower())
        if index is None:
            return ()
        similarity = unit @ unit[index]  # (words, width) x (width,) -> (words,)
        similarity[index] = -torch.inf
        return tuple(words[i] for i in similarity.topk(min(k, len(words) - 1)).indices.tolist())

    return neighbours


# --- The steps of `augment` -------------------------------------------------------------------------------------------


def _may_change(word: Word, skip_words: Collection[str]) -> bool:
    return any(letter.isalpha() for letter in word.text) and word.text.lower() not in skip_words


def _question(ids: list[int], words: list[Word], w: int, tokenizer: PreTrainedTokenizerBase, as_in: AsIn) -> list[int]:
    """The token numbers that the masked LM gets to see when word `w` is asked for."""
    row = list(ids)
    answer = ids[words[w].tokens[0]]
    if as_in == "code":
        row[words[w].tokens[0]] = tokenizer.mask_token_id
        return (row + ids[1:])[:512]  # ... [SEP] the untouched sentence [SEP]; 512 is where BERT's positions end
    return [tokenizer.mask_token_id if token == answer else token for token in row]


def _ask(guess: Guesser, asked: list[tuple[int, int]], encoded: list, tokenizer: PreTrainedTokenizerBase,
         candidates: int, batch_size: int, as_in: AsIn) -> dict[tuple[int, int], list[str]]:
    """The masked LM's candidates for every asked (sentence, word), in batches of similar length."""
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    whole_word = torch.tensor([not token.startswith("##") for token in vocabulary])
    whole_word[tokenizer.all_special_ids] = False
    asked = sorted(asked, key=lambda question: len(encoded[question[0]][0]))
    found = {}
    for first in range(0, len(asked), batch_size):
        part = asked[first : first + batch_size]
        rows = [_question(*encoded[i], w, tokenizer, as_in) for i, w in part]
        batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        positions = torch.tensor([encoded[i][1][w].tokens[0] for i, w in part])
        logits = guess(batch["input_ids"], batch["attention_mask"], positions)
        if as_in == "paper":
            answers = torch.tensor([encoded[i][0][position] for (i, _), position in zip(part, positions, strict=True)])
            logits = logits.masked_fill(~whole_word, -torch.inf)
            logits[torch.arange(len(part)), answers] = -torch.inf
        best = logits.topk(min(candidates, int(whole_word.sum()) - 1)).indices.tolist()
        for question, ids in zip(part, best, strict=True):
            found[question] = [vocabulary[token] for token in ids if whole_word[token]]
    return found


def _write(sentence: str, i: int, words: list[Word], drawn: list[list[bool]],
           guesses: dict[tuple[int, int], list[str]], neighbours: Neighbours | None, candidates: int,
           rng: random.Random) -> list[str]:
    """Put the chosen candidates into the text; spaces and punctuation around the words stay as they are."""
    new = {sentence: None}  # a dictionary keeps the order and drops duplicates
    for copy in drawn:
        pieces, done = [], 0
        for w, word in enumerate(words):
            if copy[w]:
                several = len(word.tokens) > 1
                choices = (neighbours(word.text, candidates) if neighbours else ()) if several else guesses[i, w]
                chosen = rng.choice(list(choices)) if choices else word.text
                pieces += [sentence[done : word.start], chosen.capitalize() if word.text.istitle() else chosen]
                done = word.end
        new["".join(pieces) + sentence[done:]] = None
    return list(new)[1:]
