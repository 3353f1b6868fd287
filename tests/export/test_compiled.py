"""Compiled generators make the same images as eager ones, and say what they could not compile."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from export_toys import CLASSES, images, inputs, make, mask, settle, tiny
from torch import Tensor, nn

from gancompress import kernels
from gancompress.backbones.base import Generator, prunable_weights
from gancompress.data.base import ImageSpec
from gancompress.errors import ExportError, KernelError
from gancompress.export.compiled import CompiledGenerator, compile_generator
from gancompress.kernels.layout import scale_and_shift

native = pytest.mark.skipif(not kernels.status().available, reason="no native kernels here")

ONE = 1  # program, for all of a generator; attention cuts one into several
CASES: list[tuple[str, ImageSpec, dict[str, Any], int | None]] = [
    ("dcgan", ImageSpec(1, 16), {"channels": 8}, ONE),
    ("dcgan", ImageSpec(3, 32), {"channels": 6}, ONE),
    ("dcgan", ImageSpec(3, 64), {"channels": 4}, ONE),
    ("dcgan", ImageSpec(3, 16, CLASSES), {"channels": 8, "conditional": True}, ONE),
    ("dcgan", ImageSpec(3, 64, CLASSES), {"channels": 4, "conditional": True}, ONE),
    ("sngan", ImageSpec(3, 32), {"channels": 20}, ONE),
    ("sngan", ImageSpec(3, 48), {"channels": 16, "generator_spectral_norm": True}, ONE),
    ("sngan", ImageSpec(1, 64), {"channels": 16}, ONE),
    ("sngan", ImageSpec(3, 128), {"channels": 16}, ONE),
    ("sngan", ImageSpec(3, 32, CLASSES), {"channels": 12, "conditional": True, "generator_spectral_norm": True}, ONE),
    ("sngan", ImageSpec(3, 48, CLASSES), {"channels": 8, "conditional": True}, ONE),
    ("r3gan", ImageSpec(3, 16, CLASSES), {"channels": 16, "group_width": 8, "conditional": True}, None),
    ("stylegan2", ImageSpec(3, 32, CLASSES), {"channels": 8, "style_dim": 8, "conditional": True}, None),
    ("stylegan2", ImageSpec(1, 16), {"channels": 6, "style_dim": 8, "latent_dim": 4}, None),
    ("biggan", ImageSpec(3, 32, CLASSES), {"channels": 4}, None),
    ("biggan", ImageSpec(3, 64, CLASSES), {"channels": 8}, None),
    ("biggan", ImageSpec(3, 64), {"channels": 4, "conditional": False, "attention": 0}, ONE),
    ("biggan-deep", ImageSpec(3, 128, CLASSES), {"channels": 4, "attention": 16}, None),
    ("fastgan", ImageSpec(3, 64), {"channels": 16, "latent_dim": 8}, None),
    ("projected", ImageSpec(3, 64), {"channels": 16, "latent_dim": 8, "weights": "random"}, None),
]


#: layers that run dense, where these are others than one at the input; FastGAN's is a transposed convolution
LINEAR: dict[str, set[str]] = {"r3gan": {"input"}, "fastgan": set(), "projected": set()}


def programs(compiled: CompiledGenerator) -> list[kernels.Program]:
    return [module.program for module in compiled.modules() if hasattr(module, "program")]


@native
@pytest.mark.parametrize(
    ("name", "image", "config", "count"), CASES, ids=[f"{c[0]}-{c[1].resolution}-{len(c[1].classes)}" for c in CASES]
)
def test_the_same_images_as_the_eager_generator(
    name: str, image: ImageSpec, config: dict[str, Any], count: int | None
) -> None:
    generator = make(name, image, **config)
    compiled = compile_generator(generator, mask(generator), sparse="always")
    assert set(compiled.dense.values()) <= {"a linear layer"}, "every convolution runs sparse"
    assert name == "stylegan2" or set(compiled.dense) == LINEAR.get(name, {"input.linear"})
    if count is not None:
        assert len(programs(compiled)) == count
    for batch in (1, 3, 16, 17) if image.resolution < 100 else (1, 3):
        want = images(generator, batch)
        assert float(want.std()) > 0.02, "images that say nothing would always agree"
        torch.testing.assert_close(images(compiled, batch), want, rtol=0, atol=1e-4)


def test_what_weights_alone_decide_is_computed_once() -> None:
    generator = make("stylegan2", ImageSpec(3, 16), channels=6, style_dim=8, latent_dim=4)
    graph = compile_generator(generator, sparse="never").run
    assert isinstance(graph, torch.fx.GraphModule)
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    assert not any("conv.weight" in name for name in read), "sums of squares of whole weights"
    constants = [value for name, value in graph.named_buffers() if name.startswith("constant")]
    assert (6, 6) in {tuple(value.shape) for value in constants}


class _Ways(nn.Module):
    """A map scaled and shifted image by image, and for all images, in the ways that people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.third = nn.Conv2d(6, 7, 3, padding=1), nn.ConvTranspose2d(7, 3, 4, 2, 1)
        self.gain, self.bias = nn.Linear(8, 6), nn.Linear(8, 6)
        self.own = nn.Parameter(torch.randn(1, 7, 1, 1))

    def forward(self, x: Tensor, z: Tensor, way: str) -> Tensor:
        gain, bias = self.gain(z), self.bias(z)
        h = self.first(x)
        if way == "squeeze":  # the gain depends on the map: no program can have it
            h = h * h.mean((2, 3), keepdim=True)
        elif way == "addcmul":
            h = torch.addcmul(bias[:, :, None, None], gain[:, :, None, None], self.norm(h))
        elif way == "sum":
            h = bias[..., None, None] + h * (1 + gain)[..., None, None]
        elif way == "after":
            h = self.norm(scale_and_shift(self.norm(h), gain, bias))
        h = self.second(F.relu(h))
        return self.third(self.own * h + self.own)


