"""Cells in processes of their own: what one does, the others do not feel."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gancompress.comparison import runner
from gancompress.comparison.choices import parse_methods
from gancompress.comparison.folder import ComparisonFolder
from gancompress.comparison.grid import Cell, Grid, build_grid
from gancompress.comparison.results import collect
from gancompress.comparison.runner import InThisProcess, LocalProcesses, Outcome, Submitted, run_missing
from gancompress.errors import RunError
from gancompress.experiment.interrupt import ENDS_WITH_STDIN
from gancompress.runs.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gancompress.recipe.load import LoadedRecipe


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.ends: list[tuple[str, str]] = []

    def started(self, cell: Cell) -> None:
        self.starts.append(cell.name)

    def ended(self, outcome: Outcome) -> None:
        self.ends.append((outcome.cell.name, outcome.state))

    def waiting(self, steps: Mapping[str, int]) -> None:
        assert all(step >= 0 for step in steps.values())


@pytest.fixture
def grid(tiny: Callable[..., LoadedRecipe]) -> Grid:
    base = tiny("training.steps=3", "evaluation.every=0", "evaluation.metrics=[fd]")
    return build_grid(base, parse_methods("static"), narrow=False)


def opened(grid: Grid, root: Path) -> ComparisonFolder:
    folder = ComparisonFolder.of(root, grid)
    folder.open(grid)
    return folder


def test_one_failing_cell_keeps_no_other_and_is_finished_later(grid: Grid, tmp_path: Path) -> None:
    folder, notes = opened(grid, tmp_path), Notes()
    dense, static = grid.cells
    good = folder.recipe_path(dense).read_text()
    folder.recipe_path(dense).write_text("name: [")
    outcomes = run_missing(folder, grid.cells, LocalProcesses(2, threads=1), notes)
    assert dict(notes.ends) == {dense.name: "failed", static.name: "done"}
    failed = next(outcome for outcome in outcomes if outcome.state == "failed")
    assert f"{dense.name}.yaml" in failed.reason
    assert [cell.done for cell in collect(grid, folder).cells] == [False, True]

    folder.recipe_path(dense).write_text(good)
    again = Notes()
    assert [outcome.state for outcome in run_missing(folder, grid.cells, InThisProcess(), again)] == ["done"]
    assert again.starts == [dense.name]
    assert run_missing(folder, grid.cells, InThisProcess(), again) == []
    assert all(cell.done for cell in collect(grid, folder).cells)


def test_a_cell_is_an_ordinary_recipe_and_an_ordinary_run(grid: Grid, tmp_path: Path) -> None:
    from gancompress.experiment.finished import open_run
    from gancompress.recipe.load import load_recipe

    folder = opened(grid, tmp_path)
    run_missing(folder, grid.cells[:1], InThisProcess(), Notes())
    loaded = load_recipe(folder.recipe_path(grid.cells[0]))
    assert loaded.recipe == grid.cells[0].recipe
    assert open_run(folder.run_path(grid.cells[0])).step() == 3
    record = json.loads((folder.path / "comparison.json").read_text())
    assert record["rows"][0]["cells"][0]["run"] == grid.cells[0].directory
    assert record["budget"]["held_equal"] == "steps"


def test_a_failing_cell_in_this_process_keeps_no_other(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancompress.experiment.run import Experiment

    run = Experiment.run

    def fails(self: Experiment) -> Any:
        if self.recipe.name.startswith("dense"):
            raise RunError("no luck")
        return run(self)

    monkeypatch.setattr(Experiment, "run", fails)
    notes = Notes()
    run_missing(opened(grid, tmp_path), grid.cells, InThisProcess(), notes)
    assert [state for _, state in notes.ends] == ["failed", "done"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("print('first'); print('its own words'); sys.exit(1)", "its own words"),
        ("run.status('failed', 'RunError: no luck'); print('noise'); sys.exit(1)", "RunError: no luck"),
    ],
)
def test_the_reason_of_a_failure_is_its_own_and_not_what_others_left(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    folder, cell = opened(grid, tmp_path), grid.cells[0]
    folder.log_path(cell).write_text("the last words of a stranger")
    strangers = RunDirectory.open(folder.runs, cell.recipe)
    strangers.status("failed", "RunError: the reason of a stranger")
    opening = "import sys, pathlib\nfrom gancompress.runs.directory import RunDirectory\n"
    opening += f"run = RunDirectory(pathlib.Path({str(strangers.path)!r}))\n"
    monkeypatch.setattr(runner, "cell_command", lambda *_: [sys.executable, "-c", opening + program])
    (outcome,) = run_missing(folder, [cell], LocalProcesses(1, threads=1), Notes())
    assert (outcome.state, outcome.reason) == ("failed", reason)


def test_a_cell_has_what_tells_it_that_the_comparison_is_gone(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import os, stat, sys; sys.exit(not (sys.argv[1] in os.environ and stat.S_ISFIFO(os.fstat(0).st_mode)))"
    monkeypatch.setattr(runner, "cell_command", lambda *_: [sys.executable, "-c", program, ENDS_WITH_STDIN])
    (outcome,) = run_missing(opened(grid, tmp_path), grid.cells[:1], LocalProcesses(1, threads=1), Notes())
    assert outcome.state == "done"
    assert ENDS_WITH_STDIN not in runner.cell_environment(1)  # a job of a cluster outlives whoever submitted it


def test_a_run_that_another_process_has_is_named(grid: Grid, tmp_path: Path) -> None:
    from gancompress.progress import ComparisonProgress, Lines

    folder, (cell, free) = opened(grid, tmp_path), grid.cells
    said: list[str] = []
    shown = Lines()
    shown.say = said.append  # type: ignore[method-assign]
    progress = ComparisonProgress(grid, folder, shown)
    run = RunDirectory.open(folder.runs, cell.recipe)
    with run.lock():
        run.status("running")
        progress.started(cell)
        progress.started(free)
    assert [line for line in said if "waiting" in line] == [
        f"{cell.name}: process {os.getpid()} on {socket.gethostname()} runs it: waiting for it to end"
    ]


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
@pytest.mark.parametrize(
    "how", ["SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGHUP", "SIGKILL"))]
)
def test_however_a_comparison_ends_its_cells_write_their_checkpoints(tiny_file: Path, tmp_path: Path, how: str) -> None:
    arguments = ["compare", str(tiny_file), "--methods", "static", "--no-narrow", "--jobs", "1", "--out", "cmp"]
    settings = ["--set", "training.steps=100000", "--set", "evaluation.every=0", "--set", "training.log_every=1"]
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "gancompress", *arguments, *settings],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        while not list(tmp_path.glob("cmp/runs/dense-s0-*/log.jsonl")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
                break
        process.send_signal(getattr(signal, how))
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    if how == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, out
        assert "the same command finishes what is missing" in out
    (run,) = tmp_path.glob("cmp/runs/*")
    with RunDirectory(run).lock(lambda holder: None):
        pass  # whoever has it ends by itself
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    assert list((run / "checkpoints").iterdir())


def test_a_cluster_runs_cells_through_submitit(grid: Grid, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra 'slurm' is not installed")
    folder, notes = opened(grid, tmp_path), Notes()
    folder.recipe_path(grid.cells[1]).write_text("name: [")
    outcomes = {outcome.cell.name: outcome for outcome in run_missing(folder, grid.cells, Submitted("local"), notes)}
    good, bad = (outcomes[cell.name] for cell in grid.cells)
    assert (good.state, good.reason) == ("done", "")
    assert bad.state == "failed"
    assert f"{grid.cells[1].name}.yaml" in bad.reason


def test_without_submitit_a_cluster_says_what_to_install(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(RunError, match=r"gancompress\[slurm\]"):
        run_missing(opened(grid, tmp_path), grid.cells, Submitted("slurm"), Notes())


def test_no_process_of_a_comparison_imports_from_the_working_directory(grid: Grid, tmp_path: Path) -> None:
    folder = opened(grid, tmp_path)
    assert runner.cell_command(folder, grid.cells[0])[1:4] == ["-P", "-m", "gancompress"]
    assert runner.cell_environment(1)["PYTHONSAFEPATH"] == "1"  # also for what that process starts
