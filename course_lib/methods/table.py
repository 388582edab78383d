"""The methods of the course, one record each: which student, which stages, which loss, whose numbers.

`course_lib.shared.method` says what a record holds and who reads it. The losses are those of the papers' files beside
this one; nothing is computed here. Two presets: "laptop" holds the values that the chapters measured on two cores,
"paper" holds the paper's (where a paper gives a grid, one point of it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_lib.methods import bilstm, cached, distilbert, hinton, minilm, mobilebert, pkd, theseus, tinybert
from course_lib.methods.mobilebert_schedule import parameter_groups
from course_lib.shared import layer_maps, probes
from course_lib.shared.method import (
    CLASSIFICATION,
    MASKED_LM,
    Aim,
    Compared,
    Job,
    Measured,
    Method,
    Stage,
    Step,
    Training,
    inside,
    only_logits,
)
from course_lib.shared.parts import Batch
from course_lib.shared.probes import Reading
from course_lib.shared.students import blocks

FINE_TUNING = Training(2e-5, epochs=3)  # Devlin et al. 2019, appendix A.3: one point of the grid
QUICK = Training(2e-4, steps=300)  # the chapters' common budget, for layers that start as copies
FRESH = Training(1e-3, steps=500)  # and for layers that start at random


def _ours(job: Job, laptop: Training, paper: Training) -> Training:
    return replace(laptop if job.preset == "laptop" else paper, **job.training)


# --- One function per method: its stages -----------------------------------------------------------------------------


def _no_teacher(job: Job) -> list[Stage]:
    def terms(student: nn.Module, batch: Batch) -> dict:
        return {"hard": hinton.hard_loss(probes.logits_of(student, batch), batch["labels"])}

    training = _ours(job, Training(5e-5, epochs=3) if job.copied else FRESH, FINE_TUNING)
    if job.task == MASKED_LM:
        return [Stage("labels", terms, training, {"hard": "labels"}, masked=True)]
    return [Stage("labels", terms, training)]


def _hinton(job: Job) -> list[Stage]:
    recipe = job.recipe if job.labels else replace(job.recipe, hard_weight=0.0)
    teacher = job.teacher if job.task == MASKED_LM else None  # a classifier's answers are in the batch
    over = {"soft": "tokens" if recipe.positions == "all" else "labels", "hard": "labels"}
    return [Stage("distillation", lambda student, batch: hinton.terms(student, teacher, batch, recipe),
                  _ours(job, QUICK if job.copied else FRESH, FINE_TUNING),
                  over if job.task == MASKED_LM else {}, masked=job.task == MASKED_LM)]


def _cached(job: Job) -> list[Stage]:
    recipe = job.recipe if job.labels else replace(job.recipe, hard_weight=0.0)
    # The rate is the recipe's: most of the student is fresh.
    return [Stage("distillation", lambda student, batch: cached.terms(student, None, batch, recipe),
                  _ours(job, Training(recipe.learning_rate, epochs=3), Training(recipe.learning_rate, epochs=3)))]


def _bilstm(job: Job) -> list[Stage]:
    recipe = job.recipe
    # The paper's Adadelta with rate 1.0 has no place in a loop with AdamW; 1e-3 is AdamW's own default.
    return [Stage("distillation", lambda student, batch: bilstm.terms(student, None, batch, recipe),
                  _ours(job, Training(2e-3, steps=900, batch_size=50),
                        Training(1e-3, epochs=recipe.epochs, batch_size=recipe.batch_size)))]


def _pkd(job: Job) -> list[Stage]:
    recipe = job.recipe
    paper = Training(recipe.learning_rate, epochs=recipe.epochs, batch_size=recipe.batch_size)
    return [Stage("distillation", lambda student, batch: pkd.terms(student, job.teacher, batch, recipe),
                  _ours(job, QUICK, paper))]


def _distilbert(job: Job) -> list[Stage]:
    recipe = job.recipe
    over = {"soft": "tokens" if recipe.positions == "all" else "labels", "mlm": "labels", "cosine": "tokens"}
    return [Stage("distillation", lambda student, batch: distilbert.terms(student, job.teacher, batch, recipe),
                  _ours(job, Training(5e-4, steps=500),
                        Training(recipe.learning_rate, epochs=recipe.epochs, batch_size=recipe.effective_batch,
                                 warmup=recipe.warmup)), over | {"mse": over["soft"]}, masked=True)]


def _tinybert(job: Job) -> list[Stage]:
    recipe = job.recipe
    over = {"attention": "token pairs", "hidden": "tokens", "embedding": "tokens"} if recipe.as_in == "paper" else {}
    stages = [Stage(
        "inside", lambda student, batch: tinybert.terms(student, job.teacher, batch, recipe),
        _ours(job, Training(2e-3 if job.narrow else 2e-4, steps=200, schedule="constant"),
              Training(recipe.learning_rate, epochs=recipe.epochs, batch_size=recipe.batch_size,
                       schedule=recipe.schedule)), over, masked=job.task == MASKED_LM,
        before=partial(_with_projection, teacher=job.teacher) if job.narrow else lambda student: None,
        after=tinybert.detach_projection if job.narrow else lambda student: None)]
    if job.task == CLASSIFICATION:
        last = tinybert.PREDICTION
        stages.append(Stage(
            "prediction", lambda student, batch: {"prediction": tinybert.prediction_loss(
                probes.logits_of(student, batch), probes.teacher_logits_of(job.teacher, batch),
                temperature=recipe.temperature, as_in=recipe.as_in)},
            _ours(job, Training(1e-3 if job.narrow else 2e-4, steps=150),
                  Training(last.learning_rate, epochs=last.epochs, batch_size=last.batch_size))))
    return stages


def _with_projection(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # every process starts with the same one
        tinybert.attach_projection(student, teacher)


def _minilm(job: Job) -> list[Stage]:
    recipe = job.recipe
    over = {name: "tokens" for name in ("attention", "value_relation", "qq", "kk", "vv")}
    stages = [Stage("relations", lambda student, batch: minilm.terms(student, job.teacher, batch, recipe),
                    _ours(job, Training(5e-4 if job.copied else 1e-3, steps=200),
                          Training(5e-4, steps=400_000, batch_size=1024, warmup=0.01)),
                    over if recipe.average == "tokens" else {})]
    if job.task == CLASSIFICATION and job.labels:
        stages += [replace(stage, name="fine-tuning") for stage in _no_teacher(job)]
    return stages


def _mobilebert(job: Job) -> list[Stage]:
    recipe = job.recipe
    names = ("feature_map", "mean", "variance", "attention")
    fast, slow = Training(1e-3, schedule="constant", batch_size=16), Training(1e-3, batch_size=16)
    stages = []
    for number, phase in enumerate(mobilebert.phases(recipe, job.layers), start=1):
        training = replace(slow if phase.pretraining else fast, **({"steps": phase.steps} | dict(job.training)))
        stages.append(Stage(
            f"phase {number}" + (" (task)" if phase.pretraining else f" (blocks {phase.layers[0]}"
                                 + (f" to {phase.layers[-1]})" if len(phase.layers) > 1 else ")")),
            partial(_mobilebert_terms, teacher=job.teacher, recipe=recipe, phase=phase), training,
            dict.fromkeys(names, "tokens"), groups=partial(_groups, phase=phase)))
    return stages


def _mobilebert_terms(student: nn.Module, batch: Batch, *, teacher: nn.Module, recipe, phase) -> dict:
    return mobilebert.terms(student, teacher, batch, recipe, phase)


def _groups(student: nn.Module, learning_rate: float, *, phase) -> list[dict]:
    groups = parameter_groups(student, phase, learning_rate)
    return [group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups
            if any(p.requires_grad for p in group["params"])]


def _theseus(job: Job) -> list[Stage]:
    recipe = replace(job.recipe, successor_layers=job.layers)
    training = _ours(job, QUICK, Training(2e-5, epochs=4))
    ship = Stage("replacing", lambda student, batch: theseus.terms(student, None, batch, recipe), training,
                 before=lambda student: setattr(student, "schedule", recipe.rate_at),
                 after=lambda student: student.to_successor_model(train="all"))
    return [ship, Stage("successor alone", lambda student, batch: theseus.terms(student, None, batch, recipe),
                        _ours(job, replace(QUICK, steps=100, learning_rate=5e-5), Training(2e-5, epochs=2)))]


# --- What a step looks at ---------------------------------------------------------------------------------------------


def _step(terms: Callable, bare: Callable, *recipe: object) -> Step:
    """A step of the method with a recipe of its own."""
    return Step(lambda student, teacher, batch: terms(student, teacher, batch, *recipe), bare)


def _last_states(mine: Reading) -> list[Tensor]:
    return [mine.logits, mine.hidden_states[max(mine.hidden_states)]]


def _matched_cls(mine: Reading) -> list[Tensor]:
    """The blocks that PKD-skip pairs with a block of the teacher: all but the last."""
    return [mine.logits, *(mine.hidden_states[layer][:, 0] for layer in list(mine.hidden_states)[1:-1])]


def _all_inside(mine: Reading) -> list[Tensor]:
    return [*mine.hidden_states.values(), *mine.queries.values(), *mine.keys.values()]


def _last_attention(mine: Reading) -> list[Tensor]:
    return [kind[max(kind)] for kind in (mine.queries, mine.keys, mine.values)]


def _last_block(student: nn.Module, teacher: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Progressive transfer at its dearest: the last block learns, so both models run to their ends."""
    phase = mobilebert.Phase((len(blocks(student)),), False, 0)
    return mobilebert.terms(student, teacher, batch, mobilebert.MobileBertRecipe(), phase)


