"""Which units of the tensors of one network are kept: the best of each, the best of all together, or random ones.

Scores, candidates and results have the shape of the weights. A tensor without :class:`Units` of its own keeps single
weights; then these are :func:`~gancompress.sparsity.masks.topk_mask` and its kin, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.sparsity.masks import global_topk_masks, topk_mask
from gancompress.sparsity.scores import random_scores
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["at_random", "best", "best_overall", "units_of"]

Tensors = dict[str, Tensor]


def units_of(units: Mapping[str, Units], shapes: Mapping[str, Sequence[int]]) -> dict[str, Units]:
    """Return the units of every tensor: single weights where none are named."""
    return {name: units.get(name) or Units.single(shape) for name, shape in shapes.items()}


def best(
    units: Mapping[str, Units],
    scores: Mapping[str, Tensor],
    counts: Mapping[str, int],
    *,
    candidates: Mapping[str, Tensor] | None = None,
) -> Tensors:
    """Return masks of the units with the highest mean scores, ``counts[name]`` weights of every tensor.

    Args:
        units: as a budget holds them.
        scores: by name; NaN ranks below everything.
        counts: weights to keep, multiples of the size of the tensor's units.
        candidates: bool tensors; only units that are True as a whole can be chosen.

    Raises:
        InvariantError: there are fewer candidates than are to be kept.
    """
    found: Tensors = {}
    for name, score in scores.items():
        own = units.get(name)
        among = None if candidates is None else candidates[name]
        if own is None or counts[name] == score.numel():
            found[name] = topk_mask(score, counts[name], among)
            continue
        pooled = own.pool(score)
        free = own.room(pooled, None if among is None else own.chosen(among), None)
        found[name] = own.expand(topk_mask(pooled, counts[name] // own.size, free))
    return found


def best_overall(
    units: Mapping[str, Units],
    scores: Mapping[str, Tensor],
    total: int,
    *,
    floors: Mapping[str, int] | None = None,
    candidates: Mapping[str, Tensor] | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> Tensors:
    """Return masks of the units with the highest mean scores of all tensors together, ``total`` weights.

    With single weights, and units of one size that divides it, ``total`` is exact. Where sizes differ, a unit that is
    too large for what is left is passed over for the next smaller one, so that less than a unit may be missing. Where
    groups have a limit, what these leave no room for is missing too.

    Args:
        units: as a budget holds them.
        scores: by name, all on one device.
        total: weights to choose.
        floors: least weights per tensor, multiples of the size of its units.
        candidates: only units that are True as a whole can be chosen.
        beside: masks of what is kept anyway, which counts towards the limits of groups.

    Raises:
        InvariantError: ``total`` is less than the floors, or more than the candidates where nothing has a limit.
    """
    if not any(name in units for name in scores):
        return global_topk_masks(scores, total, floors=floors, candidates=candidates)
    own = units_of(units, {name: score.shape for name, score in scores.items()})
    pooled = {name: own[name].pool(score) for name, score in scores.items()}
    free: Tensors = {}
    for name, score in pooled.items():
        among = torch.ones_like(score, dtype=torch.bool) if candidates is None else own[name].chosen(candidates[name])
        if floors and floors.get(name) == scores[name].numel():  # kept whole, which has no limit
            free[name] = among
            continue
        room = own[name].room(score, among, None if beside is None else own[name].chosen(beside[name]))
        free[name] = among if room is None else room
    # everything that is left may be kept, but groups may have room for less
    limited = any(unit.group for unit in own.values())
    available = sum(int(free[name].sum()) * own[name].size for name in own) if limited else total
    sizes = {name: unit.size for name, unit in own.items()}
    least = {name: count // sizes[name] for name, count in (floors or {}).items()}
    if len(set(sizes.values())) == 1:
        size = next(iter(sizes.values()))
        chosen = global_topk_masks(pooled, min(total, available) // size, floors=least, candidates=free)
    else:
        chosen = _of_many_sizes(pooled, min(total, available), sizes, least, free)
    return {name: own[name].expand(mask) for name, mask in chosen.items()}


def _of_many_sizes(
    pooled: Mapping[str, Tensor], total: int, sizes: Mapping[str, int], floors: Mapping[str, int], free: Tensors
) -> Tensors:
    chosen = {name: topk_mask(score, floors.get(name, 0), free[name]) for name, score in pooled.items()}
    left = total - sum(count * sizes[name] for name, count in floors.items())
    scores = torch.cat([score.double().reshape(-1) for score in pooled.values()])
    weight = torch.cat([torch.full((score.numel(),), sizes[name]) for name, score in pooled.items()]).to(scores.device)
    open_ = torch.cat([(free[name] & ~chosen[name]).reshape(-1) for name in pooled])
    order = scores.nan_to_num(nan=-torch.inf, neginf=-torch.inf, posinf=torch.inf).argsort(descending=True, stable=True)
    order = order[open_[order]]
    taken = torch.zeros_like(open_)
    while order.numel() and left > 0:
        filled = weight[order].cumsum(0)
        fits = int((filled <= left).sum())
        taken[order[:fits]] = True
        left -= int(filled[fits - 1]) if fits else 0
        order = order[fits:]
        order = order[weight[order] <= left]  # the next one is too large: go on with smaller ones
    parts = torch.split(taken, [score.numel() for score in pooled.values()])
    return {name: mask | part.reshape(mask.shape) for (name, mask), part in zip(chosen.items(), parts, strict=True)}


def at_random(
    units: Mapping[str, Units],
    shapes: Mapping[str, Sequence[int]],
    counts: Mapping[str, int],
    rng: torch.Generator,
    *,
    device: torch.device | str = "cpu",
) -> Tensors:
    """Return masks of units drawn uniformly without replacement, ``counts[name]`` weights of every tensor.

    Args:
        units: as a budget holds them.
        shapes: by name.
        counts: weights to keep, multiples of the size of the tensor's units.
        rng: CPU generator; the masks are a pure function of its state, whatever the device.
        device: where the masks are put.
    """
    found: Tensors = {}
    for name, own in units_of(units, shapes).items():
        scores = random_scores(own.grid, rng, device=device)
        whole = counts[name] == own.count * own.size
        free = None if whole else own.room(scores, None, None)
        found[name] = own.expand(topk_mask(scores, counts[name] // own.size, free))
    return found
