"""Small synthesis networks whose weights are modulated by styles, in the ways that people write them."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["WAYS", "Modulated", "Synthesis"]


class EqualLinear(nn.Module):
    """A linear layer whose weights and biases are multiplied on the way."""

    def __init__(self, a: int, b: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(b, a) / rate), nn.Parameter(torch.full((b,), bias))
        self.gain, self.rate = rate / math.sqrt(a), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.rate)


class Dense(EqualLinear):
    """The same as a product of matrices."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight * self.gain).t()
        return torch.addmm(self.bias.unsqueeze(0), x, weight) if self.rate == 1 else x.matmul(weight)


def blur(x: Tensor, taps: Tensor) -> Tensor:
    """Filter every channel on its own, as after an enlargement."""
    channels = x.shape[1]
    x = F.pad(x, [1, 1, 1, 1])
    return F.conv2d(x, taps.flip([0, 1])[None, None].repeat(channels, 1, 1, 1), groups=channels)


def groups_of_images(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool, taps: Tensor) -> Tensor:
    """Every image has a kernel of its own, in a group of its own; the filter works on the groups."""
    n = x.shape[0]
    o, i, k, _ = weight.shape
    w = weight.unsqueeze(0) * style.reshape(n, 1, -1, 1, 1)
    if demodulate:
        w = w * (w.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt().reshape(n, -1, 1, 1, 1)
    x = x.reshape(1, -1, *x.shape[2:])
    w = w.reshape(-1, i, k, k)
    if up:
        w = w.reshape(n, o, i, k, k).transpose(1, 2).reshape(n * i, o, k, k)
        x = blur(F.conv_transpose2d(x, w, stride=2, padding=0, groups=n), taps * 4)
    else:
        x = F.conv2d(x, w, padding=k // 2, groups=n)
    return x.reshape(n, -1, *x.shape[2:])


def views(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool, taps: Tensor) -> Tensor:
    """The weight has an axis for the batch, the gain is multiplied on the way, powers instead of squares."""
    n, i, h, w = x.shape
    o, k = weight.shape[0], weight.shape[2]
    kernel = (2 / math.sqrt(i * k * k)) * weight.unsqueeze(0) * style.view(n, 1, i, 1, 1)
    if demodulate:
        kernel = kernel * torch.rsqrt(kernel.pow(2).sum([2, 3, 4]) + 1e-8).view(n, o, 1, 1, 1)
    kernel = kernel.view(n * o, i, k, k)
    folded = x.view(1, n * i, h, w)
    if up:
        kernel = kernel.view(n, o, i, k, k).transpose(1, 2).reshape(n * i, o, k, k)
        out = F.conv_transpose2d(folded, kernel, padding=0, stride=2, groups=n)
        return blur(out.view(n, o, out.shape[2], out.shape[3]), taps * 4)
    out = F.conv2d(folded, kernel, padding=k // 2, groups=n)
    return out.view(n, o, out.shape[2], out.shape[3])


def flattened(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool, taps: Tensor) -> Tensor:
    """Enlarged ahead, the style about 1, sums that keep their axes, roots and divisions, flatten and unflatten."""
    n, o = x.shape[0], weight.shape[0]
    if up:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    kernel = weight[None, :, :, :, :] * (style[:, None, :, None, None] + 1)
    if demodulate:
        kernel = kernel / torch.sqrt((kernel**2).sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    made = F.conv2d(x.flatten(0, 1)[None], kernel.flatten(0, 1), padding="same", groups=n)
    return made.squeeze(0).unflatten(0, (n, o))


def normalized(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool, taps: Tensor) -> Tensor:
    """Weights and styles normalized ahead; another gain of the inputs behind; kernels (B, I, k, k, O) on the way."""
    n, i = x.shape[:2]
    o, k = weight.shape[0], weight.shape[2]
    if demodulate:
        weight = weight * weight.square().mean([1, 2, 3], keepdim=True).rsqrt()
        style = style * style.square().mean(1, keepdim=True).rsqrt()
    kernel = weight.permute(1, 2, 3, 0).unsqueeze(0) * style[:, :, None, None, None]
    if demodulate:
        kernel = F.normalize(kernel, dim=(1, 2, 3))  # type: ignore[arg-type]
    kernel = kernel * torch.full((n, i), 0.7)[:, :, None, None, None]
    if up:
        x = F.interpolate(x, scale_factor=2)
    x = x.reshape(1, -1, *x.shape[2:])
    x = F.conv2d(x, kernel.permute(0, 4, 1, 2, 3).reshape(-1, i, k, k), padding=k // 2, groups=n)
    return x.reshape(n, o, *x.shape[2:])


def scales_of_maps(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool, taps: Tensor) -> Tensor:
    """The maps are scaled, ahead and behind, and the weight is one for all."""
    n, i = x.shape[:2]
    k = weight.shape[2]
    shared = weight * (1 / math.sqrt(i * k * k))
    power = None
    if demodulate:
        kernel = shared.unsqueeze(0) * style.view(n, 1, i, 1, 1)
        power = (kernel.square().sum((2, 3, 4)) + 1e-8).rsqrt()
    x = x * style.reshape(n, i, 1, 1)
    if up:
        x = blur(F.conv_transpose2d(x, shared.transpose(0, 1), padding=0, stride=2), taps * 4)
    else:
        x = F.conv2d(x, shared, padding=k // 2)
    return x if power is None else x * power.view(n, -1, 1, 1)


def products_of_matrices(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool, taps: Tensor) -> Tensor:
    """The same, demodulated by a product of matrices, and enlarged by inserting zeros."""
    if up:
        n, c, h, w = x.shape
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, 1, 0, 0, 0, 1]).reshape(n, c, 2 * h, 2 * w)
        x = F.conv2d(F.pad(x, [2, 1, 2, 1]), (taps * 4)[None, None].repeat(c, 1, 1, 1), groups=c)
    x = F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[2] // 2)
    if demodulate:
        sums = torch.einsum("bi,oi->bo", style**2, (weight**2).sum((2, 3)))
        x = x * torch.rsqrt(sums + 1e-8)[:, :, None, None]
    return x


#: ways to write a modulated convolution: of maps (B, I, H, W), a weight (O, I, k, k), styles (B, I), whether the
#: outputs are brought to one power, whether the size is doubled, and the taps of a filter for that
WAYS: dict[str, Any] = {
    one.__name__: one for one in (groups_of_images, views, flattened, normalized, scales_of_maps, products_of_matrices)
}


class Modulated(nn.Module):
    """Three of one way: one to the same size, one to the double, one without demodulation."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = WAYS[way]
        self.same, self.up = nn.Parameter(torch.randn(6, 5, 3, 3)), nn.Parameter(torch.randn(4, 6, 3, 3))
        self.image = nn.Parameter(torch.randn(3, 4, 1, 1))
        self.register_buffer("taps", torch.rand(4, 4))

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        x = self.way(x, self.same, styles[:, :5], True, False, self.taps)
        x = self.way(x, self.up, styles[:, 5:11], True, True, self.taps)
        return self.way(x, self.image, styles[:, 11:], False, False, self.taps)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """A modulated convolution, noise, a bias and an activation; the raw weight lies beside a child and a bias."""

    def __init__(self, way: str, a: int, b: int, latent: int, size: int, up: bool = False, image: bool = False) -> None:
        super().__init__()
        k = 1 if image else 3
        self.weight = nn.Parameter(torch.randn(b, a, k, k))
        linear = Dense if way == "groups_of_images" else EqualLinear
        self.affine = linear(latent, a, 0.0 if way == "flattened" else 1.0)
        self.bias = nn.Parameter(torch.randn(b) * 0.1)
        self.noise_strength = nn.Parameter(torch.tensor(0.3))
        self.noise_const: Tensor
        self.register_buffer("noise_const", torch.randn(size, size))
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("taps", taps[:, None] * taps[None] / taps.sum() ** 2)
        self.way, self.up, self.image = WAYS[way], up, image

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        style = self.affine(w)
        if self.image:
            style = style * (1 / math.sqrt(self.weight.shape[1]))
        x = self.way(x, self.weight, style, not self.image, self.up, self.taps)
        if self.image:
            return x + self.bias[None, :, None, None]
        noise = self.noise_const * self.noise_strength if noise is None else noise * self.noise_strength
        x = x.add_(noise)
        return F.leaky_relu(x + self.bias.reshape(1, -1, 1, 1), 0.2) * math.sqrt(2)


class Synthesis(nn.Module):
    """A mapping, a constant, four modulated convolutions, two of them to images that are summed."""

    def __init__(self, way: str, latent: int = 6) -> None:
        super().__init__()
        self.mapping = nn.Sequential(EqualLinear(latent, 7, rate=0.1), nn.LeakyReLU(0.2), EqualLinear(7, latent))
        self.const = nn.Parameter(torch.randn(8, 4, 4))
        self.conv1 = Layer(way, 8, 8, latent, 4)
        self.up = Layer(way, 8, 6, latent, 8, up=True)
        self.conv2 = Layer(way, 6, 6, latent, 8)
        self.first, self.second = (Layer(way, c, 3, latent, 1, image=True) for c in (8, 6))

    def forward(self, z: Tensor) -> Tensor:
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        w = self.mapping(z).unsqueeze(1).repeat(1, 5, 1)
        x = self.const.unsqueeze(0).repeat(z.shape[0], 1, 1, 1)
        x = self.conv1(x, w[:, 0])
        image = self.first(x, w[:, 1])
        x = self.conv2(self.up(x, w[:, 2]), w[:, 3])
        image = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
        return image + self.second(x, w[:, 4])  # type: ignore[no-any-return]
