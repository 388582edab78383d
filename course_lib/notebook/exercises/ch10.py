"""Exercises of chapter 10, the comparison: what is kept, what it costs, and how sure a claim about two methods is."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, numbers


def _random(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- q1 ---------------------------------------------------------------------------------------------------------------

KEPT = Question(
    name="ch10.q1",
    title="What a student keeps",
    points=2,
    difficulty=1,
    minutes=5,
    stub='''\
def kept(accuracies: Tensor, teacher: float) -> float:
    """Retention: the student's accuracy in percent of its teacher's, as a mean
    over the seeds.

    accuracies: (seeds,), the accuracy of each run in percent. teacher: the
    teacher's accuracy in percent.
    Returns: a Python number; 100 means as good as the teacher.
    """
    raise NotImplementedError("ch10.q1")
''',
    hints=("Two numbers in percent, divided by each other, are a share. A share of 0.97 is 97 percent.",
           "The mean of the runs first, or the ratio of each run first: both give the same. Then .item()."),
    mistakes={
        "best_seed": "This takes the best seed. The best of five is luck; report the mean.",
        "points_lost": "This is a difference in points. Retention is a ratio.",
        "share": "This is a share between 0 and 1. Retention is written in percent here.",
        "inverse": "Upside down: the student's number stands above the teacher's.",
        "errors": "This compares the errors, 100 - accuracy. Retention compares the accuracies.",
        "one_seed": "Only the first seed counts here. Take the mean over all of them.",
    },
    extremes="A student can be better than its teacher: then it keeps more than 100 percent.",
    properties=(
        Property("The order of the seeds must not matter.",
                 lambda: [Call((values, 80.0)) for values in (torch.tensor([70.0, 74.0, 72.0, 71.0]),
                                                             torch.tensor([71.0, 72.0, 74.0, 70.0]))], all_equal),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------


def _same_items(answers: Sequence[Value]) -> bool:
    return numbers(answers[0]) == numbers(answers[1])


_COSTS, _SCORES = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([84.0, 77.0, 82.0])

FRONT = Question(
    name="ch10.q2",
    title="The Pareto front",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def pareto_front(costs: Tensor, scores: Tensor) -> list:
    """The positions of all points that nobody beats, from the cheapest to the
    dearest.

    Point b beats point a if b costs at most as much, scores at least as high,
    and at least one of the two strictly. Two points that are equal in both do
    not beat each other: both stay, the earlier position first.
    costs, scores: (points,). Less cost is better, more score is better.
    Returns: a list of whole numbers.
    """
    raise NotImplementedError("ch10.q2")
''',
    hints=("Ask for every point: is there another one that beats it? Two loops are fine; there are few points.",
           "beats = costs[b] <= costs[a] and scores[b] >= scores[a] and (costs[b] < costs[a] or scores[b] > "
           "scores[a]). Sort the survivors by cost, then by position: key=lambda i: (costs[i].item(), i)."),
    mistakes={
        "both_strict": "Here a point is beaten only by one that is strictly better in BOTH. At equal cost the lower "
                       "score must go, and at equal score the dearer one.",
        "equal_beats": "Two equal points beat each other here, so both vanish. One of the two must be strictly better.",
        "less_is_better": "This takes the lowest scores. More score is better.",
        "dearest": "This prefers the dear points. Less cost is better.",
        "by_position": "The points are right, but not their order: from the cheapest to the dearest.",
        "best_only": "This is the best point alone. The front also holds the cheaper ones that nobody beats.",
        "no_twins": "Of two equal points only one is left. Neither beats the other: both stay.",
    },
    extremes="One single point is its own front, and so are many equal points.",
    properties=(
        Property("A new point that is dearer and worse than all others must not change the front.",
                 lambda: [Call((_COSTS, _SCORES)),
                          Call((torch.cat([_COSTS, torch.tensor([9.0])]), torch.cat([_SCORES, torch.tensor([10.0])])))],
                 _same_items),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------

BREAK_EVEN = Question(
    name="ch10.q3",
    title="When does a stored teacher pay?",
    points=2,
    difficulty=2,
    minutes=10,
    stub='''\
def break_even(asking: float, reading: float, sentences: int,
               batch: int) -> int:
    """After how many training steps is it strictly cheaper to store the
    teacher's answers than to ask it live?

    Live: in every step the teacher is asked about every sentence of the batch.
    Stored: it is asked once about each of the `sentences`, before training;
    then every step reads `batch` answers.
    asking, reading: seconds per sentence, to ask the teacher and to read one
    stored answer.
    Returns: the smallest whole number of steps; -1 if storing never becomes
    cheaper.
    """
    raise NotImplementedError("ch10.q3")
''',
    hints=("Write both costs after n steps. Live: n * batch * asking. Stored: sentences * asking + n * batch * "
           "reading.",
           "Strictly cheaper: n must be LARGER than sentences * asking / (batch * (asking - reading)). The next whole "
           "number is int(...) + 1, for an exact whole number too. If reading is not cheaper than asking: -1."),
    mistakes={
        "not_strict": "At this number both cost the same. Strictly cheaper is one step later.",
        "reading_is_free": "Reading a stored answer costs something, too.",
        "in_epochs": "This counts rounds over the data. Count steps; a step is one batch.",
        "batch_forgotten": "A step reads a whole batch, not one sentence.",
        "asking_is_free": "The teacher is asked about all sentences before training; that is the price of storing.",
        "one_off": "One step too many: look at the smallest number that is strictly above the border.",
    },
    extremes="If reading costs as much as asking, or more, storing never pays: -1.",
)

# --- q4 ---------------------------------------------------------------------------------------------------------------


def _limits_grow(answers: Sequence[Value]) -> bool:
    return all(len(numbers(answer)) >= 1 for answer in answers)


CHOOSE = Question(
    name="ch10.q4",
    title="Choose within a limit, and say what you cannot tell",
    points=3,
    difficulty=3,
    minutes=15,
    stub='''\
def candidates(scores: Tensor, costs: Tensor, limit: float, t: float) -> list:
    """The best allowed method, followed by all allowed methods that cannot be
    told from it.

    A method is allowed if it costs `limit` or less. The best is the one with
    the highest mean over the seeds. Another one cannot be told from it if the
    95 % interval of the paired difference includes 0:
        mean(d) - t * sd(d) / sqrt(n)  <=  0
        d = scores of the best - scores of the other, seed by seed
    scores: (methods, seeds). costs: (methods,). t: the factor of Student's t
    for these seeds. sd divides by n - 1.
    Returns: a list of positions, the best first, the others in ascending order.
    Something is always allowed.
    """
    raise NotImplementedError("ch10.q4")
''',
    hints=("Three steps: which are allowed; which of them has the highest mean; which others have 0 in their interval.",
           "d = scores[best] - scores[i]; low = d.mean() - t * d.std() / len(d) ** 0.5. The upper end needs no look: "
           "the best has the higher mean, so d.mean() is not below 0."),
    mistakes={
        "no_limit": "The limit is ignored: a method that is too dear is in the list.",
        "strict_limit": "A method that costs exactly the limit is allowed.",
        "best_seed": "The best is chosen by its luckiest seed. Choose by the mean over the seeds.",
        "unpaired": "The seeds are not paired: the spreads of the two methods are added. Take the spread of the "
                    "differences.",
        "no_root": "The interval of a mean shrinks with the root of the number of seeds. This one does not.",
        "only_the_best": "This is the best alone. The others that cannot be told from it belong to the answer.",
        "all_allowed": "This is everything that is allowed. Leave out what is shown to be worse.",
    },
    extremes="Where all seeds agree the spread is 0. Then any difference counts, and a difference of 0 cannot be told.",
    properties=(
        Property("Something is always allowed here, so the list is never empty.",
                 lambda: [Call((80 + _random(4, 5, seed=seed), torch.arange(1.0, 5.0), 2.0, 2.776)) for seed in (1, 2)],
                 _limits_grow),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

PAIRED = Question(
    name="ch10.q5",
    title="The paired interval",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def paired_interval(ours: Tensor, baseline: Tensor, t: float) -> Tensor:
    """The mean difference of two methods over the same seeds, and the ends of
    its 95 % interval.

        mean(d) -+ t * sd(d) / sqrt(n)
        d = ours - baseline, seed by seed; sd divides by n - 1
    ours, baseline: (seeds,), run i of both has the same seed. t: the factor of
    Student's t for these seeds.
    Returns: (3,), the mean, the low end, the high end.
    """
    raise NotImplementedError("ch10.q5")
''',
    hints=("The luck that both runs of a seed share vanishes in their difference. So take differences first.",
           "d.std() divides by n - 1 already. torch.stack([mean, mean - half, mean + half])."),
    mistakes={
        "unpaired": "This adds the spreads of both methods. Subtract seed by seed first: what the runs of one seed "
                    "share drops out.",
        "no_root": "This is the spread of single runs. The mean of n of them is surer by the root of n.",
        "n": "The spread divides by n here. With few seeds it must divide by n - 1.",
        "normal": "1.96 is right for hundreds of seeds. With few of them use the factor t.",
        "swapped": "The sign is turned round: ours minus baseline.",
        "sorted": "The runs are sorted first. Then run i of both sides no longer has the same seed.",
    },
    extremes="If one method is better by the same amount for every seed, both ends equal the mean.",
    properties=(
        Property("A seed that is lucky for both methods must not change anything.",
                 lambda: [Call((_random(5, seed=1) + luck, _random(5, seed=2) + luck, 2.776))
                          for luck in (torch.zeros(5), torch.tensor([0.0, 3.0, -2.0, 1.0, 5.0]))], all_equal),
    ),
)

# --- q6 ---------------------------------------------------------------------------------------------------------------

FASTER = Question(
    name="ch10.q6",
    title="How many times faster, and how sure",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def times_faster(student: Tensor, teacher: Tensor, warm_up: int) -> Tensor:
    """How many times as fast as its teacher a student is: the quartiles over
    pairs of runs.

    student, teacher: (runs,), seconds; run i of both was made one right after
    the other.
    warm_up: the first so many pairs do not count.
    Returns: (3,), the lower quartile, the median and the upper quartile of the
    ratio, interpolated as torch.quantile does it.
    """
    raise NotImplementedError("ch10.q6")
''',
    hints=("Twice as fast means half of the seconds. Form the ratio of each pair first; what slows both of them drops "
           "out.",
           "ratios = teacher[warm_up:] / student[warm_up:]; torch.quantile(ratios, torch.tensor([0.25, 0.5, 0.75]))."),
    mistakes={
        "inverse": "Upside down: a faster student has FEWER seconds.",
        "warm_up_counts": "The first pairs count here. They also pay for memory and for code that is loaded.",
        "not_paired": "The quartiles of both sides are taken first. Take the ratio of each pair first: a busy moment "
                      "slows both runs of a pair.",
        "mean_and_sd": "This is the mean and the spread. One hiccup of the machine moves them far; quartiles hardly.",
        "extremes": "These are the smallest and the largest ratio. The quartiles cut off a quarter on each side.",
        "warm_up_only": "This keeps the warm-up and drops the rest.",
    },
    extremes="Without any warm-up all pairs count.",
    properties=(
        Property("A machine that is busy in some moments slows both runs of a pair; the answer must stay.",
                 lambda: [Call(((1 + _random(9, seed=3)) * busy, (2 + _random(9, seed=4)) * busy, 2))
                          for busy in (torch.ones(9), 1 + 4 * _random(9, seed=5))], all_equal),
    ),
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("A student keeps 97 % of its teacher. What must stand beside this number?", (
        Option("Nothing: 97 % is a lot.", "A student without a teacher may keep 97 % as well."),
        Option("What the same student keeps without a teacher, with an interval.",
               "Only the difference belongs to the method.", True),
        Option("The number of teachers in the literature.", "That says nothing about this student."),
        Option("The training loss of the student, beside that of the teacher on the same text.",
               "Losses of different methods have different terms and units."),
    )),
    QuizItem("Method A lies on the Pareto front, method B just below it at the same cost. Which claim is right?", (
        Option("A is better than B.", "The front is drawn through means. Look at the paired difference first."),
        Option("B must never be used: the front shows that there is always a better method than it.",
               "It may be simpler, or equal within the interval."),
        Option("If the interval of their paired difference holds 0, they cannot be told apart.",
               "A front of means is a claim about means only.", True),
        Option("A costs less than B.", "They cost the same; A has the higher mean."),
    )),
    QuizItem("Why are the runs of two methods paired by seed?", (
        Option("Because what both runs of a seed share drops out of their difference.",
               "The interval of the difference gets narrower, and honestly so.", True),
        Option("Because it makes every difference significant.", "It can also show that there is none."),
        Option("Because five seeds are enough then.", "How many are enough depends on the spread that is left."),
        Option("Because the two methods must have the same number of parameters to be compared.",
               "Pairing has nothing to do with size."),
    )),
    QuizItem("The half-depth student holds 77 % of the teacher's parameters but needs about half of the time. Why?", (
        Option("Its layers are faster than the teacher's, because fewer layers wait for each other.",
               "They are of the same kind and width."),
        Option("Half of the teacher's numbers are word embeddings: they stay, and cost no time.",
               "Layers cost the time, the table costs memory.", True),
        Option("The count of parameters is wrong.", "It is exact. It counts the embeddings, which the paper's share of "
               "60 % counts too, in a model with larger layers."),
        Option("Because of bfloat16.", "Both models are timed in the same precision."),
    )),
    QuizItem("A colleague times the student with 16 threads and the teacher with 1. What follows?", (
        Option("The ratio mixes the models with the threads and says nothing about either.",
               "One process, the same threads, the same sentences, in turns.", True),
        Option("Nothing, if both are warmed up.", "Warm-up does not give the teacher more threads."),
        Option("The ratio is too small.", "It flatters the student: the ratio is too large."),
        Option("The student must be retrained.", "Training has nothing to do with it."),
    )),
    QuizItem("When does it not help to store the teacher's answers?", (
        Option("When many students learn from the same sentences, one after another.",
               "That is when storing helps most."),
        Option("When the student reads the data for many epochs.", "The teacher would be asked anew in each epoch."),
        Option("When every sentence is read once only, or is made up on the fly.",
               "Then the teacher is asked about as often as without a store.", True),
        Option("When the teacher is large.", "The dearer the asking, the better a store."),
    )),
    QuizItem("You may try ten methods on the test set and report one. What is wrong with taking the highest mean?", (
        Option("Nothing: means over five seeds are fair, whichever of the methods is looked at.",
               "The highest of ten means is high by luck, too."),
        Option("The choice used the test set, so the winner's number is too good.",
               "Or fix the variant before you see any number, as this chapter does.", True),
        Option("The test set is too small for ten methods.", "Size is another matter; the choice is the problem."),
        Option("One should take the best single seed.", "That adds more luck."),
    )),
    QuizItem("Two chapters trained with different numbers of steps. How does this chapter compare them?", (
        Option("It cuts all runs to the same number of steps, so that nobody has an advantage.",
               "A step of one student may cost ten steps of another."),
        Option("It does not mind.", "Then a method could buy its points with time."),
        Option("It counts what each training cost, in steps of one common reference.",
               "Equal steps are not equal cost; cost is measured.", True),
        Option("It multiplies the accuracy by the cost.", "Such a product has no meaning."),
    )),
)

POLL = Poll(
    "Five methods make a student of 3 layers from the same teacher with 6. Which one will have the highest accuracy on "
    "new sentences, so clearly that its interval shows it?",
    ("Plain answers: labels and the teacher's stored logits (chapter 1's loss).",
     "PKD: answers, and the [CLS] states of two layers on the way.",
     "Theseus: replacing, without any distillation loss.", "MiniLM: relations of a general teacher, then labels.",
     "DistilBERT: answers, and the direction of the last states.",
     "None of them: the best two will not be distinguishable."),
)

CHAPTER = Chapter("ch10", "The comparison", (KEPT, FRONT, BREAK_EVEN, CHOOSE, PAIRED, FASTER), QUIZ, POLL)
