"""Which images make up a batch: a pure function of seed, step and rank, so that there is no loader state to save."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from gancompress.seeds import generator

__all__ = ["batch_indices", "epoch_permutation"]


@functools.lru_cache(maxsize=4)
def epoch_permutation(n: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the images in one epoch, int64, (n,). Cached: do not write to it.

    Four are kept (a batch may straddle two epochs, and a validation set may be read in between), 8 bytes an image.
    """
    return torch.randperm(n, generator=generator(seed, "data", n, epoch))


def batch_indices(n: int, batch: int, step: int, seed: int, rank: int = 0, world: int = 1) -> Tensor:
    """Return the indices of the images of one batch.

    Batches are consecutive slices of an endless sequence of shuffled epochs. An epoch uses every image exactly once,
    whether or not ``batch`` divides ``n``: a batch may end one epoch and begin the next (or span several, when it is
    larger than the dataset). Rank ``r`` takes its slice of the global batch, which does not depend on ``world``.

    Args:
        n: number of images.
        batch: images in the global batch, over all ranks.
        step: number of the batch, from 0. With several discriminator steps per training step, count the former.
        seed: seed of the recipe.
        rank: this process.
        world: number of processes; when it does not divide ``batch``, slices differ by one image.

    Returns:
        int64 on the CPU, (batch / world,).

    Raises:
        ValueError: an argument is out of its range.
    """
    if n < 1 or batch < 1 or step < 0 or not 0 <= rank < world:
        raise ValueError(f"batch_indices: n={n}, batch={batch}, step={step}, rank={rank}, world={world}")
    first = step * batch + batch * rank // world
    last = step * batch + batch * (rank + 1) // world
    parts = []
    while first < last:
        epoch, offset = divmod(first, n)
        taken = min(last - first, n - offset)
        parts.append(epoch_permutation(n, seed, epoch)[offset : offset + taken])
        first += taken
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
