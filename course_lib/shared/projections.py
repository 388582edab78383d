"""Linear maps between two widths, so that a narrow student can be compared with a wide teacher.

A loss such as mean((h_S - h_T)^2) needs vectors of one width. Two sides can give way:

    side="student"   (W h_S, h_T)    the target h_T stands still: the student must carry what W needs to rebuild it
    side="teacher"   (h_S, W h_T)    the target itself is trained

The teacher's side is a trap. W = 0 together with a constant student is an exact optimum of loss 0: both sides agree
on nothing at all. On the student's side a constant student still pays the whole variance of the teacher's states.
If the smaller space is wanted, keep the map fixed: `Projection(..., side="teacher", trainable=False)` starts with
orthonormal rows, so distances survive as well as they can, and nothing can shrink.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.shared.words import require_word

Side = Literal["student", "teacher"]
Maps = Literal["shared", "two"]


class Projection(nn.Module):
    """One or two linear maps that bring student and teacher states to the same width.

    h_S -> W h_S (side="student"), or h_T -> W h_T (side="teacher").

    student_width, teacher_width: hidden sizes
    side: whose states are mapped
    maps: "shared" = one W for the embeddings and all blocks (TinyBERT's code); "two" = W_e for layer 0 and W_h for
        all blocks (TinyBERT's paper, equations 8 and 9)
    bias: the paper writes a matrix only; the code uses `nn.Linear` with its bias
    trainable: False freezes the maps at their orthogonal start

    `projection(student, teacher, layer)` returns both tensors, one of them mapped; `projection.mapped(states, layer)`
    maps states of `side` alone. `layer` is the student's layer.
    """

    def __init__(self, student_width: int, teacher_width: int, *, side: Side = "student",
                 maps: Maps = "two", bias: bool = False, trainable: bool = True) -> None:
        super().__init__()
        require_word(side, Side, "side")
        require_word(maps, Maps, "maps")
        self.student_width, self.teacher_width, self.side = student_width, teacher_width, side
        widths = (student_width, teacher_width) if side == "student" else (teacher_width, student_width)
        self.blocks = nn.Linear(*widths, bias=bias)
        self.embeddings = self.blocks if maps == "shared" else nn.Linear(*widths, bias=bias)
        for linear in dict.fromkeys((self.blocks, self.embeddings)):
            # Orthogonal: the start keeps lengths and angles where it can, and equal widths start as a rotation.
            nn.init.orthogonal_(linear.weight)
            if bias:
                nn.init.zeros_(linear.bias)
        self.requires_grad_(trainable)

    def forward(self, student: Float[Tensor, "*where student_width"], teacher: Float[Tensor, "*where teacher_width"],
                layer: int) -> tuple[Tensor, Tensor]:
        """Bring the states of student layer `layer` and of its teacher layer to one width.

        Raises: ValueError if a tensor has not the width that this projection was made for, or more digits.
        """
        self._require_width(student, "student", layer)
        self._require_width(teacher, "teacher", layer)
        if self.side == "student":
            return self.mapped(student, layer), teacher
        return student, self.mapped(teacher, layer)

    def mapped(self, states: Float[Tensor, "*where width"], layer: int) -> Float[Tensor, "*where mapped_width"]:
        """The map alone, for the states of `self.side`; the other model is not needed.

        Raises: ValueError as `forward` does.
        """
        self._require_width(states, self.side, layer)
        linear = self.embeddings if layer == 0 else self.blocks
        kept = linear.weight.dtype
        if torch.promote_types(states.dtype, kept) != kept:
            raise ValueError(f"The states are {states.dtype}, the projection is {kept}: it would round them. Bring it "
                             f"to their precision first: projection.to({states.dtype}).")
        return linear(states.to(kept))  # (..., d_in) x (d_in, d_out) -> (..., d_out)

    def _require_width(self, states: Tensor, side: Side, layer: int) -> None:
        width = self.student_width if side == "student" else self.teacher_width
        if states.shape[-1] != width:
            raise ValueError(
                f"Projection({self.student_width}, {self.teacher_width}) expects {side} states of width {width}, "
                f"but layer {layer} has {tuple(states.shape)}. Make a Projection(student_width, teacher_width) "
                "for these two models; mind the order."
            )


def price_of_collapse(teacher: Float[Tensor, "tokens teacher_width"], *, side: Side = "student"
                      ) -> Float[Tensor, ""]:
    """The mean squared error that a student which says the same at every token pays, with the best linear map there is.

    side="student": the variance of the teacher's states, because W times a constant is a constant.
    side="teacher", trainable: 0, because W = 0 and a student of zeros agree perfectly.
    """
    if require_word(side, Side, "side") == "teacher":
        return teacher.new_zeros(())
    return (teacher - teacher.mean(dim=0)).pow(2).mean()
