"""The idea of each paper as one figure, drawn by code: boxes are models, arrows are what flows between them."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_lib.notebook.plots import OKABE_ITO, ROLES, Picture, canvas, picture, style

GREY = "#555555"


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str = GREY) -> None:
    """A rounded box with its centre at (x, y)."""
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, facecolor="white", edgecolor=colour,
                                  linewidth=2, boxstyle="round,pad=0,rounding_size=0.12"))
    axes.text(x, y, text, ha="center", va="center", fontsize=10.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", colour: str = GREY,
          line: str = "-") -> None:
    """An arrow, with a few words above its middle."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=colour, linewidth=1.8,
                                   linestyle=line, shrinkA=2, shrinkB=2))
    if text:
        axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.16, text, ha="center", fontsize=9.5,
                  color=colour)


def _sheet(width: float, height: float):
    figure, (axes,) = canvas(figsize=(width, height))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


@style()
def distillation_idea() -> Picture:
    """Chapter 0: the same text goes to both models; the student learns from labels and from the teacher."""
    figure, axes = _sheet(8.0, 3.2)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    box(axes, 0.9, 1.6, 1.4, 0.8, "text")
    box(axes, 3.6, 2.5, 2.2, 1.0, "teacher\nlarge, frozen", teacher)
    box(axes, 3.6, 0.7, 1.6, 0.7, "student\nsmall", student)
    box(axes, 6.9, 1.6, 1.5, 0.8, "difference\n= the loss")
    arrow(axes, (1.6, 1.75), (2.5, 2.4))
    arrow(axes, (1.6, 1.45), (2.8, 0.8))
    arrow(axes, (4.7, 2.4), (6.15, 1.8), "", teacher)
    arrow(axes, (4.4, 0.8), (6.15, 1.4), "", student)
    arrow(axes, (6.9, 1.2), (4.4, 0.5), "", OKABE_ITO["orange"], line="--")
    axes.text(5.5, 2.3, "what it answers", fontsize=9.5, color=teacher)
    axes.text(4.5, 1.3, "what it answers", fontsize=9.5, color=student, ha="center")
    axes.text(6.2, 0.4, "gradients change\nthe student only", fontsize=9.5, color="#8a5f00", ha="center", va="center")
    return picture(figure, "A text goes to a large frozen teacher and to a small student; the difference of their "
                           "answers is the loss, and its gradients change the student only.")


@style()
def hinton_idea() -> Picture:
    """Chapter 1: logits divided by T, two softened distributions, two losses."""
    figure, axes = _sheet(9.2, 3.8)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    box(axes, 1.0, 3.1, 1.6, 0.8, "teacher\nlogits $z^T$", teacher)
    box(axes, 1.0, 1.3, 1.6, 0.8, "student\nlogits $z^S$", student)
    box(axes, 3.9, 3.1, 1.9, 0.8, "softmax($z^T / T$)", teacher)
    box(axes, 3.9, 1.9, 1.9, 0.8, "softmax($z^S / T$)", student)
    box(axes, 3.9, 0.6, 1.9, 0.8, "softmax($z^S$)", student)
    box(axes, 7.6, 2.5, 2.6, 0.9, "soft loss\n$T^2$ · KL(teacher ‖ student)", ROLES["soft"].colour)
    box(axes, 7.6, 0.6, 2.6, 0.9, "hard loss\ncross-entropy with the label", "#B87A00")
    for start, end in (((1.8, 3.1), (2.95, 3.1)), ((1.8, 1.45), (2.95, 1.85)), ((1.8, 1.15), (2.95, 0.7)),
                       ((4.85, 3.0), (6.3, 2.65)), ((4.85, 1.95), (6.3, 2.35)), ((4.85, 0.6), (6.3, 0.6))):
        arrow(axes, start, end)
    axes.text(2.4, 3.25, "÷ T", fontsize=10, ha="center")
    axes.text(2.4, 1.8, "÷ T", fontsize=10, ha="center")
    axes.text(2.35, 0.55, "T = 1", fontsize=10, ha="center")
    return picture(figure, "Teacher and student logits are divided by T and compared by the soft loss; the student's "
                           "logits at T = 1 are compared with the label by the hard loss.")


