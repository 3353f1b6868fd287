"""BigGAN-deep (Brock et al., 2019, appendix B): two bottleneck blocks at every resolution."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.attention import SelfAttention, attention_multiple, require_attention
from gancompress.backbones.base import BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.biggan import NormFactory, conditional_norm, resolve_embedding
from gancompress.backbones.checks import SizedBackbone, require_multiple
from gancompress.backbones.layers import (
    Initialiser,
    LinearToMap,
    ProjectionDiscriminator,
    ProjectionHead,
    finish,
    initialiser,
    normalise,
    upsample,
    upsampled,
)
from gancompress.components.registry import BACKBONES
from gancompress.kernels.modules import after_relu
from gancompress.kernels.resample import average2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.backbones.folding import FoldKind
    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = ["BigGANDeep", "BigGANDeepConfig"]

_BOTTOM = 4
#: hidden channels of a block are this many times fewer than those of its wider end
_BOTTLENECK = 4


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Multiples of the base width: the generator's maps, the discriminator's maps, first to last."""

    generator: tuple[int, ...]
    discriminator: tuple[int, ...]
    attention: int


#: table 7 of the paper
_LAYOUTS: Mapping[int, _Layout] = {128: _Layout((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), attention=64)}


class BigGANDeepConfig(BackboneConfig):
    """Settings of the BigGAN-deep backbone."""

    channels: int = Field(128, ge=1, description="base width: maps have up to 16 times as many channels")
    discriminator_channels: int | None = Field(
        None, ge=1, description="the same for the discriminator; default: as many as the generator"
    )
    latent_dim: int = Field(128, ge=1, description="size of the latent vector, which every block sees whole")
    conditional: bool = Field(
        True, description="condition on classes: shared embedding (generator), projection (discriminator)"
    )
    shared_embedding: int | None = Field(
        None, ge=1, description="size of the class embedding that all norms share; default: 128"
    )
    attention: int | None = Field(
        None,
        ge=0,
        description="resolution of the maps with self-attention, in both networks, 0 = none; default: 64",
    )
    init: Literal["orthogonal", "normal", "xavier"] = Field(
        "orthogonal", description="how weights are drawn; normal: N(0, 0.02)"
    )
    spectral_norm: bool = Field(True, description="spectral normalisation of the discriminator")
    generator_spectral_norm: bool = Field(True, description="spectral normalisation of the generator")


class _GeneratorBlock(nn.Module):
    """Bottleneck block that keeps the first channels of its input and may double the resolution (figure 16b)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        draw: Initialiser,
        norm: NormFactory,
        *,
        up: bool,
        spectral_norm: bool,
    ) -> None:
        super().__init__()
        self.up = up
        hidden = in_channels // _BOTTLENECK
        self.norm1, self.norm2, self.norm3, self.norm4 = norm(in_channels), norm(hidden), norm(hidden), norm(hidden)
        self.conv1 = finish(nn.Conv2d(in_channels, hidden, 1), draw, spectral_norm)
        self.conv2 = finish(nn.Conv2d(hidden, hidden, 3, padding=1), draw, spectral_norm)
        self.conv3 = finish(nn.Conv2d(hidden, hidden, 3, padding=1), draw, spectral_norm)
        self.conv4 = finish(nn.Conv2d(hidden, out_channels, 1), draw, spectral_norm)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W), or to twice the resolution."""
        h = after_relu(self.conv1, normalise(self.norm1, x, condition))
        h = normalise(self.norm2, h, condition)
        h = upsampled(self.conv2, h, relu=True) if self.up else after_relu(self.conv2, h)
        h = after_relu(self.conv3, normalise(self.norm3, h, condition))
        h = after_relu(self.conv4, normalise(self.norm4, h, condition))
        kept = x[:, : h.shape[1]]
        out: Tensor = h + (upsample(kept) if self.up else kept)
        return out

    def resampling(self) -> tuple[tuple[str, FoldKind], ...]:
        """Return the convolutions beside a change of resolution."""
        return (("conv2", "up"),) if self.up else ()


