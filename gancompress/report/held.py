"""What a comparison holds equal, in sentences, and what was found for it before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.comparison.plan import FARTHEST
from gancompress.report.words import scaled, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.comparison.grid import Grid, Row
    from gancompress.comparison.plan import Plan
    from gancompress.comparison.results import RowResult

__all__ = ["held_equal", "planned_texts", "shipped_apart"]


def held_equal(grid: Grid) -> str:
    """Return in a sentence what every run has the same of, and in another one what every generator has."""
    if grid.held.axis == "steps":
        training = (
            f"Held equal: {grid.base.training.steps:,} training steps for every run, all rounds and pre-training "
            "included; training FLOPs differ and are shown."
        )
    else:
        amount = grid.held.flops if grid.held.flops is not None else grid.dense.training_flops
        whose = "as asked" if grid.held.flops is not None else "those of the dense run"
        training = (
            f"Held equal: {scaled(amount)} training FLOPs for every run ({whose}), all rounds and pre-training "
            "included; training steps differ and are shown."
        )
    return training if grid.plan is None else f"{training} {_cost_held_equal(grid.plan, grid.held.amount)}"


def _cost_held_equal(plan: Plan, asked: float | None) -> str:
    targets = dict.fromkeys(row.target for row in plan.rows if row.target is not None)
    amounts = ", ".join(_cost_text(plan, target) for target in targets)
    whose = "as asked" if asked is not None else "those of the first method"
    forced = ", whatever the times spread by (--force)" if plan.forced and plan.cost == "latency" else ""
    farthest = max((row.apart for row in plan.rows), default=0)
    learned = ", ".join(dict.fromkeys(row.method for row in plan.rows if row.learned))
    trained = f" (of {learned} after a run, whose masks decide)" if learned else ""
    if plan.cost == "bytes":
        before = f": written before training{trained}" if learned else ""
        return f"Generators, dense apart, are files of {amounts} ({whose}), within {farthest:.1%}{before}."
    return (
        f"Generators, dense apart, take {amounts} an image ({whose}), within {farthest:.1%}: measured before training"
        f"{trained} on {plan.machine['name']}, process CPU time of one thread, batches of {plan.batch}{forced}."
    )


def shipped_apart(grid: Grid, rows: Sequence[RowResult]) -> list[str]:
    """Say how far generators, as they were trained, are from the cost that was held equal: a sentence for every cost.

    Args:
        grid: what was compared.
        rows: of one protocol.
    """
    plan, notes = grid.plan, []
    if plan is None:
        return []
    for target in dict.fromkeys(row.target for row in rows if row.target is not None):
        found = {
            row.method: row.shipped.milliseconds if plan.cost == "latency" else float(row.shipped.bytes)
            for row in rows
            if row.target == target and row.shipped is not None
        }
        if not found:
            continue
        least, most = min(found.values()), max(found.values())
        farthest = max(found, key=lambda one: abs(found[one] / target - 1))
        share = found[farthest] / target - 1
        takes, what = ("take", " an image, timed side by side") if plan.cost == "latency" else ("are files of", "")
        beyond = f", more than a tenth: read verdicts on {farthest} with that in mind" if abs(share) > FARTHEST else ""
        notes.append(
            f"As trained, the generators of first seeds for {_cost_text(plan, target)} {takes} "
            f"{_cost_text(plan, least)} to {_cost_text(plan, most)}{what}, {most / least - 1:.0%} apart; farthest from "
            f"what was asked is {farthest}, by {share:+.0%}{beyond}."
        )
    return notes


def _cost_text(plan: Plan, amount: float) -> str:
    return f"{amount:.3g} ms" if plan.cost == "latency" else size(round(amount))


def planned_texts(row: Row) -> list[str]:
    """Return what was found of a row's generator before training: its width, what it costs, the spread, the runtime."""
    found = row.planned
    if found is None:
        return []
    amount = f"{found.amount:.3g}" if found.runtime else f"{found.amount:,.0f}"
    wide = str(found.channels or "") or (f"{row.width:g}×" if row.width != 1 else "")
    return [wide, amount, f"{found.spread:.1%}" if found.runtime else "", found.runtime]
