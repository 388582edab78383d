"""Teachers: real models that fit in a lesson.

Each teacher is MiniLM-L6 (fetched, 22.7M weights, frozen) plus a low-rank adapter (LoRA) and a head that we trained;
only those are committed, under data/teachers/. `load_teacher` adds the adapter to the weights and returns a plain
Hugging Face model. A number in a name says how many labels the teacher has seen: `sentiment-500` was trained on the
500 sentences that keep their label in `load_data("sentiment", labels=500)`, and on nothing else.

    python -m course_lib.material.teachers mlm          train the masked-LM teacher again (or sentiment-500, ...)
    python -m course_lib.material.teachers --score mlm  measure the committed one on its test split
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from course_lib.material.assets import DATA, asset, cache_folder, manifest
from course_lib.material.data import half_of, labelled, load_data
from course_lib.material.kinds import Kind, architecture, config_of, kind_of, load_model, tokenizer_of
from course_lib.shared.batches import Batches, MaskedBatch, encode, in_order, windows
from course_lib.shared.files import write_atomically
from course_lib.shared.masking import IGNORED
from course_lib.shared.training import Recipe, train


@dataclass(frozen=True)
class Teacher:
    """A frozen model, its tokenizer, and the card that says where it comes from (empty for models of others)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    card: dict = field(default_factory=dict)

    @property
    def class_names(self) -> list[str]:
        return [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]


def load_teacher(name: str, task: str | None = None) -> Teacher:
    """Load a teacher of the course, a local folder, or a hub model: frozen, in eval mode, ready to be asked.

    name: one of TEACHERS ("mlm", "sentiment-500", ...), or a path or hub name; for the latter `task` is "mlm" or
    "classification" (default: what the model's own config says).
    Raises: ValueError for an unknown name, for a model of another kind, and for one that is not complete; AssetError
    if the encoder cannot be fetched.
    """
    if name in TEACHERS and not (Path(name) / "config.json").exists():  # a folder of that name is the user's
        teacher = _load_own(name)
    elif Path(name).is_dir() or "/" in name:
        teacher = _load_outside(name, task)
    else:
        raise ValueError(f"No teacher '{name}'. The course has {', '.join(TEACHERS)}; "
                         "a folder with a saved model or a hub name with a slash works too.")
    teacher.model.eval().requires_grad_(False)
    return teacher


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The WordPiece tokenizer that all models of the course share (BERT uncased, 30,522 pieces)."""
    return AutoTokenizer.from_pretrained(asset("minilm-l6"), local_files_only=True)


def load_encoder() -> BertModel:
    """The bare MiniLM-L6 encoder: 6 layers x 384, no head, no adapter."""
    return BertModel.from_pretrained(asset("minilm-l6"), local_files_only=True, attn_implementation="eager")


def _load_outside(name: str, task: str | None) -> Teacher:
    """A model of somebody else, if it has answers that the course's losses can compare."""
    config = config_of(name)
    kind = kind_of(config)
    task = task or ("mlm" if kind is Kind.MASKED_LM else "classification")
    doors = {"mlm": AutoModelForMaskedLM, "classification": AutoModelForSequenceClassification}
    if task not in doors:
        raise ValueError(f"task is '{task}'; it can be one of {', '.join(doors)}.")
    if kind not in (Kind.CLASSIFIER, Kind.MASKED_LM, Kind.ENCODER):  # what a bare encoder lacks, its file will say
        raise ValueError(f"{name} is {kind} ({architecture(config)}). A teacher of the course is {Kind.CLASSIFIER} "
                         f"(one class for each) or {Kind.MASKED_LM}: a softmax over other answers would mean nothing. "
                         "Fine-tune its encoder for classes (finetune), or write the loss for it and let the doctor "
                         "look at that loss.")
    return Teacher(load_model(name, doors[task]), tokenizer_of(name))


def _load_own(name: str) -> Teacher:
    folder = DATA / "teachers" / name
    if not (folder / "card.json").exists():
        raise ValueError(f"Teacher '{name}' is not trained yet: data/teachers/{name} is missing. "
                         f"`python -m course_lib.material.teachers {name}` trains it.")
    card = json.loads((folder / "card.json").read_text("utf-8"))
    model = new_model(TEACHERS[name])
    if card["base_sha256"] != asset_hash():
        raise ValueError(f"Teacher '{name}' was trained on other encoder weights than the fetched ones.")
    add_adapter(model, TEACHERS[name])
    stored = {n: t.float() for n, t in load_file(folder / "adapter.safetensors").items()}
    expected = {n for n, p in model.named_parameters() if p.requires_grad}
    if expected != stored.keys():
        raise ValueError(f"Teacher '{name}': its adapter file does not fit this version of the course "
                         f"({len(expected ^ stored.keys())} names differ). Rebuild it with `make teacher`.")
    model.load_state_dict(stored, strict=False)
    merge_adapter(model)
    return Teacher(model, load_tokenizer(), card)


