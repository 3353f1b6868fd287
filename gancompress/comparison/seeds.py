"""Seeds added until the main differences of a comparison are known well enough."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING

from gancompress.comparison.choices import values_of
from gancompress.comparison.paired import FEWEST, half_width
from gancompress.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.comparison.results import Results, RowResult

__all__ = ["UNTIL", "AutoSeeds", "parse_auto", "widest"]

#: half of an interval, over the mean that it is held against, that is narrow enough; and most seeds, both by default
UNTIL, _LIMIT = 0.1, 20


@dataclasses.dataclass(frozen=True)
class AutoSeeds:
    """As many seeds as it takes.

    Attributes:
        until: half of the 95 % interval of a difference, over the mean of what it is held against, that is enough.
        limit: most seeds.
    """

    until: float
    limit: int

    def following(self, results: Results) -> int | None:
        """Return how many seeds are run next: as many as the spread so far asks for, at most twice as many as now.

        ``None`` when intervals are narrow enough, the limit is reached, or runs are missing: more would not help.
        """
        count = len(results.grid.seeds)
        if results.missing or count >= self.limit:
            return None
        found = _relative(results)
        if not found or max(half for half, _ in found) <= self.until:
            return None
        enough = max(
            next((n for n in range(count + 1, self.limit + 1) if half_width(deviation, n) <= self.until), self.limit)
            for _, deviation in found
        )
        return min(enough, 2 * count, self.limit)


def parse_auto(text: str, until: float | None) -> AutoSeeds | None:
    """Read ``auto`` or ``auto:30``; ``None`` where seeds are told.

    Raises:
        RecipeError: it has no such limit, or an interval is asked of seeds that are told.
    """
    name, colon, limit = text.strip().partition(":")
    if name != "auto":
        if until is not None:
            alone = text.strip() in ("1", "") or (text.strip().rstrip(",").isdecimal() and "," in text)
            why = "one seed has no interval, and a verdict needs five" if alone else "it adds seeds to those there are"
            raise RecipeError(f"until is for seeds auto ({why}); give seeds auto, or auto:30 for at most 30")
        return None
    wanted = UNTIL if until is None else until
    if not (math.isfinite(wanted) and wanted > 0):
        raise RecipeError(f"until: expected a share of the mean such as {UNTIL}, got {wanted:g}")
    if colon and not (limit.isdecimal() and int(limit) >= FEWEST):
        raise RecipeError(f"seeds {text!r}: the limit is a number of seeds, at least {FEWEST}: auto:30")
    return AutoSeeds(wanted, int(limit) if colon else _LIMIT)


def widest(results: Results) -> float | None:
    """Return the widest interval of the main differences: half of it, over the mean of what is held against."""
    return max((half for half, _ in _relative(results)), default=None)


def _relative(results: Results) -> list[tuple[float, float]]:
    """Return half of the interval and the deviation, over the mean, of the first method against narrow, else dense."""
    found = []
    for rows in results.tables.values():
        first = next((row.method for row in rows if not row.baseline), None)
        against = _main_reference(rows, first or "")
        for one in results.differences(rows):
            if (one.method, one.against) != (first, against) or one.low is None or one.high is None:
                continue
            base = next(row for row in rows if row.method == against and row.group in (None, one.group))
            values = [value for cell in base.cells if (value := cell.last(results.primary)) is not None]
            mean = abs(statistics.fmean(values)) or math.inf
            half = (one.high - one.low) / 2
            found.append((half / mean, half / half_width(1.0, len(one.seeds)) / mean))
    return found


def _main_reference(rows: Sequence[RowResult], first: str) -> str:
    """Return what the first method is held against: narrow in the same values, else narrow; else dense likewise."""
    values = values_of(first)
    ranked = sorted(
        (name, values_of(row.method) != values, row.method)
        for row in rows
        for name in (row.method.partition(":")[0],)
        if name in ("dense", "narrow")
    )
    return next((method for name in ("narrow", "dense") for one, _, method in ranked if one == name), "")
