"""Images in a folder: one subfolder per class, or flat, or with a ``dataset.json``."""

from __future__ import annotations

import functools
import os
from typing import IO, TYPE_CHECKING, TypeVar

from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.census import PROBED
from gancompress.data.files import FilesConfig, FilesDataset, Listing, mark, probe
from gancompress.data.images import is_image_name
from gancompress.data.labels import NAME, Labels, label_by_folder, read_labels
from gancompress.data.memory import digest
from gancompress.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClassFolder", "Folder", "FolderConfig"]


class FolderConfig(FilesConfig):
    """Settings of a folder of images."""

    path: str = Field(description="the folder; relative to the working directory")


C = TypeVar("C", bound=FilesConfig)
T = TypeVar("T")


class ClassFolder(FilesDataset[C]):
    """Images in a folder, wherever its settings say that is; see :class:`Folder`."""

    labels_hint = "put each class into a subfolder, or add a dataset.json"

    def open(self) -> Listing:
        """Walk the folder."""
        if os.path.isfile(self.where):
            raise DataError("is a file, not a folder: for a zip, set data.name to zip", where=self.where)
        if not os.path.isdir(self.where):
            raise DataError("no such folder: set data.path to the folder of images", where=self.where)
        names = sorted(self._walk())
        document = os.path.join(self.where, NAME)
        labelled: Labels
        if self.config.labelled is False:
            labelled = None, ()
        elif os.path.isfile(document):
            labelled = read_labels(names, self._read(NAME, lambda file: file.read()), document, self.ignore_hint)
        else:
            labelled = label_by_folder(names, self.where, self.ignore_hint)
        return Listing(tuple(names), *labelled, "")

    def read_bytes(self, index: int) -> bytes:
        """Return one image file."""
        return self._read(self.names[index], lambda file: file.read())

    def fingerprint(self) -> str:
        """Return a hash of names, sizes, both ends of every file, labels and settings."""
        return digest(super().fingerprint(), self._content)

    @functools.cached_property
    def _content(self) -> str:
        return digest([(name, *self._read(name, probe)) for name in self.names])

    def marks(self) -> list[str]:
        """Return the size of every file; of not too many of them, a checksum of both ends too."""
        if len(self) <= PROBED:
            return [self._read(name, mark) for name in self.names]
        return [str(os.path.getsize(os.path.join(self.where, name))) for name in self.names]

    def _walk(self) -> list[str]:
        def stop(error: OSError) -> None:
            raise DataError(f"cannot be listed ({error.strerror})", where=error.filename) from error

        names = []
        for folder, subfolders, files in os.walk(self.where, followlinks=True, onerror=stop):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
            relative = os.path.relpath(folder, self.where).replace(os.sep, "/")
            prefix = "" if relative == "." else f"{relative}/"
            names += [prefix + name for name in files if is_image_name(name)]
        return names

    def _read(self, name: str, read: Callable[[IO[bytes]], T]) -> T:
        try:
            with open(os.path.join(self.where, name), "rb") as file:
                return read(file)
        except OSError as error:
            raise DataError(f"cannot read {name!r} ({error.strerror})", where=self.where) from error


@DATASETS.register("folder")
class Folder(ClassFolder[FolderConfig]):
    """Images in a folder, in the order of their paths; hidden files and folders are left out.

    * With a ``dataset.json`` at its top, labels come from there (see :class:`~gancompress.data.zipped.Zip`).
    * With images in subfolders only, each subfolder is a class, in the order of their names (ImageNet, Tiny ImageNet).
    * With images at its top only, there are no labels.

    The fingerprint reads names, sizes and both ends of every file: not the modification times, which copying changes,
    nor the whole content, which takes minutes for a million photographs. An edited JPEG or PNG differs there.
    """

    Config = FolderConfig

    def place(self) -> str:
        """Return the path."""
        return os.path.expanduser(self.config.path)
