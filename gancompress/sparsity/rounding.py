"""From shares to whole numbers, once and the same everywhere."""

from __future__ import annotations

import math

__all__ = ["ceil_share"]


def ceil_share(share: float, count: int) -> int:
    """Return the smallest integer that is at least ``share * count``.

    A share written in decimals means that decimal: 0.07 of 100 is 7, although ``0.07 * 100`` is 7.000000000000001 in
    floating point.

    Args:
        share: any fraction, usually in [0, 1].
        count: what it is a share of.
    """
    return math.ceil(round(share * count, 6))