def asset_hash() -> str:
    return manifest()["minilm-l6"]["files"]["model.safetensors"]


# ------------------------------------------------------------------------------------------------ how they are made


@dataclass(frozen=True)
class TeacherRecipe:
    """Data, adapter and training of one teacher."""

    data: str
    head: tuple[str, ...]  # parameters outside the adapter that are trained: every name that contains one of these
    recipe: Recipe
    batch_size: int
    max_length: int
    rank: int = 32
    alpha: int = 64
    dropout: float = 0.1
    labels: int | Literal["all"] | None = None  # as in `load_data`; None: the older split with every label
    half: int | None = None  # 0 or 1: trained on this half of the training texts, to answer the other one


TEACHERS = {
    "mlm": TeacherRecipe(
        data="wikipedia", head=("cls.predictions.transform", "cls.predictions.bias", "LayerNorm"), batch_size=32,
        max_length=128, dropout=0.0,
        recipe=Recipe(steps=3000, learning_rate=2e-3, warmup=0.05, precision="auto", seed=1, evaluate_every=500)),
    "sentiment": TeacherRecipe(
        data="sentiment", head=("classifier", "pooler", "LayerNorm"), batch_size=32, max_length=64,
        recipe=Recipe(steps=1000, learning_rate=5e-4, warmup=0.1, precision="auto", seed=1, evaluate_every=125)),
    "topics": TeacherRecipe(
        data="topics", head=("classifier", "pooler", "LayerNorm"), batch_size=32, max_length=128,
        recipe=Recipe(steps=700, learning_rate=5e-4, warmup=0.1, precision="auto", seed=1, evaluate_every=350)),
    "sentiment-500": TeacherRecipe(
        data="sentiment", labels=500, head=("classifier", "pooler", "LayerNorm"), batch_size=32, max_length=64,
        recipe=Recipe(steps=240, learning_rate=5e-4, seed=1)),
    "topics-440": TeacherRecipe(
        data="topics", labels=440, head=("classifier", "pooler", "LayerNorm"), batch_size=16, max_length=64,
        recipe=Recipe(steps=200, learning_rate=5e-4, seed=1)),
    "trec-500": TeacherRecipe(
        data="trec", labels=500, head=("classifier", "pooler", "LayerNorm"), batch_size=32, max_length=64,
        recipe=Recipe(steps=240, learning_rate=5e-4, seed=1)),
}
# Every label is given. A teacher knows the answers to its own training texts by heart, so there are two more: each has
# seen one half and answers the other ("cross-fitted" answers).
_ALL_LABELS = TeacherRecipe(
    data="sentiment", labels="all", head=("classifier", "pooler", "LayerNorm"), batch_size=32, max_length=64, rank=8,
    alpha=16, recipe=Recipe(steps=400, learning_rate=5e-4, seed=1))
TEACHERS |= {"sentiment-all": _ALL_LABELS} | {
    f"sentiment-half-{half}": replace(_ALL_LABELS, half=half, recipe=replace(_ALL_LABELS.recipe, steps=250))
    for half in (0, 1)}


def new_model(made: TeacherRecipe) -> PreTrainedModel:
    """The encoder with an untrained head for the task."""
    config = BertConfig.from_pretrained(asset("minilm-l6"), hidden_dropout_prob=made.dropout,
                                        attention_probs_dropout_prob=made.dropout)
    if made.data == "wikipedia":
        model = BertForMaskedLM._from_config(config, attn_implementation="eager")
        pooler = False
    else:
        names = load_data(made.data, labels=made.labels)["train"].features["label"].names
        config.id2label, config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
        model = BertForSequenceClassification._from_config(config, attn_implementation="eager")
        pooler = True
    weights = load_file(asset("minilm-l6", "model.safetensors"))
    weights = {n: w for n, w in weights.items() if (pooler or not n.startswith("pooler")) and "position_ids" not in n}
    model.bert.load_state_dict(weights)
    model.tie_weights()
    return model


def add_adapter(model: PreTrainedModel, made: TeacherRecipe) -> None:
    """Freeze everything, add a low-rank adapter to every linear layer of the encoder, leave the head trainable."""
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and ".layer." in n]
    inject_adapter_in_model(LoraConfig(r=made.rank, lora_alpha=made.alpha, target_modules=linear), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or any(part in name for part in made.head))


