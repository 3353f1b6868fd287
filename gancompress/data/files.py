"""What all sources of encoded images share: labels, checks, decoding into memory or on demand."""

from __future__ import annotations

import abc
import dataclasses
import io
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
from gancompress.data.census import PROBED, Census
from gancompress.data.images import decode, is_grey, to_array
from gancompress.data.memory import digest
from gancompress.errors import DataError
from gancompress.units import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL import Image

__all__ = ["LARGEST_FILE", "FilesConfig", "FilesDataset", "Listing", "left_out", "mark", "probe"]

# Below this size of the stored images threads lose: the interpreter lock changes hands more than Pillow decodes
# (32×32 JPEG: 12,000 a second with one thread, fewer with two; 256×256: 2,600 with one, 6,000 with two).
_THREADS_FROM = 128 * 128
_CHUNK = 64
_PROBE = 4096  # bytes hashed at each end of a file
_NAMED = 8  # images that do not fit and are named at once
_KINDS = 5  # kinds of files that are told apart among those left out
#: bytes of one image file; a larger one is refused before it is read
LARGEST_FILE = 1 << 28


class FilesConfig(DatasetConfig):
    """Settings shared by sources of encoded images."""

    resolution: int | None = Field(
        None, ge=4, le=1024, description="height and width; null = as stored, else centre crop to a square and resize"
    )
    filter: Literal["lanczos", "box"] = Field("lanczos", description="filter of the resize")
    channels: Literal[1, 3] | None = Field(
        None, description="1 = grey, 3 = RGB, converting what differs; null = as the first image, and all must agree"
    )
    labelled: bool | None = Field(
        None, description="true: labels are required; false: they are ignored; null: used when there are any"
    )
    memory_limit: int = Field(
        4096, ge=0, description="MiB; a dataset that takes more once decoded is decoded image by image when needed"
    )


@dataclasses.dataclass(frozen=True)
class Listing:
    """What an image source holds, before any image is decoded.

    Attributes:
        names: image names in order, as errors show them.
        labels: class of every image, or ``None``.
        classes: names of the classes, empty without labels.
        content: hash of what the images are made of.
        warnings: see :meth:`~gancompress.data.base.Dataset.warnings`.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    content: str
    warnings: tuple[str, ...] = ()


def left_out(names: Sequence[str]) -> tuple[str, ...]:
    """Return a line that counts and names files that are not used, nothing when there are none."""
    if not names:
        return ()
    kinds: dict[str, list[str]] = {}
    for name in names:
        suffix = "folders" if name.endswith("/") else os.path.splitext(name)[1].lower()
        kinds.setdefault(suffix or "without a suffix", []).append(name)
    ranked = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    named = [(f"{len(own):,} {'folder' if (kind, len(own)) == ('folders', 1) else kind}", own) for kind, own in ranked]
    parts = [f"{what} ({', '.join(map(repr, own[:2]))}{', …' if len(own) > 2 else ''})" for what, own in named[:_KINDS]]
    more = sum(len(own) for _, own in ranked[_KINDS:])
    what = "folder" if kinds.keys() == {"folders"} else "file"
    files = f"1 {what} is" if len(names) == 1 else f"{len(names):,} {what}s are"
    return (f"{files} left out: {some(parts, len(parts) + more)}",)


def probe(file: IO[bytes]) -> tuple[int, int]:
    """Return the size of an open file and a checksum of both its ends."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    check = zlib.crc32(file.read(_PROBE))
    file.seek(max(_PROBE, size - _PROBE))
    return size, zlib.crc32(file.read(), check)


def mark(file: IO[bytes]) -> str:
    """Return the mark of an open file in a census: its size and a checksum of both its ends."""
    size, check = probe(file)
    return f"{size} {check:08x}"


def _together(errors: Sequence[DataError], where: str) -> DataError:
    """Return one error that names several images; not all where there are many, for then they are not looked for."""
    if len(errors) == 1:
        return errors[0]
    told = [error.message for error in errors[:_NAMED]]
    more = "; and more, which were not looked for" if len(errors) > _NAMED else ""
    return DataError("; ".join(told) + more, where=where)


C = TypeVar("C", bound=FilesConfig)