def _of_the_last_block(mine: Reading) -> list[Tensor]:
    last = max(mine.queries)
    return [mine.hidden_states[last], mine.queries[last], mine.keys[last]]


def _of_every_block(mine: Reading) -> list[Tensor]:
    return [mine.logits, *list(mine.hidden_states.values())[1:], *mine.queries.values(), *mine.keys.values()]


# --- The table of methods --------------------------------------------------------------------------------------------

BOTH_TASKS = (CLASSIFICATION, MASKED_LM)
PREDICTS = hinton.HintonRecipe(temperature=4.0)  # the chapters' answers: T = 4, both weights 0.5
QUICK_MOBILEBERT = {"steps_per_layer": 40, "pretraining_steps": 120}
EVERY_BLOCK = mobilebert.MobileBertRecipe("auxiliary", **QUICK_MOBILEBERT)
OF_TINYBERT, OF_BILSTM = Aim(96, 9.0, 7.5), Aim(95, 15.0)  # the two papers with two arms

LABELS = Method(
    "labels", "Labels", "no teacher: the baseline", _no_teacher, {"laptop": None, "paper": None}, "ch01",
    tasks=BOTH_TASKS, teacher="none", same_tokens=False, needs_labels=True, measured=Measured("ch04", "labels"))

HINTON = Method(
    "hinton", "Soft targets", "Hinton et al. 2015", _hinton,
    {"laptop": PREDICTS, "paper": hinton.HintonRecipe()}, "ch01", tasks=BOTH_TASKS, teacher="stored",
    cache=("teacher_logits",), same_tokens=False, steps={"Soft targets": _step(hinton.terms, only_logits, PREDICTS)},
    compared={"Soft targets": Compared("2 x 128, labels", "stored answers", Measured("ch01", "both, T=4")),
              "Answers": Compared("3 x 384, labels", "stored answers", Measured("ch04", "labels + answers"))},
    measured=Measured("ch04", "labels + answers"))

