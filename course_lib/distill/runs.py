"""One run: read, train, measure, save. Everything is in one folder, and a run that was stopped goes on.

    result = distill(Settings(method="hinton", teacher="sentiment", data="reviews.csv", out="runs/first"))

| in the folder | what |
|---|---|
| config.json | all settings, the versions, and a hash of the data |
| answers/ | what the teacher said (asked once) |
| checkpoints/ | where the run is; removed when it is done |
| metrics.csv, scores.csv, curves.png | every step, every evaluation, and a picture of them |
| student/ | model, tokenizer and model card; `AutoModel` reads it (a BiLSTM: `load_bilstm`) |
| doctor.txt, result.json | the doctor's report, and the numbers of the last line |
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import transformers
from accelerate import PartialState
from torch import nn
from transformers import PreTrainedModel

from course_lib.data import Batches, MaskedBatch, encode, in_order, pad, windows
from course_lib.distill.memory import estimate, in_words
from course_lib.distill.plans import CLASSIFICATION, MASKED_LM, METHODS, Job, Method, Stage
from course_lib.distill.students import Made, by_spec
from course_lib.distill.texts import Texts, read
from course_lib.doctor import diagnose
from course_lib.measures import accuracy, agreement, evaluate_masked_lm, latency_ratio, predict_logits
from course_lib.methods.cached import ask_teacher, attach, load_soft_labels
from course_lib.parts import begin, process_number, processes, wait_for_all
from course_lib.students import count_parameters
from course_lib.teachers import Teacher, load_teacher
from course_lib.training import History, Recipe, cpu_has_bf16, train, write_atomically


@dataclass(frozen=True)
class Settings:
    """All that a run depends on."""

    method: str
    teacher: str
    data: str
    out: str
    student: str | None = None  # None: the method's own
    preset: str = "laptop"
    recipe: dict[str, object] = field(default_factory=dict)  # changed fields of the method's recipe
    learning_rate: float | None = None  # this and the next three: of every stage; None = the preset's
    batch_size: int | None = None
    epochs: float | None = None
    steps: int | None = None
    accumulate: int = 1
    max_length: int = 128
    precision: str = "auto"
    seed: int = 0
    save_every: int = 100
    text: str | None = None
    label: str | None = None
    encoding: str = "utf-8"
    skip_bad_rows: bool = False


Say = Callable[[str], None]


def distill(settings: Settings, say: Say = print) -> dict:
    """Distil a teacher into a student on the given data, and return what was measured on the test split.

    Called again with the same settings, it goes on where it was stopped; a finished run only returns its result.
    Raises: ValueError that names what does not fit (method, teacher, student, data, folder) and the way out.
    """
    method = _method(settings)
    state = begin()
    say = say if state.is_main_process else (lambda _: None)
    folder = Path(settings.out)
    if _same_run(folder, settings) and (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text("utf-8"))
        say(f"{folder} is a finished run.\n{paper_we_you(method, result)}")
        return result
    wait_for_all()  # nobody writes into the folder before everybody has looked at it
    say(_where(state, settings))
    texts = read(settings.data, text=settings.text, label=settings.label, encoding=settings.encoding,
                 skip_bad_rows=settings.skip_bad_rows)
    for note in texts.notes:
        say(note)
    teacher = _teacher(settings, method, texts)
    task = MASKED_LM if "MaskedLM" in type(teacher.model).__name__ else CLASSIFICATION
    _require_fit(method, task, teacher, texts)
    made = by_spec(settings.student or method.student, settings.method, teacher, _all_texts(texts),
                   pairs="text_pair" in texts.splits["train"].column_names, seed=settings.seed,
                   class_names=texts.class_names if method.name == "labels" else ())
    if made.own_tokens and method.same_tokens:
        raise ValueError(
            f"{method.name} compares teacher and student token by token, but this student reads other tokens than the "
            "teacher. Take a method that compares sentences only (hinton, cached, bilstm), or a student that is made "
            "from the teacher (--student half).")
    say(f"Student: {count_parameters(made.model):,} parameters, {made.layers} layer(s); start: {made.start}.")
    _begin(folder, settings, texts)
    teacher.model.to(state.device)
    made.model.to(state.device)
    run = _Run(settings, method, teacher, made, texts, task, folder, say)
    run.prepare()
    run.train()
    result = run.finish() if state.is_main_process else {}
    wait_for_all()
    return result or json.loads((folder / "result.json").read_text("utf-8"))


class _Run:
    """The steps of one run, in their order."""

    def __init__(self, settings: Settings, method: Method, teacher: Teacher, made: Made, texts: Texts, task: str,
                 folder: Path, say: Say):
        self.settings, self.method, self.teacher, self.made, self.texts = settings, method, teacher, made, texts
        self.task, self.folder, self.say = task, folder, say
        self.labels = bool(texts.class_names)
        self.histories: dict[str, History] = {}
        self.stages: list[Stage] = []

    # -- data

    def prepare(self) -> None:
        """Encode all texts and, for a classifier, ask the teacher once about each."""
        self.examples = {split: self._encoded(split) for split in ("train", "validation", "test")}
        padding = getattr(self.made.tokenizer, "pad_token_id", 0) or 0
        self.plain = partial(pad, pad_token_id=padding)
        if self.task == MASKED_LM:
            self.masked = MaskedBatch(self.made.tokenizer)

    def _encoded(self, split: str) -> list[dict]:
        rows = self.texts.splits[split]
        if self.task == MASKED_LM:
            found = windows(rows, self.made.tokenizer, self.settings.max_length)
            if not found:
                raise ValueError(f"The {split} texts are all shorter than 8 tokens; nothing can be masked in them.")
            return found
        examples = self.made.examples(rows, self.settings.max_length)
        if self.labels:
            order = [_index(name, self.teacher, self.texts.class_names, self.method)
                     for name in self.texts.class_names]
            examples = [example | {"label": order[example["label"]]} for example in examples]
        if self.method.name == "labels" or (split == "train" and not self.method.answers):
            return examples
        return self._with_answers(examples, split)

    def _with_answers(self, examples: list[dict], split: str) -> list[dict]:
        """The examples with `teacher_logits` (log-probabilities: logits up to a constant)."""
        path, rows = self.folder / "answers" / f"{split}.safetensors", self.texts.splits[split]
        asked = encode(rows, self.teacher.tokenizer, self.settings.max_length)
        if not path.exists() and process_number() == 0:
            self.say(f"Asking the teacher about {len(asked):,} {split} texts ...")
            path.parent.mkdir(parents=True, exist_ok=True)
            ask_teacher(self.teacher.model, asked, identify_by=rows).save(path)
        wait_for_all()
        soft = attach(examples, load_soft_labels(path), identify_by=rows)
        if self.method.name == "cached":
            return soft
        columns = {"teacher_log_probs": "teacher_logits"}  # the loss of chapter 1 knows them under this name
        return [{columns.get(n, n): v for n, v in row.items() if n not in ("teacher_temperature", "teacher_classes")}
                for row in soft]

    # -- training

    def train(self) -> None:
        s = self.settings
        changed = {name: getattr(s, name) for name in ("learning_rate", "batch_size") if getattr(s, name) is not None}
        if s.steps is not None or s.epochs is not None:
            changed |= {"steps": s.steps or 0, "epochs": s.epochs or 0.0}
        job = Job(self.teacher.model, self.made, self.labels, s.recipe, s.preset, self.task, changed)
        self.stages = self.method.stages(job)
        for number, stage in enumerate(self.stages, start=1):
            self.histories[stage.name] = self._stage(stage, number)

    def _stage(self, stage: Stage, number: int) -> History:
        student, s, training = self.made.model, self.settings, stage.training
        batches = Batches(self.examples["train"], training.batch_size, seed=s.seed + number - 1,
                          collate=self.masked if stage.masked else self.plain)
        steps = training.steps or math.ceil(training.epochs * len(batches))
        recipe = Recipe(steps=steps, learning_rate=training.learning_rate, warmup=training.warmup,
                        schedule=training.schedule, accumulate=s.accumulate, precision=s.precision, seed=s.seed,
                        evaluate_every=max(1, steps // 5), save_every=s.save_every)
        self.say(f"{stage.name}: {steps:,} steps of {training.batch_size} examples, learning rate "
                 f"{training.learning_rate:g}, {steps / len(batches):.1f} epoch(s).")
        if number == 1 and isinstance(student, PreTrainedModel):
            examples = math.ceil(training.batch_size / s.accumulate / processes())
            alone = self.method.name == "labels" or self.method.answers
            need = estimate(student, None if alone else self.teacher.model, examples=examples, tokens=s.max_length,
                            masked_lm=stage.masked, half=s.precision != "fp32")
            self.say(f"A step needs {in_words(need)} if the texts fill --max-length; --accumulate makes it less.")
        stage.before(student)
        history = train(student, batches, stage.terms, recipe, folder=self.folder / "checkpoints" / str(number),
                        evaluate=self._evaluate, averaged_over=stage.averaged_over,
                        parameters=stage.groups(student, training.learning_rate) if stage.groups else None)
        self.last_terms, self.last_recipe = stage.terms, recipe
        self.last_batch = {name: tensor[:32] for name, tensor in batches[0].items()}
        self.made = replace(self.made, model=stage.after(student) or student)
        return history

    def _evaluate(self, student: nn.Module) -> dict[str, float]:
        """Scores on at most 512 validation texts: enough to see a run go wrong."""
        found = self.scores(student, "validation", 512)
        self.say("  validation: " + ", ".join(f"{name} {value:.2f} %" for name, value in found.items()))
        return found

    def scores(self, model: nn.Module, split: str, most: int | None = None) -> dict[str, float]:
        """Accuracy (where there are labels, or masks) and agreement with the teacher, in percent."""
        rows = self.examples[split][:most]
        if self.task == MASKED_LM:
            fixed = MaskedBatch(self.made.tokenizer, generator=torch.Generator().manual_seed(0))
            return {"accuracy": 100 * evaluate_masked_lm(model, in_order(rows[:2000], 32, fixed)).top1}
        logits = predict_logits(model, in_order(rows, 64, self.plain))
        found = {}
        if self.labels:
            found["accuracy"] = 100 * accuracy(logits, torch.tensor([row["label"] for row in rows]))
        if self.method.name != "labels":
            name = "teacher_log_probs" if self.method.name == "cached" else "teacher_logits"
            theirs = torch.stack([torch.as_tensor(row[name]) for row in rows])
            found["agreement"] = 100 * agreement(logits, theirs)
        return found

    # -- the end

    def finish(self) -> dict:
        """Measure, save, explain."""
        student = self.made.model.eval()
        result = {"method": self.method.name, "student_parameters": count_parameters(student),
                  "teacher_parameters": count_parameters(self.teacher.model), "processes": processes(),
                  "minutes": round(sum(h.seconds for h in self.histories.values()) / 60, 1),
                  **{name: round(value, 2) for name, value in self.scores(student, "test").items()}}
        result |= self._of_the_teacher()
        self._write_curves()
        _save_student(self.made, self.folder, _card(self, result))
        alone = self.method.name == "labels" or self.made.own_tokens
        report = diagnose(student, None if alone else self.teacher.model, self.last_batch,
                          [self.last_recipe], list(self.histories.values())[-1],
                          terms=self.last_terms, tokenizer=None if self.made.own_tokens else self.made.tokenizer)
        write_atomically(self.folder / "doctor.txt", lambda path: path.write_text(f"{report}\n", "utf-8"))
        self.say(f"\n{report}\n")
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        _write_json(self.folder / "result.json", result)
        self.say(paper_we_you(self.method, result))
        return result

    def _of_the_teacher(self) -> dict[str, float]:
        if self.method.name == "labels":
            return {}
        found, theirs = {}, self.teacher.model
        rows = self.texts.splits["test"]
        if self.task == MASKED_LM:
            found["teacher_accuracy"] = round(self.scores(theirs, "test")["accuracy"], 2)
        elif self.labels:
            name = "teacher_log_probs" if self.method.name == "cached" else "teacher_logits"
            labels = torch.tensor([row["label"] for row in self.examples["test"]])
            logits = torch.stack([torch.as_tensor(row[name]) for row in self.examples["test"]])
            found["teacher_accuracy"] = round(100 * accuracy(logits, labels), 2)
        count = min(32, len(rows))
        mine, asked = self.plain(self.examples["test"][:count]), None
        if self.made.own_tokens:
            asked = pad(encode(rows.select(range(count)), self.teacher.tokenizer, self.settings.max_length))
        speed = latency_ratio(self.made.model, theirs, mine, 7, teacher_batch=asked)
        return found | {"times_faster": round(1 / speed.ratio, 2),
                        "times_smaller": round(count_parameters(theirs) / count_parameters(self.made.model), 2)}

    def _write_curves(self) -> None:
        for name, kind in (("metrics.csv", "steps"), ("scores.csv", "scores")):
            rows = [{"stage": stage} | row for stage, history in self.histories.items()
                    for row in getattr(history, kind)]
            if rows:
                text = io.StringIO()
                table = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
                table.writeheader()
                table.writerows(rows)
                write_atomically(self.folder / name, lambda path, text=text: path.write_text(text.getvalue(), "utf-8"))
        from course_lib.plots import learning_curves

        measured = {name: h for name, h in self.histories.items() if h.scores}
        if measured:
            measure = next(name for name in next(iter(measured.values())).scores[0] if name != "step")
            figure = learning_curves(measured, measure)
            write_atomically(self.folder / "curves.png", lambda path: figure.savefig(path, format="png", dpi=150))


# --- Checks before anything is trained -------------------------------------------------------------------------------


def _method(settings: Settings) -> Method:
    if settings.method not in METHODS:
        raise ValueError(f"No method '{settings.method}'. There are: {', '.join(METHODS)}.")
    if settings.preset not in ("laptop", "paper"):
        raise ValueError(f"No preset '{settings.preset}'. There are: laptop (the chapters' values), paper.")
    for name in ("steps", "batch_size", "accumulate", "max_length", "learning_rate", "epochs", "save_every"):
        if (value := getattr(settings, name)) is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be larger than 0, not {value}.")
    if settings.steps and settings.epochs:
        raise ValueError("--steps and --epochs say the same thing in two ways; give one of them.")
    return METHODS[settings.method]


def _teacher(settings: Settings, method: Method, texts: Texts) -> Teacher:
    """The teacher; for fine-tuning, the encoder with a new head for the classes of the data."""
    try:
        if method.name == "labels":
            return _with_new_head(settings.teacher, texts)
        return load_teacher(settings.teacher)
    except OSError as error:
        raise ValueError(f"{settings.teacher} could not be loaded ({str(error).splitlines()[0]}). Give a teacher of "
                         "the course, the folder of a saved model, or a hub name.") from error


def _with_new_head(name: str, texts: Texts) -> Teacher:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from course_lib.assets import asset

    where = str(asset("minilm-l6")) if name == "minilm-l6" else name
    if name in ("mlm", "sentiment", "topics") or not texts.class_names:
        return load_teacher(name)
    names = list(texts.class_names)
    model = AutoModelForSequenceClassification.from_pretrained(
        where, num_labels=len(names), id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)}, ignore_mismatched_sizes=True, use_safetensors=True,
        attn_implementation="eager")
    return Teacher(model, AutoTokenizer.from_pretrained(where))


def _require_fit(method: Method, task: str, teacher: Teacher, texts: Texts) -> None:
    """Raises: ValueError if method, teacher and data do not belong together."""
    if task not in method.tasks:
        can = [m.name for m in METHODS.values() if task in m.tasks]
        raise ValueError(f"{method.name} works on {' and '.join(method.tasks)}; this teacher does {task}. For it take "
                         f"one of: {', '.join(can)}.")
    if method.needs_labels and not texts.class_names and task == CLASSIFICATION:
        raise ValueError(f"{method.name} needs labels, and the data has none. Say which column it is (--label NAME), "
                         "or take a method that learns from the teacher alone: hinton, cached, bilstm, tinybert, "
                         "minilm.")
    if texts.class_names and task == CLASSIFICATION:
        for name in texts.class_names:
            _index(name, teacher, texts.class_names, method)


def _index(name: str, teacher: Teacher, names: tuple[str, ...], method: Method) -> int:
    """The teacher's number for a class of the data. Raises: ValueError if the teacher does not know the class."""
    known = teacher.class_names
    if name in known:
        return known.index(name)
    numbers = [str(i) for i in range(len(known))]
    unnamed = all(k.startswith("LABEL_") for k in known)
    if (set(names) <= set(numbers)) or (unnamed and len(names) == len(known)):
        return numbers.index(name) if name in numbers else names.index(name)
    raise ValueError(f"The data has the class '{name}', which the teacher does not know. The teacher's classes: "
                     f"{', '.join(known)}; the data's: {', '.join(names)}. Rename them in the data, or use the numbers "
                     f"0 to {len(known) - 1}.")


