"""Distilled BiLSTM: Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks" (2019,
arXiv 1903.12136).

A student of another family: one bidirectional LSTM learns the raw logits of a fine-tuned BERT. No temperature, no
shared layers, no shared tokenizer needed.

    L = alpha * CE(y, z_S) + (1 - alpha) * ||z_T - z_S||^2

The text that the teacher labels for it is made in `bilstm_augmentation.py`.

## Deviations of the original code

Original code: castorini/d-bert, folder `dbert/distill`.

| what | paper | code | here |
|---|---|---|---|
| distance of the logits | squared L2: summed over the classes (eq. 4) | `nn.MSELoss()`: mean over the classes too, so 1/classes of it | `as_in="paper"` or `"code"` |
| weights | alpha and 1 - alpha | two free weights, `ce_lambda` and `distill_lambda` | `alpha`; `logit_weight` where it is not 1 - alpha |
| order of the pair features | h1, h2, h1 * h2, abs(h1 - h2) (eq. 3) | h1, h2, abs(h1 - h2), h1 * h2: harmless before a linear layer, but weights cannot be exchanged | `as_in="paper"` or `"code"` |
| dropout | not mentioned | before the last linear layer of the single-sentence model; defined but never used in the pair model | `dropout=`, default 0 |
| gradient clipping | not mentioned | only the two-dimensional weights outside the embeddings are clipped | the training loop clips everything |
| published size | 0.96M | prints a count without the embeddings; its first entries must be two embedding matrices | `parameters_without_embeddings` |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from transformers.modeling_outputs import SequenceClassifierOutput

from course_lib.methods.hinton import hard_loss
from course_lib.shared.masking import IGNORED, at_least_float32, batchmean, require_same_shape
from course_lib.shared.method import Aim, Compared, Job, Measured, Method, Stage, Training, only_logits, step_of
from course_lib.shared.probes import logits_of, teacher_logits_of
from course_lib.shared.words import AsIn, require_word

Channels = Literal["static", "tuned", "both"]

# --- The loss --------------------------------------------------------------------------------------------------------


def logit_distance(student_logits: Float[Tensor, "batch classes"], teacher_logits: Float[Tensor, "batch classes"], *,
                   as_in: AsIn = "paper") -> Float[Tensor, ""]:
    """Squared distance of the raw logits: ||z_T - z_S||^2, mean over the examples.

    as_in: "paper" sums over the classes, "code" takes their mean as well.
    Raises: ValueError for different shapes.
    Source: eq. 4; `distill_birnn.py` (`kd_criterion = nn.MSELoss()`).
    """
    require_same_shape(student_logits, teacher_logits, "distilled BiLSTM", "Give the student as many classes.")
    mean = batchmean if require_word(as_in, AsIn, "as_in") == "paper" else torch.mean
    return logit_equation(at_least_float32(student_logits), at_least_float32(teacher_logits), mean)


def logit_equation(z_S, z_T, mean=batchmean):
    """L = mean_n || z_T - z_S ||^2"""
    difference = z_T - z_S  # z_T - z_S
    return mean(difference**2)  # mean_n || z_T - z_S ||^2


def hard_targets(labels: Int[Tensor, " batch"] | None, teacher_logits: Float[Tensor, "batch classes"]
                 ) -> Int[Tensor, " batch"]:
    """The true label where there is one; the teacher's favourite class for augmented text (label -100 or None).

    Source: section 3.1, the two cases of the one-hot label below eq. 5.
    """
    favourite = teacher_logits.argmax(dim=-1)
    return favourite if labels is None else torch.where(labels == IGNORED, favourite, labels)


def logit_terms(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"] | None = None,
    *,
    alpha: float = 0.0,
    logit_weight: float | None = None,
    as_in: AsIn = "paper",
) -> dict[str, Float[Tensor, ""]]:
    """alpha * CE(hard targets, z_S) + (1 - alpha) * logit distance, as weighted terms {"logits", "hard"}.

    labels: class numbers; -100 or None = use the teacher's argmax. alpha: 0 was best in the paper.
    logit_weight: None = 1 - alpha. The original code has two free weights; with it, alpha may be any number >= 0.
    A term of weight 0 is left out. Raises: ValueError for weights that are none, and for different shapes.
    Source: eq. 5.
    """
    require_same_shape(student_logits, teacher_logits, "distilled BiLSTM", "Give the student as many classes.")
    weight = _logit_weight(alpha, logit_weight)
    terms = {}
    if weight:
        terms["logits"] = weight * logit_distance(student_logits, teacher_logits, as_in=as_in)
    if alpha:
        terms["hard"] = alpha * hard_loss(student_logits, hard_targets(labels, teacher_logits))
    return terms


def _logit_weight(alpha: float, logit_weight: float | None) -> float:
    if logit_weight is None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} must lie between 0 (only the teacher's logits) and 1 (only hard labels), or "
                         "give logit_weight too: two free weights, as in the original code.")
    weight = 1 - alpha if logit_weight is None else logit_weight
    if min(alpha, weight) < 0 or alpha == weight == 0:
        raise ValueError(f"alpha={alpha}, logit_weight={weight}: none may be negative, one must count.")
    return weight


@dataclass(frozen=True)
class BilstmRecipe:
    """The paper's set-up for training the student. Augmentation has its own numbers in `bilstm_augmentation.py`."""

    alpha: float = 0.0
    logit_weight: float | None = None  # None: 1 - alpha
    as_in: AsIn = "paper"
    hidden: int = 150  # the paper searched {150, 300}
    fc: int = 200  # and {200, 400}
    optimiser: str = "Adadelta"
    learning_rate: float = 1.0
    rho: float = 0.95
    batch_size: int = 50
    epochs: int = 30


