"""Chase: dynamic sparse training in which the channels that gather least die, and their weights grow elsewhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from gancompress.components.registry import METHODS
from gancompress.methods.base import Plan
from gancompress.methods.channels import offered_groups, summed, without_channels
from gancompress.methods.dst import DST, DSTConfig, Every, Explore, GrowthField
from gancompress.sparsity.masks import union
from gancompress.sparsity.rounding import ceil_share
from gancompress.sparsity.schedules import cubic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gancompress.channels.groups import ChannelGroup
    from gancompress.methods.base import MethodConfig, NetView
    from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = ["Chase", "ChaseConfig"]

Share = Annotated[float, Field(gt=0, le=1)]


class ChaseConfig(DSTConfig):
    """Settings of Chase: those of dynamic sparse training, and how many channels are left. Defaults of its code."""

    growth: GrowthField = "gradient"  # --growth global_gradients
    explore: Explore = "both"  # the paper has one network
    every: Every = 1000  # --update_frequency, --layer_interval
    regrow: Literal["allowed"] = Field(
        default="allowed", description="a weight dropped by an update may be grown by it"
    )
    scope: Literal["layer", "global"] = Field(
        default="global", description="rank weights within each layer, or all together"
    )
    channels: Share = Field(default=0.5, description="share of all channels that is left in the end")
    channel_floor: Share = Field(default=0.25, description="least share of its channels that a group keeps")
    end: Share = Field(default=0.8125, description="share of training at which so few are left")

    @model_validator(mode="after")
    def _in_time(self) -> ChaseConfig:
        if self.stop is not None and self.stop < self.end:
            raise ValueError(f"stop ({self.stop}) must not be before end ({self.end}): masks are fixed from there on")
        return self


@METHODS.register("chase")
class Chase(DST):
    """Drop and grow weights, and let the weakest channels die along a cubic schedule; their weights grow elsewhere.

    After Yin et al., *Dynamic Sparsity Is Channel-Level Sparsity Learner*, NeurIPS 2023, and its code. All channels of
    a network are ranked together by their unmasked mean magnitude: the mean of the weights that are kept of those that
    make a channel. What dies with a channel is grown by gradient among the channels that are left, as long as there is
    room. Three things differ: channels that a residual connection ties die together; they die at the updates of the
    weights, where the code is half an interval off; and there is no soft memory bound, so that counts stay exact.
    """

    Config: ClassVar[type[MethodConfig]] = ChaseConfig
    config: ChaseConfig
    sees_channels: ClassVar[bool] = True
    frees_channels: ClassVar[bool] = True

    def meets_density(self, role: Role) -> bool:
        """What dies may find no room where channels are few and weights many."""
        return self.config.explore not in (role, "both")

    def notes(self, net: NetView) -> Mapping[str, float]:
        """Log the drop fraction, and how many channels are left."""
        return {**super().notes(net), "channels": self._left(net, self._groups(net))}

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Draw random masks.

        Raises:
            RecipeError: no channel can be freed, or the recipe has a pattern.
        """
        if not self.meets_density(net.role):
            self._groups(net)
        return super().init(net, budget, rng)

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Ask for the updates of dynamic sparse training, and for one where the last channels die."""
        found = super().plan(role, step, total_steps)
        if not found and step == ceil_share(self.config.end, total_steps) and not self.meets_density(role):
            return Plan.UPDATE | (Plan.DENSE_GRADIENT if self.config.growth_of(role) == "gradient" else Plan.NOTHING)
        return found

    def growth_scores(self, state: SparseState, net: NetView, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Rank what a dead channel had below all else."""
        found = super().growth_scores(state, net, rng)
        room = self._room(state, net)
        return {name: score.masked_fill(~room[name], -1.0) for name, score in found.items()}

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Let channels die, grow as many weights in the others, then drop and grow as ever."""
        groups = self._groups(net)
        alive = self._surviving(state, net, groups)
        left = without_channels(state, groups, alive)
        left = left.replace(memory={**state.memory, **{f"channels.{name}": one for name, one in alive.items()}})
        room = self._room(left, net)
        free = {name: room[name] & ~mask for name, mask in left.masks.items()}
        count = min(state.nonzeros - left.nonzeros, sum(int(one.sum()) for one in free.values()))
        if count:
            by = self.growth_scores(left, net, rng)
            masks = union(left.masks, net.top_overall(by, count, candidates=free, beside=left.masks))
            left = left.replace(masks=masks, budgets={name: int(mask.sum()) for name, mask in masks.items()})
        weights = {name: weight * left.masks[name] for name, weight in net.weights.items()}
        return super().update(left, dataclasses.replace(net, weights=weights), rng)

    def _groups(self, net: NetView) -> list[ChannelGroup]:
        return offered_groups(net, 1.0)  # floors leave every group one

    def _left(self, net: NetView, groups: list[ChannelGroup]) -> int:
        """Return how many channels are left after this update: cubic, fast at first."""
        progress = net.step / max(1, ceil_share(self.config.end, net.total_steps))
        return round(cubic(1.0, self.config.channels, progress) * sum(group.width for group in groups))

    def _surviving(self, state: SparseState, net: NetView, groups: list[ChannelGroup]) -> dict[str, Tensor]:
        """Return which channels are left, bool (width,), by the names of groups."""
        alive = {group.name: _alive(state, group) for group in groups}
        strength = {group.name: _mean_magnitude(group, state, net) for group in groups}
        # the strongest of every group first, up to its floor; then whatever is strongest
        floors = [max(1, ceil_share(self.config.channel_floor, group.width)) for group in groups]
        ranked = []
        for group, floor in zip(groups, floors, strict=True):
            own = strength[group.name].masked_fill(~alive[group.name], -1.0)
            order = torch.sort(own, descending=True, stable=True).indices.tolist()
            for rank, channel in enumerate(order):
                if alive[group.name][channel]:
                    ranked.append((rank >= floor, -float(own[channel]), group.name, channel))
        ranked.sort(key=lambda one: one[:2])
        kept = {name: torch.zeros_like(one) for name, one in alive.items()}
        for _, _, name, channel in ranked[: max(self._left(net, groups), sum(floors))]:
            kept[name][channel] = True
        return kept

    def _room(self, state: SparseState, net: NetView) -> dict[str, Tensor]:
        """Return where weights may be: not in dead channels."""
        whole = {name: torch.ones_like(mask) for name, mask in state.masks.items()}
        groups = self._groups(net)
        alive = {group.name: _alive(state, group) for group in groups}
        return dict(without_channels(state.replace(masks=whole), groups, alive).masks)


def _alive(state: SparseState, group: ChannelGroup) -> Tensor:
    """Return the channels of a group that never died, whether they have weights at the moment or not."""
    known = state.memory.get(f"channels.{group.name}")
    return known.cpu() if isinstance(known, torch.Tensor) else torch.ones(group.width, dtype=torch.bool)


def _mean_magnitude(group: ChannelGroup, state: SparseState, net: NetView) -> Tensor:
    """Return the mean of ``|w|`` over the kept weights that make a channel, or read it where no maker is masked."""
    masked = [place for place in group.places if place.tensor in state.masks]
    makers = [place for place in masked if place.makes] or masked
    own = dataclasses.replace(group, places=tuple(makers))
    names = {place.tensor for place in makers}
    total = summed(own, {name: net.weights[name].abs() * state.masks[name] for name in names})
    return total / summed(own, {name: state.masks[name] for name in names}).clamp(min=1)
