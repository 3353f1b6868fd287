"""Layers of style-based networks: weights at run-time scale, convolutions modulated by styles, batch statistics."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from gancompress.kernels.between import between, in_one_pass
from gancompress.kernels.calls import Between
from gancompress.kernels.layout import is_batch_last, scale, scale_and_shift, to_batch_last
from gancompress.kernels.resample import smooth
from gancompress.sparsity.weights import Scaled

__all__ = ["SLOPE", "Mapping", "ModulatedConv", "ToColour", "equalised", "minibatch_deviation", "normalised"]

L = TypeVar("L", nn.Conv2d, nn.Linear)

#: of every leaky ReLU
SLOPE = 0.2
#: keeps the magnitude of what a leaky ReLU passes
_GAIN = math.sqrt(2)
#: what is added to sums of squares before a root
_EPS = 1e-8


def equalised(layer: L, *, gain: float = 1.0, rate: float = 1.0, bias: float = 0.0) -> L:
    """Draw a fresh layer from N(0, 1) and scale it as it runs: the equalised learning rate of Karras et al. (2018).

    Args:
        layer: its weight is stored at unit variance, whatever its size.
        gain: of what it gives. A leaky ReLU behind it commutes with a factor, so the factor stands here.
        rate: multiplies the learning rate; the weight is stored that much larger.
        bias: what the bias starts from.
    """
    fan_in = layer.weight[0].numel()
    with torch.no_grad():
        nn.init.normal_(layer.weight, std=1 / rate)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, bias / rate)
    _scale(layer, "weight", gain * rate / math.sqrt(fan_in))
    if layer.bias is not None and gain * rate != 1:
        _scale(layer, "bias", gain * rate)
    return layer


def _scale(layer: nn.Module, name: str, factor: float) -> None:
    parametrize.register_parametrization(layer, name, Scaled(factor), unsafe=True)


def normalised(x: Tensor) -> Tensor:
    """Scale each row of (B, features) to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + _EPS).rsqrt()


class Mapping(nn.Module):
    """Latents to styles: (B, latent_dim) -> (B, style_dim), a multilayer perceptron that learns slowly.

    Classes are embedded, normalised, and stand beside the normalised latent (Karras et al., 2020a, section 2.4).
    """

    def __init__(self, latent_dim: int, style_dim: int, layers: int, num_classes: int, rate: float = 0.01) -> None:
        super().__init__()
        self.embedding: nn.Embedding | None = None
        self.latent_dim = latent_dim
        if num_classes:
            self.embedding = nn.Embedding(num_classes, style_dim)
            # a linear layer of a class written as one-hot; its weight is stored at unit variance
            nn.init.normal_(self.embedding.weight)
            self.shift = nn.Parameter(torch.zeros(style_dim))
            self._factor = 1 / math.sqrt(num_classes)
        inputs = latent_dim + (style_dim if num_classes else 0)
        sizes = [inputs, *[style_dim] * layers]
        self.layers = nn.ModuleList(
            equalised(nn.Linear(before, after), gain=_GAIN, rate=rate) for before, after in pairwise(sizes)
        )

    def forward(self, z: Tensor | None, labels: Tensor | None = None) -> Tensor:
        """Return the styles; ``z`` is None where classes alone are mapped.

        Raises:
            ValueError: no labels were given, and there are classes.
        """
        parts = [] if z is None else [normalised(z)]
        if self.embedding is not None:
            if labels is None:
                raise ValueError("this network is conditional: give it labels")
            parts.append(normalised(self.embedding(labels) * self._factor + self.shift))
        h = torch.cat(parts, 1) if parts[1:] else parts[0]
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
        return h


def _scaled(x: Tensor, gain: Tensor) -> Tensor:
    return between(x, Between(), gain=gain) if in_one_pass(x) else scale(x, gain)


