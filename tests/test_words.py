"""Words that an argument does not know are refused everywhere, with the list of those that it knows."""

import pytest
import torch
from torch import nn

from course_lib.methods import (
    bilstm,
    bilstm_augmentation,
    distilbert,
    hinton,
    minilm,
    mobilebert,
    pkd,
    theseus,
    tinybert,
    tinybert_augmentation,
)
from course_lib.shared import layer_maps, narrowing, projections, students, training
from course_lib.shared.words import AsIn, require_word

ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
STATES = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
SCORES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
MASK, LABELS = torch.ones(2, 4), torch.tensor([0, 1, 2, 0])
BATCH = {"attention_mask": MASK, "labels": torch.zeros(2, 4, dtype=torch.long)}
SENTENCE, TABLE = [("a", "X")], {"X": ["b"]}


def recipe(**changes):
    return training.Recipe(steps=4, **changes)


# A near miss of every word: what it must not be read as stands behind it.
CALLS = {
    "hinton positions, sentences": lambda: hinton.positions_that_count(ROWS, {}, "masked"),  # all
    "hinton positions, tokens": lambda: hinton.positions_that_count(STATES, BATCH, "masked"),  # all
    "hinton form": lambda: hinton.soft_target_loss(ROWS, ROWS, temperature=1, form="ce"),
    "hinton reduction": lambda: hinton.soft_target_loss(ROWS, ROWS, temperature=1, reduction="sum"),
    "soft cross-entropy": lambda: hinton.soft_cross_entropy(ROWS, ROWS, temperature=1, reduction="sum"),
    "bilstm": lambda: bilstm.logit_distance(ROWS, ROWS, as_in="codes"),
    "bilstm pair": lambda: bilstm.pair_features(ROWS, ROWS, as_in="codes"),
    "bilstm channels": lambda: bilstm.BiLstm(ROWS, 2, channels="static "),
    "bilstm student": lambda: bilstm.BiLstm(ROWS, 2, as_in="codes"),
    "n-gram": lambda: bilstm_augmentation.ngram(["a"], 0, as_in="codes"),
    "augmented pairs": lambda: bilstm_augmentation.augment_pairs([(SENTENCE, SENTENCE)], TABLE, as_in="codes"),
    "tinybert augmentation": lambda: tinybert_augmentation.augment([], masked_lm=None, tokenizer=None, as_in="codes"),
    "distilbert positions": lambda: distilbert.positions_that_count(MASK, None, "labelled"),
    "pkd patience": lambda: pkd.patience_loss(STATES, STATES, as_in="codes"),
    "pkd soft": lambda: pkd.soft_loss(ROWS, ROWS, temperature=1, as_in="codes"),
    "tinybert attention": lambda: tinybert.attention_loss(SCORES, SCORES, as_in="codes"),
    "tinybert hidden": lambda: tinybert.hidden_loss(STATES, STATES, as_in="codes"),
    "tinybert prediction": lambda: tinybert.prediction_loss(ROWS, ROWS, as_in="codes"),
    "mobilebert attention": lambda: mobilebert.attention_transfer(SCORES, SCORES, as_in="codes"),  # code
    "mobilebert features": lambda: mobilebert.feature_map_mse(STATES, STATES, as_in="codes"),
    "mobilebert raw features": lambda: mobilebert.feature_map_mse(STATES, STATES, normalise=False, as_in="codes"),
    "mobilebert tokens": lambda: mobilebert.feature_map_mse(STATES, STATES, over_tokens="all"),
    "mobilebert mixture": lambda: mobilebert.masked_lm_mixture(ROWS, ROWS, LABELS, as_in="codes"),  # paper
    "mobilebert strategy": lambda: mobilebert.phases(mobilebert.MobileBertRecipe(strategy="progress"), 2),
    "minilm average": lambda: minilm.relation_kl(SCORES, SCORES, average="token"),
    "theseus schedule": lambda: theseus.TheseusRecipe(schedule="Linear").rate_at(0),  # constant
    "theseus as in": lambda: theseus.Theseus(nn.Linear(1, 1), 1, as_in="codes"),
    "layer map as in": lambda: layer_maps.distilbert(2, 4, as_in="codes"),  # code
    "layer map, uneven": lambda: layer_maps.uniform(3, 4, when_uneven="floor"),  # round
    "layer map, even": lambda: layer_maps.uniform(2, 4, when_uneven="floor"),
    "projection side": lambda: projections.Projection(2, 3, side="both"),
    "projection maps": lambda: projections.Projection(2, 3, maps="one"),
    "collapse": lambda: projections.price_of_collapse(ROWS, side="teachers"),  # student
    "training schedule": lambda: training.rate_factor(3, recipe(schedule="cosine")),  # linear
    "training schedule, warm-up": lambda: training.rate_factor(0, recipe(schedule="cosine", warmup=1.0)),
    "training precision": lambda: training.autocast("bfloat16"),  # fp32
    "narrowing": lambda: narrowing.choose(None, [], width=1, heads=1, intermediate=1, by="PCA"),  # pick
    "counting": lambda: students.count_parameters(nn.Linear(1, 1), only="words"),  # all
}


@pytest.mark.parametrize("name", CALLS)
def test_an_unknown_word_is_refused_and_the_known_ones_are_listed(name):
    with pytest.raises(ValueError, match=r"must be '\w+'(, '\w+')* or '\w+', not '[\w ]+'\."):
        CALLS[name]()


def test_the_words_come_from_a_literal_or_a_list():
    assert require_word("code", AsIn, "as_in") == "code"
    with pytest.raises(ValueError, match=r"as_in must be 'paper' or 'code', not 'Paper'\."):
        require_word("Paper", AsIn, "as_in")
    with pytest.raises(ValueError, match=r"x must be 'a', 'b' or 'c', not 'd'\."):
        require_word("d", ("a", "b", "c"), "x")