def terms(student: nn.Module, teacher: nn.Module | None, batch: dict[str, Tensor], recipe: BilstmRecipe | None = None
          ) -> dict[str, Tensor]:
    """The weighted terms {"logits": ..., "hard": ...} of one batch; a term of weight 0 is left out.

    batch: input_ids and attention_mask (token_type_ids for pairs), optionally labels and teacher_logits. A student
    with its own vocabulary reads other ids than the teacher: then `teacher_logits` must be in the batch, attached to
    each example BEFORE shuffling. Logits zipped with a shuffled loader are a known bug of public copies.
    """
    recipe = recipe or BilstmRecipe()
    return logit_terms(logits_of(student, batch), teacher_logits_of(teacher, batch), batch.get("labels"),
                       alpha=recipe.alpha, logit_weight=recipe.logit_weight, as_in=recipe.as_in)


# --- The student -----------------------------------------------------------------------------------------------------


class BiLstm(nn.Module):
    """One BiLSTM layer over word vectors; its two last states go through linear + ReLU -> linear.

        h = [last state of the forward LSTM; last state of the backward LSTM]        (2 * hidden)
        z = W2 ReLU(W1 h)                                   one sentence
        z = W2 ReLU(W1 [h1, h2, h1 * h2, |h1 - h2|])        pair: the same BiLSTM reads both ("siamese")

    vectors: (vocabulary, width), GloVe for example, or `random_vectors(...)`.
    channels: "static" keeps them frozen, "tuned" trains them, "both" puts a tuned and a frozen copy side by side.
    pair: the input is one row of ids with token_type_ids 0 for the first sentence and 1 for the second.
    Called like a Hugging Face classifier and answers like one, so every loop and measure of the course takes it.
    Source: section 3.2, figures 1 and 2; `bi_rnn.py`, `siamese_rnn.py`.
    """

    def __init__(self, vectors: Float[Tensor, "vocabulary width"], classes: int, *, hidden: int = 150, fc: int = 200,
                 channels: Channels = "both", pair: bool = False, dropout: float = 0.0, pad_token_id: int = 0,
                 as_in: AsIn = "paper"):
        super().__init__()
        require_word(channels, Channels, "channels")
        # Clones: two channels must not share memory with each other or with the caller's matrix.
        self.tuned = None if channels == "static" else nn.Embedding.from_pretrained(vectors.clone(), freeze=False)
        self.static = None if channels == "tuned" else nn.Embedding.from_pretrained(vectors.clone(), freeze=True)
        width = vectors.shape[1] * (2 if channels == "both" else 1)
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.fc1 = nn.Linear((8 if pair else 2) * hidden, fc)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(fc, classes)
        self.pair, self.pad_token_id, self.as_in = pair, pad_token_id, require_word(as_in, AsIn, "as_in")

    def forward(self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"] | None = None,
                token_type_ids: Int[Tensor, "batch tokens"] | None = None) -> SequenceClassifierOutput:
        real = input_ids != self.pad_token_id if attention_mask is None else attention_mask.bool()
        if not self.pair:
            features = self.read(input_ids, real)  # (B, 2h)
        elif token_type_ids is None:
            raise ValueError("A pair student needs token_type_ids: 0 marks the first sentence, 1 the second.")
        else:
            first, second = (self.read(input_ids, real & (token_type_ids == i)) for i in (0, 1))
            features = pair_features(first, second, as_in=self.as_in)  # (B, 8h)
        return SequenceClassifierOutput(logits=self.fc2(self.dropout(self.fc1(features).relu())))

    def read(self, input_ids: Int[Tensor, "batch tokens"], real: Bool[Tensor, "batch tokens"]
             ) -> Float[Tensor, "batch 2*hidden"]:
        """Last forward and last backward state of the marked tokens; padding, wherever it stands, is never read."""
        ids, lengths = left_aligned(input_ids, real)
        vectors = torch.cat([table(ids) for table in (self.tuned, self.static) if table is not None], dim=-1)
        # Packed: otherwise the forward LSTM ends on padding, and the backward LSTM starts there.
        packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)  # (2, B, h): forward, backward
        return last.transpose(0, 1).flatten(start_dim=1)  # (2, B, h) -> (B, 2h)

    @property
    def parameters_without_embeddings(self) -> int:
        """The size that the paper reports: 963,002 for two channels of 300, hidden 150, FC 200, two classes."""
        parts = (self.lstm, self.fc1, self.fc2)
        return sum(p.numel() for part in parts for p in part.parameters())


