"""Real English text with fixed, leak-free splits, and batches that depend on (seed, step) only.

| name        | task                          | columns               | train / validation / test |
|-------------|-------------------------------|-----------------------|---------------------------|
| `sentiment` | movie sentence -> 2 classes   | text, label, rating   | see `load_data`           |
| `topics`    | Wikipedia lead -> 11 classes  | text, label, title    |                           |
| `trec`      | question -> 6 classes         | text, label           |                           |
| `pairs`     | same verse or not -> 2 classes| text, text_pair, label|                           |
| `wikipedia` | masked language modelling     | text, title           |                           |

Which split a text belongs to is decided by a hash of the text itself: no file order and no random generator is
involved, and a text that occurs twice cannot stand on both sides.

Labels are dear and text is cheap, so the first three exist with few labels too: `load_data("sentiment", labels=500)`.
Every training text is there, 500 of them with their label and the others with -100; `labels="all"` keeps every label.

| name        | train | validation |  test | `unlabelled`                                             |
|-------------|-------|------------|-------|----------------------------------------------------------|
| `sentiment` | 6,008 |        739 | 3,323 | 8,403: weak opinions, more review sentences, plots       |
| `topics`    | 5,455 |        609 | 2,969 | -                                                        |
| `trec`      | 3,216 |        401 | 1,759 | -                                                        |
"""

from __future__ import annotations

import ast
import bz2
import contextlib
import csv
import hashlib
import html
import io
import json
import math
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset, load_from_disk
from jaxtyping import Bool, Int
from torch import Tensor

from course_lib.assets import asset, cache_folder
from course_lib.masking import IGNORED

# ------------------------------------------------------------------------------------------------ one door


def load_data(name: str, config: str | None = None, *, labels: int | Literal["all"] | None = None) -> DatasetDict:
    """Load a data set of the course by name, a local folder, or a hub data set (`"glue/sst2"`).

    labels: how many training texts keep their label (sentiment, topics, trec); the others carry -100. The same number
        gives the same texts everywhere, and the first 100 of 500 are those of labels=100. "all": every label, on the
        same larger test split. None: the older split, where every label is given and the test split is half as large.
    Returns a DatasetDict with the splits train, validation and test (a hub data set keeps its own splits); the text
    column is called `text`, the class column `label` (a ClassLabel with readable names). Movie sentences with
    `labels` have a split `unlabelled` too: more text from the same world.
    Raises: ValueError for a name that is none of these, with the list of names; for labels that cannot be chosen.
    """
    if labels is not None:
        return _with_few_labels(name, labels)
    if name in _COURSE_DATA:
        return _COURSE_DATA[name]()
    if Path(name).is_dir():
        splits = load_from_disk(name) if (Path(name) / "dataset_dict.json").exists() else load_dataset(name)
    elif "/" in name:
        repository, _, inner = name.partition("/")
        splits = load_dataset(repository, config or inner) if repository == "glue" else load_dataset(name, config)
    else:
        raise ValueError(f"No data set '{name}'. The course has {', '.join(_COURSE_DATA)}; a local folder or a hub "
                         "name with a slash (glue/sst2) works too.")
    return DatasetDict({split: _standard_columns(rows) for split, rows in splits.items()})


def _standard_columns(rows: Dataset) -> Dataset:
    """Rename the usual first-sentence columns to `text` and the second to `text_pair`."""
    pairs = [("sentence", "text"), ("sentence1", "text"), ("sentence2", "text_pair"), ("question1", "text"),
             ("question2", "text_pair"), ("premise", "text"), ("hypothesis", "text_pair"), ("content", "text")]
    for old, new in pairs:
        if old in rows.column_names and new not in rows.column_names:
            rows = rows.rename_column(old, new)
    return rows


# ------------------------------------------------------------------------------------------------ splits


