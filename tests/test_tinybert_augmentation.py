"""TinyBERT's augmentation: measured rates, seeds, no duplicates, and a masked LM that never sees the answer."""

import copy
import random

import pytest
import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM, PreTrainedTokenizerFast

from course_lib.methods.tinybert_augmentation import (
    augment,
    augment_rows,
    masked_lm_guesser,
    nearest_neighbours,
    split,
)

WORDS = [f"{a}{b}" for a in "bcdfgklm" for b in "aeiou"]  # 40 words of one piece
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *WORDS, "zu", "##x", "##y", ",", "."]


@pytest.fixture(scope="module")
def tokenizer():
    words = BertWordPieceTokenizer({token: i for i, token in enumerate(VOCABULARY)}, lowercase=True)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=words._tokenizer, **names)


class Listener:
    """A masked LM that likes every word equally well, in an order of its own, and remembers what it was shown."""

    def __init__(self):
        self.rows, self.calls = [], 0

    def __call__(self, input_ids, attention_mask, positions):
        self.calls += 1
        self.rows += [(ids[mask.bool()].tolist(), p) for ids, mask, p in
                      zip(input_ids, attention_mask, positions.tolist(), strict=True)]
        return torch.arange(len(VOCABULARY)).float().expand(len(positions), -1).clone()


def neighbours(word, k):
    return [f"near{i}" for i in range(k)] if word.lower().startswith("zu") else []


SENTENCE = "Ba be, bi bo zuxy bu ca ce ci co."


def test_a_sentence_is_cut_into_words_with_their_tokens(tokenizer):
    ids, words = split("Ba zuxy, be.", tokenizer)
    assert [word.text for word in words] == ["Ba", "zuxy", ",", "be", "."]
    assert [len(word.tokens) for word in words] == [1, 3, 1, 1, 1]
    assert ids[0] == 2 and ids[-1] == 3 and len(ids) == 9


def test_the_share_of_replaced_words_is_p_and_candidates_are_drawn_evenly(tokenizer):
    sentence = " ".join(WORDS[:20])
    (new,) = augment([sentence], masked_lm=Listener(), tokenizer=tokenizer, copies=5000, seed=1)
    changed = [[a != b for a, b in zip(sentence.split(), copy_.split(), strict=True)] for copy_ in new]
    rate = torch.tensor(changed).float().mean()
    assert abs(rate - 0.4) < 0.01
    at_first = [copy_.split()[0] for copy_ in new if copy_.split()[0] != WORDS[0]]
    shares = [at_first.count(word) / len(at_first) for word in set(at_first)]
    assert len(shares) == 15 and max(abs(share - 1 / 15) for share in shares) < 0.02


def test_single_pieces_ask_the_masked_lm_and_longer_words_their_neighbours(tokenizer):
    (new,) = augment([SENTENCE], masked_lm=Listener(), tokenizer=tokenizer, neighbours=neighbours, p=1.0, copies=30)
    for text in new:
        middle = text.split()[4]
        assert middle.startswith("near") and int(middle[4:]) < 15
        assert text.split()[2] in VOCABULARY


def test_the_text_around_the_words_and_capital_letters_stay(tokenizer):
    (new,) = augment([SENTENCE], masked_lm=Listener(), tokenizer=tokenizer, p=1.0, copies=5)
    for text in new:
        assert text[0].isupper() and text.endswith(".") and text.split()[1].endswith(",")
        assert text.split()[4] == "zuxy", "without neighbours a word of several pieces stays"


def test_the_masked_lm_never_sees_the_answer_even_when_the_word_stands_twice(tokenizer):
    listener = Listener()
    sentence = "ba be ba bi ba"
    augment([sentence], masked_lm=listener, tokenizer=tokenizer, p=1.0, copies=1)
    ids, _ = split(sentence, tokenizer)
    assert len(listener.rows) == 5
    for shown, position in listener.rows:
        assert len(shown) == len(ids), "one sentence, not the sentence beside its original"
        assert shown[position] == tokenizer.mask_token_id
        assert ids[position] not in shown


def test_the_original_code_shows_the_answer_and_may_keep_the_word(tokenizer):
    listener = Listener()
    (new,) = augment([" ".join(WORDS[30:40])], masked_lm=listener, tokenizer=tokenizer, p=1.0, copies=200, as_in="code")
    ids, _ = split(" ".join(WORDS[30:40]), tokenizer)
    for shown, position in listener.rows:
        assert ids[position] in shown and len(shown) == 2 * len(ids) - 1
    assert any(text.split()[9] == WORDS[39] for text in new)


def test_a_replacement_is_never_the_word_itself_a_word_piece_or_a_special_token(tokenizer):
    everything = {"candidates": 100, "copies": 500, "p": 1.0}
    (new,) = augment([" ".join(WORDS[:8])], masked_lm=Listener(), tokenizer=tokenizer, **everything)
    for text in new:
        for old, word in zip(WORDS[:8], text.split(), strict=True):
            assert word != old and not word.startswith("##") and word not in SPECIAL


