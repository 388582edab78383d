"""Chapter 3: which part of DistilBERT's recipe is worth how much? The paper's ablation on a laptop's scale.

Wikipedia text, windows of 64 tokens, masked language modelling. Teacher: the course's masked-LM teacher, 6 layers x
384. Student: half the depth. Arms leave out one of the three losses, both that see the teacher, or the copy.

The soft loss counts at the hidden words only (the original code's `--restrict_ce_to_mask`). So the 30,522 logits are
computed for one token in seven, and a step takes a third of a second instead of several.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DistilBertForMaskedLM, PreTrainedModel

from course_lib.experiments import records
from course_lib.experiments.described import Live, Part
from course_lib.material.assets import DATA, cache_folder
from course_lib.material.data import load_data
from course_lib.material.teachers import Teacher, load_teacher
from course_lib.methods import distilbert
from course_lib.shared import layer_maps
from course_lib.shared.batches import Batches, MaskedBatch, in_order, windows
from course_lib.shared.files import write_atomically
from course_lib.shared.masking import IGNORED
from course_lib.shared.method import Step, Training
from course_lib.shared.students import evaluating
from course_lib.shared.training import Terms, autocast

ABOUT = "Wikipedia, masked LM, DistilBERT student of half depth: each loss left out, and the copy left out."
SEEDS = range(5)
LENGTH, BATCH_SIZE = 64, 16
NUMBERS = Training(5e-4, steps=130, batch_size=BATCH_SIZE)
RECIPE = NUMBERS.recipe()
COPIED = layer_maps.uniform(3, 6)[1:]  # blocks 2, 4, 6: the last one is the one that the head was made for
LOWER = layer_maps.distilbert(3, 6)  # blocks 1, 3, 5: the other way to read "one layer out of two"


@dataclass(frozen=True)
class Arm:
    """Weights of the three losses (the original README's 5, 2, 1 unless told) and the start of the student."""

    soft_weight: float = 5.0
    mlm_weight: float = 2.0
    cosine_weight: float = 1.0
    copied: str = "2, 4, 6"  # which blocks; "": nothing, all weights are random, word embeddings and head too


ARMS = {
    "all three losses": Arm(),
    "no distillation": Arm(soft_weight=0.0, cosine_weight=0.0),
    "without L_ce": Arm(soft_weight=0.0),
    "without L_cos": Arm(cosine_weight=0.0),
    "without L_mlm": Arm(mlm_weight=0.0),
    "random start": Arm(copied=""),
    "layers 1, 3, 5 copied": Arm(copied="1, 3, 5"),
}
WHOLE = "all three losses"
PAPER = {"without L_ce": -2.96, "without L_cos": -1.46, "without L_mlm": -0.31, "random start": -3.69}  # Table 4, GLUE


@cache
def teacher() -> Teacher:
    """The masked-LM teacher: 6 layers x 384."""
    return load_teacher("mlm")


@cache
def examples(split: str) -> list[dict]:
    """The Wikipedia text of a split, cut into windows of at most 64 tokens."""
    return windows(load_data("wikipedia")[split], teacher().tokenizer, LENGTH)


@cache
def fixed_masks(split: str, count: int | None = None) -> list[dict[str, Tensor]]:
    """The first `count` windows of a split (None: all), with masks drawn once, seed 0: the same questions for all."""
    generator = torch.Generator().manual_seed(0)
    return in_order(examples(split)[:count], 32, MaskedBatch(teacher().tokenizer, generator=generator))


def student(seed: int, copied: str = "2, 4, 6") -> PreTrainedModel:
    """DistilBERT with 3 layers x 384: a copy (embeddings, three blocks, head), or random in every weight ("").

    Copied word embeddings stay frozen: they are good already, and a step takes a third less time.
    """
    if copied:
        blocks = map(int, copied.split(","))
        model = distilbert.student_from(teacher().model, layer_map=tuple(enumerate(blocks, start=1)))
        model.get_input_embeddings().requires_grad_(False)
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DistilBertForMaskedLM(distilbert.student_config(teacher().model.config)).train()


def last_states(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """The last hidden states (batch, tokens, hidden), without the masked-LM head."""
    return model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state


def word_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """The masked-LM head on some rows of states: (rows, hidden) -> (rows, vocabulary)."""
    if isinstance(model, DistilBertForMaskedLM):
        return model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(states))))
    return model.cls(states)


