"""Gradual magnitude pruning: from dense to sparse while training, along a cubic schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from gancompress.components.registry import METHODS
from gancompress.methods.base import MethodConfig, NetView, Plan
from gancompress.methods.dst import DST, DSTConfig
from gancompress.methods.pruning import Pruning, PruningConfig, cut, everything, magnitudes, size_of
from gancompress.sparsity.rounding import ceil_share
from gancompress.sparsity.schedules import Constant, cubic

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = ["GMP", "GMPConfig"]

Share = Annotated[float, Field(ge=0, le=1)]


class GMPConfig(PruningConfig):
    """Settings of gradual magnitude pruning."""

    start: Share = Field(default=0.1, description="share of training at which pruning starts")
    end: Share = Field(default=0.8, description="share of training at which the recipe's density is reached, exactly")
    every: int = Field(default=100, ge=1, description="training steps between two updates")
    regrow: Share = Field(
        default=0.0,
        description="share of the kept weights that every update exchanges for masked ones of large gradient (GraNet); "
        "0: a masked weight never returns",
    )

    @model_validator(mode="after")
    def _ordered(self) -> GMPConfig:
        if self.start > self.end:
            raise ValueError(f"start ({self.start}) must not be after end ({self.end})")
        return self


@METHODS.register("gmp")
class GMP(Pruning[GMPConfig]):
    """Prune by magnitude on every due step, the last time at ``end``."""

    Config: ClassVar[type[MethodConfig]] = GMPConfig
    for_trained: ClassVar[Mapping[str, object]] = {"start": 0}

    def __init__(self, config: GMPConfig) -> None:
        super().__init__(config)
        growth = Constant(value=config.regrow)
        self._regrowth = DST(
            DSTConfig(
                growth="gradient",
                drop_fraction=growth,
                scope=config.scope,
                layer_floor=config.layer_floor,
                protect_output=config.protect_output,
            )
        )

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Keep everything."""
        return everything(net)

    def _window(self, total_steps: int) -> tuple[int, int]:
        first = ceil_share(self.config.start, total_steps)
        return first, max(ceil_share(self.config.end, total_steps), first, 1)

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Ask for an update on multiples of ``every`` inside the window, and where it ends."""
        first, last = self._window(total_steps)
        due = step == last or (first <= step < last and step % self.config.every == 0)
        if not (due and self.config.prunes(role)):
            return Plan.NOTHING
        return Plan.UPDATE | (Plan.DENSE_GRADIENT if self.config.regrow else Plan.NOTHING)

    def kept(self, budget: Budget, step: int, total_steps: int) -> int:
        """Return the weights that one network keeps after an update at ``step``: the closed form, rounded once."""
        first, last = self._window(total_steps)
        progress = (step - first) / (last - first) if last > first else 1.0
        return round(cubic(sum(budget.sizes.values()), budget.total, progress))

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Prune to where the schedule is; then exchange some of the rest, if asked to."""
        total = min(self.kept(net.budget, net.step, net.total_steps), state.nonzeros)
        pruned = cut(state, net, magnitudes(net), total, self.config, self.config.scope)
        if not self.config.regrow or total == size_of(net):
            return pruned
        return self._regrowth.update(pruned, net, rng)
