"""Networks whose convolutions are modulated by styles: opened, pruned, kept in a file, run sparse."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from style_networks import WAYS, Modulated, Synthesis
from torch import Tensor

from gancompress.backbones.base import prunable_weights
from gancompress.foreign.compress import compress_network
from gancompress.foreign.network import capture_module

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.graphs.build import CapturedModule


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


@pytest.mark.parametrize("way", WAYS)
def test_a_modulated_convolution_is_a_layer_with_a_shared_weight(way: str) -> None:
    torch.manual_seed(0)
    module = Modulated(way)
    network = capture_module(module, (torch.randn(2, 5, 6, 8), torch.randn(2, 15)))
    weights = prunable_weights(network)
    shapes = [sorted(one.parameter.shape[:2]) for one in weights.values()]  # a transposed one has them the other way
    assert ([*weights], shapes) == (["same.weight", "up.weight", "image.weight"], [[5, 6], [4, 6], [3, 4]])
    for batch in (1, 2, 5):
        x, styles = torch.randn(batch, 5, 6, 8), torch.randn(batch, 15)
        with torch.no_grad():
            assert difference(module(x, styles), network(x, styles)) < 1e-5
    # what is left beside the layers: filters and sums of squares, no weight, and none per image
    rest = {name: tensor for name, tensor in network.state_dict().items() if name not in weights}
    assert all(tensor.numel() <= 30 for tensor in rest.values()), {name: one.shape for name, one in rest.items()}


@functools.cache
def synthesis(way: str) -> tuple[Synthesis, CapturedModule]:
    torch.manual_seed(0)
    module = Synthesis(way).eval()
    return module, capture_module(module, (torch.randn(2, 6),))


LAYERS = [
    f"{name}.{part}.weight" for name in ("conv1", "first", "up", "conv2", "second") for part in ("affine", "weight")
]
FEW = [pytest.param(way, marks=() if way == "groups_of_images" else pytest.mark.slow) for way in WAYS]


@pytest.mark.parametrize("way", FEW)  # capturing one takes seconds
def test_a_synthesis_network_is_compressed_and_loaded_where_nothing_knows_it(way: str, tmp_path: Path) -> None:
    module, network = synthesis(way)
    assert [*prunable_weights(network)] == ["mapping.0.weight", "mapping.2.weight", *LAYERS]
    assert len(network.captured.tensors) == len(network.state_dict())
    latents = [torch.randn(4, 6) for _ in range(6)]
    with torch.no_grad():
        assert difference(module(latents[0]), network(latents[0])) < 1e-5
    small = compress_network(network, 0.5, [(z,) for z in latents])
    worse = compress_network(network, 0.5, method="magnitude")
    for made in (small, worse):
        assert made.density == pytest.approx(0.5, abs=0.01)
        assert all(not (made.network.get_parameter(name)[~mask]).any() for name, mask in made.masks.items())
    z = torch.randn(3, 6)
    with torch.no_grad():
        wanted = module(z)
        assert (small(z) - wanted).square().mean() < 0.5 * (worse(z) - wanted).square().mean()
    file = small.save(tmp_path / "small.safetensors")
    save_file({"x": z, "y": small(z)}, tmp_path / "pair.safetensors")
    code = (
        "import sys, torch, gancompress; from safetensors.torch import load_file; pair = load_file(sys.argv[2]); "
        "assert torch.equal(gancompress.load(sys.argv[1])(pair['x']), pair['y'])"
    )
    subprocess.run([sys.executable, "-c", code, str(file), str(tmp_path / "pair.safetensors")], check=True)
