"""Least squares over a part of the inputs, and what it would cost to leave out one more.

Saliency of a weight: by how much the squared error grows at least when it is removed and the others are refitted, its
square over its entry on the diagonal of H⁻¹, H the second moments of the inputs (Hassibi and Stork, 1993; for layers,
Frantar and Alistarh, 2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["chance", "damped", "fit", "inverse_diagonal", "refit"]

#: multiplications beyond which systems are solved by iterating on all rows at once
_DIRECT = 2e11
_ITERATIONS = 60
#: outputs whose weights go in turn at once, for the memory that takes
_TOGETHER = 256


def damped(moments: Tensor, damping: float) -> Tensor:
    """Return second moments (n, n) with ``damping`` times their mean diagonal added, in double precision."""
    found = moments.double().clone()
    mean = float(found.diagonal().mean())
    # Inputs that are always zero have no say, and must not make the matrix singular.
    found.diagonal().add_(damping * mean if mean > 0 else 1.0)
    return found


def chance(moments: Tensor, count: int) -> float:
    """Return the damping that second moments (n, n) of ``count`` inputs need for being those of few.

    That of the oracle approximating shrinkage (Chen, Wiesel, Eldar and Hero, 2010), and soon none where there were more
    inputs than weights to fit: these are known then.
    """
    n, trace = len(moments), float(moments.diagonal().sum())
    square = float(moments.square().sum())
    least = (count + 1 - 2 / n) * (square - trace**2 / n)
    share = min(((1 - 2 / n) * square + trace**2) / least, 1.0) if least > 0 else 1.0
    return share * min(n / count, 1.0) ** 2


def inverse_diagonal(moments: Tensor) -> Tensor:
    """Return the diagonal (n,) of the inverse of damped moments."""
    return torch.cholesky_inverse(torch.linalg.cholesky(moments)).diagonal()


def fit(moments: Tensor, cross: Tensor, kept: Tensor, spread: Tensor, going: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the weights with the least squared error, zero where they are not kept, and their saliencies.

    Saliencies are those of weights that go alone. Of two that can stand in for each other both have small ones, and
    only one can go: where many go at once, the smallest ones must be told in turn.

    Args:
        moments: of the inputs, damped, (n, n).
        cross: moments of inputs and wanted outputs, (n, outputs).
        kept: (outputs, n).
        spread: :func:`inverse_diagonal` of all inputs, which stands in for that of those that are kept where
            inverting for every output would take too long.
        going: share of an output's weights whose saliencies are those of going one after the other, cheapest first,
            each with the ones before it gone.

    Returns:
        Both (outputs, n); saliencies are 0 for what is not kept.
    """
    if _work(kept) > _DIRECT:
        weights = _iterated(moments, cross, kept)
        return weights, weights**2 / spread.to(weights)
    parts = [
        _fitted(moments, cross[:, at : at + _TOGETHER], kept[at : at + _TOGETHER], going)
        for at in range(0, len(kept), _TOGETHER)
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _fitted(moments: Tensor, cross: Tensor, kept: Tensor, going: float) -> tuple[Tensor, Tensor]:
    """As :func:`fit`, by inverting for every output."""
    weights, costs = torch.zeros_like(cross.T), torch.zeros_like(cross.T)
    many = math.ceil(going * int(kept.sum(1).max()))
    first = torch.zeros(len(kept), many, dtype=torch.long)
    among = torch.eye(many).to(moments).repeat(len(kept), 1, 1)
    inverse, whole = moments, bool(kept.all())
    for row, own in enumerate(kept):
        index = own.nonzero().flatten()
        if not len(index):
            continue
        if row == 0 or not whole:
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(_part(moments, index)))
        weights[row, index] = inverse @ cross[index, row]
        costs[row, index] = weights[row, index] ** 2 / inverse.diagonal()
        if many:
            cheap = costs[row, index].argsort()[:many]
            first[row, : len(cheap)] = index[cheap]
            among[row, : len(cheap), : len(cheap)] = _part(inverse, cheap)
            # places that are left over cost nothing and change nothing
            first[row, len(cheap) :] = int(index[cheap[0]])
    if many:
        place = torch.arange(many) < kept.sum(1, keepdim=True)
        in_turn = _in_turn(among, weights.gather(1, first) * place)
        dearest = in_turn.amax(1, keepdim=True)
        # what costs more alone than all of these costs no less than the last of them
        costs = torch.where(kept, torch.maximum(costs, dearest), costs)
        costs.scatter_reduce_(1, first, in_turn.masked_fill(~place, torch.inf), "amin")
    return weights, costs


def _in_turn(inverse: Tensor, weights: Tensor) -> Tensor:
    """Return what each weight costs when all go one after the other, cheapest first: never less than those before it.

    Args:
        inverse: of the moments, those rows and columns that belong to the weights, (outputs, m, m).
        weights: (outputs, m).
    """
    outputs, many = weights.shape
    rows = torch.arange(outputs)
    weights, spread = weights.clone(), inverse.diagonal(dim1=1, dim2=2).clone()
    found, last = torch.zeros_like(weights), torch.zeros_like(weights[:, 0])
    gone = torch.zeros_like(weights)  # infinite where it has
    # rows of a Cholesky factor, in the order in which weights go
    factor = inverse.new_zeros(outputs, many, many)
    least = torch.finfo(inverse.dtype).tiny
    for turn in range(many):
        cost, at = weights.square().div_(spread.clamp_min(least)).add_(gone).min(1)
        last = torch.maximum(last, cost)
        found[rows, at] = last
        shared = factor[rows, :turn, at]
        column = torch.baddbmm(inverse[rows, at][:, None], shared[:, None], factor[:, :turn], alpha=-1)[:, 0]
        root = spread[rows, at].clamp_min(least).rsqrt()[:, None]
        column *= root
        weights.addcmul_(column, weights[rows, at, None] * root, value=-1)
        spread.addcmul_(column, column, value=-1)
        factor[:, turn] = column
        gone[rows, at] = torch.inf
    return found


def _part(matrix: Tensor, index: Tensor) -> Tensor:
    """Return these rows and columns: in two steps, which is five times as fast as in one."""
    return matrix.index_select(0, index).index_select(1, index)


def refit(moments: Tensor, cross: Tensor, kept: Tensor) -> Tensor:
    """Return the weights of :func:`fit` alone, which is less work and more exact."""
    if _work(kept) > 3 * _DIRECT:
        return _iterated(moments, cross, kept)
    found = torch.zeros_like(cross.T)
    for row, own in enumerate(kept):
        index = own.nonzero().flatten()
        if len(index):
            factor = torch.linalg.cholesky(_part(moments, index))
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
