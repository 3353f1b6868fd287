"""Writing files so that a reader, or the next process, never meets half of one. Imports no torch.

A file appears under its name only when it is complete and on the disk: it is written aside in the same directory,
synced, and renamed. Whatever kills the process leaves the old file or the new one, and at most a file aside, which is
locked while its process lives and removed by whoever comes next.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "ASIDE",
    "canonical_json",
    "finite",
    "put_in_place",
    "remove_tree",
    "sweep",
    "sync",
    "sync_all",
    "whole_file",
    "write_file",
    "write_json",
    "write_synced",
]

#: Prefix of everything that is being written. A leftover with this prefix is never read and may be deleted.
ASIDE = ".tmp-"


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a directory: a rename may be lost when the power is."""
    windows = os.name == "nt"  # there, no directory can be opened, and only what may be written is synced
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all() -> None:
    """Wait until the disk has everything that was written: quicker than :func:`sync` for many files."""
    if hasattr(os, "sync"):
        os.sync()


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it. Not atomic by itself; the caller renames."""
    path.write_bytes(content)
    sync(path)


def put_in_place(aside: Path, path: Path) -> None:
    """Rename a file, or a directory whose files are on the disk already, within a file system; and sync the names."""
    if not aside.is_dir():
        sync(aside)
    os.replace(aside, path)
    sync(path.parent)


@contextlib.contextmanager
def whole_file(path: Path, *, one_of_many: bool = False, may_be_empty: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; what is there on leaving replaces ``path`` in one instant.

    Args:
        path: file in an existing directory.
        one_of_many: leave syncing to the caller, who calls :func:`sync_all` after the last.
        may_be_empty: a file without content is meant.

    Raises:
        OSError: the disk is full or refuses, or nothing was written; as after any error, what was at ``path`` is
            untouched and nothing is left aside.
    """
    if not one_of_many:
        sweep(path.parent, f"{path.name}-")
    aside = path.with_name(f"{ASIDE}{path.name}-{os.getpid()}-{threading.get_ident()}")
    with _marked(aside):
        try:
            yield aside
            if not may_be_empty and aside.stat().st_size == 0:
                raise FileNotFoundError(errno.ENOENT, "nothing was written", str(path))
            (os.replace if one_of_many else put_in_place)(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _marked(aside: Path) -> Iterator[None]:
    """Make a file and hold a lock on it, by which :func:`sweep` knows that its process lives.

    Windows needs none: there, a file that is being written cannot be removed.
    """
    if sys.platform == "win32":
        yield
        return
    while True:
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:  # else it was swept away before it was locked
                yield
                return
        finally:
            os.close(descriptor)


def sweep(directory: Path, of: str = "") -> list[str]:
    """Remove the files aside that dead processes left in a directory; those of living ones stay.

    Args:
        directory: may be missing.
        of: beginning of the names that were written.

    Returns:
        The names that were removed.
    """
    try:
        found = [entry.name for entry in os.scandir(directory) if entry.name.startswith(f"{ASIDE}{of}")]
    except OSError:
        return []
    return [name for name in sorted(found) if _remove_dead(directory / name)]


def _remove_dead(aside: Path) -> bool:
    """Remove a file aside unless a process holds it; return whether it was removed."""
    try:
        if sys.platform == "win32":
            aside.unlink()
            return True
        descriptor = os.open(aside, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.unlink()
        finally:
            os.close(descriptor)
    except OSError:  # it is held, a directory, or somebody else's
        return False
    return True


def write_file(path: Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content``, bytes or UTF-8 text, in one instant.

    Raises:
        OSError: see :func:`whole_file`.
    """
    with whole_file(path, may_be_empty=not content) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def finite(value: Any) -> Any:
    """Return ``value`` with NaN and infinities as None, which is all that JSON can say about them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def canonical_json(value: Any) -> bytes:
    """Return indented JSON with sorted keys: equal values give equal bytes. Floats keep every bit."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON for people and tools: key order kept, non-finite numbers as null.

    Raises:
        OSError: see :func:`write_file`.
    """
    write_file(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_tree(directory: Path) -> None:
    """Delete a directory and all in it; one that is already gone is fine."""
    if directory.exists():
        shutil.rmtree(directory)
