"""SNGAN: the residual networks of Miyato et al. (2018), in the sizes that sparse GAN papers train."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import SizedBackbone, require_multiple
from gancompress.backbones.layers import (
    DownBlock,
    FirstDownBlock,
    LinearToMap,
    ProjectionDiscriminator,
    ProjectionHead,
    UpBlock,
    batch_norm,
    finish,
    initialiser,
    normalise,
)
from gancompress.components.registry import BACKBONES
from gancompress.kernels.modules import after_relu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = ["SNGAN", "SNGANConfig"]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """One published size. Divisors say by how much the width is divided at each map.

    Attributes:
        bottom: height and width of the generator's first map.
        channels: published width of the generator.
        generator: divisors of the generator's maps, first to last.
        discriminator_channels: published width of the discriminator.
        discriminator: divisors of the discriminator's blocks, first to last.
        halvings: blocks, from the first, that halve the resolution.
    """

    bottom: int
    channels: int
    generator: tuple[int, ...]
    discriminator_channels: int
    discriminator: tuple[int, ...]
    halvings: int


#: 32 and 48: Miyato et al. (2018), tables 4 and 5, as trained by GAN-LTH, STU-GAN and ADAPT; 64 and 128: the same
#: blocks in the ladder of their ImageNet networks (table 6).
_LAYOUTS: Mapping[int, _Layout] = {
    32: _Layout(4, 256, (1, 1, 1, 1), 128, (1, 1, 1, 1), 2),
    48: _Layout(6, 512, (1, 2, 4, 8), 1024, (16, 8, 4, 2, 1), 4),
    64: _Layout(4, 1024, (1, 2, 4, 8, 16), 1024, (16, 8, 4, 2, 1), 5),
    128: _Layout(4, 1024, (1, 1, 2, 4, 8, 16), 1024, (16, 8, 4, 2, 1, 1), 5),
}


class SNGANConfig(BackboneConfig):
    """Settings of the SNGAN backbone."""

    latent_dim: int = Field(128, ge=1, description="size of the latent vector")
    channels: int | None = Field(
        None,
        ge=1,
        description="channels of the generator's first map; default: 256 at 32 pixels, 512 at 48, else 1024",
    )
    discriminator_channels: int | None = Field(
        None,
        ge=1,
        description="channels of the discriminator's last block; default: 128 at 32 pixels, else 1024",
    )
    conditional: bool = Field(
        False,
        description="condition on classes: batch norm per class (generator), projection (discriminator)",
    )
    spectral_norm: bool = Field(True, description="spectral normalisation of the discriminator")
    generator_spectral_norm: bool = Field(False, description="spectral normalisation of the generator")


class _SNGANGenerator(Generator):
    any_memory_format = True

    def __init__(self, config: SNGANConfig, image: ImageSpec, num_classes: int, layout: _Layout, channels: int) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = config.latent_dim, image, num_classes
        draw, normed = initialiser("xavier"), config.generator_spectral_norm
        widths = [channels // divisor for divisor in layout.generator]
        linear = nn.Linear(config.latent_dim, widths[0] * layout.bottom**2)
        self.input = LinearToMap(finish(linear, draw, normed), layout.bottom)
        self.blocks = nn.ModuleList(
            UpBlock(a, b, draw, num_classes=num_classes, spectral_norm=normed) for a, b in pairwise(widths)
        )
        # the last norm is not conditional in the published conditional networks either
        self.norm = batch_norm(widths[-1])
        self.output = finish(nn.Conv2d(widths[-1], image.channels, 3, padding=1), draw, normed)

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h: Tensor = self.input(z)
        for block in self.blocks:
            h = block(h, labels)
        h = after_relu(self.output, normalise(self.norm, h, labels))
        return torch.tanh(h.float())


class _SNGANDiscriminator(ProjectionDiscriminator):
    def __init__(self, config: SNGANConfig, image: ImageSpec, num_classes: int, layout: _Layout, channels: int) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        draw, normed = initialiser("xavier"), config.spectral_norm
        widths = [channels // divisor for divisor in layout.discriminator]
        blocks: list[nn.Module] = [FirstDownBlock(image.channels, widths[0], draw, spectral_norm=normed)]
        # the hidden width is that of the output, which reproduces the costs published for 48 pixels
        blocks += [
            DownBlock(a, b, draw, hidden_channels=b, down=index < layout.halvings, spectral_norm=normed)
            for index, (a, b) in enumerate(pairwise(widths), start=1)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.output = finish(nn.Linear(widths[-1], 1, bias=False), draw, normed)
        self.projection = ProjectionHead(widths[-1], num_classes, draw, spectral_norm=normed) if num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = x
        for block in self.blocks:
            h = block(h)
        return self.logits(F.relu(h).float().sum((2, 3)), labels)


@BACKBONES.register("sngan")
class SNGAN(SizedBackbone[SNGANConfig]):
    """SNGAN for 32, 48, 64 or 128 pixels, conditional or not (Miyato et al., 2018, appendix B.4).

    Conditional networks use batch norm per class in the generator and a projection in the discriminator (Miyato &
    Koyama, 2018). Weights are drawn by Glorot's uniform rule, biases are 0.
    """

    Config: ClassVar[type[BackboneConfig]] = SNGANConfig
    _name, _sizes = "sngan", _LAYOUTS

    def __init__(self, config: SNGANConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self._layout = _LAYOUTS[image.resolution]
        self._channels = config.channels or self._layout.channels
        self._discriminator_channels = config.discriminator_channels or self._layout.discriminator_channels
        for key, width, divisors in (
            ("channels", self._channels, self._layout.generator),
            ("discriminator_channels", self._discriminator_channels, self._layout.discriminator),
        ):
            why = f"at {image.resolution} pixels the width is divided by up to {max(divisors)}"
            require_multiple(key, width, max(divisors), why)

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The channels of the widest maps."""
        layout = self._layout
        return {
            "generator": Width("channels", self._channels, max(layout.generator)),
            "discriminator": Width("discriminator_channels", self._discriminator_channels, max(layout.discriminator)),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return _SNGANGenerator(self.config, self.image, self._classes, self._layout, self._channels)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _SNGANDiscriminator(self.config, self.image, self._classes, self._layout, self._discriminator_channels)
