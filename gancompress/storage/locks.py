"""Locks that a dead process cannot keep. Imports no torch.

The lock is the operating system's, which lets go when its process ends, however it ends: there are no stale locks to
judge. Who holds the lock stands in a file beside it, since Windows does not let others read a file that is locked.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import TYPE_CHECKING

from gancompress.errors import RunError
from gancompress.storage.reading import open_regular, parse_json, read_whole

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: seconds: somebody who asks :func:`is_held` has the lock for an instant
_INSTANT = 0.2

__all__ = ["hold", "in_turn", "is_held"]


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock file at ``path``, on this machine or another that shares the disk.

    One that exists but cannot be asked counts as held.
    """
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            # A shared lock, for an instant: several may ask at once, and whoever may read may ask.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def hold(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file at ``path``, made if missing; ``<path>.holder`` names the holder.

    Args:
        path: the lock file, in an existing directory.
        waiting: told who has it, once, and then it is waited for; None refuses instead.

    Raises:
        RunError: another process holds it and is not waited for, or the file cannot be locked.
    """
    from filelock import FileLock, Timeout

    lock, holder = FileLock(path), path.with_name(f"{path.name}.holder")
    try:
        try:
            lock.acquire(timeout=_INSTANT, poll_interval=0.01)
        except Timeout:
            if waiting is None:
                raise
            waiting(_named(holder))
            lock.acquire()
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n", encoding="utf-8")
    except Timeout:
        raise RunError(
            f"this run is being run by {_named(holder)}; wait for it or stop it first", where=str(path.parent)
        ) from None
    except (OSError, NotImplementedError) as error:
        lock.release()
        raise RunError(f"cannot lock the run: {getattr(error, 'strerror', None) or error}", where=str(path)) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def in_turn(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process holds the lock file at ``path``, and hold it; made if missing.

    Args:
        path: the lock file, in an existing directory.
        waiting: called once when another process has it.

    Raises:
        OSError: the file cannot be locked.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _named(holder: Path) -> str:
    try:
        record = parse_json(read_whole(holder))
        return f"process {record['pid']} on {record['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
