"""Chapter 0: solutions, typical mistakes, and the right answers in another way."""

from __future__ import annotations

import re

import numpy as np
import torch

from course_lib.notebook.exercises.reference.ch00 import mask_tokens, wordpiece
from solutions import case

VOCABULARY = {"a", "d", "di", "dis", "distil", "##l", "##lation", "##la", "##tion", "##ti", "##on", "stu", "student",
              "##dent", "##s", "s", "un", "##aff", "##able", "##ab", "##le", "walk", "##ing", "ing", "wal", "##king",
              "##k", "teach", "##er", "##e", "##r", "[UNK]"}
SIX = {"walk", "wal", "##king", "##ing", "ing", "[UNK]"}


def cases(seed):
    g = torch.Generator().manual_seed(seed)

    def attention(heads, tokens):
        return torch.softmax(1.5 * torch.randn(heads, tokens, tokens, generator=g), dim=-1)

    ids = torch.randint(1000, 9000, (2, 6), generator=g)
    words = ["distillation", "students", "unaffable", "walking", "unwalk", "teacher", "disxyz", "walkings"]
    some = torch.rand(2, 6, generator=g) < 0.4
    some[0, 0] = True
    split = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.1, 0.5, 0.4]]).unsqueeze(1).expand(3, 3, 3).contiguous()
    leak = attention(2, 5)
    leak[:, :, 4] += 2.0
    leak /= leak.sum(-1, keepdim=True)
    return {
        "ch00.q1": [case('the word "walking" and six pieces', word="walking", vocabulary=set(SIX))]
        + [case(f'the word "{word}"', word=word, vocabulary=set(VOCABULARY)) for word in words]
        + [case(about, "extremes", word=word, vocabulary=set(VOCABULARY)) for about, word in
           (("a word of one letter", "a"), ("a whole word", "student"), ("an unknown letter", "q"))],
        "ch00.q2": [
            case("three tokens", input_ids=torch.tensor([[7, 8, 9]]), chosen=torch.tensor([[False, True, False]]),
                 mask_id=4),
            case("2 sentences of 6 tokens", input_ids=ids, chosen=some, mask_id=103),
            case("one sentence", input_ids=ids[:1, :4].contiguous(), chosen=torch.tensor([[False, True, False, True]]),
                 mask_id=7),
            case("a batch where nothing is chosen", "extremes", input_ids=ids, chosen=torch.zeros(2, 6).bool(),
                 mask_id=103),
            case("a batch where everything is chosen", "extremes", input_ids=ids, chosen=torch.ones(2, 6).bool(),
                 mask_id=103),
        ],
        "ch00.q3": [
            case("two heads and three tokens", attention_probs=torch.tensor([
                [[0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [0.6, 0.2, 0.2]],
                [[0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.1, 0.1, 0.8]]]), query=0, attention_mask=torch.ones(3).long()),
            *(case(f"place {query} of 7 tokens", attention_probs=attention(3, 7), query=query,
                   attention_mask=torch.ones(7).long()) for query in (1, 4, 6, 2)),
            case("two heads against one", attention_probs=split, query=0, attention_mask=torch.ones(3).long()),
            case("a padded token that gets most attention", attention_probs=leak, query=1,
                 attention_mask=torch.tensor([1, 1, 1, 1, 0])),
            case("a sentence with one real token", "extremes", attention_probs=attention(2, 3), query=0,
                 attention_mask=torch.tensor([1, 0, 0])),
        ],
    }


# --- the right answers, in another way --------------------------------------------------------------------------------


def _wordpiece(word: str, vocabulary: set[str]) -> list[str]:
    """Greedy matching is what a regular expression does when the longer alternatives come first."""
    def pattern(pieces):
        return "|".join(re.escape(piece) for piece in sorted(pieces, key=len, reverse=True))

    inside = [p[2:] for p in vocabulary if p.startswith("##")]
    first = re.match(pattern(p for p in vocabulary if not p.startswith("##")), word)
    if not first:
        return ["[UNK]"]
    rest = re.findall(pattern(inside), word[first.end():])
    pieces = [first.group(), *("##" + piece for piece in rest)]
    return pieces if "".join(pieces).replace("##", "") == word else ["[UNK]"]


def _mask_tokens(input_ids, chosen, mask_id):
    ids, where = input_ids.numpy(), chosen.numpy()
    return np.where(where, mask_id, ids), np.where(where, ids, -100)


def _most_attended(attention_probs, query, attention_mask):
    row = attention_probs.double().numpy()[:, query].mean(axis=0)
    return max((p, place) for place, p in enumerate(row) if attention_mask[place])[1]


EXPECTED = {"ch00.q1": _wordpiece, "ch00.q2": _mask_tokens, "ch00.q3": _most_attended}
GRADIENTS = {}


# --- what a learner in a hurry writes ---------------------------------------------------------------------------------


def _greedy(word, vocabulary, longest=True, look_up="##", write="##", keep_partial=False):
    pieces, start = [], 0
    while start < len(word):
        ends = range(len(word), start, -1) if longest else range(start + 1, len(word) + 1)
        end = next((e for e in ends if (look_up if start else "") + word[start:e] in vocabulary), None)
        if end is None:
            return [*pieces, "[UNK]"] if keep_partial else ["[UNK]"]
        pieces.append((write if start else "") + word[start:end])
        start = end
    return pieces


def _from_the_end(word, vocabulary):
    pieces, end = [], len(word)
    while end > 0:
        start = next((s for s in range(end) if ("##" if s else "") + word[s:end] in vocabulary), None)
        if start is None:
            return ["[UNK]"]
        pieces.insert(0, ("##" if start else "") + word[start:end])
        end = start
    return pieces


def _goes_on_after_unk(word, vocabulary):
    pieces, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        end = next((e for e in range(len(word), start, -1) if mark + word[start:e] in vocabulary), start)
        pieces.append(mark + word[start:end] if end > start else "[UNK]")
        start = max(end, start + 1)
    return pieces


def _unknown_kept(word, vocabulary):
    pieces = wordpiece(word, vocabulary)
    return [word] if pieces == ["[UNK]"] else pieces


def _attended(table, column=False, mask=True):
    def place(attention_probs, query, attention_mask):
        two = table(attention_probs)
        row = two[:, query] if column else two[query]
        return int((row.masked_fill(attention_mask == 0, -1.0) if mask else row).argmax())
    return place


def _labelled(labels, hide=lambda ids, chosen, mask_id: torch.where(chosen, mask_id, ids)):
    def masked(input_ids, chosen, mask_id):
        hidden = hide(input_ids, chosen, mask_id)
        return hidden, labels(input_ids, chosen, hidden)
    return masked


MISTAKES = {
    "ch00.q1": {
        "shortest": lambda word, vocabulary: _greedy(word, vocabulary, longest=False),
        "no_marks": lambda word, vocabulary: _greedy(word, vocabulary, write=""),
        "marks_only_in_answer": lambda word, vocabulary: _greedy(word, vocabulary, look_up=""),
        "partial_unk": lambda word, vocabulary: _greedy(word, vocabulary, keep_partial=True),
        "no_marks_anywhere": lambda word, vocabulary: _greedy(word, vocabulary, look_up="", write=""),
        "marks_on_first": lambda word, vocabulary: ["##" + piece.removeprefix("##") if piece != "[UNK]" else piece
                                                    for piece in wordpiece(word, vocabulary)],
        "from_the_end": _from_the_end,
        "letters": lambda word, vocabulary: [("##" if i else "") + letter for i, letter in enumerate(word)],
        "goes_on_after_unk": _goes_on_after_unk,
        "unknown_kept": _unknown_kept,
    },
    "ch00.q2": {
        "labels_everywhere": _labelled(lambda ids, chosen, hidden: ids),
        "labels_inverted": _labelled(lambda ids, chosen, hidden: torch.where(chosen, -100, ids)),
        "labels_masked": _labelled(lambda ids, chosen, hidden: torch.where(chosen, hidden, -100)),
        "ignore_0": _labelled(lambda ids, chosen, hidden: torch.where(chosen, ids, 0)),
        "swapped": lambda input_ids, chosen, mask_id: mask_tokens(input_ids, chosen, mask_id)[::-1],
        "hides_the_others": _labelled(lambda ids, chosen, hidden: torch.where(chosen, ids, -100),
                                      lambda ids, chosen, mask_id: torch.where(chosen, ids, mask_id)),
        "hides_nothing": _labelled(lambda ids, chosen, hidden: torch.where(chosen, ids, -100),
                                   lambda ids, chosen, mask_id: ids.clone()),
        "hides_all": _labelled(lambda ids, chosen, hidden: torch.where(chosen, ids, -100),
                               lambda ids, chosen, mask_id: torch.full_like(ids, mask_id)),
        "hides_with_0": _labelled(lambda ids, chosen, hidden: torch.where(chosen, ids, -100),
                                  lambda ids, chosen, mask_id: torch.where(chosen, 0, ids)),
        "labels_yes_no": _labelled(lambda ids, chosen, hidden: chosen.long()),
        "ignore_minus_1": _labelled(lambda ids, chosen, hidden: torch.where(chosen, ids, -1)),
    },
    "ch00.q3": {
        "column": _attended(lambda a: a.mean(0), column=True),
        "head_0": _attended(lambda a: a[0]),
        "padding": _attended(lambda a: a.mean(0), mask=False),
        "max_over_heads": _attended(lambda a: a.amax(0)),
        "query_itself": lambda attention_probs, query, attention_mask: query,
        "least": _attended(lambda a: -a.mean(0)),
        "last_head": _attended(lambda a: a[-1]),
        "whole_table": lambda attention_probs, query, attention_mask: int(attention_probs.mean(0).argmax()),
        "all_rows": _attended(lambda a: a.mean((0, 1)).expand(a.shape[1], -1)),
        "counts_from_1": lambda attention_probs, query, attention_mask: 1 + _attended(lambda a: a.mean(0))(
            attention_probs, query, attention_mask),
        "mask_inverted": lambda attention_probs, query, attention_mask: int(
            attention_probs.mean(0)[query].masked_fill(attention_mask == 1, -1.0).argmax()),
    },
}
