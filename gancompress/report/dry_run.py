"""A comparison that was not begun: its rows, what they cost, and how long it will take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gancompress.comparison.pilots import unsettled
from gancompress.comparison.timing import estimate
from gancompress.report.held import held_equal, planned_texts
from gancompress.report.shown import aligned
from gancompress.report.widths import sweep_notes, sweep_table
from gancompress.report.words import duration, scaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Grid, Row

__all__ = ["planned_comparison"]


def planned_comparison(grid: Grid, folder: ComparisonFolder, jobs: int, sweep: Grid | None = None) -> Iterator[str]:
    """Yield what is known of a comparison before it starts, in lines.

    Args:
        grid: what is compared.
        folder: where it belongs; runs that are there are not run again.
        jobs: runs at once.
        sweep: runs that come before it to choose widths, the first row of which is not trained.
    """
    if sweep is not None:
        yield from _sweep(sweep)
    smoke = " (smoke runs: their numbers will mean nothing)" if grid.base.smoke else ""
    first_sight = ", as if the widths nearest to the recipe's were chosen" if sweep is not None else ""
    yield f"{len(grid.cells)} runs in {folder.path}{first_sight}{smoke}"
    yield held_equal(grid)
    yield from _rows(grid, grid.rows)
    if (tried := sweep_table(grid, "value")) is not None:
        yield f"{tried.title}:"
        yield from aligned([tried.header, *tried.rows], numbers=tried.numbers)
    rows = (*grid.rows, *(sweep.rows[1:] if sweep is not None else ()))
    everything = dataclasses.replace(grid, rows=rows)
    prices = {cell.directory: row.price for row in rows for cell in row.cells}.values()
    exact = all(price.exact for price in prices)
    total = scaled(sum(price.training_flops for price in prices))
    yield (
        f"in all {'' if exact else 'about '}{total} training FLOPs; every run is evaluated {grid.evaluations} times "
        "over its training"
    )
    if not exact:
        yield "estimate: what is kept in which layer depends on what is learned; the table at the end counts it"
    if waiting := unsettled(everything):
        names = ", ".join(dict.fromkeys(row.choice.label for row in waiting.values()))
        yield (
            f"{names}: measured with masks that are drawn; a run is trained first, and the density fitted again if its "
            "generator costs something else"
        )
    yield from (f"note: {message}" for message in (*grid.messages, *sweep_notes(grid)))
    found = estimate(everything, folder, jobs)
    about = "about" if found.measured else "at most about"
    yield f"time: {about} {duration(found.seconds)} with {jobs} at once ({found.how})"


def _sweep(sweep: Grid) -> Iterator[str]:
    rows = sweep.rows[1:]
    names = ", ".join(dict.fromkeys(row.choice.label for row in rows))
    seeds = ", ".join(map(str, sweep.seeds))
    runs = len({cell.directory for row in rows for cell in row.cells})
    yield f"{runs} runs of other seeds ({seeds}) first, to choose the width of {names}; the best on average stays"
    yield from _rows(sweep, rows)
    yield ""


def _rows(grid: Grid, rows: Sequence[Row]) -> Iterator[str]:
    header = ["method", "density", "seeds", "steps", "rounds", "updates", "train FLOPs", "of dense", ""]
    lines = [[*header, "wide", grid.plan.unit, "unsure by", "runs on"] if grid.plan is not None else header]
    for row in rows:
        price = row.price
        lines.append(
            [
                row.choice.label,
                "—" if row.density is None else f"{row.density:g}",
                str(len(row.cells)),
                f"{price.steps:,}",
                str(len(price.rounds)),
                str(price.updates),
                scaled(price.training_flops),
                f"{price.training_flops / grid.dense.training_flops:.3f}×",
                "" if price.exact else "estimate",
                *planned_texts(row),
            ]
        )
    yield from aligned(lines, numbers=range(1, 8))
