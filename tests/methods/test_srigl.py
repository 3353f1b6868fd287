"""Constant fan-in by hand, neurons that are given up, and what never is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from method_views import rng, view

from gancompress.methods.base import NetView
from gancompress.methods.srigl import SRigL, SRigLConfig
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.layers import Layer
from gancompress.sparsity.state import SparseState

if TYPE_CHECKING:
    from torch import Tensor

SHARE = {"name": "constant", "value": 0.5}


def method(**settings: Any) -> SRigL:
    return SRigL(SRigLConfig.model_validate({"every": 1, "drop_fraction": SHARE, **settings}))


def net_of(weight: Tensor, gradient: Tensor, mask: Tensor, layer: Layer | None = None) -> tuple[NetView, SparseState]:
    kept = int(mask.sum())
    budget = allocate("uniform", {"w": tuple(weight.shape)}, kept / weight.numel())
    assert budget.counts["w"] == kept
    net = NetView(
        "generator",
        {"w": weight * mask},
        budget,
        {"w": gradient},
        step=1,
        total_steps=10,
        layers={"w": layer} if layer else {},
    )
    return net, SparseState({"w": mask}, {"w": kept})


#: three neurons of four inputs, two kept each
WEIGHT = torch.tensor([[9.0, 8, 0, 0], [7, 6, 0, 0], [1, 2, 0, 0]])
MASK = WEIGHT != 0
#: of what is masked, the second neuron's third input has the largest gradient
GRADIENT = torch.tensor([[0.0, 0, 3, 1], [0, 0, 9, 2], [0, 0, 4, 5]])


def test_one_update_by_hand() -> None:
    # half of six: 1, 2 and 6 are dropped, and 9, 5 and 4 have the largest gradients: salient are 2, 2 and 2 of the
    # three neurons, so all stay with a fan-in of two; the first keeps its two, the second grows its 9
    net, state = net_of(WEIGHT, GRADIENT, MASK)
    new = method().update(state, net, rng())
    assert new.masks["w"].tolist() == [
        [True, True, False, False],
        [True, False, True, False],
        [False, False, True, True],
    ]
    assert new.budgets == {"w": 6}


def test_a_neuron_with_few_salient_weights_is_given_up_and_its_weights_go_to_the_others() -> None:
    gradient = GRADIENT.clone()
    gradient[2] = 0  # nothing of the third neuron is salient: 3, 9 and 2 grow elsewhere
    net, state = net_of(WEIGHT, gradient, MASK)
    new = method().update(state, net, rng())
    # six weights over two neurons
    assert new.masks["w"].int().tolist() == [[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]]
    # it stays given up: nothing of it is alive
    again = method().update(new, dataclasses.replace(net, gradients={"w": GRADIENT * 0 + 5}), rng())
    assert not again.masks["w"][2].any()
    assert again.masks["w"].sum(1).tolist() == [3, 3, 0]
    kept = method(ablate=0).update(state, net, rng())
    assert kept.masks["w"].sum(1).tolist() == [2, 2, 2]


def test_channels_of_the_image_are_never_given_up() -> None:
    gradient = GRADIENT.clone()
    gradient[2] = 0
    net, state = net_of(WEIGHT, gradient, MASK, Layer("linear", (3, 4), output=True))
    assert method().update(state, net, rng()).masks["w"].sum(1).tolist() == [2, 2, 2]


def test_as_many_neurons_stay_as_the_weights_need() -> None:
    weight = torch.tensor([[9.0, 8, 7], [1, 2, 0], [3, 4, 0]])
    net, state = net_of(weight, torch.zeros(3, 3), weight != 0)
    new = method(ablate=1).update(state, net, rng())  # all but the first are below the fan-in: 7 weights need 3 neurons
    assert sorted(new.masks["w"].sum(1).tolist()) == [2, 2, 3]


def test_outputs_of_a_transposed_convolution_are_its_second_axis() -> None:
    layer = Layer("transposed convolution", (4, 3, 1, 1))
    net, state = net_of(WEIGHT.T[..., None, None], GRADIENT.T[..., None, None], MASK.T[..., None, None], layer)
    straight, other = net_of(WEIGHT, GRADIENT, MASK)
    found = method().update(state, net, rng()).masks["w"]
    assert torch.equal(found[..., 0, 0].T, method().update(other, straight, rng()).masks["w"])


def test_groups_of_a_transposed_convolution_have_neurons_of_their_own() -> None:
    layer = Layer("transposed convolution", (4, 3, 1, 1), groups=2)  # two inputs and three outputs in each group
    weight = torch.arange(1.0, 13).reshape(4, 3, 1, 1)
    budget = allocate("uniform", {"w": (4, 3, 1, 1)}, 0.5)
    net = NetView("generator", {"w": weight}, budget, layers={"w": layer})
    mask = method().init(net, budget, rng()).masks["w"]
    assert mask.reshape(2, 2, 3).sum(1).tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_fan_ins_differ_by_one_at_most_and_counts_stay(seed: int) -> None:
    net = view(seed=seed)
    made = method()
    state = made.init(net, net.budget, rng(seed))
    before = dict(state.budgets)
    for step in range(1, 8):
        current = view(state, seed=10 * seed + step, step=step)
        state = made.update(state, current, rng(step))
        state.check()
        assert state.budgets == before
        for name, mask in state.masks.items():
            fans = mask.flatten(1).sum(1)
            alive = fans[fans > 0]
            assert int(alive.max() - alive.min()) <= 1, name
        assert 0 < made.notes(dataclasses.replace(current, masks=state.masks))["active_channels"] <= 1
