"""Doctor and mutants together: a mistake is switched on in the library, the doctor must name it among its first two.

Each scenario does what a practitioner does: build a student, a batch and a loss with the course's functions, perhaps
train a few steps, then ask the doctor. It is played twice, with the mistake and without; without it the doctor must be
silent. The table `SEEN` is the map from mistakes to findings.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from test_doctor import (
    HEALTHY,
    MASK_ID,
    SHAPE,
    Pair,
    Words,
    assert_silent,
    healthy_bilstm,
    healthy_cached_top_k,
    healthy_classifier,
    healthy_distilbert,
    healthy_minilm,
    healthy_pkd,
    make_batch,
    make_teacher,
    tiny,
)
from transformers import BertForSequenceClassification

from course_lib.doctor import diagnose
from course_lib.methods import bilstm_augmentation, cached, hinton, theseus, tinybert
from course_lib.mistakes import MUTANTS, mutant
from course_lib.shared import layer_maps, probes
from course_lib.shared.batches import MaskedBatch, pad
from course_lib.shared.starts import copy_layers
from course_lib.shared.training import Recipe, train

# --- Scenarios: each returns a report ---------------------------------------------------------------------------------


def method(make, *, change=None, **more):
    """A method of the course, as tests/test_doctor.py sets it up; `change` is a new value for fields of its recipe."""
    student, teacher, batch, recipe, terms = make()
    recipe = replace(recipe, **(change or {}))
    return diagnose(student, teacher, batch, recipe, terms=lambda s, b: terms(s, teacher, b, recipe), **more)


def hinton_masked_lm(**change):
    pair = Pair()
    pair.recipe = replace(pair.recipe, **change)
    return pair.diagnose()


def one_sum(**weights):
    """The loss as one number, from `hinton.distillation_loss`."""
    pair = Pair(BertForSequenceClassification)
    recipe = replace(pair.recipe, **weights)

    def loss(student, batch):
        return {"loss": hinton.distillation_loss(
            probes.logits_of(student, batch), probes.teacher_logits_of(pair.teacher, batch), batch["labels"],
            temperature=recipe.temperature, hard_weight=recipe.hard_weight, soft_weight=recipe.soft_weight)}

    return pair.diagnose(loss, recipe)


class MaskTokenizer(Words):
    pad_token_id, all_special_ids = 0, [0, 2, 3, MASK_ID]

    def __len__(self):
        return SHAPE["vocab_size"]


def masked_batch():
    """A batch made by the course's collator from 16 sentences with [CLS] = 2 and [SEP] = 3."""
    generator = torch.Generator().manual_seed(5)
    examples = [{"input_ids": [2, *torch.randint(5, 60, (4 + i % 8,), generator=generator).tolist(), 3]}
                for i in range(16)]
    pair = Pair()
    pair.batch = MaskedBatch(MaskTokenizer(), probability=0.25, generator=generator)(examples)
    return pair.diagnose(tokenizer=MaskTokenizer())


def augmented_sentences():
    words = {"NN": [f"word{i}" for i in range(40, 50)]}
    sentences = [[(f"word{i + j}", "NN") for j in range(9)] for i in range(5, 21)]
    new = bilstm_augmentation.augment(sentences, words, n_iter=2)
    ids = {f"word{i}": i for i in range(60)} | {bilstm_augmentation.MASK: MASK_ID}
    pair = Pair(BertForSequenceClassification)
    pair.batch = pad([{"input_ids": [ids[word] for word in words], "label": 0} for words in new])
    return pair.diagnose(tokenizer=Words())


def copied_layers():
    pair = Pair()
    copy_layers(pair.student, pair.teacher, layer_maps.skip(2, 4))
    pair.student.requires_grad_(True)
    return pair.diagnose()


def document_student():
    pair = Pair(BertForSequenceClassification)
    pair.student = cached.document_student(pair.teacher).requires_grad_(True)
    return pair.diagnose()