BILSTM = Method(
    "bilstm", "Distilled BiLSTM", "Tang et al. 2019", _bilstm,
    {"laptop": bilstm.BilstmRecipe(), "paper": bilstm.BilstmRecipe()}, "ch02", student="bilstm", teacher="stored",
    cache=("teacher_logits",), same_tokens=False, own_student=True,
    steps={"Distilled BiLSTM": _step(bilstm.terms, only_logits)},
    compared={"Distilled BiLSTM": Compared("BiLSTM, labels", "stored answers", Measured("ch02", "logits"),
                                           aim=OF_BILSTM),
              "Distilled BiLSTM, more text": Compared("BiLSTM, labels", "stored answers",
                                                      Measured("ch02", "logits + augmented text"), True, OF_BILSTM)},
    measured=Measured("ch02", "logits"))

DISTILBERT = Method(
    "distilbert", "DistilBERT", "Sanh et al. 2019", _distilbert,
    {"laptop": distilbert.DistilBertRecipe(), "paper": distilbert.DistilBertRecipe()}, "ch03", tasks=(MASKED_LM,),
    steps={"DistilBERT, every token": _step(distilbert.terms, inside(_last_states))},
    compared={"DistilBERT": Compared("3 x 384, labels", "stored answers + live", aim=Aim(97, 1.6))},
    claim="97 % of GLUE, 40 % fewer parameters, 60 % faster", measured=Measured("ch10", "DistilBERT"))

PKD = Method(
    "pkd", "PKD", "Sun et al. 2019", _pkd,
    {"laptop": pkd.PkdRecipe(temperature=4.0, beta=1000.0), "paper": pkd.PkdRecipe()}, "ch04", needs_labels=True,
    cache=("teacher_logits", "teacher_cls"), copies=layer_maps.bottom,
    steps={"PKD": _step(pkd.terms, inside(_matched_cls))},
    compared={"PKD": Compared("3 x 384, labels", "stored states", Measured("ch04", "PKD-skip"), aim=Aim(98, 1.9))},
    claim="SST-2 92.0 at 6 layers, 1.94 times faster", measured=Measured("ch04", "PKD-skip"))

