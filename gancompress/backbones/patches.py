"""PatchGAN: a discriminator that tells real from made patch by patch, and what networks for image to image share."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Width
from gancompress.backbones.checks import require_resolution
from gancompress.backbones.layers import finish, initialiser

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.data.base import ImageSpec
    from gancompress.sparsity.state import Role

__all__ = ["Norm", "PatchDiscriminator", "TranslationBackbone", "TranslationConfig", "norm_of"]

Norm = Literal["batch", "instance"]

#: image sizes of networks for image to image
SIZES = (32, 64, 128, 256, 512)


class TranslationConfig(BackboneConfig):
    """Settings that networks for image to image share."""

    channels: int = Field(64, ge=1, description="channels of the generator's largest map")
    discriminator_channels: int = Field(64, ge=1, description="channels of the discriminator's largest map")
    patch_layers: int = Field(
        3, ge=1, le=5, description="strided convolutions of the discriminator; 3 judge patches of 70 x 70 pixels"
    )


class _InstanceNorm(nn.InstanceNorm2d):
    """Instance norm without gains of as many channels as there are: torch's warns where some were cut."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every map of every image (B, C, H, W)."""
        return F.instance_norm(x, eps=self.eps)


def norm_of(kind: Norm, channels: int) -> nn.Module:
    """Return batch norm with gains drawn from N(1, 0.02), or instance norm without gains, as published codes do."""
    if kind == "instance":
        return _InstanceNorm(channels)
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return norm


class PatchDiscriminator(Discriminator):
    """A logit for every overlapping patch: 4x4 convolutions, the first few with stride 2, leaky ReLUs of slope 0.2.

    With three strided ones each logit sees 70 x 70 pixels. Source: Isola et al., Image-to-Image Translation with
    Conditional Adversarial Networks, 2017, section 3.2.2 and appendix 6.1.2.

    Args:
        image: what is judged.
        channels: of the largest map; doubled at every halving, at most 8 times.
        layers: strided convolutions.
        norm: behind every convolution but the first and the last.
        pairs: an image comes with what it was made from, (B, 2C, H, W), the latter first.
    """

    num_classes = 0

    def __init__(self, image: ImageSpec, channels: int, layers: int, norm: Norm, *, pairs: bool) -> None:
        super().__init__()
        self.image, self.pairs = image, pairs
        draw = initialiser("normal")
        widths = [channels * min(2**level, 8) for level in range(layers + 1)]
        self.first = finish(nn.Conv2d(self.input_shape[0], channels, 4, 2, 1), draw)
        self.convs = nn.ModuleList(
            finish(nn.Conv2d(a, b, 4, 2 if level < layers - 1 else 1, 1, bias=norm == "instance"), draw)
            for level, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(norm_of(norm, width) for width in widths[1:])
        self.output = finish(nn.Conv2d(widths[-1], 1, 4, 1, 1), draw)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image, or of two behind each other."""
        image = self.image
        return (2 if self.pairs else 1) * image.channels, image.resolution, image.resolution

    def output_layer(self) -> nn.Module:
        """Return the convolution that makes the logits."""
        return self.output

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W), or pairs (B, 2C, H, W), to logits (B, h, w)."""
        h = F.leaky_relu(self.first(x), 0.2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.leaky_relu(norm(conv(h)), 0.2)
        logits: Tensor = self.output(h).float().squeeze(1)
        return logits


class TranslationBackbone(Backbone[TranslationConfig]):
    """A backbone for image to image, without classes."""

    #: what messages call it
    _name = ""

    def __init__(self, config: TranslationConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        # the last map of the discriminator has two pixels at least
        least = 2 ** (config.patch_layers + 2)
        require_resolution(self._name, image, [size for size in SIZES if size >= least])

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Image sizes that this backbone can make."""
        return tuple(size for size in SIZES if size >= 2 ** (self.config.patch_layers + 2))

    @property
    def conditional(self) -> bool:
        """Never: what is made is said by the input."""
        return False

    @property
    def widths(self) -> Mapping[Role, Width]:
        """The channels of the largest maps."""
        return {
            "generator": Width("channels", self.config.channels),
            "discriminator": Width("discriminator_channels", self.config.discriminator_channels),
        }

    def _patches(self, norm: Norm, *, pairs: bool) -> PatchDiscriminator:
        config = self.config
        return PatchDiscriminator(self.image, config.discriminator_channels, config.patch_layers, norm, pairs=pairs)
