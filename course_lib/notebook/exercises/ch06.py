"""Exercises of chapter 6, MobileBERT: a thin block's size, what a block learns, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, numbers


def _random(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _near_zero(answers: Sequence[Value]) -> bool:
    return all(abs(number) < 1e-5 for answer in answers for number in numbers(answer))


# --- q1 ---------------------------------------------------------------------------------------------------------------

SIZE = Question(
    name="ch06.q1",
    title="The size of a thin block",
    points=2,
    difficulty=1,
    minutes=8,
    stub='''\
def block_size(body: int, inner: int, feed_forwards: int) -> int:
    """How many numbers do the linear layers of one MobileBERT block hold,
    weights and biases? (Norms are left out.)

    Linear layers, in the order of the block:
        two bottlenecks, body -> inner      one for the residual, one shared by
            queries and keys
        query and key, inner -> inner; value, body -> inner; attention output,
            inner -> inner
        `feed_forwards` networks, each inner -> 4 * inner -> inner
        one layer back, inner -> body
    Returns: a Python int.
    """
    raise NotImplementedError("ch06.q1")
''',
    hints=("A linear layer a -> b holds a * b weights and b biases. Write a small helper for that, and add up.",
           "Count the layers first: 2 in, 3 of inner -> inner, 1 value, 2 in each feed-forward network, 1 back."),
    mistakes={
        "no_bias": "The biases are missing: a linear layer a -> b holds a * b + b numbers.",
        "one_feed_forward": "There are `feed_forwards` networks in the stack; this counts one.",
        "half_feed_forward": "A feed-forward network has two linear layers, inner -> 4 inner and back.",
        "narrow_value": "The values read the body, not the bottleneck: that layer is body -> inner.",
        "one_bottleneck": "There are two bottlenecks at the entrance: the residual has one, and queries and keys share "
                          "the other.",
        "no_way_back": "The layer from the inner width back to the body is missing.",
    },
    extremes="A block without any stacking, feed_forwards = 1, is a block too.",
    properties=(
        Property("Each feed-forward network more must add the same number of parameters.",
                 lambda: [Call((384, 96, count)) for count in (1, 2, 3)],
                 lambda answers: numbers(answers[1])[0] - numbers(answers[0])[0]
                 == numbers(answers[2])[0] - numbers(answers[1])[0] > 0),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------


def _features(scale: float = 1.0, shift: float = 0.0, fill: float = 0.0) -> Call:
    student, teacher = _random(2, 4, 6, seed=1), _random(2, 4, 6, seed=2)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    return Call((torch.where(mask[..., None].bool(), student * scale + shift, torch.tensor(fill)), teacher, mask))


FEATURES = Question(
    name="ch06.q2",
    title="Feature map transfer",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def feature_map_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Normalise every token's features on both sides, then take the squared
    difference.

    The mean over the features; then the mean over all kept tokens of the batch.
    student, teacher: (batch, tokens, features). mask: (batch, tokens), 1 = a
    real token, 0 = padding.
    Normalise: subtract the mean over the features, divide by the root of
    (variance + 1e-12). No weights.
    Returns: a tensor of shape ().
    """
    raise NotImplementedError("ch06.q2")
''',
    hints=("PyTorch has a layer norm without weights: F.layer_norm(x, x.shape[-1:], eps=...). Both sides need it.",
           "Let (student - teacher) squared have its mean over the last dimension first: that gives (batch, tokens). "
           "mask.bool() as an index keeps the real tokens of it."),
    mistakes={
        "raw": "The features are compared as they are. Normalise both sides first; mean and variance have their own "
               "terms.",
        "student_only": "Only one side is normalised. A teacher with large features would still be out of reach.",
        "padding": "The padded tokens count as well. Use the mask.",
        "all_tokens": "The sum is right, but it is divided by the number of all tokens, padding included.",
        "sum_of_features": "This sums over the features. The paper takes their mean.",
        "over_tokens": "This normalises over the tokens of a sentence. Each token is normalised by itself, over its "
                       "features.",
        "sample_variance": "This is the variance with n - 1 (the default of torch.std and torch.var). A layer norm "
                           "divides by n.",
    },
    extremes="Features of thousands are normalised like any others.",
    gradient="The value is right, but its gradient does not reach the student's features. Is there a .detach() or a "
             ".item()?",
    properties=(
        Property("The student's scale and shift must not matter: the normalisation takes them away.",
                 lambda: [_features(), _features(scale=5.0), _features(shift=2.0)], all_equal),
        Property("What stands in the padding must not matter.", lambda: [_features(), _features(fill=9.0)], all_equal),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------


def _same_scores() -> Call:
    scores = _random(3, 5, 5)
    return Call((scores, scores.clone(), torch.tensor([1, 1, 1, 1, 0])))


def _scores(fill: float) -> Call:
    mask = torch.tensor([1, 1, 1, 0])
    student = _random(2, 4, 4, seed=1)
    student[:, :, 3] = fill
    student[:, 3, :] = fill
    return Call((student, _random(2, 4, 4, seed=2), mask))


ATTENTION = Question(
    name="ch06.q3",
    title="Attention transfer",
    points=3,
    difficulty=3,
    minutes=14,
    stub='''\
