"""Chapter 5: what can a narrow student learn from the inside of a wide teacher, and which part of it matters?

Movie sentences. Teacher: the course's sentiment teacher, 6 layers x 384. Student: 2 layers x 156, feed-forward 600,
which is TinyBERT-4 (4 x 312, 1200) in the proportions of our teacher: a third of the depth, 41 % of the width. All arms
of a seed read the same 350 batches in the same order; only "augmented text" has other sentences. The paper's general
distillation (2.5 billion words) is out of reach: the word embeddings start as principal components of the teacher's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from datasets import Dataset
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import nn
from transformers import PreTrainedModel

from course_lib.experiments import records, sentences
from course_lib.experiments.described import Live, Part, sentence_batches
from course_lib.experiments.sentences import BATCH_SIZE, SEEDS, examples, scores, teacher
from course_lib.material.assets import DATA, cache_folder
from course_lib.material.data import load_data
from course_lib.material.teachers import Teacher, load_teacher
from course_lib.material.word_vectors import glove
from course_lib.methods import tinybert
from course_lib.methods.tinybert import RECORD as TINYBERT
from course_lib.methods.tinybert import TinyBertRecipe
from course_lib.methods.tinybert_augmentation import augment, masked_lm_guesser, nearest_neighbours
from course_lib.shared import layer_maps, probes
from course_lib.shared.batches import Batches, encode, in_order
from course_lib.shared.files import write_atomically
from course_lib.shared.layer_maps import LayerMap
from course_lib.shared.masking import IGNORED, keep
from course_lib.shared.measures import gradient_shares
from course_lib.shared.method import Job, Stage
from course_lib.shared.projections import price_of_collapse
from course_lib.shared.seeds import paired_difference
from course_lib.shared.starts import copy_factorised_embeddings
from course_lib.shared.students import evaluating, new_student
from course_lib.shared.training import History, Terms, autocast

__all__ = ["ABOUT", "ARMS", "LAYER_MAP", "SEEDS", "SHAPE", "WHOLE", "Arm", "augmented", "examples", "explained_states",
           "first_stage", "inside_losses", "live", "masked_lm", "new_sentences", "poll_result", "prepare", "run",
           "scores", "second_stage", "student", "teacher", "training"]

ABOUT = "Movie sentences, 2 x 156 student from principal components: TinyBERT's two stages, and what they need."
SHAPE = {"layers": 2, "hidden": 156, "intermediate": 600}  # 12 heads of 13: as many heads as the teacher
LAYER_MAP = layer_maps.uniform(2, 6)  # ((0, 0), (1, 3), (2, 6))
INSIDE = replace(tinybert.INTERMEDIATE, layer_map=LAYER_MAP)


def stages(recipe: TinyBertRecipe, source: nn.Module | None = None) -> list[Stage]:
    """The method's own two stages. source: the live teacher of the first one."""
    return TINYBERT.stages(Job(source, SHAPE["layers"], recipe, narrow=True))


NUMBERS = tuple(stage.training for stage in stages(INSIDE))
STEPS = tuple(numbers.steps for numbers in NUMBERS)


@dataclass(frozen=True)
class Arm:
    """Which stages a student goes through. inside=None: only the second stage, with the steps of both.

    The rates are some forty times the paper's: the blocks are fresh, and there are 350 steps, not many epochs.
    """

    inside: TinyBertRecipe | None = None
    learns_from: str = "answers"  # in the second stage: "answers" (paper), "labels" or "both" (chapter 1)
    augmented: bool = False
    inside_rate: float = NUMBERS[0].learning_rate
    rate: float = NUMBERS[1].learning_rate


ARMS = {
    "labels": Arm(learns_from="labels"),
    "labels + answers": Arm(learns_from="both"),
    "only stage 2": Arm(),
    "two stages": Arm(INSIDE),
    "without attention": Arm(replace(INSIDE, attention_weight=0.0)),
    "without hidden": Arm(replace(INSIDE, hidden_weight=0.0)),
    "labels in stage 2": Arm(INSIDE, learns_from="labels"),
    "augmented text": Arm(INSIDE, augmented=True),
    "top layers": Arm(replace(INSIDE, layer_map=layer_maps.top(2, 6))),  # ((0, 0), (1, 5), (2, 6))
    "bottom layers": Arm(replace(INSIDE, layer_map=layer_maps.bottom(2, 6))),  # ((0, 0), (1, 1), (2, 2))
}
WHOLE = "two stages"


def student(seed: int, *, projection: bool = False) -> PreTrainedModel:
    """2 x 156: embeddings from the teacher's principal components, blocks and classifier random.

    projection: with W_e and W_h of stage 1, which `tinybert.detach_projection` takes off again.
    """
    model = new_student(teacher().model, **SHAPE, seed=seed)
    copy_factorised_embeddings(model, teacher().model)
    if projection:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tinybert.attach_projection(model, teacher().model)
    return model


