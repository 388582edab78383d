"""Chapter 7: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.notebook.exercises.reference.ch07 import masked, relation_loss, scaled, three_averages
from solutions import case

# --- inputs -----------------------------------------------------------------------------------------------------------

MASKS = {3: torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
         2: torch.tensor([[True] * 4, [True, True, False, False]])}


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def x(*shape, size=1.0):
        return size * torch.randn(*shape, generator=g)

    def scores(*shape, **size):
        return {f"{who}_scores": x(*shape, **size) for who in ("student", "teacher")}

    def models(batch, heads, tokens, d_student, d_teacher, size=1.0):
        return {f"{who}_{kind}": x(batch, heads, tokens, d, size=size)
                for who, d in (("student", d_student), ("teacher", d_teacher)) for kind in "qkv"}

    one_word = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]])
    huge = scores(2, 2, 4, 4)
    for tensor in huge.values():
        tensor[1, :, :, 2:] = 1e4
        tensor[1, :, 2:] = -1e4
    return {
        "ch07.q1": [
            case("3 sentences of 3, 5 and 2 tokens, 2 heads of 4", values=x(3, 2, 5, 4), mask=MASKS[3]),
            case("a mask of True and False, 3 heads of 6", values=x(2, 3, 4, 6), mask=MASKS[2]),
            case("no padding, 4 heads of 2", values=x(1, 4, 3, 2), mask=torch.ones(1, 3).long()),
            case("values of size 100", "extremes", values=x(2, 2, 4, 4, size=100.0), mask=MASKS[2]),
            case("a sentence with one real token", "extremes", values=x(2, 2, 4, 3), mask=one_word),
        ],
        "ch07.q2": [
            case("3 sentences of 3, 5 and 2 tokens, 2 heads", gradient_of="student_scores", **scores(3, 2, 5, 5),
                 mask=MASKS[3]),
            case("a mask of True and False, 4 heads", **scores(2, 4, 4, 4, size=2.0), mask=MASKS[2]),
            case("no padding, 3 heads", **scores(2, 3, 3, 3), mask=torch.ones(2, 3).long()),
            case("scores of 10,000 in the padding", "extremes", gradient_of="student_scores", **huge, mask=MASKS[2]),
            case("a sentence with one real token", "extremes", **scores(2, 2, 4, 4), mask=one_word),
            case("scores of size 3,000", "extremes", **scores(2, 2, 4, 4, size=3e3), mask=MASKS[2]),
        ],
        "ch07.q3": [
            case("heads of 3 and 8, 3 sentences", gradient_of="student_v", **models(3, 2, 5, 3, 8), mask=MASKS[3]),
            case("heads of 6 and 4, a mask of True and False", **models(2, 3, 4, 6, 4), mask=MASKS[2]),
            case("equal heads of 4, no padding", **models(2, 2, 3, 4, 4), mask=torch.ones(2, 3).long()),
            case("vectors of size 50", "extremes", **models(2, 2, 4, 3, 5, size=50.0), mask=MASKS[2]),
        ],
        "ch07.q4": [
            case("4 heads of 3 into 6 relation heads", per_head=x(2, 4, 5, 3), relation_heads=6),
            case("2 heads of 6 into 3 relation heads", per_head=x(1, 2, 4, 6), relation_heads=3),
            case("3 heads of 4 into 2 relation heads", per_head=x(2, 3, 3, 4), relation_heads=2),
            case("one relation head", "extremes", per_head=x(1, 3, 2, 2), relation_heads=1),
            case("as many relation heads as numbers", "extremes", per_head=x(1, 2, 3, 2), relation_heads=4),
        ],
        "ch07.q5": [case(f"{layers} layers", "extremes" if layers == 1 else "numbers", layers=layers)
                    for layers in (12, 6, 24, 3, 1)],
        "ch07.q6": [
            case("3 sentences of 3, 5 and 2 tokens", per_query=x(3, 5).abs(), mask=MASKS[3]),
            case("a mask of True and False", per_query=x(2, 4).abs(), mask=MASKS[2]),
            case("a sentence with one real token", "extremes", per_query=x(2, 4).abs(), mask=one_word),
            case("no padding", "extremes", per_query=x(2, 3).abs(), mask=torch.ones(2, 3).long()),
        ],
    }


# --- the right numbers, by the formulas, in float64 -------------------------------------------------------------------


def _log_relation(scores, mask):
    """Logarithm of the softmax over the real keys; padded keys hold -inf."""
    s = np.where(mask.bool().numpy()[:, None, None, :], scores, -np.inf)
    s = s - s.max(axis=-1, keepdims=True)
    return s - np.log(np.exp(s).sum(axis=-1, keepdims=True))


def _dots(a, b):
    a, b = a.double().numpy(), b.double().numpy()
    return np.einsum("bhid,bhjd->bhij", a, b) / np.sqrt(a.shape[-1])


def _relation(values, mask):
    return np.exp(_log_relation(_dots(values, values), mask))


def _kl(student, teacher, mask):
    """Sentence by sentence, on the real corner of the table only."""
    total = 0.0
    for b, length in enumerate(mask.sum(-1).tolist()):
        corner = torch.ones(1, length)
        log_q, log_p = (_log_relation(s[b:b + 1, :, :length, :length], corner) for s in (student, teacher))
        total += (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    return total / len(mask)


def _kl_gradient(student, teacher, mask):
    gradient = np.zeros_like(student)
    for b, length in enumerate(mask.sum(-1).tolist()):
        corner = torch.ones(1, length)
        q, p = (np.exp(_log_relation(s[b:b + 1, :, :length, :length], corner))[0] for s in (student, teacher))
        gradient[b, :, :length, :length] = (q - p) / (len(q) * length * len(mask))
    return gradient


def _relation_loss(student_scores, teacher_scores, mask):
    return _kl(student_scores.double().numpy(), teacher_scores.double().numpy(), mask)


def _relation_gradient(student_scores, teacher_scores, mask):
    return _kl_gradient(student_scores.double().numpy(), teacher_scores.double().numpy(), mask)


def _minilm(student_q, student_k, student_v, teacher_q, teacher_k, teacher_v, mask):
    attention = _kl(_dots(student_q, student_k), _dots(teacher_q, teacher_k), mask)
    return attention + _kl(_dots(student_v, student_v), _dots(teacher_v, teacher_v), mask)


def _minilm_gradient(student_q, student_k, student_v, teacher_q, teacher_k, teacher_v, mask):
    """V stands twice in V V^T, so the gradient of the scores counts in both directions."""
    of_scores = _kl_gradient(_dots(student_v, student_v), _dots(teacher_v, teacher_v), mask)
    both = of_scores + of_scores.swapaxes(-1, -2)
    return both @ student_v.double().numpy() / np.sqrt(student_v.shape[-1])


def _split_again(per_head, relation_heads):
    x = per_head.numpy()
    wide = np.concatenate([x[:, head] for head in range(x.shape[1])], axis=-1)
    return np.stack(np.split(wide, relation_heads, axis=-1), axis=1)


def _last_layer(layers):
    blocks = [f"block {i}" for i in range(1, layers + 1)]
    states = ["embeddings", *blocks]
    last = blocks.index(f"block {layers}")
    return last, last, states.index(blocks[-2] if layers > 1 else "embeddings"), states.index(f"block {layers}")


def _three_averages(per_query, mask):
    rows = [row[kept] for row, kept in zip(per_query.double().numpy(), mask.bool().numpy(), strict=True)]
    return np.array([np.mean([row.mean() for row in rows]), np.concatenate(rows).mean(), per_query.double().mean()])


EXPECTED = {"ch07.q1": _relation, "ch07.q2": _relation_loss, "ch07.q3": _minilm, "ch07.q4": _split_again,
            "ch07.q5": _last_layer, "ch07.q6": _three_averages}
GRADIENTS = {"ch07.q2": _relation_gradient, "ch07.q3": _minilm_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _scaled_by(size):
    return lambda values, mask: masked(values @ values.transpose(-1, -2) / size(values), mask).softmax(-1)


def _kl_that(average, *, key_mask=True, keys=lambda terms: terms.sum(-1), entropy=True):
    """KL per query, and then a mean that goes wrong."""
    def loss(student_scores, teacher_scores, mask):
        if key_mask:
            student_scores, teacher_scores = masked(student_scores, mask), masked(teacher_scores, mask)
        log_q, log_p = student_scores.log_softmax(-1), teacher_scores.log_softmax(-1)
        return average(keys(log_p.exp() * ((log_p if entropy else 0) - log_q)), mask)
    return loss


def _per_sentence(per_head_and_query, mask):
    return ((per_head_and_query.mean(1) * mask).sum(-1) / mask.sum(-1)).mean()


def _two_terms(*, relation=relation_loss, values=relation_loss, student_scale=None, second="v",
               join=lambda attention, value: attention + value):
    """MiniLM's loss with one thing changed."""
    def loss(student_q, student_k, student_v, teacher_q, teacher_k, teacher_v, mask):
        student = {"q": student_q, "k": student_k, "v": student_v}
        teacher = {"q": teacher_q, "k": teacher_k, "v": teacher_v}
        scale = student_scale or (lambda mine, theirs: mine.shape[-1] ** 0.5)

        def scores(mine, theirs, kinds):
            return mine[kinds[0]] @ mine[kinds[1]].transpose(-1, -2) / scale(mine[kinds[0]], theirs[kinds[0]])

        def term(measure, kinds):
            return measure(scores(student, teacher, kinds), scores(teacher, teacher, kinds), mask)

        return join(term(relation, "qk"), term(values, second if len(second) == 2 else 2 * second))
    return loss


