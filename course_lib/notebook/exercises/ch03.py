"""Exercises of chapter 3, DistilBERT: three losses, hidden words, and a student that starts as a copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem
from course_lib.notebook.exercises.values import Value, all_equal, near, numbers


def _states(*shape: int, seed: int = 7, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- q1 ---------------------------------------------------------------------------------------------------------------

_MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def _with_other_padding(seed: int) -> Call:
    padded = _MASK[..., None] == 0
    return Call((torch.where(padded, _states(2, 4, 5, seed=seed), _states(2, 4, 5)),
                 torch.where(padded, _states(2, 4, 5, seed=seed + 1), _states(2, 4, 5, seed=8)), _MASK))


COSINE = Question(
    name="ch03.q1",
    title="The cosine loss, without padding",
    points=2,
    difficulty=1,
    minutes=8,
    stub='''\
def cosine_loss(student_states: Tensor, teacher_states: Tensor,
                mask: Tensor) -> Tensor:
    """L_cos: 1 - cos(h_S, h_T) for every token, and the mean over all kept
    tokens.

    student_states, teacher_states: (batch, tokens, hidden), the last hidden
    states of both models.
    mask: (batch, tokens), 1 = a real token, 0 = padding.
    Returns: one number, as a tensor of shape (). Every kept token weighs the
    same.
    """
    raise NotImplementedError("ch03.q1")
''',
    hints=("First pick the kept tokens of both models: (kept, hidden). Then one cosine per row, then one mean.",
           "F.cosine_similarity compares along dim=1 unless you say dim=-1. mask.bool() selects rows."),
    mistakes={
        "similarity": "This is the cosine itself: 1 for a perfect student. The loss is 1 minus it.",
        "no_mask": "The padding takes part: the mask has no effect.",
        "divides_by_all": "Padding adds nothing to the sum, but it still counts in the mean. "
                          "Divide by the number of kept tokens.",
        "per_sentence": "This is a mean per sentence, then over sentences. Here every kept token weighs the same.",
        "wrong_dim": "The cosine runs along the tokens (dim=1 is the default). The hidden numbers are the last "
                     "dimension, dim=-1.",
        "dot": "This is 1 minus the dot product. A cosine also divides by the lengths of both vectors.",
        "mse": "This is the squared distance of the states. It sees lengths; the cosine sees directions only.",
        "sum": "The loss is summed over the tokens. Take their mean.",
        "inverted": "The mask is inverted: this is the loss of the padding. 1 means keep.",
    },
    extremes="Drop the padding before you compute, and divide by the lengths.",
    gradient="The loss must be differentiable for the student, and padded tokens must get gradient 0.",
    properties=(
        Property("A student that equals its teacher must have loss 0.",
                 lambda: [Call((_states(2, 4, 5), _states(2, 4, 5), _MASK))], lambda answers: near(answers[0], 0)),
        Property("What stands in the padding must not matter.",
                 lambda: [_with_other_padding(seed) for seed in (20, 30)], all_equal),
        Property("A student whose states are nine times as long must have the same loss: only directions count.",
                 lambda: [Call((size * _states(2, 4, 5), _states(2, 4, 5, seed=8), _MASK)) for size in (1.0, 9.0)],
                 all_equal),
    ),
)

# --- q2 ---------------------------------------------------------------------------------------------------------------


def _nothing_drawn() -> Call:
    ids = torch.arange(10, 26).reshape(2, 8)
    return Call((ids, torch.ones(2, 8).bool(), torch.full((2, 8), 0.99), torch.full((2, 8), 0.5), ids + 100, 4))


HIDE = Question(
    name="ch03.q2",
    title="Hide words as BERT does",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def hide_words(input_ids: Tensor, maskable: Tensor, draw: Tensor, how: Tensor,
               random_ids: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """Hide 15 % of the words: of these 80 % become [MASK], 10 % a random word,
    10 % stay. The luck is given.

    input_ids, random_ids: (batch, tokens), whole numbers.
    maskable: (batch, tokens), False for [CLS], [SEP] and padding: these are
    never chosen.
    draw, how: (batch, tokens), random numbers between 0 and 1. A word is chosen
    if draw < 0.15 (and it is maskable). Of the chosen words: how < 0.8 becomes
    mask_id, how >= 0.9 becomes the random id, the rest stays.
    Returns: (new ids, labels). labels hold the true id of every chosen word,
    and -100 everywhere else.
    """
    raise NotImplementedError("ch03.q2")
''',
    hints=("Make three masks of True and False: chosen, becomes_mask, becomes_random. Then torch.where or masked_fill. "
           "Leave input_ids as it is: the labels need it.",
           "chosen = (draw < 0.15) & maskable; labels = input_ids.masked_fill(~chosen, -100). "
           "A word that is chosen and stays has a label too."),
    mistakes={
        "labels_everywhere": "Every token is its own label. A visible word must have the label -100: to copy it is "
                             "no exercise.",
        "specials": "[CLS], [SEP] and padding are hidden like words. Use maskable.",
        "overwritten": "[MASK] is written over the random words as well: no wrong word is left in the text.",
        "all_mask": "Every chosen word becomes [MASK]. Only 80 % of them do.",
        "labels_after": "The labels are taken from the text after hiding, so they say [MASK]. Take the true ids.",
        "label_of_mask_only": "Only words that became [MASK] have a label. The random and the kept ones are asked too.",
        "inverted": "The draw is turned round: here 85 % of the words are chosen.",
        "zero": "The words that are not asked must have the label -100. 0 is a word of the vocabulary ([PAD]).",
        "no_random": "No word is replaced by a random one: where how >= 0.9, take random_ids.",
        "none_stays": "Every chosen word is changed. Between 0.8 and 0.9 it must stay as it is.",
        "swapped": "The two results are swapped: first the new ids, then the labels.",
    },
    extremes="Look at the masks of True and False once more.",
    properties=(
        Property("If no draw is below 0.15, the text must stay as it is and every label must be -100.",
                 lambda: [_nothing_drawn()],
                 lambda answers: numbers(answers[0]) == [*range(10, 26), *([-100.0] * 16)]),
    ),
)

# --- q3 ---------------------------------------------------------------------------------------------------------------


def _triple(labels: list | None = None, teacher: int = 8, **weights: float) -> Call:
    labels = torch.tensor(labels or [[-100, 3, -100, -100], [2, -100, -100, -100]])
    knobs = {"temperature": 2.0, "soft_weight": 0.0, "mlm_weight": 0.0, "cosine_weight": 0.0} | weights
    return Call((_states(2, 4, 5), _states(2, 4, 5, seed=teacher), _states(2, 4, 6), _states(2, 4, 6, seed=9), labels,
                 _MASK), knobs)


TRIPLE = Question(
    name="ch03.q3",
    title="The triple loss",
    points=3,
    difficulty=3,
    minutes=15,
    stub='''\
def triple_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_states: Tensor,
    teacher_states: Tensor,
    labels: Tensor,
    attention_mask: Tensor,
    *,
    temperature: float,
    soft_weight: float,
    mlm_weight: float,
    cosine_weight: float,
) -> Tensor:
    """soft_weight * L_ce + mlm_weight * L_mlm + cosine_weight * L_cos: one sum,
    three kinds of positions.

    L_ce:  T^2 * KL(teacher || student), softened with T: a sum over the
    vocabulary, the mean over all REAL tokens.
    L_mlm: cross-entropy with the labels, the mean over the HIDDEN words only
    (label other than -100), at T = 1.
    L_cos: your answer to ch03.q1, the mean over all REAL tokens.
    logits: (batch, tokens, vocabulary). states: (batch, tokens, hidden).
    labels, attention_mask: (batch, tokens).
    Returns: one number, as a tensor of shape ().
    """
    raise NotImplementedError("ch03.q3")
''',
    hints=("Two selections: real = attention_mask.bool() for L_ce and L_cos, hidden = labels != -100 for L_mlm. "
           "Each gives rows (kept, …).",
           "L_ce on rows is ch01.q2: F.kl_div of log_softmax and softmax, batchmean, times T^2. "
           "F.cross_entropy(student_logits[hidden], labels[hidden]) is L_mlm."),
    mistakes={
        "no_t2": "The factor T^2 is missing in L_ce.",
        "ce_at_hidden_words": "L_ce counts at the hidden words only. That is the original code's option "
                              "restrict_ce_to_mask; asked are all real tokens.",
        "ce_with_padding": "L_ce counts the padding too. Keep the rows where attention_mask is 1.",
        "cosine_with_padding": "L_cos counts the padding too. Keep the rows where attention_mask is 1.",
        "cosine_at_hidden_words": "L_cos counts at the hidden words only; asked are all real tokens.",
        "batchmean_3d": '"batchmean" divides L_ce by the number of sentences. Select rows first, then it is per token.',
        "mlm_softened": "L_mlm uses softened logits. The words themselves know no temperature.",
        "mlm_of_teacher": "L_mlm measures the teacher. It must measure the student against the hidden words.",
        "swapped_kl": "In L_ce teacher and student are swapped.",
        "swapped_weights": "soft_weight and mlm_weight are swapped: soft_weight belongs to L_ce.",
    },
    extremes="Take log_softmax, not the logarithm of a softmax, and select rows before you compute.",
    gradient="All three terms must reach the student: no .item(), no .detach() on its side.",
    properties=(
        Property("With soft_weight = 0 and cosine_weight = 0 the teacher must have no influence.",
                 lambda: [_triple(teacher=seed, mlm_weight=1.0) for seed in (8, 10)], all_equal),
        Property("With mlm_weight = 0 the labels must have no influence.",
                 lambda: [_triple(labels, soft_weight=1.0, cosine_weight=1.0) for labels in
                          ([[-100, 3, -100, -100], [2, -100, -100, -100]], [[1, -100, 4, -100], [-100, 0, -100, -100]])
                          ], all_equal),
    ),
)

# --- q4 ---------------------------------------------------------------------------------------------------------------

SIZE = Question(
    name="ch03.q4",
    title="How large is the student?",
    points=3,
    difficulty=2,
    minutes=12,
    stub='''\
def encoder_size(layers: int, hidden: int, feed_forward: int, vocabulary: int,
                 positions: int, token_types: int, pooler: bool) -> int:
    """How many numbers a BERT encoder holds. Every matrix has a bias, and a
    LayerNorm holds 2 * hidden numbers.

    Embeddings: a row of `hidden` numbers for each word, each position and each
    token type, no bias; one LayerNorm. A layer: four matrices hidden x hidden
    (query, key, value, output), one hidden -> feed_forward, one back, and two
    LayerNorms. pooler: if True, one more matrix hidden x hidden. DistilBERT has
    token_types = 0 and no pooler. Returns: a whole number.
    """
    raise NotImplementedError("ch03.q4")
''',
    hints=("Write a helper for one matrix with its bias: rows * columns + columns. Then add up: embeddings, layers, "
           "pooler.",
           "Per layer: 4 (h h + h) + (h f + f) + (f h + h) + 2 * 2h. Embeddings: (words + positions + types) h + 2h."),
    mistakes={
        "no_bias": "The biases are missing: a matrix from a to b holds a * b + b numbers.",
        "no_layer_norm": "The LayerNorms are missing: two in every layer and one after the embeddings.",
        "no_embedding_norm": "The LayerNorm after the embeddings is missing.",
        "one_norm_per_layer": "A layer has two LayerNorms: one after the attention, one after the feed-forward part.",
        "three_matrices": "Attention has four matrices: query, key, value and the output after the heads are joined.",
        "pooler_always": "The pooler is counted even where there is none.",
        "pooler_never": "The pooler is never counted.",
        "no_embeddings": "The embeddings are missing. In BERT-base they are more than a fifth of all numbers.",
        "words_only": "Only the words have embeddings in your sum. Positions and token types have rows, too.",
        "no_types": "The rows of the token types are missing.",
        "one_layer": "Only one layer is counted. Multiply its size by the number of layers.",
    },
    extremes="Whole numbers have no rounding: look at the sum once more.",
    properties=(
        Property("Two more layers must add twice what one more layer adds.",
                 lambda: [Call((layers, 8, 16, 20, 10, 2, True)) for layers in (1, 2, 4)],
                 lambda answers: numbers(answers[2])[0] - numbers(answers[0])[0]
                 == 3 * (numbers(answers[1])[0] - numbers(answers[0])[0])),
    ),
)

# --- q5 ---------------------------------------------------------------------------------------------------------------

FOLD = Question(
    name="ch03.q5",
    title="Find the bug: the vector that got lost",
    points=2,
    difficulty=2,
    minutes=8,
    stub='''\
def fold_token_types(position_embeddings: Tensor,
                     token_type_embeddings: Tensor) -> Tensor:
    """Position embeddings for a student without token types whose inputs must
    stay those of its teacher.

    The teacher adds word + position + type; in a single sentence every token
    has type 0.
    position_embeddings: (positions, hidden). token_type_embeddings: (types,
    hidden).
    Returns: (positions, hidden), a new tensor.
    """
    # ch03.q5: this is the published script; repair it
    return position_embeddings.clone()
''',
    hints=("For single sentences the type vector is a constant. Where in the sum word + position can a constant hide?",
           "Add row 0 of the type table to every row of the position table. Do not change the given table in place."),
    mistakes={
        "dropped": "The type vector is dropped. That is what the published script did: every input of the student "
                   "misses a vector that the teacher always adds.",
        "all_types": "All type vectors are added. A single sentence has type 0 only.",
        "mean_type": "The mean of the type vectors is added. A single sentence has type 0 only.",
        "last_type": "The last type is added. A single sentence has type 0, the first row.",
        "first_position_only": "Only the first position gets the vector. The teacher adds it at every position.",
        "subtracted": "The vector is taken away. The teacher adds it.",
        "averaged": "This is the mean of both vectors. The teacher adds them; it does not divide.",
        "only_type": "The positions are gone: every row is the type vector. Add it to the positions.",
        "added_twice": "The type vector is added twice. The teacher adds it once.",
        "multiplied": "The vectors are multiplied. The teacher adds them.",
    },
    extremes="It is one addition.",
    properties=(
        Property("A type table of zeros must leave the positions as they are.",
                 lambda: [Call((_states(4, 3), torch.zeros(2, 3)))],
                 lambda answers: all(abs(a - b) < 1e-6 for a, b in zip(
                     numbers(answers[0]), _states(4, 3).flatten().tolist(), strict=True))),
    ),
)

# --- q6 ---------------------------------------------------------------------------------------------------------------


def _orthogonal(answers: Sequence[Value]) -> bool:
    rows = torch.tensor(numbers(answers[0])).reshape(answers[0].shape)
    return bool(((rows * _states(6, 5)).sum(dim=-1).abs() < 1e-4).all())


GRADIENT = Question(
    name="ch03.q6",
    title="The gradient of the cosine loss, by hand",
    points=3,
    difficulty=3,
    minutes=15,
    stub='''\
def cosine_gradient(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """The gradient of L_cos (mean over all tokens, no padding) for the
    student's states, without autograd.

    student_states, teacher_states: (tokens, hidden).
    Returns: (tokens, hidden), what student_states.grad would hold after
    loss.backward().
    """
    raise NotImplementedError("ch03.q6")
''',
    hints=("Write s and t for the two vectors divided by their lengths. The loss of a token is 1 - s·t. How does s "
           "change when the student's vector h changes?",
           "Per token: -(t - (s·t) s) / |h|, then divide by the number of tokens. The part of t along s is taken away: "
           "a step along h changes the length only, and the loss does not see it."),
    mistakes={
        "sign": "The sign is turned round: this gradient leads away from the teacher.",
        "no_mean": "The mean over the tokens is missing: divide by their number.",
        "no_projection": "The part along the student's own direction is still in it. Take (s·t) s away from t.",
        "no_length": "The division by the student's length is missing: a long vector turns slowly.",
        "long_teacher": "The teacher's vector is not divided by its length.",
        "per_number": "The mean is taken over all numbers. The loss is a mean over tokens only.",
        "length_squared": "You divide by the student's length twice. Once is enough: s and t have length 1 already.",
        "teachers_length": "You divide by the teacher's length. The gradient is for the student: divide by |h_S|.",
        "for_the_teacher": "This is the gradient for the teacher's states. The student learns, the teacher stays.",
    },
    extremes="Divide by the lengths before you multiply large numbers.",
    properties=(
        Property("The gradient of a token must stand at a right angle to its state: length does not matter.",
                 lambda: [Call((_states(6, 5), _states(6, 5, seed=8)))], _orthogonal),
    ),
)

# --- quiz and poll ----------------------------------------------------------------------------------------------------

QUIZ = (
    QuizItem("Which positions count in the three losses of the original code, without its options?", (
        Option("The hidden words, in all three.", "Only L_mlm is limited to them. An option limits L_ce, too."),
        Option("All positions, padding too.", "Then the loss would depend on how long the other texts of a batch are."),
        Option("L_ce and L_cos: all real tokens. L_mlm: the hidden words.",
               "The teacher has something to say everywhere; a label exists only where a word was hidden.", True),
        Option("L_ce: the hidden words. L_mlm and L_cos: all real tokens.",
               "A masked-LM loss on visible words teaches copying."),
    )),
    QuizItem("L_cos is 0 at every token. What do you know?", (
        Option("Student and teacher give the same answers at every token.",
               "Not yet: a state of another length gives other logits, and the heads may differ."),
        Option("Their last hidden states have the same directions.", "A cosine sees directions and no lengths.", True),
        Option("Their last hidden states are equal.", "One could be twice as long as the other."),
        Option("Their attention maps are equal.", "The loss never looked at them."),
    )),
    QuizItem("DistilBERT has half the layers of BERT-base, but 66 of 110 million numbers. Why not half?", (
        Option("Its layers are wider.", "Hidden size and feed-forward size are the teacher's."),
        Option("It has a second head, which is there for the soft targets.", "Soft and hard loss share one head."),
        Option("The embeddings are as large as the teacher's.",
               "23.8 million numbers of each model are embeddings. Fewer layers do not shrink them.", True),
        Option("It stores the teacher's hidden states.", "Those are computed during training and thrown away."),
    )),
    QuizItem("In the paper's ablation (Table 4), which row lost most?", (
        Option("Random initialisation instead of a copy.", "3.69 points: more than any single loss.", True),
        Option("Without L_mlm.", "0.31 points, the smallest loss of the four rows."),
        Option("Without L_cos.", "1.46 points: the third of the four rows."),
        Option("Without L_ce.", "2.96 points: the largest among the losses, but the start mattered more."),
    )),
    QuizItem("The masked-LM loss falls to almost 0 in the first minutes. What is likely?", (
        Option("The student has learned the language.", "Our teacher itself stays near 3 nats per hidden word."),
        Option("The labels stand at the visible words too.",
               "Then most of the loss is copying, which is easy: the -100 is missing.", True),
        Option("The learning rate is too high.", "Then the loss would jump or become NaN."),
        Option("The head is not tied to the embeddings, so it learns by itself.",
               "Then the loss would fall more slowly, not faster."),
    )),
    QuizItem("After 100 steps a student from random weights answers most hidden words with a comma. Why?", (
        Option("The tokenizer is broken.", "The same tokenizer serves the teacher well."),
        Option("The teacher answers with commas, and the student has learned that from it.",
               "Look at it: it does so where a comma is likely."),
        Option("T^2 was forgotten.", "Then the soft loss would be weaker, but the answers would not collapse."),
        Option("Without context, the most frequent token is the best guess.",
               "Every masked LM passes this plateau. A copied start can stand on it, too: count its commas.", True),
    )),
    QuizItem("A script drops the token-type table. What does the student notice?", (
        Option("Nothing: a single sentence has no token types, so its inputs lose nothing by it.",
               "They have type 0, and the teacher adds its vector at every position."),
        Option("Every input misses the vector of type 0, unless another table carries it.",
               "It can be added to the position table; then a full copy answers exactly as its teacher.", True),
        Option("It can no longer read more than one sentence.",
               "It can read two, it just is not told where the second one begins."),
        Option("Its hidden size changes.", "The three tables are added up, not put side by side."),
    )),
    QuizItem("“97 % of BERT's performance” in the paper means:", (
        Option("97 % of the answers are the same.", "That would be agreement. Nobody counted it there."),
        Option("97 of 100 tasks are solved.", "There are nine tasks in the table."),
        Option("Every single task keeps at least 97 % of the score that BERT-base has.",
               "Some keep less, others more: it is about the average."),
        Option("The average GLUE score is 77.0 where BERT-base has 79.5.",
               "77.0 / 79.5 = 0.97. An average of scores with different meanings.", True),
    )),
)

POLL = Poll(
    "A student of half depth learns masked language modelling from its teacher. Four trainings each miss one thing. "
    "After the same number of steps, which student finds the fewest hidden words?",
    ("The one without L_ce, the teacher's word probabilities.", "The one without L_cos, the direction of the states.",
     "The one without L_mlm, the hidden words themselves.", "The one that starts with random weights.",
     "The two lowest will be too close to tell apart."),
)

CHAPTER = Chapter("ch03", "DistilBERT (Sanh 2019)", (COSINE, HIDE, TRIPLE, SIZE, FOLD, GRADIENT), QUIZ, POLL)
