"""Where batches come from and when they are made. Whatever is chosen, the numbers are the same.

A batch is a pure function of seed and draw (:mod:`gancompress.training.batches`), so the next one can be made while the
device is busy with this one, without any state to save.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
from gancompress.seeds import to_device

if TYPE_CHECKING:
    from gancompress.training.batches import Latents, RealBatch

__all__ = ["DeviceDataset", "Feed", "Prefetcher", "Source", "choose_feed", "image_bytes"]

#: ``direct``: made when due; ``prefetch``: by a thread, ahead of time; ``device``: from images held on the device
Feed = Literal["direct", "prefetch", "device"]

#: of the free memory of a GPU, this share at most is taken by images, and never more than so many bytes
_SHARE_OF_FREE = 0.25
_LARGEST = 2 << 30
_CHUNK = 1024


class Source(Protocol):
    """What the training loop asks for batches (see :class:`~gancompress.training.batches.BatchSource`)."""

    def real(self, batch: int, draw: int) -> RealBatch:
        """Return this rank's share of a global batch of real images."""

    def latents(self, batch: int, *keys: int | str) -> Latents:
        """Return this rank's share of a global batch of latents."""


class Prefetcher:
    """Makes the next batches on a thread of its own, while those asked for are in use.

    After a draw numbered n, number n + 1 of the same kind is made. A wrong guess costs that batch; what is returned is
    always what ``source`` returns.
    """

    def __init__(self, source: Source, device: torch.device | None = None) -> None:
        self._source = source
        # a new thread stands on the first GPU, whatever this process trains on: batches would go there
        here = (torch.cuda.set_device, (device,)) if device is not None and device.type == "cuda" else (None, ())
        self._thread = ThreadPoolExecutor(1, "batches", *here)
        self._pending: dict[tuple[Any, ...], Future[Any]] = {}

    def real(self, batch: int, draw: int) -> RealBatch:
        """Return this rank's share of a global batch of real images."""
        made: RealBatch = self._ask("real", batch, draw)
        return made

    def latents(self, batch: int, *keys: int | str) -> Latents:
        """Return this rank's share of a global batch of latents."""
        made: Latents = self._ask("latents", batch, *keys)
        return made

    def _ask(self, kind: str, *arguments: int | str) -> Any:
        call = getattr(self._source, kind)
        waiting = self._pending.pop((kind, *arguments), None)
        number = arguments[-1]
        if isinstance(number, int):
            following = (*arguments[:-1], number + 1)
            # one batch of a kind at most: an earlier guess that nobody took up goes
            stream = (kind, *arguments[:-1])
            self._pending = {key: made for key, made in self._pending.items() if key[:-1] != stream}
            self._pending[(kind, *following)] = self._thread.submit(call, *following)
        return call(*arguments) if waiting is None else waiting.result()


class DeviceDataset(Dataset[DatasetConfig]):
    """A dataset whose images and labels lie on a device, as bytes, read once and whole; reading gathers them there."""

    def __init__(self, dataset: Dataset[DatasetConfig], device: torch.device) -> None:
        super().__init__(dataset.config)
        self._dataset = dataset
        self._device = device
        parts = [dataset.read(chunk) for chunk in torch.split(torch.arange(len(dataset)), _CHUNK)]
        self._images = torch.cat([part.images for part in parts]).to(device)
        self._labels = torch.cat([part.labels for part in parts]).to(device)

    @property
    def spec(self) -> ImageSpec:
        """Shape and classes of every image."""
        return self._dataset.spec

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Tensor) -> Batch:
        """Return the images at ``indices`` (int64, (B,), on the CPU), on the device, in that order."""
        where = to_device(indices, self._device)
        return Batch(self._images[where], self._labels[where])

    def labels(self) -> Tensor:
        """Return the class of every image, int64, (N,), on the CPU."""
        return self._labels.cpu()

    def fingerprint(self) -> str:
        """Return the hash of the dataset that is held."""
        return self._dataset.fingerprint()


def image_bytes(dataset: Dataset[DatasetConfig]) -> int:
    """Return the bytes of all images of ``dataset``, decoded."""
    spec = dataset.spec
    return len(dataset) * spec.channels * spec.resolution**2


def choose_feed(asked: Feed | Literal["auto"], dataset: Dataset[DatasetConfig], device: torch.device) -> Feed:
    """Return how batches are made.

    Args:
        asked: a :data:`Feed`, or ``auto``: on a GPU the images are held there when they take at most a quarter of its
            free memory and 2 GiB, else a thread makes batches; on a CPU, where there is nothing to wait for, neither.
        dataset: the real images.
        device: where training happens.
    """
    if asked != "auto":
        return asked
    if device.type != "cuda":
        return "direct"
    free, _ = torch.cuda.mem_get_info(device)
    return "device" if image_bytes(dataset) <= min(_LARGEST, _SHARE_OF_FREE * free) else "prefetch"
