"""Checks of what the models answer: the cache, the head, the commas, the attention, the confidence."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from course_lib.doctor.evidence import Case
from course_lib.doctor.reading import CH1, CH7, CH9, COMMAS, answers, fresh_share, tied
from course_lib.doctor.report import Finding, compare
from course_lib.shared import measures
from course_lib.shared.probes import Reading


def cache(case: Case) -> Iterable[Finding]:
    stored = next((case.batch[n] for n in ("teacher_logits", "teacher_log_probs") if n in case.batch), None)
    name, advice = "cached teacher", "examples = attach(examples, soft)  # methods.cached; shuffle afterwards"
    top = case.batch.get("teacher_top_ids")
    if (stored is None and top is None) or not case.one_class_each:
        return
    live = case.teacher_logits
    rows = stored if stored is not None else top
    if live is not None and rows.ndim == 2 and live.ndim == 3 and case.labelled is not None:
        live = live[case.labelled]
    if live is None:
        yield Finding("note", name, "no live teacher to compare the cache with", chapter=CH9, fix=advice)
        return
    if stored is None:
        same_length = len(top) == len(live)
        wrong = (top[..., 0].to(live.device) != live.argmax(-1)).double().mean().item() if same_length else 1.0
        yield compare("error", name, "share of rows whose stored favourite is not the teacher's", wrong, "<=", 0.05,
                      why="The rows belong to other examples, or to another teacher.", fix=advice, chapter=CH9)
        if same_length and "teacher_top_log_probs" in case.batch and "teacher_temperature" in case.batch:
            yield _cut_temperature(case, top, live)
        return
    if stored.shape != live.shape:
        yield Finding("error", name, f"stored {tuple(stored.shape)}, live {tuple(live.shape)}", chapter=CH9, fix=advice,
                      why="The cache belongs to other examples or to another teacher.")
        return
    ours, theirs = (x.flatten(0, -2).float().softmax(-1) for x in (stored.to(live.device), live))
    if stored.ndim == 3:
        ours, theirs = ours[case.real.flatten()], theirs[case.real.flatten()]
    apart = 0.5 * (ours - theirs).abs().sum(-1)  # total variation of each row
    wrong = (apart > 0.02).double().mean().item()
    # A sure teacher may give two texts one answer, and that is right; wrong rows that are one and the same are none.
    false = ours[apart > 0.02]
    yield compare("error", name, "wrong stored rows that stand there more than once",
                  len(false) - len(false.unique(dim=0)), "<=", 0, chapter=CH9,
                  why="Different texts got one and the same answer stored.", fix=advice)
    nearest = torch.cdist(ours[:512], theirs[:512], p=1).min(dim=1).values / 2
    shuffled = wrong > 0 and (nearest <= 0.02).double().mean().item() > 0.9
    yield compare("error", name, "share of stored rows that differ from the live teacher", wrong, "<=", 0.02,
                  why="They are the teacher's answers, in another order: logits were zipped with a shuffled loader."
                  if shuffled else "They come from another teacher, other texts, or a teacher in train mode."
                  + _without_token_types(case),
                  fix=advice, chapter=CH9)


def _without_token_types(case: Case) -> str:
    """A student without token types has a tokenizer that makes none; its batch then asks the teacher another thing."""
    kinds = getattr(getattr(case.teacher, "config", None), "type_vocab_size", 0) or 0
    if kinds < 2 or "token_type_ids" in case.teacher_batch:
        return ""
    return " Or the texts are pairs: this batch has no token_type_ids, and the teacher was asked with them."


def _cut_temperature(case: Case, top: Tensor, live: Tensor) -> Finding:
    """The k largest probabilities against the live teacher's, at the temperature that the cache names."""
    T = float(case.batch["teacher_temperature"].flatten()[0])
    kept = case.batch["teacher_top_log_probs"].to(live.device).float().exp()
    now = (live.float() / T).softmax(-1).gather(-1, top.to(live.device))
    wrong = (0.5 * (kept - now).abs().sum(-1) > 0.02).double().mean().item()
    return compare("error", "cached teacher", f"share of stored rows that are not the teacher's at T = {T:g}", wrong,
                   "<=", 0.05, chapter=CH9,
                   why="The favourites agree and the probabilities do not: softened after the cut, or not at all.",
                   fix="top_k(teacher_logits, k, temperature=T)  # soften all classes, then cut")


def tied_head(case: Case) -> Iterable[Finding]:
    ours, theirs = (tied(m) for m in (case.student, case.teacher))
    if not case.is_masked_lm or ours is None:
        return
    if ours or theirs is False:
        yield Finding("ok", "tied head", "output matrix is the embedding matrix" if ours else
                      "both models have their own output matrix", float(ours))
        return
    rows = case.student_logits.shape[-1]
    yield Finding("warning", "tied head", f"output rows of {rows} words that share nothing with the embeddings",
                  rows, "<=", 0, chapter=COMMAS,
                  why="Every row must be learned from the few tokens that the student sees; rare words stay random, "
                      "and frequent ones answer everything.",
                  fix="student.config.tie_word_embeddings = True; student.tie_weights()")


