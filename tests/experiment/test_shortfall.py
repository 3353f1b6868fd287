"""What a run does not do although it was asked to is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gancompress.backbones.base import PrunableWeight
from gancompress.errors import RecipeError
from gancompress.experiment.budgets import build_budgets
from gancompress.experiment.shortfall import planned_shortfalls, shortfalls
from gancompress.methods.base import Round
from gancompress.methods.dense import Dense, DenseConfig
from gancompress.methods.dst import DST, DSTConfig
from gancompress.methods.static import Static, StaticConfig
from gancompress.recipe.load import parse_recipe
from gancompress.sparsity.layers import Layer
from gancompress.sparsity.state import Budget, SparseState
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from gancompress.methods.base import Method


def engine(method: Method[Any], kept: tuple[int, int], updates: int = 0) -> Any:
    masks = {name: torch.arange(10) < count for name, count in zip("ab", kept, strict=True)}
    state = SparseState(masks, dict(zip("ab", kept, strict=True)), updates)
    budget = Budget(0.25, {"a": 2, "b": 3}, {"a": 10, "b": 10}, "uniform")
    return SimpleNamespace(
        roles=("generator",),
        role=lambda name: name,
        method=method,
        state=lambda name: state,
        budget=lambda name: budget,
    )


def test_a_density_that_is_missed_and_a_layer_that_is_empty() -> None:
    method = Static(StaticConfig())
    assert shortfalls(engine(method, (2, 3))) == []
    assert shortfalls(engine(method, (10, 0))) == [
        "the generator has density 0.5000, 0.2500 was asked",
        "b of the generator keeps no weight",
    ]


def test_a_method_whose_updates_never_came() -> None:
    told = "no mask was ever updated: give sparsity.method a shorter interval"
    assert shortfalls(engine(DST(DSTConfig()), (2, 3))) == [told]
    assert shortfalls(engine(DST(DSTConfig()), (2, 3), updates=1)) == []


def test_a_method_that_chooses_its_density_misses_none() -> None:
    assert shortfalls(engine(Dense(DenseConfig()), (10, 10))) == []


def test_an_interval_longer_than_the_run() -> None:
    late, due = DST(DSTConfig(every=100)), DST(DSTConfig(every=4))
    rounds = [Round("train", 12)]
    assert planned_shortfalls(late, rounds, engine(late, (2, 3))) == [
        "no topology update is due in 12 steps: give sparsity.method a shorter interval"
    ]
    assert planned_shortfalls(due, rounds, engine(due, (2, 3))) == []
    assert planned_shortfalls(Static(StaticConfig()), rounds, engine(due, (2, 3))) == []


def test_masks_that_stay_are_judged_before_the_first_step() -> None:
    static = Static(StaticConfig())
    assert planned_shortfalls(static, [Round("train", 12)], engine(static, (5, 0))) == [
        "b of the generator keeps no weight"
    ]


def test_less_than_a_unit_of_the_pattern_is_no_miss() -> None:
    static = Static(StaticConfig())
    in_units = engine(static, (2, 2))
    budget = Budget(0.25, {"a": 2, "b": 3}, {"a": 10, "b": 10}, "uniform", units={"a": Units((10,), (2,))})
    in_units.budget = lambda role: budget
    assert shortfalls(in_units) == []
    assert shortfalls(engine(static, (2, 2))) == ["the generator has density 0.2000, 0.2500 was asked"]


def test_a_density_that_its_pattern_does_not_allow_names_the_network_and_the_setting() -> None:
    weight = torch.nn.Parameter(torch.ones(8, 8, 1, 1))
    network = {"a": PrunableWeight("a", weight, "a", Layer("convolution", (8, 8, 1, 1)))}
    sparsity = {"method": "static", "pattern": "2:4", "discriminator": {"density": 0.9}, "generator": {"density": 0.5}}
    document = {"name": "x", "data": "shapes", "model": "dcgan", "training": {"steps": 1}, "sparsity": sparsity}
    with pytest.raises(
        RecipeError, match=r"^sparsity.discriminator.density: density 0.9 keeps 58 weights, but only 32 "
    ):
        build_budgets(parse_recipe(document).recipe, {"generator": network, "discriminator": network})


@pytest.mark.parametrize("allocation", ["uniform", "er", "erk"])
def test_a_network_whose_output_keeps_nothing_is_refused_and_its_empty_layers_are_named(allocation: str) -> None:
    def layer(name: str, inputs: int, *, output: bool) -> PrunableWeight:
        shape = (1, inputs, 1, 1) if output else (64, inputs, 3, 3)
        weight = torch.nn.Parameter(torch.ones(shape))
        return PrunableWeight(name, weight, name, Layer("convolution", shape, output=output))

    document = {
        "name": "x",
        "data": "shapes",
        "model": "dcgan",
        "training": {"steps": 1},
        "sparsity": {"method": "static", "generator": {"density": 5e-5, "allocation": allocation}},
    }
    network = {"a": layer("a", 64, output=False), "out": layer("out", 4, output=True)}
    with pytest.raises(RecipeError, match=r"the generator without a weight in .*out: it computes nothing"):
        build_budgets(parse_recipe(document).recipe, {"generator": network, "discriminator": network})