def normalise(text: str) -> str:
    """Lower case, letters and digits only: what two copies of one text have in common."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def position(text: str) -> float:
    """A number in [0, 1) that depends on the normalised text only; it decides the split."""
    return int.from_bytes(hashlib.sha256(normalise(text).encode()).digest()[:6], "big") / 2**48


def split_by_text(rows: Iterable[dict], key: Callable[[dict], str], *, test: float, validation: float
                  ) -> dict[str, list[dict]]:
    """Drop repeated texts, then send every row to a split by the hash of `key(row)`."""
    splits, seen = {"train": [], "validation": [], "test": []}, set()
    for row in rows:
        text = normalise(row["text"]) + "|" + normalise(row.get("text_pair", ""))
        if text in seen:
            continue
        seen.add(text)
        where = position(key(row))
        split = "test" if where < test else "validation" if where < test + validation else "train"
        splits[split].append(row)
    return splits


def _as_datasets(splits: dict[str, list[dict]], class_names: list[str] | None = None) -> DatasetDict:
    tables = DatasetDict({split: Dataset.from_list(rows) for split, rows in splits.items()})
    return tables.cast_column("label", ClassLabel(names=class_names)) if class_names else tables


# ------------------------------------------------------------------------------------------------ the five data sets


# The split without `labels` goes when the last chapter that stands on it has moved to few labels.


@cache
def _sentiment() -> DatasetDict:
    rows, names = _movie_opinions()
    return _as_datasets(split_by_text(rows, lambda r: r["text"], test=0.15, validation=0.05), names)


@cache
def _topics() -> DatasetDict:
    rows, names = _topic_rows()
    return _as_datasets(split_by_text(rows, lambda r: r["title"], test=0.15, validation=0.05), names)


@cache
def _trec() -> DatasetDict:
    rows, names = _question_rows()
    return _as_datasets(split_by_text(rows, lambda r: r["text"], test=0.15, validation=0.05), names)


def _movie_opinions() -> tuple[list[dict], list[str]]:
    """Movie sentences with a clear opinion (|rating| >= 0.5): 0 negative, 1 positive."""
    rows = [row | {"label": int(row["rating"] > 0)} for row in _movie_sentences() if abs(row["rating"]) >= 0.5]
    return [{name: row[name] for name in ("text", "label", "rating")} for row in rows], ["negative", "positive"]


@cache
def _movie_sentences() -> list[dict]:
    lines = asset("movie-sentences", "movieReviewSnippets_GroundTruth.txt").read_text("utf-8").splitlines()[1:]
    return [{"text": text.strip(), "rating": float(rating)} for _, rating, text in (li.split("\t") for li in lines)]


def _topic_rows() -> tuple[list[dict], list[str]]:
    """Leads of Wikipedia articles and their topic; the 1,000 uncategorised ones are left out."""
    rows = [{"text": a["extract"], "label": a["topic"], "title": a["title"]}
            for a in _leads() if a["topic"] != "Uncategorized"]
    names = sorted({r["label"] for r in rows})
    return [r | {"label": names.index(r["label"])} for r in rows], names


def _question_rows() -> tuple[list[dict], list[str]]:
    """Questions and what they ask for: an abbreviation, a description, an entity, a human, a place, a number."""
    names, rows = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"], []
    for line in asset("trec-questions", "question_labels.txt").read_text("latin-1").splitlines():
        label, _, text = line.partition(" ")
        rows.append({"text": text.strip(), "label": names.index(label.partition(":")[0])})
    return rows, names


@cache
def _wikipedia() -> DatasetDict:
    """Leads of vital articles, and full articles for training. An article goes where the lead of its title goes."""
    rows = [{"title": a["title"], "text": a["extract"]} for a in _leads()]
    splits = split_by_text(rows, lambda r: r["title"], test=0.05, validation=0.05)
    held_out = {normalise(r["title"]) for split in ("validation", "test") for r in splits[split]}
    splits["train"] += [a for a in _articles() if normalise(a["title"]) not in held_out]
    return _as_datasets(splits)


@cache
def _leads() -> list[dict]:
    path = asset("wikipedia-leads", "summaries_en-us.json")
    return list(json.loads(path.read_text("utf-8")).values())


@cache
def _articles() -> list[dict]:
    """Paragraphs of at least 200 characters of the full articles, wiki markup removed."""
    (file,) = asset("wikipedia-articles").glob("*.bz2")
    xml = bz2.decompress(file.read_bytes()).decode("utf-8")
    pages = re.findall(r"<title>([^<]*)</title>.*?<text[^>]*>(.*?)</text>", xml, flags=re.DOTALL)
    rows = []
    for title, wikitext in pages:
        paragraphs = strip_markup(html.unescape(wikitext)).split("\n")
        rows += [{"title": title, "text": p.strip()} for p in paragraphs if len(p.strip()) >= 200]
    return rows


def strip_markup(wikitext: str) -> str:
    """Plain prose out of wiki markup: enough for training text, not a full parser."""
    text = re.sub(r"<!--.*?-->|<ref[^>/]*/>|<ref[^>]*>.*?</ref>|<(math|gallery|code|pre|timeline)[^>]*>.*?</\1>", "",
                  wikitext, flags=re.DOTALL)
    innermost = re.compile(r"\{\{[^{}]*\}\}|\{\|(?:(?!\{\|).)*?\|\}", flags=re.DOTALL)
    while innermost.search(text):  # templates and tables are nested: peel them from the inside
        text = innermost.sub("", text)
    text = re.sub(r"\[\[(?:File|Image|Category)[^\[\]]*(?:\[\[[^\]]*\]\][^\[\]]*)*\]\]", "", text)
    text = re.sub(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]", r"\1", text)
    text = re.sub(r"\[https?://\S+ ?([^\]]*)\]", r"\1", text)
    text = re.sub(r"<[^>]+>|'{2,}|^[=*#:;|!].*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\([\s,;]*\)", "", re.sub(r"[ \t\u00a0]+", " ", html.unescape(text)))


@cache
def _pairs() -> DatasetDict:
    """Two translations of one verse (label 1), or a verse with a close neighbour of its partner (label 0).

    Split by chapter: a verse and its neighbours never stand on two sides. The alignment takes some seconds, so its
    result is kept in the cache folder.
    """
    kept = cache_folder() / "data" / "pairs-1"  # count up when the code below changes
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=_made(kept.parent)) as unfinished:
            _build_pairs().save_to_disk(unfinished)
            with contextlib.suppress(OSError):  # another process was faster; its result is the same
                os.rename(unfinished, kept)
    return load_from_disk(str(kept))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _build_pairs() -> DatasetDict:
    rows = []
    for book, pairs in _aligned_verses().items():
        for i, (chapter, web, bbe) in enumerate(pairs):
            other_chapter, _, other = pairs[i + 1 if i + 1 < len(pairs) else i - 1]
            same = hashlib.sha256(web.encode()).digest()[0] % 2 or other_chapter != chapter
            rows.append({"text": web, "text_pair": bbe if same else other, "label": int(bool(same)),
                         "chapter": f"{book} {chapter}"})
    splits = split_by_text(rows, lambda r: r["chapter"], test=0.1, validation=0.05)
    return _as_datasets(_without_shared_sentences(splits), ["different", "same"])


def _without_shared_sentences(splits: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Some verses stand in two chapters word for word: keep such a sentence in one split only."""
    taken: set[str] = set()
    kept = {}
    for split in ("test", "validation", "train"):
        sentences = [{normalise(r["text"]), normalise(r["text_pair"])} for r in splits[split]]
        kept[split] = [r for r, s in zip(splits[split], sentences, strict=True) if not s & taken]
        taken |= set().union(*sentences)
    return {split: kept[split] for split in splits}


