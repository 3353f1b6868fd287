"""Channels that nothing depends on, as zeros in weights leave them: found, and taken away with equal outputs.

A channel is empty when no output can be reached from it. From a channel one gets to another through the weights that
are not zero, unless what it carries there is always 0, or always one number and a bias takes that in; where a border of
zeros is padded on, that number is not what the layer sees everywhere, and no bias can replace it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.channels.atoms import FIXED, narrowed
from gancompress.channels.cut import cut_network, cut_tensors
from gancompress.channels.known import Known
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.graph import Stored
from gancompress.graphs.naming import is_layer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gancompress.channels.groups import ChannelGroup, Channels
    from gancompress.graphs.graph import Argument, Node

__all__ = ["Empty", "empty_channels", "prunable_groups"]


@dataclasses.dataclass(frozen=True)
class Empty:
    """What a network does not need.

    Attributes:
        channels: of the network.
        kept: those that it needs, bool (width,), by the names of all groups; one at least of each.
        folded: what its biases gain when the others go, by name.
    """

    channels: Channels
    kept: Mapping[str, Tensor]
    folded: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        """How many channels are empty."""
        return sum(int((~kept).sum()) for kept in self.kept.values())

    def cut(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of the network without what belongs to empty channels, by the names of plain weights."""
        whole = {name: one + self.folded[name] if name in self.folded else one for name, one in state.items()}
        return cut_tensors(whole, self.channels.indices(self.kept))

    def cut_network(self, network: CapturedModule) -> CapturedModule:
        """Return the captured network without them."""
        state = network.state_dict()
        whole = {name: state[name] + self.folded.get(name, 0) for name in network.captured.tensors}
        return cut_network(CapturedModule(network.captured, whole), self.channels, self.kept)


@dataclasses.dataclass(frozen=True)
class _Reading:
    """One use of one layer: which input channels reach which outputs.

    Attributes:
        ins: labels of its input channels, along one axis of the weight.
        outs: labels of its outputs, along the other.
        reaches: bool (ins, outs).
        bias: takes in what is constant; empty where nothing can.
        constant: what every input channel carries where that is one number, else 0 (ins,).
        weight: summed over its kernel (ins, outs).
    """

    ins: Tensor
    outs: Tensor
    reaches: Tensor
    bias: str
    constant: Tensor
    weight: Tensor


def empty_channels(network: CapturedModule, channels: Channels, inputs: Sequence[Tensor]) -> Empty:
    """Find the channels of a network that no output depends on.

    Args:
        network: its masked weights are zeros.
        channels: of it.
        inputs: of a call, two images at least; only their shapes matter.
    """
    known = Known(network, inputs)
    readings = [one for node in network.captured.nodes if (one := _reading(network, channels, known, node)) is not None]
    live = torch.zeros(channels.trace.atoms.count, dtype=torch.bool)
    live[FIXED] = True
    for place in channels.trace.summed:
        labels = [_labels(channels, argument, axis) for argument, axis in place]
        silent = [one & (number == 0) for one, number in (known.channels(*part) for part in place)]
        live[labels[0][~torch.stack(silent).any(0)]] = True
    while True:
        _spread(live, readings)
        lone = [roots[0] for roots in channels.roots if not bool(live[roots].any())]
        if not lone:
            break
        live[torch.stack(lone)] = True  # a layer keeps one channel at least, and whatever that needs
    kept = {group.name: live[roots] for group, roots in zip(channels.groups, channels.roots, strict=True)}
    gone = channels.gone(kept)
    folded: dict[str, Tensor] = {}
    for one in readings:
        carried = torch.where(torch.isin(one.ins, gone), one.constant, 0)
        if one.bias and bool(carried.any()):
            bias = network.state_dict()[one.bias]
            folded[one.bias] = (carried.double() @ one.weight.double()).to(bias.dtype)
    return Empty(channels, kept, folded)


def prunable_groups(
    network: CapturedModule, channels: Channels, masked: Collection[str], inputs: Sequence[Tensor]
) -> list[ChannelGroup]:
    """Return the groups whose channels become empty when all that ``masked`` weights have of them is 0.

    The others are read, or made, by what is not masked. Whatever is not masked may be any number, as after training.

    Args:
        network: left as it is.
        channels: of it.
        masked: names of weights.
        inputs: of a call, two images at least.
    """
    rng = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        drawn = torch.rand(tensor.shape, generator=rng).to(tensor.dtype) + 0.5 if tensor.is_floating_point() else tensor
        state[name] = torch.zeros_like(drawn) if name.endswith("running_mean") else drawn
    for group in channels.groups:
        for place in group.places:
            if place.tensor in masked:
                state[place.tensor].movedim(place.axis, 0)[place.owners > 0] = 0
    blank = CapturedModule(network.captured, {name: state[name] for name in network.captured.tensors})
    found = empty_channels(blank, channels, inputs)
    return [group for group in channels.groups if int(found.kept[group.name].sum()) == 1]


def _spread(live: Tensor, readings: Sequence[_Reading]) -> None:
    """Let all channels live from which one gets to living ones, in place."""
    before = -1
    while before != (before := int(live.sum())):
        for one in reversed(readings):
            live[one.ins[one.reaches[:, live[one.outs]].any(1)]] = True


def _labels(channels: Channels, argument: Argument, axis: int) -> Tensor:
    """Return the label of every channel of a value (channels,)."""
    found = channels.trace
    labels = (found.stored if isinstance(argument, Stored) else found.values)[argument.name].movedim(axis, 0)
    size, own = labels.shape[0], narrowed(found.atoms.roots(labels))
    return (own.flatten(1)[:, 0] if own.dim() > 1 else own).expand(size)


def _reading(network: CapturedModule, channels: Channels, known: Known, node: Node) -> _Reading | None:
    found = channels.trace
    if not is_layer(node) or node.name in found.uncut or not isinstance(node.args[1], Stored):
        return None
    name = node.args[1].name
    if (name, 1) not in found.axes:  # every channel is read by itself alone
        return None
    linear, transposed = "linear" in node.op, "transpose" in node.op
    stored = network.state_dict()[name]
    weight = stored.view(*stored.shape[:2], -1)
    constant, number = known.channels(node.args[0], -1 if linear else 1)
    bias = _folding_bias(network, node, linear, transposed)
    dead = constant if bias else constant & (number == 0)
    first, second = (found.atoms.roots(found.axes[name, axis]) for axis in (0, 1))
    nonzero = (weight != 0).any(2)
    if transposed:
        return _Reading(first, second, nonzero & ~dead[:, None], "", torch.zeros(len(first)), weight.sum(2))
    groups = len(dead) // len(second)
    per_row = dead.view(groups, -1).repeat_interleave(len(first) // groups, 0)
    carried = torch.where(constant, number, 0) if bias else torch.zeros(len(second))
    return _Reading(second, first, (nonzero & ~per_row).T, bias, carried, weight.sum(2).T)


def _folding_bias(network: CapturedModule, node: Node, linear: bool, transposed: bool) -> str:
    """Return the bias of a layer that sees no border, and is alone to use it; empty of any other."""
    bias = node.args[2] if len(node.args) > 2 else None
    if transposed or not isinstance(bias, Stored):
        return ""
    if not linear:
        settings: dict[str, Any] = dict(zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False))
        padding = settings.get("padding", 0)
        if settings.get("groups", 1) != 1 or padding not in (0, "valid", (0,), (0, 0), (0, 0, 0)):
            return ""
    users = [one for one in network.captured.nodes if bias in one.references()]
    return bias.name if len(users) == 1 else ""
