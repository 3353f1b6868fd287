from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gancompress.backbones.layers import spectral
from gancompress.objectives.regularisers import filter_matrices, orthogonal_penalty


def test_by_hand():
    # filters (1, 2), (3, 0), (0, 1): products 3, 2, 0, each pair counted twice
    wide = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert orthogonal_penalty([wide]).item() == 26.0
    # the same filters padded, so that there are fewer of them than elements
    assert orthogonal_penalty([torch.nn.functional.pad(wide, (0, 3))]).item() == 26.0
    assert orthogonal_penalty([wide, wide.view(3, 2, 1, 1)]).item() == 52.0


def test_norms_are_free_and_directions_are_not():
    assert orthogonal_penalty([torch.diag(torch.tensor([5.0, 0.1, 3.0]))]).item() == 0.0
    assert orthogonal_penalty([torch.ones(1, 7)]).item() == 0.0
    assert orthogonal_penalty([torch.ones(2, 7)]).item() == 98.0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_value_and_gradient_agree_with_the_definition(rows, columns, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    penalty = orthogonal_penalty([weight])
    (gradient,) = torch.autograd.grad(penalty, weight)
    off = (weight @ weight.t()) * (1 - torch.eye(rows))
    torch.testing.assert_close(penalty, off.square().sum(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gradient, 4 * off @ weight, rtol=1e-4, atol=1e-3)


def test_float32_under_autocast():
    weight = torch.full((2, 3), 1.001)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = orthogonal_penalty([weight.bfloat16(), weight])
    assert penalty.dtype is torch.float32
    torch.testing.assert_close(penalty, torch.tensor(18.0 + 2 * (3 * 1.001**2) ** 2))


def test_filters_of_a_network():
    network = nn.Sequential(
        spectral(nn.Conv2d(2, 3, 3)),
        nn.BatchNorm2d(3),
        nn.ConvTranspose2d(3, 5, 2),
        nn.Linear(4, 6),
        nn.Embedding(7, 8),
    )
    matrices = filter_matrices(network)
    assert [tuple(m.shape) for m in matrices] == [(3, 2, 3, 3), (5, 3, 2, 2), (6, 4)]
    orthogonal_penalty(matrices).backward()
    assert network[0].parametrizations.weight.original.grad.abs().max() > 0
    assert network[2].weight.grad.abs().max() > 0
    assert network[4].weight.grad is None


def test_descent_pulls_filters_apart():
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        orthogonal_penalty(filter_matrices(layer)).backward()
        optimizer.step()
    assert orthogonal_penalty(filter_matrices(layer)) < 1e-6
    assert layer.weight.norm() > 0.5


def test_nothing_to_regularise_is_an_error():
    with pytest.raises(ValueError, match="no weights"):
        orthogonal_penalty(filter_matrices(nn.ReLU()))
