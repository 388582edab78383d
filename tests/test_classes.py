"""Which class is which: matched by name or number, never by alphabet; said, tried on the teacher, or asked."""

from __future__ import annotations

import pytest
import torch
from datasets import DatasetDict

from course_lib.distill.classes import as_the_model_numbers, in_teachers_classes, match, renumbered, tried
from course_lib.distill.texts import Texts, spoken
from course_lib.material.data import table

NLI = ("contradiction", "entailment", "neutral")
STARS = tuple(f"{i} star{'s' * (i > 1)}" for i in range(1, 6))
UNNAMED = tuple(f"LABEL_{i}" for i in range(5))


def texts(*names, said=(), each=20):
    """Three equal splits with `each` texts of every class; the text tells its class."""
    rows = [{"text": f"{name} {i}", "label": k} for k, name in enumerate(names) for i in range(each)]
    splits = {split: table(rows, list(names)) for split in ("train", "validation", "test")}
    return Texts(DatasetDict(splits), names, (), spoken(said, set(names)))


@pytest.mark.parametrize(("names", "known", "numbers", "how"), [
    (("entailment", "neutral", "contradiction"), NLI, (1, 2, 0), "by name"),
    (("contradiction", "entailment", "neutral"), ("entailment", "neutral", "contradiction"), (2, 0, 1), "by name"),
    (("ENTAILMENT", "Neutral", "contradiction"), NLI, (1, 2, 0), "by name, whatever capitals and hyphens"),
    (("good", "not_good"), ("Not-Good", "Good"), (1, 0), "by name, whatever capitals and hyphens"),
    (("False", "True"), ("true", "false"), (1, 0), "by name, whatever capitals and hyphens"),
    (("0", "1"), ("1", "0"), (1, 0), "by name"),  # a teacher whose names are numbers in another order
    (("0", "1", "2"), NLI, (0, 1, 2), "by number"),
    (("0", "2"), NLI, (0, 2), "by number"),
    (("1", "2", "3", "4", "5"), STARS, (0, 1, 2, 3, 4), "by the number in the name"),
    (("1", "2", "4", "5"), STARS, (0, 1, 3, 4), "by the number in the name"),
    (("5 stars", "1 star"), STARS, (4, 0), "by name"),
    (("0", "1", "2", "3", "4"), STARS, (0, 1, 2, 3, 4), "by number"),
    (("1", "2", "3", "4", "5"), UNNAMED, (0, 1, 2, 3, 4), "by number: the data count from 1, the teacher from 0"),
    (("0", "1"), UNNAMED, (0, 1), "by number"),
    (("LABEL_1", "LABEL_0"), UNNAMED, (1, 0), "by name"),
    (("no", "yes"), UNNAMED[:2], (0, 1), ""),  # nobody can say
])
def test_classes_are_matched_by_name_then_by_number(names, known, numbers, how):
    found = match(texts(*names), known)
    assert (found.numbers, found.how) == (numbers, how)


@pytest.mark.parametrize(("names", "known", "unknown"), [
    (("bad", "good"), ("negative", "positive"), "bad"), (("-1", "0"), ("0", "1"), "-1"), (("-1", "0", "1"), NLI, "-1"),
    (("entailment", "neutral", "other"), NLI, "other"), (("0", "1", "2", "3"), NLI, "0"),
    (("a", "b", "c"), UNNAMED[:2], "a")])
def test_classes_that_the_teacher_lacks_are_refused_with_the_option(names, known, unknown):
    with pytest.raises(ValueError, match=f"class '{unknown}', which the teacher does not know.*--classes {names[0]}="):
        match(texts(*names), known)


def test_the_user_decides():
    mine = texts("bad", "good", said=["bad=positive", "good=0"])
    assert match(mine, ("negative", "positive")).numbers == (1, 0)
    assert str(match(mine, ("negative", "positive"))) == "bad = 1 positive, good = 0 negative (as --classes says)"
    assert match(texts("yes", "no", said=["yes", "no"]), UNNAMED[:2]).numbers == (0, 1)  # the teacher's order
    assert match(texts("yes", "no", said=["yes", "no"]), ("no", "yes")).numbers == (1, 0)  # a name is a name
    for said, message in ((["bad=positiv", "good=0"], "no class 'positiv'. It has 0 negative, 1 positive"),
                          (["bad=0", "good=negative"], "two classes of the data one class"),
                          (["bad", "good", "fine"], "names 3 classes, and the teacher has 2")):
        with pytest.raises(ValueError, match=message):
            match(texts(*[name.split("=")[0] for name in said], said=said), ("negative", "positive"))


