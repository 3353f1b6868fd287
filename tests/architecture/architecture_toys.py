"""A backbone as people write them: in-place ReLUs, a buffer, a raw parameter, a concatenation, nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator

if TYPE_CHECKING:
    from gancompress.data.base import ImageSpec


class PlugConfig(BackboneConfig):
    width: int = 6


class PlugGenerator(Generator):
    def __init__(self, width: int, image: ImageSpec) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.image = 5, image.num_classes, image
        self.embed = nn.Embedding(max(1, image.num_classes), 5)
        self.first = nn.Linear(5, width * 16)
        self.body = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1), nn.PReLU(),
        )  # fmt: skip
        self.up = nn.ConvTranspose2d(2 * width, 3, 4, stride=2, padding=1)
        self.scale = nn.Parameter(torch.full((3, 1, 1), 1.5))
        self.register_buffer("noise", torch.randn(3, 16, 16))

    def output_layer(self) -> nn.Module:
        return self.up

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:
            z = z + self.embed(labels)
        x = self.first(z)
        x = self.body(x.view(x.size(0), -1, 4, 4))
        x = self.up(torch.cat([x, x.flip(3)], 1))
        return torch.tanh(x * self.scale + 0.1 * self.noise)


class PlugDiscriminator(Discriminator):
    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.num_classes, self.image = image.num_classes, image
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 4, stride=2, padding=1))
        self.head = nn.Linear(8, 1)

    def output_layer(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        out: Tensor = self.head(torch.relu(self.conv(x)).sum((2, 3))).squeeze(1)
        return out


class Plug(Backbone[PlugConfig]):
    Config: ClassVar[type[BackboneConfig]] = PlugConfig

    @property
    def resolutions(self) -> tuple[int, ...]:
        return (16,)

    @property
    def conditional(self) -> bool:
        return self.image.num_classes > 1

    def generator(self) -> Generator:
        return PlugGenerator(self.config.width, self.image)

    def discriminator(self) -> Discriminator:
        return PlugDiscriminator(self.image)
