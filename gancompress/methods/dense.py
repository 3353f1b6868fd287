"""No sparsity: the baseline of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.components.registry import METHODS
from gancompress.methods.base import Method, MethodConfig, NetView
from gancompress.sparsity.state import Budget, SparseState

if TYPE_CHECKING:
    from typing import ClassVar

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
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in net.weights.items()}
        return SparseState(masks, {name: mask.numel() for name, mask in masks.items()})
