"""One way to say where chance comes from: `seed=`, a number or a generator."""

from __future__ import annotations

import random

Seed = int | random.Random


def generator(seed: Seed) -> random.Random:
    """A number starts a new generator: same number, same draws. A generator is used as it stands, and goes on."""
    return random.Random(seed) if isinstance(seed, int) else seed
