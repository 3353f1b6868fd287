"""Operations that write into what they read mean the same once they do not, and are fused like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from export_toys import images, inputs, mask, settle
from torch import Tensor, nn

from gancompress import kernels
from gancompress.backbones.base import Generator
from gancompress.data.base import ImageSpec
from gancompress.export.compiled import CompiledGenerator, compile_generator
from gancompress.export.functional import without_writes
from gancompress.export.plain import plain_copy
from gancompress.export.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Callable

native = pytest.mark.skipif(not kernels.status().available, reason="no native kernels here")


class Of(Generator):
    """A generator of layers and a function of them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], layers: dict[str, nn.Module], size: int = 4) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.image = 6, 0, ImageSpec(3, 16)
        self.first = nn.Linear(6, 5 * size * size)
        self.size, self.function = size, forward
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.register_buffer("noise", torch.randn(1, 5, size, size))
        self.register_buffer("shift", torch.randn(5, 1, 1), persistent=False)
        self.constant = torch.randn(5, size, size)

    def output_layer(self) -> nn.Module:
        return self.last

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.function(self, self.first(z).reshape(z.shape[0], 5, self.size, self.size))


def programs(compiled: CompiledGenerator) -> int:
    return sum(hasattr(module, "program") for module in compiled.modules())


def compiled_like_eager(generator: Generator, *, density: float = 0.5, atol: float = 1e-5) -> CompiledGenerator:
    generator = settle(generator)
    masks = mask(generator, density)
    compiled = compile_generator(generator, masks, sparse="always")
    for batch in (1, 5, 17):
        want = images(generator, batch)
        assert float(want.std()) > 1e-3
        torch.testing.assert_close(images(compiled, batch), want, rtol=0, atol=atol)
    return compiled