def test_the_same_seed_repeats_and_another_sentence_in_the_batch_changes_nothing(tokenizer):
    options = {"masked_lm": Listener(), "tokenizer": tokenizer, "copies": 4}
    one = augment([SENTENCE], **options, seed=3)
    assert augment([SENTENCE], **options, seed=3) == one
    assert augment([SENTENCE], **options, seed=4) != one
    assert augment([SENTENCE, "ka ke ki"], **options, seed=3)[0] == one[0]


def test_duplicates_and_unchanged_copies_are_dropped(tokenizer):
    (new,) = augment(["ba"], masked_lm=Listener(), tokenizer=tokenizer, p=0.4, candidates=2, copies=200)
    assert len(new) == len(set(new)) == 2 and "ba" not in new
    assert augment(["ba be"], masked_lm=Listener(), tokenizer=tokenizer, p=0.0) == [[]]


def test_words_to_skip_and_punctuation_are_never_asked_for(tokenizer):
    listener = Listener()
    (new,) = augment(["Ba be, bi."], masked_lm=listener, tokenizer=tokenizer, p=1.0, copies=3, skip_words={"ba"})
    assert {position for _, position in listener.rows} == {2, 4}
    assert all(text.startswith("Ba ") for text in new)


def test_questions_are_asked_in_batches_and_once_however_often_they_are_drawn(tokenizer):
    listener = Listener()
    sentences = ["ba be bi bo", "ka ke ki ko ku la", "ma me"]
    augment(sentences, masked_lm=listener, tokenizer=tokenizer, p=1.0, copies=50, batch_size=5)
    assert len(listener.rows) == 12 and listener.calls == 3


def test_rows_are_augmented_one_column_at_a_time_and_never_mutated(tokenizer):
    rows = [{"text": "ba be bi", "text_pair": "ka ke ki", "label": 1}, {"text": "bo", "text_pair": "ku", "label": 0}]
    before = copy.deepcopy(rows)
    new = augment_rows(rows, ("text", "text_pair"), masked_lm=Listener(), tokenizer=tokenizer, copies=5, p=0.7)
    assert rows == before
    assert new[0] == rows[0] and new[0] is not rows[0]
    for row in new:
        original = rows[1 - row["label"]]
        assert row["text"] == original["text"] or row["text_pair"] == original["text_pair"]
    assert len({(row["text"], row["text_pair"]) for row in new}) == len(new) > 8


def test_words_beyond_the_maximal_length_stay(tokenizer):
    sentence = " ".join(WORDS)
    (new,) = augment([sentence], masked_lm=Listener(), tokenizer=tokenizer, p=1.0, copies=2, max_length=12)
    assert all(text.split()[10:] == WORDS[10:] and text.split()[0] != WORDS[0] for text in new)


@pytest.mark.parametrize("build", [
    lambda: BertForMaskedLM(BertConfig(vocab_size=len(VOCABULARY), hidden_size=12, num_hidden_layers=1,
                                       num_attention_heads=2, intermediate_size=16)),
    lambda: DistilBertForMaskedLM(DistilBertConfig(vocab_size=len(VOCABULARY), dim=12, n_layers=1, n_heads=2,
                                                   hidden_dim=16))])
def test_a_real_masked_lm_is_read_at_the_asked_positions(tokenizer, build):
    torch.manual_seed(0)
    model = build().eval()
    batch = tokenizer(["ba be bi", "bo"], return_tensors="pt", padding=True, return_token_type_ids=False)
    positions = torch.tensor([2, 1])
    with torch.no_grad():
        expected = model(**batch).logits[torch.arange(2), positions]
    guess = masked_lm_guesser(model)
    torch.testing.assert_close(guess(batch["input_ids"], batch["attention_mask"], positions), expected)
    (new,) = augment([SENTENCE], masked_lm=model, tokenizer=tokenizer, copies=3)
    assert len(new) == 3
    with pytest.raises(ValueError, match="train mode"):
        augment([SENTENCE], masked_lm=model.train(), tokenizer=tokenizer)


def test_neighbours_are_the_largest_cosines_without_the_word_itself():
    words = ["good", "great", "bad", "far"]
    vectors = torch.tensor([[1.0, 0.0], [9.0, 1.0], [-1.0, 0.1], [0.0, 1.0]])
    find = nearest_neighbours(words, vectors)
    assert list(find("Good", 2)) == ["great", "far"]
    assert list(find("good", 9)) == ["great", "far", "bad"]
    assert list(find("unknown", 2)) == []
    assert list(nearest_neighbours(words, vectors, limit=3)("far", 2)) == []


@pytest.mark.parametrize("wrong", [{"p": 1.5}, {"copies": 0}, {"candidates": 0}, {"as_in": "blog"}])
def test_impossible_options_are_refused(tokenizer, wrong):
    with pytest.raises(ValueError):
        augment(["ba"], masked_lm=Listener(), tokenizer=tokenizer, **wrong)


def test_a_generator_seeds_as_a_number_does_and_goes_on(tokenizer):
    options = {"masked_lm": Listener(), "tokenizer": tokenizer, "copies": 5}
    one, other = (augment([SENTENCE], seed=random.Random(3), **options) for _ in range(2))
    assert one == other
    rng = random.Random(3)
    assert augment([SENTENCE], seed=rng, **options) != augment([SENTENCE], seed=rng, **options)
