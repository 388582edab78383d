"""All that a run depends on; it is written into the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """All that a run depends on."""

    method: str
    teacher: str
    data: str
    out: str
    student: str | None = None  # None: the method's own
    preset: str = "laptop"
    recipe: dict[str, object] = field(default_factory=dict)  # changed fields of the method's recipe
    learning_rate: float | None = None  # this and the next three: of every stage; None = the preset's
    batch_size: int | None = None
    epochs: float | None = None
    steps: int | None = None
    accumulate: int = 1
    max_length: int = 128
    precision: str = "auto"
    seed: int = 0
    save_every: int = 100
    text: str | None = None  # this and the following: how the data is read, as in `texts.read`
    label: str | None = None
    encoding: str = "utf-8"
    separator: str | None = None
    quotes: str | None = None
    header: bool = True
    no_label: Sequence[str] = ()
    classes: Sequence[str] = ()
    skip_bad_rows: bool = False


READING = ("text", "label", "encoding", "separator", "quotes", "header", "no_label", "classes", "skip_bad_rows")
