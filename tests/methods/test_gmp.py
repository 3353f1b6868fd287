from __future__ import annotations

import itertools
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import torch
from method_views import SHAPES, one, rng, view
from pydantic import ValidationError

from gancompress.methods.base import NetView, Plan
from gancompress.methods.gmp import GMP, GMPConfig, Gradual
from gancompress.methods.granet import GraNet, GraNetConfig
from gancompress.methods.pruning import PruningConfig, cut, everything
from gancompress.sparsity.allocate import allocate

if TYPE_CHECKING:
    from gancompress.sparsity.state import SparseState


def gmp(**settings: Any) -> GMP:
    return GMP(GMPConfig.model_validate(settings))


def due(method: Gradual[Any], total: int) -> list[int]:
    return [step for step in range(1, total + 1) if Plan.UPDATE in method.plan("generator", step, total)]


def train(method: Gradual[Any], total: int, density: float = 0.05) -> list[tuple[int, SparseState, NetView]]:
    state = method.init(view(density=density), view(density=density).budget, rng())
    history = [(0, state, view(density=density))]
    for step in due(method, total):
        net = view(state, seed=step, density=density, step=step, total_steps=total)
        state = method.update(state, net, rng(step))
        state.check()
        history.append((step, state, net))
    return history


def closed_form(size: int, final: int, step: int, start: int, end: int) -> int:
    """Kept weights when the sparsity is ``s_f * (1 - (1 - (t - t0) / (t1 - t0)) ** 3)``, in exact arithmetic."""
    sparsity = Fraction(size - final, size) * (1 - (1 - Fraction(step - start, end - start)) ** 3)
    return round(size * (1 - sparsity))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(("start", "end", "every"), [(0.1, 0.8, 50), (0.0, 1.0, 70), (0.25, 0.5, 1)])
def test_density_at_every_update_is_the_closed_form(scope: str, start: float, end: float, every: int) -> None:
    total = 1000 if every > 1 else 100
    history = train(gmp(scope=scope, start=start, end=end, every=every), total)
    first, last = round(start * total), round(end * total)
    for step, state, _ in history[1:]:
        assert state.nonzeros == closed_form(2196, 110, step, first, last)
    assert history[-1][0] == last
    assert history[-1][1].nonzeros == 110 == round(0.05 * 2196)
    if scope == "layer":
        assert history[-1][1].budgets == allocate("erk", SHAPES, 0.05).counts


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_masked_weight_never_returns(scope: str) -> None:
    history = train(gmp(scope=scope, every=50), 1000)
    for (_, before, _), (_, after, _) in itertools.pairwise(history):
        assert not any((after.masks[name] & ~before.masks[name]).any() for name in SHAPES)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_granet_exchanges_to_the_end_without_changing_the_count(scope: str) -> None:
    method = GraNet(GraNetConfig(scope=scope, every=50))
    history = train(method, 1000)
    assert [step for step, _, _ in history][-4:] == [800, 850, 900, 950]
    late = 0
    for (_, before, _), (step, after, _) in itertools.pairwise(history):
        assert after.nonzeros == closed_form(2196, 110, min(step, 800), 100, 800)
        late += sum(int((after.masks[name] & ~before.masks[name]).sum()) for name in SHAPES) if step > 800 else 0
    assert late > 0
    assert Plan.DENSE_GRADIENT in method.plan("generator", 950, 1000)
    assert method.plan("generator", 1000, 1000) == Plan.NOTHING
    assert method.plan("discriminator", 925, 1000) == Plan.NOTHING


def test_granet_exchanges_the_weakest_for_the_steepest_by_hand() -> None:
    # two of four stay, half of them is exchanged: out goes 2, in comes the masked one of gradient 9
    constant = {"name": "constant", "value": 0.5}
    method = GraNet(GraNetConfig.model_validate({"start": 0, "end": 0, "scope": "layer", "drop_fraction": constant}))
    net = one([1.0, 2.0, 3.0, 0.5], [9.0, 0.0, 0.0, 8.0])
    state = method.update(method.init(net, net.budget, rng()), net, rng())
    assert state.masks["w"].tolist() == [True, False, True, False]


def test_regrow_of_gmp_points_to_granet() -> None:
    assert gmp(regrow=0.0).config == gmp().config
    with pytest.raises(ValueError, match="write method: granet, with drop_fraction"):
        gmp(regrow=0.3)


def test_a_score_that_is_no_number_is_pruned_first() -> None:
    net = one([1.0, 2.0, 3.0, 4.0])
    scores = {"w": torch.tensor([float("nan"), 2.0, float("nan"), 1.0])}
    state = cut(everything(net), net, scores, 2, PruningConfig())
    assert state.masks["w"].tolist() == [False, True, False, True]


def test_what_stu_gans_baseline_did_and_where_ours_ends() -> None:
    """Its 17 prunings of BigGAN stop at 95k of 125k steps and sparsity 0.94982; ours goes on to exactly 0.95."""
    steps = due(gmp(every=5000), 125_000)
    assert steps == [*range(15_000, 95_001, 5000), 100_000]
    assert len(steps) == 17 + 1
    budget = allocate("uniform", {"w": (1000, 1000)}, 0.05)
    assert 1 - gmp().kept(budget, 95_000, 125_000) / 1e6 == pytest.approx(0.94982, abs=5e-6)
    assert gmp().kept(budget, 100_000, 125_000) == 50_000


def test_schedule_by_hand() -> None:
    # half of the way: (1/2)^3 = 1/8 of the 900 weights that go are still there
    budget = allocate("uniform", {"w": (1000,)}, 0.1)
    method = gmp(start=0.2, end=0.6)
    assert [method.kept(budget, step, 100) for step in (20, 40, 60)] == [1000, 100 + 900 / 8 // 1, 100]


def test_only_the_asked_for_network_and_only_in_the_window() -> None:
    method = gmp(prune="generator", every=10)
    assert due(method, 100) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert not any(method.plan("discriminator", step, 100) for step in range(101))
    assert due(gmp(start=0.0, end=0.0), 100) == [1]
    assert due(gmp(every=1000), 100) == [80]  # an interval longer than training still ends at the density asked for


def test_a_tiny_layer_survives_a_global_schedule() -> None:
    method = gmp(every=50)
    state = method.init(view(density=0.05), view(density=0.05).budget, rng())
    for step in due(method, 1000):
        net = view(state, seed=step, density=0.05, step=step)
        shrunk = {name: weight * (1e-6 if name in ("first", "output") else 1) for name, weight in net.weights.items()}
        state = method.update(state, view(state, density=0.05, step=step, weights=shrunk), rng())
    assert state.budgets["first"] == 3  # a tenth of 0.05 of 432, rounded up
    assert state.budgets["output"] >= 16  # 0.05 of 324; its share of what the emptier layers leave


def test_start_after_end_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match=r"start \(0.9\) must not be after end \(0.8\)"):
        gmp(start=0.9)
