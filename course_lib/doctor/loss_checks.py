"""Checks of the loss and of the training: what one call of `terms`, the recipe and the history show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from course_lib.doctor.evidence import Case
from course_lib.doctor.logit_loss import (
    HARD,
    HARD_TWICE,
    KL,
    MISTAKES,
    PROBABILITY_MSE,
    REVERSED_KL,
    WELL,
    LogitLoss,
    recognise,
)
from course_lib.doctor.reading import CH1, CH3, CH5, CH7, CH8, CH9, COMMAS, executed_blocks, fresh_share
from course_lib.doctor.report import Finding, Severity, compare
from course_lib.shared.projections import price_of_collapse


def loss_runs(case: Case) -> Iterable[Finding]:
    if case.terms is None:
        yield Finding("note", "loss", "no loss was given, so it was not looked at", chapter=CH1,
                      why="Temperature, reduction, positions and gradients can only be seen in a loss.",
                      fix="diagnose(student, teacher, batch, terms=lambda s, b: terms(s, teacher, b, recipe))")
        return
    if case.loss is None:
        return
    yield compare("error", "batch", f"entries of the batch that the loss changed {case.loss.batch_changed or ''}",
                  len(case.loss.batch_changed), "==", 0, chapter=CH5,
                  why="The next look at this example sees something else (a known bug of pair augmentation).",
                  fix="batch = {name: tensor.clone() for name, tensor in batch.items()}")
    if case.loss.failure:
        yield Finding("error", "loss", f"the loss stops with {case.loss.failure}", chapter=CH1,
                      why="No step can be taken.", fix="terms(student, batch)  # call it once outside the loop")
        return
    for name, value in case.loss.values.items():
        yield compare("error", "loss", f"terms that are not finite: '{name}' is {value:.3g}",
                      int(not math.isfinite(value)), "==", 0, chapter=CH1,
                      why="A logarithm of a negative number or of 0, a mean over nothing, or NaN in the batch. "
                          "F.kl_div wants log-probabilities of the student and probabilities of the teacher.",
                      fix="F.kl_div(student_logits.log_softmax(-1), teacher_logits.softmax(-1), reduction='batchmean')")
        if value < -1e-3:
            yield Finding("error", "loss", f"value of the term '{name}'", value, ">=", 0, chapter=CH9,
                          why="No distance and no cross-entropy is below 0: a distribution does not sum to 1, as "
                              "when the rest of a top-k cache is left out.",
                          fix="top_k_loss(student_logits, top_k(teacher_logits, k))  # methods.cached keeps the rest")


def reaches_student(case: Case) -> Iterable[Finding]:
    if not _usable(case):
        return
    total = sum(norm for norm in case.loss.norms.values() if math.isfinite(norm))
    for term, norm in case.loss.norms.items():
        if not math.isfinite(case.loss.values[term]):
            continue  # what is wrong with it, `loss_runs` says
        if not math.isfinite(norm):
            yield Finding("error", "gradient", f"gradient of '{term}' (value {case.loss.values[term]:.3g})", norm, "<=",
                          math.inf, chapter=CH1,
                          why="The value is a number, its derivative is none: a square root or a norm at 0, or a "
                              "division by a distance that is 0. One step makes every weight NaN.",
                          fix="((student - teacher).pow(2).sum(-1) + 1e-12).sqrt()  # the epsilon inside the root")
            continue
        nothing = norm < 1e-6 * total and abs(case.loss.values[term]) < 1e-5  # rounding: one thing compared with itself
        if not norm > 0 or nothing:
            what = f"gradient of '{term}' (value {case.loss.values[term]:.3g}) at the student"
            yield Finding("error", "gradient", what, norm, ">=", 1e-12, chapter=CH1,
                          why="This term does not teach the student: two outputs of one model were compared, or the "
                              "student ran under no_grad, or was detached.",
                          fix=f"out['{term}'] = loss(student(**inputs).logits, teacher_logits)  # student first")


def teacher_gradients(case: Case) -> Iterable[Finding]:
    if case.teacher is None:
        return
    ours = {id(p) for p in case.student.parameters()}
    if case.optimizer is not None:
        inside = {id(p) for group in case.optimizer.param_groups for p in group["params"]} - ours
        moving = sum(id(p) in inside for p in case.teacher.parameters())
        yield compare("error", "teacher gradients", "parameters of the teacher in the optimiser", moving, "==", 0,
                      why="The teacher walks towards the student; together they can agree on nothing.", chapter=CH5,
                      fix="torch.optim.AdamW(student.parameters(), lr=5e-4)")
    if _usable(case) and case.student is not case.teacher:
        yield compare("error", "teacher gradients", "parameters of the teacher that get a gradient",
                      case.loss.teacher_parameters_reached, "==", 0, chapter=CH5,
                      why="The backward pass runs through the teacher too: twice the memory and time, and one wrong "
                          "optimiser would train it.",
                      fix="with torch.no_grad():\n    teacher_logits = teacher(**inputs).logits")


def mask_is_passed(case: Case) -> Iterable[Finding]:
    if _usable(case):
        yield compare("error", "attention mask", f"models that the loss calls without it {case.loss.no_mask or ''}",
                      len(case.loss.no_mask), "==", 0, chapter=CH5,
                      why="The batch has padding. Without the mask every token attends to it, so the answer depends "
                          "on the longest neighbour in the batch.",
                      fix="student(input_ids=batch['input_ids'], attention_mask=batch['attention_mask'])")


def padding(case: Case) -> Iterable[Finding]:
    if _usable(case) and "attention_mask" in case.batch and not case.loss.no_mask:
        for term, share in case.loss.at_padding.items():
            yield compare("warning", "padding", f"share of the gradient of '{term}' that falls on padding", share, "<=",
                          1e-4, why="Padded positions count in the mean. The loss then depends on the longest sentence "
                                    "of the batch, and the student learns to imitate nothing.", chapter=CH5,
                          fix="loss = masked_mean((student - teacher).pow(2).mean(-1), attention_mask)")


# --- The logit loss, read from its gradient ---------------------------------------------------------------------------

RARELY_MEANT = {  # form: (why, fix)
    REVERSED_KL: ("KL(student || teacher) lets the student drop what it finds hard; the papers use "
                  "KL(teacher || student). F.kl_div takes the student FIRST.",
                  "F.kl_div(student_log_probs, teacher_probs, reduction='batchmean')"),
    PROBABILITY_MSE: ("The papers compare raw logits. Between probabilities a sure teacher hardly pulls: the gradient "
                      "goes through a softmax that is flat there.", "F.mse_loss(student_logits, teacher_logits)"),
}


def soft_term(case: Case) -> Iterable[Finding]:
    """The recipe wants the teacher's answers, and the labels alone pull: a column that was dropped on the way."""
    weight = next((case.recipe[name] for name in ("soft_weight", "prediction_weight")
                   if isinstance(case.recipe.get(name), int | float)), 0)
    gradient = case.loss.logit_gradient if _usable(case) else None
    if not weight or gradient is None or len(case.loss.values) > 1 or case.labelled is None:
        return
    logits, labels = case.student_logits, case.batch["labels"]
    if gradient.shape != logits.shape or labels.shape != logits.shape[:-1] or not case.labelled.any():
        return
    classes = logits.shape[-1]
    hard = logits.softmax(-1) - torch.nn.functional.one_hot(labels.clamp_min(0), classes)
    hard = (hard * case.labelled[..., None]).flatten().double()  # direction of the cross-entropy's gradient
    ours = gradient.flatten().double()
    rest = 1 - ((ours @ hard) / (ours.norm() * hard.norm()).clamp_min(1e-30)).item() ** 2
    yield compare("error", "soft term", "share of the gradient at the logits that is not the labels'", rest, ">=", 1e-4,
                  why=f"The recipe gives the teacher's answers the weight {weight:g}, and none of them arrives. The "
                      "Trainer of transformers drops every column that forward() does not name.", chapter=CH9,
                  fix="TrainingArguments(remove_unused_columns=False)  # and take them out in compute_loss")


