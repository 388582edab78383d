"""Chapter 8: does a student that replaces its teacher module by module need a distillation loss at all?

Movie sentences. Predecessor: the course's sentiment teacher, 6 layers. Successor: 3 layers, one for every two. All arms
see the same 300 batches in the same order. What else differs, besides the replacing, is kept apart by a control:

| arm | starts as | frozen |
|---|---|---|
| labels; labels + answers | teacher layers 2, 4, 6 (the course's common student) | word embeddings |
| successor alone (the control) | teacher layers 1, 2, 3 (the paper's start) | all embeddings, pooler and classifier |
| Theseus, all kinds | the same as the control | the same as the control |

So "Theseus minus successor alone" is the replacing, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from course_lib.experiments import records, sentences
from course_lib.experiments.described import Live, Part, sentence_batches
from course_lib.experiments.sentences import SEEDS, examples, prepare, scores, teacher
from course_lib.methods import theseus
from course_lib.methods.theseus import RECORD as THESEUS
from course_lib.methods.theseus import Theseus, TheseusRecipe, layer_path
from course_lib.mistakes import mutant
from course_lib.shared.batches import Batches, in_order
from course_lib.shared.measures import accuracy
from course_lib.shared.method import QUICK, Job
from course_lib.shared.students import evaluating
from course_lib.shared.training import History, autocast, rate_factor

__all__ = ["ABOUT", "ARMS", "CONTROL", "MAIN", "SEEDS", "build", "examples", "live", "path_accuracies",
           "poll_result", "prepare", "run", "scores", "share_learned", "stretched", "teacher", "terms", "train_ship",
           "training", "typical"]

ABOUT = "Movie sentences, half depth: labels alone against a predecessor that is replaced module by module."
MODULES = 3
STEPS = sentences.RECIPE.steps


@dataclass(frozen=True)
class Arm:
    """What one arm learns from: labels, labels and stored answers, or labels with replacing."""

    answers: bool = False
    replacing: TheseusRecipe | None = None
    mistake: str | None = None  # a mutant that is switched on while the arm trains


HALF = TheseusRecipe(MODULES, "constant", rate=0.5, replacing_steps=STEPS // 2)
LINEAR = replace(THESEUS.recipe["laptop"], successor_layers=MODULES)  # k = 0.0035: reaches 1 at batch 200

ARMS = {
    "labels": Arm(),
    "labels + answers": Arm(answers=True),
    "successor alone": Arm(replacing=replace(HALF, rate=1.0)),
    "Theseus, p=0.5, then 1": Arm(replacing=HALF),
    "Theseus, linear": Arm(replacing=LINEAR),
    "one draw for all": Arm(replacing=HALF, mistake="one_draw_for_all_modules"),
}
BORROWED = {"labels": ("ch04", "labels"), "labels + answers": ("ch04", "labels + answers")}
CONTROL = "successor alone"
MAIN = [name for name, arm in ARMS.items() if not arm.mistake]


def build(recipe: TheseusRecipe) -> Theseus:
    """The ship: the teacher, with 3 replaceable modules of 2 layers. Nothing in it is random at the start."""
    return theseus.from_recipe(teacher().model, recipe)


def stretched(recipe: TheseusRecipe, steps: int) -> TheseusRecipe:
    """The same schedule for another number of batches: the jump, and the batch where the line reaches 1, move along."""
    jump = recipe.replacing_steps
    return replace(recipe, k=recipe.k * STEPS / steps, replacing_steps=None if jump is None else jump * steps // STEPS)


terms = THESEUS.stages(Job(None, MODULES, LINEAR))[0].terms  # the task loss alone, whatever the schedule


def train_ship(arm: Arm, seed: int, steps: int = STEPS, *, evaluate: Callable | None = None, evaluate_every: int = 0,
               paths: list[str] | None = None) -> tuple[Theseus, History]:
    """Train with the common budget. Phase 2 (p = 1) belongs to the same run: all arms have one learning rate curve.

    paths: a list to which the path of every training batch is appended.
    """
    ship, (part,) = training(arm, seed, steps)

    def watched(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = terms(model, batch)
        if paths is not None:
            paths.append(" ".join(ship.path))
        return found

    with mutant(arm.mistake) if arm.mistake else nullcontext():
        return Part(replace(part.stage, terms=watched), part.batches).learn(
            ship, seed, evaluate=evaluate, evaluate_every=evaluate_every)


def training(arm: Arm, seed: int, steps: int = STEPS) -> tuple[Theseus, list[Part]]:
    """The ship of an arm and its one part."""
    ship = build(stretched(arm.replacing, steps))
    return ship, [Part.of(terms, replace(QUICK, steps=steps), Batches(examples("train"), QUICK.batch_size, seed=seed))]


def typical(arm: Arm) -> Arm:
    """The arm to be timed: at the constant rate that replaces as often in the mean. (Early batches are dearer.)"""
    share, _ = share_learned(arm.replacing)
    return replace(arm, replacing=TheseusRecipe(MODULES, "constant", rate=share))


def live() -> Live:
    """No teacher beside the student: the predecessor is part of the ship. Half of the modules are replaced."""
    return Live(build(TheseusRecipe(MODULES, "constant", rate=0.5)), None, sentence_batches())


def share_learned(recipe: TheseusRecipe) -> tuple[float, float]:
    """How much one successor learns, as shares of p = 1 throughout: of the batches, and of the sum of learning rates.

    The second number is  sum_t p_t * rate_t / sum_t rate_t: a batch late in the run, at a low rate, counts less.
    """
    rates = [recipe.rate_at(step) for step in range(STEPS)]
    speeds = [rate_factor(step, sentences.RECIPE) for step in range(STEPS)]
    return sum(rates) / STEPS, sum(p * speed for p, speed in zip(rates, speeds, strict=True)) / sum(speeds)


def all_draws() -> Iterator[tuple[bool, ...]]:
    """Every mixture of the ship, from the predecessor (no module replaced) to the successor (all of them)."""
    return product((False, True), repeat=MODULES)


@torch.no_grad()
def path_accuracies(ship: Theseus, every: Sequence[Sequence[bool]] | None = None) -> dict[str, float]:
    """Accuracy, in percent, on chosen paths (all 8, if none are given), on half of the validation sentences."""
    batches = in_order(examples("validation")[::2])  # every second one: they are sorted by their rating
    labels = torch.cat([batch["labels"] for batch in batches])
    found = {}
    for draws in every or list(all_draws()):
        with evaluating(ship), autocast(sentences.RECIPE.precision):
            logits = torch.cat([ship(batch["input_ids"], batch["attention_mask"], draws=draws).logits
                                for batch in batches])
        path = " ".join(layer_path(draws, ship.layers_per_module))
        found[path] = round(100 * accuracy(logits, labels), 2)
    return found


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split.

    swapped: accuracy (validation) with exactly one module replaced, the mean over the three modules. It says whether a
    successor can work among predecessors. The two baselines are chapter 4's, and have no such number.
    """
    ship, _ = train_ship(ARMS[arm_name], seed)
    swapped = path_accuracies(ship, [draws for draws in all_draws() if sum(draws) == 1])
    return scores(ship.to_successor_model()) | {"swapped": round(sum(swapped.values()) / len(swapped), 2)}


def poll_result() -> tuple[str, str]:
    """The option of chapter 8's poll that fits the measurement, and the numbers that say so."""

    options = {"a": "labels", "b": "labels + answers", "c": "Theseus, p=0.5, then 1", "d": "Theseus, linear"}
    return records.leader("ch08", options, "e")
