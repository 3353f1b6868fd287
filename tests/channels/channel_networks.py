"""Small networks, each with one thing that is hard to cut, and what checks a cut of any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from gancompress.architecture.resize import resize
from gancompress.backbones.attention import SelfAttention
from gancompress.backbones.layers import ConditionalBatchNorm2d, initialiser
from gancompress.channels.cut import cut_state, verify
from gancompress.channels.groups import Channels, find_channels
from gancompress.channels.module import read_module, written_out
from gancompress.sparsity.weights import duplicate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.graphs.build import CapturedModule
    from gancompress.sparsity.state import Role

LATENT = 6
#: config, image size and how many groups each network has
PAIRS: dict[str, tuple[str, dict[str, Any], int, dict[Role, int]]] = {
    "dcgan": ("dcgan", {"channels": 6, "conditional": True}, 16, {"generator": 2, "discriminator": 2}),
    "sngan": ("sngan", {"channels": 16, "discriminator_channels": 8, "conditional": True,
                        "generator_spectral_norm": True}, 32, {"generator": 7, "discriminator": 6}),
    "biggan": ("biggan", {"channels": 8}, 64, {"generator": 11, "discriminator": 11}),
    # ten blocks with three widths inside, five widths between them that end in each other, and two in the attention
    "biggan-deep": ("biggan-deep", {"channels": 8}, 128, {"generator": 37, "discriminator": 37}),
    # a trunk of one width from 4 to 16 pixels, two widths inside of each of three blocks; features of the class
    "r3gan": ("r3gan", {"channels": 8, "group_width": 8, "blocks": 1, "conditional": True}, 16,
              {"generator": 7, "discriminator": 8}),
    # maps of four sizes going down are joined to those going up; a trunk of one width with one inside each block
    "unet": ("unet", {"channels": 4, "discriminator_channels": 4}, 32, {"generator": 9, "discriminator": 4}),
    "resnet": ("resnet", {"channels": 4, "discriminator_channels": 4}, 32, {"generator": 14, "discriminator": 4}),
    # a pair of channels makes one through a gate; where noise stands between, or what is gated is added up, none goes
    "fastgan": ("fastgan", {"channels": 8, "latent_dim": 8, "conditional": True}, 64,
                {"generator": 4, "discriminator": 11}),
    "projected": ("projected", {"channels": 8, "latent_dim": 8, "conditional": True, "discriminator_channels": 4,
                                "mixed_channels": 2, "features": "test_efficientnet", "weights": "random"}, 64,
                  {"generator": 4, "discriminator": 10}),
    # styles are demodulated by sums over pairs of channels: the mapping alone can be cut; all but the last map in front
    # of the deviation over images, which counts channels, and the eight layers that map classes
    "stylegan2": ("stylegan2", {"channels": 8, "style_dim": 6, "mapping_layers": 2, "conditional": True}, 16,
                  {"generator": 2, "discriminator": 14}),
}  # fmt: skip


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every vector and statistic values of its own: a fresh norm hides what is cut wrongly."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.5)
            elif name.endswith("gate"):
                tensor.fill_(0.7)
            elif name.endswith(("_u", "_v")) or not tensor.is_floating_point():
                continue
            elif tensor.dim() < 3 or not tensor.any():  # a weight of zeros hides what lies behind it
                tensor.add_(torch.randn(tensor.shape, generator=rng) * 0.3)
    return module.eval()


def some_of(channels: Channels, density: float, seed: int = 0) -> dict[str, Tensor]:
    """Keep as many channels of every group as a density asks for, but which ones is drawn."""
    rng = torch.Generator().manual_seed(seed)
    kept = {}
    for name, count in channels.widths(density).items():
        width = next(group.width for group in channels.groups if group.name == name)
        kept[name] = torch.zeros(width, dtype=torch.bool)
        kept[name][torch.randperm(width, generator=rng)[:count]] = True
    return kept


def found(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[CapturedModule, Channels]:
    network = read_module(module, inputs)
    return network, find_channels(network, inputs)


def cut_module(
    module: nn.Module, inputs: Sequence[Tensor], density: float, known: tuple[CapturedModule, Channels]
) -> nn.Module:
    """Cut a copy of a module itself, and hold it against zeros in the whole one."""
    network, channels = known
    kept = some_of(channels, density)
    state = cut_state(module, channels.indices(kept))
    narrow = duplicate(module)
    resize(narrow, {name: tuple(tensor.shape) for name, tensor in state.items()})
    narrow.load_state_dict(state)
    verify(network, narrow.eval(), channels, kept, inputs, written_out(narrow).state_dict())
    return narrow


def first_map(channels: int, size: int = 4) -> list[nn.Module]:
    return [nn.Linear(LATENT, channels * size**2), nn.Unflatten(1, (-1, size, size))]


def unflattened() -> nn.Module:
    return nn.Sequential(*first_map(8), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())


class Viewed(nn.Module):
    """The channels last of all in the matrix, and their number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(LATENT, 16 * 10), nn.BatchNorm1d(160)
        self.out = nn.Conv2d(10, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.norm(self.linear(z)))
        out: Tensor = self.out(h.view(-1, 4, 4, 10).permute(0, 3, 1, 2))
        return out


