"""The grid: what is held equal is equal, and what cannot be compared is refused before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gancompress.comparison.choices import HeldEqual, parse_methods
from gancompress.comparison.grid import build_grid, evaluations_of
from gancompress.errors import RecipeError
from gancompress.recipe.load import smoke_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from gancompress.recipe.load import LoadedRecipe


def test_dense_is_a_row_once_and_narrow_beside_every_density(tiny: Callable[..., LoadedRecipe]) -> None:
    grid = build_grid(tiny(), parse_methods("static,dst"), (0.25, 0.5), (0, 3))
    assert [(row.choice.label, row.density) for row in grid.rows] == [
        ("dense", None),
        ("narrow", 0.25), ("static", 0.25), ("dst", 0.25),
        ("narrow", 0.5), ("static", 0.5), ("dst", 0.5),
    ]  # fmt: skip
    assert [cell.name for cell in grid.cells[:3]] == ["dense-s0", "narrow-d0.25-s0", "static-d0.25-s0"]
    assert [cell.seed for cell in grid.cells] == [0] * 7 + [3] * 7
    assert len({cell.directory for cell in grid.cells}) == 14
    bare = build_grid(tiny(), parse_methods("static,dense"), (0.25,), narrow=False)
    assert [row.choice.label for row in bare.rows] == ["dense", "static"]
    half = build_grid(tiny(), parse_methods("static,dense:width=0.5"), (0.25,), narrow=False)
    assert [row.choice.label for row in half.rows] == ["dense", "dense:width=0.5", "static"]


def test_the_dense_run_is_the_same_whatever_masks_it_is_compared_with(tiny: Callable[..., LoadedRecipe]) -> None:
    def runs(*overrides: str) -> list[str]:
        grid = build_grid(tiny(*overrides), parse_methods("static"), (0.25,))
        return [str(row.cells[0].directory) for row in grid.rows]

    dense, *others = runs()
    for setting in (
        "generator.allocation=uniform",
        "generator.dense=[output.*]",
        "pattern=1x4",
        "generator.min_layer_density=0.1",
    ):
        again, *changed = runs(f"sparsity.{setting}")
        assert again == dense
        assert not {*changed} & {*others}
    assert runs("sparsity.weights=convolutions")[0] != dense  # sizes are told of other weights
    assert runs("training.batch_size=5")[0] != dense


def test_a_method_keeps_the_settings_that_the_recipe_gives_it(tiny: Callable[..., LoadedRecipe]) -> None:
    grid = build_grid(tiny(), parse_methods("dst,dst:growth=random,rigl,gmp:every=5"), narrow=False)
    methods = [row.cells[0].recipe.sparsity.method for row in grid.rows]
    assert [(m.name, getattr(m, "every", None)) for m in methods[1:]] == [
        ("dst", 3), ("dst", 3), ("rigl", 3), ("gmp", 5),
    ]  # fmt: skip
    assert getattr(methods[2], "growth") == "random"  # noqa: B009
    assert grid.rows[0].cells[0].recipe.sparsity.generator.density is None


def test_a_pattern_is_chosen_beside_a_method(tiny: Callable[..., LoadedRecipe]) -> None:
    grid = build_grid(tiny(), parse_methods("dst,dst:pattern=1x4"), (0.5,), narrow=False)
    assert [row.cells[0].recipe.sparsity.pattern.name for row in grid.rows[1:]] == ["unstructured", "block"]
    assert [row.cells[0].recipe.sparsity.method.name for row in grid.rows[1:]] == ["dst", "dst"]
    assert grid.rows[2].cells[0].name == "dst-pattern-1x4-d0.5-s0"


def test_cells_differ_in_nothing_but_what_is_compared(tiny: Callable[..., LoadedRecipe]) -> None:
    grid = build_grid(tiny(), parse_methods("static,imp:rate=0.5"), (0.25,))
    base = grid.base.model_dump()
    for cell in grid.cells:
        recipe = cell.recipe.model_dump()
        assert [key for key in base if recipe[key] != base[key]] in (["name", "sparsity"], ["name"])


def test_equal_steps_include_every_round(tiny: Callable[..., LoadedRecipe]) -> None:
    grid = build_grid(tiny(), parse_methods("imp:rate=0.5,magnitude,gmp:every=2"), (0.25,))
    assert {row.price.steps for row in grid.rows} == {12}
    assert len(grid.rows[2].price.rounds) == 3


def test_equal_flops_give_cheaper_methods_more_steps_and_every_run_as_many_looks(
    tiny: Callable[..., LoadedRecipe],
) -> None:
    base = tiny("training.steps=60", "evaluation.every=20")
    grid = build_grid(base, parse_methods("static,magnitude"), (0.25,), held=HeldEqual("flops"))
    assert grid.rows[0].price.steps == 60
    for row in grid.rows:
        recipe = row.cells[0].recipe
        assert row.price.training_flops == pytest.approx(grid.dense.training_flops, rel=0.04)
        assert evaluations_of(row.price.steps, recipe.evaluation.every) == grid.evaluations == 3
    assert grid.rows[2].price.steps > grid.rows[3].price.steps > 60


def test_a_number_of_flops_binds_dense_too(tiny: Callable[..., LoadedRecipe]) -> None:
    plain = build_grid(tiny("training.steps=60"), parse_methods("static"), narrow=False)
    half = plain.dense.training_flops / 2
    grid = build_grid(tiny("training.steps=60"), parse_methods("static"), narrow=False, held=HeldEqual("flops", half))
    assert all(row.price.training_flops == pytest.approx(half, rel=0.1) for row in grid.rows)


def test_the_density_of_both_networks_stays_one(tiny: Callable[..., LoadedRecipe]) -> None:
    base = tiny("sparsity.generator.density=null", "sparsity.discriminator.density=null", "sparsity.density=0.3")
    grid = build_grid(base, parse_methods("static"), (0.5,), narrow=False)
    assert grid.density_of == "both"
    assert grid.rows[1].cells[0].recipe.sparsity.density == 0.5


@pytest.mark.parametrize(
    ("methods", "densities", "budget", "overrides", "message"),
    [
        ("dst:growht=random", (), "steps", (), "dst:growht=random at density 0.25: .*unknown key"),
        ("dst:multiplier=3", (), "steps", (), "trains 36 steps in one round, but the budget of steps"),
        ("imp:rate=0.5:budget=per-round", (), "steps", (), "trains 36 steps in 3 rounds"),
        ("imp", (0.01,), "steps", (), "takes 22 rounds"),
        ("static", (0.05,), "steps", ("sparsity.generator.min_layer_density=0.5",), "static at density 0.05: "),
        ("static", (), "steps", ("sparsity.generator.density=null",), "give a density to compare"),
    ],
)
def test_what_cannot_be_compared(
    tiny: Callable[..., LoadedRecipe],
    methods: str,
    densities: tuple[float, ...],
    budget: str,
    overrides: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(RecipeError, match=message):
        build_grid(tiny(*overrides), parse_methods(methods), densities, narrow=False)


def test_too_few_updates_are_said(tiny: Callable[..., LoadedRecipe]) -> None:
    grid = build_grid(tiny(), parse_methods("set:every=9"), narrow=False)
    assert any("set:every=9 changes its masks" in message and "every=" in message for message in grid.messages)


def test_the_same_grid_is_the_same_comparison(tiny: Callable[..., LoadedRecipe]) -> None:
    grids = [build_grid(tiny(), parse_methods(text), narrow=False) for text in ("static,dst", "dst,static", "dst")]
    assert grids[0].id == grids[1].id != grids[2].id
    longer = build_grid(tiny("training.steps=13"), parse_methods("dst"), narrow=False)
    assert longer.id != grids[2].id


@pytest.mark.parametrize(("density", "steps"), [(0.1, 12), (0.02, 48)])
def test_a_smoke_comparison_has_a_step_for_every_round(
    tiny: Callable[..., LoadedRecipe], density: float, steps: int
) -> None:
    base = smoke_test(tiny())
    grid = build_grid(base, parse_methods("imp"), [density], narrow=False)  # 11 and 18 rounds
    assert [row.price.steps for row in grid.rows] == [steps, steps]
