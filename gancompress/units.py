"""Bytes, and lists that are too long, as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["size", "some"]


def size(count: float) -> str:
    """Return a number of bytes: ``512 B``, ``14.97 MB`` (decimal prefixes, as file managers show them)."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.4g} {unit}"
    return f"{count:g} B"


def some(shown: Sequence[str], count: int, between: str = ", ") -> str:
    """Return the first few of ``count`` texts in a line, and how many more there are: ``a, b and 5 more``."""
    return between.join(shown) + (f" and {count - len(shown):,} more" if count > len(shown) else "")
