from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gancompress import kernels
from gancompress.backbones.base import prunable_weights
from gancompress.backbones.dcgan import DCGAN, DCGANConfig
from gancompress.backbones.modulation import Mapping, ModulatedConv, ToColour, minibatch_deviation
from gancompress.backbones.stylegan2 import StyleGAN2, StyleGAN2Config
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.kernels.resample import smooth, smooth_down2, smooth_up2
from gancompress.seeds import seed_global

SMALL = {"channels": 16, "latent_dim": 8, "style_dim": 8, "mapping_layers": 2}


def small(resolution=16, **more):
    torch.manual_seed(0)
    return StyleGAN2(StyleGAN2Config(**{**SMALL, **more}), ImageSpec(3, resolution))


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


def styled(inputs, outputs):
    """3x3 weight, bias and strength, and the affine map of a style of 512."""
    return inputs * outputs * 9 + outputs + 1 + 512 * inputs + inputs


def colour(inputs):
    return 3 * inputs + 3 + 512 * inputs + inputs


def test_config_f_has_as_many_parameters_as_published():
    with torch.device("meta"):
        backbone = StyleGAN2(StyleGAN2Config(), ImageSpec(3, 1024))
        made, judge = backbone.generator(), backbone.discriminator()
    widths = [512, 512, 512, 512, 512, 256, 128, 64, 32]  # of 4 to 1024 pixels
    steps = list(pairwise(widths))
    generator = 8 * (512 * 512 + 512) + 512 * 16 + styled(512, 512) + sum(map(colour, widths))
    generator += sum(styled(a, b) + styled(b, b) for a, b in steps)
    # what the published code prints for 1024 pixels: 30.4 and 29.0 million
    assert size(made) == generator == 30_370_060
    blocks = sum(b * b * 9 + b + b * a * 9 + a + a * b for a, b in steps)
    end = 513 * 512 * 9 + 512 + 512 * 16 * 512 + 512 + 512 + 1
    assert size(judge) == (3 * 32 + 32) + blocks + end == 29_012_513


def test_ada_for_cifar10_has_all_channels_everywhere():
    with torch.device("meta"):
        config = StyleGAN2Config(mapping_layers=2, residual=False, group=32)
        backbone = StyleGAN2(config, ImageSpec(3, 32))
        made, judge = backbone.generator(), backbone.discriminator()
    # 2 layers of the mapping, the constant, 7 convolutions, 4 colours
    assert size(made) == 2 * 262_656 + 8_192 + 7 * styled(512, 512) + 4 * colour(512) == 19_947_539
    assert [block.skip for block in judge.blocks] == [None] * 3
    half = StyleGAN2(StyleGAN2Config(channels=64, full_until=32), ImageSpec(3, 128))
    assert half._maps("generator") == [64, 64, 64, 64, 32, 16]