@style()
def distilbert_idea() -> Picture:
    """Chapter 3: every second block is copied once; then three losses compare the two models on masked text."""
    figure, axes = _sheet(10.2, 4.3)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    places = [1.95 + 0.8 * i for i in range(6)]
    for colour, y, columns in ((teacher, 3.5, places), (student, 1.4, places[1::2])):
        ends = [0.8, *columns, 7.1, 9.1]
        widths = [1.1, *[0.6] * len(columns), 1.1, 1.7]
        texts = ["words", *[str(i + 1) for i in range(len(columns))], "last\nstates", "word\nprobabilities"]
        for x, width, text in zip(ends, widths, texts, strict=True):
            box(axes, x, y, width, 0.8, text, colour)
        for i in range(len(ends) - 1):
            arrow(axes, (ends[i] + widths[i] / 2, y), (ends[i + 1] - widths[i + 1] / 2, y), colour=colour)
    axes.text(0.25, 4.05, "teacher, frozen", fontsize=10, color=teacher)
    axes.text(0.25, 0.75, "student", fontsize=10, color=student)
    for x in (0.8, *places[1::2]):
        arrow(axes, (x, 3.1), (x, 1.8), colour=OKABE_ITO["black"], line=":")
    axes.text(1.78, 2.45, "copied once,\nbefore training", fontsize=9.5, ha="center", va="center")
    box(axes, 7.1, 2.45, 1.3, 0.5, "$L_{cos}$", ROLES["hidden"].colour)
    box(axes, 9.1, 2.45, 1.3, 0.5, "$L_{ce}$", ROLES["soft"].colour)
    box(axes, 9.1, 0.35, 1.3, 0.5, "$L_{mlm}$", "#B87A00")
    box(axes, 7.1, 0.35, 1.7, 0.5, "the hidden words")
    for x in (7.1, 9.1):
        arrow(axes, (x, 3.1), (x, 2.7), colour=teacher)
        arrow(axes, (x, 1.8), (x, 2.2), colour=student)
    arrow(axes, (9.1, 1.0), (9.1, 0.6), colour=student)
    arrow(axes, (7.95, 0.35), (8.45, 0.35))
    return picture(figure, "The word table and blocks 2, 4 and 6 of a six-block teacher are copied once into a "
                           "three-block student. Then L_cos compares the last states, L_ce the word probabilities, and "
                           "L_mlm the student's probabilities with the hidden words.")


@style()
def bilstm_idea() -> Picture:
    """Chapter 2: real and made-up text goes to both models; the student reads it from both sides, word by word."""
    figure, axes = _sheet(9.6, 4.4)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    box(axes, 1.05, 2.9, 1.7, 1.0, "text: real\nand made up")
    box(axes, 4.4, 3.7, 2.6, 0.8, "BERT teacher, frozen", teacher)
    box(axes, 8.3, 2.7, 2.3, 0.9, "squared distance\n$\\|z^T - z^S\\|^2$", ROLES["soft"].colour)
    arrow(axes, (1.9, 3.1), (3.1, 3.6))
    arrow(axes, (5.7, 3.6), (7.15, 2.95), "logits $z^T$", teacher)
    for x, word in zip((3.2, 4.4, 5.6), ("a", "dull", "film"), strict=True):
        box(axes, x, 0.45, 0.95, 0.5, word)
        arrow(axes, (x, 0.72), (x, 1.03))
        box(axes, x, 1.3, 0.95, 0.5, "LSTM →", student)
        box(axes, x, 2.05, 0.95, 0.5, "← LSTM", student)
    for left, right in ((3.68, 3.92), (4.88, 5.12)):
        arrow(axes, (left, 1.3), (right, 1.3), "", student)
        arrow(axes, (right, 2.05), (left, 2.05), "", student)
    arrow(axes, (1.5, 2.4), (2.7, 0.55))
    box(axes, 7.0, 1.3, 1.2, 0.9, "linear,\nReLU,\nlinear", student)
    arrow(axes, (6.08, 1.3), (6.4, 1.3), "", student)
    axes.plot([2.72, 2.5, 2.5, 6.24, 6.24], [2.05, 2.05, 2.52, 2.52, 1.55], color=student, linewidth=1.8)
    arrow(axes, (6.24, 1.6), (6.4, 1.45), "", student)
    arrow(axes, (7.6, 1.4), (8.2, 2.25), "", student)
    axes.text(8.15, 1.6, "logits $z^S$", fontsize=9.5, color=student)
    axes.text(1.2, 1.1, "words\nbecome vectors", fontsize=9.5, color=GREY, ha="center", va="center")
    return picture(figure, "Real and made-up text goes to the frozen BERT and, word by word as vectors, to two LSTMs "
                           "that read it from left and from right; linear layers turn their last states into logits, "
                           "and the squared distance to the teacher's logits is the loss.")


