"""FastGAN: a small generator whose low resolutions gate the channels of high ones, and a discriminator of two sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import SizedBackbone, require_multiple
from gancompress.backbones.layers import ProjectionHead, batch_norm, finish, initialiser, normalise, upsampled
from gancompress.components.registry import BACKBONES
from gancompress.kernels.layout import is_batch_last, to_batch_last
from gancompress.kernels.resample import upsample2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.folding import FoldKind
    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = [
    "RESOLUTIONS",
    "DownConv",
    "Excitation",
    "FastGAN",
    "FastGANConfig",
    "FastGANGenerator",
    "Noise",
    "UpStage",
    "gated",
    "width_multiple",
]

#: image sizes that the generator makes
RESOLUTIONS = (64, 128, 256, 512, 1024)
_BOTTOM = 4
_SLOPE = 0.2
#: channels of the generator's maps by size, in eighths of ``channels``
_EIGHTHS = {4: 128, 8: 64, 16: 32, 32: 16, 64: 16, 128: 8, 256: 4, 512: 2, 1024: 1}
#: maps that a smaller one gates, and its size
_GATED_BY = {64: 4, 128: 8, 256: 16, 512: 32}
#: channels of the discriminator's maps by size, in quarters of its ``channels``
_JUDGED = {256: 1, 128: 2, 64: 4, 32: 8, 16: 16, 8: 32}
#: the same where it sees the image at half its size or 128 pixels
_JUDGED_SMALL = {64: 2, 32: 4, 16: 8, 8: 16}
_LARGEST = 256


class FastGANConfig(BackboneConfig):
    """Settings of FastGAN. The defaults are those of the paper."""

    latent_dim: int = Field(256, ge=1, description="size of the latent vector")
    channels: int = Field(
        64, ge=1, description="channels of the generator's maps of 128 pixels: 16 times as many at 4 pixels"
    )
    discriminator_channels: int | None = Field(
        None, ge=4, description="channels of the discriminator's maps of 64 pixels; default: as many as the generator"
    )
    conditional: bool = Field(
        False, description="condition on classes: batch norm per class, projection; the paper's networks are not"
    )


def gated(x: Tensor) -> Tensor:
    """Multiply the first half of the channels (B, 2C, H, W) by the sigmoid of the second (Dauphin et al., 2017)."""
    values, gate = x.chunk(2, 1)
    return values * torch.sigmoid(gate)


class Noise(nn.Module):
    """One random number for each pixel, times a strength that starts at 0: drawn while training, constant after it."""

    noise: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(resolution, resolution))

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        noise = self.noise
        if self.training:
            drawn = torch.randn(h.shape[0], 1, h.shape[2], h.shape[3], device=h.device)
            noise = to_batch_last(drawn) if is_batch_last(h) else drawn
        return h + (noise * self.strength).to(h.dtype)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return finish(layer, initialiser("normal"), True)


class UpStage(nn.Module):
    """Twice the resolution, 3x3 convolution, batch norm, gate; ``deep``: noise too, and all but the first again."""

    def __init__(self, inputs: int, outputs: int, resolution: int, num_classes: int, *, deep: bool) -> None:
        super().__init__()
        self.conv = _conv(inputs, 2 * outputs, 3, padding=1)
        self.norm = batch_norm(2 * outputs, num_classes)
        self.noise = Noise(resolution) if deep else None
        self.second = _conv(outputs, 2 * outputs, 3, padding=1) if deep else None
        self.second_norm = batch_norm(2 * outputs, num_classes) if deep else None
        self.second_noise = Noise(resolution) if deep else None

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        # the graph of an exported generator keeps whole what is called by its own name in a module's file
        h = upsampled(self.conv, x) if self.training else self.conv(upsample2(x))
        h = h if self.noise is None else self.noise(h)
        h = gated(normalise(self.norm, h, labels))
        if self.second is None or self.second_norm is None or self.second_noise is None:
            return h
        return gated(normalise(self.second_norm, self.second_noise(self.second(h)), labels))

    def resampling(self) -> tuple[tuple[str, FoldKind], ...]:
        """Return the convolutions beside a change of resolution."""
        return (("conv", "up"),)


class Excitation(nn.Module):
    """Skip-layer excitation: a map of low resolution gates the channels of one of high resolution.

    Source: Liu et al., Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis, 2021,
    section 3.1, eq. 1.
    """

    def __init__(self, inputs: int, outputs: int, resolution: int) -> None:
        super().__init__()
        self._factor = resolution // _BOTTOM
        self.squeeze = _conv(inputs, outputs, _BOTTOM)
        self.excite = _conv(outputs, outputs, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Scale (B, outputs, H, W) by what (B, inputs, resolution, resolution) says."""
        pooled = low if self._factor == 1 else F.avg_pool2d(low, self._factor)
        return high * torch.sigmoid(self.excite(F.silu(self.squeeze(pooled))))


