"""Least squares over a part of the inputs: known answers."""

from __future__ import annotations

import pytest
import torch

from gancompress.reconstruct import solve
from gancompress.reconstruct.solve import chance, damped, fit, inverse_diagonal, refit


def problem(inputs: int = 12, outputs: int = 5, count: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    x = (
        torch.randn(count, inputs, generator=rng, dtype=torch.float64)
        @ torch.randn(inputs, inputs, generator=rng).double()
    )
    y = x @ torch.randn(inputs, outputs, generator=rng).double() + torch.randn(count, outputs, generator=rng).double()
    kept = torch.rand(outputs, inputs, generator=rng) < 0.5
    kept[0] = False  # an output of which nothing is kept
    return x, y, kept


def error(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (x @ weights.T - y).square().sum(0)


def by_hand(x: torch.Tensor, y: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    found = torch.zeros(kept.shape, dtype=torch.float64)
    for row, own in enumerate(kept):
        if own.any():
            found[row, own] = torch.linalg.lstsq(x[:, own], y[:, row, None]).solution.flatten()
    return found


def test_a_refit_is_the_least_squares_of_what_is_kept() -> None:
    x, y, kept = problem()
    expected = by_hand(x, y, kept)
    assert torch.allclose(refit(x.T @ x, x.T @ y, kept), expected, atol=1e-9)
    assert torch.allclose(fit(x.T @ x, x.T @ y, kept, torch.ones(12))[0], expected, atol=1e-9)


def test_a_saliency_is_what_removing_the_weight_costs_after_refitting() -> None:
    x, y, kept = problem()
    weights, costs = fit(x.T @ x, x.T @ y, kept, torch.ones(12))
    before = error(x, y, weights)
    for row, column in kept.nonzero().tolist():
        without = kept.clone()
        without[row, column] = False
        grown = error(x, y, by_hand(x, y, without))[row] - before[row]
        assert costs[row, column] == pytest.approx(float(grown), rel=1e-6)
    assert not costs[~kept].any()


def test_saliencies_in_turn_are_what_it_costs_when_the_ones_before_are_gone() -> None:
    """By hand: the cheapest goes, the others are refitted, and so on."""
    x, y, kept = problem()
    kept[1] = True
    moments, cross, spread = x.T @ x, x.T @ y, torch.ones(12)
    weights, alone = fit(moments, cross, kept, spread)
    found = fit(moments, cross, kept, spread, 0.75)[1]
    assert torch.allclose(fit(moments, cross, kept, spread, 0.75)[0], weights)
    for row, own in enumerate(kept):
        left, last = own.clone(), 0.0
        among = alone[row].masked_fill(~own, torch.inf).argsort()[: min(9, int(own.sum()))].tolist()
        while among:
            costs = fit(moments, cross, left[None].expand(5, 12), spread)[1][row]
            cheapest = min(among, key=lambda one: float(costs[one]))
            last = max(last, float(costs[cheapest]))
            assert found[row, cheapest] == pytest.approx(last, rel=1e-6)
            left[cheapest] = False
            among.remove(cheapest)
        assert (found[row][left] >= alone[row][left]).all()
        assert (found[row][left] >= last * (1 - 1e-9)).all()
        assert not found[row][~own].any()


def test_systems_that_are_large_are_solved_together_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, kept = problem()
    monkeypatch.setattr(solve, "_DIRECT", 0.0)
    assert torch.allclose(refit(x.T @ x, x.T @ y, kept), by_hand(x, y, kept), atol=1e-6)
    weights, costs = fit(x.T @ x, x.T @ y, kept, inverse_diagonal(x.T @ x))
    assert torch.allclose(costs, weights**2 / torch.linalg.inv(x.T @ x).diagonal())


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    moments = damped(torch.zeros(3, 3), 1e-4)
    assert torch.equal(refit(moments, torch.zeros(3, 2).double(), torch.ones(2, 3).bool()), torch.zeros(2, 3).double())
    assert torch.equal(damped(torch.eye(2) * 4, 0.25), torch.eye(2).double() * 5)


def test_few_inputs_of_many_directions_need_more_damping() -> None:
    one_direction = torch.ones(10, 10, dtype=torch.float64)  # its square is its trace's
    assert chance(one_direction, 9) == pytest.approx(1.8 / (0.9 * 9.8))
    assert chance(one_direction, 99) == pytest.approx(1.8 / (0.9 * 99.8) * (10 / 99) ** 2)
    assert chance(torch.eye(10, dtype=torch.float64), 5) == 1
    x, _, _ = problem(count=400)
    assert 0 < chance(x.T @ x, 4000) < chance(x.T @ x, 40) < 1
