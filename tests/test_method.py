"""One record per method: what it promises is true, and a new one appears everywhere by being written once."""

from __future__ import annotations

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from able_teachers import able
from datasets import Dataset, DatasetDict
from test_results import PoolHere
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from course_lib.__main__ import main
from course_lib.distill import Settings, distill
from course_lib.experiments import ch10_comparison as comparison
from course_lib.experiments import described, measuring, records, sentences
from course_lib.experiments.speed import cost, training_cost
from course_lib.material.teachers import Teacher
from course_lib.methods import cached, hinton, pkd
from course_lib.methods.table import METHODS
from course_lib.shared import probes
from course_lib.shared.batches import encode, pad
from course_lib.shared.method import CLASSIFICATION, Compared, Job, Method, Stage, Step, Training, only_logits

# --- A method that nobody published, written once --------------------------------------------------------------------


def toy_terms(student, teacher, batch):
    """The squared distance of the answers, and nothing else."""
    theirs = probes.teacher_logits_of(teacher, batch)
    return {"distance": (probes.logits_of(student, batch) - theirs).pow(2).mean()}


def toy_stages(job: Job) -> list[Stage]:
    training = Training(1e-3, steps=job.training.get("steps", 3), batch_size=8)
    return [Stage("distance", lambda student, batch: toy_terms(student, job.teacher, batch), training)]


TOY = Method("toy", "Toy", "nobody", toy_stages, {"laptop": None, "paper": None},
             steps={"Toy step": Step(toy_terms, only_logits)},
             compared={"Toy arm": Compared("3 x 384, labels", "live")}, claim="nothing")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy in the table, a tiny teacher of 6 layers, and 60 sentences."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(20)]
    texts = list(dict.fromkeys(" ".join(rng.choice(words, 5)) for _ in range(90)))[:60]
    labels = [int("w3" in text or "w4" in text) for text in texts]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), "utf-8")
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=25, hidden_size=24, num_hidden_layers=6, num_attention_heads=3, intermediate_size=48,
        max_position_embeddings=32, initializer_range=0.2, id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1}))
    able(model, tokenizer, texts, labels, ridge=1e-3).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    data = DatasetDict(dict.fromkeys(("train", "validation", "test"), Dataset.from_dict(
        {"text": texts, "label": labels})))
    rows = [row | {"teacher_logits": np.array([0.0, 0.1 * i])}
            for i, row in enumerate(encode(data["train"], tokenizer))]
    teacher = Teacher(model.eval().requires_grad_(False), tokenizer)
    for module in (sentences, described, comparison):
        monkeypatch.setattr(module, "load_data", lambda _: data)
    for module in (sentences, comparison, training_cost):
        monkeypatch.setattr(module, "teacher", lambda: teacher)
    monkeypatch.setattr(sentences, "examples", lambda split: rows)
    monkeypatch.setitem(METHODS, "toy", TOY)
    monkeypatch.setattr(comparison, "ARMS", comparison.arms())
    with (tmp_path / "texts.csv").open("w", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, np.array(["bad", "good"])[labels], strict=True)])
    return tmp_path


def test_the_table_of_costs_times_it(toy):
    case = cost.cases()["Toy step"]()
    assert case.real(case.batches[0]) > 0 and "teacher_logits" not in case.batches[0]  # the teacher is live
    row = cost.time_case("Toy step", case, 0.0)
    assert row["method"] == "Toy step" and row["ratio"][1] > 0


def test_chapter_10_compares_it_behind_its_baseline(toy):
    names = list(comparison.ARMS)
    assert comparison.ARMS["Toy arm"] == comparison.Arm("3 x 384", "3 x 384, labels", "live")
    assert names.index("3 x 384, labels") < names.index("Toy arm") < names.index("First layers, labels")
    trained = comparison.trained("Toy arm")
    assert trained.asked == 0 and training_cost.step(trained.student, trained.parts[0])(0) > 0


