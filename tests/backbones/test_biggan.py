from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gancompress.backbones.attention import SelfAttention
from gancompress.backbones.base import prunable_weights
from gancompress.backbones.biggan import BigGAN, BigGANConfig
from gancompress.backbones.biggan_deep import BigGANDeep, BigGANDeepConfig, _DiscriminatorBlock, _GeneratorBlock
from gancompress.backbones.layers import (
    ConditionalBatchNorm2d,
    PointwiseShortcut,
    ProjectedBatchNorm2d,
    initialiser,
)
from gancompress.cost.profile import profile
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError

CIFAR10 = ImageSpec(3, 32, tuple("0123456789"))
IMAGENET = ImageSpec(3, 128, tuple(str(index) for index in range(1000)))
CLASSES = ("ant", "bee", "cat")


def small(resolution: int = 32, classes: tuple[str, ...] = CLASSES, **settings: Any) -> BigGAN:
    defaults = {"channels": 8, "latent_dim": 60, "init": "normal", "conditional": bool(classes)}
    return BigGAN(BigGANConfig(**{**defaults, **settings}), ImageSpec(3, resolution, classes))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolutions(network: nn.Module) -> int:
    return sum(w.parameter.numel() for w in prunable_weights(network).values() if w.kind == "convolution")


def test_cifar10_sizes_as_published():
    backbone = BigGAN(BigGANConfig(init="normal"), CIFAR10)
    generator, discriminator = backbone.generator(), backbone.discriminator()
    assert parameters(generator) == 4_304_387
    assert parameters(discriminator) == 4_207_361
    assert convolutions(generator) == 3_742_464
    assert convolutions(discriminator) == 4_201_984
    # pixels x 3x3 weights, by hand: 32x32 with the shortcut at 16x16, 16x16 with its shortcut, twice 8x8, one logit
    judge = 1024 * 9 * (3 * 256 + 256 * 256) + 256 * 3 * 256
    judge += 256 * (2 * 9 + 1) * 256 * 256 + 2 * 64 * 2 * 9 * 256 * 256 + 256
    assert profile(discriminator).weight_macs() == judge == 1_081_016_576
    assert profile(generator).weight_macs() == 1_681_129_472
    assert profile(discriminator).weight_macs(counting="executed") == judge - 192 * 256 * 256


@pytest.mark.parametrize(
    ("kind", "config", "generator", "discriminator"),
    [
        # table 4 of the paper with channels 96, counted by Google's compare_gan
        (BigGAN, BigGANConfig(spectral_norm=False, generator_spectral_norm=False), 70_433_988, 87_982_370),
        # table 7 of the paper with channels 128, counted there too
        (BigGANDeep, BigGANDeepConfig(spectral_norm=False, generator_spectral_norm=False), 50_244_484, 34_590_210),
    ],
)
def test_imagenet_sizes_as_published(kind, config, generator, discriminator):
    with torch.device("meta"):
        backbone = kind(config, IMAGENET)
        assert parameters(backbone.generator()) == generator
        assert parameters(backbone.discriminator()) == discriminator


