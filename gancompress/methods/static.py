"""Static sparse training: one random mask per network, drawn before training and never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.components.registry import METHODS
from gancompress.errors import InvariantError
from gancompress.methods.base import Method, MethodConfig, NetView
from gancompress.sparsity.state import Budget, SparseState

if TYPE_CHECKING:
    from typing import ClassVar

    import torch

__all__ = ["Static", "StaticConfig", "random_state"]


def random_state(net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
    """Return masks with exactly ``budget.counts`` weights each, drawn uniformly in units of its pattern.

    Args:
        net: the network; only names, shapes and devices of its weights are used.
        budget: kept weights per tensor.
        rng: CPU generator; the masks are a pure function of its state.

    Raises:
        InvariantError: the budget names other tensors than the network has.
    """
    if net.weights.keys() != budget.counts.keys():
        odd = sorted(set(net.weights) ^ set(budget.counts))
        raise InvariantError(f"the {net.role} and its budget name different tensors: {', '.join(odd)}")
    return SparseState(net.random(budget.counts, rng), dict(budget.counts))


class StaticConfig(MethodConfig):
    """Static training has nothing to set: densities and allocation are the recipe's."""


@METHODS.register("static")
class Static(Method[StaticConfig]):
    """Train a fixed random subnetwork (STU-GAN's static baseline, with exact counts for its Bernoulli draws)."""

    Config: ClassVar[type[MethodConfig]] = StaticConfig

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Draw the masks."""
        return random_state(net, budget, rng)
