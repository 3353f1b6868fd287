"""What a run does not do although it was asked to is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gancompress.experiment.shortfall import planned_shortfalls, shortfalls
from gancompress.methods.base import Round
from gancompress.methods.dense import Dense, DenseConfig
from gancompress.methods.dst import DST, DSTConfig
from gancompress.methods.static import Static, StaticConfig
from gancompress.sparsity.state import Budget, SparseState
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from gancompress.methods.base import Method


def engine(method: Method[Any], kept: tuple[int, int], updates: int = 0) -> Any:
    masks = {name: torch.arange(10) < count for name, count in zip("ab", kept, strict=True)}
    state = SparseState(masks, dict(zip("ab", kept, strict=True)), updates)
    budget = Budget(0.25, {"a": 2, "b": 3}, {"a": 10, "b": 10}, "uniform")
    return SimpleNamespace(roles=("generator",), method=method, state=lambda role: state, budget=lambda role: budget)


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