@pytest.mark.parametrize(
    ("resolution", "bottom", "generator", "discriminator", "attending"),
    [
        (64, 4, [16, 16, 8, 4, 2], [1, 2, 4, 8, 16], (2, 0)),
        (96, 6, [16, 16, 8, 4, 2], [1, 2, 4, 8, 16], (2, 0)),
        (128, 4, [16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16], (3, 0)),
    ],
)
def test_layouts(resolution, bottom, generator, discriminator, attending):
    with torch.device("meta"):
        backbone = small(resolution, spectral_norm=False, generator_spectral_norm=False)
        made, judge = backbone.generator(), backbone.discriminator()
    assert made.input.size == bottom
    assert [made.input.channels // 8] + [block.conv2.out_channels // 8 for block in made.blocks] == generator
    assert [block.conv2.out_channels // 8 for block in judge.blocks] == discriminator
    assert (made.attending, judge.attending) == attending
    assert made.attention.merge.out_channels == made.blocks[attending[0]].conv2.out_channels
    assert judge.blocks[-1].shortcut is None or resolution != 128


def test_spectral_norm_covers_both_networks():
    backbone = small(attention=8, shared_embedding=4, hierarchical=True)
    for network in (backbone.generator(), backbone.discriminator()):
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert all(hasattr(layer, "parametrizations") for layer in layers)
    assert not hasattr(backbone.generator().embedding, "parametrizations")
    assert hasattr(backbone.discriminator().projection.embedding, "parametrizations")


def test_attention_by_hand():
    attention = SelfAttention(8, initialiser("normal"), spectral_norm=False)
    x = torch.randn(1, 8, 2, 2)
    assert torch.equal(attention(x), x)  # closed at first
    with torch.no_grad():
        attention.gate.fill_(2.0)
        attention.value.weight.zero_()
        attention.value.weight[0, 0] = 1.0
        attention.merge.weight.zero_()
        attention.merge.weight[3, 0] = 1.0
    out = attention(x)
    # one key and one value, the largest of four pixels: every pixel gets all of it
    expected = x.clone()
    expected[0, 3] += 2.0 * x[0, 0].max()
    torch.testing.assert_close(out, expected)


def test_attention_weighs_keys_by_the_softmax_of_products():
    attention = SelfAttention(8, initialiser("normal"), spectral_norm=False)
    with torch.no_grad():
        attention.gate.fill_(1.0)
        for layer, (row, column) in (
            (attention.query, (0, 0)),
            (attention.key, (0, 1)),
            (attention.value, (0, 2)),
            (attention.merge, (7, 0)),
        ):
            layer.weight.zero_()
            layer.weight[row, column] = 1.0
    # two keys (left 0, right log 3) and two values (10, 20); queries are 0 on the left pixels and 1 on the right
    x = torch.zeros(1, 8, 2, 4)
    x[0, 0, :, 2:] = 1.0
    x[0, 1, :, 2:] = torch.log(torch.tensor(3.0))
    x[0, 2, :, :2], x[0, 2, :, 2:] = 10.0, 20.0
    mixed = attention(x)[0, 7]
    torch.testing.assert_close(mixed, torch.tensor([[15.0, 15.0, 17.5, 17.5]] * 2))


def test_attention_can_be_differentiated_twice():
    judge = small(attention=8).discriminator()
    nn.init.ones_(judge.attention.gate)
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(judge(x, torch.tensor([0, 1])).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert judge.attention.query.parametrizations.weight.original.grad.abs().max() > 0


def test_attention_weights_are_prunable_convolutions():
    backbone = small(64)
    for network in (backbone.generator(), backbone.discriminator()):
        weights = prunable_weights(network)
        for part in ("query", "key", "value", "merge"):
            assert weights[f"attention.{part}.weight"].kind == "convolution"
    assert "attention.query.weight" not in prunable_weights(small(64, attention=0).generator())


def test_projected_norm_by_hand():
    norm = ProjectedBatchNorm2d(1, 2, initialiser("normal"), spectral_norm=False)
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[0.0, 2.0]]))
        norm.bias.weight.copy_(torch.tensor([[10.0, 0.0]]))
    x = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    out = norm(x, torch.tensor([[0.0, 0.0], [1.0, 1.0]])).flatten()
    torch.testing.assert_close(out, torch.tensor([-1.0, 13.0]), atol=1e-4, rtol=0)
    assert prunable_weights(norm) == {}
    with pytest.raises(ValueError, match="condition"):
        norm(x, None)


def test_hierarchical_blocks_see_the_class_and_their_own_piece():
    generator = small(hierarchical=True, shared_embedding=5, latent_dim=8).generator()
    assert generator.chunk == 2
    z, labels = torch.arange(16.0).view(2, 8), torch.tensor([2, 0])
    first, conditions = generator._conditions(z, labels)
    assert first.tolist() == [[0, 1], [8, 9]]
    for index, condition in enumerate(conditions):
        assert torch.equal(condition[:, :5], generator.embedding.weight[labels])
        assert torch.equal(condition[:, 5:], z[:, 2 * index + 2 : 2 * index + 4])
    assert generator.input.linear.in_features == 2
    assert generator.blocks[0].norm1.gain.in_features == 7


