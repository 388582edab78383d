"""Exercises of chapter 4, BERT-PKD: matched layers, patience, and what normalisation does to a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, near, numbers


def _states(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- q1 ---------------------------------------------------------------------------------------------------------------

SKIP_MAP = Question(
    name="ch04.q1",
    title="PKD-skip for any depth",
    points=2,
    difficulty=1,
    minutes=6,
    stub='''\
def skip_map(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """The pairs (student layer, teacher layer) of PKD-skip: every k-th teacher
    layer, without the last one.

    Layers count from 1, k = teacher_layers / student_layers, and k is a whole
    number in all cases here.
    Returns: a list of pairs of integers. For 6 and 12: [(1, 2), (2, 4), (3, 6),
    (4, 8), (5, 10)].
    """
    raise NotImplementedError("ch04.q1")
''',
    hints=("Student layer i learns from teacher layer i * k. Which i is the last one that takes part?",
           "range(1, student_layers) leaves the last student layer out. Use // for k: indices are whole numbers."),
    mistakes={
        "with_the_last": "The last layers are in the map. PKD leaves them out, because the answers already speak to "
                         "the last layer.",
        "from_zero": "These layers count from 0. In this course 0 is the embedding output; blocks count from 1.",
        "pkd_last": "This is PKD-last: the teacher's last layers but one. PKD-skip takes every k-th layer.",
        "first_of_group": "This takes the first layer of every group of k. PKD-skip takes the last one: i * k.",
        "swapped": "The pairs are (teacher layer, student layer). Here the student comes first.",
        "every_second": "Every second layer is right only for a teacher twice as deep. k is the ratio of the depths.",
    },
    extremes="Try a student of two layers: one pair remains.",
)

# --- q2 ---------------------------------------------------------------------------------------------------------------

MATCHED = Question(
    name="ch04.q2",
    title="Pick the [CLS] states of matched layers",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def matched_cls(student_states: Tensor, teacher_states: Tensor,
                layer_map: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The [CLS] states of every pair of the map, side by side.

    student_states: (student layers + 1, batch, tokens, hidden), what Hugging
    Face returns as hidden_states, stacked:
        index 0 is the embedding output, index 1 the output of the first block.
            [CLS] is the first token.
    teacher_states: (teacher layers + 1, batch, tokens, hidden).
    layer_map: pairs (student layer, teacher layer), as in ch04.q1.
    Returns: two tensors (batch, pairs, hidden), the student's and the
    teacher's.
    """
    raise NotImplementedError("ch04.q2")
