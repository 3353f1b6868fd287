"""SNIP: keep the weights whose removal would change the loss most, judged on one batch before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gancompress.components.registry import METHODS
from gancompress.errors import InvariantError
from gancompress.methods.pruning import Pruning, PruningConfig, cut, everything
from gancompress.sparsity.scores import sensitivity

if TYPE_CHECKING:
    import torch

    from gancompress.methods.base import MethodConfig, NetView
    from gancompress.sparsity.state import Budget, SparseState

__all__ = ["SNIP", "SNIPConfig"]


class SNIPConfig(PruningConfig):
    """Settings of SNIP: those of every pruning method."""


@METHODS.register("snip")
class SNIP(Pruning[SNIPConfig]):
    """One cut by ``|w * g|`` at initialisation, then static training."""

    Config: ClassVar[type[MethodConfig]] = SNIPConfig
    init_needs_gradient: ClassVar[bool] = True

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Rank the weights of one network by sensitivity and keep the best.

        Raises:
            InvariantError: no gradients were given.
        """
        if not self.config.prunes(net.role):
            return everything(net)
        if net.gradients is None:
            raise InvariantError(f"SNIP was given no gradients of the {net.role}")
        ranking = {name: sensitivity(weight, net.gradients[name]) for name, weight in net.weights.items()}
        return cut(everything(net), net, ranking, budget.total, self.config, self.config.scope)
