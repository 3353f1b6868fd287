"""Weights that a module computes are written out when it is captured, and can be pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from gancompress.backbones.base import prunable_weights
from gancompress.foreign.compress import compress_network
from gancompress.foreign.network import capture_module

if TYPE_CHECKING:
    from collections.abc import Callable


def _pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return layer


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "spectral norm": spectral_norm,
    "spectral norm as a parametrisation": parametrizations.spectral_norm,
    "weight norm": weight_norm,
    "weight norm as a parametrisation": parametrizations.weight_norm,
    "masks of torch.nn.utils.prune": _pruned,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("layer", ["conv", "transposed"])
@pytest.mark.parametrize("way", WAYS)
def test_a_computed_weight_is_one_that_can_be_pruned(way: str, layer: str) -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3) if layer == "conv" else nn.ConvTranspose2d(3, 8, 4, 2)
    module = nn.Sequential(WAYS[way](first), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    x = torch.rand(2, 3, 9, 9)
    with torch.no_grad():
        wanted = module(x)
        network = capture_module(module, (x,))
        torch.testing.assert_close(network(x), wanted)
        torch.testing.assert_close(module(x), wanted)  # left as it was
    assert [*prunable_weights(network)] == ["0.weight", "2.weight"]
    assert set(network.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    small = compress_network(network, 0.5, [(torch.rand(2, 3, 9, 9),) for _ in range(2)])
    assert small.density == pytest.approx(0.5, abs=0.01)