@style()
def tinybert_idea() -> Picture:
    """Chapter 5: a shallow and narrow student beside its teacher, three terms inside and one at the end."""
    figure, axes = _sheet(9.2, 4.4)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    levels = [0.75, 1.55, 2.35, 3.15]
    for y, text in zip(levels, ("embeddings", "layers 1 to 3", "layers 4 to 6", "prediction"), strict=True):
        box(axes, 1.6, y, 2.5, 0.55, text, teacher)
    for y, text in zip(levels, ("embeddings", "layer 1", "layer 2", "prediction"), strict=True):
        box(axes, 7.9, y, 1.5, 0.55, text, student)
    for x in (1.6, 7.9):
        for low, high in pairwise(levels):
            arrow(axes, (x, low + 0.27), (x, high - 0.27))
    hidden, attention, soft = (ROLES[role].colour for role in ("hidden", "attention", "soft"))
    for y, text, colour, line in ((levels[0], "states through $W_e$", hidden, "-"),
                                  (levels[1], "scores head by head; states through $W_h$", attention, "-"),
                                  (levels[2], "scores head by head; states through $W_h$", attention, "-"),
                                  (levels[3], "softened answers", soft, "--")):
        arrow(axes, (2.85, y), (7.15, y), "", colour, line)
        axes.text(5.0, y + 0.13, text, ha="center", fontsize=9.5, color="#333333")
    axes.text(1.6, 0.15, "teacher: wide and deep", ha="center", fontsize=10.5, color=teacher)
    axes.text(7.9, 0.15, "student: narrow", ha="center", fontsize=10.5, color=student)
    axes.text(5.0, 3.98, "stage 1: solid arrows (the inside, no labels)\nstage 2: the dashed arrow (the answers)",
              ha="center", va="center", fontsize=10)
    axes.text(5.0, 0.15, "text: new words for masked ones", ha="center", fontsize=9.5, color=GREY)
    return picture(figure, "A student of two layers beside a teacher of six: embeddings, states and attention scores "
                           "are compared in stage 1, the predictions in stage 2; the states pass through a projection.")


@style()
def theseus_idea() -> Picture:
    """Chapter 8: one batch takes a mixed path of predecessor and successor layers; afterwards successors only."""
    figure, axes = _sheet(10.2, 4.5)
    old, new = ROLES["teacher"].colour, ROLES["student"].colour
    draws = (True, False, True)
    columns, high, middle, low, after = (2.8, 5.1, 7.4), 3.7, 2.9, 2.1, 0.5
    exits = [(1.42, middle)]
    for i, (x, replaced) in enumerate(zip(columns, draws, strict=True)):
        for j in (0, 1):
            box(axes, x - 0.47 + 0.94 * j, high, 0.86, 0.62, f"prd{2 * i + j}", old if not replaced else "#A9B4BC")
        box(axes, x, low, 1.8, 0.62, f"scc{i}", new if replaced else "#C9B5A8")
        axes.text(x, middle, f"draw: {'successor' if replaced else 'predecessor'}", ha="center", va="center",
                  fontsize=9.5, color="#b34700" if replaced else old)
        y = low if replaced else high
        arrow(axes, exits[-1], (x - 0.92, y))
        exits.append((x + 0.92, y))
        box(axes, x, after, 1.8, 0.62, f"scc{i}", new)
        arrow(axes, (x - 1.38, after), (x - 0.92, after))
    arrow(axes, exits[-1], (8.78, middle))
    arrow(axes, (columns[-1] + 0.92, after), (8.78, after))
    for y in (middle, after):
        box(axes, 0.8, y, 1.2, 0.62, "embeddings")
        box(axes, 9.4, y, 1.2, 0.62, "head")
    axes.text(0.2, 4.3, "While replacing: one draw per module and batch. Grey and blue layers are frozen.", fontsize=10)
    axes.text(0.2, 1.2, "Afterwards (p = 1): successors only. This model is fine-tuned a little more, and used.",
              fontsize=10)
    return picture(figure, "Three modules in a row. The first and the third go through one successor layer, the second "
                           "through its two predecessor layers; afterwards all three go through successors.")


