"""Which layers stay in float for the sake of the outputs.

Beside those that :func:`gancompress.quantization.programs.unfit` names or that saw zeros alone: while outputs on
calibration inputs are below :data:`WANTED` dB to float (of their peak), the layers that cost most when they alone are
in bytes, as long as these are no more than :data:`SHARE` of all multiply-adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["SHARE", "WANTED", "kept_in_float"]

WANTED = 40.0
SHARE = 0.1


def kept_in_float(
    error: Callable[[Collection[str]], float], work: Mapping[str, float], total: float, peak: float
) -> set[str]:
    """Return the layers that stay in float.

    Args:
        error: the mean squared error of the outputs when these layers are in bytes and all others are not.
        work: multiply-adds of every layer that can be in bytes, by name.
        total: multiply-adds of all layers.
        peak: between the least and the largest number that outputs can be.
    """
    most = peak**2 * 10 ** (-WANTED / 10)
    kept: set[str] = set()
    if len(work) == 1 or error(work) <= most:
        return kept
    alone = {name: error([name]) for name in work}
    for name in sorted(alone, key=lambda one: -alone[one]):
        if sum(work[one] for one in kept) + work[name] <= SHARE * total and len(kept) + 1 < len(work):
            kept.add(name)
            if error([one for one in work if one not in kept]) <= most:
                break
    return kept
