"""Numbers in bytes: how a value of a program is held in eight bits, and what comes of it, exactly.

Sums of products of bytes are whole numbers, and the float32 arithmetic around them is one rounded operation after the
other. So every machine gets the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gancompress.errors import KernelError

__all__ = ["Quantized"]

#: the largest byte
_MOST = 255


@dataclass(frozen=True)
class Quantized:
    """How a value is held in bytes: ``x = scale * (q - zero)``, q from 0 to 255.

    Attributes:
        scale: between neighbouring numbers.
        zero: the byte of 0.0.

    Raises:
        KernelError: the scale is not a positive finite float32, or the zero no byte.
    """

    scale: float
    zero: int = 0

    def __post_init__(self) -> None:
        inverse = 1 / self.scale if self.scale else math.inf
        if not (self.scale > 0 and all(_is_float32(v) for v in (self.scale, inverse))):
            raise KernelError(f"the scale of bytes is a positive number, got {self.scale}")
        if not 0 <= self.zero <= _MOST:
            raise KernelError(f"the byte of zero is 0 to {_MOST}, got {self.zero}")

    def bytes_of(self, x: Tensor) -> Tensor:
        """Return the nearest bytes (ties to even ones), uint8; what is not a number becomes the byte of zero."""
        q = torch.round(x.float() * (1 / self.scale)) + self.zero
        return torch.where(q.isnan(), float(self.zero), q).clamp(0, _MOST).to(torch.uint8)

    def floats_of(self, q: Tensor) -> Tensor:
        """Return what bytes stand for, float32."""
        return (q.to(torch.float32) - self.zero) * self.scale


def _is_float32(value: float) -> bool:
    rounded = float(torch.tensor(value, dtype=torch.float32))
    return math.isfinite(rounded) and rounded > 0
