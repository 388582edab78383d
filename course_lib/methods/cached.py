"""Cached soft labels: ask the teacher once, store its distribution with the data set, train without the teacher.

This is no paper but what practitioners do. A teacher of 12 layers is run once over every document; its class
distribution is stored; a student of one layer, with the teacher's embeddings, learns from hard label + stored soft
label (`document_student`: 111,208,706 -> 33,242,114 parameters). Four questions decide whether that is right:

1. WHAT is stored? For few classes the log-probabilities at T = 1. They are logits up to a constant, so every later
   temperature can still be made from them. For a vocabulary of 30,522 only the k largest, and the mass of the rest as
   one more class. Then the temperature must be applied BEFORE the cut: the rest of softmax(z / T) cannot be computed
   from the rest of softmax(z). So a top-k cache has a temperature of its own, and refuses any other.
2. WHOSE row is it? Logits zipped with shuffled examples are the classical silent bug. Every row carries a key, the
   hash of its example; `attach` refuses a data set that is shuffled, shortened or doubled against its cache.
3. IS the input still the same? Masked-LM positions only mean something for the masks that the teacher saw:
   `fixed_masks` draws them once. Dynamic masking and a cache exclude each other.
4. WILL the student start? Most of it is fresh. The usual fine-tuning rate of 1e-5 hardly moves its loss, and early
   stopping ends the run at once; `CachedRecipe` starts at 5e-4.

With the `Trainer` of transformers the extra columns get lost twice. By default it drops every column that `forward`
does not name. With `remove_unused_columns=False` they reach `forward`: older versions fail there, transformers 5
swallows them, and the run learns from the hard labels alone, without a word. Take them out in `compute_loss`, or use
the course's own loop:

    class SoftLabelTrainer(Trainer):                  # TrainingArguments(remove_unused_columns=False)
        def compute_loss(self, model, inputs, **more):
            return sum(terms(model, None, inputs, recipe).values())

## Deviations of the original code

The practitioner's notebook is not published. The table compares it, as it was described, with this file.

| what | paper | code | here |
|---|---|---|---|
| student | - | 1 layer, embeddings copied, encoder, pooler and classifier from scratch | `document_student` |
| stored | - | probabilities of two classes, as columns of the data set | log-probabilities, or top-k and rest, with a key per row |
| start | - | fine-tuning rate of 1e-5 to 1e-6, early stopping: ended at once | 5e-4 |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from course_lib.methods.hinton import hard_loss, log_soft_targets, soft_target_loss
from course_lib.shared.batches import pad
from course_lib.shared.files import write_atomically
from course_lib.shared.masking import IGNORED, at_least_float32, keep
from course_lib.shared.method import Compared, Job, Measured, Method, Stage, Training, only_logits, step_of
from course_lib.shared.probes import logits_of
from course_lib.shared.students import require_eval

# --- Losses on stored distributions ----------------------------------------------------------------------------------


def stored_probs_loss(student_logits: Float[Tensor, "*where classes"], teacher_probs: Float[Tensor, "*where classes"],
                      mask: Shaped[Tensor, "*where"] | None = None, *, temperature: float = 1.0,
                      scale_by_t_squared: bool = True) -> Float[Tensor, ""]:
    """T^2 KL(teacher || student) where only the teacher's probabilities (at T = 1) were kept, not its logits.

    log p is a logit vector up to a constant, so softmax(log p / T) is exactly softmax(z_T / T).
    Raises: ValueError if the rows are no distributions, or for different shapes.
    """
    return soft_target_loss(student_logits, log_probs_of(teacher_probs), mask, temperature=temperature,
                            scale_by_t_squared=scale_by_t_squared)


def log_probs_of(probs: Float[Tensor, "*where classes"]) -> Float[Tensor, "*where classes"]:
    """Logarithm of stored probabilities; a probability that was rounded to 0 counts as the smallest number there is.

    Raises: ValueError if a row is negative or does not sum to 1 (percentages, or logits, given by mistake).
    """
    probs = at_least_float32(probs)
    if (probs < 0).any() or ((probs.sum(dim=-1) - 1).abs() > 1e-2).any():
        raise ValueError("The stored rows are no probabilities: each must be >= 0 and sum to 1. "
                         "If they are logits, use hinton.soft_target_loss.")
    return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


class TopK(NamedTuple):
    """What is kept of a distribution over a large vocabulary: the k largest, and the rest as one class."""

    ids: Int[Tensor, "*where k"]
    log_probs: Float[Tensor, "*where k"]
    rest_log_prob: Float[Tensor, "*where"]  # -inf if nothing is left
    classes: int
    temperature: float


def top_k(teacher_logits: Float[Tensor, "*where classes"], k: int, temperature: float = 1.0) -> TopK:
    """Soften at T, then cut. Raises: ValueError if k is not between 1 and the number of classes."""
    classes = teacher_logits.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"top_k={k} must lie between 1 and the {classes} classes of the teacher.")
    log_probs = log_soft_targets(teacher_logits, temperature)
    largest, ids = log_probs.topk(k, dim=-1)
    return TopK(ids, largest, _log_mass_outside(log_probs, ids), classes, temperature)


def _log_mass_outside(log_probs: Float[Tensor, "*where classes"], ids: Int[Tensor, "*where k"]
                      ) -> Float[Tensor, "*where"]:
    # Summed up, not 1 - sum(top): that difference has no correct digit when the rest is small.
    return log_probs.scatter(-1, ids, float("-inf")).logsumexp(dim=-1)


def top_k_loss(student_logits: Float[Tensor, "*where classes"], teacher: TopK,
               mask: Shaped[Tensor, "*where"] | None = None, *, scale_by_t_squared: bool = True) -> Float[Tensor, ""]:
    """T^2 KL on k + 1 classes: the teacher's k largest, and one class "something else" on both sides.

        sum_{i in top} p_i (log p_i - log q_i)  +  r_p (log r_p - log r_q)        r = 1 - sum over the top

    Exact for k = classes; otherwise a lower bound of the full KL, because merging classes can only hide differences.
    Dropping the rest instead (or normalising the k numbers to 1) tells the student that all other tokens are
    impossible. T is the one that the cache was made with.
    Raises: ValueError if the student has other classes than the teacher had, or the rows do not fit.
    """
    if student_logits.shape[-1] != teacher.classes or student_logits.shape[:-1] != teacher.ids.shape[:-1]:
        raise ValueError(f"top-k labels: student {tuple(student_logits.shape)} and teacher {tuple(teacher.ids.shape)} "
                         f"out of {teacher.classes} classes differ; the same rows and the same vocabulary are needed.")
    ids, log_p = keep(teacher.ids, mask), at_least_float32(keep(teacher.log_probs, mask))  # (rows, k)
    log_r = None
    if ids.shape[-1] < teacher.classes:
        log_r = at_least_float32(keep(teacher.rest_log_prob[..., None], mask))[:, 0]
    loss = top_k_equation(keep(student_logits, mask), ids, log_p, log_r, teacher.temperature)
    return loss if scale_by_t_squared else loss / teacher.temperature**2


def top_k_equation(z_S, ids, log_p, log_r, T):
    """L = T^2 mean_n ( sum_top p_i (log p_i - log q_i) + r_p (log r_p - log r_q) )"""
    log_q = log_soft_targets(z_S, T)  # log q_i = log softmax(z_S / T)
    kl = log_p.exp() * (log_p - log_q.gather(-1, ids))  # p_i (log p_i -
    kl = kl.sum(dim=-1)  # sum_top
    if log_r is not None:
        kl = kl + _rest_kl(log_r, log_q, ids)  # r_p (log r_p - log r_q)
    return T**2 * kl.mean()  # T^2 mean_n


def _rest_kl(log_r: Float[Tensor, " rows"], log_q: Float[Tensor, "rows classes"], ids: Int[Tensor, "rows k"]
             ) -> Float[Tensor, " rows"]:
    return log_r.exp() * (log_r - _log_mass_outside(log_q, ids))


def bytes_per_row(classes: int, k: int | None = None) -> int:
    """Size of one stored distribution: 122,088 bytes for BERT's whole vocabulary, 772 for its top 64."""
    return 4 * classes if k is None else (8 + 4) * k + 4


