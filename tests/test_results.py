"""Measured numbers: nothing is lost, nothing old is kept, and a verdict needs an interval."""

from __future__ import annotations

import json
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from course_lib.experiments import measuring, records
from course_lib.notebook.results import Claims
from course_lib.shared import statistics
from course_lib.shared.statistics import Prediction, pack


class PoolHere:
    """Runs at once in this process, so that a fake experiment needs no pickling."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """An experiment that counts its runs: arm "b" is one better than arm "a", whatever the seed."""
    module = SimpleNamespace(ABOUT="fake", SEEDS=range(5), ARMS={"a": {"lr": 1.0}, "b": {"lr": 2.0}}, ran=[],
                             prepare=lambda: None)

    def run(arm, seed):
        module.ran.append((arm, seed))
        return {"accuracy": seed + (1.0 if arm == "b" else 0.0)}

    module.run = run
    monkeypatch.setattr(measuring, "experiment", lambda name: module)
    monkeypatch.setattr(measuring, "ProcessPoolExecutor", PoolHere)
    monkeypatch.setattr(records, "DATA", tmp_path)
    return module


def test_a_second_call_measures_nothing_again(fake):
    measuring.measure("ch99")
    assert len(fake.ran) == 10
    measuring.measure("ch99")
    assert len(fake.ran) == 10


def test_an_arm_with_a_layer_map_is_not_measured_again(fake):
    fake.ARMS = {"a": {"layer_map": ((1, 2), (2, 4))}}
    measuring.measure("ch99")
    measuring.measure("ch99")
    assert len(fake.ran) == 5


def test_a_run_that_fails_is_raised_and_the_others_are_kept(fake):
    whole = fake.run

    def dies(arm, seed):
        if (arm, seed) == ("b", 2):
            raise MemoryError("not enough")
        return whole(arm, seed)

    fake.run = dies
    with pytest.raises(MemoryError):
        measuring.measure("ch99")
    assert len(records.load("ch99")["runs"]) == 9
    fake.run = whole
    fake.ran.clear()
    record = measuring.measure("ch99")
    assert fake.ran == [("b", 2)]
    assert [(r["arm"], r["seed"]) for r in record["runs"]] == [(a, s) for a in "ab" for s in range(5)]


def test_an_arm_that_changed_is_measured_anew_and_a_removed_one_is_dropped(fake):
    measuring.measure("ch99")
    fake.ran.clear()
    fake.ARMS = {"b": {"lr": 3.0}}
    record = measuring.measure("ch99")
    assert fake.ran == [("b", s) for s in range(5)] and {r["arm"] for r in record["runs"]} == {"b"}


def test_an_arm_that_another_experiment_measured_is_taken_over_and_follows_it(fake, monkeypatch):
    measuring.measure("ch99")
    fake.ran.clear()
    guest = SimpleNamespace(**vars(fake) | {"ARMS": {"mine": {"lr": 9.0}, "theirs": {}},
                                            "BORROWED": {"theirs": ("ch99", "b")}})
    monkeypatch.setattr(measuring, "experiment", lambda name: guest if name == "ch98" else fake)
    record = measuring.measure("ch98")
    assert fake.ran == [("mine", s) for s in range(5)]
    assert records.values("ch98", "theirs", "accuracy") == records.values("ch99", "b", "accuracy")
    assert {r["arm"]: r.get("measured_in") for r in record["runs"]} == {"mine": None, "theirs": "ch99"}
    fake.run = lambda arm, seed: {"accuracy": 50.0}
    fake.ARMS = {"b": {"lr": 7.0}}
    measuring.measure("ch99")
    measuring.measure("ch98")
    assert records.values("ch98", "theirs", "accuracy") == [50.0] * 5
    guest.BORROWED = {"theirs": ("ch99", "a")}
    with pytest.raises(ValueError, match=r"'theirs' is 'a' of ch99, which has 0 of 5 runs"):
        measuring.measure("ch98")


def test_a_profile_is_measured_after_the_runs_and_again_when_an_arm_changes(fake):
    looks = []
    fake.profile = lambda: looks.append(len(fake.ran)) or {"look": len(looks)}
    measuring.measure("ch99")
    measuring.measure("ch99")
    assert looks == [10] and records.load("ch99")["profile"] == {"look": 1}
    fake.ARMS = {"a": {"lr": 1.0}}
    measuring.measure("ch99")
    assert looks == [10, 10] and records.load("ch99")["profile"] == {"look": 2}


def test_pairs_are_made_by_seed_and_the_interval_decides(fake):
    measuring.measure("ch99")
    baseline, other = records.summary("ch99", "accuracy", baseline="a")
    assert baseline.gain is None and "the baseline" in str(baseline)
    # The seeds differ by 4 points, the arms by exactly 1: only the pairing can show it.
    assert other.gain.verdict == "better" and other.gain.interval.mean == 1.0


def test_a_poll_has_a_leader_only_where_the_pairs_show_it(fake):
    measuring.measure("ch99")
    options = {"x": "a", "y": "b"}
    assert records.leader("ch99", options, "z") == (
        "y", "The two best are 'b' and 'a'; they differ by 1.00 points, interval +1.00 to +1.00.")
    letter, said = records.leader("ch99", options, "z", lowest=True)
    assert letter == "x" and said.startswith("The two lowest are 'a' and 'b'; they differ by 1.00 points")
    fake.ARMS = {"a": {}, "b": {}}  # changed, so measured anew: now the seeds disagree
    fake.run = lambda arm, seed: {"accuracy": float(seed % 2 == (arm == "b"))}
    measuring.measure("ch99")
    assert records.leader("ch99", options, "z")[0] == "z"


def test_missing_numbers_name_the_command_that_makes_them(fake):
    with pytest.raises(FileNotFoundError, match=r"python -m course_lib\.experiments ch99"):
        records.load("ch99")
    measuring.measure("ch99")
    with pytest.raises(ValueError, match="no run of 'c'; it has a, b"):
        records.values("ch99", "c", "accuracy")


NOT_YET = {"ch01long", "ch01topics", "ch01all", "ch04few"}  # predicted, not measured; a name leaves with its record
NAMES = [name for name in measuring.names() if name not in NOT_YET]


def test_an_experiment_has_a_record_or_is_named_as_not_yet_measured():
    without = {name for name in measuring.names() if not records.path_of(name).exists()}
    assert without == NOT_YET


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_results_are_complete_and_of_the_present_arms(name):
    module, record = measuring.experiment(name), records.load(name)
    from dataclasses import asdict

    assert record["arms"] == json.loads(json.dumps({arm: asdict(s) for arm, s in module.ARMS.items()}))
    assert len(module.SEEDS) >= 5
    expected = [(arm, seed) for arm in module.ARMS for seed in module.SEEDS]
    assert [(r["arm"], r["seed"]) for r in record["runs"]] == expected
    assert record["command"] == f"python -m course_lib.experiments {name}" and record["where"]["torch"]
    assert [r for r in record["runs"] if r["arm"] in getattr(module, "BORROWED", {})] == measuring._borrowed(module)


def test_an_unknown_chapter_lists_the_known_ones():
    with pytest.raises(ValueError, match="ch01"):
        measuring.experiment("ch77")


class TestClaims:
    """Arm "soft" is right a little more often than "labels", at 100 steps or more; "labels" is best at 10."""

    @pytest.fixture
    def claims(self, fake):
        fake.SEEDS, fake.TRIAL_SEEDS = range(4), range(2)
        fake.ARMS = {"labels": {"lr": 1.0}, "soft": {"lr": 2.0}}
        fake.TRIALS = [{"steps": 10}, {"steps": 100}]
        fake.PREDICTIONS = [Prediction("soft answers help", "soft", "labels", "+")]

        def run(arm, seed, trial):
            fake.ran.append((arm, seed, trial["steps"]))
            share = {"labels": 0.70, "soft": 0.80}[arm]
            right = np.random.default_rng(seed).random(1000) < share
            best = {"labels": 10, "soft": 100}[arm]
            return {"validation": 60.0 + seed + 5 * (trial["steps"] == best), "right": {"accuracy": pack(right)}}

        fake.run = run
        return fake

    def test_every_arm_tries_the_same_list_and_goes_on_with_its_best(self, claims):
        record = measuring.measure("ch99")
        assert record["chosen"] == {"labels": {"steps": 10}, "soft": {"steps": 100}}
        assert sorted(claims.ran) == sorted(
            [(arm, seed, steps) for arm in claims.ARMS for seed in range(2) for steps in (10, 100)]
            + [("labels", 2, 10), ("labels", 3, 10), ("soft", 2, 100), ("soft", 3, 100)])
        assert [(r["arm"], r["seed"], r["trial"]["steps"]) for r in record["runs"]] == [
            ("labels", s, 10) for s in range(4)] + [("soft", s, 100) for s in range(4)]

    def test_a_second_call_measures_nothing_again(self, claims):
        first = measuring.measure("ch99")
        claims.ran.clear()
        assert measuring.measure("ch99") == first and claims.ran == []

    def test_another_list_of_trials_chooses_again(self, claims):
        measuring.measure("ch99")
        claims.ran.clear()
        claims.TRIALS = [{"steps": 10}, {"steps": 1000}]
        record = measuring.measure("ch99")
        assert record["chosen"]["soft"] == {"steps": 10} and len(record["trials"]) == 8
        assert {r["trial"]["steps"] for r in record["runs"]} == {10}
        assert {steps for _, _, steps in claims.ran} == {10, 1000}  # 100 is no trial any more, and is not run

    def test_the_verdict_is_that_of_the_packed_answers(self, claims):
        record = measuring.measure("ch99")
        (found,) = record["predictions"]
        right = {arm: records.right("ch99", arm) for arm in claims.ARMS}
        gain = statistics.gain(right["soft"], right["labels"])
        assert found["gain"] == [gain.mean, gain.low, gain.high] and found["verdict"] == gain.verdict == "better"
        assert found["as_predicted"] and records.predictions("ch99") == [found]
        shown = records.claims("ch99")["soft answers help"]
        assert (shown.interval.mean, shown.interval.low, shown.verdict) == (gain.mean, gain.low, "better")
        assert "better" in repr(Claims([("soft answers help", "yes", shown)]))

    def test_an_arm_without_its_runs_is_not_judged(self, claims):
        record = measuring.measure("ch99")
        record["runs"].pop()
        assert measuring.judge(record, claims.PREDICTIONS, 4) == []


@pytest.mark.parametrize("name", [n for n in NAMES if "predictions" in records.load(n)])
def test_every_verdict_in_the_repository_follows_from_the_packed_answers(name):
    record, module = records.load(name), measuring.experiment(name)
    assert record["predictions"] == measuring.judge(record, module.PREDICTIONS, len(module.SEEDS))
    for run in record["runs"] + record["trials"]:
        assert round(100 * statistics.unpack(run["right"]["accuracy"]).mean(), 2) == run["accuracy"]
    for arm, trial in record["chosen"].items():
        if all(any(r["arm"] == arm and r["trial"] == t and r["seed"] == s for r in record["trials"])
               for t in module.TRIALS for s in module.TRIAL_SEEDS):
            assert trial == measuring.chosen(record["trials"], arm, module.TRIALS)
