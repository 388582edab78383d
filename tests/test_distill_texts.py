"""Your own texts: what is guessed, what is refused, and that a refusal names the row and the way out."""

from __future__ import annotations

import csv
import json

import pytest

from course_lib.distill import read
from course_lib.distill.texts import LONGEST_LINE

WORDS = ("great", "dull", "fine", "awful", "warm", "cold")


def reviews(count=60):
    return [(f"The film number {i} is {WORDS[i % 6]}.", "good" if i % 2 == 0 else "bad") for i in range(count)]


def written(path, rows, header=("text", "label"), encoding="utf-8", delimiter=","):
    with path.open("w", encoding=encoding, newline="") as file:
        table = csv.writer(file, delimiter=delimiter)
        table.writerows([header, *rows])
    return str(path)


def all_rows(texts):
    return [row for split in texts.splits.values() for row in split]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    path = tmp_path / f"reviews.{kind}"
    if kind in ("csv", "tsv"):
        written(path, reviews(), delimiter="," if kind == "csv" else "\t")
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"text": t, "label": label}) for t, label in reviews()), "utf-8")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(dict(zip(("text", "label"), zip(*reviews(), strict=True),
                                                           strict=True))), path)
    texts = read(str(path))
    assert texts.class_names == ("bad", "good")
    assert sorted(row["text"] for row in all_rows(texts)) == sorted(text for text, _ in reviews())
    assert all(texts.class_names[row["label"]] == dict(reviews())[row["text"]] for row in all_rows(texts))


def test_columns_are_guessed_and_the_guess_is_said(tmp_path):
    path = written(tmp_path / "a.csv", [(i, *row) for i, row in enumerate(reviews())], ("id", "Review", "Sentiment"))
    texts = read(path)
    assert texts.notes[0] == "a.csv: text = column 'Review', label = column 'Sentiment'."
    assert "train" in texts.notes[-1] and "hash of the text" in texts.notes[-1]


def test_plain_text_has_no_labels_and_pairs_are_found(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(text for text, _ in reviews()), "utf-8")
    assert read(str(tmp_path / "a.txt")).class_names == ()
    rows = [(text, f"Another {text}", label) for text, label in reviews()]
    texts = read(written(tmp_path / "b.csv", rows, ("sentence1", "sentence2", "label")))
    assert set(texts.splits["train"].column_names) == {"text", "text_pair", "label"}


def test_a_folder_keeps_its_own_splits_and_missing_ones_are_cut_from_train(tmp_path):
    written(tmp_path / "train.csv", reviews(60))
    written(tmp_path / "test.csv", [("The last one is fine.", "good"), ("The last one is dull.", "bad")])
    texts = read(str(tmp_path))
    assert len(texts.splits["test"]) == 2
    assert len(texts.splits["train"]) + len(texts.splits["validation"]) == 60


def test_the_split_depends_on_the_text_alone_and_repeated_texts_are_dropped(tmp_path):
    once = read(written(tmp_path / "a.csv", reviews()))
    twice = read(written(tmp_path / "b.csv", [*reviews(), ("THE FILM number 3 is awful!", "bad")][::-1]))
    for split in once.splits:
        assert {r["text"].lower().rstrip("!.") for r in twice.splits[split]} == {
            r["text"].lower().rstrip("!.") for r in once.splits[split]}
    assert "1 repeated text(s)" in " ".join(twice.notes)


def test_japanese_texts_are_not_taken_for_repetitions(tmp_path):
    rows = [(f"この映画はとても{word}です。", label) for word, label in zip(
        [a + b for a in "良悪長短新古明暗" for b in "一二三四五六七八"], ["good", "bad"] * 32, strict=True)]
    assert len(all_rows(read(written(tmp_path / "ja.csv", rows)))) == 64


@pytest.mark.parametrize(("rows", "message"), [
    ([("A film.", "good"), ("", "bad")], r"a.csv, line 3: no text in column 'text' \(''\)"),
    ([("A film.", "good"), ("Another film.", "")], r"a.csv, line 3: no label in column 'label' \(''\)"),
    ([("A film.", "good"), ("Another film.", "NaN")], r"a.csv, line 3: no label in column 'label' \('NaN'\)"),
    ([("A film.", "good"), ("Another", " film.", "bad")], r"line 3: 3 cells, but the header has 2.*comma"),
])
def test_a_bad_row_is_named_and_can_be_left_out(tmp_path, rows, message):
    path = written(tmp_path / "a.csv", rows + reviews())
    with pytest.raises(ValueError, match=message) as told:
        read(path)
    assert "--skip-bad-rows" in str(told.value)
    texts = read(path, skip_bad_rows=True)
    assert len(all_rows(texts)) == 61 and "1 bad row(s) left out" in " ".join(texts.notes)


