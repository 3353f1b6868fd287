"""CIFAR-10, CIFAR-100 and STL-10 through torchvision, which knows their addresses and checksums."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field

from gancompress.data.base import DatasetConfig, ImageSpec
from gancompress.data.memory import InMemoryDataset, Stored
from gancompress.errors import DataError

__all__ = ["CIFAR10", "CIFAR100", "STL10", "CIFARConfig", "STL10Config"]


class _TorchvisionConfig(DatasetConfig):
    path: str = Field("data", description="folder that holds the unpacked archive; relative to the working directory")
    download: bool = Field(False, description="download the archive into the path when it is not there")


class CIFARConfig(_TorchvisionConfig):
    """Settings of CIFAR-10 and CIFAR-100."""

    split: Literal["train", "test"] = Field("train", description="50,000 training or 10,000 test images")


class STL10Config(_TorchvisionConfig):
    """Settings of STL-10."""

    split: Literal["train", "test", "unlabeled", "train+unlabeled"] = Field(
        "train", description="5,000 labelled, 8,000 labelled, 100,000 unlabelled images, or 105,000 without labels"
    )
    resolution: Literal[32, 48, 64, 96] = Field(
        48, description="height and width in pixels; the originals are 96×96; 48 is usual for GANs"
    )


C = TypeVar("C", bound=_TorchvisionConfig)


class _TorchvisionDataset(InMemoryDataset[C]):
    #: name of torchvision's class, and what people call the dataset
    source: ClassVar[str]
    title: ClassVar[str]
    megabytes: ClassVar[int]

    #: classes of the labelled images
    class_count: ClassVar[int] = 10

    @classmethod
    def expected(cls, config: C) -> ImageSpec:
        """Return the published size, or the one asked for, and as many classes as the split has."""
        labelled = "unlabeled" not in getattr(config, "split", "")
        classes = tuple(str(label) for label in range(cls.class_count if labelled else 0))
        return ImageSpec(3, getattr(config, "resolution", 32), classes)

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return what torchvision's class takes beside ``root`` and ``download``."""

    def fetch(self) -> Any:
        """Return torchvision's dataset. It checks the MD5 of every file that it reads.

        Raises:
            DataError: the files are not there, or altered, or cannot be downloaded.
        """
        import torchvision

        kind = getattr(torchvision.datasets, self.source)
        root = os.path.expanduser(self.config.path)
        looked_at = os.path.join(root, kind.base_folder)
        elsewhere = f"--set data.path=FOLDER (the one that holds {kind.base_folder}/)"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about how the archives were written, nothing anyone here can mend
                return kind(root, download=self.config.download, **self.arguments())
        except (OSError, RuntimeError, EOFError) as error:
            if self.config.download:
                reason = " ".join(str(error).split())
                raise DataError(
                    f"{self.title} is not there and cannot be downloaded from {kind.url} ({reason}): "
                    f"fetch it elsewhere and use {elsewhere}",
                    where=looked_at,
                ) from error
            state = "is incomplete or altered here" if os.path.isdir(looked_at) else "is not there"
            raise DataError(
                f"{self.title} {state}: use {elsewhere}, or --set data.download=true ({self.megabytes:,} MB)",
                where=looked_at,
            ) from error

    def checksums(self) -> list[str]:
        """Return the checksums that torchvision held the files against."""
        import torchvision

        kind = getattr(torchvision.datasets, self.source)
        return [checksum for _, checksum in (*kind.train_list, *kind.test_list)]


class CIFAR10(_TorchvisionDataset[CIFARConfig]):
    """60,000 photographs of 10 classes, 32×32 RGB (A. Krizhevsky, Learning Multiple Layers of Features, 2009).

    The original archive stores its arrays as Python pickles. They are read by torchvision alone, after their MD5 was
    found to be the one published; no other pickle is ever read.
    """

    Config = CIFARConfig
    source = "CIFAR10"
    title = "CIFAR-10"
    megabytes = 170

    def arguments(self) -> dict[str, Any]:
        """Return the split as torchvision names it."""
        return {"train": self.config.split == "train"}

    def load(self) -> Stored:
        """Read the split."""
        data = self.fetch()
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return Stored(images, torch.tensor(data.targets, dtype=torch.int64), tuple(data.classes))

    def identity(self) -> tuple[Any, ...]:
        """Return the files' checksums and the split."""
        return self.checksums(), self.config.split


class CIFAR100(CIFAR10):
    """60,000 photographs of 100 classes, 32×32 RGB; see :class:`CIFAR10`."""

    source = "CIFAR100"
    class_count = 100
    title = "CIFAR-100"
    megabytes = 169


class STL10(_TorchvisionDataset[STL10Config]):
    """113,000 photographs, 96×96 RGB, 13,000 of them labelled with 10 classes (A. Coates et al., AISTATS 2011).

    Reduced by averaging where the size divides (48, 32), else by antialiased bicubic interpolation.
    """

    Config = STL10Config
    source = "STL10"
    title = "STL-10"
    megabytes = 2640

    def arguments(self) -> dict[str, Any]:
        """Return the split."""
        return {"split": self.config.split}

    def load(self) -> Stored:
        """Read the split and reduce it, some images at a time: in floats all would take 11 GB."""
        data = self.fetch()
        size = self.config.resolution
        images = torch.empty(len(data.data), 3, size, size, dtype=torch.uint8)
        for first in range(0, len(images), 1024):
            images[first : first + 1024] = _reduce(torch.tensor(data.data[first : first + 1024]), size)
        if "unlabeled" in self.config.split:
            return Stored(images, torch.zeros(len(images), dtype=torch.int64), ())
        return Stored(images, torch.tensor(data.labels, dtype=torch.int64), tuple(data.classes))

    def identity(self) -> tuple[Any, ...]:
        """Return the files' checksums, the split and the size."""
        return self.checksums(), self.config.split, self.config.resolution


def _reduce(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return (B, 3, 96, 96) uint8 images at another size."""
    original = images.shape[-1]
    if size == original:
        return images
    floats = images.to(torch.float32)
    if original % size == 0:
        floats = F.avg_pool2d(floats, original // size)
    else:
        floats = F.interpolate(floats, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    return floats.round().clamp(0, 255).to(torch.uint8)
