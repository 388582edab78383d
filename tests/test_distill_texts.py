"""Your own texts: what is guessed, what is refused, and that a refusal names the row and the way out."""

from __future__ import annotations

import argparse
import csv
import json
import shlex

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_from_disk

from course_lib.distill import read
from course_lib.material.text_files import LONGEST_LINE

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
    assert texts.notes[0] == ("a.csv: 60 rows (separated by comma, utf-8); text = column 'Review', "
                              "label = column 'Sentiment'.")
    assert texts.notes[1] == ("Classes with their rows, numbered in the order of the alphabet: 0 = bad (30), "
                              "1 = good (30).")
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
    ([("A film.", "good"), ("Another film.", "")], r"a.csv, line 3: no label \(''\)"),
    ([("A film.", "good"), ("Another film.", "NaN")], r"a.csv, line 3: no label \('NaN'\)"),
    ([("A film.", "good"), ("Another", " film.", "bad")], r"line 3: 3 cells, but the first line has 2.*comma"),
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
                                             ('{"text": "A.", "label": NaN}', r"no label \(nan\)")])
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
    ([("x", "y")], ("text", "text"), r"two columns have one name \(text, text\). Give 'text' two names"),
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


# --- Which label is which ---------------------------------------------------------------------------------------------


def labelled(tmp_path, labels, name="a.csv"):
    """A file of 120 texts whose labels go round."""
    return written(tmp_path / name, [(f"Film {i} is here.", labels[i % len(labels)]) for i in range(120)])


def of_text(texts):
    """{text: name of its class}, and every row has one."""
    return {row["text"]: texts.class_names[row["label"]] for row in all_rows(texts)}


@pytest.mark.parametrize("name", ["NONE", "none", "NA", "N/A", "null", "nan", "-"])
def test_a_class_called_like_nothing_is_asked_about_and_both_answers_work(tmp_path, name):
    path = labelled(tmp_path, ["FAVOR", "AGAINST", name])
    with pytest.raises(ValueError, match=f"is '{name}' \\(40 rows\\) a class") as told:
        read(path, skip_bad_rows=True)  # which must not take a third of the rows away
    classes, missing = str(told.value).split(": --classes ")[1].split(". If not, leave these rows out: --no-label ")
    texts = read(path, classes=classes.split())
    assert of_text(texts)["Film 2 is here."] == name and len(all_rows(texts)) == 120
    texts = read(path, no_label=[missing.removesuffix(".").strip("'")])
    assert texts.class_names == ("AGAINST", "FAVOR") and len(all_rows(texts)) == 80
    assert "40 row(s) of train are marked as without a label: left out." in texts.notes


def test_minus_one_beside_zero_is_asked_about_and_both_answers_work(tmp_path):
    path = labelled(tmp_path, ["-1", "0", "1"])
    with pytest.raises(ValueError, match=r"is '-1' \(40 rows\) a class.*--classes -1 0 1.*--no-label -1"):
        read(path)
    assert read(path, classes=["-1", "0", "1"]).class_names == ("-1", "0", "1")
    texts = read(path, no_label=["-1"])
    assert texts.class_names == ("0", "1") and len(all_rows(texts)) == 80
    assert read(labelled(tmp_path, ["-1", "1"], "b.csv")).class_names == ("-1", "1")  # no 0: two classes


def test_minus_hundred_is_never_a_class(tmp_path):
    texts = read(labelled(tmp_path, ["0", "1", "-100"]))
    assert texts.class_names == ("0", "1") and len(all_rows(texts)) == 80
    assert "40 row(s) of train are marked as without a label: left out." in texts.notes


@pytest.mark.parametrize(("labels", "names"), [
    (["1.0", "2.0", "10.0"], ("1", "2", "10")), (["1", "1.0", "2"], ("1", "2")), (["yes", "no"], ("no", "yes")),
    (["True", "False"], ("False", "True")), (["1 star", "2 stars"], ("1 star", "2 stars")),
    (["007", "08"], ("007", "08")), (["10", "9", "8"], ("8", "9", "10"))])
def test_the_names_of_classes_are_the_users(tmp_path, labels, names):
    assert read(labelled(tmp_path, labels)).class_names == names


@pytest.mark.parametrize(("values", "names"), [([True, False], ("False", "True")), ([1.0, 0.0], ("0", "1")),
                                               ([3, 1, 2], ("1", "2", "3"))])
