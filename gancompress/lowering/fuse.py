"""What is fused into what is there: scales into weights, activations and sums into convolutions.

The operations of a graph, one function each, are in :mod:`gancompress.lowering.operations`. What has no place in a
program raises :class:`UnfitError` with the operation that must stay in torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.graphs.graph import Stored, Value
from gancompress.lowering.made import NO_SIDES, Conv, Factor, Made, Norm, Read, Sum, Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.graphs.graph import Argument, Node
    from gancompress.kernels import Activation

__all__ = ["Fusion", "UnfitError"]

#: addends of one convolution
_MOST = 3


class UnfitError(Exception):
    """An operation cannot be part of the program that it was tried in.

    Attributes:
        node: its name.
    """

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node


class Fusion:
    """The operations of one region, taken in one by one.

    Args:
        shapes: of every value, ``[N, C, L]`` or ``[N, C, H, W]``, or a number.
        tensors: that are stored beside the graph.
        constants: values that are computed of these alone.
        numbers: values that are known: sizes.
        reads: what the region reads from outside; every operation adds its own.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor],
        numbers: Mapping[str, Any], reads: dict[str, Read],
    ) -> None:  # fmt: skip
        self.shapes, self.numbers, self.reads = shapes, numbers, reads
        self.tensors, self.constants = tensors, constants
        self.made: list[Made] = []

    def take(self, node: Node, read: Read, shared: bool) -> None:
        """Take one operation's result in; ``shared`` says that not exactly one other operation reads it."""
        self.reads[node.name] = read
        if shared:
            self.close(read)

    def result(self, name: str) -> Made:
        """Return what the value called ``name`` is, computed in full."""
        return self.whole(self.reads[name])

    # -------------------------------------------------------------------------------------------------- arguments

    def arguments(self, node: Node, *names: str, **defaults: Any) -> list[Any]:
        """Return the arguments of a node by the names that torch calls them, sizes as numbers."""
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        return [self._known(given.get(name, defaults.get(name))) for name in names]

    def _known(self, argument: Argument) -> Any:
        if isinstance(argument, tuple):
            return tuple(self._known(one) for one in argument)
        if isinstance(argument, Value) and argument.name in self.numbers:
            return self.numbers[argument.name]
        return argument

    def map(self, argument: Argument, regrouped: bool = False) -> Read:
        """Return a map that is an argument, one of groups of channels only for whom knows these."""
        read = self.reads[argument.name]
        if read.regrouped and not regrouped:
            raise UnfitError(read.by)
        return read

    def is_map(self, argument: Argument) -> bool:
        """Return whether an argument is a map of this region."""
        return isinstance(argument, Value) and argument.name in self.reads

    def stored(self, argument: Argument) -> Tensor | None:
        """Return a tensor that is an argument and known before any input is, None where there is none."""
        if isinstance(argument, Stored):
            return self.tensors[argument.name].detach()
        return self.constants.get(argument.name) if isinstance(argument, Value) else None

    def factor(self, argument: Argument, node: Node) -> Factor:
        """Return a number, or numbers per channel, as a factor of the map that ``node`` gives: ``(C,)``."""
        channels, axes = self.shapes[node.name][1], len(self.shapes[node.name]) - 2
        tensor = self.stored(argument)
        if isinstance(argument, Value) and tensor is None:  # per image and channel
            images, *rest = self.shapes.get(argument.name, (0,))
            if images not in (1, self.shapes[node.name][0]) or rest != [channels] + [1] * axes:
                raise UnfitError(node.name)
            return argument
        tensor = torch.tensor(float(argument)) if tensor is None else tensor
        ones = (1,) * (len(self.shapes[node.name]) - tensor.dim()) + tuple(tensor.shape)
        if ones[0] != 1 or ones[1] not in (1, channels) or ones[2:] != (1,) * axes:
            raise UnfitError(node.name)
        return tensor.double().reshape(-1).expand(channels).contiguous()

    # -------------------------------------------------------------------------------------------------- pieces

    def close(self, *reads: Read) -> None:
        """Say that what is read is not to be changed any more."""
        for read in reads:
            for part in read.parts:
                part.open = False

    def whole(self, read: Read) -> Made:
        """Return a result that is what ``read`` says, with a step that computes it where there is none."""
        if read.regrouped:
            raise UnfitError(read.by)
        if read.bare:
            self.close(read)
            return read.parts[0]
        if read.factor != 1 and isinstance(read.slope, str):
            read = self.settled(read)
        if len(read.parts) > 1 or read.affine or read.sides != NO_SIDES or (read.slope is not None and read.factor < 0):
            raise UnfitError(read.by)
        part = read.parts[0]
        self.close(read)
        shape = (part.shape[0], part.shape[1] * read.up, part.shape[2] * read.up)
        made = Sum(read.by, shape, [Term(part, read.factor, read.up)], read.slope)
        self.made.append(made)
        return made

    def settled(self, read: Read) -> Read:
        """Return the same with its activation computed."""
        made = self.whole(replace(read, factor=1.0, up=1, sides=NO_SIDES))
        return replace(read, parts=(made,), slope=None)

    def into(self, read: Read) -> Conv | Sum | None:
        """Return what may be changed so that ``read`` is changed; its activation is not yet set."""
        made = read.parts[0]
        return made if read.bare and made.open and isinstance(made, Conv | Sum) and made.activation is None else None

    def times(self, read: Read, factor: float, node: Node) -> Read:
        """Return ``factor`` times a map."""
        made = read.parts[0]
        fits = isinstance(made, Conv | Sum) and (
            made.activation is None or (factor > 0 and not isinstance(made.activation, str))
        )
        if read.bare and made.open and fits and isinstance(made, Conv | Sum):
            for term in made.add:
                term.factor *= factor
            if isinstance(made, Conv):
                made.weight = made.weight * factor
                made.bias = None if made.bias is None else made.bias * factor
            return replace(read, by=node.name)
        return replace(read, factor=read.factor * factor, by=node.name)

    def affine(self, read: Read, gain: Factor, bias: Factor, node: Node) -> Read:
        """Return a map times ``gain`` plus ``bias``, per channel."""
        made = self.into(read)
        constant = all(one is None or isinstance(one, Tensor) for one in (gain, bias))
        if isinstance(made, Conv) and constant and (gain is None or not made.add):
            self._merge(made, gain, bias)
            return replace(read, by=node.name)
        norm = read.parts[0]
        if isinstance(norm, Norm) and norm.open and read.bare and constant:
            ones = torch.ones(norm.shape[0], dtype=torch.float64)
            weight, shift = (ones if norm.weight is None else norm.weight.double()), norm.bias
            if isinstance(gain, Tensor):
                weight, shift = weight * gain, None if shift is None else shift * gain
            if isinstance(bias, Tensor):
                shift = bias if shift is None else shift + bias
            norm.weight, norm.bias = weight, shift
            return replace(read, by=node.name)
        if read.slope is not None or (read.sides != NO_SIDES and read.border == "zeros" and bias is not None):
            raise UnfitError(node.name)
        read = self.unscaled(read, node)
        return replace(read, affine=(*read.affine, (gain, bias)))

    def _merge(self, made: Conv, gain: Factor, bias: Factor) -> None:
        """Put an affine map behind a convolution into its weights."""
        if isinstance(gain, Tensor):
            gain = gain.repeat_interleave(made.shuffle**2)
            rows = [1] * made.weight.dim()
            if made.transposed:
                own = gain.reshape(made.groups, 1, -1).expand(-1, made.weight.shape[0] // made.groups, -1)
                made.weight = made.weight.double() * own.reshape(made.weight.shape[0], -1, 1, 1)
            else:
                rows[0] = -1
                made.weight = made.weight.double() * gain.reshape(rows)
            made.bias = None if made.bias is None else made.bias.double() * gain
        if isinstance(bias, Tensor):
            bias = bias.repeat_interleave(made.shuffle**2)
            made.bias = bias if made.bias is None else made.bias.double() + bias

    def unscaled(self, read: Read, node: Node) -> Read:
        """Return the same with its factor ahead of the activation."""
        if read.factor == 1:
            return replace(read, by=node.name)
        if read.slope is not None and (read.factor < 0 or isinstance(read.slope, str)):
            raise UnfitError(read.by)
        gain = torch.full((read.channels,), read.factor, dtype=torch.float64)
        return replace(read, affine=(*read.affine, (gain, None)), factor=1.0, by=node.name)

    def activated(self, read: Read, slope: Activation, node: Node) -> Read:
        """Return an activation of a map."""
        made = self.into(read)
        if made is not None:
            made.activation = slope
            return replace(read, by=node.name)
        if isinstance(read.slope, str) or (isinstance(slope, str) and read.slope is not None):
            read = self.settled(read)
        if slope == "sigmoid" and read.border == "zeros" and read.sides != NO_SIDES:
            raise UnfitError(node.name)  # which makes no 0 of 0
        if read.slope is None:
            return replace(self.unscaled(read, node), slope=slope, by=node.name)
        assert not isinstance(read.slope, str)
        assert not isinstance(slope, str)
        if read.factor < 0 or (torch.as_tensor(read.slope) < 0).any():
            raise UnfitError(node.name)
        return replace(read, slope=read.slope * slope, by=node.name)

    def added(self, a: Read, b: Read, node: Node) -> Read:
        """Return the sum of two maps of one size."""
        for own, other in sorted(((a, b), (b, a)), key=lambda pair: -self._age(pair[0])):
            made = self.into(own)
            if made is not None and len(made.add) < _MOST and other.parts != own.parts:
                made.add.append(self._term(other))
                return replace(own, by=node.name)
        shape = self._size(a)
        made = Sum(node.name, shape, [self._term(a), self._term(b)])
        self.made.append(made)
        return Read((made,), node.name)

    def _age(self, read: Read) -> int:
        return self.made.index(read.parts[0]) if read.parts[0] in self.made else -1

    def _term(self, read: Read) -> Term:
        if not read.addable:
            return Term(self.whole(read))
        self.close(read)
        return Term(read.parts[0], read.factor, read.up)

    def _size(self, read: Read) -> tuple[int, int, int]:
        rows, columns = (size * read.up for size in read.parts[0].shape[1:])
        top, bottom, left, right = read.sides
        return read.channels, rows + top + bottom, columns + left + right
