"""GraNet: gradual magnitude pruning in which masked weights may return where the gradient is large."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gancompress.components.registry import METHODS
from gancompress.methods.base import MethodConfig, NetView, Plan
from gancompress.methods.dst import DST, DropFraction, DSTConfig
from gancompress.methods.gmp import Gradual, GradualConfig
from gancompress.methods.pruning import size_of
from gancompress.sparsity.schedules import Cosine

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from gancompress.sparsity.state import Role, SparseState

__all__ = ["GraNet", "GraNetConfig"]


class GraNetConfig(GradualConfig):
    """Settings of GraNet: those of gradual pruning, and how much is exchanged."""

    drop_fraction: DropFraction = Cosine(start=0.5, end=0.005)


@METHODS.register("granet")
class GraNet(Gradual[GraNetConfig]):
    """Prune by magnitude to where the schedule is, then exchange the weakest weights for those of largest gradient.

    Pruning ends at ``end``; exchanging (zero-cost neuroregeneration) goes on to the end of training.
    """

    Config: ClassVar[type[MethodConfig]] = GraNetConfig

    def __init__(self, config: GraNetConfig) -> None:
        super().__init__(config)
        shared = config.model_dump(include={"drop_fraction", "scope", "layer_floor", "protect_output"})
        self._regeneration = DST(DSTConfig.model_validate({"growth": "gradient", **shared}))

    def notes(self, net: NetView) -> Mapping[str, float]:
        """Log the drop fraction."""
        return self._regeneration.notes(net)

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Ask for an update where pruning is due and, after that, on multiples of ``every`` but for the last step."""
        _, last = self.window(total_steps)
        exchanging = last < step < total_steps and step % self.config.every == 0 and self.config.prunes(role)
        due = exchanging or Plan.UPDATE in super().plan(role, step, total_steps)
        return Plan.UPDATE | Plan.DENSE_GRADIENT if due else Plan.NOTHING

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Prune, then exchange as many weights as the drop fraction says; a whole network has nothing to exchange."""
        pruned = super().update(state, net, rng)
        return pruned if pruned.nonzeros == size_of(net) else self._regeneration.update(pruned, net, rng)
