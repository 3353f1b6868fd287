"""Axes: where a number lies in a drawing, and the round numbers that are written beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Axis", "log_ticks", "nice_ticks", "tick_label", "tick_labels"]


class Axis:
    """Maps numbers to user units.

    Args:
        values: what has to fit; none gives 0 to 1.
        start: where the lowest value lies.
        end: where the highest lies; below ``start`` for an axis that points up.
        log: logarithmic, if all values are positive.
        air: share of the range that is left free at both ends.
        zero: the axis includes 0, without air beyond it.
    """

    def __init__(
        self,
        values: Iterable[float],
        start: float,
        end: float,
        *,
        log: bool = False,
        air: float = 0.0,
        zero: bool = False,
    ) -> None:
        numbers = list(values)
        low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
        self.log = log and low > 0
        if zero and not self.log:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low <= 1e-9 * abs(high):
            room = abs(low) * 0.1 or 1.0
            low, high = (low / 1.3, high * 1.3) if self.log else (low - room, high + room)
        if self.log:
            low, high = math.log10(low), math.log10(high)
        pad = (high - low) * air
        self.low = low - (0.0 if zero and low == 0 else pad)
        self.high = high + (0.0 if zero and high == 0 else pad)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Return where a number lies."""
        position = math.log10(value) if self.log else value
        return self.start + (position - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest number on it."""
        return (10**self.low, 10**self.high) if self.log else (self.low, self.high)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about ``count`` round numbers on it."""
        ticks = log_ticks(*self.range) if self.log else []
        # a narrow logarithmic range holds hardly a power of ten: there even steps say more
        return ticks if len(ticks) > 2 else nice_ticks(*self.range, count)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` multiples of 1, 2, 2.5 or 5 times a power of ten that lie within [low, high].

    Args:
        low: start of the range.
        high: end of the range, above ``low``.
        count: how many are wished for.
    """
    if not high > low:
        return [low]
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Rounding to the step's own digits turns 0.30000000000000004 back into 0.3.
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within [low, high]; of many only the powers, about six."""

    def inside(factors: Sequence[int], every: int = 1) -> list[float]:
        ticks = [factor * 10.0**power for power in list(powers)[::every] for factor in factors]
        return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = inside((1, 2, 5))
    return ticks if len(ticks) <= 8 else inside((1,), max(1, len(powers) // 6))


def tick_label(value: float) -> str:
    """Return a short label: 0, 0.25, 1500, 20k, 1.5M, 2e-4."""
    size = abs(value)
    if size == 0:
        return "0"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            scale = 1e3 if unit == "k" else limit
            return f"{value / scale:.4g}{unit}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the labels of one axis: short ones, with more digits where two ticks would be called the same."""
    labels = [tick_label(value) for value in values]
    for digits in range(5, 10):
        if len(set(labels)) == len(values):
            break
        labels = [f"{value:.{digits}g}" for value in values]
    return labels
