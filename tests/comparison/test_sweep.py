"""Widths chosen by a sweep: by the mean of runs that are not in the comparison, once, and said everywhere."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from gancompress.cli.main import app
from gancompress.comparison.choices import parse_held, parse_methods
from gancompress.comparison.equal_cost import make_plan
from gancompress.comparison.fitting import Candidate, Cost
from gancompress.comparison.grid import build_grid, check_widths
from gancompress.comparison.pilots import refitted
from gancompress.comparison.plan import Plan, PlannedRow, plan_path, read_plan, write_plan
from gancompress.comparison.sweep import at_first_sight, chosen, key_of, merged, sweep_seeds, undecided_part
from gancompress.errors import RecipeError, RunError
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.session import DIVERGED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gancompress.recipe.load import LoadedRecipe


def row(method: str, target: float | None, width: float | None = None, density: float = 0.2) -> PlannedRow:
    return PlannedRow(method, target, density, None, target or 1.0, 0.0, "fake", width=width)


def plan() -> Plan:
    rows = (
        row("dense", None), row("narrow", 0.5),
        row("dst", 0.5, 0.5), row("dst", 0.5, 1.0), row("dst", 0.5, 1.5), row("static", 0.5, 1.5),
        row("dst", 0.9, 0.5), row("dst", 0.9, 1.5),
    )  # fmt: skip
    return Plan("latency", 16, {}, rows, sweep=sweep_seeds(2))


def test_rows_of_several_widths_wait_and_a_lone_one_does_not() -> None:
    assert plan().undecided == [[2, 3, 4], [6, 7]]
    assert [one.width for one in undecided_part(plan()).rows] == [None, 0.5, 1.0, 1.5, 0.5, 1.5]
    assert [one.width for one in at_first_sight(plan()).rows] == [None, None, 1.0, 1.5, 1.5]
    assert not at_first_sight(plan()).undecided
    assert sweep_seeds(2) == (1000000, 1000001)


@pytest.mark.parametrize(("higher", "widths"), [(False, [1.5, 0.5]), (True, [0.5, 1.5])])
def test_the_best_mean_is_chosen_at_every_cost(higher: bool, widths: list[float]) -> None:
    values = {
        ("dst", 0.5, 0.5): (9.0, 8.0), ("dst", 0.5, 1.0): (1.0, 12.0), ("dst", 0.5, 1.5): (6.0, 6.0),
        ("dst", 0.9, 0.5): (2.0, 3.0), ("dst", 0.9, 1.5): (2.0, 9.0),
    }  # fmt: skip
    found = chosen(plan(), values, higher=higher)
    assert [(one.method, one.target) for one in found.rows] == [
        ("dense", None), ("narrow", 0.5), ("dst", 0.5), ("static", 0.5), ("dst", 0.9)
    ]  # fmt: skip
    assert [one.width for one in found.rows if one.tried] == widths
    assert {key_of(one): one.tried for one in found.swept} == values
    assert not found.undecided


def test_a_width_counts_with_all_its_runs_only() -> None:
    others = {("dst", 0.9, 0.5): (2.0, 3.0), ("dst", 0.9, 1.5): (2.0, 9.0)}
    values = {**others, ("dst", 0.5, 0.5): (9.0, 8.0), ("dst", 0.5, 1.0): (1.0,), ("dst", 0.5, 1.5): (1.0, math.nan)}
    found = chosen(plan(), values, higher=False)
    assert found.rows[2].width == 0.5
    assert [one.tried for one in found.swept[:3]] == [(9.0, 8.0), (), ()]
    with pytest.raises(RunError, match=r"^no width of dst can be chosen: at none of them all runs of the sweep ended"):
        chosen(plan(), others, higher=False)


def test_what_was_fitted_again_goes_back_to_its_place_and_what_dropped_out_stays_out() -> None:
    part = undecided_part(plan())
    again = [dataclasses.replace(one, density=0.7) for one in part.rows if one.width != 1.0]
    whole = merged(plan(), dataclasses.replace(part, rows=tuple(again), notes=("dst: too slow",)))
    assert [(one.width, one.density) for one in whole.rows] == [
        (None, 0.2), (None, 0.2), (0.5, 0.7), (1.5, 0.7), (1.5, 0.2), (0.5, 0.7), (1.5, 0.7),
    ]  # fmt: skip
    assert whole.notes == ("dst: too slow",)


def test_a_plan_is_kept_with_what_was_tried(tmp_path: Path) -> None:
    values = {key_of(plan().rows[at]): (float(at), 1.0) for several in plan().undecided for at in several}
    found = dataclasses.replace(chosen(plan(), values, higher=False), cost="bytes", machine=plan_machine())
    path = tmp_path / "plan.json"
    write_plan(path, found)
    assert read_plan(path) == found
    content = json.loads(path.read_text())
    content["swept"][0]["tried"][0] = "good"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="impossible values of dst"):
        read_plan(path)


def plan_machine() -> dict[str, str]:
    from gancompress.comparison.plan import this_machine

    return this_machine()


def test_widths_make_a_plan_of_their_own(tmp_path: Path, tiny: Callable[..., LoadedRecipe]) -> None:
    choices, held = parse_methods("static"), parse_held("latency")
    paths = {
        plan_path(tmp_path, tiny().recipe, choices, (), one, 16, widths=widths, sweep=sweep)
        for one, widths, sweep in (
            (held, (), 2),
            (held, (0.5, 1.0), 2),
            (held, (0.5, 1.5), 2),
            (held, (0.5, 1.0), 3),
            (parse_held("latency,flops"), (0.5, 1.0), 2),
        )
    }
    assert len(paths) == 5


@pytest.mark.parametrize(
    ("methods", "held", "message"),
    [
        ("dst", "steps", "widths: the best is chosen among generators of the same cost; add --budget latency"),
        ("narrow", "latency", "widths: none of the methods has masks"),
        ("dst:width=2", "latency", "dst:width=2 says its width already"),
    ],
)
def test_widths_that_nothing_is_chosen_among(methods: str, held: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_widths(parse_methods(methods), (0.5, 1.0), parse_held(held))
    check_widths(parse_methods(methods), (), parse_held(held))


def test_one_width_is_no_choice() -> None:
    with pytest.raises(
        RecipeError, match=r"^widths: give two or more to choose among, or name one as a method: dst:wid"
    ):
        check_widths(parse_methods("dst"), (0.5,), parse_held("latency"))


class Machine:
    """A drawn mask takes 10 ms times its density, a learned one of the wide network ten times as long."""

    def __call__(self, several: Sequence[Candidate | Path]) -> list[Cost]:
        return [Cost(self.milliseconds(one), 0.01, "fake") for one in several]

    def milliseconds(self, one: Candidate | Path) -> float:
        if not isinstance(one, Candidate):
            return 20.0 if "1.5" in one.name else 2.0
        density = one.recipe.sparsity.generator.density
        if one.recipe.sparsity.method.name == "narrow":
            return getattr(one.recipe.model, "channels") / 10  # noqa: B009
        if density is None:
            return 1.0
        wide = getattr(one.recipe.model, "channels") > 16  # noqa: B009
        return 1.9 + 0.1 * density if wide else 10 * density


def test_a_width_that_no_density_gives_the_cost_drops_out_with_a_word(tiny: Callable[..., LoadedRecipe]) -> None:
    base, image = tiny(), build_dataset(tiny().recipe).spec
    choices, said = parse_methods("static"), list[str]()
    plan = make_plan(
        base, choices, (), parse_held("latency=1"), image, Machine(), widths=(0.5, 1.0, 1.5), sweep=(1000,),
        say=said.append,
    )  # fmt: skip
    assert [one.width for one in plan.rows] == [None, None, 0.5, 1.0]
    assert plan.notes == ("static:width=1.5: no density costs 1 ms; the nearest, density 0.0005, costs 1.9 ms",)
    assert plan.notes[0] in said
    with pytest.raises(RecipeError, match=r"^static:width=1.6: no density costs 1 ms"):
        make_plan(base, choices, (), parse_held("latency=1"), image, Machine(), widths=(1.5, 1.6), sweep=(1000,))


def test_what_is_wrong_at_every_width_is_said_once(tiny: Callable[..., LoadedRecipe]) -> None:
    base, image = tiny(), build_dataset(tiny().recipe).spec

    def planned(methods: str, widths: tuple[float, ...]) -> None:
        choices, held = parse_methods(methods), parse_held("latency=1")
        make_plan(base, choices, (), held, image, Machine(), widths=widths, sweep=(1000,), narrow=False)

    with pytest.raises(RecipeError, match=r"^static:growht=1: .*unknown key"):
        planned("static:growht=1", (0.5, 1.0))
    with pytest.raises(RecipeError, match=r"^widths: 1 and 1\.01 are both 16 channels"):
        planned("static", (0.5, 1.0, 1.01))


def test_a_width_that_is_too_slow_once_trained_drops_out_too(tmp_path: Path, tiny: Callable[..., LoadedRecipe]) -> None:
    base, image = tiny(), build_dataset(tiny().recipe).spec
    held, choices = parse_held("latency=2"), parse_methods("dense,dst:scope=global")
    plan = make_plan(base, choices, (), held, image, Machine(), widths=(1.0, 1.5), sweep=(1000,), narrow=False)
    assert plan.undecided == [[1, 2]]
    files = {1: tmp_path / "1.safetensors", 2: tmp_path / "1.5.safetensors"}
    found = refitted(base, choices, held, image, Machine(), plan, files)
    assert [(one.method, one.width, one.learned) for one in found.rows] == [
        ("dense", None, False), ("dst:scope=global", 1.0, True)
    ]  # fmt: skip
    assert found.notes[0].startswith("dst:scope=global:width=1.5: no density costs 2 ms; the nearest")
    alone = dataclasses.replace(plan, rows=(plan.rows[0], plan.rows[2]))
    with pytest.raises(RecipeError, match=r"^dst:scope=global:width=1.5: no density costs 2 ms"):
        refitted(base, choices, held, image, Machine(), alone, {1: files[2]})


def test_seeds_that_widths_are_chosen_with_are_none_of_the_comparison(tiny: Callable[..., LoadedRecipe]) -> None:
    base, choices, held = tiny(), parse_methods("static"), parse_held("latency=1")
    image = build_dataset(base.recipe).spec
    plan = make_plan(base, choices, (), held, image, Machine(), widths=(0.5, 1.0), sweep=(1000000, 1000001))
    for seeds in ((0, 1000001), (1000000, 1000001)):
        with pytest.raises(RecipeError, match=r"seeds: 100000[01] is one that widths are chosen with; ask for others"):
            build_grid(base, choices, (), seeds, held, plan=plan)
    grid = build_grid(base, choices, (), plan.sweep, held, plan=plan, sweeping=True)
    assert len({cell.directory for cell in grid.cells}) == 2 * 4
    assert [one.width for one in grid.rows] == [1, 1, 0.5, 1]


def test_a_sweep_whose_runs_died_chooses_nothing_until_they_ended(
    tiny: Callable[..., LoadedRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gancompress
    from gancompress.experiment.run import Experiment

    train = Experiment._run
    trained: list[str] = []
    reason = ["out of memory"]

    def run(self: Experiment, *rest: Any) -> None:
        trained.append(self.recipe.name)
        if "width-0.75" in self.recipe.name and "s1000001" in self.recipe.name:
            raise RunError(reason[0])
        train(self, *rest)

    monkeypatch.setattr(Experiment, "_run", run)

    def compare() -> Any:
        trained.clear()
        return gancompress.compare(
            tiny("training.steps=4"), "static", budget="bytes=16k", widths=(0.75, 1.0), jobs=0, out=tmp_path,
            player=False, progress=False,
        )  # fmt: skip

    with pytest.raises(RunError, match=r"runs of the sweep did not end, .*s1000001 failed: .*memory.*tries them"):
        compare()
    assert len(trained) == 4
    (path,) = (tmp_path / "plans").glob("*.json")
    assert not json.loads(path.read_text())["swept"]
    reason[0] = f"loss_d is nan at step 3: {DIVERGED}; a lower learning rate"
    compare()  # that one ended so, and its width is not chosen
    assert sum("s100000" in name for name in trained) == 1  # the others are there
    plan = json.loads(path.read_text())
    assert [(one["width"], len(one["tried"])) for one in plan["swept"]] == [(0.75, 0), (1.0, 2)]
    assert plan["rows"][-1]["width"] == 1
    assert plan["sweep_runs"] == 4
    assert plan["sweep_flops"] > 0


def test_a_sweep_chooses_before_the_comparison_and_its_page_says_so(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [
        "compare", str(tiny_file), "--methods", "static:values=bf16", "--set", "training.steps=4",
        "--budget", "bytes=16k", "--widths", "0.75,1,8", "--sweep", "1", "--jobs", "2", "--no-player",
    ]  # fmt: skip
    dry = CliRunner().invoke(app, [*asked, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "2 runs of other seeds (1000000) first, to choose the width of static:values=bf16" in dry.output
    assert "3 runs in compare/tiny-" in dry.output
    assert "as if the widths nearest to the recipe's were chosen" in dry.output
    assert "note: static:values=bf16:width=8: no density costs 16,000 bytes; the nearest, density" in dry.output
    assert not (tmp_path / "compare" / "runs").exists()

    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "choosing the width of static:values=bf16 by runs of other seeds than the comparison's" in result.output
    runs = [path.name for path in (tmp_path / "compare" / "runs").iterdir()]
    assert sum("-s1000000-" in name for name in runs) == 2
    assert len(runs) == 2 + 3
    plan = json.loads(next((tmp_path / "compare" / "plans").glob("*.json")).read_text())
    tried = {one["width"]: one["tried"][0] for one in plan["swept"]}
    assert [one["width"] for one in plan["rows"]] == [None, None, min(tried, key=lambda one: tried[one])]
    (page,) = (tmp_path / "compare").glob("tiny-*/compare.html")
    assert "Widths tried" in page.read_text()
    said = "The width of static:values=bf16 was chosen before the comparison, by 2 runs of seeds that are not in it"
    assert f"{said} (1000000); about" in page.read_text()
    table = json.loads((page.parent / "compare.json").read_text())["tables"][0]
    assert table["rows"][-1]["width"] == plan["rows"][-1]["width"]

    again = CliRunner().invoke(app, [*asked, "--seeds", "2"])  # chosen once, whatever the seeds
    assert again.exit_code == 0, again.output
    assert "choosing the width" not in again.output
    assert sum("-s1000000-" in path.name for path in (tmp_path / "compare" / "runs").iterdir()) == 2
    dry = CliRunner().invoke(app, [*asked, "--seeds", "2", "--dry-run"])
    assert "widths tried, before the comparison:" in dry.output
    clash = CliRunner().invoke(app, [*asked, "--seeds", "0,1000000"])
    assert clash.exit_code == 2
    assert "seeds: 1000000 is one that widths are chosen with" in clash.output
