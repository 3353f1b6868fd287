"""The images that a generator is judged by: a pure function of the seed and each image's index."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gancompress.errors import EvaluationError
from gancompress.evaluation.sandbox import BatchNormMode, sampling
from gancompress.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Sampler", "open_sampler"]

#: latents are drawn in blocks of this many, so that image i is the same whatever the number and the batch size
BLOCK = 1000


class Sampler:
    """Images of a generator, each a pure function of its index and the seed.

    Latents are standard normal. Classes are balanced: image i has class ``i % num_classes``.

    Args:
        network: maps latents (B, latent_dim) and labels (B,) or None to images in [-1, 1].
        latent_dim: size of a latent.
        num_classes: 0 = unconditional.
        seed: of the latents.
        device: where the generator is.
        stream: tells apart what the images are for.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        latent_dim: int,
        num_classes: int,
        seed: int,
        device: torch.device | str = "cpu",
        stream: str = "latent",
    ) -> None:
        self.network = network
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.seed = seed
        self.device = torch.device(device)
        self.stream = stream
        self._block: tuple[int, Tensor] = (-1, torch.empty(0))

    def latents(self, start: int, stop: int) -> Tensor:
        """Return the latents of images ``start`` to ``stop``, (stop - start, latent_dim), on the device."""
        parts = []
        for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
            if self._block[0] != block:
                rng = generator(self.seed, "evaluation", self.stream, block)
                self._block = (block, torch.randn(BLOCK, self.latent_dim, generator=rng))
            low = block * BLOCK
            parts.append(self._block[1][max(start - low, 0) : min(stop - low, BLOCK)])
        return torch.cat(parts).to(self.device)

    def labels(self, start: int, stop: int) -> Tensor | None:
        """Return the classes of images ``start`` to ``stop``, (stop - start,), None when unconditional."""
        if not self.num_classes:
            return None
        return torch.arange(start, stop, device=self.device) % self.num_classes

    def images(self, start: int, stop: int, labels: Tensor | None = None) -> Tensor:
        """Return images ``start`` to ``stop`` as the network gives them, checked to be finite.

        Args:
            start: first index.
            stop: index after the last.
            labels: classes to use instead of the balanced ones.

        Raises:
            EvaluationError: the network made something that is no finite image.
        """
        chosen = self.labels(start, stop) if labels is None else labels
        images: Tensor = self.network(self.latents(start, stop), chosen).float()
        if images.dim() != 4 or len(images) != stop - start:
            raise EvaluationError(
                f"the generator made a tensor of shape {tuple(images.shape)} for {stop - start} images"
            )
        if not bool(torch.isfinite(images).all()):
            raise EvaluationError(
                f"the generator made NaN or infinite pixels while sampling images {start} to {stop - 1}"
            )
        return images

    def batches(self, count: int, batch_size: int, *, full: bool = False) -> Iterator[Tensor]:
        """Yield ``count`` images as uint8 in batches.

        Args:
            count: images in all.
            batch_size: images per forward pass.
            full: make the last batch whole and cut it, for networks that see the batch (batch norm).
        """
        from gancompress.data.transform import to_uint8

        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            made = self.images(start, start + batch_size if full else stop)
            yield to_uint8(made[: stop - start])


@contextlib.contextmanager
def open_sampler(
    network: nn.Module,
    *,
    latent_dim: int,
    num_classes: int,
    seed: int,
    batch_size: int,
    batch_norm: BatchNormMode = "running",
    device: torch.device | str = "cpu",
    stream: str = "latent",
) -> Iterator[Sampler]:
    """Bring ``network`` into the mode of ``batch_norm``, yield its sampler, and leave everything as it was.

    Args:
        network: maps latents (B, latent_dim) and labels (B,) or None to images in [-1, 1].
        latent_dim: size of a latent.
        num_classes: 0 = unconditional.
        seed: of the latents.
        batch_size: images per forward pass; matters for ``standing``.
        batch_norm: see :func:`~gancompress.evaluation.sandbox.sampling`.
        device: where the generator is.
        stream: tells apart what the images are for.
    """

    def sampler(of: str) -> Sampler:
        return Sampler(network, latent_dim=latent_dim, num_classes=num_classes, seed=seed, device=device, stream=of)

    warm = sampler("standing")

    def warm_up(index: int) -> Tensor:
        return warm.images(index * batch_size, (index + 1) * batch_size)

    with sampling(network, batch_norm=batch_norm, warm_up=warm_up, seed=seed, device=device):
        yield sampler(stream)
