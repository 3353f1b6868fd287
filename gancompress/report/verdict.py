"""What a comparison found, in sentences.

In each kind of values, the first method that is no baseline against all that are; and where generators cost the same,
the best row of all values that is no baseline against the best narrow network of all.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING

from gancompress.comparison.choices import values_of
from gancompress.comparison.exported import read_noise
from gancompress.comparison.paired import FEWEST, holm, verdict_of
from gancompress.report.words import scaled, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.comparison.grid import Grid
    from gancompress.comparison.paired import Difference
    from gancompress.comparison.results import Results, RowResult

__all__ = ["group_words", "narrow_notes", "noise_notes", "verdicts"]


def group_words(grid: Grid, group: float | None) -> str:
    """Return what rows of one group share, as the beginning of a sentence."""
    if group is None:
        return "Dense"
    if grid.plan is None:
        return f"At density {group:g}"
    return f"At {group:.3g} ms an image" if grid.plan.cost == "latency" else f"In files of {size(round(group))}"


def verdicts(results: Results, rows: Sequence[RowResult]) -> list[str]:
    """Return a sentence for every group and baseline of the same values, about the first method in these values."""
    firsts: dict[str, RowResult] = {}
    for row in rows:
        if not row.baseline:
            firsts.setdefault(values_of(row.method), row)
    all_found = results.differences(rows)
    sentences, told = [], []
    for values, first in firsts.items():
        baselines = {row.method for row in rows if row.baseline and values_of(row.method) == values}
        found = [one for one in all_found if one.method == first.method and one.against in baselines]
        fewest = min((len(one.seeds) for one in found), default=FEWEST)
        if fewest < FEWEST:
            others = " and ".join(dict.fromkeys(one.against for one in found))
            count = f"{fewest} seed{'s' if fewest != 1 else ''}"
            sentences.append(
                f"No verdict on {first.method} against {others}: {count}, and {FEWEST} are the fewest for one."
            )
        else:
            told += found
            sentences += [f"{group_words(results.grid, one.group)}, {_sentence(results, one)}" for one in found]
    for one in _best_of_all(results, rows, all_found):
        if not any((one.target, one.method, one.against) == (two.target, two.method, two.against) for two in told):
            sentences.append(
                f"{group_words(results.grid, one.group)}, the best row of this table that is no baseline against its "
                "best narrow network, both picked by these values and corrected for all such pairs: "
                f"{_sentence(results, one, seeds=False)}"
            )
    return sentences


def _best_of_all(results: Results, rows: Sequence[RowResult], found: Sequence[Difference]) -> list[Difference]:
    """Return at every cost the difference between the best contender and the best narrow network, whatever values.

    Which two these are is seen only afterwards, so their p is corrected for all pairs that they might have been.
    """
    best_ones = []
    for group in dict.fromkeys(row.target for row in rows if row.target is not None):
        mine = [row for row in rows if row.target == group and row.last.get(results.primary) is not None]
        sides = [[row for row in mine if row.baseline is side] for side in (False, True)]
        if not all(sides) or len({tuple(cell.seed for cell in row.cells) for row in mine}) > 1:
            continue  # means over other seeds are not compared
        sign = -1 if results.higher else 1
        best, narrow = (min(side, key=lambda row: sign * _mean(row, results.primary)) for side in sides)
        names = [{row.method for row in side} for side in sides]
        pairs = [one for one in found if one.target == group and one.method in names[0] and one.against in names[1]]
        corrected = holm([min(1.0, one.p * 2 ** len(one.interim)) for one in pairs])
        for one, p in zip(pairs, corrected, strict=True):
            if (one.method, one.against) == (best.method, narrow.method) and len(one.seeds) >= FEWEST:
                word = verdict_of(one.mean, p, len(one.seeds), higher=results.higher)
                best_ones.append(dataclasses.replace(one, corrected=p, verdict=word))
    return best_ones


def _mean(row: RowResult, label: str) -> float:
    found = row.last[label]
    return found.mean if found is not None else 0.0


def _sentence(results: Results, one: Difference, *, seeds: bool = True) -> str:
    assert one.low is not None
    assert one.high is not None
    interval = f"95 % interval {one.low:+.3g} to {one.high:+.3g}"
    means = f"{results.primary} differs by {one.mean:+.3g}, {interval}, {len(one.seeds)} seeds"
    tables = f" and {len(one.interim)} earlier table{'s' * (len(one.interim) > 1)}" if one.interim else ""
    corrected = f"p {one.corrected:.2g} after Holm's correction{tables}"
    if one.verdict == "undecided":
        more = "more than 1000 seeds" if one.needed is None else f"about {max(one.needed, len(one.seeds) + 1)} seeds"
        why = f", {corrected}" if one.low > 0 or one.high < 0 else ""  # the interval alone would decide
        decide = f"; {more} would decide it" if seeds else ""
        return f"{one.method} and {one.against} cannot be told apart: {means}{why}{decide}."
    return f"{one.method} is {one.verdict} than {one.against}: {means}, {corrected}."


def noise_notes(results: Results, rows: Sequence[RowResult]) -> list[str]:
    """Say how far values lie apart for their samples alone, and for training, where the first was measured."""
    noise = read_noise(results.path)
    if noise is None:
        return []
    method, values, pairs = noise.method, noise.values, noise.classifiers
    spread = next((row.last.get(results.primary) for row in rows if row.method == method), None)
    training = f"; over seeds of training, samples included, by ± {spread.std:.2g}" if spread and spread.std else ""
    notes = [
        f"Evaluation noise: {results.primary} of one run of {method} varies by ± {statistics.stdev(values):.2g} over "
        f"{len(values)} seeds of latents (standard deviation, one classifier){training}."
    ]
    if len(pairs) > 1:
        own, differences = [one for one, _ in pairs], [one - other for one, other in pairs]
        notes.append(
            f"Classifier noise: under {len(pairs)} classifiers trained from other seeds that run is at "
            f"{statistics.mean(own):.3g} ± {statistics.stdev(own):.2g}, and {statistics.mean(differences):+.3g} ± "
            f"{statistics.stdev(differences):.2g} from the run of {noise.against} of the same seed."
        )
    return notes


def narrow_notes(results: Results, rows: Sequence[RowResult]) -> list[str]:
    """Say what a narrow network that is matched by weights costs beside the first masks: as many weights, more work."""
    notes = []
    if results.grid.plan is not None:
        return []
    for narrow in (row for row in rows if row.method == "narrow"):
        masks = next((row for row in rows if not row.baseline and row.group == narrow.group), None)
        if masks is None or not narrow.inference_ratio or not masks.inference_ratio or not masks.inference_ratio.mean:
            continue
        flops = narrow.inference_ratio.mean / masks.inference_ratio.mean
        times = (
            f" and {narrow.shipped.milliseconds / masks.shipped.milliseconds:.2g} times the time"
            if narrow.shipped and masks.shipped
            else ""
        )
        amount = scaled(narrow.inference_ratio.mean * results.grid.dense.inference_flops)
        notes.append(
            f"{group_words(results.grid, narrow.group)}, narrow is matched by weights: it has {flops:.2g} times the "
            f"inference FLOPs of {masks.method} ({amount}){times}; --budget latency compares at equal time."
        )
    return notes
