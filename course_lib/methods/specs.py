"""The student that a word describes: "half", "3", "3x192", "tinybert-4", "mobilebert", "bilstm", or a folder.

| spec | what it makes |
|---|---|
| `half`, `third` | that share of the teacher's layers, its width; layers start as copies of the teacher's |
| `3` | 3 layers, otherwise the same |
| `3x192` | 3 layers x 192, the teacher's head count; embeddings by principal components, blocks fresh |
| `tinybert-4`, ... | a shape by name (`course_lib.shared.students.SHAPES`) |
| `cached` | one layer: the embeddings are copies, everything else is fresh |
| `mobilebert` | thin and as deep as the teacher |
| `bilstm`, `bilstm-300` | one BiLSTM layer over GloVe vectors, that many units in each direction |
| a folder or hub name | a saved model; it may have a tokenizer of its own |
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import MobileBertForSequenceClassification, PreTrainedTokenizerBase

from course_lib.material.kinds import tokenizer_of, with_classes
from course_lib.material.teachers import Teacher, load_teacher
from course_lib.methods.bilstm import BiLstm, WordVocabulary
from course_lib.methods.cached import document_student
from course_lib.methods.mobilebert import copy_outside_blocks
from course_lib.methods.mobilebert_model import student_config_for
from course_lib.shared import layer_maps
from course_lib.shared.batches import encode
from course_lib.shared.files import write_atomically
from course_lib.shared.method import Method
from course_lib.shared.starts import copy_embeddings, copy_factorised_embeddings, copy_head, copy_layers
from course_lib.shared.students import SHAPES, blocks, new_student

EVENLY = partial(layer_maps.uniform, when_uneven="round")  # the layers that a student starts with, unless told


@dataclass(frozen=True)
class Made:
    """A student, how it reads text, and how it starts."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase | WordVocabulary
    layers: int
    copied: bool  # its layers are copies: it wants small steps
    own_tokens: bool  # it reads other tokens than the teacher
    start: str  # in words

    def narrower_than(self, teacher: nn.Module) -> bool:
        """Whether its states need a projection before they can be compared with the teacher's."""
        return hasattr(self.model, "config") and self.model.config.hidden_size != teacher.config.hidden_size

    def examples(self, rows, max_length: int) -> list[dict]:
        """The rows in the student's tokens."""
        if isinstance(self.tokenizer, PreTrainedTokenizerBase):
            return encode(rows, self.tokenizer, max_length)
        return [self.tokenizer.encode(row["text"], row.get("text_pair")) | ({"label": row["label"]} if "label" in row
                                                                              else {}) for row in rows]

    def save(self, folder: Path) -> None:
        """Write model and tokenizer. Transformers of Hugging Face: as `from_pretrained` reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.model, BiLstm):
            _save_bilstm(self.model, self.tokenizer, folder)
        else:
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def by_spec(spec: str, method: Method, teacher: Teacher, texts: Sequence[str], *, pairs: bool = False, seed: int = 0
            ) -> Made:
    """Build the student that `spec` describes for `method`. texts: the training texts (a BiLSTM takes its words there).

    Raises: ValueError for a spec that cannot be read, or that does not fit the method or the teacher.
    """
    torch.manual_seed(seed)
    if match := re.fullmatch(r"bilstm(?:-(\d+))?", spec):
        return _bilstm(int(match[1] or 150), teacher, texts, pairs)
    if method.student == "bilstm":
        raise ValueError(f"The student of '{method.name}' is a BiLSTM, not '{spec}': --student bilstm or bilstm-300.")
    if spec == "itself":
        model = teacher.model.requires_grad_(True).train()
        return Made(model, teacher.tokenizer, model.config.num_hidden_layers, True, False, "the given weights")
    if Path(spec).is_dir() or "/" in spec:
        return _saved(spec, teacher)
    if "mobilebert" in (method.student, spec):
        if method.student != spec:
            raise ValueError("The thin student and the method MobileBERT belong together: "
                             "distill mobilebert --student mobilebert.")
        return _mobilebert(teacher)
    return _cut_from(teacher, spec, method, seed)


def _cut_from(teacher: Teacher, spec: str, method: Method, seed: int) -> Made:
    """A student of the teacher's class, with as much of the teacher as its shape allows."""
    source = teacher.model
    try:
        depth = len(blocks(source)) if hasattr(source.config, "intermediate_size") else 0
    except ValueError:  # ALBERT has one block that runs many times, ModernBERT keeps its blocks elsewhere
        depth = 0
    if not depth:
        raise ValueError(f"A student cannot be cut out of a {type(source).__name__}: it does not keep its blocks as "
                         "BERT does. Give the folder of a saved model (--student FOLDER) to a method that compares "
                         "answers only (hinton, cached, labels), or take a BERT as teacher.")
    layers, hidden, heads, intermediate = _shape(spec, depth)
    if layers > depth:
        raise ValueError(f"The student would have {layers} layers, more than the teacher's {depth}.")
    if method.wraps:
        if hidden not in (None, source.config.hidden_size):
            raise ValueError(f"{method.title} puts successors between the teacher's layers, so both have one width; "
                             f"'{spec}' is narrower. Give a number of layers only, for example --student half.")
        start = f"a copy of the teacher with {layers} modules to replace"
        return Made(method.wraps(source, layers), teacher.tokenizer, layers, True, False, start)
    if spec == "cached":
        model, start = document_student(source, layers).train(), "the teacher's embeddings; layer and head fresh"
        return Made(model, teacher.tokenizer, layers, False, False, start)
    heads = heads or _heads(hidden, source.config.num_attention_heads, method)
    model = new_student(source, layers=layers, hidden=hidden, heads=heads, intermediate=intermediate, seed=seed)
    if model.config.hidden_size != source.config.hidden_size:
        copy_factorised_embeddings(model, source)
        start = "embeddings by principal components of the teacher's; blocks and head fresh"
        return Made(model, teacher.tokenizer, layers, False, False, start)
    copy_embeddings(model, source)
    copy_head(model, source)
    copied = model.config.intermediate_size == source.config.intermediate_size
    start = "the teacher's embeddings and head; blocks fresh"
    if copied:
        layer_map = (method.copies or EVENLY)(layers, depth)
        copy_layers(model, source, layer_map)
        start = f"the teacher's embeddings, layers {', '.join(str(t) for s, t in layer_map if s)} and head"
    return Made(model, teacher.tokenizer, layers, copied, False, start)


