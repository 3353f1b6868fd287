"""Training with the rounding of a program in bytes: layers see what their int8 versions will see.

Forward, what a convolution reads and its weight lie on the very grids that the program in bytes has (Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018); sums stay in
float. Backward, rounding counts as the identity (the straight-through estimator of Bengio, Léonard and Courville,
"Estimating or Propagating Gradients Through Stochastic Neurons", 2013), and what lies past the ends of its range gets
no gradient. Nothing is learned of the ranges. Parameters, their names and the state of a network stay as they are.
"""

from __future__ import annotations

import contextlib
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.kernels.upsampling import folded
from gancompress.quantization.weights import on_grid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from gancompress.quantization.ranges import LayerBytes

__all__ = ["rounding"]

_MOST = 255
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


@contextlib.contextmanager
def rounding(network: nn.Module, ranges: Mapping[str, LayerBytes], doubled: Collection[str] = ()) -> Iterator[None]:
    """Let the convolutions of a network compute with the rounding of bytes inside.

    Args:
        network: changed inside, and as it was afterwards. A name without a convolution's module in it is left out.
        ranges: by the names of weights, as :func:`~gancompress.quantization.programs.named` takes them.
        doubled: names of those whose taps are merged with the doubling of pixels ahead of them, from
            :func:`~gancompress.quantization.programs.merges`.
    """
    modules = dict(network.named_modules())
    changed = []
    try:
        for name, own in ranges.items():
            layer = modules.get(name.removesuffix(".weight"))
            if isinstance(layer, _LAYERS):
                # of this instance alone; hooks, parametrisations and whatever else a layer has stay as they are
                layer.__dict__["forward"] = MethodType(_Rounded(own, name in doubled), layer)
                changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.__dict__["forward"]


class _Rounded:
    """The forward pass of one convolution."""

    def __init__(self, own: LayerBytes, doubled: bool) -> None:
        self._own, self._doubled = own, doubled

    def __call__(self, layer: Any, x: Tensor) -> Any:
        transposed = isinstance(layer, _TRANSPOSED)
        weight = self._weight(layer.weight, transposed, layer.groups)
        x = self._read(x[..., ::2, ::2] if self._doubled else x)
        if self._doubled:
            kernel = self._weight(folded(weight, "up"), transposed=True, groups=1)
            return F.conv_transpose2d(x, kernel, layer.bias, stride=2, padding=1)
        if not transposed:
            return layer._conv_forward(x, weight, layer.bias)
        function = getattr(F, f"conv_transpose{weight.dim() - 2}d")
        settings = layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
        return function(x, weight, layer.bias, *settings)

    def _read(self, x: Tensor) -> Tensor:
        factors, stored = self._own.factors, self._own.stored
        if factors is not None:
            factors = factors.reshape(-1, *[1] * (x.dim() - 2)).to(x.device)
            x = x / factors
        x = torch.fake_quantize_per_tensor_affine(x, stored.scale, stored.zero, 0, _MOST)
        return x if factors is None else x * factors

    def _weight(self, weight: Tensor, transposed: bool, groups: int) -> Tensor:
        plain, factors = weight.detach(), self._own.factors
        rounded = on_grid(plain, None if factors is None else factors.to(weight.device), transposed, groups)
        return weight + (rounded - plain)
