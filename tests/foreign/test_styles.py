"""Networks whose convolutions are modulated by styles: opened, pruned, kept in a file, run sparse."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from style_networks import WAYS, Modulated, Synthesis
from torch import Tensor, nn

import gancompress
from gancompress.backbones.base import prunable_weights
from gancompress.foreign.compress import compress_network
from gancompress.foreign.network import capture_module
from gancompress.lowering.network import SparseNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.mark import ParameterSet

    from gancompress.graphs.build import CapturedModule


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


def few(*fast: str) -> list[ParameterSet]:
    """Return all ways, of which only some are tried every time: torch takes seconds to capture one."""
    return [pytest.param(way, marks=() if way in fast else pytest.mark.slow) for way in WAYS]


@pytest.mark.parametrize("way", few("groups_of_images", "normalized", "scales_of_maps"))
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
    run = SparseNetwork(network, {}, "always")
    assert difference(network(x, styles), run(x, styles)) < 1e-5
    profile = run.profile(x, styles)
    assert profile.dense == {}
    assert {*weights} <= {*profile.sparse}
    # scales of maps, and filters, are part of the program; other enlargements are in torch
    assert profile.programs == {"flattened": 3, "products_of_matrices": 2}.get(way, 1)
    # what is left beside the layers: filters and sums of squares, no weight, and none per image
    rest = {name: tensor for name, tensor in network.state_dict().items() if name not in weights}
    assert all(tensor.numel() <= 64 for tensor in rest.values()), {name: one.shape for name, one in rest.items()}


class Raw(nn.Module):
    """Raw parameters in all places: multiplied, transposed, repeated, beside children and biases, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))
        self.bias = nn.Parameter(torch.randn(6))
        self.inner = nn.Module()
        self.inner.weight = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.inner.child = nn.Conv2d(6, 6, 3, padding="same")
        self.inner.register_parameter("bias", nn.Parameter(torch.randn(6)))
        self.kernel = nn.Parameter(torch.randn(4, 6, 4, 4))
        self.shared = nn.Parameter(torch.randn(4, 4, 3, 3))
        self.register_buffer("taps", torch.rand(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight * 0.2, self.bias * 2, padding=1)
        x = F.conv2d(x, self.inner.weight * self.inner.weight.square().mean([1, 2, 3], True).rsqrt(), None, 1, 1, 1, 2)
        x = self.inner.child(x) + self.inner.bias.view(1, -1, 1, 1)
        x = F.conv_transpose2d(x, self.kernel.transpose(0, 1), stride=2, padding=1)
        x = F.conv2d(x, self.taps.expand(4, 1, 3, 3), padding=1, groups=4)
        for _ in range(2):
            x = F.leaky_relu(F.conv2d(x, self.shared.flip(2, 3), padding=1), 0.2)
        return x


def test_raw_parameters_are_weights_of_layers_and_filters_are_not() -> None:
    torch.manual_seed(0)
    module, x = Raw(), torch.randn(2, 4, 6, 8)
    network = capture_module(module, (x,), [{0: "n", 2: "h", 3: "w"}])
    weights = prunable_weights(network)
    assert [*weights] == [
        "weight.weight", "inner.weight.weight", "inner.child.weight", "kernel.weight", "shared.weight"
    ]  # fmt: skip
    assert weights["weight.weight"].layer.bias == "weight.bias"
    for shape in ((2, 4, 6, 8), (1, 4, 5, 9)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert difference(module(x), network(x)) < 1e-5
    assert {name for name in network.captured.tensors if name not in weights} == {
        "weight.bias", "inner.child.bias", "inner.bias", "taps"
    }  # fmt: skip


class Grouped(nn.Module):
    """A signal, a bias for every image, weights without styles."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(1, 5, 4, 3)), nn.Parameter(torch.randn(5))
        self.plain, self.shift = nn.Parameter(torch.randn(2, 5, 1)), nn.Linear(4, 2)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        n = x.shape[0]
        weight = (self.weight * styles.view(n, 1, 4, 1)).reshape(5 * n, 4, 3)
        x = F.conv1d(x.reshape(1, 4 * n, -1), weight, self.bias.repeat(n), padding=1, groups=n)
        plain = self.plain.repeat(n, 1, 1)
        return F.conv1d(x, plain, self.shift(styles).flatten(), groups=n).reshape(n, 2, -1)


@pytest.mark.parametrize("dynamic", [{0: "n"}, {}], ids=["any batch", "one batch"])
def test_groups_of_images_may_have_biases(dynamic: dict[int, str]) -> None:
    torch.manual_seed(0)
    module, given = Grouped(), (torch.randn(3, 4, 9), torch.randn(3, 4))
    network = capture_module(module, given, [dynamic, dynamic])
    assert [*prunable_weights(network)] == ["weight.weight", "shift.weight", "plain.weight"]
    with torch.no_grad():
        assert difference(module(*given), network(*given)) < 1e-5


class Predicted(nn.Module):
    """Weights that have nothing in common for two images: there is nothing to prune, and nothing is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(4, 5 * 4 * 9)
        self.mixed = nn.Parameter(torch.randn(5, 4, 3, 3))

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        n = x.shape[0]
        made = self.make(styles).reshape(5 * n, 4, 3, 3)
        mixed = (self.mixed * self.make(styles).reshape(n, 5, 4, 3, 3)).reshape(5 * n, 4, 3, 3)
        x = x.reshape(1, 4 * n, 6, 6)
        return (F.conv2d(x, made, groups=n) + F.conv2d(x, mixed, groups=n)).reshape(n, 5, 4, 4)


def test_weights_that_are_predicted_stay_so() -> None:
    module, given = Predicted(), (torch.randn(2, 4, 6, 6), torch.randn(2, 4))
    network = capture_module(module, given)
    assert [*prunable_weights(network)] == ["make.weight"]
    with torch.no_grad():
        assert difference(module(*given), network(*given)) < 1e-5


@functools.cache
def synthesis(way: str) -> tuple[Synthesis, CapturedModule]:
    torch.manual_seed(0)
    module = Synthesis(way).eval()
    return module, capture_module(module, (torch.randn(2, 6),))


PARTS = ("conv1", "first", "up", "conv2", "second")
LAYERS = [f"{name}.{part}.weight" for name in PARTS for part in ("affine", "weight")]


@pytest.mark.parametrize("way", few("groups_of_images"))
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
    loaded = gancompress.load(file, sparse="always")
    assert difference(small(z), loaded(z)) < 1e-5
    profile = loaded.profile(z)  # type: ignore[union-attr]
    assert profile.dense == {}
    assert {f"{name}.weight.weight" for name in PARTS} <= {*profile.sparse}