def left_aligned(input_ids: Int[Tensor, "batch tokens"], real: Bool[Tensor, "batch tokens"]
                 ) -> tuple[Int[Tensor, "batch longest"], Int[Tensor, " batch"]]:
    """Push the marked tokens of every row to the left, in their order; return them and their number.

    [[5, 6, 0, 0], [0, 7, 8, 9]] -> [[5, 6, ...], [7, 8, 9]], [2, 3]. A second sentence of a pair becomes a row so.
    Raises: ValueError if the shapes differ or a row has no marked token.
    """
    if input_ids.shape != real.shape:
        raise ValueError(f"input_ids {tuple(input_ids.shape)} and mask {tuple(real.shape)} differ.")
    lengths = real.sum(dim=1)
    if (lengths == 0).any():
        raise ValueError(f"Row(s) {(lengths == 0).nonzero().flatten().tolist()} of the batch have no token to read: "
                         "an empty sentence, or a pair without its second half.")
    order = (~real).long().argsort(dim=1, stable=True)  # marked tokens first, otherwise as they stood
    return input_ids.gather(1, order)[:, : lengths.max()], lengths


def pair_features(first: Float[Tensor, "batch width"], second: Float[Tensor, "batch width"], *, as_in: AsIn = "paper"
                  ) -> Float[Tensor, "batch 4*width"]:
    """Compare two sentence vectors: [h1, h2, h1 * h2, |h1 - h2|]; "code" swaps the last two blocks.

    Raises: ValueError for different shapes.
    Source: eq. 3; `siamese_rnn.py` line 78.
    """
    if first.shape != second.shape:
        raise ValueError(f"pair features: first {tuple(first.shape)} and second {tuple(second.shape)} differ; "
                         "both sentences must come from the same BiLSTM.")
    product, distance = first * second, (first - second).abs()
    last = [product, distance] if require_word(as_in, AsIn, "as_in") == "paper" else [distance, product]
    return torch.cat([first, second, *last], dim=-1)


# --- Words: the student does not need the teacher's tokenizer --------------------------------------------------------


