from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.dcgan import DCGAN, DCGANConfig
from gancompress.backbones.layers import (
    ConditionalBatchNorm2d,
    DownBlock,
    FirstDownBlock,
    LinearToMap,
    UpBlock,
    initialiser,
    spectral,
)
from gancompress.backbones.r3gan import R3GAN, R3GANConfig, ResidualBlock
from gancompress.backbones.sngan import SNGAN, SNGANConfig
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.kernels.resample import bilinear_up2


def count(network: nn.Module, kind: str = "convolution") -> int:
    return sum(w.parameter.numel() for w in prunable_weights(network).values() if w.kind == kind)


def test_sngan_cifar10_weights():
    backbone = SNGAN(SNGANConfig(), ImageSpec(3, 32))
    generator, discriminator = backbone.generator(), backbone.discriminator()
    assert count(generator) == 3_742_464
    assert count(discriminator) == 1_052_416
    assert count(generator, "linear") == 524_288
    assert count(discriminator, "linear") == 128
    assert not any(hasattr(module, "parametrizations") for module in generator.modules())
    assert all(hasattr(m, "parametrizations") for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear))


@pytest.mark.parametrize(
    ("resolution", "bottom", "generator", "discriminator"),
    [
        (48, 6, [512, 256, 128, 64], [64, 128, 256, 512, 1024]),
        (64, 4, [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024]),
        (128, 4, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024]),
    ],
)
def test_sngan_widths_as_published(resolution, bottom, generator, discriminator):
    with torch.device("meta"):
        backbone = SNGAN(SNGANConfig(spectral_norm=False), ImageSpec(3, resolution))
        made, judge = backbone.generator(), backbone.discriminator()
    assert made.input.linear.weight.shape == (generator[0] * bottom**2, 128)
    assert [made.input.channels] + [block.conv2.out_channels for block in made.blocks] == generator
    assert [block.conv2.out_channels for block in judge.blocks] == discriminator


def test_dcgan_layout():
    backbone = DCGAN(DCGANConfig(channels=64), ImageSpec(3, 64))
    generator, discriminator = backbone.generator(), backbone.discriminator()
    assert [conv.weight.shape[0] for conv in [*generator.convs, generator.output]] == [512, 256, 128, 64]
    assert [conv.weight.shape[0] for conv in discriminator.convs] == [64, 128, 256, 512]


def published_up(block: UpBlock, x: torch.Tensor) -> torch.Tensor:
    """The block as the paper draws it: every convolution after the upsampling."""
    double = lambda t: t.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    h = block.conv1(double(F.relu(block.norm1(x))))
    return block.conv2(F.relu(block.norm2(h))) + block.shortcut(double(x))


def test_moved_shortcuts_are_exact():
    torch.manual_seed(0)
    draw = initialiser("xavier")
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    up = UpBlock(3, 5, draw).double().eval()
    nn.init.normal_(up.shortcut.bias)
    torch.testing.assert_close(up(x), published_up(up, x))
    down = DownBlock(3, 5, draw, hidden_channels=4, down=True, spectral_norm=False).double()
    nn.init.normal_(down.shortcut.bias)
    h = down.conv2(F.relu(down.conv1(F.relu(x))))
    torch.testing.assert_close(down(x), F.avg_pool2d(h + down.shortcut(x), 2))
    first = FirstDownBlock(3, 5, draw, spectral_norm=False).double()
    h = first.conv2(F.relu(first.conv1(x)))
    torch.testing.assert_close(first(x), F.avg_pool2d(h + first.shortcut(x), 2))


def test_a_block_that_changes_nothing_has_no_shortcut():
    block = DownBlock(4, 4, initialiser("xavier"), hidden_channels=4, down=False, spectral_norm=False)
    assert block.shortcut is None
    wider = DownBlock(4, 6, initialiser("xavier"), hidden_channels=4, down=False, spectral_norm=False)
    assert wider(torch.zeros(1, 4, 8, 8)).shape == (1, 6, 8, 8)
    assert wider.shortcut.published_ratio == 1


def test_linear_to_map_by_hand():
    layer = LinearToMap(nn.Linear(1, 8, bias=False), 2)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.arange(8.0)[:, None])
    assert layer(torch.ones(1, 1)).tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]]
    assert layer.channels == 2
    layer.linear = nn.Linear(1, 12)  # channels were pruned or added: no view knows the old number
    assert layer(torch.ones(5, 1)).shape == (5, 3, 2, 2)


def test_spectral_norm_divides_by_the_largest_singular_value():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([8.0, 2.0, 1.0, 0.5]))[:3])
    spectral(layer)
    torch.testing.assert_close(layer.weight, torch.diag(torch.tensor([1.0, 0.25, 0.125, 0.0]))[:3], atol=1e-4, rtol=0)


def test_conditional_batch_norm_by_hand():
    norm = ConditionalBatchNorm2d(1, 2)
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[1.0], [3.0]]))
        norm.bias.weight.copy_(torch.tensor([[0.0], [10.0]]))
    x = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    out = norm(x, torch.tensor([0, 1])).flatten()
    torch.testing.assert_close(out, torch.tensor([-1.0, 13.0]), atol=1e-4, rtol=0)
    assert prunable_weights(norm) == {}


