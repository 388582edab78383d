"""Chapter 6: a thin student of full depth. In which order should it learn the blocks and the task?

Movie sentences. Teacher: the course's sentiment teacher, 6 layers x 384. Student: MobileBERT in the proportions of that
teacher: 6 blocks with a body of 384, a bottleneck of 96, 12 heads of 8 and 4 stacked feed-forward networks. The blocks
shrink 3.7 times; the embeddings do not, because they are copied (`sizes`).

| stage | what is learned | arms |
|---|---|---|
| transfer, 180 steps | every block imitates the teacher's block of the same number | joint, progressive |
| task, 120 steps | labels and stored answers, as in the baseline | joint, progressive |
| both in one sum, 300 steps | the blocks and the task | auxiliary |
| task, 300 steps | labels, or labels and answers | the two baselines |

All arms of a seed start from the same weights and read the same 300 batches of 16 sentences in the same order. The
paper's last stage is masked-LM distillation on Wikipedia and books; the task of our teacher takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.experiments import records
from course_lib.experiments.described import Live, Part, sentence_batches
from course_lib.experiments.sentences import (
    LABELS,
    LABELS_AND_ANSWERS,
    SEEDS,
    answer_losses,
    examples,
    prepare,
    scores,
    teacher,
)
from course_lib.methods.hinton import HintonRecipe
from course_lib.methods.mobilebert import MobileBertRecipe, Phase, copy_outside_blocks, layer_transfer, phases
from course_lib.methods.mobilebert_model import MobileBertForSequenceClassification, student_config_for
from course_lib.methods.mobilebert_schedule import parameter_groups
from course_lib.shared import probes
from course_lib.shared.batches import Batches, in_order
from course_lib.shared.masking import keep
from course_lib.shared.method import Training
from course_lib.shared.probes import Reading
from course_lib.shared.students import count_parameters, evaluating, require_eval
from course_lib.shared.training import History, Terms, autocast

__all__ = ["ABOUT", "ARMS", "MAIN", "SEEDS", "Arm", "examples", "learn", "live", "only_the_first", "phases_of",
           "poll_result", "prepare", "run", "scores", "sizes", "student", "teacher", "terms_of", "training",
           "transfer_terms", "unexplained"]

ABOUT = "Movie sentences, a thin student of full depth: three orders of learning the blocks and the task."
BATCH_SIZE = 16  # half of the other chapters': the live teacher and six blocks make a step expensive
LAYERS, PER_LAYER, TASK_STEPS = 6, 30, 120
STEPS = LAYERS * PER_LAYER + TASK_STEPS


@dataclass(frozen=True)
class Arm:
    """What one student learns, in which order. transfer=None: only the task, with the steps of both stages.

    The rates were chosen on the validation split with seed 0. In progressive transfer the current block learns three
    times as fast as `transfer_rate` says and the blocks below at 0.3 times, as in the original.
    """

    transfer: MobileBertRecipe | None = None
    task: HintonRecipe = LABELS_AND_ANSWERS
    transfer_rate: float = 2e-3
    rate: float = 1e-3


JOINT = MobileBertRecipe("joint", steps_per_layer=PER_LAYER, pretraining_steps=TASK_STEPS)

ARMS = {
    "labels": Arm(task=LABELS),
    "labels + answers": Arm(),
    "auxiliary": Arm(replace(JOINT, strategy="auxiliary")),
    "joint": Arm(JOINT),
    "progressive": Arm(replace(JOINT, strategy="progressive"), transfer_rate=1e-3),
    "without feature maps": Arm(replace(JOINT, feature_map_weight=0.0, mean_weight=0.0, variance_weight=0.0)),
}
MAIN = ["labels", "labels + answers", "auxiliary", "joint", "progressive"]


# --- The student ------------------------------------------------------------------------------------------------------


def student(seed: int) -> MobileBertForSequenceClassification:
    """The thin student: everything outside the blocks is the teacher's, the blocks are random.

    Two things differ from `student_config`. The word table has the body's width and no trigrams, because it is
    copied. And the embeddings keep their LayerNorm: in a NoNorm the teacher's scale and shift would give other
    numbers. So layer 0 equals the teacher's layer 0 exactly. The embeddings stay frozen: copied, not learned.
    """
    source = teacher().model
    config = student_config_for(source.config, embedding_size=source.config.hidden_size, trigram_input=False,
                                num_labels=source.config.num_labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MobileBertForSequenceClassification(config)
    embeddings = model.mobilebert.embeddings
    embeddings.LayerNorm = nn.LayerNorm(config.hidden_size, eps=source.config.layer_norm_eps)
    embeddings.embedding_transformation = nn.Identity()  # skipped at equal widths: it would only be counted
    copy_outside_blocks(model, source)
    embeddings.requires_grad_(False)
    return model.train()


def sizes() -> dict[str, tuple[int, int]]:
    """Parameters of (teacher, student): all, in the blocks, in the word embeddings, and what remains."""
    both = teacher().model, student(0)
    counts = [{"all": count_parameters(m), "blocks": sum(p.numel() for p in _base(m).encoder.parameters()),
               "word embeddings": _base(m).embeddings.word_embeddings.weight.numel()} for m in both]
    for count in counts:
        count["rest"] = 2 * count["all"] - sum(count.values())
    return {part: tuple(count[part] for count in counts) for part in counts[0]}


def _base(model: nn.Module) -> nn.Module:
    return model.mobilebert if isinstance(model, MobileBertForSequenceClassification) else model.base_model


# --- What is learned --------------------------------------------------------------------------------------------------


@contextmanager
def only_the_first(layers: int, *models: nn.Module) -> Iterator[None]:
    """Inside, the models end after that many blocks: what stands above a progressive phase's block need not run."""
    encoders = [_base(model).encoder for model in models]
    complete = [encoder.layer for encoder in encoders]
    try:
        for encoder, every in zip(encoders, complete, strict=True):
            encoder.layer = every[:layers]
        yield
    finally:
        for encoder, every in zip(encoders, complete, strict=True):
            encoder.layer = every


