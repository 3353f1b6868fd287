"""Exact masks: top-k and random-k, over one tensor or over many.

Every count is exact and every choice is decided by (score, index) alone, so a CPU and a GPU, and every rank of a
group, build the same mask. ``torch.topk`` is used for the *value* of the k-th score only: which of several equal
elements it returns differs between devices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gancompress.errors import InvariantError
from gancompress.sparsity.scores import random_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "global_topk_masks",
    "random_mask",
    "rank_keys",
    "ranks",
    "topk_mask",
    "union",
]


def rank_keys(scores: Tensor) -> Tensor:
    """Map scores to integers in the same order; NaN below -inf, both zeros equal, the smallest integer unused."""
    flat = scores.detach().reshape(-1)
    if not flat.is_floating_point():
        return flat.to(torch.int64).clamp(min=torch.iinfo(torch.int64).min + 1)
    if flat.dtype is not torch.float64:
        flat = flat.float()
    integer = torch.int64 if flat.dtype is torch.float64 else torch.int32
    limits = torch.iinfo(integer)
    # IEEE 754 numbers of one sign sort like integers; flipping the magnitude bits of the negative ones sorts all.
    bits = (flat + 0.0).view(integer)  # -0.0 + 0.0 is 0.0
    keys = torch.where(bits < 0, bits ^ limits.max, bits)
    return keys.masked_fill(flat.isnan(), limits.min + 1)


def ranks(keys: Tensor) -> Tensor:
    """Return the place of every element in its row (rows, columns): 0 is the highest, of equal ones the first."""
    order = keys.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


#: what numpy selects from, compares and counts, on a CPU several times as fast as torch
_NUMPYS = (torch.float32, torch.float64, torch.int32, torch.int64)


def _kth_largest(keys: Tensor, k: int) -> Tensor:
    """Return the k-th largest value (1-based) as a 0-d tensor, in linear time."""
    count = keys.numel()
    if keys.device.type == "cpu" and keys.dtype in _NUMPYS:
        return torch.from_numpy(np.partition(keys.numpy(), count - k)[count - k : count - k + 1])[0]
    if 2 * k > count:
        return keys.topk(count - k + 1, largest=False, sorted=False).values.max()
    return keys.topk(k, sorted=False).values.min()


#: of a large tensor one element in so many is looked at to guess a threshold; prime, so as not to follow a dimension
_SAMPLED = 61
_LARGE = 1 << 14
_MARGIN = 1.25


def _count(mask: Tensor) -> int:
    """Return how many are True."""
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(mask.sum())


def _places(mask: Tensor) -> Tensor:
    """Return where a flat mask is True, ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().flatten()


def _at_least(flat: Tensor, threshold: Tensor) -> Tensor:
    if flat.device.type == "cpu" and flat.dtype in _NUMPYS:
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(flat.numpy() >= threshold.item())
    return flat >= threshold


def _contenders(flat: Tensor, k: int, candidates: Tensor | None, available: int) -> Tensor | None:
    """Return the places, ascending, of few elements that surely hold the ``k`` highest; None to look at all.

    That is all candidates when there are few, or else those above a threshold that a sample suggests, if they turn out
    to be at least ``k``: then no other element can be among the highest.
    """
    if not flat.is_floating_point():
        return None
    if candidates is not None and 4 * available <= flat.numel():
        return _places(candidates)
    if flat.numel() < _LARGE or 16 * k > available:
        return None
    sample = flat[::_SAMPLED] if candidates is None else flat[::_SAMPLED][candidates[::_SAMPLED]]
    wanted = math.ceil(_MARGIN * k * sample.numel() / available) + 4
    if wanted >= sample.numel():
        return None
    above = _at_least(flat, _kth_largest(sample, wanted))  # of nothing, when that is not a number
    found = _places(above if candidates is None else above & candidates)
    return found if found.numel() >= k else None


