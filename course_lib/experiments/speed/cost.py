"""What teaching costs: one training step with a method's real losses over the bare minimum, and the two caches.

The bare minimum runs the same two models on the same batch and lets the student learn nothing sensible: the teacher's
forward pass, the student's forward and backward pass from the mean of those outputs that the method looks at, and the
optimiser. What a method needs beside (scores from queries and keys, softmaxes, distances) is its cost.

Models and batches are the course's: 32 movie sentences, the sentiment teacher (6 x 384, live) and the student of the
method's chapter. DistilBERT reads 16 windows of 64 tokens with the masked-LM teacher, the document classifier 32
documents of up to 128 tokens with stored answers, the BiLSTM 50 sentences in its own words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from course_lib.experiments import ch01_hinton as ch01
from course_lib.experiments import ch02_bilstm as ch02
from course_lib.experiments import ch03_distilbert as ch03
from course_lib.experiments import ch05_tinybert as ch05
from course_lib.experiments import ch06_mobilebert as ch06
from course_lib.experiments import ch08_theseus as ch08
from course_lib.experiments import ch09_cached as ch09
from course_lib.experiments import sentences
from course_lib.material.data import load_data
from course_lib.methods import bilstm, cached, distilbert, hinton, minilm, mobilebert, pkd, theseus, tinybert
from course_lib.methods.theseus import TheseusRecipe
from course_lib.shared import clock, layer_maps, probes
from course_lib.shared.batches import Batches, MaskedBatch, pad, windows
from course_lib.shared.masking import IGNORED
from course_lib.shared.probes import Reading
from course_lib.shared.training import Batch, autocast

AIM, CACHE_AIM = 1.10, 2.5
DIFFERENT = 6  # batches that the rounds take in turns
TOP_K = 64
Loss = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Case:
    """One method, ready to be timed: the student, its batches, the real loss and the bare minimum of one batch."""

    student: nn.Module
    batches: Sequence[Batch]
    real: Loss
    bare: Loss

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """One for both losses, so that its state is not in memory twice. Small steps: the student stays what it is."""
        return torch.optim.AdamW([p for p in self.student.parameters() if p.requires_grad], lr=1e-6)

    def step(self, loss: Loss) -> Callable[[int], None]:
        """A function that makes training step i with one of the two losses."""
        self.student.train()

        def step(i: int) -> None:
            torch.manual_seed(i)  # the same dropout, and for Theseus the same path, in both
            batch = self.batches[i % len(self.batches)]
            with autocast("auto", clock.device().type):
                value = loss(batch)
            value.backward()
            self.optimizer.step()
            self.student.zero_grad()
        return step


def total(terms: dict[str, Tensor]) -> Tensor:
    """The loss as the training loop sums it."""
    return sum(terms.values())


def nothing_sensible(outputs: Sequence[Tensor]) -> Tensor:
    """The sum of the outputs' means: the cheapest number whose gradient reaches all of them."""
    return sum(output.float().mean() for output in outputs)


# --- The methods ------------------------------------------------------------------------------------------------------


def _live(student: nn.Module, teacher: nn.Module, batches: Sequence[Batch], real: Callable[[Batch], dict],
          looked_at: Callable[[Reading], Sequence[Tensor]] | None = None) -> Case:
    """A method with a live teacher. looked_at: what it reads inside the models; None: only the logits."""
    def bare(batch: Batch) -> Tensor:
        if looked_at is None:
            probes.teacher_logits_of(teacher, batch)
            return nothing_sensible([probes.logits_of(student, batch)])
        with torch.no_grad():
            probes.read(teacher, batch)
        return nothing_sensible(looked_at(probes.read(student, batch)))
    return Case(student.to(clock.device()), batches, lambda batch: total(real(batch)), bare)


def _teacher() -> nn.Module:
    return sentences.teacher().model.to(clock.device())


def _sentences(keep: Sequence[str] = ("input_ids", "token_type_ids", "label"), size: int = sentences.BATCH_SIZE
               ) -> list[Batch]:
    """The first training batches, without the stored answers: the teacher is live here."""
    rows = [{name: row[name] for name in keep} for row in sentences.examples("train")]
    return _first(Batches(rows, size))


def _first(batches: Batches) -> list[Batch]:
    return [_moved(batches[i]) for i in range(DIFFERENT)]