def _all_texts(texts: Texts) -> list[str]:
    rows = texts.splits["train"]
    return [text for name in ("text", "text_pair") if name in rows.column_names for text in rows[name]]


# --- The folder ------------------------------------------------------------------------------------------------------


def _same_run(folder: Path, settings: Settings) -> bool:
    """Whether the folder holds this run. Raises: ValueError for another run, or a folder with other things."""
    config = folder / "config.json"
    if not config.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty, and no run of this command. Choose another --out.")
        return False
    before = json.loads(config.read_text("utf-8"))["settings"]
    now = json.loads(json.dumps(asdict(settings)))
    changed = [name for name in now if name not in ("out", "save_every") and now[name] != before.get(name)]
    if changed:
        raise ValueError(f"{folder} belongs to a run with another {', '.join(changed)} "
                         f"({', '.join(repr(before.get(name)) for name in changed)}). Choose another --out, or delete "
                         "the folder.")
    return True


def _begin(folder: Path, settings: Settings, texts: Texts) -> None:
    """Write config.json, or check that the data is still the same."""
    digest = hashlib.sha256()
    for split, rows in texts.splits.items():
        digest.update(split.encode())
        for row in rows:
            digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode())
    config = folder / "config.json"
    if config.exists():
        if json.loads(config.read_text("utf-8"))["data_sha256"] != digest.hexdigest():
            raise ValueError(f"The data has changed since the run in {folder} began. Choose another --out.")
    elif process_number() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(config, {"settings": asdict(settings), "data_sha256": digest.hexdigest(),
                             "versions": {"python": platform.python_version(), "torch": torch.__version__,
                                          "transformers": transformers.__version__}})
    wait_for_all()


