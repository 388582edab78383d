"""Hidden cases: other inputs of the same kind, for a grader. Each question has inputs that no public case shows."""

from __future__ import annotations

from typing import Any

from solutions.make_golden import golden


def hidden(name: str, seed: int) -> dict[str, Any]:
    """Hidden inputs of a chapter and what they must give, in the form of `golden/<name>.json`."""
    return golden(name, seed)