def _moved(batch: Batch) -> Batch:
    return {name: tensor.to(clock.device()) for name, tensor in batch.items()}


def soft_targets() -> Case:
    """Chapter 1's student, labels and answers at T = 4."""
    student, teacher = ch01.student(0), _teacher()
    return _live(student, teacher, _sentences(), lambda batch: hinton.terms(
        student, teacher, batch, sentences.LABELS_AND_ANSWERS))


def distilled_bilstm() -> Case:
    """The teacher reads the same sentences in its own tokens."""
    student, teacher = ch02.student(0).to(clock.device()), _teacher()
    rows = [row | {"words": word["input_ids"]} for row, word in
            zip(sentences.examples("train"), ch02.word_rows("train"), strict=True)][: 50 * DIFFERENT]
    batches = []
    for i in range(0, len(rows), ch02.BATCH_SIZE):
        some = rows[i : i + ch02.BATCH_SIZE]
        tokens = pad([{"input_ids": row["input_ids"]} for row in some])
        words = pad([{"input_ids": row["words"], "label": row["label"]} for row in some])
        batches.append(_moved(words | {"tokens": tokens["input_ids"], "tokens_mask": tokens["attention_mask"]}))

    def answers(batch: Batch) -> Tensor:
        return probes.teacher_logits_of(teacher, {"input_ids": batch["tokens"], "attention_mask": batch["tokens_mask"]})

    def real(batch: Batch) -> Tensor:
        return total(bilstm.terms(student, None, batch | {"teacher_logits": answers(batch)}))

    def bare(batch: Batch) -> Tensor:
        answers(batch)
        return nothing_sensible([probes.logits_of(student, batch)])
    return Case(student, batches, real, bare)


def _masked_windows() -> list[Batch]:
    teacher = ch03.teacher()
    teacher.model.to(clock.device())
    rows = windows(load_data("wikipedia")["train"].select(range(200)), teacher.tokenizer, ch03.LENGTH)
    collate = MaskedBatch(teacher.tokenizer, generator=torch.Generator().manual_seed(0))
    return [batch | {"token_type_ids": torch.zeros_like(batch["input_ids"])}
            for batch in _first(Batches(rows, ch03.BATCH_SIZE, collate=collate))]


def distilbert_all_tokens() -> Case:
    """The published recipe: both heads give 30,522 logits for every token."""
    student, batches = ch03.student(0).to(clock.device()), _masked_windows()
    teacher = ch03.teacher().model
    return _live(student, teacher, batches, lambda batch: distilbert.terms(student, teacher, batch),
                 lambda mine: [mine.logits, mine.hidden_states[max(mine.hidden_states)]])


def distilbert_hidden_words() -> Case:
    """Chapter 3's way: the heads work on the hidden words only."""
    student, batches = ch03.student(0).to(clock.device()), _masked_windows()
    teacher, terms = ch03.teacher().model, ch03.loss_terms(ch03.ARMS[ch03.WHOLE])

    def bare(batch: Batch) -> Tensor:
        hidden_words, ours = batch["labels"] != IGNORED, ch03.last_states(student, batch)
        with torch.no_grad():
            ch03.word_logits(teacher, ch03.last_states(teacher, batch)[hidden_words])
        return nothing_sensible([ch03.word_logits(student, ours[hidden_words]), ours])
    return Case(student, batches, lambda batch: total(terms(student, batch)), bare)


def patient() -> Case:
    """PKD's three terms, the teacher's states live."""
    student, teacher = sentences.half_depth(0), _teacher()
    matched = [s for s, _ in layer_maps.skip(3, 6)]
    return _live(student, teacher, _sentences(), lambda batch: pkd.terms(student, teacher, batch),
                 lambda mine: [mine.logits, *(mine.hidden_states[s][:, 0] for s in matched)])


def tinybert_inside() -> Case:
    """Stage 1: attention, hidden states and embeddings of two pairs of layers, through two projections."""
    student, teacher = ch05.student(0, projection=True), _teacher()
    return _live(student, teacher, _sentences(), lambda batch: tinybert.terms(student, teacher, batch, ch05.INSIDE),
                 lambda mine: [*mine.hidden_states.values(), *mine.queries.values(), *mine.keys.values()])


