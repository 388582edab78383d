"""What the doctor looks at: one run of each model, and one run of the loss with ears on every side.

Nothing is changed: modes, buffers, gradients, random state and the batch are afterwards what they were before.
The loss is a black box, `terms(student, batch) -> {"name": tensor}`. Four things are heard while it runs:

    the logits           their gradient says which loss it is, at which temperature, on which positions
    the blocks' outputs  their gradient at padded positions must be 0
    the two models       which mode, with or without gradients, with or without the attention mask
    linear maps outside  a trainable one that reads the teacher has a trivial optimum
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from course_lib.shared import probes
from course_lib.shared.masking import IGNORED, at_least_float32
from course_lib.shared.probes import Reading
from course_lib.shared.students import modes_kept
from course_lib.shared.training import History

Batch = dict[str, Tensor]
Terms = Callable[[nn.Module, Batch], Mapping[str, Tensor]]


@dataclass
class OutsideMap:
    """A linear layer that ran during the loss, but not inside one of the two models."""

    widths: tuple[int, int]
    trainable: bool
    reads_student: bool  # its input carries a gradient


@dataclass
class LossRun:
    """What one call of `terms` showed."""

    values: dict[str, float] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)  # term -> gradient norm over the student's parameters
    parameter_norms: dict[str, float] = field(default_factory=dict)  # student parameter -> gradient norm of the sum
    logit_gradient: Tensor | None = None  # of the sum; shape of the logits
    at_padding: dict[str, float] = field(default_factory=dict)  # term -> share of its gradient at padded positions
    no_mask: list[str] = field(default_factory=list)  # models that were called without an attention mask
    teacher_in_train_mode: bool = False
    teacher_parameters_reached: int = 0
    outside: list[OutsideMap] = field(default_factory=list)
    batch_changed: list[str] = field(default_factory=list)
    failure: str = ""


@dataclass
class Case:
    """Everything the checks may look at. `recipe` is flat: {field: value} of all given recipes."""

    student: nn.Module
    teacher: nn.Module | None
    batch: Batch
    teacher_batch: Batch | None  # None: the teacher cannot read this batch
    recipe: dict[str, object]
    history: History | None
    terms: Terms | None
    tokenizer: object = None
    teacher_tokenizer: object = None
    optimizer: torch.optim.Optimizer | None = None
    # --- measured
    student_logits: Tensor | None = None
    teacher_logits: Tensor | None = None  # in eval mode
    student_reading: Reading | None = None
    teacher_reading: Reading | None = None
    executed: list[tuple[str, nn.Module]] = field(default_factory=list)  # the student's modules, in call order
    teacher_disagreement: float | None = None  # two forwards in the teacher's present mode
    student_disagreement: float | None = None  # some forwards in eval mode
    cut: dict[str, float] = field(default_factory=dict)  # model -> relative change of one answer without its padding
    loss: LossRun | None = None
    failures: dict[str, str] = field(default_factory=dict)  # "student"/"teacher" -> why its forward pass failed

    @property
    def real(self) -> Tensor:
        """(batch, tokens), True = a real token."""
        mask = self.batch.get("attention_mask")
        return torch.ones_like(self.batch["input_ids"], dtype=torch.bool) if mask is None else mask.bool()

    @property
    def labelled(self) -> Tensor | None:
        labels = self.batch.get("labels")
        return None if labels is None else labels != IGNORED

    @property
    def reference_logits(self) -> Tensor | None:
        """What the loss compares with: stored logits (or log-probabilities) if the batch has them, else live ones."""
        for name in ("teacher_logits", "teacher_log_probs"):
            if name in self.batch:
                return at_least_float32(self.batch[name].detach())
        return self.teacher_logits

    @property
    def is_masked_lm(self) -> bool:
        """Whether the student writes words: as many answers per token as it knows words. A tagger has a few tags."""
        if self.student_logits is None or self.student_logits.ndim != 3:
            return False
        if "TokenClassification" in type(self.student).__name__:
            return False
        table = self.student.get_input_embeddings() if hasattr(self.student, "get_input_embeddings") else None
        return not isinstance(table, nn.Embedding) or 2 * self.student_logits.shape[-1] > table.num_embeddings

    @property
    def one_class_each(self) -> bool:
        """Whether a softmax over the answers has a meaning: not for a number, and not for several classes at once."""
        problem = getattr(getattr(self.student, "config", None), "problem_type", None)
        alone = self.student_logits is not None and self.student_logits.shape[-1] == 1
        return not alone and problem not in ("regression", "multi_label_classification")


def examine(case: Case) -> None:
    """Run both models and the loss, and write down what was seen."""
    with as_it_was(case.student, case.teacher):
        case.student.eval()
        with _executed(case):
            case.student_logits, case.student_reading = _run(case, "student", case.student, case.batch)
        case.student_disagreement = _disagreement(case.student, case.batch, runs=4)
        if case.teacher is not None and case.teacher_batch is not None:
            case.teacher_disagreement = _disagreement(case.teacher, case.teacher_batch)
            case.teacher.eval()
            case.teacher_logits, case.teacher_reading = _run(case, "teacher", case.teacher, case.teacher_batch)
        for who, model in (("student", case.student), ("teacher", case.teacher)):
            batch = case.batch if who == "student" else case.teacher_batch
            if model is not None and batch is not None and "attention_mask" in batch and who not in case.failures:
                case.cut |= _without_padding(who, model, batch)
    if case.terms is not None and "student" not in case.failures:
        with as_it_was(case.student, case.teacher):
            case.student.eval()  # not the teacher: its mode is under test
            case.loss = _run_loss(case)


@contextmanager
def as_it_was(*models: nn.Module | None) -> Iterator[None]:
    """Put modes, buffers and the random state back at the end."""
    present = [m for m in models if m is not None]
    buffers = [(b, b.detach().clone()) for m in present for b in m.buffers()]
    try:
        with modes_kept(*present), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


@torch.no_grad()
def _run(case: Case, who: str, model: nn.Module, batch: Batch) -> tuple[Tensor | None, Reading | None]:
    """Logits in float32 and, for an encoder that `probes` can read, its inside."""
    try:
        try:
            reading = probes.read(model, batch)
            logits = reading.logits
        except ValueError:  # not a BERT-like encoder: its logits are enough
            reading, logits = None, probes.logits_of(model, batch)
    except Exception as error:  # whatever a foreign model raises becomes a finding
        case.failures[who] = one_line(error)
        return None, None
    return (None if logits is None else at_least_float32(logits)), reading


@torch.no_grad()
def _disagreement(model: nn.Module, batch: Batch, runs: int = 2) -> float | None:
    """Largest difference of the logits between runs in the model's present mode; four sentences will do."""
    few = {n: t[:4] for n, t in batch.items() if isinstance(t, Tensor)}
    try:
        first, *others = (at_least_float32(probes.logits_of(model, few)) for _ in range(runs))
        return max((first - other).abs().max().item() for other in others)
    except Exception:  # reported by the run of the whole batch; a bare encoder has no logits
        return None


