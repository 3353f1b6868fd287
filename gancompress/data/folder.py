"""Images in a folder: one subfolder per class, or flat, or with a ``dataset.json``."""

from __future__ import annotations

import collections
import functools
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.census import PROBED
from gancompress.data.files import LARGEST_FILE, FilesConfig, FilesDataset, Listing, left_out, mark, probe
from gancompress.data.images import is_image_name
from gancompress.data.labels import NAME, Labels, label_by_folder, largest_document, read_labels
from gancompress.data.memory import digest
from gancompress.errors import DataError
from gancompress.storage.reading import open_regular, read_whole

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
        names, others, folders = self._walk()
        document = os.path.join(self.where, NAME)
        warnings = left_out(others)
        labelled: Labels
        if self.config.labelled is False:
            labelled = None, ()
        elif os.path.lexists(document):
            content = self._whole(NAME, largest_document(len(names)))
            labelled = read_labels(names, content, document, self.ignore_hint)
        else:
            labelled = label_by_folder(names, self.where, self.ignore_hint)
            bare = [folder for folder in folders if labelled[1] and folder not in labelled[1]]
            warnings += tuple(f"folder {name!r} has no images, so it is no class" for name in bare)
        return Listing(tuple(names), *labelled, "", warnings)

    def read_bytes(self, index: int) -> bytes:
        """Return one image file."""
        return self._whole(self.names[index], LARGEST_FILE)

    def fingerprint(self) -> str:
        """Return a hash of names, sizes, both ends of every file, labels and settings."""
        return digest(super().fingerprint(), self._content)

    @functools.cached_property
    def _content(self) -> str:
        return digest([(name, *self._read(name, lambda path: _opened(path, probe))) for name in self.names])

    def marks(self) -> list[str]:
        """Return the size of every file; of not too many of them, a checksum of both ends too."""
        if len(self) <= PROBED:
            return [self._read(name, lambda path: _opened(path, mark)) for name in self.names]
        return [str(os.path.getsize(os.path.join(self.where, name))) for name in self.names]

    def _walk(self) -> tuple[list[str], list[str], list[str]]:
        """Return the images, everything else (folders end in ``/``), and the folders at the top, in order.

        Each folder is visited once, by its own name rather than by a link's.
        """
        images, others, folders, seen = [], [], [], set()
        pending = collections.deque([""])
        while pending:
            prefix = pending.popleft()
            try:
                status = os.stat(os.path.join(self.where, prefix))
                with os.scandir(os.path.join(self.where, prefix)) as entries:
                    found = list(entries)
            except OSError as error:
                raise DataError(f"cannot be listed ({error.strerror})", where=error.filename) from error
            if (status.st_dev, status.st_ino) in seen:
                others.append(prefix)
                continue
            seen.add((status.st_dev, status.st_ino))
            if prefix.count("/") == 1:
                folders.append(prefix[:-1])
            for entry in sorted(found, key=lambda entry: entry.name, reverse=True):
                name = prefix + entry.name
                if _is_folder(entry) and not entry.name.startswith((".", "__MACOSX")):
                    (pending.append if entry.is_symlink() else pending.appendleft)(f"{name}/")
                elif not _is_folder(entry) and is_image_name(name):
                    images.append(name)
                elif name != NAME:
                    others.append(f"{name}/" if _is_folder(entry) else name)
        return sorted(images), sorted(others), sorted(folders)

    def _whole(self, name: str, most: int) -> bytes:
        return self._read(name, lambda path: read_whole(path, most))

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        try:
            return read(Path(self.where, name))
        except OSError as error:
            raise DataError(f"cannot read {name!r} ({error.strerror})", where=self.where) from error


def _opened(path: Path, read: Callable[[IO[bytes]], T]) -> T:
    with os.fdopen(open_regular(path), "rb") as file:
        return read(file)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it says what is wrong
        return False


@DATASETS.register("folder")
class Folder(ClassFolder[FolderConfig]):
    """Images in a folder, in the order of their paths; hidden files and folders are left out, and so is all else.

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