def _bible(name: str) -> tuple[str, dict[int, int], dict[int, int]]:
    """Text, and where each verse starts and ends; the package's Python file is parsed as text and never run."""
    tree = ast.parse(asset(name, "plain_text_bible.py").read_text("utf-8"))
    call = next(node.value for node in tree.body if isinstance(node, ast.Assign))
    return tuple(ast.literal_eval(call.args[i]) for i in (1, 2, 3))


# "12." before a space, a quotation mark or a note; sometimes the space before it is missing ("Egypt.1. Now").
_VERSE_NUMBER = r"(?<![\d,])\d{1,3}\.(?=[\s\"\\])"


def _aligned_verses() -> dict[int, list[tuple[int, str, str]]]:
    """book -> [(chapter, verse in the Web, the same verse in the BBE)].

    The verse table of the second translation drifts (from Genesis 43 on; by some thirty verses at the end), so its
    numbers are not trusted. Per book we cut its text at the printed verse numbers, with some slack on both sides, and
    take the monotone alignment with the largest sum of TF-IDF similarities; pairs that share few words are dropped.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    web, starts, ends = _bible("bible-web")
    bbe, drifting, _ = _bible("bible-bbe")
    slack, aligned = 8_000, {}
    for book in sorted({verse // 1_000_000 for verse in starts}):  # 1001002 = book 1, chapter 1, verse 2
        verses = [v for v in starts if v // 1_000_000 == book]
        left = [_clean_verse(web[starts[v] : ends[v]]) for v in verses]
        first = min(drifting[v] for v in drifting if v // 1_000_000 == book)
        last = max(drifting[v] for v in drifting if v // 1_000_000 == book)
        stretch = bbe[max(0, first - slack) : last + slack]
        right = [_clean_verse(piece) for piece in re.split(_VERSE_NUMBER, stretch)[1:-1]]
        vectors = TfidfVectorizer(sublinear_tf=True).fit(left + right)
        similarity = (vectors.transform(left) @ vectors.transform(right).T).toarray()
        aligned[book] = [(verses[i] // 1000 % 1000, left[i], right[j]) for i, j in best_alignment(similarity)
                         if similarity[i, j] >= 0.2]
    return aligned


def _clean_verse(text: str) -> str:
    """Without the verse number, the notes between backslashes and the book titles in capitals."""
    text = re.sub(r"\\[^\\]*\\|^\s*\d+\.", " ", text)
    return re.sub(r"\s+", " ", text).replace("`", "'").strip()


def best_alignment(similarity: np.ndarray) -> list[tuple[int, int]]:
    """The monotone matching of rows to columns with the largest total similarity (rows and columns may be skipped)."""
    rows, columns = similarity.shape
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows):
        step = np.maximum(best[i, 1:], best[i, :-1] + similarity[i])
        best[i + 1, 1:] = np.maximum.accumulate(step)
    pairs, i, j = [], rows, columns
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


_COURSE_DATA = {"sentiment": _sentiment, "topics": _topics, "trec": _trec, "pairs": _pairs, "wikipedia": _wikipedia}


# ------------------------------------------------------------------------------------------------ few labels, much text

_CLASSIFIED = {"sentiment": _movie_opinions, "topics": _topic_rows, "trec": _question_rows}
RUN = 40  # two texts that share a run of 40 letters are the same text, shortened or with other punctuation


@cache
def _with_few_labels(name: str, labels: int | Literal["all"]) -> DatasetDict:
    """Split by the hash of the first 40 letters. A third is for testing: training needs few of the labels."""
    if name not in _CLASSIFIED:
        raise ValueError(f"labels={labels!r} goes with {', '.join(_CLASSIFIED)}, not with '{name}'. "
                         f"load_data('{name}') gives it as it is.")
    rows, class_names = _CLASSIFIED[name]()
    splits = split_by_text(rows, lambda r: letters(r["text"])[:RUN], test=0.33, validation=0.07)
    splits["train"] = hide_labels(splits["train"], labels, len(class_names))
    if name == "sentiment":
        splits["unlabelled"] = [row | {"label": IGNORED} for row in _more_movie_text()]
    return _as_datasets(splits, class_names)


def letters(text: str) -> str:
    """Lower-case letters and digits with nothing between them: what a copy keeps when its punctuation changes."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def runs(text: str) -> set[str]:
    """Every run of 40 letters in a text; a shorter text is one run."""
    all_letters = letters(text)
    return {all_letters[i : i + RUN] for i in range(max(1, len(all_letters) - RUN + 1))}


