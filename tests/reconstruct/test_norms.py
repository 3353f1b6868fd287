"""Running statistics of batch norms after pruning."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from gancompress.foreign.network import capture_module
from gancompress.reconstruct.norms import estimate_norms

if TYPE_CHECKING:
    from gancompress.graphs.build import CapturedModule


def network(seed: int = 0) -> CapturedModule:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4, eps=1e-3), nn.Tanh()
    )
    for norm in (module[1], module[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return capture_module(module, (torch.rand(2, 3, 8, 8),))


def inputs() -> list[tuple[Tensor, ...]]:
    return [(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)),) for seed in range(3)]


def test_scaled_and_shifted_maps_are_put_right_exactly() -> None:
    dense = network()
    pruned = copy.deepcopy(dense)
    first, second = (pruned.get_submodule(path) for path in ("0", "3"))
    scale = torch.tensor([0.5, 2, 3, 0.1, 1, 4])
    first.weight.mul_(scale[:, None, None, None])
    first.bias.mul_(scale).add_(torch.arange(6))
    second.weight.mul_(0.25)
    assert estimate_norms(pruned, dense, inputs())
    for given in inputs():
        torch.testing.assert_close(pruned(*given), dense(*given), rtol=0, atol=1e-5)
    assert torch.allclose(dense.get_submodule("1").running_mean, network().get_submodule("1").running_mean)


def test_a_network_that_is_right_stays() -> None:
    dense = network()
    pruned = copy.deepcopy(dense)
    estimate_norms(pruned, dense, inputs())
    for name, tensor in dense.state_dict().items():
        torch.testing.assert_close(pruned.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_what_makes_outputs_worse_is_taken_back() -> None:
    dense = network()
    pruned = copy.deepcopy(dense)
    last = pruned.get_submodule("3")
    last.weight.copy_(torch.randn(last.weight.shape) * 1e-3)  # maps of noise: their right spread is all error
    before = {name: tensor.clone() for name, tensor in pruned.state_dict().items()}
    assert not estimate_norms(pruned, dense, inputs())
    assert all(torch.equal(tensor, before[name]) for name, tensor in pruned.state_dict().items())


def test_a_dead_channel_gets_the_mean_of_the_dense_one() -> None:
    dense = network()
    pruned = copy.deepcopy(dense)
    pruned.get_submodule("0").weight[2] = 0
    pruned.get_submodule("0").bias[2] = 7
    assert estimate_norms(pruned, dense, inputs())
    norm, whole = pruned.get_submodule("1"), dense.get_submodule("1")
    maps = torch.cat([dense.get_submodule("0")(given[0]) for given in inputs()])
    gives = (7 - norm.running_mean[2]) / (norm.running_var[2] + norm.eps).sqrt()
    wanted = (maps[:, 2].mean() - whole.running_mean[2]) / (whole.running_var[2] + whole.eps).sqrt()
    assert float(gives) == pytest.approx(float(wanted), abs=1e-4)


def test_without_batch_norms_nothing_is_computed() -> None:
    plain = capture_module(nn.Sequential(nn.Conv2d(3, 2, 3)), (torch.rand(2, 3, 8, 8),))
    assert not estimate_norms(plain, plain, [])
