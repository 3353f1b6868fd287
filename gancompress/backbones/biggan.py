"""BigGAN (Brock et al., 2019, appendix B): wide residual networks that see the class and the latent at every block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.attention import SelfAttention, attention_multiple, require_attention
from gancompress.backbones.base import BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import SizedBackbone, require_multiple
from gancompress.backbones.layers import (
    ConditionalBatchNorm2d,
    DownBlock,
    FirstDownBlock,
    Initialiser,
    LinearToMap,
    ProjectedBatchNorm2d,
    ProjectionDiscriminator,
    ProjectionHead,
    UpBlock,
    finish,
    initialiser,
    normalise,
)
from gancompress.components.registry import BACKBONES
from gancompress.errors import BackboneError
from gancompress.kernels.modules import after_relu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = ["BigGAN", "BigGANConfig", "NormFactory", "conditional_norm", "resolve_embedding"]

#: makes a norm for a number of channels
NormFactory: TypeAlias = Callable[[int], nn.Module]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """One image size. Multiples say how many times the base width each map has.

    Attributes:
        bottom: height and width of the generator's first map.
        generator: multiples of the generator's maps, first to last; every block doubles the resolution.
        discriminator: multiples of the outputs of the discriminator's blocks.
        halvings: blocks of the discriminator, from the first, that halve the resolution.
        channels: default base width.
        latent_dim: default size of the latent vector.
        embedding: default size of the shared class embedding, 0 = every norm has its own.
        attention: default resolution of attention, 0 = none.
    """

    bottom: int
    generator: tuple[int, ...]
    discriminator: tuple[int, ...]
    halvings: int
    channels: int
    latent_dim: int
    embedding: int
    attention: int

    def attending(self, resolution: int) -> dict[int, tuple[int, int]]:
        """Return the blocks after which both networks can attend (generator, discriminator), by resolution of the map.

        The discriminator at 32 pixels has several maps of one size: the first attends.
        """
        generator = {self.bottom * 2 ** (block + 1): block for block in range(len(self.generator) - 1)}
        discriminator = {resolution // 2 ** (block + 1): block for block in range(self.halvings)}
        return {size: (generator[size], block) for size, block in discriminator.items() if size in generator}


#: 32: the published CIFAR-10 configuration; 128: table 4 of the paper; 64: the same ladder one step shorter; 96: that
#: of 64 from maps of 6x6.
_LAYOUTS: Mapping[int, _Layout] = {
    32: _Layout(4, (4, 4, 4, 4), (4, 4, 4, 4), 2, channels=64, latent_dim=128, embedding=0, attention=0),
    64: _Layout(4, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4, channels=64, latent_dim=120, embedding=128, attention=32),
    96: _Layout(6, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4, channels=64, latent_dim=120, embedding=128, attention=48),
    128: _Layout(
        4, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5, channels=96, latent_dim=120, embedding=128, attention=64
    ),
}


class BigGANConfig(BackboneConfig):
    """Settings of the BigGAN backbone."""

    channels: int | None = Field(
        None,
        ge=1,
        description="base width: maps have up to 16 times as many channels, at 32 pixels 4 times; "
        "default: 64, at 128 pixels 96",
    )
    discriminator_channels: int | None = Field(
        None, ge=1, description="the same for the discriminator; default: as many as the generator"
    )
    latent_dim: int | None = Field(
        None, ge=1, description="size of the latent vector; default: 128 at 32 pixels, else 120"
    )
    conditional: bool = Field(
        True, description="condition on classes: norms per class (generator), projection (discriminator)"
    )
    shared_embedding: int | None = Field(
        None,
        ge=0,
        description="size of one class embedding that all norms share, 0 = each norm has its own; "
        "default: 0 at 32 pixels, else 128",
    )
    hierarchical: bool | None = Field(
        None,
        description="give every block a piece of the latent; needs the shared embedding when conditional; "
        "default: false at 32 pixels, else true",
    )
    attention: int | None = Field(
        None,
        ge=0,
        description="resolution of the maps with self-attention, in both networks, 0 = none; "
        "default: none at 32 pixels, 32 at 64, 48 at 96, 64 at 128",
    )
    init: Literal["orthogonal", "normal", "xavier"] = Field(
        "orthogonal", description="how weights are drawn; normal: N(0, 0.02), as published for CIFAR-10"
    )
    spectral_norm: bool = Field(True, description="spectral normalisation of the discriminator")
    generator_spectral_norm: bool = Field(True, description="spectral normalisation of the generator")


def conditional_norm(num_classes: int, features: int, draw: Initialiser, spectral_norm: bool) -> NormFactory:
    """Return what makes the norms of a generator's blocks.

    Args:
        num_classes: classes, 0 = unconditional.
        features: size of the vector that gains and biases are projected from; 0 without one: a gain and a bias per
            class, or a plain norm without classes.
        draw: fills gains (about 1) and biases.
        spectral_norm: normalise the projections; embeddings of a generator never are.
    """

    def per_class(channels: int) -> nn.Module:
        norm = ConditionalBatchNorm2d(channels, num_classes)
        with torch.no_grad():
            draw(norm.gain.weight).add_(1)
            draw(norm.bias.weight)
        return norm

    if features:
        return lambda channels: ProjectedBatchNorm2d(channels, features, draw, spectral_norm=spectral_norm)
    return per_class if num_classes else nn.BatchNorm2d


def resolve_embedding(name: str, given: int | None, default: int, num_classes: int) -> int:
    """Return the size of the shared class embedding, 0 without one.

    Raises:
        BackboneError: one is asked for without classes.
    """
    if num_classes:
        return default if given is None else given
    if given:
        raise BackboneError(
            f"an unconditional {name} has no classes to embed: --set model.shared_embedding=0 or "
            "--set model.conditional=true"
        )
    return 0


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A layout with every default resolved.

    Attributes:
        chunk: size of the piece of the latent that the first map and every block get, 0 = not hierarchical.
        attending: blocks after which the generator and the discriminator attend; None = nowhere.
    """

    layout: _Layout
    channels: int
    discriminator_channels: int
    latent_dim: int
    embedding: int
    chunk: int
    attending: tuple[int, int] | None


