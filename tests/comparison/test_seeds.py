"""Seeds that are added until an interval is narrow enough, counted by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from gancompress.comparison.paired import half_width
from gancompress.comparison.results import CellResult, Evaluated, Results, RowResult
from gancompress.comparison.seeds import AutoSeeds, parse_auto, widest
from gancompress.errors import RecipeError

if TYPE_CHECKING:
    from gancompress.comparison.grid import Grid


def results(differences: list[float], *, missing: bool = False, values: str = "") -> Results:
    """Narrow has 10 for every seed, dst as much more as the differences say."""

    def row(method: str, values: list[float], density: float | None) -> RowResult:
        cells = tuple(
            CellResult("c", method, density, seed, "done", evaluations=(Evaluated(1, {"FD": one}, True),))
            for seed, one in enumerate(values)
        )
        nothing: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(RowResult))
        told = {"method": method, "density": density, "cells": cells, "baseline": not method.startswith("dst")}
        return RowResult(**{**nothing, **told})

    count = len(differences)
    rows = (
        row("dense", [3.0] * count, None),
        row(f"narrow{values}", [10.0] * count, 0.1),
        row(f"dst{values}", [10 + one for one in differences], 0.1),
    )
    lost = (CellResult("lost", "dst", 0.1, count, "failed"),) if missing else ()
    grid = cast("Grid", SimpleNamespace(seeds=range(count)))
    return Results(grid, Path("here"), lost, {"p": rows}, {"p": "protocol"}, "FD", False, {"FD": False}, 1, ())


def test_the_interval_is_held_against_the_mean_of_narrow() -> None:
    # deviation sqrt(2.5), t of 4 degrees of freedom 2.7764: 1.963 of 10
    assert widest(results([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(0.1963, abs=1e-4)
    assert widest(results([1.0])) is None
    in_bytes = results([1.0, 2.0, 3.0, 4.0, 5.0], values=":values=int8")  # dense in float32 is the lesser rival
    assert widest(in_bytes) == pytest.approx(0.1963, abs=1e-4)


def test_seeds_are_added_until_it_is_narrow_enough() -> None:
    spread = results([1.0, 2.0, 3.0, 4.0, 5.0])
    assert AutoSeeds(0.2, 20).following(spread) is None
    # of 10, with deviation 1.5811: 13 seeds leave 0.955, 12 leave 1.0046
    assert half_width(2.5**0.5, 13) < 1 < half_width(2.5**0.5, 12)
    assert AutoSeeds(0.1, 20).following(spread) == 10  # at most twice as many at a time
    assert AutoSeeds(0.1, 7).following(spread) == 7
    assert AutoSeeds(0.15, 20).following(spread) == 7  # 0.1462; six leave 0.1659
    assert AutoSeeds(0.1, 5).following(spread) is None
    assert AutoSeeds(0.1, 20).following(results([1.0, 2.0, 3.0, 4.0, 5.0], missing=True)) is None


def test_what_is_asked_for() -> None:
    assert parse_auto("3", None) is None
    assert parse_auto("auto", None) == AutoSeeds(0.1, 20)
    assert parse_auto("auto:30", 0.05) == AutoSeeds(0.05, 30)


@pytest.mark.parametrize(
    ("text", "until", "message"),
    [
        ("1", 0.1, "one seed has no interval, and a verdict needs five"),
        ("0,", 0.1, "one seed has no interval"),
        ("5", 0.1, "until is for seeds auto"),
        ("auto:3", None, "at least 5: auto:30"),
        ("auto:many", None, "at least 5: auto:30"),
        ("auto", -1.0, "until: expected a share"),
    ],
)
def test_what_is_not(text: str, until: float | None, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        parse_auto(text, until)
    assert "\n" not in str(caught.value)
