"""Nearest upsampling and average pooling by two, several times faster on a CPU than torch's own (torch 2.15).

In the ordinary memory format torch upsamples through a generic gather: 17 ms where copying rows takes 2.3 ms
(16 x 256 x 16 x 16 to twice the size, one core). Around convolutions that run at 5 % density that was a tenth of a
training step. The results are the same; pooling may differ in the last bit, for it adds in another order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.kernels.layout import is_batch_last

__all__ = ["average2", "upsample2"]


def _ours(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and (x.is_contiguous() or is_batch_last(x))
        and type(x) is Tensor
        and not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
    )


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


# Each is the other's transpose, so their gradients are written with each other and have gradients themselves.
class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _repeat(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Pool.apply(gradients[0])


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Upsample.apply(gradients[0])


def upsample2(x: Tensor) -> Tensor:
    """Return ``[N, C, 2H, 2W]`` with every pixel of ``[N, C, H, W]`` repeated in a 2x2 box."""
    if not _ours(x):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    out: Tensor = _Upsample.apply(x)
    return out


def average2(x: Tensor) -> Tensor:
    """Return the means of the 2x2 boxes of ``[N, C, H, W]``; an odd last row or column is left out."""
    if not _ours(x) or x.shape[2] % 2 or x.shape[3] % 2:
        return F.avg_pool2d(x, 2)
    out: Tensor = _Pool.apply(x)
    return out * 0.25
