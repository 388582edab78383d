"""Small models and batches for the numbers of the mutants: a call takes milliseconds."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedModel

from course_lib.shared.masking import IGNORED

SHAPE = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 24,
         "max_position_embeddings": 16, "num_labels": 3, "initializer_range": 0.4}

STUDENT_LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.5, -0.5, 1.0], [1.0, 3.0, 0.0]])
TEACHER_LOGITS = torch.tensor([[3.0, -1.0, 0.0], [-1.0, 0.0, 2.0], [0.5, 2.0, 1.5]])
LABELS = torch.tensor([0, 2, 1])


def bert(kind: type = BertForSequenceClassification, *, seed: int = 0, **changes) -> PreTrainedModel:
    """A tiny BERT with weights large enough that its layers differ, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(BertConfig(**(SHAPE | changes))).eval()


def masked_lm(**changes) -> PreTrainedModel:
    return bert(BertForMaskedLM, **changes)


def batch(padding: int = 2, labels: str = "class") -> dict[str, Tensor]:
    """Two sentences, the second one shorter, with `padding` more empty columns on the right."""
    ids = torch.tensor([[2, 17, 9, 21, 3], [2, 8, 3, 0, 0]])
    found = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    found = {name: torch.nn.functional.pad(tensor, (0, padding)) for name, tensor in found.items()}
    words = torch.full_like(found["input_ids"], IGNORED)
    words[0, 2], words[1, 1] = 11, 5
    return found | {"labels": torch.tensor([0, 2]) if labels == "class" else words}


def gradient_norm(loss: Tensor, of: Tensor) -> float:
    return torch.autograd.grad(loss, of)[0].norm().item()
