"""One drawing: axes with a grid, and what lies between them.

Colours are CSS variables (``style.css``: ``--series-0`` to ``--series-7``, ``--ink``, ``--grid``, …), so that a chart
follows the light or dark style of its page. Series differ by dash or by the shape of their markers as well: they
survive a grey printer and colour-blind eyes.
"""

from __future__ import annotations

import dataclasses
import math
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from gancompress.charts.axis import Axis, tick_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["SHAPES", "Figure", "Plot", "marker", "spans_decades", "style_sheet"]

#: margins around the plot in user units
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 12.0, 38.0

_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
    "down": [(0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
    "diamond": [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],
    "hexagon": [(1.1, 0), (0.55, 1), (-0.55, 1), (-1.1, 0), (-0.55, -1), (0.55, -1)],
}
#: shapes of markers, from those that are told apart most easily
SHAPES = ("circle", "diamond", "cross", "down", "plus", "hexagon", "triangle", "square")


class Plot:
    """Axes, grid and whatever is drawn between them.

    Args:
        title: what the chart shows; read aloud by screen readers and shown as a tooltip.
        xs: numbers that have to fit on the x axis.
        ys: the same of the y axis; those that are not finite are left out.
        x_label: what the x axis is, with its unit.
        y_label: the same of the y axis.
        tick: writes a number of the x axis.
        log_x: logarithmic x axis.
        log_y: logarithmic y axis, if all values are positive.
        from_zero: the y axis includes 0.
        air: share of the x axis that is left free at both ends.
        width: user units; a page scales the chart.
        height: user units.
        kind: one more CSS class of the drawing.
    """

    def __init__(
        self,
        title: str,
        xs: Iterable[float],
        ys: Iterable[float],
        x_label: str,
        y_label: str = "",
        *,
        tick: Callable[[float], str] | None = None,
        log_x: bool = False,
        log_y: bool = False,
        from_zero: bool = False,
        air: float = 0.0,
        width: float = 560,
        height: float = 250,
        kind: str = "",
    ) -> None:
        self.right, self.bottom = width - RIGHT, height - BOTTOM
        finite = [y for y in ys if math.isfinite(y)]
        self.x = Axis(xs, LEFT, self.right, log=log_x, air=air)
        self.y = Axis(finite, self.bottom, TOP, log=log_y, air=0.05, zero=from_zero)
        self._taken: list[tuple[float, float, float]] = []
        name = escape(title)
        self.parts = [
            f'<svg class="{f"chart {kind}".strip()}" viewBox="0 0 {width:g} {height:g}" role="img" '
            f'aria-label="{name}">',
            f"<title>{name}</title>",
        ]
        values = self.y.ticks()
        for value, label in zip(values, tick_labels(values), strict=True):
            at = f"{self.y(value):.1f}"
            self._add(f'<line class="grid" x1="{LEFT:g}" x2="{self.right:g}" y1="{at}" y2="{at}"/>')
            self._add(f'<text class="tick y" x="{LEFT - 7:g}" y="{at}" dy="0.32em">{label}</text>')
        values = self.x.ticks(6)
        for value, label in zip(values, map(tick, values) if tick else tick_labels(values), strict=True):
            at = f"{self.x(value):.1f}"
            self._add(f'<line class="axis" x1="{at}" x2="{at}" y1="{self.bottom:g}" y2="{self.bottom + 4:g}"/>')
            self._add(f'<text class="tick x" x="{at}" y="{self.bottom + 16:g}">{escape(label)}</text>')
        self._add(f'<line class="axis" x1="{LEFT:g}" x2="{self.right:g}" y1="{self.bottom:g}" y2="{self.bottom:g}"/>')
        middle, up = (LEFT + self.right) / 2, (self.bottom + TOP) / 2
        self._add(f'<text class="label x" x="{middle:g}" y="{height - 5:g}">{escape(x_label)}</text>')
        if y_label:
            turned = f'transform="rotate(-90 12 {up:g})"'
            self._add(f'<text class="label y" x="12" y="{up:g}" {turned}>{escape(y_label)}</text>')
        if not finite:
            self._add(f'<text class="empty" x="{middle:g}" y="{height / 2:g}">no finite values</text>')

    def _add(self, part: str) -> None:
        self.parts.append(part)

    def line(self, points: Iterable[tuple[float, float]], css: str, *, dash: str = "", dots: str | None = None) -> None:
        """Draw a line; what cannot be shown (not finite, not positive on a logarithmic axis) interrupts it.

        Args:
            points: (x, y) in the order of x.
            css: class that gives the colour.
            dash: pattern of the line.
            dots: draw every point too, named so in its tooltip. A point between two gaps is always drawn.
        """
        stretches: list[list[tuple[float, float]]] = [[]]
        for x, y in points:
            if math.isfinite(y) and (not self.y.log or y > 0):
                stretches[-1].append((x, y))
            elif stretches[-1]:
                stretches.append([])
        style = f'class="line {css}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        for stretch in stretches:
            if len(stretch) > 1:
                self._add(f'<polyline {style} points="{self._path(stretch)}"/>')
        for stretch in stretches:
            if dots is not None or len(stretch) == 1:
                for x, y in stretch:
                    self._add(marker("circle", self.x(x), self.y(y), css, f"{dots or ''} at {x:g}: {y:.6g}".strip(), 3))

    def band(self, lows: Sequence[tuple[float, float]], highs: Sequence[tuple[float, float]], css: str) -> None:
        """Fill what lies between two lines."""
        self._add(f'<polygon class="band {css}" points="{self._path([*highs, *reversed(lows)])}"/>')

    def whisker(self, x: float, low: float, high: float, css: str) -> None:
        """Draw a range at ``x``, unless it is too small to be seen."""
        at, top, bottom = self.x(x), self.y(high), self.y(low)
        if abs(bottom - top) >= 1:
            ends = f"M{at - 4:.1f} {top:.1f}h8M{at - 4:.1f} {bottom:.1f}h8"
            self._add(f'<path class="whisker {css}" d="M{at:.1f} {top:.1f}V{bottom:.1f}{ends}"/>')

    def point(self, x: float, y: float, shape: str, css: str, title: str) -> None:
        """Draw one marker with a tooltip."""
        self._add(marker(shape, self.x(x), self.y(y), css, title))

    def bound(self, x: float) -> None:
        """Draw a vertical line, if ``x`` is on the axis."""
        if self.x.low <= x <= self.x.high:
            at = f"{self.x(x):.1f}"
            self._add(f'<line class="bound" x1="{at}" x2="{at}" y1="{TOP:g}" y2="{self.bottom:g}"/>')

    def ring(self, x: float, y: float, words: str) -> None:
        """Ring one point, with a few words beside it."""
        at, up = self.x(x), self.y(y)
        self._add(f'<circle class="mark" cx="{at:.1f}" cy="{up:.1f}" r="6"/>')
        self.words(x, y, words, "mark", up - 9 if up > TOP + 22 else up + 18)

    def words(self, x: float, y: float, text: str, css: str = "note", height: float | None = None) -> None:
        """Write beside a point, towards the middle, below or higher where other words are in the way."""
        at, up = self.x(x), self.y(y) - 8 if height is None else height
        to_left = at > LEFT + (self.right - LEFT) * 0.55
        at += -9 if to_left else 9
        width = 6.6 * len(text)
        left = at - width if to_left else at

        def free(level: float) -> bool:
            return not any(abs(level - other) < 13 and left < b and a < left + width for a, b, other in self._taken)

        up = next((level for level in (up, up + 24, up - 13, up + 37, up - 26) if free(level)), up - 39)
        self._taken.append((left, left + width, up))
        anchor = "end" if to_left else "start"
        self._add(f'<text class="{css}" x="{at:.1f}" y="{up:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def svg(self) -> str:
        """Return the drawing as one ``<svg>`` element; all text in it is escaped."""
        return "".join([*self.parts, "</svg>"])

    def _path(self, points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)


def marker(shape: str, x: float, y: float, css: str, title: str = "", r: float = 4.5) -> str:
    """Return one marker as SVG: a circle, a polygon, a cross or a plus.

    Args:
        shape: one of :data:`SHAPES`.
        x: centre, in user units.
        y: centre, in user units.
        css: class that gives the colour.
        title: tooltip.
        r: radius.
    """
    words = f"<title>{escape(title)}</title>" if title else ""
    if shape in _POLYGONS:
        scale = r * 0.88
        path = " ".join(f"{x + a * scale:.1f},{y + b * scale:.1f}" for a, b in _POLYGONS[shape])
        return f'<polygon class="dot {css}" points="{path}">{words}</polygon>'
    if shape in ("cross", "plus"):
        d = r * (0.8 if shape == "cross" else 1.1)
        lines = ((-d, -d, d, d), (-d, d, d, -d)) if shape == "cross" else ((-d, 0, d, 0), (0, -d, 0, d))
        path = "".join(f"M{x + a:.1f} {y + b:.1f}L{x + c:.1f} {y + e:.1f}" for a, b, c, e in lines)
        return f'<path class="stroke {css}" d="{path}">{words}</path>'
    return f'<circle class="dot {css}" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}">{words}</circle>'


def style_sheet() -> str:
    """Return the CSS of charts."""
    return resources.files("gancompress.charts").joinpath("style.css").read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        title: heading.
        note: one line under it: what the numbers are, in which units.
        svg: the drawing.
        legend: (label, swatch as SVG) of what needs a name.
        narrow: the same drawing for a narrow window, when ``svg`` takes the whole width of a wide one; else empty.
    """

    title: str
    note: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()
    narrow: str = ""

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of a page that is wide enough."""
        return bool(self.narrow)


def spans_decades(values: Iterable[float]) -> bool:
    """Return whether positive values differ so much that a logarithmic axis shows more of them."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > 10
