"""The residual generator of CycleGAN (Zhu et al., 2017): two halvings, residual blocks, two doublings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import BackboneConfig, Discriminator, Generator, Translator
from gancompress.backbones.layers import finish, initialiser
from gancompress.backbones.patches import Norm, TranslationBackbone, TranslationConfig, norm_of
from gancompress.components.registry import BACKBONES

if TYPE_CHECKING:
    from gancompress.data.base import ImageSpec

__all__ = ["ResNet", "ResNetConfig", "ResNetGenerator"]


class ResNetConfig(TranslationConfig):
    """Settings of the residual generator."""

    blocks: int = Field(9, ge=1, description="residual blocks; published: 9 from 256 pixels on, 6 below")
    norm: Norm = Field("instance", description="normalisation of both networks")
    pairs: bool = Field(False, description="the discriminator sees what an image was made from beside it")


class _Block(nn.Module):
    """Two 3x3 convolutions with reflected borders, added to what they were given."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        draw, bias = initialiser("normal"), norm == "instance"
        self.pad = nn.ReflectionPad2d(1)
        self.conv1 = finish(nn.Conv2d(width, width, 3, bias=bias), draw)
        self.norm1 = norm_of(norm, width)
        self.conv2 = finish(nn.Conv2d(width, width, 3, bias=bias), draw)
        self.norm2 = norm_of(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(self.pad(x))))
        changed: Tensor = self.norm2(self.conv2(self.pad(h)))
        return x + changed


class ResNetGenerator(Translator):
    """c7s1-64, d128, d256, residual blocks, u128, u64, c7s1-3 (Zhu et al., 2017, section 7.2)."""

    def __init__(self, config: ResNetConfig, image: ImageSpec) -> None:
        super().__init__()
        self.image = image
        draw, width, norm = initialiser("normal"), config.channels, config.norm
        bias = norm == "instance"
        self.pad = nn.ReflectionPad2d(3)
        self.input = finish(nn.Conv2d(image.channels, width, 7, bias=bias), draw)
        self.down1 = finish(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias), draw)
        self.down2 = finish(nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=bias), draw)
        self.blocks = nn.Sequential(*(_Block(4 * width, norm) for _ in range(config.blocks)))
        self.up1 = finish(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1, bias=bias), draw)
        self.up2 = finish(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=bias), draw)
        self.norms = nn.ModuleList(norm_of(norm, factor * width) for factor in (1, 2, 4, 2, 1))
        self.output = finish(nn.Conv2d(width, image.channels, 7), draw)

    def output_layer(self) -> nn.Module:
        """Return the convolution that makes the image."""
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to images (B, C, H, W)."""
        h = F.relu(self.norms[0](self.input(self.pad(z))))
        h = F.relu(self.norms[1](self.down1(h)))
        h = self.blocks(F.relu(self.norms[2](self.down2(h))))
        h = F.relu(self.norms[3](self.up1(h)))
        h = F.relu(self.norms[4](self.up2(h)))
        return torch.tanh(self.output(self.pad(h)).float())


@BACKBONES.register("resnet")
class ResNet(TranslationBackbone):
    """The residual generator of CycleGAN and a discriminator of 70 x 70 patches, for 32 to 512 pixels.

    11,378,179 parameters in the generator of RGB images with nine blocks, 2.765 million in the discriminator. Source:
    Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, 2017, section 7.2.
    """

    Config: ClassVar[type[BackboneConfig]] = ResNetConfig
    _name = "resnet"
    config: ResNetConfig

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return ResNetGenerator(self.config, self.image)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return self._patches(self.config.norm, pairs=self.config.pairs)