def tutorial(*, inplace: bool) -> Generator:
    """The network of torch's DCGAN tutorial, smaller."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.ConvTranspose2d(5, 12, 4, 1, 0, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace)]
    for ins, outs in ((12, 8), (8, 6), (6, 4)):
        layers += [nn.ConvTranspose2d(ins, outs, 4, 2, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU(inplace)]
    layers += [nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False)]
    return Of(lambda own, x: torch.tanh(own.main(x)), {"main": nn.Sequential(*layers), "last": layers[-1]}, size=1)


@native
@pytest.mark.parametrize("inplace", [False, True])
def test_the_tutorials_generator_is_one_program(inplace: bool) -> None:
    compiled = compiled_like_eager(tutorial(inplace=inplace))
    assert programs(compiled) == 1
    assert set(compiled.dense) == {"first"}


def _residual(way: str) -> Callable[[Any, Tensor], Tensor]:
    def forward(own: Any, x: Tensor) -> Tensor:
        h = own.norm(own.one(x))
        if way == "module":
            h = own.act(h)
        elif way == "function":
            h = F.relu(h, inplace=True)
        elif way == "method":
            h = h.relu_()
        elif way == "torch":
            h = torch.relu_(h)
        elif way == "result unused":
            own.act(h)
        elif way == "an alias":
            same = h.float()
            F.relu_(h)
            h = same
        h = own.two(h)
        if way == "result unused":
            h.add_(x)
        else:
            h += x  # writes as well
        if way == "an alias":
            same = own.nothing(h)
            own.act(same)
        else:
            h = own.act(h)
        out: Tensor = own.last(h)
        return out

    return forward


def _layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "one": nn.Conv2d(5, 7, 3, padding=1), "norm": nn.BatchNorm2d(7), "act": nn.ReLU(inplace=True),
        "two": nn.Conv2d(7, 5, 3, padding=1), "nothing": nn.Identity(), "last": nn.Conv2d(5, 3, 3, padding=1),
    }  # fmt: skip


@native
@pytest.mark.parametrize("way", ["module", "function", "method", "torch", "result unused", "an alias"])
def test_a_residual_block_that_writes_is_one_program(way: str) -> None:
    compiled = compiled_like_eager(Of(_residual(way), _layers()))
    assert programs(compiled) == 1
    assert set(compiled.dense) == {"first"}


def test_readers_before_and_after_a_write_see_what_they_saw() -> None:
    def before_and_after(own: Any, x: Tensor) -> Tensor:
        h = own.one(x)
        early = own.two(h)  # before the write
        own.leaky(h)
        late = own.two(h)
        h.mul_(0.5)
        tail: Tensor = own.last(early - 2 * late + own.two(h))
        return tail

    generator = Of(before_and_after, {**_layers(), "leaky": nn.LeakyReLU(0.1, inplace=True)})
    compiled = compiled_like_eager(generator)
    if kernels.status().available:
        assert set(compiled.dense) == {"first"}
    graph = trace(plain_copy(generator), {"z": inputs(generator, 2)[0]})
    without_writes(graph)
    names = [str(getattr(node.target, "__name__", node.target)) for node in graph.graph.nodes]
    assert not [name for name in names if name.endswith("_") or name in ("network.leaky", "iadd")]
    torch.testing.assert_close(graph(inputs(generator, 3)[0]), images(generator, 3), rtol=0, atol=0)


@pytest.mark.parametrize("way", ["view", "slice", "buffer", "parameter"])
def test_a_write_into_memory_that_others_look_at_stays_one(way: str) -> None:
    def forward(own: Any, x: Tensor) -> Tensor:
        h = own.one(x)
        if way == "view":
            flat = h.reshape(h.shape[0], -1)
            F.relu_(flat)
            h = own.two(h) + flat.sum(1)[:, None, None, None]
        elif way == "slice":
            part = h[:, :2]
            part.mul_(3.0)
            h = own.two(h)
        elif way == "buffer":
            h = own.two(h) + own.noise.clamp_(-1, 1) + own.noise
        else:
            h = own.two(h) + own.scale.abs_() * own.scale
        out: Tensor = own.last(h)
        return out

    generator = Of(forward, _layers())
    generator.scale = nn.Parameter(torch.randn(5, 1, 1), requires_grad=False)
    compiled_like_eager(generator)
    graph = trace(plain_copy(generator), {"z": inputs(generator, 2)[0]})
    without_writes(graph)
    writes = {"view": "relu_", "slice": "mul_", "buffer": "clamp_", "parameter": "abs_"}
    assert writes[way] in [str(getattr(node.target, "__name__", node.target)) for node in graph.graph.nodes]


@native
@pytest.mark.parametrize("name", ["noise", "shift", "constant"])
def test_a_buffer_that_forward_reads_leaves_the_rest_sparse(name: str) -> None:
    def forward(own: Any, x: Tensor) -> Tensor:
        h = own.two(F.relu(own.one(x + getattr(own, name))))
        out: Tensor = own.last(h + getattr(own, name))
        return out

    compiled = compiled_like_eager(Of(forward, _layers()))
    assert set(compiled.dense) == {"first"}


UPSAMPLINGS: dict[str, Callable[[], nn.Module]] = {
    "factor": lambda: nn.Upsample(scale_factor=2),
    "factors": lambda: nn.Upsample(scale_factor=(2.0, 2.0)),
    "size": lambda: nn.Upsample(size=(8, 8)),
    "exact": lambda: nn.Upsample(scale_factor=2, mode="nearest-exact"),
    "old": lambda: nn.UpsamplingNearest2d(scale_factor=2),
}


@native
@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_an_upsampling_module_is_fused(name: str) -> None:
    def forward(own: Any, x: Tensor) -> Tensor:
        out: Tensor = own.last(own.up(F.relu(own.two(own.one(x)))))
        return out

    compiled = compiled_like_eager(Of(forward, {**_layers(), "up": UPSAMPLINGS[name]()}))
    assert programs(compiled) == 1


@native
@pytest.mark.parametrize("settings", [{"scale_factor": 2, "mode": "bilinear"}, {"scale_factor": 3}, {"size": (8, 4)}])
def test_other_upsamplings_stay_in_torch(settings: dict[str, Any]) -> None:
    def forward(own: Any, x: Tensor) -> Tensor:
        out: Tensor = own.last(own.up(own.two(own.one(x))))
        return out

    assert programs(compiled_like_eager(Of(forward, {**_layers(), "up": nn.Upsample(**settings)}))) == 2


@native
@pytest.mark.parametrize("seed", range(8))
def test_networks_of_any_layers(seed: int) -> None:
    """Drawn chains of layers, activations that write or not, changes of size, sums with what was there before."""
    torch.manual_seed(seed)

    def of(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, ()))

    layers: dict[str, nn.Module] = {}
    channels, size = 5, 4
    for index in range(of(2, 5)):
        wider, kind = of(3, 9), of(0, 3)
        if kind == 0 and size < 20:
            stride, kernel = 2, of(3, 4)
            layer: nn.Module = nn.ConvTranspose2d(channels, wider, kernel, stride, 1, output_padding=4 - kernel)
            size *= 2
        elif kind == 1 and size < 20:
            layers[f"up{index}"] = nn.Upsample(scale_factor=2)
            layer, size = nn.Conv2d(channels, wider, 3, padding=1), size * 2
        else:
            layer = nn.Conv2d(channels, wider, of(0, 1) * 2 + 1, padding=0)
            layer.padding = (layer.kernel_size[0] // 2,) * 2
        layers[f"layer{index}"] = layer
        channels = wider
        if of(0, 1):
            layers[f"norm{index}"] = nn.BatchNorm2d(channels)
        layers[f"act{index}"] = nn.ReLU(inplace=bool(of(0, 1)))
        if of(0, 1):
            layers[f"same{index}"] = nn.Conv2d(channels, channels, 3, padding=1)
    layers["last"] = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(own: Any, x: Tensor) -> Tensor:
        for name in layers:
            before = x
            x = getattr(own, name)(x)
            if name.startswith("same"):
                x += before
        return x

    compiled = compiled_like_eager(Of(forward, layers), density=0.6)
    assert set(compiled.dense) == {"first"}
