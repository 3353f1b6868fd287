"""Convolutions and linear layers as matrices: outputs are a matrix times what the layer sees, at every position.

A transposed convolution of stride s computes s outputs between two inputs, each from other taps of its kernel: these
are as many matrices, one for each phase of the output.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Block", "MatrixLayer", "matrix_layers"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclasses.dataclass(frozen=True)
class Block:
    """One matrix of a layer: some outputs, from some inputs, by some taps.

    Attributes:
        group: of the layer's channels.
        phase: of the output, along every axis; zeros unless transposed.
        taps: of the kernel, along every axis; empty for a linear layer.
    """

    group: int
    phase: tuple[int, ...]
    taps: tuple[tuple[int, ...], ...]


class MatrixLayer:
    """One layer as matrices.

    Args:
        name: path of the module.
        module: a convolution with zero padding, a transposed one, or a linear layer.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module: Any = module
        self.transposed = isinstance(module, _TRANSPOSED)
        self.linear = isinstance(module, nn.Linear)
        own: Any = module
        self.groups = 1 if self.linear else int(own.groups)
        self.outputs = int(own.weight.shape[1] * self.groups if self.transposed else own.weight.shape[0])
        kernel: tuple[int, ...] = () if self.linear else tuple(own.kernel_size)
        self._stride: tuple[int, ...] = () if self.linear else tuple(own.stride)
        self._dilation: tuple[int, ...] = () if self.linear else tuple(own.dilation)
        self._padding = () if self.linear else _padding(own)
        phases = self._stride if self.transposed else (1,) * len(kernel)
        self.blocks = [
            Block(group, phase, taps)
            for group in range(self.groups)
            for phase in itertools.product(*map(range, phases))
            if (taps := self._taps(phase, kernel))
        ]

    @property
    def has_bias(self) -> bool:
        """Whether there is a constant to fit, too."""
        return self.module.bias is not None

    def matrix(self, weight: Tensor, block: Block) -> Tensor:
        """Return a block of a tensor of the weight's shape, (outputs of a group, inputs of a group x taps)."""
        return self._chosen(weight, block).flatten(1)

    def put(self, weight: Tensor, block: Block, matrix: Tensor) -> None:
        """Write a block into a tensor of the weight's shape."""
        view = self._grouped(weight)[block.group]
        if self.linear:
            view.copy_(matrix)
            return
        wide = matrix.reshape(matrix.shape[0], -1, len(block.taps))
        for index, tap in enumerate(block.taps):
            at: tuple[Any, ...] = (..., *tap)
            view[at] = wide[..., index].to(view)

    def columns(self, x: Tensor, y: Tensor, block: Block, most: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return what a block sees and gives at some positions of its phase.

        Args:
            x: the layer's input.
            y: its output, or another in its place.
            block: one of the layer's.
            most: positions; more are drawn from.
            rng: of the draw.

        Returns:
            (positions, inputs of a group x taps) and (positions, outputs of a group).
        """
        if self.linear:
            rows, outputs = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            chosen = _draw(len(rows), most, rng)
            return rows[chosen], outputs[chosen]
        sizes = [
            len(range(phase, size, stride if self.transposed else 1))
            for phase, size, stride in zip(block.phase, y.shape[2:], self._stride, strict=True)
        ]
        place = _draw(len(x) * math.prod(sizes), most, rng)
        at: list[Tensor] = []
        for size in reversed(sizes):
            at.append(place % size)
            place = place // size
        at.reverse()
        if self.transposed:
            at = [a * s + p for a, s, p in zip(at, self._stride, block.phase, strict=True)]
        own = slice(block.group * (x.shape[1] // self.groups), (block.group + 1) * (x.shape[1] // self.groups))
        seen = []
        for tap in block.taps:
            where: list[Tensor] = []
            inside = torch.ones(len(place), dtype=torch.bool)
            for axis, (a, t) in enumerate(zip(at, tap, strict=True)):
                stride, dilation, pad = self._stride[axis], self._dilation[axis], self._padding[axis]
                index = (a + pad - t * dilation) // stride if self.transposed else a * stride + t * dilation - pad
                inside &= (index >= 0) & (index < x.shape[2 + axis])
                where.append(index.clamp(0, x.shape[2 + axis] - 1))
            picked: tuple[Any, ...] = (place, slice(None), *where)
            seen.append(x[:, own][picked] * inside[:, None])
        per_group = self.outputs // self.groups
        made: tuple[Any, ...] = (place, slice(block.group * per_group, (block.group + 1) * per_group), *at)
        outputs = y[made]
        return torch.stack(seen, 2).flatten(1), outputs

    def _taps(self, phase: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        if not self.transposed:
            return tuple(itertools.product(*map(range, kernel))) if kernel else ((),)
        along = [
            [tap for tap in range(size) if (at + pad - tap * apart) % step == 0]
            for at, size, step, apart, pad in zip(
                phase, kernel, self._stride, self._dilation, self._padding, strict=True
            )
        ]
        return tuple(itertools.product(*along))

    def _grouped(self, weight: Tensor) -> Tensor:
        """Return a view (groups, outputs of a group, inputs of a group, *kernel)."""
        parts = weight.reshape(self.groups, -1, *weight.shape[1:])
        return parts.transpose(1, 2) if self.transposed else parts

    def _chosen(self, weight: Tensor, block: Block) -> Tensor:
        view = self._grouped(weight)[block.group]
        if self.linear:
            return view
        places: list[tuple[Any, ...]] = [(..., *tap) for tap in block.taps]
        return torch.stack([view[place] for place in places], -1)


def matrix_layers(network: nn.Module, names: Sequence[str]) -> dict[str, MatrixLayer]:
    """Return the layers of these weights (``path.weight``) by the path of their module."""
    paths = [name.removesuffix(".weight") for name in names]
    return {path: MatrixLayer(path, network.get_submodule(path)) for path in paths}


def _padding(module: Any) -> tuple[int, ...]:
    if module.padding == "same":  # what is odd is padded behind, which leaves the share ahead
        return tuple(apart * (size - 1) // 2 for size, apart in zip(module.kernel_size, module.dilation, strict=True))
    return (0,) * len(module.kernel_size) if module.padding == "valid" else tuple(module.padding)


def _draw(count: int, most: int, rng: torch.Generator) -> Tensor:
    return torch.arange(count) if count <= most else torch.randperm(count, generator=rng)[:most]
