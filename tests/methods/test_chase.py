"""Chase by hand: which channels die, and where what they had is grown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_views import rng
from pydantic import ValidationError
from test_channels_method import GROUP, net_of

from gancompress.methods.base import Plan
from gancompress.methods.channels import kept_channels
from gancompress.methods.chase import Chase, ChaseConfig
from gancompress.sparsity.state import SparseState

#: of every channel's two makers one is kept, and of what reads them all but that of the third
MASKS = {
    "made.weight": torch.tensor([[1], [0], [1], [0], [0], [1], [1], [0]]).bool(),
    "read.weight": torch.tensor([[1, 1, 1, 0, 1]]).bool(),
}
#: means of what is kept: 1, 3, 1, 2
GRADIENTS = {
    "made.weight": torch.tensor([[0.0], [5], [0], [1], [100], [0], [0], [9]]),
    "read.weight": torch.tensor([[0.0, 0, 0, 99, 0]]),
}
STATE = SparseState(MASKS, {"made.weight": 4, "read.weight": 4})


def method(**settings: Any) -> Chase:
    nothing = {"name": "constant", "value": 0.0}
    return Chase(ChaseConfig.model_validate({"every": 10, "end": 0.5, "drop_fraction": nothing, **settings}))


def net(state: SparseState, step: int) -> Any:
    return net_of(0.6, state, step=step, gradients=GRADIENTS)


def test_the_weakest_by_mean_magnitude_die_and_their_weights_grow_in_the_others() -> None:
    chosen = method(channels=0.75)
    new = chosen.update(STATE, net(STATE, 50), rng())
    new.check()
    # the third channel dies (1, as the first, which comes first): one weight of it is kept; the steepest that is not
    # its own is grown, the second maker of the fourth
    assert kept_channels(GROUP, new.masks).tolist() == [True, True, False, True]
    assert new.masks["made.weight"].flatten().tolist() == [True, False, True, False, False, False, True, True]
    assert new.masks["read.weight"].tolist() == [[True, True, True, False, True]]
    assert new.nonzeros == STATE.nonzeros
    assert chosen.notes(net(STATE, 50))["channels"] == 3


def test_a_dead_channel_never_grows_again() -> None:
    chosen = method(channels=0.75, drop_fraction={"name": "constant", "value": 0.5})
    state = chosen.update(STATE, net(STATE, 50), rng())
    for step in (60, 70):
        state = chosen.update(state, net(state, step), rng())
        assert not state.masks["made.weight"][4:6].any()
        assert not state.masks["read.weight"][0, 3]
        assert state.nonzeros == STATE.nonzeros


def test_where_there_is_no_room_fewer_weights_are_left() -> None:
    new = method(channels=0.5).update(STATE, net(STATE, 50), rng())
    # of two channels' four makers and two readers, and the reader of something else, all are kept
    assert kept_channels(GROUP, new.masks).tolist() == [False, True, False, True]
    assert new.masks["made.weight"].flatten().tolist() == [False, False, True, True, False, False, True, True]
    assert new.masks["read.weight"].tolist() == [[True, False, True, False, True]]
    assert new.nonzeros == 7


def test_channels_die_along_a_cubic_schedule_and_a_floor_keeps_some() -> None:
    # 4 channels times 0.25 + 0.75 * (1 - t)^3 at t = 0.2, 0.4 and 1, of which the floor keeps two
    chosen = method(channels=0.25, channel_floor=0.5)
    assert [chosen.notes(net(STATE, step))["channels"] for step in (10, 20, 50, 80)] == [3, 2, 1, 1]
    assert int(kept_channels(GROUP, chosen.update(STATE, net(STATE, 50), rng()).masks).sum()) == 2


def test_an_update_is_due_where_the_last_channels_die() -> None:
    chosen = method(every=30, stop=0.8)
    due = [step for step in range(1, 101) if chosen.plan("generator", step, 100)]
    assert due == [30, 50, 60]
    assert chosen.plan("generator", 50, 100) == Plan.UPDATE | Plan.DENSE_GRADIENT
    assert not method(explore="discriminator").plan("generator", 50, 100)
    with pytest.raises(ValidationError, match=r"stop \(0.4\) must not be before end \(0.5\)"):
        method(stop=0.4)
