"""The networks of the papers in their true sizes, with random weights: size and speed do not depend on the weights.

Bare encoders with their pooler, as in the papers' counts; the document classifier has its head, because its published
count has it. Four papers end with the same network, 6 x 768: it is measured once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForSequenceClassification, MobileBertConfig

from course_lib.methods.bilstm import BiLstm, random_vectors
from course_lib.shared import clock
from course_lib.shared.measures import count_parameters
from course_lib.shared.students import bert_config

REFERENCE = "BERT-base"
WORDS = 30_522  # BERT's vocabulary; the BiLSTM gets as many words, twice 300 numbers each
LENGTH, BATCH_SIZES = 128, (1, 32)


def encoder(config) -> Callable[[], nn.Module]:
    """A function that builds the bare encoder of a configuration with PyTorch's own attention kernel (SDPA)."""
    return lambda: AutoModel.from_config(config, attn_implementation="sdpa")


def document_classifier() -> nn.Module:
    """The practitioner's student: 1 layer, vocabulary 32,768, two classes, with its head."""
    config = bert_config("bert-base", num_hidden_layers=1, vocab_size=32_768, num_labels=2)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")


# MobileBERT is transformers' own class: it computes what `mobilebert_model` computes (a test of chapter 6 shows it),
# and it reads with the same attention kernel as the others. Ours writes the attention out, to be read.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "12 x 768": encoder(bert_config("bert-base")),
    "6 x 768, no pooler": encoder(bert_config("distilbert")),
    "6 x 768": encoder(bert_config("bert-6x768")),
    "3 x 768": encoder(bert_config("bert-3x768")),
    "4 x 312": encoder(bert_config("tinybert-4")),
    "24 x 512, bottleneck 128": encoder(MobileBertConfig()),
    "12 x 384": encoder(bert_config("minilm-12x384")),
    "6 x 384": encoder(bert_config("minilm-6x384")),
    "1 x 768": document_classifier,
    "BiLSTM, 2 x 150": lambda: BiLstm(random_vectors(WORDS), classes=2),
}


@dataclass(frozen=True)
class Model:
    """A published model: its network, and what its paper claims against BERT-base (None: no number we are sure of)."""

    name: str
    network: str
    parameters: str = ""  # as the paper prints it
    smaller: float | None = None
    faster: float | None = None
    source: str = ""


MODELS = (
    Model(REFERENCE, "12 x 768", "110M", source="Sanh et al. 2019, table 3"),
    Model("DistilBERT", "6 x 768, no pooler", "66M", 110 / 66, 668 / 410, "Sanh et al. 2019, table 3: a CPU, batch 1"),
    Model("PKD-6", "6 x 768", "67.0M", faster=1.94, source="Sun et al. 2019"),
    Model("PKD-3", "3 x 768"),
    Model("TinyBERT-4", "4 x 312", "14.5M", 7.5, 9.4, "Jiao et al. 2020, abstract"),
    Model("TinyBERT-6", "6 x 768"),
    Model("MobileBERT", "24 x 512, bottleneck 128", "25.3M", 4.3, 5.5, "Sun et al. 2020, abstract: a phone"),
    Model("MiniLM 6 x 768", "6 x 768", "half, without words", faster=2.0, source="Wang et al. 2020"),
    Model("MiniLM 12 x 384", "12 x 384"),
    Model("MiniLM 6 x 384", "6 x 384"),
    Model("Theseus-6", "6 x 768", "66M", faster=1.94, source="Xu et al. 2020"),
    Model("1-layer document classifier", "1 x 768", "33.2M", 111_208_706 / 33_242_114, 97 / 8,
          "a practitioner's laptop (chapter 9)"),
    Model("Distilled BiLSTM", "BiLSTM, 2 x 150", "0.96M without words", source="Tang et al. 2019"),
)


def measure(seconds: float, quick: bool = False) -> dict:
    """Sizes and times of all networks; `seconds` is what the clock may take for all batch sizes together."""
    length, batch_sizes = (8, (1, 2)) if quick else (LENGTH, BATCH_SIZES)
    return {"length": length, "attention": "SDPA", "precision": "float32",
            "networks": networks(NETWORKS, seconds, length=length, batch_sizes=batch_sizes)}


def networks(builders: Mapping[str, Callable[[], nn.Module]], seconds: float, *, length: int,
             batch_sizes: tuple[int, ...]) -> list[dict]:
    """One row per network; the first network is the reference of all ratios.

    parameters, without_words; weights_mb (float32, 1 MB = a million bytes); gflops of one sentence of `length` tokens
    (a multiplication and its addition count as two); for each batch size b: ms_b (median) and ratio_b (quartiles over
    the rounds of  time / time of the reference), rounds_b.
    """
    where = clock.device()
    built = {name: build().eval() for name, build in builders.items()}
    rows = {name: {"network": name, **sizes(model), "gflops": gflops(model, length)} for name, model in built.items()}
    for model in built.values():
        model.to(where)
    reference, shares = next(iter(built)), {size: 0.8 if size > 1 else 0.2 for size in batch_sizes}
    for size in batch_sizes:
        batch = random_batch(size, length, where)
        with torch.inference_mode():
            times = clock.in_turns({name: partial(_read, model, batch) for name, model in built.items()},
                                   seconds * shares[size], least=4, where=where)
        for name, row in rows.items():
            row |= {f"ms_{size}": clock.milliseconds(times, name), f"ratio_{size}": clock.ratio(times, name, reference),
                    f"rounds_{size}": len(times[name])}
    return list(rows.values())


def _read(model: nn.Module, batch: dict[str, Tensor], _round: int) -> None:
    model(**batch)


def random_batch(size: int, length: int, where: torch.device | None = None) -> dict[str, Tensor]:
    """Sentences of equal length, so nothing is padded: speed does not depend on the words."""
    ids = torch.randint(1000, WORDS, (size, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids.to(where), "attention_mask": torch.ones_like(ids).to(where)}


def sizes(model: nn.Module) -> dict[str, float]:
    """Parameters with and without word embeddings, and what the weights take as float32."""
    total = count_parameters(model)
    words = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding) and len(m.weight) >= 1000)
    return {"parameters": total, "without_words": total - words, "weights_mb": clock.significant(4 * total / 1e6)}


def gflops(model: nn.Module, length: int) -> float:
    """Billions of operations for one sentence, counted by PyTorch's `FlopCounterMode`.

    The counter does not know every fused kernel, so attention and LSTM are run in their written-out form.
    """
    with (warnings.catch_warnings(action="ignore"),  # the switch of oneDNN talks about GPUs that are not there
          torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), torch.no_grad(),
          FlopCounterMode(display=False) as counter):
        model(**random_batch(1, length))
    return clock.significant(counter.get_total_flops() / 1e9)
