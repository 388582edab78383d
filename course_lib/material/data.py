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
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, load_dataset, load_from_disk

from course_lib.material.assets import asset, cache_folder
from course_lib.material.sources import aligned_verses, articles, leads

# ------------------------------------------------------------------------------------------------ one door


def load_data(name: str, config: str | None = None) -> DatasetDict:
    """Load a data set of the course by name, a local folder, or a hub data set (`"glue/sst2"`).

    Returns a DatasetDict with the splits train, validation and test (a hub data set keeps its own splits); the text
    column is called `text`, the class column `label` (a ClassLabel with readable names).
    Raises: ValueError for a name that is none of these, with the list of names.
    """
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
    tables = DatasetDict({split: Dataset.from_list(rows) for split, rows in splits.items()})
    return tables.cast_column("label", ClassLabel(names=class_names)) if class_names else tables


# ------------------------------------------------------------------------------------------------ the five data sets


@cache
def _sentiment() -> DatasetDict:
    """Movie sentences with a clear opinion (|rating| >= 0.5): 0 negative, 1 positive."""
    lines = asset("movie-sentences", "movieReviewSnippets_GroundTruth.txt").read_text("utf-8").splitlines()[1:]
    rows = []
    for line in lines:
        _, rating, text = line.split("\t")
        if abs(float(rating)) >= 0.5:
            rows.append({"text": text.strip(), "label": int(float(rating) > 0), "rating": float(rating)})
    return _as_datasets(split_by_text(rows, lambda r: r["text"], test=0.15, validation=0.05), ["negative", "positive"])


@cache
def _topics() -> DatasetDict:
    """Leads of Wikipedia articles and their topic; the 1,000 uncategorised ones are left out."""
    rows = [{"text": a["extract"], "label": a["topic"], "title": a["title"]}
            for a in leads() if a["topic"] != "Uncategorized"]
    names = sorted({r["label"] for r in rows})
    rows = [r | {"label": names.index(r["label"])} for r in rows]
    return _as_datasets(split_by_text(rows, lambda r: r["title"], test=0.15, validation=0.05), names)


@cache
def _trec() -> DatasetDict:
    """Questions and what they ask for: an abbreviation, a description, an entity, a human, a place, a number."""
    names, rows = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"], []
    for line in asset("trec-questions", "question_labels.txt").read_text("latin-1").splitlines():
        label, _, text = line.partition(" ")
        rows.append({"text": text.strip(), "label": names.index(label.partition(":")[0])})
    return _as_datasets(split_by_text(rows, lambda r: r["text"], test=0.15, validation=0.05), names)


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
