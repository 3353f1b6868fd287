"""Weights in eight bits: one scale per output channel, whole numbers from -127 to 127.

Scales have 16 bits of mantissa, so that a whole number times a scale is a float32 without rounding: weights that were
brought to the grid once are on it when they are brought to it again.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LARGEST", "from_int8", "on_grid", "rows_of", "times_channels", "to_int8"]

#: of the whole numbers; -128 is left out, so that every weight has its negative
LARGEST = 127
#: bits of mantissa of a scale that are left out of a float32's 23
_DROPPED = 8


def rows_of(weight: Tensor, transposed: bool = False, groups: int = 1) -> Tensor:
    """Return a convolution's weight by output channel: ``[R, C/groups, taps]``.

    Args:
        weight: ``[R, C/groups, ...]``, or ``[C, R/groups, ...]`` of a transposed one.
        transposed: which of the two.
        groups: as in torch.
    """
    if not transposed:
        return weight.flatten(2)
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return grouped.transpose(1, 2).flatten(0, 1)


def _of_rows(rows: Tensor, shape: torch.Size, transposed: bool, groups: int) -> Tensor:
    if not transposed:
        return rows.reshape(shape)
    grouped = rows.reshape(groups, shape[1], shape[0] // groups, -1)
    return grouped.transpose(1, 2).reshape(shape).contiguous()


def times_channels(weight: Tensor, factors: Tensor, transposed: bool = False, groups: int = 1) -> Tensor:
    """Return a weight times one number per input channel, ``(C,)``."""
    rows = rows_of(weight, transposed, groups)
    own = factors.to(rows.dtype).reshape(groups, 1, -1).expand(-1, len(rows) // groups, -1)
    return _of_rows(rows * own.reshape(len(rows), -1, 1), weight.shape, transposed, groups)


def to_int8(weight: Tensor, transposed: bool = False, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Return the nearest whole numbers, int8 and shaped like ``weight``, and the scales ``[R]`` float32.

    An output channel of zeros has scale 0.
    """
    rows = rows_of(weight, transposed, groups).double()
    scales = _short((rows.abs().amax((1, 2)) / LARGEST).float())
    whole = torch.where(scales > 0, scales, 1.0).double()[:, None, None]
    numbers = (rows / whole).round().clamp(-LARGEST, LARGEST).to(torch.int8)
    return _of_rows(torch.where(scales[:, None, None] > 0, numbers, 0), weight.shape, transposed, groups), scales


def from_int8(numbers: Tensor, scales: Tensor, transposed: bool = False, groups: int = 1) -> Tensor:
    """Undo :func:`to_int8`: the weights that whole numbers stand for, float32."""
    rows = rows_of(numbers, transposed, groups).float() * scales[:, None, None]
    return _of_rows(rows, numbers.shape, transposed, groups)


def on_grid(weight: Tensor, factors: Tensor | None = None, transposed: bool = False, groups: int = 1) -> Tensor:
    """Return the float32 weight that is left of one after eight bits.

    Args:
        weight: of a convolution.
        factors: powers of two that input channels are multiplied by before, ``(C,)``.
        transposed: see :func:`rows_of`.
        groups: as in torch.
    """
    whole = weight if factors is None else times_channels(weight, factors, transposed, groups)
    rounded = from_int8(*to_int8(whole, transposed, groups), transposed, groups)
    return rounded if factors is None else times_channels(rounded, 1 / factors, transposed, groups)


def _short(scales: Tensor) -> Tensor:
    """Round up to fewer bits of mantissa."""
    words = scales.view(torch.int32)
    return ((words + (1 << _DROPPED) - 1) >> _DROPPED << _DROPPED).view(torch.float32)
