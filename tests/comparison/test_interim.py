"""Tables that were shown before with fewer seeds: which count, and what a verdict pays for them."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gancompress.comparison.choices import values_of
from gancompress.comparison.interim import TableEntry, TableRow, earlier_tables, first_shown, shown_before
from gancompress.comparison.paired import FEWEST, Difference, differences, paired
from gancompress.comparison.results import CellResult, Evaluated, RowResult

if TYPE_CHECKING:
    from collections.abc import Iterable


def entry(method: str, seed: int, values: str = "", protocol: str = "p") -> TableEntry:
    return TableEntry(f"{method}-s{seed}", values, protocol)


def test_values_are_named_anywhere_in_a_label() -> None:
    labels = [
        "dst",
        "dst:values=float32",
        "dst:values=int8",
        "dst:values=int8:growth=random",
        "dst:growth=random:values=bf16",
    ]
    assert [values_of(one) for one in labels] == ["", "", "int8", "int8", "bf16"]


def shown(method: str, seeds: Iterable[int], values: str = "", protocol: str = "p") -> TableRow:
    return {seed: entry(method, seed, values, protocol) for seed in seeds}


def table(seeds: Iterable[int], *methods: str) -> tuple[TableRow, ...]:
    return tuple(shown(method, tuple(seeds)) for method in methods)


def before(tables: list[tuple[TableRow, ...]], seeds: Iterable[int]) -> tuple[int, ...]:
    return shown_before(tables, shown("dst", seeds), shown("narrow", seeds), FEWEST)


def test_what_counts_as_a_look() -> None:
    five, seven, ten = (table(range(count), "dst", "narrow", "dense") for count in (5, 7, 10))
    assert before([], range(10)) == ()
    assert before([seven, five], range(10)) == (5, 7)
    assert before([five, five], range(10)) == (5,)  # the same table beside another method
    assert before([ten], range(10)) == ()
    assert before([ten], range(9)) == (10,)  # one seed was left out
    assert before([table((4, 20, 21, 22, 23), "dst", "narrow")], range(5)) == (5,)
    assert before([table(range(4), "dst", "narrow")], range(10)) == ()  # could give no verdict
    assert before([table(range(5), "dst", "dense")], range(10)) == ()  # of another pair
    assert before([five], range(5, 10)) == ()  # new seeds are a new question
    assert before([(shown("dst", range(9)), shown("narrow", range(5)))], range(10)) == (5,)  # runs were missing
    for other in ({"values": "int8"}, {"protocol": "q"}):
        assert before([tuple(shown(one, range(5), **other) for one in ("dst", "narrow"))], range(10)) == ()


def write(root: Path, name: str, content: Any, made: str = "2026-11-01") -> Path:
    path = root / name
    path.mkdir(parents=True)
    (path / "compare.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (path / "comparison.json").write_text(json.dumps({"made": made}))
    return path


def cell(method: str, seed: int, state: str = "done") -> dict[str, Any]:
    run = f"{method.partition(':')[0]}-s{seed}"
    return {
        "run": run, "method": method, "density_asked": 0.1, "seed": seed, "state": state, "protocol_hash": "p",
    }  # fmt: skip


def test_tables_beside_a_comparison_are_read(tmp_path: Path) -> None:
    own = write(tmp_path, "own", {"cells": [cell("dense", 9)], "shown": "2026-11-03"})
    other = [cell("dst:values=int8", 0), cell("dst", 1, "failed"), cell("narrow", 1), cell("narrow", 2)]
    write(tmp_path, "before", {"cells": other, "shown": "2026-11-02"}, made="2026-11-04")
    write(tmp_path, "after", {"cells": other, "shown": "2026-11-04"})
    for number, damaged in enumerate(["{", "[]", '{"cells": 3}', '{"cells": [{}]}', "null", {"cells": []}]):
        write(tmp_path, f"damaged{number}", damaged)
    (tmp_path / "runs").mkdir()
    assert first_shown(own) == "2026-11-03"
    assert earlier_tables(own, "2026-11-03") == ((shown("dst", [0], "int8"), shown("narrow", [1, 2])),)
    write(tmp_path, "old", {"cells": [cell("dst", 3)]}, made="2026-11-02")  # of a version that did not say
    assert earlier_tables(own, "2026-11-03")[-1] == (shown("dst", [3]),)
    write(tmp_path, "two", {"cells": [cell("dst", 3), cell("dst", 3) | {"density_asked": 0.2, "run": "denser"}]})
    assert [row[3].run for row in earlier_tables(own, "2026-11-03")[-1]] == ["dst-s3", "denser"]
    assert first_shown(tmp_path / "new") > "2026-11-05"


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


def difference(values: list[float], *earlier: tuple[TableRow, ...]) -> Difference:
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
    assert found.needed == paired(close, 2)[-1]
    assert found.needed > paired(close)[-1]  # type: ignore[operator]
    assert difference(close[:4]).needed == paired(close[:4])[-1]  # too few for a verdict are no look
    assert twice.needed == paired(values, 8)[-1]
    assert (twice.mean, twice.low, twice.high, twice.p) == (alone.mean, alone.low, alone.high, alone.p)
    assert difference([0.1, -0.1, 0.1, -0.1, 0.0, 0.0], table(range(5), "dst", "narrow")).corrected == 1.0


def looking(earlier: bool, trials: int = 400) -> float:
    """Return how often somebody who looks after every seed from the fifth to the twentieth finds what is not there."""
    rng, wrong = random.Random(3), 0
    for _ in range(trials):
        values = [rng.gauss(0.0, 1.0) for _ in range(20)]
        tables: list[tuple[TableRow, ...]] = []
        for count in range(FEWEST, len(values) + 1):
            if difference(values[:count], *(tables if earlier else [])).verdict in ("better", "worse"):
                wrong += 1
                break
            tables.append(table(range(count), "dst", "narrow"))
    return wrong / trials


def test_looking_after_every_seed_errs_in_fewer_than_one_of_ten() -> None:
    assert looking(earlier=False) > 0.15
    assert looking(earlier=True) < 0.1
