"""Dynamic sparse training: every few steps, drop the weakest weights and grow as many elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from gancompress.components.registry import METHODS
from gancompress.methods.base import Method, MethodConfig, NetView, Plan, Round
from gancompress.methods.growth import GROWTH_SCORES, Growth
from gancompress.methods.static import random_state
from gancompress.sparsity import scores
from gancompress.sparsity.masks import union
from gancompress.sparsity.rounding import ceil_share, up_to_step
from gancompress.sparsity.schedules import Cosine, Schedule, is_due

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = ["DST", "DSTConfig", "RoleGrowth"]

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class RoleGrowth(MethodConfig):
    """A growth score for each network."""

    generator: Growth = Field(default="gradient", description="growth score of the generator")
    discriminator: Growth = Field(default="random", description="growth score of the discriminator")


# Presets give these settings other defaults (see methods/presets.py), hence the names.
GrowthField: TypeAlias = Annotated[Growth | RoleGrowth, Field(description="score to grow by: one, or one per role")]
Explore: TypeAlias = Annotated[
    Literal["generator", "discriminator", "both"], Field(description="networks whose masks are updated")
]
Every: TypeAlias = Annotated[int, Field(ge=1, description="training steps (generator steps) between two updates")]
DropFraction: TypeAlias = Annotated[Schedule, Field(description="share of the kept weights replaced by one update")]
Stop: TypeAlias = Annotated[
    Share | None,
    Field(description="share of training from which masks are fixed and where the schedule ends; null: never"),
]
Placement: TypeAlias = Annotated[
    Literal["after-step", "instead-of-step"], Field(description="update after the optimizer step, or leave it out")
]
Regrow: TypeAlias = Annotated[
    Literal["allowed", "excluded"],
    Field(description="whether a weight dropped by this update may be grown by it, keeping its value"),
]


class DSTConfig(MethodConfig):
    """Settings of dynamic sparse training. The defaults are STU-GAN's."""

    drop: Literal["magnitude"] = Field(default="magnitude", description="score to drop by, lowest first")
    growth: GrowthField = RoleGrowth()
    explore: Explore = "generator"
    every: Every = 500
    drop_fraction: DropFraction = Cosine(start=0.5, end=0.005)
    start: Share = Field(default=0.0, description="share of training before which masks are fixed")
    stop: Stop = None
    regrow: Regrow = "allowed"
    placement: Placement = "after-step"
    scope: Literal["layer", "global"] = Field(
        default="layer", description="rank weights within each layer, or all together"
    )
    layer_floor: Share = Field(
        default=0.1, description="global scope: least share of its first budget that a layer keeps"
    )
    protect_output: bool = Field(default=True, description="global scope: the output layer is updated by itself")
    multiplier: int = Field(default=1, ge=1, description="train this many times longer (ITOP)")

    @model_validator(mode="after")
    def _ever_due(self) -> DSTConfig:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop ({self.stop}) must come after start ({self.start}), or no update is ever due")
        return self

    def growth_of(self, role: Role) -> Growth:
        """Return the growth score of one network."""
        return getattr(self.growth, role) if isinstance(self.growth, RoleGrowth) else self.growth


