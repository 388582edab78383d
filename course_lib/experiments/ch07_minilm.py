"""Chapter 7: can a student learn from a general teacher how words relate, before anybody names the task?

General teacher: the MiniLM-L6 encoder as it was fetched; it has seen no movie label. A student first copies relations
of the teacher's last layer on Wikipedia text. Then it is fine-tuned on the movie sentences with their labels, without
any teacher. Two students: half the depth (3 x 384, layers copied), and a narrow one (3 x 192, fresh blocks). Every
seed does both steps anew; only the assistant is trained once, because one assistant serves many students.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cache

import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, PreTrainedModel

from course_lib.experiments import records, sentences
from course_lib.experiments.described import Live, Part, sentence_batches
from course_lib.experiments.sentences import SEEDS, scores
from course_lib.material.assets import cache_folder
from course_lib.material.data import load_data
from course_lib.material.teachers import asset_hash, load_encoder
from course_lib.methods import minilm
from course_lib.methods.minilm import RECORD as MINILM
from course_lib.methods.minilm import MiniLmRecipe
from course_lib.shared import layer_maps
from course_lib.shared.batches import Batches, in_order, windows
from course_lib.shared.files import write_atomically
from course_lib.shared.method import QUICK, Job, Training
from course_lib.shared.starts import copy_factorised_embeddings, copy_layers
from course_lib.shared.students import evaluating, new_student
from course_lib.shared.training import History, autocast

__all__ = ["ABOUT", "ARMS", "SEEDS", "assistant", "distil", "fine_tune", "general_teacher", "general_text",
           "half_depth", "live", "narrow", "poll_result", "prepare", "relation_distance", "run", "scores", "training"]

ABOUT = "Relations of a general teacher copied on Wikipedia, then fine-tuning on movie sentences: two students."
BATCH_SIZE = QUICK.batch_size
WINDOW = 32  # tokens: as long as a movie sentence, and half the price of 64
LEADS = 4000  # Wikipedia leads to learn from: about 14,000 windows, more than any run reads
WIDTH = 192  # half the teacher's; its 12 heads are 16 wide


def rate(*, copied: bool) -> float:
    """The method's own learning rate for copying relations: smaller where layers start as copies."""
    return MINILM.stages(Job(None, 3, MINILM.recipe_of("laptop"), copied=copied))[0].training.learning_rate


@dataclass(frozen=True)
class Arm:
    """What one student copies from which teacher, and for how long."""

    student: str  # "narrow" or "half depth"
    copies: str = "nothing"  # a name in RELATIONS
    teacher: str = "general"  # or "assistant"
    distil_steps: int = 0
    distil_rate: float = rate(copied=False)
    steps: int = 300  # of fine-tuning
    rate: float = 1e-3


RELATIONS = {
    "attention": MiniLmRecipe(weights=(1.0, 0.0)),
    "attention + values": MiniLmRecipe(),
    "QQ + KK + VV": MiniLmRecipe(version="v2", relation_heads=12),
}
COPIED = {"distil_rate": rate(copied=True), "rate": QUICK.learning_rate}  # smaller steps than fresh layers want
ASSISTANT = Arm("assistant", "attention + values", distil_steps=300, steps=0)

ARMS = {
    "narrow": Arm("narrow"),
    "narrow, more fine-tuning": Arm("narrow", steps=500),  # as many steps in all as with a distillation before
    "narrow, attention": Arm("narrow", "attention", distil_steps=200),
    "narrow, attention + values": Arm("narrow", "attention + values", distil_steps=200),
    "narrow, from the assistant": Arm("narrow", "attention + values", "assistant", distil_steps=200),
    "narrow, QQ + KK + VV": Arm("narrow", "QQ + KK + VV", distil_steps=200),
    "half depth": Arm("half depth", **COPIED),
    "half depth, more fine-tuning": Arm("half depth", steps=400, **COPIED),
    "half depth, attention + values": Arm("half depth", "attention + values", distil_steps=100, **COPIED),
}
NARROW = [name for name, arm in ARMS.items() if arm.student == "narrow"]
HALF = [name for name, arm in ARMS.items() if arm.student == "half depth"]


@cache
def general_teacher() -> BertModel:
    """The bare encoder, 6 layers x 384, frozen and in eval mode."""
    return load_encoder().eval().requires_grad_(False)


@cache
def general_text(split: str) -> list[dict]:
    """Windows of 32 tokens out of Wikipedia leads; no labels."""
    rows = load_data("wikipedia")[split]
    chosen = rows.select(range(min(LEADS if split == "train" else 150, len(rows))))
    return windows(chosen, sentences.teacher().tokenizer, WINDOW)


def narrow(seed: int, layers: int = 3) -> PreTrainedModel:
    """layers x 192: the teacher's embeddings through 192 principal components (frozen), everything else fresh."""
    student = new_student(sentences.teacher().model, layers=layers, hidden=WIDTH, seed=seed)
    copy_factorised_embeddings(student, general_teacher())
    student.get_input_embeddings().requires_grad_(False)
    return student


