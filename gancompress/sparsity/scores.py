"""What a method ranks weights by: each returns non-negative scores of the weight's shape, the highest is best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["gradient", "magnitude", "momentum", "random_scores", "sensitivity"]


def magnitude(weight: Tensor) -> Tensor:
    """Return ``|w|`` (Han et al., 2015; SET; RigL)."""
    return weight.detach().abs()


def gradient(grad: Tensor) -> Tensor:
    """Return ``|g|``, the first-order change of the loss per unit of weight (RigL, section 3)."""
    return grad.detach().abs()


def sensitivity(weight: Tensor, grad: Tensor) -> Tensor:
    """Return ``|w * g|``, the first-order change of the loss when the weight is removed (SNIP, section 4)."""
    return (weight.detach() * grad.detach()).abs()


def momentum(first_moment: Tensor) -> Tensor:
    """Return ``|m|``, the smoothed gradient (Dettmers and Zettlemoyer, 2019, section 3)."""
    return first_moment.detach().abs()


def random_scores(shape: Sequence[int], rng: torch.Generator, *, device: torch.device | str = "cpu") -> Tensor:
    """Return independent uniform scores in [0, 1).

    Drawn in double precision: with 24 bits, equal scores would be common in a layer of a million weights and the
    lower index would win more often than it should.

    Args:
        shape: shape of the scores.
        rng: CPU generator; drawn on the CPU, then moved, so that every device gets the same.
        device: where the scores are put.
    """
    return torch.rand(tuple(shape), generator=rng, dtype=torch.float64).to(device)
