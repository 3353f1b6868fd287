"""What a network computes whatever its inputs are: the numbers that zeros in its weights have made constant."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.channels.trace import CHANNELWISE, ELEMENTWISE, MOVES, short
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.graph import Stored, Value
from gancompress.graphs.naming import is_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gancompress.graphs.graph import Argument, Node

__all__ = ["Known"]

#: give a number that depends on the inputs exactly where one of those that it is made of does
_SPREADS = (
    MOVES | (CHANNELWISE - {"upsample_bicubic2d", "grid_sampler_2d"}) | {"sum", "mean", "amax", "constant_pad_nd"}
)


class Known:
    """Every value of one call, and which of its numbers depend on the inputs.

    An operation is computed twice: on the numbers, with zeros in place of those that depend on the inputs; and on ones
    where they do and zeros elsewhere, layers with ones for their weights that are not zero. What comes out as exactly 0
    there is known. Operations without a rule depend on the inputs everywhere.

    Args:
        network: a captured one.
        inputs: of a call; only their shapes and dtypes matter.
    """

    def __init__(self, network: CapturedModule, inputs: Sequence[Tensor]) -> None:
        self._network = network
        state = network.state_dict()
        self._tensors = {name: state[name] for name in network.captured.tensors}
        layers = [node for node in network.captured.nodes if is_layer(node)]
        weights = {node.args[1].name for node in layers if isinstance(node.args[1], Stored)}
        biases = {node.args[2].name for node in layers if len(node.args) > 2 and isinstance(node.args[2], Stored)}
        ones = {
            name: (tensor != 0).to(tensor.dtype) if name in weights else tensor.clone()
            for name, tensor in self._tensors.items()
        }
        self._spread = CapturedModule(
            network.captured, ones | {name: torch.zeros_like(self._tensors[name]) for name in biases}
        )
        self._numbers: dict[str, Any] = {}
        self._moving: dict[str, Any] = {}
        with torch.no_grad():
            for one, x in zip(network.captured.inputs, inputs, strict=True):
                self._numbers[one.name] = torch.zeros_like(x)
                self._moving[one.name] = torch.ones_like(x, dtype=torch.bool)
            for index, node in enumerate(network.captured.nodes):
                self._compute(index, node)

    def channels(self, argument: Argument, axis: int) -> tuple[Tensor, Tensor]:
        """Return of every channel of a value whether it is one number whatever the inputs are, and which (channels,).

        Args:
            argument: a value or a stored tensor.
            axis: along which its channels lie.
        """
        numbers, moving = (one.movedim(axis, 0).flatten(1) for one in (self._number(argument), self._moves(argument)))
        first = numbers[:, :1]
        return ~moving.any(1) & (numbers == first).all(1), first[:, 0]

    def _number(self, argument: Argument) -> Any:
        if isinstance(argument, Stored):
            return self._tensors[argument.name]
        return self._numbers[argument.name]

    def _moves(self, argument: Argument) -> Any:
        if isinstance(argument, Stored):
            return torch.zeros_like(self._tensors[argument.name], dtype=torch.bool)
        return self._moving[argument.name]

    def _compute(self, index: int, node: Node) -> None:
        found = self._network.operation(index, self._numbers)
        if isinstance(found, Tensor):
            moving = self._rule(index, node, found)
            self._moving[node.name] = moving
            self._numbers[node.name] = torch.where(moving, torch.zeros((), dtype=found.dtype), found)
        elif isinstance(found, list | tuple) and all(isinstance(part, Tensor) for part in found):
            parts = self._rule(index, node, found)
            self._moving[node.name] = parts
            self._numbers[node.name] = [
                torch.where(moving, torch.zeros((), dtype=part.dtype), part)
                for part, moving in zip(found, parts, strict=True)
            ]
        else:  # a size
            self._numbers[node.name] = self._moving[node.name] = found

    def _rule(self, index: int, node: Node, found: Any) -> Any:
        """Return which numbers of a result depend on the inputs, bool of its shape; a list for a list."""
        tensors = [one for one in node.references() if isinstance(self._number(one), Tensor | list)]
        name = "getitem" if node.op == "operator.getitem" else short(node.op)
        if not any(self._anything(self._moves(one)) for one in tensors):
            return _like(found, torch.zeros)
        if name == "getitem":
            return self._moving[node.args[0].name][node.args[1]]
        if is_layer(node) and isinstance(node.args[1], Stored):
            return self._spreading(index, node)
        if name in _SPREADS:
            return self._spreading(index, node)
        if name in ELEMENTWISE:
            return self._elementwise(tensors, name).expand(found.shape)
        if name == "batch_norm" and not any(isinstance(one, Value) for one in node.args[1:5]):
            moving = self._moves(node.args[0])
            if isinstance(node.args[1], Stored):  # a scale of 0
                gain = self._number(node.args[1]) != 0
                moving = moving & gain.view(-1, *[1] * (moving.dim() - 2))
            return moving
        if name == "embedding" and isinstance(node.args[0], Stored):
            table = self._number(node.args[0])
            return (table != table[:1]).any(0).expand(found.shape)
        if name in ("bmm", "matmul", "mm"):
            (a, b), (to_a, to_b) = ([get(one).double() for one in node.args[:2]] for get in (self._number, self._moves))
            reach_a, reach_b = ((x != 0).double() + moves for x, moves in ((a, to_a), (b, to_b)))
            return (to_a @ reach_b + reach_a @ to_b) != 0
        return _like(found, torch.ones)

    def _elementwise(self, tensors: Sequence[Value | Stored], name: str) -> Tensor:
        moving: list[Tensor] = [self._moves(one) for one in tensors]
        if name == "mul" and len(tensors) == 2:  # whatever is multiplied by 0
            one, other = ((self._number(tensor) != 0) | moves for tensor, moves in zip(tensors, moving, strict=True))
            found: Tensor = (moving[0] & other) | (moving[1] & one)
            return found
        if "prelu" in name:  # its slopes lie along the channels
            return moving[0] | moving[1].any()
        return functools.reduce(torch.logical_or, moving)

    def _spreading(self, index: int, node: Node) -> Any:
        # the first argument of a move may be a stored tensor, which moves nothing
        values = {one.name: _as_float(self._moving[one.name]) for one in node.references() if isinstance(one, Value)}
        first = torch.zeros_like(self._number(node.args[0])) if isinstance(node.args[0], Stored) else None
        if short(node.op) == "constant_pad_nd" and len(node.args) > 2:
            found = torch.nn.functional.pad(values[node.args[0].name], node.args[1])
        else:
            found = self._spread.operation(index, values, first)
        return [part != 0 for part in found] if isinstance(found, list | tuple) else found != 0

    @staticmethod
    def _anything(moving: Any) -> bool:
        return any(bool(one.any()) for one in (moving if isinstance(moving, list) else [moving]))


def _as_float(moving: Any) -> Any:
    if isinstance(moving, list):
        return [_as_float(one) for one in moving]
    return moving.float() if isinstance(moving, Tensor) else moving


def _like(found: Any, make: Callable[..., Tensor]) -> Any:
    if isinstance(found, Tensor):
        return make(found.shape, dtype=torch.bool)
    return [make(part.shape, dtype=torch.bool) for part in found]
