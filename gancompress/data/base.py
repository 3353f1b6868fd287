"""What a dataset is: images by index, labels, and a fingerprint. Order and randomness live elsewhere."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from gancompress.data.census import Census

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Batch", "Dataset", "DatasetConfig", "ImageSpec"]


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """Shape and classes of the images of a run.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        resolution: height and width in pixels; images are square.
        classes: names of the classes, empty when the images have no labels.
        counts: images of each class where they are not equally many; what a generator is asked for follows them.
    """

    channels: int
    resolution: int
    classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = dataclasses.field(default=(), compare=False)

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return len(self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; without ``counts`` where there are none, as in files from before they were kept."""
        plain = {"channels": self.channels, "resolution": self.resolution, "classes": list(self.classes)}
        return {**plain, "counts": list(self.counts)} if self.counts else plain

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ImageSpec:
        """Undo :meth:`to_json`.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is of another kind.
            ValueError: a field is no number, or there are counts for other classes.
        """
        classes, counts = tuple(map(str, content["classes"])), tuple(map(int, content.get("counts", ())))
        if counts and (len(counts) != len(classes) or min(counts) < 0 or not any(counts)):
            raise ValueError(f"{len(counts)} counts of {len(classes)} classes")
        return cls(int(content["channels"]), int(content["resolution"]), classes, counts)


class Batch(NamedTuple):
    """Images as stored and their classes.

    Attributes:
        images: uint8, (B, C, H, W), 0 to 255.
        labels: int64, (B,); all 0 when the dataset has no labels.
    """

    images: Tensor
    labels: Tensor


class DatasetConfig(BaseModel):
    """Base of every dataset's ``Config``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


C = TypeVar("C", bound=DatasetConfig)


class Dataset(abc.ABC, Generic[C]):
    """A finite, ordered set of square images. Subclass it in one file, give it a ``Config``, register it.

    The constructor may read files and must raise :class:`~gancompress.errors.DataError` for whatever is wrong with
    them. Nothing about it may depend on global random state.
    """

    Config: ClassVar[type[DatasetConfig]] = DatasetConfig

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    def expected(cls, config: C) -> ImageSpec | None:
        """Return what the images will be, as far as the settings alone say it: without opening, or having, any file.

        Smoke runs draw images of this kind. The default knows nothing.
        """
        return None

    @property
    @abc.abstractmethod
    def spec(self) -> ImageSpec:
        """Shape and classes of every image."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def read(self, indices: Tensor) -> Batch:
        """Return the images at ``indices`` (int64, (B,)), in that order.

        Raises:
            DataError: an image cannot be read; the message names it.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Return a short hash of everything that fixes the images: content or version, resize, split."""

    def census(self) -> Census:
        """Return which images these are, for a checkpoint: cheaply, and by name where they have names.

        The default knows their number, their classes and :meth:`fingerprint`.
        """
        return Census(len(self), self.spec.classes, self.fingerprint())

    def prepare(self) -> None:
        """Do now whatever the first :meth:`read` would otherwise do: decode, check and keep every image.

        Constructing a dataset is cheap; calling this before a run starts finds a broken image before anything is
        written. The default does nothing.

        Raises:
            DataError: an image cannot be read; the message names it.
        """

    def warnings(self) -> tuple[str, ...]:
        """Return a line for everything about the source that people should know: files that are left out, …."""
        return ()

    def bytes_to_prepare(self) -> int:
        """Return the memory that :meth:`prepare` will take and keep, beyond what is held already."""
        return 0

    def labels(self) -> Tensor:
        """Return the class of every image, int64, (N,); all 0 without labels.

        The default reads every image; a dataset that knows its labels should say them without.
        """
        chunks = torch.split(torch.arange(len(self)), 1024)
        return torch.cat([self.read(chunk).labels for chunk in chunks])
