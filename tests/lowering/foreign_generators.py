"""Small generators in the shapes that people publish, with random weights."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GENERATORS", "difference"]


def dcgan() -> nn.Module:
    """Transposed convolutions from a 1 x 1 latent, batch norms, in-place ReLUs."""
    layers: list[nn.Module] = []
    widths = (20, 32, 16, 8)
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False), nn.BatchNorm2d(b)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False), nn.Tanh())


class UNet(nn.Module):
    """Nested blocks as in pix2pix: an in-place LeakyReLU changes what is concatenated."""

    def __init__(self, outer: int, inner: int, inside: nn.Module | None, given: int | None = None) -> None:
        super().__init__()
        outermost = given is not None
        down: list[nn.Module] = [nn.Conv2d(given or outer, inner, 4, 2, 1, bias=False)]
        up: list[nn.Module] = [nn.ReLU(True), nn.ConvTranspose2d(inner * (2 if inside else 1), outer, 4, 2, 1)]
        if not outermost:
            down = [nn.LeakyReLU(0.2, True), *down]
            up = [*up, nn.BatchNorm2d(outer)]
        if inside is not None and not outermost:
            down = [*down, nn.BatchNorm2d(inner)]
        self.outermost = outermost
        middle = [] if inside is None else [inside]
        self.model = nn.Sequential(*down, *middle, *up, *([nn.Tanh()] if outermost else []))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.model(x)
        return made if self.outermost else torch.cat([x, made], 1)


def pix2pix() -> nn.Module:
    inside: nn.Module = UNet(16, 16, None)
    inside = UNet(12, 16, inside)
    inside = UNet(8, 12, inside)
    return UNet(3, 8, inside, given=3)


class ReflectedBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.block(x)
        return x + changed


def cyclegan() -> nn.Module:
    return nn.Sequential(
        nn.ReflectionPad2d(3), nn.Conv2d(3, 8, 7), nn.InstanceNorm2d(8), nn.ReLU(True),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.InstanceNorm2d(16), nn.ReLU(True),
        ReflectedBlock(16), ReflectedBlock(16),
        nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1), nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(True), nn.ReflectionPad2d(3), nn.Conv2d(8, 3, 7), nn.Tanh(),
    )  # fmt: skip


class ResidualUp(nn.Module):
    """Batch norm, ReLU, upsample, convolve, twice; a convolved shortcut."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.b1, self.b2 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
        self.c1, self.c2, self.shortcut = nn.Conv2d(a, b, 3, 1, 1), nn.Conv2d(b, b, 3, 1, 1), nn.Conv2d(a, b, 1)
        self.activation = nn.ReLU(True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.b1(x))
        h = self.c1(F.interpolate(h, scale_factor=2))
        h = self.c2(self.activation(self.b2(h)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2))


class SNGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 24 * 16)
        self.blocks = nn.Sequential(ResidualUp(24, 16), ResidualUp(16, 16))
        self.norm, self.last = nn.BatchNorm2d(16), nn.Conv2d(16, 3, 3, 1, 1)
        self.activation = nn.ReLU(True)

    def forward(self, z: Tensor) -> Tensor:
        h = self.blocks(self.linear(z).view(-1, 24, 4, 4))
        return torch.tanh(self.last(self.activation(self.norm(h))))


class Dense(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width + i * growth, growth if i < 2 else width, 3, 1, 1) for i in range(3))
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for conv in self.convs[:2]:
            made.append(self.lrelu(conv(torch.cat(made, 1))))
        last: Tensor = self.convs[2](torch.cat(made, 1))
        return last * 0.2 + x


class RRDB(nn.Module):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, 1, 1)
        self.dense = nn.ModuleList(nn.Sequential(Dense(width, 6), Dense(width, 6)) for _ in range(1))
        self.body, self.up = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.high, self.last = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(0.2, True)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        h = first
        for block in self.dense:
            h = block(h) * 0.2 + h
        h = first + self.body(h)
        h = self.lrelu(self.up(F.interpolate(h, scale_factor=2, mode="nearest")))
        return self.last(self.lrelu(self.high(h)))  # type: ignore[no-any-return]


