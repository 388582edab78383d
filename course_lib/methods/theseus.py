"""BERT-of-Theseus: Xu et al., "Compressing BERT by Progressive Module Replacing" (2020, arXiv 2002.02925).

No distillation loss at all. The fine-tuned BERT (the predecessor) is cut into modules of k layers; each module has a
successor of one layer. In training, every batch goes through a mixture:

    r_i ~ Bernoulli(p)                                       one draw per module and batch
    y_(i+1) = r_i * scc_i(y_i) + (1 - r_i) * prd_i(y_i)

and the task loss alone teaches the successors to do their predecessor's work among its neighbours. Evaluation uses
successors only. When p reaches 1 the successors are fine-tuned together (phase 2).

## Deviations of the original code

Original code: JetRunner/BERT-of-Theseus, `bert_of_theseus/` and `run_glue.py`.

| what | paper | code | here |
|---|---|---|---|
| freezing of predecessor, embeddings, classifier | frozen | only left out of the optimiser: they still get gradients, which count in the gradient norm, so that clipping at 1 shrinks the successors' step | `as_in="paper"` or `"code"` |
| phase 2 | its own stage after the replacing converged | same run: the constant schedule jumps to p = 1 after `steps_for_replacing` steps; the default is 0, so phase 1 lasts ONE batch | `constant_rate(..., replacing_steps=None)`; give a number for the jump |
| weights trained in phase 2 | the successor | still only its layers: embeddings and classifier stay those of the predecessor | `to_successor_model(train="layers")` or `"all"` |
| a successor that was not drawn | no gradient | old PyTorch set its gradient to 0, so Adam's momentum still moved it | no gradient, no step |
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from course_lib.methods.hinton import hard_loss
from course_lib.shared.method import QUICK, Aim, Compared, Job, Measured, Method, Stage, Training, only_logits, step_of
from course_lib.shared.probes import logits_of
from course_lib.shared.students import stack_of
from course_lib.shared.words import AsIn, require_word

Schedule = Callable[[int], float]
Curriculum = Literal["linear", "constant"]
Trained = Literal["layers", "all"]

# --- How often to replace --------------------------------------------------------------------------------------------


def linear_rate(step: int, *, base: float = 0.3, k: float = 0.0006) -> float:
    """Replacement rate at batch `step` (the first is 0): min(1, k * step + base).

    Each successor is trained on a share p of the batches, so its effective learning rate is p times the nominal one:
    the rising rate is a warm-up as well, and it leads into phase 2 without a jump.
    Source: section 3.3, eq. 6; `LinearReplacementScheduler`; base and k of the README's MRPC command.
    """
    return _valid(min(1.0, k * step + base))


def constant_rate(step: int, *, rate: float = 0.5, replacing_steps: int | None = None) -> float:
    """Replacement rate at batch `step`: `rate`, and 1 after `replacing_steps` batches.

    replacing_steps: None never jumps. 0 is the default of the original script and a trap: the first batch uses
    `rate`, every other one p = 1, which is plain fine-tuning of the first layers.
    Source: section 3.2; `ConstantReplacementScheduler`.
    """
    jumped = replacing_steps is not None and step >= max(1, replacing_steps)
    return 1.0 if jumped else _valid(rate)


def _valid(rate: float) -> float:
    if not 0 < rate <= 1:
        raise ValueError(f"Replacement rate {rate} must lie in (0, 1]: at 0 no successor would ever learn.")
    return rate


# --- Which layers a batch goes through -------------------------------------------------------------------------------


def draw(modules: int, rate: float, generator: torch.Generator | None = None) -> list[bool]:
    """One Bernoulli draw per module, first module first; True = the successor takes its place."""
    return torch.bernoulli(torch.full((modules,), _valid(rate)), generator=generator).bool().tolist()


def layer_path(draws: Sequence[bool], layers_per_module: int) -> list[str]:
    """The layers of one batch in order: "scc3" is successor 3, "prd6" predecessor layer 6 (0-based, as in the code).

    draws (1, 0), two layers per module -> ["scc0", "prd2", "prd3"].
    """
    path = []
    for i, replaced in enumerate(draws):
        old = range(i * layers_per_module, (i + 1) * layers_per_module)
        path += [f"scc{i}"] if replaced else [f"prd{layer}" for layer in old]
    return path


class Replaceable(nn.Module):
    """One ship's plank: k predecessor layers and the one layer that may stand in for them."""

    def __init__(self, predecessor: Sequence[nn.Module], successor: nn.Module):
        super().__init__()
        self.predecessor = nn.ModuleList(predecessor)
        self.successor = nn.ModuleList([successor])
        self.replaced = True

    def forward(self, hidden_states: Tensor, *args, **kwargs):
        for layer in self.successor if self.replaced else self.predecessor:
            output = layer(hidden_states, *args, **kwargs)
            hidden_states = output[0] if isinstance(output, tuple) else output
        return output  # whatever this version of transformers expects of a layer


