"""Which layers stay in float for the sake of the outputs.

Beside those that :func:`gancompress.quantization.programs.unfit` names or that saw zeros alone: while the error on
calibration inputs is more than :func:`bearable`, the layers that cost most per multiply-add when they alone are in
bytes, as long as these are no more than :data:`SHARE` of all multiply-adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["SHARE", "WANTED_PSNR", "WANTED_SNR", "bearable", "kept_in_float"]

#: in dB, to float: of images, whose noise is seen beside the brightest pixel; of anything else, whose noise is heard
#: beside the signal, which is 20 dB below its peaks in speech
WANTED_PSNR, WANTED_SNR = 40.0, 30.0
SHARE = 0.1


def bearable(*, peak: float | None = None, power: float = 0.0) -> float:
    """Return the mean squared error that no layer is kept in float for.

    Args:
        peak: of images: from black to white.
        power: of anything else: the mean square of the outputs.
    """
    return power * 10 ** (-WANTED_SNR / 10) if peak is None else peak**2 * 10 ** (-WANTED_PSNR / 10)


def kept_in_float(
    error: Callable[[Collection[str]], float], work: Mapping[str, float], total: float, most: float
) -> set[str]:
    """Return the layers that stay in float.

    Args:
        error: the mean squared error of the outputs when these layers are in bytes and all others are not.
        work: multiply-adds of every layer that can be in bytes, by name.
        total: multiply-adds of all layers.
        most: from :func:`bearable`.
    """
    kept: set[str] = set()
    if len(work) == 1 or error(work) <= most:
        return kept
    cost = {name: error([name]) / max(work[name], 1.0) for name in work}
    for name in sorted(cost, key=lambda one: -cost[one]):
        if sum(work[one] for one in kept) + work[name] <= SHARE * total and len(kept) + 1 < len(work):
            kept.add(name)
            if error([one for one in work if one not in kept]) <= most:
                break
    return kept
