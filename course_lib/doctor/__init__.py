"""The doctor: why does this distillation not learn?

    report = diagnose(student, teacher, batch, recipe, history, tokenizer=tokenizer,
                      terms=lambda student, batch: terms(student, teacher, batch, recipe))
    print(report)

It works with anybody's pair of Hugging Face encoders (masked LM or classification) and changes neither of them. The
loss is looked at from outside: one call of `terms`, the same function that the training loop takes, and its gradients
tell the temperature, the reduction and the positions. From a shell, without a loss:

    python -m course_lib doctor PATH_OF_STUDENT PATH_OF_TEACHER
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn

from course_lib.doctor import behaviour_checks, loss_checks, model_checks
from course_lib.doctor.evidence import Batch, Case, Terms, examine, one_line
from course_lib.doctor.reading import vocabulary_rows
from course_lib.doctor.report import Finding, Report
from course_lib.shared.training import History

__all__ = ["Finding", "Report", "diagnose"]

# Before the models run. An error here would only come back as a worse message from inside torch.
FIRST = (model_checks.shared_tensors, model_checks.blocks_used_twice, model_checks.weights_are_numbers,
         model_checks.tokens)

# A cause stands before what it causes: findings of one severity keep this order.
THEN = (
    model_checks.forward_passes,
    model_checks.same_task,
    model_checks.kind_of_answers,
    model_checks.tokenizers,
    model_checks.unknown_words,
    model_checks.labels,
    model_checks.teacher_mode,
    model_checks.student_mode,
    model_checks.padding_is_not_read,
    model_checks.replacing,
    loss_checks.teacher_gradients,
    behaviour_checks.cache,
    loss_checks.projection_side,
    loss_checks.reaches_student,
    loss_checks.mask_is_passed,
    loss_checks.positions,
    loss_checks.soft_term,
    loss_checks.logit_loss,
    loss_checks.padding,
    model_checks.layer_map,
    model_checks.widths_and_heads,
    loss_checks.loss_runs,
    loss_checks.frozen,
    model_checks.precision,
    loss_checks.learning_rate,
    behaviour_checks.tied_head,
    model_checks.hidden_tokens,
    loss_checks.history,
    loss_checks.gradient_shares,
    behaviour_checks.constant_answers,
    behaviour_checks.unigram_collapse,
    behaviour_checks.dead_attention,
    behaviour_checks.calibration,
)


def diagnose(student: nn.Module, teacher: nn.Module | None, batch: Mapping[str, Tensor], recipe: object = None,
             history: History | None = None, *, tokenizer: object = None, teacher_tokenizer: object = None,
             terms: Terms | None = None, teacher_batch: Mapping[str, Tensor] | None = None,
             optimizer: torch.optim.Optimizer | None = None) -> Report:
    """Look at a student, its teacher and one batch of training data, and say what is wrong, worst first.

    student, teacher: models of transformers, or modules called like them; the teacher may be None where the loss
        needs none (stored soft labels). Both are left as they were found.
    batch: input_ids (batch, tokens), attention_mask, labels, teacher_logits, ... as the training loop gets it. 16
        sentences show more than 2.
    recipe: one dataclass or dict, or several (the method's and the training loop's); of equal names the last counts
    history: what `training.train` returned
    tokenizer, teacher_tokenizer: to show words, and to compare the two vocabularies
    terms: `terms(student, batch) -> {"name": loss}`, weighted, as in `training.train`
    teacher_batch: the same sentences in the teacher's token ids, if its tokenizer is another one
    optimizer: to see who is left out of it

    Raises: ValueError if an argument is of the wrong kind; everything else becomes a finding.
    """
    case = _case(student, teacher, batch, recipe, history, tokenizer, teacher_tokenizer, terms, teacher_batch,
                 optimizer)
    if case.batch["input_ids"].numel() == 0:
        return Report.of([Finding("error", "batch", "token ids in the batch", 0, ">=", 1,
                                  why="There is nothing to look at.", fix="batch = next(iter(loader))")])
    findings = _look(FIRST, case)
    if any(f.severity == "error" and f.name != "shared tensors" for f in findings):
        return Report.of(findings)
    examine(case)
    return Report.of(findings + _look(THEN, case))


def _look(checks: Iterable, case: Case) -> list[Finding]:
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check(case)
        except Exception as error:  # one check that fails on a foreign model must not silence the others
            findings.append(Finding("note", check.__name__.replace("_", " "),
                                    f"this could not be looked at ({one_line(error)})"))
    return findings


def _case(student, teacher, batch, recipe, history, tokenizer, teacher_tokenizer, terms, teacher_batch, optimizer
          ) -> Case:
    for who, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, nn.Module) and not (who == "teacher" and model is None):
            raise ValueError(f"{who} must be a model (torch.nn.Module), not {type(model).__name__}. Load it first: "
                             "AutoModelForMaskedLM.from_pretrained(path).")
    if terms is not None and not callable(terms):
        raise ValueError(f"terms must be a function of (student, batch), not {type(terms).__name__}.")
    if history is not None and not hasattr(history, "steps"):
        raise ValueError(f"history must be what training.train returned, not {type(history).__name__}.")
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    batch = _checked(batch, "batch", device)
    if teacher is None:
        theirs = None
    elif teacher_batch is not None:
        theirs = _checked(teacher_batch, "teacher_batch", next((p.device for p in teacher.parameters()), device))
    else:
        theirs = batch if _reads_the_same(student, teacher, batch) else None
    return Case(student, teacher, batch, theirs, _flat(recipe), history, terms, tokenizer, teacher_tokenizer, optimizer)


def _checked(batch: object, name: str, device: torch.device) -> Batch:
    if not isinstance(batch, Mapping) or not isinstance(batch.get("input_ids"), Tensor):
        raise ValueError(f"{name} must be a dict of tensors with 'input_ids' (batch, tokens), as a tokenizer returns "
                         "it with return_tensors='pt'.")
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    if ids.ndim != 2 or ids.is_floating_point():
        raise ValueError(f"{name}['input_ids'] must be whole numbers of shape (batch, tokens), not {tuple(ids.shape)} "
                         f"{ids.dtype}.")
    if mask is not None and mask.shape != ids.shape:
        raise ValueError(f"{name}: attention_mask {tuple(mask.shape)} does not fit input_ids {tuple(ids.shape)}.")
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def _reads_the_same(student: nn.Module, teacher: nn.Module, batch: Batch) -> bool:
    """A classifier may have a vocabulary of its own; then this batch says nothing to the teacher."""
    ours, theirs = vocabulary_rows(student), vocabulary_rows(teacher)
    stored = any(name.startswith("teacher_") for name in batch)
    one_label = batch.get("labels") is None or batch["labels"].ndim == 1
    return ours is None or theirs is None or ours == theirs or not (stored and one_label)


def _flat(recipe: object) -> dict[str, object]:
    if recipe is None:
        return {}
    if isinstance(recipe, Mapping):
        return dict(recipe)
    if is_dataclass(recipe) and not isinstance(recipe, type):
        return {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    if isinstance(recipe, Sequence) and not isinstance(recipe, str):
        merged: dict[str, object] = {}
        for part in recipe:
            merged |= _flat(part)
        return merged
    raise ValueError(f"recipe must be a dataclass, a dict, or several of them, not {type(recipe).__name__}.")
