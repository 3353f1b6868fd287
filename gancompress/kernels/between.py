"""What stands between the convolutions of networks with styles, in one pass over a map that lies batch last.

``filter(leaky(gain * filter(x) + bias + strength * noise)) + beside`` is a pass for every operation in torch, and as
many for the gradients; around convolutions that run at a tenth of their products these passes were half of a step.
A gradient of a gradient is that of the same operations in torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.kernels import calls
from gancompress.kernels.layout import is_batch_last, is_eager, scale, scale_and_shift
from gancompress.kernels.native_library import library
from gancompress.kernels.resample import smooth

if TYPE_CHECKING:
    from gancompress.kernels.calls import Between

__all__ = ["between", "in_one_pass"]


def in_one_pass(x: Tensor) -> bool:
    """Whether :func:`between` takes this map: float32 on a CPU, batch last, with native kernels, run as called."""
    plain = type(x) is Tensor and x.dtype == torch.float32 and x.device.type == "cpu"
    return plain and library() is not None and is_eager() and is_batch_last(x)


class _Between(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor | None, bias: Tensor | None, noise: Tensor | None, strength: Tensor | None,
        beside: Tensor | None, how: Between,
    ) -> Tensor:  # fmt: skip
        lib = library()
        assert lib is not None
        if strength is not None:
            how = replace(how, strength=float(strength))
        given = {
            "gain": None if gain is None else gain.detach().t().contiguous(),
            "bias": None if bias is None else bias.detach().contiguous(),
            "noise": None if noise is None else _laid(noise),
            "beside": None if beside is None else _laid(beside),
        }
        out = calls.between(lib, x.detach(), how, **given)
        # the ReLU's side is told by what is in front of it where that is x itself, else by what it gave
        ctx.by_x = how.after != 0 or beside is not None
        if ctx.by_x and not (gain is bias is noise is None and not how.before):
            raise ValueError("what follows the ReLU follows nothing else")
        ctx.save_for_backward(x, gain, bias, noise, strength, beside, None if ctx.by_x else out)
        ctx.how = how
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, gain, bias, noise, strength, beside, out = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            inputs = (x, gain, bias, noise, strength, beside)
            wanted = [one for one, need in zip(inputs, ctx.needs_input_grad, strict=False) if need]
            found = iter(torch.autograd.grad(_in_steps(*inputs, ctx.how), wanted, gradient, create_graph=True))
            return (*(next(found) if need else None for need in ctx.needs_input_grad[:6]), None)
        lib = library()
        assert lib is not None
        for_x, for_gain, sums = calls.between_gradient(
            lib, x, _laid(gradient), x if ctx.by_x else out, ctx.how,
            gain=None if gain is None else gain.t().contiguous(), noise=None if noise is None else _laid(noise),
        )  # fmt: skip
        need = ctx.needs_input_grad
        of_bias, of_strength = sums.unbind(1)
        return (
            for_x, for_gain.t() if need[1] else None, of_bias if need[2] else None, None,
            of_strength.sum() if need[4] else None, gradient if need[5] else None, None,
        )  # fmt: skip


def _laid(x: Tensor) -> Tensor:
    x = x.detach()
    return x if is_batch_last(x) else x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def _in_steps(
    x: Tensor, gain: Tensor | None, bias: Tensor | None, noise: Tensor | None, strength: Tensor | None,
    beside: Tensor | None, how: Between,
) -> Tensor:  # fmt: skip
    if how.before:
        x = smooth(x, how.before)
    if gain is not None and bias is not None:
        x = scale_and_shift(x, gain, bias.expand_as(gain))
    elif gain is not None:
        x = scale(x, gain)
    elif bias is not None:
        x = x + bias[:, None, None]
    if noise is not None and strength is not None:
        x = x + noise * strength
    if how.slope != 1:
        x = F.leaky_relu(x, how.slope)
    if how.after:
        x = smooth(x, how.after)
    return x if beside is None else x + beside


def between(
    x: Tensor, how: Between, *, gain: Tensor | None = None, bias: Tensor | None = None, noise: Tensor | None = None,
    strength: Tensor | None = None, beside: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return ``filter(leaky(gain * filter(x) + bias + strength * noise)) + beside``, batch last.

    Args:
        x: ``[N, C, H, W]``, for which :func:`in_one_pass` holds; what is given beside it may be of another type.
        how: the slope, and the padding of either filter.
        gain: per image and channel, ``[N, C]``, or None.
        bias: per channel, ``[C]``, or None.
        noise: ``[N, 1, H', W']`` as large as the map that it is added to, or None; it has no gradient.
        strength: of the noise, a tensor of one number; given with it.
        beside: as large as the result, or None.

    Raises:
        ValueError: a filter behind the ReLU, or a map beside it, together with anything in front of it.
    """
    # under autocast a dense layer beside gives bf16, and a linear layer's gain is bf16 too: the kernel reads float32
    given = (None if one is None else one.float() for one in (gain, bias, noise, strength, beside))
    out: Tensor = _Between.apply(x, *given, how)
    return out