def test_json_labels_of_every_type_are_classes(tmp_path, values, names):
    rows = [{"text": f"Film {i}.", "label": values[i % len(values)]} for i in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    texts = read(str(tmp_path / "a.jsonl"))
    assert texts.class_names == names and of_text(texts)["Film 0."] == names[-1]


@pytest.mark.parametrize(("labels", "message"), [
    (["0.2", "0.4", "5"], r"'0.2' is a number with a fraction.*--classes 0.2 0.4 5"),
    (["Good", "good", "bad"], r"'Good' and 'good' differ in capitals only.*--classes Good bad good"),
])
def test_labels_that_are_perhaps_no_classes_are_asked_about(tmp_path, labels, message):
    path = labelled(tmp_path, labels)
    with pytest.raises(ValueError, match=message):
        read(path)
    assert read(path, classes=labels).class_names == tuple(labels)


@pytest.mark.parametrize("label", ["-", "-x", "--no", "not sure", "it's"])
def test_what_the_message_says_can_be_typed(tmp_path, label):
    """argparse takes a word with a hyphen for an option, and the shell cuts at spaces."""
    path = labelled(tmp_path, ["none", label, "b"])
    with pytest.raises(ValueError, match="--classes") as told:
        read(path)
    words = shlex.split(str(told.value).split(": --classes ")[1].split(". If not, leave")[0])
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", nargs="+")
    assert set(read(path, classes=parser.parse_args(["--classes", *words]).classes).class_names) == {"none", label, "b"}
    with pytest.raises(ValueError, match="--no-label c: no row has this label"):
        read(path, no_label=["c"])


def test_a_class_in_two_spellings_of_one_sign_is_one_class(tmp_path):
    assert read(labelled(tmp_path, ["caf\u00e9", "cafe\u0301", "tea"])).class_names == ("caf\u00e9", "tea")


def test_several_labels_for_one_text_are_refused(tmp_path):
    rows = [{"text": f"Film {i}.", "label": [i % 2, 1]} for i in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(ValueError, match=r"a.jsonl, line 1: the label is \[0, 1\], several values for one text"):
        read(str(tmp_path / "a.jsonl"))


def test_the_user_numbers_the_classes(tmp_path):
    path = labelled(tmp_path, ["low", "middle", "high", "a=b"])
    texts = read(path, classes=["low", "middle", "high", "a=b"])
    assert texts.class_names == ("low", "middle", "high", "a=b") and of_text(texts)["Film 1 is here."] == "middle"
    assert "numbered as --classes says: 0 = low (30), 1 = middle (30), 2 = high (30), 3 = a=b (30)." in texts.notes[1]
    assert read(path, classes=["low=L", "middle=M", "high=H", "a=b=AB"]).meant == {
        "low": "L", "middle": "M", "high": "H", "a=b": "AB"}
    for classes, message in ((["low", "middle", "high"], "label 'a=b', which --classes does not have"),
                             (["low", "low"], "named twice"), (["low=L", "middle"], "for every class, or for none")):
        with pytest.raises(ValueError, match=message):
            read(path, classes=classes)


def test_a_test_file_without_labels_does_not_take_the_labels_of_train_away(tmp_path):
    for number, column in enumerate([[("id",), *[(str(i),) for i in range(9)]], [("label",), *[("",)] * 9],
                                     [("label",), *[("-1",)] * 9]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        written(folder / "train.csv", reviews())
        texts = [("text",), *[(f"Hidden {i}.",) for i in range(9)]]
        written(folder / "test.csv", [(*t, *c) for t, c in zip(texts[1:], column[1:], strict=True)],
                (*texts[0], *column[0]))
        found = read(str(folder))
        assert found.class_names == ("bad", "good") and len(all_rows(found)) == 60
        assert any("The test split has no labels (9 rows): it is left out" in note for note in found.notes)


def test_an_empty_column_of_labels_is_no_column(tmp_path):
    texts = read(written(tmp_path / "a.csv", [(text, "") for text, _ in reviews()]))
    assert texts.class_names == () and len(all_rows(texts)) == 60
    assert "No text of train has a label: the texts are used without labels." in texts.notes
    with pytest.raises(ValueError, match="--classes and --no-label say nothing"):
        read(str(tmp_path / "a.csv"), classes=["good", "bad"])


# --- Which texts are the same -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [
    ("\U0001F600", "\U0001F621"), ("की", "कि"), ("गया", "गयी"), (":)", ":("), (":-)", ":-("), ("❤", "💔"), ("→", "←"),
    ("\U0001F44D\U0001F3FB", "\U0001F44D\U0001F3FF"), ("\U0001F1E9\U0001F1EA", "\U0001F1EB\U0001F1F7"), ("สวย", "สวยุ")])
def test_texts_that_differ_in_one_sign_are_two_texts(tmp_path, one, other):
    for labels in (("good", "bad"), ("good", "good")):
        twins = list(zip((one, other), labels, strict=True))
        rows = [(f"Film {i} {sign}", label) for i in range(40) for sign, label in twins]
        rows += [(f"Another {i}", "bad") for i in range(10)]
        texts = read(written(tmp_path / "a.csv", rows))
        assert len(all_rows(texts)) == 90 and "repeated" not in " ".join(texts.notes)
        assert len(all_rows(read(written(tmp_path / "b.csv", [(text,) for text, _ in rows], ("text",))))) == 90


def test_punctuation_makes_no_new_text_unless_the_label_says_so(tmp_path):
    marks = ((".", "good"), ("!", "good"), ("?", "bad"))
    rows = [(f"Really {i}{mark}", label) for i in range(40) for mark, label in marks]
    texts = read(written(tmp_path / "a.csv", rows))
    assert len(all_rows(texts)) == 80 and "40 repeated text(s) of the train file dropped." in texts.notes
    for rows in texts.splits.values():  # the two of a pair stand in one split: one is nearly the other
        numbers = [row["text"].rstrip(".!?") for row in rows]
        assert all(numbers.count(number) == 2 for number in numbers)


@pytest.mark.parametrize(("one", "other"), [("caf\u00e9", "cafe\u0301"), ("❤", "❤\ufe0f"), ("soft", "so\u00adft"),
                                            ("Straße", "STRAßE")])
def test_two_spellings_of_one_sign_are_one_text(tmp_path, one, other):
    rows = [(f"Film {i} {sign}", "good") for i in range(40) for sign in (one, other)] + [("Other.", "bad")] * 9
    rows += [(f"Another {i}", "bad") for i in range(10)]
    assert len(all_rows(read(written(tmp_path / "a.csv", rows)))) == 51


def test_one_text_with_two_labels_is_said(tmp_path):
    texts = read(written(tmp_path / "a.csv", [*reviews(), ("The film number 3 is awful.", "good")]))
    assert len(all_rows(texts)) == 60 and of_text(texts)["The film number 3 is awful."] == "bad"
    assert "1 text(s) have two labels, word for word the same; the first label is kept." in " ".join(texts.notes)


def test_a_test_text_that_stands_in_train_too_is_said(tmp_path):
    written(tmp_path / "train.csv", reviews())
    written(tmp_path / "test.csv", [(f"Film {i} is new.", "good") for i in range(3)] + reviews()[:2])
    written(tmp_path / "dev.csv", [("Quite another film.", "bad")])
    assert "2 of 5 test texts stand in train too" in " ".join(read(str(tmp_path)).notes)


# --- Folders of `datasets` --------------------------------------------------------------------------------------------


def saved(folder, of_label, features=None, splits=("train", "validation", "test"), column="label"):
    """A folder of `save_to_disk` with 60, 20, 20 texts; of_label(split, i) makes the label."""
    parts = {}
    for split in splits:
        numbers = range(60 if split == "train" else 20)
        parts[split] = Dataset.from_dict({"sentence": [f"Film {split} {i}." for i in numbers],
                                          column: [of_label(split, i) for i in numbers]}, features=features)
    DatasetDict(parts).save_to_disk(str(folder))
    return str(folder)


@pytest.mark.parametrize(("values", "names"), [([0, 1], ("0", "1")), (["no", "yes"], ("no", "yes")),
                                               ([False, True], ("False", "True")), ([1.0, 2.0], ("1", "2"))])
def test_the_labels_of_a_saved_folder_may_have_any_type(tmp_path, values, names):
    texts = read(saved(tmp_path / "mine", lambda split, i: values[i % 2]))
    assert texts.class_names == names and of_text(texts)["Film test 1."] == names[1]
    assert [len(rows) for rows in texts.splits.values()] == [60, 20, 20]


def test_columns_of_a_saved_folder_are_asked_for_like_those_of_a_file(tmp_path):
    path = saved(tmp_path / "mine", lambda split, i: "ab"[i % 2], column="mood")
    assert read(path).class_names == () and read(path, text="sentence", label="mood").class_names == ("a", "b")


def classes_of(*names):
    return Features({"sentence": Value("string"), "label": ClassLabel(names=list(names))})


def test_minus_one_of_named_classes_is_no_label(tmp_path):
    """GLUE's test split, and rows on which the annotators of SNLI did not agree."""
    features = classes_of("positive", "negative")
    texts = read(saved(tmp_path / "hidden", lambda split, i: -1 if split == "test" else i % 2, features))
    assert texts.class_names == ("positive", "negative")  # the data set's order
    assert len(all_rows(texts)) == 80 and set(of_text(texts)) == {row["text"] for row in all_rows(texts)}
    assert "The test split has no labels (20 rows): it is left out" in " ".join(texts.notes)
    texts = read(saved(tmp_path / "some", lambda split, i: i % 3 - 1, features))
    assert len(all_rows(texts)) == 40 + 13 + 13 and of_text(texts)["Film train 1."] == "positive"
    assert "20 row(s) of train are marked as without a label: left out." in texts.notes
    assert "numbered as the data set numbers them: 0 = positive (34), 1 = negative (32)." in " ".join(texts.notes)


def test_the_names_of_a_data_set_are_classes_whatever_they_look_like(tmp_path):
    for number, names in enumerate([("FAVOR", "NONE"), ("NaN", "nan"), ("Good", "good"), ("1.0", "2.5"), ("-1", "0")]):
        texts = read(saved(tmp_path / str(number), lambda split, i: i % 2, classes_of(*names)))
        assert len(all_rows(texts)) == 100 and len(texts.class_names) == 2
        assert of_text(texts)["Film test 1."] == names[1]


def test_minus_one_of_a_column_of_numbers_is_asked_about(tmp_path):
    with pytest.raises(ValueError, match=r"is '-1' \(34 rows\) a class"):
        read(saved(tmp_path / "mine", lambda split, i: i % 3 - 1))


def test_splits_that_number_their_classes_in_two_ways_are_refused(tmp_path):
    saved(tmp_path / "mine", lambda split, i: i % 2, classes_of("no", "yes"))
    other = Dataset.from_dict({"sentence": ["A.", "B."], "label": [0, 1]}, features=classes_of("yes", "no"))
    splits = DatasetDict({**load_from_disk(str(tmp_path / "mine")), "test": other})
    splits.save_to_disk(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="numbers its classes yes, no, another split no, yes"):
        read(str(tmp_path / "other"))


def test_a_folder_that_was_saved_without_splits_is_cut_and_other_splits_are_said(tmp_path):
    rows = Dataset.from_dict({"text": [f"Film {i}." for i in range(60)], "label": [i % 2 for i in range(60)]})
    rows.save_to_disk(str(tmp_path / "one"))
    assert len(all_rows(read(str(tmp_path / "one")))) == 60
    path = saved(tmp_path / "more", lambda split, i: i % 2, splits=("train", "validation_matched"))
    assert "Splits that are not used: validation_matched (20)." in read(path).notes


def test_the_names_of_classes_in_a_parquet_file_of_datasets_are_kept(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["positive", "negative"])})
    labels = [i % 2 if i % 5 else -1 for i in range(60)]
    Dataset.from_dict({"text": [f"Film {i}." for i in range(60)], "label": labels}, features=features).to_parquet(
        str(tmp_path / "a.parquet"))
    texts = read(str(tmp_path / "a.parquet"))
    assert texts.class_names == ("positive", "negative") and of_text(texts)["Film 1."] == "negative"
    assert len(all_rows(texts)) == 48


@pytest.mark.parametrize("name", ["sentiment", "mlm"])
def test_a_folder_of_the_users_comes_before_a_data_set_of_the_course(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / name, lambda split, i: "ab"[i % 2])
    assert read(name).class_names == ("a", "b") and len(all_rows(read(name))) == 100
