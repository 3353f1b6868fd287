"""Thin, typed calls into the native library on torch tensors: no autograd, no choice, no fallback."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.kernels.layout import empty_batch_last, is_batch_last
from gancompress.kernels.native_library import (
    BATCH_LAST,
    BLOCKED,
    IMAGES,
    POINTS,
    BackwardArgs,
    BoxesArgs,
    ConvArgs,
    Library,
)

if TYPE_CHECKING:
    from gancompress.kernels.pattern import Pattern, Plan

__all__ = ["backward", "boxes", "conv", "from_blocked", "fused", "to_blocked"]


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
        weight: dense float32, contiguous; only kept positions are read.
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
) -> tuple[Tensor | None, Tensor | None] | None:
    """The gradients of a layer towards its input and towards its kept weights.

    Args:
        lib: the loaded kernels.
        plans: those of the two gradients.
        x: the layer's input, float32, contiguous or batch last.
        gradient: towards its result, float32, contiguous or batch last.
        weight: dense float32, contiguous.
        transpose: whether the layer is a transposed convolution.
        want: which of the two to compute.
        pre_relu: the layer takes ``relu(x)``; the gradient is towards ``x``. Not for transposed ones.

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
        transpose=int(transpose), pre_relu=int(pre_relu), threads=torch.get_num_threads(),
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


def to_blocked(lib: Library, x: Tensor) -> Tensor:
    """``[N, ...]`` to ``[ceil(N/16), ..., 16]``: the layout of the kernels. Lanes past the batch are zero."""
    x = x.contiguous()
    out = torch.empty(-(-x.shape[0] // 16), *x.shape[1:], 16, dtype=torch.float32)
    lib.raw.gc_to_blocked(x.data_ptr(), x.shape[0], x[0].numel(), out.data_ptr())
    return out


def from_blocked(lib: Library, x: Tensor, batch: int) -> Tensor:
    """``[ceil(N/16), ..., 16]`` back to ``[N, ...]``."""
    out = torch.empty(batch, *x.shape[1:-1], dtype=torch.float32)
    lib.raw.gc_from_blocked(x.data_ptr(), batch, out[0].numel(), out.data_ptr())
    return out


def fused(
    lib: Library,
    pattern: Pattern,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    batch: int,
    stride: int = 1,
    padding: int = 0,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    pre_relu: bool = False,
    upsample: bool = False,
    add: Tensor | None = None,
    add_upsample: bool = False,
    relu: bool = False,
) -> Tensor:
    """A fused convolution on blocked tensors; :func:`gancompress.kernels.reference.fused_conv2d` says what it means.

    ``x`` and ``add`` are blocked, ``[ceil(N/16), C, H, W, 16]``, contiguous, and so is the result. Values that are not
    finite go through the kept weights only.
    """
    blocks, _, hi, wi, _ = x.shape
    up = int(upsample)
    ho = ((hi << up) + 2 * padding - pattern.shape[2]) // stride + 1
    wo = ((wi << up) + 2 * padding - pattern.shape[3]) // stride + 1
    out = torch.empty(blocks, pattern.shape[0], ho, wo, 16, dtype=torch.float32)
    plan = pattern.direct(lib, stride, padding, (ho, wo))

    def at(t: Tensor | None) -> int | None:
        return None if t is None else t.data_ptr()

    args = ConvArgs(
        plan=plan.address, weight=at(weight), x=at(x), bias=at(bias), scale=at(scale), shift=at(shift), add=at(add),
        out=at(out), batch=batch, hi=hi, wi=wi, ho=ho, wo=wo, layout_x=BLOCKED, layout_out=BLOCKED, up=up,
        pre_relu=int(pre_relu), relu=int(relu), add_up=int(add_upsample), threads=torch.get_num_threads(),
    )  # fmt: skip
    lib.check(lib.raw.gc_conv(ctypes.byref(args)))
    return out
