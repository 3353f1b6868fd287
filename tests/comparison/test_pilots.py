"""Densities corrected by runs, where what a generator costs is learned."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from gancompress.cli.main import app
from gancompress.comparison.choices import HeldEqual, parse_held, parse_methods
from gancompress.comparison.equal_cost import make_plan
from gancompress.comparison.fitting import Candidate, Cost
from gancompress.comparison.grid import Grid, build_grid, split
from gancompress.comparison.pilots import PILOTS, Trained, refitted, settled, unsettled
from gancompress.comparison.shipped import Scales
from gancompress.errors import RecipeError
from gancompress.experiment.assemble import build_dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gancompress.comparison.grid import Row
    from gancompress.comparison.plan import Plan
    from gancompress.recipe.load import LoadedRecipe

METHODS = "static,dst:scope=global"


def plan_of(grid: Grid) -> Plan:
    assert grid.plan is not None
    return grid.plan


class Machine:
    """A network takes 1 ms and a drawn mask 10 ms times its density; a learned one ``slower`` times as long.

    ``now`` is how many times as long everything takes.
    """

    def __init__(self, base: LoadedRecipe, slower: float, now: float = 1.0) -> None:
        self.base, self.slower, self.now = base, slower, now
        self.trained: dict[Path, float] = {}

    def __call__(self, several: Sequence[Candidate | Path]) -> list[Cost]:
        return [Cost(self.now * self.milliseconds(one), 0.01, "fake") for one in several]

    def milliseconds(self, one: Candidate | Path) -> float:
        if isinstance(one, Path):
            return self.slower * self.trained[one]
        if one.recipe.sparsity.method.name == "narrow":
            return getattr(one.recipe.model, "channels") / 10  # noqa: B009
        density = one.recipe.sparsity.generator.density
        return 1.0 if density is None else 10 * density

    def train(self, waiting: Mapping[int, Row]) -> Trained:
        files = {}
        for index, row in waiting.items():
            assert row.density is not None
            files[index] = Path(f"{row.cells[0].directory}.safetensors")
            self.trained[files[index]] = 10 * row.density
        return files


class Request:
    """A comparison of the same time, on a machine."""

    def __init__(self, base: LoadedRecipe, machine: Machine, held: HeldEqual, methods: str = METHODS) -> None:
        self.base, self.machine, self.held = base, machine, held
        self.image, self.choices = build_dataset(base.recipe).spec, parse_methods(methods)
        self.rounds: list[list[str]] = []
        self.said: list[str] = []

    def grid(self, plan: Plan) -> Grid:
        return build_grid(self.base, self.choices, (), (0,), self.held, plan=plan)

    def train(self, grid: Grid, waiting: Mapping[int, Row]) -> Trained:
        self.rounds.append([row.choice.label for row in waiting.values()])
        return self.machine.train(waiting)

    def refit(self, plan: Plan, trained: Trained, last: bool) -> Plan:
        dense, others = split(self.choices, narrow=True)
        return refitted(
            self.base, [*dense, *others], self.held, self.image, self.machine, plan, trained, last=last,
            say=self.said.append,
        )  # fmt: skip

    def plan(self) -> Plan:
        return make_plan(self.base, self.choices, (), self.held, self.image, self.machine)

    def settle(self, plan: Plan) -> Plan:
        return plan_of(settled(plan, self.grid, self.train, self.refit))


def test_a_row_is_made_sparser_until_its_trained_generator_is_as_fast_as_asked(
    tiny: Callable[..., LoadedRecipe],
) -> None:
    base = tiny()
    request = Request(base, Machine(base, slower=2.0), parse_held("latency=2"))
    first = request.plan()
    assert [row.choice.label for row in unsettled(request.grid(first)).values()] == ["dst:scope=global"]
    request.machine.now = 3.0  # busier than it was: the other rows were fitted before, and stay
    plan = request.settle(first)
    dense, narrow, static, learned = plan.rows
    assert request.rounds == [["dst:scope=global"], ["dst:scope=global"]]
    assert (dense, narrow, static) == first.rows[:3]
    assert learned.density == pytest.approx(0.1, rel=0.05)
    assert learned.amount == pytest.approx(2.0, rel=0.05)
    assert (static.learned, learned.learned) == (False, True)
    assert not unsettled(request.grid(plan))
    assert request.said[0] == "dst:scope=global as trained: 4 ms, 2 ms asked"


def test_a_row_that_is_as_fast_as_asked_is_left(tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny()
    request = Request(base, Machine(base, slower=1.08), parse_held("latency=2"))
    first = request.plan()
    plan = request.settle(first)
    assert len(request.rounds) == 1
    assert plan.rows[3].density == first.rows[3].density
    assert plan.rows[3].amount == pytest.approx(1.08 * first.rows[3].amount)


def test_the_first_method_sets_the_time_with_its_trained_generator(tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny()
    request = Request(base, Machine(base, slower=1.5), HeldEqual(cost="latency"), "dst:scope=global,static")
    plan = request.settle(request.plan())
    _, narrow, learned, static = plan.rows
    assert len(request.rounds) == 1
    assert (learned.density, learned.learned) == (0.25, True)
    assert learned.target == static.target == narrow.target == pytest.approx(3.75)
    assert static.density == pytest.approx(0.375, rel=0.05)
    assert narrow.channels == pytest.approx(37, abs=2)


def test_runs_are_given_up_after_some_and_the_row_stays_as_it_is(tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny()
    machine = Machine(base, slower=2.0)
    request = Request(base, machine, parse_held("latency=2"))
    first, slower = request.plan(), iter([2.0, 4.0, 8.0])

    def train(grid: Grid, waiting: Mapping[int, Row]) -> Trained:
        machine.slower = next(slower)
        return request.train(grid, waiting)

    plan = plan_of(settled(first, request.grid, train, request.refit))
    assert len(request.rounds) == PILOTS == 3
    assert plan.rows[3].learned
    assert plan.rows[3].amount == pytest.approx(8 * 10 * (plan.rows[3].density or 0))


def test_a_learned_row_whose_target_moved_is_fitted_as_learned(tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny()
    request = Request(base, Machine(base, slower=2.0), parse_held("latency=2"))
    first = request.plan()
    learned = dataclasses.replace(first.rows[3], density=0.15, drawn=1.5, amount=3.0, learned=True)
    plan = request.refit(dataclasses.replace(first, rows=(*first.rows[:3], learned)), {}, last=False)
    assert plan.rows[3].density == pytest.approx(0.1, rel=0.05)  # of which learned masks take 2 ms
    assert plan.rows[3].drawn == pytest.approx(1.0, rel=0.05)
    assert not plan.rows[3].learned
    forced = dataclasses.replace(first, rows=(*first.rows[:3], learned), forced=True)
    assert request.refit(forced, {}, last=False).rows[3] == learned  # a half off is what was forced


def test_no_density_is_fast_enough_once_trained(tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny()
    request = Request(base, Machine(base, slower=50.0), parse_held("latency=0.3"), "dst:scope=global")
    with pytest.raises(RecipeError, match=r"^dst:scope=global: no density costs 0.3 ms; the nearest, density .* costs"):
        request.settle(request.plan())


def test_a_run_that_fails_leaves_the_plan_as_it_was(tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny()
    request = Request(base, Machine(base, slower=2.0), parse_held("latency=2"))
    first = request.plan()
    assert settled(first, request.grid, lambda *_: {}, request.refit).plan == first


def test_the_run_that_fits_is_the_first_of_its_row(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def scales(_: Scales, files: Sequence[Path]) -> list[Cost]:
        """As if masks that were learned took half as many bytes again."""
        return [Cost(path.stat().st_size * (1.5 if "runs" in path.parts else 1)) for path in files]

    monkeypatch.setattr(Scales, "__call__", scales)
    asked = [
        str(tiny_file), "--methods", "dst:scope=global", "--set", "training.steps=4",
        "--set", "sparsity.method.every=1", "--budget", "bytes=16k", "--jobs", "1", "--no-player",
    ]  # fmt: skip
    dry = CliRunner().invoke(app, ["compare", *asked, "--dry-run"])
    assert "dst:scope=global: measured with masks that are drawn; a run is trained first" in dry.output
    result = CliRunner().invoke(app, ["compare", *asked])
    assert result.exit_code == 0, result.output
    assert (
        "training a run of dst:scope=global: what it costs depends on which weights it learns to keep" in result.output
    )
    plan = json.loads(next((tmp_path / "compare" / "plans").glob("*.json")).read_text())
    (row,) = (row for row in plan["rows"] if row["method"] == "dst:scope=global")
    assert row["learned"]
    assert row["amount"] == pytest.approx(16_000, rel=0.1)
    runs = sorted(path.name for path in (tmp_path / "compare" / "runs").glob("dst*"))
    assert len(runs) == 2  # the one that was too large, and the first run of the row
    (page,) = (tmp_path / "compare").glob("tiny-*/compare.html")
    assert "of dst:scope=global after a run, whose masks decide" in page.read_text()
    again = CliRunner().invoke(app, ["compare", *asked])
    assert again.exit_code == 0
    assert "training a run" not in again.output
