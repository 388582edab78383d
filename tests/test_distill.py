"""The command for one's own models: every method runs, resumes, and refuses what cannot work; and a user's journey."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from able_teachers import able
from processes import in_two_processes
from safetensors.torch import load_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizerFast,
)

from course_lib.__main__ import main
from course_lib.distill import METHODS, Settings, classes, distill, load_bilstm
from course_lib.distill.memory import estimate
from course_lib.experiments import records
from course_lib.material.data import load_data
from course_lib.shared import training
from course_lib.shared.method import CLASSIFICATION, MASKED_LM

GOOD, BAD = ["great", "fine", "lovely", "warm", "moving"], ["dull", "awful", "boring", "cold", "slow"]
THINGS = ["film", "story", "actor", "scene", "music", "ending", "plot", "picture"]
SHORT = {"steps": 3, "batch_size": 8, "save_every": 1, "precision": "fp32"}


def reviews(count=120):
    draw = random.Random(0)
    rows = []
    for i in range(count):
        label = draw.choice(["good", "bad"])
        words = GOOD if label == "good" else BAD
        rows.append((f"the {draw.choice(THINGS)} is {draw.choice(words)} and {draw.choice(words)} number {i}", label))
    return rows


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A folder with texts, two tiny teachers of one vocabulary, and a student with another one."""
    folder = tmp_path_factory.mktemp("ground")
    with (folder / "reviews.csv").open("w", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *reviews()])
    (folder / "reviews.txt").write_text("\n".join(text for text, _ in reviews()), "utf-8")
    words = sorted({word for text, _ in reviews() for word in text.split()})
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 48, "hidden_dropout_prob": 0.0,
             "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}
    for name, model, vocabulary in (("classifier", BertForSequenceClassification, words),
                                    ("masked", BertForMaskedLM, words),
                                    ("foreign", BertForSequenceClassification, words[::-1])):
        ids = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *vocabulary]
        (folder / "vocab.txt").write_text("\n".join(ids), "utf-8")
        tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
        layers = 2 if name == "foreign" else 4
        names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
        config = BertConfig(vocab_size=len(ids), num_hidden_layers=layers, **shape,
                            **({} if model is BertForMaskedLM else names))
        made = model(config)
        if name == "classifier":
            able(made, tokenizer, *zip(*((text, int(label == "good")) for text, label in reviews()), strict=True))
        made.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def settings(ground, out, method, **changes):
    task = MASKED_LM if method == "distilbert" else CLASSIFICATION
    common = {"teacher": str(ground / ("masked" if task == MASKED_LM else "classifier")),
              "data": str(ground / "reviews.csv"), "out": str(out), **SHORT}
    if method == "tinybert":
        common |= {"student": "2x16"}  # narrower: with a projection
    if method == "mobilebert":
        common |= {"recipe": {"steps_per_layer": 1, "pretraining_steps": 2}, "steps": None}
    return Settings(method, **common | changes)


def quiet(_):
    """Nothing is printed."""


SMALL = [name for name in METHODS if name != "bilstm"]  # GloVe is a download: see the tests with assets


@pytest.mark.parametrize("method", SMALL)
def test_every_method_trains_saves_and_can_be_loaded_by_transformers(ground, tmp_path, method):
    said = []
    result = distill(settings(ground, tmp_path / "run", method), said.append)
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "metrics.csv", "scores.csv", "curves.png", "doctor.txt", "result.json", "student"} <= files
    assert "checkpoints" not in files
    assert 0 <= result["accuracy"] <= 100
    assert said[-1].startswith("paper | ") and "\nwe    | " in said[-1] and "\nyou   | " in said[-1]
    assert (tmp_path / "run" / "doctor.txt").read_text("utf-8").startswith("Doctor: 0 error(s)")
    door = AutoModelForMaskedLM if method == "distilbert" else AutoModelForSequenceClassification
    student, tokenizer = (auto.from_pretrained(tmp_path / "run" / "student") for auto in (door, AutoTokenizer))
    assert student(**tokenizer("the film is great", return_tensors="pt")).logits.isfinite().all()
    card = (tmp_path / "run" / "student" / "README.md").read_text("utf-8")
    assert door.__name__ in card and f"| accuracy | {result['accuracy']} |" in card


