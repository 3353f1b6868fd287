"""Charts of a comparison: quality against density and against training FLOPs, and learning curves. Inline SVG.

A method has one colour and one shape of marker in all charts. Vertical bars and bands are the range over seeds.
"""

from __future__ import annotations

import dataclasses
import math
from html import escape
from typing import TYPE_CHECKING

from gancompress.report.svg import nice_ticks, tick_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gancompress.comparison.results import CellResult, Results, RowResult

__all__ = ["Figure", "Style", "cost_chart", "density_chart", "learning_charts", "marker", "pareto_front", "styles"]

_WIDTH, _HEIGHT = 560.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 18.0, 14.0, 42.0
#: spread of values from which a logarithmic axis shows more
_DECADES = 5.0
_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "plus", "down", "hexagon")


@dataclasses.dataclass(frozen=True)
class Style:
    """How a method is drawn: class of its colour, shape of its marker."""

    color: str
    shape: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the page: heading, a line about it, the drawing, (label, style) for the legend.

    One that takes the whole width of a wide page has a second drawing for narrow windows.
    """

    title: str
    note: str
    svg: str
    legend: tuple[tuple[str, Style], ...] = ()
    narrow: str = ""

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of a page that is wide enough."""
        return bool(self.narrow)


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return the style of every method: dense and narrow in greys, the others in turn."""
    found: dict[str, Style] = {}
    for method in dict.fromkeys(methods):
        if method == "dense":
            found[method] = Style("base-0", "square")
        elif method.partition(":")[0] == "narrow":
            found[method] = Style("base-1", "triangle")
        else:
            index = sum(style.color.startswith("hue") for style in found.values())
            found[method] = Style(f"hue-{index % 8}", _SHAPES[(0, 3, 4, 6, 5, 7, 2, 1)[index % 8]])
    return found


def marker(shape: str, x: float, y: float, color: str, title: str = "", r: float = 4.5) -> str:
    """Return one marker as SVG."""
    points: dict[str, list[tuple[float, float]]] = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        "down": [(0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
        "diamond": [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],
        "hexagon": [(1.1, 0), (0.55, 1), (-0.55, 1), (-1.1, 0), (-0.55, -1), (0.55, -1)],
    }
    words = f"<title>{escape(title)}</title>" if title else ""
    scale = r * 0.88
    if shape in points:
        path = " ".join(f"{x + a * scale:.1f},{y + b * scale:.1f}" for a, b in points[shape])
        return f'<polygon class="dot {color}" points="{path}">{words}</polygon>'
    if shape in ("cross", "plus"):
        d = r * (0.8 if shape == "cross" else 1.1)
        lines = ((-d, -d, d, d), (-d, d, d, -d)) if shape == "cross" else ((-d, 0, d, 0), (0, -d, 0, d))
        path = "".join(f"M{x + a:.1f} {y + b:.1f}L{x + c:.1f} {y + e:.1f}" for a, b, c, e in lines)
        return f'<path class="stroke {color}" d="{path}">{words}</path>'
    return f'<circle class="dot {color}" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}">{words}</circle>'


class _Scale:
    """Numbers to user units."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool, air: float = 0.06) -> None:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        self.log = log and low > 0
        if self.log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = (
                low - (0.1 if self.log else abs(low) * 0.1 or 1.0),
                high + (0.1 if self.log else abs(high) * 0.1 or 1.0),
            )
        pad = (high - low) * air
        self.low, self.high, self.start, self.end = low - pad, high + pad, start, end

    def __call__(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        return self.start + (at - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        ticks = _log_ticks(low, high) if self.log else []
        # a narrow range holds few round numbers: there even steps say more
        return ticks if len(ticks) > 2 else nice_ticks(low, high, count)


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within [low, high], or the powers alone when those are enough."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    ticks = [factor * power for power in powers for factor in (1, 2, 5) if low <= factor * power <= high]
    return ticks if len(ticks) <= 8 else [tick for tick in ticks if tick in powers]


class _Plot:
    """Axes, grid and whatever is drawn between them."""

    def __init__(
        self,
        title: str,
        xs: Sequence[float],
        ys: Sequence[float],
        x_label: str,
        y_label: str,
        *,
        log_x: bool = False,
        x_ticks: Sequence[float] = (),
        width: float = _WIDTH,
        tick: Callable[[float], str] = tick_label,
        air_x: float = 0.06,
        kind: str = "",
    ) -> None:
        height = _HEIGHT
        self.bottom, self.right = height - _BOTTOM, width - _RIGHT
        finite = [y for y in ys if math.isfinite(y)]
        wide = bool(finite) and min(finite) > 0 and max(finite) / min(finite) > _DECADES
        self.x = _Scale(xs, _LEFT, self.right, log=log_x, air=air_x)
        self.y = _Scale(finite, self.bottom, _TOP, log=wide)
        name = escape(title)
        self._words: list[tuple[float, float, float]] = []
        css = f"chart {kind}".strip()
        self.parts = [
            f'<svg class="{css}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{name}">',
            f"<title>{name}</title>",
        ]
        for value in self.y.ticks():
            at = f"{self.y(value):.1f}"
            self.parts.append(f'<line class="grid" x1="{_LEFT:g}" x2="{self.right:g}" y1="{at}" y2="{at}"/>')
            self.parts.append(f'<text class="tick y" x="{_LEFT - 7:g}" y="{at}" dy="0.32em">{tick_label(value)}</text>')
        for value in x_ticks or self.x.ticks(6):
            at = f"{self.x(value):.1f}"
            self.parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{self.bottom:g}" y2="{self.bottom + 4:g}"/>')
            self.parts.append(f'<text class="tick x" x="{at}" y="{self.bottom + 16:g}">{escape(tick(value))}</text>')
        self.parts.append(
            f'<line class="axis" x1="{_LEFT:g}" x2="{self.right:g}" y1="{self.bottom:g}" y2="{self.bottom:g}"/>'
        )
        middle = (_LEFT + self.right) / 2
        self.parts.append(f'<text class="label x" x="{middle:g}" y="{height - 6:g}">{escape(x_label)}</text>')
        up = (self.bottom + _TOP) / 2
        turned = f'transform="rotate(-90 12 {up:g})"'
        self.parts.append(f'<text class="label y" x="12" y="{up:g}" {turned}>{escape(y_label)}</text>')

    def line(self, points: Iterable[tuple[float, float]], css: str, dash: str = "") -> None:
        path = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points if math.isfinite(b))
        style = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline class="line {css}"{style} points="{path}"/>')

    def bar(self, x: float, low: float, high: float, css: str) -> None:
        at, top, bottom = self.x(x), self.y(high), self.y(low)
        if abs(bottom - top) < 1:
            return
        self.parts.append(
            f'<path class="whisker {css}" d="M{at:.1f} {top:.1f}V{bottom:.1f}M{at - 4:.1f} {top:.1f}h8M{at - 4:.1f} '
            f'{bottom:.1f}h8"/>'
        )

    def band(self, lows: Sequence[tuple[float, float]], highs: Sequence[tuple[float, float]], css: str) -> None:
        outline = [*highs, *reversed(lows)]
        path = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in outline)
        self.parts.append(f'<polygon class="band {css}" points="{path}"/>')

    def mark(self, x: float, y: float, style: Style, title: str) -> None:
        self.parts.append(marker(style.shape, self.x(x), self.y(y), style.color, title))

    def text(self, x: float, y: float, words: str, anchor: str = "start") -> None:
        """Write a label, below or higher where another one is in its way."""
        width = 6.6 * len(words)
        left = x - width if anchor == "end" else x

        def taken(at: float) -> bool:
            return any(abs(at - other) < 13 and left < b and a < left + width for a, b, other in self._words)

        y = next((at for at in (y, y + 24, y - 13, y + 37, y - 26) if not taken(at)), y - 39)
        self._words.append((left, left + width, y))
        self.parts.append(f'<text class="note" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>')

    def done(self) -> str:
        return "".join([*self.parts, "</svg>"])


