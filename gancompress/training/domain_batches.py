"""Batches of two domains, as pure functions of (seed, step, rank)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gancompress.data.sampling import batch_indices
from gancompress.data.transform import mirror, to_float
from gancompress.seeds import derive, generator, to_device

if TYPE_CHECKING:
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.data.domains import Domains

__all__ = ["DomainBatch", "DomainSource"]


class DomainBatch(NamedTuple):
    """Images of both domains, (B, C, H, W) float32 in [-1, 1]; of pairs, those at one index belong together."""

    source: Tensor
    target: Tensor


@dataclasses.dataclass(frozen=True)
class DomainSource:
    """Draws the batches of a run.

    Attributes:
        dataset: images of both domains.
        seed: the run's seed.
        pairs: images of a pair stay together, and are cut and mirrored alike.
        flip: mirror with probability 1/2.
        jitter: pixels that images are enlarged by, before a piece of the old size is cut out anywhere.
        device: where batches end up.
        rank: this process.
        world: number of processes.
        channels_last: memory format of images.
    """

    dataset: Domains[DatasetConfig]
    seed: int
    pairs: bool
    flip: bool = False
    jitter: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world: int = 1
    channels_last: bool = False

    def both(self, batch: int, draw: int) -> DomainBatch:
        """Return this rank's share of the ``draw``-th global batch of ``batch`` images of each domain."""
        target = self._side(self.dataset.target, "target", batch, draw)
        return DomainBatch(self._side(self.dataset.source, "target" if self.pairs else "source", batch, draw), target)

    def _side(self, dataset: Dataset[DatasetConfig], order: str, batch: int, draw: int) -> Tensor:
        # of the two domains each has an order of its own, or image i would always meet image i
        seed = self.seed if order == "target" else derive(self.seed, "domain")
        indices = batch_indices(len(dataset), batch, draw, seed, self.rank, self.world)
        pixels = to_float(to_device(dataset.read(indices).images, self.device))
        share = slice(self.rank * batch // self.world, (self.rank + 1) * batch // self.world)
        if self.jitter:
            pixels = self._cut(pixels, torch.rand(batch, 2, generator=generator(seed, "jitter", draw))[share])
        if self.flip:
            coins = torch.rand(batch, generator=generator(seed, "flip", draw)) < 0.5
            pixels = mirror(pixels, to_device(coins[share], self.device))
        return pixels.contiguous(memory_format=torch.channels_last) if self.channels_last else pixels

    def _cut(self, images: Tensor, places: Tensor) -> Tensor:
        """Enlarge images and cut a piece of their old size out of each; ``places``: (B, 2), in [0, 1)."""
        size = images.shape[-1]
        large = F.interpolate(images, size + self.jitter, mode="bicubic", align_corners=False).clamp_(-1, 1)
        corners = (places * (self.jitter + 1)).long().tolist()
        pieces = [
            image[:, top : top + size, left : left + size] for image, (top, left) in zip(large, corners, strict=True)
        ]
        return torch.stack(pieces)