def merge_adapter(model: PreTrainedModel) -> None:
    """Add each adapter to its weight, W + (alpha / r) B A, and take it away again: a plain model remains."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())


def answers(model: PreTrainedModel, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, one row per question: a sentence, or a masked position.

    A masked-LM head sees the masked positions only: 15 % of the work of a full softmax.
    """
    if not isinstance(model, BertForMaskedLM):
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch["labels"]
    hidden = model.bert(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    chosen = batch["labels"] != IGNORED
    return model.cls(hidden[chosen]), batch["labels"][chosen]  # (B, T, H) -> (chosen, vocabulary)


def terms(model: PreTrainedModel, batch: dict) -> dict[str, torch.Tensor]:
    """Cross-entropy with the true class, or with the hidden token."""
    logits, labels = answers(model, batch)
    name = "masked_lm" if isinstance(model, BertForMaskedLM) else "hard"
    return {name: nn.functional.cross_entropy(logits.float(), labels)}


@torch.no_grad()
def score(model: PreTrainedModel, made: TeacherRecipe, split: str) -> dict[str, float]:
    """Held-out accuracy in percent: of the class, or of the hidden token (masks drawn once, seed 0).

    In float32, so that it is the same on every processor: in bfloat16 a few examples in a thousand change sides.
    """
    task = _task(made, split)
    right = total = 0
    model.eval()
    for batch in task.in_order:
        logits, labels = answers(model, batch)
        right += (logits.argmax(-1) == labels).sum().item()
        total += len(labels)
    return {"accuracy": 100 * right / total}


@cache  # while a teacher learns, its score on the same split is asked for again and again
def _task(made: TeacherRecipe, split: str) -> SimpleNamespace:
    tokenizer, rows = load_tokenizer(), load_data(made.data, labels=made.labels)[split]
    if made.half is not None and split == "train":
        rows = rows.select([i for i, text in enumerate(rows["text"]) if half_of(text) == made.half])
    if made.data == "wikipedia":
        examples = windows(rows, tokenizer, made.max_length)
        fixed = MaskedBatch(tokenizer, generator=torch.Generator().manual_seed(0))
        collate = MaskedBatch(tokenizer)
        return SimpleNamespace(examples=examples, batches=Batches(examples, made.batch_size, collate=collate,
                               seed=made.recipe.seed), in_order=in_order(examples, 64, fixed))
    examples = encode(labelled(rows), tokenizer, made.max_length)
    by_length = sorted(examples, key=lambda example: len(example["input_ids"]))  # less padding
    return SimpleNamespace(examples=examples, batches=Batches(examples, made.batch_size, seed=made.recipe.seed),
                           in_order=in_order(by_length))


def build(name: str) -> dict:
    """Train teacher `name`, write data/teachers/<name>/ (adapter, card) and return the card."""
    made, run_folder = TEACHERS[name], cache_folder() / "runs" / f"teacher-{name}"
    torch.manual_seed(made.recipe.seed)
    model = new_model(made)
    add_adapter(model, made)
    task = _task(made, "train")
    history = train(model, task.batches, terms, made.recipe, folder=run_folder,
                    evaluate=lambda m: _say(score(m, made, "validation")))
    trained = {n: p.detach().half().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    model.load_state_dict({n: t.float() for n, t in trained.items()}, strict=False)  # score what will be stored
    merge_adapter(model)
    scores = {split: round(score(model, made, split)["accuracy"], 2) for split in ("validation", "test")}
    card = {
        "name": name, "base": "minilm-l6", "base_sha256": asset_hash(), "data": made.data,
        "labels": made.labels, "train_examples": len(task.examples),
        "train_tokens_per_epoch": int(sum(task.batches.lengths)),
        "epochs": round(made.recipe.steps / len(task.batches), 2), "recipe": asdict(made),
        "trained_numbers": sum(t.numel() for t in trained.values()), "accuracy_percent": scores,
        "last_loss": {k: round(v, 4) for k, v in history.steps[-1].items() if k in ("hard", "masked_lm")},
        "minutes": round(history.seconds / 60, 1),
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, no GPU",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "command": f"python -m course_lib.material.teachers {name}",
        "licence": "MIT for the adapter; Apache-2.0 for the encoder; texts: see data/assets.toml",
    }
    folder = DATA / "teachers" / name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "adapter.safetensors", lambda path: save_file(trained, path))
    write_atomically(folder / "card.json", lambda path: path.write_text(json.dumps(card, indent=1) + "\n", "utf-8"))
    shutil.rmtree(run_folder)  # the next build starts from the beginning
    return card


def _say(scores: dict[str, float]) -> dict[str, float]:
    print({k: round(v, 2) for k, v in scores.items()}, flush=True)
    return scores


def main(arguments: list[str]) -> None:
    only_score = "--score" in arguments
    for name in [a for a in arguments if not a.startswith("-")] or TEACHERS:
        if only_score:
            print(name, score(load_teacher(name).model, TEACHERS[name], "test"))
        else:
            print(json.dumps(build(name), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
