"""Thin, typed calls into the native library on torch tensors: no autograd, no choice, no fallback."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.kernels.layout import empty_batch_last, is_batch_last
from gancompress.kernels.native_library import (
    BATCH_LAST,
    IMAGES,
    POINTS,
    BackwardArgs,
    BoxesArgs,
    ConvArgs,
    Library,
)

if TYPE_CHECKING:
    from gancompress.kernels.pattern import Plan

__all__ = ["backward", "boxes", "conv"]


def _layout(x: Tensor) -> int:
    return POINTS if x.dim() == 2 else BATCH_LAST if is_batch_last(x) else IMAGES


def conv(
    lib: Library,
    plan: Plan,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out_shape: tuple[int, ...],
    *,
    batch_last: bool = False,
    pre_relu: bool = False,
) -> Tensor | None:
    """Run a plan on images ``[N, C, H, W]`` or points ``[N, C]``.

    Args:
        lib: the loaded kernels.
        plan: made for the shape of the output.
        x: float32, contiguous or batch last.
        weight: dense float32, contiguous; kept positions are read, and in pairs their neighbours, which must be 0.
        bias: float32 per output channel, or None.
        out_shape: shape of the result.
        batch_last: lay the result out batch last, for a batch that is a multiple of 16.
        pre_relu: take ``relu(x)``.

    Returns:
        The result, or None when ``x`` holds something that is not finite (dense arithmetic would spread it through
        masked weights too, so the caller computes that case dense).
    """
    out = empty_batch_last(out_shape) if batch_last else torch.empty(out_shape, dtype=torch.float32)
    size = (*x.shape[2:], *out_shape[2:]) if x.dim() == 4 else (1, 1, 1, 1)
    args = ConvArgs(
        plan=plan.address, weight=weight.data_ptr(), x=x.data_ptr(), bias=None if bias is None else bias.data_ptr(),
        out=out.data_ptr(), batch=x.shape[0], hi=size[0], wi=size[1], ho=size[2], wo=size[3],
        layout_x=_layout(x), layout_out=BATCH_LAST if batch_last else POINTS if x.dim() == 2 else IMAGES,
        pre_relu=int(pre_relu), threads=torch.get_num_threads(),
    )  # fmt: skip
    return out if lib.check(lib.raw.gc_conv(ctypes.byref(args))) else None


def backward(
    lib: Library,
    plans: tuple[Plan, Plan],
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    *,
    transpose: bool,
    want: tuple[bool, bool],
    pre_relu: bool = False,
    bf16: bool = False,
) -> tuple[Tensor | None, Tensor | None] | None:
    """The gradients of a layer towards its input and towards its kept weights.

    Args:
        lib: the loaded kernels.
        plans: those of the two gradients.
        x: the layer's input, float32, contiguous or batch last.
        gradient: towards its result, float32, contiguous or batch last.
        weight: dense float32, contiguous, as for :func:`conv`.
        transpose: whether the layer is a transposed convolution.
        want: which of the two to compute.
        pre_relu: the layer takes ``relu(x)``; the gradient is towards ``x``. Not for transposed ones.
        bf16: for the weight gradient, round what is multiplied to bf16; the plan towards the input says it of that one.

    Returns:
        The two gradients (None where not wanted; the first lies in memory as ``x`` does, the second is dense-shaped and
        exactly 0 off the mask), or None when an input is not finite.
    """
    for_x = torch.empty_like(x) if want[0] else None
    for_weight = torch.empty_like(weight) if want[1] else None
    size = (*x.shape[2:], *gradient.shape[2:]) if x.dim() == 4 else (1, 1, 1, 1)
    args = BackwardArgs(
        plan_x=plans[0].address, plan_weight=plans[1].address, weight=weight.data_ptr(), x=x.data_ptr(),
        gradient=gradient.data_ptr(), for_x=None if for_x is None else for_x.data_ptr(),
        for_weight=None if for_weight is None else for_weight.data_ptr(), batch=x.shape[0],
        hi=size[0], wi=size[1], ho=size[2], wo=size[3], layout_x=_layout(x), layout_gradient=_layout(gradient),
        transpose=int(transpose), pre_relu=int(pre_relu), bf16=int(bf16), threads=torch.get_num_threads(),
    )  # fmt: skip
    return (for_x, for_weight) if lib.check(lib.raw.gc_backward(ctypes.byref(args))) else None


def boxes(
    lib: Library, x: Tensor, *, widen: bool, scale: float, relu: bool = False, gate: Tensor | None = None
) -> Tensor:
    """Scaled sums of 2x2 boxes at every position of a map; a caller that widens has zeros stand around it.

    Args:
        lib: the loaded kernels.
        x: ``[N, C, H, W]``, float32: contiguous, batch last or channels last.
        widen: the result has ``H + 1`` rows and ``W + 1`` columns, else one less than ``x``.
        scale: factor of the sums.
        relu: take ``relu(x)``; only when widening.
        gate: the result is 0 where this is 0 or less; it lies in memory as ``x`` does. Not when widening.

    Returns:
        The sums, in memory as ``x``.
    """
    n, c, h, w = x.shape
    by = 1 if widen else -1
    shape = (n, c, h + by, w + by)
    if x.is_contiguous():
        planes, inner, out = n * c, 1, torch.empty(shape, dtype=torch.float32)
    elif is_batch_last(x):
        planes, inner, out = c, n, empty_batch_last(shape)
    else:
        planes, inner, out = n, c, torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)
    args = BoxesArgs(
        x=x.data_ptr(), gate=None if gate is None else gate.data_ptr(), out=out.data_ptr(), planes=planes, height=h,
        width=w, inner=inner, scale=scale, widen=int(widen), relu=int(relu), threads=torch.get_num_threads(),
    )  # fmt: skip
    lib.check(lib.raw.gc_boxes(ctypes.byref(args)))
    return out
