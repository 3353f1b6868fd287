"""Projected GAN: a discriminator that sees images through a frozen network which others trained."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator, Width
from gancompress.backbones.checks import conditional_classes, require_multiple, require_resolution
from gancompress.backbones.fastgan import (
    RESOLUTIONS,
    DownConv,
    FastGANConfig,
    FastGANGenerator,
    width_multiple,
)
from gancompress.backbones.frozen import Frozen
from gancompress.backbones.layers import ProjectionHead, finish, initialiser
from gancompress.components.registry import BACKBONES
from gancompress.errors import BackboneError
from gancompress.pretrained import DOWNLOAD, RANDOM, pretrained, refusal, settings_of, weights_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = ["CrossMixing", "Head", "Projected", "ProjectedConfig"]

#: of the maps that are taken, in pixels of the image
_STRIDES = (4, 8, 16, 32)
#: channels of the maps mixed across channels, and of those mixed across scales, over ``mixed_channels``
_ACROSS_CHANNELS = (1, 2, 4, 8)
_ACROSS_SCALES = (1, 1, 2, 4)
#: channels of the maps of a head, over ``discriminator_channels``: the head of the largest map begins at the first
_JUDGED = (1, 2, 4, 8)
#: pixels below which a head has no map of 4x4 to end in
_LEAST = 128
#: what a smoke run takes: a network of timm's own tests
_TINY = "test_efficientnet"


class ProjectedConfig(FastGANConfig):
    """Settings of Projected GAN. The defaults are those of the published code."""

    channels: int = Field(128, ge=1, description="channels of the generator's maps of 128 pixels, as of fastgan")
    discriminator_channels: int = Field(
        64,
        ge=1,
        description="channels of the heads: of the first convolution of the largest; 8 times as many at the end",
    )
    mixed_channels: int = Field(64, ge=1, description="channels of the largest map that frozen convolutions mix")
    features: str = Field(
        "tf_efficientnet_lite0", description="network of timm whose maps of strides 4 to 32 are judged; never trained"
    )
    weights: str = Field(
        "",
        description="where its weights come from: a file of safetensors, or download (timm's own); random is for runs "
        "whose numbers mean nothing",
    )
    hash: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{16}$",
        description="hash of these weights; written when a run starts, a wrong one is told",
    )
    takes_weights: ClassVar[bool] = True

    def weights_hash(self) -> str:
        """Return the hash of the weights, wherever they come from.

        Raises:
            BackboneError: they cannot be had.
        """
        return weights_hash(_features(self.model_copy(update={"hash": None})))[:16]

    def smoke(self) -> dict[str, Any]:
        """Return a tiny network whose weights nobody has to have."""
        return {"features": _TINY, "mixed_channels": 4, "weights": RANDOM, "hash": None}


class CrossMixing(nn.Module):
    """Mixes maps across channels, each by a random 1x1 convolution, then across scales, from the smallest up.

    A map across scales is the sum of what the next smaller one came to and of the map across channels, enlarged to
    twice its size (bilinear, to the size of the next larger map where there is one), and a random 3x3 convolution of
    that. Weights are drawn so that a map keeps its variance (Kaiming), biases are 0.

    Args:
        inputs: channels of the maps, the largest first.
        channels: of the largest mixed map.
    """

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        wide = [channels * factor for factor in _ACROSS_CHANNELS]
        self.channels = [channels * factor for factor in _ACROSS_SCALES]
        self.across_channels = nn.ModuleList(_drawn(nn.Conv2d(a, b, 1)) for a, b in zip(inputs, wide, strict=True))
        # the sum of a scale is as wide as its map across channels, and becomes as wide as the next larger one
        self.across_scales = nn.ModuleList(
            _drawn(nn.Conv2d(a, b, 3, padding=1)) for a, b in zip(wide, self.channels, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map four maps (B, C_k, H_k, W_k), the largest first, to four of twice the size."""
        wide = [conv(h) for conv, h in zip(self.across_channels, maps, strict=True)]
        found: list[Tensor] = []
        for index in reversed(range(len(wide))):
            h = wide[index] + found[-1] if found else wide[index]
            size = wide[index - 1].shape[2:] if index else [2 * side for side in h.shape[2:]]
            h = F.interpolate(h, size=tuple(size), mode="bilinear", align_corners=True)
            found.append(self.across_scales[index](h))
        return found[::-1]