# --------------------------------------------------------------------------- quality against what it costs


def density_chart(results: Results, rows: Sequence[RowResult], looks: Mapping[str, Style]) -> Figure | None:
    """Draw the best value against the weights that the generator keeps; dense is the line to reach."""
    shown = [row for row in rows if row.best is not None]
    if not shown:
        return None
    xs = [row.kept_ratio for row in shown]
    plot = _Plot(
        f"{results.primary} against kept weights",
        xs,
        _heights(shown),
        "generator weights kept, against dense (logarithmic)",
        f"{results.primary}, best",
        log_x=True,
        tick=_percent,
    )
    dense = next((row for row in shown if row.method == "dense"), None)
    if dense is not None and dense.best is not None:
        plot.line([(10**plot.x.low, dense.best.mean), (10**plot.x.high, dense.best.mean)], "base-0 level", "2 3")
    for method, mine in _by_method(shown).items():
        points = sorted((row.kept_ratio, row.best.mean) for row in mine if row.best is not None)
        if len(points) > 1:
            plot.line(points, looks[method].color)
        _points(plot, mine, looks[method], lambda row: row.kept_ratio)
    return Figure(
        "Quality against density",
        f"{_way(results)}; {_over_seeds(results)}; the dotted line is dense",
        plot.done(),
        _legend(rows, looks),
    )


