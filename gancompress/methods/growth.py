"""What dynamic methods grow weights by: a score for every position of every masked tensor of one network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from gancompress.errors import InvariantError, RecipeError
from gancompress.sparsity import scores

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from gancompress.methods.base import NetView
    from gancompress.sparsity.state import SparseState

__all__ = ["GROWTH_SCORES", "Growth"]

Growth: TypeAlias = Literal["gradient", "random", "momentum"]


def _by_gradient(state: SparseState, net: NetView, rng: torch.Generator) -> dict[str, Tensor]:
    if net.gradients is None or not state.masks.keys() <= net.gradients.keys():
        raise InvariantError(f"growth by gradient of the {net.role} at step {net.step} was given no dense gradients")
    return {name: scores.gradient(net.gradients[name]) for name in state.masks}


def _by_momentum(state: SparseState, net: NetView, rng: torch.Generator) -> dict[str, Tensor]:
    if not state.masks.keys() <= net.momentum.keys():
        raise RecipeError("growth: momentum needs an optimizer with momentum; use adam, or growth: gradient")
    found = {name: scores.momentum(net.momentum[name]) for name in state.masks}
    masked = sum(mask.numel() for mask in state.masks.values()) - state.nonzeros
    if masked and not any(bool(found[name][~mask].any()) for name, mask in state.masks.items()):
        raise RecipeError("growth: momentum needs moments of masked weights: set sparsity.moments: dense")
    return found


def _by_chance(state: SparseState, net: NetView, rng: torch.Generator) -> dict[str, Tensor]:
    return {name: scores.random_scores(mask.shape, rng, device=mask.device) for name, mask in state.masks.items()}


#: All that tells SET (random), RigL (gradient) and SNFS (momentum) apart.
GROWTH_SCORES: dict[Growth, Callable[[SparseState, NetView, torch.Generator], dict[str, Tensor]]] = {
    "gradient": _by_gradient,
    "random": _by_chance,
    "momentum": _by_momentum,
}
