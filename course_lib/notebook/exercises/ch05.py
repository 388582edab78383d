"""Exercises of chapter 5, TinyBERT: scores, states through a projection, augmentation, and the price of silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, numbers


def _noise(*shape: int, seed: int = 7, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _zero(answers: Sequence[Value]) -> bool:
    return all(abs(number) < 1e-4 for answer in answers for number in numbers(answer))


def _times(factor: float) -> Callable[[Sequence[Value]], bool]:
    return lambda answers: all(abs(b - factor * a) <= 1e-3 * (1 + abs(b)) for a, b in
                               zip(numbers(answers[0]), numbers(answers[1]), strict=True))


MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])

# --- q1 ---------------------------------------------------------------------------------------------------------------

SCORES = Question(
    name="ch05.q1",
    title="Attention scores",
    points=2,
    difficulty=1,
    minutes=6,
    stub='''\
def scores_of(query: Tensor, key: Tensor) -> Tensor:
    """Attention scores, before the softmax: Q K^T / sqrt(d), where d is the
    width of one head.

    query, key: (batch, heads, tokens, d).
    Returns: (batch, heads, tokens, tokens). The row is the token that asks, the
    column is the token that is asked.
    """
    raise NotImplementedError("ch05.q1")
''',
    hints=("One matrix product per sentence and head: every query with every key. The last two dimensions of the key "
           "must be exchanged first.",
           "key.transpose(-1, -2) exchanges them, @ multiplies, and d is query.shape[-1]."),
    mistakes={
        "softmax": "These are probabilities: the softmax is already taken. The scores come before it.",
        "not_scaled": "The division by sqrt(d) is missing. Student and teacher have heads of other widths, so their "
                      "scores would not be comparable.",
        "by_d": "The scores are divided by d. Divide by its square root.",
        "all_heads": "d is the width of ONE head, the last dimension. Here the width of all heads together was used.",
        "transposed": "Rows and columns are exchanged: this is K Q^T. The token that asks is the row.",
    },
    extremes="A score is a sum of products, nothing more: no exponential is needed.",
    properties=(
        Property("A query twice as long must give scores twice as large: there is no softmax here.",
                 lambda: [Call((_noise(1, 2, 3, 4), _noise(1, 2, 3, 4, seed=8))),
                          Call((2 * _noise(1, 2, 3, 4), _noise(1, 2, 3, 4, seed=8)))], _times(2.0)),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------


def _scores_with_padding(seed: int) -> Call:
    pairs = (MASK[:, None, :, None] * MASK[:, None, None, :]).bool()
    student, teacher = (torch.where(pairs, _noise(2, 3, 4, 4, seed=first), _noise(2, 3, 4, 4, seed=seed + first))
                        for first in (1, 2))
    return Call((student, teacher, MASK))


ATTENTION = Question(
    name="ch05.q2",
    title="The attention loss without padding",
    points=3,
    difficulty=3,
    minutes=12,
    stub='''\
def attention_loss(student_scores: Tensor, teacher_scores: Tensor,
                   mask: Tensor) -> Tensor:
    """Mean squared error of the scores over all heads and all pairs (query,
    key) of two REAL tokens.

    student_scores, teacher_scores: (batch, heads, tokens, tokens), before the
    softmax.
    mask: (batch, tokens), 1 or True = real token, 0 or False = padding.
    Returns: one number, as a tensor of shape (). Every pair of real tokens
    weighs the same.
    """
    raise NotImplementedError("ch05.q2")
''',
    hints=("Make a mask of pairs first: (batch, tokens, tokens), true where both tokens are real. "
           "All heads share it.",
           "real = mask.bool(); pairs = real[:, :, None] & real[:, None, :]. Take the mean over the heads, which "
           "leaves (batch, tokens, tokens), then pick the pairs and take their mean."),
    mistakes={
        "no_mask": "The padding takes part: the mask has no effect.",
        "keys_only": "Padded keys are left out, but padded queries still ask. A pair counts only if both are real.",
        "queries_only": "Padded queries are left out, but padded keys are still asked. A pair counts only if both are "
                        "real.",
        "divides_by_all": "Padding adds nothing to the sum, but it still counts in the mean. This is what the original "
                          "code does: a longer batch gives a smaller loss.",
        "per_sentence": "This is a mean per sentence, then over sentences. Here every pair weighs the same.",
        "probabilities": "These are probabilities: the softmax hides most of the difference. Compare the scores.",
        "sum_over_heads": "The heads are added up. Take their mean.",
        "absolute": "These are absolute differences. Square them.",
    },
    extremes="What stands in the padding may be huge. Leave it out before you take the mean; a product with 0 is not "
             "enough when something overflows.",
    gradient="The loss must be differentiable for the student, and padded pairs must get gradient 0.",
    properties=(
        Property("What stands in the padding must not matter.",
                 lambda: [_scores_with_padding(seed) for seed in (20, 30)], all_equal),
        Property("A student with the teacher's scores must have loss 0.",
                 lambda: [Call((_noise(2, 3, 4, 4), _noise(2, 3, 4, 4), MASK))], _zero),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------


def _states_with_padding(seed: int) -> Call:
    padded = MASK[..., None] == 0
    student, teacher = (torch.where(padded, _noise(2, 4, width, seed=seed + width), _noise(2, 4, width))
                        for width in (3, 5))
    return Call((student, teacher, _noise(5, 3, seed=9), MASK))


HIDDEN = Question(
    name="ch05.q3",
    title="The hidden loss through a projection",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def hidden_loss(student_states: Tensor, teacher_states: Tensor, weight: Tensor,
                mask: Tensor) -> Tensor:
    """Mean squared error between W h_S and h_T, over all real tokens and all
    units of the teacher.

    student_states: (batch, tokens, student width). teacher_states: (batch,
    tokens, teacher width).
    weight: W, (teacher width, student width), as nn.Linear keeps it.
    mask: (batch, tokens), 1 or True = real token, 0 or False = padding.
    Returns: one number, as a tensor of shape (). Every real token weighs the
    same.
    """
    raise NotImplementedError("ch05.q3")
''',
    hints=("The student's side is mapped: its last dimension becomes as wide as the teacher's. Then pick the real "
           "tokens of both.",
           "nn.Linear computes h @ weight.T. After mask.bool() has picked the tokens, both sides are "
           "(kept, teacher width): subtract, square, mean."),
    mistakes={
        "no_mask": "The padding takes part: the mask has no effect.",
        "divides_by_all": "Padding adds nothing to the sum, but it still counts in the mean. "
                          "Divide by the real tokens only.",
        "sum_over_units": "The squares are summed over the units. Take the mean over the units as well.",
        "teacher_mapped": "The teacher is mapped down to the student's width. The target can then shrink: section 9 "
                          "shows what follows. Map the student up.",
        "reshaped": "reshape does not exchange the dimensions of W, it only reads its numbers in another order. "
                    "Use weight.T.",
        "per_sentence": "This is a mean per sentence, then over sentences. Here every real token weighs the same.",
        "absolute": "These are absolute differences. Square them.",
    },
    extremes="What stands in the padding may be huge. Pick the real tokens first.",
    gradient="The loss must be differentiable for the student, and padded tokens must get gradient 0.",
    properties=(
        Property("What stands in the padding must not matter.",
                 lambda: [_states_with_padding(seed) for seed in (20, 30)], all_equal),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------


def _within_a_plane() -> torch.Tensor:
    return _noise(12, 2, size=3.0) @ _noise(2, 5, seed=8) + 4.0


SMALLEST = Question(
    name="ch05.q4",
    title="What a narrow student must lose",
    points=3,
    difficulty=3,
    minutes=12,
    stub='''\
def smallest_error(teacher_states: Tensor, width: int) -> Tensor:
    """The mean squared error of the best student with `width` numbers per
    token, after the best linear map with bias.

    teacher_states: (tokens, teacher width). width: from 1 to the teacher's
    width.
    Returns: one number, as a tensor of shape (): the mean over tokens and units
    of what cannot be rebuilt.
    """
    raise NotImplementedError("ch05.q4")
''',
    hints=("The bias carries the mean of the states, so take the mean off first. The best `width` directions of the "
           "rest are the first singular vectors.",
           "torch.linalg.svdvals(centred) gives the singular values, largest first. The lost squares are the squared "
           "values behind the first `width`; divide their sum by the number of entries."),
    mistakes={
        "not_centred": "The mean was not taken off first. The bias carries it, so it costs the student nothing.",
        "kept": "This is what the student keeps. The error is the rest.",
        "not_squared": "The singular values themselves are added up. The error is a sum of their squares.",
        "per_token": "The sum is divided by the tokens only. Divide by the units as well: a mean over all entries.",
        "share": "This is the lost share of the variance. The exercise asks for the error itself.",
        "first_units": "The last units are dropped. The best student keeps the strongest directions, and they lie "
                       "across the units.",
    },
    extremes="With the full width nothing is lost, and a large mean costs nothing.",
    properties=(
        Property("States that lie in a plane must cost nothing from width 2 on.",
                 lambda: [Call((_within_a_plane(), width)) for width in (2, 3)], _zero),
        Property("Adding the same vector to all states must change nothing.",
                 lambda: [Call((_noise(9, 4), 2)), Call((_noise(9, 4) + torch.tensor([5.0, 0.0, -3.0, 1.0]), 2))],
                 all_equal),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

QUESTION = Question(
    name="ch05.q5",
    title="Find the bug: what the masked LM may see",
    points=2,
    difficulty=1,
    minutes=6,
    stub='''\
def question_for(ids: list[int], position: int, mask_id: int) -> list[int]:
    """The token numbers that a masked LM gets, when it is asked for another
    word at `position`.

    The asked token is hidden, and so is every other place where the SAME token
    stands: the answer must not be shown.
    ids: the sentence, [CLS] and [SEP] included. mask_id: the number of [MASK].
    Returns: a new list of the same length; `ids` stays as it is.
    """
    raise NotImplementedError("ch05.q5")
''',
    hints=("Which token is the answer? Look it up first, then go through the sentence.",
           "ids[position] is the answer. A list comprehension puts mask_id where a token equals it."),
    mistakes={
        "only_there": "The same word elsewhere in the sentence still shows the answer. Hide every place where it "
                      "stands.",
        "beside": "This is the bug of the original code: the untouched sentence stands behind the question, so the "
                  "answer can be copied.",
        "removed": "The token was taken out. Put [MASK] in its place: the masked LM answers for a place.",
        "others": "Inverted: everything but the answer is hidden.",
        "by_position": "The token NUMBER was compared with the position. Look up the token at the position first.",
    },
    extremes="",
    properties=(
        Property("The asked place must be hidden, and the length must stay.",
                 lambda: [Call(([101, 7, 8, 7, 102], position, 103)) for position in (1, 2)],
                 lambda answers: all(len(numbers(a)) == 5 and numbers(a)[p] == 103
                                     for a, p in zip(answers, (1, 2), strict=True))),
    ),
)

# --- q6 ---------------------------------------------------------------------------------------------------------------


PRICE = Question(
    name="ch05.q6",
    title="The price of saying nothing",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def price_of_silence(teacher_states: Tensor, mask: Tensor) -> Tensor:
    """The hidden loss of the best student that says the SAME at every token,
    with the map on the student's side.

    teacher_states: (batch, tokens, width). mask: (batch, tokens), 1 or True =
    real token, 0 or False = padding.
    Returns: one number, as a tensor of shape (): the mean over real tokens and
    units of the squared error.
    """
    raise NotImplementedError("ch05.q6")
''',
    hints=("W times a constant is a constant: one vector for all tokens. Which vector has the smallest mean squared "
           "distance to the teacher's states?",
           "Their mean over the real tokens. Pick the real tokens, subtract that mean, square, and take the mean over "
           "everything that is left."),
    mistakes={
        "zero": "This is the price of a student that says 0. The best constant is the mean of the teacher's states.",
        "with_padding": "The padding takes part. Pick the real tokens first.",
        "n_minus_1": "This variance divides by n - 1. The loss is a plain mean: divide by n.",
        "one_mean": "One number was taken for all units. The best constant is a vector: one mean per unit.",
        "over_units": "The mean runs over the units of each token. The constant is the same at every TOKEN: take the "
                      "mean over tokens.",
        "sum_over_units": "The squares are summed over the units. Take their mean.",
        "per_sentence": "Each sentence got its own constant. The student says the same in all of them.",
    },
    extremes="What stands in the padding may be huge. Pick the real tokens first.",
    properties=(
        Property("Adding the same vector to all states must change nothing: a constant student can say that too.",
                 lambda: [Call((_noise(2, 4, 3) + shift, MASK)) for shift in (0.0, torch.tensor([5.0, 0.0, -2.0]))],
                 all_equal),
        Property("Teacher states that are all equal must cost nothing.",
                 lambda: [Call((torch.full((2, 4, 3), 2.5), MASK))], _zero),
    ),
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("Why does TinyBERT compare attention scores, and not attention probabilities?", (
        Option("Scores take less memory.", "Both have the shape (batch, heads, tokens, tokens)."),
        Option("The softmax hides differences: large scores all end near 0 or 1.",
               "An error of 5 in a score can be an error of 0.007 in a probability. The gradient fades with it.", True),
        Option("Probabilities are not differentiable.", "They are. MiniLM and MobileBERT compare probabilities."),
        Option("Hugging Face models return scores, but no probabilities, so there is no choice.",
               "The other way round: they return probabilities if asked, and never scores."),
    )),
    QuizItem("The student has 4 layers of width 312. What must be equal on both sides?", (
        Option("The hidden size.", "A projection W brings the student's states to the teacher's width."),
        Option("The number of layers.", "A layer map says which teacher layer each student layer learns from."),
        Option("The number of heads.", "Scores are compared head by head, and no projection mixes heads.", True),
        Option("The width of one head.", "Scores have no width: they are (tokens, tokens), whatever d was."),
    )),
    QuizItem("On whose side does the trainable projection belong?", (
        Option("On the student's: W h_S against h_T.", "The target stands still, so a constant student has to pay.",
               True),
        Option("On the teacher's: h_S against W h_T.",
               "Then the target can shrink. W = 0 and a student of zeros agree perfectly, and nothing was learned."),
        Option("It does not matter, W is linear.", "The loss has another minimum: 0 is free on the teacher's side."),
        Option("On both sides, so that they meet in the middle.",
               "With the teacher's side trainable, both can still go to 0 together."),
    )),
    QuizItem("TinyBERT-4 has 4 layers of width 312 and knows 30,522 words. Where are most of its parameters?", (
        Option("In the feed-forward layers.", "They shrink with the square of the width. The word table does not."),
        Option("In the word embeddings.",
               "The table is 30,522 x width. It shrinks with the width only, so its share grows.", True),
        Option("In the attention.", "Attention holds a third of a block, and the blocks shrink fastest."),
        Option("In the projection W.", "W is scaffolding: it is thrown away after the training."),
    )),
    QuizItem("What does the first stage (intermediate layers) need?", (
        Option("Sentences with labels.", "None of its three terms looks at a label."),
        Option("Sentences and the teacher's logits, so that the answers can be compared.",
               "Logits belong to the prediction stage."),
        Option("Sentences, and a teacher that can be looked into.",
               "It compares embeddings, states and scores. Any text will do, and that is why text can be made.", True),
        Option("The teacher's training set.", "It helps, but new text of the same kind does the same work."),
    )),
    QuizItem("The original code sets scores <= -100 to 0 on both sides. Why?", (
        Option("BERT of that time added -10,000 to the scores of padded keys.",
               "Without that line, padding would be part of the comparison. The mean still counts those places.", True),
        Option("Very negative scores make the softmax overflow.", "exp(-100) is almost 0. Nothing overflows."),
        Option("To make the student's attention sparse.", "Only the loss is changed, not what the models compute."),
        Option("Because teacher scores are never below -100.",
               "Real ones hardly are. That is why the line can tell padding from real scores."),
    )),
    QuizItem("\"I trained TinyBERT on my task and I am far below the paper.\" What is asked first?", (
        Option("Did you use temperature 4?", "The paper uses temperature 1 in its prediction loss."),
        Option("Did you do general distillation first, and augment the text?",
               "Without augmentation the paper itself loses 7.2 points, without general distillation 3.1.", True),
        Option("Did you keep the projection of the states in the final model too?",
               "It is not needed for predictions, and removed."),
        Option("Did you divide the loss by the number of layers?", "That changes the size of the loss, not what fits."),
    )),
    QuizItem("Teacher: 12 layers. Student: 4. In the uniform map, which `hidden_states` of the teacher goes with "
             "`hidden_states[2]` of the student?", (
        Option("hidden_states[6]", "Layer i learns from 3 i, and index 0 is the embedding output on both sides.", True),
        Option("hidden_states[5]", "That is right for a list that counts blocks from 0. `hidden_states[0]` is the "
                                   "embedding output."),
        Option("hidden_states[8]", "Layer 2 is the half of the student, and 6 the half of the teacher."),
        Option("hidden_states[2]", "That is the map called \"bottom\"."),
    )),
)

POLL = Poll(
    "A narrow student learns in two stages: first from the teacher's inside (attention, states, embeddings), then from "
    "its answers. One part is left out. Which loss will hurt the accuracy most?",
    ("Without the attention loss.", "Without the hidden-state loss.",
     "Without the whole first stage: only labels and answers.", "Without the teacher's answers: labels in stage two.",
     "With this little data none of them will hurt more than its interval."),
)

CHAPTER = Chapter("ch05", "TinyBERT (Jiao 2020)", (SCORES, ATTENTION, HIDDEN, SMALLEST, QUESTION, PRICE), QUIZ, POLL)
