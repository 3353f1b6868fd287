from __future__ import annotations

import pytest
from method_views import SHAPES, rng, view

from gancompress.errors import InvariantError
from gancompress.methods.base import Plan, Round
from gancompress.methods.dense import Dense, DenseConfig
from gancompress.methods.static import Static, StaticConfig
from gancompress.sparsity.allocate import allocate


def test_dense_keeps_everything() -> None:
    net = view()
    state = Dense(DenseConfig()).init(net, net.budget, rng())
    state.check()
    assert state.density == 1
    assert list(state.masks) == list(SHAPES)


@pytest.mark.parametrize("rule", ["uniform", "er", "erk"])
@pytest.mark.parametrize("density", [0.01, 0.2, 0.77, 1.0])
def test_static_meets_its_budget_exactly(rule: str, density: float) -> None:
    budget = allocate(rule, SHAPES, density)
    state = Static(StaticConfig()).init(view(), budget, rng())
    state.check()
    assert state.budgets == budget.counts
    assert all(state.masks[name].shape == shape for name, shape in SHAPES.items())


def test_static_is_a_function_of_its_generator() -> None:
    method, net = Static(StaticConfig()), view()
    digests = [method.init(net, net.budget, rng(seed)).hash() for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_static_refuses_a_budget_for_another_network() -> None:
    with pytest.raises(InvariantError, match="generator and its budget name different tensors: first, other"):
        Static(StaticConfig()).init(
            view(), allocate("uniform", {"other" if n == "first" else n: s for n, s in SHAPES.items()}, 0.5), rng()
        )


def test_neither_ever_changes() -> None:
    for method in (Dense(DenseConfig()), Static(StaticConfig())):
        assert method.rounds(100, {}) == (Round("train", 100),)
        assert {method.plan("generator", step, 100) for step in range(101)} == {Plan.NOTHING}
