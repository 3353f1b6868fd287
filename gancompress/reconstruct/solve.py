"""Least squares over a part of the inputs, and what it would cost to leave out one more.

Saliency of a weight: by how much the squared error grows at least when it is removed and the others are refitted, ``w² /
[H⁻¹]`` with H the second moments of the inputs (Hassibi and Stork, 1993; for layers, Frantar and Alistarh, 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["damped", "fit", "refit", "saliency"]


def damped(moments: Tensor, damping: float) -> Tensor:
    """Return second moments (n, n) with ``damping`` times their mean diagonal added, in double precision."""
    found = moments.double().clone()
    mean = found.diagonal().mean()
    # An input that is always zero has no say, and must not make the matrix singular.
    found.diagonal().add_(damping * mean if mean > 0 else 1.0)
    return found


def fit(moments: Tensor, cross: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights with the least squared error, zero where they are not kept, and their saliencies.

    Args:
        moments: of the inputs, damped, (n, n).
        cross: moments of inputs and wanted outputs, (n, outputs).
        kept: (outputs, n).

    Returns:
        Both (outputs, n); saliencies are 0 for what is not kept.
    """
    weights, costs = torch.zeros_like(cross.T), torch.zeros_like(cross.T)
    for row, own in enumerate(kept):
        index = own.nonzero().flatten()
        if len(index):
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments[index[:, None], index]))
            weights[row, index] = inverse @ cross[index, row]
            costs[row, index] = weights[row, index] ** 2 / inverse.diagonal()
    return weights, costs


def refit(moments: Tensor, cross: Tensor, kept: Tensor) -> Tensor:
    """Return the weights of :func:`fit` alone, which is a third of the work and more exact."""
    found = torch.zeros_like(cross.T)
    for row, own in enumerate(kept):
        index = own.nonzero().flatten()
        if len(index):
            factor = torch.linalg.cholesky(moments[index[:, None], index])
            found[row, index] = torch.cholesky_solve(cross[index, row, None], factor).flatten()
    return found


def saliency(moments: Tensor, weights: Tensor) -> Tensor:
    """Return the saliencies (outputs, n) when nothing has been removed."""
    return weights**2 / torch.cholesky_inverse(torch.linalg.cholesky(moments)).diagonal()
