"""No teacher: the labels alone. The baseline of every method, described as they are."""

from __future__ import annotations

from torch import nn

from course_lib.methods import hinton
from course_lib.shared import probes
from course_lib.shared.method import BOTH_TASKS, FINE_TUNING, FRESH, MASKED_LM, Job, Measured, Method, Stage, Training
from course_lib.shared.parts import Batch


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    def terms(student: nn.Module, batch: Batch) -> dict:
        return {"hard": hinton.hard_loss(probes.logits_of(student, batch), batch["labels"])}

    training = job.numbers(Training(5e-5, epochs=3) if job.copied else FRESH, FINE_TUNING)
    if job.task == MASKED_LM:
        return [Stage("labels", terms, training, {"hard": "labels"}, masked=True)]
    return [Stage("labels", terms, training)]


RECORD = Method(
    "labels", "Labels", "no teacher: the baseline", stages, {"laptop": None, "paper": None}, "ch01",
    tasks=BOTH_TASKS, teacher="none", same_tokens=False, needs_labels=True,
    measured=Measured("ch04", "labels"))
