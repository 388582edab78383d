"""How much memory a run needs: an estimate before it starts, good to about a third.

    estimate(student, teacher, examples=32, tokens=128)      # bytes, by what they are for
"""

from __future__ import annotations

from transformers import PreTrainedModel

from course_lib.shared.students import count_parameters


def estimate(student: PreTrainedModel, teacher: PreTrainedModel | None, *, examples: int, tokens: int,
             masked_lm: bool = False, half: bool = True) -> dict[str, int]:
    """Bytes that one process needs for a training step, by what they are for.

        weights      4 per teacher weight; 16 per trained weight: value, gradient and Adam's two moments
        activations  per block and token 34 h + 5 a T numbers' bytes at 2 bytes each (twice that in float32)
        logits       masked LM only: 4 copies (two models, their log-softmax) of examples x tokens x vocabulary

    examples: in one part of the batch (batch size / accumulation / processes). tokens: T, after padding. half: bf16.
    h is the hidden size, a the number of heads. A teacher without gradients keeps no activations.
    Source: Korthikanti et al. 2022 (arXiv 2205.05198), eq. 1, for one Transformer layer without parallelism.
    """
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    weights = 4 * count_parameters(student) + 12 * trained + (4 * count_parameters(teacher) if teacher else 0)
    config = student.config
    per_token = 34 * config.hidden_size + 5 * config.num_attention_heads * tokens
    activations = config.num_hidden_layers * examples * tokens * per_token * (1 if half else 2)
    logits = 4 * 4 * examples * tokens * config.vocab_size if masked_lm else 0
    return {"weights": weights, "activations": activations, "logits": logits}


def in_words(found: dict[str, int]) -> str:
    """"about 1.2 GB of memory (weights 0.8, activations 0.4)"."""
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in found.items() if size)
    return f"about {sum(found.values()) / 1e9:.1f} GB of memory per process ({parts})"


# What the page "From a laptop to several GPUs" shows: student, teacher, examples in one part, masked LM or not.
EXAMPLES = (
    ("the chapters' budget: 3 × 384 from 6 × 384", "3x384", "minilm-6x384", 32, False),
    ("fine-tune BERT-base", "bert-base", None, 32, False),
    ("PKD, TinyBERT-6, Theseus: 6 × 768 from BERT-base", "bert-6x768", "bert-base", 32, False),
    ("TinyBERT-4 from BERT-base", "tinybert-4", "bert-base", 32, False),
    ("MiniLM 6 × 384 from BERT-base, batch 1,024 in 16 parts", "minilm-6x384", "bert-base", 64, False),
    ("DistilBERT from BERT-base, batch 4,000 in 125 parts", "bert-6x768", "bert-base", 32, True),
    ("DistilBERT from BERT-base, batch 4,000 in 500 parts", "bert-6x768", "bert-base", 8, True),
)


def table() -> str:
    """The estimates for some runs of the papers' sizes, at 128 tokens in bfloat16, as a Markdown table."""
    import torch
    from transformers import BertForMaskedLM, BertForSequenceClassification

    from course_lib.shared.students import bert_config

    lines = ["| run (128 tokens, bfloat16) | examples in a part | weights | activations | logits | sum, GB |",
             "|---|---|---|---|---|---|"]
    for name, student, teacher, examples, masked in EXAMPLES:
        kind = BertForMaskedLM if masked else BertForSequenceClassification
        with torch.device("meta"):  # shapes without numbers
            models = [None if shape is None else kind(bert_config(shape)) for shape in (student, teacher)]
        found = estimate(*models, examples=examples, tokens=128, masked_lm=masked)
        numbers = " | ".join(f"{size / 1e9:.1f}" for size in (*found.values(), sum(found.values())))
        lines.append(f"| {name} | {examples} | {numbers} |")
    return "\n".join(lines)
