"""Exercises of lab 2: the size of two gradients, a matrix that is used twice, and a target that can shrink."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, near, numbers


def _normal(*shape: int, seed: int = 7, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- q1 ---------------------------------------------------------------------------------------------------------------


def _falls_to_a_sixteenth(answers: Sequence[Value]) -> bool:
    """Without T^2 the ratio soft : hard is 16 times smaller at T = 4."""
    with_t2, without = (numbers(answer)[0] for answer in answers)
    return abs(with_t2 / (1 - with_t2) / (without / (1 - without)) - 16) < 0.01


SHARE = Question(
    name="lab2.q1",
    title="Who pulls, the teacher or the label?",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def teachers_share(student_logits: Tensor, teacher_logits: Tensor,
                   labels: Tensor, temperature: float,
                   t_squared: bool) -> Tensor:
    """The teacher's share of the gradient:  |g_soft| / (|g_soft| + |g_hard|),
    each | | the norm of a whole matrix.

    g_soft: gradient of the soft loss, 1/T * (q - p) for each row, and T^2 times
    that if t_squared; q and p are the student's and the teacher's probabilities
    at temperature T. g_hard: softmax(student_logits) - one_hot(labels).
    student_logits, teacher_logits: (batch, classes). labels: (batch,). Both
    losses have the same weight.
    Returns: a number between 0 and 1, as a tensor of shape ().
    """
    raise NotImplementedError("lab2.q1")
''',
    hints=("Write down the two matrices first. The mean over the batch divides both, so it drops out of the share.",
           "q and p are softmax(logits / T). The factor of g_soft is T with T^2, and 1/T without it. The norm of a "
           "matrix is matrix.norm()."),
    mistakes={
        "always_t_squared": "The switch has no effect: you multiply by T^2 in both cases.",
        "never_t_squared": "The switch has no effect: T^2 is missing in both cases.",
        "t_squared_alone": "The factor 1/T is missing: dividing the logits by T takes one T out of the gradient.",
        "softmax_at_1": "q and p are taken at T = 1. Divide both models' logits by T first.",
        "ratio": "This is |g_soft| / |g_hard|. The share has the sum of both in the denominator.",
        "hard_share": "This is the label's share. The teacher's stands on top.",
        "hard_at_t": "The label's part uses softened probabilities. The hard loss knows no temperature.",
    },
    extremes="Only a softmax can overflow here: use torch.softmax.",
    properties=(
        Property("A student that answers as the teacher does must feel no pull from the teacher: share 0.",
                 lambda: [Call((_normal(4, 3), _normal(4, 3), torch.tensor([0, 1, 2, 1]), 2.0, True))],
                 lambda answers: near(answers[0], 0)),
        Property("At T = 4, without T^2 the ratio of soft to hard must be 16 times smaller.",
                 lambda: [Call((_normal(4, 3), _normal(4, 3, seed=8), torch.tensor([0, 1, 2, 1]), 4.0, switch))
                          for switch in (True, False)], _falls_to_a_sixteenth),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------

ADAM = Question(
    name="lab2.q2",
    title="What Adam does to a missing factor",
    points=2,
    difficulty=1,
    minutes=8,
    stub='''\
def first_adam_step(gradient: Tensor, learning_rate: float,
                    eps: float) -> Tensor:
    """The first step of Adam: what is ADDED to the weights.

    In step 1 the corrected means are m = gradient and v = gradient^2, so the
    step is
        - learning_rate * m / (sqrt(v) + eps)
    gradient: any shape. Returns: a tensor of the same shape.
    """
    raise NotImplementedError("lab2.q2")
''',
    hints=("Work number by number, not with the norm of the whole gradient: the square root of v is the absolute value "
           "of each number.",
           "Where the gradient is 0, eps keeps the division finite, and the step is 0."),
    mistakes={
        "sgd": "This is plain gradient descent: minus rate times gradient. Adam divides by sqrt(v) + eps.",
        "plus": "The sign is wrong: a step goes against the gradient.",
        "norm": "You divide by the norm of the whole gradient. Adam divides every number by its own size.",
        "no_correction": "You use beta_1 = 0.9 and beta_2 = 0.999 without the correction of step 1. Corrected, "
                         "m and v are the gradient and its square.",
        "v_without_root": "You divide by v. Adam divides by its square root.",
    },
    extremes="A gradient of 0 must give the step 0, and a very small one must not become NaN: add eps AFTER the root.",
    properties=(
        Property("A gradient 16 times as large must give the same step, as long as eps is tiny.",
                 lambda: [Call((scale * _normal(3, 4), 0.01, 1e-8)) for scale in (1.0, 16.0)],
                 partial(all_equal, atol=1e-6)),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------

SIZE = Question(
    name="lab2.q3",
    title="What an output matrix of its own costs",
    points=2,
    difficulty=1,
    minutes=5,
    stub='''\
def growth(vocabulary: int, hidden: int, other: int) -> float:
    """How many times as large a masked-LM student is with an output matrix of
    its own.

    The word table has vocabulary x hidden numbers. Tied, it is the output
    matrix as well; untied, there are two.
    other: all remaining parameters (blocks, positions, head). Returns: untied
    size / tied size, a Python number.
    """
    raise NotImplementedError("lab2.q3")
''',
    hints=("Count both students. What do they share, and what has the second one in addition?",
           "Tied: other + table. Untied: other + table + table."),
    mistakes={
        "inverse": "Upside down: this is the tied size divided by the untied one.",
        "added_share": "This is only what is added. A growth of 1.75 means 75 % more: add 1.",
        "tied_without_table": "The tied student has the word table once. You left it out.",
        "hidden_squared": "The output matrix is vocabulary x hidden, not hidden x hidden: one row for each token.",
        "three_tables": "You count three tables in the untied student. It has two: words in, words out.",
    },
    extremes="Whole numbers of any size are exact in Python; divide at the end.",
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

TIED = Question(
    name="lab2.q4",
    title="The gradient of a matrix that is used twice",
    points=3,
    difficulty=3,
    minutes=14,
    stub='''\
def tied_gradient(ids: Tensor, input_gradient: Tensor, states: Tensor,
                  logit_gradient: Tensor) -> Tensor:
    """The gradient of a tied word table E, without autograd.

    Way in:  x_t = E[ids_t]             input_gradient: (tokens, hidden), the
        loss's gradient for x
    Way out: logits = states @ E.T      logit_gradient: (positions, vocabulary),
        the loss's gradient for the logits
    ids: (tokens,), whole numbers; a token may occur twice. states: (positions,
    hidden).
    Returns: (vocabulary, hidden), what E.grad would hold.
    """
    raise NotImplementedError("lab2.q4")
''',
    hints=("A weight that is used at two places gets the SUM of two gradients. Write one for each way.",
           "Way out: logit_gradient.T @ states. Way in: start with zeros and add row t to row ids_t; index_add_ adds, "
           "plain assignment to rows overwrites."),
    mistakes={
        "only_in": "Only the way in is there: the rows of tokens that do not occur get nothing.",
        "only_out": "Only the way out is there. The lookup E[ids] has a gradient too.",
        "mean": "This is the mean of the two ways. Gradients of one weight add up.",
        "overwritten": "A token that occurs twice keeps only its last row. Add the rows: index_add_.",
        "in_scaled": "You divide the way in by how often the token occurs. Repeated tokens add up.",
    },
    extremes="Work in the shape (vocabulary, hidden) from the start; logit_gradient has the vocabulary LAST.",
    properties=(
        Property("Without a gradient on the logits, only the rows of the tokens that occur may differ from 0.",
                 lambda: [Call((torch.tensor([1, 1, 3]), _normal(3, 2), _normal(4, 2, seed=8), torch.zeros(4, 5)))],
                 lambda answers: all((abs(v) > 1e-9) == (i // 2 in (1, 3))
                                     for i, v in enumerate(numbers(answers[0])))),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------


def _constant_teacher(trainable: bool) -> Call:
    return Call((torch.ones(5, 1) * _normal(1, 6), _normal(3, 6, seed=8), 3, trainable))


PRICE = Question(
    name="lab2.q5",
    title="The price of saying nothing",
    points=3,
    difficulty=3,
    minutes=14,
    stub='''\
def price_of_nothing(teacher_states: Tensor, weight: Tensor, student_width: int,
                     trainable: bool) -> Tensor:
    """The smallest mean squared error for a student whose state is the same at
    every token (any constant it likes).

    teacher_states: (tokens, teacher_width). weight: the matrix of an nn.Linear,
    (width after, width before). Its shape tells the side. On the student's side
    W makes (teacher_width) out of (student_width); on the teacher's side it is
    the other way round. trainable: whether W may become anything. On the
    student's side W times the constant can be any vector. The error is a mean
    over tokens and units. The two widths always differ.
    Returns: one number, as a tensor of shape ().
    """
    raise NotImplementedError("lab2.q5")
''',
    hints=("Which vectors are compared? Student's side: a constant with the teacher's states. Teacher's side: a "
           "constant with W times the teacher's states. The best constant is a mean.",
           "The side is the teacher's if weight.shape[0] == student_width. There a trainable W can become 0, and then "
           "nothing is left to pay."),
    mistakes={
        "sides_swapped": "The sides are swapped. nn.Linear keeps (out, in): on the student's side the FIRST number is "
                         "the teacher's width.",
        "always_student": "On the teacher's side the target is W times the teacher's states, not the states.",
        "trainable_ignored": "A trainable map on the teacher's side can become 0: then the price is 0.",
        "always_free": "The teacher's side is free only if the map can be trained. A frozen one keeps its variance.",
        "not_centred": "The best constant is the mean, not 0. Take the mean off before you square.",
        "sum": "You sum over the hidden units. The error is a mean over tokens and units.",
    },
    extremes="Take the mean over the tokens off first; large numbers then stay exact.",
    properties=(
        Property("A teacher that is constant itself costs nothing, on any side.",
                 lambda: [_constant_teacher(trainable) for trainable in (True, False)],
                 lambda answers: all(near(answer, 0) for answer in answers)),
    ),
)

# --- q6 ---------------------------------------------------------------------------------------------------------------

SPREAD = Question(
    name="lab2.q6",
    title="A detector of collapse",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def spread_and_rank(states: Tensor) -> Tensor:
    """Two numbers that tell a collapsed student: how far its states are apart,
    and in how many directions.

    First: the mean of (state - mean state)^2 over tokens and units. Second: the
    effective rank, exp of the entropy of the shares  s_i^2 / sum_j s_j^2,
    where s are the singular values of the centred states (0 log 0 = 0).
    states: (tokens, hidden). If all rows are equal, the rank is 1.
    Returns: a tensor of shape (2,).
    """
    raise NotImplementedError("lab2.q6")
''',
    hints=("Take the mean over the tokens (dim=0) off once; both numbers need the centred states.",
           "torch.linalg.svdvals gives the singular values. torch.special.entr(x) is -x log x with entr(0) = 0. "
           "Look at the sum before you divide by it."),
    mistakes={
        "not_centred": "The mean state is still in it. A student that says the same at every token would not be seen.",
        "values_not_squared": "The shares are made of the singular values. Square them: variance is what is shared.",
        "bits": "The entropy is in bits, but exp wants nats: use the natural logarithm.",
        "entropy": "The second number is the entropy itself. Take its exp.",
        "whole_rank": "This is the ordinary rank. It counts a direction of size 0.000001 as a whole one.",
        "summed": "The first number is a sum over the units. Take the mean over tokens and units.",
    },
    extremes="Equal rows have no variance to share: 0 / 0 is NaN. Return 0 and 1 for them.",
    properties=(
        Property("States ten times as large must have 100 times the spread and the same rank.",
                 lambda: [Call((scale * _normal(6, 4),)) for scale in (1.0, 10.0)],
                 lambda answers: _ten_times(*(numbers(answer) for answer in answers))),
    ),
)


def _ten_times(one: list[float], ten: list[float]) -> bool:
    return abs(ten[0] / one[0] - 100) < 0.1 and abs(ten[1] - one[1]) < 1e-3 * one[1]


# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("The soft loss stands alone and T^2 is forgotten. The optimiser is Adam. What do you see at T = 4?", (
        Option("The student learns 16 times more slowly than with the factor.",
               "With plain gradient descent, yes. Adam divides every step by the size of the gradients."),
        Option("Almost nothing: Adam divides the factor away.",
               "Adam's step does not depend on the scale of the whole loss. T^2 matters where TWO losses are added.",
               True),
        Option("The student follows the labels.", "There are no labels in this loss."),
        Option("The loss becomes negative.", "KL is never negative, whatever positive factor stands before it."),
    )),
    QuizItem("Half labels, half teacher, T = 4, and T^2 is forgotten. What has really changed?", (
        Option("The balance: the teacher's part of the gradient is 16 times smaller.",
               "The missing factor works like another soft_weight. With T = 20 it would be 400 times.", True),
        Option("The optimum of the soft loss.", "A student that equals its teacher has soft loss 0 with any factor."),
        Option("The teacher's probabilities.", "They are softened as before. Only the weight of the term changed."),
        Option("The learning rate of the whole model: every step of it is 16 times smaller.",
               "The label's part keeps its size. Only one term shrinks."),
    )),
    QuizItem("Two codes report the training losses 0.20 and 0.60. Which student is better?", (
        Option("The first one.", "Its loss may simply be multiplied by a smaller factor, or have an easier target."),
        Option("The second one.", "Nothing says so. The two numbers may not even measure the same thing."),
        Option("That cannot be said.",
               "Losses with other factors, reductions or targets are other quantities. Compare what both are FOR: "
               "accuracy, agreement, states that can be read.", True),
        Option("The first one, if both used Adam.", "The optimiser does not make two different losses comparable."),
    )),
    QuizItem("What does `tie_word_embeddings=True` say in a BERT masked-LM head?", (
        Option("The word table is frozen.", "Tied is not frozen: the table trains, with the gradients of both ways."),
        Option("Student and teacher share one word table.",
               "That would be another mistake: training the student would change its teacher."),
        Option("The output matrix is the word table: one tensor, used on the way in and out.",
               "One tensor with two uses. Its gradient is the sum of both.", True),
        Option("The output matrix starts as a copy of the word table, and is trained apart from it.",
               "A copy is the same only at the start. Two tensors drift apart, and both must be stored."),
    )),
    QuizItem("A student has an output matrix of its own, copied from the teacher. What is certain?", (
        Option("It answers ',' for every hidden word.", "That needs a matrix that knows nothing. This one is a copy."),
        Option("It is larger by vocabulary x hidden numbers.",
               "The size is certain. What happens to the answers depends on how the matrix starts.", True),
        Option("It trains faster, because it has more freedom.", "More numbers must be updated, and each step costs "
               "more time."),
        Option("It cannot be distilled.", "The loss looks at the logits. It does not ask where they come from."),
    )),
    QuizItem("Why does a fresh masked-LM head answer ',' and 'the' first?", (
        Option("Because commas stand at most of the hidden positions.", "They are common, but far from the majority."),
        Option("Because the tokenizer puts them first.", "Their ids are in the middle of the vocabulary."),
        Option("Because a few numbers can learn word frequencies, without the context.",
               "A bias is enough for that. It lowers the loss most in the first steps; the context comes "
               "later.", True),
        Option("Because [MASK] is close to ',' and to 'the' in the word table that it starts with.",
               "The student answers by its output matrix and bias; a fresh matrix knows no neighbours."),
    )),
    QuizItem("The trainable map stands on the teacher's side. Which pair has loss 0?", (
        Option("W = 0 and a student whose states are 0.",
               "Both sides agree on nothing. The loss cannot tell this from success.", True),
        Option("No pair: the teacher is frozen.", "The teacher is, but the target W h is not."),
        Option("Only a student that equals its teacher.", "The widths differ: it cannot. And there is a cheaper way."),
        Option("W = 1 and any student.", "Then the target keeps its variance, and the student must follow it."),
    )),
    QuizItem("The effective rank of a student's states is high, and its hidden loss is low. May you relax?", (
        Option("Yes: a high rank means that nothing has collapsed.",
               "The rank has no scale. States that differ by a hair in every direction have a high rank."),
        Option("Yes: a low loss is enough.", "With a target that can shrink, a low loss is the symptom."),
        Option("No: look at the variance of the states and of the target too.",
               "Both must keep a healthy size. Then the rank says in how many directions.", True),
        Option("No: the rank should be 1.", "A rank of 1 would mean that all states lie on one line."),
    )),
)

POLL = Poll(
    "Three labs, each with a healthy run and a broken one: T^2 is missing, the output matrix is not tied and its head "
    "is random, the map stands on the teacher's side. In how many of them does the BROKEN run end with the lower "
    "training loss?",
    ("In none: a mistake makes the loss higher.", "In one.", "In two.", "In all three."),
)

CHAPTER = Chapter("lab2", "Lab: three classic mistakes", (SHARE, ADAM, SIZE, TIED, PRICE, SPREAD), QUIZ, POLL)