def test_unconditional_hierarchical_blocks_see_their_piece_alone():
    generator = small(hierarchical=True, classes=(), latent_dim=8).generator()
    _, conditions = generator._conditions(torch.arange(8.0).view(1, 8), None)
    assert [condition.tolist() for condition in conditions] == [[[2, 3]], [[4, 5]], [[6, 7]]]


@pytest.mark.parametrize(
    ("settings", "norm"),
    [
        ({}, ConditionalBatchNorm2d),
        ({"shared_embedding": 4}, ProjectedBatchNorm2d),
        ({"classes": ()}, nn.BatchNorm2d),
        ({"classes": (), "hierarchical": True}, ProjectedBatchNorm2d),
    ],
)
def test_norms_follow_the_settings(settings, norm):
    generator = small(**settings).generator()
    assert {type(m) for block in generator.blocks for m in (block.norm1, block.norm2)} == {norm}
    assert type(generator.norm) is nn.BatchNorm2d


def test_gains_start_about_one_and_biases_about_zero():
    torch.manual_seed(0)
    norm = BigGAN(BigGANConfig(init="normal"), CIFAR10).generator().blocks[0].norm1
    for weight, mean in ((norm.gain.weight, 1.0), (norm.bias.weight, 0.0)):
        assert abs(weight.mean() - mean) < 0.002
        assert abs(weight.std() - 0.02) < 0.002


def test_initialisations():
    torch.manual_seed(0)
    normal = small(init="normal").discriminator().blocks[1].conv1.parametrizations.weight.original
    assert abs(normal.std() - 0.02) < 0.001
    orthogonal = small(init="orthogonal").discriminator().blocks[1].conv1.parametrizations.weight.original
    rows = orthogonal.flatten(1)
    torch.testing.assert_close(rows @ rows.t(), torch.eye(32), atol=1e-5, rtol=0)
    for network in (small(init="orthogonal").generator(), small(init="orthogonal").discriminator()):
        assert all(not m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is not None)


def test_shortcuts_are_counted_as_published():
    backbone = small()
    ratios = [
        [m.published_ratio for m in network.modules() if isinstance(m, PointwiseShortcut)]
        for network in (backbone.generator(), backbone.discriminator())
    ]
    assert ratios == [[4, 4, 4], [1, 4]]


def test_deep_blocks_as_drawn():
    torch.manual_seed(0)
    draw = initialiser("xavier")
    double = lambda t: t.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    x = torch.randn(2, 8, 4, 4)
    up = _GeneratorBlock(8, 4, draw, nn.BatchNorm2d, up=True, spectral_norm=False).eval()
    h = up.conv2(double(F.relu(up.norm2(up.conv1(F.relu(up.norm1(x)))))))
    h = up.conv4(F.relu(up.norm4(up.conv3(F.relu(up.norm3(h))))))
    torch.testing.assert_close(up(x), h + double(x)[:, :4])
    down = _DiscriminatorBlock(8, 12, draw, down=True, spectral_norm=False)
    h = down.conv3(F.relu(down.conv2(F.relu(down.conv1(F.relu(x))))))
    h = down.conv4(F.avg_pool2d(F.relu(h), 2))
    smaller = F.avg_pool2d(x, 2)
    torch.testing.assert_close(down(x)[:, :8], h[:, :8] + smaller)
    torch.testing.assert_close(down(x)[:, 8:], h[:, 8:] + down.shortcut(smaller))
    assert _DiscriminatorBlock(8, 8, draw, down=False, spectral_norm=False).shortcut is None