class FastGANGenerator(Generator):
    """Latents to images, through maps of every size from 4 pixels on.

    Args:
        latent_dim: size of a latent.
        channels: of the maps of 128 pixels.
        image: of the images.
        num_classes: 0 without classes.
        on_sphere: bring latents to unit mean square first, as Projected GAN does.
    """

    any_memory_format = True

    def __init__(
        self, latent_dim: int, channels: int, image: ImageSpec, num_classes: int, *, on_sphere: bool = False
    ) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes, self._on_sphere = latent_dim, image, num_classes, on_sphere
        sizes = [size for size in _EIGHTHS if size <= image.resolution]
        width = {size: channels * _EIGHTHS[size] // 8 for size in sizes}
        first = nn.ConvTranspose2d(latent_dim, 2 * width[_BOTTOM], _BOTTOM, bias=False)
        self.input = finish(first, initialiser("normal"), True)
        self.norm = batch_norm(2 * width[_BOTTOM], num_classes)
        self.stages = nn.ModuleList(
            UpStage(width[before], width[size], size, num_classes, deep=index % 2 == 0)
            for index, (before, size) in enumerate(pairwise(sizes))
        )
        self.gates = nn.ModuleDict(
            {str(size): Excitation(width[low], width[size], low) for size, low in _GATED_BY.items() if size in width}
        )
        self.output = finish(
            nn.Conv2d(width[image.resolution], image.channels, 3, padding=1, bias=on_sphere),
            initialiser("normal"),
            True,
        )

    def output_layer(self) -> nn.Module:
        """Return the convolution that makes the image."""
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (B, latent_dim) and labels (B,) to images (B, C, H, W)."""
        if self._on_sphere:
            z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        h = gated(normalise(self.norm, self.input(z[:, :, None, None]), labels))
        size, maps = _BOTTOM, {_BOTTOM: h}
        for stage in self.stages:
            size, h = 2 * size, stage(h, labels)
            if str(size) in self.gates:
                h = self.gates[str(size)](maps[_GATED_BY[size]], h)
            maps[size] = h
        return torch.tanh(self.output(h).float())


class DownConv(nn.Module):
    """4x4 convolution of stride 2, norm, leaky ReLU; ``deep``: two convolutions beside a pooled 1x1, averaged."""

    def __init__(self, inputs: int, outputs: int, *, deep: bool) -> None:
        super().__init__()
        self.conv, self.norm = _conv(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs)
        self.second = _conv(outputs, outputs, 3, padding=1) if deep else None
        self.second_norm = nn.BatchNorm2d(outputs) if deep else None
        self.direct = _conv(inputs, outputs, 1) if deep else None
        self.direct_norm = nn.BatchNorm2d(outputs) if deep else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        h = F.leaky_relu(self.norm(self.conv(x)), _SLOPE)
        if self.second is None or self.second_norm is None or self.direct is None or self.direct_norm is None:
            return h
        h = F.leaky_relu(self.second_norm(self.second(h)), _SLOPE)
        return (h + F.leaky_relu(self.direct_norm(self.direct(F.avg_pool2d(x, 2))), _SLOPE)) / 2


class _FastGANDiscriminator(Discriminator):
    sees_batch = True  # batch norm

    def __init__(self, channels: int, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        resolution = image.resolution
        top = min(resolution, _LARGEST)
        width = {size: channels * _JUDGED[size] // 4 for size in _JUDGED if size <= top}
        first = width[top]
        self.shrink_norm: nn.Module | None = None
        self.shrink: nn.Module | None = None
        if resolution <= _LARGEST:
            self.input = _conv(image.channels, first, 3, padding=1)
        else:
            # of 1024 pixels half as many channels come first
            half = first if resolution == 512 else max(1, first // 2)
            self.input = _conv(image.channels, half, 4, 2, 1)
            if resolution == 1024:
                self.shrink, self.shrink_norm = _conv(half, first, 4, 2, 1), nn.BatchNorm2d(first)
        self._sizes = [*width]
        self.downs = nn.ModuleList(DownConv(a, b, deep=True) for a, b in pairwise(width.values()))
        self.gates = nn.ModuleDict(
            {str(size): Excitation(width[8 * size], width[size], 8 * size) for size in width if 8 * size in width}
        )
        last = width[8]
        self.mix, self.mix_norm = _conv(last, last // 2, 1), nn.BatchNorm2d(last // 2)
        self.output = _conv(last // 2, 1, 4)
        self._small = min(resolution // 2, 128)
        sizes = [size for size in _JUDGED_SMALL if size <= self._small // 2]
        small = [channels * _JUDGED_SMALL[size] // 4 for size in sizes]
        self.small_input = _conv(image.channels, small[0], 4, 2, 1)
        self.small_downs = nn.ModuleList(DownConv(a, b, deep=False) for a, b in pairwise(small))
        self.small_output = _conv(small[-1], 1, 4)
        draw = initialiser("normal")
        self.projection = ProjectionHead(last, num_classes, draw, spectral_norm=True) if num_classes else None

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = F.leaky_relu(self.input(x), _SLOPE)
        if self.shrink is not None and self.shrink_norm is not None:
            h = F.leaky_relu(self.shrink_norm(self.shrink(h)), _SLOPE)
        maps = {self._sizes[0]: h}
        for size, down in zip(self._sizes[1:], self.downs, strict=True):
            h = down(h)
            if str(size) in self.gates:
                h = self.gates[str(size)](maps[8 * size], h)
            maps[size] = h
        large = self.output(F.leaky_relu(self.mix_norm(self.mix(h)), _SLOPE))
        small = F.leaky_relu(self.small_input(F.avg_pool2d(x, x.shape[-1] // self._small)), _SLOPE)
        for down in self.small_downs:
            small = down(small)
        # both see the same number of places
        logits: Tensor = (large.float().mean((1, 2, 3)) + self.small_output(small).float().mean((1, 2, 3))) / 2
        if self.projection is not None:
            logits = logits + self.projection(h.float().mean((2, 3)), labels)
        return logits


def width_multiple(resolution: int) -> int:
    """Return what the generator's ``channels`` must divide by, so that its largest maps have whole ones."""
    return max(1, 8 // _EIGHTHS.get(resolution, 8))


@BACKBONES.register("fastgan")
class FastGAN(SizedBackbone[FastGANConfig]):
    """FastGAN for 64 to 1024 pixels, for small data.

    Source: Liu et al., Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis, 2021,
    sections 3.1 and 3.2, and the published code, which has batch norm, spectral norm, gates of the discriminator
    and its second size. Not the same here: the generator's second, smaller image is left out, the discriminator's
    small input is the image averaged; its logit is the mean over places, in front of the loss; the decoders of its
    self-supervised loss are left out. Noise is constant after training. The paper's sizes begin at 256 pixels;
    smaller ones leave stages out.
    """

    Config: ClassVar[type[BackboneConfig]] = FastGANConfig
    _name, _sizes = "fastgan", RESOLUTIONS

    def __init__(self, config: FastGANConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        for width in self.widths.values():
            require_multiple(width.field, width.channels, width.multiple, "maps of large images have a part of it")

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The channels of the maps of 128 pixels, and of 64 in the discriminator."""
        channels = self.config.channels
        judge = self.config.discriminator_channels or channels
        return {
            "generator": Width("channels", channels, width_multiple(self.image.resolution)),
            "discriminator": Width("discriminator_channels", judge, 4),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return FastGANGenerator(self.config.latent_dim, self.config.channels, self.image, self._classes)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _FastGANDiscriminator(self.widths["discriminator"].channels, self.image, self._classes)
