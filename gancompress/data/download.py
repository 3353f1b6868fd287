"""Downloads that go on where they stopped, are checked, and appear whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import os
import shutil
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gancompress.errors import DataError
from gancompress.storage.atomic import ASIDE, put_in_place, remove_tree, sync_all
from gancompress.storage.locks import in_turn
from gancompress.storage.reading import open_regular
from gancompress.units import size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Archive", "download", "fetch", "obtain"]

_CHUNK = 1 << 18
#: seconds without a byte after which a connection counts as broken
_SILENCE = 30.0
#: connections in a row that may break before any byte came
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file that its publisher offers.

    Attributes:
        title: what people call it.
        url: its publisher's own address.
        size: about how many bytes.
        md5: its published checksum.
        folder: the one folder that it unpacks to.
    """

    title: str
    url: str
    size: int
    md5: str
    folder: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]


def fetch(archive: Archive, root: Path, ready: Callable[[], bool]) -> None:
    """Download an archive and unpack it, so that ``root / archive.folder`` is there.

    Several processes may ask at once: one does it, the others wait. What is unpacked lies aside until it is whole.
    A folder that is there already gets the files of the archive, each replaced in one instant.

    Args:
        archive: what to get.
        root: folder to unpack in; made if missing.
        ready: whether it is there, asked when it is this process's turn.

    Raises:
        DataError: it cannot be downloaded or unpacked; the message says why.
        OSError: the disk refuses.
    """
    root.mkdir(parents=True, exist_ok=True)
    file, aside = root / archive.name, root / f"{ASIDE}{archive.folder}"
    waiting = f"waiting for another process that gets {archive.title}"
    with in_turn(root / f".{archive.name}.lock", lambda: _say(waiting)):
        if ready():
            return
        download(archive, file)
        _say(f"unpacking {file}")
        remove_tree(aside)
        try:
            _unpack(file, aside)
            _move(aside / archive.folder, root / archive.folder)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"cannot be unpacked ({error})", where=str(file)) from error
        finally:
            remove_tree(aside)
        file.unlink()


def obtain(
    archive: Archive, root: Path, ready: Callable[[], bool], *, allowed: bool, missing: str, elsewhere: str
) -> None:
    """See that an archive is unpacked in ``root``, downloading it where that is allowed.

    Args:
        archive: what is wanted.
        root: folder that it is unpacked in.
        ready: whether it is there.
        allowed: whether it may be downloaded.
        missing: what is wrong when it is there in part, such as ``is incomplete here``.
        elsewhere: the setting that names another folder, for messages.

    Raises:
        DataError: it is not there and may not, or cannot, be downloaded.
    """
    folder = root / archive.folder
    if ready():
        return
    if allowed and not root.is_dir() and not root.resolve().is_relative_to(Path.cwd().resolve()):
        raise DataError(
            "no such folder, and none is made outside of the working directory: make it first, or change data.path",
            where=str(root),
        )
    if not allowed:
        raise DataError(
            f"{archive.title} {missing if folder.is_dir() else 'is not there'}: use {elsewhere}, or "
            f"--set data.download=true ({size(archive.size)} from {archive.url})",
            where=str(folder),
        )
    try:
        fetch(archive, root, ready)
    except (DataError, OSError) as error:
        raise DataError(
            f"{archive.title} is not there and cannot be downloaded ({error}): fetch it elsewhere and use {elsewhere}",
            where=str(folder),
        ) from error