@style()
def minilm_idea() -> Picture:
    """Chapter 7: only the last layers are compared, through tables of tokens x tokens."""
    figure, axes = _sheet(10.2, 4.6)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    for x, width, layers, colour, name in ((1.3, 2.2, 6, teacher, "teacher"), (8.9, 1.3, 3, student, "student")):
        for layer in range(1, layers + 1):
            last = layer == layers
            y = 3.9 - 0.5 * (layers - layer)
            box(axes, x, y, width, 0.4, "last layer: Q, K, V" if last and layers > 3 else "Q, K, V" if last else "",
                colour if last else "#B9C0C6")
        axes.text(x, 4.35, name, ha="center", fontsize=10.5, color=colour)
    rows = ((3.35, "attention", "QK^T", "$L_{AT}$", ROLES["attention"].colour),
            (1.75, "value relation", "VV^T", "$L_{VR}$", ROLES["soft"].colour))
    for y, text, product, loss, colour in rows:
        for x, side in ((3.75, teacher), (6.75, student)):
            box(axes, x, y, 1.75, 0.95, f"{text}\nsoftmax(${product} / \\sqrt{{d}}$)", side)
        arrow(axes, (4.63, y), (5.87, y), "", colour)
        axes.text(5.25, y + 0.12, "KL", ha="center", fontsize=10, color="#333333")
        axes.text(5.25, y - 0.32, loss, ha="center", fontsize=10.5, color="#333333")
        arrow(axes, (2.4, 3.9), (2.87, y + 0.2), "", teacher)
        arrow(axes, (8.25, 3.9), (7.63, y + 0.2), "", student)
    axes.text(5.25, 0.85, "Every table is tokens × tokens, one for each head. So width and depth are free,\n"
                          "and nothing has to be projected. Equal: the number of heads, and the text.",
              ha="center", va="center", fontsize=10)
    return picture(figure, "Queries, keys and values of the last layer of teacher and student become two tables each, "
                           "attention and value relation; a KL compares the tables. The other layers are not compared.")


@style()
def cached_idea() -> Picture:
    """Chapter 9: the teacher answers once, a file keeps its distributions, a student of one layer learns from them."""
    figure, axes = _sheet(10.2, 4.0)
    teacher, student, soft = (ROLES[role].colour for role in ("teacher", "student", "soft"))
    box(axes, 1.1, 2.0, 1.6, 0.9, "documents\nand labels")
    box(axes, 3.7, 3.2, 1.9, 0.9, "teacher\nmany layers", teacher)
    box(axes, 6.4, 3.2, 2.1, 0.9, "file: key and\nlog-probabilities", soft)
    box(axes, 6.4, 1.0, 2.1, 0.9, "batch: text, label,\nstored row", soft)
    box(axes, 9.1, 1.0, 1.7, 0.9, "student\none layer", student)
    arrow(axes, (1.9, 2.3), (2.7, 3.0))
    arrow(axes, (4.65, 3.2), (5.3, 3.2), "once", teacher)
    arrow(axes, (6.4, 2.75), (6.4, 1.45), "", soft)
    axes.text(6.52, 2.1, "joined by key,\nthen shuffled", va="center", fontsize=9.5, color="#333333")
    arrow(axes, (1.9, 1.7), (5.3, 1.05))
    arrow(axes, (7.45, 1.0), (8.2, 1.0))
    axes.text(3.4, 0.75, "every epoch, without the teacher", ha="center", fontsize=9.5, color="#333333")
    axes.text(9.1, 2.0, "soft loss\n+ hard loss", ha="center", va="center", fontsize=10)
    arrow(axes, (9.1, 1.45), (9.1, 1.75))
    return picture(figure, "The teacher reads all documents once; a file keeps key and log-probabilities of each; "
                           "batches of text, label and stored row train a student of one layer without the teacher.")


