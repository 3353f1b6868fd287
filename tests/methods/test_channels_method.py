"""Channels that a method gives up, by hand: which ones, when, and what is masked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from method_views import rng
from pydantic import ValidationError

from gancompress.channels.groups import ChannelGroup, Place
from gancompress.errors import InvariantError, RecipeError
from gancompress.methods.base import NetView, Plan
from gancompress.methods.channels import Channels, ChannelsConfig, kept_channels
from gancompress.sparsity.allocate import allocate

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.sparsity.state import SparseState

#: a matrix of which two rows make one channel, four channels; a norm that no mask is held on; and what reads them
GROUP = ChannelGroup(
    "made", 4,
    (
        Place("made.weight", 0, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), makes=True, reads=False),
        Place("norm.weight", 0, torch.arange(4), makes=False, reads=False),
        # the first input of the reader is of another group
        Place("read.weight", 1, torch.tensor([-1, 0, 1, 2, 3]), makes=False, reads=True),
    ),
)  # fmt: skip
WEIGHTS = {
    "made.weight": torch.tensor([[1.0], [0], [3], [0], [0], [1], [2], [2]]),
    "read.weight": torch.tensor([[9.0, 3, 0, 1, 0]]),
}
#: squares, made and read: 1 + 9, 9 + 0, 1 + 1, 8 + 0
WORTH = [10.0, 9.0, 2.0, 8.0]


def method(**settings: Any) -> Channels:
    return Channels(ChannelsConfig.model_validate(settings))


def net_of(density: float, state: SparseState | None = None, **changes: Any) -> NetView:
    shapes = {name: tuple(weight.shape) for name, weight in WEIGHTS.items()}
    masks = {} if state is None else state.masks
    known: dict[str, Any] = {
        "role": "generator",
        "weights": {name: weight * masks.get(name, 1) for name, weight in WEIGHTS.items()},
        "budget": allocate("uniform", shapes, density),
        "channels": (GROUP,),
        "masks": masks,
        "total_steps": 100,
    }
    return NetView(**known | changes)


def played(density: float, chosen: Channels, **changes: Any) -> list[tuple[int, list[int], SparseState]]:
    """Return the step, the channels that stay and the state after every update."""
    state = chosen.init(net_of(density, **changes), net_of(density).budget, rng())
    assert state.density == 1
    found = []
    for step in range(1, 101):
        if Plan.UPDATE in chosen.plan("generator", step, 100):
            net = net_of(density, state, step=step, **changes)
            notes = chosen.notes(net)
            state = chosen.update(state, net, rng())
            state.check()
            kept = kept_channels(GROUP, state.masks)
            assert notes == {"channels made": int(kept.sum())}
            found.append((step, kept.nonzero().flatten().tolist(), state))
    return found


def test_the_weakest_go_a_few_at_a_time() -> None:
    # 4 channels times 0.25 to the powers 1/2 and 1
    found = played(0.25, method(start=0.2, end=0.6, rounds=2))
    assert [(step, kept) for step, kept, _ in found] == [(20, [0, 1]), (60, [0])]
    last = found[-1][2]
    assert last.masks["made.weight"].flatten().tolist() == [True] * 2 + [False] * 6
    assert last.masks["read.weight"].tolist() == [[True, True, False, False, False]]
    assert dict(last.budgets) == {"made.weight": 2, "read.weight": 2}


def test_one_cut_comes_at_the_end() -> None:
    assert [(step, kept) for step, kept, _ in played(0.5, method(start=0.2, end=0.6, rounds=1))] == [(60, [0, 1])]


def test_trained_weights_are_cut_at_the_first_step() -> None:
    assert [step for step, *_ in played(0.5, method(start=0, end=0.5, rounds=3))] == [1, 26, 50]


def test_as_many_cuts_as_there_are_steps() -> None:
    assert method(start=0.25, end=0.5, rounds=9).cuts(8) == [2, 3, 4]
    assert method(start=0.25, end=0.5, rounds=4).cuts(1) == [1]


def test_taylor_ranks_by_the_change_of_the_loss() -> None:
    chosen = method(start=0.2, end=0.6, rounds=1, importance="taylor")
    assert chosen.plan("generator", 60, 100) == Plan.UPDATE | Plan.DENSE_GRADIENT
    # weights times gradients: 1 - 3, 3 - 0, 0 + 1, 0 + 0
    gradients = {
        "made.weight": torch.tensor([[1.0], [5], [1], [5], [5], [0], [1], [-1]]),
        "read.weight": torch.tensor([[7.0, -1, 5, 1, 5]]),
    }
    assert [kept for _, kept, _ in played(0.5, chosen, gradients=gradients)] == [[0, 1]]
    state = chosen.init(net_of(0.5), net_of(0.5).budget, rng())
    with pytest.raises(InvariantError, match="no dense gradients at step 60"):
        chosen.update(state, net_of(0.5, state, step=60), rng())


def test_a_channel_that_went_stays_away_whatever_it_is_worth() -> None:
    chosen = method(start=0.2, end=0.6, rounds=2)
    state = chosen.init(net_of(0.25), net_of(0.25).budget, rng())
    first = chosen.update(state, net_of(0.25, state, step=20), rng())
    other = {name: torch.ones_like(weight) for name, weight in WEIGHTS.items()}
    last = chosen.update(first, net_of(0.25, first, step=60, weights=other), rng())
    assert kept_channels(GROUP, last.masks).tolist() == [True, False, False, False]


def test_networks_that_are_not_pruned_keep_everything() -> None:
    one = method(prune="discriminator", rounds=1)
    assert not any(one.plan("generator", step, 100).value for step in range(1, 101))
    assert Plan.UPDATE in one.plan("discriminator", 60, 100)
    both = method(rounds=1)
    state = both.init(net_of(1.0), net_of(1.0).budget, rng())
    assert both.update(state, net_of(1.0, state, step=60), rng()).density == 1
    assert both.notes(net_of(1.0, state, step=60)) == {}


def test_what_cannot_be_freed_is_said() -> None:
    with pytest.raises(RecipeError, match=r"leaves made .* has 4 channels, without one; the least possible is 0\.125:"):
        method().init(net_of(0.12), net_of(0.12).budget, rng())
    method().init(net_of(0.125), net_of(0.125).budget, rng())
    with pytest.raises(RecipeError, match="no channel of the generator is made and read by masked weights alone"):
        method().init(net_of(0.5, channels=()), net_of(0.5).budget, rng())
    shapes = {name: tuple(weight.shape) for name, weight in WEIGHTS.items()}
    whole = allocate("uniform", shapes, 0.5, dense=("read.weight",))
    with pytest.raises(RecipeError, match="no channel of the generator"):  # the recipe keeps what reads them
        method().init(net_of(0.5, budget=whole), whole, rng())
    with pytest.raises(ValidationError, match=r"start \(0.7\) must not be after end \(0.6\)"):
        method(start=0.7)


def test_a_least_number_stays_whatever_the_density() -> None:
    assert [kept for _, kept, _ in played(0.01, method(rounds=1, least=3))] == [[0, 1, 3]]


def test_worth_is_summed_over_all_that_makes_and_reads() -> None:
    scores: Tensor = method()._scores(GROUP, net_of(0.5))
    assert scores.tolist() == WORTH