# --- The two stages ---------------------------------------------------------------------------------------------------


def inside_terms(recipe: TinyBertRecipe) -> Terms:
    """Stage 1: attention, hidden and embedding term; the live teacher reads the same batch, without gradients."""
    return stages(recipe, teacher().model)[0].terms


# Stage 2, "answers": soft cross-entropy at temperature 1 with the teacher's stored logits.
SECOND_TERMS = {"answers": stages(INSIDE)[1].terms, "labels": sentences.answer_terms(sentences.LABELS),
                "both": sentences.answer_terms(sentences.LABELS_AND_ANSWERS)}


def first_part(arm: Arm, seed: int, steps: int = STEPS[0]) -> Part:
    """The inside of a student that has its projection."""
    return Part.of(inside_terms(arm.inside), replace(NUMBERS[0], learning_rate=arm.inside_rate, steps=steps),
                   _batches(arm, seed), after=tinybert.detach_projection)


def second_part(arm: Arm, seed: int, steps: int = STEPS[1], skip: int = 0) -> Part:
    """The predictions. skip: batches that the first stage has read, so that stage 2 goes on behind them."""
    batches = _batches(arm, seed)
    return Part.of(SECOND_TERMS[arm.learns_from], replace(NUMBERS[1], learning_rate=arm.rate, steps=steps),
                   [batches[step] for step in range(skip, skip + steps)])


def training(arm: Arm, seed: int) -> tuple[PreTrainedModel, list[Part]]:
    """The student of an arm and its parts; all arms take the same number of steps."""
    if not arm.inside:
        return student(seed), [second_part(arm, seed, sum(STEPS))]
    return student(seed, projection=True), [first_part(arm, seed), second_part(arm, seed, skip=STEPS[0])]


def first_stage(model: PreTrainedModel, arm: Arm, seed: int, steps: int = STEPS[0]) -> History:
    """Train the inside of a student that has its projection, and leave it there to be looked at."""
    part = first_part(arm, seed, steps)
    return replace(part, stage=replace(part.stage, after=lambda _: None)).learn(model, seed)[1]


def second_stage(model: PreTrainedModel, arm: Arm, seed: int, steps: int = STEPS[1], skip: int = 0, *,
                 evaluate: Callable | None = None, evaluate_every: int = 0) -> History:
    """Train the predictions: `second_part`."""
    return second_part(arm, seed, steps, skip).learn(model, seed, evaluate=evaluate, evaluate_every=evaluate_every)[1]


def live() -> Live:
    """A step with the teacher beside the student; its projection is there for both stages."""
    return Live(student(0, projection=True), teacher().model, sentence_batches())


def _batches(arm: Arm, seed: int) -> Batches:
    rows = examples("train") + augmented() if arm.augmented else examples("train")
    return Batches(rows, BATCH_SIZE, seed=seed)


# --- More text --------------------------------------------------------------------------------------------------------

# As in the original code, words without content stay; and what an apostrophe cuts off: "it's" is three tokens.
KEPT_WORDS = ENGLISH_STOP_WORDS | {"d", "ll", "m", "s", "t", "ve"}
EVERY = 2  # every second training sentence is augmented, once: a minute of work for a masked LM


@cache
def masked_lm() -> Teacher:
    """The course's masked-LM teacher, which makes new sentences here."""
    return load_teacher("mlm")


def new_sentences(texts: list[str], copies: int = 1, seed: int = 0) -> list[list[str]]:
    """TinyBERT's augmentation with the course's masked LM and GloVe; p = 0.4 and K = 15 as in the paper."""
    return augment(texts, masked_lm=masked_lm_guesser(masked_lm().model, "auto"), tokenizer=masked_lm().tokenizer,
                   neighbours=nearest_neighbours(*glove()), copies=copies, seed=seed, skip_words=KEPT_WORDS,
                   max_length=sentences.MAX_LENGTH)


@cache
def augmented() -> list[dict]:
    """New training sentences, encoded, with the teacher's answers and without a label; made once and kept."""
    adapter = (DATA / "teachers/mlm/adapter.safetensors").read_bytes()
    version = hashlib.sha256(adapter + f"1/{EVERY}".encode()).hexdigest()[:12]  # count up when the code above changes
    path = cache_folder() / "text" / f"augmented-{version}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = [copy for copies in new_sentences(load_data("sentiment")["train"]["text"][::EVERY]) for copy in copies]
        write_atomically(path, lambda file: file.write_text(json.dumps(made, indent=0), "utf-8"))
    texts = json.loads(path.read_text("utf-8"))
    rows = encode(Dataset.from_dict({"text": texts, "label": [IGNORED] * len(texts)}), teacher().tokenizer,
                  sentences.MAX_LENGTH)
    return sentences.with_answers(rows, f"augmented-{version}")


def prepare() -> None:
    """Ask both teachers before the runs start."""
    sentences.prepare()
    augmented()


