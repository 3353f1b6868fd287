"""From shares to whole numbers, once and the same everywhere."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from gancompress.errors import InvariantError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["apportion", "ceil_share", "least_share", "nearest_share", "shrink", "up_to_step"]


def ceil_share(share: float, count: int) -> int:
    """Return the smallest integer that is at least ``share * count``.

    A share written in decimals means that decimal: 0.07 of 100 is 7, although ``0.07 * 100`` is 7.000000000000001 in
    floating point.

    Args:
        share: any fraction, usually in [0, 1].
        count: what it is a share of.
    """
    return math.ceil(round(share * count, 6))


def nearest_share(share: float, count: int) -> int:
    """Return the integer nearest to ``share * count``, halves upwards."""
    return int(share * count + 0.5)


def least_share(count: int) -> float:
    """Return the smallest share, to four digits, whose :func:`nearest_share` of ``count`` is not 0."""
    return math.ceil(1e4 * 0.5 / count) / 1e4


def up_to_step(count: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is at least ``count``."""
    return -(-count // step) * step


def apportion(
    exact: Mapping[str, Fraction], total: int, steps: Mapping[str, int], highs: Mapping[str, int]
) -> dict[str, int]:
    """Round shares to multiples of their steps whose sum is as near to ``total`` as these allow, by largest remainder.

    With steps of 1 the sum is exact. Ties go to the earlier name.

    Args:
        exact: shares with the sum ``total``.
        total: the sum that is wanted.
        steps: what each share is rounded to a multiple of.
        highs: multiples of the steps that no share exceeds.
    """
    counts = {name: math.floor(share / steps[name]) * steps[name] for name, share in exact.items()}
    left = total - sum(counts.values())
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name]) / steps[name])  # stable
    for most in (1, total):  # one more each; what is then left goes to those with smaller units
        for name in by_remainder:
            more = min(left // steps[name], (highs[name] - counts[name]) // steps[name], most)
            counts[name] += more * steps[name]
            left -= more * steps[name]
    # nothing fits into what is left; the smallest unit may still come as near, and a weight more is better than less
    open_ = [name for name in by_remainder if counts[name] < highs[name] and steps[name] <= 2 * left]
    if open_:
        counts[min(open_, key=lambda name: steps[name])] += min(steps[name] for name in open_)
    return counts


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
