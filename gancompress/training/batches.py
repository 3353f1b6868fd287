"""Everything random that a training step consumes, as pure functions of (seed, step, rank).

Nothing here has state, so nothing about data order or latents is ever saved: step 1000 draws the same numbers whether
it was reached in one go or after ten interruptions, on one rank or on four (a rank takes its slice of the global
batch).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gancompress.data.classes import class_counts, class_cycle
from gancompress.data.sampling import batch_indices
from gancompress.data.transform import mirror, to_float
from gancompress.seeds import generator, to_device

if TYPE_CHECKING:
    from gancompress.data.base import Dataset, DatasetConfig

__all__ = ["BatchSource", "Latents", "RealBatch"]


class RealBatch(NamedTuple):
    """Real images, (B, C, H, W) float32 in [-1, 1], and their classes, (B,) int64 or None when unconditional."""

    images: Tensor
    labels: Tensor | None


class Latents(NamedTuple):
    """Latents, (B, latent_dim) float32 from N(0, 1), and classes to make, (B,) int64 or None when unconditional."""

    z: Tensor
    labels: Tensor | None


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """Draws the batches of a run.

    Attributes:
        dataset: the real images.
        latent_dim: length of a latent.
        num_classes: classes the networks are conditioned on, 0 = unconditional.
        seed: the run's seed.
        flip: mirror real images with probability 1/2.
        device: where batches end up.
        rank: this process.
        world: number of processes.
        channels_last: memory format of images.
    """

    dataset: Dataset[DatasetConfig]
    latent_dim: int
    num_classes: int
    seed: int
    flip: bool = False
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world: int = 1
    channels_last: bool = False

    def real(self, batch: int, draw: int) -> RealBatch:
        """Return this rank's share of the ``draw``-th global batch of ``batch`` real images."""
        indices = batch_indices(len(self.dataset), batch, draw, self.seed, self.rank, self.world)
        images, labels = self.dataset.read(indices)
        # bytes travel, and become floats where they are used
        pixels = to_float(to_device(images, self.device))
        if self.flip:
            # drawn for the global batch, so that it does not depend on the number of ranks
            coins = torch.rand(batch, generator=generator(self.seed, "flip", draw)) < 0.5
            pixels = mirror(pixels, to_device(coins[self._share(batch)], self.device))
        if self.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return RealBatch(pixels, to_device(labels, self.device) if self.num_classes else None)

    def latents(self, batch: int, *keys: int | str) -> Latents:
        """Return this rank's share of a global batch of latents; ``keys`` name the draw, e.g. ``("generator", 17)``."""
        rng = generator(self.seed, "latent", *keys)
        share = self._share(batch)
        z = to_device(torch.randn(batch, self.latent_dim, generator=rng)[share], self.device)
        if not self.num_classes:
            return Latents(z, None)
        labels = self._cycle[torch.randint(len(self._cycle), (batch,), generator=rng)[share]]
        return Latents(z, to_device(labels, self.device))

    @functools.cached_property
    def _cycle(self) -> Tensor:
        """Classes, each as often as the data has it: one is drawn for every generated image."""
        return class_cycle(class_counts(self.dataset) or (1,) * self.num_classes)

    def _share(self, batch: int) -> slice:
        return slice(self.rank * batch // self.world, (self.rank + 1) * batch // self.world)
