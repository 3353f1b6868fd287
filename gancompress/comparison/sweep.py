"""Widths chosen before seeds are spent: a few runs at every width that costs the same show which one is the best.

A generator with masks may be narrower and denser or wider and sparser at one cost. Seeds of the sweep are none of the
comparison's: the width that was lucky in them is not lucky again, so what the comparison says is not flattered.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING

from gancompress.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.comparison.plan import Plan, PlannedRow

__all__ = ["Key", "at_first_sight", "chosen", "key_of", "merged", "sweep_seeds", "undecided_part"]

#: of a sweep, out of the way of comparisons, which count theirs from the recipe's
_FIRST = 1_000_000

#: what tells a planned row from all others: method, cost and width
Key = tuple[str, float | None, float | None]


def sweep_seeds(count: int) -> tuple[int, ...]:
    """Return the seeds of a sweep of so many runs for each width."""
    return tuple(range(_FIRST, _FIRST + count))


def key_of(row: PlannedRow) -> Key:
    """Return what tells a row of a plan from the others."""
    return row.method, row.target, row.width


def undecided_part(plan: Plan) -> Plan:
    """Return the part of a plan whose widths are to be chosen, with the dense network that times are measured by."""
    kept = {0} | plan.waiting
    return dataclasses.replace(plan, rows=tuple(row for index, row in enumerate(plan.rows) if index in kept))


def merged(plan: Plan, part: Plan) -> Plan:
    """Put the rows of :func:`undecided_part`, as they were fitted again, back into their plan; some may have gone."""
    waiting = plan.waiting
    again = {key_of(row): row for row in part.rows}
    rows = (again.get(key_of(row)) if index in waiting else row for index, row in enumerate(plan.rows))
    return dataclasses.replace(plan, rows=tuple(row for row in rows if row is not None), notes=part.notes)


def at_first_sight(plan: Plan) -> Plan:
    """Return a plan as if the widths nearest to the recipe's were chosen: what comes of it costs about as much."""
    nearest = {min(several, key=lambda one: abs(math.log(plan.rows[one].width or 1))) for several in plan.undecided}
    out = plan.waiting - nearest
    return dataclasses.replace(plan, rows=tuple(row for index, row in enumerate(plan.rows) if index not in out))


def chosen(plan: Plan, values: Mapping[Key, Sequence[float]], *, higher: bool) -> Plan:
    """Return a plan with the width of every method whose runs were the best on average.

    Args:
        plan: with rows of several widths.
        values: the primary metric of every run of the sweep that ended, by row. A width of which one is missing, or is
            not finite, is not chosen: the others may be those that went well.
        higher: whether it is better when higher.

    Raises:
        RunError: of a method, no width has a finite value of all its runs.
    """
    best: dict[int, PlannedRow] = {}
    swept: list[PlannedRow] = []
    for several in plan.undecided:
        rows = {index: dataclasses.replace(plan.rows[index], tried=_all(plan, values, index)) for index in several}
        swept += rows.values()
        ended = [index for index, row in rows.items() if row.tried]
        if not ended:
            raise RunError(
                f"no width of {plan.rows[several[0]].method} can be chosen: at none of them all runs of the sweep "
                "ended with a finite value"
            )
        sign = -1 if higher else 1
        index = min(ended, key=lambda one: sign * statistics.fmean(rows[one].tried))
        best[index] = rows[index]
    out = plan.waiting - best.keys()
    kept = tuple(best.get(index, row) for index, row in enumerate(plan.rows) if index not in out)
    return dataclasses.replace(plan, rows=kept, swept=(*plan.swept, *swept))


def _all(plan: Plan, values: Mapping[Key, Sequence[float]], index: int) -> tuple[float, ...]:
    """Return the values of a row's runs; none where one is missing."""
    found = tuple(values.get(key_of(plan.rows[index]), ()))
    return found if len(found) == len(plan.sweep) and all(map(math.isfinite, found)) else ()