@METHODS.register("dst")
class DST(Method[DSTConfig]):
    """Drop by magnitude, grow by gradient, momentum or at random; every count stays exact."""

    Config: ClassVar[type[MethodConfig]] = DSTConfig
    for_trained: ClassVar[Mapping[str, object]] = {"start": 0}

    @property
    def needs_dense_moments(self) -> bool:
        """Growth by momentum ranks masked weights by their moments."""
        c = self.config
        roles: tuple[Role, ...] = ("generator", "discriminator")
        return any(c.growth_of(role) == "momentum" for role in roles if c.explore in (role, "both"))

    def notes(self, net: NetView) -> Mapping[str, float]:
        """Log the drop fraction."""
        return {"drop_fraction": self.drop_fraction(net.step, net.total_steps)}

    def rounds(self, total_steps: int, density: Mapping[Role, float]) -> Sequence[Round]:
        """Return one round, ``multiplier`` times as long as the recipe says."""
        return (Round("train", total_steps * self.config.multiplier),)

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Draw random masks, as a static run would."""
        return random_state(net, budget, rng)

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Ask for an update on every due step of an explored network, for dense gradients only if it grows by them."""
        c = self.config
        if c.explore not in (role, "both") or not is_due(step, total_steps, c.every, c.start, c.stop):
            return Plan.NOTHING
        gradient = Plan.DENSE_GRADIENT if c.growth_of(role) == "gradient" else Plan.NOTHING
        return Plan.UPDATE | gradient | (Plan.SKIP_STEP if c.placement == "instead-of-step" else Plan.NOTHING)

    def drop_fraction(self, step: int, total_steps: int) -> float:
        """Return the share of kept weights that an update at ``step`` replaces."""
        stop = 1.0 if self.config.stop is None else self.config.stop
        return self.config.drop_fraction.at(step / max(stop * total_steps, 1))

    def growth_scores(self, state: SparseState, net: NetView, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Return what ranks the weights to grow, of every masked tensor and in its shape; a variant overrides it."""
        return GROWTH_SCORES[self.config.growth_of(net.role)](state, net, rng)

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Replace the same number of weights in every group; a group is a layer, or under global scope all of them.

        See :meth:`~gancompress.methods.NetView.exchangeable` for patterns and layers that are kept whole.
        """
        grow_by = self.growth_scores(state, net, rng)
        fraction = self.drop_fraction(net.step, net.total_steps)
        if self.config.scope == "global":
            apart = net.protected if self.config.protect_output else frozenset()
        else:
            apart = frozenset(state.masks)
        masks, budgets = dict(state.masks), dict(state.budgets)
        for group in net.exchangeable(state, apart):
            masks |= self.replaced(group, fraction, state, net, grow_by)
            budgets |= {name: int(masks[name].sum()) for name in group if name not in apart}
        return state.replace(masks=masks, budgets=budgets)

    def replaced(
        self, group: Sequence[str], fraction: float, state: SparseState, net: NetView, grow_by: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Drop and grow within one group of tensors, in whole units: as many in as out.

        Args:
            group: names of tensors whose units have one size; several are ranked together.
            fraction: share of their kept units to exchange; never more than can grow again.
            state: the masks so far.
            net: the network; weights rank what is dropped, by magnitude.
            grow_by: scores that rank what is grown.

        Returns:
            Their new masks, which keep as many weights together as the old ones.
        """
        c = self.config
        old = {name: state.masks[name] for name in group}
        kept, step = sum(state.budgets[name] for name in group), net.budget.step(group[0])
        floors: dict[str, int] = {}
        if len(group) > 1:
            least = {name: up_to_step(ceil_share(c.layer_floor, net.budget.counts[name]), step) for name in group}
            floors = {name: min(least[name], state.budgets[name]) for name in group}
        room = sum(mask.numel() for mask in old.values()) - kept if c.regrow == "excluded" else kept
        count = min(ceil_share(fraction, kept // step) * step, room, kept - sum(floors.values()))
        strength = {name: scores.magnitude(net.weights[name]) for name in group}
        survivors = net.top_overall(strength, kept - count, floors=floors, candidates=old)
        taken = old if c.regrow == "excluded" else survivors
        free = {name: ~mask for name, mask in taken.items()}
        masks = union(
            survivors,
            net.top_overall({name: grow_by[name] for name in group}, count, candidates=free, beside=survivors),
        )
        if c.regrow == "excluded" and any(name in net.budget.units for name in group):
            # where a limit leaves no room for that many new ones, the strongest of the dropped come back
            dropped = {name: mask & ~masks[name] for name, mask in old.items()}
            missing = kept - sum(int(mask.sum()) for mask in masks.values())
            masks = union(masks, net.top_overall(strength, missing, candidates=dropped, beside=masks))
        return masks
