"""Whole channels given up while training: what is left computes as a narrower dense network would."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from gancompress.components.registry import METHODS
from gancompress.errors import InvariantError, RecipeError
from gancompress.methods.base import Method, MethodConfig, NetView, Plan
from gancompress.methods.pruning import Prune, everything
from gancompress.sparsity.rounding import ceil_share, least_share, nearest_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from gancompress.channels.groups import ChannelGroup
    from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = ["Channels", "ChannelsConfig", "kept_channels", "offered_groups", "without_channels"]

Share = Annotated[float, Field(ge=0, le=1)]


class ChannelsConfig(MethodConfig):
    """Settings of channel pruning. A density is the share of channels that every group keeps."""

    prune: Prune = "both"
    importance: Literal["magnitude", "taylor"] = Field(
        default="magnitude",
        description="what ranks the channels of a group: squares of the weights that make and read them, or of the "
        "change in the loss that removing these would bring, to first order",
    )
    start: Share = Field(default=0.25, description="share of training before the first cut, all of it dense")
    end: Share = Field(default=0.6, description="share of training at which the recipe's density is reached")
    rounds: int = Field(default=4, ge=1, description="cuts from start to end, fine-tuning between them; 1: at the end")
    least: int = Field(
        default=0, ge=0, description="channels that every group keeps; 0: a density that leaves one none is refused"
    )

    def shortened(self, steps: int) -> Mapping[str, int]:
        """Leave every group of a narrow network a channel."""
        return {**super().shortened(steps), "least": max(1, self.least)}

    @model_validator(mode="after")
    def _ordered(self) -> ChannelsConfig:
        if self.start > self.end:
            raise ValueError(f"start ({self.start}) must not be after end ({self.end})")
        return self


@METHODS.register("channels")
class Channels(Method[ChannelsConfig]):
    """Mask all that makes and reads the weakest channels of every group, a few at a time.

    Every group of channels that go together keeps the same share, ``density ** (k / rounds)`` after the k-th cut, of
    those that are worth most: by magnitude after Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017, by the
    change of the loss after Molchanov et al., *Importance Estimation for Neural Network Pruning*, CVPR 2019, each
    summed over a group (Fang et al., *DepGraph*, CVPR 2023).
    """

    Config: ClassVar[type[MethodConfig]] = ChannelsConfig
    suits_trained: ClassVar[bool] = True
    for_trained: ClassVar[Mapping[str, object]] = {"start": 0}
    sees_channels: ClassVar[bool] = True
    frees_channels: ClassVar[bool] = True

    def meets_density(self, role: Role) -> bool:
        """A share of channels is no share of weights."""
        return False

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Keep everything.

        Raises:
            RecipeError: no channel can be freed, a group would lose all of its own, or the recipe has a pattern.
        """
        if self._prunes(net):
            self._groups(net)
        return everything(net)

    def cuts(self, total_steps: int) -> list[int]:
        """Return the steps after which channels go, the last at ``end``; as many as fit."""
        c = self.config
        first, last = (max(1, ceil_share(share, total_steps)) for share in (c.start, c.end))
        gaps = max(1, c.rounds - 1)
        return sorted({last - (last - first) * (c.rounds - 1 - k) // gaps for k in range(c.rounds)})

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Ask for an update at every cut of a network that is pruned."""
        if self.config.prune not in (role, "both") or step not in self.cuts(total_steps):
            return Plan.NOTHING
        return Plan.UPDATE | (Plan.DENSE_GRADIENT if self.config.importance == "taylor" else Plan.NOTHING)

    def notes(self, net: NetView) -> Mapping[str, float]:
        """Log how many channels every group keeps."""
        return {f"channels {name}": int(kept.sum()) for name, kept in self._chosen(net).items()}

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Give up channels of every group, down to where the cuts are."""
        return without_channels(state, net.channels, self._chosen(net))

    def _prunes(self, net: NetView) -> bool:
        return self.config.prune in (net.role, "both") and net.budget.density < 1

    def _chosen(self, net: NetView) -> dict[str, Tensor]:
        """Return the channels that are kept after this update, bool (width,), by the names of groups."""
        if not self._prunes(net):
            return {}
        cuts = self.cuts(net.total_steps)
        density = net.budget.density ** ((cuts.index(net.step) + 1) / len(cuts))
        chosen = {}
        for group in self._groups(net):
            alive = kept_channels(group, net.masks)
            scores = self._scores(group, net).masked_fill(~alive, -math.inf)
            order = torch.sort(scores, descending=True, stable=True).indices
            kept = torch.zeros_like(alive)
            count = max(nearest_share(density, group.width), self.config.least)
            kept[order[: min(count, int(alive.sum()))]] = True
            chosen[group.name] = kept
        return chosen

    def _groups(self, net: NetView) -> list[ChannelGroup]:
        return offered_groups(net, 1.0 if self.config.least else net.budget.density)

    def _scores(self, group: ChannelGroup, net: NetView) -> Tensor:
        """Return what every channel of a group is worth, float64 (width,)."""
        if self.config.importance == "magnitude":
            return summed(group, {name: weight.double().square() for name, weight in _of(group, net.weights).items()})
        if net.gradients is None:
            raise InvariantError(f"the {net.role} was given no dense gradients at step {net.step}")
        slopes = _of(group, net.gradients)
        changes = {name: weight.double() * slopes[name] for name, weight in _of(group, net.weights).items()}
        return summed(group, changes).square()


def _of(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {place.tensor: tensors[place.tensor] for place in group.places if place.tensor in tensors}


def offered_groups(net: NetView, density: float) -> list[ChannelGroup]:
    """Return the groups of a network whose channels can be freed: none of a weight that the recipe keeps whole.

    Args:
        net: of a method with :attr:`Method.sees_channels`.
        density: share of its channels that every group is to keep in the end.

    Raises:
        RecipeError: there are none, one would keep no channel, or the recipe has a pattern.
    """
    if net.budget.units:
        raise RecipeError(
            f"whole channels leave no pattern {net.budget.pattern} to keep: --set sparsity.pattern=unstructured"
        )
    whole = {*net.budget.dense}
    found = [group for group in net.channels if not whole & {place.tensor for place in group.places}]
    if not found:
        raise RecipeError(
            f"no channel of the {net.role} is made and read by masked weights alone; mask linear layers too with "
            "--set sparsity.weights=all, or give the network density 1"
        )
    narrowest = min(found, key=lambda group: group.width)
    if not nearest_share(density, narrowest.width):
        least = least_share(narrowest.width)
        raise RecipeError(
            f"density {density:g} leaves {narrowest.name} of the {net.role}, which has {narrowest.width} channels, "
            f"without one; the least possible is {least:g}: --set sparsity.{net.role}.density={least:g}"
        )
    return found


def summed(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of tensors' elements that belong to each channel of a group (width,)."""
    total = torch.zeros(group.width, dtype=torch.float64)
    for place in group.places:
        if place.tensor in tensors:
            tensor = tensors[place.tensor].double()
            own = tensor.movedim(place.axis, 0).flatten(1).sum(1).cpu()
            at = place.owners >= 0
            total.index_add_(0, place.owners[at], own[at])
    return total


def kept_channels(group: ChannelGroup, masks: Mapping[str, Tensor]) -> Tensor:
    """Return the channels of which masks keep a weight, bool (width,), on the CPU."""
    return summed(group, _of(group, masks)) > 0


def without_channels(state: SparseState, groups: Sequence[ChannelGroup], kept: Mapping[str, Tensor]) -> SparseState:
    """Return a state that masks all that makes or reads other channels than those kept.

    Args:
        state: before.
        groups: of the network.
        kept: bool (width,), by the names of groups; those that are not named stay as they are.
    """
    masks = dict(state.masks)
    for group in groups:
        for place in group.places:
            if group.name in kept and place.tensor in masks:
                mask = masks[place.tensor]
                stays = torch.ones(len(place.owners), dtype=torch.bool)
                own = place.owners >= 0
                stays[own] = kept[group.name][place.owners[own]]
                shape = [-1 if axis == place.axis else 1 for axis in range(mask.dim())]
                masks[place.tensor] = mask & stays.view(shape).to(mask.device)
    return state.replace(masks=masks, budgets={name: int(mask.sum()) for name, mask in masks.items()})
