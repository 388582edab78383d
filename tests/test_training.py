"""The loop: exact resumption, early stopping, and stops that say why."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib.shared import training
from course_lib.shared.files import write_atomically
from course_lib.shared.training import Recipe, TrainingDiverged, rate_factor, train

RECIPE = Recipe(steps=12, learning_rate=1e-2, save_every=3, log_every=2)


def small_student(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 2))


class Draws:
    """Batches that are drawn when they are asked for, as masked-LM batches are."""

    def __getitem__(self, step):
        return {"x": torch.randn(6, 4), "labels": torch.randint(2, (6,))}


def terms(student, batch):
    logits = student(batch["x"])
    return {"hard": nn.functional.cross_entropy(logits, batch["labels"]), "small": 1e-3 * logits.pow(2).mean()}


def weights(student):
    return torch.cat([t.flatten().double() for t in student.state_dict().values()])


def test_the_same_seed_gives_the_same_run_whatever_happened_before():
    first, second = small_student(), small_student()
    history = train(first, Draws(), terms, RECIPE)
    torch.randn(1000)
    assert train(second, Draws(), terms, RECIPE).steps == history.steps
    assert torch.equal(weights(first), weights(second))
    assert [row["step"] for row in history.steps] == list(range(12))


def test_another_seed_gives_another_run():
    first, second = small_student(), small_student()
    train(first, Draws(), terms, RECIPE)
    train(second, Draws(), terms, replace(RECIPE, seed=1))
    assert not torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("killed_at", [2, 3, 7, 11])
def test_a_killed_and_resumed_run_ends_like_an_uninterrupted_one(tmp_path, killed_at):
    def scores(student):
        student.eval()
        return {"accuracy": -float(weights(student).abs().sum()) % 1}

    recipe = replace(RECIPE, evaluate_every=2, patience=50)
    whole = small_student()
    history = train(whole, Draws(), terms, recipe, evaluate=scores)

    class Killed(Exception):
        pass

    class Killing(Draws):
        def __getitem__(self, step):
            if step == killed_at:
                raise Killed
            return super().__getitem__(step)

    halves = small_student()
    with pytest.raises(Killed):
        train(halves, Killing(), terms, recipe, evaluate=scores, folder=tmp_path)
    # A new process builds its student again; after the first checkpoint its weights come from the file.
    halves = small_student(seed=99 if killed_at >= recipe.save_every else 0)
    assert train(halves, Draws(), terms, recipe, evaluate=scores, folder=tmp_path) == history
    assert torch.equal(weights(halves), weights(whole))


def test_a_folder_of_another_run_is_refused(tmp_path):
    train(small_student(), Draws(), terms, RECIPE, folder=tmp_path)
    with pytest.raises(ValueError, match="learning_rate"):
        train(small_student(), Draws(), terms, replace(RECIPE, learning_rate=1.0), folder=tmp_path)


def test_frozen_weights_stay_and_are_not_in_the_checkpoint(tmp_path):
    student = small_student()
    student[0].requires_grad_(False)
    before = student[0].weight.clone()
    train(student, Draws(), terms, RECIPE, folder=tmp_path)
    assert torch.equal(student[0].weight, before)
    from safetensors.torch import load_file

    assert not any(name.startswith("student.0.") for name in load_file(tmp_path / "checkpoint.safetensors"))


def test_gradients_of_a_part_outside_the_optimiser_do_not_pile_up():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    batches = [{"x": torch.ones(6, 4), "labels": torch.zeros(6, dtype=torch.long)}] * 6
    still = [{"params": list(student[1].parameters()), "lr": 0.0}]  # nothing moves, so every step sees one gradient
    norms = [row["gradient_norm"] for row in train(student, batches, terms, Recipe(steps=6), parameters=still).steps]
    assert norms == pytest.approx([norms[0]] * 6)


def test_an_evaluation_does_not_switch_dropout_off_for_the_steps_after_it():
    modes = []

    def watched(student, batch):
        modes.append(student.training)
        return terms(student, batch)

    def scores(student):
        student.eval()
        return {"accuracy": 0.0}

    train(small_student(), Draws(), watched, replace(RECIPE, evaluate_every=3), evaluate=scores)
    assert modes == [True] * 12


def test_early_stopping_puts_the_best_weights_back():
    marks, kept = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.5]), []

    def scores(student):
        kept.append(weights(student))
        return {"accuracy": next(marks)}

    student = small_student()
    history = train(student, Draws(), terms, replace(RECIPE, evaluate_every=2, patience=2), evaluate=scores)
    assert [s["accuracy"] for s in history.scores] == [0.5, 0.9, 0.8, 0.7]
    assert torch.equal(weights(student), kept[1])


BAD_VALUES = [(float("nan"), "not a number"), (float("inf"), "inf"), (1e6, "1e\\+0[56]")]


@pytest.mark.parametrize(("poison", "word"), BAD_VALUES)
def test_a_bad_loss_stops_with_step_term_and_cause(poison, word):
    def poisoned(student, batch):
        losses = terms(student, batch)
        if float(batch["x"].sum()) and poisoned.step == 7:
            losses["small"] = losses["small"] * 0 + poison
        poisoned.step += 1
        return losses

    poisoned.step = 0
    with pytest.raises(TrainingDiverged, match=f"step 7: 'small' is {word}.*learning rate"):
        train(small_student(), Draws(), poisoned, RECIPE)


def test_weights_that_are_nan_before_the_start_are_named():
    student = small_student()
    student[3].weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingDiverged, match=r"'3\.weight' holds NaN.*before the first step"):
        train(student, Draws(), terms, RECIPE)


def test_the_rate_warms_up_and_falls_to_nearly_zero():
    recipe = Recipe(steps=100, warmup=0.1)
    factors = [rate_factor(step, recipe) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[10] == 1.0
    assert 0 < factors[99] < 0.02 and factors[10:] == sorted(factors[10:], reverse=True)
    assert rate_factor(99, replace(recipe, schedule="constant")) == 1.0


def test_groups_keep_their_own_rate():
    student = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    before = [layer.weight.clone() for layer in student]
    train(student, Draws(), terms, Recipe(steps=3, learning_rate=1e-2, weight_decay=0.0), parameters=[
        {"params": list(student[0].parameters()), "lr": 0.0}, {"params": list(student[1].parameters())}])
    assert torch.equal(student[0].weight, before[0]) and not torch.equal(student[1].weight, before[1])


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def disk_full(unfinished):
        unfinished.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"file\.txt could not be written.*No space left.*untouched"):
        write_atomically(path, disk_full)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_bf16_is_used_where_it_was_asked_for():
    with training.autocast("bf16"):
        assert (torch.randn(4, 4) @ torch.randn(4, 4)).dtype == torch.bfloat16
    with training.autocast("fp32"):
        assert (torch.randn(4, 4) @ torch.randn(4, 4)).dtype == torch.float32
