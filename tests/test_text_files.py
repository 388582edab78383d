"""Files of somebody else: what a file is, is seen in it and said, or the error names the option that decides."""

from __future__ import annotations

import json

import pytest

from course_lib.material.text_files import How, columns_of, read_file

ROWS = [("a warm film", "good"), ("a cold film", "bad"), ("a fine film", "good"), ("a dull film", "bad")]


def file_of(tmp_path, name, content, encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def joined(separator, rows=ROWS, header=("text", "label"), end="\n"):
    return "".join(separator.join(row) + end for row in ([header] if header else []) + list(rows))


def cells(table):
    return [tuple(row.values()) for _, row in table.rows]


# --- Separators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.CSV", "a.tab"])
@pytest.mark.parametrize(("separator", "word"), [(",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "bar")])
def test_the_separator_is_seen_in_the_file_and_said(tmp_path, name, separator, word):
    table = read_file(file_of(tmp_path, name, joined(separator)))
    assert cells(table) == ROWS and table.columns == ["text", "label"]
    assert table.shape == f"separated by {word}, utf-8" and table.bad == []


def test_commas_inside_texts_do_not_make_cells_of_a_file_with_semicolons(tmp_path):
    rows = [(f"{text}, really, truly", label) for text, label in ROWS]
    assert cells(read_file(file_of(tmp_path, "a.csv", joined(";", rows)))) == rows


def test_a_file_that_two_separators_fit_is_asked_about_and_the_option_decides(tmp_path):
    rows = [(f"{text}, really.", label) for text, label in ROWS]
    path = file_of(tmp_path, "a.csv", joined(";", rows, header=None))
    with pytest.raises(ValueError, match=r"comma and semicolon cut every row.*--separator semicolon"):
        read_file(path)
    assert cells(read_file(path, How(separator="semicolon"))) == rows
    assert cells(read_file(path, How(separator=";"))) == rows


def test_excels_own_first_line_names_the_separator_and_is_no_header(tmp_path):
    table = read_file(file_of(tmp_path, "a.csv", "sep=;\r\n" + joined(";", end="\r\n")))
    assert cells(table) == ROWS and table.rows[0][0] == "line 3"


def test_a_separator_of_two_signs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one sign, or one of comma, semicolon, tab, bar"):
        read_file(file_of(tmp_path, "a.csv", joined("::")), How(separator="::"))


# --- Quotation marks --------------------------------------------------------------------------------------------------


def test_in_glues_tables_a_quotation_mark_is_a_letter(tmp_path):
    rows = [('"I am here', "good"), ("she said", "bad"), ('and left"', "good"), ('"All" of it', "bad"), ("end", "bad")]
    table = read_file(file_of(tmp_path, "dev.tsv", joined("\t", rows)))
    assert cells(table) == rows  # read as cells in quotation marks, the first three rows would be one
    assert table.shape == "separated by tab, utf-8, quotation marks are letters"


def test_a_table_of_excel_keeps_tabs_and_lines_in_quotation_marks(tmp_path):
    content = 'text\tlabel\r\n"one\ttab"\tgood\r\n"two\r\nlines"\tbad\r\n"a ""word"""\tgood\r\n'
    assert cells(read_file(file_of(tmp_path, "a.tsv", content))) == [
        ("one\ttab", "good"), ("two\r\nlines", "bad"), ('a "word"', "good")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_in_a_cell_belong_to_it_even_where_each_has_a_comma(tmp_path, end):
    content = end.join(["text,label", '"Good, but', 'long.",good', '"Bad,', 'and long.",bad', ""])
    assert cells(read_file(file_of(tmp_path, "a.csv", content))) == [
        (f"Good, but{end}long.", "good"), (f"Bad,{end}and long.", "bad")]


def test_a_backslash_before_a_quotation_mark_is_understood(tmp_path):
    table = read_file(file_of(tmp_path, "a.csv", 'text,label\n"He said \\"no\\", twice",bad\n"Fine",good\n'))
    assert cells(table) == [('He said "no", twice', "bad"), ("Fine", "good")]
    assert "\\ before a quotation mark" in table.shape


def test_a_quotation_mark_that_breaks_a_csv_is_named_and_can_be_a_letter(tmp_path):
    path = file_of(tmp_path, "a.csv", 'text,label\na fine film,good\n"Great" film,good\na dull film,bad\n')
    with pytest.raises(ValueError, match=r"row that begins in line 3.*--quotes letters"):
        read_file(path)
    assert cells(read_file(path, How(quotes="letters")))[1] == ('"Great" film', "good")


# --- Encodings and line ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "word"), [("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("utf-32", "utf-32")])
@pytest.mark.parametrize("asked", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl", "a.json", "a.txt"])
def test_a_byte_order_mark_decides_whatever_was_said(tmp_path, encoding, word, asked, name):
    objects = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in [("café", "ü"), *ROWS]]
    content = {"a.tsv": joined("\t", [("café", "ü"), *ROWS]), "a.jsonl": "\n".join(objects),
               "a.json": f"[{', '.join(objects)}]", "a.txt": "café\r\nfilm\r\n"}[name]
    table = read_file(file_of(tmp_path, name, content, encoding), How(encoding=asked))
    assert cells(table)[0][0].strip() == "café" and table.columns[0] == "text" and word in table.shape


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_named_and_the_option_works(tmp_path, encoding):
    path = file_of(tmp_path, "a.csv", joined(","), encoding)
    with pytest.raises(ValueError, match=f"bytes of zero.*--encoding {encoding}"):
        read_file(path)
    assert cells(read_file(path, How(encoding=encoding))) == ROWS


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_every_line_end_ends_a_line(tmp_path, end, name):
    objects = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    content = {"a.csv": joined(",", end=end), "a.jsonl": end.join(objects), "a.txt": end.join(t for t, _ in ROWS)}
    table = read_file(file_of(tmp_path, name, content[name]))
    assert [row["text"].strip() for _, row in table.rows] == [text for text, _ in ROWS]


def test_signs_that_only_python_takes_for_line_ends_stay_in_the_text(tmp_path):
    text = "one\u2028two\x85three\x0bfour"
    assert cells(read_file(file_of(tmp_path, "a.txt", text + "\nnext"))) == [(text + "\n",), ("next",)]
    assert cells(read_file(file_of(tmp_path, "a.csv", f"text,label\n{text},good\n"))) == [(text, "good")]


def test_an_encoding_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no encoding 'utf-9'"):
        read_file(file_of(tmp_path, "a.csv", joined(",")), How(encoding="utf-9"))


@pytest.mark.parametrize(("start", "words"), [(b"PK\x03\x04", "table of Excel"), (b"\x1f\x8b", "gzip"),
                                              (b"PAR1", "a Parquet file")])
def test_a_file_with_the_name_of_another_kind_is_named(tmp_path, start, words):
    with pytest.raises(ValueError, match=words):
        read_file(file_of(tmp_path, "a.csv", start + b"\0\x01\xff" * 50))


# --- Header -----------------------------------------------------------------------------------------------------------


def test_a_first_line_with_a_class_of_the_rows_is_no_header(tmp_path):
    table = read_file(file_of(tmp_path, "a.csv", joined(",", header=None)))
    assert cells(table) == ROWS and "no header" in table.shape
    assert columns_of("a.csv", table) == {"text": "column 1", "label": "column 2"}


def test_a_class_that_is_called_like_a_column_does_not_make_a_header(tmp_path):
    rows = [("who is it", "question"), ("it is me", "comment"), ("what is it", "question"), ("it rains", "comment")]
    assert cells(read_file(file_of(tmp_path, "a.tsv", joined("\t", rows, header=None)))) == rows


def test_colas_table_without_header_asks_for_the_columns_and_their_names_work(tmp_path):
    rows = [("gj04", "1", "", "Our friends, too."), ("gj04", "0", "*", "One more."), ("cj99", "1", "", "Fine it is.")]
    table = read_file(file_of(tmp_path, "train.tsv", joined("\t", rows, header=None)))
    with pytest.raises(ValueError, match=r"which column is the text\?.*column 4: 'Our friends, too.'.*--text"):
        columns_of("train.tsv", table)
    assert columns_of("train.tsv", table, "column 4", "column 2") == {"text": "column 4", "label": "column 2"}


def test_an_unknown_first_line_may_be_a_row_and_the_option_says_so(tmp_path):
    rows = [(f"{i} of the films", f"{i} x") for i in range(4)]
    path = file_of(tmp_path, "a.csv", joined(",", rows, header=("words", "mood")))
    table = read_file(path)
    with pytest.raises(ValueError, match=r"which column is the text\?.*--no-header"):
        columns_of("a.csv", table)
    assert columns_of("a.csv", table, "words", "mood") == {"text": "words", "label": "mood"}
    assert len(read_file(path, How(header=False)).rows) == 5


def test_numbers_of_pandas_are_a_header(tmp_path):
    table = read_file(file_of(tmp_path, "a.csv", "0,1\na warm film,1\na cold film,0\n"), asked=["0", "1"])
    assert cells(table) == [("a warm film", "1"), ("a cold film", "0")]
    table = read_file(file_of(tmp_path, "b.csv", ",0,1\n0,a warm film,1\n1,a cold film,0\n"))
    assert cells(table) == [("0", "a warm film", "1"), ("1", "a cold film", "0")]


def test_a_header_that_is_repeated_in_the_middle_is_dropped_and_counted(tmp_path):
    table = read_file(file_of(tmp_path, "a.csv", joined(",") + joined(",")))
    assert cells(table) == [*ROWS, *ROWS] and "1 repeated header(s) dropped" in table.shape


def test_empty_rows_and_empty_cells_at_the_end_are_no_rows_and_no_cells(tmp_path):
    content = "text,label\na warm film,good,,\n\n,,,\n   \na cold film,bad\n,\n"
    table = read_file(file_of(tmp_path, "a.csv", content))
    assert cells(table) == [("a warm film", "good"), ("a cold film", "bad")] and table.bad == []


def test_two_columns_with_one_name_matter_only_if_they_are_read(tmp_path):
    table = read_file(file_of(tmp_path, "a.csv", "text,x,x,label\na film,1,2,good\n"))
    assert table.rows[0][1]["text"] == "a film" and table.rows[0][1]["label"] == "good"
    with pytest.raises(ValueError, match=r"two columns have one name.*'label' two names"):
        read_file(file_of(tmp_path, "b.csv", "text,label,label\na film,1,2\n"))


@pytest.mark.parametrize(("header", "names"), [
    ("index\tquestion\tsentence\tlabel", {"text": "question", "text_pair": "sentence", "label": "label"}),  # QNLI
    ("id\tSentence1\tSentence2\tlabel", {"text": "Sentence1", "text_pair": "Sentence2", "label": "label"}),
    ("gold_label\tpremise\thypothesis\tx", {"text": "premise", "text_pair": "hypothesis", "label": "gold_label"}),
    ("id\tquestion\tx\tlabel", {"text": "question", "label": "label"})])
def test_pairs_are_known_by_their_two_names(tmp_path, header, names):
    assert columns_of("a", read_file(file_of(tmp_path, "a.tsv", f"{header}\na\tb\tc\td\n"))) == names


# --- JSON and plain text ----------------------------------------------------------------------------------------------

OBJECTS = [{"text": text, "label": label} for text, label in ROWS]
COLUMNS = {name: [row[name] for row in OBJECTS] for name in ("text", "label")}
INDEXED = {name: {str(i): cell for i, cell in enumerate(column)} for name, column in COLUMNS.items()}  # of pandas


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("content", [
    "\n".join(map(json.dumps, OBJECTS)), json.dumps(OBJECTS), json.dumps(OBJECTS, indent=1),
    "\n " + json.dumps(OBJECTS), json.dumps({"data": OBJECTS}), json.dumps({"version": 1, "data": OBJECTS}, indent=1),
    json.dumps(COLUMNS), json.dumps(INDEXED)])
def test_every_common_shape_of_json_gives_the_same_rows(tmp_path, name, content):
    assert cells(read_file(file_of(tmp_path, name, content))) == ROWS


@pytest.mark.parametrize("content", ['{"a": 1, "train": [1], "test": [{"text": "x"}, 2]}', '{"a": [1], "b": [1, 2]}'])
def test_json_that_is_no_table_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"no table.*one object per line"):
        read_file(file_of(tmp_path, "a.json", content))


def test_broken_json_names_the_line(tmp_path):
    with pytest.raises(ValueError, match=r"a.json, line 3: no JSON"):
        read_file(file_of(tmp_path, "a.json", '[{"text": "a"},\n{"text": "b"},\n{"text" "c"}]'))


def test_a_plain_text_that_is_a_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"2 cells in every line.*\.tsv"):
        read_file(file_of(tmp_path, "a.txt", joined("\t", header=None)))
    with pytest.raises(ValueError, match=r"begins with the names of columns.*\.csv"):
        read_file(file_of(tmp_path, "a.txt", joined(",")))
    assert len(read_file(file_of(tmp_path, "a.txt", "text\nlabel\tone\nplain")).rows) == 3
