"""Removing weights step by step, layer by layer, towards known final counts."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

from gancompress.errors import InvariantError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["shrink"]


def shrink(counts: Mapping[str, int], final: Mapping[str, int], total: int) -> dict[str, int]:
    """Return counts with the sum ``total``, every tensor the same share of the way from ``counts`` to ``final``.

    A tensor never gains, and never falls below its final count. Called again and again with a falling total, every
    tensor follows the same schedule from its size to its final count (Zhu and Gupta, 2017, section 3, where each
    layer has a target of its own), and ends exactly there.

    Args:
        counts: kept weights per tensor now.
        final: kept weights per tensor at the end; a tensor that is below its own already stays as it is.
        total: kept weights wanted over all tensors.

    Raises:
        InvariantError: ``total`` is above the sum of ``counts`` or below the sum of ``final``.
    """
    least = {name: min(count, final[name]) for name, count in counts.items()}
    low, high = sum(least.values()), sum(counts.values())
    if not low <= total <= high:
        raise InvariantError(f"cannot shrink {high} weights to {total}: the final counts keep {low}")
    if high == low:
        return dict(counts)
    way = Fraction(total - low, high - low)
    exact = {name: least[name] + (count - least[name]) * way for name, count in counts.items()}
    found = {name: floor(share) for name, share in exact.items()}
    by_remainder = sorted(found, key=lambda name: found[name] - exact[name])  # stable: ties to the earlier tensor
    for name in by_remainder[: total - sum(found.values())]:
        found[name] += 1
    return found
