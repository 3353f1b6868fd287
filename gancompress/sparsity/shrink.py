"""Removing weights step by step, layer by layer, towards known final counts."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from gancompress.errors import InvariantError
from gancompress.sparsity.rounding import apportion

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["shrink"]


def shrink(
    counts: Mapping[str, int], final: Mapping[str, int], total: int, steps: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return counts with the sum ``total``, every tensor the same share of the way from ``counts`` to ``final``.

    A tensor never gains, and never falls below its final count. Called again and again with a falling total, every
    tensor follows the same schedule from its size to its final count (Zhu and Gupta, 2017, section 3, where each
    layer has a target of its own), and ends exactly there.

    Args:
        counts: kept weights per tensor now.
        final: kept weights per tensor at the end; a tensor that is below its own already stays as it is.
        total: kept weights wanted over all tensors.
        steps: weights of one unit per tensor, of which all counts are multiples; the sum is then the nearest that
            whole units allow. Default: single weights.

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
    return apportion(exact, total, steps or dict.fromkeys(counts, 1), counts)