@pytest.mark.parametrize(
    ("key", "config", "resolution", "divisor", "proposal"),
    [
        ("channels", {"channels": 100}, 48, 8, 96),
        ("channels", {"channels": 3}, 64, 16, 16),
        ("discriminator_channels", {"discriminator_channels": 1000}, 128, 16, 992),
    ],
)
def test_widths_that_cannot_be_split_are_refused(key, config, resolution, divisor, proposal):
    with pytest.raises(BackboneError) as caught:
        SNGAN(SNGANConfig(**config), ImageSpec(3, resolution))
    assert f"{key}={config[key]}" in str(caught.value)
    assert f"multiple of {divisor}" in str(caught.value)
    assert f"--set model.{key}={proposal}" in str(caught.value)
    SNGAN(SNGANConfig(**{key: proposal}), ImageSpec(3, resolution))


def test_messages_name_what_there_is():
    with pytest.raises(BackboneError, match="makes images of 16, 32, 64 pixels, these have 28"):
        DCGAN(DCGANConfig(), ImageSpec(1, 28))
    with pytest.raises(BackboneError, match="no labels"):
        DCGAN(DCGANConfig(conditional=True), ImageSpec(1, 16))
    with pytest.raises(BackboneError, match=r"one class only \('horse'\)"):
        SNGAN(SNGANConfig(conditional=True), ImageSpec(3, 32, ("horse",)))


def test_generator_spectral_norm_is_a_setting():
    small = {"channels": 8, "discriminator_channels": 8, "latent_dim": 4}
    generator = SNGAN(SNGANConfig(**small, generator_spectral_norm=True), ImageSpec(3, 32)).generator()
    assert all(w.key.endswith("parametrizations.weight.original") for w in prunable_weights(generator).values())


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_dcgan_batch_norm_in_the_discriminator_is_a_setting(norm):
    config = DCGANConfig(channels=4, spectral_norm=False, discriminator_norm=norm)
    judge = DCGAN(config, ImageSpec(1, 32)).discriminator()
    assert sum(isinstance(m, nn.BatchNorm2d) for m in judge.modules()) == (2 if norm == "batch" else 0)
    assert judge(torch.zeros(2, 1, 32, 32)).shape == (2,)


def test_r3gan_as_published_for_cifar10():
    with torch.device("meta"):
        backbone = R3GAN(R3GANConfig(conditional=True), ImageSpec(3, 32, tuple("abcdefghij")))
        made, judge = backbone.generator(), backbone.discriminator()
    blocks = [module for module in made.modules() if isinstance(module, ResidualBlock)]
    # two at each of 4, 8, 16 and 32 pixels; the 3x3 in the middle: 1536 channels in 96 groups
    assert len(blocks) == 8
    assert {block.mix.groups for block in blocks} == {96}
    # 768·1536 + 1536·16·9 + 1536·768 weights and 2·1536 biases
    block = 2_583_552
    # 16 numbers a channel, a latent and a class of 64 each, 1x1 to colours, ten classes
    assert sum(p.numel() for p in made.parameters()) == 8 * block + 12_288 + 98_304 + 2_304 + 640 == 20_781_952
    # the same the other way round, 768 features held against classes of 768
    assert sum(p.numel() for p in judge.parameters()) == 8 * block + 2_304 + 12_288 + 589_824 + 7_680 == 21_280_512


def test_r3gan_as_published_for_faces():
    with torch.device("meta"):
        backbone = R3GAN(R3GANConfig(shares=(1, 1, 1, 1, 0.5)), ImageSpec(3, 64))
        made, judge = backbone.generator(), backbone.discriminator()
    assert [stage[0].narrow.out_channels for stage in made.stages] == [768, 768, 768, 768, 384]
    assert [stage[0].mix.groups for stage in judge.stages] == [48, 96, 96, 96, 96]
    assert made.changes[3].weight.shape == (384, 768, 1, 1)
    assert isinstance(made.changes[2], nn.Identity)
    assert judge.changes[0].weight.shape == (768, 384, 1, 1)
    # two blocks at each of 4 to 32 pixels, and two of 384·768 + 768·16·9 + 768·384 weights and 2·768 biases at 64
    blocks, change = 8 * 2_583_552 + 2 * 701_952, 768 * 384
    assert sum(p.numel() for p in made.parameters()) == blocks + change + 12_288 + 64 * 768 + 384 * 3 == 22_429_824
    assert sum(p.numel() for p in judge.parameters()) == blocks + change + 384 * 3 + 12_288 + 768 == 22_381_440


def test_r3gan_widths_divide_into_groups_at_every_size():
    backbone = R3GAN(R3GANConfig(channels=32, shares=(1, 0.5, 0.25)), ImageSpec(3, 16))
    assert backbone.widths["generator"].multiple == 32  # a quarter of it is 8, twice that one group of 16
    with pytest.raises(BackboneError, match=r"channels=48 cannot be split: .*multiple of 32 \(--set model.channels="):
        R3GAN(R3GANConfig(channels=48, shares=(1, 0.5, 0.25)), ImageSpec(3, 16))
    with pytest.raises(BackboneError, match=r"maps of 3 sizes at 16 pixels, shares=\[1.0, 0.5\] speak of 2"):
        R3GAN(R3GANConfig(channels=32, shares=(1, 0.5)), ImageSpec(3, 16))
    with pytest.raises(ValueError, match="above 0 and at most at 1"):
        R3GANConfig(shares=(1, 2))


def test_r3gan_starts_as_its_trunk():
    torch.manual_seed(0)
    made = R3GAN(R3GANConfig(channels=16, latent_dim=8), ImageSpec(3, 16)).generator()
    z = torch.randn(2, 8)
    trunk = made.basis.weight[:, 0] * made.input(z)[:, :, None, None]
    torch.testing.assert_close(made(z), torch.tanh(made.output(bilinear_up2(bilinear_up2(trunk)))))
