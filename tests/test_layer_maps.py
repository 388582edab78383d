"""Layer maps: the published pairs, the refusals, the conversions."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import oracle

from course_lib.shared import layer_maps


def teachers(layer_map):
    return [teacher for _, teacher in layer_map]


def test_pkd_skip_takes_every_second_layer_and_leaves_the_last_one_out():
    assert layer_maps.skip(6, 12) == ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10))
    assert layer_maps.skip(3, 12) == ((1, 4), (2, 8))


def test_pkd_last_takes_the_layers_before_the_last_one():
    assert layer_maps.last(6, 12) == ((1, 7), (2, 8), (3, 9), (4, 10), (5, 11))
    assert layer_maps.last(3, 12) == ((1, 10), (2, 11))


def test_pkd_skip_equals_the_indices_of_the_original_code():
    params = oracle("pkd/patience_skip/norm").params
    converted = layer_maps.from_zero_based_blocks(params["student_layers_0based"], params["teacher_layers_0based"])
    assert layer_maps.skip(6, 12) == converted


@pytest.mark.parametrize("name", ["tinybert/intermediate/12to4", "tinybert/intermediate/4to4"])
def test_tinybert_uniform_equals_both_lists_of_the_original_code(name):
    params = oracle(name).params
    mapped = layer_maps.uniform(params["student_layers"], params["teacher_layers"])
    assert teachers(mapped) == params["rep_map"]
    assert layer_maps.to_zero_based_blocks(layer_maps.blocks_only(mapped))[1] == params["att_map_0based"]


def test_tinybert_top_and_bottom_keep_the_embeddings_on_the_embeddings():
    assert layer_maps.top(4, 12) == ((0, 0), (1, 9), (2, 10), (3, 11), (4, 12))
    assert layer_maps.bottom(4, 12) == ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4))


def test_distilbert_code_copies_the_layers_of_the_published_script():
    zero_based = layer_maps.to_zero_based_blocks(layer_maps.distilbert(6, 12, as_in="code"))[1]
    oracle("distilbert/student_init_layers").check("teacher_layers_0based", zero_based)


def test_distilbert_paper_copies_one_layer_out_of_two():
    assert teachers(layer_maps.distilbert(6, 12)) == [1, 3, 5, 7, 9, 11]
    assert teachers(layer_maps.distilbert(3, 6)) == [1, 3, 5]


def test_theseus_groups_give_every_teacher_block_to_one_student_block():
    assert layer_maps.groups(3, 6) == ((1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6))
    assert layer_maps.groups(2, 2) == ((1, 1), (2, 2))
    with pytest.raises(ValueError, match="do not divide"):
        layer_maps.groups(4, 6)


@pytest.mark.parametrize("student, teacher, expected", [(3, 6, [1, 3, 6]), (4, 12, [1, 5, 8, 12]), (1, 6, [1]),
                                                        (2, 6, [1, 6]), (6, 6, [1, 2, 3, 4, 5, 6])])
def test_distilbert_code_spacing_keeps_both_ends_at_other_depths(student, teacher, expected):
    assert teachers(layer_maps.distilbert(student, teacher, as_in="code")) == expected


@pytest.mark.parametrize("preset", [layer_maps.skip, layer_maps.uniform, layer_maps.distilbert])
def test_depths_that_do_not_divide_are_refused_with_the_depths_that_do(preset):
    with pytest.raises(ValueError, match=r"5 student layers do not divide 12 .*\[1, 2, 3, 4, 6, 12\]"):
        preset(5, 12)


def test_rounding_reaches_the_top_of_the_teacher_where_the_floor_of_the_original_does_not():
    assert teachers(layer_maps.uniform(5, 12, when_uneven="round")) == [0, 2, 5, 7, 10, 12]
    assert teachers(layer_maps.uniform(4, 6, when_uneven="round")) == [0, 1, 3, 4, 6]  # 1.5 goes down to 1, 4.5 to 4


@given(st.integers(2, 12), st.integers(0, 12))
def test_every_preset_gives_a_valid_map_that_rises_on_both_sides(student, more):
    teacher = student + more
    for mapped in (
        layer_maps.skip(student, teacher, when_uneven="round"),
        layer_maps.last(student, teacher),
        layer_maps.uniform(student, teacher, when_uneven="round"),
        layer_maps.top(student, teacher),
        layer_maps.bottom(student, teacher),
        layer_maps.distilbert(student, teacher, when_uneven="round"),
        layer_maps.distilbert(student, teacher, as_in="code"),
    ):
        assert layer_maps.check(mapped, student, teacher) == mapped
        for one, other in pairwise(mapped):
            assert one[0] < other[0] and one[1] < other[1]


@pytest.mark.parametrize("layer_map, index, side", [([(1, 13)], 13, "teacher"), ([(7, 2)], 7, "student"),
                                                    ([(0, -1)], -1, "teacher")])
def test_an_impossible_index_is_named_with_both_depths_and_the_valid_range(layer_map, index, side):
    valid = {"student": r"0\.\.6", "teacher": r"0\.\.12"}[side]
    with pytest.raises(ValueError, match=rf"no {side} layer {index}\..*6 layers.*12; valid {side} layers are {valid}"):
        layer_maps.check(layer_map, 6, 12)


@pytest.mark.parametrize("layer_map, message", [([], "empty"), ([(1, 2), (1, 2)], "more than once"),
                                                ([(1, 2, 3)], "pair"), ([(1.0, 2)], "pair"), ([(True, 2)], "pair")])
def test_maps_that_mean_nothing_are_refused(layer_map, message):
    with pytest.raises(ValueError, match=message):
        layer_maps.check(layer_map, 6, 12)


def test_one_student_layer_may_learn_from_two_teacher_layers():
    assert layer_maps.check([(1, 2), (1, 3)], 6, 12) == ((1, 2), (1, 3))


def test_a_student_deeper_than_its_teacher_and_a_too_shallow_one_are_refused():
    with pytest.raises(ValueError, match="deeper"):
        layer_maps.top(6, 4)
    with pytest.raises(ValueError, match="last layer is left out"):
        layer_maps.skip(1, 12)


def test_block_lists_convert_both_ways_and_refuse_what_cannot_be_converted():
    pairs = layer_maps.from_zero_based_blocks([0, 1], [5, 11])
    assert pairs == ((1, 6), (2, 12))
    assert layer_maps.to_zero_based_blocks(pairs) == ([0, 1], [5, 11])
    with pytest.raises(ValueError, match="blocks_only"):
        layer_maps.to_zero_based_blocks(layer_maps.uniform(2, 4))
    with pytest.raises(ValueError, match="cannot be paired"):
        layer_maps.from_zero_based_blocks([0, 1], [5])
    with pytest.raises(ValueError, match="negative"):
        layer_maps.from_zero_based_blocks([0], [-1])
