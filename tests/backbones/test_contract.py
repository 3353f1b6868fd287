"""What every backbone must do. A new one joins with one line in ``SMALL``: settings that make it quick."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from gancompress.backbones.attention import SelfAttention
from gancompress.backbones.base import Backbone, prunable_weights
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.registry import BACKBONES

SMALL: dict[str, dict[str, Any]] = {
    "dcgan": {"channels": 4, "latent_dim": 8},
    # two channels where the width is divided by 16: a spectrally normalised 1x1 matrix has no gradient
    "sngan": {"channels": 32, "discriminator_channels": 32, "latent_dim": 8},
    # eight where the attending map has as many channels, a latent that splits into five and into six
    "biggan": {"channels": 8, "latent_dim": 60},
    # few latents: 40 gains that each are sums of many would magnify the rounding of bf16 in maps of one channel
    "biggan-deep": {"channels": 4, "latent_dim": 3, "attention": 16},
}

CLASSES = ("ant", "bee", "cat")
BATCH = 3


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    resolution: int
    conditional: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.resolution}-{'conditional' if self.conditional else 'unconditional'}"

    @property
    def image(self) -> ImageSpec:
        # grey and colour in turn, so that both are covered without doubling the suite
        return ImageSpec(3 if self.conditional else 1, self.resolution, CLASSES)

    def backbone(self) -> Backbone[Any]:
        kind = BACKBONES.get(self.name)
        return kind(kind.Config(**SMALL[self.name], conditional=self.conditional), self.image)

    def networks(self, seed: int = 0) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(seed)
        backbone = self.backbone()
        return backbone.generator(), backbone.discriminator()

    def inputs(
        self, network: nn.Module, labels: tuple[int, ...] = (0, 1, 2)
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        rng = torch.Generator().manual_seed(1)
        known = torch.tensor(labels) if self.conditional else None
        if hasattr(network, "latent_dim"):
            return torch.randn(BATCH, network.latent_dim, generator=rng), known
        shape = (BATCH, self.image.channels, self.resolution, self.resolution)
        return torch.rand(shape, generator=rng) * 2 - 1, known


def cases() -> list[Case]:
    found = []
    for name in SMALL:
        kind = BACKBONES.get(name)
        for resolution in (8, 16, 24, 28, 32, 48, 64, 96, 128, 256, 512):
            try:
                kind(kind.Config(**SMALL[name]), ImageSpec(3, resolution, CLASSES))
            except BackboneError:
                continue
            found += [Case(name, resolution, conditional) for conditional in (False, True)]
    return found


CASES = cases()
every = pytest.mark.parametrize("case", CASES, ids=str)
#: the smallest size of each backbone: for what does not depend on the size
smallest = pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.resolution == min(o.resolution for o in CASES if o.name == c.name)],
    ids=str,
)


def test_every_built_in_backbone_is_here():
    built_in = {entry.name for entry in BACKBONES.entries() if entry.distribution == "gancompress"}
    assert built_in == set(SMALL)


@every
def test_shapes_range_and_attributes(case):
    backbone = case.backbone()
    assert case.resolution in backbone.resolutions
    assert {c.resolution for c in CASES if c.name == case.name} == set(backbone.resolutions)
    assert backbone.conditional is case.conditional
    generator, discriminator = backbone.generator(), backbone.discriminator()
    for network in (generator, discriminator):
        assert network.num_classes == (len(CLASSES) if case.conditional else 0)
        assert network.image == case.image
    z, labels = case.inputs(generator)
    images = generator(z * 10, labels)
    assert images.shape == (BATCH, case.image.channels, case.resolution, case.resolution)
    assert images.dtype is torch.float32
    assert images.abs().max() <= 1
    logits = discriminator(images, labels)
    assert logits.shape == (BATCH,)
    assert logits.dtype is torch.float32


@every
def test_images_and_logits_differ_between_samples(case):
    for network in case.networks():
        x, _ = case.inputs(network)
        same = torch.zeros(BATCH, dtype=torch.int64) if case.conditional else None
        out = network.eval()(x, same)
        assert (out[0] - out[1]).abs().max() > 1e-6


@every
def test_the_seed_decides_every_weight(case):
    first, again, other = case.networks(0), case.networks(0), case.networks(1)
    for a, b, c in zip(first, again, other, strict=True):
        mine, same, different = a.state_dict(), b.state_dict(), c.state_dict()
        assert list(mine) == list(same)
        assert all(torch.equal(value, same[name]) for name, value in mine.items())
        assert any(not torch.equal(value, different[name]) for name, value in mine.items())
        x, labels = case.inputs(a)
        assert torch.equal(a(x, labels), b(x, labels))


@smallest
def test_conditioning_has_an_effect_and_only_when_asked_for(case):
    generator, discriminator = case.networks()
    if case.conditional:
        # classes start alike in a generator: gain 1 and bias 0; one step of training tells them apart
        for network in (generator, discriminator):
            x, labels = case.inputs(network)
            optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
            network(x, labels).square().sum().backward()
            optimizer.step()
            network.eval()
            ones = case.inputs(network, labels=(1, 1, 1))[1]
            twos = case.inputs(network, labels=(2, 2, 2))[1]
            assert (network(x, ones) - network(x, twos)).abs().max() > 1e-6
            with pytest.raises(ValueError, match="labels"):
                network(x, None)
    else:
        for network in (generator.eval(), discriminator.eval()):
            x, _ = case.inputs(network)
            assert torch.equal(network(x, None), network(x, torch.tensor([0, 1, 2])))


@every
def test_gradients_reach_every_parameter(case):
    generator, discriminator = case.networks()
    for network in (generator, discriminator):
        for module in network.modules():
            if isinstance(module, SelfAttention):
                nn.init.ones_(module.gate)  # attention starts closed, and nothing passes a closed gate
    z, labels = case.inputs(generator)
    # a weighted sum: the plain sum of normalised maps has no gradient at all
    weights = torch.tensor([1.0, -2.0, 0.5])
    (discriminator(generator(z, labels), labels) * weights).sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


@every
def test_prunable_weights(case):
    for network in case.networks():
        weights = prunable_weights(network)
        own = dict(network.named_parameters())
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
        assert len(weights) == len([m for m in layers if getattr(m, "prunable", True)])
        assert [w.output for w in weights.values()].count(True) == 1
        for name, weight in weights.items():
            assert weight.parameter is own[weight.key]
            assert weight.parameter.is_leaf
            assert weight.parameter.dim() == (2 if weight.kind == "linear" else 4)
            assert name.endswith(".weight")
            assert "parametrizations" not in name
            assert "norm" not in name
            assert "embedding" not in name


@smallest
def test_names_do_not_depend_on_spectral_norm(case):
    kind = BACKBONES.get(case.name)
    if "spectral_norm" not in kind.Config.model_fields:
        pytest.skip("no such setting")
    on, off = (
        prunable_weights(
            kind(
                kind.Config(**SMALL[case.name], conditional=case.conditional, spectral_norm=flag), case.image
            ).discriminator()
        )
        for flag in (True, False)
    )
    assert list(on) == list(off)
    assert [w.key for w in on.values()] != [w.key for w in off.values()]
    assert [w.parameter.shape for w in on.values()] == [w.parameter.shape for w in off.values()]


@every
def test_state_round_trip_through_safetensors(case):
    for network, other in zip(case.networks(0), case.networks(1), strict=True):
        x, labels = case.inputs(network)
        network(x, labels).sum().backward()  # moves statistics and power iterations
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        other.load_state_dict(load(save(state)))
        assert torch.equal(network.eval()(x, labels), other.eval()(x, labels))


@smallest
def test_deepcopy_after_training_is_equal_and_apart(case):
    for network in case.networks():
        x, labels = case.inputs(network)
        network(x, labels).sum().backward()
        twin = copy.deepcopy(network)
        assert torch.equal(network.eval()(x, labels), twin.eval()(x, labels))
        assert list(prunable_weights(twin)) == list(prunable_weights(network))
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(1.0)
        assert not torch.equal(network(x, labels), twin(x, labels))


@smallest
def test_channels_last_gives_the_same(case):
    for network in case.networks():
        x, labels = case.inputs(network)
        expected = network.eval()(x, labels)
        network.to(memory_format=torch.channels_last)
        if x.dim() == 4:
            x = x.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(x, labels), expected, rtol=1e-4, atol=1e-5)
        network.train()(x, labels).sum().backward()


@smallest
def test_bf16_autocast(case):
    for network in case.networks():
        x, labels = case.inputs(network)
        with torch.autocast("cpu", torch.bfloat16):
            out = network(x, labels)
        out.sum().backward()
        assert out.dtype is torch.float32
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
        expected = network.eval()(x, labels)
        with torch.autocast("cpu", torch.bfloat16):
            close = network(x, labels)
        assert (close - expected).abs().max() <= 0.1 * expected.abs().max() + 0.05


@smallest
def test_evaluation_leaves_the_state_alone(case):
    for network in case.networks():
        before = {name: value.clone() for name, value in network.state_dict().items()}
        x, labels = case.inputs(network)
        network.eval()
        first = network(x, labels)
        assert torch.equal(network(x, labels), first)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        # one by one as in a batch
        alone = torch.cat([network(x[i : i + 1], None if labels is None else labels[i : i + 1]) for i in range(BATCH)])
        torch.testing.assert_close(alone, first, rtol=1e-4, atol=1e-5)


@every
def test_sizes_and_classes_that_cannot_be_made_are_refused(case):
    kind = BACKBONES.get(case.name)
    config = kind.Config(**SMALL[case.name], conditional=True)
    with pytest.raises(BackboneError, match=str(case.resolution)) as caught:
        kind(config, ImageSpec(3, case.resolution + 1, CLASSES))
    assert "data.resolution=" in str(caught.value)
    for classes in ((), ("only",)):
        with pytest.raises(BackboneError, match=r"--set model\.conditional=false"):
            kind(config, ImageSpec(3, case.resolution, classes))


@pytest.mark.slow
@smallest
@pytest.mark.filterwarnings("ignore")
def test_compiles(case):
    for network in case.networks():
        x, labels = case.inputs(network)
        network.eval()
        torch.testing.assert_close(torch.compile(network)(x, labels), network(x, labels), rtol=1e-3, atol=1e-4)
