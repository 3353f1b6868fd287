"""Line charts as inline SVG: no library, no script, the same bytes for the same numbers.

Colours are CSS variables (``--series-0``, ``--ink``, ``--grid``, …) of the page, so that a chart follows its light or
dark style. Series differ by dash as well as by colour: they survive a grey printer and colour-blind eyes.
"""

from __future__ import annotations

import dataclasses
import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Mark", "Series", "line_chart", "log_ticks", "nice_ticks", "thin", "tick_label", "tick_labels"]

#: Margins around the plot in user units.
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 14.0, 12.0, 38.0
_DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclasses.dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        label: name in the legend.
        points: (x, y) in the order of x; a non-finite y interrupts the line.
        color: index of the page's series colour; the dash goes with it.
        dots: draw every point, with its numbers as a tooltip.
    """

    label: str
    points: Sequence[tuple[float, float]]
    color: int = 0
    dots: bool = False


@dataclasses.dataclass(frozen=True)
class Mark:
    """A ring around one point, with a few words beside it."""

    x: float
    y: float
    label: str


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
    """Return powers of ten within [low, high], with 2 and 5 times them when there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, len(powers) // 6)
    factors: tuple[int, ...] = (1,) if len(powers) > 3 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in list(powers)[::every] for factor in factors]
    return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


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


def thin(points: Sequence[tuple[float, float]], limit: int = 600) -> list[tuple[float, float]]:
    """Return at most ``limit`` points that look the same: the lowest and highest of every stretch, and both ends."""
    if len(points) <= limit:
        return list(points)
    buckets = max(1, (limit - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for i in range(buckets):
        part = inner[i * len(inner) // buckets : (i + 1) * len(inner) // buckets]
        finite = [point for point in part if math.isfinite(point[1])]
        if finite:
            extremes = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
            kept += sorted(extremes)
    return [*kept, points[-1]]


class _Axis:
    """Maps numbers to user units, with a little air at both ends."""

    def __init__(self, values: Iterable[float], start: float, end: float, *, log: bool, air: float, zero: bool) -> None:
        numbers = list(values)
        low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
        self.log = log and low > 0
        if zero and not self.log:
            low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            spread = abs(low) * 0.1
            low, high = (low / 1.3, high * 1.3) if self.log else (low - spread, high + (spread or 1.0))
        if self.log:
            low, high = math.log10(low), math.log10(high)
        pad = (high - low) * air
        self.low = low - (0.0 if zero and low == 0 else pad)
        self.high = high + (0.0 if zero and high == 0 else pad)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        position = math.log10(value) if self.log else value
        return self.start + (position - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        return log_ticks(10**self.low, 10**self.high) if self.log else nice_ticks(self.low, self.high, count)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "step",
    y_label: str = "",
    log_y: bool = False,
    from_zero: bool = False,
    marks: Sequence[Mark] = (),
    bounds: Sequence[float] = (),
    width: int = 560,
    height: int = 250,
    kind: str = "",
) -> str:
    """Draw lines over a common x axis.

    Args:
        title: what the chart shows; read aloud by screen readers and shown as a tooltip.
        series: the lines; points that are not finite, or not positive on a logarithmic axis, are left out.
        x_label: unit of the x axis.
        y_label: unit of the y axis.
        log_y: logarithmic y axis, if all values are positive.
        from_zero: the y axis includes 0.
        marks: points to ring.
        bounds: x positions of vertical lines (where a round begins).
        width: user units; the page scales the chart.
        height: user units.
        kind: one more CSS class of the drawing.

    Returns:
        One ``<svg>`` element; all text is escaped.
    """
    drawn = [dataclasses.replace(one, points=thin(one.points)) for one in series]
    finite = [(x, y) for one in drawn for x, y in one.points if math.isfinite(x) and math.isfinite(y)]
    right, bottom = width - _RIGHT, height - _BOTTOM
    x = _Axis((p[0] for p in finite), _LEFT, right, log=False, air=0.0, zero=False)
    y = _Axis((p[1] for p in finite), bottom, _TOP, log=log_y, air=0.05, zero=from_zero)
    name = escape(title)
    parts = [
        f'<svg class="{f"chart {kind}".strip()}" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">',
        f"<title>{name}</title>",
        *_grid(x, y, right, bottom, x_label, y_label, height),
    ]
    parts += [
        f'<line class="bound" x1="{x(b):.1f}" x2="{x(b):.1f}" y1="{_TOP:g}" y2="{bottom:g}"/>'
        for b in bounds
        if finite and x.low <= b <= x.high
    ]
    for one in drawn:
        parts += _line(one, x, y)
    parts += [_ring(mark, x, y, right) for mark in marks if math.isfinite(mark.y)]
    if not finite:
        parts.append(f'<text class="empty" x="{(_LEFT + right) / 2:g}" y="{height / 2:g}">no finite values</text>')
    return "".join([*parts, "</svg>"])


def _grid(x: _Axis, y: _Axis, right: float, bottom: float, x_label: str, y_label: str, height: int) -> list[str]:
    parts = []
    values = y.ticks(5)
    for tick, label in zip(values, tick_labels(values), strict=True):
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT:g}" x2="{right:g}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick y" x="{_LEFT - 7:g}" y="{at}" dy="0.32em">{label}</text>')
    for tick in x.ticks(6):
        at = f"{x(tick):.1f}"
        parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{bottom:g}" y2="{bottom + 4:g}"/>')
        parts.append(f'<text class="tick x" x="{at}" y="{bottom + 16:g}">{tick_label(tick)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>')
    parts.append(f'<text class="label x" x="{(_LEFT + right) / 2:g}" y="{height - 5:g}">{escape(x_label)}</text>')
    if y_label:
        middle = (bottom + _TOP) / 2
        turned = f'transform="rotate(-90 12 {middle:g})"'
        parts.append(f'<text class="label y" x="12" y="{middle:g}" {turned}>{escape(y_label)}</text>')
    return parts


def _line(one: Series, x: _Axis, y: _Axis) -> list[str]:
    dash = _DASHES[one.color % len(_DASHES)]
    style = f'class="line series-{one.color}"' + (f' stroke-dasharray="{dash}"' if dash else "")
    runs: list[list[tuple[float, float]]] = [[]]
    for px, py in one.points:
        if math.isfinite(py) and (not y.log or py > 0):
            runs[-1].append((px, py))
        elif runs[-1]:
            runs.append([])
    parts = [
        f'<polyline {style} points="{" ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in run)}"/>'
        for run in runs
        if len(run) > 1
    ]
    for run in runs:
        if one.dots or len(run) == 1:
            parts += [
                f'<circle class="dot series-{one.color}" cx="{x(px):.1f}" cy="{y(py):.1f}" r="3">'
                f"<title>{escape(one.label)} at {px:g}: {py:.6g}</title></circle>"
                for px, py in run
            ]
    return parts


def _ring(mark: Mark, x: _Axis, y: _Axis, right: float) -> str:
    at, up = x(mark.x), y(mark.y)
    anchor, shift = ("end", -9) if at > (_LEFT + right) / 2 else ("start", 9)
    above = up - 9 if up > _TOP + 22 else up + 18
    return (
        f'<circle class="mark" cx="{at:.1f}" cy="{up:.1f}" r="6"/>'
        f'<text class="mark" x="{at + shift:.1f}" y="{above:.1f}" text-anchor="{anchor}">{escape(mark.label)}</text>'
    )
