"""Somebody's models in the command: what does not fit is said or refused before a step is taken."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from able_teachers import able
from datasets import Dataset
from test_distill import reviews
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertTokenizerFast,
)

from course_lib.distill import METHODS, Settings, distill
from course_lib.distill.card import paper_we_you
from course_lib.distill.checks import (
    require_able,
    require_known_tokens,
    require_readable,
    same_reading,
    texts_cut,
    tokens_per_text,
)
from course_lib.distill.runs import Run
from course_lib.material.teachers import Teacher
from course_lib.methods.specs import Made, by_spec
from course_lib.shared.batches import encode, pad
from course_lib.shared.method import Job

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
         *sorted({word for text, _ in reviews() for word in text.split()})]
SHAPE = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 32}
CLASSES = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}


def tokenizer(kind=BertTokenizerFast, **options):
    return kind(vocab={word: i for i, word in enumerate(WORDS)}, **options)


def teacher(**changes):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(initializer_range=0.2, **(SHAPE | CLASSES | changes))).eval()
    return Teacher(model, tokenizer())


def a_student(model=None, reader=None, of=None):
    return Made(model or (of or teacher()).model, reader or tokenizer(), 2, True, False, "given")


# --- The teacher ------------------------------------------------------------------------------------------------------


def answering(numbers):
    return torch.nn.functional.one_hot(torch.tensor(numbers), 2).float()


@pytest.mark.parametrize("answers", [[0] * 100, [1] * 100, [1] * 60 + [0] * 40], ids=["commonest", "other", "reversed"])
def test_a_teacher_that_is_no_better_than_the_commonest_class_is_refused(answers):
    labels = torch.tensor([0] * 60 + [1] * 40)
    with pytest.raises(ValueError, match=r"always 'bad' would be right for 60\.0%.*finetune"):
        require_able(teacher(), answering(answers), labels)


def test_a_teacher_that_finds_a_rare_class_is_not_refused():
    labels = torch.tensor([0] * 95 + [1] * 5)
    require_able(teacher(), answering([0] * 85 + [1] * 15), labels)  # 90 %, and always 'bad' is right for 95 %
    require_able(teacher(), answering([0] * 100), torch.zeros(100, dtype=torch.long))  # one class only: no question


def test_a_score_of_zero_does_not_disappear_from_the_last_line():
    said = paper_we_you(METHODS["hinton"], {"accuracy": 48.0, "teacher_accuracy": 0.0})
    assert said.endswith("you   | accuracy 48.0 % (the teacher's: 0.0 %) (one seed)")


# --- Tokens and lengths -----------------------------------------------------------------------------------------------


def test_unknown_words_are_counted_and_too_many_are_refused():
    model, reader = teacher().model, tokenizer()
    known = encode(Dataset.from_dict({"text": ["the film is great"] * 9}), reader)
    strange = encode(Dataset.from_dict({"text": ["xylophone zebra the film"] * 2}), reader)
    assert require_known_tokens(known, reader, model, "student") == ""
    assert require_known_tokens(known + strange, reader, model, "student").startswith(
        "9% of the words are unknown to the tokenizer of the student (it reads [UNK])")
    with pytest.raises(ValueError, match="75% of the words are unknown to the tokenizer of the teacher"):
        require_known_tokens(encode(Dataset.from_dict({"text": ["ein ganz anderer film"]}), reader), reader, model,
                             "teacher")


def test_a_token_without_an_embedding_is_named():
    reader = tokenizer()
    reader.add_tokens(["emoji"])
    examples = encode(Dataset.from_dict({"text": ["the film is emoji"]}), reader)
    with pytest.raises(ValueError, match=rf"token emoji \(number {len(WORDS)}\), and the model knows {len(WORDS)}"):
        require_known_tokens(examples, reader, teacher().model, "teacher")


def test_texts_are_shortened_to_the_positions_and_the_cut_ones_counted():
    short = teacher(max_position_embeddings=8)
    assert tokens_per_text(128, a_student(), teacher()) == (128, "")
    length, said = tokens_per_text(128, a_student(), short)
    assert length == 8 and "The teacher has 8 positions" in said
    rows = Dataset.from_dict({"text": ["the film is great and warm and slow and cold", "the film is great"]})
    for of, way in ((short, "no more positions"), (teacher(), "--max-length 12 takes them whole")):
        said = texts_cut(rows, encode(rows, tokenizer(), 8), "train", 8, a_student(of=of), of)
        assert said.startswith("1 of 2 train texts (50%) are cut after 8 tokens; the longest has 12.") and way in said
    assert texts_cut(rows, encode(rows, tokenizer(), 12), "train", 12, a_student(), teacher()) == ""


def test_one_vocabulary_read_in_another_casing_is_another_reading():
    texts = SimpleNamespace(splits={"train": Dataset.from_dict({"text": ["The Film is great"]})})
    cased = a_student(reader=tokenizer(do_lower_case=False))
    assert same_reading(cased, teacher(), texts).own_tokens
    assert not same_reading(a_student(), teacher(), texts).own_tokens


def test_a_teacher_gets_its_token_types_beside_a_student_without_them():
    student = DistilBertForSequenceClassification(DistilBertConfig(
        vocab_size=len(WORDS), dim=16, n_layers=2, n_heads=4, hidden_dim=32))
    made = a_student(student, tokenizer(DistilBertTokenizerFast))
    rows = Dataset.from_dict({"text": ["the film"], "text_pair": ["is great"]})
    for of in (teacher(), Teacher(student, made.tokenizer)):  # and the other way round
        run = SimpleNamespace(made=made if of.model is not student else a_student(), teacher=of, max_length=16)
        (example,) = Run._in_tokens(run, rows)
        assert example["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
        assert student(**{n: t for n, t in pad([example]).items() if n != "token_type_ids"}).logits.shape == (1, 2)


# --- The method -------------------------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_read_is_refused_by_a_method_that_looks_inside():
    student = a_student(DebertaV2ForSequenceClassification(DebertaV2Config(**SHAPE)))
    with pytest.raises(ValueError, match=r"pkd looks inside both models, and the student cannot be read.*hinton"):
        require_readable(METHODS["pkd"], student, teacher())
    require_readable(METHODS["hinton"], student, teacher())
    require_readable(METHODS["pkd"], a_student(), teacher())


@pytest.mark.parametrize("given", [{"steps": 12}, {"steps": 0, "epochs": 1.0}])
def test_every_stage_of_every_method_takes_the_steps_and_epochs_of_the_shell(given):
    for method in METHODS.values():
        job = Job(teacher().model, 2, method.recipe_of("laptop"), training=given, task=method.tasks[0])
        for stage in method.stages(job):
            assert {name: getattr(stage.training, name) for name in given} == given


def test_an_albert_is_no_quarry_and_says_what_takes_it():
    albert = Teacher(AlbertForSequenceClassification(AlbertConfig(embedding_size=8, **SHAPE)), tokenizer())
    with pytest.raises(ValueError, match=r"cannot be cut out of a AlbertFor.*--student FOLDER.*hinton"):
        by_spec("half", METHODS["hinton"], albert, ["the film"])


def test_an_albert_learns_answers_and_every_class_has_its_number(tmp_path):
    rows = reviews()
    (tmp_path / "reviews.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    of = teacher(max_position_embeddings=12)
    able(of.model, of.tokenizer, *zip(*((text, int(label == "good")) for text, label in rows), strict=True))
    albert = AlbertForSequenceClassification(AlbertConfig(embedding_size=8, **(SHAPE | CLASSES)))
    for name, model in (("teacher", of.model), ("albert", albert)):
        model.save_pretrained(tmp_path / name)
        of.tokenizer.save_pretrained(tmp_path / name)
    said, run = [], Settings("hinton", str(tmp_path / "teacher"), str(tmp_path / "reviews.csv"), str(tmp_path / "run"),
                             student=str(tmp_path / "albert"), steps=2)
    result = distill(run, said.append)
    assert set(result["found_of_each_class"]) == {"bad", "good"}
    assert "The teacher has 12 positions: texts are read up to 12 tokens, not 128." in said
    (line,) = [line for line in said if line.startswith("Found of each class")]
    card = (tmp_path / "run" / "student" / "README.md").read_text("utf-8")
    assert f"| found of each class | bad {result['found_of_each_class']['bad']:.1f} %, good " in card and "bad" in line
    with torch.no_grad():
        of.model.classifier.weight.zero_()
    of.model.save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match="nothing to teach"):
        distill(replace(run, out=str(tmp_path / "other")), said.append)
    assert not (tmp_path / "other").exists()  # so that the right command may use the same --out