def test_only_the_first_five_bad_rows_are_listed(tmp_path):
    with pytest.raises(ValueError, match=r"line 6.*\n  and 15 more") as told:
        read(written(tmp_path / "a.csv", [("", "good")] * 20 + reviews()))
    assert "line 7:" not in str(told.value)


@pytest.mark.parametrize(("line", "fault"), [('{"text": "x", "label": ', "no JSON"), ("[1, 2]", "list where an object"),
                                             ('{"text": 7, "label": "bad"}', r"no text in column 'text' \(7\)"),
                                             ('{"text": "A.", "label": NaN}', "no label in column 'label'")])
def test_a_broken_json_line_is_named(tmp_path, line, fault):
    rows = [json.dumps({"text": t, "label": label}) for t, label in reviews()]
    (tmp_path / "a.jsonl").write_text("\n".join([*rows[:4], line, *rows[4:]]), "utf-8")
    with pytest.raises(ValueError, match=f"a.jsonl, line 5: {fault}"):
        read(str(tmp_path / "a.jsonl"))


def test_numbers_keep_their_order_and_floats_of_pandas_are_classes_too(tmp_path):
    rows = [json.dumps({"text": text, "label": float(i % 11)}) for i, (text, _) in enumerate(reviews(110))]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), "utf-8")
    assert read(str(tmp_path / "a.jsonl")).class_names == tuple(str(i) for i in range(11))


def test_wrong_encoding_names_line_byte_and_way_out(tmp_path):
    path = written(tmp_path / "a.csv", [*reviews(5), ("Le café est fermé.", "bad"), *reviews(60)], encoding="cp1252")
    with pytest.raises(ValueError, match=r"a.csv, line 7: byte 0xe9 at place 7 is no utf-8.*--encoding cp1252"):
        read(path)
    assert any("café" in row["text"] for row in all_rows(read(path, encoding="cp1252")))


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    assert read(written(tmp_path / "a.csv", reviews(), encoding="utf-8-sig")).class_names == ("bad", "good")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for _ in range(200):  # 200 MB without a line break
            file.write("x" * LONGEST_LINE)
    with pytest.raises(ValueError, match=r"line 2 has more than 1,000,000 characters"):
        read(str(path))


def test_a_quotation_mark_that_is_never_closed_is_named(tmp_path):
    text = "text,label\n\"The film,good\n" + "\n".join(f"Film {i} is fine.,good" for i in range(80_000))
    (tmp_path / "a.csv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match="opened and never closed"):
        read(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(("rows", "header", "message"), [
    ([("A film.", "good")] * 3, ("a", "b"), r"which column is the text\? It has 'a', 'b'.*--text NAME"),
    ([(f"Film {i}.", "good") for i in range(40)], ("text", "label"), "all 40 rows have the label 'good'"),
    ([(f"Film {i}.", f"c{i}") for i in range(60)], ("text", "label"), "60 different labels in 60 rows.*no classes"),
    ([("One.", "a"), ("Two.", "b")], ("text", "label"), "Only 2 texts: nothing is left for"),
    ([], ("text", "label"), "no row that can be used"),
    ([("x", "y")], ("text", "text"), "two columns have one name"),
])
def test_data_that_cannot_be_used_says_why(tmp_path, rows, header, message):
    with pytest.raises(ValueError, match=message):
        read(written(tmp_path / "a.csv", rows, header))


def test_a_column_that_is_asked_for_must_exist(tmp_path):
    path = written(tmp_path / "a.csv", reviews(), ("words", "mood"))
    with pytest.raises(ValueError, match=r"no column 'mod'; it has 'words', 'mood'"):
        read(path, text="words", label="mod")
    assert read(path, text="words", label="mood").class_names == ("bad", "good")


def test_a_class_that_only_the_test_file_has_is_refused(tmp_path):
    written(tmp_path / "train.csv", reviews())
    written(tmp_path / "test.csv", [("It is so so.", "middling")])
    with pytest.raises(ValueError, match="test split has the label 'middling', which train does not have"):
        read(str(tmp_path))


def test_files_that_are_no_texts_are_refused(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"reads \.csv"):
        read(str(tmp_path / "a.xlsx"))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match=r"empty\.csv is empty"):
        read(str(tmp_path / "empty.csv"))
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"a\.parquet is no Parquet file"):
        read(str(tmp_path / "a.parquet"))
    with pytest.raises(ValueError, match="No data set 'nowhere'"):
        read("nowhere")
