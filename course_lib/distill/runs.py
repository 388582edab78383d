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
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from course_lib.distill.card import model_card, paper_we_you
from course_lib.distill.checks import (
    all_texts,
    method_of,
    require_able,
    require_embeddings,
    require_fit,
    require_known_tokens,
    require_readable,
    same_reading,
    teacher_of,
    texts_cut,
    tokens_per_text,
)
from course_lib.distill.classes import as_the_model_numbers, in_teachers_classes
from course_lib.distill.folder import begin_folder, is_same_run, save_student, write_json
from course_lib.distill.memory import estimate, in_words
from course_lib.distill.settings import READING, Settings
from course_lib.distill.texts import Texts, read
from course_lib.doctor import diagnose
from course_lib.material.teachers import Teacher
from course_lib.methods.cached import ask_teacher, attach, load_soft_labels
from course_lib.methods.specs import Made, by_spec, is_masked_lm
from course_lib.shared.batches import Batches, MaskedBatch, encode, in_order, pad, windows
from course_lib.shared.clock import latency_ratio
from course_lib.shared.files import write_atomically
from course_lib.shared.measures import accuracy, agreement, evaluate_masked_lm, predict_logits
from course_lib.shared.method import CLASSIFICATION, MASKED_LM, Job, Method, Stage
from course_lib.shared.parts import begin, process_number, processes, wait_for_all
from course_lib.shared.students import count_parameters
from course_lib.shared.training import History, autocast

Say = Callable[[str], None]


def distill(settings: Settings, say: Say = print) -> dict:
    """Distil a teacher into a student on the given data, and return what was measured on the test split.

    Called again with the same settings, it goes on where it was stopped; a finished run only returns its result.
    Raises: ValueError that names what does not fit (method, teacher, student, data, folder) and the way out.
    """
    method = method_of(settings)
    state = begin()
    say = say if state.is_main_process else (lambda _: None)
    folder = Path(settings.out)
    if is_same_run(folder, settings) and (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text("utf-8"))
        say(f"{folder} is a finished run.\n{paper_we_you(method, result)}")
        return result
    wait_for_all()  # nobody writes into the folder before everybody has looked at it
    say(_where(state, settings))
    texts = read(settings.data, **{name: getattr(settings, name) for name in READING})
    fresh = method.teacher == "none"  # the model is fine-tuned: it has nothing to teach yet
    texts = as_the_model_numbers(texts, settings.teacher) if fresh else texts
    for note in texts.notes:
        say(note)
    teacher = teacher_of(settings, method, texts)
    task = MASKED_LM if is_masked_lm(teacher.model) else CLASSIFICATION
    require_fit(method, task, teacher, texts)
    require_embeddings(teacher, texts)
    if task == CLASSIFICATION:
        texts = in_teachers_classes(texts, teacher, settings.max_length, say, ask=not fresh)
    made = by_spec(settings.student or method.student, method, teacher, all_texts(texts),
                   pairs="text_pair" in texts.splits["train"].column_names, seed=settings.seed)
    made = same_reading(made, teacher, texts)
    require_readable(method, made, teacher)
    if task == MASKED_LM and texts.class_names:
        say("The teacher is a masked language model: hidden words are its classes, and the labels of the data are not "
            "read. To distil those, fine-tune it first (finetune).")
    say(f"Student: {count_parameters(made.model):,} parameters, {made.layers} layer(s); start: {made.start}.")
    begin_folder(folder, settings, texts)
    teacher.model.to(state.device)
    made.model.to(state.device)
    run = Run(settings, method, teacher, made, texts, task, folder, say)
    run.prepare()
    run.train()
    result = run.finish() if state.is_main_process else {}
    wait_for_all()
    return result or json.loads((folder / "result.json").read_text("utf-8"))