class Theseus(nn.Module):
    """A predecessor whose modules are replaced at random while it trains, and for good when it is evaluated.

    predecessor: a fine-tuned Hugging Face model with `encoder.layer` (BERT and its family), with or without a head.
        It is copied, not changed.
    successor_layers: number of modules; must divide the predecessor's layers. Successor i starts as a true copy of
        predecessor layer i: the FIRST layers, not one out of k.
    schedule: batch number -> replacement rate, for example `partial(linear_rate, base=0.3, k=0.0006)`.
    as_in: how predecessor, embeddings and head are frozen (see the table above). With "code", hand
        `trainable_parameters()` to the optimiser and clear ALL gradients after a step (`model.zero_grad()`).
    Raises: ValueError for a model without `encoder.layer`, or a number of layers that does not divide.
    """

    def __init__(self, predecessor: nn.Module, successor_layers: int, *, schedule: Schedule = constant_rate,
                 as_in: AsIn = "paper"):
        super().__init__()
        require_word(as_in, AsIn, "as_in")
        self.model = copy.deepcopy(predecessor)
        layers = list(stack_of(self.model, ("encoder",)).layer)  # other families call their layers in another way
        if successor_layers < 1 or len(layers) % successor_layers:
            raise ValueError(f"{len(layers)} predecessor layers cannot be cut into {successor_layers} modules of equal "
                             f"size. Possible: {[n for n in range(1, len(layers) + 1) if len(layers) % n == 0]}.")
        self.layers_per_module = k = len(layers) // successor_layers
        stack_of(self.model).layer = nn.ModuleList(
            [Replaceable(layers[i * k : (i + 1) * k], copy.deepcopy(layers[i])) for i in range(successor_layers)])
        self.schedule = schedule
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))  # a buffer: a resumed run goes on
        self.path: list[str] = []  # the layers of the latest batch
        self.model.requires_grad_(as_in == "code")
        for parameter in self.trainable_parameters():
            parameter.requires_grad_(True)

    @property
    def modules_to_replace(self) -> list[Replaceable]:
        return list(stack_of(self.model).layer)

    @property
    def replacing_rate(self) -> float:
        """The rate of the next training batch."""
        return self.schedule(int(self.batches_seen))

    @property
    def config(self):
        return self.model.config

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The successors' weights: all that the optimiser may see."""
        return [p for module in self.modules_to_replace for p in module.successor.parameters()]

    def forward(self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Tensor | None = None,
                token_type_ids: Tensor | None = None, *, draws: Sequence[bool] | None = None, **more):
        """The predecessor's output on a mixed path (train mode) or on successors only (eval mode).

        draws: one entry per module, to choose the path oneself; otherwise they are drawn at the scheduled rate.
        """
        modules = self.modules_to_replace
        if draws is None:
            draws = draw(len(modules), self.replacing_rate) if self.training else [True] * len(modules)
        if len(draws) != len(modules):
            raise ValueError(f"{len(draws)} draws for {len(modules)} modules; give one per module.")
        for module, replaced in zip(modules, draws, strict=True):
            module.replaced = bool(replaced)
        self.path = layer_path(draws, self.layers_per_module)
        self.batches_seen += self.training
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids, **more}
        output = self.model(**{name: tensor for name, tensor in given.items() if tensor is not None})
        if self.training and torch.is_grad_enabled() and not output[0].requires_grad:
            # All frozen: no module was replaced (at p = 0.3, six modules, one batch in nine). Nothing to learn from
            # this batch, but backward() must still run.
            output[0].requires_grad_()
        return output

    def to_successor_model(self, train: Trained = "layers") -> nn.Module:
        """A plain Hugging Face model with the successors as its layers, ready for phase 2, saving, or use.

        train: "layers" keeps embeddings and head frozen as in the original script; "all" makes everything trainable.
        The Theseus object is not changed and shares no memory with the result.
        """
        require_word(train, Trained, "train")
        layers = nn.ModuleList([module.successor[0] for module in self.modules_to_replace])
        # One deepcopy of a model that already has its new layers: the predecessor's layers are never copied.
        memo = {id(stack_of(self.model).layer): copy.deepcopy(layers)}
        successor = copy.deepcopy(self.model, memo)
        successor.config.num_hidden_layers = len(layers)
        if train == "all":
            successor.requires_grad_(True)
        else:
            successor.requires_grad_(False)
            stack_of(successor).layer.requires_grad_(True)
        return successor


