"""Numbers that the original codes computed, loaded by name.

    from oracle import oracle

    truth = oracle("distilbert/step/restrict0_T2")
    student = truth.leaf("logits_S")                 # a copy that wants gradients
    loss = ...
    truth.check("loss", loss)                        # at the tolerance stated with the number
    truth.check("grad_logits", torch.autograd.grad(loss, student)[0])

Tensors keep their stored type (float64 for most). Where the numbers come from: tests/oracles/README.md.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parent / "oracles"


class Oracle(NamedTuple):
    """One set of inputs with what the original code made of them."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    params: dict[str, Any]
    rtol: float
    atol: float
    name: str
    note: str

    def leaf(self, key: str) -> torch.Tensor:
        """A copy of an input that collects gradients."""
        return self.inputs[key].clone().requires_grad_()

    def check(self, key: str, actual: Any) -> None:
        """Compare `actual` with output `key` at the stored tolerance; numbers, lists and tensors all work."""
        expected = torch.as_tensor(self.outputs[key])
        if expected.is_floating_point():
            expected = expected.double()
        actual = torch.as_tensor(actual).detach().to(expected.dtype)
        torch.testing.assert_close(
            actual, expected, rtol=self.rtol, atol=self.atol, msg=lambda text: f"{self.name}, {key}: {text}"
        )


@cache
def _entries() -> dict[str, dict]:
    return {entry["name"]: entry for entry in json.loads((FOLDER / "oracles.json").read_text())}


@cache
def _tensors() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "oracles.safetensors")


def _values(fields: dict[str, dict]) -> dict[str, Any]:
    # Clones: a test that writes into its input must not change the input of the next test.
    return {
        key: _tensors()[field["tensor"]].clone() if "tensor" in field else field["value"]
        for key, field in fields.items()
    }


def names(prefix: str = "") -> list[str]:
    """All oracle names that start with `prefix`, for `pytest.mark.parametrize`."""
    return [name for name in _entries() if name.startswith(prefix)]


def oracle(name: str) -> Oracle:
    """Load one oracle; raises KeyError with the known names of the same group."""
    if name not in _entries():
        raise KeyError(f"no oracle {name!r}; this group has {names(name.partition('/')[0])}")
    entry = _entries()[name]
    return Oracle(
        inputs=_values(entry["inputs"]),
        outputs=_values(entry["outputs"]),
        params=entry["params"],
        rtol=entry["rtol"],
        atol=entry["atol"],
        name=name,
        note=entry["note"],
    )