def shuffled_cache():
    """The data set is shuffled after the teacher was asked; `by_key` is what the error of `attach` advises."""
    pair = Pair(BertForSequenceClassification)
    generator = torch.Generator().manual_seed(0)
    examples = [{"input_ids": torch.randint(5, 60, (8,), generator=generator).tolist(), "label": i % 3}
                for i in range(16)]
    soft = cached.ask_teacher(pair.teacher, examples)
    examples = [examples[i] for i in torch.randperm(16, generator=generator).tolist()]
    pair.batch = cached.collate(cached.attach(examples, soft, by_key=True))
    recipe = cached.CachedRecipe(temperature=2.0)
    return pair.diagnose(lambda s, b: cached.terms(s, None, b, recipe), recipe)


def map_of_a_list(student_blocks, teacher_blocks):
    pair = Pair(BertForSequenceClassification)
    recipe = replace(tinybert.INTERMEDIATE,
                     layer_map=layer_maps.from_zero_based_blocks(student_blocks, teacher_blocks))
    return pair.diagnose(lambda s, b: tinybert.terms(s, pair.teacher, b, recipe), recipe)


def uneven_map():
    """Two student layers, five teacher layers."""
    pair = Pair(BertForSequenceClassification)
    pair.teacher = make_teacher(BertForSequenceClassification, num_hidden_layers=5)
    recipe = replace(tinybert.INTERMEDIATE, layer_map=layer_maps.uniform(2, 5, when_uneven="round"))
    return pair.diagnose(lambda s, b: tinybert.terms(s, pair.teacher, b, recipe), recipe)


def after_some_training(make, learning_rate, steps=40):
    """The same batch again and again, then the doctor: some mistakes do not show in a fresh student."""
    student, teacher, batch, recipe, terms = make()

    def loss(s, b):
        return terms(s, teacher, b, recipe)

    torch.manual_seed(0)
    training = Recipe(steps=steps, learning_rate=learning_rate, warmup=0.0)
    history = train(student, [batch] * steps, loss, training)
    return diagnose(student, teacher, batch, (recipe, training), history, terms=loss)


def cached_top_4():
    """Top 4 of 60 words at T = 2, soft loss alone."""
    student, teacher, batch, _, terms = healthy_cached_top_k()
    top = cached.top_k(probes.teacher_logits_of(teacher, batch)[batch["labels"] != -100], 4, 2.0)
    batch |= {"teacher_top_ids": top.ids, "teacher_top_log_probs": top.log_probs,
              "teacher_rest_log_prob": top.rest_log_prob}
    return student, teacher, batch, cached.CachedRecipe(temperature=2.0, hard_weight=0.0, soft_weight=1.0), terms


def teacher_that_asks_for_gradients():
    """A teacher as `from_pretrained` gives it: in eval mode, and every parameter wants a gradient."""
    student, teacher, batch, recipe, terms = tiny(tinybert.INTERMEDIATE)
    teacher.requires_grad_(True)
    return diagnose(student, teacher, batch, recipe, terms=lambda s, b: terms(s, teacher, b, recipe))


def theseus_with_an_optimiser():
    teacher = make_teacher(BertForSequenceClassification)
    student = theseus.Theseus(teacher, 2, schedule=theseus.constant_rate)
    optimizer = torch.optim.AdamW(student.trainable_parameters(), lr=2e-5)
    return diagnose(student, teacher, make_batch(BertForSequenceClassification), theseus.TheseusRecipe(2),
                    terms=lambda s, b: theseus.terms(s, None, b), optimizer=optimizer)


