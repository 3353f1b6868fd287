from __future__ import annotations

import pytest
import torch

from gancompress.errors import InvariantError
from gancompress.sparsity import scores
from gancompress.sparsity.state import SparseState


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