def test_deep_attends_after_the_second_block_at_64():
    with torch.device("meta"):
        config = BigGANDeepConfig(channels=4, spectral_norm=False, generator_spectral_norm=False)
        backbone = BigGANDeep(config, ImageSpec(3, 128, CLASSES))
        made, judge = backbone.generator().blocks, backbone.discriminator().blocks
    assert [i for i, m in enumerate(made) if isinstance(m, SelfAttention)] == [8]
    assert [i for i, m in enumerate(judge) if isinstance(m, SelfAttention)] == [2]
    assert made[8].merge.out_channels == made[7].conv4.out_channels == 8


@pytest.mark.parametrize(
    ("resolution", "settings", "message"),
    [
        (48, {}, r"biggan makes images of 32, 64, 96, 128 pixels, these have 48.*--set data\.resolution=32"),
        (32, {"attention": 32}, r"maps of 8, 16 pixels, not 32: --set model\.attention=16, or 0"),
        (128, {"attention": 3}, r"maps of 8, 16, 32, 64 pixels, not 3: --set model\.attention=8, or 0"),
        (
            128,
            {"channels": 12},
            r"channels=12 .*attention at 64 pixels.*multiple of 8 \(--set model\.channels=16\)",
        ),
        (
            128,
            {"channels": 8, "discriminator_channels": 20},
            r"discriminator_channels=20 .*multiple of 8 \(--set model\.discriminator_channels=16\)",
        ),
        (128, {"latent_dim": 128}, r"latent_dim=128 .*5 blocks.*multiple of 6 \(--set model\.latent_dim=126\)"),
        (32, {"hierarchical": True}, r"--set model\.shared_embedding=128, or --set model\.hierarchical=false"),
        (32, {"classes": (), "shared_embedding": 8}, r"no classes to embed: --set model\.shared_embedding=0"),
        (32, {"classes": (), "conditional": True}, r"the data has no labels: .*--set model\.conditional=false"),
    ],
)
def test_settings_that_do_not_fit_are_refused(resolution, settings, message):
    with pytest.raises(BackboneError, match=message):
        small(resolution, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 3, "attention": 0}, r"channels=3 .*bottleneck.*--set model\.channels=4"),
        ({"channels": 6}, r"channels=6 .*attention at 64 pixels divides 2 times channels by 8.*multiple of 4"),
        ({"discriminator_channels": 5, "attention": 0}, r"discriminator_channels=5 .*multiple of 2"),
        ({"attention": 128}, r"maps of 8, 16, 32, 64 pixels, not 128: --set model\.attention=64"),
    ],
)
def test_deep_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(BackboneError, match=message):
        BigGANDeep(BigGANDeepConfig(**settings), ImageSpec(3, 128, CLASSES))


def test_without_attention_any_width_will_do():
    assert small(128, channels=3, attention=0).generator().attention is None


@pytest.mark.parametrize(
    ("backbone", "multiples"),
    [
        (small(), (1, 1)),
        (small(64), (2, 8)),
        (small(128), (4, 8)),
        (BigGANDeep(BigGANDeepConfig(channels=8), ImageSpec(3, 128, CLASSES)), (4, 4)),
        (BigGANDeep(BigGANDeepConfig(channels=8, attention=0), ImageSpec(3, 128, CLASSES)), (2, 2)),
    ],
)
def test_widths_that_a_method_may_choose(backbone, multiples):
    generator, discriminator = backbone.widths["generator"], backbone.widths["discriminator"]
    assert (generator.multiple, discriminator.multiple) == multiples
    assert (generator.channels, discriminator.channels) == (8, 8)
    kind, config = type(backbone), backbone.config
    for width in (generator, discriminator):
        fewer = {"channels": 8, "discriminator_channels": 8} | {width.field: width.multiple}
        kind(config.model_copy(update=fewer), backbone.image)
        if width.multiple > 1:
            with pytest.raises(BackboneError, match=rf"{width.field}={width.multiple // 2} "):
                kind(config.model_copy(update=fewer | {width.field: width.multiple // 2}), backbone.image)