SEEN = {  # mistake: (finding, scenario)
    # Chapter 1, Hinton
    "missing_t_squared": ("T squared", hinton_masked_lm),
    "reduction_mean": ("reduction", hinton_masked_lm),
    "kl_arguments_swapped": ("form of the loss", hinton_masked_lm),
    "probs_as_log_probs": ("form of the loss", hinton_masked_lm),
    "batchmean_per_sentence": ("reduction", hinton_masked_lm),
    "temperature_for_the_student_only": ("form of the loss", hinton_masked_lm),
    "t_squared_dropped_at_alpha_0": ("T squared", partial(one_sum, hard_weight=0.0, soft_weight=1.0)),
    "alpha_weighs_the_other_loss": ("weights", partial(one_sum, hard_weight=0.2, soft_weight=0.8)),
    "teacher_compared_with_itself": ("gradient", hinton_masked_lm),
    "softmax_twice": ("form of the loss", partial(method, healthy_classifier)),
    "soft_loss_at_every_position": ("loss positions", hinton_masked_lm),
    "mask_not_passed": ("attention mask", hinton_masked_lm),
    # Chapter 2, BiLSTM
    "mse_of_probabilities": ("form of the loss", partial(after_some_training, healthy_bilstm, 0.02)),
    "inverted_augmentation_mask": ("mask tokens", augmented_sentences),
    "lstm_ends_on_padding": ("padding", partial(method, healthy_bilstm)),
    # Chapter 3, DistilBERT
    "padding_in_token_kl": ("padding", partial(method, healthy_distilbert)),
    "cosine_over_padding": ("padding", partial(method, healthy_distilbert)),
    "untied_head": ("tied head", partial(method, healthy_distilbert)),
    "labels_at_unmasked_positions": ("loss positions", masked_batch),
    "special_tokens_masked": ("loss positions", masked_batch),
    "layers_shared_with_the_teacher": ("shared tensors", copied_layers),
    # Chapter 4, BERT-PKD
    "word_after_cls_compared": ("padding", partial(method, healthy_pkd)),
    "zero_based_blocks_as_layers": ("layer map", partial(map_of_a_list, [0, 1], [1, 3])),
    # Chapter 5, TinyBERT
    "padding_in_hidden_mse": ("padding", partial(method, partial(tiny, tinybert.INTERMEDIATE))),
    "teacher_left_in_train_mode": ("teacher mode", partial(method, partial(tiny, tinybert.INTERMEDIATE))),
    "no_no_grad": ("teacher gradients", teacher_that_asks_for_gradients),
    "teacher_side_projection": ("projection side", partial(method, partial(tiny, tinybert.INTERMEDIATE))),
    "floor_of_the_layer_ratio": ("layer map", uneven_map),
    # Chapter 7, MiniLM
    "padded_queries_count": ("padding", partial(method, healthy_minilm)),
    "value_relation_without_mask": ("padding", partial(method, healthy_minilm)),
    "first_layer_for_the_last": ("layer of the loss", partial(method, healthy_minilm)),
    # Chapter 8, Theseus
    "frozen_by_omission": ("frozen parameters", theseus_with_an_optimiser),
    "replacing_in_evaluation": ("student mode", theseus_with_an_optimiser),
    "replacement_jumps_to_1": ("replacing", theseus_with_an_optimiser),
    "successor_shares_the_predecessor": ("shared tensors", theseus_with_an_optimiser),
    # Chapter 9, cached
    "cache_zipped_with_shuffled_data": ("cached teacher", shuffled_cache),
    "temperature_after_the_cut": ("cached teacher", partial(method, healthy_cached_top_k)),
    "rest_of_the_vocabulary_dropped": ("loss", partial(after_some_training, cached_top_4, 0.005)),
    "embeddings_shared_with_the_teacher": ("shared tensors", document_student),
}


@pytest.mark.parametrize("name", SEEN)
def test_the_mistake_is_named_among_the_first_two(name):
    finding, scenario = SEEN[name]
    with mutant(name):
        report = scenario()
    problems = [f.name for f in report.findings[:2] if f.severity in ("error", "warning")]
    assert finding in problems, f"{MUTANTS[name].mistake}\n\n{report}"


@pytest.mark.parametrize("name", SEEN)
def test_without_the_mistake_the_doctor_is_silent(name):
    assert_silent(SEEN[name][1]())


@pytest.mark.parametrize("name", HEALTHY)
def test_a_short_run_of_every_method_is_healthy_too(name):
    # At first every masked-LM student says a few words only, and the doctor says so; MobileBERT's thin one for longer.
    assert_silent(after_some_training(HEALTHY[name], 0.005, steps=200 if "auxiliary" in name else 40))
