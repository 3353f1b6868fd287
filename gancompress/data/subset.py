"""Some images of a dataset, as a dataset: to train on little data and measure against all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
from gancompress.data.classes import class_counts
from gancompress.data.memory import digest
from gancompress.errors import DataError
from gancompress.seeds import generator
from gancompress.units import some

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Subset", "draw_subset"]

#: classes that an error names; the rest is counted
_NAMED = 5


class Subset(Dataset[DatasetConfig]):
    """The images of ``dataset`` at ``indices``, int64, (N,)."""

    def __init__(self, dataset: Dataset[DatasetConfig], indices: Tensor) -> None:
        super().__init__(dataset.config)
        self._dataset, self._indices = dataset, indices

    @property
    def spec(self) -> ImageSpec:
        """Shape and classes of the whole dataset's images, classes included that have none here."""
        return self._dataset.spec

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, indices: Tensor) -> Batch:
        """Return the images at ``indices`` (int64, (B,)) among those that are kept, in that order."""
        return self._dataset.read(self._indices[indices])

    def labels(self) -> Tensor:
        """Return the class of every image that is kept, int64, (N,); all 0 without labels."""
        return self._dataset.labels()[self._indices]

    def fingerprint(self) -> str:
        """Return a hash of the whole dataset and of which of its images these are."""
        return digest("subset", self._dataset.fingerprint(), self._indices.tolist())


def draw_subset(dataset: Dataset[DatasetConfig], count: int, seed: int, *, whole_classes: bool = False) -> Subset:
    """Return ``count`` images drawn at random; a larger ``count`` of the same seed holds those of a smaller one.

    Args:
        dataset: all images.
        count: images to keep, at least 1.
        seed: draws them.
        whole_classes: refuse a draw that leaves a class without images which has some.

    Raises:
        DataError: there are fewer images, or a class would be lost.
    """
    if count > len(dataset):
        raise DataError(f"training.images: {count:,} asked for, the dataset has {len(dataset):,}")
    few = Subset(dataset, torch.randperm(len(dataset), generator=generator(seed, "data", "subset"))[:count])
    if whole_classes:
        counts = zip(dataset.spec.classes, class_counts(dataset), class_counts(few), strict=True)
        lost = [name for name, there, here in counts if there and not here]
        if lost:
            raise DataError(
                f"training.images: among {count:,} images seed {seed} draws none of class "
                f"{some(lost[:_NAMED], len(lost))}; take more images, or another seed"
            )
    return few
