"""One training loop for every method of the course.

    history = train(student, batches, terms, Recipe(steps=500))

`batches[step]` is a batch. `terms(student, batch)` returns the weighted, named terms of the loss, for example
`{"hard": ..., "soft": ...}`; the loop adds them up. All randomness of a step (dropout, masking) follows from
(seed, step), so a run that was killed and resumed ends with the same weights as one that was not. The loop trains
where the student stands (CPU or GPU), in one process or in several (`course_lib.shared.parts`), with the same result.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from course_lib.shared.files import write_atomically
from course_lib.shared.parts import (
    AveragedOver,
    Batch,
    Part,
    add_up,
    parts_of,
    process_number,
    processes,
    start_alike,
    wait_for_all,
)
from course_lib.shared.progress import Waiting
from course_lib.shared.words import require_word

Terms = Callable[[nn.Module, Batch], dict[str, Tensor]]
Schedule = Literal["linear", "constant"]
Precision = Literal["fp32", "bf16", "auto"]


@dataclass(frozen=True)
class Recipe:
    """How long, how fast and how carefully to train."""

    steps: int
    learning_rate: float = 5e-5
    warmup: float = 0.1  # share of the steps
    schedule: Schedule = "linear"  # after the warm-up: "linear" to zero, or "constant"
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm
    accumulate: int = 1  # parts that a batch is cut into, because memory is too small for it as a whole
    precision: Precision = "fp32"  # "fp32", "bf16", or "auto": bf16 where the processor computes with it
    seed: int = 0
    evaluate_every: int = 0  # steps; 0: only at the end
    patience: int = 0  # evaluations without a better score before the run stops; 0: never
    save_every: int = 200  # steps between checkpoints, if there is a folder
    log_every: int = 20  # steps between looks at the loss values (each look waits for the device)


@dataclass
class History:
    """What happened: one row per step (the terms, gradient norm, rate) and one row per evaluation."""

    steps: list[dict[str, float]] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    seconds: float = field(default=0.0, compare=False)  # over all parts of a run that was resumed


class TrainingDiverged(RuntimeError):
    """The loss became NaN, infinite or a hundred times what it was."""


def train(student: nn.Module, batches: Sequence[Batch], terms: Terms, recipe: Recipe, *,
          evaluate: Callable[[nn.Module], dict[str, float]] | None = None, folder: str | Path | None = None,
          parameters: Sequence[dict] | None = None, averaged_over: Mapping[str, AveragedOver] | None = None) -> History:
    """Train `student` in place and return what happened.

    evaluate(student) returns scores; the first of them (higher is better) decides early stopping, and with early
    stopping the best weights are put back at the end. `folder` makes the run resumable. `parameters` are optimiser
    groups where one learning rate does not fit all (each group may carry its own `lr`). `averaged_over` says of each
    term what it is a mean over (default: examples); it matters when a batch is cut into parts.
    Raises: TrainingDiverged with the step, the term and the likely cause; ValueError for a folder of another run.
    """
    groups = parameters or [{"params": [p for p in student.parameters() if p.requires_grad]}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    rates = [group["lr"] for group in optimizer.param_groups]
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    device, over = trained[0].device, averaged_over or {}
    run = _Run(student, optimizer, recipe, Path(folder) if folder else None)
    waiting = Waiting(range(run.resume(), recipe.steps))
    for step in waiting:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * rate_factor(step, recipe)
        seen: dict[str, Tensor] = {}
        student.train()
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout and masks of this step, whatever came before
        for part in _mine(batches[step], recipe, step):
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in part.batch.items()}
            with autocast(recipe.precision, device.type):
                losses = {name: part.weight(over.get(name, "examples")) * loss
                          for name, loss in terms(student, batch).items()}
            sum(losses.values()).backward()
            for name, loss in losses.items():
                seen[name] = seen.get(name, 0.0) + loss.detach()
        seen = add_up(trained, seen)
        seen["gradient_norm"] = nn.utils.clip_grad_norm_(student.parameters(), recipe.clip)
        optimizer.step()
        student.zero_grad()  # not only the optimiser's: a frozen part must not pile up gradients that clipping counts
        run.log(step, seen, optimizer.param_groups[0]["lr"])
        if evaluate and run.time_to_evaluate(step):
            waiting.tell(scores := evaluate(student))
            if run.is_enough(step, scores):
                break
        run.save_if_due(step)
    run.finish()
    return run.history


def _mine(batch: Batch, recipe: Recipe, step: int) -> Iterator[Part]:
    """This process's parts of a batch, one after the other; each part draws a dropout of its own."""
    parts = parts_of(batch, recipe.accumulate * processes())
    for number in range(process_number(), len(parts), processes()):
        if len(parts) > 1:
            torch.manual_seed((recipe.seed * 1_000_003 + step) * len(parts) + number)
        yield parts[number]


def rate_factor(step: int, recipe: Recipe) -> float:
    """Warm up linearly from 1/warm-up steps to 1, then fall linearly towards 0 (or stay, if constant)."""
    require_word(recipe.schedule, Schedule, "schedule")
    warmup = int(recipe.warmup * recipe.steps)
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if recipe.schedule == "constant" else (recipe.steps - step) / max(1, recipe.steps - warmup)