def half_depth(seed: int) -> PreTrainedModel:
    """3 x 384: embeddings (frozen) and layers 2, 4, 6 of the general teacher; pooler and classifier are fresh."""
    student = new_student(sentences.teacher().model, layers=3, seed=seed)
    copy_layers(student, general_teacher(), layer_maps.uniform(3, 6))  # ((0, 0), (1, 2), (2, 4), (3, 6))
    student.get_input_embeddings().requires_grad_(False)
    return student


def distil(student: PreTrainedModel, teacher: PreTrainedModel, arm: Arm, seed: int, **options) -> History:
    """Step 1, without labels: copy the relations of the last layer on Wikipedia. Options are those of `train`."""
    return relations_part(arm, seed, teacher).learn(student, seed, **options)[1]


def fine_tune(student: PreTrainedModel, arm: Arm, seed: int) -> History:
    """Step 2, without a teacher: labels of the movie sentences."""
    return labels_part(arm, seed).learn(student, seed)[1]


def relations_part(arm: Arm, seed: int, teacher: PreTrainedModel) -> Part:
    """The method's first stage with the arm's numbers, on Wikipedia."""
    stage = MINILM.stages(Job(teacher, 3, RELATIONS[arm.copies]))[0]
    numbers = Training(arm.distil_rate, steps=arm.distil_steps, batch_size=BATCH_SIZE)
    return Part(replace(stage, training=numbers), Batches(general_text("train"), BATCH_SIZE, seed=seed))


def labels_part(arm: Arm, seed: int) -> Part:
    """Fine-tuning on the movie sentences."""
    return Part.of(sentences.answer_terms(sentences.LABELS), replace(QUICK, learning_rate=arm.rate, steps=arm.steps),
                   Batches(sentences.examples("train"), QUICK.batch_size, seed=seed))


def training(arm: Arm, seed: int) -> tuple[PreTrainedModel, list[Part]]:
    """The student of an arm and its parts."""
    student = narrow(seed) if arm.student == "narrow" else half_depth(seed)
    if not arm.distil_steps:
        return student, [labels_part(arm, seed)]
    teacher = assistant() if arm.teacher == "assistant" else general_teacher()
    return student, [relations_part(arm, seed, teacher), labels_part(arm, seed)]


def live() -> Live:
    """A step with the teacher beside the student; the classifier's teacher and sentences, as for the other methods."""
    return Live(sentences.half_depth(0), sentences.teacher().model, sentence_batches())


@torch.no_grad()
def relation_distance(student: PreTrainedModel, teacher: PreTrainedModel | None = None) -> dict[str, float]:
    """Both KL terms of version 1 on Wikipedia windows that no student has seen, in nats."""
    with evaluating(student):
        sums = {"attention": 0.0, "value_relation": 0.0}
        batches = in_order(general_text("validation"))[:4]
        for batch in batches:
            with autocast("auto"):
                terms = minilm.terms(student, teacher or general_teacher(), batch)
            for name, value in terms.items():
                sums[name] += value.item() / len(batches)
    return {f"{name}_kl": round(value, 4) for name, value in sums.items()}


@cache
def assistant() -> PreTrainedModel:
    """The teacher assistant, 6 x 192: the teacher's depth, the student's width. Trained once, kept in the cache folder.

    A run that was stopped goes on where it was.
    """
    model = narrow(seed=0, layers=6)
    made = json.dumps([asdict(ASSISTANT), WINDOW, LEADS, WIDTH, asset_hash()])
    name = f"ch07-assistant-{hashlib.sha256(made.encode()).hexdigest()[:12]}"
    path = cache_folder() / "students" / f"{name}.safetensors"
    if not path.exists():
        unfinished = cache_folder() / "runs" / name
        distil(model, general_teacher(), ASSISTANT, seed=0, folder=unfinished)
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
        write_atomically(path, lambda where: save_file(weights, where))
        shutil.rmtree(unfinished)
    model.load_state_dict(load_file(path))
    return model.eval().requires_grad_(False)


def prepare() -> None:
    """The teacher's answers on the movie sentences (for the agreement), and the assistant."""
    sentences.prepare()
    assistant()


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Copy relations (or not), measure how near they came, fine-tune, and measure on the test split."""
    arm = ARMS[arm_name]
    student = narrow(seed) if arm.student == "narrow" else half_depth(seed)
    if arm.distil_steps:
        distil(student, assistant() if arm.teacher == "assistant" else general_teacher(), arm, seed)
    distance = relation_distance(student)
    fine_tune(student, arm, seed)
    return scores(student) | distance


def poll_result() -> tuple[str, str]:
    """The option of chapter 7's poll that fits the measurement, and the numbers that say so."""
    return records.leader("ch07", dict(zip("abcde", NARROW[1:], strict=True)), "f")
