"""The Japanese sentences, and how they are cut."""

import torch

from course_lib.material import japanese
from course_lib.shared.batches import encode, pad


def test_sixty_sentences_three_topics_and_no_text_on_two_sides():
    data = japanese.sentences()
    assert {split: len(rows) for split, rows in data.items()} == {"train": 48, "test": 12}
    assert data["train"].features["label"].names == ["cooking", "weather", "trains"]
    assert [data["test"]["label"].count(topic) for topic in range(3)] == [4, 4, 4]
    everything = [*data["train"]["sentence"], *data["test"]["sentence"]]
    assert len(set(everything)) == 60
    assert all(row["english"].endswith(".") and row["sentence"].endswith("。") for row in data["train"])


def test_the_words_joined_together_are_the_sentence_again():
    for rows in japanese.sentences().values():
        assert all("".join(japanese.words(row["sentence"])) == row["sentence"] for row in rows)
    assert japanese.words("京都に着いた。") == ["京都", "に", "着い", "た", "。"]


def test_a_frequent_word_is_one_piece_and_a_new_word_falls_into_characters():
    tokenizer = japanese.tokenizer(["電車 が 止まる", "電車 の 線"])
    assert tokenizer.tokenize("電車 が") == ["電車", "が"]
    assert tokenizer.tokenize("線車") == ["線", "##車"]
    assert tokenizer.tokenize("ねこ 鯨") == ["ね", "##こ", "[UNK]"]


def test_the_sentences_become_batches_like_any_other_text():
    data = japanese.sentences()
    tokenizer = japanese.tokenizer(data["train"]["text"])
    batch = pad(encode(data["train"], tokenizer)[:4])
    assert batch["input_ids"][:, 0].tolist() == [tokenizer.cls_token_id] * 4
    assert batch["labels"].dtype == torch.long and int(batch["input_ids"].max()) < len(tokenizer)
    assert tokenizer.unk_token_id not in torch.cat([pad(encode(data["train"], tokenizer))["input_ids"].flatten()])
