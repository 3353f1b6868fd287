"""Charts of a comparison: quality against density and against training FLOPs, and learning curves.

A method has one colour on every page, and each of its settings a shape of marker and a dash of their own. Vertical bars
and bands are the range over seeds.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from typing import TYPE_CHECKING

from gancompress.charts.plot import SHAPES, Figure, Plot, marker, spans_decades
from gancompress.report.verdict import group_words
from gancompress.report.words import size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from gancompress.comparison.results import CellResult, Results, RowResult

__all__ = ["Style", "cost_charts", "density_chart", "learning_charts", "pareto_front", "styles"]

_WIDTH, _HEIGHT = 560.0, 340.0
#: colours of the style sheet, and the methods that they belong to
_COLORS = 8
_COLORED = ("dst", "static", "channels", "magnitude", "imp", "adapt", "gmp", "rigl")
#: the same of the greys of baselines, with their shapes
_GREYS = ("dense", "narrow")
_BASE_SHAPES = ("square", "triangle", "down", "plus")
#: of lines that share a colour
_DASHES = ("", "7 3", "2 2", "9 3 2 3", "4 4", "1 4")


@dataclasses.dataclass(frozen=True)
class Style:
    """How a method is drawn: class of its colour, shape of its marker, dash of its line."""

    color: str
    shape: str
    dash: str = ""

    @property
    def swatch(self) -> str:
        """The marker alone, for a legend."""
        drawn = marker(self.shape, 8, 8, self.color)
        return f'<svg class="swatch" viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>'


def styles(methods: Iterable[str], baselines: Collection[str] = ()) -> dict[str, Style]:
    """Return the style of every method: baselines in greys; the others in colours that are theirs on every page.

    Whatever its settings and whatever stands beside it, a method keeps its colour: shapes and dashes tell apart what
    shares one.
    """
    order = list(dict.fromkeys(methods))
    found: dict[str, Style] = {}
    for method in sorted(order, key=lambda label: ":" in label):  # the one without settings comes first
        grey = method in baselines
        color = _grey(method) if grey else f"series-{_series(method)}"
        shapes = _BASE_SHAPES if grey else SHAPES
        taken = [style.shape for style in found.values() if style.color.startswith("base") == grey]
        beside = [style.shape for style in found.values() if style.color == color]
        own = int(color.partition("-")[2]) + len(beside)
        wheel = [shapes[(own + step) % len(shapes)] for step in range(len(shapes))]
        free = [*(one for one in wheel if one not in taken), *(one for one in wheel if one not in beside)]
        found[method] = Style(color, next(iter(free), wheel[0]), _DASHES[len(beside) % len(_DASHES)])
    return {method: found[method] for method in order}


def _series(label: str) -> int:
    name = label.partition(":")[0]
    return _COLORED.index(name) if name in _COLORED else zlib.crc32(name.encode()) % _COLORS


def _grey(label: str) -> str:
    name = label.partition(":")[0]
    return f"base-{_GREYS.index(name) if name in _GREYS else len(_GREYS) - 1}"


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
            plot.line(points, looks[method].color, dash=looks[method].dash)
        _points(plot, mine, looks[method], lambda row: row.kept_ratio)
    return Figure(
        "Quality against density",
        f"{_way(results)}; {_over_seeds(results)}; the dotted line is dense",
        plot.svg(),
        _legend(rows, looks),
    )


def cost_charts(results: Results, rows: Sequence[RowResult], looks: Mapping[str, Style]) -> list[Figure]:
    """Draw the best value against training FLOPs, time and bytes, with the front of those that nothing beats in both.

    What was not measured has no chart.
    """
    batch = next((row.shipped.batch for row in rows if row.shipped is not None), 0)
    costs: list[tuple[str, str, Callable[[RowResult], float | None], Callable[[float], str]]] = [
        (
            "training FLOPs",
            "training FLOPs, against dense (counted)",
            lambda row: row.training_ratio.mean if row.training_ratio is not None else None,
            _percent,
        ),
        (
            "time",
            f"milliseconds of an image as shipped, batches of {batch} (measured)",
            lambda row: row.shipped.milliseconds if row.shipped is not None else None,
            "{:.3g}".format,
        ),
        (
            "bytes",
            "bytes of the exported file",
            lambda row: float(row.shipped.bytes) if row.shipped is not None else None,
            lambda value: size(round(value)),
        ),
    ]
    return [figure for one in costs if (figure := _cost_chart(results, rows, looks, *one)) is not None]


def _cost_chart(
    results: Results,
    rows: Sequence[RowResult],
    looks: Mapping[str, Style],
    what: str,
    axis: str,
    cost_of: Callable[[RowResult], float | None],
    tick: Callable[[float], str],
) -> Figure | None:
    shown = [row for row in rows if row.best is not None and cost_of(row) is not None]
    if not shown:
        return None

    def cost(row: RowResult) -> float:
        found = cost_of(row)
        return math.nan if found is None else found

    plot = Plot(
        f"{results.primary} against {what}",
        [cost(row) for row in shown],
        _heights(shown),
        axis,
        f"{results.primary}, best",
        log_y=spans_decades(_heights(shown)),
        tick=tick,
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
        _points(plot, mine, looks[method], cost, tick)
    for point in front:
        plot.words(*point, points[point].label)
    return Figure(
        f"Quality against {what}",
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
    """Draw the primary metric over training, a chart per group: mean over seeds, and their range as a band."""
    dense = [row for row in rows if row.group is None]
    groups = dict.fromkeys(row.group for row in rows if row.group is not None)
    figures = []
    for group in (*groups,) or (None,):
        shown = [*dense, *(row for row in rows if row.group == group and group is not None)]
        figure = _learning(results, shown, looks, group, wide=len(groups) < 2)
        if figure is not None:
            figures.append(figure)
    return figures


def _learning(
    results: Results, rows: Sequence[RowResult], looks: Mapping[str, Style], group: float | None, *, wide: bool
) -> Figure | None:
    by_steps = results.grid.held.axis == "steps"
    words = group_words(results.grid, group)
    where = "" if group is None else words[0].lower() + words[1:]
    curves = {row.method: _curve(row.cells, results.primary, by_steps) for row in rows}
    values = [value for curve in curves.values() for _, *several in curve for value in several]
    if not values:
        return None

    def draw(width: float, kind: str = "") -> str:
        plot = Plot(
            f"{results.primary} over training" + (f", {where}" if where else ""),
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
            plot.line([(x, mean) for x, mean, _, _ in curve], style.color, dash=style.dash)
            if curve:
                plot.point(
                    curve[-1][0], curve[-1][1], style.shape, style.color, f"{row.label}, last: {curve[-1][1]:.4g}"
                )
        return plot.svg()

    title = "Learning curves" + (f", {where}" if where else "")
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


def _points(
    plot: Plot,
    rows: Sequence[RowResult],
    style: Style,
    at: Callable[[RowResult], float],
    tick: Callable[[float], str] | None = None,
) -> None:
    for row in rows:
        if row.best is None:
            continue
        plot.whisker(at(row), row.best.low, row.best.high, style.color)
        spread = f" ± {row.best.std:.2g}" if row.best.std is not None else ""
        words = f"{row.label}: {row.best.mean:.4g}{spread} at {(tick or _percent)(at(row))}"
        plot.point(at(row), row.best.mean, style.shape, style.color, words)


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _way(results: Results) -> str:
    return "higher is better" if results.higher else "lower is better"


def _over_seeds(results: Results) -> str:
    return "mean and range over seeds" if len(results.grid.seeds) > 1 else "one seed, an anecdote"