def constant_answers(case: Case) -> Iterable[Finding]:
    """One answer to every text (or token)."""
    if case.student_logits is None or case.is_masked_lm or not case.one_class_each:
        return
    ours, theirs, _ = answers(case)
    if len(ours) < 8 or not ours.isfinite().all():
        return
    spread, usual = _spread(ours), None if theirs is None else _spread(theirs)
    first = int(ours.mean(dim=0).argmax())
    named = (getattr(getattr(case.student, "config", None), "id2label", None) or {}).get(first, f"class {first}")
    beside = "" if usual is None else f", teacher {usual:.2g}"
    severity = "note" if fresh_share(case, 0.01) > 0.5 else "error" if usual is not None and usual > 0.1 else "warning"
    why = (f"It answers '{named}' to all {len(ours)}, whatever they say. " + (
        "Its layers are hardly trained yet: that is how training begins." if severity == "note" else
        "The teacher tells them apart: the student has learned the frequencies of the classes only." if
        severity == "error" else "Take texts that the teacher tells apart: --text FILE, or another batch."))
    yield compare(severity, "constant answers", "largest distance of an answer of the student from its mean answer "
                  f"(total variation{beside})", spread, ">=", 1e-3, why=why, chapter=COMMAS,
                  fix="Recipe(steps=2000, learning_rate=1e-3)  # longer and faster; look at the numbers per class")


def _spread(logits: Tensor) -> float:
    """Total variation between the mean distribution and the one that is farthest from it: 0 = one answer to all."""
    probs = logits.softmax(-1)
    return 0.5 * (probs - probs.mean(dim=0)).abs().sum(-1).max().item()


def calibration(case: Case) -> Iterable[Finding]:
    if case.student_logits is None or not case.one_class_each:
        return
    ours, theirs, given = answers(case)
    if given is None or len(given) < 100 or not ours.isfinite().all() or int(given.max()) >= ours.shape[-1]:
        return
    error = measures.calibration(ours, given).ece
    beside = f" (teacher {measures.calibration(theirs, given).ece:.2f})" if theirs is not None else ""
    yield compare("warning", "calibration", f"expected calibration error of the student{beside}", error, "<=", 0.2,
                  why="Its confidence does not say how often it is right. Hard labels alone, or a sharp teacher at "
                      "T = 1, teach too much confidence.", chapter=CH1,
                  fix="HintonRecipe(temperature=4.0)  # or divide the logits by a T fitted on validation data")


def dead_attention(case: Case) -> Iterable[Finding]:
    for who, reading in (("student", case.student_reading), ("teacher", case.teacher_reading)):
        if reading is None or (who == "student" and fresh_share(case, 0.0) > 0.5):
            continue  # a fresh model looks everywhere; that is no disease
        uniform, single = _attention_shares(reading)
        if math.isnan(uniform):
            continue
        for what, share in (("look at every token alike", uniform), ("look at one token only", single)):
            yield compare("warning", "dead attention", f"share of the {who}'s heads that {what}", share, "<=", 0.5,
                          why="Such a head carries no information about the sentence. Too high a learning rate, or a "
                              "loss that never reaches the attention, leaves heads so.", chapter=CH7,
                          fix="MiniLmRecipe()  # a loss on attention; or a smaller learning rate with warm-up")


def _attention_shares(reading: Reading) -> tuple[float, float]:
    """Share of heads with uniform attention, and of heads with all weight on one token."""
    real = reading.attention_mask.bool()
    long_enough = real.sum(dim=1) >= 4
    if not long_enough.any():
        return math.nan, math.nan
    real = real[long_enough]
    most = real.sum(dim=1).double().log()[:, None, None]  # the entropy of a head that looks everywhere
    uniform = single = heads = 0
    for probs in reading.attention_probs.values():
        p = probs[long_enough].double()
        entropy = -(p * p.clamp_min(1e-12).log()).sum(-1) / most  # (B, h, T)
        rows = real[:, None, :].expand_as(entropy)
        for h in range(p.shape[1]):
            uniform += (entropy[:, h][rows[:, h]].mean() > 0.999).item()
            single += (p[:, h].amax(-1)[rows[:, h]].mean() > 0.99).item()
            heads += 1
    return uniform / heads, single / heads


def unigram_collapse(case: Case) -> Iterable[Finding]:
    if not case.is_masked_lm:
        return
    ours, theirs, _ = answers(case)
    if len(ours) < 20 or not ours.isfinite().all():
        return
    share, commonest = _top_share(ours)
    usual = _top_share(theirs)[0] if theirs is not None else 0.0
    words = ", ".join(f"{_word(case, token)!r} {part:.0%}" for token, part in commonest)
    beside = f", teacher {usual:.2f}" if theirs is not None else ""
    layers_only = case.loss is not None and not case.loss.failure and case.loss.logit_gradient is None
    untrained, hard_batch = fresh_share(case, 0.0) > 0.5 or layers_only, usual > 0.85
    yield compare("note" if untrained or hard_batch else "error", "unigram collapse",
                  f"share of the four commonest answers among {len(ours)} ({words}{beside})", share, "<=", 0.85,
                  why="Its answers have not been trained yet." if untrained else
                  "The teacher does the same: take a batch of real text." if hard_batch else
                  "It answers with the corpus' most frequent tokens whatever the context: the plateau that every "
                  "masked-LM student passes, and that too small steps or too weak a signal do not leave.",
                  fix="Recipe(steps=2000, learning_rate=1e-3)  # tied head, start from the teacher's layers",
                  chapter=COMMAS)


def _top_share(logits: Tensor) -> tuple[float, list[tuple[int, float]]]:
    found, counts = logits.argmax(-1).unique(return_counts=True)
    order = counts.argsort(descending=True)[:4]
    parts = [(int(found[i]), counts[i].item() / len(logits)) for i in order]
    return sum(part for _, part in parts), parts


def _word(case: Case, token: int) -> str:
    if case.tokenizer is None:
        return f"#{token}"
    word = case.tokenizer.convert_ids_to_tokens(token)
    return f"#{token}" if word is None else str(word)
