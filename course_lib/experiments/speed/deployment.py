"""Our own models as they would be shipped: file, speed and accuracy in six formats, on the processor.

Teacher: the course's sentiment teacher. Student: half of its depth, trained as chapter 4's "labels + answers" with
seed 0; it is trained here once (a minute) and kept in the cache folder.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.experiments import sentences
from course_lib.material.assets import DATA, cache_folder
from course_lib.shared import clock
from course_lib.shared.batches import in_order, pad
from course_lib.shared.files import write_atomically
from course_lib.shared.measures import accuracy
from course_lib.shared.training import Recipe, autocast

NEEDS = ("onnxruntime", "onnx", "onnxscript")
NOT_INSTALLED = "not installed: pip install -c constraints.txt -e '.[deploy]'"
Run = Callable[[Tensor, Tensor], Tensor]  # (token ids, attention mask), each (batch, tokens) -> logits (batch, classes)


@dataclass(frozen=True)
class Shipped:
    """One model in one format: what is called, and the bytes of its file."""

    run: Run
    bytes: int


# --- The formats ------------------------------------------------------------------------------------------------------


def float32(model: PreTrainedModel, folder: Path) -> Shipped:
    """The model as it is, in one safetensors file."""
    file = folder / "float32.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    return Shipped(lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits, file.stat().st_size)


def bfloat16(model: PreTrainedModel, folder: Path) -> Shipped:
    """The same file; matrix products in bfloat16 (autocast), which pays where the processor has it."""
    plain = float32(model, folder)

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        with autocast("bf16"):
            return plain.run(ids, mask).float()
    return Shipped(run, plain.bytes)


def int8_in_pytorch(model: PreTrainedModel, _folder: Path) -> Shipped:
    """Linear layers in int8, activations quantised batch by batch; the word table stays float32.

    PyTorch calls this function deprecated (its successor is a package of its own, torchao); it needs nothing else.
    """
    quantise = torch.ao.quantization.quantize_dynamic
    small = quantise(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    return Shipped(lambda ids, mask: small(input_ids=ids, attention_mask=mask).logits, file.tell())


def exported(model: PreTrainedModel, folder: Path) -> Shipped:
    """`torch.export`: one file with the graph and the weights, loaded and run without the model's Python code."""
    file = folder / "model.pt2"
    torch.export.save(_program(model), file)
    module = torch.export.load(file).module()
    return Shipped(module, file.stat().st_size)


def onnx_float32(model: PreTrainedModel, folder: Path) -> Shipped:
    """ONNX Runtime, float32, as many threads as PyTorch has."""
    return _onnx_session(_onnx_file(model, folder))


def onnx_int8(model: PreTrainedModel, folder: Path) -> Shipped:
    """ONNX Runtime, dynamic quantisation of matrix products and of the word table."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(_onnx_file(model, folder))
    del graph.graph.value_info[:]  # the exporter's shapes are those before it transposed the weights
    small = folder / "int8.onnx"
    quantize_dynamic(graph, small, weight_type=QuantType.QInt8)
    return _onnx_session(small)


FORMATS: dict[str, Callable[[PreTrainedModel, Path], Shipped]] = {
    "PyTorch, float32": float32,
    "PyTorch, bfloat16": bfloat16,
    "PyTorch, int8 (dynamic)": int8_in_pytorch,
    "torch.export, float32": exported,
    "ONNX Runtime, float32": onnx_float32,
    "ONNX Runtime, int8 (dynamic)": onnx_int8,
}
REFERENCE = "PyTorch, float32"


class _LogitsOnly(nn.Module):
    """Two tensors in, one out: what an exported graph should look like."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def _program(model: PreTrainedModel) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=1024)
    tokens = torch.export.Dim("tokens", min=2, max=model.config.max_position_embeddings)
    ids = torch.randint(1, model.config.vocab_size, (3, 11))
    mask = torch.ones_like(ids)
    mask[0, 7:] = 0  # padding in the example, or the graph is made for sentences without any
    return torch.export.export(_LogitsOnly(model), (ids, mask), dynamic_shapes=({0: batch, 1: tokens},) * 2)


def _onnx_file(model: PreTrainedModel, folder: Path) -> Path:
    file = folder / "model.onnx"
    if not file.exists():
        torch.onnx.export(_program(model), f=str(file), dynamo=True, external_data=False, verbose=False)
    return file


def _onnx_session(file: Path) -> Shipped:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        inputs = {name: tensor.numpy() for name, tensor in zip(names, (ids, mask), strict=True)}
        return torch.from_numpy(session.run(None, inputs)[0])
    return Shipped(run, file.stat().st_size)


# --- Measuring --------------------------------------------------------------------------------------------------------


