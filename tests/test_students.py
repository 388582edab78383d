"""Students: exact sizes, true copies, factorised embeddings."""

import pytest
import torch
from oracle import oracle
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
)

from course_lib.shared import layer_maps
from course_lib.shared.starts import (
    copy_embeddings,
    copy_factorised_embeddings,
    copy_head,
    copy_layers,
    factorise_embeddings,
)
from course_lib.shared.students import (
    SHAPES,
    bert_config,
    blocks,
    count_parameters,
    evaluating,
    modes_kept,
    new_student,
)

TINY = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 24,
        "max_position_embeddings": 16}
BATCH = {"input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
         "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}


def tiny(kind=BertForMaskedLM, seed=0, **changes):
    torch.manual_seed(seed)
    return kind(BertConfig(**(TINY | changes))).eval()


def output(model):
    with torch.no_grad():
        return model.eval()(**BATCH)[0]


OUR_NAMES = {
    "bert-base-uncased": "bert-base",
    "bert-large-uncased": "bert-large",
    "distilbert-base-uncased": "distilbert",
    "bert-6L-768 (PKD6, TinyBERT6, Theseus, MiniLM 6x768)": "bert-6x768",
    "bert-3L-768 (PKD3)": "bert-3x768",
    "bert-4L-768": "bert-4x768",
    "tinybert-4L-312": "tinybert-4",
    "minilm-12L-384": "minilm-12x384",
    "minilm-6L-384": "minilm-6x384",
    "bert-tiny 2L-128": "bert-tiny",
}


@pytest.mark.parametrize("published, name", OUR_NAMES.items())
def test_parameter_counts_are_exact(published, name):
    expected = oracle("sizes/parameter_counts").outputs[published]
    config = bert_config(name)
    assert count_parameters(config) == expected["params"]
    assert count_parameters(config, only="word_embeddings") == expected["word_embedding_params"]


def test_every_named_shape_is_counted_somewhere():
    assert set(OUR_NAMES.values()) == {*SHAPES, "distilbert"}


def test_the_document_classifier_shrinks_from_111_to_33_million():
    with torch.device("meta"):
        teacher = BertForSequenceClassification(bert_config("bert-base", vocab_size=32_768, num_labels=2))
        student = new_student(teacher, layers=1)
    assert count_parameters(teacher) == 111_208_706
    assert count_parameters(student) == 33_242_114


def test_a_bare_shape_has_heads_of_64_and_other_shapes_are_named():
    config = bert_config("2x128", vocab_size=1000)
    assert (config.num_attention_heads, config.intermediate_size, config.vocab_size) == (2, 512, 1000)
    assert count_parameters(bert_config("2x128")) == count_parameters(bert_config("bert-tiny"))
    with pytest.raises(ValueError, match=r"Known: bert-base.*'2x128'"):
        bert_config("bert-huge")
    with pytest.raises(ValueError, match="5 attention heads do not divide hidden size 128"):
        bert_config("2x128", num_attention_heads=5)


def test_a_tied_matrix_counts_once():
    tied, untied = tiny(), tiny(tie_word_embeddings=False)
    assert count_parameters(untied) - count_parameters(tied) >= 40 * 12


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForSequenceClassification, BertModel])
def test_a_new_student_has_the_teachers_class_and_task_and_another_shape(kind):
    teacher = tiny(kind, num_labels=5).double()
    student = new_student(teacher, layers=2, hidden=24)
    assert type(student) is kind and student.training and student.dtype == torch.float64
    assert len(blocks(student)) == 2
    assert (student.config.hidden_size, student.config.intermediate_size) == (24, 48)
    assert student.config.num_attention_heads == 3 and student.config.num_labels == 5
    assert output(student).shape[-1] == {BertForMaskedLM: 40, BertForSequenceClassification: 5, BertModel: 24}[kind]
    assert len(blocks(teacher)) == 4 and teacher.config.num_hidden_layers == 4, "the teacher must stay as it is"