@pytest.mark.parametrize("method", ["tinybert", "minilm", "hinton"])
def test_a_masked_lm_can_be_distilled_without_labels(ground, tmp_path, method):
    student = {"student": "2x16"} if method == "tinybert" else {}
    result = distill(settings(ground, tmp_path / "run", method, teacher=str(ground / "masked"),
                              data=str(ground / "reviews.txt"), **student), quiet)
    assert "teacher_accuracy" in result


def test_hidden_words_are_labels_whatever_columns_the_file_has(ground, tmp_path):
    for data in ("reviews.txt", "reviews.csv"):
        run = settings(ground, tmp_path / data, "hinton", teacher=str(ground / "masked"), data=str(ground / data))
        distill(run, quiet)
        assert (tmp_path / data / "metrics.csv").read_text("utf-8").startswith("stage,step,soft,hard,")


def test_texts_without_labels_teach_through_the_teacher_alone(ground, tmp_path):
    result = distill(settings(ground, tmp_path / "run", "hinton", data=str(ground / "reviews.txt")), quiet)
    assert "accuracy" not in result and 0 <= result["agreement"] <= 100
    with pytest.raises(ValueError, match=r"pkd needs labels.*hinton, cached"):
        distill(settings(ground, tmp_path / "other", "pkd", data=str(ground / "reviews.txt")), quiet)


class Killed(BaseException):
    """What a power cut looks like from inside."""


# Two stages of three steps: stopped in the first one (whose draws go on), and in the second (the first stays as it is).
@pytest.mark.parametrize(("method", "at"), [("theseus", 1), ("tinybert", 4)])
def test_a_stopped_run_goes_on_and_ends_where_an_uninterrupted_one_ends(ground, tmp_path, monkeypatch, method, at):
    whole = distill(settings(ground, tmp_path / "whole", method), quiet)
    done, save = [], training._Run.save

    def cut(run, step):
        save(run, step)
        done.append(step)
        if len(done) == at:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(training._Run, "save", cut)
        distill(settings(ground, tmp_path / "cut", method), quiet)
    assert not (tmp_path / "cut" / "student").exists()  # never half a model
    result = distill(settings(ground, tmp_path / "cut", method), quiet)
    one, other = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert result["accuracy"] == whole["accuracy"]


def test_a_run_that_is_killed_in_the_middle_of_a_checkpoint_goes_on_from_the_one_before(ground, tmp_path, monkeypatch):
    def cut(source, target, replaced=os.replace):
        if str(target).endswith("checkpoint.safetensors") and Path(target).exists():
            Path(source).write_bytes(Path(source).read_bytes()[:1000])  # the second checkpoint is half on the disk
            raise Killed
        return replaced(source, target)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "replace", cut)
        distill(settings(ground, tmp_path / "cut", "hinton"), quiet)
    result = distill(settings(ground, tmp_path / "cut", "hinton"), quiet)
    assert result["accuracy"] == distill(settings(ground, tmp_path / "whole", "hinton"), quiet)["accuracy"]
    one, other = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_run_is_not_done_again_and_another_run_is_not_mixed_in(ground, tmp_path):
    first = settings(ground, tmp_path / "run", "hinton")
    result = distill(first, quiet)
    said = []
    assert distill(first, said.append) == result and said[0].splitlines()[0].endswith("is a finished run.")
    with pytest.raises(ValueError, match=r"belongs to a run with another seed \(0\)"):
        distill(replace(first, seed=1), quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="not empty, and no run of this command"):
        distill(replace(first, out=str(tmp_path / "mine")), quiet)


def test_changed_data_is_noticed(ground, tmp_path):
    data = tmp_path / "mine.csv"
    data.write_bytes((ground / "reviews.csv").read_bytes())
    mine = settings(ground, tmp_path / "run", "hinton", data=str(data))
    distill(mine, quiet)
    (tmp_path / "run" / "result.json").unlink()
    data.write_text(data.read_text("utf-8").replace("number 7", "number seven"), "utf-8")
    with pytest.raises(ValueError, match="data has changed since the run"):
        distill(mine, quiet)


