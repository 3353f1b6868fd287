"""Any folder or zip of images to one zip of small square ones, the form that training reads fastest.

The zip is in the layout that the dataset ``zip`` reads, which is that of StyleGAN's tools: files of a thousand to a
folder, and a ``dataset.json`` with their labels and the names of the classes. The same images and settings give the
same bytes (with the same Pillow), so a zip can be made again rather than sent.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import json
import os
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from PIL import Image

from gancompress.data.folder import Folder, FolderConfig
from gancompress.data.images import Filter, decode, formats, is_grey, squeeze, to_array
from gancompress.data.labels import NAME, label_by_folder, without_around
from gancompress.data.zipped import Zip, ZipConfig
from gancompress.errors import DataError
from gancompress.storage.atomic import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from gancompress.data.files import Listing

__all__ = ["BrokenImagesError", "Crop", "Format", "Prepared", "prepare"]

#: ``center``: the centred square is cut out; ``none``: the whole image is squeezed into a square
Crop: TypeAlias = Literal["center", "none"]
#: ``png`` loses nothing; ``jpg`` (quality 95, colours whole) is several times smaller and changes the pixels a little
Format: TypeAlias = Literal["png", "jpg"]

T = TypeVar("T")

_PER_FOLDER = 1000
_PILLOW = {"png": "PNG", "jpg": "JPEG"}
#: what a zip says about the age of a file: the same for all, and the earliest it can
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` made.

    Attributes:
        images: images in the zip.
        classes: names of the classes, empty without labels.
        channels: 1 or 3.
        enlarged: images that were smaller than the resolution.
        broken: a line for every image that could not be read; those are left out.
        size: of the zip, in bytes.
        warnings: about the source: files that are left out, ….
    """

    images: int
    classes: tuple[str, ...]
    channels: int
    enlarged: int
    broken: tuple[str, ...]
    size: int
    warnings: tuple[str, ...] = ()


class BrokenImagesError(DataError):
    """Images that cannot be read.

    Attributes:
        broken: a line for each.
    """

    def __init__(self, broken: tuple[str, ...], count: int, where: str) -> None:
        self.broken = broken
        super().__init__(
            f"{len(broken):,} of {count:,} images cannot be read: replace them, or leave them out with --skip-broken",
            where=where,
        )


class _Folder(Folder):
    """A folder whose first image may be broken."""

    ignore_hint = "use --unlabelled"

    def look_at_first(self) -> None:
        """Not yet."""


class _Zip(Zip):
    """A zip whose first image may be broken, and whose folders are classes if no ``dataset.json`` says otherwise."""

    ignore_hint = "use --unlabelled"

    def look_at_first(self) -> None:
        """Not yet."""

    def open(self) -> Listing:
        """List the zip; a folder around all of it means nothing."""
        listing = super().open()
        if self.has_document or self.config.labelled is False or not listing.names:
            return listing
        labels, classes = label_by_folder(without_around(listing.names), self.where, self.ignore_hint)
        self.folders = ()
        return dataclasses.replace(listing, labels=labels, classes=classes)


