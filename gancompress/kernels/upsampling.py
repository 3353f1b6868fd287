"""A sparse 3x3 convolution of nearest-upsampled pixels, written as a transposed one that reads the small map.

Of the nine taps of a result, those that read the same small pixel are added up: four are left, of which a sparse weight
keeps less than of the nine (by 3 % at density 0.05, 16 % at 0.2). :func:`folded` adds them up, for dense weights that
are not trained any more as well (:mod:`gancompress.backbones.folding`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from gancompress.kernels.pattern import Pattern

__all__ = ["FoldKind", "fold_upsampling", "folded"]

FoldKind: TypeAlias = Literal["up", "down"]


def folded(weight: Tensor, kind: FoldKind) -> Tensor:
    """Return the 4x4 kernel: ``[C, R, 4, 4]`` of a transposed convolution (up), ``[R, C, 4, 4]`` (down).

    Both are applied with stride 2 and padding 1.

    Args:
        weight: ``[R, C, 3, 3]`` of a convolution with stride 1 and padding 1.
        kind: what stands beside it.
    """
    # in one dimension: pixel 2i-1+j of the large map meets position k of the kernel in j - k = 0 or 1 (down), and in
    # j + k - 2 = 0 or 1 (up, where the kernel of a transposed convolution runs backwards)
    rows = [[(j - k if kind == "down" else j + k - 2) in (0, 1) for k in range(3)] for j in range(4)]
    once = torch.tensor(rows).to(weight) * (0.5 if kind == "down" else 1.0)
    kernel = torch.einsum("jk,rckl,il->rcji", once, weight, once)
    return kernel.transpose(0, 1) if kind == "up" else kernel


def fold_upsampling(weight: Tensor, pattern: Pattern) -> tuple[Tensor, Pattern]:
    """Merge the taps of a convolution with padding 1 behind nearest x2.

    Args:
        weight: ``[R, C, 3, 3]``.
        pattern: its kept positions.

    Returns:
        The weight ``[C, R, 4, 4]`` of a transposed convolution of stride 2 and padding 1 with the same result, and
        what it keeps.
    """
    mask = pattern.mask.cpu()
    kept = folded(torch.where(mask, weight, 0.0).double(), "up").to(weight.dtype)
    return kept.contiguous(), Pattern(folded(mask.double(), "up") > 0)
