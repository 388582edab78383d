"""Real text: columns, splits without leaks, masking as BERT does it, batches that depend on (seed, step)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

from course_lib.material import data
from course_lib.material.data import load_data, normalise
from course_lib.material.sources import best_alignment, strip_markup
from course_lib.shared.batches import Batches, MaskedBatch, mask_tokens, pad, windows

NAMES = ["sentiment", "topics", "trec", "pairs", "wikipedia"]
SIZES = {"sentiment": (8042, 481, 1547), "topics": (7227, 426, 1380), "trec": (4308, 261, 807),
         "pairs": (24733, 1416, 3102), "wikipedia": (13021, 507, 531)}


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
def test_the_splits_have_the_documented_sizes(name):
    splits = load_data(name)
    assert tuple(len(splits[s]) for s in ("train", "validation", "test")) == SIZES[name]


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
def test_no_text_stands_in_two_splits_and_none_twice(name):
    texts = {}
    for split, rows in load_data(name).items():
        columns = [c for c in ("text", "text_pair") if c in rows.column_names]
        texts[split] = [{normalise(t) for t in rows[c]} for c in columns]
        whole = [" | ".join(map(normalise, pair)) for pair in zip(*(rows[c] for c in columns), strict=True)]
        assert len(whole) == len(set(whole)), f"{name}/{split} repeats a text"
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not set().union(*texts[one]) & set().union(*texts[other]), f"{name}: {one} and {other} share a text"


@pytest.mark.assets
def test_an_article_is_not_trained_on_when_its_lead_is_held_out():
    splits = load_data("wikipedia")
    held_out = {normalise(t) for s in ("validation", "test") for t in splits[s]["title"]}
    assert not held_out & {normalise(t) for t in splits["train"]["title"]}


@pytest.mark.assets
def test_articles_carry_no_markup():
    rows = load_data("wikipedia")["train"]
    marked = [t for t in rows["text"] if any(sign in t for sign in ("[[", "{{", "}}", "<ref", "'''", "|-"))]
    assert len(marked) <= 0.002 * len(rows), marked[:2]


@pytest.mark.assets
def test_classes_have_names_and_none_is_empty():
    for name in ("sentiment", "topics", "trec", "pairs"):
        for split, rows in load_data(name).items():
            classes = rows.features["label"].names
            assert set(rows["label"]) == set(range(len(classes))), (name, split)
    assert load_data("sentiment")["train"].features["label"].names == ["negative", "positive"]
    assert len(load_data("topics")["train"].features["label"].names) == 11


@pytest.mark.assets
def test_realigned_verses_share_their_words_to_the_end_of_the_book():
    """Without realignment the pairs of the last books would be strangers."""
    rows = load_data("pairs")["train"]
    same = [(set(normalise(r["text"]).split()), set(normalise(r["text_pair"]).split()))
            for r in rows if r["label"] == 1 and r["chapter"].startswith("66 ")]
    overlap = np.mean([len(a & b) / len(a | b) for a, b in same])
    different = [(set(normalise(r["text"]).split()), set(normalise(r["text_pair"]).split()))
                 for r in rows if r["label"] == 0 and r["chapter"].startswith("66 ")]
    assert len(same) > 100 and overlap > 0.3 > 2 * np.mean([len(a & b) / len(a | b) for a, b in different]) - 0.1


FEW = {"sentiment": 500, "topics": 440, "trec": 500}
FEW_SIZES = {"sentiment": {"train": 6008, "validation": 739, "test": 3323, "unlabelled": 2825, "plots": 5578},
             "topics": {"train": 5455, "validation": 609, "test": 2969},
             "trec": {"train": 3216, "validation": 401, "test": 1759}}


@pytest.mark.assets
@pytest.mark.parametrize("name", FEW)
class TestFewLabels:
    def test_the_splits_have_the_documented_sizes(self, name):
        for labels in (FEW[name], "all"):
            assert {split: len(rows) for split, rows in load_data(name, labels=labels).items()} == FEW_SIZES[name]

    def test_so_many_labels_are_kept_and_the_others_are_minus_100(self, name):
        few, everything = load_data(name, labels=FEW[name]), load_data(name, labels="all")
        assert len(data.labelled(few["train"])) == FEW[name] and min(everything["train"]["label"]) == 0
        assert few["train"]["text"] == everything["train"]["text"]
        true = zip(few["train"]["label"], everything["train"]["label"], strict=True)
        assert all(label in (-100, truth) for label, truth in true)
        for split in ("validation", "test"):
            assert few[split]["label"] == everything[split]["label"] and min(few[split]["label"]) == 0

    def test_every_class_has_as_many_labels_as_the_others_while_it_lasts(self, name):
        there = np.bincount(load_data(name, labels="all")["train"]["label"])
        kept = np.bincount(data.labelled(load_data(name, labels=FEW[name])["train"])["label"])
        assert (kept <= there).all()
        assert max(kept) - min(kept[kept < there]) <= 1, "a class that had more to give got less than another"

    def test_fewer_labels_are_a_part_of_more(self, name):
        few, more = (set(data.labelled(load_data(name, labels=n)["train"])["text"]) for n in (100, FEW[name]))
        assert len(few) == 100 and few < more

    def test_no_test_or_validation_text_stands_anywhere_else_not_even_its_beginning(self, name):
        """By normalised text, and by the first 40 letters without punctuation."""
        splits = load_data(name, labels=FEW[name])
        for said in (normalise, lambda text: data.letters(text)[:40]):
            seen = {split: {said(text) for text in rows["text"]} for split, rows in splits.items()}
            for one, other in itertools.combinations(seen, 2):
                assert not seen[one] & seen[other], f"{name}: {one} and {other} share a text"


@pytest.mark.assets
def test_unlabelled_movie_text_shares_no_forty_letters_with_any_labelled_sentence():
    splits = load_data("sentiment", labels=500)
    held = set().union(*(data.runs(text) for s in ("train", "validation", "test") for text in splits[s]["text"]))
    more = [row for split in ("unlabelled", "plots") for row in splits[split]]
    assert not [row["text"] for row in more if data.runs(row["text"]) & held]
    assert {row["label"] for row in more} == {-100}
    assert set(splits["unlabelled"]["source"]) == {"weak opinion", "review"}
    assert set(splits["plots"]["source"]) == {"plot"}
    beginnings = [data.letters(row["text"])[:40] for row in more]
    assert len(beginnings) == len(set(beginnings))


def test_a_copy_is_known_by_its_letters():
    assert data.letters("It's -- a Film!") == "itsafilm"
    assert data.runs("ab" * 20 + "!") == {"ab" * 20} and len(data.runs("ab" * 21)) == 2  # 3 runs, two of them equal
    assert data.runs("Fine.") == {"fine"}


@pytest.mark.parametrize(("labels", "words"), [(1, "from 2"), (7, "to 6"), (True, "whole number"), (2.0, "'all'")])
def test_labels_that_cannot_be_chosen_are_refused(labels, words):
    rows = [{"text": str(i), "label": i % 2} for i in range(6)]
    with pytest.raises(ValueError, match=words):
        data.hide_labels(rows, labels, classes=2)


def test_labels_are_no_part_of_other_data_sets():
    with pytest.raises(ValueError, match="sentiment, topics, trec, not with 'pairs'"):
        load_data("pairs", labels=500)


def test_a_local_folder_comes_through_the_same_door(tmp_path):
    rows = Dataset.from_dict({"sentence": ["one", "two"], "label": [0, 1]})
    DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "mine"))
    assert load_data(str(tmp_path / "mine"))["train"].column_names == ["text", "label"]
    (tmp_path / "csv").mkdir()
    rows.to_csv(tmp_path / "csv" / "train.csv")
    assert load_data(str(tmp_path / "csv"))["train"]["text"][0] == "one"


def test_a_folder_that_was_saved_without_splits_is_for_training(tmp_path):
    Dataset.from_dict({"sentence": ["one", "two"], "label": [0, 1]}).save_to_disk(str(tmp_path / "mine"))
    splits = load_data(str(tmp_path / "mine"))
    assert list(splits) == ["train"] and splits["train"]["text"][1] == "two"


def test_a_folder_with_the_name_of_a_data_set_is_pointed_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(data._COURSE_DATA, "sentiment", lambda: "the course's")
    assert load_data("sentiment") == "the course's"
    DatasetDict(train=Dataset.from_dict({"text": ["mine"]})).save_to_disk("sentiment")
    with pytest.warns(UserWarning, match=r"the folder 'sentiment' that is here is load_data\('./sentiment'\)"):
        assert load_data("sentiment") == "the course's"
    assert load_data("./sentiment")["train"]["text"][0] == "mine"


def test_a_hub_name_is_asked_for_in_its_two_parts(monkeypatch):
    asked = []
    rows = Dataset.from_dict({"sentence": ["fine"], "label": [1]})
    monkeypatch.setattr(data, "load_dataset", lambda *a: asked.append(a) or DatasetDict(train=rows))
    assert load_data("glue/sst2")["train"]["text"][0] == "fine"
    load_data("someone/reviews")
    assert asked == [("glue", "sst2"), ("someone/reviews", None)]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="sentiment, topics, trec, pairs, wikipedia"):
        load_data("imdb")


def test_the_split_of_a_text_ignores_case_and_punctuation():
    rows = [{"text": t} for t in ("A fine film!", "a fine film", "Another film.")]
    splits = data.split_by_text(rows, lambda r: r["text"], test=0.5, validation=0.2)
    assert sum(len(rows) for rows in splits.values()) == 2
    assert data.position("A fine film!") == data.position("a  FINE film")


def test_alignment_skips_what_has_no_partner():
    similarity = np.array([[0.9, 0.1, 0.0, 0.0], [0.0, 0.1, 0.8, 0.0], [0.0, 0.0, 0.1, 0.7]])
    assert best_alignment(similarity) == [(0, 0), (1, 2), (2, 3)]


def test_markup_is_peeled_from_the_inside():
    wikitext = ("{{box|a={{nested}}}}'''Anarchism''' is a [[political philosophy|view]]<ref name=a>x</ref> of "
                "[[society]].\n== History ==\n{| class=t\n| cell\n|}\n[[File:A.jpg|thumb|a [[link]] in it]]Text.")
    assert strip_markup(wikitext).split("\n")[0] == "Anarchism is a view of society."
    assert "History" not in strip_markup(wikitext) and "cell" not in strip_markup(wikitext)
    assert strip_markup(wikitext).strip().endswith("Text.")


class TestMasking:
    ids = torch.randint(1000, 30000, (400, 100), generator=torch.Generator().manual_seed(0))
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:, 0] = maskable[:, -20:] = False

    def draw(self, seed=0, probability=0.15):
        return mask_tokens(self.ids, self.maskable, mask_token_id=103, vocabulary=30522, probability=probability,
                           generator=torch.Generator().manual_seed(seed))

    def test_the_rates_are_berts(self):
        masked, labels = self.draw()
        chosen = labels != -100
        assert chosen[self.maskable].float().mean().item() == pytest.approx(0.15, abs=0.01)
        assert (masked[chosen] == 103).float().mean().item() == pytest.approx(0.8, abs=0.02)
        assert (masked[chosen] == self.ids[chosen]).float().mean().item() == pytest.approx(0.1, abs=0.02)

    def test_special_tokens_and_padding_are_never_touched(self):
        masked, labels = self.draw(probability=1.0)
        assert (labels[~self.maskable] == -100).all()
        assert torch.equal(masked[~self.maskable], self.ids[~self.maskable])

    def test_unchosen_tokens_stay_and_labels_keep_the_truth(self):
        before = self.ids.clone()
        masked, labels = self.draw()
        chosen = labels != -100
        assert torch.equal(masked[~chosen], self.ids[~chosen]) and torch.equal(labels[chosen], self.ids[chosen])
        assert torch.equal(before, self.ids)

    def test_masks_are_drawn_anew_but_a_seed_repeats_them(self):
        assert torch.equal(self.draw(1)[0], self.draw(1)[0]) and not torch.equal(self.draw(1)[0], self.draw(2)[0])


    def test_a_batch_hides_every_kind_of_token_but_the_special_ones(self):
        class Tokenizer:
            pad_token_id, mask_token_id, all_special_ids = 0, 4, (0, 2, 3, 4)
            __len__ = lambda self: 30  # noqa: E731

        batch = MaskedBatch(Tokenizer(), probability=1.0)([{"input_ids": [2, 9, 8, 3]}, {"input_ids": [2, 7, 3]}])
        assert batch["labels"].tolist() == [[-100, 9, 8, -100], [-100, 7, -100, -100]]
        assert batch["input_ids"][:, 0].tolist() == [2, 2] and batch["input_ids"][1, 2:].tolist() == [3, 0]


class TestBatches:
    examples = [{"input_ids": list(range(1, 2 + n % 17)), "label": n} for n in range(203)]  # noqa: RUF012

    def test_every_example_comes_once_per_epoch(self):
        batches = Batches(self.examples, 8, seed=3)
        for epoch in range(3):
            steps = range(epoch * len(batches), (epoch + 1) * len(batches))
            assert sorted(n for s in steps for n in batches[s]["labels"].tolist()) == list(range(203))

    def test_a_batch_depends_on_seed_and_step_only(self):
        forwards = [Batches(self.examples, 8, seed=3)[step]["labels"] for step in range(60)]
        batches = Batches(self.examples, 8, seed=3)
        for step in reversed(range(60)):
            assert torch.equal(batches[step]["labels"], forwards[step])
        assert not torch.equal(Batches(self.examples, 8, seed=4)[0]["labels"], forwards[0])

    def test_epochs_are_shuffled_differently(self):
        batches = Batches(self.examples, 8, seed=3)
        assert not torch.equal(batches[0]["labels"], batches[len(batches)]["labels"])

    def test_bucketing_saves_padding(self):
        def padding(bucket):
            batches = Batches(self.examples, 8, seed=3, bucket=bucket)
            return np.mean([1 - b["attention_mask"].float().mean().item() for b in map(batches.__getitem__, range(26))])
        assert padding(20) < 0.5 * padding(1)

    def test_a_batch_mixes_examples_from_all_over_the_data_set(self):
        same_length = [{"input_ids": [1], "label": n} for n in range(200)]
        first = Batches(same_length, 10, seed=3)[0]["labels"]
        assert first.max() - first.min() > 100

    def test_short_and_long_batches_come_in_any_order(self):
        batches = Batches(self.examples, 8, seed=3)
        lengths = [batches[step]["input_ids"].shape[1] for step in range(len(batches))]
        falls = sum(later < earlier for earlier, later in itertools.pairwise(lengths))
        assert falls >= 5, f"{lengths} rises within its buckets"

    def test_no_examples_is_an_error(self):
        with pytest.raises(ValueError, match="no examples"):
            Batches([], 8)


def test_padding_is_masked_and_other_columns_are_stacked():
    batch = pad([{"input_ids": [5, 6, 7], "label": 1, "teacher_logits": [0.5, -0.5]},
                 {"input_ids": [8], "label": 0, "teacher_logits": [1.0, 2.0]}])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0] and batch["teacher_logits"].shape == (2, 2)


@pytest.mark.assets
def test_windows_cover_the_text_and_fit():
    from course_lib.material.teachers import load_tokenizer

    tokenizer = load_tokenizer()
    rows = load_data("wikipedia")["validation"].select(range(50))
    pieces = windows(rows, tokenizer, length=64)
    assert max(len(p["input_ids"]) for p in pieces) == 64
    words = sum(len(p["input_ids"]) - 2 for p in pieces)
    tokens = sum(len(ids) for ids in tokenizer(list(rows["text"]), add_special_tokens=False)["input_ids"])
    assert 0.95 * tokens < words <= tokens
    assert all(p["input_ids"][0] == tokenizer.cls_token_id and p["input_ids"][-1] == tokenizer.sep_token_id
               for p in pieces)