# --- Training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TheseusRecipe:
    """12 -> 6 layers; the linear schedule is the paper's best, its numbers are those of the README's MRPC command."""

    successor_layers: int = 6
    schedule: Curriculum = "linear"
    base: float = 0.3  # linear: rate of the first batch
    k: float = 0.0006  # linear: rise per batch
    rate: float = 0.5  # constant
    replacing_steps: int | None = None  # constant: batches before the jump to 1
    as_in: AsIn = "paper"

    def rate_at(self, step: int) -> float:
        """The replacement rate of batch `step`."""
        if require_word(self.schedule, Curriculum, "schedule") == "linear":
            return linear_rate(step, base=self.base, k=self.k)
        return constant_rate(step, rate=self.rate, replacing_steps=self.replacing_steps)


def from_recipe(predecessor: nn.Module, recipe: TheseusRecipe | None = None) -> Theseus:
    """Build the mixture that a recipe describes."""
    recipe = recipe or TheseusRecipe()
    return Theseus(predecessor, recipe.successor_layers, schedule=recipe.rate_at, as_in=recipe.as_in)


def terms(student: nn.Module, teacher: None, batch: dict[str, Tensor], recipe: TheseusRecipe | None = None
          ) -> dict[str, Tensor]:
    """{"task": cross-entropy with the labels}, the only loss: the predecessor sits inside the student."""
    return {"task": hard_loss(logits_of(student, batch), batch["labels"])}


# --- How the course trains with it ------------------------------------------------------------------------------------


def stages(job: Job) -> list[Stage]:
    """The calls of the training loop, with the numbers of the job's preset."""
    recipe = replace(job.recipe, successor_layers=job.layers)
    training = job.numbers(QUICK, Training(2e-5, epochs=4))
    ship = Stage("replacing", lambda student, batch: terms(student, None, batch, recipe), training,
                 before=lambda student: setattr(student, "schedule", recipe.rate_at),
                 after=lambda student: student.to_successor_model(train="all"))
    return [ship, Stage("successor alone", lambda student, batch: terms(student, None, batch, recipe),
                        job.numbers(replace(QUICK, steps=100, learning_rate=5e-5), Training(2e-5, epochs=2)))]


RECORD = Method(
    "theseus", "Theseus", "Xu et al. 2020", stages,
    {"laptop": TheseusRecipe(base=0.3, k=0.0035), "paper": TheseusRecipe()}, "ch08",
    needs_labels=True, wraps=Theseus, steps={"Theseus": step_of(terms, only_logits)},
    compared={"Theseus": Compared("First layers, labels", "live", Measured("ch08", "Theseus, linear"),
                                  aim=Aim(98, 1.9))},
    claim="98 % of GLUE dev, 1.94 times faster", measured=Measured("ch08", "Theseus, linear"))