class SRVGG(nn.Module):
    def __init__(self, width: int = 16, depth: int = 3, r: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.PReLU(width)]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
        self.body, self.r = nn.Sequential(*layers, nn.Conv2d(width, 3 * r * r, 3, 1, 1)), r
        self.shuffle = nn.PixelShuffle(r)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.body(x)) + F.interpolate(x, scale_factor=self.r, mode="nearest")  # type: ignore[no-any-return]


class Dilated(nn.Module):
    def __init__(self, width: int, k: int) -> None:
        super().__init__()
        self.one = nn.ModuleList(nn.Conv1d(width, width, k, 1, d * (k - 1) // 2, dilation=d) for d in (1, 3))
        self.two = nn.ModuleList(nn.Conv1d(width, width, k, 1, (k - 1) // 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for a, b in zip(self.one, self.two, strict=True):
            x = b(F.leaky_relu(a(F.leaky_relu(x, 0.1)), 0.1)) + x
        return x


class HiFiGAN(nn.Module):
    """A vocoder: means over blocks of several widths between transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(10, 16, 7, 1, 3), nn.Conv1d(4, 1, 7, 1, 3, bias=False)
        self.ups = nn.ModuleList(
            [nn.ConvTranspose1d(16, 8, 8, 4, 2), nn.ConvTranspose1d(8, 4, 5, 3, 1, output_padding=0)]
        )
        self.blocks = nn.ModuleList(Dilated(w, k) for w in (8, 4) for k in (3, 7))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            total: Any = None
            for block in self.blocks[2 * i : 2 * i + 2]:
                total = block(x) if total is None else total + block(x)
            x = total / 2
        return torch.tanh(self.last(F.leaky_relu(x)))


class Grouped(nn.Module):
    """Groups, uneven paddings and strides, replicated borders, group norm, constants, sizes that are not square."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 12, (3, 5), padding=(1, 2), groups=2)
        self.b = nn.Conv2d(12, 12, 3, stride=(2, 1), padding=(2, 1), dilation=(2, 1), groups=12)
        self.norm = nn.GroupNorm(3, 12)
        self.c = nn.Conv2d(12, 8, 3, padding=1, padding_mode="replicate")
        self.d = nn.ConvTranspose2d(8, 6, (3, 4), stride=(1, 2), padding=(1, 0), groups=2, output_padding=(0, 1))
        self.e = nn.Conv2d(6, 4, 1)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.leaky_relu(self.a((x - self.mean) * 2), 0.3)
        h = F.relu(self.norm(self.b(h)))
        h = 0.5 - self.c(h)
        h = self.d(F.pad(h, (1, 2, 0, 1)))
        return F.silu(h), self.e(F.hardswish(h) + h)


#: by name: the network, inputs for which it is captured, axes that stay open, other inputs
GENERATORS: dict[str, tuple[Any, Any, dict[int, str], Any]] = {
    "DCGAN": (dcgan, (2, 20, 1, 1), {0: "n"}, (17, 20, 1, 1)),
    "pix2pix": (pix2pix, (2, 3, 32, 48), {0: "n"}, (3, 3, 32, 48)),
    "CycleGAN": (cyclegan, (2, 3, 24, 32), {0: "n"}, (1, 3, 24, 32)),
    "SNGAN": (SNGAN, (2, 12), {0: "n"}, (18, 12)),
    "RRDB": (RRDB, (2, 3, 12, 16), {0: "n", 2: "h", 3: "w"}, (1, 3, 9, 7)),
    "SRVGG": (SRVGG, (2, 3, 12, 16), {0: "n", 2: "h", 3: "w"}, (1, 3, 7, 9)),
    "HiFi-GAN": (HiFiGAN, (2, 10, 12), {0: "n", 2: "t"}, (1, 10, 19)),
    "grouped": (Grouped, (2, 4, 12, 10), {0: "n"}, (5, 4, 12, 10)),
}


def difference(wanted: Any, found: Any) -> float:
    """Return the largest difference of two outputs, of the largest number in the first."""
    pairs = zip(wanted, found, strict=True) if isinstance(wanted, tuple) else [(wanted, found)]
    worst = 0.0
    for one, other in pairs:
        assert one.shape == other.shape
        worst = max(worst, float((one - other).abs().max() / (float(one.abs().max()) or 1)))
    return worst
