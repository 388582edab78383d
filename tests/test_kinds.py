"""A folder is loaded completely, or refused with one sentence: by the command and by the doctor alike."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertTokenizerFast,
    ElectraConfig,
    ElectraForPreTraining,
)

from course_lib.__main__ import main
from course_lib.doctor.shell import diagnose_folders
from course_lib.material.kinds import Kind, kind_of, load_model, positions_of, tokenizer_of, with_classes
from course_lib.material.teachers import load_teacher

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefgh")]
SHAPE = {"vocab_size": len(WORDS), "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 16}


def saved(folder, model, weights=None):
    """The model and a tokenizer in `folder`; weights: {name: tensor} -> what is written instead."""
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    if weights is not None:
        file = folder / "model.safetensors"
        save_file(weights(load_file(file)), file, {"format": "pt"})
    return str(folder)


def bert(kind=BertForSequenceClassification, **changes):
    torch.manual_seed(0)
    return kind(BertConfig(**(SHAPE | changes)))


def test_a_complete_model_is_loaded_and_computes_in_float32(tmp_path):
    name = saved(tmp_path, bert().half())
    assert {p.dtype for p in load_teacher(name).model.parameters()} == {torch.float32}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_weights_under_another_name_are_missing_weights(tmp_path, capsys, prefix):
    name = saved(tmp_path / "wrapped", bert(), lambda found: {prefix + n: w for n, w in found.items()})
    healthy = saved(tmp_path / "healthy", bert())
    with pytest.raises(ValueError, match=rf"41 of 41 weights are not in its file.*take the prefix '{prefix}'"):
        load_teacher(name)
    with pytest.raises(ValueError, match=prefix):
        with_classes(name, ["a", "b"])
    for pair in ([name, healthy], [healthy, name]):
        assert main(["doctor", *pair]) == 2
        assert f"take the prefix '{prefix}'" in capsys.readouterr().err


def test_one_lost_tensor_is_enough(tmp_path):
    lost = "bert.encoder.layer.1.output.dense.weight"
    name = saved(tmp_path, bert(), lambda found: {n: w for n, w in found.items() if n != lost})
    for load in (load_teacher, lambda folder: with_classes(folder, ["a", "b"])):
        with pytest.raises(ValueError, match=rf"1 of 41 weights .*such as '{lost}'"):
            load(name)


def test_a_bare_encoder_is_no_teacher_and_may_be_fine_tuned(tmp_path):
    name = saved(tmp_path, bert(BertModel))
    with pytest.raises(ValueError, match=r"no trained head \(classifier\.bias, classifier\.weight .*finetune --model"):
        load_teacher(name)
    assert with_classes(name, ["a", "b", "c"]).config.num_labels == 3
    assert with_classes(saved(tmp_path / "mlm", bert(BertForMaskedLM)), ["a", "b"]).config.num_labels == 2


@pytest.mark.parametrize(("model", "kind"), [
    (BertForSequenceClassification, Kind.CLASSIFIER), (BertForTokenClassification, Kind.TAGGER),
    (BertForMaskedLM, Kind.MASKED_LM), (BertModel, Kind.ENCODER), (BertForQuestionAnswering, Kind.OTHER)])
def test_the_class_that_was_saved_says_the_kind(tmp_path, model, kind):
    saved(tmp_path, bert(model))
    assert kind_of(bert(model).from_pretrained(tmp_path).config) is kind


@pytest.mark.parametrize(("model", "changes", "words"), [
    (BertForTokenClassification, {}, "token classifier"),
    (BertForQuestionAnswering, {}, r"another task \(BertForQuestionAnswering\)"),
    (BertForSequenceClassification, {"num_labels": 1}, "one number per text"),
    (BertForSequenceClassification, {"problem_type": "regression", "num_labels": 2}, "one number per text"),
    (BertForSequenceClassification, {"problem_type": "multi_label_classification"}, "several classes at once")])
def test_a_teacher_whose_answers_are_no_classes_is_refused(tmp_path, model, changes, words):
    with pytest.raises(ValueError, match=words):
        load_teacher(saved(tmp_path, bert(model, **changes)))


def test_a_head_that_tells_real_from_replaced_tokens_writes_no_words(tmp_path):
    model = ElectraForPreTraining(ElectraConfig(embedding_size=8, **SHAPE))
    saved(tmp_path, model)
    assert kind_of(model.config) is Kind.OTHER


def test_an_adapter_is_merged_first(tmp_path):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(bert(), LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS"))
    base = saved(tmp_path / "base", bert())
    wrapped.peft_config["default"].base_model_name_or_path = base
    with pytest.raises(ValueError, match="Merge the adapter first"):
        load_teacher(saved(tmp_path / "adapter", wrapped))
    with pytest.raises(ValueError, match=r"base_layer.*not merged before saving"):
        load_teacher(saved(tmp_path / "inside", wrapped.base_model.model))


def test_config_and_weights_of_two_models(tmp_path):
    name = saved(tmp_path, bert(num_labels=3))
    bert().config.save_pretrained(tmp_path)  # two classes
    with pytest.raises(ValueError, match=r"has the shape \(3,\) in the file, and its config asks for \(2,\)"):
        load_teacher(name)
    assert with_classes(name, ["a", "b"]).config.num_labels == 2  # a new head is what was asked for
    saved(tmp_path, bert(num_hidden_layers=3))
    bert().config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="16 weights more than its config has room for"):
        load_teacher(name)


def test_a_folder_without_a_tokenizer(tmp_path):
    bert().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no tokenizer"):
        tokenizer_of(str(tmp_path))


def test_a_folder_that_is_called_like_a_teacher_of_the_course(tmp_path, monkeypatch):
    saved(tmp_path / "sentiment", bert(num_labels=3))
    monkeypatch.chdir(tmp_path)
    assert load_teacher("sentiment").model.config.num_labels == 3


def test_the_new_head_of_a_fine_tuning_is_the_same_each_time(tmp_path):
    name, data = saved(tmp_path / "encoder", bert(BertModel)), tmp_path / "texts.csv"
    data.write_text("text,label\n" + "".join(f"{'abcdefgh'[i % 8]} {i},{'xy'[i % 2]}\n" for i in range(60)))
    for run in ("one", "two"):
        given = ["--model", name, "--data", str(data), "--out", str(tmp_path / run), "--steps", "1"]
        assert main(["finetune", *given]) == 0
        torch.rand(3)  # whatever came before
    one, two = (load_file(tmp_path / run / "student" / "model.safetensors") for run in ("one", "two"))
    assert torch.equal(one["classifier.weight"], two["classifier.weight"])


def test_positions_that_a_text_can_have():
    from transformers import RobertaConfig, RobertaModel

    shape = SHAPE | {"max_position_embeddings": 20}
    assert positions_of(BertModel(BertConfig(**shape))) == 20
    roberta = RobertaModel(RobertaConfig(pad_token_id=1, **shape))
    assert positions_of(roberta) == 18
    roberta(torch.full((1, 18), 5))
    with pytest.raises((IndexError, RuntimeError), match="out of "):
        roberta(torch.full((1, 19), 5))


def test_the_doctor_reads_a_tagger_and_names_the_head_that_it_does_not_read(tmp_path):
    tagger = saved(tmp_path / "tagger", bert(BertForTokenClassification, num_labels=3))
    report = diagnose_folders(tagger, tagger)
    assert not any("head of the" in f.what for f in report.findings)
    asks = saved(tmp_path / "asks", bert(BertForQuestionAnswering))
    (note,) = [f for f in diagnose_folders(asks, tagger).findings if "head of the" in f.what]
    assert "head of the student (BertForQuestionAnswering) was not looked at" in note.what


def test_two_classifiers_with_two_tokenizers_are_no_error(tmp_path):
    one = saved(tmp_path / "one", bert())
    other = str(shutil.copytree(one, tmp_path / "other"))
    BertTokenizerFast(vocab={w: i for i, w in enumerate([*WORDS[:5], *WORDS[:4:-1]])}).save_pretrained(other)
    report = diagnose_folders(one, other)
    assert not [f for f in report.findings if f.severity == "error"], report


def test_unknown_words_are_an_error_in_the_users_texts_and_a_warning_in_the_doctors_own(tmp_path):
    name = saved(tmp_path / "one", bert())
    texts = tmp_path / "texts.txt"
    texts.write_text("wonderful pictures\nterrible weather\n")

    def severities(*more):
        return {f.severity for f in diagnose_folders(name, name, *more).findings if f.name == "unknown words"}
    assert severities(str(texts)) == {"error"} and severities() == {"warning"}


def test_load_model_leaves_the_pooler_of_an_encoder_alone(tmp_path):
    from transformers import AutoModel

    name = saved(tmp_path, BertModel(BertConfig(**SHAPE), add_pooling_layer=False))
    assert load_model(name, AutoModel).config.hidden_size == 8
