"""What every distillation loss of the course must hold, whatever it computes.

Each helper takes `loss`, a function of `(student, teacher)` or `(student, teacher, mask)` that returns a scalar tensor.
A test binds the knobs with a lambda. A loss of several tensors (queries, keys, values; many layers) takes them stacked
in one tensor and unbinds them inside the lambda:

    from loss_properties import assert_all

    def test_attention_loss_is_a_well_behaved_loss():
        assert_all(lambda s, t, m: attention_loss(s, t, m), student, teacher, mask, token_dims=(2, 3))

`assert_all` runs everything; the single helpers serve losses for which one property has another form
(a cross-entropy has its minimum at the teacher's entropy, not at 0: pass `at_teacher=entropy`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[..., Tensor]


def ragged_mask(batch: int, tokens: int) -> Tensor:
    """A (batch, tokens) mask with every sentence one token shorter than the one before: 1 = keep."""
    lengths = tokens - torch.arange(batch) % (tokens - 1)
    return (torch.arange(tokens)[None, :] < lengths[:, None]).long()


def _value_and_gradient(loss: Loss, student: Tensor, *rest) -> tuple[Tensor, Tensor]:
    student = student.detach().clone().requires_grad_()
    value = loss(student, *rest)
    assert value.ndim == 0, f"a loss returns a scalar, this one returned {tuple(value.shape)}"
    return value.detach(), torch.autograd.grad(value, student)[0]


def _rest(teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
    return (teacher,) if mask is None else (teacher, mask)


def assert_minimum_at_teacher(loss: Loss, teacher: Tensor, mask: Tensor | None = None, *,
                              at_teacher: float | Tensor = 0.0) -> None:
    """A student equal to its teacher has loss `at_teacher` and no gradient; any other student has more loss."""
    value, gradient = _value_and_gradient(loss, teacher, *_rest(teacher, mask))
    torch.testing.assert_close(value, torch.as_tensor(at_teacher, dtype=value.dtype), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)
    noise = torch.randn(teacher.shape, generator=torch.Generator().manual_seed(7), dtype=teacher.dtype)
    elsewhere = loss(teacher + 0.3 * noise, *_rest(teacher, mask))
    assert elsewhere > value + 1e-9, f"moving away from the teacher must cost: {elsewhere} against {value}"


def _pad(values: Tensor, dims: tuple[int, ...], extra: int, generator: torch.Generator) -> Tensor:
    """Append `extra` positions of large noise along every dimension of `dims`."""
    for dim in dims:
        shape = list(values.shape)
        shape[dim] = extra
        noise = 50 * torch.randn(shape, generator=generator, dtype=values.dtype)
        values = torch.cat([values, noise], dim=dim)
    return values


def assert_ignores_padding(loss: Loss, student: Tensor, teacher: Tensor, mask: Tensor, *,
                           token_dims: tuple[int, ...], rtol: float = 1e-9) -> None:
    """Longer padding, filled with noise, changes neither the loss nor a kept gradient, and gets no gradient itself."""
    value, gradient = _value_and_gradient(loss, student, teacher, mask)
    generator = torch.Generator().manual_seed(11)
    extra = 3
    long_student, long_teacher = (_pad(x, token_dims, extra, generator) for x in (student, teacher))
    long_mask = torch.cat([mask, mask.new_zeros(*mask.shape[:-1], extra)], dim=-1)
    long_value, long_gradient = _value_and_gradient(loss, long_student, long_teacher, long_mask)
    torch.testing.assert_close(long_value, value, rtol=rtol, atol=1e-12)

    outside = torch.ones_like(long_gradient, dtype=torch.bool)
    inside = long_gradient
    for dim in token_dims:
        tokens = student.shape[dim]
        inside = inside.narrow(dim, 0, tokens)
    outside[tuple(slice(0, size) for size in student.shape)] = False
    torch.testing.assert_close(inside, gradient, rtol=rtol, atol=1e-12)
    assert not long_gradient[outside].any(), "padding receives a gradient"


def assert_gradient_is_exact(loss: Loss, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> None:
    """The gradient equals finite differences in float64, for the student and only for the student."""
    assert student.dtype == torch.float64, "finite differences need float64"
    leaf = student.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, *_rest(teacher, mask)), (leaf,), eps=1e-6, atol=1e-6, rtol=1e-4)


def assert_finite_at_extremes(loss: Loss, student: Tensor, teacher: Tensor, mask: Tensor | None = None, *,
                              largest: float = 1e4) -> None:
    """Values of +-`largest`, agreeing or opposed, and values of zero leave loss and gradient finite."""
    signs = largest * torch.sign(student)
    for one, other in ((signs, signs), (signs, -signs), (signs, teacher), (student, signs),
                       (torch.zeros_like(student), torch.zeros_like(teacher))):
        for dtype in (torch.float64, torch.float32):
            value, gradient = _value_and_gradient(loss, one.to(dtype), *_rest(other.to(dtype), mask))
            assert torch.isfinite(value), f"loss is {value} in {dtype}"
            assert torch.isfinite(gradient).all(), f"gradient is not finite in {dtype}"


def assert_safe_in_half_precision(loss: Loss, student: Tensor, teacher: Tensor, mask: Tensor | None = None, *,
                                  rtol: float = 1e-4) -> None:
    """float32, bfloat16 and float16 inputs give, to `rtol`, what float64 gives for the same rounded inputs."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        low_student, low_teacher = student.to(dtype), teacher.to(dtype)
        exact = loss(low_student.double(), *_rest(low_teacher.double(), mask))
        value, gradient = _value_and_gradient(loss, low_student, *_rest(low_teacher, mask))
        assert value.dtype == torch.float32, f"the loss of {dtype} inputs must be float32, it is {value.dtype}"
        assert gradient.dtype == dtype
        assert torch.isfinite(gradient).all()
        torch.testing.assert_close(value.double(), exact, rtol=rtol, atol=1e-5)


