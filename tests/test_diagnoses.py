"""Chapters 0 to 3: what learners typically write, and words of the sentence that each of them must get.

The functions are in `solutions/chNN.py` (MISTAKES) and below (COMMON). A diagnosis that is taken away, or that another
one overshadows, turns its row red.
"""

import importlib
import os

import pytest
import torch

from course_lib.notebook import exercises as ex
from course_lib.notebook.exercises import store
from course_lib.notebook.exercises.questions import chapter, question

SAYS = {
    "ch00.q1": {
        "shortest": "Try the longest first", "no_marks": 'pieces inside the word lack "##"',
        "marks_only_in_answer": "look up the marked one", "partial_unk": "you keep the pieces before it",
        "no_marks_anywhere": 'no "##" at all', "marks_on_first": "The first piece carries",
        "from_the_end": "off the END of the word", "letters": "single letters",
        "goes_on_after_unk": "for one letter and go on", "unknown_kept": "you return the word itself",
    },
    "ch00.q2": {
        "labels_everywhere": "Every token got a label", "labels_inverted": "The labels stand at the visible places",
        "labels_masked": "they were taken after the masking", "ignore_0": "0 is a token ([PAD])",
        "swapped": "first the masked ids", "hides_the_others": "that were NOT chosen",
        "hides_nothing": "still shows the chosen tokens", "hides_all": "Every token is hidden",
        "hides_with_0": "become 0, which is [PAD]", "labels_yes_no": "say whether a token is hidden",
        "ignore_minus_1": "have label -1",
    },
    "ch00.q3": {
        "column": "You read a column", "head_0": "the first head only", "padding": "A padded token wins",
        "max_over_heads": "the largest head", "query_itself": "the token itself", "least": "LEAST attention",
        "last_head": "the last head only", "whole_table": "over the whole table", "all_rows": "mean over all rows",
        "counts_from_1": "places from 1", "mask_inverted": "leave out the real tokens",
    },
    "ch01.q1": {
        "multiplied": "multiplied by T", "no_temperature": "softmax at T = 1", "after_softmax": "after the softmax",
        "dim_0": "dim=0 is used", "dim_1": "Right for two dimensions only", "log": "logarithms of probabilities",
        "sum_of_all": ".sum() without a dimension", "exp_only": "not probabilities yet",
        "largest_is_1": "The largest of each row is 1", "sigmoid": "looks at each logit alone",
        "minus": "sign of the logits", "power": "powers of probabilities",
    },
    "ch01.q2": {
        "no_t2": "T^2 is missing", "t_once": "The factor is T,", "mean": 'reduction="mean" divides',
        "sum": "summed over the batch", "swapped": "KL(student || teacher)",
        "probabilities": "but it wants log-probabilities", "only_student": "Only the student is softened",
        "only_teacher": "Only the teacher is softened", "cross_entropy": "KL plus the teacher's entropy",
        "dim_0": "runs over the batch", "probabilities_mean": "Two mistakes at once", "both_logs": "Both arguments",
        "squares": "squared distance",
    },
    "ch01.q3": {
        "swapped_weights": "The weights are swapped", "no_t2": "missing in the soft term",
        "t2_on_both": "multiplies both terms", "hard_at_t": "uses softened logits", "mean": 'Use "batchmean"',
        "teacher_hard": "measures the teacher", "one_alpha": "1 minus the other",
        "swapped_kl": "teacher and student are", "t2_twice": "in the soft term twice",
        "softmax_before_ce": "F.cross_entropy got probabilities",
        "no_hard": "The hard term is missing", "soft_cross_entropy": "KL plus the teacher's entropy",
    },
    "ch01.q4": {
        "batchmean_3d": "the number of sentences", "divides_by_all": "it still counts in the mean",
        "no_mask": "The padding takes part", "mean": "runs over the classes too", "inverted": "The mask is inverted",
        "per_sentence": "mean per sentence", "integer_index": "picks rows 0 and 1", "no_t2": "T^2 is missing",
        "integer_index_raw": "picks whole sentences", "t_once": "The factor is T.", "sum": "summed over the kept",
        "swapped": "Teacher and student are swapped",
    },
    "ch01.q5": {
        "inverse": "Upside down", "one": "A factor of 1", "batchmean_is_right": "not per token here",
        "sum_by_batch": "by the tokens as well", "mean_is_right": "divides by the classes too",
        "mean_and_tokens": "only the classes have to be undone", "batchmean_and_classes": "not in its factor",
        "sum_by_classes": "must not be divided by them", "tokens_for_batch": "divided by the batch already",
    },
    "ch01.q6": {
        "sign": "The sign is wrong", "no_t": "The factor T is missing", "t_squared": "T^2 is too much",
        "without_t2": "without the factor T^2", "no_batch": "mean over the batch is missing",
        "t_is_1": "those of T = 1", "of_logits": "difference of the logits", "of_logs": "log-probabilities",
        "per_number": "divide by all numbers",
    },
    "ch02.q1": {
        "inverted": "The mask is inverted", "no_sum": "p_pos alone", "replaced_first": "ask for the mask first",
        "swapped": "are swapped", "dropped": "Kept words are missing", "never_replaced": "never replaced",
        "never_masked": "never masked", "upper_end": "at the upper end", "no_brackets": "brackets included",
        "deleted": "are left out",
    },
    "ch02.q2": {
        "last_column": "for short sentences that is padding", "backward_at_the_end": "At the last word the backward",
        "both_first": "At word 0 the forward", "swapped": "The order is swapped", "mean": "mean over the words",
        "mixed": "Both faults at once", "backward_last_column": "where the backward LSTM begins",
        "mean_with_padding": "over all columns", "largest": "max pooling", "word_before": "before the last one",
    },
    "ch02.q3": {
        "mean": "F.mse_loss takes the mean", "sum": "summed over the batch", "probabilities": "These are probabilities",
        "log_probabilities": "These are log-probabilities", "alpha_swapped": "alpha weighs", "left_out": "are left out",
        "always_the_teacher": "stands in for all labels", "students_own": "STUDENT's favourite class",
        "not_squared": "no square root",
    },
    "ch02.q4": {
        "last_one_forgotten": "The last n-gram is missing", "tails": "shorter than n",
        "nothing_for_short": "You return nothing for it", "no_overlap": "blocks without overlap",
        "longer": "n + 1 words", "first_only": "the first n-gram only", "all_lengths": "of every length",
        "reversed": "turned round",
    },
    "ch02.q5": {
        "masked_only": "at the masked words only", "inverted_as_swapped": "the other way round: 1 - p_mask",
        "two_draws_multiplied": "only asked for words that are not masked", "no_sum_is_zero": "still replace",
        "farthest": "farthest away", "replaced_only": "at the replaced words only", "always_right": "You always answer",
        "crossed": "masked share with the expected replaced", "inverted_replaces_none": "that are left",
        "two_draws_as_right": "not 1 - p_pos",
    },
    "ch02.q6": {
        "not_through_the_softmax": "still has to go through", "of_logits": "distance of the logits",
        "of_kl": "gradient of the KL", "no_centre": "The sum s over the classes", "no_two": "The factor 2",
        "no_batch": "mean over the batch is missing", "sign": "The sign is wrong", "per_number": "by all numbers",
        "diagonal": "its OWN probability", "through_the_teacher": "the teacher's probabilities",
    },
    "ch03.q1": {
        "similarity": "the cosine itself", "no_mask": "The padding takes part", "divides_by_all": "counts in the mean",
        "per_sentence": "mean per sentence", "wrong_dim": "along the tokens", "dot": "the dot product",
        "mse": "squared distance of the states", "sum": "summed over the tokens", "inverted": "The mask is inverted",
    },
    "ch03.q2": {
        "labels_everywhere": "its own label", "specials": "hidden like words", "overwritten": "no wrong word is left",
        "all_mask": "Every chosen word becomes", "labels_after": "after hiding", "inverted": "The draw is turned round",
        "label_of_mask_only": "Only words that became", "zero": "0 is a word", "no_random": "by a random one",
        "none_stays": "Every chosen word is changed", "swapped": "first the new ids",
    },
    "ch03.q3": {
        "no_t2": "T^2 is missing", "ce_at_hidden_words": "L_ce counts at the hidden words only",
        "ce_with_padding": "L_ce counts the padding", "cosine_with_padding": "L_cos counts the padding",
        "cosine_at_hidden_words": "L_cos counts at the hidden", "batchmean_3d": '"batchmean" divides L_ce',
        "mlm_softened": "L_mlm uses softened", "mlm_of_teacher": "L_mlm measures the teacher",
        "swapped_kl": "In L_ce teacher and student", "swapped_weights": "soft_weight and mlm_weight",
    },
    "ch03.q4": {
        "no_bias": "The biases are missing", "no_layer_norm": "The LayerNorms are missing",
        "no_embedding_norm": "The LayerNorm after", "one_norm_per_layer": "two LayerNorms",
        "three_matrices": "four matrices", "pooler_always": "even where there is none",
        "pooler_never": "never counted", "no_embeddings": "The embeddings are missing",
        "words_only": "Only the words have", "no_types": "rows of the token types", "one_layer": "Only one layer",
    },
    "ch03.q5": {
        "dropped": "The type vector is dropped", "all_types": "All type vectors", "mean_type": "The mean of the type",
        "last_type": "The last type", "first_position_only": "Only the first position", "subtracted": "taken away",
        "averaged": "mean of both vectors", "only_type": "The positions are gone", "added_twice": "added twice",
        "multiplied": "are multiplied",
    },
    "ch03.q6": {
        "sign": "The sign is turned round", "no_mean": "mean over the tokens is missing",
        "no_projection": "along the student's own direction", "no_length": "the student's length is missing",
        "long_teacher": "not divided by its length", "per_number": "over all numbers",
        "length_squared": "length twice", "teachers_length": "by the teacher's length",
        "for_the_teacher": "for the teacher's states",
    },
}


