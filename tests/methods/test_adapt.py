from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from method_views import SHAPES, rng, view
from pydantic import ValidationError

from gancompress.errors import RecipeError
from gancompress.methods.adapt import Adapt, AdaptConfig, balance_ratio
from gancompress.methods.base import Measure, Plan
from gancompress.methods.pruning import everything
from gancompress.methods.static import random_state
from gancompress.sparsity.allocate import allocate

if TYPE_CHECKING:
    from gancompress.sparsity.state import SparseState

SIZE = 2196
STEP = 110  # 0.05 of 2196 is 109.8


def adapt(**settings: Any) -> Adapt:
    return Adapt(AdaptConfig.model_validate({"window": 4, **settings}))


def signals(real: list[float], fake: list[float], after: list[float]) -> dict[str, torch.Tensor]:
    values = {"d_real": real, "d_fake": fake, "d_fake_after": after}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def balance(ratio: float, records: int = 4) -> dict[str, torch.Tensor]:
    """Records of one ratio."""
    return signals([1.0] * records, [0.0] * records, [ratio] * records)


def discriminator(density: float) -> SparseState:
    return random_state(view(), allocate("erk", SHAPES, density), rng())


def decide(method: Adapt, state: SparseState, recorded: dict[str, torch.Tensor]) -> SparseState:
    net = view(state, role="discriminator", signals=recorded)
    new = method.update(state, net, rng())
    new.check()
    return new


def test_balance_ratio_by_hand() -> None:
    recorded = signals([2.0, 2.0], [1.0, 0.0], [1.5, 0.5])  # gains 0.5 and 0.5, margins 1 and 2
    assert balance_ratio(recorded, "ratio-of-means", 1e-3) == pytest.approx(1 / 3)
    assert balance_ratio(recorded, "mean-of-ratios", 1e-3) == pytest.approx(0.375)


def test_balance_ratio_without_a_margin() -> None:
    blind = signals([0.5, 0.5], [0.5, 0.5], [0.6, 0.4])
    assert balance_ratio(blind, "ratio-of-means", 1e-3) == math.inf
    assert math.isnan(balance_ratio(blind, "mean-of-ratios", 1e-3))  # inf - inf
    inverted = signals([-1.0], [1.0], [1.1])
    assert balance_ratio(inverted, "ratio-of-means", 1e-3) == math.inf
    # one record of a tiny margin decides a mean of ratios and hardly moves a ratio of means
    outlier = signals([1.0, 1.0, 1.0, 1e-6], [0.0] * 4, [0.5, 0.5, 0.5, 0.5])
    assert balance_ratio(outlier, "mean-of-ratios", 1e-3) > 1e5
    assert balance_ratio(outlier, "ratio-of-means", 1e-3) == pytest.approx(2 / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "change"),
    [(0.0, -1), (-3.0, -1), (0.45, -1), (0.4501, 0), (0.5, 0), (0.5499, 0), (0.55, 1), (7.0, 1), (math.nan, 0)],
)
def test_decisions_by_hand(ratio: float, change: int) -> None:
    before = discriminator(0.3)
    after = decide(adapt(), before, balance(ratio))
    assert before.nonzeros == 659
    assert after.nonzeros == 659 + change * STEP
    if change <= 0:
        assert not any((after.masks[name] & ~before.masks[name]).any() for name in SHAPES)
    else:
        assert not any((before.masks[name] & ~after.masks[name]).any() for name in SHAPES)


def test_recorded_decisions_in_a_row() -> None:
    state, kept = discriminator(0.3), []
    for ratio in (0.2, 0.5, 0.7, 0.7, math.inf, 0.46, 0.44, 0.1):
        state = decide(adapt(averaging="mean-of-ratios"), state, balance(ratio))
        kept.append(state.nonzeros)
    assert kept == [549, 549, 659, 769, 879, 879, 769, 659]


def test_nothing_before_the_window_is_full() -> None:
    before = discriminator(0.3)
    for recorded in ({"d_real": torch.zeros(0)}, balance(0.1, records=3)):
        assert decide(adapt(), before, recorded) is before
    assert decide(adapt(), before, balance(0.1, records=4)).nonzeros == 659 - STEP