def test_a_seeded_student_repeats_and_leaves_the_global_random_state_alone():
    teacher = tiny()
    before = torch.get_rng_state()
    one, two, other = (new_student(teacher, layers=1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(output(one), output(two)) and not torch.equal(output(one), output(other))


def test_a_new_distilbert_student_scales_its_own_feed_forward_field():
    torch.manual_seed(0)
    teacher = DistilBertModel(DistilBertConfig(vocab_size=40, dim=12, n_layers=2, n_heads=3, hidden_dim=48))
    student = new_student(teacher, layers=1, hidden=24)
    assert student.config.hidden_dim == 96 and len(blocks(student)) == 1


def test_heads_that_do_not_divide_the_new_width_are_refused():
    with pytest.raises(ValueError, match="3 attention heads do not divide hidden size 16"):
        new_student(tiny(), hidden=16)


def test_a_full_copy_gives_the_teachers_output():
    teacher = tiny()
    student = new_student(teacher, seed=1)
    assert not torch.allclose(output(student), output(teacher))
    copy_layers(student, teacher, layer_maps.bottom(4, 4))  # (0, 0) brings the embeddings
    copy_head(student, teacher)
    torch.testing.assert_close(output(student), output(teacher), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertModel, DistilBertForMaskedLM])
def test_head_and_pooler_are_copied_for_every_task(kind):
    torch.manual_seed(0)
    config = (DistilBertConfig(vocab_size=40, dim=12, n_layers=2, n_heads=3, hidden_dim=24)
              if kind is DistilBertForMaskedLM else BertConfig(**TINY))
    teacher = kind(config).eval()
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    depth = len(blocks(teacher))
    student = new_student(teacher, seed=1)
    copy_layers(student, teacher, layer_maps.bottom(depth, depth))
    copy_head(student, teacher)
    for (name, ours), theirs in zip(student.state_dict().items(), teacher.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_the_mapped_layers_and_no_others_are_copied():
    teacher = tiny()
    student = new_student(teacher, layers=2, seed=1)
    untouched = student.bert.encoder.layer[0].output.dense.weight.clone()
    copy_layers(student, teacher, ((2, 4),))
    ours, theirs = student.bert.encoder.layer[1].state_dict(), teacher.bert.encoder.layer[3].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(student.bert.encoder.layer[0].output.dense.weight, untouched)


def test_copies_share_no_memory_with_the_teacher_and_none_with_each_other():
    teacher = tiny()
    student = new_student(teacher, layers=2)
    copy_embeddings(student, teacher)
    copy_layers(student, teacher, ((1, 2), (2, 2)))
    copy_head(student, teacher)
    theirs = {p.data_ptr() for p in (*teacher.parameters(), *teacher.buffers())}
    assert not theirs & {p.data_ptr() for p in (*student.parameters(), *student.buffers())}
    first, second = blocks(student)
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}


def test_training_the_student_leaves_the_teacher_as_it_was():
    teacher = tiny()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = new_student(teacher, layers=2)
    copy_layers(student, teacher, layer_maps.uniform(2, 4))
    copy_head(student, teacher)
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    student(**BATCH, labels=BATCH["input_ids"]).loss.backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_the_masked_lm_head_stays_tied_after_copying():
    teacher = tiny()
    student = new_student(teacher, layers=1)
    copy_embeddings(student, teacher)
    copy_head(student, teacher)
    assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight
    assert torch.equal(student.cls.predictions.decoder.weight, teacher.cls.predictions.decoder.weight)


def test_a_head_tied_on_one_side_only_is_refused():
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        copy_head(tiny(tie_word_embeddings=False), tiny())


def test_other_widths_name_both_shapes_and_the_way_out():
    teacher = tiny()
    student = new_student(teacher, layers=2, hidden=6)
    with pytest.raises(ValueError, match=r"student layer 1 from teacher layer 2.*\(6,\).*\(12,\).*copy_factorised"):
        copy_layers(student, teacher, ((1, 2),))
    with pytest.raises(ValueError, match="Copying head"):
        copy_head(student, teacher)


def test_impossible_pairs_are_refused():
    teacher = tiny()
    with pytest.raises(ValueError, match="no teacher layer 5"):
        copy_layers(new_student(teacher, layers=2), teacher, ((1, 5),))
    with pytest.raises(ValueError, match=r"embedding layer.*from_zero_based_blocks"):
        copy_layers(new_student(teacher, layers=2), teacher, ((0, 2),))
    with pytest.raises(ValueError, match=r"Linear keeps no blocks in encoder\.layer or transformer\.layer"):
        blocks(torch.nn.Linear(2, 2))


def test_models_of_other_classes_name_the_missing_tensor():
    torch.manual_seed(0)
    other = DistilBertForMaskedLM(DistilBertConfig(vocab_size=40, dim=12, n_layers=2, n_heads=3, hidden_dim=24))
    with pytest.raises(ValueError, match="has no 'attention"):
        copy_layers(other, tiny(), ((1, 1),))


def test_factorising_equals_the_truncated_singular_value_decomposition():
    matrix = torch.randn(50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1.0
    for centre in (True, False):
        found = factorise_embeddings(matrix, 3, centre=centre)
        values = matrix - matrix.mean(0) if centre else matrix
        left, strengths, right = torch.linalg.svd(values, full_matrices=False)
        best = (left[:, :3] * strengths[:3]) @ right[:3]
        torch.testing.assert_close(found.embeddings @ found.projection + found.mean,
                                   best + (matrix.mean(0) if centre else 0))
        torch.testing.assert_close(found.projection @ found.projection.T, torch.eye(3, dtype=torch.float64))
        expected = (strengths[:3].square().sum() / strengths.square().sum()).item()
        assert found.explained_variance == pytest.approx(expected)


def test_factorising_a_low_rank_matrix_loses_nothing():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 2, generator=generator) @ torch.randn(2, 8, generator=generator) + 5.0
    found = factorise_embeddings(matrix, 2)
    torch.testing.assert_close(found.embeddings @ found.projection + found.mean, matrix, rtol=1e-5, atol=1e-4)
    assert found.explained_variance == pytest.approx(1.0)
    assert found.embeddings.dtype == matrix.dtype


@pytest.mark.parametrize("width", [0, 9])
def test_an_impossible_width_is_refused(width):
    with pytest.raises(ValueError, match="from 1 to 8"):
        factorise_embeddings(torch.randn(10, 8), width)


def test_a_narrow_student_receives_the_teachers_word_geometry():
    teacher = tiny()
    student = new_student(teacher, layers=1, hidden=9)
    found = copy_factorised_embeddings(student, teacher)
    ours, theirs = student.bert.embeddings, teacher.bert.embeddings
    torch.testing.assert_close(ours.word_embeddings.weight.data, found.embeddings)
    torch.testing.assert_close(ours.position_embeddings.weight.data,
                               theirs.position_embeddings.weight.data @ found.projection.T)
    assert 0.5 < found.explained_variance < 1.0
    with pytest.raises(ValueError, match="another number of rows"):
        copy_factorised_embeddings(tiny(vocab_size=30, hidden_size=9), teacher)


def test_evaluating_gives_every_module_its_own_mode_back():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2)).train()
    model[0].eval()  # frozen by hand: `model.train(was_training)` would wake it up
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]
    with pytest.raises(KeyError), modes_kept(model):
        model.eval()
        raise KeyError
    assert [module.training for module in model.modules()] == [True, False, True]
