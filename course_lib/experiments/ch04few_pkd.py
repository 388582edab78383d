"""Chapter 4 with few labels: what do the teacher's states add to its answers, and where in a sentence do they stand?

Movie sentences: 500 labels, 6,008 + 2,825 texts, the teacher of these 500 labels. Student: 3 layers x 384, the first
layers of the encoder BEFORE fine-tuning and a fresh head (section 4.2), word embeddings frozen. Three groups of arms;
inside a group one thing differs.

| group | what differs |
|---|---|
| what is learned from | labels; the teacher's class; its answers; on the 500 sentences or on all text |
| patience, beside the answers | [CLS] of layers 2 and 4 (skip), of 4 and 5 (last); the mean of tokens of 2 and 4 |
| the start, learning from answers | which layers; fine-tuned or not; random blocks; the teacher's head |

L_DS is the paper's: cross-entropy with the softened answers, without T^2. Patience has the paper's form (a sum over
layers and hidden units of normalised states) and the same weight of 3 for every kind of state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.experiments import few_labels
from course_lib.experiments.answers import kept
from course_lib.experiments.ch04_pkd import squared_distances
from course_lib.experiments.few_labels import SEEDS, TRIAL_SEEDS, Answers, answer_losses, teacher
from course_lib.material.teachers import TEACHERS, new_model
from course_lib.methods import pkd
from course_lib.methods.cached import SoftLabels, attach, keys_of
from course_lib.shared import layer_maps, probes
from course_lib.shared.batches import Batches, in_order
from course_lib.shared.layer_maps import LayerMap
from course_lib.shared.masking import IGNORED
from course_lib.shared.starts import copy_embeddings, copy_head, copy_layers
from course_lib.shared.statistics import Prediction
from course_lib.shared.students import new_student
from course_lib.shared.training import Recipe, Terms, train

__all__ = ["ABOUT", "ARMS", "PREDICTIONS", "SEEDS", "TRIALS", "TRIAL_SEEDS", "prepare", "rows_of", "run", "spread",
           "student", "terms"]

ABOUT = "500 labels, half depth: labels, answers, and the teacher's states; and where the student starts."
SETTING = "sentiment-500"
BATCH_SIZE, TEMPERATURE, PATIENCE = 32, 2.0, 3.0
SKIP, LAST = layer_maps.skip(3, 6), layer_maps.last(3, 6)
TRIALS = [{"steps": steps, "learning_rate": rate} for steps in (300, 900) for rate in (2e-4, 5e-4)]

States = Literal["none", "cls", "mean"]
Start = Literal["first layers", "layers 2, 4, 6", "random blocks", "fine-tuned", "fine-tuned, with head"]


@dataclass(frozen=True)
class Arm:
    """What one arm learns from, and how it starts."""

    target: Literal["labels", "soft", "argmax"] = "soft"
    text: bool = True
    states: States = "none"
    layer_map: LayerMap | None = None
    start: Start = "first layers"


ARMS = {
    "labels": Arm("labels", text=False),
    "answers": Arm(),
    "class, all text": Arm("argmax"),
    "answers, same sentences": Arm(text=False),
    "PKD-skip, [CLS]": Arm(states="cls", layer_map=SKIP),
    "PKD-last, [CLS]": Arm(states="cls", layer_map=LAST),
    "PKD-skip, mean of tokens": Arm(states="mean", layer_map=SKIP),
    "answers, layers 2, 4, 6": Arm(start="layers 2, 4, 6"),
    "answers, random blocks": Arm(start="random blocks"),
    "answers, fine-tuned layers": Arm(start="fine-tuned"),
    "answers, fine-tuned layers and head": Arm(start="fine-tuned, with head"),
}

# Written before the runs. The first six are the paper's claims or this course's reading of them; the others ask which
# factor of the start counts, because chapter 4's older experiment changed three at once.
PREDICTIONS = [
    Prediction("Answers on all text beat the labels alone", "answers", "labels", "+"),
    Prediction("Answers on all text beat those on the few sentences", "answers", "answers, same sentences", "+"),
    Prediction("Soft answers beat the teacher's class on the same text", "answers", "class, all text", "+"),
    Prediction("Patience on [CLS] adds to the answers (the paper)", "PKD-skip, [CLS]", "answers", "+"),
    Prediction("Skip is better than last (the paper)", "PKD-skip, [CLS]", "PKD-last, [CLS]", "+"),
    Prediction("Patience on the mean of the tokens adds to the answers", "PKD-skip, mean of tokens", "answers", "+"),
    Prediction("Layers 2, 4, 6 are no better start than 1, 2, 3", "answers, layers 2, 4, 6", "answers", "0"),
    Prediction("Random blocks are a worse start", "answers, random blocks", "answers", "-"),
    Prediction("Fine-tuned layers are a better start", "answers, fine-tuned layers", "answers", "+"),
    Prediction("The teacher's head adds nothing to fine-tuned layers", "answers, fine-tuned layers and head",
               "answers, fine-tuned layers", "0"),
]


# --- The teacher's states, asked once ---------------------------------------------------------------------------------


@cache
def examples(split: str) -> list[dict]:
    """The texts of a split with the teacher's logits, and with `teacher_cls` and `teacher_mean` (6 layers x 384)."""
    rows = few_labels.examples(SETTING, split)
    states = attach(rows, kept(SETTING, f"states-{split}", lambda: _asked(rows)))
    return [row | {name: found[name] for name in ("teacher_cls", "teacher_mean")}
            for row, found in zip(rows, states, strict=True)]


