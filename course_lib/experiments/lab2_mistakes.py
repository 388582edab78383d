"""Lab 2: three classic mistakes, each trained beside its healthy run: the temperature, the head, the map of the widths.

    temperature   movie sentences, sentiment teacher, 2 x 384 student; T = 4 with T^2, without T^2, and T = 1
    tying         Wikipedia, masked-LM teacher, 2 x 384 student; an output matrix of its own, a head left at random
    projection    movie sentences, hidden states only, 2 x 128 student; the map between the widths on the wrong side

The mistakes are entries of `course_lib.mistakes`: a run trains inside `with mutant(name)`, so it runs the wrong line
itself. The runs of seed 0 also keep their way there (`curve`), which the view `failure_lab` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import BertModel, PreTrainedModel

from course_lib.experiments import records, sentences
from course_lib.experiments.ch03_distilbert import last_states, word_logits
from course_lib.material.data import load_data
from course_lib.material.teachers import Teacher, load_encoder, load_teacher
from course_lib.methods import distilbert, hinton, tinybert
from course_lib.mistakes import MUTANTS, mutant
from course_lib.notebook.views import View
from course_lib.notebook.views.failure_lab import LabText, Measure, Switch, failure_lab
from course_lib.shared import layer_maps, probes
from course_lib.shared.batches import Batches, MaskedBatch, in_order, windows
from course_lib.shared.masking import IGNORED
from course_lib.shared.measures import count_parameters, masked_lm_measures
from course_lib.shared.seeds import paired_difference
from course_lib.shared.starts import copy_embeddings, copy_factorised_embeddings, copy_layers
from course_lib.shared.students import evaluating, new_student
from course_lib.shared.training import Recipe, autocast, train

ABOUT = "Three mistakes beside their healthy runs: the temperature, the tied head, the side of the projection."
SEEDS = range(5)
LOOKS = 10  # how often a run that is watched is looked at, besides the look before the first step


@dataclass(frozen=True)
class Arm:
    """One run: which lab, which entries of the catalogue of mistakes that are switched on, and the lab's own switch."""

    lab: str
    mistakes: tuple[str, ...] = ()
    temperature: float = 4.0  # temperature lab
    labels: int = 0  # temperature lab: how many training sentences keep their label; 0: all
    frozen: bool = False  # projection lab: the map keeps its orthogonal start


FEW = 500
ARMS = {
    "500 labels": Arm("temperature", labels=FEW),
    "500 labels, no T²": Arm("temperature", ("missing_t_squared",), labels=FEW),
    "500 labels, T = 1": Arm("temperature", temperature=1.0, labels=FEW),
    "all labels": Arm("temperature"),
    "all labels, no T²": Arm("temperature", ("missing_t_squared",)),
    "all labels, T = 1": Arm("temperature", temperature=1.0),
    "tied": Arm("tying"),
    "untied": Arm("tying", ("untied_head",)),
    "random head": Arm("tying", ("head_left_at_random",)),
    "untied, random head": Arm("tying", ("untied_head", "head_left_at_random")),
    "student side": Arm("projection"),
    "teacher side": Arm("projection", ("teacher_side_projection",)),
    "teacher side, frozen": Arm("projection", ("teacher_side_projection",), frozen=True),
}
HEALTHY = {"temperature": "500 labels", "tying": "tied", "projection": "student side"}
RECIPES = {
    "temperature": Recipe(steps=100, learning_rate=3e-4, precision="auto"),
    "tying": Recipe(steps=50, learning_rate=5e-4, precision="auto"),
    "projection": Recipe(steps=240, learning_rate=3e-3, precision="auto"),
}


@dataclass
class Lab:
    """What one run needs. `look` is shown in the view, `final` goes into the table."""

    student: PreTrainedModel
    batches: object
    terms: Callable
    look: Callable[[nn.Module], tuple[dict[str, float], list]]  # measures, and one entry per row of `rows`
    final: Callable[[nn.Module], dict[str, float]]
    rows: list[list[str]]  # what the view shows beside each step: words and their truth
    text: list[str] = field(default_factory=list)


def run(arm_name: str, seed: int) -> dict:
    """Train one student and measure it. The run of seed 0 keeps its curve."""
    found, curve = train_one(arm_name, seed, watch=seed == 0)
    return found | ({"curve": curve} if curve else {})