class _WaysGenerator(Generator):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.image, self.way = 8, 0, ImageSpec(3, 8), way
        self.map, self.ways = nn.Linear(8, 5 * 16), _Ways()

    def output_layer(self) -> nn.Module:
        return self.ways.third

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.tanh(self.ways(self.map(z).reshape(-1, 5, 4, 4), z, self.way))


@native
@pytest.mark.parametrize(("way", "count"), [("addcmul", 1), ("sum", 1), ("after", 1), ("squeeze", 2)])
def test_gains_and_biases_of_every_image_are_fused(way: str, count: int) -> None:
    torch.manual_seed(0)
    generator = settle(_WaysGenerator(way))
    compiled = compile_generator(generator, mask(generator, 0.5), sparse="always")
    assert len(programs(compiled)) == count
    for batch in (1, 3, 16, 21):
        torch.testing.assert_close(images(compiled, batch), images(generator, batch), rtol=0, atol=1e-5)
    assert torch.equal(images(copy.deepcopy(compiled), 5), images(compiled, 5))


@native
@pytest.mark.parametrize("kept", [0, 1])
def test_masks_that_keep_nothing_or_one_weight(kept: int) -> None:
    generator, masks = tiny()
    for name, weight in prunable_weights(generator).items():
        masks[name] = torch.arange(masks[name].numel()).reshape(masks[name].shape) < kept
        weight.parameter.data.masked_fill_(~masks[name], 0)
    compiled = compile_generator(generator, masks, sparse="always")
    assert len(programs(compiled)) == 1
    for batch in (2, 17):
        torch.testing.assert_close(images(compiled, batch), images(generator, batch), rtol=0, atol=1e-5)