def cost_chart(results: Results, rows: Sequence[RowResult], looks: Mapping[str, Style]) -> Figure | None:
    """Draw the best value against training FLOPs, with the front of those that nothing beats in both."""
    shown = [row for row in rows if row.best is not None and row.training_ratio is not None]
    if not shown:
        return None

    def cost(row: RowResult) -> float:
        return row.training_ratio.mean if row.training_ratio is not None else math.nan

    plot = _Plot(
        f"{results.primary} against training FLOPs",
        [cost(row) for row in shown],
        _heights(shown),
        "training FLOPs, against dense (counted)",
        f"{results.primary}, best",
        tick=_percent,
    )
    points = {(cost(row), row.best.mean if row.best else math.nan): row for row in shown}
    front = pareto_front(list(points), higher=results.higher)
    steps: list[tuple[float, float]] = []
    for index, (x, y) in enumerate(front):
        if index:
            steps.append((x, front[index - 1][1]))
        steps.append((x, y))
    plot.line(steps, "front")
    for method, mine in _by_method(shown).items():
        _points(plot, mine, looks[method], cost)
    for point in front:
        x, y = plot.x(point[0]), plot.y(point[1])
        near_end = x > (_LEFT + plot.right) * 0.6
        plot.text(x + (-9 if near_end else 9), y - 8, points[point].label, "end" if near_end else "start")
    return Figure(
        "Quality against training FLOPs",
        f"{_way(results)}; {_over_seeds(results)}; the line is the Pareto front: nothing on the page is both cheaper "
        "and better than what lies on it",
        plot.done(),
        _legend(rows, looks),
    )


def pareto_front(points: Sequence[tuple[float, float]], *, higher: bool) -> list[tuple[float, float]]:
    """Return the points that no other one beats: as cheap and better, or cheaper and as good; by cost.

    Args:
        points: (cost, value); those that are not finite are left out.
        higher: whether a high value is good.
    """
    sign = -1.0 if higher else 1.0
    front: list[tuple[float, float]] = []
    for cost, value in sorted(set(points), key=lambda point: (point[0], sign * point[1])):
        if math.isfinite(cost) and math.isfinite(value) and (not front or sign * value < sign * front[-1][1]):
            front.append((cost, value))
    return front


# --------------------------------------------------------------------------- learning curves


def learning_charts(results: Results, rows: Sequence[RowResult], looks: Mapping[str, Style]) -> list[Figure]:
    """Draw the primary metric over training, a chart per density: mean over seeds, and their range as a band."""
    dense = [row for row in rows if row.density is None]
    densities = dict.fromkeys(row.density for row in rows if row.density is not None)
    figures = []
    for density in (*densities,) or (None,):
        shown = [*dense, *(row for row in rows if row.density == density and density is not None)]
        figure = _learning(results, shown, looks, density, wide=len(densities) < 2)
        if figure is not None:
            figures.append(figure)
    return figures


