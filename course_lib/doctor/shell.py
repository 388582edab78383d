"""The doctor from a shell: load two saved models, make a batch for them, diagnose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)
from transformers.utils import logging

from course_lib.doctor import diagnose
from course_lib.doctor.evidence import one_line
from course_lib.doctor.report import Finding, Report
from course_lib.material import kinds
from course_lib.material.kinds import Kind
from course_lib.material.text_files import columns_of, read_file, said
from course_lib.shared.masking import IGNORED

# Each is followed by a different word, so that a student which looks at the context gives different answers.
SENTENCES = (
    "The capital of France is Paris, and the river that runs through it is the Seine.",
    "She opened the window because the room was too warm.",
    "The film was slow, but the last scene made me cry.",
    "In 1969 two men walked on the surface of the moon.",
    "Water boils at one hundred degrees when you live by the sea.",
    "My brother plays the violin in a small orchestra.",
    "The company sold its factory and bought a smaller one in Spain.",
    "He forgot his umbrella, so he waited until the rain had stopped.",
    "A good teacher asks questions before she gives answers.",
    "The train to Berlin leaves from platform seven at noon.",
    "Nobody in the village had ever seen an elephant.",
    "The second half of the match was much better than the first.",
    "You need flour, butter, eggs and a little salt.",
    "The old king died without children, and the war began.",
    "Doctors advise their patients to walk for half an hour a day.",
    "The book is about a woman who repairs clocks.",
)
DOORS = {Kind.MASKED_LM: AutoModelForMaskedLM, Kind.TAGGER: AutoModelForTokenClassification} | dict.fromkeys(
    (Kind.CLASSIFIER, Kind.REGRESSION, Kind.MULTI_LABEL), AutoModelForSequenceClassification)


def diagnose_folders(student: str, teacher: str, text_file: str | None = None,
                     say: Callable[[str], None] = lambda _: None) -> Report:
    """Diagnose two saved models on a few sentences; a masked LM gets 15 % of their tokens masked.

    There is no loss and no recipe here: what only they can show is not looked at.
    Raises: ValueError with one sentence for a folder that holds no model that can be read, or a file without text.
    """
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what transformers reports of a loading, `kinds` turns into an error
    models = load_model(student), load_model(teacher)
    tokenizers = load_tokenizer(student), load_tokenizer(teacher)
    for model in models:
        model.eval()
    texts = SENTENCES if text_file is None else read_texts(text_file, say)
    tokenizer = tokenizers[0] or tokenizers[1]
    longest = min(128, *(kinds.positions_of(model) or 128 for model in models))
    theirs = None
    if tokenizer is None:
        batch = without_tokenizer(min(m.config.vocab_size for m in models), longest)
    else:
        encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        batch = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if "MaskedLM" in type(models[0]).__name__ and tokenizer.mask_token_id is not None:
            batch = masked(batch, tokenizer.mask_token_id, tokenizer.all_special_ids)
        elif all("SequenceClassification" in type(model).__name__ for model in models):
            theirs = _for_the_teacher(tokenizers[1] or tokenizer, texts, longest, batch)
    report = diagnose(*models, batch, tokenizer=tokenizer, teacher_tokenizer=tokenizers[1], teacher_batch=theirs)
    findings = [*report.findings, *_heads_left_out(student, teacher)]
    return Report.of(findings if text_file else [_of_our_sentences(finding) for finding in findings])


def _of_our_sentences(finding: Finding) -> Finding:
    """Words that a model does not know are no error where the sentences were ours: its language may be another one."""
    if finding.name != "unknown words" or finding.severity != "error":
        return finding
    return replace(finding, severity="warning",
                   why="No texts were given, so the doctor read English sentences of its own.",
                   fix="python -m course_lib doctor STUDENT TEACHER --text FILE  # texts that the models are made for")


def _for_the_teacher(tokenizer, texts: list[str], longest: int, batch: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The same sentences in the teacher's own token ids, where these are others. Answers about whole sentences can be
    compared all the same."""
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    same = torch.equal(encoded["input_ids"], batch["input_ids"])
    return None if same else {name: encoded[name] for name in ("input_ids", "attention_mask")}


def _heads_left_out(*names: str) -> list[Finding]:
    """What was not looked at, said aloud."""
    found = []
    for who, name in zip(("student", "teacher"), names, strict=True):
        config = kinds.config_of(name)
        if kinds.kind_of(config) is Kind.OTHER:
            found.append(Finding("note", "kind of model", f"the head of the {who} ({kinds.architecture(config)}) was "
                                 "not looked at, its encoder was",
                                 why="The doctor reads the answers of classifiers of texts or tokens and of masked "
                                     "LMs.", fix="diagnose(student, teacher, batch, terms=...)  # your own loss"))
    return found


def load_model(name: str) -> PreTrainedModel:
    """A saved model with the head that its config names, complete or not at all."""
    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise ValueError(f"{name} is no folder. Give the folder of save_pretrained(), or a hub name (owner/name).")
    try:
        return kinds.load_model(name, DOORS.get(kinds.kind_of(kinds.config_of(name)), AutoModel))
    except Exception as error:  # transformers raises many kinds; all of them mean that there is no model to look at
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise  # one sentence of our own
        raise ValueError(f"{name} could not be loaded ({one_line(error)}).") from error


def load_tokenizer(name: str):
    """The tokenizer beside a model, or None."""
    try:
        return kinds.find_tokenizer(name)
    except Exception:
        return None


def read_texts(path: str, say: Callable[[str], None]) -> list[str]:
    """The first 64 texts of a file: its lines, or the column of texts of a table."""
    table = read_file(Path(path))
    names = columns_of(path, table)
    found = [str(row.get(names["text"]) or "").strip() for _, row in table.rows]
    texts = [text for text in found if text][:64]
    if not texts:
        raise ValueError(f"{path} has no line with text.")
    say(f"{said(path, table, names)} The doctor looks at {len(texts)} of them.")
    return texts


def masked(batch: dict[str, Tensor], mask_id: int, special: list[int], share: float = 0.15) -> dict[str, Tensor]:
    """Mask a fixed choice of tokens, at least one per sentence, and make them the labels."""
    ids = batch["input_ids"]
    may = ~torch.isin(ids, torch.tensor(special))
    draw = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~may, 2.0)
    chosen = (draw < share) | (draw == draw.min(dim=1, keepdim=True).values) & may
    return batch | {"input_ids": ids.masked_fill(chosen, mask_id), "labels": ids.masked_fill(~chosen, IGNORED)}


def without_tokenizer(vocabulary: int, longest: int) -> dict[str, Tensor]:
    """Random ids: enough to see shapes, weights and modes."""
    ids = torch.randint(vocabulary, (16, min(16, longest)), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
