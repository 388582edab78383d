"""A tiny teacher that has something to teach: the command refuses one that is no better than the commonest class."""

from collections.abc import Sequence

import torch
from transformers import BertForSequenceClassification


@torch.no_grad()
def able(model: BertForSequenceClassification, tokenizer, texts: Sequence[str], labels: Sequence[int]):
    """Give a random encoder the head that fits these labels (0, 1) best: least squares on what its pooler shows."""
    seen = model.eval().bert(**tokenizer(list(texts), padding=True, return_tensors="pt")).pooler_output
    wanted = 2.0 * torch.nn.functional.one_hot(torch.tensor(labels), 2) - 1
    head = torch.linalg.lstsq(torch.cat([seen, torch.ones(len(seen), 1)], dim=1), wanted).solution  # (hidden + 1, 2)
    model.classifier.weight.copy_(head[:-1].T)
    model.classifier.bias.copy_(head[-1])
    return model
