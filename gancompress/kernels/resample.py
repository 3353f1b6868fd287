"""Nearest upsampling and average pooling by two, several times faster on a CPU than torch's own (torch 2.15).

In the ordinary memory format torch upsamples through a generic gather: 17 ms where copying rows takes 2.3 ms
(16 x 256 x 16 x 16 to twice the size, one core). Around convolutions that run at 5 % density that was a tenth of a
training step. The results are the same; pooling may differ in the last bit, for it adds in another order.

:func:`box_means` and :func:`box_sums` slide a 2x2 box over a map pixel by pixel. They stand beside a convolution of
stride 2 that replaces one at the larger size (:mod:`gancompress.backbones.folding`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.kernels import calls
from gancompress.kernels.layout import is_batch_last, is_eager, to_batch_last
from gancompress.kernels.native_library import DOWN, SAME, UP, library

__all__ = [
    "average2",
    "bilinear_down2",
    "bilinear_up2",
    "box_means",
    "box_sums",
    "smooth",
    "smooth_down2",
    "smooth_up2",
    "upsample2",
]


def _ours(x: Tensor) -> bool:
    return (x.is_contiguous() or is_batch_last(x)) and _plain(x)


def _plain(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dim() == 4 and type(x) is Tensor and is_eager()


def _repeat(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    if is_batch_last(x):
        pixels = x.permute(1, 2, 3, 0)[:, :, None, :, None]
        return pixels.expand(c, h, 2, w, 2, n).reshape(c, 2 * h, 2 * w, n).permute(3, 0, 1, 2)
    rows = x.repeat_interleave(2, 3)[:, :, :, None]
    return rows.expand(n, c, h, 2, 2 * w).reshape(n, c, 2 * h, 2 * w)


def _sum(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    if is_batch_last(x):
        boxes = x.permute(1, 2, 3, 0).reshape(c, h // 2, 2, w // 2, 2, n)
        pairs = boxes[:, :, 0] + boxes[:, :, 1]
        return (pairs[:, :, :, 0] + pairs[:, :, :, 1]).permute(3, 0, 1, 2)
    rows = x.reshape(n, c, h // 2, 2, w)
    rows = rows[:, :, :, 0] + rows[:, :, :, 1]
    return rows[..., ::2] + rows[..., 1::2]


class _Resample(torch.autograd.Function):
    """Repeats pixels (up) or adds them up: each is the other's transpose, so gradients of any order are right."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: bool) -> Tensor:
        ctx.up = up
        return _repeat(x) if up else _sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Resample.apply(gradients[0], not ctx.up), None


def upsample2(x: Tensor) -> Tensor:
    """Return ``[N, C, 2H, 2W]`` with every pixel of ``[N, C, H, W]`` repeated in a 2x2 box."""
    if not _ours(x):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    out: Tensor = _Resample.apply(x, True)
    return out


def average2(x: Tensor) -> Tensor:
    """Return the means of the 2x2 boxes of ``[N, C, H, W]``; an odd last row or column is left out."""
    if not _ours(x) or x.shape[2] % 2 or x.shape[3] % 2:
        return F.avg_pool2d(x, 2)
    out: Tensor = _Resample.apply(x, False)
    return out * 0.25


