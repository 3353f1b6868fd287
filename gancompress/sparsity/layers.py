"""What a method and a pattern know of the layer that a prunable weight belongs to; nothing here needs a network."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, TypeAlias

__all__ = ["Connections", "Layer", "LayerKind"]

LayerKind: TypeAlias = Literal["convolution", "transposed convolution", "linear"]

#: how the neighbours of a layer were found: ``traced`` along the network's own computation, by the ``order`` of its
#: modules where that failed, or not at all (``unknown``)
Connections: TypeAlias = Literal["traced", "order", "unknown"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """Facts about one layer; its weight has the same name in :attr:`~gancompress.methods.base.NetView.weights`.

    Attributes:
        kind: ``convolution`` and ``linear`` weights are (out, in / groups, *kernel), those of a ``transposed
            convolution`` (in, out / groups, *kernel).
        shape: shape of the weight.
        groups: groups of channels that do not see each other.
        stride: of a convolution, one number per spatial dimension.
        bias: name of the bias, as in ``named_parameters()``; ``None`` without one.
        output: whether it makes the image or the logits.
        norm: name of the normalisation that takes this layer's output and nothing else; ``None`` without one, or when
            ``connections`` is not ``traced``.
        sources: names of the prunable weights, masked or not, that feed this layer with none between; empty where
            the network's input does.
        targets: names of the prunable weights that it feeds; empty where it makes the network's output.
        connections: how ``sources`` and ``targets`` were found; ``unknown``: they are empty and say nothing.
    """

    kind: LayerKind
    shape: tuple[int, ...]
    groups: int = 1
    stride: tuple[int, ...] = ()
    bias: str | None = None
    output: bool = False
    norm: str | None = None
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    connections: Connections = "unknown"

    @property
    def output_axis(self) -> int:
        """Axis of the weight that runs over output channels (of one group, in a transposed convolution)."""
        return int(self.kind == "transposed convolution")

    @property
    def input_axis(self) -> int:
        """Axis of the weight that runs over input channels (of one group, but in a transposed convolution)."""
        return 1 - self.output_axis

    @property
    def kernel_axes(self) -> tuple[int, ...]:
        """Axes of the weight that run over the positions of the kernel; empty for a linear layer."""
        return tuple(range(2, len(self.shape)))

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel; empty for a linear layer."""
        return self.shape[2:]

    @property
    def taps(self) -> int:
        """Positions of the kernel; 1 for a linear layer."""
        return math.prod(self.kernel)

    @property
    def outputs(self) -> int:
        """Output channels of one group."""
        return self.shape[self.output_axis] // (1 if self.output_axis else self.groups)

    @property
    def inputs(self) -> int:
        """Input channels of one group."""
        return self.shape[self.input_axis] // (self.groups if self.output_axis else 1)

    def box(self, outputs: int, inputs: int, *, kernel: bool = False) -> tuple[int, ...] | None:
        """Return ``outputs`` x ``inputs`` weights as extents along the axes of the weight; ``None`` if they do not fit.

        Args:
            outputs: output channels, which must divide those of a group.
            inputs: input channels, which must divide those of a group.
            kernel: whether the box holds the whole kernel, or one position of it.
        """
        if self.outputs % outputs or self.inputs % inputs:
            return None
        first, second = (inputs, outputs) if self.output_axis else (outputs, inputs)
        return (first, second, *(self.kernel if kernel else (1,) * len(self.kernel)))
