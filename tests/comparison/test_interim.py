"""Tables that were shown before with fewer seeds: which count, and what a verdict pays for them."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gancompress.comparison.interim import TableEntry, earlier_tables, shown_before
from gancompress.comparison.paired import FEWEST, Difference, differences, paired
from gancompress.comparison.results import CellResult, Evaluated, RowResult


def entry(method: str, seed: int, values: str = "", protocol: str = "p") -> TableEntry:
    return TableEntry(f"{method}-s{seed}", values, protocol)


def table(seeds: range, *methods: str) -> frozenset[TableEntry]:
    return frozenset(entry(method, seed) for method in methods for seed in seeds)


def pairs(seeds: range) -> dict[int, tuple[TableEntry, TableEntry]]:
    return {seed: (entry("dst", seed), entry("narrow", seed)) for seed in seeds}


def test_what_counts_as_a_look() -> None:
    five, seven = (table(range(count), "dst", "narrow", "dense") for count in (5, 7))
    assert shown_before([], pairs(range(10)), FEWEST) == ()
    assert shown_before([seven, five], pairs(range(10)), FEWEST) == (5, 7)
    assert shown_before([five, five], pairs(range(10)), FEWEST) == (5,)  # the same table beside another method
    assert shown_before([five, seven], pairs(range(5)), FEWEST) == ()  # more seeds came later
    assert shown_before([table(range(4), "dst", "narrow")], pairs(range(10)), FEWEST) == ()  # could give no verdict
    assert shown_before([table(range(5), "dst", "dense")], pairs(range(10)), FEWEST) == ()  # of another pair
    assert shown_before([five], pairs(range(5, 10)), FEWEST) == ()  # new seeds are a new question
    other = frozenset(one._replace(values="int8") for one in five)
    assert shown_before([other], pairs(range(10)), FEWEST) == ()
    assert shown_before([frozenset(one._replace(protocol="q") for one in five)], pairs(range(10)), FEWEST) == ()


def write(root: Path, name: str, content: Any) -> Path:
    path = root / name
    path.mkdir(parents=True)
    (path / "compare.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def cell(method: str, seed: int, state: str = "done") -> dict[str, Any]:
    return {"run": f"{method.partition(':')[0]}-s{seed}", "method": method, "state": state, "protocol_hash": "p"}


def test_tables_beside_a_comparison_are_read(tmp_path: Path) -> None:
    own = write(tmp_path, "own", {"cells": [cell("dense", 9)]})
    write(tmp_path, "int8", {"cells": [cell("dst:values=int8", 0), cell("dst", 1, "failed"), cell("narrow", 1)]})
    for number, damaged in enumerate(["{", "[]", '{"cells": 3}', '{"cells": [{}]}', "null", {"cells": []}]):
        write(tmp_path, f"damaged{number}", damaged)
    (tmp_path / "runs").mkdir()
    assert earlier_tables(own) == (frozenset({entry("dst", 0, "int8"), entry("narrow", 1)}),)


def row(method: str, values: list[float], *, baseline: bool = False) -> RowResult:
    cells = tuple(
        CellResult(
            method, method, 0.1, seed, "done", path=Path(f"{method}-s{seed}"), protocol_hash="p",
            evaluations=(Evaluated(1, {"FD": value}, True),),
        )
        for seed, value in enumerate(values)
    )  # fmt: skip
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(RowResult))
    return RowResult(
        **{**nothing, "method": method, "name": method, "density": 0.1, "baseline": baseline, "cells": cells}
    )


def difference(values: list[float], *earlier: frozenset[TableEntry]) -> Difference:
    rows = [row("narrow", [0.0] * len(values), baseline=True), row("dst", values)]
    (one,) = differences(rows, "FD", higher=False, earlier=earlier)
    return one


def test_every_earlier_table_doubles_p() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 0.0]  # mean 2.5, deviation 1.8708: t 3.2733, p 0.02212
    alone = difference(values)
    assert alone.p == pytest.approx(0.02212, abs=1e-5)
    assert (alone.corrected, alone.verdict, alone.interim) == (alone.p, "worse", ())
    once = difference(values, table(range(5), "dst", "narrow"))
    assert once.corrected == pytest.approx(2 * alone.p)
    assert (once.verdict, once.interim) == ("worse", (5,))
    twice = difference(values, table(range(5), "dst", "narrow"), table(range(1, 6), "dst", "narrow"))
    assert twice.corrected == pytest.approx(4 * alone.p)
    assert (twice.verdict, twice.interim) == ("undecided", (5, 5))
    # what would decide comes after this table too
    close = [1.0, -0.5, 1.0, -0.5, 1.0]
    found = difference(close)
    assert found.needed == paired(close, 1)[-1]
    assert found.needed > paired(close)[-1]  # type: ignore[operator]
    assert difference(close[:4]).needed == paired(close[:4])[-1]  # too few for a verdict are no look
    assert twice.needed == paired(values, 3)[-1]
    assert (twice.mean, twice.low, twice.high, twice.p) == (alone.mean, alone.low, alone.high, alone.p)
    assert difference([0.1, -0.1, 0.1, -0.1, 0.0, 0.0], table(range(5), "dst", "narrow")).corrected == 1.0


def looking(earlier: bool, trials: int = 400) -> float:
    """Return how often somebody who looks after every seed from the fifth to the twentieth finds what is not there."""
    rng, wrong = random.Random(3), 0
    for _ in range(trials):
        values = [rng.gauss(0.0, 1.0) for _ in range(20)]
        shown: list[frozenset[TableEntry]] = []
        for count in range(FEWEST, len(values) + 1):
            if difference(values[:count], *(shown if earlier else [])).verdict in ("better", "worse"):
                wrong += 1
                break
            shown.append(table(range(count), "dst", "narrow"))
    return wrong / trials


def test_looking_after_every_seed_errs_in_fewer_than_one_of_ten() -> None:
    assert looking(earlier=False) > 0.15
    assert looking(earlier=True) < 0.1