def _heads(hidden: int | None, teacher_heads: int, method: Method) -> int | None:
    """The student's head count: the teacher's where that divides the width; else the largest smaller one that does.

    Raises: ValueError for a method that compares head with head.
    """
    if hidden is None or hidden % teacher_heads == 0:
        return None
    if method.same_heads:
        near = max(1, round(hidden / teacher_heads)) * teacher_heads
        raise ValueError(f"{method.name} compares head with head, and the teacher has {teacher_heads}: a width of "
                         f"{hidden} cannot be cut into so many. Take a multiple of {teacher_heads}, for example {near}."
                         )
    return max(heads for heads in range(1, teacher_heads) if hidden % heads == 0)


def _shape(spec: str, depth: int) -> tuple[int, int | None, int | None, int | None]:
    """(layers, hidden, heads, intermediate); None = as in the teacher."""
    if spec in ("half", "third", "cached"):
        return {"half": max(1, depth // 2), "third": max(1, depth // 3), "cached": 1}[spec], None, None, None
    if spec in SHAPES:
        return SHAPES[spec]
    if match := re.fullmatch(r"(\d+)(?:x(\d+))?", spec):
        if int(match[1]) < 1:
            raise ValueError(f"--student {spec}: a student needs a layer.")
        return int(match[1]), int(match[2]) if match[2] else None, None, None
    raise ValueError(f"No student is called '{spec}'. Give a number of layers (3), layers x width (3x192), half, "
                     f"third, cached, mobilebert, bilstm, a shape ({', '.join(SHAPES)}), or the folder of a saved "
                     "model.")


def _saved(spec: str, teacher: Teacher) -> Made:
    """Somebody's model as a student: its head becomes one for the teacher's classes."""
    masked = is_masked_lm(teacher.model)
    model = load_teacher(spec, "mlm").model if masked else with_classes(spec, teacher.class_names)
    tokenizer = tokenizer_of(spec)
    own = tokenizer.get_vocab() != teacher.tokenizer.get_vocab()
    return Made(model.requires_grad_(True).train(), tokenizer, model.config.num_hidden_layers, True, own,
                f"the weights of {Path(spec).name}" + (", with a tokenizer of its own" if own else ""))


def is_masked_lm(model: nn.Module) -> bool:
    """Whether a model fills gaps (else it names classes); transformers says it in the name of the class."""
    return "MaskedLM" in type(model).__name__


def _mobilebert(teacher: Teacher) -> Made:
    source = teacher.model
    # LayerNorm and not the paper's NoNorm: only so do the copied embeddings give the teacher's numbers, and
    # transformers' own MobileBERT can load the result.
    config = student_config_for(source.config, embedding_size=source.config.hidden_size, trigram_input=False,
                                normalization_type="layer_norm", layer_norm_eps=source.config.layer_norm_eps,
                                id2label=source.config.id2label, label2id=source.config.label2id)
    model = MobileBertForSequenceClassification._from_config(config, attn_implementation="eager")
    copy_outside_blocks(model, source)
    model.mobilebert.embeddings.requires_grad_(False)
    return Made(model.train(), teacher.tokenizer, config.num_hidden_layers, False, False,
                "the teacher's embeddings (frozen) and head; thin blocks, fresh")


# --- A student that is no transformer --------------------------------------------------------------------------------


def _bilstm(hidden: int, teacher: Teacher, texts: Sequence[str], pairs: bool) -> Made:
    from course_lib.material.word_vectors import glove

    words, vectors = glove()
    vocabulary = WordVocabulary(texts, {word: i for i, word in enumerate(words)}, vectors)
    model = BiLstm(vocabulary.vectors, teacher.model.config.num_labels, hidden=hidden, pair=pairs)
    return Made(model, vocabulary, 1, False, True, f"GloVe vectors for {len(vocabulary.ids):,} words; the rest fresh")


def _save_bilstm(model: BiLstm, vocabulary: WordVocabulary, folder: Path) -> None:
    shape = {"model": "BiLstm", "hidden": model.lstm.hidden_size, "fc": model.fc1.out_features,
             "classes": model.fc2.out_features, "pair": model.pair, "width": vocabulary.vectors.shape[1],
             "words": list(vocabulary.ids)}
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(folder / "model.safetensors", lambda path: save_file(weights, path))
    write_atomically(folder / "bilstm.json", lambda path: path.write_text(json.dumps(shape), "utf-8"))


def load_bilstm(folder: str | Path) -> tuple[BiLstm, WordVocabulary]:
    """The BiLSTM student of a run, and what turns text into its ids. Raises: ValueError for another folder."""
    folder = Path(folder)
    if not (folder / "bilstm.json").exists():
        raise ValueError(f"{folder} holds no BiLSTM of the course (bilstm.json is missing).")
    shape = json.loads((folder / "bilstm.json").read_text("utf-8"))
    words, vectors = shape["words"], torch.zeros(len(shape["words"]), shape["width"])
    model = BiLstm(vectors, shape["classes"], hidden=shape["hidden"], fc=shape["fc"], pair=shape["pair"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), WordVocabulary.restored(words, model.tuned.weight.detach())