def test_floor_and_ceiling() -> None:
    low = decide(adapt(), discriminator(0.06), balance(0.1))
    assert low.nonzeros == round(0.05 * SIZE) == 110
    assert decide(adapt(), low, balance(0.1)) is low
    high = decide(adapt(), discriminator(0.97), balance(0.9))
    assert high.nonzeros == SIZE
    assert decide(adapt(), high, balance(0.9)) is high
    assert decide(adapt(), high, balance(0.1)).nonzeros == SIZE - STEP
    capped = decide(adapt(max_density=0.32), discriminator(0.3), balance(0.9))
    assert capped.nonzeros == round(0.32 * SIZE)


def test_strict_stops_at_half_and_explores_there() -> None:
    strict = adapt(mode="strict")
    full = decide(strict, discriminator(0.48), balance(0.9))
    assert full.nonzeros == SIZE // 2
    explored = decide(strict, full, balance(0.9))
    assert explored.nonzeros == SIZE // 2
    assert explored.hash() != full.hash()
    assert decide(strict, full, balance(0.5)) is full
    assert decide(strict, full, balance(0.1)).nonzeros == SIZE // 2 - STEP
    relaxed = decide(adapt(), full, balance(0.9))
    assert relaxed.nonzeros == SIZE // 2 + STEP


def test_weights_are_gained_where_the_gradient_is_steepest() -> None:
    before = discriminator(0.3)
    net = view(before, role="discriminator", signals=balance(0.9))
    after = adapt().update(before, net, rng())
    assert net.gradients is not None
    slopes = torch.cat([net.gradients[name].abs()[~before.masks[name]] for name in SHAPES])
    grown = torch.cat([net.gradients[name].abs()[after.masks[name] & ~before.masks[name]] for name in SHAPES])
    assert torch.equal(grown.sort().values, slopes.sort().values[-STEP:])


def test_losing_weights_leaves_every_layer_its_floor() -> None:
    state = discriminator(0.3)
    for _ in range(20):
        tiny = {name: w * (1e-6 if name in ("shortcut", "output") else 1) for name, w in view(state).weights.items()}
        net = view(state, role="discriminator", signals=balance(0.1), weights=tiny)
        state = adapt().update(state, net, rng())
        state.check()
    assert state.nonzeros == 110
    assert min(state.budgets.values()) >= 1
    assert state.budgets["output"] >= 16  # 0.05 of 324


def test_the_generator_explores_at_its_density() -> None:
    method = adapt()
    before = method.init(view(), view().budget, rng())
    after = method.update(before, view(before, signals=balance(0.9)), rng())
    after.check()
    assert after.nonzeros == before.nonzeros == 439
    assert after.hash() != before.hash()


def test_plan_and_measurement() -> None:
    method = Adapt(AdaptConfig())
    assert method.measure == Measure(10, 100)
    wanted = Plan.UPDATE | Plan.DENSE_GRADIENT
    assert [step for step in range(5001) if method.plan("generator", step, 5000)] == list(range(500, 5000, 500))
    assert [s for s in range(5001) if method.plan("discriminator", s, 5000) == wanted] == [1000, 2000, 3000, 4000]


def test_mistakes() -> None:
    dense = view(role="discriminator", budget=allocate("erk", SHAPES, 0.6))
    with pytest.raises(RecipeError, match=r"starts at density 0\.6, but strict adapt lets it have 0\.5 at most"):
        adapt(mode="strict").init(dense, dense.budget, rng())
    assert adapt(mode="strict").init(view(budget=dense.budget), dense.budget, rng()).nonzeros == dense.budget.total
    assert adapt().init(dense, allocate("erk", SHAPES, 1.0), rng()).masks.keys() == everything(dense).masks.keys()
    for wrong in ({"low": 0.6}, {"min_density": 0.6, "mode": "strict"}, {"guard": 0}, {"window": 0}, {"mode": "lax"}):
        with pytest.raises(ValidationError):
            adapt(**wrong)


def test_the_balance_a_decision_rests_on_is_logged() -> None:
    method = Adapt(AdaptConfig(window=4))
    net = view(discriminator(0.3), role="discriminator", signals=balance(0.7))
    assert method.notes(net) == {"balance_ratio": pytest.approx(0.7)}
    early = view(discriminator(0.3), role="discriminator", signals=balance(0.7, records=3))
    assert method.notes(early) == {}  # the window is not full: nothing is decided
    assert set(method.notes(view(discriminator(0.3), step=1))) == {"drop_fraction"}
