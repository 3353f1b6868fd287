"""Datasets small enough to be one tensor."""

from __future__ import annotations

import abc
import functools
import hashlib
import json
from typing import Any, NamedTuple, TypeVar

from torch import Tensor  # noqa: TC002 - fields of a named tuple are resolved at run time

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec

__all__ = ["InMemoryDataset", "Stored", "digest"]


class Stored(NamedTuple):
    """All images of a dataset.

    Attributes:
        images: uint8, (N, C, H, W).
        labels: int64, (N,); all 0 without labels.
        classes: names of the classes, empty without labels.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits that depend on every part: bytes as they are, the rest as JSON."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, ensure_ascii=False).encode()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


C = TypeVar("C", bound=DatasetConfig)


class InMemoryDataset(Dataset[C]):
    """A dataset held as one tensor. Subclasses write :meth:`load` and :meth:`identity`."""

    @abc.abstractmethod
    def load(self) -> Stored:
        """Read or draw everything. Called once, by the constructor."""

    @abc.abstractmethod
    def identity(self) -> tuple[Any, ...]:
        """Return what fixes the images, for :meth:`fingerprint`: bytes and JSON-like values."""

    def __init__(self, config: C) -> None:
        super().__init__(config)
        self.stored = self.load()

    @functools.cached_property
    def spec(self) -> ImageSpec:
        """Shape and classes of every image."""
        _, channels, resolution, _ = self.stored.images.shape
        return ImageSpec(channels=channels, resolution=resolution, classes=self.stored.classes)

    def __len__(self) -> int:
        return len(self.stored.images)

    def read(self, indices: Tensor) -> Batch:
        """Return the images at ``indices`` (int64, (B,)), in that order."""
        return Batch(self.stored.images[indices], self.stored.labels[indices])

    def labels(self) -> Tensor:
        """Return the class of every image, int64, (N,); all 0 without labels."""
        return self.stored.labels

    def fingerprint(self) -> str:
        """Return a hash of the dataset's kind and of :meth:`identity`."""
        return digest(type(self).__name__, *self.identity())
