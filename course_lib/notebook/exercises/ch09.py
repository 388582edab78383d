"""Exercises of chapter 9: document classification from cached probabilities."""

from __future__ import annotations

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import all_equal, numbers


def _logits(*shape: int, seed: int = 7, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _probs(*shape: int, seed: int = 7) -> torch.Tensor:
    return _logits(*shape, seed=seed).softmax(dim=-1)


# --- q1 ---------------------------------------------------------------------------------------------------------------

RESOFTEN = Question(
    name="ch09.q1",
    title="Another temperature for stored probabilities",
    points=2,
    difficulty=1,
    minutes=7,
    stub='''\
def resoften(probs: Tensor, temperature: float) -> Tensor:
    """Bring probabilities that were stored at T = 1 to another temperature.

    probs: (..., classes), each row sums to 1; a probability may be exactly 0.
    Returns: probabilities of the same shape, what softmax(z / T) would give if
    the logits z were still there.
    """
    raise NotImplementedError("ch09.q1")
''',
    hints=("log p = z + a constant, and a softmax does not see a constant. So the logarithm can play the logits.",
           "softmax(log(p) / T). A 0 has no logarithm: take probs.clamp_min(1e-38) first."),
    mistakes={
        "probs_as_logits": "This is softmax(p / T): the probabilities were taken for logits. Take their logarithm "
                           "first.",
        "divided": "p / T no longer sums to 1. Divide the logarithms by T, and take a softmax.",
        "power_t": "The exponent is T, but it must be 1 / T: a higher T makes a distribution flatter.",
        "not_normalised": "p to the power of 1 / T is right up to a factor. Divide each row by its sum.",
        "unchanged": "The temperature has no effect yet.",
    },
    extremes="The logarithm of 0 is minus infinity; at T = 0.05 large powers underflow. Clamp, then softmax of "
             "log(p) / T.",
    properties=(
        Property("At T = 1 nothing may change.", lambda: [Call((_probs(3, 4), 1.0))],
                 lambda answers: torch.allclose(torch.tensor(numbers(answers[0])), _probs(3, 4).flatten(), atol=1e-4)),
        Property("T = 2 twice must be T = 4 once.",
                 lambda: [Call(((_logits(3, 4) / 2).softmax(-1), 2.0)), Call((_probs(3, 4), 4.0))], all_equal),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------

STORED_LOSS = Question(
    name="ch09.q2",
    title="The soft loss without a teacher",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def stored_loss(student_logits: Tensor, teacher_probs: Tensor,
                temperature: float) -> Tensor:
    """T^2 * KL(teacher || student) at T, from the teacher's probabilities at T
    = 1: mean over the documents.

    student_logits: (batch, classes). teacher_probs: (batch, classes), rows sum
    to 1, a 0 is possible.
    Returns: one number, as a tensor of shape ().
    """
    raise NotImplementedError("ch09.q2")
''',
    hints=("Both sides need the temperature: the student's logits are divided by T, the stored probabilities go "
           "through your ch09.q1.",
           "teacher = resoften(teacher_probs, temperature); student = F.log_softmax(student_logits / temperature, "
           'dim=-1); F.kl_div(student, teacher, reduction="batchmean") * temperature**2'),
    mistakes={
        "probs_as_logits": "The stored probabilities were taken for logits: they got a second softmax. They are "
                           "probabilities already.",
        "teacher_at_1": "Only the student is softened. The stored probabilities are those of T = 1; bring them to T "
                        "as well.",
        "student_at_1": "Only the teacher is softened. Divide the student's logits by T as well.",
        "no_t2": "The factor T^2 is missing.",
        "mean": 'reduction="mean" divides by the classes too. Use "batchmean".',
        "cross_entropy": "This is the cross-entropy. It is KL plus the teacher's entropy, so it is never 0.",
        "swapped": "Teacher and student are swapped: this is KL(student || teacher).",
    },
    extremes="A stored 0 has no logarithm, and 0 * log 0 must count as 0. Clamp the probabilities, and use "
             "log_softmax on the student's side.",
    gradient="The loss must be differentiable for the student: no .item(), no .detach() on its side.",
    properties=(
        Property("A student whose logits are the logarithms of the stored probabilities must have loss 0.",
                 lambda: [Call((_probs(4, 5).log(), _probs(4, 5), 3.0))],
                 lambda answers: abs(numbers(answers[0])[0]) < 1e-4),
        Property("Adding one number to all logits of the student must change nothing.",
                 lambda: [Call((_logits(4, 5, seed=8) + shift, _probs(4, 5), 2.0)) for shift in (0.0, 5.0)],
                 all_equal),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------

ROWS_BY_KEY = Question(
    name="ch09.q3",
    title="Whose row is it?",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def rows_by_key(document_keys: list[str], cache_keys: list[str]) -> list[int]:
    """For every document, the number of its row in the cache.

    A key is a hash of the text, so equal texts have equal keys.
    document_keys: the data set as it is now, perhaps shuffled, shortened or
    with a document twice.
    cache_keys: one key per stored row, in the order of the rows; if a key
    stands there twice, the first row counts.
    Returns: one row number per document, in the order of the documents; -1
    where the cache has no row.
    """
    raise NotImplementedError("ch09.q3")
''',
    hints=("Make a dictionary key -> row number once; then look every document up.",
           "place = {}; for row, key in enumerate(cache_keys): place.setdefault(key, row). Then "
           "[place.get(key, -1) for key in document_keys]."),
    mistakes={
        "in_order": "This trusts the order: document i gets row i. After a shuffle most documents get a stranger's "
                    "answer.",
        "inverse": "This is the other direction: for every row its document. Wanted is for every document its row.",
        "last_row": "Where a key stands twice in the cache, this takes its last row. A dictionary keeps the last one; "
                    "the first counts here.",
        "zero_for_missing": "A document without a row gets row 0, the answer of another text, and nobody notices. "
                            "Return -1.",
        "left_out": "Documents without a row are left out, so all later answers move up by one. Keep their place "
                    "with -1.",
    },
    extremes="Think of an empty data set and of an empty cache.",
    properties=(
        Property("If the rows of the cache are reversed, every number must be counted from the other end.",
                 lambda: [Call((["c", "a", "b"], ["a", "b", "c", "d"])), Call((["c", "a", "b"], ["d", "c", "b", "a"]))],
                 lambda answers: [3 - n for n in numbers(answers[0])] == numbers(answers[1])),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

TOP_K = Question(
    name="ch09.q4",
    title="A cut distribution",
    points=3,
    difficulty=3,
    minutes=12,
    stub='''\
def cut(teacher_logits: Tensor, k: int,
        temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the k most probable classes of softmax(z / T), and the probability
    of all others together.

    teacher_logits: (rows, classes), k <= classes.
    Returns: ids (rows, k), the classes, the most probable first; probs (rows,
    k), their probabilities at T; rest (rows,), the sum of all other
    probabilities at T.
    """
    raise NotImplementedError("ch09.q4")
''',
    hints=("Soften ALL classes first, then cut. torch.topk gives the values and the ids, sorted.",
           "p = softmax(teacher_logits / temperature, -1); probs, ids = p.topk(k, -1); rest = 1 - probs.sum(-1). Keep "
           "the rest from becoming a little negative: clamp_min(0)."),
    mistakes={
        "renormalised": "The k numbers are divided by their sum. That says that all other classes are impossible; "
                        "keep the numbers, and the rest.",
        "after_the_cut": "The temperature acts on the k kept logits only, after the cut. Soften all classes, then cut.",
        "temperature_1": "These are the probabilities at T = 1. The temperature must act before the cut.",
        "no_rest": "The rest is 0: what the other classes had is lost. It is 1 minus the sum of the kept ones.",
        "smallest": "These are the k LEAST probable classes.",
    },
    extremes="With k = all classes, or a very sure teacher, the rest is 0: it may be neither negative nor NaN.",
    properties=(
        Property("Kept probabilities and rest must sum to 1.", lambda: [Call((_logits(3, 6), 2, 2.0))],
                 lambda answers: all(abs(sum(numbers(answers[0].items[1])[2 * i : 2 * i + 2])
                                         + numbers(answers[0].items[2])[i] - 1) < 1e-4 for i in range(3))),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

STRANGERS = Question(
    name="ch09.q5",
    title="Find the bug: does this cache belong to these documents?",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def share_of_strangers(stored: Tensor, live: Tensor, tolerance: float) -> float:
    """The share of stored rows that are not what the teacher says now.

    stored, live: (documents, classes), probabilities. A row is a stranger if
    its total variation distance, half the sum of |stored - live| over the
    classes, is greater than the tolerance.
    Returns: a Python number from 0 to 1.
    """
    raise NotImplementedError("ch09.q5")
''',
    hints=("One distance per row first; then the share of rows beyond the tolerance.",
           "0.5 * (stored - live).abs().sum(-1) gives (documents,). Compare with the tolerance, take the mean, then "
           ".item()."),
    mistakes={
        "not_halved": "The sum of the differences counts every moved probability twice: half of it is the distance.",
        "largest": "This takes the largest difference of a row. The total variation is half the SUM of the "
                   "differences.",
        "mean_distance": "This is the mean distance, not the share of rows beyond the tolerance.",
        "favourites": "This compares the favourite classes only. A row of a stranger of the same class passes.",
        "healthy_share": "This is the share of the rows that agree. The strangers are the others.",
        "mean_over_classes": "The mean over the classes divides by their number. Take the sum.",
    },
    extremes="A single row, and two rows that share no class.",
    properties=(
        Property("A cache that equals the teacher has no strangers.",
                 lambda: [Call((_probs(5, 3), _probs(5, 3), 1e-3))], lambda answers: numbers(answers[0]) == [0.0]),
        Property("Shuffling documents and cache together must change nothing.",
                 lambda: [Call((_probs(5, 3, seed=1)[order], _probs(5, 3, seed=2)[order], 0.3))
                          for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3])], all_equal),
    ),
)

# --- q6 ---------------------------------------------------------------------------------------------------------------

COUNT = Question(
    name="ch09.q6",
    title="Where the parameters are",
    points=3,
    difficulty=3,
    minutes=14,
    stub='''\
def bert_parameters(vocabulary: int, positions: int, hidden: int,
                    intermediate: int, layers: int, classes: int) -> int:
    """How many numbers a BERT classifier holds, by arithmetic.

    Embeddings: `vocabulary` words, `positions` positions, 2 token types, and
    one LayerNorm. Each layer: query, key, value and output (hidden to hidden),
    LayerNorm, hidden to intermediate, intermediate to hidden, LayerNorm.
    Pooler: hidden to hidden. Classifier: hidden to classes. Every linear map
    has a bias; a LayerNorm has 2 * hidden.
    Returns: a whole number. BERT-base with 32,768 words and 2 classes has
    111,208,706.
    """
    raise NotImplementedError("ch09.q6")
''',
    hints=("A linear map from a to b has a * b + b numbers. Write one line for the embeddings, one for a layer, one "
           "for the head.",
           "layer = 4 * (h * h + h) + (h * i + i) + (i * h + h) + 2 * 2 * h; embeddings = (vocabulary + positions + 2) "
           "* h + 2 * h; head = h * h + h + h * classes + classes."),
    mistakes={
        "no_biases": "The biases of the linear maps are missing.",
        "no_pooler": "The pooler, hidden to hidden, is missing.",
        "no_token_types": "The two token types are missing: 2 * hidden numbers.",
        "no_layer_norms": "The LayerNorms are missing: one after the embeddings and two in every layer.",
        "three_maps": "Attention has four maps: query, key, value, and the output map behind them.",
        "embeddings_per_layer": "The embeddings are counted once per layer. They stand there once.",
    },
    extremes="With 0 layers the embeddings, the pooler and the classifier are left.",
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("A teacher's 11 log-probabilities at T = 1 are stored per document. May the loss use T = 4?", (
        Option("No, logits would be needed.",
               "Log-probabilities are logits up to a constant, and a softmax does not see a constant."),
        Option("Yes: log-probabilities take the place of the logits.",
               "softmax(log p / T) is exactly softmax(z / T).", True),
        Option("Yes, if the probabilities are divided by 4 before their logarithm is taken.",
               "Then they sum to 1/4. The LOGARITHMS are divided by T."),
        Option("Only if the student is trained at T = 1.", "Both sides get the same T, as with a live teacher."),
    )),
    QuizItem("The 64 largest of 30,522 probabilities at T = 1 are stored, and their rest. May the loss use T = 4?", (
        Option("No: the temperature must act before the cut.",
               "Such a cache has the temperature it was made with, and refuses any other.", True),
        Option("Yes, with the same trick as for 11 classes: divide the logarithms.",
               "The rest is a sum of 30,458 probabilities. What each of them becomes at T = 4 cannot be known."),
        Option("Yes, because the rest is tiny.", "At T = 1, perhaps. At T = 4 the rest can be most of the mass."),
        Option("No, because top-k is only for reading.", "It works well in a loss, at its own temperature."),
    )),
    QuizItem("Stored logits were zipped with a shuffled data loader. What do you see?", (
        Option("The loss becomes NaN.", "Every number is finite. Only the owner of each row is wrong."),
        Option("The loss does not move.", "It falls a little: the student learns the average answer."),
        Option("The run is stable, and the student is worse than it could be.",
               "Nothing breaks, which is why this bug lives long. A key per row finds it at once.", True),
        Option("The student becomes better than its teacher, because it hears more opinions.",
               "It learns from strangers' answers. It cannot."),
    )),
    QuizItem("A one-layer student keeps the teacher's embeddings; the rest is fresh. Why does Adam at 1e-5 not move "
             "the loss?", (
        Option("The embeddings are frozen, and with them most of the weights that the loss could move.",
               "They may be: the fresh layer is trained all the same, and it does not move either."),
        Option("The gradient is too small.", "Adam divides by the size of the gradient. Only the rate sets the step."),
        Option("Adam moves a weight by about its rate per step, and fresh weights have a long way.",
               "300 steps of 1e-5 with a linear decay are 0.002; a fresh weight is about 0.02 large.", True),
        Option("The teacher's answers are too soft.", "The labels alone do not move at this rate either."),
    )),
    QuizItem("From 12 layers to 1: parameters fall to 30 %, time to 8 %. Why the difference?", (
        Option("The timing was wrong.", "Both follow from the shapes. Look at where each is spent."),
        Option("The embedding table holds most of the student's numbers but costs almost no time.",
               "Looking up a row is free. Time is spent in the layers, and eleven of twelve are gone.", True),
        Option("Small models use fewer threads.", "One thread for both gives the same picture."),
        Option("The pooler is slow.", "The pooler reads one token per document."),
    )),
    QuizItem("What does `Trainer` of transformers do with a column `teacher_log_probs`, by default?", (
        Option("It passes it to the loss, which then learns from the labels and the teacher.",
               "Not by default: only columns that `forward` names survive."),
        Option("It drops it without a word; the run learns from the labels alone.",
               "Set remove_unused_columns=False, and take the column out in compute_loss.", True),
        Option("It stops with an error.", "That would be kinder. It drops the column and goes on."),
        Option("It takes it for the labels.", "Labels must be called `labels` or `label`."),
    )),
    QuizItem("A word-count baseline (TF-IDF with logistic regression) stands near the student. What may you write?", (
        Option("Distillation failed.", "The student may still be better, smaller or faster. Say which, with numbers."),
        Option("Nothing: a baseline without a neural network does not belong in the table.",
               "It belongs there. It is the cheapest thing that a product could use."),
        Option("The better of the two.", "The other row is the reason to believe it."),
        Option("Both rows, with intervals, and what each costs.",
               "The reader can then decide. A teacher's gain over word counts is the room that a student has.", True),
    )),
    QuizItem("Masks of a masked LM are drawn anew for every batch. Can the teacher's answers be cached?", (
        Option("Yes, one distribution per text, whichever words are hidden in it.",
               "The teacher's answer belongs to one set of masks."),
        Option("Yes, if the cache is large.", "There are more masks of a sentence than disks can hold."),
        Option("Not with new masks: draw them once and store them too.",
               "`fixed_masks` does that. Dynamic masking and a cache exclude each other.", True),
        Option("No, never.", "With fixed masks it works."),
    )),
)

POLL = Poll(
    "Documents of 11 topics. The teacher, with 6 layers, is right on 93.5 %. Which of these will be most accurate on "
    "new documents?",
    ("Word counts and logistic regression, no neural network.", "One fresh layer, labels alone.",
     "One fresh layer, labels and the teacher's stored answers.",
     "One layer copied from the teacher, labels and stored answers.",
     "The two best will be too close to tell apart."),
)

CHAPTER = Chapter("ch09", "Cached probabilities (from teacher to product)",
                  (RESOFTEN, STORED_LOSS, ROWS_BY_KEY, TOP_K, STRANGERS, COUNT), QUIZ, POLL)
