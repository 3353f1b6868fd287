"""``gancompress compare`` as it is typed."""

from __future__ import annotations

import csv
import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from gancompress.cli import compare as command
from gancompress.cli.main import app
from gancompress.comparison.exported import read_noise

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare", *arguments])


def test_a_dry_run_shows_the_grid_and_writes_nothing(tiny_file: Path, here: Path) -> None:
    result = call("--recipe", str(tiny_file), "--methods", "static,imp:rate=0.5", "--seeds", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("8 runs in compare/tiny-")
    assert "Held equal: 12 training steps" in lines[1]
    assert [line.split()[0] for line in lines[3:7]] == ["dense", "narrow", "static", "imp:rate=0.5"]
    assert lines[6].split()[4] == "3"  # rounds
    assert lines[6].endswith("estimate")
    assert re.search(r"time: at most about [\d.]+ (s|ms|min) .*with \d at once", result.output)
    assert not (here / "compare").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "dts"), "unknown method 'dts'; did you mean 'dst'?"),
        (("--density", "1.5"), "must be in (0, 1], got 1.5"),
        (("--budget", "steps=9"), "set training.steps=9"),
        (("--methods", "dst:multiplier=2"), "but the budget of steps gives every method 12"),
        (("--recipe", "other"), "two recipes were given"),
        (("--cluster", "timeout_min=5"), "--executor is local"),
        (("--seeds", "none"), "seeds: expected how many"),
        (("--seeds", "1", "--until", "0.1"), "one seed has no interval, and a verdict needs five"),
        (
            ("--density", "0.0001", "--set", "sparsity.generator.allocation=uniform", "--methods", "static"),
            "leaves the generator without a weight in input.linear.weight, output.weight",
        ),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(
    tiny_file: Path, here: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = call(str(tiny_file), "--no-narrow", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (here / "compare").exists()


def test_a_comparison_from_end_to_end(tiny_file: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gancompress.comparison.runner import InThisProcess

    monkeypatch.setattr(command, "_runner", lambda *_: InThisProcess())
    arguments = (str(tiny_file), "--methods", "dst,magnitude", "--set", "training.steps=4", "--no-narrow")
    first = call(*arguments, "--noise", "3")
    assert first.exit_code == 0, first.output
    assert "One seed: an anecdote" in first.stdout
    assert "magnitude" in first.stdout
    assert re.search(r"Evaluation noise: FD\S+ of one run of dst varies by ± [\d.]+ over 3 seeds", first.stdout)
    (folder,) = (path for path in (here / "compare").iterdir() if path.name != "runs")
    noise = read_noise(folder)
    assert noise is not None
    assert (noise.method, noise.against, len(noise.values), len(noise.classifiers)) == ("dst", "dense", 3, 3)
    assert noise.classifiers[0][0] == noise.values[0]  # the first of each kind is what the run was measured with
    assert len({own for own, _ in noise.classifiers}) == 3
    assert re.search(
        r"Classifier noise: under 3 classifiers .* is at [\d.]+ ± [\d.]+, and [+-][\d.e+]+ ± [\d.e+]+ from .* dense",
        first.stdout,
    )
    files = {path.name for path in folder.iterdir()}
    assert {"comparison.json", "compare.json", "compare.csv", "cells.csv", "compare.html", "cells"} <= files
    again = call(*arguments)
    assert "(3 done)" in again.stderr
    assert "s0: done in" not in again.stderr
    more = call(*arguments, "--methods", "static,dst")  # another grid: what both ask for is not trained twice
    assert "(2 done)" in more.stderr
    assert "static-d0.25-s0: done in" in more.stderr
    assert len(list((here / "compare").iterdir())) == 3


def test_equal_bytes_from_end_to_end(tiny_file: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gancompress.comparison.runner import InThisProcess

    monkeypatch.setattr(command, "_runner", lambda *_: InThisProcess())
    arguments = (
        str(tiny_file), "--methods", "static", "--set", "training.steps=4", "--budget", "bytes", "--values",
        "float32,int8", "--density", "0.1",
    )  # fmt: skip
    planned = call(*arguments, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "static at density 0.1" in planned.stderr
    assert [line.split()[0] for line in planned.stdout.splitlines()[3:9]] == [
        "dense", "dense:values=int8", "narrow", "narrow:values=int8", "static", "static:values=int8",
    ]  # fmt: skip
    first = call(*arguments)
    assert first.exit_code == 0, first.output
    assert "static at density 0.1" not in first.stderr  # measured by the dry run
    assert "evaluating dense-s0 with the values int8" in first.stderr
    assert "files of" in first.stdout
    (folder,) = (path for path in (here / "compare").iterdir() if path.name not in ("runs", "plans"))
    found = json.loads((folder / "compare.json").read_text())
    (table,) = found["tables"]
    rows = {row["method"]: row for row in table["rows"]}
    assert rows["dense"]["last"] != rows["dense:values=int8"]["last"]
    target = rows["static"]["target"]
    for name, row in rows.items():
        if not name.startswith("dense"):
            assert row["shipped"]["bytes"] == pytest.approx(target, rel=0.12), name
    assert rows["static:values=int8"]["densities"]["generator"]["mean"] > 0.15
    assert {one["target"] for one in table["differences"]} == {target}
    runs = {path: path.stat().st_mtime_ns for path in (here / "compare").glob("runs/*/evaluations/*int8.json")}
    assert len(runs) == 3
    again = call(*arguments)
    assert "(5 done)" in again.stderr
    assert "evaluating" not in again.stderr
    assert "timing" not in again.stderr
    assert runs == {path: path.stat().st_mtime_ns for path in runs}


def test_a_smoke_comparison_is_marked_wherever_its_numbers_stand(
    tiny_file: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancompress.comparison.runner import InThisProcess

    monkeypatch.setattr(command, "_runner", lambda *_: InThisProcess())
    arguments = (str(tiny_file), "--methods", "dst:every=500", "--set", "training.steps=900", "--no-narrow", "--smoke")
    planned = call(*arguments, "--dry-run")
    assert "(smoke runs: their numbers will mean nothing)" in planned.stdout.splitlines()[0]
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    assert "tiny-smoke (smoke runs: the numbers mean nothing)" in result.stdout
    (folder,) = (path for path in (here / "compare").iterdir() if path.name != "runs")
    assert folder.name.startswith("tiny-smoke-")
    assert all("-smoke-" in path.name for path in (here / "compare" / "runs").iterdir())
    for name in ("compare.csv", "cells.csv"):
        with (folder / name).open() as file:
            assert {line["smoke"] for line in csv.DictReader(file)} == {"True"}
    for name in ("compare.json", "comparison.json"):
        assert json.loads((folder / name).read_text())["smoke"] is True
    assert "These are smoke runs" in (folder / "compare.html").read_text()
    updates = [row["expected"]["updates"] for row in json.loads((folder / "comparison.json").read_text())["rows"]]
    assert updates == [0, 4]  # every 3 of 12 steps


def test_seeds_are_added_by_the_command(tiny_file: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gancompress.api import comparisons
    from gancompress.comparison.seeds import AutoSeeds

    counts: list[int] = []

    def following(self: AutoSeeds, results: Any) -> int | None:
        counts.append(len(results.grid.seeds))
        return 6 if len(counts) == 1 else None

    class Finished:
        report = "the page"

        def __init__(self, planned: Any) -> None:
            self.results = SimpleNamespace(grid=planned.grid, tables={}, missing=[])

    finished: list[int] = []

    def finish(planned: Any, *_: Any) -> Finished:
        finished.append(len(planned.grid.seeds))
        return Finished(planned)

    monkeypatch.setattr(AutoSeeds, "following", following)
    monkeypatch.setattr(comparisons, "_run_cells", lambda *_: [])
    monkeypatch.setattr(comparisons, "_finish", finish)
    result = call(str(tiny_file), "--methods", "static", "--no-narrow", "--seeds", "auto:8")
    assert result.exit_code == 0, result.output
    assert counts == [5, 6]
    assert finished == [6]  # a table of five would be a look
    assert "comparing 12 runs" in result.stderr


def test_tables_of_fewer_seeds_count_and_those_on_the_way_are_not_written(tiny_file: Path, here: Path) -> None:
    import gancompress

    def compare(seeds: int | str, until: float | None = None) -> Any:
        return gancompress.compare(
            tiny_file, methods=["static"], seeds=seeds, until=until, narrow=False, jobs=0, progress=False, player=False,
            overrides=["training.steps=3", "evaluation.every=3", "evaluation.metrics=[fd]"],
        )  # fmt: skip

    added = compare("auto:6", 1e-6)
    assert len(added.results.grid.seeds) == 6
    (page,) = here.glob("compare/*/compare.html")
    assert "each earlier table doubles p" not in page.read_text()
    (one,) = json.loads((added.directory / "compare.json").read_text())["tables"][0]["differences"]
    assert (one["interim"], one["corrected"]) == ([], one["p"])

    (added.directory / "compare.json").unlink()
    compare(5)
    again = compare(6)
    (one,) = json.loads((again.directory / "compare.json").read_text())["tables"][0]["differences"]
    assert (one["interim"], one["corrected"]) == ([5], min(1.0, 2 * one["p"]))
    first = compare(5)  # its table was shown before the other
    (one,) = json.loads((first.directory / "compare.json").read_text())["tables"][0]["differences"]
    assert (one["interim"], one["corrected"]) == ([], one["p"])
    assert (
        "Shown before with 5 seeds, and each earlier table doubles p." in (again.directory / "compare.html").read_text()
    )


@pytest.mark.slow
def test_the_default_comparison(here: Path) -> None:
    result = call("--methods", "dst,imp")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("method"))
    assert [line.split()[0] for line in lines[head + 1 : head + 5]] == ["dense", "narrow", "dst", "imp"]
