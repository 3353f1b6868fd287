"""R3GAN: residual networks without normalisation, grouped convolutions in the middle of every block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import conditional_classes, require_multiple, require_resolution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.data.base import ImageSpec
    from gancompress.methods import Role

__all__ = ["R3GAN", "R3GANConfig", "ResidualBlock", "resample"]

_RESOLUTIONS = (16, 32, 64, 128)
_BOTTOM = 4
_EXPANSION = 2
_SLOPE = 0.2

L = TypeVar("L", nn.Conv2d, nn.Linear)


class R3GANConfig(BackboneConfig):
    """Settings of R3GAN. For CIFAR-10 it is published with 768 channels, 2 blocks and groups of 16 channels."""

    latent_dim: int = Field(64, ge=1, description="size of the latent vector")
    channels: int = Field(96, ge=1, description="channels of every map of the generator")
    discriminator_channels: int | None = Field(
        None, ge=1, description="the same for the discriminator; default: as many as the generator"
    )
    blocks: int = Field(2, ge=1, description="residual blocks at every resolution")
    group_width: int = Field(16, ge=1, description="channels that a 3x3 convolution sees at a time")
    conditional: bool = Field(False, description="condition on classes: an embedding beside the latent, projection")
    embedding: int = Field(64, ge=1, description="size of the class embedding")


class ResidualBlock(nn.Module):
    """1x1 to twice the channels, grouped 3x3, 1x1 back; the last starts at 0, so that a block starts as the identity.

    Fix-up initialisation (Zhang et al., 2019): the other two are scaled down by the number of blocks, ``depth``.
    """

    def __init__(self, channels: int, group_width: int, depth: int) -> None:
        super().__init__()
        wide = _EXPANSION * channels
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * depth**-0.25
        self.widen = _drawn(nn.Conv2d(channels, wide, 1), gain)
        self.mix = _drawn(nn.Conv2d(wide, wide, 3, padding=1, groups=wide // group_width), gain)
        self.narrow = _drawn(nn.Conv2d(wide, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        h = F.leaky_relu(self.widen(x), _SLOPE)
        h = F.leaky_relu(self.mix(h), _SLOPE)
        out: Tensor = x + self.narrow(h)
        return out


class _Generator(Generator):
    def __init__(self, config: R3GANConfig, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = config.latent_dim, image, num_classes
        channels, stages = config.channels, _stages(image.resolution)
        self.embedding = nn.Embedding(num_classes, config.embedding) if num_classes else None
        inputs = config.latent_dim + (config.embedding if num_classes else 0)
        # the first map: a learnt 4x4 pattern per channel, scaled by the latent
        self.basis = nn.Parameter(torch.randn(channels, _BOTTOM, _BOTTOM))
        self.input = _drawn(nn.Linear(inputs, channels, bias=False))
        self.stages = nn.ModuleList(_blocks(channels, config, stages) for _ in range(stages))
        self.output = _drawn(nn.Conv2d(channels, image.channels, 1, bias=False))

    def output_layer(self) -> nn.Module:
        """Return the layer that makes the image."""
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Make images in [-1, 1]."""
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(_needed(labels))], 1)
        h = self.basis * self.input(z)[:, :, None, None]
        for index, stage in enumerate(self.stages):
            h = stage(resample(h, up=True) if index else h)
        return torch.tanh(self.output(h).float())


class _Discriminator(Discriminator):
    def __init__(self, config: R3GANConfig, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        channels, stages = config.discriminator_channels or config.channels, _stages(image.resolution)
        self.input = _drawn(nn.Conv2d(image.channels, channels, 1, bias=False))
        self.stages = nn.ModuleList(_blocks(channels, config, stages) for _ in range(stages))
        self.basis = _drawn(nn.Conv2d(channels, channels, _BOTTOM, groups=channels, bias=False))
        self.output = _drawn(nn.Linear(channels, config.embedding if num_classes else 1, bias=False))
        self.embedding = nn.Embedding(num_classes, config.embedding) if num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=config.embedding**-0.5)

    def output_layer(self) -> nn.Module:
        """Return the layer that makes the logits."""
        return self.output

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return one logit per image."""
        h = self.input(x)
        for index, stage in enumerate(self.stages):
            h = stage(resample(h, up=False) if index else h)
        features: Tensor = self.output(self.basis(h).flatten(1)).float()
        if self.embedding is not None:
            features = features * self.embedding(_needed(labels))
        return features.sum(1)


class R3GAN(Backbone[R3GANConfig]):
    """Networks of R3GAN for 16 to 128 pixels (Huang et al., NeurIPS 2024, section 4 and figure 2c).

    No normalisation, no noise, no style: constant width, bilinear resampling, grouped convolutions. The images are
    brought into [-1, 1] by tanh, as gancompress asks of every generator.
    """

    Config = R3GANConfig

    def __init__(self, config: R3GANConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        require_resolution("r3gan-plugin", image, _RESOLUTIONS)
        why = f"its blocks are {_EXPANSION} times as wide, in groups of group_width={config.group_width} channels"
        for role, width in self.widths.items():
            require_multiple(width.field, width.channels, width.multiple, f"{why} ({role})")
        self._classes = conditional_classes("r3gan-plugin", image, config.conditional)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """16, 32, 64 and 128 pixels."""
        return _RESOLUTIONS

    @property
    def conditional(self) -> bool:
        """Whether the networks take class labels."""
        return self._classes > 0

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The channels of all maps, in multiples that groups divide."""
        config = self.config
        multiple = config.group_width // math.gcd(config.group_width, _EXPANSION)
        return {
            "generator": Width("channels", config.channels, multiple),
            "discriminator": Width(
                "discriminator_channels", config.discriminator_channels or config.channels, multiple
            ),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return _Generator(self.config, self.image, self._classes)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _Discriminator(self.config, self.image, self._classes)


def resample(x: Tensor, *, up: bool) -> Tensor:
    """Double or halve height and width with the filter [1, 2, 1] in both directions: bilinear interpolation."""
    channels = x.shape[1]
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device)
    kernel = (line[:, None] * line / (4 if up else 16)).expand(channels, 1, 3, 3)
    if up:
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, output_padding=1, groups=channels)
    return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)


def _stages(resolution: int) -> int:
    """Return how many resolutions there are from 4 pixels up."""
    return (resolution // _BOTTOM).bit_length()


def _blocks(channels: int, config: R3GANConfig, stages: int) -> nn.Sequential:
    depth = stages * config.blocks
    return nn.Sequential(*(ResidualBlock(channels, config.group_width, depth) for _ in range(config.blocks)))


def _drawn(layer: L, gain: float = 1.0) -> L:
    """Draw the weights of a fresh layer from N(0, gain² / fan-in), zero its bias."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _needed(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("this network is conditional: give it labels")
    return labels