def _save_student(made: Made, folder: Path, card: str) -> None:
    """Model, tokenizer and card, completely or not at all."""
    unfinished, final = folder / ".student.unfinished", folder / "student"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        made.save(unfinished)
        (unfinished / "README.md").write_text(card, "utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(unfinished, final)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(f"The student could not be written to {final} ({error}). Make room and run the same command "
                      "again: training will not be repeated.") from error


def _write_json(path: Path, content: dict) -> None:
    write_atomically(path, lambda file: file.write_text(json.dumps(content, indent=1) + "\n", "utf-8"))


def _where(state: PartialState, settings: Settings) -> str:
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and (
        state.device.type != "cpu" or cpu_has_bf16()))
    many = f"{state.num_processes} processes, " if state.num_processes > 1 else ""
    threads = f", {torch.get_num_threads()} thread(s)" if state.device.type == "cpu" else ""
    return f"Training on: {many}{state.device.type.upper()}{threads}, {'bfloat16' if bf16 else 'float32'} products."


# --- What stays -------------------------------------------------------------------------------------------------------


def _card(run: _Run, result: dict) -> str:
    """The model card: what this is, where it comes from, how good it is, and what nobody has looked at."""
    s, numbers = run.settings, "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in result.items())
    bilstm = type(run.made.model).__name__ == "BiLstm"
    load = ('from course_lib.distill import load_bilstm\nmodel, vocabulary = load_bilstm("student")' if bilstm else
            'from transformers import AutoTokenizer, '
            f'{"AutoModelForMaskedLM" if run.task == MASKED_LM else "AutoModelForSequenceClassification"}\n'
            f'model = {"AutoModelForMaskedLM" if run.task == MASKED_LM else "AutoModelForSequenceClassification"}'
            '.from_pretrained("student")\ntokenizer = AutoTokenizer.from_pretrained("student")')
    return f"""---
library_name: {"course_lib" if bilstm else "transformers"}
pipeline_tag: {"fill-mask" if run.task == MASKED_LM else "text-classification"}
tags: [knowledge-distillation]
---
# A student of {Path(s.teacher).name}

Method: {run.method.name} ({run.method.paper}), preset "{s.preset}", seed {s.seed}.
Start: {run.made.start}.
Texts: {", ".join(f"{split} {len(rows):,}" for split, rows in run.texts.splits.items())}.
Classes: {", ".join(run.teacher.class_names) if run.task == CLASSIFICATION else "none (masked language model)"}.

```python
{load}
```

| measured on the test split | |
|---|---|
{numbers}

One run with one seed: another seed gives another number. Not looked at: other kinds of text, unfair errors, safety.
Licence: that of the teacher and of the texts; fill it in before you pass this model on.
"""


