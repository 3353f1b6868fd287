"""What a method is told of the layers: known answers for every kind, and neighbours of networks drawn by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gancompress.backbones.base import Generator, prunable_weights
from gancompress.backbones.connections import connected_layers
from gancompress.backbones.layers import spectral
from gancompress.data.base import ImageSpec

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer


@pytest.mark.parametrize(
    ("module", "kind", "axes", "channels", "kernel", "stride"),
    [
        (nn.Conv2d(6, 4, (3, 5), stride=2), "convolution", (0, 1), (4, 6), (3, 5), (2, 2)),
        (nn.Conv2d(6, 4, 3, groups=2), "convolution", (0, 1), (2, 3), (3, 3), (1, 1)),
        (nn.Conv1d(6, 4, 3), "convolution", (0, 1), (4, 6), (3,), (1,)),
        (nn.ConvTranspose1d(6, 4, 3), "transposed convolution", (1, 0), (4, 6), (3,), (1,)),
        (nn.ConvTranspose2d(6, 4, 4, stride=2), "transposed convolution", (1, 0), (4, 6), (4, 4), (2, 2)),
        (nn.ConvTranspose2d(6, 4, 4, groups=2), "transposed convolution", (1, 0), (2, 3), (4, 4), (1, 1)),
        (nn.Linear(6, 4), "linear", (0, 1), (4, 6), (), ()),
        (parametrizations.spectral_norm(nn.Linear(6, 4)), "linear", (0, 1), (4, 6), (), ()),
    ],
)
def test_axes_channels_of_a_group_and_kernel(
    module: nn.Module, kind: str, axes: Any, channels: Any, kernel: Any, stride: Any
) -> None:
    layer = prunable_weights(module)["weight"].layer
    assert (layer.kind, layer.kernel, layer.stride, layer.bias) == (kind, kernel, stride, "bias")
    assert (layer.output_axis, layer.input_axis) == axes
    assert (layer.outputs, layer.inputs) == channels
    assert layer.kernel_axes == tuple(range(2, 2 + len(kernel)))
    assert layer.connections == "unknown"


class _Net(Generator):
    """a -> norm -> b; (a, skip) -> c; its latent has 4 numbers, its images 2 channels of 4 x 4."""

    latent_dim, num_classes, image = 4, 0, ImageSpec(2, 4)

    def __init__(self, *, hostile: bool = False) -> None:
        super().__init__()
        self.a = nn.Linear(4, 16, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.b = parametrizations.spectral_norm(nn.Conv2d(1, 3, 1))
        self.skip = nn.ConvTranspose2d(1, 3, 1)
        self.c = nn.Conv2d(3, 2, 1)
        self.hostile = hostile

    def output_layer(self) -> nn.Module:
        return self.c

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.hostile:
            raise RuntimeError("no")
        h = self.norm(self.a(z).view(-1, 1, 4, 4))
        out: Tensor = self.c(torch.relu(self.b(h)) + self.skip(h))
        return out


def connections(layers: dict[str, Layer]) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    def short(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.removesuffix(".weight") for name in names)

    return {
        name.removesuffix(".weight"): (short(layer.sources), short(layer.targets)) for name, layer in layers.items()
    }


def test_neighbours_and_norm_of_a_network_with_a_branch() -> None:
    net = _Net()
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    random = torch.get_rng_state()
    layers = connected_layers(net, prunable_weights(net))
    assert connections(layers) == {
        "a": ((), ("b", "skip")),
        "b": (("a",), ("c",)),
        "skip": (("a",), ("c",)),
        "c": (("b", "skip"), ()),
    }
    assert {layer.connections for layer in layers.values()} == {"traced"}
    assert [layer.norm for layer in layers.values()] == ["norm", None, None, None]
    assert [layer.bias for layer in layers.values()] == [None, "b.bias", "skip.bias", "c.bias"]
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())
    assert torch.equal(random, torch.get_rng_state())
    assert all(module.training for module in net.modules())


def test_a_network_that_cannot_be_traced_says_that_its_order_was_taken() -> None:
    net = _Net(hostile=True)
    layers = connected_layers(net, prunable_weights(net))
    assert {layer.connections for layer in layers.values()} == {"order"}
    assert connections(layers)["skip"] == (("b",), ("c",))


spectral_layers = pytest.mark.parametrize(
    "make",
    [lambda: nn.Conv2d(3, 5, (2, 4)), lambda: nn.ConvTranspose2d(3, 5, 4), lambda: nn.Linear(3, 5)],
    ids=["convolution", "transposed", "linear"],
)


@spectral_layers
def test_the_norm_is_that_of_torch_bit_for_bit(make: Any) -> None:
    own, theirs = [], []
    for found, normed in ((own, spectral), (theirs, parametrizations.spectral_norm)):
        torch.manual_seed(0)
        layer = normed(make())
        vectors = layer.parametrizations.weight[0]._u.data_ptr()
        for step in range(3):
            loss = (layer.weight.flatten() * torch.arange(layer.weight.numel())).sum()
            (gradient,) = torch.autograd.grad(loss, layer.parametrizations.weight.original)
            found += [gradient, *(one.clone() for one in layer.state_dict().values())]
            if step == 1:
                layer.eval()  # no more iterations
        assert layer.parametrizations.weight[0]._u.data_ptr() == vectors  # what copies on other devices share
        found.append(layer.weight.detach())
    assert all(torch.equal(one, other) for one, other in zip(own, theirs, strict=True))


@spectral_layers
def test_a_layer_without_values_is_normalised_like_one_with_them(make: Any) -> None:
    real = spectral(make())
    with torch.device("meta"):
        empty = spectral(make())
    shapes = {name: tuple(tensor.shape) for name, tensor in real.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()} == shapes
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    filled = empty.to_empty(device="cpu")
    filled.load_state_dict(real.state_dict())
    assert torch.equal(filled.eval().weight, real.eval().weight)
