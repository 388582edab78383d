"""Exercises of chapter 0, Start here: WordPiece, masked positions, one row of attention."""

from __future__ import annotations

import torch

from course_lib.notebook.exercises.guard import Call
from course_lib.notebook.exercises.questions import Chapter, Option, Poll, Property, Question, QuizItem

WORDPIECE = Question(
    name="ch00.q1",
    title="Split a word as WordPiece does",
    points=3,
    difficulty=2,
    minutes=10,
    stub='''\
def wordpiece(word: str, vocabulary: set[str]) -> list[str]:
    """Split one lower-case word into pieces: always take the longest piece that
    fits, from left to right.

    A piece that does not start the word is written with "##" in front, in the
    vocabulary and in the answer: "walking" -> ["walk", "##ing"]. If at some
    place no piece fits, the whole word becomes ["[UNK]"].
    """
    raise NotImplementedError("ch00.q1")
''',
    hints=("Two loops: the outer one moves the start, the inner one tries the longest end first and makes it shorter "
           "until the piece is in the vocabulary.",
           'Put "##" in front of the candidate when start > 0, BEFORE you look it up. When the end reaches the start, '
           'no piece fits: return ["[UNK]"].'),
    mistakes={
        "shortest": "You take the shortest piece that fits. Try the longest first.",
        "no_marks": 'The pieces inside the word lack "##". Put it in front of every piece but the first.',
        "marks_only_in_answer": 'You look up pieces without "##" and add it afterwards. "ing" and "##ing" are two '
                                "entries: look up the marked one.",
        "partial_unk": "Where no piece fits, you keep the pieces before it. The whole word becomes one [UNK].",
        "no_marks_anywhere": 'There is no "##" at all, neither where you look up nor in the answer. Every piece but '
                             "the first is looked up, and written, with it.",
        "marks_on_first": 'The first piece carries "##" as well. It starts the word, so it has no mark.',
        "from_the_end": "You cut the longest piece off the END of the word. Go from left to right.",
        "letters": "You split into single letters. Take the longest piece that the vocabulary holds.",
        "goes_on_after_unk": "Where no piece fits, you write [UNK] for one letter and go on. The whole word becomes "
                             "one [UNK].",
        "unknown_kept": "Where no piece fits, you return the word itself. It becomes [UNK].",
    },
    extremes="Think of a word of one letter, of a word that is in the vocabulary as a whole, and of unknown letters.",
    seconds=5.0,
)

MASKING = Question(
    name="ch00.q2",
    title="Mask tokens and keep the answers",
    points=2,
    difficulty=1,
    minutes=8,
    stub='''\
def mask_tokens(input_ids: Tensor, chosen: Tensor,
                mask_id: int) -> tuple[Tensor, Tensor]:
    """Hide the chosen tokens and remember what they were.

    input_ids: (batch, tokens), whole numbers. chosen: the same shape, True
    where a token is hidden.
    Returns: (masked_ids, labels), both (batch, tokens). masked_ids has mask_id
    at the chosen places. labels has the old token there and -100 everywhere
    else. input_ids itself must stay as it is.
    """
    raise NotImplementedError("ch00.q2")
''',
    hints=("torch.where(condition, a, b) takes a where the condition is True and b elsewhere, and makes a new tensor.",
           "Two calls: torch.where(chosen, mask_id, input_ids) hides; the labels are the same call with the other "
           "two values."),
    mistakes={
        "labels_everywhere": "Every token got a label, so the model would be asked about tokens that it can see. "
                             "Put -100 where nothing is hidden.",
        "labels_inverted": "The labels stand at the visible places. They belong to the hidden ones.",
        "labels_masked": "The labels hold the mask token: they were taken after the masking. Take them from input_ids.",
        "ignore_0": "The places without a question have label 0, and 0 is a token ([PAD]). "
                    "PyTorch leaves out -100.",
        "swapped": "The two results are swapped: first the masked ids, then the labels.",
        "hides_the_others": "The tokens that were NOT chosen are hidden. In torch.where the first value stands where "
                            "the condition is True.",
        "hides_nothing": "The first result still shows the chosen tokens: put mask_id there.",
        "hides_all": "Every token is hidden. Only the chosen ones become mask_id.",
        "hides_with_0": "The chosen tokens become 0, which is [PAD]. Put mask_id there.",
        "labels_yes_no": "The labels say whether a token is hidden. They must say which token it was.",
        "ignore_minus_1": "The places without a question have label -1. PyTorch leaves out -100 and nothing else.",
    },
    extremes="Think of a batch where nothing is chosen, and of one where everything is.",
    properties=(
        Property("The labels must be a new tensor of whole numbers with -100 wherever nothing is hidden.",
                 lambda: [Call((torch.arange(5, 11).reshape(2, 3), torch.zeros(2, 3, dtype=torch.bool), 3))],
                 lambda answers: set(answers[0].items[1].items) == {-100}),
    ),
)

