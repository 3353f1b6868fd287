"""Bytes as people read them."""

from __future__ import annotations

__all__ = ["size"]


def size(count: float) -> str:
    """Return a number of bytes: ``512 B``, ``14.97 MB`` (decimal prefixes, as file managers show them)."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.4g} {unit}"
    return f"{count:g} B"
