"""What was measured on this machine, kept in small JSON files under the user's cache directory.

A file maps machines to layers to figures. Deleting it is safe, and one that cannot be read or written costs a new
measurement per process, no more.

Environment:
    GANCOMPRESS_CACHE: the cache directory; else ``$XDG_CACHE_HOME/gancompress``, else ``~/.cache/gancompress``.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "recall", "remember"]


def cache_folder() -> Path:
    """Return the directory that remembers measurements; it need not exist."""
    own = os.environ.get("GANCOMPRESS_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "gancompress"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "gancompress"


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
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(content, stream, indent=1, sort_keys=True)
        Path(name).replace(file)


def _read(file: Path) -> dict[str, dict[str, object]]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in content.items() if isinstance(v, dict)} if isinstance(content, dict) else {}