def normed() -> nn.Module:
    sn = parametrizations.spectral_norm
    return nn.Sequential(
        sn(nn.Linear(LATENT, 8 * 16)), nn.Unflatten(1, (-1, 4, 4)), nn.ReLU(), sn(nn.ConvTranspose2d(8, 7, 4, 2, 1)),
        nn.LeakyReLU(0.2), parametrizations.weight_norm(nn.Conv2d(7, 6, 3)), nn.ReLU(), sn(nn.Conv2d(6, 3, 3)),
    )  # fmt: skip


def shuffled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.PReLU(24), nn.PixelShuffle(2), nn.Conv2d(6, 12, 1), nn.PReLU(),
        nn.PixelUnshuffle(2), nn.Conv2d(48, 12, 3, padding=1), nn.PixelShuffle(2),
    )  # fmt: skip


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ReLU(), nn.ConvTranspose2d(12, 8, 4, 2, 1, groups=4), nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(12, 24, 3, groups=12),
        nn.ConvTranspose2d(24, 48, 2, groups=24), nn.Conv2d(48, 3, 1),
    )  # fmt: skip


class Tied(nn.Module):
    """One layer that is used twice, and a matrix that two layers share, one of them turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 9, 1), nn.Conv2d(9, 9, 3, padding=1)
        self.down, self.up = nn.Conv2d(9, 5, 1, bias=False), nn.ConvTranspose2d(5, 9, 1, bias=False)
        self.up.weight = self.down.weight
        self.out = nn.Conv2d(9, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.twice(F.relu(self.twice(F.relu(self.first(x))))))
        out: Tensor = self.out(self.up(F.relu(self.down(h))))
        return out


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 1)
        self.attention = SelfAttention(16, initialiser("xavier"), spectral_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.relu(self.attention(self.first(x))))
        return out


class Conditioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Sequential(*first_map(8, 2))
        self.norm, self.conv = ConditionalBatchNorm2d(8, 4), nn.Conv2d(8, 6, 3, padding=1)
        self.shortcut, self.out = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 3, 1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        h = self.map(z)
        h = self.conv(F.relu(self.norm(h, labels))) + self.shortcut(h)
        out: Tensor = self.out(F.relu(F.interpolate(h, scale_factor=2.0)))
        return out


class Joined(nn.Module):
    """Joined, split, gated and cut by numbers in the code; a border, a pool and a squeeze."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 6, 3)
        self.gate, self.norm = nn.Conv2d(14, 20, 1), nn.InstanceNorm2d(10, affine=True)
        self.squeeze, self.excite = nn.Linear(10, 5), nn.Linear(5, 10)
        self.out = nn.Conv2d(4, 3, 1)
        self.mix = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        value, gate = self.gate(torch.cat((self.a(x), self.b(x)), 1)).chunk(2, 1)
        h = self.norm(value * torch.sigmoid(gate))
        h = h * torch.sigmoid(self.excite(F.relu(self.squeeze(h.mean((2, 3))))))[:, :, None, None]
        out: Tensor = self.out(F.relu(self.mix(F.max_pool2d(F.pad(h, (0, 1, 0, 1)), 2))))
        return out


class Normalised(nn.Module):
    """Statistics over channels: nothing before them can go, what comes after can."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.group = nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8)
        self.next, self.out = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.relu(self.next(self.group(self.first(x)))))
        return out


def latents(count: int = 2) -> tuple[Tensor]:
    return (torch.randn(count, LATENT, generator=torch.Generator().manual_seed(1)),)


def images(count: int = 2, size: int = 8) -> tuple[Tensor]:
    return (torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)),)