@native
@pytest.mark.parametrize("conditional", [False, True])
def test_images_are_their_own_memory(conditional: bool) -> None:
    generator = make("sngan", ImageSpec(3, 32, CLASSES), channels=8, conditional=conditional)
    compiled = compile_generator(generator, mask(generator), sparse="always")
    z, labels = inputs(generator, 5)
    given = z.clone()
    first = compiled(z, labels)
    kept = first.clone()
    images(compiled, 6)
    assert torch.equal(first, kept)
    assert torch.equal(z, given)
    assert torch.equal(compiled(z, labels), kept)


def test_memory_is_reused_only_where_nothing_else_reads_it() -> None:
    norm = nn.BatchNorm2d(3).eval()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.seen, self.last = norm, copy.deepcopy(norm), copy.deepcopy(norm)

        def forward(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
            h = torch.addcmul(bias, self.norm(x), gain)  # in place
            twice = self.seen(x)
            h = h + torch.addcmul(bias, twice, gain) * twice  # not: `twice` is read again
            return self.last(h) + x + torch.addcmul(gain, bias, bias)  # the first addition in place

    from torch.fx.passes.shape_prop import ShapeProp

    from gancompress.export.in_place import reuse_memory
    from gancompress.export.tracing import VALUE

    graph = torch.fx.symbolic_trace(Net())
    x, gain, bias = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 1, 1), torch.randn(4, 3, 1, 1)
    want = Net()(x, gain, bias)
    ShapeProp(graph).propagate(x, gain, bias)
    for node in graph.graph.nodes:
        if "tensor_meta" in node.meta:
            node.meta[VALUE] = torch.empty(node.meta["tensor_meta"].shape)
    reuse_memory(graph, set())
    graph.recompile()
    names = [getattr(node.target, "__name__", "") for node in graph.graph.nodes]
    assert names.count("_scale_and_shift") == 1
    assert names.count("_add_to") == 1
    before = [t.clone() for t in (x, gain, bias)]
    torch.testing.assert_close(graph(x, gain, bias), want)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, gain, bias), strict=True))


@native
@pytest.mark.parametrize("conditional", [False, True])
def test_masks_are_what_counts(conditional: bool) -> None:
    generator = make("sngan", ImageSpec(3, 32, CLASSES), channels=8, conditional=conditional)
    twin = copy.deepcopy(generator)
    masks = {name: torch.rand(weight.parameter.shape) < 0.2 for name, weight in prunable_weights(twin).items()}
    for name, weight in prunable_weights(twin).items():
        weight.parameter.data.masked_fill_(~masks[name], 0)
    compiled = compile_generator(generator, masks, sparse="always")
    torch.testing.assert_close(images(compiled, 2), images(twin, 2), rtol=0, atol=1e-4)
    assert not torch.allclose(images(generator, 2), images(twin, 2), atol=1e-2), "the original is left as it is"


