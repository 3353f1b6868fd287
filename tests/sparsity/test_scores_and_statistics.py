from __future__ import annotations

import pytest
import torch

from gancompress.errors import InvariantError
from gancompress.sparsity import scores
from gancompress.sparsity.state import SparseState
from gancompress.sparsity.statistics import Churn, churn, dead_channels, exploration_rate


def test_scores_by_hand() -> None:
    weight = torch.tensor([1.0, -2.0, 0.0], requires_grad=True)
    grad = torch.tensor([-3.0, 0.5, 9.0])
    assert scores.magnitude(weight).tolist() == [1, 2, 0]
    assert scores.gradient(grad).tolist() == [3, 0.5, 9]
    assert scores.sensitivity(weight, grad).tolist() == [3, 1, 0]
    assert scores.momentum(grad).tolist() == [3, 0.5, 9]
    assert not scores.magnitude(weight).requires_grad
    assert not scores.sensitivity(weight, grad).requires_grad


def test_random_scores_come_from_their_generator_alone() -> None:
    torch.manual_seed(0)
    first = scores.random_scores((2, 3), torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    assert torch.equal(first, scores.random_scores((2, 3), torch.Generator().manual_seed(5)))
    assert not torch.equal(first, scores.random_scores((2, 3), torch.Generator().manual_seed(6)))
    assert first.dtype is torch.float64


def test_churn_by_hand() -> None:
    old = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True])}
    new = {"a": torch.tensor([True, False, True, True]), "b": torch.tensor([True])}
    assert churn(old, new) == Churn(grown=2, dropped=1, kept=4)
    assert churn(old, new).rate == 0.5
    assert churn(old, old).rate == 0
    assert Churn(0, 0, 0).rate == 0


def test_exploration_rate_by_hand() -> None:
    assert exploration_rate({"a": torch.tensor([True, True, False]), "b": torch.tensor([False])}) == 0.5
    assert exploration_rate({}) == 0


def test_dead_channels_by_hand() -> None:
    mask = torch.zeros(3, 4, 2, 2, dtype=torch.bool)
    mask[0, 1, 0, 0] = mask[2, 1, 1, 1] = True
    assert dead_channels(mask) == 1
    assert dead_channels(mask, dim=1) == 3
    assert dead_channels(torch.zeros(2, 0, dtype=torch.bool)) == 2


def test_state_checks_itself() -> None:
    mask = torch.tensor([True, False])
    SparseState({"w": mask}, {"w": 1}).check()
    for broken, message in (
        (SparseState({"w": mask}, {"w": 2}), "keeps 1 weights, its budget is 2"),
        (SparseState({"w": mask}, {"v": 1}), "different tensors: v, w"),
        (SparseState({"w": mask.float()}, {"w": 1}), "expected bool"),
    ):
        with pytest.raises(InvariantError, match=message):
            broken.check()
    assert SparseState({"w": mask}, {"w": 1}).hash() != SparseState({"w": ~mask}, {"w": 1}).hash()
