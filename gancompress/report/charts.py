"""Which curves a run has, drawn from its log. A chart without numbers is left out."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

from gancompress.report.svg import Mark, Series, line_chart, tick_label
from gancompress.report.words import metric_value
from gancompress.runs.reader import ROLES, number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gancompress.runs.reader import Metric, Record, RunData

__all__ = ["Chart", "metric_charts", "training_charts"]

#: Spread of values from which a logarithmic axis shows more.
_DECADES = 30.0


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure of the page.

    Attributes:
        title: heading.
        note: one line under it: what the numbers are, in which units.
        svg: the drawing.
        legend: (label, colour index) of every line; empty when one line needs no name.
        narrow: the same drawing for a narrow window, when ``svg`` takes the whole width of a wide one; else empty.
    """

    title: str
    note: str
    svg: str
    legend: tuple[tuple[str, int], ...] = ()
    narrow: str = ""

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width."""
        return bool(self.narrow)


def metric_charts(run: RunData) -> list[Chart]:
    """Return one chart per metric over the steps; the best of the first one is ringed, as the run chose it."""
    by_label: dict[str, list[tuple[int, Metric]]] = {}
    for step, metrics in run.evaluations:
        for metric in metrics:
            by_label.setdefault(metric.label, []).append((step, metric))
    charts = []
    for index, (label, found) in enumerate(by_label.items()):
        points = [(float(step), metric.value if metric.value is not None else math.nan) for step, metric in found]
        last = found[-1][1]
        values = [value for _, value in points if math.isfinite(value)]
        draw = functools.partial(
            line_chart,
            f"{label} over training steps",
            [Series(label, points, dots=len(points) <= 60)],
            log_y=bool(values) and min(values) > 0 and max(values) / min(values) > _DECADES,
            bounds=_rounds(run),
        )
        first = index == 0
        marks = _best_mark(run, label) if first else ()
        svg = draw(width=1150, height=300, marks=marks, kind="broad") if first else draw()
        narrow = draw(marks=marks, kind="narrow") if first else ""
        way = "higher is better" if last.higher_is_better else "lower is better"
        # The table above the charts gives every protocol; the main chart repeats its own, to be cut out with it.
        note = f"{way}; {last.protocol}" if last.protocol and first else way
        charts.append(Chart(label, note, svg, narrow=narrow))
    return charts


def training_charts(run: RunData) -> list[Chart]:
    """Return the charts of the training itself: losses, logits, density, topology updates, schedules."""
    train, updates = run.records("train"), run.records("update")
    bounds = _rounds(run)

    def chart(title: str, note: str, series: list[Series], *, from_zero: bool = False) -> Chart | None:
        drawn = [one for one in series if any(math.isfinite(y) for _, y in one.points)]
        if not drawn:
            return None
        svg = line_chart(f"{title} over training steps", drawn, bounds=bounds, from_zero=from_zero)
        return Chart(title, note, svg, tuple((one.label, one.color) for one in drawn))

    def per_role(key: Callable[[str], str], records: Sequence[Record]) -> list[Series]:
        return [Series(role, _points(records, key(role)), color) for color, role in enumerate(ROLES)]

    def of_updates(key: str) -> list[Series]:
        return [
            Series(role, _points([u for u in updates if u.get("role") == role], key), color)
            for color, role in enumerate(ROLES)
        ]

    charts = [
        chart("Losses", "mean since the line before", per_role(lambda role: f"loss_{role}", train)),
        chart(
            "Discriminator output",
            "mean logit on real and on generated images",
            [
                Series("real images", _points(train, "d_real"), 2),
                Series("generated images", _points(train, "d_fake"), 3),
            ],
        ),
        chart(
            "Density",
            "share of prunable weights kept, as counted",
            per_role(lambda role: f"density_{role}", train),
            from_zero=True,
        ),
        chart(
            "Exploration rate",
            "weights that were ever kept, as a share of all prunable weights",
            of_updates("exploration"),
            from_zero=True,
        ),
        chart("Churn", "kept weights replaced by a topology update", of_updates("churn"), from_zero=True),
        chart("Drop fraction", "share that an update may replace", of_updates("drop_fraction"), from_zero=True),
        chart(
            "Balance ratio",
            "how much of the discriminator's margin a generator step makes up for",
            of_updates("balance_ratio"),
            from_zero=True,
        ),
        _learning_rate(train, chart),
        chart(
            "Speed",
            "training steps per second, as measured; evaluations included",
            [Series("steps per second", _points(train, "rate"), 0)],
            from_zero=True,
        ),
    ]
    return [one for one in charts if one is not None]


def _learning_rate(train: Sequence[Record], chart: Callable[..., Chart | None]) -> Chart | None:
    """Draw the learning rate only when it moves: a horizontal line is in the recipe already."""
    points = _points(train, "learning_rate")
    if len({value for _, value in points}) < 2:
        return None
    return chart("Learning rate", "of the generator", [Series("learning rate", points, 0)], from_zero=True)


def _points(records: Sequence[Record], key: str) -> list[tuple[float, float]]:
    """Return (step, value); a value that was not finite becomes a gap, a record without the key is no point."""
    points = []
    for record in records:
        step = number(record.get("step"))
        if step is not None and key in record:
            value: Any = number(record[key])
            points.append((float(step), float(value) if value is not None else math.nan))
    return points


def _best_mark(run: RunData, label: str) -> tuple[Mark, ...]:
    if run.best is None:
        return ()
    step, metrics = run.best
    first = next((metric for metric in metrics if metric.label == label and metric.value is not None), None)
    if first is None or first.value is None:
        return ()
    return (Mark(float(step), first.value, f"best: {metric_value(first.value)} at step {tick_label(step)}"),)


def _rounds(run: RunData) -> list[float]:
    """Return the steps after which a later round began; the end of the last round is the end of the chart."""
    steps = [number(record.get("step")) for record in run.records("round")]
    return [float(step) for step in steps if step and step < run.last_step]
