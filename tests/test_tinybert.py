"""TinyBERT: the original numbers and gradients, padding in both readings, the stages, the refusals."""

import pytest
import torch
from loss_properties import assert_all, assert_finite_at_extremes, assert_gradient_is_exact, ragged_mask
from oracle import names, oracle
from transformers import BertConfig, BertForSequenceClassification, BertModel

from course_lib.methods import tinybert
from course_lib.methods.hinton import teacher_entropy
from course_lib.methods.tinybert import GENERAL, INTERMEDIATE, PREDICTION, TinyBertRecipe
from course_lib.shared import layer_maps
from course_lib.shared.projections import Projection
from course_lib.shared.students import count_parameters, new_student

TINY = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 24,
        "max_position_embeddings": 16, "num_labels": 3}
BATCH = {"input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
         "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}
LONGER = {name: torch.nn.functional.pad(tensor, (0, 3)) for name, tensor in BATCH.items()}


def model(kind=BertForSequenceClassification, **changes):
    torch.manual_seed(changes.pop("seed", 0))
    return kind(BertConfig(**(TINY | changes))).eval()


def pair(*shape):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


# --- The loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("tinybert/intermediate/"))
def test_intermediate_terms_and_gradients_equal_the_original(name):
    truth = oracle(name)
    inputs, p = truth.inputs, truth.params
    scores, states = truth.leaf("student_scores_unmasked"), truth.leaf("student_reps_projected")
    layer_map = layer_maps.uniform(p["student_layers"], p["teacher_layers"])
    mask = inputs["attention_mask"]
    attention = tinybert.attention_over_layers(
        dict(enumerate(scores, start=1)), dict(enumerate(inputs["teacher_scores"], start=1)), layer_map, mask,
        as_in="code")
    hidden = tinybert.hidden_over_layers(dict(enumerate(states)), dict(enumerate(inputs["teacher_reps"])), layer_map,
                                         mask, as_in="code")
    truth.check("att_loss", attention)
    truth.check("rep_loss", hidden)
    truth.check("loss", attention + hidden)
    gradients = torch.autograd.grad(attention + hidden, (scores, states))
    for key, gradient in zip(("grad_scores", "grad_reps"), gradients, strict=True):
        truth.check(key, gradient)


def test_the_prediction_loss_of_the_code_and_its_gradient_are_reproduced():
    truth = oracle("kd_zoo/TinyBERT_soft_cross_entropy/T1")
    student = truth.leaf("logits_S")
    loss = tinybert.prediction_loss(student, truth.inputs["logits_T"], as_in="code")
    truth.check("loss", loss)
    truth.check("grad_S", torch.autograd.grad(loss, student)[0])
    paper = tinybert.prediction_loss(student, truth.inputs["logits_T"])
    torch.testing.assert_close(paper, 3 * loss)


def test_attention_and_hidden_losses_are_well_behaved():
    assert_all(tinybert.attention_loss, *pair(3, 2, 5, 5), ragged_mask(3, 5), token_dims=(2, 3))
    assert_all(tinybert.hidden_loss, *pair(3, 5, 6), ragged_mask(3, 5), token_dims=(1,))


def test_the_prediction_loss_is_well_behaved_and_bottoms_out_at_the_teachers_entropy():
    student, teacher = pair(4, 3)
    entropy = teacher_entropy(teacher, temperature=1.0)
    assert_all(tinybert.prediction_loss, student, teacher, at_teacher=entropy)
    for temperature in (0.05, 100.0):
        assert_finite_at_extremes(
            lambda s, t, T=temperature: tinybert.prediction_loss(s, t, temperature=T), student, teacher)


def test_the_codes_attention_loss_has_an_exact_gradient_too():
    student, teacher = pair(3, 2, 5, 5)
    assert_gradient_is_exact(lambda s, t, m: tinybert.attention_loss(s, t, m, as_in="code"), student, teacher,
                             ragged_mask(3, 5))


def test_attention_is_a_mean_over_heads_and_pairs_of_real_tokens():
    student, teacher = torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])  # 2*2 + 1*1 = 5 real pairs
    student[0, 0, 0, 1] = 3.0  # real query, real key: 9 / 5
    student[0, 0, 0, 2] = student[0, 0, 2, 0] = student[1, 0, 1, 1] = 100.0  # padded key, padded query, both
    assert tinybert.attention_loss(student, teacher, mask) == pytest.approx(9 / 5)


