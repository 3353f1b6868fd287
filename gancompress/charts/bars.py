"""Bar charts: measured numbers side by side, each with the range it was measured in."""

from __future__ import annotations

import dataclasses
from html import escape
from typing import TYPE_CHECKING

from gancompress.charts.axis import Axis, tick_label

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bar", "bar_chart"]

_ROW, _TOP, _BOTTOM, _RIGHT = 22.0, 30.0, 40.0, 52.0


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: beside it.
        value: its length.
        low: start of its range.
        high: end of its range.
        color: index of the series colour; ``None`` is grey, for what is only there to be compared with.
    """

    label: str
    value: float
    low: float
    high: float
    color: int | None = None


def bar_chart(title: str, bars: Sequence[Bar], x_label: str, *, unit: float | None = None, width: float = 560) -> str:
    """Draw horizontal bars from 0, the first on top.

    Args:
        title: heading of the drawing.
        bars: what to draw; values are not negative.
        x_label: what the lengths are.
        unit: a vertical line is drawn here, such as 1 for ratios.
        width: user units.

    Returns:
        One ``<svg>`` element; all text is escaped.
    """
    left = 16 + 6.6 * max((len(bar.label) for bar in bars), default=0)
    bottom = _TOP + _ROW * len(bars)
    x = Axis([value for bar in bars for value in (bar.value, bar.high)], left, width - _RIGHT, zero=True)
    name = escape(title)
    parts = [
        f'<svg class="chart" viewBox="0 0 {width:g} {bottom + _BOTTOM:g}" role="img" aria-label="{name}">',
        f'<title>{name}</title><text class="note" x="{left:g}" y="18">{name}</text>',
    ]
    for value in x.ticks(5):
        at = f"{x(value):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP:g}" y2="{bottom:g}"/>')
        parts.append(f'<text class="tick x" x="{at}" y="{bottom + 16:g}">{tick_label(value)}</text>')
    for index, bar in enumerate(bars):
        css = "base-1" if bar.color is None else f"series-{bar.color}"
        top, middle = _TOP + _ROW * index + 3, _TOP + _ROW * (index + 0.5)
        end, low, high = x(bar.value), x(bar.low), x(bar.high)
        label, range_ = escape(bar.label), f"{bar.low:.4g} to {bar.high:.4g}"
        parts.append(f'<text class="tick y" x="{left - 7:g}" y="{middle:g}" dy="0.32em">{label}</text>')
        parts.append(
            f'<rect class="bar {css}" x="{left:.1f}" y="{top:g}" width="{end - left:.1f}" height="{_ROW - 6:g}">'
            f"<title>{label}: {bar.value:.4g} ({range_})</title></rect>"
        )
        parts.append(f'<path class="range" d="M{low:.1f} {middle:g}H{high:.1f}"/>')
        parts.append(f'<text x="{max(end, high) + 6:.1f}" y="{middle:g}" dy="0.32em">{bar.value:.3g}</text>')
    if unit is not None:
        parts.append(f'<line class="axis" x1="{x(unit):.1f}" x2="{x(unit):.1f}" y1="{_TOP:g}" y2="{bottom:g}"/>')
    middle = (left + width - _RIGHT) / 2
    parts.append(f'<text class="label x" x="{middle:g}" y="{bottom + 33:g}">{escape(x_label)}</text></svg>')
    return "".join(parts)
