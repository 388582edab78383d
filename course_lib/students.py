"""Students: their shapes by name, their sizes, and what they may take over from the teacher before training.

    student = new_student(teacher, layers=3)                       # the teacher's class, random weights
    copy_embeddings(student, teacher)
    copy_layers(student, teacher, layer_maps.skip(3, 6))           # true copies: the teacher stays what it is
    copy_head(student, teacher)

Initialisation is worth more than most loss terms: DistilBERT loses 3.69 points of its GLUE score without it.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, DistilBertConfig, PreTrainedConfig, PreTrainedModel

from course_lib.layer_maps import LayerMap, check

# (layers, hidden, heads, intermediate); the rest is BERT-base's: 30,522 WordPieces, 512 positions, 2 token types.
SHAPES = {
    "bert-base": (12, 768, 12, 3072),  # Devlin et al. 2019, section 3
    "bert-large": (24, 1024, 16, 4096),
    "bert-6x768": (6, 768, 12, 3072),  # PKD-6, TinyBERT-6, Theseus, MiniLM 6x768
    "bert-4x768": (4, 768, 12, 3072),
    "bert-3x768": (3, 768, 12, 3072),  # PKD-3
    "tinybert-4": (4, 312, 12, 1200),  # Jiao et al. 2020, section 4.2
    "minilm-12x384": (12, 384, 12, 1536),  # Wang et al. 2020: 12 heads of 32, as many heads as the teacher
    "minilm-6x384": (6, 384, 12, 1536),
    "bert-tiny": (2, 128, 2, 512),  # Turc et al. 2019: heads of 64
}


def bert_config(name_or_shape: str, **changes) -> PreTrainedConfig:
    """The configuration behind a name such as "tinybert-4", or behind a shape such as "2x128" (layers x hidden).

    A bare shape gets heads of 64 and a feed-forward layer of 4 x hidden, as the small BERTs of Turc et al. 2019.
    "distilbert" gives a DistilBertConfig: no token types, no pooler. `changes` are fields of the configuration.

    Raises: ValueError for an unknown name (with the known ones), and for a width that the heads do not divide.
    """
    if name_or_shape == "distilbert":
        return DistilBertConfig(**changes)
    if name_or_shape in SHAPES:
        layers, hidden, heads, intermediate = SHAPES[name_or_shape]
    elif match := re.fullmatch(r"(\d+)x(\d+)", name_or_shape):
        layers, hidden = int(match[1]), int(match[2])
        heads, intermediate = max(hidden // 64, 1), 4 * hidden
    else:
        raise ValueError(f"No shape is called {name_or_shape!r}. Known: {', '.join([*SHAPES, 'distilbert'])}, "
                         "or layers x hidden, such as '2x128'.")
    shape = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
             "intermediate_size": intermediate}
    config = BertConfig(**(shape | changes))
    _require_heads(config.hidden_size, config.num_attention_heads)
    return config


def count_parameters(model: nn.Module | PreTrainedConfig, *, only: Literal["all", "word_embeddings"] = "all") -> int:
    """How many numbers a model holds; a tied matrix counts once.

    A configuration is counted without building the model: 335 million numbers of BERT-large need no memory on
    PyTorch's meta device. It stands for the bare encoder with its pooler (DistilBERT has none).
    """
    if isinstance(model, PreTrainedConfig):
        with torch.device("meta"):
            model = AutoModel.from_config(model)
    if only == "word_embeddings":
        return model.get_input_embeddings().weight.numel()
    return sum(parameter.numel() for parameter in model.parameters())


def new_student(teacher: PreTrainedModel, *, layers: int | None = None, hidden: int | None = None,
                heads: int | None = None, intermediate: int | None = None, seed: int | None = None) -> PreTrainedModel:
    """A model of the teacher's class and task, with another shape and random weights.

    What is not named stays as in the teacher: the head count too (TinyBERT and MiniLM need equal head counts), and
    the ratio of feed-forward to hidden size. Vocabulary, labels, dropout and precision are the teacher's. `seed`
    makes the weights reproducible without touching the global random state. The student is in train mode.

    Raises: ValueError if the heads do not divide the hidden size.
    """
    config = type(teacher.config).from_dict(teacher.config.to_dict())
    ffn = "hidden_dim" if isinstance(config, DistilBertConfig) else "intermediate_size"
    old_hidden, old_ffn = config.hidden_size, getattr(config, ffn)
    config.num_hidden_layers = config.num_hidden_layers if layers is None else layers
    config.hidden_size = old_hidden if hidden is None else hidden
    config.num_attention_heads = config.num_attention_heads if heads is None else heads
    setattr(config, ffn, old_ffn * config.hidden_size // old_hidden if intermediate is None else intermediate)
    _require_heads(config.hidden_size, config.num_attention_heads)
    config._attn_implementation = teacher.config._attn_implementation
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        student = type(teacher)(config)
    return student.to(device=teacher.device, dtype=teacher.dtype).train()


def blocks(model: nn.Module) -> nn.ModuleList:
    """The Transformer blocks in order; `blocks(model)[l - 1]` makes layer l.

    Raises: ValueError for a model without `encoder.layer` (BERT and its family) or `transformer.layer` (DistilBERT).
    """
    base = _base(model)
    for place in ("encoder", "transformer"):
        found = getattr(getattr(base, place, None), "layer", None)
        if isinstance(found, nn.ModuleList):
            return found
    raise ValueError(f"{type(model).__name__} keeps its blocks neither in encoder.layer nor in transformer.layer.")


def copy_layers(student: nn.Module, teacher: nn.Module, layer_map: LayerMap) -> None:
    """Copy the numbers of teacher layer t into student layer s for every pair (s, t); (0, 0) copies the embeddings.

    The copies are true copies: training the student leaves the teacher as it is.
    Raises: ValueError for an impossible index, for layer 0 paired with a block, and for blocks of other widths.
    """
    theirs, ours = blocks(teacher), blocks(student)
    for s, t in check(layer_map, len(ours), len(theirs)):
        if 0 in (s, t) and s != t:
            raise ValueError(f"Pair {(s, t)}: layer 0 is the embedding layer and can only be copied from layer 0. "
                             "A list that counts blocks from 0 goes through from_zero_based_blocks first.")
        if s == 0:
            copy_embeddings(student, teacher)
        else:
            copy_module(ours[s - 1], theirs[t - 1], f"student layer {s} from teacher layer {t}")


def copy_embeddings(student: nn.Module, teacher: nn.Module) -> None:
    """Copy word, position and token-type embeddings and their LayerNorm. A tied output matrix follows by itself."""
    copy_module(_base(student).embeddings, _base(teacher).embeddings, "embeddings")


def copy_head(student: nn.Module, teacher: nn.Module) -> None:
    """Copy everything that is neither embedding nor block: pooler, classifier, masked-LM head.

    A masked-LM head that is tied to the word embeddings stays tied, so its matrix comes with `copy_embeddings`.
    Raises: ValueError for heads of other shape or name, and if only one side has its output matrix tied.
    """
    if _tied(student) != _tied(teacher):
        raise ValueError(f"The output matrix is tied to the word embeddings: student {_tied(student)}, teacher "
                         f"{_tied(teacher)}. Set tie_word_embeddings in the student's config to {_tied(teacher)}.")
    theirs, ours = _head_state(teacher), _head_state(student)
    _require_fit(ours, theirs, "head")
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])


class Factorised(NamedTuple):
    """E = embeddings @ projection + mean, as well as `width` numbers per word allow."""

    embeddings: Float[Tensor, "vocabulary width"]
    projection: Float[Tensor, "width hidden"]  # orthonormal rows
    mean: Float[Tensor, " hidden"]
    explained_variance: float  # share of the matrix's squared distances from its mean that is kept, 0..1


def factorise_embeddings(matrix: Float[Tensor, "vocabulary hidden"], width: int, *, centre: bool = True) -> Factorised:
    """Write a (vocabulary, hidden) matrix as (vocabulary, width) times (width, hidden), with the least squared error.

    Principal components (centre=True, the mean is kept apart) or a truncated singular value decomposition
    (centre=False, the mean is zero and "variance" means squared length). Eckart and Young: no other rank-`width`
    product comes nearer.

    Raises: ValueError if `width` is not between 1 and the hidden size.
    """
    vocabulary, hidden = matrix.shape
    if not 1 <= width <= hidden:
        raise ValueError(f"Cannot factorise {vocabulary} x {hidden} embeddings through width {width}; "
                         f"choose a width from 1 to {hidden}.")
    values = matrix.detach().double()
    mean = values.mean(dim=0) if centre else values.new_zeros(hidden)
    centred = values - mean
    # Eigenvectors of the small (hidden, hidden) matrix are the right singular vectors of the tall one.
    strengths, directions = torch.linalg.eigh(centred.T @ centred)  # (d, V) x (V, d) -> (d, d), ascending
    projection = directions.flip(-1)[:, :width].T
    explained = (strengths.flip(-1)[:width].clamp(min=0).sum() / strengths.clamp(min=0).sum()).item()
    small = centred @ projection.T  # (V, d) x (d, w) -> (V, w)
    return Factorised(small.to(matrix.dtype), projection.to(matrix.dtype), mean.to(matrix.dtype), explained)


def copy_factorised_embeddings(student: nn.Module, teacher: nn.Module) -> Factorised:
    """Give a narrower student the teacher's word, position and token-type embeddings through one projection.

    The projection is fitted to the word embeddings; the other tables pass through the same map, because the tables
    are added up. LayerNorm keeps its fresh start: its scales belong to the old directions.
    Raises: ValueError if the student is wider than the teacher, or if a table has another number of rows.
    """
    ours, theirs = _base(student).embeddings, _base(teacher).embeddings
    found = factorise_embeddings(theirs.word_embeddings.weight, ours.word_embeddings.weight.shape[1])
    with torch.no_grad():
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            if hasattr(ours, name):
                source, target = getattr(theirs, name).weight, getattr(ours, name).weight
                if len(source) != len(target):
                    raise ValueError(f"{name}: student {tuple(target.shape)} and teacher {tuple(source.shape)} have "
                                     "another number of rows; both models need one vocabulary and one maximal length.")
                shift = found.mean if name == "word_embeddings" else 0.0
                target.copy_((source - shift) @ found.projection.T)  # (rows, d) x (d, w) -> (rows, w)
    return found


def copy_module(target: nn.Module, source: nn.Module, what: str) -> None:
    """Copy all numbers of `source` into `target`. Raises: ValueError that names the first tensor that does not fit."""
    _require_fit(target.state_dict(), source.state_dict(), what)
    target.load_state_dict(source.state_dict())  # copies values into the existing tensors, so nothing is shared


def _require_fit(ours: dict[str, Tensor], theirs: dict[str, Tensor], what: str) -> None:
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            side = "student" if name not in ours else "teacher"
            raise ValueError(f"Copying {what}: the {side} has no {name!r}. Copy between models of one class.")
        if ours[name].shape != theirs[name].shape:
            raise ValueError(
                f"Copying {what}: {name} is {tuple(ours[name].shape)} in the student and {tuple(theirs[name].shape)} "
                "in the teacher. Layers can only be copied between equal widths; for a narrower student use "
                "copy_factorised_embeddings and start the blocks at random."
            )


def _base(model: nn.Module) -> nn.Module:
    """The encoder inside a model with a task head, or the model itself."""
    return getattr(model, getattr(model, "base_model_prefix", "") or "", model)


def _tied(model: nn.Module) -> bool | None:
    """Whether output matrix and word embeddings are one tensor; None for a model without an output matrix."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return None if output is None else output.weight is model.get_input_embeddings().weight


def _head_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers outside embeddings and blocks, by name; the base model's prefix is left out."""
    base = _base(model)
    inside = {id(t) for part in (base.embeddings, blocks(model))
              for t in (*part.parameters(), *part.buffers())}
    names = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in names.items() if id(tensor) not in inside}


def _require_heads(hidden: int, heads: int) -> None:
    if hidden % heads:
        fitting = [h for h in range(1, hidden + 1) if hidden % h == 0 and h <= 64]
        raise ValueError(f"{heads} attention heads do not divide hidden size {hidden}. Head counts that do: {fitting}.")


def require_eval(teacher: nn.Module) -> nn.Module:
    """Return the teacher after checking that its dropout is off (TinyBERT's original code forgot this).

    Raises: ValueError for a teacher in train mode: its soft targets would be random.
    """
    if teacher.training:
        raise ValueError("The teacher is in train mode: dropout would make every target a random one. "
                         "Call teacher.eval() once.")
    return teacher
