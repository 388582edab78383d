"""Exercises of chapter 7, MiniLM: relations between tokens instead of hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, numbers


def _noise(*shape: int, seed: int = 7, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _as_tensor(answer: Value) -> torch.Tensor:
    return torch.tensor(numbers(answer), dtype=torch.float64).reshape(answer.shape)


def _is_zero(answers: Sequence[Value]) -> bool:
    return all(abs(number) < 1e-5 for number in numbers(answers[0]))


MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
LONGER = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])


def _padded(*shape: int, seed: int, rubbish: int, where: tuple[int, ...]) -> torch.Tensor:
    """The same numbers in the real part, other ones in six (instead of four) columns."""
    tensor = _noise(*(6 if place in where else size for place, size in enumerate(shape)), seed=rubbish, size=3.0)
    tensor[tuple(slice(0, 4) if place in where else slice(None) for place in range(len(shape)))] = _noise(*shape,
                                                                                                       seed=seed)
    return tensor


# --- q1 ---------------------------------------------------------------------------------------------------------------


def _same_real_part(answers: Sequence[Value]) -> bool:
    one, other = map(_as_tensor, answers)
    return torch.allclose(one, other[:, :, :4, :4], atol=1e-4) and bool((other[:, :, :, 4:].abs() < 1e-6).all())


RELATION = Question(
    name="ch07.q1",
    title="A value relation",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def value_relation(values: Tensor, mask: Tensor) -> Tensor:
    """softmax(V V^T / sqrt(d)) for every head: how strongly each token relates
    to each other token.

    values: (batch, heads, tokens, d), the values of one layer, already split
    into heads.
    mask: (batch, tokens), 1 = a real token, 0 = padding. No token may relate to
    padding.
    Returns: (batch, heads, tokens, tokens); rows ask, columns answer, and every
    row sums to 1.
    """
    raise NotImplementedError("ch07.q1")
''',
    hints=("values @ values.transpose(-1, -2) gives all dot products at once. d is values.shape[-1].",
           "Padding must leave before the softmax: masked_fill the COLUMNS of padded tokens, mask[:, None, None, :], "
           "with a very large negative number."),
    mistakes={
        "no_scale": "The division by sqrt(d) is missing, so the relations are too sharp.",
        "by_d": "You divide by d. It must be the square root of d.",
        "by_width": "You divide by the square root of the whole width, heads * d. Each head has its own size d.",
        "no_mask": "The mask has no effect: real tokens relate to padding.",
        "rows_masked": "You mask the rows, the tokens that ask. Mask the columns: nobody may relate to padding.",
        "zero": "A score of 0 is no mask: exp(0) is 1. Fill in a very large negative number.",
        "after_softmax": "You remove padding after the softmax, so the rows no longer sum to 1. Mask the scores first.",
        "dim": "The softmax runs over the rows. Each row must sum to 1: dim=-1.",
    },
    extremes="exp overflows: let torch.softmax subtract the largest score of each row.",
    properties=(
        Property("What stands in the padding, and how long it is, must not matter.",
                 lambda: [Call((_noise(2, 3, 4, 5), MASK)),
                          Call((_padded(2, 3, 4, 5, seed=7, rubbish=30, where=(2,)), LONGER))], _same_real_part),
        Property("Turning all values of a head by the same rotation must change nothing: only dot products count.",
                 lambda: [Call((values := _noise(2, 2, 4, 3), MASK)),
                          Call((values @ torch.linalg.qr(_noise(3, 3, seed=9))[0], MASK))], all_equal),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------

RELATION_KL = Question(
    name="ch07.q2",
    title="How far two relations are from each other",
    points=3,
    difficulty=3,
    minutes=14,
    stub='''\
def relation_loss(student_scores: Tensor, teacher_scores: Tensor,
                  mask: Tensor) -> Tensor:
    """KL(teacher || student) of two relations, averaged over heads and real
    query positions.

    student_scores, teacher_scores: (batch, heads, tokens, tokens), scaled dot
    products BEFORE the softmax.
    mask: (batch, tokens), 1 = a real token. Padded keys leave both softmaxes,
    padded queries leave the mean.
    Returns: one number, as a tensor of shape (). Each sentence is averaged over
    its own real tokens first, then the sentences are averaged.
    """
    raise NotImplementedError("ch07.q2")
''',
    hints=("Three steps: mask the keys on both sides and take log_softmax; sum p * (log p - log q) over the keys; then "
           "average over heads, over the real queries of each sentence, and over the sentences.",
           "Fill with torch.finfo(scores.dtype).min and not with -inf: 0 * (-inf + inf) is NaN. For the queries: "
           "(per_query * mask).sum(-1) / mask.sum(-1), with per_query of shape (batch, tokens)."),
    mistakes={
        "swapped": "Teacher and student are swapped: this is KL(student || teacher).",
        "padded_queries": "Padded queries take part in the mean. Only real tokens ask.",
        "padding_counts_as_0": "Padded queries add nothing, but they still count in the mean. Divide by the number of "
                               "real tokens.",
        "tokens": "This is one mean over all tokens of the batch. Average each sentence over its own length first.",
        "sum_over_heads": "You sum over the heads. Take their mean.",
        "keys_not_masked": "Padded keys are still in the softmax. Mask the columns on both sides before it.",
        "mean_over_keys": "You average over the keys too. A KL is the SUM over the keys.",
        "cross_entropy": "This is the cross-entropy. A perfect student must have loss 0: subtract the teacher's "
                         "entropy, or use log p - log q.",
    },
    extremes="Use log_softmax, and a finite fill value for padding: the logarithm of 0 makes NaN.",
    gradient="The loss must be differentiable for the student, and padded places must get gradient 0, not NaN.",
    properties=(
        Property("A student with the teacher's scores must have loss 0.",
                 lambda: [Call((_noise(2, 3, 4, 4), _noise(2, 3, 4, 4), MASK))], _is_zero),
        Property("A longer padding must change nothing.",
                 lambda: [Call((_noise(2, 3, 4, 4), _noise(2, 3, 4, 4, seed=8), MASK)),
                          Call((_padded(2, 3, 4, 4, seed=7, rubbish=30, where=(2, 3)),
                                _padded(2, 3, 4, 4, seed=8, rubbish=31, where=(2, 3)), LONGER))], all_equal),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------


def _a_turned_copy() -> list[Call]:
    """A student whose heads are the teacher's, turned, and with zeros behind: other widths, the same dot products."""
    turn = torch.linalg.qr(_noise(3, 3, seed=9))[0]
    teacher = [_noise(2, 2, 4, 3, seed=seed) for seed in (1, 2, 3)]
    wider = [torch.nn.functional.pad(part @ turn, (0, 9)) * 2**0.5 for part in teacher]  # sqrt(12) = 2 sqrt(3)
    return [Call((*wider, *teacher, MASK))]


