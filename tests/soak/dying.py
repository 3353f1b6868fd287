"""A process that dies, or is sent a signal, at the n-th thing that it does to the files of a directory."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Ways to go: killed before the operation; killed within it, so that half of it is done; the disk full from then on; or
#: a signal, and it goes on.
WAYS = ("kill", "torn", "full", "SIGTERM", "SIGINT", "SIGHUP")
#: where half of an operation differs from none of it
TEARABLE = ("open", "fsync")

_EVENTS = {
    "os.rename": "rename",
    "os.remove": "unlink",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.truncate": "truncate",
}
#: what a full disk refuses
_NEEDS_ROOM = ("open", "mkdir", "fsync")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Operation(NamedTuple):
    """Something done to a file: ``open`` for writing, ``fsync``, ``rename``, ``unlink``, ``mkdir``, ``rmdir``."""

    kind: str
    path: str


class Death:
    """Counts the operations of this process below ``root``, and strikes at one of them.

    Args:
        root: what counts.
        at: number of the operation, from 0; -1 only counts.
        way: one of :data:`WAYS`.
    """

    def __init__(self, root: Path, at: int = -1, way: str = "kill") -> None:
        self.root, self.at, self.way = f"{os.path.realpath(root)}{os.sep}", at, way
        self.seen: list[Operation] = []
        self._busy = False

    def watch(self) -> None:
        """Begin to count. It cannot be undone in this process."""
        really_sync = os.fsync
        safe: dict[int, int] = {}  # bytes of a file that the disk has

        def half_written(name: str) -> None:
            found = os.stat(name)
            kept = safe.get(found.st_ino, 0)
            os.truncate(name, kept + (found.st_size - kept) // 2)

        def fsync(descriptor: int) -> None:
            self._happens("fsync", f"/proc/self/fd/{descriptor}", half_written)
            really_sync(descriptor)
            found = os.fstat(descriptor)
            safe[found.st_ino] = found.st_size

        os.fsync = fsync
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and (flags or 0) & _WRITES:
                self._happens("open", os.fsdecode(path), lambda name: _half_opened(name, flags))
        elif event in _EVENTS:
            path, folder = arguments[0], arguments[-1]
            if not isinstance(path, int):
                inside = event in ("os.remove", "os.rmdir", "os.mkdir") and isinstance(folder, int) and folder >= 0
                name = os.fsdecode(path)
                self._happens(_EVENTS[event], f"/proc/self/fd/{folder}/{name}" if inside else name, lambda _: None)

    def _happens(self, kind: str, path: str, half: Callable[[str], None]) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            real = os.path.realpath(path) if kind == "fsync" else self._resolved(path)
            if not f"{real}{os.sep}".startswith(self.root):
                return
            self.seen.append(Operation(kind, real.removeprefix(self.root)))
            if self.way == "full" and 0 <= self.at < len(self.seen) and kind in _NEEDS_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            if len(self.seen) - 1 != self.at or self.way == "full":
                return
            if self.way in ("kill", "torn"):
                if self.way == "torn" and not os.path.isdir(real):
                    half(real)
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getpid(), getattr(signal, self.way))
        finally:
            self._busy = False

    @staticmethod
    def _resolved(path: str) -> str:
        """Return the path with its folder resolved; it may itself be a link, or not there yet."""
        folder, name = os.path.split(os.path.abspath(path))
        return os.path.join(os.path.realpath(folder), name)


def _half_opened(name: str, flags: int) -> None:
    """Leave what a process leaves that dies after opening a file: nothing in it, or half a line at its end."""
    descriptor = os.open(name, flags & ~os.O_EXCL, 0o666)
    if flags & os.O_APPEND:
        os.write(descriptor, b'{"kind": "tra')
