"""Magnitude pruning, SNIP, and the cut that they share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_views import SHAPES, rng, view
from torch import Tensor

from gancompress.errors import InvariantError, RecipeError
from gancompress.methods.base import NetView, Plan, Round
from gancompress.methods.magnitude import Magnitude, MagnitudeConfig
from gancompress.methods.pruning import PruningConfig, cut, everything, magnitudes
from gancompress.methods.snip import SNIP, SNIPConfig
from gancompress.sparsity.allocate import allocate

BARE: dict[str, Any] = {"layer_floor": 0.0, "protect_output": False}
FINETUNE = Round("finetune", 50)


def net_of(tensors: dict[str, list[Any]], density: float, gradients: dict[str, Tensor] | None = None) -> NetView:
    weights = {name: torch.tensor(values, dtype=torch.float32) for name, values in tensors.items()}
    budget = allocate("uniform", {name: tuple(weight.shape) for name, weight in weights.items()}, density)
    protected = frozenset({list(tensors)[-1]})
    return NetView("generator", weights, budget, gradients=gradients, protected=protected, total_steps=50, round=1)


def lists(masks: Any) -> dict[str, list[Any]]:
    return {name: mask.int().tolist() for name, mask in masks.items()}


def three_layers(density: float) -> NetView:
    """y = W3 relu(W2 relu(W1 x)) at x = (1, 1), its gradients from autograd."""
    w1, w2, w3 = [[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [0.0, -1.0]], [[1.0, 5.0]]
    leaves = {name: torch.tensor(w, requires_grad=True) for name, w in (("w1", w1), ("w2", w2), ("w3", w3))}
    hidden = torch.relu(leaves["w2"] @ torch.relu(leaves["w1"] @ torch.ones(2)))
    (leaves["w3"] @ hidden).sum().backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return net_of({"w1": w1, "w2": w2, "w3": w3}, density, gradients)


# Hidden values are (1, 2) and relu(3, -2) = (3, 0), so the gradients are (1 1; 1 1), (1 2; 0 0), (3 0), and
# |w g| is (1 0; 0 2), (1 2; 0 0), (3 0).
@pytest.mark.parametrize(
    ("density", "scope", "expected"),
    [
        (0.5, "global", {"w1": [[1, 0], [0, 1]], "w2": [[1, 1], [0, 0]], "w3": [[1, 0]]}),
        # of the two scores of 1, the earlier tensor's is kept
        (0.4, "global", {"w1": [[1, 0], [0, 1]], "w2": [[0, 1], [0, 0]], "w3": [[1, 0]]}),
        (0.3, "global", {"w1": [[0, 0], [0, 1]], "w2": [[0, 1], [0, 0]], "w3": [[1, 0]]}),
        (0.5, "layer", {"w1": [[1, 0], [0, 1]], "w2": [[1, 1], [0, 0]], "w3": [[1, 0]]}),
        # 3, 3 and 1 of them (2.8, 2.8, 1.4): zeros in order of their index
        (0.7, "layer", {"w1": [[1, 1], [0, 1]], "w2": [[1, 1], [1, 0]], "w3": [[1, 0]]}),
    ],
)
def test_snip_by_hand_on_three_layers(density: float, scope: str, expected: dict[str, Any]) -> None:
    method = SNIP(SNIPConfig.model_validate({"scope": scope}))
    net = three_layers(density)
    state = method.init(net, net.budget, rng())
    state.check()
    assert lists(state.masks) == expected


def test_snip_asks_for_a_gradient_and_is_static() -> None:
    method = SNIP(SNIPConfig())
    assert method.init_needs_gradient
    assert method.plan("generator", 1, 10) == Plan.NOTHING
    with pytest.raises(InvariantError, match="no gradients of the generator"):
        method.init(view(gradients=None), view().budget, rng())


@pytest.mark.parametrize("density", [0.02, 0.05, 0.2, 0.9])
def test_snip_never_empties_a_layer(density: float) -> None:
    flat = {name: torch.zeros(shape) for name, shape in SHAPES.items()} | {"second": torch.ones(SHAPES["second"])}
    net = view(density=density, gradients=flat)
    state = SNIP(SNIPConfig()).init(net, net.budget, rng())
    state.check()
    assert state.nonzeros == round(density * 2196)
    assert all(state.budgets[name] >= max(1, 0.1 * density * net.budget.sizes[name]) for name in SHAPES)
    assert state.budgets["output"] >= int(density * 324)
    emptied = SNIP(SNIPConfig.model_validate(BARE)).init(net, net.budget, rng())
    if density < 0.5:
        assert {name for name, kept in emptied.budgets.items() if kept} == {"second"}


def test_a_density_that_leaves_a_layer_nothing_is_refused() -> None:
    net = three_layers(0.2)  # two weights for three layers
    with pytest.raises(RecipeError, match=r"keeps 2 weights, but 3 are needed .* raise the density"):
        SNIP(SNIPConfig()).init(net, net.budget, rng())


def test_magnitude_by_hand() -> None:
    net = net_of({"a": [4.0, -1, 0, 3], "b": [0.5, -9.0], "out": [0.1, -0.2, 0.3, 0]}, 0.5)
    every = everything(net)

    def pruned(**settings: Any) -> dict[str, list[int]]:
        method = Magnitude(MagnitudeConfig.model_validate(settings))
        state = method.next_round(every, net, FINETUNE, rng())
        state.check()
        return lists(state.masks)

    assert pruned() == {"a": [1, 0, 0, 1], "b": [0, 1], "out": [0, 1, 1, 0]}
    assert pruned(scope="global") == {"a": [1, 0, 0, 1], "b": [0, 1], "out": [0, 1, 1, 0]}
    assert pruned(scope="global", protect_output=False) == {"a": [1, 1, 0, 1], "b": [0, 1], "out": [0, 0, 1, 0]}
    assert pruned(scope="global", **BARE) == {"a": [1, 1, 0, 1], "b": [1, 1], "out": [0, 0, 0, 0]}
    assert pruned(prune="discriminator") == lists(every.masks)


def test_magnitude_rounds_take_the_recipes_steps_together() -> None:
    for steps in (2, 3, 10, 1001):
        for share in (0.01, 0.5, 0.99):
            dense, finetune = Magnitude(MagnitudeConfig(finetune=share)).rounds(steps, {})
            assert dense.steps + finetune.steps == steps
            assert min(dense.steps, finetune.steps) >= 1
            assert (finetune.generator, finetune.discriminator) == ("keep", "keep")
    assert [r.steps for r in Magnitude(MagnitudeConfig(finetune=0.25)).rounds(100, {})] == [75, 25]
    with pytest.raises(RecipeError, match=r"training\.steps is 1"):
        Magnitude(MagnitudeConfig()).rounds(1, {})


@pytest.mark.parametrize("rule", ["uniform", "erk"])
def test_layer_scope_is_the_recipes_allocation(rule: str) -> None:
    budget = allocate(rule, SHAPES, 0.13)
    net = view(budget=budget)
    state = cut(everything(net), net, magnitudes(net), budget.total, PruningConfig(), "layer")
    state.check()
    assert state.budgets == budget.counts
    for name, mask in state.masks.items():  # the largest of each tensor
        strength = net.weights[name].abs()
        assert strength[mask].min() > strength[~mask].max() if not mask.all() else True


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_cuts_nest_and_ignore_what_is_masked(scope: str) -> None:
    net = view()
    state = everything(net)
    for total in (2196, 2000, 1999, 900, 500, 439):
        smaller = cut(state, view(seed=total), magnitudes(view(seed=total)), total, PruningConfig(), scope)
        smaller.check()
        assert smaller.nonzeros == total
        assert not any((smaller.masks[name] & ~state.masks[name]).any() for name in SHAPES)
        state = smaller
    with pytest.raises(InvariantError, match="cannot prune the generator's 439 kept weights to 440"):
        cut(state, net, magnitudes(net), 440, PruningConfig(), scope)


def test_nan_goes_first_but_never_before_what_is_masked() -> None:
    net = net_of({"a": [float("nan"), 2.0, 3.0, float("inf")]}, 0.25)
    state = everything(net)
    for total, expected in ((3, [0, 1, 1, 1]), (1, [0, 0, 0, 1])):
        state = cut(state, net, magnitudes(net), total, PruningConfig(), "global")
        assert lists(state.masks) == {"a": expected}
    nan = net_of({"a": [float("nan"), float("nan"), 3.0, 4.0]}, 0.25)
    state = cut(everything(nan), nan, magnitudes(nan), 3, PruningConfig(), "global")
    again = cut(state, nan, magnitudes(nan), 3, PruningConfig(), "global")
    assert lists(again.masks) == {"a": [1, 0, 1, 1]}


def test_dense_tensors_stay_whole_under_global_scope() -> None:
    budget = allocate("erk", SHAPES, 0.3, dense=("shortcut",), floor=0.05)
    net = view(budget=budget)
    tiny = dict(net.weights) | {"shortcut": net.weights["shortcut"] * 1e-9}
    state = cut(everything(net), net, {n: w.abs() for n, w in tiny.items()}, budget.total, PruningConfig())
    assert state.budgets["shortcut"] == 144
    assert all(state.budgets[name] >= 0.05 * budget.sizes[name] for name in SHAPES)


def test_nan_counts_as_zero_among_several_layers() -> None:
    """Of two weights that are worth nothing the one of the earlier layer stays; what is masked is worth less still."""
    net = net_of({"a": [float("nan"), 7.0], "b": [0.0, 3.0]}, 0.5)
    masks = {"a": torch.tensor([True, False]), "b": torch.tensor([True, True])}
    state = everything(net).replace(masks=masks, budgets={"a": 1, "b": 2})
    config = PruningConfig(layer_floor=0, protect_output=False)
    found = cut(state, net, magnitudes(net), 2, config, "global").masks
    assert {name: mask.tolist() for name, mask in found.items()} == {"a": [True, False], "b": [False, True]}