def logit_loss(case: Case) -> Iterable[Finding]:
    found = _recognised(case)
    if found is None or found.form == HARD:
        return
    name = "form of the loss"
    if found.explained < WELL:
        yield Finding("note", name, "share of the gradient at the logits that a known loss explains", found.explained,
                      ">=", WELL, why=f"Nearest: {found.form}. Temperature and reduction were not judged.", chapter=CH1)
        return
    if found.form in MISTAKES:
        yield Finding("error", name, f"the gradient is that of: {found.form}; share explained", found.explained, ">=",
                      WELL,
                      why="Softmax or temperature is missing on one side, or is there twice. The loss falls anyway.",
                      fix="F.cross_entropy(student_logits, labels)  # it takes the softmax itself"
                      if found.form == HARD_TWICE else
                      "F.kl_div((student_logits / T).log_softmax(-1), (teacher_logits / T).softmax(-1), "
                      "reduction='batchmean') * T**2", chapter=CH1)
        return
    if found.form in RARELY_MEANT:
        why, fix = RARELY_MEANT[found.form]
        yield Finding("warning", name, f"the gradient is that of {found.form}; share explained", found.explained, ">=",
                      WELL, why=why, fix=fix, chapter=CH1)
        return
    yield Finding("ok", name, f"{found.form}; share explained", found.explained, ">=", WELL)
    if found.form == KL:
        yield from _temperature(case, found)
        yield from _scale(case, found)


