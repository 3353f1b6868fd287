from __future__ import annotations

import dataclasses

import pytest
import torch
from gancompress_snfs import SNFS, SNFSConfig, share_out

from gancompress.errors import RecipeError
from gancompress.methods import Budget, NetView, SparseState
from gancompress.sparsity.schedules import Constant
from gancompress.sparsity.units import Units
from gancompress.testing import Check, checks


@pytest.mark.parametrize("check", checks(SNFS, {"every": 2}), ids=str)
def test_conformance(check: Check) -> None:
    check()


@pytest.mark.parametrize(
    ("total", "shares", "room", "expected"),
    [
        (6, {"a": 1.0, "b": 2.0}, {"a": 9, "b": 9}, {"a": 2, "b": 4}),
        # 1.67 and 3.33: the larger remainder gets the one that is left
        (5, {"a": 1.0, "b": 2.0}, {"a": 9, "b": 9}, {"a": 2, "b": 3}),
        # b takes three, a takes what b cannot
        (6, {"a": 1.0, "b": 2.0}, {"a": 9, "b": 3}, {"a": 3, "b": 3}),
        # no momentum anywhere: equal parts, the first gets the odd one
        (3, {"a": 0.0, "b": 0.0}, {"a": 9, "b": 9}, {"a": 2, "b": 1}),
        (4, {"a": 0.0, "b": 1.0}, {"a": 2, "b": 2}, {"a": 2, "b": 2}),
        (0, {"a": 1.0}, {"a": 0}, {"a": 0}),
    ],
)
def test_growth_is_shared_out_exactly(
    total: int, shares: dict[str, float], room: dict[str, int], expected: dict[str, int]
) -> None:
    assert share_out(total, shares, room) == expected


def view(momentum: dict[str, list[float]], protected: frozenset[str] = frozenset()) -> tuple[SparseState, NetView]:
    """Two layers of six weights that keep four each."""
    weights = {"a": torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 0.0]), "b": torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 4.0])}
    counts = {"a": 4, "b": 4}
    state = SparseState({name: weight != 0 for name, weight in weights.items()}, counts)
    budget = Budget(4 / 6, counts, {"a": 6, "b": 6}, "uniform")
    moments = {name: torch.tensor(values) for name, values in momentum.items()}
    return state, NetView("generator", weights, budget, momentum=moments, protected=protected, step=1, total_steps=2)


METHOD = SNFS(SNFSConfig(drop_fraction=Constant(value=0.5)))


def test_layers_with_more_momentum_grow_more_and_where_it_is_largest() -> None:
    # kept weights of a have a mean momentum of 3, those of b of 1: of four weights that grow again a gets three
    state, net = view({"a": [3, -3, 3, 3, 7, -9], "b": [5, 8, 1, 1, 1, 1]})
    new = METHOD.update(state, net, torch.Generator())
    # the two smallest of each are dropped; a takes the momentum 9, 7 and, of equal ones, the first place that is free
    assert new.masks["a"].tolist() == [True, True, True, False, True, True]
    assert new.masks["b"].tolist() == [False, True, False, False, True, True]
    assert new.budgets == {"a": 5, "b": 3}
    assert new.nonzeros == state.nonzeros


def test_the_output_layer_keeps_its_share() -> None:
    state, net = view({"a": [3, -3, 3, 3, 7, -9], "b": [5, 8, 1, 1, 1, 1]}, protected=frozenset({"a"}))
    assert METHOD.update(state, net, torch.Generator()).budgets == {"a": 4, "b": 4}


def test_a_layer_keeps_one_weight() -> None:
    state, net = view({"a": [0, 0, 0, 0, 0, 0], "b": [9, 9, 1, 1, 1, 1]})
    everything = SNFS(SNFSConfig(drop_fraction=Constant(value=1.0)))
    new = everything.update(state, net, torch.Generator())
    assert new.budgets == {"a": 2, "b": 6}  # five grow in b, which is full then; the sixth comes back to a
    assert new.masks["a"][0]


def test_whole_units_are_exchanged() -> None:
    # pairs of neighbours: layer a has the momentum, so b's smallest pair grows again in a
    state, net = view({"a": [4, 4, 4, 4, 1, 9], "b": [1, 1, 1, 1, 1, 1]})
    budget = dataclasses.replace(net.budget, units={name: Units((6,), (2,)) for name in state.masks}, pattern="pairs")
    new = METHOD.update(state, dataclasses.replace(net, budget=budget), torch.Generator())
    assert new.masks["a"].tolist() == [True] * 6  # its second pair by 4, the third by 5
    assert new.masks["b"].tolist() == [False, False, False, False, True, True]
    assert new.budgets == {"a": 6, "b": 2}
    budget.check_units(new.masks, "here")


def test_an_optimizer_without_momentum_is_refused() -> None:
    state, net = view({})
    with pytest.raises(RecipeError, match="snfs grows by momentum"):
        METHOD.update(state, net, torch.Generator())