class FilesDataset(Dataset[C]):
    """Encoded images. Subclasses write :meth:`place`, :meth:`open` and :meth:`read_bytes`.

    The constructor lists, reads the labels and looks at the first image. The first :meth:`read` (or :meth:`prepare`)
    decodes everything into one uint8 tensor if that fits under ``memory_limit``, and checks every image while at it.
    """

    def __init__(self, config: C) -> None:
        super().__init__(config)
        self.where = self.place()
        self._listing = self.open()
        if not self._listing.names:
            raise DataError("no images in it", where=self.where)
        if config.labelled and self._listing.labels is None:
            raise DataError(f"no labels: {self.labels_hint}, or {self.ignore_hint}", where=self.where)
        self._use_labels = self._listing.labels is not None and config.labelled is not False
        labels = self._listing.labels if self._use_labels else [0] * len(self)
        self._labels = torch.tensor(labels, dtype=torch.int64)
        self._images: Tensor | None = None
        self.look_at_first()

    def look_at_first(self) -> None:
        """Take size and colours from the first image, which the others must agree with.

        Raises:
            DataError: it cannot be read, or is not square and no resolution is set.
        """
        config = self.config
        first = self.picture(0)
        self._grey = is_grey(first)
        self._size = first.size
        if config.resolution is None and first.width != first.height:
            raise self._error(0, f"is {first.width}×{first.height}, not square: set data.resolution to crop and resize")
        self._spec = ImageSpec(
            channels=config.channels or (1 if self._grey else 3),
            resolution=config.resolution or first.width,
            classes=self.classes,
        )
        threads = min(8, os.cpu_count() or 1) if first.width * first.height >= _THREADS_FROM else 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    #: how to add labels to this kind of source, for an error message
    labels_hint = "add a dataset.json"
    #: how to do without labels
    ignore_hint = "set data.labelled to false"

    @abc.abstractmethod
    def place(self) -> str:
        """Return where the images are, as errors name it."""

    @abc.abstractmethod
    def open(self) -> Listing:
        """List the images under :attr:`where` and read their labels."""

    @abc.abstractmethod
    def read_bytes(self, index: int) -> bytes:
        """Return one image file. Called from several threads."""

    def picture(self, index: int) -> Image.Image:
        """Return one image as it is stored. Called from several threads."""
        return decode(self.read_bytes(index), self._listing.names[index], self.where)

    @property
    def spec(self) -> ImageSpec:
        """Shape and classes of every image."""
        return self._spec

    def __len__(self) -> int:
        return len(self._listing.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images, as errors show them."""
        return self._listing.names

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, empty without labels."""
        return self._listing.classes if self._use_labels else ()

    def labels(self) -> Tensor:
        """Return the class of every image, int64, (N,); all 0 without labels."""
        return self._labels

    def read(self, indices: Tensor) -> Batch:
        """Return the images at ``indices`` (int64, (B,)), in that order.

        Raises:
            DataError: an image cannot be read or does not fit the others; the message names it.
        """
        self.prepare()
        images = self._images[indices] if self._images is not None else self._decode_many(indices.tolist())
        return Batch(images, self._labels[indices])

    def warnings(self) -> tuple[str, ...]:
        """Return what is left out, and folders that are no classes although they look like it."""
        return self._listing.warnings

    def prepare(self) -> None:
        """Decode and check every image now, unless that takes more than ``memory_limit``.

        Raises:
            DataError: an image cannot be read or does not fit the others; the message names it.
        """
        if self.bytes_to_prepare():
            self._images = self._decode_many(range(len(self)))

    def bytes_to_prepare(self) -> int:
        """Return the size of all images decoded; 0 when they are held already, or take more than ``memory_limit``."""
        needed = len(self) * self._spec.channels * self._spec.resolution**2
        return needed if self._images is None and needed <= self.config.memory_limit * 2**20 else 0

    def fingerprint(self) -> str:
        """Return a hash of the files' content, the labels in use and every setting that changes the images."""
        config = self.config
        settings = [config.resolution, config.resolution and config.filter, self._spec.channels]
        return digest(settings, self._spec.classes, self._labels.numpy().tobytes(), self._listing.content)

    def census(self) -> Census:
        """Return names, labels and marks of all images; see :mod:`gancompress.data.census` for what escapes them."""
        labels = tuple(self._labels.tolist())
        return Census(len(self), self.classes, names=self.names, labels=labels, marks=tuple(self.marks()))

    def marks(self) -> Iterable[str]:
        """Return what tells every image from another of its name, without decoding it: size and checksum, or nothing.

        The default reads the images, unless there are many.
        """
        if len(self) > PROBED:
            return [""] * len(self)
        return [mark(io.BytesIO(self.read_bytes(index))) for index in range(len(self))]

    def _decode_many(self, indices: Iterable[int]) -> Tensor:
        order = list(indices)
        size, channels = self._spec.resolution, self._spec.channels
        images = torch.empty(len(order), channels, size, size, dtype=torch.uint8)
        target = images.numpy()

        wrong: dict[int, DataError] = {}

        def fill(start: int) -> None:
            for row, index in enumerate(order[start : start + _CHUNK], start):
                if len(wrong) > _NAMED:
                    return
                try:
                    target[row] = self._decode(index)
                except DataError as error:
                    wrong[row] = error

        tasks = [self._pool.submit(fill, start) for start in range(0, len(order), _CHUNK)]
        try:
            for task in tasks:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
        if wrong:
            raise _together([wrong[row] for row in sorted(wrong)], self.where)
        return images

    def _decode(self, index: int) -> npt.NDArray[np.uint8]:
        config, name = self.config, self._listing.names[index]
        image = self.picture(index)
        if config.resolution is None and image.size != self._size:
            width, height = self._size
            raise self._error(
                index,
                f"is {image.width}×{image.height}, but the first one is {width}×{height}: "
                "set data.resolution to crop and resize all of them",
            )
        if config.channels is None and is_grey(image) != self._grey:
            kinds = ("grey", "RGB") if not self._grey else ("RGB", "grey")
            raise self._error(
                index, f"is {kinds[0]}, but the first one is {kinds[1]}: set data.channels to 1 or 3 to convert"
            )
        return to_array(image, self._spec.channels, config.resolution, config.filter, name, self.where)

    def _error(self, index: int, what: str) -> DataError:
        return DataError(f"image {self._listing.names[index]!r} {what}", where=self.where)
