"""Chapter 2: solutions, typical mistakes, and the right numbers by NumPy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.notebook.exercises.reference.ch02 import distilled_loss, ngrams, sentence_vectors, which_rule
from solutions import case

IGNORED = -100

# --- inputs -----------------------------------------------------------------------------------------------------------

SENTENCES = [(words.split(), others.split()) for words, others in (
    ("the plot is thin but the acting is great", "a film was bad and no music has dull"),
    ("not a single good joke", "never the long funny scene"),
    ("so very slow .", "too quite bad !"),
)]


def _draws(g, count):
    """Draws in the middle of a hundredth, so that no border is met; both edits and a kept word are always there."""
    drawn = (torch.randint(0, 100, (count,), generator=g) + 0.5) / 100
    return [round(float(x), 3) for x in torch.cat([torch.tensor([0.045, 0.145, 0.955]), drawn])[:count]]


def _padding(*lengths):
    return torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def z(*shape, size=2.0):
        return size * torch.randn(*shape, generator=g)

    def edit(number, about, p_mask, p_pos, stage="numbers"):
        words, others = SENTENCES[number]
        return case(about, stage, words=list(words), others=list(others), draws=_draws(g, len(words)), p_mask=p_mask,
                    p_pos=p_pos)

    def rule(name, p_mask, p_pos, stage="numbers"):
        masked, replaced = _shares(p_mask, p_pos)[name]
        return case(f"measured shares {masked:.2f} and {replaced:.2f} for p_mask = {p_mask}, p_pos = {p_pos}", stage,
                    masked=round(masked + 0.004, 4), replaced=round(abs(replaced - 0.003), 4), p_mask=p_mask,
                    p_pos=p_pos)

    mixed, none = torch.tensor([0, -100, 2, 1, -100]), torch.full((4,), IGNORED)
    student, short = "student_logits", ["so", "slow"]
    pair = {"student_logits": torch.tensor([[2.0, 0.0]]), "teacher_logits": torch.tensor([[0.0, 1.0]])}
    huge = torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, 1e4]])
    return {
        "ch02.q1": [
            case("three words at 0.1 and 0.1", words=["a", "dull", "film"], others=["the", "bad", "plot"],
                 draws=[0.05, 0.15, 0.95], p_mask=0.1, p_pos=0.1),
            edit(0, "nine words at 0.1 and 0.1", 0.1, 0.1),
            edit(1, "five words at 0.1 and 0.3", 0.1, 0.3),
            edit(2, "four words at 0.2 and 0.1", 0.2, 0.1),
            edit(0, "p_mask = 1", 1.0, 0.0, "extremes"),
            edit(1, "p_mask = 0 and p_pos = 1", 0.0, 1.0, "extremes"),
            case("an empty sentence", "extremes", words=[], others=[], draws=[], p_mask=0.1, p_pos=0.1),
        ],
        "ch02.q2": [
            case("one sentence of two words and a padding", forward_states=torch.tensor([[[1.0], [2.0], [9.0]]]),
                 backward_states=torch.tensor([[[3.0], [4.0], [8.0]]]), mask=_padding(2, 3)[:1]),
            case("sentences of 4, 2 and 3 words", forward_states=z(3, 4, 2), backward_states=z(3, 4, 2),
                 mask=_padding(4, 2, 3)),
            case("sentences of 2 and 5 words", forward_states=z(2, 5, 3), backward_states=z(2, 5, 3),
                 mask=_padding(2, 5)),
            case("no padding at all", forward_states=z(2, 3, 4), backward_states=z(2, 3, 4), mask=_padding(3, 3)),
            case("a sentence of one word", "extremes", forward_states=z(2, 4, 2), backward_states=z(2, 4, 2),
                 mask=_padding(1, 4)),
        ],
        "ch02.q3": [
            case("one sentence without a label", labels=torch.tensor([-100]), alpha=0.25, **pair),
            case("alpha = 0.3, two of five labels missing", gradient_of=student, student_logits=z(5, 3),
                 teacher_logits=z(5, 3), labels=mixed, alpha=0.3),
            case("alpha = 0.8, two classes", gradient_of=student, student_logits=z(4, 2), teacher_logits=z(4, 2),
                 labels=torch.tensor([-100, 0, 1, 0]), alpha=0.8),
            case("alpha = 0.5, three classes", student_logits=z(5, 3), teacher_logits=z(5, 3), labels=mixed, alpha=0.5),
            case("no true label at all", "extremes", student_logits=z(4, 3), teacher_logits=z(4, 3), labels=none,
                 alpha=1.0),
            case("alpha = 0 without labels", "extremes", student_logits=z(4, 3), teacher_logits=z(4, 3), labels=none,
                 alpha=0.0),
        ],
        "ch02.q4": [
            case("three words, n = 2", words=["a", "dull", "film"], n=2),
            case("nine words, n = 3", words=list(SENTENCES[0][0]), n=3),
            case("five words, n = 4", words=list(SENTENCES[1][0]), n=4),
            case("two words, n = 3", words=list(short), n=3),
            case("exactly n words", "extremes", words=list(SENTENCES[2][0]), n=4),
            case("one word, n = 1", "extremes", words=["great"], n=1),
        ],
        "ch02.q5": [
            *(rule(name, 0.1, 0.3) for name in ("right", "inverted", "no sum", "two draws")),
            *(rule(name, 0.2, 0.2) for name in ("right", "inverted", "no sum", "two draws")),
            *(rule(name, 0.3, 0.5) for name in ("right", "no sum", "two draws")),
            # 1 - p_mask is near p_mask here, and only the replaced words tell the codes apart.
            rule("inverted", 0.48, 0.25), rule("two draws", 0.48, 0.25),
            rule("no sum", 0.3, 0.1, "extremes"), rule("inverted", 0.3, 0.1, "extremes"),
        ],
        "ch02.q6": [
            case("one example with two classes", **pair),
            case("4 x 3 logits", student_logits=z(4, 3, size=1.0), teacher_logits=z(4, 3)),
            case("3 x 5 logits", student_logits=z(3, 5, size=1.0), teacher_logits=z(3, 5)),
            case("6 x 2 logits", student_logits=z(6, 2, size=1.0), teacher_logits=z(6, 2)),
            case("logits of 10,000", "extremes", student_logits=huge, teacher_logits=-huge),
        ],
    }


# --- the right numbers, by the formulas, in float64 -------------------------------------------------------------------


def _p(logits):
    z = logits.double().numpy()
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _edited(words, others, draws, p_mask, p_pos):
    """By counting borders: 0 of them behind X = masked, 1 = replaced, 2 = kept."""
    borders = np.array([p_mask, p_mask + p_pos])
    return [("[MASK]", other, word)[int((x >= borders).sum())]
            for word, other, x in zip(words, others, draws, strict=True)]


def _vectors(forward_states, backward_states, mask):
    rows = [np.concatenate([f[m == 1][-1], b[0]]) for f, b, m in zip(
        forward_states.numpy(), backward_states.numpy(), mask.numpy(), strict=True)]
    return np.stack(rows)


def _filled(teacher_logits, labels):
    best = teacher_logits.numpy().argmax(axis=-1)
    return [int(b) if label == IGNORED else label for b, label in zip(best, labels.tolist(), strict=True)]


def _loss(student_logits, teacher_logits, labels, alpha):
    gap = teacher_logits.double().numpy() - student_logits.double().numpy()
    hard = -np.mean([np.log(row[label]) for row, label in zip(
        _p(student_logits), _filled(teacher_logits, labels), strict=True)])
    return alpha * hard + (1 - alpha) * (gap**2).sum(axis=-1).mean()


def _loss_gradient(student_logits, teacher_logits, labels, alpha):
    gap = student_logits.double().numpy() - teacher_logits.double().numpy()
    one_hot = np.eye(gap.shape[1])[_filled(teacher_logits, labels)]
    return (alpha * (_p(student_logits) - one_hot) + (1 - alpha) * 2 * gap) / len(gap)


def _ngrams(words, n):
    return [list(gram) for gram in zip(*(words[i:] for i in range(min(n, len(words)))), strict=False)]


def _shares(p_mask, p_pos):
    """Share of masked and replaced words that each code gives."""
    return {"right": (p_mask, p_pos), "inverted": (1 - p_mask, p_mask),
            "no sum": (p_mask, max(0.0, p_pos - p_mask)), "two draws": (p_mask, (1 - p_mask) * p_pos)}


def _nearest(shares):
    def rule(masked, replaced, p_mask, p_pos):
        expected = shares(p_mask, p_pos)
        return min(expected, key=lambda name: np.hypot(expected[name][0] - masked, expected[name][1] - replaced))
    return rule


def _jacobian_gradient(student_logits, teacher_logits):
    """Through the Jacobian of the softmax, row by row: dq_i / dz_k = q_i (1{i = k} - q_k)."""
    q, p = _p(student_logits), _p(teacher_logits)
    return np.stack([(np.diag(a) - np.outer(a, a)) @ (2 * (a - b)) for a, b in zip(q, p, strict=True)]) / len(q)


EXPECTED = {
    "ch02.q1": _edited,
    "ch02.q2": _vectors,
    "ch02.q3": _loss,
    "ch02.q4": _ngrams,
    "ch02.q5": _nearest(_shares),
    "ch02.q6": _jacobian_gradient,
}
GRADIENTS = {"ch02.q3": _loss_gradient}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _word_by_word(choose):
    def rule(words, others, draws, p_mask, p_pos):
        return [choose(word, other, x, p_mask, p_pos) for word, other, x in zip(words, others, draws, strict=True)]
    return rule


def _states(forward, backward):
    """forward, backward: which row to take: "first", "last word" or "last column"."""
    def vectors(forward_states, backward_states, mask):
        rows = {"first": 0, "last word": mask.sum(dim=1) - 1, "last column": -1}
        each = torch.arange(len(mask))
        return torch.cat([forward_states[each, rows[forward]], backward_states[each, rows[backward]]], dim=-1)
    return vectors


def _mean_states(forward_states, backward_states, mask):
    both = torch.cat([forward_states, backward_states], dim=-1)
    return (both * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _swapped_states(forward_states, backward_states, mask):
    return sentence_vectors(forward_states, backward_states, mask).roll(forward_states.shape[-1], dims=-1)


def _loss_with(distance=None, fill=None):
    """The right loss but for the distance, or but for how missing labels are filled."""
    def loss(student_logits, teacher_logits, labels, *, alpha):
        filled = torch.where(labels == -100, teacher_logits.argmax(dim=-1), labels)
        filled = fill(labels, student_logits, teacher_logits) if fill else filled
        gap = distance or (lambda s, t: ((s - t) ** 2).sum(dim=-1).mean())
        return alpha * F.cross_entropy(student_logits, filled) + (1 - alpha) * gap(student_logits, teacher_logits)
    return loss


def _nearest_but(**changed):
    def shares(p_mask, p_pos):
        expected = _shares(p_mask, p_pos)
        return expected | {name.replace("_", " "): change(p_mask, p_pos) for name, change in changed.items()}
    return _nearest(shares)


def _masked_only(masked, replaced, p_mask, p_pos):
    return min(("right", "inverted"), key=lambda name: abs(_shares(p_mask, p_pos)[name][0] - masked))


def _farthest(masked, replaced, p_mask, p_pos):
    expected = _shares(p_mask, p_pos)
    return max(expected, key=lambda name: abs(expected[name][0] - masked) + abs(expected[name][1] - replaced))


def _wrong_gradient(formula):
    def gradient(student_logits, teacher_logits):
        return formula(student_logits.softmax(dim=-1), teacher_logits.softmax(dim=-1))
    return gradient


def _through(q, g):
    return q * (g - (q * g).sum(dim=-1, keepdim=True))


MISTAKES = {
    "ch02.q1": {
        "inverted": _word_by_word(lambda word, other, x, p_mask, p_pos:
                                  "[MASK]" if x > p_mask else other if x < p_mask + p_pos else word),
        "no_sum": _word_by_word(lambda word, other, x, p_mask, p_pos:
                                "[MASK]" if x < p_mask else other if x < p_pos else word),
        "replaced_first": _word_by_word(lambda word, other, x, p_mask, p_pos:
                                        other if x < p_mask + p_pos else "[MASK]" if x < p_mask else word),
        "swapped": _word_by_word(lambda word, other, x, p_mask, p_pos:
                                 other if x < p_mask else "[MASK]" if x < p_mask + p_pos else word),
        "dropped": lambda words, others, draws, p_mask, p_pos: [
            "[MASK]" if x < p_mask else other for other, x in zip(others, draws, strict=True) if x < p_mask + p_pos],
        "never_replaced": _word_by_word(lambda word, other, x, p_mask, p_pos: "[MASK]" if x < p_mask else word),
        "never_masked": _word_by_word(lambda word, other, x, p_mask, p_pos: other if p_mask <= x < p_mask + p_pos
                                      else word),
        "upper_end": _word_by_word(lambda word, other, x, p_mask, p_pos: "[MASK]" if x < p_mask
                                   else other if x > 1 - p_pos else word),
        "no_brackets": _word_by_word(lambda word, other, x, p_mask, p_pos: "MASK" if x < p_mask
                                     else other if x < p_mask + p_pos else word),
        "deleted": lambda words, others, draws, p_mask, p_pos: [
            other if x < p_mask + p_pos else word for word, other, x in zip(words, others, draws, strict=True)
            if x >= p_mask],
    },
    "ch02.q2": {
        "last_column": _states("last column", "first"),
        "backward_at_the_end": _states("last word", "last word"),
        "both_first": _states("first", "first"),
        "swapped": _swapped_states,
        "mean": _mean_states,
        "mixed": _states("last column", "last column"),
        "backward_last_column": _states("last word", "last column"),
        "mean_with_padding": lambda forward_states, backward_states, mask: torch.cat(
            [forward_states, backward_states], dim=-1).mean(dim=1),
        "largest": lambda forward_states, backward_states, mask: torch.cat(
            [forward_states, backward_states], dim=-1).masked_fill(mask[..., None] == 0, -1e9).amax(dim=1),
        "word_before": lambda forward_states, backward_states, mask: torch.cat(
            [forward_states[torch.arange(len(mask)), mask.sum(dim=1) - 2], backward_states[:, 0]], dim=-1),
    },
    "ch02.q3": {
        "mean": _loss_with(F.mse_loss),
        "sum": _loss_with(lambda s, t: F.mse_loss(s, t, reduction="sum")),
        "probabilities": _loss_with(lambda s, t: ((s.softmax(-1) - t.softmax(-1)) ** 2).sum(dim=-1).mean()),
        "log_probabilities": _loss_with(
            lambda s, t: ((s.log_softmax(-1) - t.log_softmax(-1)) ** 2).sum(dim=-1).mean()),
        "alpha_swapped": lambda student_logits, teacher_logits, labels, alpha: distilled_loss(
            student_logits, teacher_logits, labels, alpha=1 - alpha),
        "left_out": _loss_with(fill=lambda labels, s, t: labels),
        "always_the_teacher": _loss_with(fill=lambda labels, s, t: t.argmax(dim=-1)),
        "students_own": _loss_with(fill=lambda labels, s, t: torch.where(labels == -100, s.argmax(dim=-1), labels)),
        "not_squared": _loss_with(lambda s, t: (s - t).norm(dim=-1).mean()),
    },
    "ch02.q4": {
        "last_one_forgotten": lambda words, n: [list(words)] if len(words) <= n else [
            words[i:i + n] for i in range(len(words) - n)],
        "tails": lambda words, n: [list(words)] if len(words) <= n else [words[i:i + n] for i in range(len(words))],
        "nothing_for_short": lambda words, n: [words[i:i + n] for i in range(len(words) - n + 1)],
        "no_overlap": lambda words, n: [list(words)] if len(words) <= n else [
            words[i:i + n] for i in range(0, len(words) - n + 1, n)],
        "longer": lambda words, n: [list(words)] if len(words) <= n else [
            words[i:i + n + 1] for i in range(len(words) - n)],
        "first_only": lambda words, n: [words[:n]],
        "all_lengths": lambda words, n: [list(words)] if len(words) <= n else [
            words[i:i + k] for k in range(1, n + 1) for i in range(len(words) - k + 1)],
        "reversed": lambda words, n: ngrams(words, n)[::-1],
    },
    "ch02.q5": {
        "masked_only": _masked_only,
        "inverted_as_swapped": _nearest_but(inverted=lambda p_mask, p_pos: (p_mask, 1 - p_mask)),
        "two_draws_multiplied": _nearest_but(two_draws=lambda p_mask, p_pos: (p_mask, p_mask * p_pos)),
        "no_sum_is_zero": _nearest_but(no_sum=lambda p_mask, p_pos: (p_mask, 0.0)),
        "farthest": _farthest,
        "replaced_only": lambda masked, replaced, p_mask, p_pos: min(
            _shares(p_mask, p_pos), key=lambda name: abs(_shares(p_mask, p_pos)[name][1] - replaced)),
        "always_right": lambda masked, replaced, p_mask, p_pos: "right",
        "crossed": lambda masked, replaced, p_mask, p_pos: which_rule(replaced, masked, p_mask, p_pos),
        "inverted_replaces_none": _nearest_but(inverted=lambda p_mask, p_pos: (p_mask, 0.0)),
        "two_draws_as_right": _nearest_but(two_draws=lambda p_mask, p_pos: (p_mask, 1 - p_pos)),
    },
    "ch02.q6": {
        "not_through_the_softmax": _wrong_gradient(lambda q, p: 2 * (q - p) / len(q)),
        "of_logits": lambda student_logits, teacher_logits: 2 * (student_logits - teacher_logits) / len(student_logits),
        "of_kl": _wrong_gradient(lambda q, p: (q - p) / len(q)),
        "no_centre": _wrong_gradient(lambda q, p: q * 2 * (q - p) / len(q)),
        "no_two": _wrong_gradient(lambda q, p: _through(q, q - p) / len(q)),
        "no_batch": _wrong_gradient(lambda q, p: _through(q, 2 * (q - p))),
        "sign": _wrong_gradient(lambda q, p: -_through(q, 2 * (q - p)) / len(q)),
        "per_number": _wrong_gradient(lambda q, p: _through(q, 2 * (q - p)) / q.numel()),
        "diagonal": _wrong_gradient(lambda q, p: q * (1 - q) * 2 * (q - p) / len(q)),
        "through_the_teacher": _wrong_gradient(lambda q, p: _through(p, 2 * (q - p)) / len(q)),
    },
}
