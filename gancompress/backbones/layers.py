"""Building blocks that backbones share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from gancompress.backbones import folding
from gancompress.backbones.base import Discriminator
from gancompress.kernels.layout import scale_and_shift
from gancompress.kernels.modules import after_relu
from gancompress.kernels.resample import average2, upsample2

if TYPE_CHECKING:
    from gancompress.backbones.folding import FoldKind

__all__ = [
    "ConditionalBatchNorm2d",
    "DownBlock",
    "FirstDownBlock",
    "Initialiser",
    "LinearToMap",
    "PointwiseShortcut",
    "ProjectedBatchNorm2d",
    "ProjectionDiscriminator",
    "ProjectionHead",
    "SpectralNorm",
    "UpBlock",
    "averaged",
    "batch_norm",
    "finish",
    "initialiser",
    "normalise",
    "spectral",
    "upsample",
    "upsampled",
]

L = TypeVar("L", bound=nn.Module)

#: fills the weight of a fresh layer in place, from torch's global generator
Initialiser: TypeAlias = Callable[[Tensor], Tensor]


def initialiser(kind: Literal["normal", "orthogonal", "xavier"]) -> Initialiser:
    """Return how weights are drawn.

    ``normal`` is N(0, 0.02) (DCGAN), ``orthogonal`` is Saxe et al.'s (2014; BigGAN), ``xavier`` is Glorot's uniform
    (SNGAN).
    """
    if kind == "normal":
        return lambda weight: nn.init.normal_(weight, std=0.02)
    return nn.init.orthogonal_ if kind == "orthogonal" else nn.init.xavier_uniform_


def spectral(layer: L, enabled: bool = True) -> L:
    """Divide the layer's weight by its largest singular value (Miyato et al., 2018, section 2.1).

    The parametrisation draws its vectors and takes 15 power iterations here, so call it after the weight is drawn.
    The hook flavour of torch is never used: it cannot be deep-copied after a training step.
    """
    if enabled:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        axis = 1 if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) else 0
        norm = _without_values(weight, axis) if weight.is_meta else SpectralNorm(weight, dim=axis)
        parametrize.register_parametrization(layer, "weight", norm)
    return layer


class SpectralNorm(_SpectralNorm):
    """torch's parametrisation, bit for bit; its steps of two small products are called directly, which halves them."""

    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        with torch.no_grad():
            adjoint = weight_mat.H
            for _ in range(n_power_iterations):
                self._to_length_1(torch.mv(weight_mat, self._v), self._u)
                self._to_length_1(torch.mv(adjoint, self._u), self._v)

    def _to_length_1(self, vector: Tensor, out: Tensor) -> None:
        """Write into ``out``, which copies of the module on other devices share."""
        torch.div(vector, torch.linalg.vector_norm(vector, 2, 0, keepdim=True).clamp_min_(self.eps), out=out)