class _DiscriminatorBlock(nn.Module):
    """Bottleneck block that appends channels to its input and may halve the resolution (figure 16c)."""

    def __init__(
        self, in_channels: int, out_channels: int, draw: Initialiser, *, down: bool, spectral_norm: bool
    ) -> None:
        super().__init__()
        self.down = down
        hidden = out_channels // _BOTTLENECK
        self.conv1 = finish(nn.Conv2d(in_channels, hidden, 1), draw, spectral_norm)
        self.conv2 = finish(nn.Conv2d(hidden, hidden, 3, padding=1), draw, spectral_norm)
        self.conv3 = finish(nn.Conv2d(hidden, hidden, 3, padding=1), draw, spectral_norm)
        self.conv4 = finish(nn.Conv2d(hidden, out_channels, 1), draw, spectral_norm)
        self.shortcut: nn.Module | None = None
        if out_channels > in_channels:
            self.shortcut = finish(nn.Conv2d(in_channels, out_channels - in_channels, 1), draw, spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W), or to half the resolution."""
        h = after_relu(self.conv2, after_relu(self.conv1, x))
        h = F.relu(after_relu(self.conv3, h))
        if self.down:
            h, x = average2(h), average2(x)
        out: Tensor = self.conv4(h) + (x if self.shortcut is None else torch.cat((x, self.shortcut(x)), dim=1))
        return out


class _DeepGenerator(Generator):
    any_memory_format = True

    def __init__(self, config: BigGANDeepConfig, image: ImageSpec, num_classes: int, embedding: int) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = config.latent_dim, image, num_classes
        layout = _LAYOUTS[image.resolution]
        draw, normed = initialiser(config.init), config.generator_spectral_norm
        widths = [config.channels * multiple for multiple in layout.generator]
        self.embedding = finish(nn.Embedding(num_classes, embedding), draw) if embedding else None
        features = embedding + config.latent_dim
        self.input = LinearToMap(finish(nn.Linear(features, widths[0] * _BOTTOM**2), draw, normed), _BOTTOM)
        norm = conditional_norm(num_classes, features, draw, normed)
        blocks: list[nn.Module] = []
        attention = layout.attention if config.attention is None else config.attention
        for level, (a, b) in enumerate(pairwise(widths), start=1):
            blocks.append(_GeneratorBlock(a, a, draw, norm, up=False, spectral_norm=normed))
            blocks.append(_GeneratorBlock(a, b, draw, norm, up=True, spectral_norm=normed))
            if attention == _BOTTOM * 2**level:
                blocks.append(SelfAttention(b, draw, spectral_norm=normed))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.output = finish(nn.Conv2d(widths[-1], image.channels, 3, padding=1), draw, normed)

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = z
        if self.embedding is not None:
            if labels is None:
                raise ValueError("this network is conditional: give it labels")
            # the embedding first: structured pruning follows the indices of the tensor that has a gradient
            condition = torch.cat((self.embedding(labels), z), dim=1)
        h: Tensor = self.input(condition)
        for block in self.blocks:
            h = block(h, condition) if isinstance(block, _GeneratorBlock) else block(h)
        h = after_relu(self.output, normalise(self.norm, h, None))
        return torch.tanh(h.float())


class _DeepDiscriminator(ProjectionDiscriminator):
    def __init__(self, config: BigGANDeepConfig, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        layout = _LAYOUTS[image.resolution]
        draw, normed = initialiser(config.init), config.spectral_norm
        channels = config.discriminator_channels or config.channels
        widths = [channels * multiple for multiple in layout.discriminator]
        self.input = finish(nn.Conv2d(image.channels, widths[0], 3, padding=1), draw, normed)
        blocks: list[nn.Module] = []
        attention = layout.attention if config.attention is None else config.attention
        for level, (a, b) in enumerate(pairwise(widths), start=1):
            blocks.append(_DiscriminatorBlock(a, b, draw, down=True, spectral_norm=normed))
            blocks.append(_DiscriminatorBlock(b, b, draw, down=False, spectral_norm=normed))
            if attention == image.resolution // 2**level:
                blocks.append(SelfAttention(b, draw, spectral_norm=normed))
        self.blocks = nn.ModuleList(blocks)
        self.output = finish(nn.Linear(widths[-1], 1), draw, normed)
        self.projection = ProjectionHead(widths[-1], num_classes, draw, spectral_norm=normed) if num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h: Tensor = self.input(x)
        for block in self.blocks:
            h = block(h)
        return self.logits(F.relu(h).float().sum((2, 3)), labels)


@BACKBONES.register("biggan-deep")
class BigGANDeep(SizedBackbone[BigGANDeepConfig]):
    """BigGAN-deep for 128 pixels (Brock et al., 2019, appendix B), conditional unless the config says otherwise.

    Every norm sees the class embedding joined to the whole latent; without classes, the latent alone.
    """

    Config: ClassVar[type[BackboneConfig]] = BigGANDeepConfig
    _name, _sizes = "biggan-deep", _LAYOUTS

    def __init__(self, config: BigGANDeepConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self._embedding = resolve_embedding("biggan-deep", config.shared_embedding, 128, self._classes)
        self._check_widths(_LAYOUTS[image.resolution])

    def _attention(self) -> int:
        size = self.config.attention
        return _LAYOUTS[self.image.resolution].attention if size is None else size

    def _multiples(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return the multiples of the base width by resolution of the map: generator, discriminator."""
        layout, resolution = _LAYOUTS[self.image.resolution], self.image.resolution
        generator = {_BOTTOM * 2**level: multiple for level, multiple in enumerate(layout.generator) if level}
        discriminator = {resolution // 2**level: times for level, times in enumerate(layout.discriminator) if level}
        return generator, discriminator

    def _check_widths(self, layout: _Layout) -> None:
        config, (generator, discriminator) = self.config, self._multiples()
        key = "channels" if config.discriminator_channels is None else "discriminator_channels"
        judge = config.discriminator_channels or config.channels
        for name, width, narrowest in (
            ("channels", config.channels, layout.generator[-2]),
            (key, judge, layout.discriminator[1]),
        ):
            why = f"blocks have a bottleneck {_BOTTLENECK} times narrower than {narrowest} times {name}"
            require_multiple(name, width, _BOTTLENECK // narrowest, why)
        size = self._attention()
        widths = [("channels", config.channels, generator.get(size, 1)), (key, judge, discriminator.get(size, 1))]
        require_attention("biggan-deep", size, generator.keys() & discriminator.keys(), widths)

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The base widths."""
        layout, size = _LAYOUTS[self.image.resolution], self._attention()
        generator, discriminator = (_BOTTLENECK // layout.generator[-2], _BOTTLENECK // layout.discriminator[1])
        if size:
            made, judged = self._multiples()
            # both are powers of two: the larger is their least common multiple
            generator = max(generator, attention_multiple(made[size]))
            discriminator = max(discriminator, attention_multiple(judged[size]))
        channels = self.config.channels
        return {
            "generator": Width("channels", channels, generator),
            "discriminator": Width(
                "discriminator_channels", self.config.discriminator_channels or channels, discriminator
            ),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return _DeepGenerator(self.config, self.image, self._classes, self._embedding)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _DeepDiscriminator(self.config, self.image, self._classes)