WHOLE_LOSS = Question(
    name="ch07.q3",
    title="The loss of MiniLM",
    points=4,
    difficulty=2,
    minutes=12,
    stub='''\
def minilm_loss(
    student_q: Tensor,
    student_k: Tensor,
    student_v: Tensor,
    teacher_q: Tensor,
    teacher_k: Tensor,
    teacher_v: Tensor,
    mask: Tensor,
) -> Tensor:
    """L_AT + L_VR: your relation loss of the attention Q K^T / sqrt(d), plus
    that of the values V V^T / sqrt(d).

    student_*: (batch, heads, tokens, d_student). teacher_*: (batch, heads,
    tokens, d_teacher). The two d may differ.
    mask: (batch, tokens), 1 = a real token. Returns: one number, as a tensor of
    shape ().
    """
    raise NotImplementedError("ch07.q3")
''',
    hints=("Make four tables of scores, two for each model, and call your relation_loss twice.",
           "Each side divides by its own square root: student_q.shape[-1] ** 0.5 for the student, and "
           "teacher_q.shape[-1] ** 0.5 for the teacher. The mask goes into both calls."),
    mistakes={
        "attention_only": "The value relation is missing: this is L_AT alone.",
        "half": "You take the mean of the two terms. MiniLM adds them up.",
        "one_scale": "The student's scores are divided by the teacher's sqrt(d). Each model uses its own.",
        "by_width": "You divide by the square root of the whole width, heads * d. Each head has its own size d.",
        "values_not_masked": "The value relation does not use the mask: padding is related to.",
        "keys_for_values": "The second relation is made of keys. Value relation means V V^T.",
        "values_asked_by_queries": "The second relation multiplies queries and values. It must be values and values.",
        "swapped": "Teacher and student are swapped in the KL.",
    },
    extremes="Scores must be divided, masked and put through log_softmax, in this order.",
    gradient="Both places where the student's values stand in V V^T must carry a gradient: no .detach() there.",
    properties=(
        Property("A student of another width with the same scaled dot products must have loss 0.",
                 _a_turned_copy, _is_zero),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

SPLIT_AGAIN = Question(
    name="ch07.q4",
    title="Relation heads of version 2",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def split_again(per_head: Tensor, relation_heads: int) -> Tensor:
    """Put all attention heads side by side, then cut the whole width into
    relation heads.

    per_head: (batch, heads, tokens, d). Side by side means (batch, tokens,
    heads * d), head 0 first.
    relation_heads: how many slices; it divides heads * d.
    Returns: (batch, relation_heads, tokens, heads * d / relation_heads).
    """
    raise NotImplementedError("ch07.q4")
''',
    hints=("Two moves: heads and tokens change places and the heads are joined; then the inverse with another number.",
           "per_head.transpose(1, 2).flatten(2) joins. For the cut, reshape the LAST dimension into "
           "(relation_heads, -1) and transpose tokens and heads again."),
    mistakes={
        "plain_reshape": "reshape alone reads the numbers in memory order and mixes tokens. Join the heads first: "
                         "transpose(1, 2), then flatten(2).",
        "no_transpose_back": "The heads are joined well, but the cut mixes tokens: reshape to (batch, tokens, "
                             "relation_heads, -1), then transpose(1, 2).",
        "interleaved": "A relation head must take neighbouring numbers; yours takes every n-th number of the width.",
        "width_first": "Side by side means head after head. You put the first number of every head in front.",
    },
    extremes="Any number of relation heads that divides the width must work, 1 and the whole width too.",
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

LAST_LAYER = Question(
    name="ch07.q5",
    title="Find the bug: off by one layer",
    points=2,
    difficulty=2,
    minutes=6,
    stub='''\
def last_layer(layers: int) -> tuple[int, int, int, int]:
    """Where the LAST layer of a Hugging Face BERT with this many layers is
    found: four Python indices from the front.

    Returns: (1) its block in model.encoder.layer, (2) its attention in
    output.attentions, (3) the hidden state that goes INTO it in
    output.hidden_states, which makes its queries, keys and values, (4) the one
    that comes OUT of it.
    """
    raise NotImplementedError("ch07.q5")
''',
    hints=("Count how long each of the three lists is. Which one has an entry that no block made?",
           "output.hidden_states has layers + 1 entries: entry 0 is the output of the embeddings. Block i (counted "
           "from 0) reads entry i and writes entry i + 1."),
    mistakes={
        "one_based": "Python counts from 0: a list of 12 blocks ends at 11.",
        "no_embedding_entry": "hidden_states begins with the output of the embeddings, so its last index is one larger "
                              "than that of the blocks.",
        "out_for_in": "Queries, keys and values are made of what goes INTO the block. You give the same entry twice.",
        "from_the_end": "Right, counted from the end. The exercise asks for indices from the front, such as 11.",
    },
    extremes="Try a model with a single layer on paper.",
)

# --- q6 ---------------------------------------------------------------------------------------------------------------

AVERAGES = Question(
    name="ch07.q6",
    title="Find the bug: three averages",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def three_averages(per_query: Tensor, mask: Tensor) -> Tensor:
    """The three means that public MiniLM codes take of the same numbers.

    per_query: (batch, tokens), the KL of each query position. Padded positions
    hold numbers too. mask: 1 = real.
    Returns: a tensor of shape (3,): [each sentence over its own real tokens,
    then over the sentences; one mean over all real tokens of the batch; one
    mean over all positions, padding included].
    """
    raise NotImplementedError("ch07.q6")
''',
    hints=("The first two differ in what weighs the same: a sentence, or a token. The third forgets the mask.",
           "Sum and count with the mask: (per_query * mask).sum(-1) / mask.sum(-1) for the first, the same without a "
           "dimension for the second, per_query.mean() for the third; torch.stack joins them."),
    mistakes={
        "swapped": "The first two are in the wrong order: sentences first, then tokens.",
        "padding_is_0": "In the third mean the padding is set to 0. That code leaves it as it is, and counts it.",
        "not_divided": "The first is a sum over sentences. Divide by their number.",
        "padded_length": "The first divides by the padded length. Divide each sentence by its own length.",
    },
    extremes="Look at a sentence with one real token, and at a batch without padding: there all three agree.",
    properties=(
        Property("Without padding all three must be equal.",
                 lambda: [Call((_noise(3, 4).abs(), torch.ones(3, 4).long()))],
                 lambda answers: max(numbers(answers[0])) - min(numbers(answers[0])) < 1e-5),
    ),
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("A teacher has 12 heads and is 768 wide. Which student can learn from it with version 1, without a "
             "projection?", (
        Option("4 layers, 312 wide, 12 heads.",
               "Any depth and any width will do, as long as the head counts are equal.", True),
        Option("12 layers, 768 wide, 8 heads.", "Version 1 compares head by head, so 12 heads are needed."),
        Option("Only one that is 768 wide.", "Relations are tokens x tokens. The width is summed away."),
        Option("Only one with 12 layers.", "Only the last layer is compared. Its number does not matter."),
    )),
    QuizItem("What is the value relation?", (
        Option("The attention, multiplied by the values.", "That is the output of the layer, not a relation."),
        Option("The squared distance of the two models' values, summed over all of the heads.",
               "That would need equal widths. Values of the two models never meet."),
        Option("A softmax over the dot products of the values of all pairs of tokens.",
               "V V^T / sqrt(d), masked, then softmax: a table of probabilities, tokens x tokens.", True),
        Option("The values of the [CLS] token.", "It uses every real token."),
    )),
    QuizItem("Why does the value relation need the mask, although attention already had it?", (
        Option("It does not: padded values are 0, so that their dot products with all others are 0 too.",
               "They are not. Padded positions have hidden states, so they have values."),
        Option("It is a second softmax, over other scores; the first mask does nothing for it.",
               "V V^T is a new table of scores, and padding must leave it again.", True),
        Option("To make it faster.", "The mask costs time. It is about the right numbers."),
        Option("Because KL cannot handle zeros.",
               "The mask makes zeros. KL handles them with log_softmax and a finite fill value."),
    )),
    QuizItem("The student's heads are 16 wide, the teacher's 32. By what are the student's scores divided?", (
        Option("sqrt(32), as in the teacher.", "Then the student's own attention would not be what is compared."),
        Option("sqrt(16), its own head size.", "Each model uses its own; it is what its layer does anyway.", True),
        Option("sqrt(192), its whole width.",
               "With 12 heads this makes all scores 3.5 times too small, and all relations too flat."),
        Option("Nothing, because softmax normalises.", "Softmax is not indifferent to scale: larger scores, sharper."),
    )),
    QuizItem("When does the paper put a teacher assistant between the two?", (
        Option("Whenever the student has fewer layers.", "Not if the student keeps the teacher's width."),
        Option("When the student has at most half the layers and at most half the width.",
               "Both must hold. The assistant has the teacher's depth and the student's width.", True),
        Option("When the head counts differ.", "An assistant has the same heads. Version 2 is for other head counts."),
        Option("When there are few labels.", "There are no labels in this step at all."),
    )),
    QuizItem("What does version 2 change?", (
        Option("It compares all layers.", "Still one layer; for a large teacher one below the top."),
        Option("It adds the masked-LM loss.", "Neither version uses it."),
        Option("It compares queries, keys and values each with their like, in heads cut anew.",
               "So the head counts of the two models may differ.", True),
        Option("It learns a projection for every head, so that the widths of the two may differ.",
               "Relations need no projection in either version."),
    )),
    QuizItem("The same sentences get more padding, and the loss stays as it was. Which average was taken?", (
        Option("The one over all positions, of which every batch has the same number.",
               "That one changes with the padding: it counts padded queries."),
        Option("Per sentence, or over the real tokens: both ignore padding.",
               "Both divide by real tokens only. They differ when lengths differ.", True),
        Option("The sum over the heads, and nothing else.",
               "The heads are another dimension. It does not say what happens to padded queries."),
    )),
    QuizItem("A distilled student fine-tunes 1 point better than a fresh one. What else must you show before you write "
             "that relations helped?", (
        Option("That its training loss is lower than that of the fresh student, step for step.",
               "A lower training loss does not say why."),
        Option("Nothing, one point is enough.", "One point of one seed may be luck."),
        Option("That the student is still small.", "It is, but that does not explain the point."),
        Option("Several seeds, and a baseline that had the same time without a teacher.",
               "More steps help too. And an interval tells luck from gain.", True),
    )),
)

POLL = Poll(
    "A narrow student (3 layers x 192, fresh blocks) shall learn movie reviews from labels. Which of these gives the "
    "best accuracy?",
    ("No teacher at all: spend the same steps on more fine-tuning.",
     "Copy the general teacher's attention on Wikipedia first.",
     "Copy its attention and its value relation first.",
     "The same, but from a teacher assistant (6 layers x 192).",
     "Copy the relations of version 2 first: QQ, KK and VV.",
     "The best two cannot be told apart with five seeds."),
)

CHAPTER = Chapter("ch07", "Relations between tokens (MiniLM 2020)",
                  (RELATION, RELATION_KL, WHOLE_LOSS, SPLIT_AGAIN, LAST_LAYER, AVERAGES), QUIZ, POLL)
