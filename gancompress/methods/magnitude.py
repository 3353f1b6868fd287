"""Magnitude pruning: train dense, remove the smallest weights once, fine-tune what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gancompress.components.registry import METHODS
from gancompress.errors import RecipeError
from gancompress.methods.base import MethodConfig, NetView, Round
from gancompress.methods.pruning import Pruning, PruningConfig, Scope, everything

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = ["Magnitude", "MagnitudeConfig"]


class MagnitudeConfig(PruningConfig):
    """Settings of one-shot magnitude pruning."""

    scope: Scope = "layer"
    finetune: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of training.steps left for fine-tuning; the rest trains dense (1: prune at the start)",
    )


@METHODS.register("magnitude")
class Magnitude(Pruning[MagnitudeConfig]):
    """Two rounds that together take the recipe's steps: dense, then pruned with the weights kept.

    With ``finetune: 1`` there is no dense round: what is pruned are the weights that the run starts from, which then
    had better be trained ones (``training.init_from``).
    """

    Config: ClassVar[type[MethodConfig]] = MagnitudeConfig
    for_trained: ClassVar[Mapping[str, object]] = {"finetune": 1}

    def rounds(self, total_steps: int, density: Mapping[Role, float]) -> Sequence[Round]:
        """Split the recipe's steps into dense training and fine-tuning.

        Raises:
            RecipeError: there is only one step to split.
        """
        if self.config.finetune == 1:
            return (Round("finetune", total_steps),)
        if total_steps < 2:
            raise RecipeError(f"magnitude trains before and after pruning; training.steps is {total_steps}, needs 2")
        finetune = min(max(round(self.config.finetune * total_steps), 1), total_steps - 1)
        return (Round("dense", total_steps - finetune), Round("finetune", finetune))

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Keep everything, or prune at once when there is no dense round."""
        whole = everything(net)
        return self._pruned(whole, net) if self.config.finetune == 1 else whole

    def next_round(self, state: SparseState, net: NetView, upcoming: Round, rng: torch.Generator) -> SparseState:
        """Prune to the recipe's density."""
        return self._pruned(state, net)

    def _pruned(self, state: SparseState, net: NetView) -> SparseState:
        if not self.config.prunes(net.role):
            return state
        return self.cut(state, net, net.budget.total)
