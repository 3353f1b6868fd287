"""The images that a generator is judged by: a pure function of the seed and each image's index."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from gancompress.data.classes import class_cycle
from gancompress.data.transform import to_uint8
from gancompress.errors import EvaluationError
from gancompress.evaluation.sandbox import BatchNormMode, sampling
from gancompress.seeds import generator, kept_global, seed_global

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gancompress.backbones.base import Generator

__all__ = ["Inputs", "Sampler", "classes_of", "device_of", "open_sampler"]

#: latents are drawn in blocks of this many, so that image i is the same whatever the number and the batch size
BLOCK = 1000


class Inputs(Protocol):
    """What a generator is fed that eats no latents, such as the images of another domain."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __call__(self, start: int, stop: int) -> Tensor:
        """Return inputs ``start`` to ``stop``, float32, as the network takes them; they begin again behind the last."""


class Sampler:
    """Images of a generator, each a pure function of its index and the seed.

    Latents are standard normal. Classes take turns, each as often as ``counts`` say: see
    :func:`~gancompress.data.classes.class_cycle`.

    Args:
        network: the generator.
        seed: of the latents.
        stream: tells apart what the images are for.
        counts: images of each class in the data; default: those that the generator was trained on.
        inputs: what the generator is fed instead of latents.
    """

    def __init__(
        self,
        network: Generator,
        *,
        seed: int,
        stream: str = "latent",
        counts: Sequence[int] | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self._inputs = inputs
        self.network = network
        self.cycle = class_cycle(counts or classes_of(network))
        self.seed = seed
        self.device = device_of(network)
        self.stream = stream
        self._block: tuple[int, Tensor] = (-1, torch.empty(0))

    def latents(self, start: int, stop: int) -> Tensor:
        """Return what images ``start`` to ``stop`` are made of, on the device: latents, (stop - start, latent_dim)."""
        if self._inputs is not None:
            return self._inputs(start, stop).to(self.device)
        parts = []
        for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
            if self._block[0] != block:
                rng = generator(self.seed, "evaluation", self.stream, block)
                self._block = (block, torch.randn(BLOCK, self.network.latent_dim, generator=rng))
            low = block * BLOCK
            parts.append(self._block[1][max(start - low, 0) : min(stop - low, BLOCK)])
        return torch.cat(parts).to(self.device)

    def labels(self, start: int, stop: int) -> Tensor | None:
        """Return the classes of images ``start`` to ``stop``, (stop - start,), None when unconditional."""
        if not len(self.cycle):
            return None
        return self.cycle[torch.arange(start, stop) % len(self.cycle)].to(self.device)

    def images(self, start: int, stop: int, labels: Tensor | None = None, latents: Tensor | None = None) -> Tensor:
        """Return images ``start`` to ``stop`` as the network gives them, checked to be finite.

        Args:
            start: first index.
            stop: index after the last.
            labels: classes to use instead of those that are due.
            latents: to use instead of those that are drawn.

        Raises:
            EvaluationError: the network made something that is no finite image.
        """
        chosen = self.labels(start, stop) if labels is None else labels
        latents = self.latents(start, stop) if latents is None else latents
        # a network that draws noise of its own draws the same for the same images, whatever was made before
        with kept_global(self.device):
            seed_global(self.seed, "evaluation", self.stream, "noise", start, device=self.device)
            images: Tensor = self.network(latents, chosen).float()
        if images.dim() != 4 or len(images) != stop - start:
            raise EvaluationError(
                f"the generator made a tensor of shape {tuple(images.shape)} for {stop - start} images"
            )
        if not bool(torch.isfinite(images).all()):
            raise EvaluationError(
                f"the generator made NaN or infinite pixels while sampling images {start} to {stop - 1}"
            )
        return images

    def batches(
        self, count: int, batch_size: int, *, full: bool = False, labels: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield ``count`` images as uint8 in batches.

        Args:
            count: images in all.
            batch_size: images per forward pass.
            full: make the last batch whole and cut it, for networks that see the batch (batch norm).
            labels: classes to use instead of those that are due, (count,); not with ``full``.
        """
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            chosen = None if labels is None else labels[start:stop].to(self.device)
            made = self.images(start, start + batch_size if full else stop, chosen)
            yield to_uint8(made[: stop - start])


def classes_of(network: Generator) -> tuple[int, ...]:
    """Return how often each class was there when a generator was trained, each once when nothing is known about it."""
    counts: tuple[int, ...] = getattr(getattr(network, "image", None), "counts", ())
    return counts if len(counts) == network.num_classes else (1,) * network.num_classes


def device_of(network: nn.Module) -> torch.device:
    """Return the device that a network is on; one without tensors of its own is on the CPU."""
    return next((t.device for t in itertools.chain(network.parameters(), network.buffers())), torch.device("cpu"))


@contextlib.contextmanager
def open_sampler(
    network: Generator,
    *,
    seed: int,
    batch_size: int,
    batch_norm: BatchNormMode = "running",
    stream: str = "latent",
    counts: Sequence[int] | None = None,
    inputs: Inputs | None = None,
) -> Iterator[Sampler]:
    """Bring ``network`` into the mode of ``batch_norm``, yield its sampler, and leave everything as it was.

    Args:
        network: the generator.
        seed: of the latents.
        batch_size: images per forward pass; matters for ``standing``.
        batch_norm: see :func:`~gancompress.evaluation.sandbox.sampling`.
        stream: tells apart what the images are for.
        counts: images of each class in the data; default: those that the generator was trained on.
        inputs: what the generator is fed instead of latents.
    """
    warm = Sampler(network, seed=seed, stream="standing", counts=counts, inputs=inputs)

    def warm_up(index: int) -> Tensor:
        return warm.images(index * batch_size, (index + 1) * batch_size)

    with sampling(network, batch_norm=batch_norm, warm_up=warm_up, seed=seed, device=warm.device):
        yield Sampler(network, seed=seed, stream=stream, counts=counts, inputs=inputs)
