"""Least squares over a part of the inputs, and what it would cost to leave out one more.

Saliency of a weight: by how much the squared error grows at least when it is removed and the others are refitted, its
square over its entry on the diagonal of H⁻¹, H the second moments of the inputs (Hassibi and Stork, 1993; for layers,
Frantar and Alistarh, 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["damped", "fit", "inverse_diagonal", "refit"]

#: multiplications beyond which systems are solved by iterating on all rows at once
_DIRECT = 2e11
_ITERATIONS = 60


def damped(moments: Tensor, damping: float) -> Tensor:
    """Return second moments (n, n) with ``damping`` times their mean diagonal added, in double precision."""
    found = moments.double().clone()
    mean = float(found.diagonal().mean())
    # Inputs that are always zero have no say, and must not make the matrix singular.
    found.diagonal().add_(damping * mean if mean > 0 else 1.0)
    return found


def inverse_diagonal(moments: Tensor) -> Tensor:
    """Return the diagonal (n,) of the inverse of damped moments."""
    return torch.cholesky_inverse(torch.linalg.cholesky(moments)).diagonal()


def fit(moments: Tensor, cross: Tensor, kept: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights with the least squared error, zero where they are not kept, and their saliencies.

    Args:
        moments: of the inputs, damped, (n, n).
        cross: moments of inputs and wanted outputs, (n, outputs).
        kept: (outputs, n).
        spread: :func:`inverse_diagonal` of all inputs, which stands in for that of those that are kept where
            inverting for every output would take too long.

    Returns:
        Both (outputs, n); saliencies are 0 for what is not kept.
    """
    if _work(kept) > _DIRECT:
        weights = _iterated(moments, cross, kept)
        return weights, weights**2 / spread.to(weights)
    weights, costs = torch.zeros_like(cross.T), torch.zeros_like(cross.T)
    for row, own in enumerate(kept):
        index = own.nonzero().flatten()
        if len(index):
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments[index[:, None], index]))
            weights[row, index] = inverse @ cross[index, row]
            costs[row, index] = weights[row, index] ** 2 / inverse.diagonal()
    return weights, costs


def refit(moments: Tensor, cross: Tensor, kept: Tensor) -> Tensor:
    """Return the weights of :func:`fit` alone, which is less work and more exact."""
    if _work(kept) > 3 * _DIRECT:
        return _iterated(moments, cross, kept)
    found = torch.zeros_like(cross.T)
    for row, own in enumerate(kept):
        index = own.nonzero().flatten()
        if len(index):
            factor = torch.linalg.cholesky(moments[index[:, None], index])
            found[row, index] = torch.cholesky_solve(cross[index, row, None], factor).flatten()
    return found


def _work(kept: Tensor) -> float:
    return float((kept.sum(1).double() ** 3).sum())


def _iterated(moments: Tensor, cross: Tensor, kept: Tensor) -> Tensor:
    """Solve for all outputs together by conjugate gradients, scaled by the diagonal."""
    scale = moments.diagonal().rsqrt()
    matrix = moments * scale[:, None] * scale
    wanted = cross.T * scale * kept
    found, rest = torch.zeros_like(wanted), wanted.clone()
    direction, power = rest.clone(), rest.square().sum(1, keepdim=True)
    least = power * torch.finfo(power.dtype).eps ** 2
    for _ in range(_ITERATIONS):
        step = (direction @ matrix) * kept
        length = power / (direction * step).sum(1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)
        length = torch.where(power > least, length, torch.zeros_like(length))
        found, rest = found + length * direction, rest - length * step
        now = rest.square().sum(1, keepdim=True)
        direction = rest + now / power.clamp_min(torch.finfo(power.dtype).tiny) * direction
        power = now
    return found * scale
