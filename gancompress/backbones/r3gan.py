"""R3GAN: residual networks without normalisation, grouped convolutions in the middle of every block."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import SizedBackbone, require_multiple
from gancompress.components.registry import BACKBONES
from gancompress.errors import BackboneError
from gancompress.kernels.resample import bilinear_down2, bilinear_up2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = ["R3GAN", "R3GANConfig", "ResidualBlock"]

_RESOLUTIONS = (16, 32, 64, 128, 256)
_BOTTOM = 4
_EXPANSION = 2
_SLOPE = 0.2

L = TypeVar("L", nn.Conv2d, nn.Linear)


class R3GANConfig(BackboneConfig):
    """Settings of R3GAN. The defaults are those published for CIFAR-10."""

    latent_dim: int = Field(64, ge=1, description="size of the latent vector")
    channels: int = Field(768, ge=1, description="channels of the generator's maps of 4x4 pixels")
    discriminator_channels: int | None = Field(
        None, ge=1, description="the same for the discriminator; default: as many as the generator"
    )
    shares: tuple[float, ...] | None = Field(
        None,
        min_length=1,
        description="share of the channels that maps of 4, 8, 16, … pixels have; default: all. FFHQ at 64 pixels is "
        "published with [1, 1, 1, 1, 0.5]",
    )
    blocks: int = Field(2, ge=1, description="residual blocks at every resolution")
    group_width: int = Field(16, ge=1, description="channels that a 3x3 convolution sees at a time")
    conditional: bool = Field(False, description="condition on classes: an embedding beside the latent, projection")
    embedding: int = Field(64, ge=1, description="size of the generator's class embedding")

    @field_validator("shares")
    @classmethod
    def _positive(cls, shares: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if shares is not None and not all(0 < share <= 1 for share in shares):
            raise ValueError("shares lie above 0 and at most at 1")
        return shares


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


class _R3GANGenerator(Generator):
    any_memory_format = True

    def __init__(self, config: R3GANConfig, widths: Sequence[int], image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = config.latent_dim, image, num_classes
        self.embedding = _embedding(num_classes, config.embedding) if num_classes else None
        inputs = config.latent_dim + (config.embedding if num_classes else 0)
        self.input = _drawn(nn.Linear(inputs, widths[0], bias=False))
        # the first map: a learnt 4x4 pattern per channel, scaled by the latent
        self.basis = nn.ConvTranspose2d(widths[0], widths[0], _BOTTOM, groups=widths[0], bias=False)
        nn.init.normal_(self.basis.weight)
        self.changes = nn.ModuleList(_changed(a, b) for a, b in pairwise(widths))
        self.stages = nn.ModuleList(_blocks(width, config, len(widths)) for width in widths)
        self.output = _drawn(nn.Conv2d(widths[-1], image.channels, 1, bias=False))

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(_needed(labels))], 1)
        h = self.stages[0](self.basis(self.input(z)[:, :, None, None]))
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            h = stage(bilinear_up2(change(h)))
        return torch.tanh(self.output(h).float())


class _R3GANDiscriminator(Discriminator):
    any_memory_format = True

    def __init__(self, config: R3GANConfig, widths: Sequence[int], image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        down, bottom = widths[::-1], widths[0]
        self.input = _drawn(nn.Conv2d(image.channels, down[0], 1, bias=False))
        self.stages = nn.ModuleList(_blocks(width, config, len(down)) for width in down)
        self.changes = nn.ModuleList(_changed(a, b) for a, b in pairwise(down))
        self.basis = _drawn(nn.Conv2d(bottom, bottom, _BOTTOM, groups=bottom, bias=False))
        # with classes, as many features as channels are held against the embedding of the class
        self.output = _drawn(nn.Linear(bottom, bottom if num_classes else 1, bias=False))
        self.embedding = _embedding(num_classes, bottom, bottom**-0.5) if num_classes else None

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.stages[0](self.input(x))
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            h = stage(change(bilinear_down2(h)))
        features: Tensor = self.output(self.basis(h).flatten(1)).float()
        if self.embedding is not None:
            features = features * self.embedding(_needed(labels))
        return features.sum(1)


@BACKBONES.register("r3gan")
class R3GAN(SizedBackbone[R3GANConfig]):
    """Networks of R3GAN for 16 to 256 pixels (Huang et al., The GAN is dead; long live the GAN!, 2024, section 4).

    No normalisation, no noise, no style: bilinear resampling, grouped convolutions, fix-up initialisation. Images are
    brought into [-1, 1] by tanh, which the published networks leave out.
    """

    Config: ClassVar[type[BackboneConfig]] = R3GANConfig
    _name, _sizes = "r3gan", _RESOLUTIONS

    def __init__(self, config: R3GANConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        stages = (image.resolution // _BOTTOM).bit_length()
        if config.shares is not None and len(config.shares) != stages:
            raise BackboneError(
                f"r3gan has maps of {stages} sizes at {image.resolution} pixels, shares={list(config.shares)} speak of "
                f"{len(config.shares)} (give as many, --set model.shares)"
            )
        self._shares = config.shares or (1.0,) * stages
        for role, width in self.widths.items():
            why = f"maps of the {role} have shares of it, twice that in groups of group_width={config.group_width}"
            require_multiple(width.field, width.channels, width.multiple, why)

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The channels of the maps of 4x4 pixels, in multiples that the groups of all maps divide."""
        config = self.config
        judge = config.discriminator_channels or config.channels
        group = Fraction(config.group_width, math.gcd(config.group_width, _EXPANSION))
        multiple = math.lcm(*((group / Fraction(share).limit_denominator(4096)).numerator for share in self._shares))
        return {
            "generator": Width("channels", config.channels, multiple),
            "discriminator": Width("discriminator_channels", judge, multiple),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return _R3GANGenerator(self.config, self._maps("generator"), self.image, self._classes)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _R3GANDiscriminator(self.config, self._maps("discriminator"), self.image, self._classes)

    def _maps(self, role: Role) -> list[int]:
        return [round(self.widths[role].channels * share) for share in self._shares]


def _blocks(channels: int, config: R3GANConfig, stages: int) -> nn.Sequential:
    depth = stages * config.blocks
    return nn.Sequential(*(ResidualBlock(channels, config.group_width, depth) for _ in range(config.blocks)))


def _changed(before: int, after: int) -> nn.Module:
    """Return what stands beside a change of resolution: nothing, where the number of channels stays."""
    return nn.Identity() if before == after else _drawn(nn.Conv2d(before, after, 1, bias=False))


def _drawn(layer: L, gain: float = 1.0) -> L:
    """Draw the weights of a fresh layer from N(0, gain² / fan-in), zero its bias."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _embedding(classes: int, size: int, gain: float = 1.0) -> nn.Embedding:
    """Return what a linear layer makes of a class written as one-hot, drawn like the other layers."""
    embedding = nn.Embedding(classes, size)
    nn.init.normal_(embedding.weight, std=gain / math.sqrt(classes))
    return embedding


def _needed(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("this network is conditional: give it labels")
    return labels
