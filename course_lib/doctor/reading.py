"""What several checks read from the models, and the names of the chapters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.doctor.evidence import Case
from course_lib.shared.masking import IGNORED
from course_lib.shared.students import blocks

CH0, CH1, CH2 = "Chapter 0, Start here", "Chapter 1, Soft targets", "Chapter 2, Distilled BiLSTM"
CH3 = "Chapter 3, DistilBERT"
CH4, CH5, CH7 = "Chapter 4, BERT-PKD", "Chapter 5, TinyBERT", "Chapter 7, MiniLM"
CH8, CH9, COMMAS = "Chapter 8, BERT-of-Theseus", "Chapter 9, Cached probabilities", "The comma lab"


def vocabulary_rows(model: nn.Module | None) -> int | None:
    """How many token ids a model knows; None if that cannot be said."""
    if model is None:
        return None
    if hasattr(model, "get_input_embeddings"):
        table = model.get_input_embeddings()
        return table.num_embeddings if isinstance(table, nn.Embedding) else None
    sizes = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return max(sizes, default=None)


def fresh_share(case: Case, barely: float) -> float:
    """Share of the student's block weights that were neither copied from the teacher nor moved by training.

    A fresh linear layer of BERT has a bias of zeros; `barely` is the largest root mean square that still counts as 0.
    """
    known = {_mark(p) for p in case.teacher.parameters() if p.ndim == 2} if case.teacher is not None else set()
    fresh = total = 0
    for name, module in case.student.named_modules():
        if isinstance(module, nn.Linear) and module.bias is not None and any(map(str.isdigit, name.split("."))):
            total += module.weight.numel()
            still = module.bias.detach().double().pow(2).mean().sqrt().item() <= barely
            fresh += module.weight.numel() if still and _mark(module.weight) not in known else 0
    return fresh / total if total else 0.0


def _mark(weight: Tensor) -> tuple[float, ...]:
    return tuple(weight.detach().flatten()[:8].tolist())


def tied(model: nn.Module | None) -> bool | None:
    """Whether the output matrix is the embedding matrix; None for a model without one, or that cannot be asked."""
    if not (hasattr(model, "get_output_embeddings") and hasattr(model, "get_input_embeddings")):
        return None
    output, words = getattr(model.get_output_embeddings(), "weight", None), model.get_input_embeddings().weight
    return None if output is None else output.data_ptr() == words.data_ptr()


def depth(case: Case, who: str) -> int | None:
    reading = case.student_reading if who == "student" else case.teacher_reading
    if reading is not None:
        return max(reading.hidden_states)
    model = getattr(case, who)
    try:
        return None if model is None else len(blocks(model))
    except ValueError:
        return None


def executed_blocks(case: Case) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Parameters of the student's blocks that ran, in call order: {outermost block: [(name, parameter)]}."""
    found: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, module in case.executed:
        parts = name.split(".")
        number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if number is None:
            continue
        own = [(f"{name}.{n}", p) for n, p in module.named_parameters(recurse=False)]
        if own:
            found.setdefault(".".join(parts[: number + 1]), []).extend(own)
    return found


def answers(case: Case) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Rows of logits at the asked positions (all real ones without labels): student, teacher, labels."""
    ours, theirs, given = case.student_logits, case.teacher_logits, case.batch.get("labels")
    fits = given is not None and tuple(given.shape) == tuple(ours.shape[:-1]) and not given.is_floating_point()
    where = given != IGNORED if fits and bool((given != IGNORED).any()) else None
    if where is None:
        where = case.real if ours.ndim == 3 else torch.ones(len(ours), dtype=torch.bool, device=ours.device)
    theirs = theirs[where] if theirs is not None and theirs.shape[:-1] == ours.shape[:-1] else None
    return ours[where], theirs, given[where] if fits and bool((given != IGNORED).any()) else None
