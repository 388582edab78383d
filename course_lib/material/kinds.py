"""What kind of model is this? Its config says it before it is loaded, the loading report afterwards.

transformers loads nearly every file with nearly every class: what the file lacks becomes random numbers, what it has
too much is left out, and a line of a log says so. Whoever distils such a model teaches noise. Here a model is loaded
completely or refused with one sentence; the command and the doctor read every folder through this door.

    config = config_of("runs/teacher/student")
    kind_of(config)                                   # Kind.CLASSIFIER
    model = load_model("runs/teacher/student", door)   # door: the Auto class of its task
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import find_adapter_config_file

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
                   "tokenizer.model", "spm.model")


class Kind(StrEnum):
    """What a model answers, in words for a sentence "this model is ..."."""

    CLASSIFIER = "a classifier of texts"
    REGRESSION = "a regression: one number per text"
    MULTI_LABEL = "a multi-label classifier: several classes at once per text"
    TAGGER = "a token classifier: one class per token"
    MASKED_LM = "a masked language model"
    ENCODER = "a bare encoder without a head"
    OTHER = "a model for another task"


def kind_of(config: PreTrainedConfig) -> Kind:
    """What the config says: the class that was saved, and for a classifier its `problem_type` and number of outputs."""
    name = architecture(config)
    if name.endswith("ForSequenceClassification"):
        if config.problem_type == "multi_label_classification":
            return Kind.MULTI_LABEL
        alone = config.problem_type == "regression" or config.num_labels == 1
        return Kind.REGRESSION if alone else Kind.CLASSIFIER
    if name.endswith("ForTokenClassification"):
        return Kind.TAGGER
    # ELECTRA's pre-training head tells real tokens from replaced ones; it writes no words.
    if name.endswith("ForMaskedLM") or (name.endswith("ForPreTraining") and not name.startswith("Electra")):
        return Kind.MASKED_LM
    return Kind.ENCODER if not name or name.endswith("Model") else Kind.OTHER


def architecture(config: PreTrainedConfig) -> str:
    """The class that was saved; "" where nobody wrote it down."""
    return (getattr(config, "architectures", None) or [""])[0]


def config_of(name: str) -> PreTrainedConfig:
    """The config of a saved model. Raises: ValueError for the folder of an adapter; `OSError` where there is none."""
    if find_adapter_config_file(name, local_files_only=Path(name).is_dir()) is not None:
        raise ValueError(f"{name} holds an adapter of PEFT (LoRA), not a whole model. Merge the adapter first: model = "
                         "model.merge_and_unload(), then save model and tokenizer with save_pretrained().")
    return AutoConfig.from_pretrained(name, local_files_only=Path(name).is_dir())


def load_model(name: str, door: type, *, new_head: bool = False, **options) -> PreTrainedModel:
    """A saved model in float32 with every weight from its file. No pickled weights, no code of the repository.

    door: the Auto class of its task. new_head: what stands outside the encoder (head, pooler) may start at random.
    options: more fields of the config.
    Raises: ValueError that names the weights which the file lacks, and the way out; `OSError` where there is no model.
    """
    config_of(name)
    model, report = door.from_pretrained(
        name, attn_implementation="eager", use_safetensors=True, dtype=torch.float32, ignore_mismatched_sizes=True,
        output_loading_info=True, local_files_only=Path(name).is_dir(), **options)
    missing, surplus = set(report["missing_keys"]), set(report["unexpected_keys"])
    other_shape = {key: (tuple(stored), tuple(built)) for key, stored, built in report["mismatched_keys"]}
    if new_head or not _has_head(model):
        missing = {key for key in missing if not _outside_encoder(model, key)}
        other_shape = {key: shapes for key, shapes in other_shape.items() if not _outside_encoder(model, key)}
    if missing:
        raise ValueError(_what_is_missing(name, model, missing, surplus))
    if other_shape:
        key, (stored, built) = min(other_shape.items())
        raise ValueError(f"{name}: '{key}' has the shape {stored} in the file, and its config asks for {built}. Config "
                         "and weights are of two models; save both again with model.save_pretrained().")
    if adapters := sorted(key for key in surplus if "lora_" in key):
        raise ValueError(f"{name}: '{adapters[0]}' is the weight of an adapter, and would be left out. "
                         "Merge the adapter first: model.merge_and_unload().save_pretrained(folder).")
    if blocks := sorted(key for key in surplus if _in_block(key)):
        raise ValueError(f"{name}: the file has {len(blocks)} weights more than its config has room for, such as "
                         f"'{blocks[0]}': layers would be left out. Config and weights are of two models.")
    return model


def with_classes(where: str, names: Sequence[str]) -> PreTrainedModel:
    """A saved model as a classifier of these classes; a head of another size, or none, gives way to a fresh one.

    Raises: ValueError for a model whose encoder is not in its file.
    """
    return load_model(where, AutoModelForSequenceClassification, new_head=True, num_labels=len(names),
                      id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)},
                      problem_type="single_label_classification")


def find_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a model, or None. transformers makes an empty one where there is no file: that is none."""
    if Path(name).is_dir() and not any((Path(name) / file).exists() for file in TOKENIZER_FILES):
        return None
    return AutoTokenizer.from_pretrained(name, local_files_only=Path(name).is_dir())


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model. Raises: ValueError where there is none."""
    found = find_tokenizer(name)
    if found is None:
        raise ValueError(f"{name} has no tokenizer ({', '.join(TOKENIZER_FILES[:3])}, ...). Save the one that the "
                         "model was trained with into the same folder: tokenizer.save_pretrained(folder).")
    return found


def positions_of(model: torch.nn.Module) -> int | None:
    """How many tokens a model can read; None where its config sets no limit."""
    config = getattr(model, "config", None)
    longest = getattr(config, "max_position_embeddings", None)
    if not isinstance(longest, int) or longest <= 0 or getattr(config, "position_embedding_type", "") == "rotary":
        return None
    # RoBERTa and its family number positions from padding_idx + 1, so two of the rows are never a word's.
    shifted = any(part in type(model).__name__ for part in ("Roberta", "Camembert", "Longformer", "MPNet"))
    return longest - 1 - (config.pad_token_id or 0) if shifted else longest


# --- The loading report -----------------------------------------------------------------------------------------------


def _has_head(model: PreTrainedModel) -> bool:
    return hasattr(model, model.base_model_prefix)


def _outside_encoder(model: PreTrainedModel, key: str) -> bool:
    inside = not _has_head(model) or key.startswith(model.base_model_prefix + ".")
    return not inside or "pooler" in key


def _in_block(key: str) -> bool:
    return any(part.isdigit() for part in key.split(".")) and key.endswith((".weight", ".bias"))


def _what_is_missing(name: str, model: PreTrainedModel, missing: set[str], surplus: set[str]) -> str:
    """One sentence for weights that no file gave, with the way out that fits."""
    first, all_weights = min(missing), len(dict(model.named_parameters()))
    if all(_outside_encoder(model, key) for key in missing):
        return (f"{name} has no trained head ({', '.join(sorted(missing))} would be random numbers), so it has no "
                f"answers that a student could learn. Fine-tune it first: python -m course_lib finetune --model {name} "
                "--data TEXTS --out FOLDER.")
    said = (f"{name}: {len(missing)} of {all_weights} weights are not in its file and would be random numbers, such as "
            f"'{first}'.")
    if any("base_layer" in key or "lora_" in key for key in surplus):
        return (f"{said} The file has '{min(key for key in surplus if 'base_layer' in key or 'lora_' in key)}': an "
                "adapter was not merged before saving. Merge it: model.merge_and_unload().save_pretrained(folder).")
    longer = [key for key in surplus if key.endswith("." + first)]
    if longer:
        prefix = longer[0].removesuffix(first)
        return (f"{said} The file has '{longer[0]}': take the prefix '{prefix}' (of a wrapper such as DataParallel or "
                "torch.compile) away from every name, or save the model inside the wrapper: "
                f"wrapped.{prefix.removesuffix('.')}.save_pretrained(folder).")
    there = f" The file has '{min(surplus)}', which this model has no place for." if surplus else ""
    return f"{said}{there} Save the model again with save_pretrained(), or name the folder where it is complete."