def paper_we_you(method: Method, result: dict) -> str:
    """The last line of a run: what the paper reports, what the course measured, what came out here."""
    rows = [("paper", method.claim or "no number on one model and one data set"), ("we", _ours(method))]
    you = []
    if result.get("teacher_accuracy") and "accuracy" in result:
        kept = 100 * result["accuracy"] / result["teacher_accuracy"]
        you.append(f"{kept:.1f} % of the teacher's accuracy ({result['accuracy']:.1f} of "
                   f"{result['teacher_accuracy']:.1f})")
    elif "accuracy" in result:
        you.append(f"accuracy {result['accuracy']:.1f} %")
    elif "agreement" in result:
        you.append(f"the teacher's answer for {result['agreement']:.1f} % of the test texts")
    if "times_smaller" in result:
        you.append(f"{result['times_smaller']:.1f} times fewer parameters, {result['times_faster']:.1f} times faster")
    rows.append(("you", ", ".join(you) + " (one seed)"))
    return "\n".join(f"{who:6}| {what}" for who, what in rows)


def _ours(method: Method) -> str:
    from course_lib import results
    from course_lib.measures import mean_and_interval
    from course_lib.teachers import DATA

    if method.measured is None:
        return "not measured"
    try:
        values = results.values(*method.measured, "accuracy")
    except (FileNotFoundError, ValueError, KeyError):
        return "not measured yet"
    topics = method.measured[0] == "ch09"
    card = json.loads((DATA / "teachers" / ("topics" if topics else "sentiment") / "card.json").read_text("utf-8"))
    theirs, mean = card["accuracy_percent"]["test"], mean_and_interval(values).mean
    return (f"{100 * mean / theirs:.1f} % of the teacher's accuracy ({mean:.1f} of {theirs:.1f}; "
            f"{'Wikipedia topics' if topics else 'movie sentences'}, {len(values)} seeds)")