def transfer_terms(mine: Reading, theirs: Reading, recipe: MobileBertRecipe, phase: Phase) -> dict[str, Tensor]:
    """The sum over the phase's blocks of what each learns, by the name of the term."""
    found: dict[str, Tensor] = {}
    for layer in phase.layers:
        terms = layer_transfer(
            mine.hidden_states[layer], theirs.hidden_states[layer], mine.attention_scores[layer],
            theirs.attention_scores[layer], mine.attention_mask, divide_by=LAYERS,
            feature_map_weight=recipe.feature_map_weight, mean_weight=recipe.mean_weight,
            variance_weight=recipe.variance_weight, attention_weight=recipe.attention_weight)
        found = {name: found.get(name, 0.0) + loss for name, loss in terms.items()}
    return found


def terms_of(arm: Arm, phase: Phase) -> Terms:
    """The loss of one phase: `mobilebert.terms` with our task in the place of pre-training, and one forward pass."""
    last = max(phase.layers, default=0)

    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if not phase.layers:
            return answer_losses(probes.read(model, batch).logits, batch, arm.task)
        source = require_eval(teacher().model)
        with nullcontext() if phase.pretraining else only_the_first(last, model, source):
            with torch.no_grad():
                theirs = probes.read(source, batch)
            mine = probes.read(model, batch)
        found = transfer_terms(mine, theirs, arm.transfer, phase)
        return found | (answer_losses(mine.logits, batch, arm.task) if phase.pretraining else {})
    return terms


def phases_of(arm: Arm, per_layer: int = PER_LAYER, task_steps: int = TASK_STEPS) -> list[Phase]:
    """The phases of an arm: the method's own, or one long task phase. The steps of all arms have the same sum."""
    if arm.transfer is None:
        return [Phase((), True, LAYERS * per_layer + task_steps)]
    return phases(replace(arm.transfer, steps_per_layer=per_layer, pretraining_steps=task_steps), LAYERS)


