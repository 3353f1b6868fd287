"""Writing files so that a reader, or the next process, never meets half of one. Imports no torch.

A file appears under its name only when it is complete and on the disk: it is written aside in the same directory,
synced, and renamed. Whatever kills the process leaves the old file or the new one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ASIDE",
    "canonical_json",
    "finite",
    "remove_tree",
    "sync_directory",
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
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_file(path: Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content`` in one instant.

    Args:
        path: file in an existing directory.
        content: bytes, or text that is encoded as UTF-8.

    Raises:
        OSError: the disk is full or refuses; what was at ``path`` is untouched and nothing is left aside.
    """
    aside = path.with_name(f"{ASIDE}{path.name}-{os.getpid()}")
    try:
        write_synced(aside, content.encode() if isinstance(content, str) else content)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


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
