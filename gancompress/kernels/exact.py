"""What stands between programs in bytes, in float32: a linear layer and a tanh that every machine rounds alike.

Each is a fixed row of single operations, multiplications and additions apart, in the same order on every instruction
set, in a web page and here. Without the kernels torch does the same operations, slowly.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.nn.functional import pad

from gancompress.kernels.native_library import LinearArgs, library

__all__ = ["TiledLinear", "exact_tanh"]

#: outputs of a tile of weights: ``kLanes`` in ``native/isa.h``
_TILE = 16
#: below it tanh is a polynomial; where that and the other numbers come from stands in ``native/impl_smooth.h``
_FLAT = 0.625


class TiledLinear:
    """A linear layer: sums in float32 that begin at the bias and take the inputs in their order.

    Args:
        weight: (out_features, in_features).
        bias: (out_features,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outputs, self.inputs = weight.shape
        missing = -self.outputs % _TILE
        columns = pad(weight.detach().to("cpu", torch.float32), (0, 0, 0, missing))
        self._tiles = columns.reshape(-1, _TILE, self.inputs).transpose(1, 2).contiguous()
        start = columns.new_zeros(self.outputs) if bias is None else bias.detach().to("cpu", torch.float32)
        self._bias = pad(start, (0, missing))

    @property
    def weight(self) -> Tensor:
        """The weight, (out_features, in_features) float32."""
        return self._tiles.transpose(1, 2).reshape(-1, self.inputs)[: self.outputs]

    def __call__(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features), float32."""
        points = x.detach().to("cpu", torch.float32).reshape(-1, self.inputs).contiguous()
        out = torch.empty(len(points), self.outputs, dtype=torch.float32)
        lib = library()
        if lib is None:
            sums = self._bias[: self.outputs].repeat(len(points), 1)
            for given, weights in zip(points.T, self.weight.T, strict=True):
                sums += given[:, None] * weights
            out = sums
        elif len(points):
            args = LinearArgs(
                *(t.data_ptr() for t in (points, self._tiles, self._bias, out)), len(points), self.inputs, self.outputs
            )
            lib.check(lib.raw.gc_linear(ctypes.byref(args), lib.isa_index))
        return out.reshape(*x.shape[:-1], self.outputs)


def exact_tanh(x: Tensor) -> Tensor:
    """Return the tanh as float32, to a few units in the last place, the same on every machine."""
    x = x.detach().to("cpu", torch.float32).contiguous()
    lib = library()
    if lib is not None:
        out = torch.empty_like(x)
        lib.check(lib.raw.gc_tanh(x.data_ptr(), x.numel(), out.data_ptr(), lib.isa_index))
        return out
    size = x.abs()
    square = size * size
    part = square * -0.00610495 + 0.02100364
    part = part * square - 0.0538525
    part = part * square + 0.13332782
    part = part * square - 0.33333329
    flat = size + size * square * part
    e = _exponential(size * -2.0)
    steep = (1.0 - e) / (1.0 + e)
    return torch.where(size < _FLAT, flat, steep).copysign(x)


def _exponential(v: Tensor) -> Tensor:
    v = torch.where(v < -87.3, -87.3, v)
    v = torch.where(v > 89.0, 89.0, v)
    shifted = v * 1.44269504 + 12582912.0
    whole = shifted - 12582912.0
    rest = (v - whole * 0.693145752) - whole * 1.42860677e-6
    part = rest * 0.00139339 + 0.00836335
    part = part * rest + 0.04166646
    part = part * rest + 0.16666576
    part = part * rest + 0.5
    power = ((shifted.view(torch.int32) << 23) + (127 << 23)).view(torch.float32)
    return (part * rest * rest + rest + 1.0) * power
