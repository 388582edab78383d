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

| name        | train | validation |  test | never labelled                                                |
|-------------|-------|------------|-------|---------------------------------------------------------------|
| `sentiment` | 6,008 |        739 | 3,323 | `unlabelled`: 2,825 review sentences; `plots`: 5,578 of plots |
| `topics`    | 5,455 |        609 | 2,969 | -                                                             |
| `trec`      | 3,216 |        401 | 1,759 | -                                                             |
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, load_dataset, load_from_disk

from course_lib.material.assets import asset, cache_folder
from course_lib.material.sources import aligned_verses, articles, leads, movie_sentences, movie_text
from course_lib.shared.masking import IGNORED

# ------------------------------------------------------------------------------------------------ one door


def load_data(name: str, config: str | None = None, *, labels: int | Literal["all"] | None = None) -> DatasetDict:
    """Load a data set of the course by name, a local folder, or a hub data set (`"glue/sst2"`).

    labels: how many training texts keep their label (sentiment, topics, trec); the others carry -100. The same number
        gives the same texts everywhere, and the first 100 of 500 are those of labels=100. "all": every label, on the
        same larger test split. None: the older split, where every label is given and the test split is half as large.
    Returns a DatasetDict with the splits train, validation and test (a hub data set keeps its own splits); the text
    column is called `text`, the class column `label` (the course's: a ClassLabel with readable names). Movie sentences
    with `labels` have two more splits without any label: `unlabelled`, sentences of the same reviewers, and `plots`.
    Raises: ValueError for a name that is none of these, with the list of names; for labels that cannot be chosen.
    """
    if labels is not None:
        return _with_few_labels(name, labels)
    if name in _COURSE_DATA:
        if Path(name).is_dir():
            warnings.warn(f"load_data('{name}') is the course's data set; the folder '{name}' that is here is "
                          f"load_data('./{name}').", stacklevel=2)
        return _COURSE_DATA[name]()
    if Path(name).is_dir():
        splits = _from_folder(Path(name))
    elif "/" in name:
        repository, _, inner = name.partition("/")
        splits = load_dataset(repository, config or inner) if repository == "glue" else load_dataset(name, config)
    else:
        raise ValueError(f"No data set '{name}'. The course has {', '.join(_COURSE_DATA)}; a local folder or a hub "
                         "name with a slash (glue/sst2) works too.")
    return DatasetDict({split: _standard_columns(rows) for split, rows in splits.items()})


def _from_folder(folder: Path) -> DatasetDict:
    """What `save_to_disk` wrote, with splits or without (then all of it is for training), or a folder of files."""
    if not any((folder / file).exists() for file in ("dataset_dict.json", "state.json")):
        return load_dataset(str(folder))
    saved = load_from_disk(str(folder))
    return saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})


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
    return hash_position(normalise(text))


def hash_position(signature: str) -> float:
    """The same for what two copies of a text have in common, however the caller found it."""
    return int.from_bytes(hashlib.sha256(signature.encode()).digest()[:6], "big") / 2**48


def split_at(where: float, *, test: float, validation: float) -> str:
    """The name of the split at a position in [0, 1), where the first two have these shares."""
    return "test" if where < test else "validation" if where < test + validation else "train"


def split_by_text(rows: Iterable[dict], key: Callable[[dict], str], *, test: float, validation: float
                  ) -> dict[str, list[dict]]:
    """Drop repeated texts, then send every row to a split by the hash of `key(row)`."""
    splits, seen = {"train": [], "validation": [], "test": []}, set()
    for row in rows:
        text = normalise(row["text"]) + "|" + normalise(row.get("text_pair", ""))
        if text in seen:
            continue
        seen.add(text)
        splits[split_at(position(key(row)), test=test, validation=validation)].append(row)
    return splits


def _as_datasets(splits: dict[str, list[dict]], class_names: list[str] | None = None) -> DatasetDict:
    return DatasetDict({split: table(rows, class_names) for split, rows in splits.items()})


def table(rows: list[dict], class_names: list[str] | None = None) -> Dataset:
    """Rows as a `Dataset`; with class names its column "label" knows them.

    It is made with its types and not cast to them afterwards: a cast shows a bar of its own ("Casting the dataset").
    The numbers of the classes stay as they are; encoding them anew would refuse -100.
    """
    plain = Dataset.from_list(rows)
    if not class_names:
        return plain
    features = Features({**plain.features, "label": ClassLabel(names=class_names)})
    return Dataset(plain.data, info=DatasetInfo(features=features))


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
    rows = [row | {"label": int(row["rating"] > 0)} for row in movie_sentences() if abs(row["rating"]) >= 0.5]
    return [{name: row[name] for name in ("text", "label", "rating")} for row in rows], ["negative", "positive"]


def _topic_rows() -> tuple[list[dict], list[str]]:
    """Leads of Wikipedia articles and their topic; the 1,000 uncategorised ones are left out."""
    rows = [{"text": a["extract"], "label": a["topic"], "title": a["title"]}
            for a in leads() if a["topic"] != "Uncategorized"]
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
    rows = [{"title": a["title"], "text": a["extract"]} for a in leads()]
    splits = split_by_text(rows, lambda r: r["title"], test=0.05, validation=0.05)
    held_out = {normalise(r["title"]) for split in ("validation", "test") for r in splits[split]}
    splits["train"] += [a for a in articles() if normalise(a["title"]) not in held_out]
    return _as_datasets(splits)


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
    for book, pairs in aligned_verses().items():
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
        more = [row | {"label": IGNORED} for row in _more_movie_text()]
        splits["unlabelled"] = [row for row in more if row["source"] != "plot"]
        splits["plots"] = [row for row in more if row["source"] == "plot"]
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


def half_of(text: str) -> int:
    """0 or 1: the half of the training texts that a text belongs to, by a hash of its own."""
    return int(position("which half " + text) < 0.5)


def labelled(rows: Dataset) -> Dataset:
    """The rows that kept their label."""
    return rows.select([i for i, label in enumerate(rows["label"]) if label != IGNORED])


@cache
def _more_movie_text() -> list[dict]:
    """Text about films without a label: {"text", "source"}. Nothing of it shares 40 letters with a labelled sentence.

    source: "weak opinion" for our own sentences with |rating| < 0.5; "review" or "plot" as in `sources.movie_text`.
    """
    weak = [{"text": row["text"], "source": "weak opinion"} for row in movie_sentences() if abs(row["rating"]) < 0.5]
    known = set().union(*(runs(row["text"]) for row in _movie_opinions()[0]))
    new = []
    for row in weak + movie_text():
        if letters(row["text"]) and not runs(row["text"]) & known:
            new.append(row)
            known.add(letters(row["text"])[:RUN])  # the same text a second time begins with the same run
    return new