def hide_labels(rows: list[dict], labels: int | Literal["all"], classes: int) -> list[dict]:
    """The same rows in the same order; all but `labels` of them carry -100.

    The classes take turns, each in the order of a hash of its texts, as long as a class lasts: 440 labels of eleven
    classes are 40 each, and fewer labels are always a part of more.
    Raises: ValueError if there are not that many, or fewer than one for each class.
    """
    if labels == "all":
        return rows
    if isinstance(labels, bool) or not isinstance(labels, int) or not classes <= labels <= len(rows):
        raise ValueError(f"labels={labels!r}: choose a whole number from {classes} (one of each class) to {len(rows)} "
                         "(all training texts), or 'all'.")
    of_class = defaultdict(list)
    for i in sorted(range(len(rows)), key=lambda i: position("who keeps a label " + rows[i]["text"])):
        of_class[rows[i]["label"]].append(i)
    turns = sorted((turn, label, i) for label, mine in of_class.items() for turn, i in enumerate(mine))
    chosen = {i for _, _, i in turns[:labels]}
    return [row if i in chosen else row | {"label": IGNORED} for i, row in enumerate(rows)]


def labelled(rows: Dataset) -> Dataset:
    """The rows that kept their label."""
    return rows.select([i for i, label in enumerate(rows["label"]) if label != IGNORED])


