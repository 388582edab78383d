"""The mistakes can be switched on, do something, are gone afterwards, and the runner notices a missing test."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from course_lib.methods import hinton, tinybert_augmentation
from course_lib.methods.hinton import soft_target_loss  # a name that was bound long before any mutant
from course_lib.mistakes import MUTANTS, Edit, edited, mutant
from course_lib.mistakes.patching import _compiled, function_at
from course_lib.shared import probes

ROOT = Path(__file__).parent.parent
STUDENT, TEACHER = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([[3.0, -1.0, 0.0]])


def loss(temperature=2.0):
    return soft_target_loss(STUDENT, TEACHER, temperature=temperature).item()


# ------------------------------------------------------------------------------------------ the catalogue


def test_the_catalogue_holds_the_known_mistakes():
    asked = {
        "teacher_compared_with_itself", "reduction_mean", "missing_t_squared", "kl_arguments_swapped",
        "probs_as_log_probs", "teacher_left_in_train_mode", "no_no_grad", "padding_in_hidden_mse", "off_by_one_layer",
        "probabilities_for_scores", "softmax_twice", "mask_not_passed", "layers_shared_with_the_teacher",
        "t_squared_dropped_at_alpha_0", "cosine_over_padding", "value_relation_without_mask",
        "one_draw_for_all_modules", "replacement_jumps_to_1", "labels_at_unmasked_positions", "untied_head",
        "teacher_side_projection", "cache_zipped_with_shuffled_data", "inverted_augmentation_mask",
        "pair_rows_mutated", "frozen_by_omission"}
    assert asked <= MUTANTS.keys()
    assert sum(found.source is not None for found in MUTANTS.values()) >= 24, "real mistakes have public sources"


@pytest.mark.parametrize("name", MUTANTS)
def test_an_entry_says_everything(name):
    found = MUTANTS[name]
    assert re.fullmatch("[a-z0-9_]+", name) and re.fullmatch(r"ch\d\d", found.chapter)
    assert found.mistake.endswith(".") and found.symptom.endswith(".")
    assert found.source is None or len(found.source) > 10
    assert found.tests and all((ROOT / test).is_file() for test in found.tests)
    assert found.measured and found.diff().count("\n- ") >= len(found.edits)


# ------------------------------------------------------------------------------------------ on and off


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_changes_its_number_and_is_gone_afterwards(name):
    found = MUTANTS[name]
    functions = [function_at(where) for where in found.patches]
    codes = [function.__code__ for function in functions]
    right = found.value()
    with mutant(name):
        wrong = found.value()
        assert all(function.__code__ is not code for function, code in zip(functions, codes, strict=True))
    assert all(function.__code__ is code for function, code in zip(functions, codes, strict=True))
    assert abs(right - wrong) > 1e-3 * max(1.0, abs(right)), f"{found.measured}: {right} and {wrong}"
    assert found.value() == right


def test_names_that_were_imported_earlier_run_the_mistake_too():
    right = loss()
    with mutant("missing_t_squared"):
        assert loss() == pytest.approx(right / 4)
        assert hinton.LOGIT_LOSSES["soft_only"](STUDENT, TEACHER, None, temperature=2.0) == pytest.approx(right / 4)
    assert loss() == right


def test_rows_that_are_changed_in_place_end_as_in_the_original_code(monkeypatch):
    monkeypatch.setattr(tinybert_augmentation, "augment", lambda texts, **_: [[2 * t, 3 * t] for t in texts])

    def written():
        return [row["text"] + "|" + row["text_pair"] for row in tinybert_augmentation.augment_rows(
            [{"text": "a", "text_pair": "b"}], ("text", "text_pair"))]

    assert written() == ["a|b", "aa|b", "aaa|b", "a|bb", "a|bbb"]
    with mutant("pair_rows_mutated"):
        assert written() == ["a|b", "aa|b", "aaa|b", "aaa|bb", "aaa|bbb"]


def test_an_exception_switches_the_mistake_off():
    right = loss()
    with pytest.raises(KeyError), mutant("missing_t_squared"):
        raise KeyError
    assert loss() == right


def test_nested_mistakes_add_up_and_leave_in_order():
    right = loss()
    with mutant("missing_t_squared"):
        with mutant("reduction_mean"):  # another function
            assert loss() == pytest.approx(right / 4 / 3)
            with mutant("missing_t_squared"):  # a second time: no change, and no harm
                assert loss() == pytest.approx(right / 4 / 3)
            assert loss() == pytest.approx(right / 4 / 3)
        assert loss() == pytest.approx(right / 4)
    assert loss() == right
    with mutant("temperature_for_the_student_only"):
        wrong = loss()
        with mutant("missing_t_squared"):  # the same function
            assert loss() == pytest.approx(wrong / 4)
        assert loss() == wrong != right


def test_two_mistakes_in_one_line_are_refused_and_the_first_one_stays():
    right = loss()
    with mutant("reduction_mean"):
        with pytest.raises(ValueError, match="another mutant is active"), mutant("batchmean_per_sentence"):
            pass
        assert loss() == pytest.approx(right / 3)
    assert loss() == right


def test_an_edit_that_no_longer_fits_changes_nothing():
    where = "course_lib.methods.hinton:soft_target_loss"
    code = soft_target_loss.__code__
    edits = (Edit(where, "loss / temperature**2", "loss * 0 / temperature**2"),
             Edit("course_lib.methods.hinton:hard_loss", "a line that is not there", ""))
    with pytest.raises(ValueError, match="the library changed"), edited(edits):
        pass
    assert soft_target_loss.__code__ is code
    with mutant("missing_t_squared"):  # the failed edits are forgotten
        assert loss() > 0


def test_a_decorator_stays_in_force_around_the_edited_function():
    class Answer(torch.nn.Linear):
        def forward(self, input_ids):
            return SimpleNamespace(logits=super().forward(input_ids))

    model = Answer(2, 2).eval()
    edit = Edit("course_lib.shared.probes:teacher_logits_of", "return logits_of(teacher, batch)",
                "return 2 * logits_of(teacher, batch)")
    batch = {"input_ids": torch.ones(1, 2)}
    right = probes.teacher_logits_of(model, batch)
    with edited([edit]):
        wrong = probes.teacher_logits_of(model, batch)
    torch.testing.assert_close(wrong, 2 * right)
    assert not wrong.requires_grad


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match="missing_t_squared"), mutant("missing_t_square"):
        pass


def test_importing_the_catalogue_changes_nothing():
    for where in {where for found in MUTANTS.values() for where in found.patches}:
        function = function_at(where)
        assert function.__code__ == _compiled(function, []), where


# ------------------------------------------------------------------------------------------ the runner


def test_a_sample_is_caught_and_a_mutant_that_no_test_notices_turns_the_run_red():
    names = ["last_layer_in_patience", "zero_based_blocks_as_layers", "missing_t_squared"]  # the last: no layer map
    ended = subprocess.run([sys.executable, "tools/mistakes.py", *names, "--tests", "tests/test_layer_maps.py"],
                           cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    for name in names[:2]:
        assert re.search(rf"ok +{name} .*test_layer_maps\.py::", ended.stdout), ended.stdout
    assert re.search(r"RED +missing_t_squared .*SURVIVED: a test is missing", ended.stdout)
    assert "2 of 3 mutants caught" in ended.stdout and "without any mutant" not in ended.stdout


@pytest.fixture
def runner(monkeypatch):
    specification = importlib.util.spec_from_file_location("mutants_runner", ROOT / "tools" / "mistakes.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "mutants_runner", module)
    specification.loader.exec_module(module)
    for name in ("ENVIRONMENT", "import_everything"):
        monkeypatch.setattr(module, name, {} if name == "ENVIRONMENT" else lambda: None)
    return module


def answers(runner, monkeypatch, **outcome):
    """Let the runner believe that each fork came to the given verdict; the control run has the name ''."""
    def judge(jobs, workers=1):
        for name, tests in jobs.items():
            assert tests == (MUTANTS[name].tests if name else ["tests/a.py::b"])
            killed_by, trouble = outcome.get(name or "control", (None, ""))
            yield runner.Verdict(name, killed_by, 0.1, trouble)
    monkeypatch.setattr(runner, "judge", judge)
    return runner.main(["untied_head"])


def test_a_test_that_fails_anyway_catches_nothing(runner, monkeypatch, capsys):
    assert answers(runner, monkeypatch, untied_head=("tests/a.py::b", "")) == 0
    assert answers(runner, monkeypatch, untied_head=("tests/a.py::b", ""), control=("tests/a.py::b", "")) == 1
    shown = capsys.readouterr().out
    assert shown.count("1 of 1 mutants caught") == 2 and shown.count("always fails catches nothing") == 1


def test_tests_that_cannot_run_catch_nothing(runner, monkeypatch, capsys):
    assert answers(runner, monkeypatch, untied_head=(None, "tests/a.py could not be collected")) == 1
    assert answers(runner, monkeypatch, untied_head=("tests/a.py::b", "the process died")) == 1
    assert "TROUBLE" in capsys.readouterr().out


def test_an_unknown_mutant_is_named(runner, capsys):
    assert runner.main(["comma"]) == 2
    assert "'comma'" in capsys.readouterr().err
