"""Locks that a dead process cannot keep. Imports no torch.

The lock is the operating system's (``flock``), which lets go when its process ends, however it ends: there are no stale
locks to judge. The file's content only tells whoever is refused who holds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import IO, TYPE_CHECKING

from gancompress.errors import RunError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["hold", "in_turn", "is_alive"]


def is_alive(pid: int | None) -> bool:
    """Return whether a process of this machine exists."""
    if pid is None or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it exists
        return True
    return True


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock file at ``path``, made if missing and left there; its content names the holder.

    Raises:
        RunError: another process holds it, or the file cannot be written.
    """
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot lock the run: {error.strerror}", where=str(path)) from error
    with file:
        if not _take(file):
            file.seek(0)
            raise RunError(
                f"this run is being run by {_holder(file.read())}; wait for it or stop it first", where=str(path.parent)
            )
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
        file.flush()
        yield
        # Closing releases it. The file stays: deleting it would let two others lock two different files.


@contextlib.contextmanager
def in_turn(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process holds the lock file at ``path``, and hold it; made if missing and left there.

    Args:
        path: the lock file, in an existing directory.
        waiting: called once when another process has it.

    Raises:
        OSError: the file cannot be written.
        RunError: the file system cannot lock.
    """
    with path.open("a+", encoding="utf-8") as file:
        if not _take(file):
            waiting()
            while not _take(file, wait=True):
                pass
        yield


def _take(file: IO[str], *, wait: bool = False) -> bool:
    """Take the lock; return whether that worked, which without waiting says whether it was free."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):  # Windows says the latter
        return False
    except OSError as error:
        raise RunError(
            f"this file system cannot lock ({error.strerror}); keep runs on another one", where=str(file.name)
        ) from error
    return True


def _holder(content: str) -> str:
    try:
        record = json.loads(content)
        return f"process {record['pid']} on {record['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