@style()
def commas_idea() -> Picture:
    """The comma lab: two ways to answer [MASK]; the one without context is learned first."""
    figure, axes = _sheet(9.2, 3.6)
    teacher, student = ROLES["teacher"].colour, ROLES["student"].colour
    box(axes, 1.3, 1.8, 2.2, 0.9, "the river [MASK]\nthrough London")
    box(axes, 4.4, 2.8, 2.4, 1.0, "blocks: attention,\nfeed-forward", teacher)
    box(axes, 4.4, 0.8, 2.4, 1.0, "output bias and\nword frequencies", student)
    box(axes, 7.8, 2.8, 2.2, 0.9, "“flows”", teacher)
    box(axes, 7.8, 0.8, 2.2, 0.9, "“,”  for everything", student)
    arrow(axes, (2.4, 2.0), (3.2, 2.7), "", teacher)
    arrow(axes, (2.4, 1.6), (3.2, 0.9), "", student)
    arrow(axes, (5.6, 2.8), (6.7, 2.8), "", teacher)
    arrow(axes, (5.6, 0.8), (6.7, 0.8), "", student)
    axes.text(4.4, 3.42, "with context: learned slowly", ha="center", fontsize=10, color=teacher)
    axes.text(4.4, 0.12, "without context: learned in the first steps", ha="center", fontsize=10, color=student)
    return picture(figure, "Two ways from a sentence with a mask to an answer: through the blocks, with context, to "
                           "the word flows; or through the output bias alone, without context, to a comma always.")


@style()
def pkd_idea() -> Picture:
    """Chapter 4: matched [CLS] states on the way, twice; the last layers meet through the answers alone."""
    figure, axes = _sheet(10.2, 4.9)
    teacher, student, soft = (ROLES[role].colour for role in ("teacher", "student", "soft"))
    for left, name, pairs in ((0.0, "PKD-skip", ((1, 2), (2, 4))), (5.1, "PKD-last", ((1, 4), (2, 5)))):
        high = {("t", layer): 0.35 + 0.6 * layer for layer in range(1, 7)}
        high |= {("s", layer): 0.35 + 1.2 * layer for layer in range(1, 4)}
        for side, x, colour in (("t", left + 1.3, teacher), ("s", left + 3.8, student)):
            for (which, layer), y in high.items():
                if which == side:
                    box(axes, x, y, 1.5, 0.44, f"layer {layer}", colour)
        axes.text(left + 1.3, 0.35, "teacher", ha="center", fontsize=10.5, color=teacher)
        axes.text(left + 3.8, 0.35, "student", ha="center", fontsize=10.5, color=student)
        axes.text(left + 2.55, 4.65, name, ha="center", fontsize=12, weight="bold")
        for s, t in pairs:
            arrow(axes, (left + 2.05, high["t", t]), (left + 3.05, high["s", s]), "", soft)
        arrow(axes, (left + 2.05, high["t", 6]), (left + 3.05, high["s", 3]), "", "#B87A00", line="--")
        axes.text(left + 2.55, 4.08, "answers", ha="center", fontsize=9.5, color="#8a5f00")
    axes.text(5.1, 0.02, "Full arrows: [CLS] states, each divided by its length, should agree.", ha="center",
              fontsize=10)
    return picture(figure, "Two layer maps from a teacher of six layers to a student of three. PKD-skip joins teacher "
                           "layers 2 and 4 with student layers 1 and 2, PKD-last joins 4 and 5 with 1 and 2; the last "
                           "layers meet only through the answers.")