def _temperature(case: Case, found: LogitLoss) -> Iterable[Finding]:
    stated, name = case.recipe.get("temperature"), "temperature"
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        off = abs(math.log(found.temperature / stated))
        yield compare("warning", name, f"log ratio of the loss' T = {found.temperature:.3g} to the recipe's {stated:g}",
                      off, "<=", 0.1, why="The loss does not use the temperature of the recipe, or only on one side.",
                      fix="(student_logits / T).log_softmax(-1), (teacher_logits / T).softmax(-1)", chapter=CH1)
    elif abs(found.temperature - 1) < 0.02:
        yield Finding("note", name, "T of the soft loss, read from its gradient", found.temperature, chapter=CH1,
                      why="A sharp teacher says little more than its first answer.",
                      fix="HintonRecipe(temperature=2.0)")


@dataclass(frozen=True)
class Factor:
    """Something that a code multiplies the soft loss with, though its weight does not say so.

    name, severity: of the finding. what: in words. size: the factor. asked(recipe): the recipe wants it.
    """

    name: str
    severity: Severity
    what: str
    size: float
    asked: Callable[[Mapping[str, object]], bool]


def _factors(found: LogitLoss, classes: int, sentences: int) -> list[Factor]:
    """The five that codes have, for a loss of this temperature on so many rows."""
    rows, T = found.rows, found.temperature
    mean = "reduction='mean' divides by the classes too"

    def averaged(recipe: Mapping[str, object]) -> bool:
        return recipe.get("reduction") == "mean"

    def unscaled(recipe: Mapping[str, object]) -> bool:
        return recipe.get("scale_by_t_squared") is False

    return [Factor("T squared", "warning", "T^2 is missing", T**-2, unscaled),
            Factor("reduction", "error", mean, 1 / classes, averaged),
            Factor("reduction", "error", f"{mean}, and T^2 is missing", 1 / classes / T**2,
                   lambda recipe: averaged(recipe) and unscaled(recipe)),
            Factor("reduction", "error", "reduction='batchmean' divides by the sentences, not by the tokens",
                   rows / sentences, lambda recipe: False),
            Factor("reduction", "error", "the sum over rows is not divided", float(rows), lambda recipe: False)]


def _scale(case: Case, found: LogitLoss) -> Iterable[Finding]:
    """Compare the size of the soft gradient with weight * T^2 * KL, mean over rows; name the factor that is missing."""
    weight, source = _soft_weight(case, found)
    if weight is None or weight <= 0:
        yield Finding("note", "scale of the loss", "factor in front of T^2 * KL, mean over rows", found.soft,
                      why="No recipe says which weight was meant.", chapter=CH1, fix="diagnose(..., recipe=recipe)")
        return
    ratio = found.soft / weight
    what = f"size of the soft gradient relative to {weight:.3g} * T^2 * KL per row ({source})"
    if _swapped(case, found):
        yield Finding("warning", "weights", "the soft loss carries the hard weight, and the other way round; " + what,
                      ratio, "==", 1, chapter=CH1, fix="soft_weight * soft + hard_weight * hard",
                      why="Some codes let alpha weigh the hard loss, others the soft one. Name the two weights.")
    elif _near(ratio, 1.0):
        yield Finding("ok", "scale of the loss", what, ratio, "==", 1)
    elif factor := _factor_of(ratio, _factors(found, case.student_logits.shape[-1], len(case.real))):
        yield _about(factor, ratio, what, case.recipe)
    else:
        yield Finding("note", "scale of the loss", what, ratio, "==", 1, chapter=CH1,
                      why="Another factor than T^2, the classes or the batch stands in front of the loss.")


