"""From logs to rows: which evaluations count, which of them is the best, and what may stand in one table."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from gancompress.comparison.choices import parse_methods
from gancompress.comparison.exported import ShippedCost
from gancompress.comparison.folder import ComparisonFolder
from gancompress.comparison.grid import Grid, build_grid
from gancompress.comparison.interim import TableEntry
from gancompress.comparison.machines import refuse_other_machines
from gancompress.comparison.plan import Plan, PlannedRow
from gancompress.comparison.results import CellResult, Evaluated, Results, RowResult, collect, short_names, spread
from gancompress.errors import RunError
from gancompress.report.comparison import build_comparison
from gancompress.report.comparison_charts import pareto_front, styles
from gancompress.report.comparison_table import shown_comparison
from gancompress.report.held import held_equal, shipped_apart
from gancompress.report.verdict import narrow_notes, verdicts
from gancompress.runs.best import same_density
from gancompress.runs.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from gancompress.recipe.load import LoadedRecipe


def test_mean_and_sample_standard_deviation() -> None:
    found = spread([1.0, 3.0, None, math.nan])
    assert found is not None
    assert (found.mean, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 2)
    assert found.std == pytest.approx(math.sqrt(2))
    alone = spread([4.0])
    assert alone is not None
    assert alone.std is None
    assert spread([None, math.inf]) is None


def look(step: int, density: float = 1.0) -> dict[str, Any]:
    return {"kind": "evaluation", "step": step, "round": 0, "density_generator": density}


def test_evaluations_of_a_denser_network_do_not_count() -> None:
    assert same_density([look(10), look(20, 0.5), look(30, 0.1), look(40, 0.1)]) == [False, False, True, True]
    assert same_density([look(10, 0.2), look(20, 0.2)]) == [True, True]


def cell(*values: float, final: int = 9) -> CellResult:
    evaluations = tuple(Evaluated(i + 1, {"FD": v}, i >= len(values) - final) for i, v in enumerate(values))
    return CellResult("c", "m", 0.1, 0, "done", evaluations=evaluations)


def test_the_best_is_picked_among_the_same_number_of_looks() -> None:
    one = cell(1.0, 5.0, 3.0, 4.0)
    for count, value in ((1, 4.0), (2, 3.0), (4, 1.0)):
        found = one.best_of(count, "FD", higher=False)
        assert found is not None
        assert found.values["FD"] == value
    highest = one.best_of(3, "FD", higher=True)
    assert highest is not None
    assert highest.values["FD"] == 5.0
    assert cell(1.0, math.nan, final=1).best_of(1, "FD", higher=False) is None


def test_the_pareto_front_by_hand() -> None:
    points = [(1.0, 9.0), (2.0, 5.0), (2.0, 6.0), (3.0, 5.0), (4.0, 2.0), (5.0, 3.0), (0.5, math.nan)]
    assert pareto_front(points, higher=False) == [(1.0, 9.0), (2.0, 5.0), (4.0, 2.0)]
    assert pareto_front([(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)], higher=True) == [(1.0, 1.0), (2.0, 3.0)]


def test_methods_are_told_apart_by_shape_and_by_colour() -> None:
    methods = ["dense", "narrow", "dst", "imp", "gmp", "snip", "adapt", "static", "rigl", "set", "x", "y"]
    looks = styles(methods, {"dense", "narrow"})
    assert len({(style.color, style.shape) for style in looks.values()}) == 12
    assert [name for name, style in looks.items() if style.color.startswith("base")] == ["dense", "narrow"]


def test_a_method_has_its_colour_on_every_page() -> None:
    alone = styles(["dense", "static"], {"dense"})
    beside = styles((name for name in ("dense", "imp", "dst:growth=random", "static", "dst")), {"dense"})
    assert alone["static"].color == beside["static"].color
    assert styles(["dst:growth=random"])["dst:growth=random"].color == beside["dst"].color
    assert [style.color for style in beside.values()] == ["base-0", "series-4", "series-0", "series-1", "series-0"]
    plain, grown = beside["dst"], beside["dst:growth=random"]
    assert (plain.dash, grown.dash) == ("", "7 3")
    assert plain.shape != grown.shape


def test_settings_never_take_the_colour_of_another_method() -> None:
    alone = styles(["dst:pattern=1x4", "dst"])  # as long as static was not there it lent its colour
    assert {style.color for style in alone.values()} == {"series-0"}
    assert len({style.shape for style in alone.values()}) == 2
    greys = styles(["dense", "dense:values=int8"], {"dense", "dense:values=int8"})
    assert {style.color for style in greys.values()} == {"base-0"}
    for others in (["rigl", "granet", "srigl"], ["granet"], ["srigl", "granet", "a", "b", "c", "d", "e"]):
        assert styles(others)["granet"].color == styles(["granet"])["granet"].color
    wide = styles(["narrow:values=int8"], {"narrow:values=int8"})
    assert wide["narrow:values=int8"].color == "base-1"


# --------------------------------------------------------------------------- whole comparisons, without training


def fake_run(folder: ComparisonFolder, grid: Grid, name: str, values: list[float], protocol: str = "p1") -> None:
    """Write what a run leaves behind."""
    one = next(cell for cell in grid.cells if cell.name == name)
    run = RunDirectory.open(folder.runs, one.recipe)
    density = one.density or 1.0
    for index, value in enumerate(values):
        step = (index + 1) * 4
        run.log({"kind": "train", "step": step, "density_generator": density, "density_discriminator": 0.5})
        metric = {
            "label": "FD[x]",
            "value": value,
            "std": None,
            "higher_is_better": False,
            "protocol": f"{protocol} fd",
        }
        other = {**metric, "label": "gap", "higher_is_better": True}
        run.log(
            {
                **look(step, density),
                "metrics": [metric, other],
                "protocol": {"hash": protocol, "text": f"how [{protocol}]"},
            }
        )
    run.write_json("metrics.json", {"primary": "FD[x]"})
    flops = {"flops": grid.dense.training_flops * density}
    cost = {
        "theory": {"training": flops, "inference": {"generator": {"flops": grid.dense.inference_flops * density}}},
        "time": {"training_seconds": 2.0},
        "bytes": {"generator": {"packed": 1000}},
        "layers": [{"role": "generator", "nonzeros": round(grid.dense.parameters * density), "numel": 1}],
    }
    run.write_json("cost.json", cost)
    run.write_json("environment.json", {"device": "cpu", "processor": "<b>some</b> CPU", "threads": 1, "cores": 2})
    run.status("done")


@pytest.fixture
def comparison(tiny: Callable[..., LoadedRecipe], tmp_path: Path) -> tuple[Grid, ComparisonFolder]:
    grid = build_grid(tiny(), parse_methods("static,dst"), seeds=(0, 1), narrow=False)
    folder = ComparisonFolder.of(tmp_path, grid)
    folder.open(grid)
    return grid, folder


def finished(grid: Grid, folder: ComparisonFolder) -> Results:
    for seed in (0, 1):
        fake_run(folder, grid, f"dense-s{seed}", [9.0, 4.0, 5.0 + 2 * seed])
        fake_run(folder, grid, f"static-d0.25-s{seed}", [20.0, 10.0, 12.0])
        fake_run(folder, grid, f"dst-d0.25-s{seed}", [20.0, 11.0, 8.0])
    return collect(grid, folder)


def test_rows_hold_means_over_seeds(comparison: tuple[Grid, ComparisonFolder]) -> None:
    results = finished(*comparison)
    (rows,) = results.tables.values()
    assert [row.method for row in rows] == ["dense", "static", "dst"]
    assert results.looks == 3
    dense, static, _ = rows
    last = dense.last["FD[x]"]
    assert last is not None
    assert (last.mean, last.std) == (6.0, pytest.approx(math.sqrt(2)))
    assert static.best is not None
    assert static.best.mean == 10.0
    assert static.training_ratio is not None
    assert static.training_ratio.mean == pytest.approx(0.25)


def test_files_and_page(comparison: tuple[Grid, ComparisonFolder], capsys: pytest.CaptureFixture[str]) -> None:
    results = finished(*comparison)
    page = build_comparison(results).read_text()
    assert page.startswith("<!doctype html>")
    assert not re.search("https?:", page.replace("http://www.w3.org/2000/svg", ""))
    assert "<script" not in page
    assert "script-src &#39;none&#39;" in page
    assert "<b>some</b>" not in page
    assert "Pareto front" in page
    assert page.count('<svg class="chart') == 4
    # five names of an extractor side by side are wider than a screen
    assert '<th class="num">FD<small>[x]</small><small>lower is better</small></th>' in page
    assert '<th class="num">gap<small>higher is better</small></th>' in page
    with (results.path / "compare.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == ["dense", "static", "dst"]
    assert float(lines[0]["last FD[x] mean"]) == 6.0
    with (results.path / "cells.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    record = json.loads((results.path / "compare.json").read_text())
    assert record["tables"][0]["rows"][1]["best"]["mean"] == 10.0
    print(shown_comparison(results).plain())
    out = capsys.readouterr().out
    assert "12 training steps for every run, all rounds and pre-training included" in out
    assert "over 2 seeds" in out
    # dense 5 and 7, dst 8 twice, static 12 twice: 3 and 1, 7 and 5; t of one degree of freedom is 12.7
    assert "less dense" in out
    assert "+2.00 [-10.71, +14.71]" in out
    (found,) = [
        one for one in record["tables"][0]["differences"] if (one["method"], one["against"]) == ("static", "dense")
    ]
    assert (found["mean"], found["seeds"], found["verdict"]) == (6.0, [0, 1], "too few seeds")
    assert "+6.00 [-6.71, +18.71]" in page
    assert "how [p1]" in out


def test_protocols_are_never_mixed(
    comparison: tuple[Grid, ComparisonFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    grid, folder = comparison
    fake_run(folder, grid, "dense-s0", [4.0])
    fake_run(folder, grid, "static-d0.25-s0", [5.0], "p2")
    results = collect(grid, folder)
    assert {key: [row.method for row in rows] for key, rows in results.tables.items()} == {
        "p1": ["dense"],
        "p2": ["static"],
    }
    print(shown_comparison(results).plain())
    assert "must not be compared across the tables" in capsys.readouterr().out
    assert "different protocols" in build_comparison(results).read_text()


def test_what_is_missing_is_said(comparison: tuple[Grid, ComparisonFolder], capsys: pytest.CaptureFixture[str]) -> None:
    grid, folder = comparison
    fake_run(folder, grid, "dense-s0", [4.0])
    results = collect(grid, folder)
    assert len(results.missing) == 5
    print(shown_comparison(results).plain())
    assert "missing: dst-d0.25-s1 (pending)" in capsys.readouterr().out
    (row,) = results.tables["p1"]
    assert len(row.cells) == 1
    assert "Missing: dst-d0.25-s1" in build_comparison(results).read_text()


def test_a_comparison_without_any_run_has_a_page(comparison: tuple[Grid, ComparisonFolder]) -> None:
    assert "No run has ended yet" in build_comparison(collect(*comparison)).read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"theory": [1]}, "cost.json has no number at theory.training.flops"),
        ({"bytes": {"generator": {"packed": "many"}}}, "cost.json has no number at bytes.generator.packed"),
        ({"time": None, "layers": {"a": 1}}, ""),
        ({"time": {"training_seconds": [2.0], "generator_latency": 7}}, ""),
    ],
)
def test_an_odd_cost_is_named_and_the_other_runs_count(
    comparison: tuple[Grid, ComparisonFolder], change: dict[str, Any], reason: str
) -> None:
    finished(*comparison)
    grid, folder = comparison
    one = next(cell for cell in grid.cells if cell.name == "static-d0.25-s0")
    run = RunDirectory(folder.run_path(one))
    run.write_json("cost.json", {**run.read_json("cost.json"), **change})
    results = collect(grid, folder)
    reasons = {cell.name: cell.reason for cell in results.missing}
    assert reasons == ({"static-d0.25-s0": f"its files cannot be read: {reason}"} if reason else {})
    assert build_comparison(results).is_file()


def test_a_damaged_run_is_a_missing_one(comparison: tuple[Grid, ComparisonFolder]) -> None:
    grid, folder = comparison
    fake_run(folder, grid, "dense-s0", [4.0])
    (folder.run_path(grid.cells[0]) / "cost.json").write_text("{}")
    first = collect(grid, folder).cells[0]
    assert first.state == "failed"
    assert "cannot be read" in first.reason


def test_charts_name_a_method_without_its_settings_unless_two_are_called_the_same() -> None:
    assert short_names(parse_methods("adapt:every=30,dst,dst:every=9")) == {
        "adapt:every=30": "adapt",
        "dst": "dst",
        "dst:every=9": "dst:every=9",
    }


def test_costs_as_shipped_are_drawn_and_the_runs_are_linked(
    comparison: tuple[Grid, ComparisonFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    grid, folder = comparison
    for row in grid.rows:
        for cell in row.cells:
            fake_run(folder, grid, cell.name, [9.0, 5.0])
            (folder.run_path(cell) / "report.html").write_text("")
    shared = RunDirectory(folder.run_path(grid.rows[0].cells[0]))
    shared.write_json("environment.json", {"device": "cpu", "processor": "one", "threads": 2, "cores": 2})
    rows = [
        {"bytes": 1000 * (at + 1), "milliseconds": 0.5 / (at + 1), "unsure": 0.02, "runtime": "onnxruntime"}
        for at in range(len(grid.rows))
    ]
    (folder.path / "shipped.json").write_text(json.dumps({"batch": 16, "rows": rows}))
    results = collect(grid, folder)
    page = build_comparison(results, "gancompress compare --methods 'a b'").read_text()
    for title in ("Quality against time", "Quality against bytes", "Quality against training FLOPs"):
        assert title in page
    assert f'href="../runs/{grid.cells[0].directory}/report.html"' in page
    assert "gancompress compare --methods &#39;a b&#39;" in page
    print(shown_comparison(results))
    text = capsys.readouterr().out
    assert "500 µs onnxruntime" in text
    assert "2 s on 1 or 2 threads" in text
    assert "Train times are of different loads" in text
    assert "batches of 16" in text
    assert "No verdict on static against dense: 2 seeds, and 5 are the fewest for one." in text


def test_what_was_shipped_is_held_against_what_was_asked(comparison: tuple[Grid, ComparisonFolder]) -> None:
    grid, _ = comparison

    def row(method: str, target: float | None, milliseconds: float | None) -> RowResult:
        nothing = dict.fromkeys(field.name for field in dataclasses.fields(RowResult))
        shipped = None if milliseconds is None else ShippedCost(round(1e4 * milliseconds), milliseconds, 0.0, "", 16)
        return RowResult(**{**nothing, "method": method, "target": target, "shipped": shipped})  # type: ignore[arg-type]

    rows = [row("dense", None, 9.0), row("narrow", 0.5, 0.48), row("dst", 0.5, 0.59), row("static", 0.5, None)]
    timed = dataclasses.replace(grid, plan=Plan("latency", 16, {}, ()))
    assert shipped_apart(timed, rows) == [
        "As trained, the generators of first seeds for 0.5 ms take 0.48 ms to 0.59 ms an image, timed side by side, "
        "23% apart; farthest from what was asked is dst, by +18%, more than a tenth: read verdicts on dst with that in "
        "mind."
    ]
    assert shipped_apart(timed, rows[:2]) == [
        "As trained, the generators of first seeds for 0.5 ms take 0.48 ms to 0.48 ms an image, timed side by side, 0% "
        "apart; farthest from what was asked is narrow, by -4%."
    ]
    weighed = dataclasses.replace(grid, plan=Plan("bytes", 16, {}, ()))
    (note,) = shipped_apart(weighed, [row("narrow", 5000.0, 0.5), row("dst", 5000.0, 0.49)])
    assert note.endswith("are files of 4.9 kB to 5 kB, 2% apart; farthest from what was asked is dst, by -2%.")
    assert shipped_apart(grid, rows) == []


def test_a_plan_that_was_forced_says_so(comparison: tuple[Grid, ComparisonFolder]) -> None:
    grid, _ = comparison
    rows = (PlannedRow("dense", None, None, None, 0.7, 0.0, ""), PlannedRow("static", 0.5, 0.2, None, 0.7, 0.0, ""))
    here = {"name": "this CPU", "processor": "this CPU, L2", "kernels": "avx2"}
    for forced in (False, True):
        planned = dataclasses.replace(grid, plan=Plan("latency", 16, here, rows, forced=forced))
        assert ("whatever the times spread by (--force)" in held_equal(planned)) is forced
        assert "within 40.0%" in held_equal(planned)


def test_runs_of_another_machine_are_refused_where_times_are_compared(
    comparison: tuple[Grid, ComparisonFolder],
) -> None:
    grid, folder = comparison
    for cell in grid.cells[:2]:  # before the others are trained
        fake_run(folder, grid, cell.name, [9.0])
    rows = tuple(PlannedRow(row.choice.label, 0.5, row.density, None, 0.5, 0.0, "fake") for row in grid.rows)
    here = {"name": "this CPU", "processor": "this CPU, L2", "kernels": "avx2"}
    planned = dataclasses.replace(grid, plan=Plan("latency", 16, here, rows))
    with pytest.raises(RunError, match=r"ran on another machine .*some.* than the times of this comparison") as caught:
        collect(planned, folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="ran on another machine"):
        refuse_other_machines(planned, folder)
    assert collect(dataclasses.replace(planned, plan=Plan("bytes", 16, here, rows)), folder).tables
    for cell in grid.cells[:2]:  # of the same name, but another generation of it
        path = folder.run_path(cell)
        environment = json.loads((path / "environment.json").read_text())
        same = {**environment, "processor": "this CPU", "processor_key": "this CPU, L2"}
        (path / "environment.json").write_text(json.dumps(same))
    refuse_other_machines(planned, folder)
    (path / "environment.json").write_text("{")
    refuse_other_machines(planned, folder)  # that it is damaged is said of the run
    (path / "environment.json").write_text(json.dumps({**same, "processor_key": "this CPU, larger L2"}))
    with pytest.raises(RunError, match="ran on another machine"):
        refuse_other_machines(planned, folder)


def test_a_narrow_network_of_as_many_weights_says_what_it_costs() -> None:
    narrow, masks = (
        RowResult(
            **{
                **dict.fromkeys(field.name for field in dataclasses.fields(RowResult)),  # type: ignore[arg-type]
                "method": name, "density": 0.1, "cells": (), "baseline": name == "narrow",
                "inference_ratio": spread([ratio]), "shipped": ShippedCost(1, milliseconds, 0.0, "", 16),
            }
        )
        for name, ratio, milliseconds in (("narrow", 0.44, 3.0), ("dst", 0.1, 2.0))
    )  # fmt: skip
    grid = SimpleNamespace(plan=None, dense=SimpleNamespace(inference_flops=1e6))
    (note,) = narrow_notes(cast("Results", SimpleNamespace(grid=grid)), [narrow, masks])
    assert note.startswith("At density 0.1, narrow is matched by weights: it has 4.4 times the inference FLOPs of dst")
    assert "1.5 times the time" in note


def test_verdicts_are_words_with_their_interval() -> None:
    def row(method: str, values: list[float], density: float | None, target: float | None) -> RowResult:
        cells = tuple(
            CellResult(
                f"{method}-{seed}", method, density, seed, "done", path=Path(f"{method}-{seed}"),
                evaluations=(Evaluated(1, {"FD": one}, True),),
            )
            for seed, one in enumerate(values)
        )  # fmt: skip
        nothing = dict.fromkeys(field.name for field in dataclasses.fields(RowResult))
        told = {
            "method": method,
            "density": density,
            "cells": cells,
            "baseline": method.partition(":")[0] in ("dense", "narrow"),
            "last": {"FD": spread(values)},
        }
        return RowResult(**{**nothing, **told, "target": target})  # type: ignore[arg-type]

    plan = Plan("latency", 16, {}, ())
    grid = cast("Grid", SimpleNamespace(plan=plan))
    results = Results(grid, Path("here"), (), {}, {}, "FD", False, {"FD": False}, 1, ())
    rows = [
        row("dense", [1.0, 1.1, 0.9, 1.0, 1.05], None, None),
        row("narrow", [5.0, 5.2, 5.1, 4.9, 5.0], 1.0, 0.25),
        row("dst", [3.0, 3.1, 3.2, 2.9, 3.0], 0.2, 0.25),
    ]
    dense, narrow = verdicts(results, rows)
    assert dense.startswith(
        "At 0.25 ms an image, dst is worse than dense: FD differs by +2.03, 95 % interval +1.84 to +2.22"
    )
    assert narrow.startswith("At 0.25 ms an image, dst is better than narrow: FD differs by -2, 95 % interval -2.")
    assert "5 seeds" in narrow
    in_bytes = [
        row("narrow:values=int8", [2.0, 2.2, 2.1, 1.9, 2.0], 1.0, 0.25),
        row("dst:values=int8", [3.0, 3.1, 3.2, 2.9, 3.0], 0.4, 0.25),
        row("static:values=int8", [9.0] * 5, 0.4, 0.25),  # the first of its values speaks
    ]
    *first, of_bytes, best = verdicts(results, [*rows, *in_bytes])
    assert [one.partition(":")[0] for one in first] == [one.partition(":")[0] for one in (dense, narrow)]
    assert of_bytes.startswith(
        "At 0.25 ms an image, dst:values=int8 is worse than narrow:values=int8: FD differs by +1"
    )
    assert best.startswith(
        "At 0.25 ms an image, the best row of this table that is no baseline against its best narrow network, both "
        "picked by these values and corrected for all such pairs: dst is worse than narrow:values=int8: FD differs "
        "by +1"
    )
    assert not any("of this table" in one for one in verdicts(results, rows))  # said already
    close = [*rows[:2], row("dst", [4.0, 6.2, 5.1, 4.9, 5.0], 0.2, 0.25)]
    assert "dst and narrow cannot be told apart: FD differs by +0" in verdicts(results, close)[1]
    assert "Holm" not in verdicts(results, close)[1]  # its interval says so already
    # -0.3, -0.2, -0.3, 0.02 and -0.4 less narrow: p 0.0298, times the two differences of the column
    nearly = [
        *rows[:2],
        row("dst", [4.7, 5.0, 4.8, 4.92, 4.6], 0.2, 0.25),
        row("static", [4.9, 5.3, 5.1, 4.9, 5.0], 0.2, 0.25),
    ]
    assert ", 5 seeds, p 0.06 after Holm's correction; about" in verdicts(results, nearly)[1]
    assert verdicts(results, [row("dense", [1.0], None, None), row("dst", [2.0], 0.2, 0.25)]) == [
        "No verdict on dst against dense: 1 seed, and 5 are the fewest for one."
    ]
    assert "after Holm's correction." in narrow
    six = [rows[0], row("narrow", [5.0, 5.2, 5.1, 4.9, 5.0, 5.1], 1.0, 0.25), row("dst", [3.0] * 6, 0.2, 0.25)]
    five = tuple({seed: TableEntry(f"{one}-{seed}", "", "") for seed in range(5)} for one in ("dst", "narrow"))
    assert (
        "after Holm's correction and 1 earlier table."
        in verdicts(dataclasses.replace(results, earlier=(five,)), six)[1]
    )
