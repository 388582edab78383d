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
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from course_lib.experiments import ch03_distilbert as ch03
from course_lib.experiments import ch09_cached as ch09
from course_lib.experiments import described, measuring
from course_lib.experiments.described import Live
from course_lib.material.data import load_data
from course_lib.methods import cached
from course_lib.methods.table import METHODS
from course_lib.shared import clock, probes
from course_lib.shared.batches import MaskedBatch, windows
from course_lib.shared.masking import IGNORED
from course_lib.shared.method import Step
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


def case(step: Step, live: Live) -> Case:
    """A step of a method on the models and batches of its chapter."""
    student, teacher = live.student.to(clock.device()), live.teacher and live.teacher.to(clock.device())

    def asked(batch: Batch) -> Batch:
        return batch | {"teacher_logits": live.ask(batch)} if live.ask else batch

    return Case(student, [_moved(live.batches[i]) for i in range(min(DIFFERENT, len(live.batches)))],
                lambda batch: total(step.terms(student, teacher, asked(batch))),
                lambda batch: nothing_sensible(step.bare(student, teacher, asked(batch))))


def cases() -> dict[str, Callable[[], Case]]:
    """Row of the table -> what makes it: every step that a method's record names, and those that its chapter adds."""
    found = {}
    for method in METHODS.values():
        chapter = measuring.experiment(method.chapter) if method.chapter else None
        live = chapter.live if chapter else partial(described.live, method)
        for name, step in (method.steps | getattr(chapter, "MORE_STEPS", {}) if method.steps else {}).items():
            found[name] = partial(_case_of, step, live)
    return found


def _case_of(step: Step, live: Callable[[], Live]) -> Case:
    return case(step, live())


def _moved(batch: Batch) -> Batch:
    return {name: tensor.to(clock.device()) for name, tensor in batch.items()}


CASES = cases()


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
    case, terms = CASES["Cached answers"](), ch09.loss_terms(ch09.ARMS["labels + answers"])
    whole = ch09.teacher().model.to(clock.device())

    def live(batch: Batch) -> Tensor:
        asked = probes.teacher_logits_of(whole, batch)
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