def test_the_codes_mean_shrinks_with_padding_and_the_papers_does_not():
    student, teacher = pair(2, 2, 4, 4)
    mask = torch.ones(2, 4)
    long_student, long_teacher = (torch.nn.functional.pad(x, (0, 4, 0, 4)) for x in (student, teacher))
    long_mask = torch.nn.functional.pad(mask, (0, 4))
    for as_in, factor in (("paper", 1.0), ("code", 0.25)):
        short = tinybert.attention_loss(student, teacher, mask, as_in=as_in)
        torch.testing.assert_close(tinybert.attention_loss(long_student, long_teacher, long_mask, as_in=as_in),
                                   factor * short)


def test_scores_that_already_carry_the_mask_give_the_same_numbers():
    student, teacher = pair(3, 2, 5, 5)
    mask = ragged_mask(3, 5)
    added = (1.0 - mask[:, None, None, :]) * -10_000.0
    for as_in in ("paper", "code"):
        torch.testing.assert_close(tinybert.attention_loss(student + added, teacher + added, mask, as_in=as_in),
                                   tinybert.attention_loss(student, teacher, mask, as_in=as_in))


def test_the_code_takes_a_very_low_score_of_a_real_key_for_padding():
    student, teacher = torch.tensor([[[[-150.0, -99.0]]]]), torch.tensor([[[[1.0, -99.0]]]])
    assert tinybert.attention_loss(student, teacher, as_in="code") == pytest.approx((1.0**2 + 0.0) / 2)
    assert tinybert.attention_loss(student, teacher) == pytest.approx((151.0**2 + 0.0) / 2)


def test_other_head_counts_name_two_ways_out():
    with pytest.raises(ValueError, match=r"2 heads.*has 3.*heads=3\).*MiniLM v2"):
        tinybert.attention_loss(torch.randn(1, 2, 4, 4), torch.randn(1, 3, 4, 4))


def test_other_widths_and_an_unknown_reading_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4, 6\).*\(1, 4, 8\).*Projection"):
        tinybert.hidden_loss(torch.randn(1, 4, 6), torch.randn(1, 4, 8))
    for loss in (lambda: tinybert.hidden_loss(*pair(1, 4, 6), as_in="blog"),
                 lambda: tinybert.attention_loss(*pair(1, 2, 4, 4), as_in="blog"),
                 lambda: tinybert.prediction_loss(*pair(1, 4), as_in="blog")):
        with pytest.raises(ValueError, match="as_in"):
            loss()


def test_a_map_without_blocks_cannot_train_attention():
    scores = {1: torch.randn(1, 2, 4, 4)}
    with pytest.raises(ValueError, match="pairs of blocks"):
        tinybert.attention_over_layers(scores, scores, ((0, 0),))


def test_the_projection_sees_the_embeddings_apart():
    student, teacher = pair(2, 4, 6)[0], pair(2, 4, 8)[1]
    projection = Projection(6, 8).double()
    both = tinybert.hidden_over_layers({0: student, 1: student}, {0: teacher, 1: teacher}, ((0, 0), (1, 1)),
                                       projection=projection)
    by_hand = sum(((student @ linear.weight.T - teacher) ** 2).mean()
                  for linear in (projection.embeddings, projection.blocks))
    torch.testing.assert_close(both, by_hand)


# --- Both models at once ----------------------------------------------------------------------------------------------


def narrow_student(teacher):
    student = new_student(teacher, layers=2, hidden=6, seed=3).eval()
    tinybert.attach_projection(student, teacher)
    return student


def test_the_stages_train_the_terms_of_the_paper():
    teacher = model()
    student = narrow_student(teacher)
    assert list(tinybert.terms(student, teacher, BATCH, GENERAL)) == ["attention", "hidden", "embedding"]
    assert list(tinybert.terms(student, teacher, BATCH, INTERMEDIATE)) == ["attention", "hidden", "embedding"]
    assert list(tinybert.terms(student, teacher, BATCH, PREDICTION)) == ["prediction"]
    assert (INTERMEDIATE.epochs, INTERMEDIATE.schedule, INTERMEDIATE.learning_rate) == (20, "constant", 5e-5)
    assert PREDICTION.epochs == 3 and PREDICTION.temperature == 1.0


def test_terms_equal_the_transfers_on_the_uniform_map():
    teacher = model()
    student = narrow_student(teacher)
    theirs = teacher(**BATCH, output_hidden_states=True).hidden_states
    mine = student(**BATCH, output_hidden_states=True).hidden_states
    real = BATCH["attention_mask"].bool()
    terms = tinybert.terms(student, teacher, BATCH, TinyBertRecipe(hidden_weight=2.0))
    w_e, w_h = student.projection.embeddings.weight, student.projection.blocks.weight
    torch.testing.assert_close(terms["embedding"], (mine[0][real] @ w_e.T - theirs[0][real]).pow(2).mean())
    by_hand = sum((mine[s][real] @ w_h.T - theirs[t][real]).pow(2).mean() for s, t in ((1, 2), (2, 4)))
    torch.testing.assert_close(terms["hidden"], 2 * by_hand)