ATTENTION = Question(
    name="ch00.q3",
    title="Read one row of attention",
    points=2,
    difficulty=1,
    minutes=6,
    stub='''\
def most_attended(attention_probs: Tensor, query: int,
                  attention_mask: Tensor) -> int:
    """Which token does the token at place `query` look at most, on average over
    heads?

    attention_probs: (heads, tokens, tokens); row = the token that looks, column
    = the token it looks at.
    attention_mask: (tokens,), 1 = a real token, 0 = padding; padding is never
    the answer.
    Returns: the place of that token, a Python int.
    """
    raise NotImplementedError("ch00.q3")
''',
    hints=("First the mean over heads, which leaves a (tokens, tokens) table. Then one row of it.",
           "Make the padded places smaller than any probability, for example with "
           "row.masked_fill(attention_mask == 0, -1), then argmax and int()."),
    mistakes={
        "column": "You read a column: who looks at this token. The row says where this token looks.",
        "head_0": "You read the first head only. Take the mean over heads.",
        "padding": "A padded token wins. Leave padding out before argmax.",
        "max_over_heads": "You take the largest head at each place. Take the mean over heads.",
        "query_itself": "You return the token itself. Look along its row.",
        "least": "This is the token that gets LEAST attention. Take the largest: argmax.",
        "last_head": "You read the last head only. Take the mean over heads.",
        "whole_table": "argmax runs over the whole table, so it counts through all rows. Take the row of query first.",
        "all_rows": "You take the mean over all rows, so query has no effect. Take its row.",
        "counts_from_1": "You count places from 1. In Python the first token has place 0.",
        "mask_inverted": "The mask is inverted: you leave out the real tokens. 1 marks a real token.",
    },
    extremes="Think of a sentence with a single real token.",
)

QUIZ = (
    QuizItem("What does a student learn from, in distillation?", (
        Option("From a copy of the teacher's weights only.",
               "Copied weights are a good start, but the learning comes from what the teacher answers."),
        Option("From what the teacher answers, often together with the labels.",
               "The teacher's outputs, or things inside it, are the target.", True),
        Option("From the labels only, as the teacher did, but with a smaller network.",
               "That is the baseline. It stands beside every student in this course."),
        Option("From the teacher's training code.", "The code is not needed. What counts is what the model computes."),
    )),
    QuizItem("Why does a tokenizer split a word into pieces?", (
        Option("So that every word becomes equally long.", "Pieces differ in length; padding evens out sentences."),
        Option("So that rare words can be written with a small vocabulary.",
               "30,522 pieces are enough for words that never stood in the training text.", True),
        Option("Because the model cannot read a piece that has more than one letter.",
               "It reads numbers of pieces, and many pieces are whole words."),
        Option("So that the grammar becomes visible.", "Pieces are chosen by how often they occur, not by grammar."),
    )),
    QuizItem("Which tokens are asked about in masked language modelling?", (
        Option("All tokens of the sentence.", "The model can see most of them, so it would only have to copy."),
        Option("A random share, about 15 %, never special tokens or padding.",
               "Only there the label is not -100.", True),
        Option("The last token.", "That is how GPT learns. BERT sees both sides of a hole."),
        Option("The [CLS] token.", "[CLS] is a special token. It is never masked."),
    )),
    QuizItem("What does the label -100 mean?", (
        Option("The right answer at this place is the class with number -100.",
               "Classes are counted from 0. No class has a negative number."),
        Option("The token was not in the vocabulary.", "That token is [UNK], and it has a number of its own."),
        Option("The model was very wrong there.", "A label says what is right. It knows nothing of the model."),
        Option("Nobody asks about this place, so the loss leaves it out.",
               "PyTorch's cross-entropy ignores this number.", True),
    )),
    QuizItem("A row of an attention map sums to 1. What does one row show?", (
        Option("How much one token takes from each of the tokens.",
               "The row is the token that looks, the columns are what it looks at.", True),
        Option("How important one word is for the whole sentence.",
               "That would be nearer to a column, and even that is not importance."),
        Option("How sure the model is of its answer.", "That is in the output probabilities, not in the attention."),
        Option("How similar two sentences are.", "Attention lies inside one input."),
    )),
    QuizItem("Why does a frozen teacher have to be in `eval()` mode?", (
        Option("It saves the memory of the gradients.", "`eval()` does not: `torch.no_grad()` does."),
        Option("Otherwise the optimiser would change it.", "The optimiser changes only what it was given."),
        Option("Otherwise dropout makes its answers different every time.",
               "In train mode the student would chase a noisy target. A published code had this mistake.", True),
        Option("It makes the teacher more accurate than it was in its tests.",
               "It makes the teacher exactly what was tested, not better."),
    )),
)

POLL = Poll(
    "The teacher sees: \"The capital of France is [MASK].\" How sure will it be of its first guess?",
    ("Less than 10 %.", "Between 10 % and 50 %.", "More than 50 %."),
    later="“Your prediction, looked at again”, below, shows it beside the teacher's answer.",
)

CHAPTER = Chapter("ch00", "Start here", (WORDPIECE, MASKING, ATTENTION), QUIZ, POLL)