@cache
def _more_movie_text() -> list[dict]:
    """Text about films without a label: {"text", "source"}. Nothing of it shares 40 letters with a labelled sentence.

    "weak opinion": our own sentences with |rating| < 0.5. "review": sentences of the same reviewers (Pang and Lee).
    "plot": sentences of 5 to 60 words out of plot summaries.
    """
    rows = [{"text": row["text"], "source": "weak opinion"} for row in _movie_sentences() if abs(row["rating"]) < 0.5]
    packed = asset("movie-text", "rotten_tomatoes_corpus_full.csv.bz2").read_bytes()
    for row in csv.DictReader(io.StringIO(bz2.decompress(packed).decode("utf-8"), newline="")):
        if row["category"] != "plot":
            rows.append({"text": row["text"].strip(), "source": "review"})
            continue
        sentences = re.split(r"(?<=[.!?])\s+(?=[\"“(]?[A-Z])|\n+", row["text"])
        rows += [{"text": s.strip(), "source": "plot"} for s in sentences if 5 <= len(s.split()) <= 60]
    known = set().union(*(runs(row["text"]) for row in _movie_opinions()[0]))
    new = []
    for row in rows:
        mine = runs(row["text"])
        if letters(row["text"]) and not mine & known:
            new.append(row)
            known.add(letters(row["text"])[:RUN])  # the same text a second time begins with the same run
    return new


# ------------------------------------------------------------------------------------------------ tokens


def encode(rows: Dataset, tokenizer, max_length: int = 128) -> list[dict]:
    """Tokenise `text` (and `text_pair`) into a list of examples: input_ids, token_type_ids, label."""
    pairs = {"text_pair": list(rows["text_pair"])} if "text_pair" in rows.column_names else {}
    tokens = tokenizer(list(rows["text"]), **pairs, truncation=True, max_length=max_length)
    columns = [c for c in ("input_ids", "token_type_ids") if c in tokens]
    examples = [dict(zip(columns, values, strict=True)) for values in zip(*(tokens[c] for c in columns), strict=True)]
    if "label" in rows.column_names:
        for example, label in zip(examples, rows["label"], strict=True):
            example["label"] = label
    return examples


def windows(rows: Dataset, tokenizer, length: int = 128) -> list[dict]:
    """Cut every text into consecutive windows of at most `length` tokens, [CLS] and [SEP] included."""
    room = length - 2
    examples = []
    for ids in tokenizer(list(rows["text"]), add_special_tokens=False, verbose=False)["input_ids"]:
        pieces = [ids[i : i + room] for i in range(0, len(ids), room)]
        examples += [{"input_ids": [tokenizer.cls_token_id, *p, tokenizer.sep_token_id]} for p in pieces if len(p) >= 8]
    return examples


