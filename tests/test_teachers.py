"""Teachers: frozen, repeatable, as good as their cards say, and the same door for models of others."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from course_lib.material import teachers
from course_lib.material.assets import DATA
from course_lib.material.data import half_of, load_data
from course_lib.material.teachers import TEACHERS, load_encoder, load_teacher, load_tokenizer, score
from course_lib.shared.batches import encode

TWICE = ["mlm", "sentiment", "topics"]  # trained a second time, see data/results/teachers.json
AIMS = {"mlm": 42.0, "sentiment": 86.0, "topics": 89.0, "sentiment-500": 78.0, "topics-440": 88.0, "trec-500": 89.0}
NAMES = list(AIMS)


@pytest.fixture(scope="module")
def loaded():
    return {name: load_teacher(name) for name in NAMES}


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_arrives_frozen_and_answers_the_same_twice(loaded, name):
    teacher = loaded[name]
    assert not any(module.training for module in teacher.model.modules())
    assert not any(p.requires_grad for p in teacher.model.parameters())
    batch = teacher.tokenizer(["The film was [MASK].", "Why?"], padding=True, return_tensors="pt")
    first, second = teacher.model(**batch).logits, teacher.model(**batch).logits
    assert torch.equal(first, second) and not first.requires_grad


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
def test_no_trace_of_the_adapter_is_left_in_the_model(loaded, name):
    names = [n for n, _ in loaded[name].model.named_modules()]
    assert not any("lora" in n for n in names)
    shape = {"mlm": BertForMaskedLM}.get(name, BertForSequenceClassification)
    assert type(loaded[name].model) is shape


@pytest.mark.assets
def test_the_masked_lm_head_is_tied_to_the_embeddings(loaded):
    model = loaded["mlm"].model
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
def test_the_adapter_is_small_and_the_card_tells_the_whole_story(name):
    folder = DATA / "teachers" / name
    assert (folder / "adapter.safetensors").stat().st_size <= 5_000_000
    card = json.loads((folder / "card.json").read_text())
    for needed in ("data", "recipe", "hardware", "versions", "command", "licence", "accuracy_percent", "minutes"):
        assert card[needed], needed
    assert card["recipe"]["recipe"]["steps"] == TEACHERS[name].recipe.steps, "the card is of another recipe"
    assert card["recipe"]["recipe"]["seed"] == TEACHERS[name].recipe.seed


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_held_out_score_of_the_card_is_true(loaded, name):
    """The committed adapter, measured again: within a tenth of a point of its card."""
    measured = score(loaded[name].model, TEACHERS[name], "test")["accuracy"]
    assert measured == pytest.approx(loaded[name].card["accuracy_percent"]["test"], abs=0.1)


@pytest.mark.assets
@pytest.mark.parametrize("name", TWICE)
def test_a_second_training_gave_the_scores_of_the_card(name):
    """data/results/teachers.json keeps the cards of a second `make teacher`; a new recipe wants a new one."""
    first = json.loads((DATA / "teachers" / name / "card.json").read_text())
    second = json.loads((DATA / "results" / "teachers.json").read_text())["cards"][name]
    assert second["recipe"] == first["recipe"] and second["base_sha256"] == first["base_sha256"]
    for split, percent in first["accuracy_percent"].items():
        assert second["accuracy_percent"][split] == pytest.approx(percent, abs=1.0)
    adapter = (DATA / "teachers" / name / "adapter.safetensors").read_bytes()
    assert second["adapter_sha256"] == hashlib.sha256(adapter).hexdigest(), "CONTRIBUTING.md says: the same bytes"


@pytest.mark.assets
@pytest.mark.parametrize("name", ["sentiment-500", "topics-440", "trec-500"])
def test_a_teacher_of_few_labels_has_seen_no_other(name):
    card = json.loads((DATA / "teachers" / name / "card.json").read_text())
    labels = int(name.rpartition("-")[2])
    assert card["labels"] == TEACHERS[name].labels == card["train_examples"] == labels


@pytest.mark.assets
@pytest.mark.parametrize("half", [0, 1])
def test_a_teacher_of_one_half_is_trained_on_that_half_only(half):
    """Its answers on the other half are cross-fitted: it has never seen those sentences."""
    made = TEACHERS[f"sentiment-half-{half}"]
    texts = load_data("sentiment", labels="all")["train"]["text"]
    mine = [row for row, text in zip(_rows(made), texts, strict=True) if half_of(text) == half]
    assert [e["input_ids"] for e in teachers._task(made, "train").examples] == [e["input_ids"] for e in mine]
    assert len(texts) * 0.47 < len(mine) < len(texts) * 0.53


def _rows(made):
    return encode(load_data(made.data, labels=made.labels)["train"], load_tokenizer(), made.max_length)


@pytest.mark.assets
def test_another_base_is_refused(monkeypatch):
    monkeypatch.setattr(teachers, "asset_hash", lambda: "0" * 64)
    with pytest.raises(ValueError, match="other encoder weights"):
        load_teacher("sentiment")


@pytest.mark.assets
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "teachers" / "sentiment"
    folder.mkdir(parents=True)
    tensors = load_file(DATA / "teachers/sentiment/adapter.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / "adapter.safetensors")
    (folder / "card.json").write_text((DATA / "teachers/sentiment/card.json").read_text())
    monkeypatch.setattr(teachers, "DATA", tmp_path)
    with pytest.raises(ValueError, match=r"does not fit.*make teacher"):
        load_teacher("sentiment")


@pytest.mark.assets
def test_merging_the_adapter_changes_no_answer():
    """W x + (alpha / r) B A x, computed apart and added up, against the merged weight."""
    torch.manual_seed(0)
    made = TEACHERS["sentiment"]
    model = teachers.new_model(made)
    teachers.add_adapter(model, made)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # starts at zero: an adapter that does nothing would prove nothing
            nn.init.normal_(parameter, std=0.02)
    model.eval()
    batch = load_tokenizer()(["A fine film.", "Dull."], padding=True, return_tensors="pt")
    with torch.no_grad():
        apart = model(**batch).logits
        teachers.merge_adapter(model)
        merged = model(**batch).logits
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(apart, apart[0, 0].expand_as(apart))


@pytest.mark.assets
def test_the_tokenizer_knows_words():
    tokenizer = load_tokenizer()
    assert len(tokenizer) == 30522
    assert tokenizer.tokenize("the unwatchable film") == ["the", "un", "##watch", "##able", "film"]


@pytest.mark.assets
def test_the_bare_encoder_has_the_published_size():
    assert sum(p.numel() for p in load_encoder().parameters()) == 22_713_216


def test_a_local_folder_comes_through_the_same_door(tmp_path):
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxy"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    from transformers import BertTokenizer

    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    for shape, task in ((BertForMaskedLM, "mlm"), (BertForSequenceClassification, "classification")):
        shape(config).save_pretrained(tmp_path)
        teacher = load_teacher(str(tmp_path))
        assert type(teacher.model) is shape and not teacher.model.training and teacher.card == {}
        assert type(load_teacher(str(tmp_path), task=task).model) is shape
        assert not any(p.requires_grad for p in teacher.model.parameters())


def test_pickled_weights_of_others_are_refused(tmp_path):
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = BertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_teacher(str(tmp_path))


def test_a_teacher_that_is_not_trained_yet_says_how_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "DATA", tmp_path)
    with pytest.raises(ValueError, match=r"not trained yet.*course_lib\.material\.teachers sentiment-all"):
        load_teacher("sentiment-all")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="mlm, sentiment, topics"):
        load_teacher("bert")


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
def test_the_teachers_reach_their_aims(name):
    card = json.loads((DATA / "teachers" / name / "card.json").read_text())
    assert card["accuracy_percent"]["test"] >= AIMS[name]