class _Styled(nn.Module):
    """A convolution with one weight for all images, whose inputs are scaled by each image's style."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    noise: Tensor

    def __init__(self, in_channels: int, style_dim: int, fan_in: int) -> None:
        super().__init__()
        self.style = equalised(nn.Linear(style_dim, in_channels), bias=1.0)
        #: stands in the style, so that the weight, which a mask is held on, is what the layer computes with
        self.factor = 1 / math.sqrt(fan_in)


class ModulatedConv(_Styled):
    """Style, 3x3 convolution, demodulation, noise, bias and leaky ReLU: (B, C, H, W) to (B, out, H, W) or twice that.

    Scaling what goes in by the style ``s`` and what comes out by ``1 / sqrt(sum((s w)^2))`` is the convolution with
    a weight of each image's own that the paper writes; the weight itself is shared, and so is its mask. Twice the size
    is a transposed convolution smoothed by the filter [1, 3, 3, 1].

    Source: Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020, section 2.2, eqs. 1 to 3.
    """

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, resolution: int, *, up: bool) -> None:
        super().__init__(in_channels, style_dim, in_channels * 9)
        self.up = up
        self.conv = (
            nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, bias=False)
            if up
            else nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        )
        nn.init.normal_(self.conv.weight)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the map for styles ``w``, (B, style_dim); noise is drawn while training, and constant after it."""
        style = self.style(w) * self.factor
        sums = self.conv.weight.square().sum((2, 3))  # of each pair of channels
        sums = sums if self.up else sums.t()
        demodulation = (style.square() @ sums + _EPS).rsqrt() * _GAIN
        h = self.conv(_scaled(x, style.to(x.dtype)))
        demodulation = demodulation * 4 if self.up else demodulation  # of four pixels one is not 0
        bias, strength = self.bias * _GAIN, self.strength * _GAIN
        if in_one_pass(h):
            size = h.shape[2] - self.up
            noise = self._noise(h, size).expand(len(h), 1, size, size)
            how = Between(SLOPE, before=int(self.up))
            return between(h, how, gain=demodulation, bias=bias, noise=noise, strength=strength)
        if self.up:
            h = smooth(h, 1)
        h = scale_and_shift(h, demodulation.to(h.dtype), bias.to(h.dtype).expand_as(demodulation))
        return F.leaky_relu(h + (self._noise(h, h.shape[2]) * strength).to(h.dtype), SLOPE)

    def _noise(self, h: Tensor, size: int) -> Tensor:
        """Return the noise for maps of ``size`` by ``size`` pixels that lie in memory as ``h`` does."""
        if not self.training:
            return self.noise
        # drawn in one order, whichever format the map has
        drawn = torch.randn(h.shape[0], 1, size, size, device=h.device)
        return to_batch_last(drawn) if is_batch_last(h) else drawn


class ToColour(_Styled):
    """Style and 1x1 convolution to colours, without demodulation: (B, C, H, W) to (B, colours, H, W)."""

    def __init__(self, in_channels: int, colours: int, style_dim: int) -> None:
        super().__init__(in_channels, style_dim, in_channels)
        self.conv = nn.Conv2d(in_channels, colours, 1)
        nn.init.normal_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the colours for styles ``w``, (B, style_dim)."""
        out: Tensor = self.conv(_scaled(x, (self.style(w) * self.factor).to(x.dtype)))
        return out


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append one channel to (B, C, H, W): the standard deviation over groups of images, averaged over all features.

    A group has the largest number of images up to ``group`` that divides the batch.

    Source: Karras et al., Progressive Growing of GANs, 2018, section 3.
    """
    count, _, height, width = x.shape
    size = max(n for n in range(1, min(group, count) + 1) if count % n == 0)
    groups = x.float().reshape(size, count // size, -1)
    deviation = ((groups - groups.mean(0)).square().mean(0) + _EPS).sqrt().mean(1)
    plane = deviation.repeat(size)[:, None, None, None].expand(-1, 1, height, width)
    return torch.cat((x, plane.to(x.dtype)), 1)