def pad(examples: list[dict], pad_token_id: int = 0) -> dict[str, Tensor]:
    """Right-pad examples to the longest: input_ids, attention_mask, token_type_ids and labels, each a tensor.

    Every other numeric column (`teacher_logits`, for instance) is stacked under its own name.
    """
    length = max(len(e["input_ids"]) for e in examples)
    fill = {"input_ids": pad_token_id, "token_type_ids": 0}
    batch = {name: torch.tensor([e[name] + [value] * (length - len(e[name])) for e in examples])
             for name, value in fill.items() if name in examples[0]}
    batch["attention_mask"] = torch.tensor([[1] * len(e["input_ids"]) + [0] * (length - len(e["input_ids"]))
                                            for e in examples])
    for name in examples[0].keys() - batch.keys():
        batch["labels" if name == "label" else name] = torch.as_tensor(np.array([e[name] for e in examples]))
    return batch


def mask_tokens(input_ids: Int[Tensor, "batch tokens"], maskable: Bool[Tensor, "batch tokens"], *, mask_token_id: int,
                vocabulary: int, probability: float = 0.15, generator: torch.Generator | None = None
                ) -> tuple[Int[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
    """Hide tokens as BERT does: of the 15 % chosen, 80 % become [MASK], 10 % a random token, 10 % stay.

    maskable is False for padding and special tokens: they are never chosen. Returns new tensors (ids, labels);
    labels are -100 wherever nothing was chosen. Source: Devlin et al. 2019, section 3.1 and appendix A.1.
    """
    draw = torch.rand(input_ids.shape, generator=generator)
    how = torch.rand(input_ids.shape, generator=generator)
    random_ids = torch.randint(vocabulary, input_ids.shape, generator=generator)
    chosen = (draw < probability) & maskable
    labels = input_ids.masked_fill(~chosen, IGNORED)
    masked = input_ids.masked_fill(chosen & (how < 0.8), mask_token_id)
    masked = torch.where(chosen & (how >= 0.9), random_ids, masked)
    return masked, labels


class MaskedBatch:
    """Collate examples into a masked-LM batch; the masks are drawn anew each time ("dynamic masking")."""

    def __init__(self, tokenizer, probability: float = 0.15, generator: torch.Generator | None = None):
        self.tokenizer, self.probability, self.generator = tokenizer, probability, generator
        self.special = torch.tensor(tokenizer.all_special_ids)

    def __call__(self, examples: list[dict]) -> dict[str, Tensor]:
        batch = pad(examples, self.tokenizer.pad_token_id)
        maskable = ~torch.isin(batch["input_ids"], self.special)
        batch["input_ids"], batch["labels"] = mask_tokens(
            batch["input_ids"], maskable, mask_token_id=self.tokenizer.mask_token_id,
            vocabulary=len(self.tokenizer), probability=self.probability, generator=self.generator)
        return batch


class Batches:
    """An endless sequence of shuffled batches: `batches[step]` depends on (examples, seed, step) and nothing else.

    That is what makes a run that was killed and resumed equal to one that was not. Sentences of similar length are
    put together (`bucket` batches at a time are sorted by length), which saves most of the padding.
    """

    def __init__(self, examples: list[dict], batch_size: int, *, seed: int = 0, bucket: int = 20,
                 collate: Callable[[list[dict]], dict[str, Tensor]] = pad):
        if not examples:
            raise ValueError("Batches: there are no examples. Was the data set filtered down to nothing?")
        self.examples, self.batch_size, self.seed, self.bucket, self.collate = (
            examples, min(batch_size, len(examples)), seed, bucket, collate)
        self.lengths = np.array([len(e["input_ids"]) for e in examples])
        self._epoch: tuple[int, list[np.ndarray]] | None = None

    def __len__(self) -> int:
        """Batches in one epoch; the last, smaller one counts."""
        return math.ceil(len(self.examples) / self.batch_size)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        epoch, within = divmod(step, len(self))
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return self.collate([self.examples[i] for i in self._epoch[1][within]])

    def _order(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.examples))
        pool = self.bucket * self.batch_size
        pools = [order[i : i + pool] for i in range(0, len(order), pool)]
        order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in pools])
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]


def in_order(examples: list[dict], batch_size: int = 64, collate: Callable = pad) -> list[dict[str, Tensor]]:
    """Every example once, in its own order: for evaluation and for caching a teacher's outputs."""
    return [collate(examples[i : i + batch_size]) for i in range(0, len(examples), batch_size)]
