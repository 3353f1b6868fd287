"""Writing files so that a reader, or the next process, never meets half of one. Imports no torch.

A file appears under its name only when it is complete and on the disk: it is written aside in the same directory,
synced, and renamed. Whatever kills the process leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ASIDE",
    "canonical_json",
    "finite",
    "put_in_place",
    "remove_tree",
    "sync_directory",
    "sync_tree",
    "whole_file",
    "write_file",
    "write_json",
    "write_synced",
]

#: Prefix of everything that is being written. A leftover with this prefix is never read and may be deleted.
ASIDE = ".tmp-"


def sync_directory(directory: Path) -> None:
    """Put the names in ``directory`` on the disk: without this a rename may be lost when the power is."""
    if os.name == "nt":  # Windows cannot open a directory; NTFS journals its names
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it. Not atomic by itself; the caller renames."""
    path.write_bytes(content)
    _sync(path)


def put_in_place(aside: Path, path: Path) -> None:
    """Rename ``aside`` to ``path`` in the same file system, once the disk has it; a file takes the place of a file.

    The files of a directory must be on the disk already, see :func:`sync_tree`.
    """
    if not aside.is_dir():
        _sync(aside)
    os.replace(aside, path)
    sync_directory(path.parent)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; what is there on leaving replaces ``path`` in one instant.

    Raises:
        OSError: the disk is full or refuses; as after any error, what was at ``path`` is untouched and nothing is left
            aside.
    """
    aside = path.with_name(f"{ASIDE}{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        yield aside
        put_in_place(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content`` in one instant.

    Args:
        path: file in an existing directory.
        content: bytes, or text that is encoded as UTF-8.

    Raises:
        OSError: see :func:`whole_file`.
    """
    with whole_file(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def sync_tree(directory: Path) -> None:
    """Put all files and names below ``directory`` on the disk."""
    for folder, _, names in os.walk(directory):
        for name in names:
            _sync(Path(folder, name))
        sync_directory(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)  # Windows syncs only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
