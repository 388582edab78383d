"""The folder of a run: one run, one folder, and never half a file in it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from course_lib.distill.settings import Settings
from course_lib.distill.texts import Texts
from course_lib.methods.specs import Made
from course_lib.shared.files import write_atomically
from course_lib.shared.parts import process_number, wait_for_all


def is_same_run(folder: Path, settings: Settings) -> bool:
    """Whether the folder holds this run. Raises: ValueError for another run, or a folder with other things."""
    config = folder / "config.json"
    if not config.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty, and no run of this command. Choose another --out.")
        return False
    before = json.loads(config.read_text("utf-8"))["settings"]
    now = json.loads(json.dumps(asdict(settings)))
    changed = [name for name in now if name not in ("out", "save_every") and now[name] != before.get(name)]
    if changed:
        raise ValueError(f"{folder} belongs to a run with another {', '.join(changed)} "
                         f"({', '.join(repr(before.get(name)) for name in changed)}). Choose another --out, or delete "
                         "the folder.")
    return True


def begin_folder(folder: Path, settings: Settings, texts: Texts) -> None:
    """Write config.json, or check that the data is still the same."""
    digest = hashlib.sha256()
    for split, rows in texts.splits.items():
        digest.update(split.encode())
        for row in rows:
            digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode())
    config = folder / "config.json"
    if config.exists():
        if json.loads(config.read_text("utf-8"))["data_sha256"] != digest.hexdigest():
            raise ValueError(f"The data has changed since the run in {folder} began. Choose another --out.")
    elif process_number() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(config, {"settings": asdict(settings), "data_sha256": digest.hexdigest(),
                             "versions": {"python": platform.python_version(), "torch": torch.__version__,
                                          "transformers": transformers.__version__}})
    wait_for_all()


def save_student(made: Made, folder: Path, card: str) -> None:
    """Model, tokenizer and card, completely or not at all."""
    unfinished, final = folder / ".student.unfinished", folder / "student"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        made.save(unfinished)
        (unfinished / "README.md").write_text(card, "utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(unfinished, final)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(f"The student could not be written to {final} ({error}). Make room and run the same command "
                      "again: training will not be repeated.") from error


def write_json(path: Path, content: dict) -> None:
    write_atomically(path, lambda file: file.write_text(json.dumps(content, indent=1) + "\n", "utf-8"))