def learn(model: nn.Module, arm: Arm, seed: int, plan: list[Phase] | None = None, *, skip: int = 0,
          evaluate: Callable | None = None, evaluate_every: int = 0) -> list[History]:
    """Train the model through the phases of `plan` (default: all of the arm's) and return one history per phase.

    Transfer keeps its rate, as the original nearly does; the rate of the task falls to 0. Every phase goes on with the
    batches behind those of the phase before. skip: batches that earlier phases have read.
    """
    return [part.learn(model, seed, evaluate=evaluate, evaluate_every=evaluate_every)[1]
            for part in parts_of(arm, seed, phases_of(arm) if plan is None else plan, skip)]


def parts_of(arm: Arm, seed: int, plan: list[Phase], skip: int = 0) -> Iterator[Part]:
    """The phases of a plan with the batches that each of them reads."""
    batches = Batches(examples("train"), BATCH_SIZE, seed=seed)
    for phase in plan:
        numbers = Training(arm.rate if phase.pretraining else arm.transfer_rate, steps=phase.steps,
                           batch_size=BATCH_SIZE, schedule="linear" if phase.pretraining else "constant")
        yield Part.of(terms_of(arm, phase), numbers, [batches[step] for step in range(skip, skip + phase.steps)],
                      groups=partial(_groups, phase))
        skip += phase.steps


def _groups(phase: Phase, model: nn.Module, rate: float) -> list[dict]:
    return parameter_groups(model, phase, rate)


def training(arm: Arm, seed: int) -> tuple[nn.Module, list[Part]]:
    """The student of an arm and all its parts."""
    return student(seed), list(parts_of(arm, seed, phases_of(arm)))


def live() -> Live:
    """A step with the teacher beside the student."""
    return Live(student(0), teacher().model, sentence_batches(BATCH_SIZE))


# --- Measuring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def unexplained(model: nn.Module, count: int = 192) -> list[float]:
    """What is left of the teacher's feature maps after the student's are taken away, per block, in percent.

        100 * sum (norm(H_T) - norm(H_S))^2 / sum (norm(H_T) - its mean over all tokens)^2

    0: a copy of the teacher. 100: no nearer than one vector that is the same for every token. On `count` test
    sentences, without dropout.
    """
    source = teacher().model
    with evaluating(model):
        kept = [([], []) for _ in range(LAYERS)]
        rows = examples("test")
        for batch in in_order(rows[:: max(len(rows) // count, 1)][:count]):
            with autocast("auto"):
                readings = probes.read(model, batch), probes.read(source, batch)
            for layer, sides in enumerate(kept, start=1):
                for side, reading in zip(sides, readings, strict=True):
                    states = keep(reading.hidden_states[layer].float(), batch["attention_mask"])
                    side.append(F.layer_norm(states, states.shape[-1:]))
    pairs = [[torch.cat(side) for side in sides] for sides in kept]
    return [100 * ((theirs - mine).square().sum() / (theirs - theirs.mean(dim=0)).square().sum()).item()
            for mine, theirs in pairs]


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split.

    transfer_1 .. transfer_6: `unexplained` of each block when the transfer has ended (arms that have such a stage).
    unexplained_1 .. unexplained_6 and their mean `unexplained`: the same after the task.
    """
    arm, model, found = ARMS[arm_name], student(seed), {}
    plan = phases_of(arm)
    if len(plan) > 1:
        learn(model, arm, seed, plan[:-1])
        found |= _numbered("transfer", unexplained(model))
    learn(model, arm, seed, plan[-1:], skip=sum(phase.steps for phase in plan[:-1]))
    left = unexplained(model)
    return scores(model) | {"unexplained": round(sum(left) / len(left), 1)} | _numbered("unexplained", left) | found


def _numbered(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}_{layer}": round(value, 1) for layer, value in enumerate(values, start=1)}


def poll_result() -> tuple[str, str]:
    """The option of chapter 6's poll that fits the measurement, and the numbers that say so."""

    return records.leader("ch06", {"a": "labels + answers", "b": "auxiliary", "c": "joint", "d": "progressive"}, "e")