def _open(source: Path, labelled: bool) -> _Folder | _Zip:
    wanted = None if labelled else False
    if not source.exists():
        raise DataError("no such folder or zip", where=str(source))
    if source.is_dir():
        return _Folder(FolderConfig(path=str(source), labelled=wanted))
    return _Zip(ZipConfig(path=str(source), labelled=wanted))


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    resolution: int,
    crop: Crop = "center",
    format: Format = "png",
    resample: Filter = "lanczos",
    channels: Literal[1, 3] | None = None,
    labelled: bool = True,
    skip_broken: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Make a zip for the dataset ``zip`` out of a folder or zip of images. It appears whole or not at all.

    Photographs are turned upright as their camera noted, transparent parts become white, CMYK becomes RGB. Labels come
    from a ``dataset.json``, else from the folders at the top: see :class:`~gancompress.data.folder.Folder`.

    Args:
        source: a folder or a zip.
        target: the zip to make; its folder is made if missing.
        resolution: height and width.
        crop: how an oblong image becomes a square.
        format: how images are stored.
        resample: filter of the resize; both reach over all pixels that a smaller image's pixel covers.
        channels: 1 = grey, 3 = RGB; default: grey if all images are.
        labelled: take over labels.
        skip_broken: leave out images that cannot be read.
        progress: called with images done and images there are.

    Raises:
        BrokenImagesError: images cannot be read and may not be left out; nothing is written.
        DataError: the source is not there or holds no images, or the target is there already and holds anything else
            than what would be made.
        OSError: the disk refuses.
    """
    source, target = Path(source), Path(target)
    files = _open(source, labelled)
    count, classes_of = len(files), files.labels().tolist()
    channels = channels or _channels(files)
    cropped = resolution if crop == "center" else None
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if format == "jpg" else {}

    def make(index: int) -> tuple[bytes, bool] | DataError:
        """Return a file of the zip and whether its image was enlarged; called on several threads."""
        name = files.names[index]
        try:
            image = decode(files.read_bytes(index), name, files.where)
            array = to_array(image, channels, cropped, resample, name, files.where)
        except DataError as error:
            return error
        square = Image.fromarray(array[0] if channels == 1 else array.transpose(1, 2, 0))
        buffer = io.BytesIO()
        squeeze(square, resolution, resample).save(buffer, _PILLOW[format], **options)
        return buffer.getvalue(), min(image.size) < resolution

    target.parent.mkdir(parents=True, exist_ok=True)
    broken: list[str] = []
    labels: list[tuple[str, int]] = []
    done = enlarged = 0
    with _packed(target) as packed:
        for index, made in enumerate(_in_order(make, count)):
            if progress is not None:
                progress(index + 1, count)
            if isinstance(made, DataError):
                broken.append(made.message)
            elif not broken or skip_broken:
                name = f"{done // _PER_FOLDER:05d}/img{done:08d}.{format}"
                packed.writestr(_entry(name), made[0])
                labels.append((name, classes_of[index]))
                done, enlarged = done + 1, enlarged + made[1]
        document = {"labels": labels, "classes": files.classes} if files.classes else {"labels": None}
        packed.writestr(_entry(NAME), json.dumps(document, ensure_ascii=False).encode())
        if broken and (not skip_broken or not done):
            raise BrokenImagesError(tuple(broken), count, str(source))
    return Prepared(done, files.classes, channels, enlarged, tuple(broken), target.stat().st_size, files.warnings())


@contextlib.contextmanager
def _packed(target: Path) -> Iterator[zipfile.ZipFile | _Existing]:
    """Yield what takes the files of the zip: a new one, or one that is there already, if it holds the very same."""
    if target.exists():
        existing = _Existing(target)
        yield existing
        existing.end()
        return
    with whole_file(target) as aside:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as packed:
            yield packed
        if target.exists():
            raise _is_there(target)


class _Existing:
    """A zip that is there already: so a preparation that was killed as it ended can be repeated like any other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as packed:
                self._left = packed.infolist()[::-1]
        except (zipfile.BadZipFile, OSError, ValueError):
            raise _is_there(path) from None

    def writestr(self, entry: zipfile.ZipInfo, content: bytes) -> None:
        """Hold a file against the next one of the zip, by name, size and checksum."""
        found = self._left.pop() if self._left else entry
        if (found.filename, found.file_size, found.CRC) != (entry.filename, len(content), zlib.crc32(content)):
            raise _is_there(self._path)

    def end(self) -> None:
        """There is nothing more to come."""
        if self._left:
            raise _is_there(self._path)


def _is_there(target: Path) -> DataError:
    return DataError("is there already and holds something else: choose another --out, or remove it", where=str(target))


def _channels(files: _Folder | _Zip) -> Literal[1, 3]:
    """Return 3 at the first image in colours; only the heads of files are looked at."""
    for index in range(len(files)):
        try:
            with Image.open(io.BytesIO(files.read_bytes(index)), formats=formats()) as image:
                if not is_grey(image):
                    return 3
        except Exception:  # a broken one: its turn comes
            continue
    return 1


def _in_order(make: Callable[[int], T], count: int) -> Iterator[T]:
    """Make files on several threads and yield them in order, not many ahead of the one that is due."""
    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        waiting: collections.deque[Future[T]] = collections.deque()
        try:
            for index in range(count):
                waiting.append(pool.submit(make, index))
                if len(waiting) > 8 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system = 3  # the same on every system
    info.external_attr = 0o644 << 16
    return info
