"""No sparsity: the baseline of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gancompress.components.registry import METHODS
from gancompress.methods.base import Method, MethodConfig, NetView
from gancompress.methods.pruning import everything

if TYPE_CHECKING:
    import torch

    from gancompress.sparsity.state import Budget, SparseState

__all__ = ["Dense", "DenseConfig"]


class DenseConfig(MethodConfig):
    """Dense training has nothing to set."""


@METHODS.register("dense")
class Dense(Method[DenseConfig]):
    """Keep every weight, whatever density the recipe asks of other methods."""

    Config: ClassVar[type[MethodConfig]] = DenseConfig
    baseline: ClassVar[bool] = True
    sparsifies: ClassVar[bool] = False

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Return masks that keep everything."""
        return everything(net)