def _near(ratio: float, size: float) -> bool:
    return ratio > 0 and abs(math.log(ratio / size)) < 0.1


def _factor_of(ratio: float, factors: Sequence[Factor]) -> Factor | None:
    """The factor nearest to the measured ratio, if it is near enough to be named."""
    near = [factor for factor in factors if _near(ratio, factor.size)]
    return min(near, key=lambda factor: abs(math.log(ratio / factor.size)), default=None)


def _about(factor: Factor, ratio: float, what: str, recipe: Mapping[str, object]) -> Finding:
    """What the doctor says of a factor; a note, if the recipe repeats a code or asks for it."""
    asked = recipe.get("as_in") == "code" or factor.asked(recipe)
    why = ("The soft gradient shrinks like 1 / T^2, so the hard loss decides alone." if factor.name == "T squared" else
           f"The soft loss is {ratio:.2g} times what its weight says; the other terms, or the learning rate, decide "
           "alone.")
    return Finding("note" if asked else factor.severity, factor.name, f"{factor.what}: {what}", ratio, "==", 1,
                   chapter=CH1, why=why + (" The recipe asks for it." if asked else ""),
                   fix="loss = F.kl_div(log_q, p, reduction='batchmean') * T**2  # rows = kept tokens, (rows, classes)")


def _soft_weight(case: Case, found: LogitLoss) -> tuple[float | None, str]:
    """The weight that the soft loss should have: from the recipe, or 1 minus the measured hard weight."""
    recipe = case.recipe
    for name in ("soft_weight", "prediction_weight"):
        if isinstance(recipe.get(name), int | float):
            return float(recipe[name]), "the recipe's weight"
    if isinstance(recipe.get("alpha"), float) and "beta" in recipe:  # PKD: alpha weighs the soft loss
        return recipe["alpha"], "the recipe's alpha"
    if isinstance(recipe.get("hard_weight"), int | float):
        return 1.0 - recipe["hard_weight"], "1 minus the recipe's hard weight"
    if found.labelled and 0.01 < found.hard < 0.99:
        return 1 - found.hard, f"1 minus the measured hard weight {found.hard:.2f}"
    if abs(found.hard) < 0.01 and len(case.loss.values) == 1:
        return 1.0, "the only term"
    return None, ""


def _swapped(case: Case, found: LogitLoss) -> bool:
    hard, soft = case.recipe.get("hard_weight"), case.recipe.get("soft_weight")
    return bool(hard and soft) and hard != soft and math.isclose(found.soft, hard, rel_tol=0.05) and math.isclose(
        found.hard, soft, rel_tol=0.05)


def _recognised(case: Case) -> LogitLoss | None:
    if not _usable(case) or case.loss.logit_gradient is None or not case.one_class_each:
        return None
    teacher, gradient = case.reference_logits, case.loss.logit_gradient.float()
    given = case.batch.get("labels")
    if teacher is None or case.student_logits is None or gradient.shape != case.student_logits.shape:
        return None
    student, teacher = case.student_logits, teacher.to(gradient.device)
    if teacher.ndim == 2 and student.ndim == 3 and case.labelled is not None:  # stored for the asked positions only
        gradient, student, given = gradient[case.labelled], student[case.labelled], given[case.labelled]
    if teacher.shape != student.shape or not (teacher.isfinite().all() and gradient.isfinite().all()):
        return None
    fits = given is not None and given.shape == student.shape[:-1] and not given.is_floating_point()
    T = case.recipe.get("temperature")
    return recognise(gradient.flatten(0, -2), student.flatten(0, -2), teacher.flatten(0, -2),
                     given.flatten() if fits else None, float(T) if isinstance(T, int | float) else None)


