"""Students: their shapes by name, their sizes, and where their blocks are; and the modes, train or eval, of any model.

    student = new_student(teacher, layers=3)                       # the teacher's class, random weights

What a student takes over from its teacher before training is in `course_lib.shared.starts`.
"""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import nn
from transformers import AutoModel, BertConfig, DistilBertConfig, PreTrainedConfig, PreTrainedModel

from course_lib.shared.words import require_word

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
    require_word(only, ("all", "word_embeddings"), "only")
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
    return stack_of(model).layer


def stack_of(model: nn.Module, places: tuple[str, ...] = ("encoder", "transformer")) -> nn.Module:
    """The part of a model, with or without a head, whose `.layer` is the list of its blocks. Raises: as `blocks`."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in places and isinstance(getattr(module, "layer", None), nn.ModuleList):
            return module
    raise ValueError(f"{type(model).__name__} keeps no blocks in {' or '.join(f'{place}.layer' for place in places)}.")


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder inside a model with a task head, or the model itself."""
    return getattr(model, getattr(model, "base_model_prefix", "") or "", model)


def _require_heads(hidden: int, heads: int) -> None:
    if hidden % heads:
        fitting = [h for h in range(1, hidden + 1) if hidden % h == 0 and h <= 64]
        raise ValueError(f"{heads} attention heads do not divide hidden size {hidden}. Head counts that do: {fitting}.")


class modes_kept:
    """`with modes_kept(model):` puts every module of a model back into its own mode, train or eval, at the end.

    `model.train(was_training)` would not: it gives all modules the mode of the outermost one.
    """

    def __init__(self, *models: nn.Module):
        self.modes = [(module, module.training) for model in models for module in model.modules()]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for module, mode in self.modes:
            module.training = mode


class evaluating(modes_kept):
    """The same, and inside every module is in eval mode."""

    def __enter__(self) -> None:
        for module, _ in self.modes:
            module.training = False


def require_eval(teacher: nn.Module) -> nn.Module:
    """Return the teacher after checking that its dropout is off (TinyBERT's original code forgot this).

    Raises: ValueError for a teacher in train mode: its soft targets would be random.
    """
    if teacher.training:
        raise ValueError("The teacher is in train mode: dropout would make every target a random one. "
                         "Call teacher.eval() once.")
    return teacher
