"""Text as tensors: tokens, windows, masks, and batches that depend on (seed, step) only."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Int
from torch import Tensor

from course_lib.shared.masking import IGNORED


def encode(rows: Dataset, tokenizer, max_length: int = 128) -> list[dict]:
    """Tokenise `text` (and `text_pair`) into a list of examples: input_ids, token_type_ids, label."""
    pairs = {"text_pair": list(rows["text_pair"])} if "text_pair" in rows.column_names else {}
    tokens = tokenizer(list(rows["text"]), **pairs, truncation=True, max_length=max_length)
    columns = [c for c in ("input_ids", "token_type_ids") if c in tokens]
    examples = [dict(zip(columns, values, strict=True)) for values in zip(*(tokens[c] for c in columns), strict=True)]
    if "label" in rows.column_names:
        for example, label in zip(examples, rows["label"], strict=True):
            example["label"] = label
    return examples


def windows(rows: Dataset, tokenizer, length: int = 128) -> list[dict]:
    """Cut every text into consecutive windows of at most `length` tokens, [CLS] and [SEP] included."""
    room = length - 2
    examples = []
    for ids in tokenizer(list(rows["text"]), add_special_tokens=False, verbose=False)["input_ids"]:
        pieces = [ids[i : i + room] for i in range(0, len(ids), room)]
        examples += [{"input_ids": [tokenizer.cls_token_id, *p, tokenizer.sep_token_id]} for p in pieces if len(p) >= 8]
    return examples


def pad(examples: list[dict], pad_token_id: int = 0) -> dict[str, Tensor]:
    """Right-pad examples to the longest: input_ids, attention_mask, token_type_ids and labels, each a tensor.

    Every other numeric column (`teacher_logits`, for instance) is stacked under its own name.
    """
    length = max(len(e["input_ids"]) for e in examples)
    fill = {"input_ids": pad_token_id, "token_type_ids": 0}
    batch = {name: torch.tensor([e[name] + [value] * (length - len(e[name])) for e in examples])
             for name, value in fill.items() if name in examples[0]}
    batch["attention_mask"] = torch.tensor([[1] * len(e["input_ids"]) + [0] * (length - len(e["input_ids"]))
                                            for e in examples])
    for name in examples[0].keys() - batch.keys():
        batch["labels" if name == "label" else name] = torch.as_tensor(np.array([e[name] for e in examples]))
    return batch


def mask_tokens(input_ids: Int[Tensor, "batch tokens"], maskable: Bool[Tensor, "batch tokens"], *, mask_token_id: int,
                vocabulary: int, probability: float = 0.15, generator: torch.Generator | None = None
                ) -> tuple[Int[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
    """Hide tokens as BERT does: of the 15 % chosen, 80 % become [MASK], 10 % a random token, 10 % stay.

    maskable is False for padding and special tokens: they are never chosen. Returns new tensors (ids, labels);
    labels are -100 wherever nothing was chosen. Source: Devlin et al. 2019, section 3.1 and appendix A.1.
    """
    draw = torch.rand(input_ids.shape, generator=generator)
    how = torch.rand(input_ids.shape, generator=generator)
    random_ids = torch.randint(vocabulary, input_ids.shape, generator=generator)
    chosen = (draw < probability) & maskable
    labels = input_ids.masked_fill(~chosen, IGNORED)
    masked = input_ids.masked_fill(chosen & (how < 0.8), mask_token_id)
    masked = torch.where(chosen & (how >= 0.9), random_ids, masked)
    return masked, labels


class MaskedBatch:
    """Collate examples into a masked-LM batch; the masks are drawn anew each time ("dynamic masking")."""

    def __init__(self, tokenizer, probability: float = 0.15, generator: torch.Generator | None = None):
        self.tokenizer, self.probability, self.generator = tokenizer, probability, generator
        self.special = torch.tensor(tokenizer.all_special_ids)

    def __call__(self, examples: list[dict]) -> dict[str, Tensor]:
        batch = pad(examples, self.tokenizer.pad_token_id)
        maskable = ~torch.isin(batch["input_ids"], self.special)
        batch["input_ids"], batch["labels"] = mask_tokens(
            batch["input_ids"], maskable, mask_token_id=self.tokenizer.mask_token_id,
            vocabulary=len(self.tokenizer), probability=self.probability, generator=self.generator)
        return batch


class Batches:
    """An endless sequence of shuffled batches: `batches[step]` depends on (examples, seed, step) and nothing else.

    That is what makes a run that was killed and resumed equal to one that was not. Sentences of similar length are
    put together (`bucket` batches at a time are sorted by length), which saves most of the padding.
    """

    def __init__(self, examples: list[dict], batch_size: int, *, seed: int = 0, bucket: int = 20,
                 collate: Callable[[list[dict]], dict[str, Tensor]] = pad):
        if not examples:
            raise ValueError("Batches: there are no examples. Was the data set filtered down to nothing?")
        self.examples, self.batch_size, self.seed, self.bucket, self.collate = (
            examples, min(batch_size, len(examples)), seed, bucket, collate)
        self.lengths = np.array([len(e["input_ids"]) for e in examples])
        self._epoch: tuple[int, list[np.ndarray]] | None = None

    def __len__(self) -> int:
        """Batches in one epoch; the last, smaller one counts."""
        return math.ceil(len(self.examples) / self.batch_size)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        epoch, within = divmod(step, len(self))
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return self.collate([self.examples[i] for i in self._epoch[1][within]])

    def _order(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.examples))
        pool = self.bucket * self.batch_size
        pools = [order[i : i + pool] for i in range(0, len(order), pool)]
        order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in pools])
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]


def in_order(examples: list[dict], batch_size: int = 64, collate: Callable = pad) -> list[dict[str, Tensor]]:
    """Every example once, in its own order: for evaluation and for caching a teacher's outputs."""
    return [collate(examples[i : i + batch_size]) for i in range(0, len(examples), batch_size)]