class _Boxes(torch.autograd.Function):
    """Widens a map of which pixels with a gate of 0 or less count as 0, or narrows one and puts zeros there.

    With the same gate each is the other's transpose, so gradients of any order are right.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor | None, widen: bool, scale: float) -> Tensor:
        lib = library()
        assert lib is not None
        ctx.save_for_backward(gate)
        ctx.widen, ctx.scale = widen, scale
        x = x.detach()
        relu = widen and gate is not None and gate.data_ptr() == x.data_ptr()
        if gate is not None and widen and not relu:
            x, gate = torch.where(gate <= 0, 0.0, x), None
        x = _laid_out_as(gate, x)
        return calls.boxes(lib, x, widen=widen, scale=scale, relu=relu, gate=None if widen else gate)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gate,) = ctx.saved_tensors
        return _Boxes.apply(gradients[0], gate, not ctx.widen, ctx.scale), None, None, None


def _laid_out_as(gate: Tensor | None, x: Tensor) -> Tensor:
    """``x`` in memory as ``gate``; without one, in any format that the kernels take."""
    one = x if gate is None else gate
    if one.is_contiguous():
        return x.contiguous()
    if is_batch_last(one):
        return to_batch_last(x)
    dense = gate is not None or x.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last if dense else torch.contiguous_format)


def _exact(x: Tensor) -> Tensor:
    """A bf16 map under autocast as float32: torch pools bf16 many times as slowly, and a dense layer rounds again."""
    rounded = x.dtype == torch.bfloat16 and _ours(x) and torch.is_autocast_enabled("cpu") and library() is not None
    return x.float() if rounded else x


def _boxes(x: Tensor, *, widen: bool, average: bool, relu: bool = False) -> Tensor:
    x = _exact(x)
    known = _ours(x) or (x.is_contiguous(memory_format=torch.channels_last) and _plain(x))
    if not known or x.dtype != torch.float32 or library() is None:
        x = F.relu(x) if relu else x
        return F.avg_pool2d(x, 2, 1, int(widen), divisor_override=4 if average else 1)
    out: Tensor = _Boxes.apply(x, x.detach() if relu else None, widen, 0.25 if average else 1.0)
    return out


def box_means(x: Tensor, *, relu: bool = False) -> Tensor:
    """Return the means of the 2x2 boxes at every position of ``[N, C, H, W]`` with zeros around: a row and column more.

    Args:
        x: the map.
        relu: take ``relu(x)``, which costs nothing then, forward and backward.
    """
    return _boxes(x, widen=True, average=True, relu=relu)


def box_sums(x: Tensor) -> Tensor:
    """Return the sums of the 2x2 boxes at every position of ``[N, C, H, W]``: one row and column less."""
    return _boxes(x, widen=False, average=False)


def bilinear_up2(x: Tensor) -> Tensor:
    """Return ``[N, C, 2H, 2W]`` by the filter [1, 2, 1] / 2 in both directions; pixels beyond the border count as 0.

    The filter is a box of two slid over a box of two. Torch takes five times as long to average such boxes.
    """
    return box_means(upsample2(x))[:, :, 1:, 1:]


def bilinear_down2(x: Tensor) -> Tensor:
    """Return ``[N, C, H / 2, W / 2]`` by the filter [1, 2, 1] / 4 in both directions, for an even height and width."""
    means = box_means(x)[:, :, :-1, :-1]
    return average2(to_batch_last(means) if is_batch_last(x) else means.contiguous())


class _Filter(torch.autograd.Function):
    """The filter [1, 3, 3, 1] times a factor. Its transpose is one too, so gradients of any order are right."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: int, scale: float, padding: int) -> Tensor:
        lib = library()
        assert lib is not None
        ctx.how = (kind, scale, padding)
        return calls.filtered(lib, _laid_out_as(None, x.detach()), kind=kind, scale=scale, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        kind, scale, padding = ctx.how
        transposed = {SAME: SAME, UP: DOWN, DOWN: UP}[kind]
        return (
            _Filter.apply(gradients[0], transposed, scale, 3 - padding if kind == SAME else padding),
            None,
            None,
            None,
        )


def _filter(x: Tensor, kind: int, scale: float, padding: int = 1) -> Tensor | None:
    """The filter on the native kernels, where they take it."""
    x = _exact(x)
    known = _ours(x) or (x.is_contiguous(memory_format=torch.channels_last) and _plain(x))
    if not known or x.dtype != torch.float32 or library() is None or min(x.shape) < 1:
        return None
    if kind == SAME and min(x.shape[2:]) + 2 * padding < 4:
        return None
    out: Tensor = _Filter.apply(x, kind, scale, padding)
    return out


def smooth(x: Tensor, padding: int) -> Tensor:
    """Return ``[N, C, H, W]`` smoothed by the filter [1, 3, 3, 1] / 8 in both directions.

    Args:
        x: the map.
        padding: zeros on every side, 1 or 2; height and width change by ``2 * padding - 3``.
    """
    done = _filter(x, SAME, 1 / 64, padding)
    if done is not None:
        return done
    for widen in (True, padding == 2, False):  # a box slid thrice
        x = _boxes(x, widen=widen, average=True)
    return x


def smooth_up2(x: Tensor) -> Tensor:
    """Return ``[N, C, 2H, 2W]``: zeros between the pixels, then the filter [1, 3, 3, 1] / 4 in both directions."""
    done = _filter(x, UP, 1 / 16)
    if done is not None:
        return done
    return _boxes(_boxes(upsample2(x), widen=True, average=True), widen=False, average=True)


def smooth_down2(x: Tensor) -> Tensor:
    """Return ``[N, C, H / 2, W / 2]`` of an even height and width: the filter [1, 3, 3, 1] / 8, of two pixels one."""
    done = _filter(x, DOWN, 1 / 64) if x.shape[2] % 2 == x.shape[3] % 2 == 0 else None
    if done is not None:
        return done
    return average2(_boxes(_boxes(x, widen=True, average=True), widen=False, average=True))