def _reference(name):
    return importlib.import_module(f"{ex.__name__}.reference.{name.partition('.')[0]}").SOLUTIONS[name]


def _then(change):
    """The right answer, changed on its way out."""
    return lambda right: lambda *args, **kwargs: change(right(*args, **kwargs))


def _spoils(right):
    def function(first, *args, **kwargs):
        answer = right(first, *args, **kwargs)
        if isinstance(first, torch.Tensor):
            with torch.no_grad():
                first.zero_()
        elif isinstance(first, list):
            first.append("x")
        return answer
    return function


def _is_loss(name):
    return isinstance(question(name).gradient, str) and bool(question(name).gradient)


NUMBERS = ("ch00.q3", "ch01.q5", "ch03.q4")  # answers that are Python numbers
TENSORS = ("ch01.q1", "ch01.q6", "ch02.q2", "ch02.q6", "ch03.q5", "ch03.q6")
LISTS = ("ch00.q1", "ch02.q1", "ch02.q4")
PAIRS = ("ch00.q2", "ch03.q2")
LOSSES = tuple(name for name in SAYS if _is_loss(name))
# mistake -> (the exercises where it is typical, what becomes of the right answer, words of the sentence)
COMMON = {
    "no return": (tuple(SAYS), _then(lambda answer: None), "Is there a `return`"),
    "a tensor for a number": (NUMBERS, _then(torch.tensor), "a tensor that holds one number"),
    "a list for a tensor": (TENSORS, _then(lambda answer: answer.tolist()), "torch.stack joins"),
    "another dimension": (TENSORS, _then(lambda answer: answer[None]), "a dimension of size 1"),
    "a tensor too few": (PAIRS, _then(lambda answer: answer[0]), "but a tuple of length 2 was expected"),
    "a generator": (LISTS, _then(lambda answer: (part for part in answer)), "put list(...) around it"),
    "words joined": (LISTS, _then(lambda answer: " ".join(map(str, answer))), "returns a str, but a list"),
    "floats for ids": (PAIRS, _then(lambda answer: tuple(part.float() for part in answer)), "of type float32"),
    "item()": (LOSSES, _then(lambda answer: answer.item()), "Return the tensor itself"),
    "detach": (LOSSES, _then(lambda answer: answer.detach()), "its gradient is not"),
    "no mean": (LOSSES, _then(lambda answer: answer.repeat(3)), "which mean or sum is missing"),
    "input changed": (("ch00.q2", *TENSORS, *LOSSES, "ch02.q1", "ch02.q4"), _spoils, "changes its input"),
}
EVERYWHERE = [(name, mistake) for mistake, (names, _, _) in COMMON.items() for name in names]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "COURSE_PROGRESS_FILE", str(tmp_path / "progress.json"))
    store._unsaved.clear()


