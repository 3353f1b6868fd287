"""Images in a folder: one subfolder per class, or flat, or with a ``dataset.json``."""

from __future__ import annotations

import os
import zlib
from typing import TypeVar

from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.files import FilesConfig, FilesDataset, Listing, label_all, label_by_folder
from gancompress.data.images import is_image_name
from gancompress.data.labels import NAME
from gancompress.data.memory import digest
from gancompress.errors import DataError

__all__ = ["ClassFolder", "Folder", "FolderConfig"]

_PROBE = 4096  # bytes hashed at each end of a file


class FolderConfig(FilesConfig):
    """Settings of a folder of images."""

    path: str = Field(description="the folder; relative to the working directory")


C = TypeVar("C", bound=FilesConfig)


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
        labels: tuple[int, ...] | None
        if os.path.isfile(document) and self.config.labelled is not False:
            labels, classes = label_all(names, self._bytes(NAME), document, self.ignore_hint)
        else:
            labels, classes = (
                (None, ()) if self.config.labelled is False else label_by_folder(names, self.where, self.ignore_hint)
            )
        self._names = names
        self._content: str | None = None
        return Listing(tuple(names), labels, classes, "")

    def read_bytes(self, index: int) -> bytes:
        """Return one image file."""
        return self._bytes(self._names[index])

    def fingerprint(self) -> str:
        """Return a hash of names, sizes, both ends of every file, labels and settings."""
        if self._content is None:
            self._content = digest([(name, *self._probe(name)) for name in self._names])
        return digest(super().fingerprint(), self._content)

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

    def _bytes(self, name: str) -> bytes:
        try:
            with open(os.path.join(self.where, name), "rb") as file:
                return file.read()
        except OSError as error:
            raise DataError(f"cannot read {name!r} ({error.strerror})", where=self.where) from error

    def _probe(self, name: str) -> tuple[int, int]:
        try:
            with open(os.path.join(self.where, name), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                check = zlib.crc32(file.read(_PROBE))
                if size > _PROBE:
                    file.seek(max(_PROBE, size - _PROBE))
                    check = zlib.crc32(file.read(), check)
                return size, check
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
