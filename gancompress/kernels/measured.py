"""What was measured on this machine, kept in small JSON files under the user's cache directory.

A file maps machines to layers to figures. Deleting it is safe, and one that cannot be read or written costs a new
measurement per process, no more.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from gancompress.storage.atomic import canonical_json, write_file
from gancompress.storage.reading import parse_json, read_whole

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["recall", "remember"]


def recall(file: Path, machine: str, key: str) -> float | None:
    """Return what ``file`` holds about ``key`` on ``machine``, None when that is no number."""
    stored = _read(file).get(machine, {}).get(key)
    return float(stored) if isinstance(stored, (int, float)) else None


def remember(file: Path, machine: str, key: str, value: float) -> None:
    """Add one figure to ``file``; a directory that cannot be written is left alone."""
    content = _read(file)
    content.setdefault(machine, {})[key] = value
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, canonical_json(content))


def _read(file: Path) -> dict[str, dict[str, object]]:
    try:
        content = parse_json(read_whole(file))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in content.items() if isinstance(v, dict)}