# --- Measuring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def explained_states(model: PreTrainedModel, count: int = 256) -> float:
    """How much of the teacher's last states can be read off the student's, in percent of their variance.

    The best linear map with bias is fitted on half of `count` test sentences and judged on the other half. It needs no
    projection from training, so every student can be asked. 0: no better than the mean; below 0: worse.
    """
    halves = []
    rows = _sample(count)
    with evaluating(model):
        for part in (rows[::2], rows[1::2]):
            pairs = []
            for batch in in_order(part):
                with autocast("auto"):
                    mine, theirs = probes.read(model, batch), probes.read(teacher().model, batch)
                mask = batch["attention_mask"]
                last, target = (keep(one.hidden_states[max(one.hidden_states)].double(), mask)
                                for one in (mine, theirs))
                pairs.append((torch.cat([last, torch.ones(len(last), 1).double()], dim=1), target))
            halves.append([torch.cat(side) for side in zip(*pairs, strict=True)])
    (mine, theirs), (new, wanted) = halves
    # gelsd, because a LayerNorm leaves directions without any variance, and the default driver stumbles over those.
    best = torch.linalg.lstsq(mine, theirs, driver="gelsd").solution
    error = new @ best - wanted  # (n, k + 1) x (k + 1, d) -> (n, d)
    return 100 * (1 - error.pow(2).sum() / (wanted - wanted.mean(dim=0)).pow(2).sum()).item()


@torch.no_grad()
def inside_losses(model: PreTrainedModel, layer_map: LayerMap = LAYER_MAP, count: int = 256
                  ) -> dict[tuple[int, int], tuple[float, float]]:
    """For each pair of layers the hidden loss through the student's projection, and the price of silence.

    On `count` test sentences, without dropout. A loss above its price: a student that says the same at every token
    would be nearer to the teacher. Returns {(student layer, teacher layer): (loss, price)}.
    """
    with evaluating(model):
        pairs = {pair: ([], []) for pair in layer_map}
        for batch in in_order(_sample(count)):
            with autocast("auto"):
                mine, theirs = probes.read(model, batch), probes.read(teacher().model, batch)
            for s, t in layer_map:
                mapped = model.projection(mine.hidden_states[s], theirs.hidden_states[t], layer=s)
                for found, states in zip(pairs[s, t], mapped, strict=True):
                    found.append(keep(states.float(), batch["attention_mask"]))
    both = {pair: [torch.cat(side) for side in sides] for pair, sides in pairs.items()}
    return {pair: (tinybert.hidden_loss(ours, theirs).item(), price_of_collapse(theirs).item())
            for pair, (ours, theirs) in both.items()}


def _sample(count: int) -> list[dict]:
    """So many test sentences, spread over the split: it is sorted by rating."""
    return examples("test")[:: max(len(examples("test")) // count, 1)][:count]


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split.

    states: `explained_states` at the end. share_...: gradient shares of stage 1, in percent, before its first step and
    after its last one, on the first batch. silence_0, 1, 2: the hidden loss of these student layers after stage 1, in
    percent of what a student pays that says the same at every token (`inside_losses`).
    """
    arm = ARMS[arm_name]
    model, found = student(seed, projection=bool(arm.inside)), {}
    if arm.inside:
        terms, batch = inside_terms(arm.inside), _batches(arm, seed)[0]
        found |= _named("share_{}_first", gradient_shares(model, terms, batch))
        first_stage(model, arm, seed)
        found |= _named("share_{}_last", gradient_shares(model, terms, batch))
        found |= {f"silence_{layer}": round(100 * loss / price, 1)
                  for (layer, _), (loss, price) in inside_losses(model, arm.inside.layer_map).items()}
        tinybert.detach_projection(model)
    skip = STEPS[0] if arm.inside else 0
    second_stage(model, arm, seed, sum(STEPS) - skip, skip)
    return scores(model) | {"states": round(explained_states(model), 2)} | found


def _named(pattern: str, numbers: dict[str, float]) -> dict[str, float]:
    return {pattern.format(name): round(value, 1) for name, value in numbers.items()}


def poll_result() -> tuple[str, str]:
    """The option of chapter 5's poll that fits the measurement, and the numbers that say so."""

    options = {"a": "without attention", "b": "without hidden", "c": "only stage 2", "d": "labels in stage 2"}
    means = {arm: sum(records.values("ch05", arm, "accuracy")) for arm in options.values()}
    worst = min(means, key=means.get)
    loss = paired_difference(records.values("ch05", worst, "accuracy"), records.values("ch05", WHOLE, "accuracy"))
    letter = next(o for o, arm in options.items() if arm == worst) if loss.verdict == "worse" else "e"
    gap = loss.interval
    return letter, (f"The lowest of the four is '{worst}': {gap.mean:+.2f} points against '{WHOLE}', interval "
                    f"{gap.low:+.2f} to {gap.high:+.2f}.")