def _unpack(file: Path, target: Path) -> None:
    """Unpack a tar or a zip; neither may write outside ``target``."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            packed.extractall(target)
    else:
        with tarfile.open(file) as tape:
            tape.extractall(target, filter="data")


def _move(source: Path, target: Path) -> None:
    sync_all()
    if not target.exists():
        put_in_place(source, target)
        return
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            path.replace(place)
    sync_all()


def download(archive: Archive, path: Path) -> None:
    """Download ``archive.url`` to ``path``. Says what, from where and how large; shows how far it is.

    What has arrived lies in ``<path>.part``, and the next call asks for the rest. A server that cannot give a part is
    asked for all of it again. The file gets its name when its MD5 is the published one.

    Raises:
        DataError: the network or the server fails, the disk is too full, or what came is not what was published.
        OSError: the disk refuses.
    """
    if path.exists():
        if _md5(path) == archive.md5:
            return
        raise DataError(
            f"is not the {archive.title} that {archive.url} offers (its MD5 is another): move it away", where=str(path)
        )
    part = path.with_name(path.name + ".part")
    while True:
        resumed = part.exists() and part.stat().st_size > 0
        _complete(archive, part)
        found = _md5(part)
        if found == archive.md5:
            put_in_place(part, path)
            return
        part.unlink()
        if not resumed:
            raise DataError(
                f"what {archive.url} sent is not the published {archive.title}: its MD5 is {found}, not {archive.md5}",
                where=str(path),
            )
        _say(f"the parts of {archive.title} do not fit together: downloading it again")


def _complete(archive: Archive, part: Path) -> None:
    """Bring all bytes into ``part``, over as many connections as it takes."""
    start = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if free < archive.size - start:
        raise DataError(
            f"{archive.title} needs {size(archive.size - start)}, {size(free)} are free",
            where=str(part.parent),
        )
    already = f", {size(start)} of it here already" if start else ""
    _say(f"downloading {archive.title} from {archive.url} to {part.parent} ({size(archive.size)}{already})")
    progress, failed = _Progress(archive.size), 0
    with part.open("ab") as file:
        while True:
            before = file.tell()
            try:
                if _receive(archive, file, progress):
                    break
                reason = "the connection broke off"
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416 and before:
                    break  # nothing is left to send: the checksum will tell
                reason = f"the server answers {error.code} {error.reason}"
                if error.code < 500 and error.code not in (408, 429):
                    failed = _ATTEMPTS
            except (
                urllib.error.URLError,
                http.client.HTTPException,
                ConnectionError,
                TimeoutError,
                ssl.SSLError,
            ) as error:
                reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
            failed = 0 if file.tell() > before else failed + 1
            if failed >= _ATTEMPTS:
                progress.end(file.tell())
                if not file.tell():
                    part.unlink()
                kept = f"; {size(file.tell())} are kept, the next try goes on from there" if file.tell() else ""
                raise DataError(f"{reason}{kept}", where=archive.url)
        progress.end(file.tell())


def _receive(archive: Archive, file: IO[bytes], progress: _Progress) -> bool:
    """Append what one connection sends to ``file``, from where it ends; return whether that was the rest of it."""
    start = file.tell()
    headers = {"User-Agent": "gancompress", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(archive.url, headers=headers)
    with urllib.request.urlopen(request, timeout=_SILENCE) as answer:
        if start and not (
            answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        ):
            file.truncate(0)  # the server gives all or nothing
            file.seek(start := 0)
        length = answer.headers.get("Content-Length")
        while piece := answer.read(_CHUNK):
            file.write(piece)
            progress.show(file.tell())
    return length is None or file.tell() == start + int(length)


def _md5(path: Path) -> str:
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _say(text: str, end: str = "\n") -> None:
    with contextlib.suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)


class _Progress:
    """How far a download is: one line that changes on a terminal, a line per tenth elsewhere."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._live = sys.stderr.isatty()
        self._began, self._first = time.monotonic(), -1
        self._shown, self._tenth = 0.0, -1

    def show(self, done: int) -> None:
        """Say how far it is, now and then."""
        now = time.monotonic()
        if self._first < 0:
            self._first, self._tenth = done, 10 * done // self._size
        if self._live:
            if now - self._shown >= 0.2:
                self._shown = now
                _say(f"\r{self._words(done, now)}\x1b[K", end="")
        elif 10 * done // self._size > self._tenth:
            self._tenth = 10 * done // self._size
            _say(f"  {self._words(done, now)}")

    def end(self, done: int) -> None:
        """Leave the live line."""
        if self._live and self._first >= 0:
            _say(f"\r{self._words(done, time.monotonic())}\x1b[K")

    def _words(self, done: int, now: float) -> str:
        speed = (done - self._first) / max(now - self._began, 1e-9)
        left = f", {round((self._size - done) / speed)} s left" if speed > 0 and done < self._size else ""
        return f"{size(done)} of {size(self._size)} ({done / self._size:.0%}), {size(speed)}/s{left}"