def loss_terms(arm: Arm) -> Terms:
    """`distilbert.triple_loss` with positions="masked", but the head works on the hidden words only."""
    learns_from_teacher = arm.soft_weight or arm.cosine_weight

    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden_words = batch["labels"] != IGNORED  # (B, T)
        ours, out = last_states(model, batch), {}
        logits = word_logits(model, ours[hidden_words])  # (B, T, H) -> (hidden words, vocabulary)
        if arm.mlm_weight:
            out["mlm"] = arm.mlm_weight * distilbert.masked_lm_loss(logits, batch["labels"][hidden_words])
        if learns_from_teacher:
            with torch.no_grad():
                theirs = last_states(teacher().model, batch)
        if arm.soft_weight:
            with torch.no_grad():
                answers = word_logits(teacher().model, theirs[hidden_words])
            out["soft"] = arm.soft_weight * distilbert.soft_loss(logits, answers)
        if arm.cosine_weight:
            out["cosine"] = arm.cosine_weight * distilbert.cosine_loss(ours, theirs, batch["attention_mask"])
        return out
    return terms


def training_batches(seed: int) -> Batches:
    """Shuffled batches of training windows; the masks are drawn anew for every batch ("dynamic masking")."""
    return Batches(examples("train"), BATCH_SIZE, seed=seed, collate=MaskedBatch(teacher().tokenizer))


def training(arm: Arm, seed: int) -> tuple[PreTrainedModel, list[Part]]:
    """The student of an arm and the one part of its training."""
    return student(seed, arm.copied), [Part.of(loss_terms(arm), NUMBERS, training_batches(seed), masked=True)]


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split."""
    model, (part,) = training(ARMS[arm_name], seed)
    part.learn(model, seed)
    return scores(model)


def live() -> Live:
    """A step with the teacher beside the student, on windows whose masks are drawn once."""
    rows = windows(load_data("wikipedia")["train"].select(range(200)), teacher().tokenizer, LENGTH)
    collate = MaskedBatch(teacher().tokenizer, generator=torch.Generator().manual_seed(0))

    def batch(some: list[dict]) -> dict[str, Tensor]:
        masked = collate(some)
        return masked | {"token_type_ids": torch.zeros_like(masked["input_ids"])}
    return Live(student(0), teacher().model, Batches(rows, BATCH_SIZE, collate=batch))


def _hidden_words_only(model: nn.Module, source: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    hidden_words, ours = batch["labels"] != IGNORED, last_states(model, batch)
    with torch.no_grad():
        word_logits(source, last_states(source, batch)[hidden_words])
    return [word_logits(model, ours[hidden_words]), ours]


# Beside the method's own step: this chapter's way, where the heads work on the hidden words only.
MORE_STEPS = {"DistilBERT, hidden words": Step(lambda model, _, batch: loss_terms(ARMS[WHOLE])(model, batch),
                                               _hidden_words_only)}


# --- Measuring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def answers(model: PreTrainedModel, split: str = "test", count: int | None = None) -> Tensor:
    """The model's first choice (a token id) at every hidden word of the split's first `count` windows."""
    chosen = []
    with evaluating(model):
        for batch in fixed_masks(split, count):
            with autocast(RECIPE.precision, model.device.type):
                chosen.append(word_logits(model, last_states(model, batch)[batch["labels"] != IGNORED]).argmax(-1))
    return torch.cat(chosen)


@cache
def truth(split: str = "test", count: int | None = None) -> Tensor:
    """The hidden words themselves, in the order of `answers`."""
    return torch.cat([batch["labels"][batch["labels"] != IGNORED] for batch in fixed_masks(split, count)])


@cache
def teacher_answers(split: str = "test", count: int | None = None) -> Tensor:
    """The teacher's first choices; asked once, then read from the cache folder."""
    asked = (DATA / "teachers/mlm/adapter.safetensors").read_bytes() + truth(split, count).numpy().tobytes()
    path = cache_folder() / "answers" / f"mlm-{split}-{hashlib.sha256(asked).hexdigest()[:12]}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        chosen = answers(teacher().model, split, count)
        write_atomically(path, lambda unfinished: save_file({"answers": chosen}, unfinished))
    return load_file(path)["answers"]


def scores(model: PreTrainedModel, split: str = "test", count: int | None = None) -> dict[str, float]:
    """In percent of the hidden words: right, the same as the teacher, and the share of the commonest answer."""
    given = answers(model, split, count)
    return {"top1": round(100 * (given == truth(split, count)).float().mean().item(), 2),
            "agreement": round(100 * (given == teacher_answers(split, count)).float().mean().item(), 2),
            "commonest": round(100 * given.bincount().max().item() / len(given), 2)}


def prepare() -> None:
    """Ask the teacher before the runs start, so that they do not all ask at once."""
    teacher_answers("test")


def poll_result() -> tuple[str, str]:
    """The option of chapter 3's poll that fits the measurement, and the numbers that say so."""

    options = {"a": "without L_ce", "b": "without L_cos", "c": "without L_mlm", "d": "random start"}
    return records.leader("ch03", options, "e", "top1", lowest=True)
