"""StyleGAN2: a mapping to styles, convolutions that styles modulate, noise, colours summed over resolutions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import BackboneConfig, Discriminator, StyleGenerator, Width
from gancompress.backbones.checks import SizedBackbone, require_multiple
from gancompress.backbones.modulation import SLOPE, Mapping, ModulatedConv, ToColour, equalised, minibatch_deviation
from gancompress.backbones.stylegan2_weights import from_published, is_published
from gancompress.components.registry import BACKBONES
from gancompress.kernels.between import between, in_one_pass
from gancompress.kernels.calls import Between
from gancompress.kernels.resample import smooth, smooth_down2, smooth_up2

if TYPE_CHECKING:
    import collections.abc
    from collections.abc import Sequence

    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = ["StyleGAN2", "StyleGAN2Config", "StyleGAN2Generator"]

_RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)
_BOTTOM = 4
_GAIN = math.sqrt(2)
#: layers of the mapping of classes in the discriminator
_CLASS_LAYERS = 8


class StyleGAN2Config(BackboneConfig):
    """Settings of StyleGAN2. The defaults are config F of the paper."""

    latent_dim: int = Field(512, ge=1, description="size of the latent vector")
    style_dim: int = Field(512, ge=1, description="size of a style")
    mapping_layers: int = Field(8, ge=1, description="layers of the mapping; ADA takes 2 for small images")
    channels: int = Field(512, ge=1, description="channels of the generator's maps up to full_until pixels")
    discriminator_channels: int | None = Field(
        None, ge=1, description="the same for the discriminator; default: as many as the generator"
    )
    full_until: int = Field(
        64,
        ge=4,
        description="size of the largest maps that have all channels, those of twice the size have half of them: 64 is "
        "config F, 32 what ADA's auto takes below 512 pixels",
    )
    residual: bool = Field(True, description="residual blocks in the discriminator; ADA's cifar does without")
    group: int = Field(4, ge=1, description="images over which the discriminator takes a standard deviation")
    mixing: float = Field(0.9, ge=0, le=1, description="share of batches whose styles change somewhere in the network")
    average_decay: float = Field(
        0.995, ge=0, lt=1, description="decay per batch of the average style, which truncation draws to"
    )
    conditional: bool = Field(False, description="condition on classes: beside the latent, and projection")


class StyleGAN2Generator(StyleGenerator):
    """A generator in two halves: latents to styles, styles to images.

    Styles are (B, layers, style_dim): one for each convolution, and one for the colours at the end. In evaluation mode
    images are cut off at -1 and 1, and noise is constant.

    Attributes:
        layers: number of styles of an image.
        average: running average of styles, (style_dim,), a buffer.
    """

    any_memory_format = True

    def __init__(self, config: StyleGAN2Config, widths: Sequence[int], image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = config.latent_dim, image, num_classes
        self.layers = 2 * len(widths)
        self._mixing, self._decay = config.mixing, config.average_decay
        self.mapping = Mapping(config.latent_dim, config.style_dim, config.mapping_layers, num_classes)
        self.start = nn.Parameter(torch.randn(widths[0], _BOTTOM, _BOTTOM))
        first, style = widths[0], config.style_dim
        self.first = ModulatedConv(first, first, style, _BOTTOM, up=False)
        self.colours = nn.ModuleList([ToColour(width, image.channels, style) for width in widths])
        self.ups, self.convs = nn.ModuleList(), nn.ModuleList()
        for index, (before, after) in enumerate(pairwise(widths), 1):
            self.ups.append(ModulatedConv(before, after, style, _BOTTOM << index, up=True))
            self.convs.append(ModulatedConv(after, after, style, _BOTTOM << index, up=False))
        self.register_buffer("average", torch.zeros(style))

    def output_layer(self) -> nn.Module:
        """Return the layer that makes the colours at full resolution."""
        last = self.colours[-1]
        assert isinstance(last, ToColour)
        return last.conv

    def adopted(self, state: collections.abc.Mapping[str, Tensor], where: str) -> collections.abc.Mapping[str, Tensor]:
        """Return ``state`` under this network's names; that of a published generator has others.

        Raises:
            BackboneError: the weights are of another resolution, mapping or conditioning.
        """
        if not is_published(state):
            return state
        depth, classes = len(self.mapping.layers), self.num_classes > 0
        resolution = self.image.resolution
        return from_published(state, resolution=resolution, layers=depth, conditional=classes, where=where)

    def styles(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (B, latent_dim) and labels (B,) to styles (B, layers, style_dim).

        While training, the average follows, and the styles of some batches change at a random layer to those of other
        latents (mixing; Karras et al., A Style-Based Generator Architecture, 2019, section 3.1).
        """
        w = self.mapping(z, labels)
        if self.training:
            with torch.no_grad():
                self.average.copy_(torch.lerp(w.float().mean(0), self.average, self._decay))
        elif self.truncation != 1:
            w = torch.lerp(self.average, w, self.truncation)
        styles: Tensor = w[:, None].expand(-1, self.layers, -1)
        if not self.training or not self._mixing:
            return styles
        where = {"device": w.device}
        mixes, change = torch.rand((), **where) < self._mixing, torch.randint(1, self.layers, (), **where)
        other = self.mapping(torch.randn_like(z), labels)
        stays = torch.arange(self.layers, **where) < torch.where(mixes, change, self.layers)
        return torch.where(stays[:, None], styles, other[:, None])

    def synthesise(self, styles: Tensor) -> Tensor:
        """Map styles (B, layers, style_dim) to images (B, C, H, W), float32; while training not bounded."""
        h = self.first(self.start.expand(styles.shape[0], -1, -1, -1), styles[:, 0])
        image = self.colours[0](h, styles[:, 1])
        for index, (up, conv, colour) in enumerate(zip(self.ups, self.convs, self.colours[1:], strict=True)):
            h = up(h, styles[:, 2 * index + 1])
            h = conv(h, styles[:, 2 * index + 2])
            image = smooth_up2(image) + colour(h, styles[:, 2 * index + 3])
        image = image.float()
        out: Tensor = image if self.training else image.clamp(-1, 1)
        return out

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (B, latent_dim) and labels (B,) to images (B, C, H, W)."""
        return self.synthesise(self.styles(z, labels))


class _Block(nn.Module):
    """Two 3x3 convolutions, the second one halves the resolution behind a filter; beside them a 1x1."""

    def __init__(self, before: int, after: int, residual: bool) -> None:
        super().__init__()
        self.first = equalised(nn.Conv2d(before, before, 3, padding=1), gain=_GAIN)
        # of a sum of two each has half the variance
        self.second = equalised(nn.Conv2d(before, after, 3, stride=2), gain=1.0 if residual else _GAIN)
        self.skip = equalised(nn.Conv2d(before, after, 1, bias=False), gain=math.sqrt(0.5)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        one = in_one_pass(h)
        h = self.second(between(h, Between(SLOPE, after=2)) if one else smooth(F.leaky_relu(h, SLOPE), 2))
        beside = None if self.skip is None else self.skip(smooth_down2(x))
        if one and in_one_pass(h):
            return between(h, Between(SLOPE), beside=beside)
        h = F.leaky_relu(h, SLOPE)
        return h if beside is None else h + beside


class _StyleGAN2Discriminator(Discriminator):
    any_memory_format = True
    sees_batch = True

    def __init__(self, config: StyleGAN2Config, widths: Sequence[int], image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.image, self.num_classes, self._group = image, num_classes, config.group
        down, bottom = widths[::-1], widths[0]
        self.input = equalised(nn.Conv2d(image.channels, down[0], 1), gain=_GAIN)
        self.blocks = nn.ModuleList(_Block(before, after, config.residual) for before, after in pairwise(down))
        self.last = equalised(nn.Conv2d(bottom + 1, bottom, 3, padding=1), gain=_GAIN)
        self.features = equalised(nn.Linear(bottom * _BOTTOM**2, bottom), gain=_GAIN)
        # with classes, as many features as channels are held against the map of the class
        self.output = equalised(nn.Linear(bottom, bottom if num_classes else 1))
        self.mapping = Mapping(0, bottom, _CLASS_LAYERS, num_classes) if num_classes else None
        self._share = 1 / math.sqrt(bottom)

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = F.leaky_relu(self.input(x), SLOPE)
        for block in self.blocks:
            h = block(h)
        h = F.leaky_relu(self.last(minibatch_deviation(h, self._group)), SLOPE)
        found: Tensor = self.output(F.leaky_relu(self.features(h.flatten(1)), SLOPE)).float()
        if self.mapping is not None:
            found = found * self.mapping(None, labels).float() * self._share
        return found.sum(1)


@BACKBONES.register("stylegan2")
class StyleGAN2(SizedBackbone[StyleGAN2Config]):
    """Networks of StyleGAN2 for 16 to 1024 pixels, in the form that StyleGAN2-ADA trains.

    Of output skips and residual blocks, which the paper tries in either network, the generator has skips (colours are
    summed over resolutions) and the discriminator residual blocks, as published: together they were best in FID and
    path length (section 4.1, table 2). Filters are [1, 3, 3, 1] wherever the resolution changes. Masks lie on the
    weight that all images share.

    Source: Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020; Training Generative Adversarial
    Networks with Limited Data, 2020, appendix A and table 7.
    """

    Config: ClassVar[type[BackboneConfig]] = StyleGAN2Config
    _name, _sizes = "stylegan2", _RESOLUTIONS

    def __init__(self, config: StyleGAN2Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        for width in self.widths.values():
            why = f"maps beyond full_until={config.full_until} pixels have half, a quarter, … of it"
            require_multiple(width.field, width.channels, width.multiple, why)

    @property
    def widths(self) -> collections.abc.Mapping[Role, Width]:
        """The channels of small maps, which those of the largest ones divide."""
        config = self.config
        multiple = max(1, self.image.resolution // config.full_until)
        judge = config.discriminator_channels or config.channels
        return {
            "generator": Width("channels", config.channels, multiple),
            "discriminator": Width("discriminator_channels", judge, multiple),
        }

    def generator(self) -> StyleGAN2Generator:
        """Build a freshly initialised generator."""
        return StyleGAN2Generator(self.config, self._maps("generator"), self.image, self._classes)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _StyleGAN2Discriminator(self.config, self._maps("discriminator"), self.image, self._classes)

    def _maps(self, role: Role) -> list[int]:
        """Channels of the maps of 4, 8, 16, … pixels."""
        sizes = [_BOTTOM << index for index in range((self.image.resolution // _BOTTOM).bit_length())]
        return [self.widths[role].channels // max(1, size // self.config.full_until) for size in sizes]
