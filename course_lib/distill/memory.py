"""How much memory a run needs: an estimate before it starts, good to about a third.

    estimate(student, teacher, examples=32, tokens=128)      # bytes, by what they are for
"""

from __future__ import annotations

from transformers import PreTrainedModel

from course_lib.students import blocks, count_parameters


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
    activations = len(blocks(student)) * examples * tokens * per_token * (1 if half else 2)
    logits = 4 * 4 * examples * tokens * config.vocab_size if masked_lm else 0
    return {"weights": weights, "activations": activations, "logits": logits}


def in_words(found: dict[str, int]) -> str:
    """"about 1.2 GB of memory (weights 0.8, activations 0.4)"."""
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in found.items() if size)
    return f"about {sum(found.values()) / 1e9:.1f} GB of memory per process ({parts})"
