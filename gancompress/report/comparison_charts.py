"""Charts of a comparison: quality against density and against training FLOPs, and learning curves.

A method has one colour and one shape of marker in all charts. Vertical bars and bands are the range over seeds.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from gancompress.charts.plot import SHAPES, Figure, Plot, marker, spans_decades

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from gancompress.comparison.results import CellResult, Results, RowResult

__all__ = ["Style", "cost_chart", "density_chart", "learning_charts", "pareto_front", "styles"]

_WIDTH, _HEIGHT = 560.0, 340.0


@dataclasses.dataclass(frozen=True)
class Style:
    """How a method is drawn: class of its colour, shape of its marker."""

    color: str
    shape: str

    @property
    def swatch(self) -> str:
        """The marker alone, for a legend."""
        drawn = marker(self.shape, 8, 8, self.color)
        return f'<svg class="swatch" viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>'


def styles(methods: Iterable[str], baselines: Collection[str] = ()) -> dict[str, Style]:
    """Return the style of every method: baselines in greys, the others in turn."""
    found: dict[str, Style] = {}
    for method in dict.fromkeys(methods):
        grey = method in baselines
        index = sum(style.color.startswith("base") == grey for style in found.values())
        if grey:
            found[method] = Style(f"base-{min(index, 1)}", ("square", "triangle", "down", "plus")[index % 4])
        else:
            found[method] = Style(f"series-{index % 8}", SHAPES[(index + index // 8) % len(SHAPES)])
    return found


# --------------------------------------------------------------------------- quality against what it costs


def density_chart(results: Results, rows: Sequence[RowResult], looks: Mapping[str, Style]) -> Figure | None:
    """Draw the best value against the weights that the generator keeps; dense is the line to reach."""
    shown = [row for row in rows if row.best is not None]
    if not shown:
        return None
    xs = [row.kept_ratio for row in shown]
    plot = Plot(
        f"{results.primary} against kept weights",
        xs,
        _heights(shown),
        "generator weights kept, against dense (logarithmic)",
        f"{results.primary}, best",
        log_x=True,
        log_y=spans_decades(_heights(shown)),
        tick=_percent,
        air=0.06,
        height=_HEIGHT,
    )
    dense = next((row for row in shown if row.density is None), None)
    if dense is not None and dense.best is not None:
        level = [(x, dense.best.mean) for x in plot.x.range]
        plot.line(level, f"{looks[dense.method].color} level", dash="2 3")
    for method, mine in _by_method(shown).items():
        points = sorted((row.kept_ratio, row.best.mean) for row in mine if row.best is not None)
        if len(points) > 1:
            plot.line(points, looks[method].color)
        _points(plot, mine, looks[method], lambda row: row.kept_ratio)
    return Figure(
        "Quality against density",
        f"{_way(results)}; {_over_seeds(results)}; the dotted line is dense",
        plot.svg(),
        _legend(rows, looks),
    )


def cost_chart(results: Results, rows: Sequence[RowResult], looks: Mapping[str, Style]) -> Figure | None:
    """Draw the best value against training FLOPs, with the front of those that nothing beats in both."""
    shown = [row for row in rows if row.best is not None and row.training_ratio is not None]
    if not shown:
        return None

    def cost(row: RowResult) -> float:
        return row.training_ratio.mean if row.training_ratio is not None else math.nan

    plot = Plot(
        f"{results.primary} against training FLOPs",
        [cost(row) for row in shown],
        _heights(shown),
        "training FLOPs, against dense (counted)",
        f"{results.primary}, best",
        log_y=spans_decades(_heights(shown)),
        tick=_percent,
        air=0.06,
        height=_HEIGHT,
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
        plot.words(*point, points[point].label)
    return Figure(
        "Quality against training FLOPs",
        f"{_way(results)}; {_over_seeds(results)}; the line is the Pareto front: nothing on the page is both cheaper "
        "and better than what lies on it",
        plot.svg(),
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
    by_steps = results.grid.held.axis == "steps"
    curves = {row.method: _curve(row.cells, results.primary, by_steps) for row in rows}
    values = [value for curve in curves.values() for _, *several in curve for value in several]
    if not values:
        return None

    def draw(width: float, kind: str = "") -> str:
        plot = Plot(
            f"{results.primary} over training" + (f" at density {density:g}" if density is not None else ""),
            [x for curve in curves.values() for x, *_ in curve],
            values,
            "training steps" if by_steps else "share of training (equal FLOPs at the end)",
            results.primary,
            log_y=spans_decades(values),
            air=0.02,
            width=width,
            height=_HEIGHT,
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
                plot.point(
                    curve[-1][0], curve[-1][1], style.shape, style.color, f"{row.label}, last: {curve[-1][1]:.4g}"
                )
        return plot.svg()

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


def _legend(rows: Sequence[RowResult], looks: Mapping[str, Style]) -> tuple[tuple[str, str], ...]:
    return tuple({row.method: (row.name, looks[row.method].swatch) for row in rows}.values())


def _by_method(rows: Sequence[RowResult]) -> dict[str, list[RowResult]]:
    found: dict[str, list[RowResult]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return found


def _heights(rows: Sequence[RowResult]) -> list[float]:
    return [value for row in rows if row.best is not None for value in (row.best.low, row.best.high)]


def _points(plot: Plot, rows: Sequence[RowResult], style: Style, at: Callable[[RowResult], float]) -> None:
    for row in rows:
        if row.best is None:
            continue
        plot.whisker(at(row), row.best.low, row.best.high, style.color)
        spread = f" ± {row.best.std:.2g}" if row.best.std is not None else ""
        words = f"{row.label}: {row.best.mean:.4g}{spread} at {_percent(at(row))}"
        plot.point(at(row), row.best.mean, style.shape, style.color, words)


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _way(results: Results) -> str:
    return "higher is better" if results.higher else "lower is better"


def _over_seeds(results: Results) -> str:
    return "mean and range over seeds" if len(results.grid.seeds) > 1 else "one seed, an anecdote"
