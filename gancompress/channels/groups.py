"""Groups of channels, what they lie in, and what is left when some of them go."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.channels.atoms import FIXED, narrowed
from gancompress.channels.trace import Trace, trace
from gancompress.errors import ChannelError
from gancompress.sparsity.rounding import nearest_share
from gancompress.units import some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.graphs.build import CapturedModule

__all__ = ["ChannelGroup", "Channels", "Place", "find_channels", "kept_count"]


@dataclasses.dataclass(frozen=True)
class Place:
    """One axis of one stored tensor on which channels of a group lie.

    Attributes:
        tensor: its name.
        axis: of the tensor.
        owners: for every index along the axis, the channel of the group, or -1 (size,).
        makes: whether a convolution or linear layer makes the channels here.
        reads: whether one reads them here.
    """

    tensor: str
    axis: int
    owners: Tensor
    makes: bool
    reads: bool


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that lie in the same tensors, of which any number can go together with all that reads or writes them.

    Attributes:
        name: of the first layer that makes them.
        width: how many there are.
        places: where they lie.
    """

    name: str
    width: int
    places: tuple[Place, ...]


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of a network.

    Attributes:
        groups: in the order of the network.
        whole: layers whose outputs cannot be cut, and why.
        trace: what they were found by.
        roots: for every group, the label of every channel (width,).
    """

    groups: tuple[ChannelGroup, ...]
    whole: Mapping[str, str]
    trace: Trace = dataclasses.field(repr=False)
    roots: tuple[Tensor, ...] = dataclasses.field(repr=False)

    def widths(self, density: float) -> dict[str, int]:
        """Return how many channels every group keeps at a density, at least one."""
        return {group.name: kept_count(group.width, density) for group in self.groups}

    def gone(self, kept: Mapping[str, Tensor]) -> Tensor:
        """Return the labels that go, when of every group the channels ``kept``, bool (width,), stay."""
        parts = [
            roots[~kept[group.name]] for group, roots in zip(self.groups, self.roots, strict=True) if group.name in kept
        ]
        return torch.cat([*parts, torch.zeros(0, dtype=torch.int64)])

    def indices(self, kept: Mapping[str, Tensor]) -> dict[str, dict[int, Tensor]]:
        """Return which indices stay along the axes of stored tensors that lose some, by name and axis."""
        masks: dict[tuple[str, int], Tensor] = {}
        for group in self.groups:
            if group.name not in kept or bool(kept[group.name].all()):
                continue
            for place in group.places:
                own = place.owners >= 0
                stays = torch.ones(len(own), dtype=torch.bool)
                stays[own] = kept[group.name][place.owners[own]]
                key = (place.tensor, place.axis)
                masks[key] = stays if key not in masks else masks[key] & stays
        found: dict[str, dict[int, Tensor]] = {}
        for (name, axis), mask in masks.items():
            found.setdefault(name, {})[axis] = mask.nonzero().flatten()
        return found


def kept_count(width: int, density: float) -> int:
    """Return the nearest number of channels to a share of ``width``, at least one."""
    return max(1, min(width, nearest_share(density, width)))


def find_channels(network: CapturedModule, inputs: Sequence[Tensor]) -> Channels:
    """Find the groups of channels of a network that can be cut.

    Args:
        network: a captured one.
        inputs: of a call, two images at least.

    Raises:
        ChannelError: it has none.
    """
    found = trace(network, inputs)
    lies = _where(found)
    orders: dict[int, list[tuple[str, int]]] = {}
    for place, labels in lies.items():
        for root in torch.unique(labels).tolist():
            orders.setdefault(root, []).append(place)
    orders.pop(FIXED, None)
    sets: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for root in sorted(orders):
        sets.setdefault(tuple(orders[root]), []).append(root)
    groups: list[ChannelGroup] = []
    all_roots: list[Tensor] = []
    names: set[str] = set()
    for places, own in sets.items():
        makers = [tensor for tensor, axis in places if (tensor, axis) in found.produced]
        if len(own) < 2 or not makers:
            continue
        roots = torch.tensor(own)
        name = makers[0].removesuffix(".weight")
        number = 2
        while (unique := name if name not in names else f"{name}#{number}") in names:
            number += 1
        names.add(unique)
        groups.append(ChannelGroup(unique, len(own), tuple(_place(found, key, lies[key], roots) for key in places)))
        all_roots.append(roots)
    whole = _whole(network, found, lies)
    if not groups:
        reasons = some([f"{name}: {why}" for name, why in [*whole.items()][:3]], len(whole), "; ")
        raise ChannelError(f"has no channels that can be cut ({reasons or 'it has no two layers in a row'})")
    return Channels(tuple(groups), whole, found, tuple(all_roots))


def _where(found: Trace) -> dict[tuple[str, int], Tensor]:
    """Return the labels of every axis of a stored tensor along which channels lie."""
    lies = {key: found.atoms.roots(labels) for key, labels in found.axes.items()}
    for name, labels in found.stored.items():
        for axis in range(labels.dim()):
            if found.atoms.varies(labels, axis):
                rows = found.atoms.roots(labels).movedim(axis, 0).flatten(1) if labels.dim() > 1 else None
                lies[name, axis] = found.atoms.roots(labels) if rows is None else rows[:, 0]
    return lies


def _place(found: Trace, key: tuple[str, int], labels: Tensor, roots: Tensor) -> Place:
    at = torch.searchsorted(roots, labels.contiguous()).clamp(max=len(roots) - 1)
    owners = torch.where(roots[at] == labels, at, -1)
    weight = key in found.axes
    return Place(key[0], key[1], owners, key in found.produced, weight and key not in found.produced)


def _whole(network: CapturedModule, found: Trace, lies: Mapping[tuple[str, int], Tensor]) -> dict[str, str]:
    """Return the layers that keep all their outputs, and why."""
    reasons = [f"no rule for {name}: {why}" for name, why in found.uncut.items()]
    why = reasons[0] if reasons else "what it makes leaves the network, or is added to what does"
    return {
        tensor.removesuffix(".weight"): "it makes the output" if tensor == f"{network.last_layer}.weight" else why
        for tensor, axis in sorted(found.produced)
        if bool((narrowed(lies[tensor, axis]) == FIXED).all())
    }