def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) of the attention of one sentence: the mean over
    the heads and the real queries.

    student, teacher: scores BEFORE the softmax, (heads, queries, keys).
    mask: (tokens,), 1 = a real token. Padded keys leave the softmax; padded
    queries leave the mean.
    Returns: a tensor of shape ().
    """
    raise NotImplementedError("ch06.q3")
''',
    hints=("With one sentence, leaving padding out is easy: index keys and queries with mask.bool() before you start.",
           "kept = mask.bool(); a = a[:, kept][:, :, kept]. Then log_softmax over the last dimension, and "
           "sum p_t * (log p_t - log p_s) over the keys. What is left is (heads, kept queries): take the mean."),
    mistakes={
        "reversed": "Reversed: this is KL(student || teacher). The teacher's probabilities are the weights.",
        "padded_keys": "The padded keys take part in the softmax. Leave them out before it.",
        "padded_queries": "The padded queries count in the mean. Nobody needs to know where padding looks.",
        "no_softmax": "The scores are compared without a softmax, by their squared difference. That is TinyBERT.",
        "softmax_twice": "The softmax is taken twice: what goes into the second one are probabilities already.",
        "cross_entropy": "This is the cross-entropy: it lacks the teacher's own entropy, so a copy would not reach 0. "
                         "The original code does this; the paper says KL.",
        "mean_over_keys": "This takes the mean over the keys, too. A KL is a sum over them.",
        "sum_of_heads": "The heads are summed. Take their mean.",
    },
    extremes="Scores of a thousand must not give infinity: use log_softmax, not log of softmax.",
    gradient="The value is right, but its gradient does not reach the student's scores. Is there a .detach() or a "
             ".item()?",
    properties=(
        Property("A student that equals its teacher must have no loss.", lambda: [_same_scores()], _near_zero),
        Property("Scores of padded tokens must not matter.", lambda: [_scores(0.0), _scores(7.0)], all_equal),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

RATES = Question(
    name="ch06.q4",
    title="Who learns how fast",
    points=2,
    difficulty=1,
    minutes=6,
    stub='''\
def rates_of_blocks(current: int, layers: int, rate: float) -> list:
    """The learning rate of each block while block `current` is learned by
    progressive transfer.

    The current block: 3 * rate. The blocks below it: 0.3 * rate, so that they
    can still repair themselves. The blocks above it have not begun: 0.
    current: 1 to layers; blocks count from 1, from the embeddings upwards.
    Returns: a list of `layers` numbers, block 1 first.
    """
    raise NotImplementedError("ch06.q4")
''',
    hints=("Go through the blocks 1, 2, ..., layers, and compare each number with `current`.",
           "range(1, layers + 1) counts from 1. Below means a smaller number."),
    mistakes={
        "frozen_below": "The blocks below stand still. Then an error in them is never repaired.",
        "same_below": "The blocks below learn as fast as the current one, as in the TF2 port. The original slows them "
                      "down.",
        "above_learns": "The blocks above learn already. Their turn has not come: 0.",
        "from_zero": "This counts the blocks from 0. The first block has the number 1.",
        "without_rate": "3 and 0.3 are factors: multiply them by `rate`.",
        "upside_down": "Upside down: the blocks ABOVE the current one have not begun, those below are done.",
    },
    extremes="A model of one block has one rate.",
    properties=(
        Property("Twice the rate must give twice of every entry.",
                 lambda: [Call((2, 4, 0.01)), Call((2, 4, 0.02))],
                 lambda answers: all(abs(2 * a - b) < 1e-9 for a, b in zip(
                     numbers(answers[0]), numbers(answers[1]), strict=True))),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------


def _probabilities(*, order: int = 0) -> Call:
    student, teacher = (_random(2, 3, 5, seed=seed).softmax(-1) for seed in (1, 2))
    return Call((student.roll(order, dims=-1), teacher.roll(order, dims=-1)))


PROBABILITIES = Question(
    name="ch06.q5",
    title="Find the bug: the model returns probabilities",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def attention_loss_of_probs(student: Tensor, teacher: Tensor) -> Tensor:
    """The same KL(teacher || student), for a library whose models return
    probabilities instead of scores.

    student, teacher: (heads, queries, keys); every row is a distribution
    already. The teacher's rows may hold zeros (padded keys); there the
    student's are zero, too, or positive. 0 * log 0 counts as 0.
    Returns: the mean over heads and queries of the KL, a tensor of shape ().
    """
    raise NotImplementedError("ch06.q5")
''',
    hints=("No softmax: that has been done. What is left of the KL is sum p_t * (log p_t - log p_s) over the keys.",
           "torch.special.xlogy(p, q) is p * log q, and 0 where p is 0, whatever q is."),
    mistakes={
        "softmax_again": "The softmax of a softmax. It nearly levels all rows, so there is hardly anything to learn. "
                         "The TF2 port has this mistake.",
        "reversed": "Reversed: the teacher's probabilities are the weights.",
        "cross_entropy": "The teacher's entropy is missing, so a copy would not reach 0.",
        "no_logarithm": "The logarithms are missing: a KL compares logarithms.",
        "mean_over_keys": "This takes the mean over the keys, too. A KL is a sum over them.",
        "absolute": "This is the sum of the absolute differences, another distance.",
    },
    extremes="A zero in both must not give NaN: 0 * log 0 counts as 0.",
    properties=(
        Property("The order of the keys must not matter.", lambda: [_probabilities(), _probabilities(order=2)],
                 all_equal),
    ),
)

# --- q6 ---------------------------------------------------------------------------------------------------------------

DIAGNOSE = Question(
    name="ch06.q6",
    title="Find the bug: read the reported loss",
    points=3,
    difficulty=3,
    minutes=14,
    stub='''\
def diagnose(reported: float, student: Tensor, teacher_layers: Tensor,
             layer: int) -> str:
    """A training log reports the mean term of block `layer`. Which code has
    written it?

    The right term of one pair of layers: (mean of the student's features - mean
    of the teacher's)^2 for every token, then the mean over the tokens.
    student: (tokens, features), the student's block `layer`.
    teacher_layers: (layers + 1, tokens, features); entry 0 is the embedding
    output, entry l is block l.
    Returns one of four strings, the first one that fits `reported` within 0.1
    %:
        "healthy"           the right term with the teacher's block `layer`
        "sum over tokens"   that, but summed over the tokens (TF2)
        "all layers"        the mean of the right term over all entries of
            teacher_layers (TF1)
        "unknown"           none of these
    """
    raise NotImplementedError("ch06.q6")
''',
    hints=("Compute all candidates, then compare. One helper that gives the term for any teacher layer is enough.",
           "gap = (student.mean(-1) - teacher_layers.mean(-1)) ** 2 has one row for every entry of teacher_layers. "
           "gap[layer].mean(), gap[layer].sum(), gap.mean(). Compare with abs(a - b) <= 0.001 * abs(b)."),
    mistakes={
        "exact": "This compares with ==. The last digits of a float depend on the order of the sums: allow 0.1 %.",
        "off_by_one": "Entry 0 of teacher_layers is the embedding output. Block l is entry l, not l - 1.",
        "difference_first": "This squares the difference of every feature. The term compares the MEANS of the "
                            "features: take the mean first.",
        "last_layer": "This compares with the teacher's last block. Block l learns from block l.",
        "no_sum": "A loss that is summed over the tokens is never found.",
        "no_list": "A loss that is averaged over all layers of the teacher is never found.",
    },
    extremes="With one token, sum and mean are the same number. The first string that fits counts.",
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("What stays equal between MobileBERT and its teacher, and what for?", (
        Option("The width of the body between the blocks, so that outputs of blocks can be compared directly.",
               "No projection is needed. Inside the blocks both may be as thin or fat as they like.", True),
        Option("The width inside the blocks, so that the weights of the teacher's blocks can be copied into them.",
               "Inside, the student has 128 and the teacher 1024. Nothing is copied there."),
        Option("The number of parameters.", "Then nothing would be compressed."),
        Option("The number of feed-forward networks in a block.", "The student stacks four, the teacher has one."),
    )),
    QuizItem("Why does a MobileBERT block have four feed-forward networks?", (
        Option("To make the block deeper without more layers; depth is always good for a small model.",
               "The reason is a balance: with one network, a thin block would be mostly attention and bottlenecks."),
        Option("Attention reads the wide body, feed-forward the thin inside; four restore a balance.",
               "In BERT, feed-forward has twice as many parameters as attention. A bottleneck turns this "
               "round.", True),
        Option("One for each attention head.", "That both are four is chance; the networks know nothing of heads."),
        Option("To have as many parameters as BERT-base.", "It has a quarter of them."),
    )),
    QuizItem("A phone has no problem with the multiplications of LayerNorm. Why is it replaced by NoNorm?", (
        Option("LayerNorm does not work with ReLU.", "It does; ReLU replaced GELU for a similar reason."),
        Option("NoNorm learns faster.", "It is rather harder to train: nothing holds the sizes together."),
        Option("Mean and variance have to be computed first: little work, but others wait for it.",
               "Operations and milliseconds are two things. This is why one measures on the device.", True),
        Option("NoNorm has fewer parameters, so that less has to be read from the memory of the phone.",
               "The same two vectors, gamma and beta."),
    )),
    QuizItem("Our student has blocks 3.7 times smaller than our teacher's. All in all it is only 1.5 times smaller. "
             "Why?", (
        Option("The classifier is too large.", "It has less than a thousand numbers."),
        Option("The word table is half of the teacher, and it was copied as it is.",
               "A table of 96 numbers per word plus a projection would make it four times smaller.", True),
        Option("The bottlenecks cost more than they save.", "They are counted in the 3.7."),
        Option("The student has more layers.", "Both models have six layers."),
    )),
    QuizItem("In the feature map loss both sides are normalised. What happens to mean and variance?", (
        Option("They are lost; the student may choose them.", "Then the next block gets features of another size."),
        Option("They are copied from the teacher.", "Nothing inside the blocks is copied."),
        Option("They are compared by two terms of their own.",
               "The squared difference of the means, and the absolute difference of the variances.", True),
        Option("LayerNorm in the student takes care of them.", "The student has NoNorm: nothing normalises there."),
    )),
    QuizItem("Progressive transfer learns block 4. What happens to blocks 1 to 3?", (
        Option("They are frozen, because what they have learned must not be changed any more.",
               "Then an error in them would stay for ever, and block 4 would get it as input."),
        Option("They go on learning at a small rate, from the gradient of block 4's loss.",
               "A tenth of the current block's rate in the original code.", True),
        Option("They are set back to random weights.", "Nothing is thrown away."),
        Option("They learn as fast as block 4.", "So in the TF2 port. The paper wants a small rate."),
    )),
    QuizItem("In a training log the attention term is 0.005 from the first step on, for a student with random blocks. "
             "What do you suspect?", (
        Option("The attention was copied from the teacher, so that student and teacher agree at once.",
               "Blocks are random; their scores cannot agree so well."),
        Option("The temperature is too low.", "There is no temperature in this term."),
        Option("The model returns probabilities, and the loss takes their softmax once more.",
               "The softmax of numbers between 0 and 1 is almost flat on both sides, so they agree at once.", True),
        Option("The padding is not masked.", "That changes a loss by some percent; it does not nearly end it."),
    )),
    QuizItem("Three strategies are compared: auxiliary, joint, progressive. What must be equal?", (
        Option("The loss at the end of the transfer.", "That is a result, not a condition."),
        Option("The number of parameters that learn in each step.",
               "It cannot be: progressive transfer trains one block after the other."),
        Option("Nothing: every strategy may take the time that it needs.",
               "Then the longest one would have an advantage that has nothing to do with the order."),
        Option("The start, the data and the number of steps in total.",
               "Then a difference belongs to the order of learning.", True),
    )),
)

POLL = Poll(
    "A thin student, six blocks with a bottleneck, gets 300 batches. Which way will be most accurate on new sentences?",
    ("Only the task: labels and the teacher's stored answers, for all 300 batches.",
     "Auxiliary: blocks and task in one sum.", "Joint: first all blocks together, then the task.",
     "Progressive: block after block, then the task.",
     "The two best will differ by less than the interval of their difference."),
)

CHAPTER = Chapter("ch06", "A thin student of full depth (MobileBERT 2020)",
                  (SIZE, FEATURES, ATTENTION, RATES, PROBABILITIES, DIAGNOSE), QUIZ, POLL)
