"""What the kernels must compute, written for the eye and not for the clock. Any dtype; float64 in tests.

Nothing here calls a convolution of torch: the reference shares no code with what it checks.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["conv2d", "conv_transpose2d", "fused_conv2d", "linear"]


def _kept(weight: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, weight, torch.zeros((), dtype=weight.dtype))


def linear(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ (weight * mask).T + bias``: x ``[N, in]``, weight and mask ``[out, in]``, result ``[N, out]``."""
    out = (x[:, None, :] * _kept(weight, mask)[None]).sum(2)
    return out if bias is None else out + bias


def _ungrouped(kept: Tensor, groups: int) -> Tensor:
    """The weight of one group that sees all channels, those of other groups with weights of 0."""
    first, second = kept.shape[0] // groups, kept.shape[1]
    whole = kept.new_zeros(kept.shape[0], second * groups, *kept.shape[2:])
    for g in range(groups):
        whole[g * first : (g + 1) * first, g * second : (g + 1) * second] = kept[g * first : (g + 1) * first]
    return whole


def conv2d(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Tensor:
    """A convolution, one tap at a time: x ``[N, C, H, W]``, weight and mask ``[R, C / groups, kh, kw]``."""
    kept = _ungrouped(_kept(weight, mask), groups)
    n, c, h, w = x.shape
    padded = x.new_zeros(n, c, h + 2 * padding, w + 2 * padding)
    padded[:, :, padding : padding + h, padding : padding + w] = x
    kh, kw = weight.shape[2:]
    ho, wo = (padded.shape[2] - kh) // stride + 1, (padded.shape[3] - kw) // stride + 1
    out = x.new_zeros(n, weight.shape[0], ho, wo)
    for ky in range(kh):
        for kx in range(kw):
            seen = padded[:, :, ky : ky + stride * ho : stride, kx : kx + stride * wo : stride]
            out = out + torch.einsum("nchw,rc->nrhw", seen, kept[:, :, ky, kx])
    return out if bias is None else out + bias[None, :, None, None]


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Tensor:
    """A transposed convolution, one tap at a time: x ``[N, C, H, W]``, weight and mask ``[C, R / groups, kh, kw]``."""
    kept = _ungrouped(_kept(weight, mask), groups)
    n, _, h, w = x.shape
    kh, kw = weight.shape[2:]
    full = x.new_zeros(n, kept.shape[1], (h - 1) * stride + kh, (w - 1) * stride + kw)
    for ky in range(kh):
        for kx in range(kw):
            part = torch.einsum("nchw,cr->nrhw", x, kept[:, :, ky, kx])
            full[:, :, ky : ky + stride * h : stride, kx : kx + stride * w : stride] += part
    out = full[:, :, padding : full.shape[2] - padding, padding : full.shape[3] - padding]
    return out if bias is None else out + bias[None, :, None, None]


def fused_conv2d(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    *,
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
    """All that a kernel can fuse, in its order.

    Per-channel affine, ReLU, nearest x2 upsampling, convolution, bias, addition of ``add`` (nearest x2 upsampled when
    ``add_upsample``), ReLU. Zero padding comes after the affine, as it does for separate layers.
    """
    if scale is not None and shift is not None:
        x = x * scale[None, :, None, None] + shift[None, :, None, None]
    if pre_relu:
        x = torch.relu(x)
    if upsample:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    out = conv2d(x, weight, mask, bias, stride=stride, padding=padding)
    if add is not None:
        out = out + (add.repeat_interleave(2, 2).repeat_interleave(2, 3) if add_upsample else add)
    return torch.relu(out) if relu else out
