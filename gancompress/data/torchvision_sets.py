"""CIFAR-10, CIFAR-100 and STL-10 through torchvision, which knows their addresses and checksums."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.base import DatasetConfig, ImageSpec
from gancompress.data.download import Archive, obtain
from gancompress.data.memory import InMemoryDataset, Stored
from gancompress.errors import DataError
from gancompress.storage.reading import read_whole

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
    #: name of torchvision's class, what people call the dataset, and about how many bytes are downloaded
    source: ClassVar[str]
    title: ClassVar[str]
    download_size: ClassVar[int]

    #: classes of the labelled images
    class_count: ClassVar[int] = 10

    @classmethod
    def expected(cls, config: C) -> ImageSpec:
        """Return the published size, or the one asked for, and as many classes as the split has."""
        labelled = "unlabeled" not in getattr(config, "split", "")
        classes = tuple(str(label) for label in range(cls.class_count if labelled else 0))
        return ImageSpec(3, getattr(config, "resolution", 32), classes)

    @property
    def upstream(self) -> Any:
        """The class of torchvision, which knows the address of the archive and the checksums."""
        import torchvision

        return getattr(torchvision.datasets, self.source)

    @property
    def folder(self) -> str:
        """Where the unpacked files are."""
        return os.path.join(os.path.expanduser(self.config.path), self.upstream.base_folder)

    @abstractmethod
    def files(self) -> list[tuple[str, str]]:
        """Return name and MD5 of every file that this split is read from."""

    def fetch(self) -> None:
        """See that every file is there and as published, downloading the archive if that is wanted.

        Raises:
            DataError: files are not there, or altered, or cannot be downloaded.
        """
        kind = self.upstream
        elsewhere = f"--set data.path=FOLDER (the one that holds {kind.base_folder}/)"
        archive = Archive(self.title, kind.url, self.download_size, kind.tgz_md5, kind.base_folder)
        obtain(
            archive, Path(self.config.path).expanduser(), self._is_complete, allowed=self.config.download,
            missing="is incomplete or altered here", elsewhere=elsewhere,
        )  # fmt: skip
        if not self._is_complete():
            raise DataError(
                f"{self.title} is not as published although its archive was: {elsewhere}", where=self.folder
            )

    def _is_complete(self) -> bool:
        from torchvision.datasets.utils import check_integrity

        return all(check_integrity(os.path.join(self.folder, name), md5) for name, md5 in self.files())

    def checksums(self) -> list[str]:
        """Return the published checksums of all files."""
        return [checksum for _, checksum in (*self.upstream.train_list, *self.upstream.test_list)]


@DATASETS.register("cifar10")
class CIFAR10(_TorchvisionDataset[CIFARConfig]):
    """60,000 photographs of 10 classes, 32×32 RGB (A. Krizhevsky, Learning Multiple Layers of Features, 2009).

    The original archive stores its arrays as Python pickles. They are read by torchvision alone, after their MD5 was
    found to be the one published; no other pickle is ever read.
    """

    Config = CIFARConfig
    source = "CIFAR10"
    title = "CIFAR-10"
    download_size = 170_498_071

    def files(self) -> list[tuple[str, str]]:
        """Return all files: torchvision wants them all, whatever the split."""
        kind = self.upstream
        return [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]

    def load(self) -> Stored:
        """Let torchvision read the split. It checks the MD5 of every file before it reads it."""
        self.fetch()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how the archives were written, nothing anyone here can mend
            data = self.upstream(os.path.expanduser(self.config.path), train=self.config.split == "train")
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return Stored(images, torch.tensor(data.targets, dtype=torch.int64), tuple(data.classes))

    def identity(self) -> tuple[Any, ...]:
        """Return the files' checksums and the split."""
        return self.checksums(), self.config.split


@DATASETS.register("cifar100")
class CIFAR100(CIFAR10):
    """60,000 photographs of 100 classes, 32×32 RGB; see :class:`CIFAR10`."""

    source = "CIFAR100"
    class_count = 100
    title = "CIFAR-100"
    download_size = 169_001_437


@DATASETS.register("stl10")
class STL10(_TorchvisionDataset[STL10Config]):
    """113,000 photographs, 96×96 RGB, 13,000 of them labelled with 10 classes (A. Coates et al., AISTATS 2011).

    Reduced by averaging where the size divides (48, 32), else by antialiased bicubic interpolation.
    """

    Config = STL10Config
    source = "STL10"
    title = "STL-10"
    download_size = 2_640_397_119

    def files(self) -> list[tuple[str, str]]:
        """Return the files of the split alone: checking the unlabelled images takes a while."""
        kind, parts = self.upstream, self.config.split.split("+")
        return [(name, md5) for name, md5 in (*kind.train_list, *kind.test_list) if name.split("_")[0] in parts]

    def load(self) -> Stored:
        """Read the split and reduce it, some images at a time: all of them take 3 GB as bytes, 11 GB as floats."""
        self.fetch()
        size, sources = self.config.resolution, [name for name, _ in self.files() if name.endswith("_X.bin")]
        stored = [np.memmap(os.path.join(self.folder, name), np.uint8, "r").reshape(-1, 3, 96, 96) for name in sources]
        images = torch.empty(sum(map(len, stored)), 3, size, size, dtype=torch.uint8)
        done = 0
        for part in stored:
            for first in range(0, len(part), 1024):
                # images are stored column by column
                chunk = torch.from_numpy(part[first : first + 1024].transpose(0, 1, 3, 2).copy())
                images[done : done + len(chunk)] = _reduce(chunk, size)
                done += len(chunk)
        if "unlabeled" in self.config.split:
            return Stored(images, torch.zeros(len(images), dtype=torch.int64), ())
        labels = np.fromfile(os.path.join(self.folder, f"{self.config.split}_y.bin"), np.uint8).astype(np.int64) - 1
        names = read_whole(Path(self.folder, self.upstream.class_names_file)).decode("utf-8").split()
        return Stored(images, torch.from_numpy(labels), tuple(names))

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