def measure(seconds: float, quick: bool = False) -> dict:
    """Teacher and student in every format; accuracy on the whole test split (quick: on 16 sentences, untrained)."""
    rows = sentences.examples("test")
    rows = rows[:: len(rows) // 16][:16] if quick else rows
    models = {"teacher, 6 x 384": sentences.load_teacher("sentiment").model, "student, 3 x 384": student(quick)}
    return {"sentences": len(rows), "tokens": _middle(rows, 1)["input_ids"].shape[1],
            "formats": formats(models, rows, seconds)}


def student(quick: bool = False) -> PreTrainedModel:
    """Half the teacher's depth, from labels and answers; trained when it is asked for first."""
    model = sentences.half_depth(0)
    if quick:
        return model.eval()
    version = hashlib.sha256((DATA / "teachers/sentiment/adapter.safetensors").read_bytes()
                             + repr(sentences.RECIPE).encode()).hexdigest()[:12]
    file = cache_folder() / "bench" / f"student-{version}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        sentences.fit(model, sentences.answer_terms(sentences.LABELS_AND_ANSWERS), 0,
                      Recipe(**sentences.RECIPE.__dict__))
        write_atomically(file, lambda path: save_file(model.cpu().state_dict(), path))
    model.load_state_dict(load_file(file))
    return model.eval()


def formats(models: Mapping[str, PreTrainedModel], rows: list[dict], seconds: float) -> list[dict]:
    """One row per model and format; the first model as plain PyTorch is the reference of all ratios.

    file_mb; accuracy (percent) on `rows`; largest_difference of a logit to the same model in float32; for 1 and for 32
    sentences of the middle length ms_b and ratio_b as in `shapes.networks`. A format that is not installed has only
    `left_out`, the reason.
    """
    ready, found = {}, []
    with tempfile.TemporaryDirectory() as folder, _quiet(), torch.inference_mode(False):
        for number, (model_name, given) in enumerate(models.items()):
            model = _for_use(given)
            inside = Path(folder) / str(number)
            inside.mkdir()
            for name, ship in FORMATS.items():
                row = {"model": model_name, "format": name}
                found.append(row)
                if name.startswith("ONNX") and not all(importlib.util.find_spec(package) for package in NEEDS):
                    row["left_out"] = NOT_INSTALLED
                elif ship is int8_in_pytorch and not hasattr(torch.ao.quantization, "quantize_dynamic"):
                    row["left_out"] = "no longer in this version of PyTorch; torchao has its successor"
                else:
                    ready[model_name, name] = ship(model, inside)
                    row["file_mb"] = clock.significant(ready[model_name, name].bytes / 1e6)
        _score(ready, found, rows)
        _time(ready, found, rows, seconds)
    return found


def _for_use(model: PreTrainedModel) -> PreTrainedModel:
    """A copy on the processor with PyTorch's own attention kernel: losses want the written-out one, users do not."""
    copied = copy.deepcopy(model).to("cpu").eval().requires_grad_(False)
    copied.set_attn_implementation("sdpa")
    return copied


@torch.no_grad()
def _score(ready: dict[tuple[str, str], Shipped], found: list[dict], rows: list[dict]) -> None:
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    batches, labels = in_order(rows), torch.tensor([row["label"] for row in rows])
    logits = {key: torch.cat([one.run(batch["input_ids"], batch["attention_mask"]) for batch in batches])
              for key, one in ready.items()}
    for row in found:
        key = row["model"], row["format"]
        if key in ready:
            difference = (logits[key] - logits[row["model"], REFERENCE]).abs().max().item()
            row |= {"accuracy": round(100 * accuracy(logits[key], labels), 2),
                    "largest_difference": clock.significant(difference, 2)}


@torch.no_grad()
def _time(ready: dict[tuple[str, str], Shipped], found: list[dict], rows: list[dict], seconds: float) -> None:
    for count, share in ((1, 0.2), (32, 0.8)):
        batch = _middle(rows, count)
        work = {" ".join(key): partial(_run, one, batch["input_ids"], batch["attention_mask"])
                for key, one in ready.items()}
        times = clock.in_turns(work, share * seconds)
        for row in found:
            name = f"{row['model']} {row['format']}"
            if name in times:
                row |= {f"ms_{count}": clock.milliseconds(times, name),
                        f"ratio_{count}": clock.ratio(times, name, next(iter(work))),
                        f"rounds_{count}": len(times[name])}


def _run(shipped: Shipped, ids: Tensor, mask: Tensor, _round: int) -> None:
    shipped.run(ids, mask)


def _middle(rows: list[dict], count: int) -> dict[str, Tensor]:
    """So many sentences of about median length, as one batch."""
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    first = max(0, len(ordered) // 2 - count // 2)
    return pad([{"input_ids": row["input_ids"]} for row in ordered[first : first + count]])


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk much; what they say is for their developers."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
