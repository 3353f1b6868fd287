"""Pairs of images from files: two in one picture, side by side, or two folders with equal names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from gancompress.components.registry import DATASETS
from gancompress.data.domains import Domains, named_alike
from gancompress.data.files import FilesConfig
from gancompress.data.folder import ClassFolder, Folder, FolderConfig
from gancompress.data.images import stored_size
from gancompress.data.memory import digest
from gancompress.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from gancompress.data.base import Dataset

__all__ = ["Half", "HalfConfig", "Paired", "PairedConfig"]


class PairedConfig(FilesConfig):
    """Settings of pairs from files."""

    path: str = Field(description="folder of pictures with two images side by side, A on the left; or of images A")
    targets: str | None = Field(None, description="folder of images B, named like those in path; null: side by side")
    direction: Literal["ab", "ba"] = Field("ab", description="ab: B is made from A; ba: A from B")
    held_out: str | None = Field(
        None, description="the same as path, of images that are only measured and looked at; null: those of training"
    )
    held_out_targets: str | None = Field(None, description="the same as targets, for those")

    @model_validator(mode="after")
    def _halves(self) -> PairedConfig:
        if self.held_out is not None and (self.targets is None) != (self.held_out_targets is None):
            raise ValueError("held_out and held_out_targets are like path and targets: give both, or neither")
        return self


class HalfConfig(FolderConfig):
    """Settings of one half of every picture."""

    half: Literal["left", "right"] = Field(description="which")


class Half(ClassFolder[HalfConfig]):
    """One half of every picture of a folder."""

    Config = HalfConfig

    def place(self) -> str:
        """Return the path."""
        return os.path.expanduser(self.config.path)

    def fingerprint(self) -> str:
        """Return a hash of the pictures, and of which half it is."""
        return digest(super().fingerprint(), self.config.half)

    def picture(self, index: int) -> Image.Image:
        """Return the half of one picture.

        Raises:
            DataError: it cannot be halved.
        """
        whole = super().picture(index)
        if whole.width != 2 * whole.height:
            raise DataError(
                f"image {self.names[index]!r} is {whole.width}×{whole.height}, not two squares side by side: for two "
                "folders of images set data.targets too",
                where=self.where,
            )
        left = 0 if self.config.half == "left" else whole.height
        return whole.crop((left, 0, left + whole.height, whole.height))


@DATASETS.register("paired")
class Paired(Domains[PairedConfig]):
    """Pairs from files, as the published sets of pix2pix come: facades, maps, edges2shoes (Isola et al., 2017).

    In a folder of pictures each holds A on the left and B on the right, both square. Or A and B lie in two folders,
    under the same names; neither crops then unless ``resolution`` says so.
    """

    Config = PairedConfig
    paired = True

    def load(self) -> tuple[Dataset[Any], Dataset[Any]]:
        """Open both halves, or both folders."""
        config = self.config
        one, other = _opened(config, config.path, config.targets)
        return (one, other) if config.direction == "ab" else (other, one)

    def prepare(self) -> None:
        """Decode both, and refuse pairs of which one is larger than the other.

        Raises:
            DataError: naming the first such pair.
        """
        one, other = self.source, self.target
        if self.config.targets is not None and isinstance(one, Folder) and isinstance(other, Folder):
            for index, name in enumerate(one.names):
                sizes = stored_size(one.read_bytes(index)), stored_size(other.read_bytes(index))
                if None not in sizes and sizes[0] != sizes[1]:  # what is no image is told by decoding it
                    raise DataError(
                        f"image {name!r} and the one it belongs to are of two sizes: "
                        f"{' and '.join('×'.join(map(str, size or ())) for size in sizes)} pixels",
                        where=one.where,
                    )
        super().prepare()

    def other(self) -> Paired | None:
        """Open what is held out."""
        config = self.config
        if config.held_out is None:
            return None
        there = {"path": config.held_out, "targets": config.held_out_targets}
        return Paired(config.model_copy(update={**there, "held_out": None, "held_out_targets": None}))


def _opened(config: PairedConfig, path: str, targets: str | None) -> tuple[Dataset[Any], Dataset[Any]]:
    """Return A and B."""
    shared = {key: getattr(config, key) for key in FilesConfig.model_fields} | {"labelled": False}
    if targets is None:
        left, right = (Half(HalfConfig(**shared, path=path, half=half)) for half in ("left", "right"))
        return left, right
    one, other = (Folder(FolderConfig(**shared, path=where)) for where in (path, targets))
    named_alike(one.names, other.names, targets)
    return one, other
