"""Self-attention over the pixels of a map, as BigGAN places it in both networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.checks import require_multiple
from gancompress.backbones.layers import Initialiser, finish
from gancompress.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["SelfAttention", "attention_multiple", "require_attention"]

_QUERY_DIVISOR = 8
_VALUE_DIVISOR = 2


class SelfAttention(nn.Module):
    """Non-local block with a learnt gate that starts closed (Zhang et al., 2019, section 3; Brock et al., 2019).

    Keys and values are max-pooled by two, so a map of N pixels costs N²/4 products. All four projections are 1x1
    convolutions without bias, and prunable like any other. The products are written out: the fused kernels cannot be
    differentiated twice, which gradient penalties need.
    """

    def __init__(self, channels: int, draw: Initialiser, *, spectral_norm: bool) -> None:
        super().__init__()
        inner, value = channels // _QUERY_DIVISOR, channels // _VALUE_DIVISOR
        self.query = finish(nn.Conv2d(channels, inner, 1, bias=False), draw, spectral_norm)
        self.key = finish(nn.Conv2d(channels, inner, 1, bias=False), draw, spectral_norm)
        self.value = finish(nn.Conv2d(channels, value, 1, bias=False), draw, spectral_norm)
        self.merge = finish(nn.Conv2d(value, channels, 1, bias=False), draw, spectral_norm)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape, H and W even."""
        query = self.query(x).flatten(2)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        attended = torch.softmax(torch.bmm(query.transpose(1, 2), key), dim=-1)
        mixed = torch.bmm(value, attended.transpose(1, 2)).reshape(x.shape[0], -1, *x.shape[2:])
        out: Tensor = x + self.gate * self.merge(mixed)
        return out


def attention_multiple(times: int) -> int:
    """Return what a base width must divide by when an attending map has ``times`` as many channels."""
    return _QUERY_DIVISOR // math.gcd(_QUERY_DIVISOR, times)


def require_attention(name: str, size: int, sizes: Collection[int], widths: Iterable[tuple[str, int, int]]) -> None:
    """Refuse attention that the backbone ``name`` has no place or no channels for.

    Args:
        name: the backbone.
        size: resolution of the maps that attend; 0 = no attention.
        sizes: resolutions that both networks have.
        widths: for every attending map, the setting of its base width, that width, and how many times as many
            channels the map has.

    Raises:
        BackboneError: no map has this resolution, or its channels cannot be divided.
    """
    if size == 0:
        return
    if size not in sizes:
        known = sorted(sizes)
        nearest = min(known, key=lambda candidate: (abs(candidate - size), candidate))
        raise BackboneError(
            f"{name} at this resolution can attend to maps of {', '.join(map(str, known))} pixels, not {size}: "
            f"--set model.attention={nearest}, or 0 for no attention"
        )
    for key, base, multiple in widths:
        why = f"the attention at {size} pixels divides {multiple} times {key} by {_QUERY_DIVISOR}"
        require_multiple(key, base, attention_multiple(multiple), why)
