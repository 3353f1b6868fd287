"""Gradual magnitude pruning: from dense to sparse while training, along a cubic schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from pydantic import Field, field_validator, model_validator

from gancompress.components.registry import METHODS
from gancompress.methods.base import MethodConfig, NetView, Plan
from gancompress.methods.pruning import Pruning, PruningConfig
from gancompress.sparsity.rounding import ceil_share
from gancompress.sparsity.schedules import cubic

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = ["GMP", "GMPConfig", "Gradual", "GradualConfig"]

Share = Annotated[float, Field(ge=0, le=1)]


class GradualConfig(PruningConfig):
    """Settings of every method that prunes a little at a time."""

    start: Share = Field(default=0.1, description="share of training at which pruning starts")
    end: Share = Field(default=0.8, description="share of training at which the recipe's density is reached, exactly")
    every: int = Field(default=100, ge=1, description="training steps between two updates")

    @model_validator(mode="after")
    def _ordered(self) -> GradualConfig:
        if self.start > self.end:
            raise ValueError(f"start ({self.start}) must not be after end ({self.end})")
        return self


class GMPConfig(GradualConfig):
    """Settings of gradual magnitude pruning."""

    regrow: float = Field(default=0.0, description="always 0: exchanging weights is the method granet")

    @field_validator("regrow")
    @classmethod
    def _is_granet(cls, value: float) -> float:
        if value:
            raise ValueError("regrowing is a method of its own: write method: granet, with drop_fraction")
        return value


C = TypeVar("C", bound=GradualConfig)


class Gradual(Pruning[C]):
    """Base of the methods that prune on every due step of a window, the last time where it ends."""

    for_trained: ClassVar[Mapping[str, object]] = {"start": 0}

    def window(self, total_steps: int) -> tuple[int, int]:
        """Return the first step at which pruning may happen, and the last, at which it does."""
        first = ceil_share(self.config.start, total_steps)
        return first, max(ceil_share(self.config.end, total_steps), first, 1)

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Ask for an update on multiples of ``every`` inside the window, and where it ends."""
        first, last = self.window(total_steps)
        due = step == last or (first <= step < last and step % self.config.every == 0)
        return Plan.UPDATE if due and self.config.prunes(role) else Plan.NOTHING

    def kept(self, budget: Budget, step: int, total_steps: int) -> int:
        """Return the weights that one network keeps after an update at ``step``: the closed form, rounded once."""
        first, last = self.window(total_steps)
        progress = (min(step, last) - first) / (last - first) if last > first else 1.0
        return round(cubic(sum(budget.sizes.values()), budget.total, progress))

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Prune to where the schedule is."""
        return self.cut(state, net, min(self.kept(net.budget, net.step, net.total_steps), state.nonzeros))


@METHODS.register("gmp")
class GMP(Gradual[GMPConfig]):
    """Prune by magnitude; a masked weight never returns."""

    Config: ClassVar[type[MethodConfig]] = GMPConfig