@pytest.mark.parametrize("name", SAYS)
def test_ten_typical_mistakes_of_a_question_have_a_sentence_each(name):
    module = importlib.import_module(f"solutions.{name.partition('.')[0]}")
    assert set(SAYS[name]) == set(module.MISTAKES[name])
    assert len(SAYS[name]) + sum(name in names for names, _, _ in COMMON.values()) >= 10
    for mistake, wrong in module.MISTAKES[name].items():
        verdict = ex.check(name, wrong)
        assert SAYS[name][mistake] in verdict.message, (mistake, verdict.message)
        others = [other for other in SAYS[name] if other != mistake and SAYS[name][other] in verdict.message]
        assert not others, f"{mistake}: its sentence would also pass for {others}"
        assert [label for label, _ in verdict.example] == ["with", "yours", "expected"], mistake


@pytest.mark.parametrize(("name", "mistake"), EVERYWHERE)
def test_mistakes_that_every_question_knows_have_a_sentence_too(name, mistake):
    _, change, words = COMMON[mistake]
    verdict = ex.check(name, change(_reference(name)))
    assert verdict.points == 0 and words in verdict.message, verdict.message


def test_every_question_of_chapters_0_to_3_is_in_the_table():
    assert list(SAYS) == [q.name for n in ("ch00", "ch01", "ch02", "ch03") for q in chapter(n).questions]