@style()
def mobilebert_idea() -> Picture:
    """Chapter 6: thin blocks between bodies of equal width, compared block by block; three orders of learning."""
    figure, axes = _sheet(10.6, 4.7)
    teacher, student, hidden, attention = (ROLES[role].colour for role in ("teacher", "student", "hidden", "attention"))
    bodies, between = (0.55, 1.6, 2.65, 3.7), (1.075, 2.125, 3.175)
    for x, width, colour, name in ((1.2, 2.1, teacher, "teacher"), (4.3, 0.9, student, "student")):
        for y in between:
            box(axes, x, y, width, 0.42, "block" if width > 1 else "thin", colour)
        for level, y in enumerate(bodies):
            box(axes, x, y, 1.5, 0.34, "body" if level else "embeddings", GREY)
        axes.text(x, 4.3, name, ha="center", fontsize=11, color=colour)
    for y in bodies[1:]:
        arrow(axes, (1.97, y), (3.53, y), "", hidden)
    for y in between:
        arrow(axes, (2.27, y), (3.83, y), "", attention, line="--")
    arrow(axes, (1.97, bodies[0]), (3.53, bodies[0]), "", GREY)
    words = {"copied": bodies[0] - 0.27, "feature map": bodies[-1] + 0.13, "attention": between[-1] + 0.11}
    for text, y in words.items():
        axes.text(2.95, y, text, ha="center", fontsize=9.5, color="#333333")
    start, length = 6.0, 4.4
    for y, name, parts in ((3.6, "auxiliary", [("all blocks and the task", 1.0)]),
                           (2.3, "joint", [("all blocks", 0.6), ("task", 0.4)]),
                           (1.0, "progressive", [(str(block), 0.1) for block in range(1, 7)] + [("task", 0.4)])):
        axes.text(start, y + 0.42, name, fontsize=10.5)
        left = start
        for text, share in parts:
            colour = GREY if text == "task" else student
            box(axes, left + share * length / 2, y, share * length - 0.06, 0.5, text, colour)
            left += share * length
    axes.text(start + length / 2, 0.35, "time: the same number of batches", ha="center", fontsize=9.5, color=GREY)
    return picture(figure, "Left: teacher and thin student have bodies of equal width, so feature maps and attention "
                           "are compared block by block, and the embeddings are copied. Right: three orders of "
                           "learning, all blocks and the task at once, all blocks first, or block after block.")


@style()
def comparison_idea() -> Picture:
    """Chapter 10: the places of a teacher at which the methods listen, from the words up to the answer."""
    figure, axes = _sheet(10.2, 4.9)
    teacher = ROLES["teacher"].colour
    rows = [
        ("answers", "all methods but MiniLM and Theseus", "soft"),
        ("last hidden states", "DistilBERT (direction)", "hidden"),
        ("last layer: Q, K, V", "MiniLM (relations of words)", "attention"),
        ("every layer: attention", "TinyBERT (scores), MobileBERT (probabilities)", "attention"),
        ("every layer: states", "PKD ([CLS]), TinyBERT and MobileBERT (all words)", "hidden"),
        ("the layers themselves", "copied: half depth; taking turns: Theseus", "student"),
        ("word vectors", "copied, or as principal components: all but 2 x 128 and BiLSTM", "student"),
    ]
    axes.text(1.6, 4.68, "place in the teacher", ha="center", fontsize=10.5, color=teacher)
    axes.text(4.0, 4.68, "who listens there", fontsize=10.5)
    for i, (place, who, role) in enumerate(rows):
        y = 4.25 - 0.64 * i
        box(axes, 1.6, y, 2.7, 0.48, place, teacher)
        arrow(axes, (2.97, y), (3.85, y), colour=ROLES[role].colour)
        axes.text(4.0, y, who, va="center", fontsize=9.6)
    return picture(figure, "Seven places of a teacher, from its word vectors up to its answers, and beside each the "
                           "methods that take something from there.")