# --- Making a cache --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SoftLabels:
    """The teacher's distributions for a list of examples.

    keys: (examples, 16) bytes, the hash of each example. rows: how many rows each example has: 1 for a class,
    the number of labelled positions for a masked LM. tensors: `log_probs`, or `top_ids`, `top_log_probs` and
    `rest_log_prob`; their first dimension is the sum of `rows`.
    """

    keys: UInt8[Tensor, "examples 16"]
    rows: Int[Tensor, " examples"]
    tensors: dict[str, Tensor]
    classes: int
    temperature: float

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, completely or not at all."""
        notes = {"format": FORMAT, "classes": str(self.classes), "temperature": repr(self.temperature)}
        tensors = {"keys": self.keys, "rows": self.rows} | {f"teacher_{n}": t for n, t in self.tensors.items()}
        write_atomically(Path(path), lambda file: save_file(
            {n: t.detach().cpu().contiguous() for n, t in tensors.items()}, file, notes))


FORMAT = "soft labels 1"


def load_soft_labels(path: str | Path) -> SoftLabels:
    """Read what `SoftLabels.save` wrote. Raises: ValueError for another, or a damaged, file."""
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}). Delete it and ask the teacher again."
                         ) from error
    if notes.get("format") != FORMAT:
        raise ValueError(f"{path} holds no soft labels (format {notes.get('format')!r}, expected {FORMAT!r}).")
    keys, rows = tensors.pop("keys"), tensors.pop("rows")
    tensors = {name.removeprefix("teacher_"): tensor for name, tensor in tensors.items()}
    return SoftLabels(keys, rows, tensors, int(notes["classes"]), float(notes["temperature"]))


@torch.no_grad()
def ask_teacher(teacher: nn.Module, examples: Sequence[dict], *, k: int | None = None, temperature: float = 1.0,
                batch_size: int = 64, identify_by: Sequence[dict] | None = None) -> SoftLabels:
    """Run the teacher once over all examples, in their order, and keep its distributions.

    examples: from `batches.encode` (one row each), or from `fixed_masks` (one row per position with a label).
    k: None keeps everything at T = 1 (any T can be used later); a number keeps the k largest and the rest, at
        `temperature`.
    identify_by: rows whose hash becomes the key, for example the `datasets.Dataset` with the texts; default: examples.
    Raises: ValueError for a teacher in train mode, or a temperature without k.
    """
    require_eval(teacher)
    if k is None and temperature != 1.0:
        raise ValueError("Full distributions are stored at T = 1; choose the temperature in the loss, or give k.")
    device, found, rows = next(teacher.parameters()).device, [], []
    for start in range(0, len(examples), batch_size):
        batch = {n: t.to(device) for n, t in collate(examples[start : start + batch_size]).items()}
        logits = logits_of(teacher, batch)
        chosen = batch["labels"] != IGNORED if logits.ndim == 3 else None
        rows.append(torch.ones(len(logits), dtype=torch.long) if chosen is None else chosen.sum(dim=1).cpu())
        found.append(_kept(keep(logits, chosen), k, temperature))
    tensors = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    return SoftLabels(keys_of(identify_by or examples), torch.cat(rows), tensors, logits.shape[-1], temperature)


def _kept(logits: Float[Tensor, "rows classes"], k: int | None, temperature: float) -> dict[str, Tensor]:
    if k is None:
        return {"log_probs": log_soft_targets(logits, 1.0).cpu()}
    top = top_k(logits, k, temperature)
    return {"top_ids": top.ids.cpu(), "top_log_probs": top.log_probs.cpu(), "rest_log_prob": top.rest_log_prob.cpu()}


def keys_of(rows: Sequence[dict]) -> UInt8[Tensor, "examples 16"]:
    """A hash per row: of its text(s) where there are any, otherwise of its token ids (and token labels)."""
    digests = []
    for row in rows:
        names = ("text", "text_pair") if "text" in row else ("input_ids", "token_type_ids", "labels")
        content = json.dumps([row[n] for n in names if n in row])
        digests.append(list(hashlib.sha256(content.encode()).digest()[:16]))
    return torch.tensor(digests, dtype=torch.uint8)


def fixed_masks(examples: Sequence[dict], mask: Callable[[list[dict]], dict[str, Tensor]]) -> list[dict]:
    """Draw the masks of a masked-LM data set once (`mask` is a `batches.MaskedBatch`); examples without a masked token
    are left out, there is nothing to learn from them."""
    masked = [mask([example]) for example in examples]
    return [{"input_ids": m["input_ids"][0].tolist(), "labels": m["labels"][0].tolist()}
            for m in masked if (m["labels"] != IGNORED).any()]


# --- Using a cache ---------------------------------------------------------------------------------------------------


def attach(examples: Sequence[dict], soft: SoftLabels, *, by_key: bool = False,
           identify_by: Sequence[dict] | None = None) -> list[dict]:
    """New examples with the teacher's rows as columns `teacher_...`; the given ones are not changed.

    Shuffle AFTERWARDS: a column travels with its example.
    by_key: find each row by its key instead of demanding the same order.
    identify_by: as in `ask_teacher`.
    Raises: ValueError that says how data set and cache differ (length, order, content).
    """
    keys = keys_of(identify_by or examples)
    where = _by_key(keys, soft) if by_key else _in_order(keys, soft)
    starts = soft.rows.cumsum(0) - soft.rows
    attached = []
    for example, i in zip(examples, where, strict=True):
        part = slice(int(starts[i]), int(starts[i] + soft.rows[i]))
        # One row without its dimension for a class; (positions, k) for tokens.
        columns = {f"teacher_{n}": t[part].numpy() if "labels" in example else t[part][0].numpy()
                   for n, t in soft.tensors.items()}
        attached.append(example | columns | {"teacher_temperature": soft.temperature, "teacher_classes": soft.classes})
    return attached


def as_columns(rows, soft: SoftLabels):
    """The same for a `datasets.Dataset`: a new one with `teacher_...` columns, stored, shuffled and split with it.

    The cache must have been made with `identify_by=rows`. `with_teacher_columns` brings the columns to the examples.
    """
    attached = attach([{} for _ in range(len(rows))], soft, identify_by=rows)
    for name in attached[0]:
        rows = rows.add_column(name, [example[name] for example in attached])
    return rows


def with_teacher_columns(examples: Sequence[dict], rows) -> list[dict]:
    """Copy the `teacher_...` columns of a Dataset to the examples that `batches.encode` made of it."""
    names = [name for name in rows.column_names if name.startswith("teacher_")]
    return [example | {name: row[name] for name in names} for example, row in zip(examples, rows, strict=True)]


def _in_order(keys: Tensor, soft: SoftLabels) -> range:
    if len(keys) != len(soft.keys):
        raise ValueError(f"The cache has {len(soft.keys)} examples, the data set {len(keys)}: it was cut, filtered or "
                         "doubled. Ask the teacher again, or use by_key=True if the texts are the same.")
    wrong = (keys != soft.keys).any(dim=1)
    if wrong.any():
        same = sorted(keys.tolist()) == sorted(soft.keys.tolist())
        reason = ("the same examples in another order: attach before shuffling, or use by_key=True" if same else
                  "other examples, another tokenizer, or new masks: ask the teacher again")
        raise ValueError(f"Cache and data set differ in {int(wrong.sum())} of {len(keys)} rows, first in row "
                         f"{int(wrong.int().argmax())}: {reason}.")
    return range(len(keys))


def _by_key(keys: Tensor, soft: SoftLabels) -> list[int]:
    place = {bytes(key): i for i, key in reversed(list(enumerate(soft.keys.tolist())))}
    missing = [i for i, key in enumerate(keys.tolist()) if bytes(key) not in place]
    if missing:
        raise ValueError(f"{len(missing)} of {len(keys)} examples are not in the cache, first row {missing[0]}. "
                         "Ask the teacher again.")
    return [place[bytes(key)] for key in keys.tolist()]


def collate(examples: Sequence[dict], pad_token_id: int = 0) -> dict[str, Tensor]:
    """`batches.pad`, and for tokens also the labels (filled with -100); the teacher's rows are put one below the other,
    in the order of `logits[labels != -100]`."""
    if "labels" not in examples[0]:
        return pad(list(examples), pad_token_id)
    ragged = [n for n in examples[0] if n in ("teacher_log_probs", "teacher_top_ids", "teacher_top_log_probs",
                                              "teacher_rest_log_prob")]
    batch = pad([{n: v for n, v in e.items() if n not in (*ragged, "labels")} for e in examples], pad_token_id)
    length = batch["input_ids"].shape[1]
    labels = [list(e["labels"]) + [IGNORED] * (length - len(e["labels"])) for e in examples]
    return batch | {"labels": torch.tensor(labels)} | {
        name: torch.cat([torch.as_tensor(e[name]) for e in examples]) for name in ragged}


@dataclass(frozen=True)
class CachedRecipe:
    """Equal weights; T = 1, as the report names no temperature. The rate is ours: most weights are fresh."""

    hard_weight: float = 0.5
    soft_weight: float = 0.5
    temperature: float = 1.0
    learning_rate: float = 5e-4


def terms(student: nn.Module, teacher: None, batch: dict[str, Tensor], recipe: CachedRecipe | None = None
          ) -> dict[str, Tensor]:
    """The weighted terms {"soft": ..., "hard": ...}; the teacher is in the batch, as `teacher_...` columns.

    Raises: ValueError if the columns are missing, or a top-k cache was made at another temperature.
    """
    recipe = recipe or CachedRecipe()
    logits, labels = logits_of(student, batch), batch["labels"]
    if logits.ndim == 3:
        logits, labels = logits[labels != IGNORED], labels[labels != IGNORED]  # (B, T, V) -> (rows, V)
    out = {}
    if recipe.soft_weight:
        out["soft"] = recipe.soft_weight * _soft(logits, batch, recipe.temperature)
    if recipe.hard_weight:
        out["hard"] = recipe.hard_weight * hard_loss(logits, labels)
    return out


def _soft(logits: Float[Tensor, "rows classes"], batch: dict[str, Tensor], temperature: float) -> Float[Tensor, ""]:
    if "teacher_log_probs" in batch:
        return soft_target_loss(logits, batch["teacher_log_probs"], temperature=temperature)
    if "teacher_top_ids" not in batch:
        raise ValueError("The batch has no stored soft labels (teacher_log_probs or teacher_top_ids). Use attach(); "
                         "with the Trainer set remove_unused_columns=False.")
    stored = float(batch["teacher_temperature"][0])
    if stored != temperature:
        raise ValueError(f"The top-k cache was made at T={stored}, the recipe wants T={temperature}. Change one of "
                         "them; a cut distribution cannot be brought to another temperature.")
    return top_k_loss(logits, TopK(batch["teacher_top_ids"], batch["teacher_top_log_probs"],
                                   batch["teacher_rest_log_prob"], int(batch["teacher_classes"][0]), stored))


# --- The practitioner's student --------------------------------------------------------------------------------------


def document_student(teacher: nn.Module, layers: int = 1) -> nn.Module:
    """The teacher's class and embeddings (true copies), with `layers` fresh encoder layers, pooler and classifier.

    12 layers, vocabulary 32,768, two classes: 111,208,706 -> 33,242,114 parameters, of which 77 % are the copied
    embeddings. Size falls by 3.3, time by about 12: the embedding table costs memory, the layers cost time.
    """
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = layers
    student = type(teacher)(config).to(teacher.device)
    student.base_model.embeddings.load_state_dict(teacher.base_model.embeddings.state_dict())
    return student


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = job.recipe if job.labels else replace(job.recipe, hard_weight=0.0)
    # The rate is the recipe's: most of the student is fresh.
    return [Stage("distillation", lambda student, batch: terms(student, None, batch, recipe),
                  job.numbers(Training(recipe.learning_rate, epochs=3), Training(recipe.learning_rate, epochs=3)))]


RECORD = Method(
    "cached", "Stored soft labels", "stored soft labels", stages,
    {"laptop": CachedRecipe(), "paper": CachedRecipe()}, "ch09", student="cached", teacher="stored",
    cache=("teacher_log_probs",), same_tokens=False, steps={"Cached answers": step_of(terms, only_logits)},
    compared={"1 layer, cached answers": Compared("1 x 384, labels", "stored answers")},
    measured=Measured("ch09", "labels + answers, all weights", "topics", "Wikipedia topics"))