def train_one(arm_name: str, seed: int = 0, *, watch: bool = True, measure: bool = True, steps: int | None = None
              ) -> tuple[dict[str, float], dict | None]:
    """Train one arm. Returns the final numbers ({} without `measure`) and the curve for the view (None unless watched).

    Raises: ValueError for an unknown arm, with the names there are.
    """
    if arm_name not in ARMS:
        raise ValueError(f"No arm is called {arm_name!r}. There are: {', '.join(ARMS)}.")
    arm = ARMS[arm_name]
    recipe = RECIPES[arm.lab]
    steps = steps or recipe.steps
    recipe = Recipe(**recipe.__dict__ | {"seed": seed, "steps": steps, "evaluate_every": max(1, steps // LOOKS)})
    with ExitStack() as switched_on:
        for name in arm.mistakes:
            switched_on.enter_context(mutant(name))
        lab = LABS[arm.lab](arm, seed)
        seen: list[tuple[dict, list]] = [lab.look(lab.student)] if watch else []

        def look(model: nn.Module) -> dict[str, float]:
            seen.append(lab.look(model))
            return seen[-1][0]

        history = train(lab.student, lab.batches, lab.terms, recipe, evaluate=look if watch else None)
        losses = [sum(v for k, v in row.items() if k in TERMS) for row in history.steps]
        found = {"training_loss": short(sum(losses[-10:]) / len(losses[-10:]))}
        found |= lab.final(lab.student) if measure else {}
    curve = {"lab": arm.lab, "arm": arm_name, "steps": [0, *(row["step"] for row in history.scores)],
             "measures": {name: [short(m[name]) for m, _ in seen] for name in seen[0][0]},
             "loss": [short(loss) for loss in losses], "rows": lab.rows, "text": lab.text,
             "shown": [shown for _, shown in seen]} if watch else None
    return found, curve


TERMS = ("soft", "hard", "hidden")


def short(value: float) -> float:
    """Four digits: what a curve and a table need."""
    return float(f"{value:.4g}")


def prepare() -> None:
    """Ask the teacher and tokenise before the runs start."""
    sentences.prepare()
    wikipedia("train")


# --- Temperature ------------------------------------------------------------------------------------------------------


@cache
def encoder() -> BertModel:
    """The general encoder that the teachers were made from: it knows English and nothing about opinions."""
    return load_encoder()


def reader(seed: int) -> PreTrainedModel:
    """2 layers x 384: word embeddings (frozen) and blocks 3 and 6 of the general encoder; a random head."""
    student = new_student(sentences.teacher().model, layers=2, seed=seed)
    copy_embeddings(student, encoder())
    copy_layers(student, encoder(), layer_maps.blocks_only(layer_maps.uniform(2, 6)))
    student.get_input_embeddings().requires_grad_(False)
    return student


def partly_labelled(labels: int, seed: int) -> list[dict]:
    """The training sentences; only `labels` of them (0: all) keep their label, the others get -100."""
    rows = sentences.examples("train")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    kept = set(order[: labels or None])
    return [row if i in kept else row | {"label": IGNORED} for i, row in enumerate(rows)]


def temperature_lab(arm: Arm, seed: int) -> Lab:
    """Half labels, half teacher. The soft part sees every sentence, the hard part those that have a label."""
    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hard_weight = 0.5 if (batch["labels"] != IGNORED).any() else 0.0
        recipe = hinton.HintonRecipe(temperature=arm.temperature, hard_weight=hard_weight, soft_weight=0.5)
        return hinton.terms(model, None, batch, recipe)

    student = reader(seed)
    share = teachers_share(student, arm.temperature)

    def look(model: nn.Module) -> tuple[dict[str, float], list]:
        return ({name: value for name, value in sentences.scores(model, "validation").items()
                 if name != "calibration_error"}
                | {"teachers_share": teachers_share(model, arm.temperature)}, positive_percent(model))

    batches = Batches(partly_labelled(arm.labels, seed), sentences.BATCH_SIZE, seed=seed)
    names = sentences.teacher().class_names
    rows = [[text, names[row["label"]]] for text, row in shown_sentences()]
    return Lab(student, batches, terms, look, lambda model: sentences.scores(model) | {"teachers_share": share}, rows)


@cache
def shown_sentences() -> list[tuple[str, dict]]:
    """Eight short validation sentences, four of each class, with their encoded rows."""
    texts, rows = load_data("sentiment")["validation"]["text"], sentences.examples("validation")
    fitting = [(text, row) for text, row in zip(texts, rows, strict=True) if 30 <= len(text) <= 58]
    return [pair for label in (0, 1) for pair in [p for p in fitting if p[1]["label"] == label][:4]]


@torch.no_grad()
def answers(model: nn.Module, rows: list[dict]) -> Float[Tensor, "rows classes"]:
    """Logits for some encoded sentences, without dropout."""
    with evaluating(model):
        logits = probes.logits_of(model, in_order(rows, len(rows))[0]).float()
    return logits


def positive_percent(model: nn.Module) -> list[int]:
    """How positive the student finds the shown sentences, 0 to 100."""
    logits = answers(model, [row for _, row in shown_sentences()])
    return (100 * logits.softmax(-1)[:, 1]).round().int().tolist()


def teachers_share(model: nn.Module, temperature: float) -> float:
    """How much of the pull on the student's logits comes from the teacher, in percent.

    ||g_soft|| / (||g_soft|| + ||g_hard||), the gradients of the two terms of weight 0.5 for the logits of 64 training
    sentences.
    """
    rows = sentences.examples("train")[:64]
    batch = in_order(rows, len(rows))[0]
    logits = answers(model, rows).requires_grad_()
    parts = [0.5 * hinton.soft_target_loss(logits, batch["teacher_logits"], temperature=temperature),
             0.5 * hinton.hard_loss(logits, batch["labels"])]
    soft, hard = (torch.autograd.grad(part, logits)[0].norm().item() for part in parts)
    return round(100 * soft / (soft + hard), 2)


# --- Tying ------------------------------------------------------------------------------------------------------------

WINDOW, MASKED_BATCH = 32, 16


@cache
def masked_teacher() -> Teacher:
    """The masked-LM teacher: 6 layers x 384, output matrix tied to the word embeddings."""
    return load_teacher("mlm")


@cache
def wikipedia(split: str) -> list[dict]:
    """Windows of 32 tokens: the first 3,000 texts for training, 128 windows to look at, 256 to measure on."""
    texts = load_data("wikipedia")[split]
    texts = texts.select(range(3000)) if split == "train" else texts
    return windows(texts, masked_teacher().tokenizer, WINDOW)[: {"train": None, "validation": 128, "test": 256}[split]]


@cache
def hidden_words(split: str) -> dict[str, Tensor]:
    """One batch whose masks were drawn once: the same questions for every student."""
    rows = wikipedia(split)
    return in_order(rows, len(rows), MaskedBatch(masked_teacher().tokenizer,
                                                 generator=torch.Generator().manual_seed(0)))[0]


@cache
def unigram() -> Float[Tensor, " vocabulary"]:
    """How often each token occurs in the training windows, special tokens left out."""
    ids = torch.tensor([i for row in wikipedia("train") for i in row["input_ids"][1:-1]])
    return torch.bincount(ids, minlength=masked_teacher().model.config.vocab_size)


def masked_student(seed: int) -> PreTrainedModel:
    """DistilBERT with 2 layers x 384, copied from the teacher as `distilbert.student_from` copies (or forgets to)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = masked_teacher().model
        return distilbert.student_from(teacher, layers=2, layer_map=layer_maps.uniform(2, 6)[1:])


def hidden_word_logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> Float[Tensor, "hidden_words vocabulary"]:
    """The 30,522 logits at the hidden words only: one token in seven."""
    return word_logits(model, last_states(model, batch)[batch["labels"] != IGNORED])


def tying_lab(arm: Arm, seed: int) -> Lab:
    """Half hidden words, half teacher (T = 2), at the hidden words."""
    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            theirs = hidden_word_logits(masked_teacher().model, batch)
        ours = hidden_word_logits(model, batch)
        labels = batch["labels"][batch["labels"] != IGNORED]
        return {"soft": 0.5 * hinton.soft_target_loss(ours, theirs, temperature=2.0),
                "hard": 0.5 * hinton.hard_loss(ours, labels)}

    def look(model: nn.Module) -> tuple[dict[str, float], list]:
        shown = guessed(model, in_order(shown_windows(), len(shown_windows()))[0]).argmax(-1)
        return predictions(model, "validation"), masked_teacher().tokenizer.convert_ids_to_tokens(shown.tolist())

    student = masked_student(seed)
    batches = Batches(wikipedia("train"), MASKED_BATCH, seed=seed, collate=MaskedBatch(masked_teacher().tokenizer))
    return Lab(student, batches, terms, look,
               lambda model: predictions(model, "test") | {"parameters": count_parameters(model)}, *shown_words())


@torch.no_grad()
def guessed(model: PreTrainedModel, batch: dict[str, Tensor]) -> Float[Tensor, "hidden_words vocabulary"]:
    with evaluating(model), autocast("auto"):
        logits = hidden_word_logits(model, batch)
    return logits


def predictions(model: PreTrainedModel, split: str) -> dict[str, float]:
    """What becomes of the hidden words: found (percent), different answers, answers among the ten commonest tokens
    (percent), and how near the answers are to the plain word frequencies (0: equal to them, 1: far away)."""
    batch = hidden_words(split)
    found = masked_lm_measures(guessed(model, batch), batch["labels"][batch["labels"] != IGNORED], unigram())
    return {"accuracy": round(100 * found.top1, 2), "distinct": found.distinct_answers,
            "frequent_share": round(100 * found.frequent_share, 2),
            "unigram_distance": round(found.unigram_distance, 4)}


@cache
def shown_windows() -> list[dict]:
    """The two validation windows, every fifth token hidden, in which the teacher finds most words: so much can be had.

    A window that begins inside a word, or hides fewer than five different tokens, is no good example.
    """
    fitting = []
    for row in wikipedia("validation"):
        window = every_fifth_hidden(row["input_ids"])
        starts_inside = masked_teacher().tokenizer.convert_ids_to_tokens(row["input_ids"][1]).startswith("##")
        if len(row["input_ids"]) == WINDOW and not starts_inside and len(set(window["label"])) > 5:
            fitting.append(window)
    batch = in_order(fitting, len(fitting))[0]
    labels = batch["labels"][batch["labels"] != IGNORED].reshape(len(fitting), -1)
    right = (guessed(masked_teacher().model, batch).argmax(-1).reshape(labels.shape) == labels).sum(dim=1)
    return [fitting[i] for i in sorted(right.argsort(descending=True, stable=True)[:2].tolist())]


def every_fifth_hidden(ids: list[int]) -> dict:
    """Put [MASK] at positions 4, 9, 14, ... of a window; the labels keep what stood there."""
    mask = masked_teacher().tokenizer.mask_token_id
    hidden = [0 < i < len(ids) - 1 and i % 5 == 4 for i in range(len(ids))]
    return {"input_ids": [mask if h else token for h, token in zip(hidden, ids, strict=True)],
            "label": [token if h else IGNORED for h, token in zip(hidden, ids, strict=True)]}


def shown_words() -> tuple[list[list[str]], list[str]]:
    """Rows (number of the blank, hidden token) and the two texts with numbered blanks."""
    tokenizer, rows, texts = masked_teacher().tokenizer, [], []
    for window in shown_windows():
        words = []
        for token, label in zip(window["input_ids"][1:-1], window["label"][1:-1], strict=True):
            if label != IGNORED:
                rows.append([str(len(rows) + 1), tokenizer.convert_ids_to_tokens(label)])
            words.append(f"[{len(rows)}]" if label != IGNORED else tokenizer.convert_ids_to_tokens(token))
        texts.append(" ".join(words).replace(" ##", ""))
    return rows, texts


# --- Projection -------------------------------------------------------------------------------------------------------

PAIR = ((1, 3),)  # the first pair of TinyBERT's map for 6 -> 2 layers; one pair is enough to collapse
FIXED_BATCHES = 120  # they come twice, so that the teacher reads them once


class ReadByTeacher:
    """120 shuffled batches, each with the teacher's states of layer 3 (`teacher_states`), read when first asked."""

    def __init__(self, seed: int):
        self.batches, self.kept = Batches(sentences.examples("train"), 16, seed=seed), {}

    def __len__(self) -> int:
        return FIXED_BATCHES

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        number = step % FIXED_BATCHES
        if number not in self.kept:
            batch = self.batches[number]
            with torch.no_grad(), autocast("auto"):
                states = probes.read(sentences.teacher().model, batch).hidden_states[PAIR[0][1]]
            self.kept[number] = batch | {"teacher_states": states.float()}
        return self.kept[number]


def narrow_student(seed: int, *, frozen: bool) -> PreTrainedModel:
    """2 layers x 128: the teacher's words through 128 principal components, random blocks, one map of the widths."""
    teacher = sentences.teacher().model
    student = new_student(teacher, layers=2, hidden=128, heads=2, intermediate=512, seed=seed)
    copy_factorised_embeddings(student, teacher)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tinybert.attach_projection(student, teacher, maps="shared")
    student.projection.requires_grad_(not frozen)
    return student


def projection_lab(arm: Arm, seed: int) -> Lab:
    """TinyBERT's hidden-state term of one pair of layers, and nothing else."""
    def terms(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        ours = probes.read(model, batch).hidden_states
        return {"hidden": tinybert.hidden_over_layers(ours, {PAIR[0][1]: batch["teacher_states"]}, PAIR,
                                                      batch["attention_mask"], projection=model.projection)}

    def look(model: nn.Module) -> tuple[dict[str, float], list]:
        measured, lengths = collapse_numbers(model), distances(model)
        return measured, [short(length) for length in lengths]

    tokens = sentences.teacher().tokenizer.convert_ids_to_tokens(shown_sentence()["input_ids"])
    return Lab(narrow_student(seed, frozen=arm.frozen), ReadByTeacher(seed), terms, look, collapse_numbers,
               [[token, ""] for token in tokens])


@cache
def probe() -> dict[str, Tensor]:
    """192 validation sentences with the teacher's states."""
    batch = in_order(sentences.examples("validation")[:192], 192)[0]
    with torch.no_grad(), autocast("auto"):
        states = probes.read(sentences.teacher().model, batch).hidden_states[PAIR[0][1]]
    return batch | {"teacher_states": states.float()}


@cache
def shown_sentence() -> dict:
    """A validation sentence of 12 to 16 tokens."""
    return next(row for row in sentences.examples("validation") if 12 <= len(row["input_ids"]) <= 16)


@torch.no_grad()
def student_states(model: PreTrainedModel, batch: dict[str, Tensor]) -> Float[Tensor, "tokens hidden"]:
    """The student's hidden states of all real tokens, without dropout."""
    with evaluating(model):
        states = probes.read(model, batch).hidden_states[PAIR[0][0]]
    return states[batch["attention_mask"].bool()]


def distances(model: PreTrainedModel) -> list[float]:
    """How far each token's state in the shown sentence lies from the mean state of the probe sentences."""
    centre = student_states(model, probe()).mean(dim=0)
    return (student_states(model, in_order([shown_sentence()], 1)[0]) - centre).norm(dim=-1).tolist()


@torch.no_grad()
def collapse_numbers(model: PreTrainedModel) -> dict[str, float]:
    """What the loss of the probe sentences says, and what it does not.

    hidden_loss, target_variance, and their ratio in percent (relative_loss: 100 is what a constant student pays);
    state_variance and effective_rank of the student's states; map_norm, the size of W; readable, how much of the
    teacher's states a linear map reads out of the student's, in percent.
    """
    ours, theirs = student_states(model, probe()), probe()["teacher_states"][probe()["attention_mask"].bool()]
    mapped, target = model.projection(ours, theirs, PAIR[0][0])
    loss = tinybert.hidden_loss(mapped, target).item()
    return {"hidden_loss": short(loss), "target_variance": short(variance(target)),
            "relative_loss": round(100 * loss / variance(target), 2), "state_variance": short(variance(ours)),
            "map_norm": short(model.projection.blocks.weight.norm().item()),
            "effective_rank": short(effective_rank(ours)), "readable": round(100 * readable_share(ours, theirs), 2)}


def variance(states: Float[Tensor, "tokens hidden"]) -> float:
    """Mean squared distance to the mean state, per hidden unit: 0 if every token looks the same."""
    return (states - states.mean(dim=0)).pow(2).mean().item()


def effective_rank(states: Float[Tensor, "tokens hidden"]) -> float:
    """exp of the entropy of the shares that the principal directions have in the variance: 1 to `hidden`.

    It has no scale: states that differ by a hair in all directions have a high rank. Source: Roy and Vetterli 2007.
    """
    shares = torch.linalg.svdvals((states - states.mean(dim=0)).double()).square()
    shares = shares / shares.sum()
    return torch.special.entr(shares).sum().exp().item()


def readable_share(states: Float[Tensor, "tokens hidden"], wanted: Float[Tensor, "tokens wide"]) -> float:
    """R^2 of the best linear map from `states` to `wanted`: fitted on the first half of the tokens, judged on the rest.

    Like the effective rank it ignores the scale: it says what is there, not whether a training would find it.
    """
    inputs = torch.cat([states, torch.ones(len(states), 1)], dim=1).double()
    half, wanted = len(states) // 2, wanted.double()
    fitted = torch.linalg.lstsq(inputs[:half], wanted[:half], driver="gelsd").solution  # any rank is fine
    left = (wanted[half:] - inputs[half:] @ fitted).pow(2).sum()
    return (1 - left / (wanted[half:] - wanted[:half].mean(dim=0)).pow(2).sum()).item()


LABS = {"temperature": temperature_lab, "tying": tying_lab, "projection": projection_lab}
WRONG = {"temperature": "500 labels, no T²", "tying": "untied, random head", "projection": "teacher side"}


# --- The view ---------------------------------------------------------------------------------------------------------


def _words(name: str) -> str:
    """What the catalogue says of a mistake."""
    return f"{MUTANTS[name].mistake} {MUTANTS[name].symptom}"


def _on(*keys: str) -> frozenset[str]:
    return frozenset(keys)


_LOSS = Measure("loss", "training loss", digits=3, log=True)
TEXTS = (
    LabText(
        "temperature", "No temperature, no T²",
        "Is a film sentence positive? A student of 2 layers learns half from labels, half from its teacher at T = 4.",
        "chance",
        (Switch("t2", "T² is missing", _words("missing_t_squared")),
         Switch("t1", "T = 1", "No temperature: small probabilities stay too small to be felt. T² is 1 then, "
                "so forgetting it as well changes nothing."),
         Switch("all", "all 8,042 sentences have labels", "Otherwise 500 have one; the teacher answers all of them.",
                setting=True)),
        {_on(): "500 labels", _on("t2"): "500 labels, no T²", _on("t1"): "500 labels, T = 1",
         _on("t1", "t2"): "500 labels, T = 1", _on("all"): "all labels", _on("all", "t2"): "all labels, no T²",
         _on("all", "t1"): "all labels, T = 1", _on("all", "t1", "t2"): "all labels, T = 1"},
        (Measure("accuracy", "validation accuracy", "%"), Measure("agreement", "same answer as the teacher", "%"),
         Measure("teachers_share", "the teacher's share of the gradient", "%"), _LOSS)),
    LabText(
        "tying", "No tying",
        "Which word stood there? A student of 2 layers, copied from the masked-LM teacher, learns at the hidden words.",
        "words",
        (Switch("untied", "output matrix of its own", _words("untied_head")),
         Switch("random", "head left at random", _words("head_left_at_random"))),
        {_on(): "tied", _on("untied"): "untied", _on("random"): "random head",
         _on("untied", "random"): "untied, random head"},
        (Measure("accuracy", "hidden words found", "%"), Measure("distinct", "different answers", digits=0, log=True),
         Measure("frequent_share", "answers among the ten commonest tokens", "%"), _LOSS)),
    LabText(
        "projection", "Wrong projection",
        "Hidden states only: a student of width 128 learns layer 3 of a teacher of width 384 through a map.",
        "distance",
        (Switch("side", "map on the teacher's side", _words("teacher_side_projection")),
         Switch("frozen", "freeze that map", "A map that cannot be trained cannot shrink.", needs="side")),
        {_on(): "student side", _on("side"): "teacher side", _on("side", "frozen"): "teacher side, frozen"},
        (Measure("state_variance", "variance of the student's states", digits=4, log=True),
         Measure("target_variance", "variance of the target", digits=4, log=True),
         Measure("effective_rank", "effective rank of the states"), _LOSS)),
)


def stored_curves() -> dict[str, dict]:
    """The curves of seed 0 in data/results/lab2.json, by the name of the arm."""
    return {run["arm"]: run["curve"] for run in records.load("lab2")["runs"] if "curve" in run}


def explorer(**choices) -> View:
    """`failure_lab` with the three labs and their stored runs; `choices` are its other arguments."""
    return failure_lab(stored_curves(), TEXTS, **choices)


# --- The poll ---------------------------------------------------------------------------------------------------------


def poll_result() -> tuple[str, str]:
    """How many wrong runs end with the lower training loss (a: none, b: one, c: two, d: all), and which ones."""

    lower = [lab for lab, wrong in WRONG.items() if paired_difference(
        records.values("lab2", HEALTHY[lab], "training_loss"),
        records.values("lab2", wrong, "training_loss")).verdict == "better"]
    return "abcd"[len(lower)], f"The wrong run has the lower training loss in: {', '.join(lower) or 'no lab'}."