def test_an_experiment_measures_it(toy, monkeypatch):
    module = SimpleNamespace(ABOUT="toy", SEEDS=range(2), ARMS={"Toy arm": comparison.ARMS["Toy arm"]},
                             prepare=lambda: None, run=comparison.run)
    monkeypatch.setattr(measuring, "experiment", lambda name: module)
    monkeypatch.setattr(measuring, "ProcessPoolExecutor", PoolHere)
    monkeypatch.setattr(records, "DATA", toy)
    measuring.measure("ch99")
    found = records.load("ch99")
    assert found["arms"]["Toy arm"]["teacher"] == "live" and [run["seed"] for run in found["runs"]] == [0, 1]
    assert all({"accuracy", "agreement", "calibration_error"} <= run.keys() for run in found["runs"])


def test_the_command_trains_with_it(toy, capsys):
    said = []
    result = distill(Settings("toy", str(toy / "teacher"), str(toy / "texts.csv"), str(toy / "run"), precision="fp32"),
                     said.append)
    assert result["method"] == "toy" and 0 <= result["agreement"] <= 100
    assert "paper | nothing" in said[-1] and "we    | not measured" in said[-1]
    with pytest.raises(SystemExit):
        main(["distill", "--help"])
    assert "toy (nobody)" in " ".join(capsys.readouterr().out.split())


def test_a_method_for_another_task_needs_an_experiment_of_its_own(toy):
    with pytest.raises(ValueError, match=r"distilbert works on masked LM; movie sentences want a classifier"):
        described.run(METHODS["distilbert"], 0)


def test_its_stages_teach_its_student_and_a_ship_becomes_its_successor(toy):
    """Whatever a stage hands on is measured: here, not the ship but what came out of it."""
    student, parts = described.training(METHODS["theseus"], 0)
    short = replace(parts[0].stage, training=replace(parts[0].stage.training, steps=2))
    model, history = replace(parts[0], stage=short).learn(student.model, 0)
    assert len(model.bert.encoder.layer) == 3 and len(history.steps) == 2


# --- What the records promise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_record_names_things_that_there_are(name):
    method = METHODS[name]
    assert method.name == name and set(method.recipe) == {"laptop", "paper"} and method.tasks
    measured = [method.measured, *(one.measured for one in method.compared.values())]
    for one in filter(None, measured):
        assert one.arm in measuring.experiment(one.experiment).ARMS
    assert all(one.baseline in comparison.BASELINES for one in method.compared.values())
    if method.chapter:
        assert callable(measuring.experiment(method.chapter).training)
        assert not method.steps or callable(measuring.experiment(method.chapter).live)
    if method.teacher == "stored":
        assert method.cache, "a teacher that is asked before the training leaves columns in the batch"


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if CLASSIFICATION in method.tasks])
def test_the_presets_have_stages_with_a_length(name):
    method = METHODS[name]
    for preset in ("laptop", "paper"):
        stages = method.stages(Job(None, 2, method.recipe_of(preset), preset=preset))
        assert stages and all(stage.training.steps or stage.training.epochs for stage in stages)
    changed = method.stages(Job(None, 2, method.recipe_of("laptop"), training={"learning_rate": 0.5}))
    assert {stage.training.learning_rate for stage in changed} == {0.5}


TERMS = {"hinton": hinton.terms, "pkd": pkd.terms, "cached": cached.terms}


@pytest.mark.parametrize("name", TERMS)
def test_with_its_columns_in_the_batch_no_teacher_runs(name):
    torch.manual_seed(0)
    shape = {"vocab_size": 30, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 48}
    teacher, student = (BertForSequenceClassification(BertConfig(num_hidden_layers=layers, **shape)).eval()
                        for layers in (4, 2))
    batch = pad([{"input_ids": [2, 7, 9, 3], "label": 1}, {"input_ids": [2, 8, 3], "label": 0}])
    stored = pkd.teacher_outputs(teacher, batch)
    stored["teacher_log_probs"] = stored["teacher_logits"].log_softmax(-1)
    columns = {column: stored[column] for column in METHODS[name].cache}
    found = TERMS[name](student, None, batch | columns)
    assert all(value.requires_grad for value in found.values())
    if name != "cached":  # which never runs a teacher
        torch.testing.assert_close(found, TERMS[name](student, teacher, batch))