@torch.no_grad()
def _without_padding(who: str, model: nn.Module, batch: Batch) -> dict[str, float]:
    """The sentence with most padding on its right, read with and without it: by how much its logits differ."""
    real = batch["attention_mask"].bool()
    columns = torch.arange(real.shape[1], device=real.device)
    ends = torch.where(real, columns, 0).amax(dim=1) + 1
    row, end = int(ends.argmin()), int(ends.min())
    if end == real.shape[1] or getattr(getattr(model, "config", None), "trigram_input", False):
        return {}  # MobileBERT's embeddings take in both neighbours, so its last word does read one [PAD]
    text = {n: batch[n][row : row + 1] for n in ("input_ids", "attention_mask", "token_type_ids") if n in batch}
    try:
        long, short = (at_least_float32(probes.logits_of(model, {n: t[:, :stop] for n, t in text.items()}))
                       for stop in (real.shape[1], end))
    except Exception:  # a bare encoder has no logits; a failure is reported by the run of the whole batch
        return {}
    if long.ndim == 3:
        long, short = long[:, :end], short[:, :end]
    scale = long.abs().max().item()
    return {who: (long - short).abs().max().item() / scale} if scale > 0 else {}


@contextmanager
def _executed(case: Case) -> Iterator[None]:
    names = {module: name for name, module in case.student.named_modules()}

    def heard(module: nn.Module, _args: tuple, _output: object) -> None:
        if module in names:
            case.executed.append((names[module], module))

    handle = register_module_forward_hook(heard)
    try:
        yield
    finally:
        handle.remove()


# --- The loss ---------------------------------------------------------------------------------------------------------


def _run_loss(case: Case) -> LossRun:
    run = LossRun()
    given = {name: value.clone() if isinstance(value, Tensor) else value for name, value in case.batch.items()}
    # cuDNN cannot differentiate a recurrent layer in eval mode; the plain kernels can.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), _ears(case, run) as heard:
        try:
            losses = dict(case.terms(case.student, given))
            _require_terms(losses)
        except Exception as error:  # the loss is somebody's code: its failure is a finding, not a traceback
            run.failure = one_line(error)
            return run
        run.batch_changed = [name for name, value in case.batch.items() if isinstance(value, Tensor)
                             and not (name in given and _equal(given[name], value))]
        run.values = {name: loss.detach().item() for name, loss in losses.items()}
        try:
            _gradients(case, run, losses, heard)
        except RuntimeError as error:
            run.failure = one_line(error)
    return run