def positions(case: Case) -> Iterable[Finding]:
    """Where a masked LM's logits get their gradient."""
    if not _usable(case) or not case.is_masked_lm or case.labelled is None:
        return
    gradient, name = case.loss.logit_gradient, "loss positions"
    if gradient is None or gradient.shape[:-1] != case.labelled.shape:
        return
    pulled, asked = (gradient != 0).any(-1), case.labelled & case.real
    missed = 1 - (pulled & asked).sum().item() / max(1, int(asked.sum()))
    yield compare("error", name, "share of the masked positions without gradient", missed, "<=", 0.01, chapter=COMMAS,
                  why="The loss looks elsewhere: an inverted mask, or a mask of another batch.",
                  fix="keep = batch['labels'] != -100  # True where a word was hidden")
    elsewhere = (pulled & ~asked & case.real).sum().item() / max(1, int((pulled & case.real).sum()))
    only_masked = case.recipe.get("positions") in ("labelled", "masked")
    yield Finding("error", name, "share of the loss rows that were not masked", elsewhere, "<=", 0, chapter=COMMAS,
                  why="The recipe asks for masked positions only.", fix="rows = logits[batch['labels'] != -100]"
                  ) if only_masked and elsewhere else Finding(
        "note" if elsewhere else "ok", name, "share of the loss rows that were not masked", elsewhere, chapter=COMMAS,
        why="There the teacher mostly repeats its input: easy rows, which outnumber the masked ones.",
        fix="HintonRecipe(positions='labelled')  # or DistilBertRecipe(positions='masked')")


def gradient_shares(case: Case) -> Iterable[Finding]:
    if not _usable(case) or len(case.loss.norms) < 2:
        return
    total = sum(case.loss.norms.values())
    for term, norm in case.loss.norms.items():
        if norm > 0:  # MobileBERT's weights of 5000 and 1 leave a term with 1e-5 at the start, and that is its recipe
            severity = "warning" if norm < 1e-6 * total else "note"
            yield compare(severity, "gradient share", f"share of '{term}' in the sum of gradient norms", norm / total,
                          ">=", 1e-3, fix=f"out['{term}'] = {0.1 * total / norm:.2g} * out['{term}']", chapter=CH3,
                          why="It has a weight but no say. Compare gradients, not loss values, to choose weights.")


def projection_side(case: Case) -> Iterable[Finding]:
    if not _usable(case) or case.teacher is None:
        return
    width = getattr(getattr(case.teacher, "config", None), "hidden_size", None)
    trap = [m for m in case.loss.outside if m.trainable and not m.reads_student and m.widths[0] == width]
    if not case.loss.outside:
        return
    states = case.teacher_reading.hidden_states if case.teacher_reading else {}
    price = price_of_collapse(states[max(states)][case.real].float()).item() if states else 1.0
    what = f"trainable maps on the teacher's side (collapse costs 0 there, {price:.2g} on the student's side)"
    yield compare("error", "projection side", what, len(trap), "==", 0, chapter=COMMAS,
                  why="W = 0 with a constant student is a perfect answer: both sides agree on nothing, and the loss "
                      "falls to 0.",
                  fix="Projection(student_width, teacher_width, side='student')")


# --- Training ---------------------------------------------------------------------------------------------------------


def frozen(case: Case) -> Iterable[Finding]:
    name, named = "frozen parameters", dict(case.student.named_parameters())
    trainable = sum(p.requires_grad for p in named.values())
    yield compare("error", name, "trainable tensors of the student", trainable, ">=", 1, chapter=CH8,
                  why="Nothing can be learned.", fix="student.requires_grad_(True)")
    ran = executed_blocks(case)
    tensors = [p for block in ran.values() for _, p in block]
    still = sum(p.numel() for p in tensors if not p.requires_grad)
    share = still / max(1, sum(p.numel() for p in tensors))
    if trainable:
        yield compare("warning", name, "share of the numbers in the student's blocks that are frozen", share, "<=", 0.0,
                      why="These blocks run but cannot learn. Freezing belongs to the predecessor of Theseus and to "
                          "the teacher, not to the student.", fix="student.requires_grad_(True)", chapter=CH8)
    if _usable(case) and any(norm > 0 for norm in case.loss.norms.values()):
        yield from _without_gradient(case, ran)
    if case.optimizer is not None:
        held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
        left_out = [n for n, p in named.items() if p.requires_grad and id(p) not in held]
        yield compare("warning", name, "trainable tensors that are not in the optimiser", len(left_out), "==", 0,
                      why=f"{', '.join(left_out[:2])}: they never move, and their gradients still count in the norm, "
                          "so that clipping shrinks the step of the others.", chapter=CH8,
                      fix="torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=5e-4)")


