"""Convolutions and linear layers as matrices: outputs are a matrix times columns of the input, one for each position."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MatrixLayer", "matrix_layers"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class MatrixLayer:
    """One layer seen as a matrix for each of its groups.

    A transposed convolution is an ordinary one over its input with zeros between the elements.

    Args:
        name: of the module.
        module: a convolution with zero padding, a transposed one, or a linear layer.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module: Any = module
        self.transposed = isinstance(module, _TRANSPOSED)
        self.linear = isinstance(module, nn.Linear)
        self.groups = 1 if self.linear else int(self.module.groups)
        shape = self.module.weight.shape
        self.outputs = int(shape[1] * self.groups if self.transposed else shape[0])

    @property
    def has_bias(self) -> bool:
        """Whether there is a constant to fit, too."""
        return self.module.bias is not None

    def matrix(self, weight: Tensor) -> Tensor:
        """Return a tensor of the weight's shape as (groups, outputs of a group, inputs of a group x taps)."""
        if self.linear:
            return weight[None]
        groups = self.groups
        if self.transposed:
            flipped = weight.flip(tuple(range(2, weight.dim()))).unflatten(0, (groups, -1)).transpose(1, 2)
            return flipped.flatten(3).flatten(2)
        return weight.unflatten(0, (groups, -1)).flatten(2)

    def weight(self, matrix: Tensor) -> Tensor:
        """Undo :meth:`matrix`."""
        shape = self.module.weight.shape
        if self.linear:
            return matrix[0]
        if self.transposed:
            whole = matrix.unflatten(2, (-1, *shape[2:])).transpose(1, 2).flatten(0, 1)
            return whole.flip(tuple(range(2, len(shape))))
        return matrix.flatten(0, 1).reshape(shape)

    def columns(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Return what the layer sees at some output positions.

        Args:
            x: its input.
            chosen: indices into the positions, see :meth:`positions`, of the whole batch.

        Returns:
            (groups, positions, inputs of a group x taps), and a last column of ones where there is a bias.
        """
        if self.linear:
            seen = x.reshape(-1, x.shape[-1])[chosen][None]
        else:
            seen = self._windows(x, chosen)
        if self.has_bias:
            seen = torch.cat([seen, seen.new_ones(*seen.shape[:2], 1)], 2)
        return seen

    def outputs_at(self, y: Tensor, chosen: Tensor) -> Tensor:
        """Return the layer's output at the same positions, (groups, positions, outputs of a group)."""
        rows = y.reshape(-1, y.shape[-1]) if self.linear else y.flatten(2).transpose(1, 2).flatten(0, 1)
        return rows[chosen].unflatten(1, (self.groups, -1)).transpose(0, 1)

    def positions(self, y: Tensor) -> int:
        """Return how many output positions a batch has."""
        return y.numel() // self.outputs

    def _windows(self, x: Tensor, chosen: Tensor) -> Tensor:
        module = self.module
        kernel, dilation = tuple(module.kernel_size), tuple(module.dilation)
        stride, padding = tuple(module.stride), self._padding(module, kernel, dilation)
        if self.transposed:
            x, ahead = _spread(x, stride), []
            for pad, size, apart in zip(padding, kernel, dilation, strict=True):
                ahead.append(apart * (size - 1) - pad)
            around = [(one, one + more) for one, more in zip(ahead, module.output_padding, strict=True)]
            stride = (1,) * len(kernel)
        else:
            around = [(one, one) for one in padding]
        x = F.pad(x, [one for pair in reversed(around) for one in pair])
        sizes = [
            (whole - apart * (size - 1) - 1) // step + 1
            for whole, size, apart, step in zip(x.shape[2:], kernel, dilation, stride, strict=True)
        ]
        per_image = math.prod(sizes)
        image, place = chosen // per_image, chosen % per_image
        where = []
        for size in reversed(sizes):
            where.append(place % size)
            place = place // size
        where.reverse()
        taps = []
        for tap in itertools.product(*map(range, kernel)):
            at = [w * s + t * d for w, s, t, d in zip(where, stride, tap, dilation, strict=True)]
            taps.append(x[(image, slice(None), *at)])  # (positions, inputs)
        seen = torch.stack(taps, 2)  # (positions, inputs, taps)
        return seen.unflatten(1, (self.groups, -1)).flatten(2).transpose(0, 1)

    @staticmethod
    def _padding(module: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
        if module.padding == "same":
            return tuple(apart * (size - 1) // 2 for size, apart in zip(kernel, dilation, strict=True))
        return (0,) * len(kernel) if module.padding == "valid" else tuple(module.padding)


def _spread(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Put zeros between the elements."""
    sizes = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], stride, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *sizes)
    wide[(slice(None), slice(None), *(slice(None, None, step) for step in stride))] = x
    return wide


def matrix_layers(network: nn.Module, names: Sequence[str]) -> dict[str, MatrixLayer]:
    """Return the layers of these weights (``path.weight``) by the path of their module."""
    paths = [name.removesuffix(".weight") for name in names]
    return {path: MatrixLayer(path, network.get_submodule(path)) for path in paths}
