"""data/results/bench.json: one entry per part, each with its command, the machine and the versions."""

from __future__ import annotations

import json
from pathlib import Path

from course_lib.material.assets import DATA
from course_lib.shared.files import write_atomically

FILE = DATA / "results" / "bench.json"


def load(file: Path = FILE) -> dict[str, dict]:
    """Everything that is measured: part -> its numbers. Empty if nothing is."""
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def store(part: str, found: dict, order: list[str], file: Path = FILE) -> None:
    """Put the numbers of one part in the place of its old ones; the other parts stay."""
    record = load(file) | {part: found}
    record = {name: record[name] for name in sorted(record, key=order.index)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: path.write_text(_as_text(record), "utf-8"))


def _as_text(record: dict[str, dict]) -> str:
    """JSON with one line per row of a table, so that a difference between two versions can be read."""
    parts = []
    for name, found in record.items():
        lines = []
        for key, value in found.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                rows = ",\n   ".join(json.dumps(row, ensure_ascii=False) for row in value)
                lines.append(f'{json.dumps(key)}: [\n   {rows}\n  ]')
            else:
                lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
        parts.append(f"{json.dumps(name)}: {{\n  " + ",\n  ".join(lines) + "\n }")
    return "{\n " + ",\n ".join(parts) + "\n}\n"