def tinybert_prediction() -> Case:
    """Stage 2: the soft cross-entropy alone."""
    student, teacher = ch05.student(0), _teacher()
    return _live(student, teacher, _sentences(), lambda batch: tinybert.terms(
        student, teacher, batch, tinybert.PREDICTION), lambda mine: [mine.logits])


def mobilebert_all_blocks() -> Case:
    """The dearest of the three strategies: every block and the task in one sum ("auxiliary")."""
    student, teacher = ch06.student(0), _teacher()
    return _live(student, teacher, _sentences(size=ch06.BATCH_SIZE),
                 lambda batch: mobilebert.terms(student, teacher, batch),
                 lambda mine: [mine.logits, *list(mine.hidden_states.values())[1:], *mine.queries.values(),
                               *mine.keys.values()])


def mobilebert_one_block() -> Case:
    """Progressive transfer at its dearest: the last block learns, so both models run to their ends."""
    student, teacher = ch06.student(0), _teacher()
    last = ch06.phases_of(ch06.ARMS["progressive"])[ch06.LAYERS - 1]
    return _live(student, teacher, _sentences(size=ch06.BATCH_SIZE),
                 lambda batch: mobilebert.terms(student, teacher, batch, ch06.JOINT, last),
                 lambda mine: [mine.hidden_states[ch06.LAYERS], mine.queries[ch06.LAYERS], mine.keys[ch06.LAYERS]])


def minilm_first() -> Case:
    """Attention and value relation of the last layer."""
    return _minilm(minilm.MiniLmRecipe())


def minilm_second() -> Case:
    """Relations QQ, KK and VV of the last layer."""
    return _minilm(minilm.MiniLmRecipe(version="v2", relation_heads=12))


def _minilm(recipe: minilm.MiniLmRecipe) -> Case:
    student, teacher = sentences.half_depth(0), _teacher()
    return _live(student, teacher, _sentences(), lambda batch: minilm.terms(student, teacher, batch, recipe),
                 lambda mine: [kind[max(kind)] for kind in (mine.queries, mine.keys, mine.values)])


def of_theseus() -> Case:
    """No teacher beside the student: the predecessor is part of the ship. Half of the modules are replaced."""
    _teacher()
    ship = ch08.build(TheseusRecipe(ch08.MODULES, "constant", rate=0.5)).to(clock.device())

    def bare(batch: Batch) -> Tensor:
        return nothing_sensible([ship(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).logits])
    return Case(ship, _sentences(), lambda batch: total(theseus.terms(ship, None, batch)), bare)


def cached_answers() -> Case:
    """No teacher in the step: its answers are in the batch."""
    ch09.teacher().model.to(clock.device())
    student = ch09.student(0).to(clock.device())
    terms = ch09.loss_terms(ch09.ARMS["labels + answers"])
    batches = _first(Batches(ch09.examples("train"), ch09.BATCH_SIZE))
    return Case(student, batches, lambda batch: total(terms(student, batch)),
                lambda batch: nothing_sensible([probes.logits_of(student, batch)]))


CASES: dict[str, Callable[[], Case]] = {
    "Soft targets": soft_targets,
    "Distilled BiLSTM": distilled_bilstm,
    "DistilBERT, every token": distilbert_all_tokens,
    "DistilBERT, hidden words": distilbert_hidden_words,
    "PKD": patient,
    "TinyBERT, inside": tinybert_inside,
    "TinyBERT, prediction": tinybert_prediction,
    "MobileBERT, one block": mobilebert_one_block,
    "MobileBERT, all blocks": mobilebert_all_blocks,
    "MiniLM": minilm_first,
    "MiniLM v2": minilm_second,
    "Theseus": of_theseus,
    "Cached answers": cached_answers,
}


# Why a method may lie above the aim; the page says it of those that do.
WHY = {
    "DistilBERT, every token": "two models give 30,522 logits for each of a thousand tokens, and every pass over these "
                               "62 million numbers costs memory traffic; on the hidden words alone there are seven "
                               "times fewer",
    "MobileBERT, all blocks": "its blocks are thin but have as many heads as the teacher's, so the tables of attention "
                              "scores are as large as the teacher's while the blocks cost little; the progressive "
                              "strategy, the paper's best, compares one block at a time",
    "TinyBERT, inside": "the student is so narrow that two projections and two tables of scores are a visible part of "
                        "its step",
}


# --- Measuring --------------------------------------------------------------------------------------------------------


