"""What a sweep over widths tried, and what it chose."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from gancompress.comparison.sweep import key_of
from gancompress.report.shown import Table
from gancompress.report.words import metric_value, scaled

if TYPE_CHECKING:
    from gancompress.comparison.grid import Grid
    from gancompress.comparison.plan import Plan, PlannedRow

__all__ = ["sweep_notes", "sweep_table"]


def sweep_notes(grid: Grid) -> list[str]:
    """Return what is to be known of the widths of a comparison, in sentences; nothing where none was to be chosen."""
    plan = grid.plan
    if plan is None:
        return []
    notes = [f"{note}." for note in plan.notes]
    if plan.swept:
        methods = ", ".join(dict.fromkeys(row.method for row in plan.swept))
        seeds = ", ".join(map(str, plan.sweep))
        notes.insert(
            0,
            f"The width of {methods} was chosen before the comparison, by {plan.sweep_runs} runs of seeds that are not "
            f"in it ({seeds}); about {scaled(plan.sweep_flops)} training FLOPs that are charged to no row, runs that "
            "only fitted a density not counted.",
        )
    return notes


def sweep_table(grid: Grid, primary: str) -> Table | None:
    """Return a table of all widths that were tried, the chosen ones marked; ``None`` where none were."""
    plan = grid.plan
    if plan is None or not plan.swept:
        return None
    kept = [key_of(row) for row in plan.rows]
    chosen = {index for index, row in enumerate(plan.swept) if key_of(row) in kept}
    return Table(
        [[*_texts(plan, row), "chosen" if index in chosen else ""] for index, row in enumerate(plan.swept)],
        ["method", plan.unit, "times the width", "density", f"{primary}, mean", "its runs", ""],
        "widths tried, before the comparison",
        numbers=range(1, 6),
        bold=chosen,
    )


def _texts(plan: Plan, row: PlannedRow) -> list[str]:
    amount = f"{row.amount:.3g}" if plan.unit == "ms" else f"{row.amount:,.0f}"
    mean = metric_value(statistics.fmean(row.tried)) if row.tried else "not finite, or a run diverged"
    return [
        row.method,
        amount,
        f"{row.width:g}",
        f"{row.density:g}",
        mean,
        ", ".join(map(metric_value, row.tried)),
    ]
