"""Which curves a run has, drawn from its log. A chart without numbers is left out."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from gancompress.charts.axis import tick_label
from gancompress.charts.lines import Mark, Series, line_chart
from gancompress.charts.plot import Figure, spans_decades
from gancompress.report.words import metric_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.runs.record import Metric, RunRecord

__all__ = ["metric_charts", "training_charts"]

#: what is known of an update's record besides the method's own notes: no chart, or one of its own
_RECORDED = frozenset(("round", "updates", "grown", "dropped", "density", "exploration", "churn"))
#: notes of built-in methods in words; any other is called by its own name
_NOTES = {
    "drop_fraction": "share that an update may replace",
    "balance_ratio": "how much of the discriminator's margin a generator step makes up for",
}
#: of tasks from image to image, what the training logs besides losses and logits
_DISTANCES = {
    "l1": ("Difference to the target", "mean absolute difference of pixels between -1 and 1, on training pairs"),
    "cycle": ("Difference after the way back", "mean absolute difference of pixels, of both directions together"),
    "identity": ("Difference of what should stay", "the same, of images that are of the target domain already"),
}


def metric_charts(run: RunRecord) -> list[Figure]:
    """Return one chart per metric over the steps; the best of the first one is ringed, as the run chose it."""
    by_label: dict[str, list[tuple[int, Metric]]] = {}
    for step, metrics in run.evaluations:
        for metric in metrics:
            by_label.setdefault(metric.label, []).append((step, metric))
    charts = []
    for index, (label, found) in enumerate(by_label.items()):
        points = [(float(step), metric.value if metric.value is not None else math.nan) for step, metric in found]
        last = found[-1][1]
        draw = functools.partial(
            line_chart,
            f"{label} over training steps",
            [Series(label, points, dots=len(points) <= 60)],
            log_y=spans_decades(value for _, value in points),
            bounds=_rounds(run),
        )
        first = index == 0
        marks = _best_mark(run, label) if first else ()
        svg = draw(width=1150, height=300, marks=marks, kind="broad") if first else draw()
        narrow = draw(marks=marks, kind="narrow") if first else ""
        way = "higher is better" if last.higher_is_better else "lower is better"
        # The table above the charts gives every protocol; the main chart repeats its own, to be cut out with it.
        note = f"{way}; {last.protocol}" if last.protocol and first else way
        charts.append(Figure(label, note, svg, narrow=narrow))
    return charts


def training_charts(run: RunRecord) -> list[Figure]:
    """Return the charts of the training itself: losses, logits, density, topology updates, notes, schedules."""
    bounds = _rounds(run)
    charts: list[Figure] = []

    def chart(title: str, note: str, series: Sequence[Series], *, from_zero: bool = True) -> None:
        drawn = [one for one in series if any(math.isfinite(y) for _, y in one.points)]
        if drawn:
            svg = line_chart(f"{title} over training steps", drawn, bounds=bounds, from_zero=from_zero)
            legend = tuple((one.label, one.swatch) for one in drawn) if len(drawn) > 1 else ()
            charts.append(Figure(title, note, svg, legend))

    def of_training(key: str) -> list[Series]:
        return [Series(role, run.log.curve("train", f"{key}_{role}"), color) for color, role in enumerate(run.networks)]

    def of_updates(key: str) -> list[Series]:
        return [Series(role, run.log.curve("update", key, role), color) for color, role in enumerate(run.networks)]

    chart("Losses", "mean since the line before", of_training("loss"), from_zero=False)
    logits = [
        Series("real images", run.log.curve("train", "d_real"), 2),
        Series("generated images", run.log.curve("train", "d_fake"), 3),
    ]
    chart("Discriminator output", "mean logit on real and on generated images", logits, from_zero=False)
    for key, (heading, note) in _DISTANCES.items():
        chart(heading, note, [Series(heading, run.log.curve("train", key))])
    chart("Density", "share of prunable weights kept, as counted", of_training("density"))
    ever = "weights that were ever kept, as a share of all prunable weights"
    chart("Exploration rate", ever, of_updates("exploration"))
    chart("Churn", "kept weights replaced by a topology update", of_updates("churn"))
    for key in run.log.keys("update"):
        if key in _RECORDED:
            continue
        series = of_updates(key)
        negative = any(value < 0 for one in series for _, value in one.points)
        heading = key.replace("_", " ").strip().capitalize() or key
        chart(heading, _NOTES.get(key, "as the method notes it"), series, from_zero=not negative)
    rate = run.log.curve("train", "learning_rate")
    if len({value for _, value in rate}) > 1:  # a horizontal line is in the recipe already
        chart("Learning rate", "of the generator", [Series("learning rate", rate)])
    measured = "training steps per second, as measured; evaluations included"
    chart("Speed", measured, [Series("steps per second", run.log.curve("train", "rate"))])
    return charts


def _best_mark(run: RunRecord, label: str) -> tuple[Mark, ...]:
    if run.best is None:
        return ()
    step, metrics = run.best
    first = next((metric for metric in metrics if metric.label == label and metric.value is not None), None)
    if first is None or first.value is None:
        return ()
    return (Mark(float(step), first.value, f"best: {metric_value(first.value)} at step {tick_label(step)}"),)


def _rounds(run: RunRecord) -> list[float]:
    """Return the steps after which a later round began; the end of the last round is the end of the chart."""
    return [float(step) for step in run.log.rounds if 0 < step < run.last_step]
