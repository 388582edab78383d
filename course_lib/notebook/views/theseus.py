"""Theseus' film: which layers every training batch goes through while a predecessor is replaced module by module.

`theseus_numbers` computes one frame of the film from the course's own schedules (`methods/theseus.py`); `theseus.js`
repeats the same arithmetic for the slider, and a test holds the two together.

The chance is drawn once, here: one whole number 0..999 per batch and module. A module is replaced where
(number + 0.5) / 1000 < p. So the same film can be seen under another schedule, and a higher rate replaces the same
modules and more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from course_lib.methods.theseus import TheseusRecipe, layer_path
from course_lib.notebook.tables import Table, readable
from course_lib.notebook.views import View

WINDOW = 20  # batches in the running mean of the replaced modules
MOST_STEPS, MOST_MODULES = 1000, 12

Chances = Sequence[Sequence[int]]


def draw_chances(steps: int, modules: int, seed: int = 0) -> list[list[int]]:
    """One whole number from 0 to 999 per batch and module, (steps, modules); the same seed gives the same film."""
    return torch.randint(1000, (steps, modules), generator=torch.Generator().manual_seed(seed)).tolist()


def drawn(recipe: TheseusRecipe, chances: Chances, step: int) -> list[bool]:
    """Which modules are replaced in batch `step`; True = the successor works."""
    rate = recipe.rate_at(step)
    return [(chance + 0.5) / 1000 < rate for chance in chances[step]]


def theseus_numbers(recipe: TheseusRecipe, chances: Chances, step: int, layers_per_module: int = 2
                    ) -> dict[str, object]:
    """Everything that one frame shows.

    recipe   the schedule; its `successor_layers` is the number of modules
    chances  (steps, modules), from `draw_chances`
    step     the batch, counted from 0

    Returns `rate` (p of this batch), `expected` (modules * p), `draws` (one bool per module), `replaced` (how many),
    `path` (as `layer_path` writes it), `nobody` (chance that no module is replaced, (1 - p) ** modules), `learned` (per
    module: batches up to this one in which its successor worked), `idle` (batches without any successor so far),
    `recent` (mean of `replaced` over the latest 20 batches).
    Raises: ValueError for a step outside the film, or a recipe with another number of modules.
    Source: Xu et al. 2020, sections 3.2 and 3.3.
    """
    modules = _modules(recipe, chances)
    if not 0 <= step < len(chances):
        raise ValueError(f"Step {step} is not in this film of {len(chances)} batches; they count from 0.")
    history = [drawn(recipe, chances, t) for t in range(step + 1)]
    latest = history[-WINDOW:]
    rate = recipe.rate_at(step)
    return {
        "rate": rate,
        "expected": modules * rate,
        "draws": history[-1],
        "replaced": sum(history[-1]),
        "path": layer_path(history[-1], layers_per_module),
        "nobody": (1 - rate) ** modules,
        "learned": [sum(draws[i] for draws in history) for i in range(modules)],
        "idle": sum(not any(draws) for draws in history),
        "recent": sum(map(sum, latest)) / len(latest),
    }


def _modules(recipe: TheseusRecipe, chances: Chances) -> int:
    if recipe.successor_layers != len(chances[0]):
        raise ValueError(f"The recipe has {recipe.successor_layers} modules and the film {len(chances[0])}.")
    return recipe.successor_layers


def default_presets(modules: int, steps: int) -> dict[str, TheseusRecipe]:
    """Three schedules to begin with: half of the steps at 0.5; a line that reaches 1 after two thirds; the trap."""
    return {
        "Constant, then alone": TheseusRecipe(modules, "constant", rate=0.5, replacing_steps=steps // 2),
        "Linear curriculum": TheseusRecipe(modules, "linear", base=0.3, k=_round(0.7 / (2 * steps / 3))),
        "The script’s default": TheseusRecipe(modules, "constant", rate=0.5, replacing_steps=0),
    }


def _round(k: float) -> float:
    return float(f"{k:.2g}")


def theseus_view(presets: Mapping[str, TheseusRecipe] | None = None, *, modules: int = 3, layers_per_module: int = 2,
                 steps: int = 300, seed: int = 0, title: str = "Theseus’ replacement schedule as a film") -> View:
    """The film: play, pause, step; a slider over the batches; the two schedules with their numbers to edit.

    presets            name -> recipe; None gives `default_presets`. Each recipe's `successor_layers` must be `modules`
    modules            successor layers, 1 to 12
    layers_per_module  predecessor layers that one successor stands for, 1 to 4
    steps              batches in the film, 2 to 1,000
    seed               of the draws
    """
    if not (1 <= modules <= MOST_MODULES and 1 <= layers_per_module <= 4 and 2 <= steps <= MOST_STEPS):
        raise ValueError(f"The film shows 1 to {MOST_MODULES} modules of 1 to 4 layers and 2 to {MOST_STEPS} batches, "
                         f"not {modules} modules of {layers_per_module} layers and {steps} batches.")
    presets = default_presets(modules, steps) if presets is None else presets
    if not presets:
        raise ValueError("The film needs at least one schedule.")
    chances = draw_chances(steps, modules, seed)
    for recipe in presets.values():
        _modules(recipe, chances)
        recipe.rate_at(0)  # refuses a rate without meaning here, not in the browser
    data = {"title": title, "modules": modules, "layers_per_module": layers_per_module, "steps": steps,
            "window": WINDOW,
            "chances": "".join(f"{chance:03d}" for row in chances for chance in row),
            "presets": [{"name": name, "schedule": r.schedule, "rate": r.rate, "replacing_steps": r.replacing_steps,
                         "base": r.base, "k": r.k} for name, r in presets.items()]}
    alt = (f"{title}: {modules} modules of {layers_per_module} predecessor layers each, with one successor layer "
           f"below. For each of {steps} batches a line runs through the layers that were drawn; a curve shows the "
           "replacing rate.")
    tables = tuple(_table(name, recipe, chances, layers_per_module) for name, recipe in presets.items())
    return View("theseus", data, alt, tables)


def _table(name: str, recipe: TheseusRecipe, chances: Chances, layers_per_module: int) -> Table:
    last = len(chances) - 1
    rows = []
    for step in dict.fromkeys(round(last * part / 6) for part in range(7)):
        found = theseus_numbers(recipe, chances, step, layers_per_module)
        rows.append([str(step), readable(found["rate"]), readable(found["expected"], 2), " ".join(found["path"]),
                     str(found["idle"]), " ".join(map(str, found["learned"]))])
    return Table(f"{name}: seven batches of the film",
                 ["batch", "rate p", "expected replaced", "path", "batches without a successor so far",
                  "batches each successor has learned in"], rows)
