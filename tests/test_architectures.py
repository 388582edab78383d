"""Which architectures can be teacher and student: the page's table, asked of tiny models of every kind."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizerFast,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from course_lib.distill.checks import require_readable
from course_lib.doctor import diagnose
from course_lib.material.teachers import load_teacher
from course_lib.methods.specs import by_spec
from course_lib.methods.table import METHODS
from course_lib.shared.probes import logits_of

PAGE = Path(__file__).resolve().parent.parent / "book" / "your_own.md"
CONFIGS = {"BERT": BertConfig, "RoBERTa": RobertaConfig, "XLM-R": XLMRobertaConfig, "ELECTRA": ElectraConfig,
           "DistilBERT": DistilBertConfig, "ALBERT": AlbertConfig, "DeBERTa": DebertaV2Config,
           "ModernBERT": ModernBertConfig}
SHAPE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 32, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "num_labels": 2}
MORE = {"DistilBERT": {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32}, "ALBERT": {"embedding_size": 8},
        "ELECTRA": {"embedding_size": 8}, "ModernBERT": {"cls_token_id": 2, "sep_token_id": 3}}
LEFT_OUT = {"DistilBERT": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}


@pytest.fixture(scope="module", params=CONFIGS)
def saved(request, tmp_path_factory):
    name, folder = request.param, tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    shape = {key: value for key, value in SHAPE.items() if key not in LEFT_OUT.get(name, ())}
    config = CONFIGS[name](**(shape | MORE.get(name, {})))
    AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return name, str(folder)


def works(attempt, *given):
    """True, or False for one sentence; anything else is a fault."""
    try:
        attempt(*given)
    except ValueError as error:
        assert "\n" not in str(error) and ("hinton" in str(error) or "--student" in str(error)), error
        return False
    return True


def test_the_table_of_the_page_is_what_the_models_can_do(saved):
    name, folder = saved
    teacher = load_teacher(folder)
    batch = dict(teacher.tokenizer(["a b c", "d e", "f g h i"] * 4, padding=True, return_tensors="pt"))
    student = by_spec(folder, METHODS["hinton"], teacher, ["a b"])  # a saved model as the student
    require_readable(METHODS["hinton"], student, teacher)
    assert logits_of(student.model, batch).shape == logits_of(teacher.model, batch).shape == (12, 2)

    def cut():
        logits_of(by_spec("half", METHODS["hinton"], teacher, ["a b"]).model, batch).sum().backward()

    found = ["yes", "yes" if works(cut) else "no",
             "yes" if works(require_readable, METHODS["pkd"], student, teacher) else "no"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text("utf-8").splitlines()]
    assert [name, *found] in rows
    report = diagnose(student.model, teacher.model, batch, tokenizer=teacher.tokenizer)
    assert not [f for f in report.findings if f.severity == "error" or "could not be looked at" in f.what], report
