"""Paired differences by hand, the correction by hand, and verdicts that five seeds at least can have."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics

import pytest

from gancompress.comparison.paired import Difference, differences, holm, paired, references
from gancompress.comparison.results import CellResult, Evaluated, RowResult


def test_an_interval_by_hand() -> None:
    # mean 3, standard deviation sqrt(2.5); t of 4 degrees of freedom at 0.975 is 2.7764; p of t = 4.2426 is 0.01324
    mean, low, high, p, needed = paired([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5 / 5)
    assert (mean, low, high) == (3.0, pytest.approx(3 - half), pytest.approx(3 + half))
    assert p == pytest.approx(0.013236, abs=1e-5)
    # three seeds: 4.3027 * sqrt(2.5 / 3) = 3.93 is more than 3; four: 3.1824 * sqrt(2.5 / 4) = 2.52 is less
    assert needed == 4
    # at half of 5 %: 4.1765 * sqrt(2.5 / 4) = 3.30 is more than 3, 3.4954 * sqrt(2.5 / 5) = 2.47 is less
    assert paired([1.0, 2.0, 3.0, 4.0, 5.0], 2) == (mean, low, high, p, 5)


def test_without_spread_and_with_one_seed() -> None:
    assert paired([2.0]) == (2.0, None, None, 1.0, None)
    assert paired([0.0, 0.0, 0.0])[1:4] == (0.0, 0.0, 1.0)
    assert paired([1.5, 1.5])[1:] == (1.5, 1.5, 0.0, 2)
    assert paired([-1.0, 1.0, -1.0, 1.0])[3:] == (1.0, None)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, never falling
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = random.Random(0)
    held = 0
    for _ in range(2000):
        _, low, high, *_ = paired([rng.gauss(1.0, 2.0) for _ in range(5)])
        assert low is not None
        assert high is not None
        held += low < 1 < high
    assert 0.93 < held / 2000 < 0.97


def row(
    method: str, values: dict[int, float | None], density: float | None = 0.1, *, baseline: bool = False
) -> RowResult:
    cells = tuple(
        CellResult(f"{method}-{seed}", method, density, seed, "done", evaluations=(Evaluated(1, {"FD": value}, True),))
        for seed, value in values.items()
    )
    nothing = dict.fromkeys([field.name for field in dataclasses.fields(RowResult)])
    return RowResult(
        **{**nothing, "method": method, "name": method, "density": density, "baseline": baseline, "cells": cells}
    )  # type: ignore[arg-type]


DENSE = row("dense", {seed: 4.0 + seed for seed in range(5)}, None, baseline=True)
NARROW = row("narrow", {seed: 5.0 + seed for seed in range(5)}, baseline=True)
DST = row("dst", {seed: 7.0 + seed + 0.1 * seed for seed in range(5)})
STATIC = row("static", {0: 9.0, 1: 8.0, 2: None, 4: math.nan, 7: 3.0})


def by(found: list[Difference], method: str, against: str) -> Difference:
    (one,) = [one for one in found if (one.method, one.against) == (method, against)]
    return one


def test_rows_are_paired_by_seed_with_the_baselines_and_the_first_contender() -> None:
    rows = [DENSE, NARROW, DST, STATIC]
    assert references(rows) == ["dense", "narrow", "dst"]
    found = differences(rows, "FD", higher=False)
    assert {(one.method, one.against) for one in found} == {
        ("narrow", "dense"), ("dst", "dense"), ("static", "dense"),
        ("dst", "narrow"), ("static", "narrow"), ("static", "dst"),
    }  # fmt: skip
    one = by(found, "dst", "narrow")
    assert one.mean == pytest.approx(2.2)  # the seeds' own 0, 1, 2, 3, 4 cancel
    assert one.verdict == "worse"
    few = by(found, "static", "dst")
    assert few.seeds == (0, 1)  # not the seed without a value, nor with NaN, nor one that dst has not
    assert few.mean == pytest.approx(statistics.fmean([2.0, -0.1]))
    assert few.verdict == "too few seeds"


def test_verdicts_turn_with_the_metric_and_need_the_corrected_p() -> None:
    rows = [DENSE, NARROW, DST]
    assert by(differences(rows, "FD", higher=True), "dst", "narrow").verdict == "better"
    wide = row("wide", dict(enumerate([1.0, 2.0, 3.0, 4.0, 5.0])))
    zero = row("zero", dict.fromkeys(range(5), 0.0))
    (alone,) = differences([zero, wide], "FD", higher=False)
    assert (alone.against, alone.verdict) == ("zero", "worse")
    others = [row(f"m{i}", dict(enumerate([1.0, -1.0, 1.0, -1.0, 0.1]))) for i in range(4)]
    same = by(differences([zero, wide, *others], "FD", higher=False), "wide", "zero")
    assert same.p == alone.p
    assert same.corrected == pytest.approx(5 * alone.p)
    assert same.needed == paired([1.0, 2.0, 3.0, 4.0, 5.0], 10)[-1]  # five differences, and this table as a look
    assert same.verdict == "undecided"


def test_a_density_is_held_against_the_same_density() -> None:
    other = row("narrow", dict.fromkeys(range(5), 100.0), 0.2, baseline=True)
    found = differences([DENSE, NARROW, other, DST], "FD", higher=False)
    assert by(found, "dst", "narrow").mean == pytest.approx(2.2)
