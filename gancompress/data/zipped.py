"""Images in one zip, in the convention of StyleGAN's datasets: files, and a ``dataset.json`` with their labels."""

from __future__ import annotations

import os
import shlex
import zipfile
import zlib
from pathlib import Path

from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.files import LARGEST_FILE, FilesConfig, FilesDataset, Listing, left_out
from gancompress.data.images import is_image_name
from gancompress.data.labels import NAME, largest_document, read_labels, without_around
from gancompress.data.memory import digest
from gancompress.errors import DataError
from gancompress.storage.reading import open_regular
from gancompress.units import size

__all__ = ["Zip", "ZipConfig"]


class ZipConfig(FilesConfig):
    """Settings of a zip of images."""

    path: str = Field(description="the zip file; relative to the working directory")
    limit: int | None = Field(None, ge=1, description="use only the first images, in the order of their names")


@DATASETS.register("zip")
class Zip(FilesDataset[ZipConfig]):
    """Images in a zip, stored or deflated, in the order of their names.

    Labels come from ``dataset.json``: ``{"labels": [[file, class], …], "classes": [name, …]}``. Without one, or with
    ``"labels": null``, the images have no labels; folders inside a zip mean nothing. When the whole dataset was
    zipped with its folder around it, the names in ``dataset.json`` count from there.
    """

    Config = ZipConfig

    def place(self) -> str:
        """Return the path."""
        return os.path.expanduser(self.config.path)

    def open(self) -> Listing:
        """List the zip from its central directory; the fingerprint comes from the checksums in there."""
        if os.path.isdir(self.where):
            raise DataError("is a folder: set data.name to folder", where=self.where)
        try:
            os.close(open_regular(Path(self.where)))
            self._archive = zipfile.ZipFile(self.where)
        except FileNotFoundError:
            known = os.path.basename(self.where).startswith("cifar10")
            hint = ", or fetch CIFAR-10: --set data=cifar10 --set data.path=data --set data.download=true"
            raise DataError(
                f"no such file: set data.path to the zip of images{hint if known else ''}", where=self.where
            ) from None
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise DataError(f"cannot be read as a zip ({error})", where=self.where) from error
        members = {info.filename.replace("\\", "/"): info for info in self._archive.infolist() if not info.is_dir()}
        images = sorted(name for name in members if is_image_name(name))
        documents = [name for name in members if name.rsplit("/", 1)[-1] == NAME and not name.startswith("__MACOSX/")]
        if len(documents) > 1:
            raise DataError(f"has several {NAME}: {', '.join(sorted(documents)[:3])}; keep one", where=self.where)
        #: whether the zip says which image is of which class, if only that none is
        self.has_document = bool(documents)
        #: folders that look like classes, of which a zip has none; those of StyleGAN's zips, 00000 and on, do not
        self.folders: tuple[str, ...] = ()
        if not documents and self.config.labelled is not False:
            found = {name.partition("/")[0] for name in without_around(images) if "/" in name}
            if len(found) > 1 and not all(len(name) == 5 and name.isdecimal() for name in found):
                self.folders = tuple(sorted(found))
                self.labels_hint = f"{self._preparing} makes its folders classes"
        labels: tuple[int, ...] | None = None
        classes: tuple[str, ...] = ()
        base = ""
        if documents and self.config.labelled is not False:
            base = documents[0][: -len(NAME)]
            images = [name for name in images if name.startswith(base)]
            document = self._member(members[documents[0]], largest_document(len(images)))
            where = f"{self.where}/{documents[0]}"
            labels, classes = read_labels((name[len(base) :] for name in images), document, where, self.ignore_hint)
        others = sorted(members.keys() - set(images) - set(documents))
        limit = self.config.limit if self.config.limit is not None else len(images)
        images = images[:limit]
        self._members = [members[name] for name in images]
        content = digest([(name[len(base) :], members[name].CRC, members[name].file_size) for name in images])
        labels = labels[:limit] if labels is not None else None
        return Listing(tuple(images), labels, classes, content, left_out(others))

    def marks(self) -> list[str]:
        """Return size and checksum of every image, as the central directory has them."""
        return [f"{info.file_size} {info.CRC:08x}" for info in self._members]

    def warnings(self) -> tuple[str, ...]:
        """Return what is left out, and that folders are no classes where they look like it."""
        return super().warnings() + ((self.folders_hint,) if self.folders else ())

    @property
    def folders_hint(self) -> str:
        """That the folders in a zip are no classes, and how to make them so."""
        named = ", ".join(self.folders[:2])
        return f"folders in a zip ({named}, …) are no classes: {self._preparing} makes them so"

    @property
    def _preparing(self) -> str:
        out = f"{os.path.splitext(self.where)[0]}-labelled.zip"
        command = f"gancompress data prepare {shlex.quote(self.where)} --out {shlex.quote(out)}"
        return f"`{command} --resolution {self.config.resolution or 'N'}`"

    def read_bytes(self, index: int) -> bytes:
        """Return one image file, checked against its checksum in the zip."""
        return self._member(self._members[index], LARGEST_FILE)

    def _member(self, info: zipfile.ZipInfo, most: int) -> bytes:
        """Unpack a file piece by piece: no more of it than it says it has, and that not beyond ``most`` bytes."""
        if info.file_size > most:
            raise DataError(
                f"{info.filename!r} unpacks to {size(info.file_size)}, more than {size(most)}", where=self.where
            )
        # other methods than these unpack whole pieces, whatever comes out
        piece = 1 << 20 if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else 1 << 12
        try:
            with self._archive.open(info) as file:
                return b"".join(iter(lambda: file.read(piece), b""))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            # RuntimeError: encrypted; NotImplementedError: a compression that this Python lacks
            raise DataError(
                f"cannot extract {info.filename!r} ({error}): make the zip again", where=self.where
            ) from error
