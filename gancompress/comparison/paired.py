"""Differences between methods, paired by seed: how large, how sure, and how many seeds would decide.

Runs of one seed see the same images in the same order and the same latents, so what they have in common cancels in the
difference. Intervals are Student's t over these differences. Verdicts are corrected for how many differences one column
asks about, all that are held against one method (Holm, 1979, "A simple sequentially rejective multiple test
procedure"), so an interval alone may exclude 0 where the verdict does not. Columns are questions of their own: of a
page of four, each may err. Verdicts are corrected too for earlier tables of the same runs, of which each doubles p:
they are then given at 0.05, 0.025, 0.0125, ..., so that looking again and again errs in fewer than one of ten.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING, Literal

from gancompress.comparison.interim import entry_of, shown_before

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.comparison.interim import TableRow
    from gancompress.comparison.results import CellResult, RowResult

__all__ = [
    "FEWEST",
    "LEVEL",
    "Difference",
    "Verdict",
    "differences",
    "half_width",
    "holm",
    "paired",
    "references",
    "verdict_of",
]

Verdict = Literal["better", "worse", "undecided", "too few seeds"]

#: of the intervals, and what a corrected p must stay below 1 minus of
LEVEL = 0.95
#: seeds below which there is no verdict
FEWEST = 5
_MOST = 1000


@dataclasses.dataclass(frozen=True)
class Difference:
    """A row less another one, over the seeds that both have.

    Attributes:
        method: label of the row.
        density: of the row.
        against: label of what it is held against.
        seeds: that both have.
        mean: of the differences of the metric, in its unit.
        low: lower end of the 95 % interval; ``None`` for one seed.
        high: upper end.
        p: two-sided, of Student's t over the differences; 1 for one seed.
        corrected: ``p``, doubled for every earlier table, after Holm's correction over all differences against the
            same method.
        needed: about as many seeds as would decide it, from the spread that was seen, after the corrections that its
            p has now and with this table as one more; ``None`` where 1000 would not, or where one seed has no spread.
        verdict: ``better`` and ``worse`` need five seeds and a corrected p below 0.05.
        target: what the generators of both were to cost, where that is held equal.
        interim: seeds of the earlier tables that showed this difference with enough of them for a verdict.
    """

    method: str
    density: float | None
    against: str
    seeds: tuple[int, ...]
    mean: float
    low: float | None
    high: float | None
    p: float
    corrected: float
    needed: int | None
    verdict: Verdict
    target: float | None = None
    interim: tuple[int, ...] = ()

    @property
    def group(self) -> float | None:
        """As of its row."""
        return self.density if self.target is None else self.target


def paired(
    values: Sequence[float], correction: float = 1
) -> tuple[float, float | None, float | None, float, int | None]:
    """Return mean, ends of the 95 % interval, p, and seeds that would decide, of paired differences.

    Args:
        values: at least one.
        correction: of the p that would decide: so many times.
    """
    return *_student(values), _needed(values, correction)


def _student(values: Sequence[float]) -> tuple[float, float | None, float | None, float]:
    """Return mean, ends of the 95 % interval, and p."""
    from scipy.special import stdtr  # the t distribution without the rest of scipy.stats, which takes a second

    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return mean, None, None, 1.0
    deviation = statistics.stdev(values)

    if not deviation:
        p = 1.0 if not mean else 0.0
    else:
        p = 2 * float(stdtr(count - 1, -abs(mean) * math.sqrt(count) / deviation))
    half = half_width(deviation, count)
    return mean, mean - half, mean + half, p


def _needed(values: Sequence[float], correction: float) -> int | None:
    """Return how many seeds would decide, were they to spread as these do."""
    if len(values) < 2:
        return None
    mean, deviation = abs(statistics.fmean(values)), statistics.stdev(values)
    level = 1 - (1 - LEVEL) / correction
    return next((seeds for seeds in range(2, _MOST + 1) if half_width(deviation, seeds, level) < mean), None)


def half_width(deviation: float, seeds: int, level: float = LEVEL) -> float:
    """Return half of the interval, by default of 95 %, of a mean of two or more differences with this deviation."""
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, (1 + level) / 2)) * deviation / math.sqrt(seeds)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, by Holm's step-down method."""
    found, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        found[index] = largest
    return found


def references(rows: Sequence[RowResult]) -> list[str]:
    """Return the methods that others are held against: the baselines, and the first contender."""
    baselines = dict.fromkeys(row.method for row in rows if row.baseline)
    first = next((row.method for row in rows if not row.baseline), None)
    return [*baselines, *([first] if first is not None else [])]


def differences(
    rows: Sequence[RowResult], label: str, *, higher: bool, earlier: Sequence[Sequence[TableRow]] = ()
) -> list[Difference]:
    """Hold every row against every reference of its density, by a metric of the last evaluation.

    Nothing is picked there, so nothing is flattered: the best of several looks is lower for whatever varies more.

    Args:
        rows: of one protocol.
        label: of the metric.
        higher: whether it is better when higher.
        earlier: what tables before this one showed.
    """
    found: list[Difference] = []
    baselines = {row.method for row in rows if row.baseline}
    for against in references(rows):
        family = []
        for row in rows:
            base = next(
                (one for one in rows if one.method == against and one.group in (None, row.group)),
                None,
            )
            if base is None or row.method == against or row.group is None:
                continue
            if row.baseline and against not in baselines:
                continue  # said already, the other way round
            left, right = _by_seed(row, label), _by_seed(base, label)
            seeds = tuple(sorted(left.keys() & right.keys()))
            if seeds:
                ours, theirs = ({one: entry_of(side[one]) for one in seeds} for side in (left, right))
                interim = shown_before(earlier, ours, theirs, FEWEST)
                values = [_last(left[one], label) - _last(right[one], label) for one in seeds]
                family.append((row, seeds, values, interim, _student(values)))
        corrected = holm([p * 2 ** len(interim) for *_, interim, (*_, p) in family])
        for (row, seeds, values, interim, (mean, low, high, p)), own in zip(family, corrected, strict=True):
            # to decide it with more seeds makes this table an earlier one
            again = own / p if p and own < 1 else len(family) * 2.0 ** len(interim)
            again *= 2 if len(seeds) >= FEWEST else 1
            needed = _needed(values, again)
            verdict = verdict_of(mean, own, len(seeds), higher=higher)
            found.append(
                Difference(
                    row.method, row.density, against, seeds, mean, low, high, p, own, needed, verdict, row.target,
                    interim,
                )
            )  # fmt: skip
    return found


def verdict_of(mean: float, p: float, seeds: int, *, higher: bool) -> Verdict:
    """Return what a difference says: its mean, its corrected p, over so many seeds."""
    if seeds < FEWEST:
        return "too few seeds"
    if p >= 1 - LEVEL:
        return "undecided"
    return "better" if (mean > 0) is higher else "worse"


def _by_seed(row: RowResult, label: str) -> dict[int, CellResult]:
    return {cell.seed: cell for cell in row.cells if math.isfinite(_last(cell, label))}


def _last(cell: CellResult, label: str) -> float:
    value = cell.last(label)
    return math.nan if value is None else value
