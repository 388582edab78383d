"""The learner's progress: one small JSON file beside the notebook, and nothing outside that folder.

`COURSE_PROGRESS_FILE` names another file, or `off` for none. Every write replaces the whole file at once, so a kernel
killed half-way leaves the old one. A damaged file is moved aside, never deleted, and never stops a notebook.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

FILE = "progress.json"
VERSION = 1
_SECTIONS = ("exercises", "quiz", "polls")
_unsaved: dict[str, Any] = {}  # what could not be written lives here until the kernel ends


def place() -> Path | None:
    """Path of the progress file; None when it is switched off."""
    setting = os.environ.get("COURSE_PROGRESS_FILE", "")
    return None if setting.lower() == "off" else Path(setting or FILE)


def load() -> tuple[dict[str, Any], str]:
    """Progress so far, and one sentence if the file was damaged and had to be moved aside."""
    path = place()
    if path is None or str(path.absolute()) in _unsaved:
        return _complete(_unsaved.get(_key(path), {})), ""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if not _sound(stored):
            raise ValueError
    except FileNotFoundError:
        return _complete({}), ""
    except OSError as error:
        return _complete({}), f"{path.name} cannot be read ({error.strerror}); it was left alone."
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or not ours
        return _complete({}), _moved_aside(path)
    return _complete(stored), ""


def save(progress: dict[str, Any]) -> str:
    """Replace the progress file; one sentence if that was not possible."""
    path = place()
    if path is None:
        _unsaved[_key(path)] = progress
        return ""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(progress, file, indent=1, ensure_ascii=False)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        _unsaved[_key(path)] = progress
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return f"Progress cannot be saved in {path.name} ({error.strerror}). It is kept until this kernel ends."
    _unsaved.pop(_key(path), None)
    return ""


def _key(path: Path | None) -> str:
    return str(path.absolute()) if path else "off"


def _complete(progress: dict[str, Any]) -> dict[str, Any]:
    return {"version": VERSION} | {section: dict(progress.get(section, {})) for section in _SECTIONS}


def _sound(stored: object) -> bool:
    """Only a file of the shape that `save` writes is used; anything else would fail later and elsewhere."""
    if not isinstance(stored, dict) or stored.get("version") != VERSION:
        return False
    if not all(isinstance(stored.get(section), dict) for section in _SECTIONS):
        return False
    wanted = {"status": str, "points": (int, float), "attempts": int, "hints": int}
    exercises = all(isinstance(entry, dict) and all(isinstance(entry.get(k), t) for k, t in wanted.items())
                    for entry in stored["exercises"].values())
    return exercises and all(isinstance(v, str) for s in ("quiz", "polls") for v in stored[s].values())


def _moved_aside(path: Path) -> str:
    number, aside = 1, path.with_name(f"{path.stem}.damaged.json")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.stem}.damaged{number}.json")
    try:
        os.replace(path, aside)
    except OSError as error:
        return f"{path.name} is damaged and cannot be moved aside ({error.strerror}); progress starts anew."
    return f"{path.name} was damaged. It is now {aside.name}, and progress starts anew."