class Run:
    """The steps of one run, in their order."""

    def __init__(self, settings: Settings, method: Method, teacher: Teacher, made: Made, texts: Texts, task: str,
                 folder: Path, say: Say):
        self.settings, self.method, self.teacher, self.made, self.texts = settings, method, teacher, made, texts
        self.task, self.folder, self.say = task, folder, say
        self.labels = bool(texts.class_names)
        self.max_length, shortened = tokens_per_text(settings.max_length, made, teacher)
        if shortened:
            say(shortened)
        self.histories: dict[str, History] = {}

    # -- data

    def prepare(self) -> None:
        """Encode all texts and, for a classifier, ask the teacher once about each."""
        self.examples = {split: self._encoded(split) for split in ("train", "validation", "test")}
        padding = getattr(self.made.tokenizer, "pad_token_id", 0) or 0
        self.plain = partial(pad, pad_token_id=padding)
        if self.task == MASKED_LM:
            self.masked = MaskedBatch(self.made.tokenizer)
        asked = [row for rows in self.examples.values() for row in rows if "teacher_logits" in row]
        if self.labels and asked:
            self._require_able(asked)

    def _require_able(self, asked: list[dict]) -> None:
        try:
            require_able(self.teacher, _column(asked, "teacher_logits"), _column(asked, "label"))
        except ValueError:
            wait_for_all()
            if process_number() == 0 and not (self.folder / "checkpoints").exists():
                shutil.rmtree(self.folder / "answers")  # so that the right command may use the same --out
                (self.folder / "config.json").unlink()
                self.folder.rmdir()
            raise

    def _encoded(self, split: str) -> list[dict]:
        rows = self.texts.splits[split]
        if self.task == MASKED_LM:
            found = windows(rows, self.made.tokenizer, self.max_length)
            if not found:
                raise ValueError(f"The {split} texts are all shorter than 8 tokens; nothing can be masked in them.")
            if split == "train":
                self._say(require_known_tokens(found, self.made.tokenizer, self.made.model, "student"))
            return found
        examples = self._in_tokens(rows)
        self._say(texts_cut(rows, examples, split, self.max_length, self.made, self.teacher))
        if split == "train":
            self._say(require_known_tokens(examples, self.made.tokenizer, self.made.model, "student"))
        if self.method.teacher == "none" or (split == "train" and self.method.teacher == "live"):
            return examples
        return self._with_answers(examples, split)

    def _in_tokens(self, rows: Dataset) -> list[dict]:
        """The rows in the student's tokens. Where both models have the same, the tokenizer that tells the two texts of
        a pair apart makes them: a live teacher needs that, and a DistilBERT beside it leaves it out."""
        if self.made.own_tokens:
            return self.made.examples(rows, self.max_length)
        readers = self.teacher.tokenizer, self.made.tokenizer
        reader = next((r for r in readers if "token_type_ids" in r.model_input_names), readers[0])
        return encode(rows, reader, self.max_length)

    def _say(self, sentence: str) -> None:
        if sentence:
            self.say(sentence)

    def _with_answers(self, examples: list[dict], split: str) -> list[dict]:
        """The examples with the teacher's log-probabilities, which are its logits up to a constant."""
        path, rows = self.folder / "answers" / f"{split}.safetensors", self.texts.splits[split]
        asked = encode(rows, self.teacher.tokenizer, self.max_length)
        if split == "train" or self.method.teacher == "live":
            self._say(require_known_tokens(asked, self.teacher.tokenizer, self.teacher.model, "teacher")
                      if self.made.own_tokens else "")
        if not path.exists() and process_number() == 0:
            self.say(f"Asking the teacher about {len(asked):,} {split} texts ...")
            path.parent.mkdir(parents=True, exist_ok=True)
            ask_teacher(self.teacher.model, asked, identify_by=rows).save(path)
        wait_for_all()
        soft = attach(examples, load_soft_labels(path), identify_by=rows)
        return [row | {"teacher_logits": row["teacher_log_probs"]} for row in soft]  # logits up to a constant

    # -- training

    def train(self) -> None:
        s = self.settings
        changed = {name: getattr(s, name) for name in ("learning_rate", "batch_size") if getattr(s, name) is not None}
        if s.steps is not None or s.epochs is not None:
            changed |= {"steps": s.steps or 0, "epochs": s.epochs or 0.0}
        labels = self.labels or self.task == MASKED_LM  # the hidden words are labels, whatever columns the file has
        job = Job(self.teacher.model, self.made.layers, self.method.recipe_of(s.preset, s.recipe), self.made.copied,
                  self.made.narrower_than(self.teacher.model), labels, s.preset, self.task, changed)
        for number, stage in enumerate(self.method.stages(job), start=1):
            self.histories[stage.name] = self._stage(stage, number)

    def _stage(self, stage: Stage, number: int) -> History:
        student, s, training = self.made.model, self.settings, stage.training
        batches = Batches(self.examples["train"], training.batch_size, seed=s.seed + number - 1,
                          collate=self.masked if stage.masked else self.plain)
        steps = training.steps or math.ceil(training.epochs * len(batches))
        recipe = training.recipe(steps=steps, accumulate=s.accumulate, precision=s.precision, seed=s.seed,
                                 evaluate_every=max(1, steps // 5), save_every=s.save_every)
        self.say(f"{stage.name}: {steps:,} steps of {training.batch_size} examples, learning rate "
                 f"{training.learning_rate:g}, {steps / len(batches):.1f} epoch(s).")
        if number == 1 and isinstance(student, PreTrainedModel):
            examples = math.ceil(training.batch_size / s.accumulate / processes())
            beside = self.teacher.model if self.method.teacher == "live" else None
            need = estimate(student, beside, examples=examples, tokens=self.max_length,
                            masked_lm=stage.masked, half=_in_bf16(s.precision, student.device.type))
            self.say(f"A step needs {in_words(need)} if the texts fill --max-length; --accumulate makes it less.")
        student, history = stage.learn(student, batches, recipe, folder=self.folder / "checkpoints" / str(number),
                                       evaluate=self._evaluate)
        self.last_terms, self.last_recipe = stage.terms, recipe
        self.last_batch = {name: tensor[:32] for name, tensor in batches[0].items()}
        self.made = replace(self.made, model=student)
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
        return self._compared(predict_logits(model, in_order(rows, 64, self.plain)), rows)

    def _compared(self, logits: torch.Tensor, rows: list[dict]) -> dict[str, float]:
        found = {}
        if self.labels:
            found["accuracy"] = 100 * accuracy(logits, _column(rows, "label"))
        if self.method.teacher != "none":
            found["agreement"] = 100 * agreement(logits, _column(rows, "teacher_logits"))
        return found

    # -- the end

    def finish(self) -> dict:
        """Measure, save, explain."""
        student = self.made.model.eval()
        found, per_class = self._tested(student)
        result = {"method": self.method.name, "student_parameters": count_parameters(student),
                  "teacher_parameters": count_parameters(self.teacher.model), "processes": processes(),
                  "minutes": round(sum(h.seconds for h in self.histories.values()) / 60, 1),
                  **{name: round(value, 2) for name, value in found.items()}}
        result |= self._of_the_teacher() | per_class
        self._write_curves()
        save_student(self.made, self.folder, model_card(self.settings, self.method, self.made, self.texts, self.teacher,
                                                        result))
        alone = self.method.teacher == "none" or self.made.own_tokens
        report = diagnose(student, None if alone else self.teacher.model, self.last_batch,
                          [self.last_recipe], list(self.histories.values())[-1],
                          terms=self.last_terms, tokenizer=None if self.made.own_tokens else self.made.tokenizer)
        write_atomically(self.folder / "doctor.txt", lambda path: path.write_text(f"{report}\n", "utf-8"))
        self.say(f"\n{report}\n")
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        write_json(self.folder / "result.json", result)
        self.say(paper_we_you(self.method, result))
        return result

    def _tested(self, student: nn.Module) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """The scores on the test split, and the share that is found of each class: accuracy hides the rare ones."""
        if self.task == MASKED_LM:
            return self.scores(student, "test"), {}
        rows = self.examples["test"]
        logits = predict_logits(student, in_order(rows, 64, self.plain))
        if not self.labels:
            return self._compared(logits, rows), {}
        labels, said, found = _column(rows, "label"), [], {}
        for number, name in enumerate(self.teacher.class_names):
            if (here := labels == number).any():
                found[name] = round(100 * (logits[here].argmax(-1) == number).double().mean().item(), 1)
                said.append(f"{name} {found[name]:.1f} % of {int(here.sum())}")
        self.say("Found of each class in the test texts: " + ", ".join(said) + ".")
        return self._compared(logits, rows), {"found_of_each_class": found}

    def _of_the_teacher(self) -> dict[str, float]:
        if self.method.teacher == "none":
            return {}
        found, theirs = {}, self.teacher.model
        rows = self.texts.splits["test"]
        if self.task == MASKED_LM:
            found["teacher_accuracy"] = round(self.scores(theirs, "test")["accuracy"], 2)
        elif self.labels:
            answers, labels = (_column(self.examples["test"], name) for name in ("teacher_logits", "label"))
            found["teacher_accuracy"] = round(100 * accuracy(answers, labels), 2)
        count = min(32, len(rows))
        mine, asked = self.plain(self.examples["test"][:count]), None
        if self.made.own_tokens:
            asked = pad(encode(rows.select(range(count)), self.teacher.tokenizer, self.max_length))
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
        from course_lib.notebook.plots import learning_curves

        measured = {name: h for name, h in self.histories.items() if h.scores}
        if measured:
            measure = next(name for name in next(iter(measured.values())).scores[0] if name != "step")
            figure = learning_curves(measured, measure)
            write_atomically(self.folder / "curves.png", lambda path: figure.savefig(path, format="png", dpi=150))


def _column(rows: list[dict], name: str) -> torch.Tensor:
    return torch.stack([torch.as_tensor(row[name]) for row in rows])


def _in_bf16(precision: str, device: str) -> bool:
    """What the training loop's own context decides."""
    with autocast(precision, device):
        return torch.is_autocast_enabled(device)


def _where(state: PartialState, settings: Settings) -> str:
    many = f"{state.num_processes} processes, " if state.num_processes > 1 else ""
    threads = f", {torch.get_num_threads()} thread(s)" if state.device.type == "cpu" else ""
    kind = "bfloat16" if _in_bf16(settings.precision, state.device.type) else "float32"
    return f"Training on: {many}{state.device.type.upper()}{threads}, {kind} products."
