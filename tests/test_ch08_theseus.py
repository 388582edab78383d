"""Chapter 8's experiment: arms that differ in the replacing alone, and mixtures that can be measured."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from course_lib.experiments import ch04_pkd as ch04
from course_lib.experiments import ch08_theseus as lab
from course_lib.experiments import sentences
from course_lib.shared.batches import in_order
from course_lib.shared.measures import accuracy, predict_logits

SHIPS = [name for name, arm in lab.ARMS.items() if arm.replacing]
ALL_NEW = "scc0 scc1 scc2"


@pytest.fixture
def small(monkeypatch):
    """A teacher of 6 tiny layers and 64 sentences: the label is whether the first word is large."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=6, num_attention_heads=2, intermediate_size=16, num_labels=2,
        max_position_embeddings=8, initializer_range=0.3)).eval()
    words = np.random.default_rng(0).integers(5, 30, (64, 3)).tolist()
    rows = [{"input_ids": [2, *three, 3], "label": int(three[0] > 17), "teacher_logits": np.array([0.0, 0.1])}
            for three in words]
    for module in (lab, sentences):
        monkeypatch.setattr(module, "teacher", lambda: SimpleNamespace(model=model))
        monkeypatch.setattr(module, "examples", lambda split: rows)
    return model, rows


def first_full_step(schedule):
    return next(step for step in range(10_000) if schedule(step) >= 1)


def test_the_schedules_are_those_that_the_chapter_names():
    half, linear, alone = (lab.ARMS[name].replacing for name in ("Theseus, p=0.5, then 1", "Theseus, linear",
                                                                 lab.CONTROL))
    assert [half.rate_at(step) for step in (0, 149, 150, 299)] == [0.5, 0.5, 1.0, 1.0]
    assert first_full_step(linear.rate_at) == 200 and linear.rate_at(0) == 0.3
    assert all(alone.rate_at(step) == 1 for step in range(300))
    assert lab.ARMS["one draw for all"].replacing == half


@pytest.mark.parametrize("steps", [60, 120, 3000])
def test_a_stretched_schedule_is_full_at_the_same_share_of_the_run(steps):
    for name, share in (("Theseus, p=0.5, then 1", 1 / 2), ("Theseus, linear", 2 / 3)):
        recipe = lab.stretched(lab.ARMS[name].replacing, steps)
        assert first_full_step(recipe.rate_at) == pytest.approx(share * steps, abs=1)


def test_a_successor_under_replacing_learns_less_and_the_control_learns_everything():
    assert lab.share_learned(lab.ARMS[lab.CONTROL].replacing) == (1, pytest.approx(1))
    batches, learning = lab.share_learned(lab.HALF)
    assert batches == pytest.approx(0.75) and learning < batches  # the rate of learning falls while p rises


def test_the_ships_start_alike_and_the_same_weights_learn(small):
    first, *others = (lab.build(lab.ARMS[name].replacing) for name in SHIPS)
    learning = {name for name, p in first.named_parameters() if p.requires_grad}
    assert learning and all(".successor." in name for name in learning)
    for ship in others:
        assert {name for name, p in ship.named_parameters() if p.requires_grad} == learning
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), ship.parameters(), strict=True))


def test_the_paths_of_a_run_are_mixed_except_where_they_must_not_be(small):
    seen = {}
    for name in SHIPS:
        lab.train_ship(lab.ARMS[name], seed=0, steps=24, paths=(paths := []))
        assert len(paths) == 24
        seen[name] = paths
    assert set(seen[lab.CONTROL]) == {ALL_NEW}
    assert set(seen["one draw for all"]) == {ALL_NEW, "prd0 prd1 prd2 prd3 prd4 prd5"}
    for name in ("Theseus, p=0.5, then 1", "Theseus, linear"):
        assert any("prd" in path and "scc" in path for path in seen[name])
        assert set(seen[name][-8:]) == {ALL_NEW}
    lab.train_ship(lab.ARMS["Theseus, linear"], seed=0, steps=24, paths=(again := []))
    assert again == seen["Theseus, linear"], "the mistake of the last arm was switched off, and the seed decides"


def test_the_first_path_is_the_teacher_and_the_last_one_the_student(small):
    model, rows = small
    ship, _ = lab.train_ship(lab.ARMS["Theseus, linear"], seed=0, steps=6)
    found = lab.path_accuracies(ship)
    labels = torch.tensor([row["label"] for row in rows[::2]])
    (first, teachers), *_, (last, students) = found.items()
    assert len(found) == 8 and (first, last) == ("prd0 prd1 prd2 prd3 prd4 prd5", ALL_NEW)
    for shown, whose in ((teachers, model), (students, ship.to_successor_model())):
        assert shown == pytest.approx(100 * accuracy(predict_logits(whose, in_order(rows[::2])), labels), abs=0.01)


def test_swapped_is_measured_where_there_is_something_to_swap(small, monkeypatch):
    monkeypatch.setattr(lab, "scores", lambda model: {"accuracy": float(model.config.num_hidden_layers)})
    monkeypatch.setattr(lab, "train_ship", lambda arm, seed: (lab.build(arm.replacing), None))
    for name in SHIPS:
        assert lab.run(name, 0).keys() == {"accuracy", "swapped"} and lab.run(name, 0)["accuracy"] == 3


def test_the_baselines_are_those_of_chapter_4_trained_alike():
    assert set(lab.ARMS) - set(SHIPS) == set(lab.BORROWED)
    assert all((source, arm) == ("ch04", name) for name, (source, arm) in lab.BORROWED.items())
    assert ch04.RECIPE == sentences.RECIPE and ch04.half_depth is sentences.half_depth
