"""Exercises of chapter 8, BERT-of-Theseus: draws, mixtures, schedules, and what freezing means."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, numbers


def _random(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- q1 ---------------------------------------------------------------------------------------------------------------


def _starts_at_base_and_never_falls(answers: Sequence[Value]) -> bool:
    rates = [numbers(answer)[0] for answer in answers]
    return abs(rates[0] - 0.25) < 1e-6 and all(a <= b <= 1 for a, b in pairwise(rates))


RATE = Question(
    name="ch08.q1",
    title="The linear schedule",
    points=2,
    difficulty=1,
    minutes=5,
    stub='''\
def replacing_rate(step: int, base: float, k: float) -> float:
    """The linear schedule: the rate starts at `base`, rises by `k` with every
    batch, and stays at 1 once it is there.

    step: the number of the batch; the first one is 0.
    Returns: the chance that a module is replaced in this batch, a Python
    number.
    """
    raise NotImplementedError("ch08.q1")
''',
    hints=("A straight line in `step`, and a lid on it. What does the line give at step 0?",
           "Python's min takes two numbers. A rate is a probability: it cannot be more than 1."),
    mistakes={
        "no_lid": "The rate rises above 1. A rate is a probability: it stays at 1 once it is there.",
        "no_base": "The rate starts at 0. It must start at `base`; at 0 no successor would ever learn.",
        "swapped": "`base` and `k` are swapped: `base` is where the line starts, `k` is how much it rises per batch.",
        "from_one": "This counts the first batch as 1. Here the first batch is 0, and its rate is `base` itself.",
        "max": "This takes the larger of the two numbers. The lid needs the smaller one.",
    },
    extremes="Long after the line has met 1, the rate is still 1.",
    properties=(
        Property("The rate must start at `base`, never fall, and never exceed 1.",
                 lambda: [Call((step, 0.25, 0.015)) for step in (0, 1, 20, 49, 50, 51, 500)],
                 _starts_at_base_and_never_falls),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------


def _chances(batches: int, modules: int, seed: int = 7) -> torch.Tensor:
    return torch.rand(batches, modules, generator=torch.Generator().manual_seed(seed))


def _second_has_all_of_the_first(answers: Sequence[Value]) -> bool:
    low, high = (numbers(answer) for answer in answers)
    return all(a <= b for a, b in zip(low, high, strict=True)) and sum(low) < sum(high)


DRAWS = Question(
    name="ch08.q2",
    title="One draw per module and batch",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def replaced_modules(chances: Tensor, rates: Tensor) -> Tensor:
    """Which modules are replaced in which batch: those whose chance lies below
    the rate of their batch.

    chances: (batches, modules), random numbers from 0 to 1, a fresh one for
    every module of every batch.
    rates: (batches,), the replacing rate of each batch.
    Returns: (batches, modules), True where the successor takes the module's
    place.
    """
    raise NotImplementedError("ch08.q2")
''',
    hints=("A uniform random number lies below 0.3 three times in ten. So compare, and you have thrown a coin with p = "
           "0.3. Every module has its own number; every batch has its own rate.",
           "The shapes (batches, modules) and (batches,) do not meet as they are: PyTorch lines shapes up from the "
           "right. Give the rates a second dimension of size 1."),
    mistakes={
        "inverted": "Inverted: this replaces a module with the chance 1 - p. A chance BELOW the rate replaces.",
        "one_draw": "One draw decides for all modules of a batch. Every module needs its own; otherwise a successor "
                    "never works beside a predecessor.",
        "drawn_once": "The draws of the first batch are used for all batches. Every batch has its own row of chances.",
        "first_rate": "All batches use the rate of the first one. Then a schedule has no effect.",
        "half": "The rates have no effect: this compares with 0.5.",
        "last_rate": "All batches use the rate of the last one. Then a schedule has no effect.",
    },
    extremes="At rate 1 every module is replaced, and at a rate near 0 almost none.",
    properties=(
        Property("A higher rate must replace the same modules and more.",
                 lambda: [Call((_chances(12, 4), torch.full((12,), rate))) for rate in (0.3, 0.8)],
                 _second_has_all_of_the_first),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------


def _mixture(draws: list[bool], *, other_predecessor: int = 3, other_successor: int = 4) -> Call:
    return Call((_random(3, 4, seed=1), _random(3, 4, seed=2), _random(2, 2, 4, 4, seed=other_predecessor),
                 _random(2, 4, 4, seed=other_successor), draws))


MIXTURE = Question(
    name="ch08.q3",
    title="The loss of a mixture",
    points=3,
    difficulty=3,
    minutes=14,
    stub='''\
def mixed_loss(hidden: Tensor, target: Tensor, predecessor: Tensor,
               successor: Tensor, draws: list) -> Tensor:
    """Send `hidden` through all modules in order, each by its predecessor or by
    its successor; compare with `target`.

    One layer is tanh(x @ W), and W is all that it has.
    hidden, target: (tokens, width).
    predecessor: (modules, layers, width, width). The layers of a module run one
    after the other.
    successor: (modules, width, width), one layer for each module.
    draws: a list with one True or False per module; True = the successor works.
    Returns: the mean of the squared differences, a tensor of shape ().
    """
    raise NotImplementedError("ch08.q3")
''',
    hints=("One variable walks through the ship: what a module returns is what the next one gets, whoever did it.",
           "for i, replaced in enumerate(draws): choose a list of matrices, [successor[i]] or list(predecessor[i]); "
           "run x = torch.tanh(x @ W) for each W in it. Then F.mse_loss."),
    mistakes={
        "inverted": "Inverted: True must send the batch through the successor.",
        "both": "Both sides run and are added up. A drawn module uses its successor alone, the others their "
                "predecessor alone.",
        "average": "This takes the mean of both sides. Theseus tosses a coin; it does not blend.",
        "one_draw": "The first draw decides for all modules. Each module has its own.",
        "one_layer": "Only the first layer of a predecessor module runs. All its layers do, one after the other.",
        "side_by_side": "The layers of a predecessor module all get the same input and are added up. They run one "
                        "after the other.",
        "from_the_start": "Every module gets `hidden` itself. It must get what the module before it returned.",
        "sum": "This is the sum of the squared differences. Take their mean.",
    },
    extremes="Check the order of the layers, and that nothing is computed twice.",
    gradient="The predecessor is frozen, but the gradient must pass THROUGH it to the successors before it: no "
             "torch.no_grad() and no .detach() around its layers.",
    properties=(
        Property("A module that is replaced must not care for its predecessor's weights.",
                 lambda: [_mixture([True, True], other_predecessor=seed) for seed in (3, 13)], all_equal),
        Property("A module that is not replaced must not care for its successor's weights.",
                 lambda: [_mixture([False, False], other_successor=seed) for seed in (4, 14)], all_equal),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

PLAIN = Question(
    name="ch08.q4",
    title="The successor as a plain model",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def plain_names(names: list) -> list:
    """Names of the weights of a ship -> names in the plain small model that
    goes to work afterwards.

    In a ship, block i has the names
        encoder.layer.i.predecessor.j. ...   layer j of the module: left behind
        encoder.layer.i.successor.0. ...     becomes encoder.layer.i. ...
    Embeddings, pooler and classifier keep their names. The order stays as it
    is.
    Returns: a new list of strings.
    """
    raise NotImplementedError("ch08.q4")
''',
    hints=("Two things happen: some names are left out, others lose a piece in their middle. All others pass.",
           '".predecessor." in name says whether to leave it out; name.replace(".successor.0.", ".") takes the piece '
           "out."),
    mistakes={
        "keeps_the_predecessor": "The predecessor's weights are still there. The plain model would be larger than its "
                                 "teacher.",
        "not_renamed": "`.successor.0` is still in the names: a plain model has no such weights, and loading fails.",
        "layers_only": "Embeddings and head are missing. The successor uses those of the predecessor.",
        "no_number": "The number of the block is gone, so that all blocks have the same names.",
        "both_renamed": "The predecessor's layers got the successor's names. They overwrite it when they are loaded.",
    },
    extremes="A list without any block passes as it is.",
    properties=(
        Property("Every block must keep as many weights as its successor has, and no name may stand there twice.",
                 lambda: [Call(([f"encoder.layer.{i}.{side}.{part}" for i in range(2)
                                 for side in ("predecessor.0", "predecessor.1", "successor.0")
                                 for part in ("weight", "bias")],))],
                 lambda answers: len(answers[0].items) == len({item.items for item in answers[0].items}) == 4),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

CLIP = Question(
    name="ch08.q5",
    title="Find the bug: frozen, but counted",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def clip_factor(successor_norm: float, frozen_norm: float,
                limit: float) -> float:
    """By which number does clipping multiply the successors' gradient, if the
    frozen part's gradient counts too?

    Clipping looks at the norm of ALL gradients together, as one long vector. If
    it exceeds `limit`, every gradient is multiplied by the same number, so that
    the norm becomes `limit`. Otherwise nothing changes (the number is 1).
    successor_norm, frozen_norm: the norms of the two parts, 0 or more. limit:
    more than 0.
    Returns: a Python number.
    """
    raise NotImplementedError("ch08.q5")
''',
    hints=("How long is a vector whose first part has length 3 and whose second part has length 4?",
           "Not 7, but 5: the squares add up. Divide the limit by that length, but never return more than 1, and mind "
           "the length 0."),
    mistakes={
        "frozen_ignored": "This is what SHOULD happen: the frozen part does not count. Here it does.",
        "norms_added": "Norms do not add up; their squares do. The parts stand at right angles in the long vector.",
        "no_lid": "A small gradient is made larger. Clipping only ever shrinks.",
        "inverse": "Upside down: this is the norm divided by the limit.",
        "squares": "The root is missing: the norm is the root of the sum of the squares.",
    },
    extremes="A batch from which nobody learns has a gradient of norm 0. It stays as it is; do not divide by 0.",
)

# --- q6 ---------------------------------------------------------------------------------------------------------------

DIAGNOSE = Question(
    name="ch08.q6",
    title="Find the bug: read the log of the draws",
    points=3,
    difficulty=3,
    minutes=12,
    stub='''\
def diagnose(draws: Tensor) -> str:
    """What does the log of a replacing phase say? Its rate was meant to stay
    below 1 in all of these batches.

    draws: (batches, modules), True where the successor worked. There are 20
    batches and 2 modules at least.
    Returns one of three strings, the first one that is true:
        "jumped to 1"   from the second batch on, every module is replaced in
            every batch
        "one draw"      in every batch, the modules are either all replaced or
            all kept
        "healthy"       neither
    """
    raise NotImplementedError("ch08.q6")
''',
    hints=("The first batch tells nothing about a jump: leave it out there. For the other mistake look along the "
           "modules of one batch.",
           "draws[1:].all() for the jump. A batch is one piece if draws.all(dim=1) and draws.any(dim=1) agree: both "
           "True or both False. And this must hold for every batch."),
    mistakes={
        "order": "A log that jumped to 1 also has equal modules in (almost) every batch. Ask for the jump first.",
        "counts_the_first": "The jump shows from the SECOND batch on; the first one still used the rate it was given.",
        "any_batch": "One batch with equal modules proves nothing: with 2 modules and p = 0.5 every second batch is "
                     "like that. It must hold for EVERY batch.",
        "along_the_batches": "This compares the batches of one module. Compare the modules of one batch: dim=1.",
        "never_jumped": "A jump to 1 is never found. It is a log of Trues from the second batch on.",
    },
    extremes="A log of 0 and 1 instead of False and True is the same log.",
    properties=(
        Property("The order of the modules must not matter.",
                 lambda: [Call((draws,)) for draws in (_chances(30, 3) < 0.5, (_chances(30, 3) < 0.5).flip(1))],
                 all_equal),
    ),
)

# --- quiz -------------------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("Which loss does BERT-of-Theseus use while it replaces?", (
        Option("KL with the predecessor's probabilities.", "There is no distillation loss at all: that is the point."),
        Option("The distance between the outputs of a module and its successor.",
               "Nothing compares the two directly. They only take turns at the same place."),
        Option("The task loss with the labels, and nothing else.",
               "The predecessor teaches by being the rest of the network.", True),
        Option("The task loss plus a penalty on the number of replaced modules.", "The schedule decides how many."),
    )),
    QuizItem("How often is the coin thrown?", (
        Option("Once per module and batch.", "Independent draws: that makes the mixtures.", True),
        Option("Once per batch, for all modules together.",
               "Then a successor never works beside a predecessor. Somebody has published exactly this mistake."),
        Option("Once per sentence.", "All sentences of a batch take the same path; that keeps the code simple."),
        Option("Once per training.", "Then it would be an ordinary small model with some large parts."),
    )),
    QuizItem("Three modules, constant p = 0.5. In how many batches does nobody learn?", (
        Option("In none.", "It can happen that no coin says 'successor'. Then all layers of the path are frozen."),
        Option("In one of two.", "That is the chance that ONE given module is not replaced."),
        Option("In one of three.", "The draws are independent: multiply the three chances."),
        Option("In one of eight.", "0.5 · 0.5 · 0.5. Six modules at p = 0.3 come to 12 %, nearly the same.", True),
    )),
    QuizItem("Why does the paper call the rising rate a curriculum, and why is it a warm-up too?", (
        Option("Drawn in a share p of the batches, a successor moves p times as much: small steps first.",
               "The effective learning rate is proportional to p, and the task gets harder as helpers leave.", True),
        Option("Because the sentences become longer.", "The order of the sentences has nothing to do with it."),
        Option("Because the optimiser's learning rate is multiplied by p in the code, so that it rises too.",
               "The optimiser knows nothing of p. The share of batches does it."),
        Option("Because the predecessor thaws slowly.", "The predecessor stays frozen to the end."),
    )),
    QuizItem("The training loss RISES in the first half of a run with a linear schedule. What is the first thing to "
             "think of?", (
        Option("The learning rate is far too high.", "Possible, but look at the schedule first: the path changed."),
        Option("The rate rises: fewer predecessor layers help, so the mixture itself gets worse at first.",
               "The loss belongs to a different network in every batch. Look at the successors alone.", True),
        Option("The labels are shuffled.", "Then the loss would not be low at the start."),
        Option("Dropout is on.", "It is on in all of the training, not more of it later."),
    )),
    QuizItem("A frozen part is left out of the optimiser, but its weights still have `requires_grad`. What "
             "happens?", (
        Option("Nothing: what the optimiser does not have does not move, so it has no effect on the others.",
               "It does not move, but its gradients are computed, and clipping counts them."),
        Option("The predecessor is trained as well.", "Only the optimiser moves weights, and it does not have these."),
        Option("Its gradients count in the norm, so clipping makes the successors' steps smaller.",
               "And if nobody clears them, they add up from step to step.", True),
        Option("PyTorch raises an error.", "PyTorch has no opinion about it. That is why the mistake lives so long."),
    )),
    QuizItem("Which baseline shows what the replacing ALONE is worth?", (
        Option("The large teacher.", "It says how far there is to go, not what the replacing brought."),
        Option("A small model with random weights.", "Then the start would differ as well as the replacing."),
        Option("The best student of another chapter, which has learned the same task by another method altogether.",
               "Several things differ at once; nothing could be said."),
        Option("The same successor, same start, same frozen parts, same batches, at p = 1 from the first batch.",
               "One thing differs, so the difference belongs to it.", True),
    )),
    QuizItem("After the training the accuracy is measured. Which path must the sentences take?", (
        Option("Successors only.", "That is the model that will be used. `model.eval()` switches the coin off.", True),
        Option("A new draw for every batch.", "Then the predecessor helps, and the number flatters the student."),
        Option("Predecessors only.", "That measures the teacher."),
        Option("Every path, and the mean is reported.", "Interesting as a probe, but nobody will use these mixtures."),
    )),
)

POLL = Poll(
    "A student of half depth gets 300 batches of labelled sentences, in four ways. Which one will be most accurate on "
    "new sentences?",
    ("Fine-tuning on the labels: nothing else is needed.", "Labels and the teacher's stored answers (chapter 1).",
     "Theseus: half of the batches at p = 0.5, then the successor alone.",
     "Theseus with the linear schedule: help that fades slowly.",
     "With this little data the difference will be smaller than its interval."),
)

CHAPTER = Chapter("ch08", "Module replacing (BERT-of-Theseus 2020)", (RATE, DRAWS, MIXTURE, PLAIN, CLIP, DIAGNOSE),
                  QUIZ, POLL)
