"""Networks for image to image: published sizes, and what the paper's figures say of their layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gancompress.backbones.patches import PatchDiscriminator
from gancompress.backbones.resnet import ResNet, ResNetConfig
from gancompress.backbones.unet import UNet, UNetConfig
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError

WHOLE = ImageSpec(3, 256)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_published_sizes() -> None:
    """54.414 and 2.769 million of pix2pix, 11.378 and 2.765 of CycleGAN, as their published codes print them."""
    with torch.device("meta"):
        unet, resnet = UNet(UNetConfig(), WHOLE), ResNet(ResNetConfig(), WHOLE)
        assert parameters(unet.generator()) == 54_413_955
        assert parameters(unet.discriminator()) == 2_768_705
        assert parameters(resnet.generator()) == 11_378_179
        assert parameters(resnet.discriminator()) == 2_764_737


def test_logits_of_patches() -> None:
    """30 x 30 logits at 256 pixels (Isola et al., 2017), each of which sees 70 x 70."""
    judge = PatchDiscriminator(WHOLE, 4, 3, "instance", pairs=False)
    judge.norms = nn.ModuleList(nn.Identity() for _ in judge.norms)  # an instance norm sees all
    x = torch.rand(1, 3, 256, 256, requires_grad=True)
    logits = judge(x)
    assert logits.shape == (1, 30, 30)
    (seen,) = torch.autograd.grad(logits[0, 15, 15], x)
    rows, columns = (seen[0].abs().sum((0, axis)).nonzero().flatten() for axis in (2, 1))
    assert [int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1] == [70, 70]


@pytest.mark.parametrize("resolution", [32, 64])
def test_every_map_on_the_way_up_sees_the_one_on_the_way_down(resolution: int) -> None:
    network = UNet(UNetConfig(channels=4, norm="instance"), ImageSpec(3, resolution)).generator().eval()
    x = torch.rand(1, 3, resolution, resolution)
    whole: Tensor = network(x)
    for level in range(len(network.downs) - 1):
        # a path past everything below: with what comes from below cut off, the output still depends on this map
        up = network.ups[len(network.ups) - 1 - level]
        kept = up.weight.detach().clone()
        with torch.no_grad():
            up.weight.zero_()
        cut = network(x)
        assert not torch.equal(cut, whole)
        other = network(x.flip(-1))
        assert float((other - cut).detach().abs().max()) > 1e-3
        with torch.no_grad():
            up.weight.copy_(kept)


def test_dropout_is_noise_of_training_alone_and_of_the_three_smallest_maps() -> None:
    network = UNet(UNetConfig(channels=2, norm="instance"), WHOLE).generator()
    x = torch.rand(1, 3, 256, 256)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    assert list(network.dropping) == [1, 2, 3]
    assert list(UNet(UNetConfig(), ImageSpec(3, 32)).generator().dropping) == []


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"unet makes images of 32, 64, .* resize the data"):
        UNet(UNetConfig(), ImageSpec(3, 48))
    with pytest.raises(BackboneError, match=r"resnet makes images of 128, 256, 512"):
        ResNet(ResNetConfig(patch_layers=5), ImageSpec(3, 64))