def autocast(precision: Precision, device: str = "cpu"):
    """A context in which matrix products run in bfloat16, if `precision` (and, for "auto", the processor) says so."""
    require_word(precision, Precision, "precision")
    use = precision == "bf16" or (precision == "auto" and (device != "cpu" or cpu_has_bf16()))
    return torch.autocast(device, torch.bfloat16, enabled=use)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (elsewhere bf16 is slower than float32)."""
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private names: absent means no
    return any(getattr(torch.cpu, ask, lambda: False)() for ask in asks)


class _Run:
    """The book-keeping of one run: history, early stopping, checkpoints."""

    def __init__(self, student: nn.Module, optimizer, recipe: Recipe, folder: Path | None):
        self.student, self.optimizer, self.recipe, self.folder = student, optimizer, recipe, folder
        self.history, self.best, self.pending = History(), {}, []
        self.began, self.seconds_before = time.monotonic(), 0.0
        start_alike(list(self.trained().values()))
        for name, tensor in self.trained().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise TrainingDiverged(f"The student's '{name}' holds NaN or infinity before the first step. "
                                       "Build or load the student again.")

    def trained(self) -> dict[str, Tensor]:
        kept = {n: p.data for n, p in self.student.named_parameters() if p.requires_grad}
        return kept | dict(self.student.named_buffers())

    # -- looking at the loss

    def log(self, step: int, values: dict[str, Tensor], rate: float) -> None:
        self.pending.append((step, rate, values))
        if len(self.pending) >= self.recipe.log_every:
            self.flush()

    def flush(self) -> None:
        for step, rate, values in self.pending:
            row = {name: float(value) for name, value in values.items()}
            self._require_sane(step, row, rate)
            self.history.steps.append({"step": step, **row, "learning_rate": rate})
        self.pending = []

    def _require_sane(self, step: int, row: dict[str, float], rate: float) -> None:
        start = self.history.steps[:5]
        for name, value in row.items():
            usual = max([1.0, *(abs(r[name]) for r in start if name in r)])
            exploded = len(start) == 5 and abs(value) > 100 * usual and name != "gradient_norm"
            if math.isfinite(value) and not exploded:
                continue
            what = "is not a number" if math.isnan(value) else f"is {value:.3g}"
            cause = ("the learning rate is too high (try a third of it)" if self.history.steps else
                     "the loss itself: a logarithm of 0, an average over nothing, or NaN in the batch")
            raise TrainingDiverged(
                f"Training stopped at step {step}: '{name}' {what}. Likely cause: {cause}. Learning rate {rate:.2g}; "
                f"all values of this step: {({n: float(f'{v:.4g}') for n, v in row.items()})}.")

    # -- early stopping

    def time_to_evaluate(self, step: int) -> bool:
        every = self.recipe.evaluate_every
        return step + 1 == self.recipe.steps or bool(every and (step + 1) % every == 0)

    def is_enough(self, step: int, scores: dict[str, float]) -> bool:
        """Store the scores; keep the weights if they are the best so far; say whether patience is at its end."""
        self.flush()
        first = next(iter(scores))
        earlier = [s[first] for s in self.history.scores]
        self.history.scores.append({"step": step + 1, **scores})
        if not self.recipe.patience:
            return False
        if scores[first] > max(earlier, default=-math.inf):
            self.best = {n: t.clone() for n, t in self.trained().items()}
            return False
        return len(earlier) - earlier.index(max(earlier)) >= self.recipe.patience

    def finish(self) -> None:
        self.flush()
        self.history.seconds = self.seconds()
        for name, tensor in self.trained().items():
            if name in self.best:
                tensor.copy_(self.best[name])
        self.student.eval()
        wait_for_all()

    # -- checkpoints: one file, replaced atomically, tensors only

    def save_if_due(self, step: int) -> None:
        due = (step + 1) % self.recipe.save_every == 0 or step + 1 == self.recipe.steps
        if self.folder and due and process_number() == 0:
            self.flush()
            self.save(step + 1)

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def save(self, step: int) -> None:
        self.history.seconds = self.seconds()
        states = self.optimizer.state_dict()["state"]
        tensors = {f"student.{n}": t for n, t in self.trained().items()}
        tensors |= {f"best.{n}": t for n, t in self.best.items()}
        tensors |= {f"optimizer.{i}.{k}": v for i, state in states.items() for k, v in state.items()}
        notes = {"step": step, "recipe": asdict(self.recipe), "history": asdict(self.history)}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "checkpoint.safetensors", lambda path: save_file(
            {n: t.detach().cpu().contiguous() for n, t in tensors.items()}, path, {"notes": json.dumps(notes)}))

    def resume(self) -> int:
        """Load the checkpoint, if there is one; return the step to go on with."""
        path = self.folder / "checkpoint.safetensors" if self.folder else None
        if path is None or not path.exists():
            return 0
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is not a dict)
        if notes["recipe"] != asdict(self.recipe):
            changed = [k for k, v in asdict(self.recipe).items() if notes["recipe"].get(k) != v]
            raise ValueError(f"{path} belongs to a run with another {', '.join(changed)}. "
                             "Use another folder, or delete that file to start again.")
        for name, tensor in self.trained().items():
            tensor.copy_(tensors[f"student.{name}"])
        self.best = {n[len("best."):]: t for n, t in tensors.items() if n.startswith("best.")}
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.history = History(**notes["history"])
        self.seconds_before = self.history.seconds
        return notes["step"]