def answers(*columns, each=20):
    """(labels, the teacher's answers), `each` texts of every class; columns: what it answers to each class."""
    labels = torch.arange(len(columns)).repeat_interleave(each)
    return labels, torch.cat([torch.tensor((list(c) if isinstance(c, tuple) else [c]) * each)[:each] for c in columns])


def test_a_good_match_is_said_with_the_teachers_accuracy():
    said = []
    agreed = tried(match(texts("entailment", "neutral"), NLI), *answers((1, 1, 1, 0), 2), said.append)
    assert agreed.numbers == (1, 2)
    assert said == ["Classes of the data = classes of the teacher: entailment = 1 entailment, neutral = 2 neutral (by "
                    "name). So the teacher is right for 87.5 % of 40 training texts (from every class as many, where "
                    "there are).", "Classes of the teacher that the data does not have: contradiction."]


@pytest.mark.parametrize(("names", "known", "columns", "option"), [
    (("0", "1", "2"), NLI, (1, 2, 0), "--classes 0=entailment 1=neutral 2=contradiction"),  # MNLI's own numbers
    (("0", "1"), ("negative", "positive"), (1, 0), "--classes 0=positive 1=negative"),
    (("1", "2", "3", "4"), UNNAMED, (0, 1, 2, 3), "--classes 1=LABEL_0 2=LABEL_1 3=LABEL_2 4=LABEL_3"),  # no 5 stars
    (("bad", "good"), ("bad", "good"), (1, 0), "--classes bad=good good=bad"),  # a teacher with wrong names
    (("0", "1"), ("x", "x"), (1, 0), "--classes 0=1 1=0")])
def test_where_another_order_is_clearly_better_the_user_is_asked_and_the_answer_works(names, known, columns, option):
    with pytest.raises(ValueError, match=r"would be right for 100\.0 %") as told:
        tried(match(texts(*names), known), *answers(*columns), print)
    assert option in str(told.value)
    mine = texts(*names, said=option.split()[1:])
    assert tried(match(mine, known), *answers(*columns), lambda _: None).numbers == columns


@pytest.mark.parametrize("columns", [(0, 0), (1, 1), ((0, 1), (0, 1)), ((0, 1, 1), 1), ((1, 0), 0)])
def test_a_poor_teacher_is_no_witness_for_another_order(columns):
    assert tried(match(texts("0", "1"), ("no", "yes")), *answers(*columns), lambda _: None).numbers == (0, 1)


def test_a_teacher_without_names_gets_the_order_in_which_it_is_right():
    said = []
    agreed = tried(match(texts("no", "yes"), UNNAMED[:2]), *answers(1, (0, 0, 0, 1)), said.append)
    assert agreed.numbers == (1, 0) and "no = 1 LABEL_1, yes = 0 LABEL_0" in said[0] and "have no names" in said[0]


@pytest.mark.parametrize("columns", [(0, 0), ((0, 1), (0, 1)), (0, (0, 1))])
def test_a_teacher_without_names_and_without_a_clear_order_is_asked_about(columns):
    with pytest.raises(ValueError, match=r"nobody can say which is which.*If that is meant, say it: --classes no="):
        tried(match(texts("no", "yes"), UNNAMED[:2]), *answers(*columns), print)


def test_the_texts_carry_the_teachers_numbers():
    mine = renumbered(texts("entailment", "neutral"), (1, 2), NLI)
    assert mine.class_names == NLI and mine.splits["test"].features["label"].names == list(NLI)
    assert {row["text"].split()[0]: row["label"] for row in mine.splits["train"]} == {"entailment": 1, "neutral": 2}
    plain = Texts(DatasetDict(), (), ())
    assert in_teachers_classes(plain, None, 8, print) is plain


def test_fine_tuning_keeps_the_numbers_of_a_model_that_knows_the_classes(tmp_path):
    from transformers import BertConfig

    names = ("entailment", "neutral", "contradiction")
    BertConfig(id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}).save_pretrained(tmp_path)
    mine = as_the_model_numbers(texts(*NLI), str(tmp_path))
    assert mine.class_names == names and "0 = entailment, 1 = neutral, 2 = contradiction" in mine.notes[-1]
    assert all(row["text"].split()[0] == names[row["label"]] for row in mine.splits["train"])
    other = texts("a", "b")
    assert as_the_model_numbers(other, str(tmp_path)) is other and as_the_model_numbers(other, "nowhere/none") is other