def _without_values(weight: Tensor, axis: int) -> SpectralNorm:
    """Return the norm of a weight that has only a shape; iterations there find nothing and take seconds."""
    norm = SpectralNorm(torch.ones([1] * weight.dim(), device="cpu"), dim=axis)
    rows = weight.shape[axis]
    norm.register_buffer("_u", weight.new_empty(rows))
    norm.register_buffer("_v", weight.new_empty(weight.numel() // rows))
    return norm


def finish(layer: L, draw: Initialiser, spectral_norm: bool = False) -> L:
    """Draw the weight of a fresh convolution, linear layer or embedding, zero its bias, normalise it if asked to."""
    with torch.no_grad():
        weight = layer.weight
        assert isinstance(weight, Tensor)
        draw(weight)
        bias = getattr(layer, "bias", None)
        if bias is not None:
            bias.zero_()
    return spectral(layer, spectral_norm)


class LinearToMap(nn.Module):
    """A linear layer whose output is a feature map: (B, in_features) -> (B, channels, size, size).

    It is a module of its own so that one *channel* (size² rows of the matrix) is one unit of pruning, and so that no
    view has the number of channels hard coded.
    """

    def __init__(self, linear: nn.Linear, size: int) -> None:
        super().__init__()
        self.linear = linear
        self.size = size

    @property
    def channels(self) -> int:
        """Channels of the map, as the layer is now."""
        return self.linear.out_features // (self.size * self.size)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, in_features) to (B, channels, size, size)."""
        flat: Tensor = self.linear(z)
        return flat.reshape(flat.shape[0], -1, self.size, self.size)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm with a gain and a bias per class (Dumoulin et al., 2017). Its embeddings are never pruned."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(num_classes, channels)
        self.bias = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Normalise (B, C, H, W) and scale and shift it by class.

        Raises:
            ValueError: no labels were given.
        """
        if labels is None:
            raise ValueError("this network is conditional: give it labels")
        x = self.norm(x)
        # embeddings stay float32 under autocast; without the cast they would promote the whole map
        return scale_and_shift(x, self.gain(labels).to(x.dtype), self.bias(labels).to(x.dtype))


class _UnprunedLinear(nn.Linear):
    prunable = False


class ProjectedBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias are linear in a vector: a shared class embedding, a piece of the latent.

    The gain is 1 plus its projection (Brock et al., 2019, appendix B). Neither projection is ever pruned.
    """

    def __init__(self, channels: int, features: int, draw: Initialiser, *, spectral_norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = finish(_UnprunedLinear(features, channels, bias=False), draw, spectral_norm)
        self.bias = finish(_UnprunedLinear(features, channels, bias=False), draw, spectral_norm)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Normalise (B, C, H, W) and scale and shift it by ``condition``, (B, features).

        Raises:
            ValueError: no condition was given.
        """
        if condition is None:
            raise ValueError("this norm is conditional: give it a condition")
        x = self.norm(x)
        return scale_and_shift(x, (1 + self.gain(condition)).to(x.dtype), self.bias(condition).to(x.dtype))


def batch_norm(channels: int, num_classes: int = 0) -> nn.Module:
    """Return conditional batch norm, or plain batch norm without classes."""
    return ConditionalBatchNorm2d(channels, num_classes) if num_classes else nn.BatchNorm2d(channels)


def normalise(norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """Call a plain or a conditional norm, the latter with labels or with the vector it projects."""
    conditional = isinstance(norm, ConditionalBatchNorm2d | ProjectedBatchNorm2d)
    out: Tensor = norm(x, condition) if conditional else norm(x)
    return out


def upsample(x: Tensor) -> Tensor:
    """Double height and width by repeating pixels."""
    return upsample2(x)


def upsampled(conv: nn.Conv2d, x: Tensor, *, relu: bool = False) -> Tensor:
    """Double height and width by repeating pixels, then convolve; in one operation where a run chose that.

    With ``relu`` a ReLU comes first. A block that calls this names the convolution in its ``resampling()``
    (:mod:`gancompress.backbones.folding`).
    """
    out: Tensor | None = folding.compute(conv, x, relu=relu)
    if out is not None:
        return out
    x = upsample(x)
    return after_relu(conv, x) if relu else conv(x)


def averaged(conv: nn.Conv2d, x: Tensor, *, relu: bool = False) -> Tensor:
    """Convolve, then average 2x2 boxes; in one operation where a run chose that (as for :func:`upsampled`)."""
    out: Tensor | None = folding.compute(conv, x, relu=relu)
    if out is not None:
        return out
    return average2(after_relu(conv, x) if relu else conv(x))


class PointwiseShortcut(nn.Conv2d):
    """The 1x1 convolution beside a block that changes the resolution, moved to the smaller side of it.

    A 1x1 convolution commutes with repeating pixels and with averaging them, bias included, so a quarter of the
    products give the same result as the published order.

    Attributes:
        published_ratio: positions at which the published architecture applies this layer, over those here. Costs
            that are compared with the literature count by it.
    """

    def __init__(self, in_channels: int, out_channels: int, published_ratio: int) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.published_ratio = published_ratio


class UpBlock(nn.Module):
    """Residual block that doubles the resolution (Miyato et al., 2018, figure 7b and appendix B.4).

    Its norms are those of :func:`batch_norm`, or what ``norm`` makes for a number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        draw: Initialiser,
        *,
        num_classes: int = 0,
        spectral_norm: bool = False,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        norm = norm or (lambda channels: batch_norm(channels, num_classes))
        self.norm1 = norm(in_channels)
        self.conv1 = finish(nn.Conv2d(in_channels, out_channels, 3, padding=1), draw, spectral_norm)
        self.norm2 = norm(out_channels)
        self.conv2 = finish(nn.Conv2d(out_channels, out_channels, 3, padding=1), draw, spectral_norm)
        self.shortcut = finish(PointwiseShortcut(in_channels, out_channels, 4), draw, spectral_norm)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        h = upsampled(self.conv1, normalise(self.norm1, x, condition), relu=True)
        h = after_relu(self.conv2, normalise(self.norm2, h, condition))
        out: Tensor = h + upsample(self.shortcut(x))
        return out

    def resampling(self) -> tuple[tuple[str, FoldKind], ...]:
        """Return the convolutions beside a change of resolution."""
        return (("conv1", "up"),)


class FirstDownBlock(nn.Module):
    """First block of a discriminator: no activation before it, and it halves the resolution."""

    def __init__(self, in_channels: int, out_channels: int, draw: Initialiser, *, spectral_norm: bool) -> None:
        super().__init__()
        self.conv1 = finish(nn.Conv2d(in_channels, out_channels, 3, padding=1), draw, spectral_norm)
        self.conv2 = finish(nn.Conv2d(out_channels, out_channels, 3, padding=1), draw, spectral_norm)
        # the published block averages before this shortcut already
        self.shortcut = finish(PointwiseShortcut(in_channels, out_channels, 1), draw, spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H/2, W/2)."""
        h = averaged(self.conv2, self.conv1(x), relu=True)
        out: Tensor = h + self.shortcut(average2(x))
        return out

    def resampling(self) -> tuple[tuple[str, FoldKind], ...]:
        """Return the convolutions beside a change of resolution."""
        return (("conv2", "down"),)


class DownBlock(nn.Module):
    """Residual block of a discriminator, which may halve the resolution (Miyato et al., 2018, figure 7a)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        draw: Initialiser,
        *,
        hidden_channels: int,
        down: bool,
        spectral_norm: bool,
    ) -> None:
        super().__init__()
        self.down = down
        self.conv1 = finish(nn.Conv2d(in_channels, hidden_channels, 3, padding=1), draw, spectral_norm)
        self.conv2 = finish(nn.Conv2d(hidden_channels, out_channels, 3, padding=1), draw, spectral_norm)
        self.shortcut: nn.Module | None = None
        if down or in_channels != out_channels:
            shortcut = PointwiseShortcut(in_channels, out_channels, 4 if down else 1)
            self.shortcut = finish(shortcut, draw, spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W), or to half the resolution."""
        h = after_relu(self.conv1, x)
        h = averaged(self.conv2, h, relu=True) if self.down else after_relu(self.conv2, h)
        x = average2(x) if self.down else x
        return h + (x if self.shortcut is None else self.shortcut(x))

    def resampling(self) -> tuple[tuple[str, FoldKind], ...]:
        """Return the convolutions beside a change of resolution."""
        return (("conv2", "down"),) if self.down else ()


class ProjectionHead(nn.Module):
    """The class's part of a logit: the product of features and an embedding (Miyato & Koyama, 2018, section 3)."""

    def __init__(self, features: int, num_classes: int, draw: Initialiser, *, spectral_norm: bool) -> None:
        super().__init__()
        self.embedding = finish(nn.Embedding(num_classes, features), draw, spectral_norm)

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features (B, features) and labels (B,) to (B,).

        Raises:
            ValueError: no labels were given.
        """
        if labels is None:
            raise ValueError("this network is conditional: give it labels")
        product: Tensor = self.embedding(labels) * features
        return product.sum(1)


class ProjectionDiscriminator(Discriminator):
    """A discriminator whose logit is linear in features, plus the class's part where it is conditional."""

    any_memory_format = True
    output: nn.Module
    projection: ProjectionHead | None

    def output_layer(self) -> nn.Module:
        """Return the linear layer that makes the logit."""
        return self.output

    def logits(self, features: Tensor, labels: Tensor | None, pooled: Tensor | None = None) -> Tensor:
        """Map features (B, features) and labels (B,) or None to logits (B,).

        Args:
            features: what the linear layer takes.
            labels: classes, of a conditional network.
            pooled: what the class's part takes, where that is something else.
        """
        logits: Tensor = self.output(features).float().squeeze(1)
        if self.projection is not None:
            logits = logits + self.projection(features if pooled is None else pooled, labels)
        return logits