def assert_gradient_scale_survives_temperature(loss: Callable[[Tensor, Tensor, float], Tensor], student: Tensor,
                                               teacher: Tensor, *, temperatures: tuple[float, ...] = (20.0, 100.0),
                                               within: float = 0.25) -> None:
    """T^2 at work: for a high temperature the gradient of `loss(student, teacher, T)` no longer depends on T."""
    norms = [_value_and_gradient(lambda s, t, T=T: loss(s, t, T), student, teacher)[1].norm() for T in temperatures]
    ratio = (max(norms) / min(norms)).item()
    assert ratio < 1 + within, f"gradient norms {norms} at temperatures {temperatures}"


def assert_refuses_shape(loss: Loss, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> None:
    """Tensors that PyTorch would broadcast raise a ValueError that names both shapes."""
    for wrong in (teacher[:1], teacher[..., :1]):
        try:
            loss(student, *_rest(wrong, mask))
        except ValueError as error:
            text = str(error)
            assert str(wrong.shape[0]) in text and str(student.shape[-1]) in text, f"shapes are missing in: {text}"
        else:
            raise AssertionError(f"{tuple(student.shape)} against {tuple(wrong.shape)} was broadcast silently")


def assert_refuses_empty_mask(loss: Loss, student: Tensor, teacher: Tensor, mask: Tensor) -> None:
    """A mask that keeps nothing raises a ValueError instead of returning NaN."""
    try:
        loss(student, teacher, torch.zeros_like(mask))
    except ValueError:
        return
    raise AssertionError("an empty mask must raise a ValueError")


def assert_all(loss: Loss, student: Tensor, teacher: Tensor, mask: Tensor | None = None, *,
               token_dims: tuple[int, ...] = (), at_teacher: float | Tensor = 0.0, largest: float = 1e4) -> None:
    """Every property above that needs no temperature; padding only where there is a mask."""
    assert_minimum_at_teacher(loss, teacher, mask, at_teacher=at_teacher)
    assert_gradient_is_exact(loss, student, teacher, mask)
    assert_finite_at_extremes(loss, student, teacher, mask, largest=largest)
    assert_safe_in_half_precision(loss, student, teacher, mask)
    assert_refuses_shape(loss, student, teacher, mask)
    if mask is not None:
        assert_ignores_padding(loss, student, teacher, mask, token_dims=token_dims)
        assert_refuses_empty_mask(loss, student, teacher, mask)