def _require_terms(losses: dict[str, Tensor]) -> None:
    if not losses:
        raise ValueError("terms returned no term at all")
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the term '{name}' must be one number in a tensor, not {shape}")


def _gradients(case: Case, run: LossRun, losses: dict[str, Tensor], heard: _Heard) -> None:
    named = [(n, p) for n, p in case.student.named_parameters() if p.requires_grad]
    inside = [t for t in heard.blocks if t.requires_grad]
    logits = [t for t in heard.logits if t.requires_grad]
    padded = ~case.real
    totals: list[Tensor | None] = [None] * (len(named) + len(logits))
    for name, loss in losses.items():
        if not loss.requires_grad:
            run.norms[name], run.at_padding[name] = 0.0, 0.0
            continue
        found = torch.autograd.grad(loss.sum(), [p for _, p in named] + logits + inside, retain_graph=True,
                                    allow_unused=True)
        run.norms[name] = _norm(found[: len(named)])
        run.at_padding[name] = max((_share_at(g, padded) for g in found[len(named):] if g is not None), default=0.0)
        for i, gradient in enumerate(found[: len(totals)]):
            if gradient is not None:
                totals[i] = gradient if totals[i] is None else totals[i] + gradient
    run.parameter_norms = {n: _norm([g]) for (n, _), g in zip(named, totals, strict=False)}
    run.logit_gradient = next((g.detach() for g in totals[len(named):] if g is not None), None)
    run.teacher_parameters_reached = _reached(case, sum(losses.values()))


def _reached(case: Case, loss: Tensor) -> int:
    ours = {id(p) for p in case.student.parameters()}
    theirs = [p for p in case.teacher.parameters() if p.requires_grad and id(p) not in ours] if case.teacher else []
    if not theirs or not loss.requires_grad:
        return 0
    found = torch.autograd.grad(loss.sum(), theirs, retain_graph=True, allow_unused=True)
    return sum(g is not None for g in found)


@dataclass
class _Heard:
    logits: list[Tensor] = field(default_factory=list)
    blocks: list[Tensor] = field(default_factory=list)


@contextmanager
def _ears(case: Case, run: LossRun) -> Iterator[_Heard]:
    heard, depth = _Heard(), 0
    where = case.batch["input_ids"].shape
    padding = bool((~case.real).any())

    def enter(_module: nn.Module, _args: tuple) -> None:
        nonlocal depth
        depth += 1

    def leave(who: str) -> Callable[..., None]:
        def hear(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
            nonlocal depth
            depth -= 1
            mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
            if mask is None and padding and who not in run.no_mask:
                run.no_mask.append(who)
            logits = _logits_in(output)
            if who == "teacher":
                run.teacher_in_train_mode |= any(m.training for m in module.modules())
            elif logits is not None:
                heard.logits.append(logits)
        return hear

    def hear_block(_module: nn.Module, _args: tuple, output: object) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if isinstance(states, Tensor) and states.ndim == 3 and states.shape[:2] == where:
            heard.blocks.append(states)

    def hear_linear(module: nn.Module, args: tuple, _output: object) -> None:
        if depth == 0 and isinstance(module, nn.Linear) and args:
            run.outside.append(OutsideMap((module.in_features, module.out_features), module.weight.requires_grad,
                                          args[0].requires_grad))

    handles = [register_module_forward_hook(hear_linear)]
    for who, model in (("student", case.student), ("teacher", case.teacher)):
        if model is not None:
            handles.append(model.register_forward_pre_hook(enter))
            handles.append(model.register_forward_hook(leave(who), with_kwargs=True))
    handles += [m.register_forward_hook(hear_block) for n, m in case.student.named_modules() if is_block(n)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def is_block(name: str) -> bool:
    """Whether a module's path ends in a number, as the entries of an nn.ModuleList do."""
    return name.rpartition(".")[2].isdigit()


def _logits_in(output: object) -> Tensor | None:
    for name in ("logits", "prediction_logits"):
        if isinstance(getattr(output, name, None), Tensor):
            return getattr(output, name)
    return output if isinstance(output, Tensor) else None


def _norm(gradients) -> float:
    return sum(g.double().pow(2).sum().item() for g in gradients if g is not None) ** 0.5


def _share_at(gradient: Tensor, where: Tensor) -> float:
    if gradient.ndim != 3 or gradient.shape[:2] != where.shape:
        return 0.0
    sizes = gradient.abs().sum(dim=-1)
    total = sizes.sum().item()
    return sizes[where].sum().item() / total if total else 0.0


def _equal(first: object, second: Tensor) -> bool:
    return isinstance(first, Tensor) and first.shape == second.shape and bool(torch.equal(first, second))


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'…' if len(text) > 300 else ''}"