def test_the_attention_term_compares_scores_and_not_probabilities():
    teacher = model(initializer_range=0.4)
    student = narrow_student(teacher)
    real = BATCH["attention_mask"].bool()
    pairs = (real[:, :, None] & real[:, None, :])[:, None].expand(-1, 3, -1, -1)  # (batch, heads, queries, keys)

    def scores(network, layer):
        hidden = network(**BATCH, output_hidden_states=True).hidden_states[layer - 1]
        attention = network.bert.encoder.layer[layer - 1].attention.self
        query, key = (linear(hidden).unflatten(-1, (3, -1)).transpose(1, 2)
                      for linear in (attention.query, attention.key))
        return (query @ key.mT / query.shape[-1] ** 0.5)[pairs]

    by_hand = sum((scores(student, s) - scores(teacher, t)).pow(2).mean() for s, t in ((1, 2), (2, 4)))
    torch.testing.assert_close(tinybert.terms(student, teacher, BATCH)["attention"], by_hand)


@pytest.mark.parametrize("recipe", [INTERMEDIATE, PREDICTION])
def test_terms_do_not_see_extra_padding(recipe):
    teacher = model().double()
    student = narrow_student(teacher)
    longer = tinybert.terms(student, teacher, LONGER, recipe)
    for name, term in tinybert.terms(student, teacher, BATCH, recipe).items():
        torch.testing.assert_close(longer[name], term)


def test_gradients_reach_student_and_projection_and_never_the_teacher():
    teacher = model()
    student = narrow_student(teacher)
    sum(tinybert.terms(student, teacher, BATCH).values()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert student.projection.blocks.weight.grad.abs().sum() > 0
    assert student.bert.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0


def test_a_student_that_says_the_same_everywhere_pays_even_with_the_best_projection():
    teacher = model(initializer_range=0.4)
    student = narrow_student(teacher)
    for parameter in (*student.base_model.parameters(), *student.projection.parameters()):
        torch.nn.init.zeros_(parameter)
    assert tinybert.terms(student, teacher, BATCH)["hidden"] > 1.0, "a map on the teacher's side would make this 0"


def test_the_projection_is_scaffolding_that_comes_off():
    teacher = model()
    student = new_student(teacher, layers=2, hidden=6)
    before = count_parameters(student)
    tinybert.attach_projection(student, teacher, maps="shared", bias=True)
    assert count_parameters(student) == before + 6 * 12 + 12
    tinybert.detach_projection(student)
    assert count_parameters(student) == before


def test_a_student_equal_to_its_teacher_has_no_intermediate_loss():
    teacher = model(BertModel)
    for name, term in tinybert.terms(teacher, teacher, BATCH, GENERAL).items():
        assert term.item() == 0.0, name


def test_terms_refuse_what_cannot_be_compared():
    teacher = model()
    with pytest.raises(ValueError, match="train mode"):
        tinybert.terms(narrow_student(teacher), model().train(), BATCH)
    with pytest.raises(ValueError, match="attach_projection"):
        tinybert.terms(new_student(teacher, layers=2, hidden=6), teacher, BATCH)
    with pytest.raises(ValueError, match=r"3 student layers do not divide 4"):
        tinybert.terms(new_student(teacher, layers=3), teacher, BATCH)
    with pytest.raises(ValueError, match="2 heads"):
        tinybert.terms(new_student(teacher, layers=2, heads=2), teacher, BATCH)
    with pytest.raises(ValueError, match="head on both"):
        tinybert.terms(model(BertModel), model(BertModel), BATCH, PREDICTION)


def test_the_tuples_of_transformers_serve_as_well_as_dictionaries():
    generator = torch.Generator().manual_seed(0)
    states = [[torch.randn(2, 4, 6, generator=generator) for _ in range(n + 1)] for n in (2, 4)]
    scores = [[torch.randn(2, 3, 4, 4, generator=generator) for _ in range(n)] for n in (2, 4)]
    layer_map = ((1, 2), (2, 4))
    torch.testing.assert_close(
        tinybert.hidden_over_layers(tuple(states[0]), tuple(states[1]), ((0, 0), *layer_map)),
        sum(((states[0][s] - states[1][t]) ** 2).mean() for s, t in ((0, 0), *layer_map)))
    torch.testing.assert_close(  # entry 0 of the attentions belongs to block 1
        tinybert.attention_over_layers(tuple(scores[0]), tuple(scores[1]), layer_map),
        sum(((scores[0][s - 1] - scores[1][t - 1]) ** 2).mean() for s, t in layer_map))
    with pytest.raises(ValueError, match="no teacher layer 5"):
        tinybert.attention_over_layers(tuple(scores[0]), tuple(scores[1]), ((1, 5),))
