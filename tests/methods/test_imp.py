from __future__ import annotations

import itertools
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from method_views import SHAPES, rng, view
from pydantic import ValidationError

from gancompress.errors import RecipeError
from gancompress.methods.base import Plan, Round
from gancompress.methods.imp import IMP, IMPConfig
from gancompress.sparsity.allocate import allocate

if TYPE_CHECKING:
    from gancompress.sparsity.state import Role, SparseState

BOTH: dict[Role, float] = {"generator": 0.1, "discriminator": 0.1}


def imp(**settings: Any) -> IMP:
    return IMP(IMPConfig.model_validate(settings))


def win(method: IMP, density: float, seed: int = 0) -> list[SparseState]:
    """The states of every round, on weights that each round ends with anew."""
    net = view(density=density)
    state = method.init(net, net.budget, rng(seed))
    states = [state]
    asked: dict[Role, float] = {"generator": density, "discriminator": density}
    for index, upcoming in enumerate(method.rounds(100, asked)[1:], start=1):
        net = view(state, seed=index, density=density, round=index)
        state = method.next_round(state, net, upcoming, rng(seed + index))
        state.check()
        states.append(state)
    return states


def test_the_published_sequence_to_the_integer() -> None:
    """A million weights: 0.8, 0.64, ... 0.1074 after ten rounds, each a fifth fewer."""
    budget = allocate("uniform", {"w": (1_000_000,)}, 0.05)
    assert [imp().kept(budget, index) for index in range(11)] == [
        *[1_000_000, 800_000, 640_000, 512_000, 409_600, 327_680],
        *[262_144, 209_715, 167_772, 134_218, 107_374],
    ]


@pytest.mark.parametrize(
    ("density", "rate", "expected"),
    [
        *[(1.0, 0.2, 0), (0.99, 0.2, 1), (0.8, 0.2, 1), (0.64, 0.2, 2), (0.512, 0.2, 3), (0.1074, 0.2, 10)],
        *[(0.107, 0.2, 11), (0.1, 0.2, 11), (0.05, 0.2, 14), (0.25, 0.5, 2), (0.24, 0.5, 3), (0.1, 0.9, 1)],
    ],
)
def test_rounds_needed(density: float, rate: float, expected: int) -> None:
    assert imp(rate=rate).prunings(density) == expected


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_kept_weights_per_round_are_exact(scope: str) -> None:
    states = win(imp(scope=scope), 0.1)
    exact = [round(Fraction(4, 5) ** k * 2196) for k in range(11)]
    assert exact[:4] == [2196, 1757, 1405, 1124]  # 1756.8, 1405.44, 1124.35
    assert [state.nonzeros for state in states] == [*exact, round(0.1 * 2196)]
    for before, after in itertools.pairwise(states):
        assert not any((after.masks[name] & ~before.masks[name]).any() for name in SHAPES)
    if scope == "layer":
        assert states[-1].budgets == allocate("erk", SHAPES, 0.1).counts


def test_global_ranking_by_hand() -> None:
    net = view(density=0.8)
    method = imp(layer_floor=0.0, protect_output=False)
    state = method.next_round(method.init(net, net.budget, rng()), view(density=0.8, round=1), Round("p", 1), rng())
    everything = [weight.abs().flatten() for weight in net.weights.values()]
    threshold = sorted(value for part in everything for value in part.tolist())[2196 - 1757]
    assert all(bool((state.masks[name] == (net.weights[name].abs() >= threshold)).all()) for name in SHAPES)


def test_rounds_as_published() -> None:
    rounds = imp().rounds(50_000, BOTH)
    assert len(rounds) == 12
    assert rounds[0] == Round("dense", 50_000)
    assert rounds[3] == Round("prune 3/11", 50_000, "rewind", "rewind", 0, 0.0)
    assert sum(current.steps for current in rounds) == 12 * 50_000


def test_rounds_by_settings() -> None:
    settings = {"generator": "keep", "discriminator": "reinitialise", "rewind_step": 40, "distillation": 2.0}
    rounds = imp(**settings).rounds(100, BOTH)
    assert rounds[0] == Round("dense", 100)
    assert set(rounds[1:]) == {
        Round(f"prune {k}/11", 100, "keep", "reinitialise", rewind_step=40, distillation=2.0) for k in range(1, 12)
    }
    assert len(imp(prune="generator").rounds(100, {"generator": 0.64, "discriminator": 0.01})) == 3
    assert imp().rounds(100, {"generator": 1.0, "discriminator": 1.0}) == (Round("dense", 100),)


@pytest.mark.parametrize("steps", [12, 13, 100, 5003])
def test_equal_total_steps(steps: int) -> None:
    lengths = [current.steps for current in imp(budget="total").rounds(steps, BOTH)]
    assert sum(lengths) == steps
    assert max(lengths) - min(lengths) <= 1


def test_rounds_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match=r"takes 12 rounds, but training\.steps is 11"):
        imp(budget="total").rounds(11, BOTH)
    with pytest.raises(RecipeError, match="rewind_step is 101, but the dense round has 100 steps"):
        imp(rewind_step=101).rounds(100, BOTH)
    for wrong in ({"rate": 0}, {"rate": 1}, {"budget": "half"}, {"distillation": -1}, {"generator": "again"}):
        with pytest.raises(ValidationError):
            imp(**wrong)


def test_networks_of_different_density() -> None:
    """The denser one reaches its density earlier and stays there."""
    asked: dict[Role, float] = {"generator": 0.4, "discriminator": 0.7}
    method = imp()
    assert len(method.rounds(10, asked)) == 1 + 5  # 0.8 ** 5 is 0.328
    budget = allocate("erk", SHAPES, 0.7)
    assert [method.kept(budget, index) for index in range(6)] == [2196, 1757, 1537, 1537, 1537, 1537]


def test_a_network_that_is_not_pruned_stays_dense() -> None:
    method, net = imp(prune="discriminator"), view(round=1)
    state = method.init(net, net.budget, rng())
    assert method.next_round(state, net, Round("prune 1/8", 10), rng()) is state


def test_the_random_control_follows_the_ticket_and_keeps_its_layers() -> None:
    ticket, control = win(imp(), 0.3), win(imp(control="random"), 0.3)
    assert len(control) == len(ticket) + 1
    assert [state.hash() for state in control[:-1]] == [state.hash() for state in ticket]
    assert control[-1].budgets == ticket[-1].budgets
    assert control[-1].hash() != ticket[-1].hash()
    assert control[-1].hash() != win(imp(control="random"), 0.3, seed=1)[-1].hash()
    assert imp(control="random").rounds(100, BOTH)[-1] == Round("control", 100, "rewind", "rewind")


def test_tickets_never_change_within_a_round() -> None:
    assert {imp().plan("generator", step, 100) for step in range(101)} == {Plan.NOTHING}
