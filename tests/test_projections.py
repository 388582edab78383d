"""Projections: widths, one or two maps, and the collapse of the teacher's side."""

import pytest
import torch

from course_lib.shared.projections import Projection, price_of_collapse


@pytest.fixture
def states():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 4, generator=generator), torch.randn(2, 5, 6, generator=generator)


@pytest.mark.parametrize("side, width", [("student", 6), ("teacher", 4)])
def test_both_sides_end_at_one_width_and_the_other_side_is_untouched(states, side, width):
    student, teacher = Projection(4, 6, side=side)(*states, layer=1)
    assert student.shape == teacher.shape == (2, 5, width)
    assert (teacher is states[1]) == (side == "student") and (student is states[0]) == (side == "teacher")


def test_two_maps_treat_the_embeddings_apart_and_a_shared_one_does_not(states):
    two, shared = Projection(4, 6), Projection(4, 6, maps="shared", bias=True)
    assert not torch.equal(two(*states, layer=0)[0], two(*states, layer=1)[0])
    assert torch.equal(two(*states, layer=1)[0], two(*states, layer=2)[0])
    assert torch.equal(shared(*states, layer=0)[0], shared(*states, layer=1)[0])
    assert sum(p.numel() for p in two.parameters()) == 2 * 4 * 6
    assert sum(p.numel() for p in shared.parameters()) == 4 * 6 + 6


def test_the_map_computes_a_matrix_product(states):
    projection = Projection(4, 6)
    expected = states[0] @ projection.blocks.weight.T
    torch.testing.assert_close(projection(*states, layer=3)[0], expected)


def test_widths_in_the_wrong_order_are_named(states):
    with pytest.raises(ValueError, match=r"Projection\(6, 4\) expects student states of width 6.*\(2, 5, 4\).*order"):
        Projection(6, 4)(*states, layer=2)
    with pytest.raises(ValueError, match=r"teacher states of width 6.*\(2, 5, 4\)"):
        Projection(4, 6)(states[0], states[0], layer=2)


def test_a_wrong_choice_is_refused():
    with pytest.raises(ValueError, match="side"):
        Projection(4, 6, side="both")
    with pytest.raises(ValueError, match="maps"):
        Projection(4, 6, maps="three")


def test_a_frozen_teacher_side_keeps_angles_as_an_orthonormal_map_does(states):
    projection = Projection(4, 6, side="teacher", trainable=False)
    assert not any(p.requires_grad for p in projection.parameters())
    torch.testing.assert_close(projection.blocks.weight @ projection.blocks.weight.T, torch.eye(4))


def train_freely(side, trainable=True, steps=400):
    """Let the student's states themselves be the parameters: which optimum does the loss pull them to?"""
    torch.manual_seed(0)
    teacher = torch.randn(64, 6)
    student = torch.nn.Parameter(torch.randn(64, 4))
    projection = Projection(4, 6, side=side, trainable=trainable)
    optimizer = torch.optim.SGD([student, *projection.parameters()], lr=0.5)
    for _ in range(steps):
        mapped = projection(student, teacher, layer=1)
        loss = (mapped[0] - mapped[1]).pow(2).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return projection, student.detach(), teacher, loss.item()


def test_on_the_teachers_side_a_constant_student_and_a_zero_map_reach_loss_zero():
    projection = Projection(4, 6, side="teacher")
    torch.nn.init.zeros_(projection.blocks.weight)
    student, teacher = projection(torch.zeros(8, 4), torch.randn(8, 6), layer=1)
    assert torch.equal(student, teacher)
    assert price_of_collapse(torch.randn(8, 6), side="teacher") == 0


def test_on_the_students_side_a_constant_student_pays_the_variance_of_the_teacher():
    torch.manual_seed(0)
    teacher = torch.randn(200, 6)
    projection = Projection(4, 6, bias=True)
    torch.nn.init.zeros_(projection.blocks.weight)
    projection.blocks.bias.data = teacher.mean(dim=0)  # the best that a constant student can get
    student, _ = projection(torch.ones(200, 4), teacher, layer=1)
    torch.testing.assert_close((student - teacher).pow(2).mean(), price_of_collapse(teacher))
    assert price_of_collapse(teacher) > 0.5


def test_training_shrinks_a_teacher_side_map_but_not_a_frozen_one():
    trained, _, _, loss = train_freely("teacher")
    frozen, *_ = train_freely("teacher", trainable=False)
    assert loss < 1e-3
    assert trained.blocks.weight.norm() < 0.9 * frozen.blocks.weight.norm()


def test_the_same_seed_gives_the_same_projections_however_often_it_is_built():
    """The order in which two maps draw their start must not depend on where they lie in memory."""
    def built():
        torch.manual_seed(0)
        one = Projection(8, 12, maps="two")
        return torch.cat([one.blocks.weight.flatten(), one.embeddings.weight.flatten()])

    first, keep_alive = built(), []
    for _ in range(20):
        keep_alive.append(torch.empty(1000))
        assert torch.equal(built(), first)


@pytest.mark.parametrize("side, which", [("student", 0), ("teacher", 1)])
def test_one_side_is_mapped_without_the_other_model(states, side, which):
    projection = Projection(4, 6, side=side)
    torch.testing.assert_close(projection.mapped(states[which], layer=2), projection(*states, layer=2)[which])
    with pytest.raises(ValueError, match=f"expects {side} states of width"):
        projection.mapped(states[1 - which], layer=2)


def test_a_projection_never_rounds_the_states(states):
    projection = Projection(4, 6)
    with pytest.raises(ValueError, match=r"float64.*float32.*projection\.to\(torch\.float64\)"):
        projection.mapped(states[0].double(), layer=1)
    assert projection.to(torch.float64).mapped(states[0].double(), layer=1).dtype == torch.float64
    assert Projection(4, 6).mapped(states[0].half(), layer=1).dtype == torch.float32, "raising is no loss"