def _rows_masked(values, mask):
    return scaled(values, values).masked_fill(~mask.bool()[:, None, :, None], -1e9).softmax(-1)


MISTAKES = {
    "ch07.q1": {
        "no_scale": _scaled_by(lambda v: 1.0),
        "by_d": _scaled_by(lambda v: v.shape[-1]),
        "by_width": _scaled_by(lambda v: (v.shape[1] * v.shape[-1]) ** 0.5),
        "no_mask": lambda values, mask: scaled(values, values).softmax(-1),
        "rows_masked": _rows_masked,
        "zero": lambda values, mask: (scaled(values, values) * mask[:, None, None, :]).softmax(-1),
        "after_softmax": lambda values, mask: scaled(values, values).softmax(-1) * mask[:, None, None, :],
        "dim": lambda values, mask: masked(scaled(values, values), mask).softmax(-2),
    },
    "ch07.q2": {
        "swapped": lambda student_scores, teacher_scores, mask: relation_loss(teacher_scores, student_scores, mask),
        "padded_queries": _kl_that(lambda per_query, mask: per_query.mean()),
        "padding_counts_as_0": _kl_that(lambda per_query, mask: (per_query.mean(1) * mask).mean()),
        "tokens": _kl_that(lambda per_query, mask: (per_query.mean(1) * mask).sum() / mask.sum()),
        "sum_over_heads": _kl_that(lambda per_query, mask: _per_sentence(per_query.sum(1, keepdim=True), mask)),
        "keys_not_masked": _kl_that(_per_sentence, key_mask=False),
        "mean_over_keys": _kl_that(_per_sentence, keys=lambda terms: terms.mean(-1)),
        "cross_entropy": _kl_that(_per_sentence, entropy=False),
    },
    "ch07.q3": {
        "attention_only": _two_terms(join=lambda attention, value: attention),
        "half": _two_terms(join=lambda attention, value: (attention + value) / 2),
        "one_scale": _two_terms(student_scale=lambda mine, theirs: theirs.shape[-1] ** 0.5),
        "by_width": _two_terms(student_scale=lambda mine, theirs: (mine.shape[1] * mine.shape[-1]) ** 0.5),
        "values_not_masked": _two_terms(values=_kl_that(_per_sentence, key_mask=False)),
        "keys_for_values": _two_terms(second="k"),
        "values_asked_by_queries": _two_terms(second="qv"),
        "swapped": _two_terms(relation=lambda s, t, mask: relation_loss(t, s, mask),
                              values=lambda s, t, mask: relation_loss(t, s, mask)),
    },
    "ch07.q4": {
        "plain_reshape": lambda per_head, relation_heads: per_head.reshape(
            len(per_head), relation_heads, per_head.shape[2], -1),
        "no_transpose_back": lambda per_head, relation_heads: per_head.transpose(1, 2).flatten(2).reshape(
            len(per_head), relation_heads, per_head.shape[2], -1),
        "interleaved": lambda per_head, relation_heads: per_head.transpose(1, 2).flatten(2).unflatten(
            2, (-1, relation_heads)).permute(0, 3, 1, 2),
        "width_first": lambda per_head, relation_heads: per_head.permute(0, 2, 3, 1).flatten(2).unflatten(
            2, (relation_heads, -1)).transpose(1, 2),
    },
    "ch07.q5": {
        "one_based": lambda layers: (layers, layers, layers, layers),
        "no_embedding_entry": lambda layers: (layers - 1, layers - 1, layers - 2, layers - 1),
        "out_for_in": lambda layers: (layers - 1, layers - 1, layers, layers),
        "from_the_end": lambda layers: (-1, -1, -2, -1),
    },
    "ch07.q6": {
        "swapped": lambda per_query, mask: three_averages(per_query, mask)[[1, 0, 2]],
        "padding_is_0": lambda per_query, mask: torch.stack([*three_averages(per_query, mask)[:2],
                                                             (per_query * mask).mean()]),
        "not_divided": lambda per_query, mask: three_averages(per_query, mask) * torch.tensor(
            [float(len(mask)), 1.0, 1.0]),
        "padded_length": lambda per_query, mask: torch.stack([(per_query * mask).mean(-1).mean(),
                                                              *three_averages(per_query, mask)[1:]]),
    },
}