def topk_mask(scores: Tensor, k: int, candidates: Tensor | None = None) -> Tensor:
    """Return the mask of the ``k`` highest scores. Linear time; ties go to the lowest index, on every device.

    Args:
        scores: any shape, floating or integer. NaN ranks below everything, ``-inf`` included.
        k: how many to choose.
        candidates: bool tensor of the same shape; only where it is True can be chosen.

    Returns:
        Bool tensor of the shape of ``scores`` with exactly ``k`` True.

    Raises:
        InvariantError: ``k`` is negative or larger than the number of candidates.
    """
    available = scores.numel() if candidates is None else _count(candidates)
    if not 0 <= k <= available:
        raise InvariantError(f"cannot choose {k} of {available} candidates")
    if k == available:
        return torch.ones_like(scores, dtype=torch.bool) if candidates is None else candidates.clone()
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.detach().reshape(-1)
    among = None if candidates is None else candidates.reshape(-1)
    places = _contenders(flat, k, among, available)
    if places is not None:
        mask = torch.zeros_like(flat, dtype=torch.bool)
        few = flat.index_select(0, places)
        comparable = not math.isnan(few.sum().item())  # numbers compare as their keys do
        mask.index_copy_(0, places, _highest(few if comparable else rank_keys(few), k))
        return mask.reshape(scores.shape)
    if flat.is_floating_point() and math.isfinite(flat.sum().item()):  # all are: -inf is free to stand for the others
        keys = flat if among is None else torch.where(among, flat, -math.inf)
    else:
        keys = rank_keys(flat)
        if among is not None:
            keys = keys.masked_fill(~among, torch.iinfo(keys.dtype).min)
    return _highest(keys, k).reshape(scores.shape)


def _highest(keys: Tensor, k: int) -> Tensor:
    """Return the mask of the ``k`` highest keys, or numbers without NaN; ties to the lowest index."""
    threshold = _kth_largest(keys, k)
    best = _at_least(keys, threshold)
    if _count(best) == k:
        return best
    chosen = keys > threshold
    tied = keys == threshold
    return chosen | (tied & (tied.cumsum(0) <= k - chosen.sum()))


def random_mask(
    shape: Sequence[int],
    k: int,
    rng: torch.Generator,
    *,
    candidates: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return a mask of exactly ``k`` positions drawn uniformly without replacement.

    Args:
        shape: shape of the mask.
        k: how many positions.
        rng: CPU generator; the mask is a pure function of its state, whatever the device.
        candidates: bool tensor of that shape; only where it is True can be drawn.
        device: where the mask is put.

    Raises:
        InvariantError: ``k`` is negative or larger than the number of candidates.
    """
    return topk_mask(random_scores(shape, rng, device=device), k, candidates)


def global_topk_masks(
    scores: Mapping[str, Tensor],
    k: int,
    *,
    floors: Mapping[str, int] | None = None,
    candidates: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return masks of the ``k`` highest scores over several tensors together, each keeping at least its floor.

    Every tensor first keeps its own best ``floors[name]``; the rest of ``k`` goes to the best of what is left. That is
    the highest total score under the floors. Ties go to the earlier tensor, then to the lower index.

    Args:
        scores: by name, all on one device.
        k: how many to choose in total.
        floors: least number per tensor; 0 where not named.
        candidates: bool tensors; only where they are True can be chosen.

    Raises:
        InvariantError: ``k`` is less than the floors together, or more than the candidates.
    """
    floors = floors or {}
    if len(scores) == 1 and not any(floors.get(name, 0) for name in scores):
        return {
            name: topk_mask(score, k, None if candidates is None else candidates[name])
            for name, score in scores.items()
        }
    reserved = {
        name: topk_mask(score, floors.get(name, 0), None if candidates is None else candidates[name])
        for name, score in scores.items()
    }
    rest = k - sum(floors.get(name, 0) for name in scores)
    if rest < 0:
        raise InvariantError(f"cannot choose {k} elements: the floors together ask for {k - rest}")
    if not scores:
        return {}
    pooled = torch.cat([score.reshape(-1) for score in scores.values()])
    free = ~torch.cat([mask.reshape(-1) for mask in reserved.values()])
    if candidates is not None:
        free &= torch.cat([candidates[name].reshape(-1) for name in scores])
    parts = torch.split(topk_mask(pooled, rest, free), [score.numel() for score in scores.values()])
    return {name: mask | part.reshape(mask.shape) for (name, mask), part in zip(reserved.items(), parts, strict=True)}


def union(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``a | b`` per name; both name the same tensors."""
    return {name: mask | b[name] for name, mask in a.items()}
