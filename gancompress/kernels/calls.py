"""Thin, typed calls into the native library on torch tensors: no autograd, no choice, no fallback."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.errors import KernelError
from gancompress.kernels.layout import empty_batch_last, is_batch_last
from gancompress.kernels.native_library import (
    BATCH_LAST,
    IMAGES,
    POINTS,
    SAME,
    UP,
    BackwardArgs,
    BoxesArgs,
    ConvArgs,
    FilterArgs,
    Library,
    StyleArgs,
)

if TYPE_CHECKING:
    from gancompress.kernels.pattern import Plan

__all__ = ["Between", "backward", "between", "between_gradient", "boxes", "conv", "filtered", "totals"]


def _pointer(x: Tensor | None) -> int | None:
    """Where the numbers of a tensor begin, for code that takes whatever lies there for float32."""
    if x is not None and x.dtype != torch.float32:
        raise KernelError(f"the kernels read float32, not {str(x.dtype).removeprefix('torch.')}")
    return None if x is None else x.data_ptr()


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
        plan=plan.address, weight=_pointer(weight), x=_pointer(x), bias=_pointer(bias),
        out=_pointer(out), batch=x.shape[0], hi=size[0], wi=size[1], ho=size[2], wo=size[3],
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
        plan_x=plans[0].address, plan_weight=plans[1].address, weight=_pointer(weight), x=_pointer(x),
        gradient=_pointer(gradient), for_x=_pointer(for_x),
        for_weight=_pointer(for_weight), batch=x.shape[0],
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
    by = 1 if widen else -1
    planes, inner, out = _resized(x, x.shape[2] + by, x.shape[3] + by)
    args = BoxesArgs(
        x=_pointer(x), gate=_pointer(gate), out=_pointer(out), planes=planes, height=x.shape[2], width=x.shape[3],
        inner=inner, scale=scale, widen=int(widen), relu=int(relu), threads=torch.get_num_threads(),
    )  # fmt: skip
    lib.check(lib.raw.gc_boxes(ctypes.byref(args)))
    return out


def _resized(x: Tensor, height: int, width: int) -> tuple[int, int, Tensor]:
    """The planes of a map, the numbers that lie side by side at each of their pixels, and a map of another size."""
    n, c = x.shape[:2]
    shape = (n, c, height, width)
    if x.is_contiguous():
        return n * c, 1, torch.empty(shape, dtype=torch.float32)
    if is_batch_last(x):
        return c, n, empty_batch_last(shape)
    return n, c, torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)


def filtered(lib: Library, x: Tensor, *, kind: int, scale: float, padding: int = 1) -> Tensor:
    """The filter [1, 3, 3, 1] in both directions.

    Args:
        lib: the loaded kernels.
        x: ``[N, C, H, W]``, float32: contiguous, batch last or channels last.
        kind: ``SAME``, ``UP`` to twice the size with zeros between the pixels, or ``DOWN`` to half an even one.
        scale: factor.
        padding: zeros on every side, 1 or 2, where the kind is ``SAME``: 2 * padding - 3 rows and columns more.

    Returns:
        The map, in memory as ``x``.
    """
    height, width = x.shape[2:]
    if kind == SAME:
        height, width = height + 2 * padding - 3, width + 2 * padding - 3
    else:
        height, width = (2 * height, 2 * width) if kind == UP else (height // 2, width // 2)
    planes, inner, out = _resized(x, height, width)
    args = FilterArgs(
        x=_pointer(x), out=_pointer(out), planes=planes, height=x.shape[2], width=x.shape[3], inner=inner,
        scale=scale, kind=kind, padding=padding, isa=lib.isa_index, threads=torch.get_num_threads(),
    )  # fmt: skip
    lib.check(lib.raw.gc_filter(ctypes.byref(args)))
    return out


@dataclass(frozen=True)
class Between:
    """What stands between two convolutions: ``filter(leaky(gain * filter(x) + bias + strength * noise))``.

    Attributes:
        slope: of the leaky ReLU; 1 is none.
        before: padding of the filter [1, 3, 3, 1] / 8 in front of all, 1 or 2; 0 is none.
        after: padding of the one behind the ReLU. One of the two at most.
        strength: of the noise.
    """

    slope: float = 1.0
    before: int = 0
    after: int = 0
    strength: float = 0.0

    def resized(self, size: int) -> int:
        """Return how long a side is afterwards."""
        return size + (2 * (self.before + self.after) - 3 if self.before or self.after else 0)


def _style_args(lib: Library, x: Tensor, how: Between) -> StyleArgs:
    n, c, h, w = x.shape
    return StyleArgs(
        x=_pointer(x), channels=c, height=h, width=w, batch=n, strength=how.strength, slope=how.slope,
        before=how.before, after=how.after, isa=lib.isa_index, threads=torch.get_num_threads(),
    )  # fmt: skip


def between(
    lib: Library, x: Tensor, how: Between, *, gain: Tensor | None = None, bias: Tensor | None = None,
    noise: Tensor | None = None, beside: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Compute ``how`` on a map batch last, in one pass.

    Args:
        lib: the loaded kernels.
        x: ``[N, C, H, W]``, float32, batch last.
        how: what to compute.
        gain: ``[C, N]``, contiguous, or None.
        bias: ``[C]``, contiguous, or None.
        noise: ``[N, 1, H', W']``, batch last, as large as the map that it is added to, or None.
        beside: as the result, batch last, added at the end; or None.
    """
    n, c, h, w = x.shape
    out = empty_batch_last((n, c, how.resized(h), how.resized(w)))
    args = _style_args(lib, x, how)
    args.gain, args.bias, args.noise, args.beside = map(_pointer, (gain, bias, noise, beside))
    args.out = _pointer(out)
    lib.check(lib.raw.gc_style(ctypes.byref(args)))
    return out


def between_gradient(
    lib: Library, x: Tensor, gradient: Tensor, gate: Tensor | None, how: Between, *, gain: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of :func:`between` towards ``x``, ``gain`` and, ``[C, 2]``, bias and strength.

    Args:
        lib: the loaded kernels.
        x: as it was given.
        gradient: towards the result, batch last.
        gate: what says by its sign which side of the ReLU was taken: the result if nothing comes behind the ReLU, or
            ``x`` if nothing comes in front of it; None without a ReLU.
        how: what was computed.
        gain: as it was given.
        noise: as it was given.
    """
    n, c, h, w = x.shape
    for_x, for_gain, sums = empty_batch_last((n, c, h, w)), torch.empty(c, n), torch.empty(c, 2)
    args = _style_args(lib, x, how)
    args.gain, args.noise, args.gate = map(_pointer, (gain, noise, gate))
    args.gradient, args.out, args.for_gain, args.sums = map(_pointer, (gradient, for_x, for_gain, sums))
    lib.check(lib.raw.gc_style_gradient(ctypes.byref(args)))
    return for_x, for_gain, sums


def totals(lib: Library, x: Tensor) -> Tensor:
    """The sums of a map's channels over images and pixels, for a float32 map that is contiguous or batch last."""
    n, c, h, w = x.shape
    images, count = (1, h * w * n) if is_batch_last(x) else (n, h * w)
    out = torch.empty(c)
    threads = torch.get_num_threads()
    lib.check(lib.raw.gc_totals(_pointer(x), images, c, count, _pointer(out), threads, lib.isa_index))
    return out
