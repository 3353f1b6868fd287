"""Training with rounding: forward it is the program in bytes, backward the rounding is not there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gancompress.backbones.base import prunable_weights
from gancompress.foreign.network import capture_module
from gancompress.kernels import Quantized
from gancompress.lowering.network import SparseNetwork
from gancompress.quantization.programs import calibrate, merges
from gancompress.quantization.ranges import LayerBytes
from gancompress.quantization.rounding import rounding
from gancompress.quantization.weights import on_grid


class Images(nn.Module):
    """Norms ahead of convolutions and behind, doubled pixels, slopes, a shortcut that reads the same, groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.slope = nn.Conv2d(8, 16, 3, padding=1), nn.PReLU(16, 0.2)
        self.norm, self.doubled = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.behind, self.shortcut = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1)
        self.grouped = nn.Conv2d(16, 8, 3, padding=1, groups=2, padding_mode="reflect")
        self.transposed = nn.ConvTranspose2d(8, 4, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.slope(self.first(x))))
        up = nn.functional.interpolate(h, scale_factor=2.0)
        return self.transposed(torch.relu(self.grouped(self.behind(self.doubled(up)) + self.shortcut(up))))


class Sound(nn.Module):
    """One axis, dilation, transposed groups, a leaky activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.dilated = nn.Conv1d(8, 16, 7, padding=3), nn.Conv1d(16, 16, 3, padding=3, dilation=3)
        self.up, self.last = nn.ConvTranspose1d(16, 8, 4, 2, 1, groups=2), nn.Conv1d(8, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = h + self.dilated(nn.functional.leaky_relu(h, 0.1))
        return self.last(nn.functional.leaky_relu(self.up(h), 0.1)).tanh()


SIZES: dict[type[nn.Module], tuple[int, ...]] = {Images: (2, 8, 8, 12), Sound: (2, 8, 40)}


@pytest.mark.parametrize("kind", list(SIZES))
def test_the_forward_pass_is_the_program_in_bytes(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module, shape = kind(), SIZES[kind]
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_mean, one.running_var = torch.randn(16) / 2, torch.rand(16) * 4 + 0.1
            nn.init.uniform_(one.weight, -2, 2)
    with torch.no_grad():  # channels that gain by powers of two
        module.first.weight[::2] *= 30  # type: ignore[operator, index]
    network = capture_module(module, (torch.randn(shape),), [{0: "n"}])
    masks = {key: torch.rand(own.parameter.shape) < 0.6 for key, own in prunable_weights(network).items()}
    for key, own in prunable_weights(network).items():
        own.parameter.data.mul_(masks[key])
    given = [(torch.randn(shape),) for _ in range(3)]
    (layers, program, calls), *none = SparseNetwork(network, masks, "always").calls(given)
    assert not none
    ranges = {layers[number]: own for number, own in calibrate(program, calls).items()}
    assert len(ranges) == len(layers) == len(masks)
    assert any(own.exponents for own in ranges.values())
    doubled = merges(program, layers)
    assert doubled == ({"doubled.weight"} if kind is Images else set())
    x = torch.randn(shape)
    with torch.no_grad():
        exact = network(x)
        with rounding(network, ranges, doubled):
            found = network(x)
        assert torch.equal(network(x), exact)  # nothing is left of it
        # as the file has them
        for key, one in prunable_weights(network).items():
            layer: Any = one.layer
            own = ranges[key].factors
            one.parameter.data = on_grid(one.parameter.data, own, layer.kind.startswith("transposed"), layer.groups)
    coded = SparseNetwork(network, masks, "always", ranges)
    wanted = coded(x)
    assert sum(len(one[0]) for one in coded.calls([(x,)])) == len(layers)
    off = (found - wanted).abs()
    noise = float((wanted - exact).abs().mean())
    assert noise > 0
    # a number beside a tie may round the other way after another order of sums; no more than that
    assert float(off.median()) < 1e-5 * float(wanted.abs().max())
    assert float(off.mean()) < 0.02 * noise


def test_gradients_pass_inside_of_the_range_alone_and_weights_get_all_of_theirs() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    layer[0].weight.data.fill_(0.3)
    x = torch.tensor([-0.5, 0.0, 0.26, 1.27, 1.4]).reshape(1, 1, 1, 5).requires_grad_()
    own = LayerBytes(Quantized(float(torch.tensor(0.005))), ())
    with rounding(layer, {"0.weight": own, "gone.weight": own}):
        out = layer(x)
        out.sum().backward()
    grid = float(on_grid(torch.full((1, 1, 1, 1), 0.3)))
    steps = torch.tensor([0.0, 0.0, 52.0, 254.0, 255.0]) * own.stored.scale
    torch.testing.assert_close(out.flatten(), steps * grid)
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([0.0, grid, grid, grid, 0.0]))
    torch.testing.assert_close(layer[0].weight.grad.sum(), steps.sum())


def test_an_error_inside_leaves_the_layers_as_they_were() -> None:
    layer = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(RuntimeError), rounding(layer, {"0.weight": LayerBytes(Quantized(0.01))}):
        layer(torch.zeros(1, 2, 1, 1))  # of more channels than it takes
    assert "forward" not in vars(layer[0])