class _BigGANGenerator(Generator):
    any_memory_format = True

    def __init__(self, config: BigGANConfig, image: ImageSpec, num_classes: int, plan: _Plan) -> None:
        super().__init__()
        self.latent_dim, self.image, self.num_classes = plan.latent_dim, image, num_classes
        self.chunk = plan.chunk
        draw, normed = initialiser(config.init), config.generator_spectral_norm
        widths = [plan.channels * multiple for multiple in plan.layout.generator]
        self.embedding = finish(nn.Embedding(num_classes, plan.embedding), draw) if plan.embedding else None
        linear = nn.Linear(plan.chunk or plan.latent_dim, widths[0] * plan.layout.bottom**2)
        self.input = LinearToMap(finish(linear, draw, normed), plan.layout.bottom)
        norm = conditional_norm(num_classes, plan.embedding + plan.chunk, draw, normed)
        self.blocks = nn.ModuleList(UpBlock(a, b, draw, spectral_norm=normed, norm=norm) for a, b in pairwise(widths))
        self.attending = None if plan.attending is None else plan.attending[0]
        self.attention: nn.Module | None = None
        if self.attending is not None:
            self.attention = SelfAttention(widths[self.attending + 1], draw, spectral_norm=normed)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.output = finish(nn.Conv2d(widths[-1], image.channels, 3, padding=1), draw, normed)

    def output_layer(self) -> nn.Module:
        return self.output

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, conditions = self._conditions(z, labels)
        h: Tensor = self.input(first)
        for index, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            h = block(h, condition)
            if self.attention is not None and index == self.attending:
                h = self.attention(h)
        h = after_relu(self.output, normalise(self.norm, h, None))
        return torch.tanh(h.float())

    def _conditions(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """Return what the first map is made from, and what the norms of every block see."""
        if self.num_classes and labels is None:
            raise ValueError("this network is conditional: give it labels")
        shared = labels if self.embedding is None or labels is None else self.embedding(labels)
        if not self.chunk:
            return z, [shared] * len(self.blocks)
        first, *pieces = torch.split(z, self.chunk, dim=1)
        if self.embedding is None:
            return first, list(pieces)
        # the embedding first: structured pruning follows the indices of the tensor that has a gradient
        return first, [torch.cat((shared, piece), dim=1) for piece in pieces if shared is not None]


class _BigGANDiscriminator(ProjectionDiscriminator):
    def __init__(self, config: BigGANConfig, image: ImageSpec, num_classes: int, plan: _Plan) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        draw, normed = initialiser(config.init), config.spectral_norm
        widths = [plan.discriminator_channels * multiple for multiple in plan.layout.discriminator]
        blocks: list[nn.Module] = [FirstDownBlock(image.channels, widths[0], draw, spectral_norm=normed)]
        blocks += [
            DownBlock(a, b, draw, hidden_channels=b, down=index < plan.layout.halvings, spectral_norm=normed)
            for index, (a, b) in enumerate(pairwise(widths), start=1)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.attending = None if plan.attending is None else plan.attending[1]
        self.attention: nn.Module | None = None
        if self.attending is not None:
            self.attention = SelfAttention(widths[self.attending], draw, spectral_norm=normed)
        self.output = finish(nn.Linear(widths[-1], 1), draw, normed)
        self.projection = ProjectionHead(widths[-1], num_classes, draw, spectral_norm=normed) if num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = x
        for index, block in enumerate(self.blocks):
            h = block(h)
            if self.attention is not None and index == self.attending:
                h = self.attention(h)
        return self.logits(F.relu(h).float().sum((2, 3)), labels)


@BACKBONES.register("biggan")
class BigGAN(SizedBackbone[BigGANConfig]):
    """BigGAN for 32, 64, 96 or 128 pixels (Brock et al., 2019), conditional unless the config says otherwise.

    At 32 pixels the defaults are the published CIFAR-10 networks, in which neither embedding nor latent is shared out
    and nothing attends. Without classes, hierarchical norms see their piece of the latent alone.
    """

    Config: ClassVar[type[BackboneConfig]] = BigGANConfig
    _name, _sizes = "biggan", _LAYOUTS

    def __init__(self, config: BigGANConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self._plan = self._resolve()

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The base widths."""
        plan, multiples = self._plan, (1, 1)
        if plan.attending is not None:
            generator, discriminator = plan.attending
            multiples = (
                attention_multiple(plan.layout.generator[generator + 1]),
                attention_multiple(plan.layout.discriminator[discriminator]),
            )
        return {
            "generator": Width("channels", plan.channels, multiples[0]),
            "discriminator": Width("discriminator_channels", plan.discriminator_channels, multiples[1]),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator."""
        return _BigGANGenerator(self.config, self.image, self._classes, self._plan)

    def discriminator(self) -> Discriminator:
        """Build a freshly initialised discriminator."""
        return _BigGANDiscriminator(self.config, self.image, self._classes, self._plan)

    def _attention(self) -> int:
        size = self.config.attention
        return _LAYOUTS[self.image.resolution].attention if size is None else size

    def _resolve(self) -> _Plan:
        config, resolution = self.config, self.image.resolution
        layout = _LAYOUTS[resolution]
        channels = config.channels or layout.channels
        discriminator_channels = config.discriminator_channels or channels
        latent_dim = config.latent_dim or layout.latent_dim
        embedding = resolve_embedding("biggan", config.shared_embedding, layout.embedding, self._classes)
        places = layout.attending(resolution)
        place = places.get(self._attention())
        widths = []
        if place is not None:
            key = "channels" if config.discriminator_channels is None else "discriminator_channels"
            widths.append(("channels", channels, layout.generator[place[0] + 1]))
            widths.append((key, discriminator_channels, layout.discriminator[place[1]]))
        require_attention("biggan", self._attention(), places, widths)
        chunk = self._chunk(layout, latent_dim, embedding)
        return _Plan(layout, channels, discriminator_channels, latent_dim, embedding, chunk, place)

    def _chunk(self, layout: _Layout, latent_dim: int, embedding: int) -> int:
        joinable = embedding > 0 or not self._classes
        hierarchical = self.config.hierarchical
        if hierarchical is None:
            hierarchical = layout.embedding > 0 and joinable
        if not hierarchical:
            return 0
        if not joinable:
            raise BackboneError(
                "hierarchical latents of a conditional biggan need a class embedding to be joined to: "
                "--set model.shared_embedding=128, or --set model.hierarchical=false"
            )
        pieces = len(layout.generator)
        why = f"the first map and the {pieces - 1} blocks get a piece each"
        require_multiple("latent_dim", latent_dim, pieces, why)
        return latent_dim // pieces
