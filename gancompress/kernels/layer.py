"""The shape of a layer: all that its time on the kernels depends on, but its density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Layer"]


@dataclass(frozen=True)
class Layer:
    """All that the time of a layer depends on, but its density.

    Attributes:
        op: ``conv``, ``transpose`` or ``linear``.
        weight: the weight's shape.
        batch: images, or points of a linear layer.
        height: of the input, in pixels (1 for linear).
        width: of the input, in pixels (1 for linear).
        stride: both dimensions.
        padding: both dimensions.
        output_padding: of a transposed convolution.
        groups: of a convolution; each sees its own share of the channels.
        batch_last: maps come and go batch last (see :mod:`gancompress.kernels.layout`).
        bf16: under autocast in bf16; numbers are rounded to it before they are multiplied where :attr:`in_pairs`.
    """

    op: Literal["conv", "transpose", "linear"]
    weight: tuple[int, ...]
    batch: int
    height: int = 1
    width: int = 1
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    groups: int = 1
    batch_last: bool = False
    bf16: bool = False

    @property
    def in_pairs(self) -> bool:
        """Whether pairs of channels are multiplied in bf16: both numbers are even, and there is one group.

        A layer without pairs, as of colours, is computed in float32 under autocast too, where that is faster.
        """
        return self.bf16 and self.groups == 1 and self.weight[0] % 2 == 0 and self.weight[1] % 2 == 0

    @property
    def pointwise(self) -> bool:
        """Whether it is a 1x1 convolution of all pixels, which is a product of matrices where maps lie batch last."""
        alone = self.op == "conv" and self.weight[2:] == (1, 1)
        return alone and self.stride == 1 and self.padding == 0 and self.groups == 1

    @property
    def out_size(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        if self.op == "linear":
            return 1, 1
        kh, kw = self.weight[2:]
        if self.op == "conv":
            return (
                (self.height + 2 * self.padding - kh) // self.stride + 1,
                (self.width + 2 * self.padding - kw) // self.stride + 1,
            )
        less = 2 * self.padding - self.output_padding
        return (self.height - 1) * self.stride - less + kh, (self.width - 1) * self.stride - less + kw

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        channels = self.weight[1] * self.groups if self.op == "transpose" else self.weight[0]
        return (self.batch, channels) if self.op == "linear" else (self.batch, channels, *self.out_size)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        channels = self.weight[0] if self.op == "transpose" else self.weight[1] * self.groups
        return (self.batch, channels) if self.op == "linear" else (self.batch, channels, self.height, self.width)
