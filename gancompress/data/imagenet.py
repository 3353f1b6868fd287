"""ImageNet and Tiny ImageNet in the folders that their archives unpack to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.base import ImageSpec
from gancompress.data.download import Archive, obtain
from gancompress.data.files import FilesConfig, Listing
from gancompress.data.folder import ClassFolder
from gancompress.errors import DataError
from gancompress.storage.reading import read_whole

__all__ = ["ImageNet", "ImageNetConfig", "TinyImageNet", "TinyImageNetConfig"]

_TINY = Archive(
    title="Tiny ImageNet",
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    size=248_100_043,
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    folder="tiny-imagenet-200",
)


class ImageNetConfig(FilesConfig):
    """Settings of ImageNet."""

    path: str = Field(
        "data/imagenet", description="folder that holds train/ and val/; relative to the working directory"
    )
    split: Literal["train", "val"] = Field("train", description="1,281,167 training or 50,000 validation images")
    resolution: int = Field(128, ge=4, le=1024, description="height and width: centre crop to a square, then resize")
    channels: Literal[1, 3] = Field(3, description="3 = RGB, 1 = grey; what differs is converted")


@DATASETS.register("imagenet")
class ImageNet(ClassFolder[ImageNetConfig]):
    """ILSVRC 2012 (O. Russakovsky et al., IJCV 2015): ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``, 1000 classes.

    Kaggle's archive, with these folders in ``ILSVRC/Data/CLS-LOC``, is understood too. Nothing is downloaded: whoever
    wants the images agrees to their terms at https://image-net.org. Photographs are decoded and reduced every time
    they are used; ``gancompress data prepare`` does that once.
    """

    Config = ImageNetConfig
    labels_hint = "move the images of each class into a folder of that class"

    @classmethod
    def expected(cls, config: ImageNetConfig) -> ImageSpec:
        """Return the size asked for and 1000 classes."""
        return _expected(config, 1000)

    def place(self) -> str:
        """Return the folder of the split.

        Raises:
            DataError: it is not there.
        """
        root, split = os.path.expanduser(self.config.path), self.config.split
        for inner in ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"):
            folder = os.path.join(root, *inner.split("/"), split) if inner else os.path.join(root, split)
            if os.path.isdir(folder):
                return folder
        raise DataError(
            f"ImageNet is not there: use --set data.path=FOLDER (the one that holds {split}/, with a folder per "
            "class); it is not downloaded, see https://image-net.org",
            where=os.path.join(root, split),
        )

    def open(self) -> Listing:
        """List the split; its classes are its subfolders.

        Raises:
            DataError: the images lie flat, as those of the validation archive do, and labels are wanted.
        """
        listing = super().open()
        if listing.names and listing.labels is None and self.config.labelled is not False:
            raise DataError(
                f"has no class folders: {self.labels_hint}, or set data.labelled to false", where=self.where
            )
        return listing


class TinyImageNetConfig(FilesConfig):
    """Settings of Tiny ImageNet."""

    path: str = Field(
        "data", description="folder that holds tiny-imagenet-200/, or that folder; relative to the working directory"
    )
    download: bool = Field(False, description="download the archive into the path when it is not there")
    split: Literal["train", "val"] = Field("train", description="100,000 training or 10,000 validation images")
    resolution: int = Field(64, ge=4, le=1024, description="height and width; the originals are 64×64")
    channels: Literal[1, 3] = Field(3, description="3 = RGB, 1 = grey; what differs is converted")


@DATASETS.register("tiny-imagenet")
class TinyImageNet(ClassFolder[TinyImageNetConfig]):
    """110,000 photographs of 200 of ImageNet's classes, 64×64 (Stanford CS231n, 2015).

    Training images lie in ``train/<wnid>/images``; those of validation in ``val/images``, with their classes in
    ``val/val_annotations.txt``.
    """

    Config = TinyImageNetConfig

    @classmethod
    def expected(cls, config: TinyImageNetConfig) -> ImageSpec:
        """Return the size asked for and 200 classes."""
        return _expected(config, 200)

    def place(self) -> str:
        """Return the folder of the split, downloading the archive if that is wanted.

        Raises:
            DataError: it is not there, or cannot be downloaded.
        """
        root = Path(self.config.path).expanduser()
        self.top = root if (root / "wnids.txt").is_file() else root / _TINY.folder
        obtain(
            _TINY, root, (self.top / "wnids.txt").is_file, allowed=self.config.download,
            missing="is incomplete here", elsewhere=f"--set data.path=FOLDER (the one that holds {_TINY.folder}/)",
        )  # fmt: skip
        return str(self.top / self.config.split)

    def open(self) -> Listing:
        """List the split, in the order of paths; classes are in the order of their WordNet ids.

        Raises:
            DataError: a class has no images, an image has no class, or an annotated image is missing.
        """
        listing = super().open()
        if self.config.labelled is False:
            return listing
        wnids = sorted(self._lines(self.top / "wnids.txt"))
        if self.config.split == "val":
            of = self._annotations()
        else:
            of = {name: name.split("/", 1)[0] for name in listing.names}
        gone = sorted(of.keys() - set(listing.names))
        bare = sorted(set(wnids) - set(of.values()))
        if gone or bare:
            what = f"lacks {gone[0]}" if gone else f"has no images of class {bare[0]}"
            raise DataError(f"{what}: unpack the archive again", where=self.where)
        number = {wnid: index for index, wnid in enumerate(wnids)}
        for name in listing.names:
            if of.get(name) not in number:
                raise DataError(f"{name} is of no class of wnids.txt: unpack the archive again", where=self.where)
        return Listing(listing.names, tuple(number[of[name]] for name in listing.names), self._named(wnids), "")

    def _annotations(self) -> dict[str, str]:
        """Read ``file, wnid, box…`` per line."""
        fields = (line.split("\t") for line in self._lines(Path(self.where, "val_annotations.txt")))
        return {f"images/{line[0]}": line[1] for line in fields if len(line) > 1}

    def _named(self, wnids: list[str]) -> tuple[str, ...]:
        """Return the classes as ``n01443537 goldfish``, by their ids alone when ``words.txt`` is missing."""
        path = self.top / "words.txt"
        lines = (line.partition("\t") for line in (self._lines(path) if path.is_file() else ()))
        words = {wnid: text.split(",")[0].strip() for wnid, _, text in lines}
        return tuple(f"{wnid} {words[wnid]}" if wnid in words else wnid for wnid in wnids)

    def _lines(self, path: Path) -> list[str]:
        try:
            return [line for line in read_whole(path).decode("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read ({error}): unpack the archive again", where=str(path)) from error


def _expected(config: ImageNetConfig | TinyImageNetConfig, classes: int) -> ImageSpec:
    labelled = config.labelled is not False
    return ImageSpec(
        config.channels, config.resolution, tuple(str(label) for label in range(classes if labelled else 0))
    )
