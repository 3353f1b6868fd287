"""Generators that cost the same: fitted by a clock that is a pure function, kept, and found again."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest

from gancompress.comparison import plan as plans
from gancompress.comparison.choices import HeldEqual, parse_held, parse_methods
from gancompress.comparison.equal_cost import make_plan
from gancompress.comparison.fitting import Candidate, Cost, Knob, steer
from gancompress.comparison.grid import Grid, build_grid, multiplied
from gancompress.comparison.plan import Plan, PlannedRow, plan_path, read_plan, this_machine, write_plan
from gancompress.comparison.planning import Planning
from gancompress.comparison.recipes import CellRecipes
from gancompress.comparison.shipped import Scales, Untrained
from gancompress.errors import RecipeError, RunError
from gancompress.experiment.assemble import build_dataset
from gancompress.export.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gancompress.recipe.load import LoadedRecipe

LATENCY = HeldEqual(cost="latency")
#: how many times as fast each kind of values is
SPEEDS = {"float32": 1.0, "bf16": 1.0, "int8": 2.0}


class FakeClock:
    """0.1 ms, and what is kept of the squared width: sparse weights take twice as long as dense ones."""

    def __init__(self) -> None:
        self.calls: list[list[Candidate]] = []

    def __call__(self, candidates: Sequence[Candidate]) -> list[Cost]:
        self.calls.append([*candidates])
        return [Cost(self.milliseconds(one), 0.01, "fake") for one in candidates]

    def milliseconds(self, candidate: Candidate) -> float:
        recipe, values = candidate
        width = getattr(recipe.model, "channels")  # noqa: B009
        sparse = recipe.sparsity.method.name not in ("dense", "narrow")
        density = recipe.sparsity.generator.density if recipe.sparsity.generator.density is not None else 1.0
        if sparse and density < 0.01:
            raise RecipeError("leaves a layer none of its weights")
        work = width**2 * (2 * density if sparse else 1) / 256
        return 0.1 + work / SPEEDS[values]


def laid_out(
    base: LoadedRecipe, methods: str, held: HeldEqual = LATENCY, densities: Sequence[float] = (), **more: Any
) -> tuple[Grid, Plan]:
    dataset = build_dataset(base.recipe)
    choices = multiplied(parse_methods(methods), more.pop("values", ()))
    widths = more.pop("widths", ())
    plan = make_plan(base, choices, densities, held, dataset.spec, FakeClock(), widths=widths, **more)
    return build_grid(base, choices, densities, (0, 1), held, dataset=dataset, plan=plan, **more), plan


@pytest.mark.parametrize("guess", [1, 7, 40, 1000])
@pytest.mark.parametrize("power", [0.3, 1.0, 2.5])
def test_steering_finds_the_position_wherever_it_begins(guess: int, power: float) -> None:
    tried: list[int] = []

    def measure(position: int) -> Cost | None:
        tried.append(position)
        return Cost(0.2 + (position / 100) ** power) if position > 3 else None

    found = steer(0.2 + 0.5**power, guess, (1, 2000), measure)
    assert found is not None
    assert found.cost.amount == pytest.approx(0.2 + 0.5**power, rel=0.03)
    assert len(tried) == len(set(tried)) <= 18


@pytest.mark.parametrize("guess", [3, 17, 19, 24, 25, 40, 64])
@pytest.mark.parametrize("target", [3.0, 3.1, 3.2, 3.25])
def test_steering_takes_as_much_as_a_step_of_the_time_buys(guess: int, target: float) -> None:
    """Channels are computed by eights: 17 to 24 cost the same, and the largest is what the time buys."""
    tried: list[int] = []

    def measure(channels: int) -> Cost:
        tried.append(channels)
        return Cost(math.ceil(channels / 8), 0.01)

    found = steer(target, guess, (1, 128), measure)
    assert found is not None
    assert found.position == 24
    assert len(tried) == len(set(tried)) <= 22
    # what can be had exactly is not exceeded: files have no steps
    exact = steer(1000.0, guess, (1, 2000), lambda at: Cost(10.0 * at))
    assert exact is not None
    assert exact.position in (98, 99, 100)


@pytest.mark.parametrize("guess", [20, 33, 38, 41, 64])
def test_steering_tries_round_widths_that_take_less(guess: int) -> None:
    """What is left over of a block takes longer than a whole one."""
    measured = {channels: Cost(math.ceil(channels / 8) + 0.5 * (channels % 8 > 0), 0.01) for channels in range(1, 129)}
    found = steer(5.0, guess, (1, 128), measured.get, rounder=lambda at: [(at // 8 + 1) * 8])
    assert found is not None
    assert found.position == 40


def test_round_widths_are_whole_blocks_of_channels(tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny("model.channels=64")
    (narrow, static), seed = parse_methods("narrow,static"), 0
    recipes = CellRecipes(base, build_dataset(base.recipe).spec)
    assert Knob(recipes, narrow, seed).rounder(65) == [68, 72, 80]
    assert Knob(recipes, narrow, seed).rounder(72) == [76, 80, 88]
    assert Knob(recipes, narrow, seed).rounder(17) == [20]
    assert Knob(recipes, static, seed).rounder(65) == []


def test_steering_ends_at_the_nearest_there_is() -> None:
    costs = {1: 1.0, 2: 4.0, 3: 9.0, 4: 16.0}
    for target, nearest in ((0.2, 1), (6.0, 2), (7.0, 3), (100.0, 4)):
        found = steer(target, 2, (1, 4), lambda at: Cost(costs[at]))
        assert found is not None
        assert found.position == nearest
    assert steer(1.0, 2, (1, 4), lambda at: None) is None


def test_every_generator_takes_as_long_as_the_first_method(tiny: Callable[..., LoadedRecipe]) -> None:
    grid, _ = laid_out(tiny(), "dst,static", densities=(0.25, 0.4))
    clock = FakeClock()
    assert [(row.choice.label, row.group) for row in grid.rows] == [
        ("dense", None),
        ("narrow", pytest.approx(0.6)), ("dst", pytest.approx(0.6)), ("static", pytest.approx(0.6)),
        ("narrow", pytest.approx(0.9)), ("dst", pytest.approx(0.9)), ("static", pytest.approx(0.9)),
    ]  # fmt: skip
    for row in grid.rows[1:]:
        assert row.planned is not None
        recipe = row.cells[0].recipe
        assert clock.milliseconds(Candidate(recipe, "float32")) == pytest.approx(row.group, rel=0.1)
        assert (row.planned.spread, row.planned.runtime) == (0.01, "fake")
    narrow, dst = grid.rows[1], grid.rows[2]
    assert dst.density == 0.25
    assert getattr(narrow.cells[0].recipe.model, "channels") == narrow.planned.channels == 11  # noqa: B009 (sqrt 128)
    assert narrow.cells[0].name == "narrow-w11-s0"
    assert narrow.cells[0].recipe.sparsity.discriminator.density == 0.5
    assert narrow.price.parameters < grid.dense.parameters


def test_values_are_rows_of_the_same_time(tiny: Callable[..., LoadedRecipe]) -> None:
    grid, plan = laid_out(tiny(), "dst", densities=(0.25,), values=("float32", "int8"))
    by = {row.choice.label: row for row in grid.rows}
    assert [*by] == ["dense", "dense:values=int8", "narrow", "narrow:values=int8", "dst", "dst:values=int8"]
    assert by["dst:values=int8"].density == pytest.approx(0.5, rel=0.03)  # twice as fast, twice as dense
    assert by["narrow:values=int8"].planned.channels == 16  # type: ignore[union-attr]
    assert by["dense"].cells == tuple(dataclasses.replace(cell, row="dense") for cell in by["dense:values=int8"].cells)
    assert len(grid.cells) == 2 * 5  # the dense run is trained once and exported twice
    assert plan.rows[1].amount == pytest.approx(0.1 + 0.5)


def test_wider_is_sparser_at_the_same_time(tiny: Callable[..., LoadedRecipe]) -> None:
    grid, _ = laid_out(tiny(), "static", densities=(0.25,), widths=(1.0, 1.5))
    plain, wide = grid.rows[2:]
    assert [(row.choice.label, row.width) for row in (plain, wide)] == [("static", 1), ("static", 1.5)]
    assert wide.cells[0].name == "static-width-1.5-d0.11-s0"
    model = wide.cells[0].recipe.model.model_dump()
    assert (model["channels"], model["discriminator_channels"]) == (24, 16)
    assert wide.density == pytest.approx(0.25 / 1.5**2, rel=0.05)
    assert wide.group == plain.group
    assert "discriminator_channels" not in plain.cells[0].recipe.model.model_dump(exclude_defaults=True)


def test_training_is_held_equal_beside_it(tiny: Callable[..., LoadedRecipe]) -> None:
    grid, _ = laid_out(tiny("training.steps=60", "evaluation.every=20"), "static", parse_held("latency,flops"), (0.25,))
    assert grid.rows[0].price.steps == 60
    for row in grid.rows:
        assert row.price.training_flops == pytest.approx(grid.dense.training_flops, rel=0.04)


class SteppingClock(FakeClock):
    """Masks take as long as at the next quarter of all weights."""

    def milliseconds(self, candidate: Candidate) -> float:
        density = candidate.recipe.sparsity.generator.density
        if candidate.recipe.sparsity.method.name in ("dense", "narrow") or density is None:
            return super().milliseconds(candidate)
        return 0.1 + 0.5 * math.ceil(4 * density - 1e-9) / 4


def test_a_density_that_is_less_than_its_time_buys_is_noted(tiny: Callable[..., LoadedRecipe]) -> None:
    base, choices, clock = tiny(), parse_methods("static,dst"), SteppingClock()
    image = build_dataset(base.recipe).spec
    plan = make_plan(base, choices, (0.3,), LATENCY, image, clock)
    (note,) = plan.notes
    said = r"static: density 0\.(49|50?)\d* costs no more than the 0.3 that was asked for; --budget latency=0.35"
    assert re.match(said, note)
    static, dst = plan.rows[2:]
    assert static.density == 0.3
    assert dst.density == pytest.approx(0.5, rel=0.03)
    assert not make_plan(base, choices, (0.5,), LATENCY, image, clock).notes
    assert not make_plan(base, choices, (0.3,), HeldEqual(cost="bytes"), image, clock).notes


class DriftingClock(FakeClock):
    """A machine that is a seventh slower whenever it is asked again."""

    def __call__(self, candidates: Sequence[Candidate]) -> list[Cost]:
        slower = 1.15 ** len(self.calls)
        return [cost._replace(amount=cost.amount * slower) for cost in super().__call__(candidates)]


@pytest.mark.parametrize("held", ["latency", "latency=0.6"])
def test_a_machine_that_slows_down_makes_no_row_smaller(tiny: Callable[..., LoadedRecipe], held: str) -> None:
    base, choices = tiny(), parse_methods("dst,static")
    image, still = build_dataset(base.recipe).spec, FakeClock()
    plan = make_plan(base, choices, (0.25,), parse_held(held), image, DriftingClock(), force=True)
    recipes = CellRecipes(base, image)
    costs = [
        still.milliseconds(Candidate(recipes.of(choice, row.density, 0, channels=row.channels), "float32"))
        for choice, row in zip((*parse_methods("narrow"), *choices), plan.rows[1:], strict=True)
    ]
    assert costs == pytest.approx([costs[0]] * 3, rel=0.07)


class StubbornClock(FakeClock):
    """Beside others static takes 0.8 ms, however dense."""

    def __call__(self, candidates: Sequence[Candidate]) -> list[Cost]:
        return [
            cost._replace(amount=0.8) if len(candidates) > 2 and one.recipe.sparsity.method.name == "static" else cost
            for one, cost in zip(candidates, super().__call__(candidates), strict=True)
        ]


def test_what_stays_a_third_off_is_taken_by_force_alone(tiny: Callable[..., LoadedRecipe]) -> None:
    base, choices = tiny(), parse_methods("dst,static")
    image = build_dataset(base.recipe).spec
    with pytest.raises(
        RunError, match=r"static was to cost 0.6 ms, and costs 0.8 ms beside the others; .* or force it"
    ):
        make_plan(base, choices, (0.25,), LATENCY, image, StubbornClock())
    plan = make_plan(base, choices, (0.25,), LATENCY, image, StubbornClock(), force=True)
    assert (plan.rows[3].amount, plan.forced) == (0.8, True)


class CrowdedClock(FakeClock):
    """Beside others static takes so many times as long as alone."""

    def __init__(self, slower: float) -> None:
        super().__init__()
        self.slower = slower

    def __call__(self, candidates: Sequence[Candidate]) -> list[Cost]:
        crowded = len(candidates) > 2  # more than what is fitted and what it is held against
        return [
            cost._replace(amount=cost.amount * self.slower)
            if crowded and one.recipe.sparsity.method.name == "static"
            else cost
            for one, cost in zip(candidates, super().__call__(candidates), strict=True)
        ]


def test_a_row_that_takes_longer_beside_the_others_is_fitted_again(tiny: Callable[..., LoadedRecipe]) -> None:
    base, choices, said = tiny(), parse_methods("dst,static"), list[str]()
    image = build_dataset(base.recipe).spec

    def planned(slower: float, **more: Any) -> Plan:
        said.clear()
        return make_plan(base, choices, (0.25,), LATENCY, image, CrowdedClock(slower), say=said.append, **more)

    plan = planned(1.5)
    assert plan.rows[3].amount == pytest.approx(0.6, rel=0.03)  # as it takes beside them
    assert plan.rows[3].density == pytest.approx(0.15, rel=0.05)  # 0.1 and twice the density, times 1.5
    assert "static: 0.9 ms beside the others, 0.6 ms asked; fitted again" in said
    planned(1.05)
    assert not any("fitted again" in one for one in said)
    several = CrowdedClock(1.5)
    plan = make_plan(base, choices, (0.25, 0.4), LATENCY, image, several)
    assert [row.amount for row in plan.rows if row.method == "static"] == pytest.approx([0.6, 0.9], rel=0.03)
    last = max(index for index, one in enumerate(several.calls[:-1]) if len(one) > 2)  # of the first time side by side
    again = [
        (one[0].recipe.sparsity.generator.density, one[1].recipe.sparsity.method.name)
        for one in several.calls[last + 1 : -1]
    ]
    assert {*again} == {(0.25, "static"), (0.4, "static")}  # each beside the one that sets its own time
    with pytest.raises(RunError, match=r"too loaded to measure: static was to cost 0.6 ms, and costs 36 ms beside"):
        planned(60.0)
    with pytest.raises(RunError, match=r"beside the others; .*; more than 50% off is not believed by force either"):
        planned(60.0, force=True)


@pytest.mark.parametrize(
    ("methods", "held", "message"),
    [
        ("static", "latency=0.05", r"narrow: no width costs 0.05 ms; the nearest, 1 channels, costs 0.1039 ms"),
        ("static", "latency=4", r"static: no density costs 4 ms; the nearest, density 1, costs 2.1 ms"),
        ("static:growht=1", "latency=0.5", r"static:growht=1: .*unknown key"),
    ],
)
def test_what_no_width_or_density_reaches(
    tiny: Callable[..., LoadedRecipe], methods: str, held: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        laid_out(tiny(), methods, parse_held(held))
    assert "\n" not in str(caught.value)


def test_dense_alone_has_nothing_to_cost_the_same(tiny: Callable[..., LoadedRecipe]) -> None:
    with pytest.raises(RecipeError, match="nothing could have the latency of another: dense is alone"):
        laid_out(tiny(), "dense", narrow=False)


def test_a_method_without_masks_and_width_cannot_be_steered(
    tiny: Callable[..., LoadedRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancompress.methods.static import Static

    monkeypatch.setattr(Static, "sparsifies", False)
    with pytest.raises(RecipeError, match="static has neither a density nor a width that its latency"):
        laid_out(tiny(), "static")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency=0", "no number of milliseconds; write latency=0.5"),
        ("bytes=many", "no size; write bytes=200k"),
        ("latency,bytes", "one of latency and bytes"),
        ("steps,flops", "one of steps and flops"),
        ("latencies", "did you mean 'latency'"),
    ],
)
def test_budgets_that_are_none(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_held(text)


def test_budgets_are_read_and_written() -> None:
    assert [str(parse_held(text)) for text in ("steps", "flops=2e14", "latency", "flops,bytes=20k")] == [
        "steps", "flops=2e+14", "latency,steps", "bytes=20000,flops",
    ]  # fmt: skip


# --------------------------------------------------------------------------- plans


def kept(tmp_path: Path) -> tuple[Path, Plan]:
    rows = (
        PlannedRow("dense", None, None, None, 1.1, 0.01, "fake"),
        PlannedRow("narrow", 0.6, 1.0, 11, 0.57, 0.01, "fake"),
        PlannedRow("static", 0.6, 0.25, None, 0.6, 0.01, "fake"),
    )
    path, plan = tmp_path / "plan.json", Plan("latency", 16, this_machine(), rows)
    write_plan(path, plan)
    return path, plan


def test_a_plan_is_found_again_whatever_the_seeds(
    tmp_path: Path, tiny: Callable[..., LoadedRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plan = kept(tmp_path)
    assert read_plan(path) == plan
    assert read_plan(tmp_path / "none.json") is None
    choices = parse_methods("static")
    asked = [
        plan_path(tmp_path, tiny(*changes).recipe, choices, densities, held, batch)
        for changes, densities, held, batch in (
            ((), (), LATENCY, 16),
            (("seed=7",), (), LATENCY, 16),
            ((), (), HeldEqual("flops", cost="latency"), 16),
            ((), (0.1,), LATENCY, 16),
            ((), (), LATENCY, 1),
            ((), (), HeldEqual(cost="latency", amount=2.0), 16),
            (("model.channels=8",), (), LATENCY, 16),
        )
    ]
    assert asked[0] == asked[1] == asked[2]
    assert len(set(asked)) == 5
    assert (
        plan_path(tmp_path, tiny().recipe, choices, (), LATENCY, 16, force=True) not in asked
    )  # is not believed later

    clocks: list[FakeClock] = []

    def measuring(*_: Any, **__: Any) -> Any:
        import contextlib

        clocks.append(FakeClock())
        return contextlib.nullcontext(clocks[-1])

    monkeypatch.setattr("gancompress.comparison.planning.measuring", measuring)
    base, image = tiny(), build_dataset(tiny().recipe).spec
    found = [Planning(base, choices, (), LATENCY, image, tmp_path).find() for _ in range(2)]
    assert found[0] == found[1]
    assert len(clocks) == 1


def test_a_plan_that_was_forced_is_believed_to_a_half(tmp_path: Path) -> None:
    path, plan = kept(tmp_path)
    rows = (*plan.rows[:2], dataclasses.replace(plan.rows[2], amount=0.8))
    forced = dataclasses.replace(plan, rows=rows, forced=True)
    write_plan(path, forced)
    assert read_plan(path) == forced
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "forced": False}))
    with pytest.raises(RunError, match=r"static costs 0.8, not 0.6"):
        read_plan(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["rows"][1].update(width="1"), "no numbers of narrow"),
        (lambda content: content["machine"].update(name="another", processor="another"), "times of another machine"),
        (lambda content: content["rows"][1].update(amount=5.0), "narrow costs 5, not 0.6"),
        (lambda content: content["rows"][1].update(amount=-1.0), "impossible numbers of narrow"),
        (lambda content: content["rows"][1].update(amount=float("nan")), "plan of a comparison"),
        (lambda content: content["rows"][1].update(more=1), "no plan of a comparison"),
        (lambda content: content.update(rows=[]), "no rows"),
        (lambda content: content.update(format=1), "of another version, which may have given rows less than the time"),
        (lambda content: content.update(machine=3), "no plan of a comparison"),
    ],
)
def test_plans_of_others_and_forged_ones_are_refused(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    path, _ = kept(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=message) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)


def test_bytes_do_not_depend_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plan = kept(tmp_path)
    write_plan(path, dataclasses.replace(plan, cost="bytes"))
    monkeypatch.setattr(plans, "processor_key", lambda: "another")
    assert read_plan(path) is not None


# --------------------------------------------------------------------------- real files


def test_bytes_are_those_of_the_exported_file(tmp_path: Path, tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny()
    image = build_dataset(base.recipe).spec
    untrained = Untrained(tmp_path, image)
    plan = make_plan(
        base, parse_methods("static"), (0.25,), HeldEqual(cost="bytes"), image,
        lambda candidates: Scales()([untrained.file(one) for one in candidates]),
    )  # fmt: skip
    dense, narrow, static = plan.rows
    assert static.amount < 0.5 * dense.amount
    assert narrow.amount == pytest.approx(static.amount, rel=0.1)
    sizes = {path.stat().st_size for path in tmp_path.iterdir()}
    assert {row.amount for row in plan.rows} <= sizes
    opened = load(next(path for path in tmp_path.iterdir() if path.stat().st_size == static.amount))
    assert opened.packed.density == pytest.approx(0.25, abs=0.02)  # type: ignore[union-attr]


def test_channels_are_tried_as_the_narrow_network_that_is_left(
    tmp_path: Path, tiny: Callable[..., LoadedRecipe]
) -> None:
    base = tiny("training.steps=40")
    image = build_dataset(base.recipe).spec
    untrained, recipes = Untrained(tmp_path, image), CellRecipes(base, image)
    (choice,) = parse_methods("channels")
    files = [untrained.file(Candidate(recipes.of(choice, density, 0), "float32")) for density in (0.25, 0.75)]
    few, many = (load(path) for path in files)
    assert few.packed.bytes < 0.5 * many.packed.bytes  # type: ignore[union-attr]
    assert few.packed.density == many.packed.density == 1  # type: ignore[union-attr]


def test_the_clock_times_what_is_installed_and_refuses_noise(
    tmp_path: Path, tiny: Callable[..., LoadedRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancompress.comparison import shipped

    base = tiny()
    image = build_dataset(base.recipe).spec
    untrained, recipes = Untrained(tmp_path, image), CellRecipes(base, image)
    dense, static = (
        untrained.file(Candidate(recipes.of(choice, density, 0), "float32"))
        for choice, density in zip(parse_methods("dense,static"), (None, 0.25), strict=True)
    )
    seconds = {"0": 1.0, "1": 2.0, "2": 0.5, "3": 0.25}  # yardstick, static; dense: ours and another engine

    def alternate(steps: Any, rounds: int, **_: Any) -> Any:
        for step in steps.values():
            step()
        wobble = [1 + wild * (index % 2) for index in range(rounds)]
        return {name: [(seconds[name] * (w if name == "1" else 1), 1.0) for w in wobble] for name in steps}

    wild = 0.0
    monkeypatch.setattr(shipped, "alternate", alternate)
    monkeypatch.setattr(shipped, "dense_engines", lambda net, inputs: {"other": lambda: lambda: net(*inputs)})
    clock = shipped.Clock(dense, batch=4)
    assert clock([static, dense]) == [Cost(500.0, 0.0, "gancompress"), Cost(62.5, 0.0, "other")]
    wild = 2.0
    with pytest.raises(RunError, match="too loaded to measure: the median time of a generator is unsure by"):
        clock([static, dense])
    clock.force = True
    assert clock([static, dense])[1].amount == 62.5