@torch.no_grad()
def _asked(rows: list[dict]) -> SoftLabels:
    """[CLS] and the mean of the tokens after every layer, in half precision; read in the order of the lengths."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    parts: dict[str, list[Tensor]] = {"cls": [], "mean": []}
    for batch in in_order([rows[i] for i in order]):
        states = probes.read(teacher(SETTING).model, batch).hidden_states
        layers = [states[layer] for layer in range(1, max(states) + 1)]
        parts["cls"].append(torch.stack([state[:, 0] for state in layers], dim=1).half())
        parts["mean"].append(means(layers, batch["attention_mask"]).half())
    tensors = {name: torch.empty_like(torch.cat(found)) for name, found in parts.items()}
    for name, found in parts.items():
        tensors[name][order] = torch.cat(found)
    return SoftLabels(keys_of(rows), torch.ones(len(rows), dtype=torch.long), tensors, 2, 1.0)


def means(layers: list[Tensor], mask: Tensor) -> Tensor:
    """The mean over the real tokens of each layer: L x (batch, tokens, hidden) -> (batch, L, hidden)."""
    kept_tokens = mask.unsqueeze(-1).float()  # (batch, tokens, 1)
    return torch.stack([(state * kept_tokens).sum(1) / kept_tokens.sum(1) for state in layers], dim=1)


def rows_of(arm: Arm) -> list[dict]:
    """The texts that an arm learns from: those with a label, or all."""
    if not arm.text:
        return [row for row in examples("train") if row["label"] != IGNORED]
    return examples("train") + examples("unlabelled")


def prepare() -> None:
    """Ask the teacher about every text before the runs start."""
    few_labels.prepare(SETTING)
    for split in ("train", "unlabelled", "test"):
        examples(split)


def spread(kind: Literal["cls", "mean"], split: str = "test") -> dict[int, float]:
    """How different the teacher's states of two sentences are, layer by layer: 0 the same, 2 unrelated."""
    states = torch.stack([torch.as_tensor(row[f"teacher_{kind}"]) for row in examples(split)]).float()
    half = len(states) // 2  # (sentences, layers, hidden)
    apart = squared_distances(states[:half], states[half : 2 * half]).mean(0)
    return dict(enumerate(apart.tolist(), start=1))


# --- The student and its loss -----------------------------------------------------------------------------------------


def student(start: Start, seed: int) -> PreTrainedModel:
    """3 layers x 384; word embeddings are copies in every start, and frozen."""
    general, tuned = new_model(TEACHERS[SETTING]), teacher(SETTING).model
    source = tuned if start.startswith("fine-tuned") else general
    made = new_student(source, layers=3, seed=seed)
    copy_embeddings(made, source)
    if start != "random blocks":
        copy_layers(made, source, layer_maps.uniform(3, 6) if start == "layers 2, 4, 6" else layer_maps.bottom(3, 6))
    if start == "fine-tuned, with head":
        copy_head(made, source)
    made.get_input_embeddings().requires_grad_(False)
    return made


def terms(arm: Arm) -> Terms:
    """A little label, the answers as in the paper, and patience where the arm has it."""
    told = Answers(arm.target, TEMPERATURE)

    def of(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        mine = probes.read(model, batch)
        losses = answer_losses(mine.logits, batch, told)
        if arm.target == "soft":
            losses["soft"] = (1 - told.hard_weight) * pkd.soft_loss(
                mine.logits, batch["teacher_logits"].float(), temperature=TEMPERATURE)
        if arm.layer_map:
            losses["patience"] = PATIENCE * pkd.patience_loss(*matched(arm, mine.hidden_states, batch))
        return losses
    return of


def matched(arm: Arm, states: dict[int, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The states of both sides for every pair of the map: (batch, pairs, hidden) each."""
    ours = [states[s] for s, _ in arm.layer_map]
    own = means(ours, batch["attention_mask"]) if arm.states == "mean" else torch.stack([h[:, 0] for h in ours], dim=1)
    theirs = batch[f"teacher_{arm.states}"].float()[:, [t - 1 for _, t in arm.layer_map]]
    return own, theirs


def run(arm_name: str, seed: int, trial: dict) -> dict:
    """Train one student and measure it: validation accuracy before and after, and every test answer."""
    arm = ARMS[arm_name]
    model = student(arm.start, seed)
    start = few_labels.validation(model, SETTING)["validation"]
    train(model, Batches(rows_of(arm), BATCH_SIZE, seed=seed), terms(arm),
          Recipe(**trial, warmup=0.1, precision="auto", seed=seed))
    return few_labels.scores(model, SETTING) | {"start": start}
