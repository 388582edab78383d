"""Exercises of the comma lab: how to see a collapse, and what to copy into a narrow student."""

from __future__ import annotations

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import near, numbers


def _probs(rows: int, words: int, seed: int = 7) -> torch.Tensor:
    return torch.softmax(2 * torch.randn(rows, words, generator=torch.Generator().manual_seed(seed)), dim=-1)


# --- q1 ---------------------------------------------------------------------------------------------------------------

SHARE = Question(
    name="lab1.q1",
    title="Is it one answer for everything?",
    points=2,
    difficulty=1,
    minutes=6,
    stub='''\
def share_of_commonest(answers: Tensor, k: int) -> float:
    """How much of all answers the k most frequent answers make up.

    answers: (positions,), a token id for each masked position. k: 1 or more.
    Returns: a share between 0 and 1. With fewer than k different answers it is
    1.
    """
    raise NotImplementedError("lab1.q1")
''',
    hints=("Count how often each token id occurs. torch.unique can return the counts.",
           "Sort the counts, largest first, sum the first k, and divide by the number of positions."),
    mistakes={
        "count": "This is a number of positions. Divide it by all positions: a share lies between 0 and 1.",
        "distinct": "You divide by the number of different answers. Divide by the number of positions.",
        "smallest": "These are the k RAREST answers. Sort the counts from large to small.",
        "first_ids": "These are the k smallest token ids. Their number says nothing: sort by how often each occurs.",
        "only_one": "This is the share of the single most frequent answer. Sum over the first k.",
    },
    extremes="A model with a single answer has only one count. Slicing is safe there; topk(k) is not.",
    properties=(
        Property("A model that always gives the same answer must have the share 1.",
                 lambda: [Call((torch.full((12,), 1010), 4))], lambda answers: near(answers[0], 1)),
        Property("Ten different answers at ten positions: the commonest four make up 0.4.",
                 lambda: [Call((torch.arange(10) * 7 + 3, 4))], lambda answers: near(answers[0], 0.4)),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------

DISTANCE = Question(
    name="lab1.q2",
    title="How far from the unigram distribution?",
    points=3,
    difficulty=2,
    minutes=8,
    stub='''\
def unigram_distance(probs: Tensor, counts: Tensor) -> Tensor:
    """Mean over positions of the total variation: 1/2 * sum over words of
    |p(word) - unigram(word)|.

    probs: (positions, words), the model's probabilities; each row sums to 1.
    counts: (words,), how often each word occurs in the corpus. Turn them into
    shares first.
    Returns: one number, as a tensor of shape (). 0: the model never looks at
    the context.
    """
    raise NotImplementedError("lab1.q2")
''',
    hints=("counts / counts.sum() are the shares. They have one dimension less than `probs`; broadcasting does it.",
           "0.5 * (probs - shares).abs().sum(dim=-1) is one number per position. Then take the mean."),
    mistakes={
        "no_half": "The factor 1/2 is missing: two distributions without a common word must have the distance 1.",
        "counts": "You compare probabilities with counts. Divide the counts by their sum first.",
        "mean": "This takes the mean over the words. Sum over the words, then take the mean over the positions.",
        "sum": "This is the sum over the positions. Take their mean.",
        "squared": "This squares the differences. Total variation takes their absolute value.",
        "signed": "Without the absolute value the differences cancel: both sides sum to 1.",
        "averaged_first": "You average the predictions first. A model that is right everywhere also has the unigram "
                          "distribution ON AVERAGE; take the distance at each position.",
    },
    extremes="Large counts are no problem if you divide by their sum before anything else.",
    properties=(
        Property("A model that gives the corpus shares everywhere must have the distance 0.",
                 lambda: [Call((torch.tensor([[0.5, 0.3, 0.2]] * 4), torch.tensor([50.0, 30.0, 20.0])))],
                 lambda answers: near(answers[0], 0, 1e-5)),
        Property("Two distributions without a common word must have the distance 1.",
                 lambda: [Call((torch.tensor([[1.0, 0.0, 0.0]] * 3), torch.tensor([0.0, 4.0, 4.0])))],
                 lambda answers: near(answers[0], 1, 1e-5)),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------

PLATEAU = Question(
    name="lab1.q3",
    title="The height of the plateau",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def plateau_loss(counts: Tensor) -> Tensor:
    """The best masked-LM cross-entropy, in nats, of a model that cannot see the
    context.

    Its best answer is the unigram distribution; the loss is then the entropy of
    that distribution.
    counts: (words,), how often each word occurs. Some may be 0.
    Returns: one number, as a tensor of shape ().
    """
    raise NotImplementedError("lab1.q3")
''',
    hints=("Entropy: - sum_i p_i log p_i, with the natural logarithm.",
           "0 * log 0 counts as 0, but torch gives NaN. Drop the words with count 0 first, or use torch.xlogy."),
    mistakes={
        "bits": "This is in bits. Use the natural logarithm: PyTorch's cross-entropy is in nats.",
        "mean": "This takes the mean over the words. Entropy is a sum, with the shares as weights.",
        "uniform": "This is log(words), the loss of a model that knows nothing, not even which words are frequent.",
        "counts": "The counts must be divided by their sum before the logarithm.",
        "best_word": "This is -log of the largest share, the loss at the positions of the commonest word. Average over "
                     "all words.",
        "sign": "The sign is wrong: logarithms of shares are negative, an entropy is not.",
    },
    extremes="A word that never occurs must not make the loss NaN.",
    properties=(
        Property("Four words, equally frequent: the entropy must be log 4.",
                 lambda: [Call((torch.tensor([5.0, 5.0, 5.0, 5.0]),))], lambda answers: near(answers[0], 1.386294)),
        Property("A corpus of one single word must give 0.",
                 lambda: [Call((torch.tensor([0.0, 9.0, 0.0]),))], lambda answers: near(answers[0], 0)),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

MASKED = Question(
    name="lab1.q4",
    title="Soft targets at the masked positions",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def masked_soft_loss(student_logits: Tensor, teacher_logits: Tensor,
                     labels: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student), both softened with T: the mean over the
    masked positions.

    student_logits, teacher_logits: (batch, tokens, words).
    labels: (batch, tokens), the hidden token at masked positions, -100
    everywhere else.
    Returns: one number, as a tensor of shape (). All other positions must have
    no influence.
    """
    raise NotImplementedError("lab1.q4")
''',
    hints=("labels != -100 is a mask. student_logits[mask] has the shape (masked positions, words).",
           'Then it is the loss of chapter 1: log_softmax(z_S / T), softmax(z_T / T), reduction="batchmean", T^2.'),
    mistakes={
        "all": "This is the mean over all positions. Keep those whose label is not -100.",
        "inverted": "This keeps the positions that are NOT masked. Keep those whose label is not -100.",
        "no_t2": "The factor T^2 is missing.",
        "mean": 'reduction="mean" divides by the number of words too: with 30,522 words almost nothing is left.',
        "divided_by_all": "The sum runs over the masked positions, but it is divided by all positions.",
        "swapped": "Teacher and student are swapped: this is KL(student || teacher).",
        "positive": "labels > 0 drops a masked token with the id 0. Compare with -100.",
    },
    extremes="Do not take the logarithm of a softmax: use log_softmax.",
    gradient="The loss must be differentiable for the student: no .item(), no .detach() on its side.",
    properties=(
        Property("Whatever stands at positions that are not masked must not matter.",
                 lambda: [Call((_logits(2, 3, 4), _logits(2, 3, 4, seed=9), _LABELS, 2.0)),
                          Call((_changed(_logits(2, 3, 4)), _logits(2, 3, 4, seed=9), _LABELS, 2.0))],
                 lambda answers: abs(numbers(answers[0])[0] - numbers(answers[1])[0]) < 1e-4),
    ),
)

_LABELS = torch.tensor([[-100, 2, -100], [1, -100, 3]])


def _logits(*shape: int, seed: int = 8) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _changed(logits: torch.Tensor) -> torch.Tensor:
    return torch.where((_LABELS == -100)[..., None], logits * 3 + 1, logits)


# --- q5 ---------------------------------------------------------------------------------------------------------------

BLOCK = Question(
    name="lab1.q5",
    title="A block of the teacher's matrix",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def narrowed(weight: Tensor, states: Tensor, outputs: int,
             inputs: int) -> Tensor:
    """Cut a linear layer down to its largest coordinates.

    weight: (all outputs, all inputs) of a teacher's nn.Linear. states: (tokens,
    all inputs), what flows into it. Keep the `inputs` input coordinates with
    the largest mean square in `states`, and the `outputs` output coordinates
    with the largest mean square in states @ weight.T. Keep the order of what
    stays.
    Returns: (outputs, inputs), a block of `weight`.
    """
    raise NotImplementedError("lab1.q5")
''',
    hints=("values.topk(k).indices says which are the largest; .sort().values puts the indices into ascending order.",
           "weight[rows][:, columns] cuts the block out. weight[rows, columns] would pair the indices instead."),
    mistakes={
        "unsorted": "The coordinates are right, but in the order of their size. Sort the indices: all layers must "
                    "agree about the order.",
        "first": "These are simply the first rows and columns. Choose them by their mean square.",
        "weights_only": "You rank by the weights. Rank by what flows: the states, and states @ weight.T.",
        "smallest": "These are the smallest coordinates.",
        "mean": "A mean without a square cancels large positive and large negative states.",
    },
    extremes="Square in float32, and rank the sizes: a coordinate of 1,000 must not overflow.",
    properties=(
        Property("Keeping everything must give the whole matrix.",
                 lambda: [Call((_logits(3, 4), _logits(6, 4, seed=9), 3, 4))],
                 lambda answers: all(abs(a - b) < 1e-5 for a, b in
                                     zip(numbers(answers[0]), _logits(3, 4).flatten().tolist(), strict=True))),
    ),
)

# --- q6 ---------------------------------------------------------------------------------------------------------------

ESCAPE = Question(
    name="lab1.q6",
    title="When did it escape?",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def escaped_at(steps: list, top1: list, plateau: float) -> int:
    """The first step after which the accuracy stays above the plateau for good.

    steps: when it was measured, ascending. top1: the accuracy at each of them,
    in percent.
    plateau: the accuracy of always answering the commonest token, in percent.
    Returns: the step of the first measurement from which on ALL are above the
    plateau; -1 if there is none.
    """
    raise NotImplementedError("lab1.q6")
''',
    hints=("A single lucky measurement is not an escape. Look from the end.",
           "Find the LAST measurement that is not above the plateau; the answer is the step of the next one."),
    mistakes={
        "first": "This is the first measurement above the plateau. It falls back later; the escape must last.",
        "index": "This is a position in the list. Return the step that was measured there.",
        "last_below": "This is the last measurement ON the plateau. The escape is the one after it.",
        "equal": "A measurement equal to the plateau is still on it.",
        "none": "If the last measurement is not above the plateau, the answer is -1.",
    },
    extremes="A single measurement is a list too.",
    properties=(
        Property("A run that is above the plateau from the start escaped at its first measurement.",
                 lambda: [Call(([0, 10, 20], [9.0, 9.5, 12.0], 5.0))], lambda answers: numbers(answers[0]) == [0.0]),
    ),
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("A masked-LM student answers ',' at every [MASK]. Its loss has fallen from 10.3 to about 7. What has it "
             "learned?", (
        Option("How often each token occurs, and nothing about the context.",
               "Whoever has no context can only give the frequencies of the corpus, and ',' is one of its two "
               "commonest tokens.", True),
        Option("Nothing at all.", "Then the loss would still be log 30,522 = 10.3."),
        Option("Where punctuation stands, because that is easier to learn than words.",
               "It does not know WHERE a comma stands. It says the same everywhere."),
        Option("The teacher's mistakes.", "The teacher rarely answers ',' wrongly. This is not imitation."),
    )),
    QuizItem("Why does the collapse choose ',' and 'the'?", (
        Option("They have the smallest token ids.", "Ids are names. No loss reads their size."),
        Option("The tokenizer splits rare words badly.", "It splits them the same way for the teacher, who copes."),
        Option("They are the most frequent tokens: the best guess without context.",
               "Whoever must answer without context should give the corpus frequencies.", True),
        Option("The mask token stands next to the comma and to 'the' in the vocabulary.",
               "Neighbours in the vocabulary mean nothing."),
    )),
    QuizItem("Is the unigram plateau a local minimum that a student cannot leave?", (
        Option("Yes, and that is why nothing but a new start with copied weights can help it at all.",
               "A random student leaves it too, after many more tokens than a lesson has."),
        Option("No: a lower loss weight is enough.", "A weight scales the gradient. It does not turn it."),
        Option("Yes, because softmax saturates.", "The unigram prediction is far from saturated."),
        Option("No, a slow and flat stretch: the gradient from the context is small at first.",
               "First the output bias and the embeddings learn frequencies. Context comes later.", True),
    )),
    QuizItem("KL on ALL positions instead of the masked ones. What dominates the loss?", (
        Option("The masked positions, because they are hard.",
               "There are few of them: 15 %. The others outvote them."),
        Option("Positions where the token can be seen: the student learns to copy its input.",
               "At these positions the teacher simply repeats the token. Copying is not predicting.", True),
        Option("Padding.", "Padding was already left out here."),
        Option("Nothing; all positions teach the same.", "A visible token and a hidden one ask different questions."),
    )),
    QuizItem("A narrow student cannot copy the teacher's embeddings, which are wider. What may it do?", (
        Option("Keep the coordinates that are largest on real text, in all matrices alike.",
               "Then every student matrix is a block of the teacher's, and LayerNorm keeps its meaning.", True),
        Option("Nothing; narrow students start at random.", "Two ways exist: project, or pick coordinates."),
        Option("Take the first 256 of the 384 numbers of each word, and random blocks for the layers.",
               "The blocks would not know these coordinates."),
        Option("Average neighbouring numbers.", "Neighbouring coordinates have nothing in common."),
    )),
    QuizItem("PCA of all matrices keeps MORE of the hidden states than picking coordinates, and yet it starts worse. "
             "Why?", (
        Option("PCA was computed on too little text, so that it fits the states of that text only.",
               "It keeps most of the states on other text, too."),
        Option("PCA needs labels.", "PCA looks at the states alone."),
        Option("LayerNorm scales single coordinates, and a rotation mixes these.",
               "A diagonal matrix is not diagonal any more after a rotation.", True),
        Option("It does not start worse.", "The lab measured it: look at the numbers in section 5."),
    )),
    QuizItem("The hidden-state loss has a trainable projection on the TEACHER's side, and it falls to almost 0 in a "
             "few steps. What happened?", (
        Option("The student has learned the teacher's states, so that there is nothing left to correct.",
               "Then its answers would be good. Look at them."),
        Option("The projection shrinks towards 0, and a constant student agrees with it.",
               "The target itself was trained. Put the projection on the student's side.", True),
        Option("The learning rate is too low.", "Then the loss would fall slowly."),
        Option("The teacher was in train mode.", "Dropout would keep the loss up, not down."),
    )),
    QuizItem("Your student sits on the plateau after 5 minutes. What do you try first?", (
        Option("More temperature.", "Temperature changes the answers' shape. The plateau stays."),
        Option("A larger hidden-state weight.", "It helps blocks that have a good start; alone it is slow."),
        Option("Another teacher.", "The same teacher teaches a well-started student in a minute."),
        Option("Start from the teacher's numbers and raise the learning rate.",
               "In the lab these two did most, and the start did more than all loss terms together.", True),
    )),
)

POLL = Poll(
    "A narrow student answers ',' for every [MASK]. Which single change brings most?",
    ("Temperature 2 with the factor T².", "A hard loss beside the soft one.", "A tied output matrix.",
     "A learning rate of 1e-3 in place of 5e-5.", "A start from the teacher's own numbers."),
)

CHAPTER = Chapter("lab1", "The comma lab", (SHARE, DISTANCE, PLATEAU, MASKED, BLOCK, ESCAPE), QUIZ, POLL)
