"""What ``gancompress compare --dry-run`` shows: rows, what they cost, and how long it will take."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

import typer

from gancompress.comparison.pilots import unsettled
from gancompress.comparison.timing import estimate
from gancompress.progress import duration
from gancompress.report.held import held_equal, planned_texts
from gancompress.report.shown import aligned
from gancompress.report.widths import sweep_notes, sweep_table
from gancompress.report.words import scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.api.comparisons import PlannedComparison
    from gancompress.comparison.grid import Grid, Row

__all__ = ["show_plan"]


def show_plan(planned: PlannedComparison, arguments: Sequence[str]) -> None:
    """Print a comparison that was not begun.

    Args:
        planned: the comparison.
        arguments: of the command that asked for it.
    """
    grid, sweep = planned.grid, planned.sweep
    if sweep is not None:
        _show_sweep(sweep)
    smoke = " (smoke runs: their numbers will mean nothing)" if grid.base.smoke else ""
    first_sight = ", as if the widths nearest to the recipe's were chosen" if sweep is not None else ""
    typer.echo(f"{len(grid.cells)} runs in {planned.folder.path}{first_sight}{smoke}")
    typer.echo(held_equal(grid))
    _show_rows(grid, grid.rows)
    if (tried := sweep_table(grid, "the primary metric")) is not None:
        typer.echo(f"{tried.title}:")
        chosen = [["", *tried.header], *([" *"[i in tried.bold], *row] for i, row in enumerate(tried.rows))]
        for text in aligned(chosen, numbers=range(2, 7)):
            typer.echo(text)
    rows = (*grid.rows, *(sweep.rows[1:] if sweep is not None else ()))
    everything = dataclasses.replace(grid, rows=rows)
    prices = {cell.directory: row.price for row in rows for cell in row.cells}
    exact = all(price.exact for price in prices.values())
    typer.echo(
        f"in all {'' if exact else 'about '}{scaled(sum(price.training_flops for price in prices.values()))} training "
        f"FLOPs; every run is evaluated {grid.evaluations} times over its training"
    )
    if not exact:
        typer.echo("estimate: what is kept in which layer depends on what is learned; the table at the end counts it")
    if waiting := unsettled(everything):
        names = ", ".join(dict.fromkeys(row.choice.label for row in waiting.values()))
        typer.echo(
            f"{names}: measured with masks that are drawn; a run is trained first, and the density fitted again if its "
            "generator costs something else"
        )
    for message in (*grid.messages, *sweep_notes(grid)):
        typer.echo(f"note: {message}")
    found = estimate(everything, planned.folder, planned.jobs)
    about = "about" if found.measured else "at most about"
    typer.echo(f"time: {about} {duration(found.seconds)} with {planned.jobs} at once ({found.how})")
    typer.echo(f"to start it: gancompress {shlex.join(one for one in arguments if one != '--dry-run')}")


def _show_sweep(sweep: Grid) -> None:
    rows = sweep.rows[1:]
    names = ", ".join(dict.fromkeys(row.choice.label for row in rows))
    seeds = ", ".join(map(str, sweep.seeds))
    runs = len({cell.directory for row in rows for cell in row.cells})
    typer.echo(f"{runs} runs of other seeds ({seeds}) first, to choose the width of {names}; the best on average stays")
    _show_rows(sweep, rows)
    typer.echo("")


def _show_rows(grid: Grid, rows: Sequence[Row]) -> None:
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
    for text in aligned(lines, numbers=range(1, 8)):
        typer.echo(text)