def measure(seconds: float, quick: bool = False) -> dict:
    """All methods, the cache of class distributions, and the top-k cache of a masked LM."""
    each = 0.0 if quick else seconds / (len(CASES) + 3)
    names = list(CASES)[:1] if quick else CASES
    return {"aim": AIM, "cache_aim": CACHE_AIM, "methods": [time_case(name, CASES[name](), each) for name in names],
            "documents": [documents(each)], "top_k": top_k_cache(2 * each)}


def time_case(name: str, case: Case, seconds: float) -> dict:
    """bare_ms and real_ms (medians), ratio (quartiles over the rounds of  real / bare), rounds."""
    times = clock.in_turns({"bare": case.step(case.bare), "real": case.step(case.real)}, seconds, least=9, most=60,
                           where=clock.device())
    return {"method": name, "bare_ms": clock.milliseconds(times, "bare"), "real_ms": clock.milliseconds(times, "real"),
            "ratio": clock.ratio(times, "real", "bare"), "rounds": len(times["real"])}


def documents(seconds: float) -> dict:
    """The document classifier with stored answers, and with a teacher that reads every batch anew.

    steps_per_second of both, and faster: quartiles of  time(live) / time(stored).
    """
    case, terms = cached_answers(), ch09.loss_terms(ch09.ARMS["labels + answers"])

    def live(batch: Batch) -> Tensor:
        asked = probes.teacher_logits_of(ch09.teacher().model, batch)
        return total(terms(case.student, batch | {"teacher_log_probs": asked}))
    times = clock.in_turns({"stored": case.step(case.real), "live": case.step(live)}, seconds, where=clock.device())
    per_second = {name: clock.significant(1000 / clock.milliseconds(times, name), 3) for name in times}
    return {"stored_steps_per_second": per_second["stored"], "live_steps_per_second": per_second["live"],
            "faster": clock.ratio(times, "live", "stored"), "rounds": len(times["live"])}


def top_k_cache(seconds: float, k: int = TOP_K) -> list[dict]:
    """A masked LM from a live teacher, from stored distributions over the whole vocabulary, and from their top k.

    Every step begins with the examples of a data set, because putting the stored rows into a batch is a part of the
    price. bytes: per masked position. ratio: quartiles of  time / time with the live teacher.
    """
    teacher, student = ch03.teacher(), ch03.student(0)
    model = teacher.model.to(clock.device())
    rows = windows(load_data("wikipedia")["train"].select(range(100)), teacher.tokenizer, ch03.LENGTH)
    fixed = cached.fixed_masks(rows, MaskedBatch(teacher.tokenizer, generator=torch.Generator().manual_seed(0)))
    fixed = fixed[: ch03.BATCH_SIZE * DIFFERENT]
    student, recipe = student.to(clock.device()), cached.CachedRecipe()

    def steps_over(rows: list[dict], loss: Loss) -> Callable[[int], None]:
        batches = [rows[i : i + ch03.BATCH_SIZE] for i in range(0, len(rows), ch03.BATCH_SIZE)]
        return Case(student, _Collated(batches), loss, loss).step(loss)

    def stored(batch: Batch) -> Tensor:
        return total(cached.terms(student, None, batch, recipe))

    def live(batch: Batch) -> Tensor:
        return stored(batch | {"teacher_log_probs": probes.teacher_logits_of(model, batch)[batch["labels"] != IGNORED]})

    work = {"live teacher": steps_over(fixed, live)}
    for name, kept in (("whole vocabulary", None), (f"top {k}", k)):
        work[name] = steps_over(cached.attach(fixed, cached.ask_teacher(model, fixed, k=kept, batch_size=16)), stored)
    times = clock.in_turns(work, seconds, where=clock.device())
    sizes = {"live teacher": 0, "whole vocabulary": cached.bytes_per_row(model.config.vocab_size),
             f"top {k}": cached.bytes_per_row(model.config.vocab_size, k)}
    return [{"answers": name, "bytes": sizes[name], "ms": clock.milliseconds(times, name),
             "ratio": clock.ratio(times, name, "live teacher"), "rounds": len(times[name])} for name in work]


class _Collated(Sequence):
    """Lists of examples that become batches when they are asked for, as in a training loop."""

    def __init__(self, batches: list[list[dict]]):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> Batch:
        return _moved(cached.collate(self.batches[i]))
