"""The U-Net of pix2pix (Isola et al., 2017): every map on the way up sees the one of its size on the way down."""

from __future__ import annotations

from itertools import pairwise
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

__all__ = ["UNet", "UNetConfig", "UNetGenerator"]

#: halvings behind which maps are no wider
_WIDEST = 3
#: convolutions on the way up, from the smallest map on, that drop out: as many as are 8 times as wide, but two
_NEVER_DROP = 5


class UNetConfig(TranslationConfig):
    """Settings of the U-Net."""

    norm: Norm = Field("batch", description="normalisation of both networks; batches of one image want instance norm")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="of maps on the way up, the smallest up to three, while training: the only noise"
    )
    pairs: bool = Field(True, description="the discriminator sees what an image was made from beside it")


class UNetGenerator(Translator):
    """Halves an image down to one pixel and doubles it up again: 8 levels at 256 pixels."""

    def __init__(self, config: UNetConfig, image: ImageSpec) -> None:
        super().__init__()
        self.image, self.dropout = image, config.dropout
        draw, bias = initialiser("normal"), config.norm == "instance"
        levels = image.resolution.bit_length() - 1
        widths = [config.channels * 2 ** min(level, _WIDEST) for level in range(levels)]
        self.downs = nn.ModuleList(
            finish(nn.Conv2d(a, b, 4, 2, 1, bias=bias), draw) for a, b in pairwise([image.channels, *widths])
        )
        # neither the first map nor the last, which has one pixel
        self.down_norms = nn.ModuleList(norm_of(config.norm, width) for width in widths[1:-1])
        # each but the last reads its own map and the one of its size on the way down
        given = [widths[-1], *(2 * width for width in widths[-2::-1])]
        self.ups = nn.ModuleList(
            finish(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=bias), draw)
            for a, b in zip(given[:-1], widths[-2::-1], strict=True)
        )
        self.up_norms = nn.ModuleList(norm_of(config.norm, width) for width in widths[-2::-1])
        self.dropping = range(1, 1 + max(0, levels - _NEVER_DROP))
        self.output = finish(nn.ConvTranspose2d(given[-1], image.channels, 4, 2, 1), draw)

    def output_layer(self) -> nn.Module:
        """Return the transposed convolution that makes the image."""
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to images (B, C, H, W)."""
        maps = [self.downs[0](z)]
        for level, down in enumerate(self.downs[1:]):
            h = down(F.leaky_relu(maps[-1], 0.2))
            maps.append(self.down_norms[level](h) if level < len(self.down_norms) else h)
        h = maps.pop()
        for level, (up, norm) in enumerate(zip(self.ups, self.up_norms, strict=True)):
            h = norm(up(F.relu(h)))
            if level in self.dropping:
                h = F.dropout(h, self.dropout, self.training)
            h = torch.cat((maps.pop(), h), 1)
        return torch.tanh(self.output(F.relu(h)).float())


@BACKBONES.register("unet")
class UNet(TranslationBackbone):
    """The U-Net of pix2pix and a discriminator of 70 x 70 patches of pairs, for 32 to 512 pixels.

    54.414 million parameters in the generator of RGB images of 256 pixels, 2.769 in the discriminator. Source: Isola et
    al., Image-to-Image Translation with Conditional Adversarial Networks, 2017, sections 3.2 and 6.1.
    """

    Config: ClassVar[type[BackboneConfig]] = UNetConfig
    _name = "unet"
    config: UNetConfig

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return UNetGenerator(self.config, self.image)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return self._patches(self.config.norm, pairs=self.config.pairs)