def _without_gradient(case: Case, ran: dict[str, list[tuple[str, torch.nn.Parameter]]]) -> Iterable[Finding]:
    norms = case.loss.parameter_norms
    pulled = [any(norms.get(n, 0) > 0 for n, _ in block) for block in ran.values()]
    last = max((i for i, yes in enumerate(pulled) if yes), default=-1)
    cut = [path for i, path in enumerate(ran) if i < last and not pulled[i]
           and any(p.requires_grad for _, p in ran[path])]
    yield compare("warning", "frozen parameters", f"blocks without gradient below one that has it {cut or ''}",
                  len(cut), "==", 0,
                  why="The gradient is cut on its way down: a detach, a no_grad, or a copy that is not used.",
                  fix="print([n for n, p in student.named_parameters() if p.grad is None])", chapter=CH8)
    if "student_layer" in case.recipe and len(ran) > 1 and max(pulled):
        wanted = case.recipe["student_layer"] or len(ran)
        yield compare("warning", "layer of the loss", "deepest block that the loss reaches", last + 1, "==", wanted,
                      why="The recipe wants another layer (None = the last one) than the one that is compared.",
                      fix="reading.queries[max(reading.queries)]  # the last layer", chapter=CH7)
    idle = [n for n, norm in norms.items() if not norm > 0]
    if idle and not cut:
        yield Finding("note", "frozen parameters", f"trainable tensors this loss does not reach, such as {idle[-1]}",
                      len(idle), chapter=CH7, fix=f"print({idle[:3]})",
                      why="They keep their values. A method for some layers needs a second stage for the rest.")


def learning_rate(case: Case) -> Iterable[Finding]:
    rate, steps, name = case.recipe.get("learning_rate"), case.recipe.get("steps"), "learning rate"
    if "adam" not in str(case.recipe.get("optimiser", "adamw")).lower():
        return
    travelled = sum(row.get("learning_rate", 0.0) for row in case.history.steps) if case.history else 0.0
    if rate is None and case.history and case.history.steps:
        rate = max(row.get("learning_rate", 0.0) for row in case.history.steps)
    if rate is None:
        return
    yield compare("warning", name, "learning rate of Adam", rate, "<=", 0.02, chapter=COMMAS, fix="learning_rate=1e-3",
                  why="Every weight moves by about this much in a step; BERT's weights are about 0.02 large.")
    fresh = fresh_share(case, 0.01)
    if fresh <= 0.5:
        return
    flat = _hardly_moved(case)
    why = (f"{fresh:.0%} of the student's block weights are fresh. Adam moves a weight by at most about its rate per "
           "step, and a fresh weight has to travel several times its first size, 0.02. Fine-tuning rates are for "
           "trained models." + (f" The loss moved by {flat:.1%}." if flat is not None else ""))
    if travelled or steps:
        reach = travelled or rate * steps
        yield compare("warning", name, "how far a weight can move in this run (rate, summed over the steps)", reach,
                      ">=", 0.1, why=why, fix="Recipe(steps=2000, learning_rate=1e-3)", chapter=COMMAS)
    else:
        yield compare("warning", name, "learning rate for a fresh student", rate, ">=", 3e-5, why=why,
                      fix="Recipe(steps=2000, learning_rate=1e-3)", chapter=COMMAS)


def history(case: Case) -> Iterable[Finding]:
    if case.history is None or not case.history.steps:
        return
    bad = sum(not math.isfinite(v) for row in case.history.steps for v in row.values())
    yield compare("error", "history", "values of the run that are not finite", bad, "==", 0, chapter=CH1,
                  why="From that step on every weight is NaN.", fix="Recipe(learning_rate=rate / 3, clip=1.0)")
    moved = _hardly_moved(case)
    if moved is not None and not bad:
        severity = "warning" if fresh_share(case, 0.01) > 0.5 else "note"
        yield compare(severity, "history", "relative fall of the loss from the first to the last fifth", moved, ">=",
                      0.01, why="The loss hardly moves.", chapter=COMMAS,
                      fix="Recipe(steps=2000, learning_rate=1e-3)  # ten times the rate is worth a try")


def _hardly_moved(case: Case) -> float | None:
    """Relative fall of the summed terms, first fifth against last fifth; None for short runs."""
    rows = case.history.steps if case.history else []
    if len(rows) < 20:
        return None
    other = ("step", "gradient_norm", "learning_rate")
    losses = [sum(v for n, v in row.items() if n not in other) for row in rows]
    fifth = len(rows) // 5
    first, last = sum(losses[:fifth]) / fifth, sum(losses[-fifth:]) / fifth
    return (first - last) / abs(first) if first else 0.0


def _usable(case: Case) -> bool:
    return case.loss is not None and not case.loss.failure