def _learning(
    results: Results, rows: Sequence[RowResult], looks: Mapping[str, Style], density: float | None, *, wide: bool
) -> Figure | None:
    by_steps = results.grid.budget.axis == "steps"
    curves = {row.method: _curve(row.cells, results.primary, by_steps) for row in rows}
    values = [value for curve in curves.values() for _, *several in curve for value in several]
    if not values:
        return None

    def draw(width: float, kind: str = "") -> str:
        plot = _Plot(
            f"{results.primary} over training" + (f" at density {density:g}" if density is not None else ""),
            [x for curve in curves.values() for x, *_ in curve],
            values,
            "training steps" if by_steps else "share of training (equal FLOPs at the end)",
            results.primary,
            air_x=0.02,
            width=width,
            kind=kind,
        )
        for row in rows:
            curve, style = curves[row.method], looks[row.method]
            if len(row.cells) > 1:
                plot.band([(x, low) for x, _, low, _ in curve], [(x, high) for x, _, _, high in curve], style.color)
        for row in rows:
            curve, style = curves[row.method], looks[row.method]
            plot.line([(x, mean) for x, mean, _, _ in curve], style.color)
            if curve:
                plot.mark(curve[-1][0], curve[-1][1], style, f"{row.label}, last: {curve[-1][1]:.4g}")
        return plot.done()

    title = "Learning curves" + (f", density {density:g}" if density is not None else "")
    mean = "mean over seeds, range as a band" if len(results.grid.seeds) > 1 else "one seed"
    note = f"{_way(results)}; {mean}; values before the final density is reached are those of a denser network"
    legend = _legend(rows, looks)
    if wide:
        return Figure(title, note, draw(2 * _WIDTH + 28, "broad"), legend, draw(_WIDTH, "narrow"))
    return Figure(title, note, draw(_WIDTH), legend)


def _curve(cells: Sequence[CellResult], label: str, by_steps: bool) -> list[tuple[float, float, float, float]]:
    """Return (x, mean, lowest, highest) at every step that all seeds were evaluated at."""
    series = [
        {one.step / (1 if by_steps else cell.steps): one.values.get(label) for one in cell.evaluations}
        for cell in cells
    ]
    curve = []
    for x in sorted(set.intersection(*(set(one) for one in series))):
        values = [value for one in series if (value := one[x]) is not None and math.isfinite(value)]
        if len(values) == len(series):
            curve.append((x, math.fsum(values) / len(values), min(values), max(values)))
    return curve


# --------------------------------------------------------------------------- what the charts share


def _legend(rows: Sequence[RowResult], looks: Mapping[str, Style]) -> tuple[tuple[str, Style], ...]:
    return tuple({row.method: (row.name, looks[row.method]) for row in rows}.values())


def _by_method(rows: Sequence[RowResult]) -> dict[str, list[RowResult]]:
    found: dict[str, list[RowResult]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return found


def _heights(rows: Sequence[RowResult]) -> list[float]:
    return [value for row in rows if row.best is not None for value in (row.best.low, row.best.high)]


def _points(plot: _Plot, rows: Sequence[RowResult], style: Style, at: Callable[[RowResult], float]) -> None:
    for row in rows:
        if row.best is None:
            continue
        plot.bar(at(row), row.best.low, row.best.high, style.color)
        spread = f" ± {row.best.std:.2g}" if row.best.std is not None else ""
        plot.mark(at(row), row.best.mean, style, f"{row.label}: {row.best.mean:.4g}{spread} at {_percent(at(row))}")


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _way(results: Results) -> str:
    return "higher is better" if results.higher else "lower is better"


def _over_seeds(results: Results) -> str:
    return "mean and range over seeds" if len(results.grid.seeds) > 1 else "one seed, an anecdote"
