"""Exercises of chapter 1, Hinton: soft targets and temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, near, numbers


def _logits(*shape: int, seed: int = 7, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _row_sums(answer: Value) -> list[float]:
    return torch.tensor(numbers(answer)).reshape(answer.shape).sum(dim=-1).flatten().tolist()


# --- q1 ---------------------------------------------------------------------------------------------------------------

SOFTMAX = Question(
    name="ch01.q1",
    title="Softmax with a temperature",
    points=2,
    difficulty=1,
    minutes=6,
    stub='''\
def softened(logits: Tensor, temperature: float) -> Tensor:
    """Soften logits: q_i = exp(z_i / T) / sum_j exp(z_j / T).

    logits: (..., classes), any number of dimensions in front; the classes come
    last.
    Returns: probabilities of the same shape. They must stay finite for logits
    of 10,000 and T = 0.05.
    """
    raise NotImplementedError("ch01.q1")
''',
    hints=("The temperature acts on the logits, before anything is exponentiated.",
           "exp(200000) is infinite. Subtract each row's largest logit first (the result does not change), "
           "or let torch.softmax do that. Name the dimension: dim=-1."),
    mistakes={
        "multiplied": "The logits are multiplied by T. Divide by it: a higher T must give flatter probabilities.",
        "no_temperature": "This is the softmax at T = 1. The temperature has no effect yet.",
        "after_softmax": "T divides the probabilities, after the softmax, so they no longer sum to 1. "
                         "Divide the logits instead.",
        "dim_0": "The softmax runs over the wrong dimension: classes are the last one, dim=-1, and here dim=0 is used.",
        "dim_1": "Right for two dimensions only: with (batch, tokens, classes) dim=1 is the tokens. Use dim=-1.",
        "log": "These are logarithms of probabilities. Return the probabilities themselves.",
        "sum_of_all": "The sum runs over the whole tensor: .sum() without a dimension. Sum each row on its own: "
                      ".sum(dim=-1, keepdim=True).",
        "exp_only": "These are exponentials, not probabilities yet: divide each row by its sum.",
        "largest_is_1": "The largest of each row is 1: its logit was subtracted, but the row was not divided by its "
                        "sum.",
        "sigmoid": "This is the sigmoid, which looks at each logit alone. A softmax compares the classes of a row.",
        "minus": "The sign of the logits is turned round: the largest logit must give the largest probability.",
        "power": "These are powers of probabilities. They would have to be divided by their sum; dividing the logits "
                 "by T before the softmax does both.",
    },
    extremes="exp overflows. Subtract the largest logit of each row before the exponential.",
    properties=(
        Property("The probabilities of a row must sum to 1.",
                 lambda: [Call((_logits(3, 5), 1.7))],
                 lambda answers: all(abs(total - 1) < 1e-4 for total in _row_sums(answers[0]))),
        Property("Adding one number to all logits of a row must change nothing.",
                 lambda: [Call((_logits(3, 5), 3.0)), Call((_logits(3, 5) + 8.0, 3.0))], all_equal),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------

SOFT_LOSS = Question(
    name="ch01.q2",
    title="The soft-target loss",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def soft_loss(student_logits: Tensor, teacher_logits: Tensor,
              temperature: float) -> Tensor:
    """T^2 * KL(teacher || student), both softened with T: a sum over classes,
    then the mean over the batch.

    student_logits, teacher_logits: (batch, classes).
    Returns: one number, as a tensor of shape ().
    """
    raise NotImplementedError("ch01.q2")
''',
    hints=("KL(p || q) = sum_i p_i (log p_i - log q_i), with p from the teacher and q from the student. "
           "Take the logarithms with log_softmax.",
           "F.kl_div wants the student's LOG-probabilities first and the teacher's probabilities second, and "
           'reduction="batchmean". Then multiply by temperature**2.'),
    mistakes={
        "no_t2": "The factor T^2 is missing. Without it the soft gradient shrinks like 1/T^2.",
        "t_once": "The factor is T, but it must be T^2: the gradient shrinks once through z / T and once more because "
                  "the probabilities become flatter.",
        "mean": 'reduction="mean" divides by the number of classes too. Use the sum over classes and the mean over '
                "the batch.",
        "sum": "The loss is summed over the batch. Take the mean over the batch.",
        "swapped": "Teacher and student are swapped: this is KL(student || teacher). In F.kl_div the student comes "
                   "first, as log-probabilities.",
        "probabilities": "F.kl_div got the student's probabilities, but it wants log-probabilities. Use log_softmax.",
        "only_student": "Only the student is softened. Divide the teacher's logits by T as well.",
        "only_teacher": "Only the teacher is softened. Divide the student's logits by T as well.",
        "cross_entropy": "This is the cross-entropy: KL plus the teacher's entropy. The gradient is the same, but the "
                         "exercise asks for KL, which is 0 for a perfect student.",
        "dim_0": "The softmax runs over the batch, dim=0. The classes are the last dimension.",
        "probabilities_mean": "Two mistakes at once: F.kl_div got the student's probabilities where it wants "
                              'log-probabilities, and its default reduction "mean" divides by the classes too.',
        "both_logs": "Both arguments of F.kl_div are log-probabilities. The second one, the teacher's, must be "
                     "probabilities (or say log_target=True).",
        "squares": "This is the squared distance of the probabilities. KL compares their logarithms.",
    },
    extremes="Do not take the logarithm of a softmax: a probability of 0 has none. Use log_softmax.",
    gradient="The loss must be differentiable for the student: no .item(), no .detach(), no torch.no_grad() on its "
             "side.",
    properties=(
        Property("A student with the teacher's logits must have loss 0.",
                 lambda: [Call((_logits(4, 6), _logits(4, 6), 3.0))], lambda answers: near(answers[0], 0)),
        Property("The same batch twice must give the same loss: divide by the batch, not by a fixed number.",
                 lambda: [Call((_logits(3, 4), _logits(3, 4, seed=8), 2.0)),
                          Call((_logits(3, 4).repeat(2, 1), _logits(3, 4, seed=8).repeat(2, 1), 2.0))], all_equal),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------

WHOLE_LOSS = Question(
    name="ch01.q3",
    title="Hard and soft loss together",
    points=3,
    difficulty=2,
    minutes=8,
    stub='''\
def whole_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    hard_weight: float,
    soft_weight: float,
) -> Tensor:
    """hard_weight * cross-entropy with the labels + soft_weight * your soft
    loss (T^2 included).

    student_logits, teacher_logits: (batch, classes). labels: (batch,), the
    right class of each example.
    Returns: one number, as a tensor of shape (). The two weights need not sum
    to 1.
    """
    raise NotImplementedError("ch01.q3")
''',
    hints=("Two terms. The hard one looks at the labels and the student only; the soft one is your answer to ch01.q2.",
           "The hard term is F.cross_entropy(student_logits, labels) at T = 1: the labels know no temperature. "
           "T^2 belongs to the soft term only."),
    mistakes={
        "swapped_weights": "The weights are swapped: hard_weight must weigh the cross-entropy with the labels.",
        "no_t2": "The factor T^2 is missing in the soft term.",
        "t2_on_both": "T^2 multiplies both terms. It belongs to the soft term only.",
        "hard_at_t": "The hard term uses softened logits. Labels know no temperature: use the raw logits there.",
        "mean": 'reduction="mean" in the soft term divides by the number of classes too. Use "batchmean".',
        "teacher_hard": "The hard term measures the teacher. It must measure the student against the labels.",
        "one_alpha": "One weight is taken as 1 minus the other. Use both weights as they are given.",
        "swapped_kl": "In the soft term teacher and student are swapped.",
        "t2_twice": "T^2 is in the soft term twice: your soft loss of ch01.q2 has it already.",
        "softmax_before_ce": "F.cross_entropy got probabilities. It takes the softmax itself, so give it the raw "
                             "logits.",
        "no_hard": "The hard term is missing: the labels have no effect.",
        "soft_cross_entropy": "The soft term is the cross-entropy: KL plus the teacher's entropy. The exercise asks "
                              "for KL.",
    },
    extremes="Look at both terms: log_softmax instead of log(softmax), cross_entropy on raw logits.",
    gradient="Both terms must reach the student: no .item(), no .detach() on its side.",
    properties=(
        Property("With soft_weight = 0 the teacher must have no influence.",
                 lambda: [Call((_logits(4, 3), _logits(4, 3, seed=s), torch.tensor([0, 1, 2, 1])),
                               {"temperature": 2.0, "hard_weight": 1.0, "soft_weight": 0.0}) for s in (8, 9)],
                 all_equal),
        Property("With hard_weight = 0 the labels must have no influence.",
                 lambda: [Call((_logits(4, 3), _logits(4, 3, seed=8), torch.tensor(labels)),
                               {"temperature": 2.0, "hard_weight": 0.0, "soft_weight": 1.0})
                          for labels in ([0, 1, 2, 1], [2, 2, 0, 0])], all_equal),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------


def _with_other_padding(seed: int) -> Call:
    student, teacher = _logits(2, 4, 5), _logits(2, 4, 5, seed=8)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    padded = mask[..., None] == 0
    return Call((torch.where(padded, _logits(2, 4, 5, seed=seed), student),
                 torch.where(padded, _logits(2, 4, 5, seed=seed + 1), teacher), mask, 2.0))


TOKEN_LOSS = Question(
    name="ch01.q4",
    title="The soft loss per token, without padding",
    points=3,
    difficulty=3,
    minutes=12,
    stub='''\
def token_loss(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor,
               temperature: float) -> Tensor:
    """The soft loss of ch01.q2 as a mean over all kept tokens of the batch.

    student_logits, teacher_logits: (batch, tokens, classes).
    mask: (batch, tokens), 1 or True = keep this token, 0 or False = padding.
    Returns: one number, as a tensor of shape (). Every kept token weighs the
    same.
    """
    raise NotImplementedError("ch01.q4")
''',
    hints=("Make rows first: pick the kept tokens of both models, which gives (kept, classes). "
           "Then it is your answer to ch01.q2.",
           "mask.bool() selects; a mask of integers would be taken as row numbers: student_logits[mask.bool()]."),
    mistakes={
        "batchmean_3d": '"batchmean" divides by the batch, and here that is the number of sentences. '
                        "Divide by the number of kept tokens.",
        "divides_by_all": "Padding adds nothing to the sum, but it still counts in the mean. "
                          "Divide by the number of kept tokens only.",
        "no_mask": "The padding takes part: the mask has no effect.",
        "mean": "The mean runs over the classes too. Sum over classes, then take the mean over kept tokens.",
        "inverted": "The mask is inverted: this is the loss of the padding. 1 means keep.",
        "per_sentence": "This is a mean per sentence, then over sentences. Here every kept token weighs the same.",
        "integer_index": "A mask of integers picks rows 0 and 1 instead of kept tokens. Use mask.bool().",
        "integer_index_raw": "student_logits[mask] with a mask of integers picks whole sentences, number 0 and number "
                             "1, again and again. Only mask.bool() selects tokens.",
        "t_once": "The factor is T. It must be T^2, as in ch01.q2.",
        "sum": "The loss is summed over the kept tokens. Take their mean.",
        "swapped": "Teacher and student are swapped.",
        "no_t2": "The factor T^2 is missing.",
    },
    extremes="Take log_softmax, not the logarithm of a softmax, and drop padding before you compute.",
    gradient="The loss must be differentiable for the student, and padded tokens must get gradient 0.",
    properties=(
        Property("What stands in the padding must not matter.",
                 lambda: [_with_other_padding(seed) for seed in (20, 30)], all_equal),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

FACTOR = Question(
    name="ch01.q5",
    title="Find the bug: the hidden factor of a reduction",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def missing_factor(reduction: str, batch: int, tokens: int,
                   classes: int) -> float:
    """By which number must this loss be multiplied to become the mean over
    tokens of the KL?

        F.kl_div(student_log_probs, teacher_probs, reduction=reduction)

    Both tensors have the shape (batch, tokens, classes), and there is no
    padding.
    reduction: "mean", "batchmean" or "sum". Returns: the factor, a Python
    number. No tensor is needed.
    """
    raise NotImplementedError("ch01.q5")
''',
    hints=("F.kl_div first makes batch * tokens * classes numbers. What does each reduction divide their sum by? "
           "And what should it be divided by?",
           'Wanted: sum / (batch * tokens). "mean" gives sum / (batch * tokens * classes), "batchmean" gives '
           'sum / batch, "sum" divides by nothing.'),
    mistakes={
        "inverse": "Upside down: this is the given loss divided by the wanted one. The exercise asks for the inverse.",
        "one": "A factor of 1 would mean that nothing is hidden. Count what each reduction divides by.",
        "batchmean_is_right": '"batchmean" is not per token here: it divides by the first dimension only, '
                              "which is the number of sentences.",
        "sum_by_batch": '"sum" must be divided by the tokens as well, not only by the batch.',
        "mean_is_right": '"mean" divides by the classes too, and that has to be undone.',
        "mean_and_tokens": '"mean" divides by the tokens, and so it should: only the classes have to be undone.',
        "batchmean_and_classes": '"batchmean" does not divide by the classes, so they are not in its factor.',
        "sum_by_classes": 'The KL is a sum over the classes, so "sum" must not be divided by them.',
        "tokens_for_batch": '"batchmean" has divided by the batch already. What is still missing are the tokens.',
    },
    extremes="Think of a masked-LM head with 30,522 classes.",
)

# --- q6 ---------------------------------------------------------------------------------------------------------------


def _limit_holds(answers: Sequence[Value]) -> bool:
    student, teacher = _logits(4, 5), _logits(4, 5, seed=8)
    gap = student - teacher
    gap = gap - gap.mean(dim=-1, keepdim=True)
    return all(abs(a - b) < 2e-3 for a, b in zip(numbers(answers[0]), (gap / 20).flatten().tolist(), strict=True))


GRADIENT = Question(
    name="ch01.q6",
    title="The gradient, by hand",
    points=3,
    difficulty=3,
    minutes=14,
    stub='''\
def soft_gradient(student_logits: Tensor, teacher_logits: Tensor,
                  temperature: float) -> Tensor:
    """The gradient of your soft loss (ch01.q2, with T^2) for the student's
    logits, without autograd.

    student_logits, teacher_logits: (batch, classes).
    Returns: (batch, classes), what student_logits.grad would hold after
    loss.backward().
    """
    raise NotImplementedError("ch01.q6")
''',
    hints=("At T = 1 the gradient of the KL for one example is simply q - p: the student's probabilities minus the "
           "teacher's.",
           "Dividing the logits by T puts a factor 1/T in front of q - p, T^2 multiplies it, and the mean over the "
           "batch divides by the batch."),
    mistakes={
        "sign": "The sign is wrong: where the student gives too much, the gradient is positive.",
        "no_t": "The factor T is missing: T^2 from the loss times 1/T from the division of the logits leaves T.",
        "t_squared": "T^2 is too much: dividing the logits by T takes one T away again.",
        "without_t2": "This is the gradient without the factor T^2 of the loss: it shrinks as T grows.",
        "no_batch": "The mean over the batch is missing: divide by the number of examples.",
        "t_is_1": "The probabilities are those of T = 1. Soften both with T first.",
        "of_logits": "This is the difference of the logits. The gradient is the difference of the PROBABILITIES.",
        "of_logs": "This is the difference of the log-probabilities. The gradient is the difference of the "
                   "probabilities.",
        "per_number": "You divide by all numbers. The mean is over the examples only.",
    },
    extremes="The gradient is a difference of probabilities. Only their softmax can overflow: use torch.softmax.",
    properties=(
        Property("The gradient of each row must sum to 0: adding one number to all logits changes no probability.",
                 lambda: [Call((_logits(3, 5), _logits(3, 5, seed=8), 2.0))],
                 lambda answers: all(abs(total) < 1e-4 for total in _row_sums(answers[0]))),
        Property("For a very large T the gradient must tend to the difference of the centred logits, divided by the "
                 "classes and the batch.",
                 lambda: [Call((_logits(4, 5), _logits(4, 5, seed=8), 500.0))], _limit_holds),
    ),
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("What happens to the softened probabilities when T grows?", (
        Option("They come closer to each other, and the largest stays the largest.",
               "Dividing all logits by the same number makes the gaps smaller and keeps their order.", True),
        Option("They come closer to each other, and the order may change.",
               "All logits are divided by the same positive number. That cannot change their order."),
        Option("The largest comes closer to 1.", "That happens when T becomes small, below 1."),
        Option("Nothing; only the loss changes.", "The softmax sees the logits after the division by T."),
    )),
    QuizItem("Why is the soft loss multiplied by T^2?", (
        Option("So that the loss is never negative.", "KL is never negative, with or without a positive factor."),
        Option("So that the probabilities sum to 1.", "The softmax does that at every T."),
        Option("So that the soft gradient keeps its size when T changes.",
               "The gradient shrinks like 1/T^2, so the balance with the hard loss would move with T.", True),
        Option("So that the student learns faster at the end of the training.",
               "The factor is constant in training. It balances two terms; it is no schedule."),
    )),
    QuizItem("The loss uses cross-entropy with soft targets instead of KL. What changes?", (
        Option("The gradient: the student goes to another place.",
               "The two differ by the teacher's entropy, and that does not depend on the student."),
        Option("Only the value: it no longer reaches 0.",
               "Cross-entropy is KL plus the teacher's entropy. The gradient for the student is the same.", True),
        Option("Nothing at all.", "The value changes: a perfect student has the teacher's entropy as its loss, not 0."),
        Option("T^2 is no longer needed.", "The gradients are the same, so the factor is needed for the same reason."),
    )),
    QuizItem('A classifier has 2 classes, and the code says `reduction="mean"`. By which factor is the soft loss too '
             "small?", (
        Option("It is right: `mean` is the mean over the batch.",
               "`mean` takes the mean over all numbers, and there are batch * classes of them."),
        Option("By the batch size.", "The batch is divided out as it should be. Something else is divided out too."),
        Option("By 2.", "`mean` divides by the classes as well: 2 here, 30,522 on a masked-LM head.", True),
        Option("By T^2.", "T^2 is a separate factor. No reduction knows T."),
    )),
    QuizItem("A code has one weight alpha = 0.9. Which term does it weigh?", (
        Option("The hard loss.", "In some codes. In others it is the soft loss."),
        Option("The soft loss.", "In some codes. In others it is the hard loss."),
        Option("You have to read that code.",
               "Codes differ. That is why this course writes `hard_weight` and `soft_weight`.", True),
        Option("Both, because they share it.", "Then it would only scale the learning rate."),
    )),
    QuizItem("At T = 4, may you soften the student only and leave the teacher at T = 1?", (
        Option("Yes, the teacher is fixed anyway.",
               "Fixed, but sharp: the student would need logits four times as large to match it."),
        Option("No, both need the same T.",
               "A student with the teacher's logits has loss 0 only if both are softened alike.", True),
        Option("Yes, if T^2 is left out.", "T^2 scales the loss. It does not move its minimum."),
        Option("No, because the softmax would overflow.", "Nothing overflows. The student would learn another target."),
    )),
    QuizItem("The student is used after training. At which temperature?", (
        Option("T = 1.", "The temperature belongs to the training. Prediction uses the plain softmax.", True),
        Option("The T of the training.", "Then all its probabilities would be too flat, although the answers stay."),
        Option("A T chosen on the test set.", "That would tune on the test set, and spoil the score."),
        Option("The T of the teacher's own training.", "The teacher learned from hard labels, without a T."),
    )),
    QuizItem("Five seeds: the distilled student is 1.0 point better on average, 95 % interval -0.4 to +2.4. "
             "What may you write?", (
        Option("Distillation helps by 1 point.", "The interval contains 0, so the sign is not certain."),
        Option("Distillation does not help.", "The interval contains +2.4 too. Not shown is not the same as absent."),
        Option("No difference was shown with these five seeds.",
               "The interval contains 0. More seeds would make it shorter.", True),
        Option("Distillation helps, because the best seed won by 3 points.",
               "The best of five is luck as much as method. Report all seeds."),
    )),
)

POLL = Poll(
    "500 sentences have a label, 8,333 have none. The teacher learned from the same 500. Which student will be most "
    "accurate on new sentences?",
    ("The one with the 500 labels: they are the truth, the teacher is right in 79 % only.",
     "The one that gets the teacher's soft answers on the 500 sentences.",
     "The one that reads all text, with the class that the teacher names as its label.",
     "The one that reads all text, with the teacher's soft answers.",
     "The best two will be equally good: their difference is smaller than its interval."),
)

CHAPTER = Chapter("ch01", "Soft targets (Hinton 2015)", (SOFTMAX, SOFT_LOSS, WHOLE_LOSS, TOKEN_LOSS, FACTOR, GRADIENT),
                  QUIZ, POLL)
