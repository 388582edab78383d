"""The doctor from a shell: load two saved models, make a batch for them, diagnose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging

from course_lib.doctor import diagnose
from course_lib.doctor.evidence import one_line
from course_lib.doctor.report import Report
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
DOORS = {"MaskedLM": AutoModelForMaskedLM, "PreTraining": AutoModelForMaskedLM,
         "SequenceClassification": AutoModelForSequenceClassification}
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
                   "tokenizer.model")


def diagnose_folders(student: str, teacher: str, text_file: str | None = None,
                     say: Callable[[str], None] = lambda _: None) -> Report:
    """Diagnose two saved models on a few sentences; a masked LM gets 15 % of their tokens masked.

    There is no loss and no recipe here: what only they can show is not looked at.
    Raises: ValueError with one sentence for a folder that holds no model that can be read, or a file without text.
    """
    logging.disable_progress_bar()
    models = load_model(student), load_model(teacher)
    tokenizers = load_tokenizer(student), load_tokenizer(teacher)
    for model in models:
        model.eval()
    texts = SENTENCES if text_file is None else read_texts(text_file, say)
    tokenizer = tokenizers[0] or tokenizers[1]
    longest = min(128, *(getattr(m.config, "max_position_embeddings", None) or 128 for m in models))
    if tokenizer is None:
        batch = without_tokenizer(min(m.config.vocab_size for m in models), longest)
    else:
        encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        batch = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if "MaskedLM" in type(models[0]).__name__ and tokenizer.mask_token_id is not None:
            batch = masked(batch, tokenizer.mask_token_id, tokenizer.all_special_ids)
    return diagnose(*models, batch, tokenizer=tokenizer, teacher_tokenizer=tokenizers[1])


def load_model(name: str) -> PreTrainedModel:
    """A saved model with the head that its config names. No pickled weights, no code of the repository."""
    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise ValueError(f"{name} is no folder. Give the folder of save_pretrained(), or a hub name (owner/name).")
    local = {"local_files_only": Path(name).is_dir()}
    try:
        config = AutoConfig.from_pretrained(name, **local)
        kind = (getattr(config, "architectures", None) or [""])[0]
        door = next((door for ending, door in DOORS.items() if ending in kind), AutoModel)
        return door.from_pretrained(name, attn_implementation="eager", use_safetensors=True, **local)
    except Exception as error:  # transformers raises many kinds; all of them mean that there is no model to look at
        raise ValueError(f"{name} could not be loaded ({one_line(error)}).") from error


def load_tokenizer(name: str):
    """The tokenizer beside a model, or None. Transformers makes an empty one where there is no file: that is none."""
    if Path(name).is_dir() and not any((Path(name) / file).exists() for file in TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=Path(name).is_dir())
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
