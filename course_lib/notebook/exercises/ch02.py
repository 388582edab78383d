"""Exercises of chapter 2, Distilled BiLSTM: text that we make, the two last states, and a loss on raw logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Forecast, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, numbers


def _logits(*shape: int, seed: int = 7, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _words(answer: Value) -> list[str]:
    return [word.items[0] for word in answer.items]


# --- q1 ---------------------------------------------------------------------------------------------------------------

EDITED = Question(
    name="ch02.q1",
    title="One draw per word",
    points=2,
    difficulty=1,
    minutes=8,
    stub='''\
def edited(words: list[str], others: list[str], draws: list[float],
           p_mask: float, p_pos: float) -> list[str]:
    """Mask some words of a sentence and replace some others, by ONE draw X per
    word.

    X < p_mask: "[MASK]".   p_mask <= X < p_mask + p_pos: the other word.
    Otherwise: the word itself.
    words, others, draws: lists of the same length; others[i] has the same part
    of speech as words[i].
    Returns: a new list of that length.
    """
    raise NotImplementedError("ch02.q1")
''',
    hints=("Go through the three lists together: zip(words, others, draws). There are three cases, in the order of the "
           "text above.",
           "if x < p_mask: ... elif x < p_mask + p_pos: ... else: ... The second border is the SUM: both edits share "
           "one draw."),
    mistakes={
        "inverted": "The mask is inverted: X > p_mask masks 90 % of the words when p_mask is 0.1. It must be "
                    "X < p_mask.",
        "no_sum": "The second border is p_pos alone. It must be p_mask + p_pos: the draws below p_mask are taken "
                  "already.",
        "replaced_first": "Words below p_mask are replaced, too: ask for the mask first, then for the replacement.",
        "swapped": "Mask and replacement are swapped: the draws below p_mask belong to [MASK].",
        "dropped": "Kept words are missing. Every word has one place in the answer, edited or not.",
        "never_replaced": "Words are masked, but never replaced: the second case is missing.",
        "never_masked": "Words are replaced, but never masked: the first case is missing.",
        "upper_end": "You replace at the upper end, X > 1 - p_pos. The share is right, but the draws next to p_mask "
                     "are meant: p_mask <= X < p_mask + p_pos.",
        "no_brackets": 'The mask is the text "[MASK]", brackets included.',
        "deleted": "Masked words are left out. They become [MASK] and keep their place.",
    },
    extremes="Think of p_mask = 0, of p_mask = 1 and of an empty sentence.",
    properties=(
        Property("With both probabilities 0 the sentence must stay as it is.",
                 lambda: [Call((["so", "so"], ["very", "too"], [0.0, 0.5], 0.0, 0.0))],
                 lambda answers: _words(answers[0]) == ["so", "so"]),
        Property("A word must not depend on the draws of its neighbours.",
                 lambda: [Call((["a", "b"], ["c", "d"], [first, 0.15], 0.1, 0.1)) for first in (0.05, 0.95)],
                 lambda answers: [_words(answer)[1] for answer in answers] == ["d", "d"]),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------


def _with_other_padding(seed: int) -> Call:
    forward, backward = _logits(2, 4, 3), _logits(2, 4, 3, seed=8)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    padded = mask[..., None] == 0
    return Call((torch.where(padded, _logits(2, 4, 3, seed=seed), forward),
                 torch.where(padded, _logits(2, 4, 3, seed=seed + 1), backward), mask))


LAST_STATES = Question(
    name="ch02.q2",
    title="The last state of each direction",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def sentence_vectors(forward_states: Tensor, backward_states: Tensor,
                     mask: Tensor) -> Tensor:
    """What a BiLSTM knows when it has read a whole sentence, from left to right
    and from right to left.

    forward_states, backward_states: (batch, tokens, hidden); row t belongs to
    word t in BOTH of them.
    mask: (batch, tokens), 1 = word, 0 = padding; the padding stands at the end.
    Returns: (batch, 2 * hidden): the forward LSTM's last state, then the
    backward LSTM's last state.
    """
    raise NotImplementedError("ch02.q2")
''',
    hints=("The forward LSTM is ready at the last WORD, not at the last column. Where is the backward LSTM ready? It "
           "starts at the end of the sentence.",
           "last = mask.sum(dim=1) - 1; forward_states[torch.arange(len(mask)), last] picks one row per sentence. The "
           "backward LSTM is ready at word 0. Then torch.cat([...], dim=-1)."),
    mistakes={
        "last_column": "The forward state is that of the last column, and for short sentences that is padding.",
        "backward_at_the_end": "At the last word the backward LSTM has read one word only. It is ready at word 0.",
        "both_first": "At word 0 the forward LSTM has read one word only. It is ready at the last word.",
        "swapped": "The order is swapped: first the forward state, then the backward state.",
        "mean": "This is the mean over the words. The paper takes the two last states.",
        "mixed": "Both faults at once: the forward state is taken from the last column, and the backward state too.",
        "backward_last_column": "The backward state is that of the last column, where the backward LSTM begins. It is "
                                "ready at word 0.",
        "mean_with_padding": "This is the mean over all columns, padding included. The paper takes the two last "
                             "states.",
        "largest": "This is the largest number of each column of states (max pooling). The paper takes the two last "
                   "states.",
        "word_before": "The forward state is that of the word before the last one. The last word has the place "
                       "mask.sum(dim=1) - 1.",
    },
    extremes="Think of a sentence of one word: both directions are ready at word 0.",
    properties=(
        Property("What stands in the padding must not matter.",
                 lambda: [_with_other_padding(seed) for seed in (20, 30)], all_equal),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------

LOSS = Question(
    name="ch02.q3",
    title="The distillation loss",
    points=4,
    difficulty=2,
    minutes=14,
    stub='''\
def distilled_loss(student_logits: Tensor, teacher_logits: Tensor,
                   labels: Tensor, *, alpha: float) -> Tensor:
    """alpha * CE(label, student) + (1 - alpha) * ||z_T - z_S||^2, both as a
    mean over the batch.

    student_logits, teacher_logits: (batch, classes), raw.
    labels: (batch,). -100 = a sentence that we made and nobody has labelled:
    take the teacher's favourite class. The squared distance is a SUM over the
    classes (equation 4). Returns: one number, as a tensor of shape ().
    """
    raise NotImplementedError("ch02.q3")
''',
    hints=("Fill the gaps first: torch.where(labels == -100, teacher_logits.argmax(dim=-1), labels).",
           "The distance: ((teacher_logits - student_logits) ** 2).sum(dim=-1).mean(). The rest is F.cross_entropy "
           "with the filled labels, and the two weights."),
    mistakes={
        "mean": "F.mse_loss takes the mean over the classes too. The paper sums over them (equation 4).",
        "sum": "The distance is summed over the batch. Take the mean over the batch.",
        "probabilities": "These are probabilities. The paper compares RAW logits: no softmax on either side.",
        "log_probabilities": "These are log-probabilities. They are the logits up to a constant per row, and the "
                             "squared distance sees that constant.",
        "alpha_swapped": "alpha weighs the cross-entropy, and 1 - alpha the distance.",
        "left_out": "Sentences without a label are left out of the cross-entropy. They count, with the teacher's "
                    "favourite class as their label.",
        "always_the_teacher": "The teacher's favourite class stands in for all labels. Where there is a true label, "
                              "use it.",
        "students_own": "The gaps are filled with the STUDENT's favourite class. It would learn from itself.",
        "not_squared": "This is the distance. Its square is wanted: no square root.",
    },
    extremes="Think of a batch without any true label, and of alpha = 0 and alpha = 1.",
    gradient="The loss must be differentiable for the student: no .item(), no .detach(), no torch.no_grad() on its "
             "side.",
    properties=(
        Property("A student with the teacher's logits must have loss 0 at alpha = 0.",
                 lambda: [Call((_logits(4, 3), _logits(4, 3), torch.tensor([0, 1, 2, -100])), {"alpha": 0.0})],
                 lambda answers: abs(numbers(answers[0])[0]) < 1e-6),
        Property("At alpha = 0 the labels must have no influence.",
                 lambda: [Call((_logits(4, 3), _logits(4, 3, seed=8), torch.tensor(labels)), {"alpha": 0.0})
                          for labels in ([0, 1, 2, 0], [2, -100, 0, 1])], all_equal),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

NGRAMS = Question(
    name="ch02.q4",
    title="All n-grams of a sentence",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def ngrams(words: list[str], n: int) -> list[list[str]]:
    """All n-grams of a sentence, from left to right: every run of n words that
    stand side by side.

    ["a", "dull", "film"], n = 2 -> [["a", "dull"], ["dull", "film"]].
    A sentence that is not longer than n stays whole: the answer is a list with
    one copy of it.
    """
    raise NotImplementedError("ch02.q4")
''',
    hints=("How many places are there to start? Count them for 3 words and n = 2.",
           "There are len(words) - n + 1 places: [words[i:i + n] for i in range(len(words) - n + 1)]. Ask for the "
           "short sentence first."),
    mistakes={
        "last_one_forgotten": "The last n-gram is missing: there are len(words) - n + 1 places to start. The original "
                              "code has this fault.",
        "tails": "The last ones are shorter than n: stop where n words are left.",
        "nothing_for_short": "A sentence that is not longer than n must stay whole. You return nothing for it.",
        "no_overlap": "These are blocks without overlap. An n-gram starts at every word that has enough words behind "
                      "it.",
        "longer": "Your runs have n + 1 words. In Python words[i:i + n] holds n of them: the end is left out.",
        "first_only": "This is the first n-gram only. Start at every word that has enough words behind it.",
        "all_lengths": "These are the runs of every length up to n. Only those of exactly n words are wanted.",
        "reversed": "The order is turned round: go from left to right.",
    },
    extremes="Think of n = 1, and of a sentence of exactly n words.",
    properties=(
        Property("With n = 1 every word must be an n-gram of its own.",
                 lambda: [Call((["so", "very", "so"], 1))],
                 lambda answers: [_words(gram) for gram in answers[0].items] == [["so"], ["very"], ["so"]]),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

WHICH_RULE = Question(
    name="ch02.q5",
    title="Find the bug: which rule made this text?",
    points=2,
    difficulty=2,
    minutes=12,
    stub='''\
def which_rule(masked: float, replaced: float, p_mask: float,
               p_pos: float) -> str:
    """Tell from measured shares of masked and replaced words which code made a
    text. One of four names:

    "right"      if x < p_mask: mask      elif x < p_mask + p_pos: replace
    "inverted"   if x > p_mask: mask      elif x < p_mask + p_pos: replace
    "no sum"     if x < p_mask: mask      elif x < p_pos: replace
    "two draws"  if x < p_mask: mask      elif y < p_pos: replace

    In the last one y is a second draw.

    masked, replaced: shares between 0 and 1, measured on many words, so close
    to what that code gives.
    Returns: the name whose two expected shares are closest to the measured
    ones.
    """
    raise NotImplementedError("ch02.q5")
''',
    hints=("Write down the two expected shares for each code. In the inverted one, which draws are left for the second "
           "question?",
           "right: (p_mask, p_pos). inverted: (1 - p_mask, p_mask). no sum: (p_mask, max(0, p_pos - p_mask)). two "
           "draws: (p_mask, (1 - p_mask) * p_pos). Then take the smallest distance: min(..., key=...)."),
    mistakes={
        "masked_only": "You look at the masked words only. Three of the four codes mask the same share: look at the "
                       "replaced words, too.",
        "inverted_as_swapped": "You expect p_mask of the words masked by the inverted code, and the others replaced. "
                               "It is the other way round: 1 - p_mask are masked.",
        "two_draws_multiplied": "With two draws the replaced share is (1 - p_mask) * p_pos: the second draw is only "
                                "asked for words that are not masked.",
        "no_sum_is_zero": "Without the sum, draws between p_mask and p_pos still replace: the share is p_pos - p_mask, "
                          "or 0 if p_pos is smaller.",
        "farthest": "You return the name that is farthest away. Take the smallest distance.",
        "replaced_only": "You look at the replaced words only. Look at the masked words, too.",
        "always_right": "You always answer \"right\". Compare the shares with what each of the four codes would give.",
        "crossed": "You compare the masked share with the expected replaced one, and the other way round.",
        "inverted_replaces_none": "The inverted code masks 1 - p_mask of the words, and replaces the p_mask that are "
                                  "left.",
        "two_draws_as_right": "With two draws the second one replaces a share p_pos of what was not masked, not "
                              "1 - p_pos.",
    },
    extremes="Think of p_pos smaller than p_mask.",
)

# --- q6 ---------------------------------------------------------------------------------------------------------------

STEPS, RATE = 200, 0.1


def _steps_until_agreed(gradient: Callable[[Tensor, Tensor], Tensor]) -> tuple[int | None, list[float]]:
    """Gradient descent from a student that is sure and wrong: after how many steps it agrees, and its last logits."""
    student, teacher, agreed = torch.tensor([[6.0, -6.0]]), torch.tensor([[-4.0, 4.0]]), None
    for step in range(1, STEPS + 1):
        student = student - RATE * gradient(student, teacher)
        if agreed is None and student.argmax() == teacher.argmax():
            agreed = step
    return agreed, student.flatten().tolist()


def _both_losses(probability_gradient: Callable[[Tensor, Tensor], Tensor]) -> tuple[str, str]:
    by_logits, _ = _steps_until_agreed(lambda student, teacher: 2 * (student - teacher) / len(student))
    mine, last = _steps_until_agreed(probability_gradient)
    letter = "c" if mine is None else "b" if mine > by_logits else "a"
    where = "still does not agree" if mine is None else f"agrees after {mine}"
    return letter, (f"On raw logits the student agrees after {by_logits} steps; with your gradient it {where}. After "
                    f"{STEPS} steps its logits are {last[0]:.2f} and {last[1]:.2f}.")


GRADIENT = Question(
    name="ch02.q6",
    title="Why not probabilities? The gradient, by hand",
    points=3,
    difficulty=3,
    minutes=15,
    stub='''\
def probability_gradient(student_logits: Tensor,
                         teacher_logits: Tensor) -> Tensor:
    """The gradient for the student's logits of the WRONG loss, without
    autograd:

        mean over the batch of sum_i (q_i - p_i)^2
        q = softmax(student_logits), p = softmax(teacher_logits)

    student_logits, teacher_logits: (batch, classes). Returns: (batch, classes).
    """
    raise NotImplementedError("ch02.q6")
''',
    forecast=Forecast(
        "A student is sure and wrong: its logits are 6 and -6, the teacher's are -4 and 4. It takes 200 steps of "
        "gradient descent at the rate 0.1, once on the squared distance of the logits, once on that of the "
        "probabilities. When does it give the teacher's answer?",
        ("At about the same step with both losses: both are 0 only where the two agree.",
         "Later on probabilities, but within the 200 steps.",
         "On probabilities not at all: it hardly moves."),
        experiment=_both_losses,
    ),
    hints=("First the gradient for q: 2 * (q - p). Then through the softmax. Its rule: a gradient g for q becomes "
           "q * (g - s) for the logits, where s is the sum over classes of q * g.",
           "g = 2 * (q - p); s = (q * g).sum(dim=-1, keepdim=True); q * (g - s), divided by the batch."),
    mistakes={
        "not_through_the_softmax": "This is the gradient for the probabilities. It still has to go through the "
                                   "softmax: q * (g - s).",
        "of_logits": "This is the gradient of the squared distance of the logits. Here the loss compares "
                     "probabilities.",
        "of_kl": "q - p is the gradient of the KL divergence. This loss is the squared distance.",
        "no_centre": "The sum s over the classes is missing: each row of the gradient must sum to 0.",
        "no_two": "The factor 2 of the square is missing.",
        "no_batch": "The mean over the batch is missing: divide by the number of examples.",
        "sign": "The sign is wrong: where the student gives too much, the gradient is positive.",
        "per_number": "You divide by all numbers. The loss is a sum over classes and a mean over the batch.",
        "diagonal": "q * (1 - q) is the effect of a logit on its OWN probability. It moves the others as well: "
                    "q * (g - s).",
        "through_the_teacher": "The step through the softmax uses the teacher's probabilities. It is the student's "
                               "softmax: q * (g - s).",
    },
    extremes="Only the softmax can overflow: use torch.softmax.",
    properties=(
        Property("The gradient of each row must sum to 0: adding one number to all logits changes no probability.",
                 lambda: [Call((_logits(3, 5), _logits(3, 5, seed=8)))],
                 lambda answers: torch.tensor(numbers(answers[0])).reshape(3, 5).sum(-1).abs().max().item() < 1e-5),
        Property("A student that is sure and wrong must get almost no gradient from this loss.",
                 lambda: [Call((torch.tensor([[12.0, -12.0]]), torch.tensor([[-4.0, 4.0]])))],
                 lambda answers: max(abs(number) for number in numbers(answers[0])) < 1e-6),
    ),
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("What does the BiLSTM need from the teacher in order to learn?", (
        Option("Its hidden states.", "The two have different layers and widths. Only the answers are compared here."),
        Option("Its tokenizer, so that both split a text alike.",
               "The student has words of its own. Only the number of classes must be the same."),
        Option("Its logits for every training text.",
               "That is all. So teacher and student may be of different families.", True),
        Option("Its word vectors.", "The student starts from GloVe vectors, which nobody distilled."),
    )),
    QuizItem("Why may a sentence that we made ourselves be used for distillation?", (
        Option("Because it means the same as the original.", "Often it does not: “not” may be masked or replaced."),
        Option("Because the teacher answers any text, so every text has a target.",
               "The target is the teacher's answer, not a label that must be true.", True),
        Option("Because its label is known: a made-up copy keeps that of its original.",
               "That label may no longer fit. The paper does not use it."),
        Option("Because a BiLSTM cannot read, so meaning does not matter.",
               "It reads words in order. The point is who gives the answer."),
    )),
    QuizItem("p_mask = 0.1 and p_pos = 0.1, one draw per word. Which share of the words stays as it is, before the "
             "n-gram step?", (
        Option("0.81", "That would be two independent draws: 0.9 * 0.9."),
        Option("0.80", "One draw: 0.1 is masked, 0.1 is replaced, the rest stays.", True),
        Option("0.90", "Two things can happen to a word, each with 0.1."),
        Option("0.60", "The n-gram step drops words, but the question is about the step before."),
    )),
    QuizItem("A forward LSTM is run over a padded batch, and its output at the last column is used. What is wrong?", (
        Option("Nothing: padding has vectors of zeros, which leave the state as it is.",
               "Even zeros change the state at every step: gates have biases and memories."),
        Option("The state of a short sentence has gone on through its padding.",
               "So the answer depends on the longest sentence of the batch.", True),
        Option("The LSTM stops with an error.", "It runs. That is why the mistake is easy to miss."),
        Option("Only the backward LSTM is affected.", "It is affected as well: it STARTS on the padding."),
    )),
    QuizItem("One channel of word vectors is trained, the static one is frozen. What is the static one good for?", (
        Option("It makes the model smaller.", "It makes the model larger: there are two tables."),
        Option("It keeps what GloVe knew, which training on few data would bend.",
               "The tuned copy adapts to the task, the frozen one stays general.", True),
        Option("It holds the teacher's embeddings, so that the student can compare its own.",
               "The teacher's embeddings are not used at all."),
        Option("It is needed for the backward LSTM.", "Both directions read both channels."),
    )),
    QuizItem("Stored log-probabilities take the place of raw logits in the squared distance. What happens?", (
        Option("Nothing: log-probabilities are the logits up to a constant in each row.",
               "True for a softmax, which cannot see the constant. A squared distance sees it."),
        Option("The loss becomes 0.", "The student would have to give log-probabilities for that."),
        Option("The student must also learn a constant that differs from row to row.",
               "Take the mean of each row off first; then it is the logits without their common part.", True),
        Option("The classes are swapped.", "The order of the classes stays."),
    )),
    QuizItem("A BiLSTM on labels has 78 %, the distilled one 80 %, and TF-IDF with logistic regression 79 %. "
             "What should your report say?", (
        Option("The BiLSTM gained 2 points, and a model without a network is about as good.",
               "A cheap baseline tells the reader what the 2 points are worth.", True),
        Option("The BiLSTM gained 2 points.", "True, and it hides the most useful comparison."),
        Option("Distillation does not work.", "It gained 2 points. The question is whether that is worth it."),
        Option("Nothing until TF-IDF is distilled, too.", "A baseline need not use the same method."),
    )),
    QuizItem("“15 times less inference time”, says the abstract. What must you ask first?", (
        Option("Less than what, and on which machine.",
               "In the abstract the other model is ELMo, not BERT. A ratio has two models and one machine.", True),
        Option("With which learning rate, and for how many steps it was trained.",
               "The learning rate has no influence on the time of a trained model."),
        Option("With which seed.", "The time of a forward pass does not depend on the seed."),
        Option("With how many labels.", "Inference uses no labels."),
    )),
)

POLL = Poll(
    "A BiLSTM with GloVe vectors learns movie reviews in five ways, with the same number of steps. Which one will be "
    "the most accurate on new sentences?",
    ("The labels of the real sentences.", "The teacher's logits for the real sentences.",
     "The labels, and three made-up copies of each sentence with the label of the original.",
     "The teacher's logits for the real sentences and for the made-up copies.",
     "The two best will differ by less than their interval."),
)

CHAPTER = Chapter("ch02", "Another family (Tang 2019)", (EDITED, LAST_STATES, LOSS, NGRAMS, WHICH_RULE, GRADIENT),
                  QUIZ, POLL)