TINYBERT = Method(
    "tinybert", "TinyBERT", "Jiao et al. 2020", _tinybert,
    {"laptop": tinybert.INTERMEDIATE, "paper": tinybert.INTERMEDIATE}, "ch05", tasks=BOTH_TASKS, student="third",
    same_heads=True,
    steps={"TinyBERT, inside": _step(tinybert.terms, inside(_all_inside), tinybert.INTERMEDIATE),
           "TinyBERT, prediction": _step(tinybert.terms, inside(lambda mine: [mine.logits]), tinybert.PREDICTION)},
    compared={"TinyBERT": Compared("2 x 156, labels", "stored answers + live", Measured("ch05", "two stages"),
                                   aim=OF_TINYBERT),
              "TinyBERT, more text": Compared("2 x 156, labels", "stored answers + live",
                                              Measured("ch05", "augmented text"), True, OF_TINYBERT)},
    claim="96.8 % of GLUE, 7.5 times smaller, 9.4 times faster", measured=Measured("ch05", "two stages"))

MOBILEBERT = Method(
    "mobilebert", "MobileBERT", "Sun et al. 2020", _mobilebert,
    {"laptop": EVERY_BLOCK, "paper": mobilebert.MobileBertRecipe()}, "ch06", student="mobilebert", needs_labels=True,
    own_student=True,
    steps={"MobileBERT, one block": Step(_last_block, inside(_of_the_last_block)),
           "MobileBERT, all blocks": _step(mobilebert.terms, inside(_of_every_block))},
    compared={"MobileBERT": Compared("6 thin blocks, labels", "stored answers + live",
                                     Measured("ch06", "progressive"), aim=Aim(97, 5.0, 4.3))},
    claim="GLUE 77.7 against 78.3, 4.3 times smaller, 5.5 times faster", measured=Measured("ch06", "auxiliary"))

MINILM = Method(
    "minilm", "MiniLM", "Wang et al. 2020", _minilm,
    {"laptop": minilm.MiniLmRecipe(), "paper": minilm.MiniLmRecipe()}, "ch07", tasks=BOTH_TASKS, same_heads=True,
    steps={"MiniLM": _step(minilm.terms, inside(_last_attention)),
           "MiniLM v2": _step(minilm.terms, inside(_last_attention),
                              minilm.MiniLmRecipe(version="v2", relation_heads=12))},
    compared={"MiniLM": Compared("General start, labels", "live", Measured("ch07", "half depth, attention + values"),
                                 aim=Aim(99, smaller=2.0)),
              "MiniLM, narrow": Compared("3 x 192, labels", "live", Measured("ch07", "narrow, attention + values"))},
    claim="more than 99 % on SQuAD 2.0 with half the parameters, 2.0 times faster",
    measured=Measured("ch07", "half depth, attention + values"))

THESEUS = Method(
    "theseus", "Theseus", "Xu et al. 2020", _theseus,
    {"laptop": theseus.TheseusRecipe(base=0.3, k=0.0035), "paper": theseus.TheseusRecipe()}, "ch08",
    needs_labels=True, wraps=theseus.Theseus, steps={"Theseus": _step(theseus.terms, only_logits)},
    compared={"Theseus": Compared("First layers, labels", "live", Measured("ch08", "Theseus, linear"),
                                  aim=Aim(98, 1.9))},
    claim="98 % of GLUE dev, 1.94 times faster", measured=Measured("ch08", "Theseus, linear"))

CACHED = Method(
    "cached", "Stored soft labels", "stored soft labels", _cached,
    {"laptop": cached.CachedRecipe(), "paper": cached.CachedRecipe()}, "ch09", student="cached", teacher="stored",
    cache=("teacher_log_probs",), same_tokens=False, steps={"Cached answers": _step(cached.terms, only_logits)},
    compared={"1 layer, cached answers": Compared("1 x 384, labels", "stored answers")},
    measured=Measured("ch09", "labels + answers, all weights", "topics", "Wikipedia topics"))

METHODS: dict[str, Method] = {method.name: method for method in (
    LABELS, HINTON, BILSTM, DISTILBERT, PKD, TINYBERT, MOBILEBERT, MINILM, THESEUS, CACHED)}
