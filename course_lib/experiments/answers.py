"""A teacher's answers, asked for once and kept: in data/answers (committed), else in the cache folder.

    python -m course_lib.experiments.answers     copy the small ones of the cache folder to data/answers, to commit

A file's name carries the version of the teacher, so a new teacher never gets the old one's answers; `attach` checks
that every answer belongs to its example. Files with states are large and stay in the cache.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from course_lib.material.assets import DATA, cache_folder
from course_lib.material.teachers import TEACHERS
from course_lib.methods.cached import SoftLabels, load_soft_labels
from course_lib.shared.files import write_atomically

LARGEST = 1_000_000  # bytes of a file that is worth committing: asking for it takes a learner's minutes
SPLITS = ("train", "validation", "test", "unlabelled")


def file_name(teacher: str, name: str) -> str:
    """`<teacher>-<name>-<version of the teacher>.safetensors`."""
    adapter = (DATA / "teachers" / teacher / "adapter.safetensors").read_bytes()
    return f"{teacher}-{name}-{hashlib.sha256(adapter).hexdigest()[:12]}.safetensors"


def committed(teacher: str, name: str) -> Path:
    """Where the answers lie in the repository, if they are small enough for it."""
    return DATA / "answers" / file_name(teacher, name)


def kept(teacher: str, name: str, ask: Callable[[], SoftLabels]) -> SoftLabels:
    """The answers of a teacher ("sentiment", "topics") kept under `name`; if there are none, `ask` is called."""
    if committed(teacher, name).exists():
        return load_soft_labels(committed(teacher, name))
    path = cache_folder() / "answers" / file_name(teacher, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        ask().save(path)
    return load_soft_labels(path)


def main(names: list[str]) -> None:
    """Copy the named files ("sentiment-train"), or those of all splits, from the cache folder to data/answers."""
    folder = DATA / "answers"
    folder.mkdir(exist_ok=True)
    of_classes = [teacher for teacher, made in TEACHERS.items() if made.data != "wikipedia"]
    for name in names or [f"{teacher}-{split}" for teacher in of_classes for split in SPLITS]:
        teacher = max((t for t in of_classes if name.startswith(f"{t}-")), key=len)  # sentiment-500 is not sentiment
        source = cache_folder() / "answers" / file_name(teacher, name.removeprefix(f"{teacher}-"))
        if not source.exists() or source.stat().st_size > LARGEST:
            print(f"{name}: {'too large to commit' if source.exists() else 'not in the cache folder'}")
            continue
        write_atomically(folder / source.name, partial(shutil.copyfile, source))
        print(f"{name}: {source.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