def random_vectors(vocabulary: int, width: int = 300, *, seed: int = 0) -> Float[Tensor, "vocabulary width"]:
    """Vectors for a student without GloVe, uniform in [-0.25, 0.25] (`init_embedding`, mode "rand")."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(vocabulary, width, generator=generator) * 0.5 - 0.25


def split_words(text: str) -> list[str]:
    """Words and punctuation marks; contractions are cut as in the Penn Treebank (don't -> do n't, it's -> it 's)."""
    text = re.sub(r"(?i)(?<=[a-z])(n['’]t|['’](?:s|re|ve|ll|d|m))\b", r" \1", text)
    return re.findall(r"\[MASK\]|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|\w+(?:[-.]\w+)*|\.{2,}|[^\w\s]", text)


class WordVocabulary:
    """Words of a training set with their vectors: ids 0 = [PAD], 1 = [UNK], 2 = [MASK], then the words.

    texts: the training texts; only their words get a row.
    rows: word -> row of `known` (GloVe's index); a word without a row is [UNK].
    """

    SPECIAL = ("[PAD]", "[UNK]", "[MASK]")

    def __init__(self, texts: Iterable[str], rows: Mapping[str, int], known: Float[Tensor, "words width"]):
        found = sorted({w for text in texts for w in _lower(split_words(text)) if w in rows})
        if not found:
            raise ValueError("No word of these texts has a vector. GloVe knows lower-case words only; look at `rows`.")
        vectors = torch.as_tensor(known)[[rows[w] for w in found]]
        zero = torch.zeros_like(vectors[0])
        special = torch.stack([zero, vectors.mean(0), zero])
        self.ids = {word: i for i, word in enumerate((*self.SPECIAL, *found))}
        self.vectors = torch.cat([special, vectors])

    @classmethod
    def restored(cls, words: Sequence[str], vectors: Float[Tensor, "vocabulary width"]) -> WordVocabulary:
        """A vocabulary that was saved: `list(vocabulary.ids)` and the vectors, row by row."""
        vocabulary = cls.__new__(cls)
        vocabulary.ids, vocabulary.vectors = {word: i for i, word in enumerate(words)}, vectors
        return vocabulary

    def encode(self, text: str, pair: str | None = None) -> dict[str, list[int]]:
        """input_ids of one text, or of a pair with token_type_ids 0 and 1; ready for `batches.pad`."""
        sentences = [self._of(split_words(t)) for t in (text, pair) if t is not None]
        example = {"input_ids": [i for sentence in sentences for i in sentence]}
        if pair is not None:
            example["token_type_ids"] = [n for n, sentence in enumerate(sentences) for _ in sentence]
        return example

    def _of(self, words: Sequence[str]) -> list[int]:
        return [self.ids.get(word, self.ids["[UNK]"]) for word in _lower(words)] or [self.ids["[UNK]"]]


def _lower(words: Iterable[str]) -> list[str]:
    return [word if word in WordVocabulary.SPECIAL else word.lower() for word in words]


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = job.recipe
    # The paper's Adadelta with rate 1.0 has no place in a loop with AdamW; 1e-3 is AdamW's own default.
    return [Stage("distillation", lambda student, batch: terms(student, None, batch, recipe),
                  job.numbers(Training(2e-3, steps=900, batch_size=50),
                        Training(1e-3, epochs=recipe.epochs, batch_size=recipe.batch_size)))]


_AIM = Aim(95, 15.0)

RECORD = Method(
    "bilstm", "Distilled BiLSTM", "Tang et al. 2019", stages,
    {"laptop": BilstmRecipe(), "paper": BilstmRecipe()}, "ch02", student="bilstm", teacher="stored",
    cache=("teacher_logits",), same_tokens=False, own_student=True,
    steps={"Distilled BiLSTM": step_of(terms, only_logits)},
    compared={"Distilled BiLSTM": Compared("BiLSTM, labels", "stored answers", Measured("ch02", "logits"),
                                           aim=_AIM),
              "Distilled BiLSTM, more text": Compared("BiLSTM, labels", "stored answers",
                                                      Measured("ch02", "logits + augmented text"), True, _AIM)},
    measured=Measured("ch02", "logits"))