@pytest.mark.parametrize("variable", ["GANCOMPRESS_KERNELS", None])
def test_without_kernels_or_wish_all_runs_in_torch(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv(variable, "off")
    generator, masks = tiny()
    compiled = compile_generator(generator, masks, sparse=None if variable else "never")
    assert len(compiled.dense) == len(compiled.layers)
    assert programs(compiled) == []
    torch.testing.assert_close(images(compiled, 3), images(generator, 3), rtol=0, atol=1e-6)


@native
def test_a_dense_generator_is_decided_by_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, _ = tiny()
    asked = []

    def answer(layer: kernels.Layer, density: float, **_: Any) -> str:
        asked.append(density)
        return "dense"

    monkeypatch.setattr("gancompress.export.compiled.choose", answer)
    monkeypatch.delenv("GANCOMPRESS_SPARSE", raising=False)
    compiled = compile_generator(generator)
    assert asked == [1.0, 1.0]
    assert "break-even" in compiled.dense["convs.0"]


@native
def test_a_conditional_generator_asks_for_labels() -> None:
    generator = make("dcgan", ImageSpec(1, 16, CLASSES), channels=4, conditional=True)
    with pytest.raises(ExportError, match="labels from 0 to 2"):
        compile_generator(generator, mask(generator))(inputs(generator, 1)[0])


@native
def test_a_mode_that_is_none_is_refused_at_any_density(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, masks = tiny()
    monkeypatch.setenv("GANCOMPRESS_SPARSE", "alway")
    for given in (masks, {name: torch.zeros_like(one) | (torch.arange(one.numel()) == 0).reshape(one.shape)
                          for name, one in masks.items()}):  # fmt: skip
        with pytest.raises(KernelError, match="GANCOMPRESS_SPARSE=alway: not a mode; did you mean"):
            compile_generator(generator, given)


def test_masks_that_do_not_fit_are_refused() -> None:
    generator, masks = tiny()
    with pytest.raises(ExportError, match="does not have"):
        compile_generator(generator, {"x.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ExportError, match=r"mask of convs\.0\.weight"):
        compile_generator(generator, {"convs.0.weight": masks["convs.0.weight"][0]})


# ------------------------------------------------------------------------------- networks of someone else


class Foreign(Generator):
    """A generator that no one here knows: odd layers, an identity shortcut, several readers of one map."""

    def __init__(self, *, stubborn: bool = False) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.image = 6, 0, ImageSpec(3, 16)
        self.stubborn = stubborn
        self.linear = nn.Linear(6, 8 * 16)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1)
        self.narrow = nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=2)
        self.settled = nn.BatchNorm2d(8)
        self.output = nn.Conv2d(8, 3, 3, padding="same")

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.linear(z).reshape(-1, 8, 4, 4)
        if self.stubborn and float(h.sum()) > 1e9:
            h = -h
        h = self.norm(F.relu(self.body(h) + h))
        h = h + F.leaky_relu(self.grouped(h), 0.2) + self.dilated(h) * 0.5 + self.mirrored(h)
        h = F.leaky_relu(self.settled(self.narrow(F.leaky_relu(self.up(h), 0.3))))
        return torch.tanh(self.output(h))


@native
def test_what_cannot_be_compiled_stays_dense_and_is_named() -> None:
    torch.manual_seed(0)
    generator = Foreign().eval()
    compiled = compile_generator(generator, mask(generator, 0.5), sparse="always")
    assert {name: why for name, why in compiled.dense.items() if name != "linear"} == {
        "dilated": "dilation (2, 2)",
        "mirrored": "padding mode reflect",
        "output": "padding same",
    }
    assert {layer.name for layer in compiled.layers if layer.runs == "sparse"} == {
        "body.0", "body.3", "grouped", "up", "narrow",
    }  # fmt: skip
    assert repr(compiled).count("5 layers sparse, 4 dense")
    for batch in (1, 17):
        torch.testing.assert_close(images(compiled, batch), images(generator, batch), rtol=0, atol=1e-4)


def test_a_forward_that_cannot_be_traced_runs_as_it_is() -> None:
    torch.manual_seed(0)
    generator = Foreign(stubborn=True).eval()
    compiled = compile_generator(generator, mask(generator, 0.5), sparse="always")
    assert all("cannot be traced" in why for why in compiled.dense.values())
    assert len(compiled.dense) == len(compiled.layers) == 9
    assert torch.equal(images(compiled, 2), images(generator, 2))


@native
def test_a_wrong_fusion_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, masks = tiny()
    monkeypatch.setattr(kernels.Program, "__call__", lambda self, x: self.dense(x) * 1.5)
    compiled = compile_generator(generator, masks, sparse="always")
    assert all("differ" in why for why in compiled.dense.values())
    assert torch.equal(images(compiled, 2), images(generator, 2))


def test_a_module_of_another_kind_is_sent_where_it_can_be_pruned():
    with pytest.raises(ExportError, match=r"Sequential is no generator.*gancompress\.compress\(module"):
        compile_generator(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3)))