def test_a_full_disk_leaves_no_half_model_and_loses_no_training(ground, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    mine = settings(ground, tmp_path / "run", "hinton")
    with monkeypatch.context() as patched, pytest.raises(OSError, match=r"could not be written.*Make room.*again"):
        patched.setattr(BertForSequenceClassification, "save_pretrained", full)
        distill(mine, quiet)
    assert not list((tmp_path / "run").glob("*student*"))
    steps = []
    monkeypatch.setattr(training._Run, "log", lambda *_: steps.append(1))
    assert "accuracy" in distill(mine, quiet)
    assert steps == []  # the training was not repeated


def test_a_student_with_another_vocabulary(ground, tmp_path):
    """Sentences can be compared, tokens cannot."""
    said = []
    distill(settings(ground, tmp_path / "run", "hinton", student=str(ground / "foreign")), said.append)
    assert any("a tokenizer of its own" in line for line in said)
    for method in ("pkd", "tinybert", "minilm"):
        with pytest.raises(ValueError, match=r"token by token.*hinton, cached, bilstm.*--student half"):
            distill(settings(ground, tmp_path / method, method, student=str(ground / "foreign")), quiet)


@pytest.mark.parametrize(("method", "changes", "message"), [
    ("hinten", {}, "No method 'hinten'. There are: labels, hinton"),
    ("hinton", {"preset": "fast"}, "No preset 'fast'"),
    ("hinton", {"steps": 0}, "--steps must be larger than 0"),
    ("hinton", {"epochs": 1.0}, "--steps and --epochs"),
    ("hinton", {"student": "halb"}, "No student is called 'halb'"),
    ("hinton", {"student": "9"}, "9 layers, more than the teacher's 4"),
    ("hinton", {"student": "mobilebert"}, "belong together"),
    ("hinton", {"recipe": {"temprature": 3}}, "hinton has no setting 'temprature'. It has: temperature"),
    ("labels", {"recipe": {"temperature": 3}}, "labels has no setting 'temperature'. It has: none"),
    ("tinybert", {"student": "2x18"}, "4: a width of 18 cannot.*multiple of 4, for example 16"),
    ("theseus", {"student": "2x16"}, "one width"),
    ("theseus", {"student": "3"}, "cannot be cut into 3 modules"),
    ("bilstm", {"student": "half"}, "The student of 'bilstm' is a BiLSTM"),
    ("distilbert", {"teacher": "classifier"}, r"distilbert works on masked LM; this teacher does classification.*pkd"),
    ("pkd", {"teacher": "masked"}, "pkd works on classification"),
    ("hinton", {"teacher": "nowhere"}, "No teacher 'nowhere'"),
])
def test_what_cannot_work_is_refused_before_anything_is_written(ground, tmp_path, method, changes, message):
    if (ground / str(changes.get("teacher"))).is_dir():
        changes = changes | {"teacher": str(ground / changes["teacher"])}
    with pytest.raises(ValueError, match=message):
        distill(settings(ground, tmp_path / "run", method, **changes), quiet)
    assert not (tmp_path / "run").exists()  # so that the right command may use the same --out


def test_classes_are_matched_by_name_and_unknown_ones_are_refused(ground, tmp_path):
    text = (ground / "reviews.csv").read_text("utf-8")
    (tmp_path / "numbers.csv").write_text(text.replace(",good", ",1").replace(",bad", ",0"), "utf-8")
    (tmp_path / "other.csv").write_text(text.replace(",good", ",positive"), "utf-8")
    named = distill(settings(ground, tmp_path / "a", "hinton"), quiet)
    numbered = distill(settings(ground, tmp_path / "b", "hinton", data=str(tmp_path / "numbers.csv")), quiet)
    assert named["teacher_accuracy"] == numbered["teacher_accuracy"]
    with pytest.raises(ValueError, match=r"class 'positive', which the teacher does not know.*classes: bad, good"):
        distill(settings(ground, tmp_path / "c", "hinton", data=str(tmp_path / "other.csv")), quiet)


def test_an_order_of_classes_that_the_teacher_contradicts_is_asked_about(ground, tmp_path, monkeypatch):
    """The teacher says 0 bad, 1 good; these texts were numbered by somebody else."""
    named = distill(settings(ground, tmp_path / "named", "hinton"), quiet)
    text = (ground / "reviews.csv").read_text("utf-8")
    (tmp_path / "numbers.csv").write_text(text.replace(",good", ",0").replace(",bad", ",1"), "utf-8")
    monkeypatch.setattr(classes, "predict_logits", lambda model, batches: torch.nn.functional.one_hot(
        1 - torch.cat([batch["labels"] for batch in batches]), 2))  # it is right about every text
    mine = settings(ground, tmp_path / "run", "hinton", data=str(tmp_path / "numbers.csv"))
    with pytest.raises(ValueError, match=r"right for 0\.0 %.*right for 100\.0 %.*--classes 0=good 1=bad"):
        distill(mine, quiet)
    assert not (tmp_path / "run").exists()
    said = []
    found = distill(replace(mine, classes=["0=good", "1=bad"]), said.append)
    assert found["teacher_accuracy"] == named["teacher_accuracy"]
    expected = "0 = 1 good, 1 = 0 bad (as --classes says). So the teacher is right for 100.0 %"
    assert any(expected in line for line in said)


def test_papers_values_are_a_preset_and_single_ones_can_be_changed(ground):
    for method in METHODS.values():
        assert set(method.recipe) == {"laptop", "paper"}
    assert METHODS["distilbert"].recipe["paper"].effective_batch == 4000
    assert METHODS["hinton"].recipe_of("paper", {"temperature": 8.0}).temperature == 8.0


def test_the_shell_says_what_it_does_and_errors_have_status_2(ground, tmp_path, capsys):
    common = ["--data", str(ground / "reviews.csv"), "--steps", "2", "--batch-size", "8", "--out"]
    hinton, run = ["distill", "hinton", "--teacher"], str(tmp_path / "run")
    assert main([*hinton, str(ground / "classifier"), "--set", "temperature=8", *common, run]) == 0
    out = capsys.readouterr().out
    for words in ("Training on: CPU", "text = column 'text'", "Student: ", "the teacher's embeddings, layers 2, 4",
                  "2 steps of 8 examples", "validation: accuracy", "Doctor: ", "paper | "):
        assert words in out
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert config["settings"]["recipe"] == {"temperature": 8}
    assert main([*hinton, "nowhere", *common, str(tmp_path / "b")]) == 2
    assert "No teacher 'nowhere'" in capsys.readouterr().err
    assert main([*hinton, "x", "--set", "temperature", *common, run]) == 2
    assert "NAME=VALUE" in capsys.readouterr().err


# --- Several processes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pkd", "tinybert"])
def test_two_processes_give_the_losses_and_the_student_of_one(ground, tmp_path, method):
    given = ["distill", method, "--teacher", str(ground / "classifier"), "--data", str(ground / "reviews.csv"),
             "--steps", "3", "--batch-size", "10", "--precision", "fp32",
             "--student", "2" if method == "pkd" else "2x16"]
    done = in_two_processes("-m", "course_lib", *given, "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Training on: 2 processes, CPU") == 1  # only process 0 speaks
    assert main([*given, "--out", str(tmp_path / "one")]) == 0

    def losses(run):
        with (tmp_path / run / "metrics.csv").open() as file:
            return [{k: float(v) for k, v in row.items() if v and k not in ("stage", "seconds")}
                    for row in csv.DictReader(file)]

    for one, two in zip(losses("one"), losses("two"), strict=True):
        assert two == pytest.approx(one, rel=1e-5, abs=1e-6)
    weights = [load_file(tmp_path / run / "student" / "model.safetensors") for run in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4, msg=name)


# --- Real parts -------------------------------------------------------------------------------------------------------


@cache
def movie_rows(count):
    rows = load_data("sentiment")["train"]
    chosen = rows.select(range(0, len(rows), len(rows) // count))
    return [(row["text"], "good" if row["label"] else "bad") for row in chosen][:count]


@pytest.mark.assets
def test_a_bilstm_is_saved_with_its_words(ground, tmp_path):
    distill(settings(ground, tmp_path / "run", "bilstm"), quiet)
    model, words = load_bilstm(tmp_path / "run" / "student")
    ids = torch.tensor([words.encode("the film is great")["input_ids"]])
    assert model(ids).logits.shape == (1, 2)
    with pytest.raises(ValueError, match="holds no BiLSTM"):
        load_bilstm(ground / "classifier")


@pytest.mark.assets
@pytest.mark.slow
def test_a_users_journey(tmp_path):
    """CSV of texts and labels -> teacher fine-tuned -> student distilled -> loaded elsewhere -> doctor."""
    with (tmp_path / "reviews.csv").open("w", encoding="utf-8") as file:
        csv.writer(file).writerows([("review", "opinion"), *movie_rows(900)])
    given = ["--data", str(tmp_path / "reviews.csv"), "--text", "review", "--label", "opinion", "--max-length", "48"]
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert main(["finetune", "--model", "minilm-l6", *given, "--out", str(teacher), "--epochs", "2",
                 "--learning-rate", "1e-4"]) == 0
    assert json.loads((teacher / "result.json").read_text("utf-8"))["accuracy"] > 65  # two classes, 600 sentences
    assert main(["distill", "hinton", "--teacher", str(teacher / "student"), *given, "--out", str(student),
                 "--steps", "40"]) == 0
    result = json.loads((student / "result.json").read_text("utf-8"))
    assert result["times_faster"] > 1.3 and result["accuracy"] > 60 and result["agreement"] > 60
    script = ("import sys; from transformers import pipeline; "
              "p = pipeline('text-classification', sys.argv[1], device='cpu'); "
              "print(p(['A wonderful film.', 'A dull, stupid film.']))")
    elsewhere = tmp_path / "elsewhere"
    Path(student / "student").rename(elsewhere)
    done = subprocess.run([sys.executable, "-c", script, str(elsewhere)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'good'" in done.stdout and "'bad'" in done.stdout
    assert main(["doctor", str(elsewhere), str(teacher / "student")]) == 0


# --- Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "hidden", "tokens"), [(2, 64, 16), (4, 96, 48), (3, 128, 128)])
def test_the_estimate_of_memory_is_near_what_autograd_keeps(layers, hidden, tokens):
    config = BertConfig(vocab_size=50, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
                        intermediate_size=4 * hidden, attn_implementation="eager")
    model, kept = BertForSequenceClassification(config).train(), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(torch.ones(8, tokens, dtype=torch.long))
    found = estimate(model, None, examples=8, tokens=tokens, half=False)
    assert output.logits.shape == (8, 2)
    assert sum(kept.values()) == pytest.approx(found["activations"], rel=1 / 3)
    assert found["weights"] == 16 * sum(p.numel() for p in model.parameters())


# --- The page ---------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parent.parent / "book" / "your_own.md"


def test_the_page_says_of_every_method_what_the_code_says():
    rows = {cells[1].strip("` "): cells for line in PAGE.read_text("utf-8").splitlines()
            if len(cells := [cell.strip() for cell in line.split("|")]) == 7 and cells[1].startswith("`")}
    assert rows.keys() == METHODS.keys()
    words = {CLASSIFICATION: "classifier", MASKED_LM: "masked LM"}
    for name, method in METHODS.items():
        _, _, chapter, teacher, labels, *_ = rows[name]
        assert method.chapter == f"ch{int(chapter):02}"
        assert teacher == "–" or teacher == " or ".join(words[task] for task in method.tasks)
        assert (labels == "needed") == method.needs_labels
    commands = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("python -m course_lib ")]
    assert len(commands) == 2
    for command in commands:  # argparse knows every option, and so on up to a model that is not there
        assert main([word if word != "minilm-l6" else "nowhere/nothing" for word in command.split()[3:]]) == 2


def test_every_measured_number_of_the_last_line_is_there():
    for method in METHODS.values():
        assert len(records.values(method.measured.experiment, method.measured.arm, "accuracy")) >= 5
