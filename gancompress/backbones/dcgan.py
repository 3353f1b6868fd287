"""DCGAN (Radford et al., 2016), small and quick: strided convolutions without residual blocks."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import SizedBackbone
from gancompress.backbones.layers import (
    LinearToMap,
    ProjectionDiscriminator,
    ProjectionHead,
    batch_norm,
    finish,
    initialiser,
    normalise,
)
from gancompress.components.registry import BACKBONES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = ["DCGAN", "DCGANConfig"]

_RESOLUTIONS = (16, 32, 64)
_BOTTOM = 4


class DCGANConfig(BackboneConfig):
    """Settings of the DCGAN backbone."""

    latent_dim: int = Field(128, ge=1, description="size of the latent vector")
    channels: int = Field(
        64, ge=1, description="channels of the generator's largest hidden map; doubled at every halving of resolution"
    )
    discriminator_channels: int | None = Field(
        None, ge=1, description="the same for the discriminator; default: as many as the generator"
    )
    conditional: bool = Field(
        False,
        description="condition on classes: batch norm per class (generator), projection (discriminator)",
    )
    spectral_norm: bool = Field(True, description="spectral normalisation of the discriminator")
    discriminator_norm: Literal["none", "batch"] = Field(
        "none",
        description="batch norm in the discriminator, as in the paper; not with spectral norm or WGAN-GP",
    )


def _widths(channels: int, resolution: int) -> list[int]:
    """Return the channels of the hidden maps from ``resolution / 2`` down to 4 pixels."""
    maps = (resolution // _BOTTOM).bit_length() - 1
    return [channels * 2**level for level in range(maps)]


class _DCGANGenerator(Generator):
    any_memory_format = True

    def __init__(self, config: DCGANConfig, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = config.latent_dim, image, num_classes
        draw = initialiser("normal")
        widths = _widths(config.channels, image.resolution)[::-1]
        # no biases before batch norm: it would take them out again
        linear = nn.Linear(config.latent_dim, widths[0] * _BOTTOM**2, bias=False)
        self.input = LinearToMap(finish(linear, draw), _BOTTOM)
        self.norms = nn.ModuleList(batch_norm(width, num_classes) for width in widths)
        self.convs = nn.ModuleList(
            finish(nn.ConvTranspose2d(width, half, 4, stride=2, padding=1, bias=False), draw)
            for width, half in pairwise(widths)
        )
        self.output = finish(nn.ConvTranspose2d(widths[-1], image.channels, 4, stride=2, padding=1), draw)

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h: Tensor = self.input(z)
        for norm, conv in zip(self.norms, [*self.convs, self.output], strict=True):
            h = conv(F.relu(normalise(norm, h, labels)))
        return torch.tanh(h.float())


class _DCGANDiscriminator(ProjectionDiscriminator):
    def __init__(self, config: DCGANConfig, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        draw = initialiser("normal")
        normalised = config.discriminator_norm == "batch"
        widths = _widths(config.discriminator_channels or config.channels, image.resolution)
        channels = [image.channels, *widths]
        self.convs = nn.ModuleList(
            finish(nn.Conv2d(a, b, 4, stride=2, padding=1), draw, config.spectral_norm) for a, b in pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:]) if normalised else None
        self.output = finish(nn.Linear(widths[-1] * _BOTTOM**2, 1), draw, config.spectral_norm)
        self.projection = (
            ProjectionHead(widths[-1], num_classes, draw, spectral_norm=config.spectral_norm) if num_classes else None
        )

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = x
        for index, conv in enumerate(self.convs):
            h = conv(h)
            if self.norms is not None and index > 0:
                h = self.norms[index - 1](h)
            h = F.leaky_relu(h, 0.2)
        return self.logits(h.flatten(1), labels, h.float().sum((2, 3)))


@BACKBONES.register("dcgan")
class DCGAN(SizedBackbone[DCGANConfig]):
    """DCGAN for 16, 32 or 64 pixels, grey or colour, conditional or not (Radford et al., 2016, section 3).

    The discriminator is spectrally normalised instead of batch-normalised unless the config says otherwise.
    """

    Config: ClassVar[type[BackboneConfig]] = DCGANConfig
    _name, _sizes = "dcgan", _RESOLUTIONS

    def __init__(self, config: DCGANConfig, image: ImageSpec) -> None:
        super().__init__(config, image)

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The channels of the largest hidden maps."""
        channels = self.config.channels
        return {
            "generator": Width("channels", channels),
            "discriminator": Width("discriminator_channels", self.config.discriminator_channels or channels),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return _DCGANGenerator(self.config, self.image, self._classes)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _DCGANDiscriminator(self.config, self.image, self._classes)
