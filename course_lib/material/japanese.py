"""Japanese text for chapter 9: no spaces between words, so a dictionary cuts first and WordPiece afterwards.

    "京都に着いた。"  --Sudachi-->  京都 に 着い た 。  --WordPiece-->  京 ##都 に 着 ##い た 。

That is how Japanese BERT models read: a morphological analyser finds the words, and rare words fall into pieces. The
tokenizer here has its own small vocabulary, made from the training sentences.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from functools import cache

from datasets import DatasetDict
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from course_lib.material.assets import DATA
from course_lib.material.data import table

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
KANA = {chr(code) for code in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FD))}  # hiragana, katakana, the long mark


@cache
def sentences() -> DatasetDict:
    """Sixty sentences of our own: columns sentence, text (the words with spaces), label, english.

    Every fifth sentence of a topic is a test sentence: 48 to learn from, 12 to look at. Far too few for a claim.
    """
    with (DATA / "japanese" / "sentences.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = list(dict.fromkeys(row["topic"] for row in rows))
    found = table([{"sentence": row["sentence"], "text": " ".join(words(row["sentence"])),
                    "label": names.index(row["topic"]), "english": row["english"]} for row in rows], names)
    return DatasetDict({"train": found.select([i for i in range(len(rows)) if i % 5 != 4]),
                        "test": found.select([i for i in range(len(rows)) if i % 5 == 4])})


@cache
def _analyser():
    from sudachipy import Dictionary  # only this chapter needs it

    return Dictionary(dict="small").tokenizer()


def words(sentence: str) -> list[str]:
    """Cut a sentence into short words with Sudachi's dictionary; joined together they are the sentence again."""
    from sudachipy import SplitMode

    return [word.surface() for word in _analyser().tokenize(sentence, SplitMode.A)]


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer for texts whose words stand apart, as in the column `text` of `sentences`.

    Its vocabulary: all kana and every character of the texts (alone and inside a word), and every word that occurs
    twice. A word with a kanji that the texts do not have becomes [UNK].
    """
    counts = Counter(word for text in texts for word in text.split())
    characters = sorted(KANA | {character for word in counts for character in word})
    frequent = sorted(word for word, count in counts.items() if count > 1 and len(word) > 1)
    vocabulary = [*SPECIAL, *characters, *(f"##{character}" for character in characters), *frequent]
    inner = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary.index(name)) for name in ("[CLS]", "[SEP]")])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                   sep_token="[SEP]", mask_token="[MASK]")
