"""Locks that a dead process cannot keep. Imports no torch.

The lock is the operating system's, which lets go when its process ends, however it ends: there are no stale locks to
judge. Who holds the lock stands in a file beside it, since Windows does not let others read a file that is locked.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING

from gancompress.errors import RunError

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
            lock.acquire(timeout=0)
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
        record = json.loads(holder.read_bytes())
        return f"process {record['pid']} on {record['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