''',
    hints=("For one pair (s, t): student_states[s] is (batch, tokens, hidden), and [:, 0] picks its first token.",
           "Collect the pairs in a list and join them with torch.stack(..., dim=1): the pairs become dimension 1."),
    mistakes={
        "off_by_one": "Every layer is one too low: index 0 is the embedding output, so layer 1 stands at index 1.",
        "teacher_off_by_one": "The teacher's layers are one too low: its index 0 is the embedding output, too.",
        "last_token": "This is the last token, [SEP] or padding. [CLS] is the first one.",
        "mean_of_tokens": "This is the mean of all tokens. PKD compares the state of [CLS] alone.",
        "swapped": "The two results are swapped: the student's comes first.",
        "ignores_the_map": "The first layers of the teacher are taken in order. The map says which ones.",
    },
    extremes="A map may have one pair only, and a batch one sentence.",
)

# --- q3 ---------------------------------------------------------------------------------------------------------------


def _lengths(scale: float) -> Call:
    return Call((scale * _states(3, 2, 5), _states(3, 2, 5, seed=8)))


PATIENCE = Question(
    name="ch04.q3",
    title="The patience loss",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def patience(student_cls: Tensor, teacher_cls: Tensor) -> Tensor:
    """Mean over the batch of  sum over layers of  || s/||s|| - t/||t|| ||^2.

    This is equation 7.

    student_cls, teacher_cls: (batch, layers, hidden), matched as in ch04.q2.
    Returns: one number, as a tensor of shape (). A state of zeros has no
    direction; it counts as it is, as zeros.
    """
    raise NotImplementedError("ch04.q3")
''',
    hints=("Three steps: normalise both over the hidden dimension, subtract and square, then add up. What is summed, "
           "and what is averaged?",
           "F.normalize(x, dim=-1) divides by the length and survives zeros. Then .sum(dim=(1, 2)).mean()."),
    mistakes={
        "not_normalised": "The states are compared as they are. Divide each by its length first.",
        "only_teacher": "Only the teacher's states are normalised. Both sides need it.",
        "over_layers": "The length is taken over the layers (dim=1). It belongs to one state: dim=-1.",
        "over_all": "All layers of a sentence share one length here. Each state has its own.",
        "mean": "This is the original code's mean over layers and hidden units, too. The exercise asks for the sum.",
        "distance": "These are distances. The loss is their square.",
        "sum_over_batch": "The loss is summed over the batch. Take the mean over the batch.",
        "norm_of_difference": "The difference is normalised. Normalise the two states before you subtract.",
    },
    extremes="Dividing by the length of a state of zeros gives NaN. F.normalize takes care of that.",
    gradient="The loss must be differentiable for the student: no .item(), no .detach() on its side.",
    properties=(
        Property("A student state that is five times as long must cost the same: only directions count.",
                 lambda: [_lengths(1.0), _lengths(5.0)], all_equal),
        Property("Opposite directions must cost 4 per layer, and there are 2 layers here: 8.",
                 lambda: [Call((_states(3, 2, 5), -_states(3, 2, 5)))], lambda answers: near(answers[0], 8, 1e-3)),
        Property("The same sentence twice must give the same loss.",
                 lambda: [Call((_states(2, 2, 5), _states(2, 2, 5, seed=8))),
                          Call((_states(2, 2, 5).repeat(2, 1, 1), _states(2, 2, 5, seed=8).repeat(2, 1, 1)))],
                 all_equal),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

WHOLE = Question(
    name="ch04.q4",
    title="The whole loss",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def pkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    student_cls: Tensor,
    teacher_cls: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """(1 - alpha) * hard + alpha * soft + beta * patience   (equation 8, in the
    paper's reading).

    hard: cross-entropy with the labels. patience: your ch04.q3.
    soft: - sum over classes of softmax(teacher / T) * log softmax(student / T),
    mean over the batch, without T^2.
    student_logits, teacher_logits: (batch, classes). labels: (batch,).
    student_cls, teacher_cls: (batch, layers, hidden).
    Returns: one number, as a tensor of shape ().
    """
    raise NotImplementedError("ch04.q4")
''',
    hints=("Three terms and their weights. alpha divides the weight between labels and answers; beta stands alone.",
           "F.cross_entropy(student_logits / T, (teacher_logits / T).softmax(-1)) is the soft term: PyTorch's "
           "cross-entropy takes probabilities as targets, too."),
    mistakes={
        "swapped_alpha": "alpha weighs the labels here. It must weigh the teacher's answers; the labels get 1 - alpha.",
        "beta_inside": "beta is multiplied by alpha. The patience term stands outside: alpha is for the other two.",
        "t_squared": "The soft term has a factor T^2. The paper writes none (its code does).",
        "kl": "The soft term is a KL: cross-entropy minus the teacher's entropy. The paper writes the cross-entropy.",
        "no_patience": "The patience term is missing.",
        "mean_patience": "The patience term is the code's mean over layers and hidden units. Use the sum of ch04.q3.",
        "hard_at_t": "The hard term uses softened logits. Labels know no temperature.",
    },
    extremes="Take F.cross_entropy or log_softmax instead of the logarithm of a softmax, and F.normalize in the "
             "patience term.",
    gradient="All three terms must reach the student's logits.",
    properties=(
        Property("With beta = 0 the [CLS] states must have no influence.",
                 lambda: [Call((_states(4, 3), _states(4, 3, seed=8), torch.tensor([0, 1, 2, 1]), _states(4, 2, 5),
                                _states(4, 2, 5, seed=s)), {"temperature": 2.0, "alpha": 0.5, "beta": 0.0})
                          for s in (9, 10)], all_equal),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

BETA = Question(
    name="ch04.q5",
    title="Find the bug: a beta from another code",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def beta_for_the_sum(beta_of_the_mean: float, student_layers: int,
                     hidden: int) -> float:
    """The beta that gives the SUM of ch04.q3 the same pull as a published beta
    gave the code's MEAN.

    The original code calls F.mse_loss on tensors (batch, matched layers,
    hidden): a mean over all three. All student layers but the last one are
    matched.
    student_layers: depth of the student. hidden: width of a state. Returns: a
    Python number.
    """
    raise NotImplementedError("ch04.q5")
''',
    hints=("How many numbers does the mean divide by, per sentence? The batch is divided out in both readings.",
           "The mean is the sum divided by matched layers times hidden. A student of 6 layers has 5 matched ones."),
    mistakes={
        "inverse": "Upside down: the sum is the larger number, so it needs the smaller beta.",
        "with_the_last": "The last layer is not matched: count one layer less.",
        "only_hidden": "The mean also divides by the number of matched layers.",
        "only_layers": "The mean also divides by the width of the states.",
        "unchanged": "The same beta on a sum pulls hundreds of times harder than on a mean.",
    },
    extremes="A student of 2 layers has one matched layer.",
)

# --- q6 ---------------------------------------------------------------------------------------------------------------


def _across(answers: Sequence[Value]) -> bool:
    gradient = torch.tensor(numbers(answers[0])).reshape(answers[0].shape)
    return bool(((gradient * _states(3, 2, 5)).sum(dim=-1).abs() < 1e-4).all())


GRADIENT = Question(
    name="ch04.q6",
    title="The pull of patience, by hand",
    points=3,
    difficulty=3,
    minutes=15,
    stub='''\
def patience_gradient(student_cls: Tensor, teacher_cls: Tensor) -> Tensor:
    """The gradient of the patience loss (ch04.q3) for the student's states,
    without autograd.

    student_cls, teacher_cls: (batch, layers, hidden).
    Returns: (batch, layers, hidden), what student_cls.grad would hold after
    loss.backward().
    """
    raise NotImplementedError("ch04.q6")
''',
    hints=("With unit vectors a = s/||s|| and b = t/||t||: ||a - b||^2 = 2 - 2 a·b. So only the cosine a·b has a "
           "gradient. Moving s along itself changes nothing.",
           "The gradient of a·b for s is (b - (a·b) a) / ||s||. Then the factor -2, and the mean over the batch."),
    mistakes={
        "no_projection": "The part along the student's own direction must be taken off: making a state longer changes "
                         "no direction.",
        "no_length": "The division by the student's length is missing: a long state turns slowly.",
        "teacher_length": "The gradient is divided by the teacher's length. It is the student's that counts.",
        "sign": "The sign is wrong: the gradient points away from the teacher, and the step goes against it.",
        "no_batch": "The mean over the batch is missing: divide by the number of sentences.",
        "raw": "This is the gradient without normalisation: 2 (s - t).",
    },
    extremes="Work with the unit vectors; a very long state must give a small gradient, not NaN.",
    properties=(
        Property("The gradient of each state must be at right angles to it: length does not matter to this loss.",
                 lambda: [Call((_states(3, 2, 5), _states(3, 2, 5, seed=8)))], _across),
    ),
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("Why does PKD leave out the last layer?", (
        Option("The last layer has no [CLS].", "Every layer has a state for every token."),
        Option("The answers (soft targets) already tell the last layer what to do.",
               "L_DS acts on the logits, and they are made from the last [CLS] state.", True),
        Option("To save memory, because every layer that is compared has to be stored.",
               "It saves a little, but that is not the reason of section 3.2."),
        Option("Its width differs.", "All layers of a BERT have the same width."),
    )),
    QuizItem("Teacher of 12 layers, student of 4. Which teacher layers does PKD-skip use?", (
        Option("3, 6, 9.", "k = 3, and the last layer (12) is left out.", True),
        Option("3, 6, 9, 12.", "12 is the last layer; it is left out on both sides."),
        Option("2, 4, 6.", "That would be k = 2. Here k = 12 / 4 = 3."),
        Option("9, 10, 11.", "That is PKD-last."),
    )),
    QuizItem("What does the normalisation in equation 7 do?", (
        Option("It makes the states have mean 0, so that a constant part is gone.",
               "Nothing is subtracted. A large constant part stays."),
        Option("Only the direction of a state counts, not its length.",
               "Each state is divided by its own length.", True),
        Option("It divides by the standard deviation over the batch.", "That would be a statistic of the batch."),
        Option("It turns states into probabilities.", "That would be a softmax."),
    )),
    QuizItem("A student's state and the teacher's point in opposite directions. The normalised squared distance is", (
        Option("1.", "The distance of two opposite unit vectors is 2; its square is 4."),
        Option("2.", "2 is the squared distance of unrelated (orthogonal) directions."),
        Option("4.", "||a - (-a)||^2 = ||2a||^2 = 4.", True),
        Option("without limit.", "Unit vectors are never further apart than 2."),
    )),
    QuizItem("A paper's beta is 100 on a mean over 5 layers and 768 units. Your loss sums over both. Which beta pulls "
             "equally?", (
        Option("100.", "The sum is 3,840 times the mean. The pull would be 3,840 times as strong."),
        Option("384,000.", "Upside down: the sum is the larger number."),
        Option("0.026.", "100 / (5 * 768).", True),
        Option("0.13.", "That divides by 768 only. The mean runs over the layers, too."),
    )),
    QuizItem("You store the teacher's [CLS] states once. Which training is then NOT possible?", (
        Option("Shuffling the sentences, so that a batch holds others in every epoch.",
               "The state is a column of its sentence and travels with it."),
        Option("Several epochs.", "The teacher never changes, so its states stay right."),
        Option("Replacing words in the sentences at random in every epoch.",
               "The stored state belongs to the old sentence. A new sentence needs a new state.", True),
        Option("A student with dropout.", "Dropout is the student's own affair."),
    )),
    QuizItem("All teacher [CLS] states of layer 2 are nearly the same vector. The patience term of that layer", (
        Option("teaches the student to tell sentences apart, which is what the layer is for.",
               "The target is the same for every sentence."),
        Option("is small as soon as the student gives that vector, whatever the sentence.",
               "One constant vector solves the task. Look at the spread of your targets before you train.", True),
        Option("is undefined.", "It is a normal number, and a small one."),
        Option("must be multiplied by T^2.", "T belongs to the logits."),
    )),
    QuizItem("Two arms of an experiment: KD with a random start, PKD with copied layers. PKD wins. What is shown?", (
        Option("Patience helps.", "The start differs as well; it may be the whole reason."),
        Option("Copied layers help.", "The loss differs as well."),
        Option("Nothing about either alone: two things changed.",
               "Change one thing at a time. Same start, same batches, same steps; only the loss differs.", True),
        Option("PKD needs no copy.", "That would need a PKD arm without a copy."),
    )),
)

POLL = Poll(
    "A student of 3 layers starts as a copy of teacher layers 2, 4 and 6. Four losses: labels; labels and answers; the "
    "same plus PKD-skip; the same plus PKD-last. Which one will be most accurate on new sentences?",
    ("Labels alone.", "Labels and the teacher's answers.", "Answers and PKD-skip: layers 2 and 4.",
     "Answers and PKD-last: layers 4 and 5.", "The two best will differ by less than their interval."),
)

CHAPTER = Chapter("ch04", "Patient distillation (BERT-PKD 2019)", (SKIP_MAP, MATCHED, PATIENCE, WHOLE, BETA, GRADIENT),
                  QUIZ, POLL)