class Head(nn.Module):
    """4x4 convolutions of stride 2 with batch norm and leaky ReLU, and a 4x4 convolution to logits, one per place.

    Args:
        inputs: channels of a mixed map.
        widths: channels of the convolutions of stride 2.
        num_classes: a class's product with the mean of the last map is added; 0 without classes.
    """

    def __init__(self, inputs: int, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        draw = initialiser("normal")
        self.downs = nn.ModuleList(DownConv(a, b, deep=False) for a, b in pairwise((inputs, *widths)))
        self.output = finish(nn.Conv2d(widths[-1], 1, 4, bias=False), draw, True)
        self.projection = ProjectionHead(widths[-1], num_classes, draw, spectral_norm=True) if num_classes else None

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """Map (B, inputs, H, W) to (B, places)."""
        for down in self.downs:
            h = down(h)
        logits: Tensor = self.output(h).float().flatten(1)
        if self.projection is not None:
            logits = logits + self.projection(h.float().mean((2, 3)), labels)[:, None]
        return logits


class _ProjectedDiscriminator(Discriminator):
    sees_batch = True  # batch norm of the heads

    def __init__(self, config: ProjectedConfig, image: ImageSpec, num_classes: int) -> None:
        super().__init__()
        self.image, self.num_classes = image, num_classes
        network: Any = _features(config)
        self._size = _size(config)
        self.features = Frozen(network, stored=False)
        mixing = CrossMixing(network.feature_info.channels(), config.mixed_channels)
        self.mixing = Frozen(mixing, stored=True)
        known = settings_of(config.features)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(known, name), dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        widths = [config.discriminator_channels * factor for factor in _JUDGED]
        # the larger a map the more convolutions, so that all heads end in as many places
        self.heads = nn.ModuleList(
            Head(inputs, widths[index:], num_classes) for index, inputs in enumerate(mixing.channels)
        )

    mean: Tensor
    std: Tensor

    def output_layer(self) -> nn.Module:
        """Return the convolution that makes the logits of the largest map."""
        head: Any = self.heads[0]
        output: nn.Module = head.output
        return output

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) and labels (B,) to logits (B, places of all heads)."""
        x = x.float().expand(-1, 3, -1, -1)
        if self.image.resolution < self._size:
            x = F.interpolate(x, size=(self._size, self._size), mode="bilinear", align_corners=False)
        mixed = self.mixing(self.features((x / 2 + 0.5 - self.mean) / self.std))
        return torch.cat([head(h, labels) for head, h in zip(self.heads, mixed, strict=True)], 1)


@BACKBONES.register("projected")
class Projected(Backbone[ProjectedConfig]):
    """FastGAN's generator against a discriminator of frozen features; the latter plays against any generator too.

    The discriminator sees maps of strides 4 to 32 of a network that timm has, mixed by frozen random convolutions, and
    has a small head for each, spectrally normed. Every head gives a logit per place, and losses are means over all:
    with 224 pixels 16 logits of each of four. Images smaller than the network was trained with are enlarged to that
    (bilinear), larger ones are seen as they are; all are normalised as it wants, grey ones repeated. Neither the
    network nor the mixing is trained, pruned or counted as prunable. The network's weights are in no file of a run:
    their hash is part of what the run is. The generator has a latent of unit mean square, and a bias at its output.

    Source: Sauer et al., Projected GANs Converge Faster, 2021, sections 3.1 to 3.3 and the published code, which mixes
    scales with 1x1 convolutions where the paper has 3x3 ones, as here. A class is held against the mean of a head's
    last map, where the published code embeds it into 64 numbers per place.
    """

    Config: ClassVar[type[BackboneConfig]] = ProjectedConfig

    def __init__(self, config: ProjectedConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self._classes = conditional_classes("projected", image, config.conditional)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Image sizes that the generator makes; the discriminator takes any."""
        return RESOLUTIONS

    @property
    def conditional(self) -> bool:
        """Whether the networks take class labels."""
        return self._classes > 0

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The channels of the generator's maps of 128 pixels, and of the heads."""
        config = self.config
        return {
            "generator": Width("channels", config.channels, width_multiple(self.image.resolution)),
            "discriminator": Width("discriminator_channels", config.discriminator_channels),
        }

    def generator(self) -> Generator:
        """Build a freshly initialised generator.

        Raises:
            BackboneError: it makes no images of this size.
        """
        require_resolution("projected", self.image, self.resolutions)
        width = self.widths["generator"]
        require_multiple(width.field, width.channels, width.multiple, "maps of large images have a part of it")
        return FastGANGenerator(self.config.latent_dim, width.channels, self.image, self._classes, on_sphere=True)

    def discriminator(self) -> Discriminator:
        """Build a discriminator with fresh heads and mixing.

        Raises:
            BackboneError: the network is not one of timm's, gives no such maps, or its weights cannot be had.
        """
        if self.image.channels not in (1, 3):
            raise BackboneError(f"projected sees colour or grey, and these images have {self.image.channels} channels")
        return _ProjectedDiscriminator(self.config, self.image, self._classes)


def _drawn(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _size(config: ProjectedConfig) -> int:
    return int(settings_of(config.features).input_size[-1])


def _features(config: ProjectedConfig) -> nn.Module:
    """Return what gives the maps, with the weights that the config names."""
    name, where = config.features, config.weights
    ways = f"weights: {DOWNLOAD}, or weights: FILE.safetensors"
    # of a network that has shapes only, nobody needs the weights
    reason = refusal(name, RANDOM if torch.empty(0).is_meta else where, ways=ways, drawn=True)
    if reason is not None:
        raise BackboneError(f"projected: {reason}")
    if _size(config) < _LEAST:
        raise BackboneError(f"projected: {name} sees {_size(config)} pixels, and heads need {_LEAST} at least")
    net = pretrained(name, where, BackboneError, features_only=True, out_indices=_indices(name))
    if not next(net.parameters()).is_meta:
        found = weights_hash(net)[:16]
        if config.hash not in (None, found):
            raise BackboneError(
                f"projected: {where} holds other weights of {name} ({found}) than the recipe means ({config.hash}); "
                f"set hash to {found} for a run of these"
            )
    return net


def _indices(name: str) -> list[int]:
    """Return which of the maps that a network of timm gives have the strides that are wanted."""
    why = ""
    try:
        with torch.device("meta"):
            net: Any = pretrained(name, RANDOM, BackboneError, features_only=True)
        strides = list(net.feature_info.reduction())
        layout = str(getattr(net, "output_fmt", "NCHW")).rpartition(".")[2]
    except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
        strides, layout, why = [], "", f" ({' '.join(str(error).split())})"
    if not {*_STRIDES} <= {*strides} or layout != "NCHW":
        raise BackboneError(
            f"projected: {name} gives no maps of strides 4, 8, 16 and 32{why}; choose another network as features, "
            "such as tf_efficientnet_lite0 or resnet18"
        )
    # of several of one stride the last
    return [len(strides) - 1 - strides[::-1].index(stride) for stride in _STRIDES]