def filtered(x, up=1, down=1, pad=(0, 0), gain=1.0):
    """Zeros between pixels, zeros around, the filter [1, 3, 3, 1] / 8 twice, of some pixels one: by definition."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, h * up, w * up)
    spread[:, :, ::up, ::up] = x
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 8
    kernel = (line[:, None] * line * gain).expand(c, 1, 4, 4)
    return F.conv2d(F.pad(spread, (*pad, *pad)), kernel, groups=c)[:, :, ::down, ::down]


def explicit(layer, x, w):
    """Eqs. 1 to 3 of the paper: one weight per image, which is modulated, demodulated and convolved with."""
    style = w @ layer.style.parametrizations.weight.original.t() / math.sqrt(w.shape[1]) + layer.style.bias
    stored = layer.conv.weight.transpose(0, 1) if layer.up else layer.conv.weight
    weight = stored / math.sqrt(stored[0].numel())
    out = []
    for image, s in zip(x, style, strict=True):
        own = weight * s[None, :, None, None]
        own = own * (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        if layer.up:  # zeros between pixels, the kernel as a convolution (turned round), the filter
            h = F.conv_transpose2d(image[None], own.transpose(0, 1), stride=2)
            h = filtered(h, pad=(1, 1), gain=4)
        else:
            h = F.conv2d(image[None], own, padding=1)
        h = h + layer.noise * layer.strength + layer.bias[:, None, None]
        out.append(F.leaky_relu(h, 0.2) * math.sqrt(2))
    return torch.cat(out)


@pytest.mark.parametrize("up", [False, True])
def test_a_modulated_convolution_is_one_of_each_images_own(up):
    torch.manual_seed(1)
    layer = ModulatedConv(5, 4, 6, 16 if up else 8, up=up).double().eval()
    with torch.no_grad():
        layer.bias.normal_()
        layer.strength.fill_(0.7)
    x, w = torch.randn(3, 5, 8, 8, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x, w), explicit(layer, x, w))


def test_demodulated_maps_have_variance_one():
    torch.manual_seed(2)
    layer = ModulatedConv(64, 32, 16, 32, up=False).eval()
    hidden = []
    layer.conv.register_forward_hook(lambda module, given, out: hidden.append(out))
    x, w = torch.randn(4, 64, 32, 32), torch.randn(4, 16) * 20
    out = layer(x, w)
    assert hidden[0].std() > 5  # before
    # leaky ReLU of a unit normal, with its gain: a mean square of 2 (1 + 0.04) / 2; at the border zeros are summed
    assert out[:, :, 1:-1, 1:-1].square().mean().item() == pytest.approx(1.04, rel=0.03)


def test_colours_are_modulated_and_not_demodulated():
    torch.manual_seed(3)
    layer = ToColour(4, 3, 6)
    x, w = torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    style = layer.style(w) / 2
    want = torch.stack([F.conv2d(x[i : i + 1] * style[i][:, None, None], layer.conv.weight)[0] for i in range(2)])
    torch.testing.assert_close(layer(x, w), want)


def test_smoothing_is_the_filter():
    x = torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(smooth(x, 1), filtered(x, pad=(1, 1)))
    torch.testing.assert_close(smooth(x, 2), filtered(x, pad=(2, 2)))
    torch.testing.assert_close(smooth_up2(x), filtered(x, up=2, pad=(2, 1), gain=4))
    torch.testing.assert_close(smooth_down2(x), filtered(x, down=2, pad=(1, 1)))


def test_a_block_of_the_discriminator_by_definition():
    judge = small().discriminator().blocks[0]
    with torch.no_grad():
        for name, parameter in judge.named_parameters():
            if "bias" in name:
                parameter.normal_()
    stored = dict(judge.named_parameters())

    def conv(x, name, stride, padding):
        weight = stored[f"{name}.parametrizations.weight.original"]
        return F.conv2d(x, weight / math.sqrt(weight[0].numel()), None, stride, padding)

    def bias(name):
        named = stored.get(f"{name}.parametrizations.bias.original", stored.get(f"{name}.bias"))
        return named[:, None, None]

    x = torch.randn(2, 16, 8, 8)
    h = F.leaky_relu(conv(x, "first", 1, 1) + bias("first"), 0.2) * math.sqrt(2)
    h = F.leaky_relu(conv(filtered(h, pad=(2, 2)), "second", 2, 0) + bias("second"), 0.2) * math.sqrt(2)
    beside = conv(filtered(x, down=2, pad=(1, 1)), "skip", 1, 0)
    torch.testing.assert_close(judge(x), (h + beside) * math.sqrt(0.5))


def test_layers_start_at_unit_variance_and_the_mapping_learns_slowly():
    torch.manual_seed(0)
    layer = Mapping(256, 256, 1, 0).layers[0]
    stored = layer.parametrizations.weight.original
    assert stored.std().item() == pytest.approx(100, rel=0.02)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2) / 16, rel=0.02)
    with torch.no_grad():
        layer.parametrizations.bias.original.fill_(1.0)
    assert layer.bias[0].item() == pytest.approx(0.01 * math.sqrt(2))


def test_minibatch_deviation_by_hand():
    x = torch.tensor([0.0, 2.0, 1.0, 5.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    out = minibatch_deviation(x, 2)  # groups {0, 1} and {2, 5} of images 0 and 2, 1 and 3
    assert out.shape == (4, 2, 2, 2)
    torch.testing.assert_close(out[:, 1, 0, 0], torch.tensor([0.5, 1.5, 0.5, 1.5]))
    assert minibatch_deviation(torch.rand(5, 1, 2, 2), 4)[:, 1].max() < 1e-3  # five images have groups of one


def test_masks_lie_on_the_shared_weight():
    made = small().generator()
    found = prunable_weights(made)
    assert found["ups.0.conv.weight"].key == "ups.0.conv.weight"
    assert found["ups.0.conv.weight"].layer.kind == "transposed convolution"
    assert [name for name, weight in found.items() if weight.output] == ["colours.2.conv.weight"]
    assert found["convs.1.style.weight"].key == "convs.1.style.parametrizations.weight.original"


def test_noise_and_mixing_are_those_of_the_seed():
    made = small().generator()
    for name, parameter in made.named_parameters():
        if "strength" in name:
            nn.init.constant_(parameter, 0.5)
    z = torch.randn(4, 8)

    def image(step):
        seed_global(7, "network", "step", step)
        return made(z).detach()

    assert torch.equal(image(3), image(3))
    assert not torch.equal(image(3), image(4))
    made.eval()
    assert torch.equal(image(3), image(4))


def test_styles_mix_from_some_layer_on():
    made = small(mixing=1.0).generator()
    mixed = made.styles(torch.randn(3, 8))
    own = made.mapping(torch.zeros(1, 8)).shape[1]
    assert mixed.shape == (3, 6, own)
    changes = [bool((mixed[:, i] != mixed[:, i + 1]).any()) for i in range(5)]
    assert sum(changes) == 1
    whole = small(mixing=0.0).generator().styles(torch.randn(3, 8))
    assert torch.equal(whole[:, 0], whole[:, -1])


def test_the_average_style_follows_and_truncation_draws_to_it():
    made = small(mixing=0.0, average_decay=0.5).generator()
    z = torch.randn(64, 8)
    w = made.mapping(z).detach()
    made.styles(z)
    torch.testing.assert_close(made.average, w.mean(0) / 2)
    made.eval()
    made.styles(z)
    torch.testing.assert_close(made.average, w.mean(0) / 2)
    made.truncate(0.25)
    torch.testing.assert_close(made.styles(z)[:, 0], made.average + 0.25 * (w - made.average))
    made.truncate(0.0)
    images = made(z[:2])
    assert torch.equal(images[0], images[1])
    with pytest.raises(BackboneError, match="no average of styles"):
        DCGAN(DCGANConfig(channels=4), ImageSpec(1, 16)).generator().truncate(0.5)


def test_widths_that_large_maps_cannot_share_are_refused():
    with pytest.raises(BackboneError, match=r"channels=24 cannot be split: .*--set model.channels=32\)"):
        StyleGAN2(StyleGAN2Config(channels=24), ImageSpec(3, 1024))


@pytest.mark.parametrize("penalised", ["discriminator", "generator"])
def test_on_the_kernels_a_step_and_its_penalties_are_those_of_torch(penalised):
    if not kernels.status().available:
        pytest.skip("native kernels are not built")
    built = small(channels=16, full_until=8)
    generator, discriminator = built.generator(), built.discriminator()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("strength"):
                parameter.fill_(0.3)
    z, images = torch.randn(16, generator.latent_dim), torch.randn(16, 3, 16, 16)
    found = []
    for sparse in ("always", "never"):
        networks = [copy.deepcopy(network) for network in (generator, discriminator)]
        for network in networks:
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    mask = torch.ones_like(module.weight.detach(), dtype=torch.bool)
                    attached = kernels.attach(module, mask)
                    attached.sparse, attached.batch_last = sparse, True
        torch.manual_seed(1)
        player, judge = networks
        if penalised == "discriminator":
            real = images.clone().requires_grad_()
            logits = judge(real).sum()
            (slope,) = torch.autograd.grad(logits, real, create_graph=True)
            (logits + slope.square().sum()).backward()
            parameters = list(judge.parameters())
        else:
            styles = player.styles(z)
            made = player.synthesise(styles)
            (slope,) = torch.autograd.grad((made * images).sum(), styles, create_graph=True)
            (judge(made).sum() + slope.square().sum()).backward()
            parameters = list(player.parameters())
        found.append([p.grad for p in parameters])
    assert all(g is not None for g in found[0])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5 * float(want.abs().max()) + 1e-6)
