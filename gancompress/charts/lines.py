"""Line charts: one or several curves over a common x axis."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from gancompress.charts.plot import Plot

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DASHES", "Mark", "Series", "line_chart", "thin"]

#: patterns of the lines of one chart; the first is drawn through
DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclasses.dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        label: name in the legend.
        points: (x, y) in the order of x; a y that is not finite interrupts the line.
        color: index of the page's series colour; the dash goes with it.
        dots: draw every point, with its numbers as a tooltip.
    """

    label: str
    points: Sequence[tuple[float, float]]
    color: int = 0
    dots: bool = False

    @property
    def dash(self) -> str:
        """Pattern of the line."""
        return DASHES[self.color % len(DASHES)]

    @property
    def swatch(self) -> str:
        """A short piece of the line, for a legend."""
        dash = f' stroke-dasharray="{self.dash}"' if self.dash else ""
        line = f'<line class="line series-{self.color}" x1="0" x2="26" y1="4" y2="4"{dash}/>'
        return f'<svg viewBox="0 0 26 8" aria-hidden="true">{line}</svg>'


@dataclasses.dataclass(frozen=True)
class Mark:
    """A ring around one point, with a few words beside it."""

    x: float
    y: float
    label: str


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
        title: what the chart shows.
        series: the lines.
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
    plot = Plot(
        title,
        [x for x, _ in finite],
        [y for _, y in finite],
        x_label,
        y_label,
        log_y=log_y,
        from_zero=from_zero,
        width=width,
        height=height,
        kind=kind,
    )
    for bound in bounds if finite else ():
        plot.bound(bound)
    for one in drawn:
        plot.line(one.points, f"series-{one.color}", dash=one.dash, dots=one.label if one.dots else None)
    for mark in marks:
        if math.isfinite(mark.y):
            plot.ring(mark.x, mark.y, mark.label)
    return plot.svg()
