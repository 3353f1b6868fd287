"""Reading small files that anything may have happened to: regular ones only, bounded, and JSON that is safe to use.

Imports no torch.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from gancompress.units import size

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LARGEST_NUMBER", "UNFIT", "open_regular", "parse_head", "parse_json", "read_whole", "reason", "tamed"]

#: No number of a run is as large; below it sums, ratios and roundings do not overflow.
LARGEST_NUMBER = 1e100
#: What comes out, anywhere in torch or Python, when a file is whole and what it says is impossible.
UNFIT = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
#: bytes of a file that is read as a whole: some hundred thousand evaluations
_LARGEST = 1 << 28
#: bytes at the start of a large file
_HEAD = 1 << 14


def open_regular(path: Path) -> int:
    """Return a descriptor for reading; whatever is there, opening it never waits.

    Raises:
        OSError: there is no file, it may not be read, or it is a pipe, a device or a directory.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def read_whole(path: Path, most: int = _LARGEST) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: see :func:`open_regular`; or it is larger than ``most`` bytes.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"larger than {size(most)}", str(path))
        return file.read(most)


def parse_json(content: bytes) -> dict[str, Any]:
    """Return a JSON object, not nested without end, whose numbers are finite and no larger than any that is measured.

    Raises:
        ValueError: it is none.
    """
    value = from_json(content)  # which refuses more than 200 levels, and text that cannot be printed
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return tamed(value)  # type: ignore[no-any-return]


def parse_head(path: Path, until: str) -> dict[str, Any]:
    """Return a JSON object from a file, of a large one only what stands before the key ``until``.

    Raises:
        OSError: see :func:`read_whole`.
        ValueError: see :func:`parse_json`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        head = file.read(_HEAD)
    if len(head) == _HEAD:
        value = from_json(head, allow_partial=True)
        if isinstance(value, dict) and value.pop(until, None) is not None:
            return tamed(value)  # type: ignore[no-any-return]
        head = read_whole(path)
    return parse_json(head)


def reason(error: BaseException) -> str:
    """Return in a line of bounded length what an error of :data:`UNFIT` says; many of them say little by themselves."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def tamed(value: Any, texts: dict[str, str] | None = None) -> Any:
    """Return a JSON value with None for numbers that are not finite or beyond :data:`LARGEST_NUMBER`.

    Args:
        value: what JSON can hold.
        texts: keeps one copy of every text, for many values that say the same.
    """
    kind = type(value)
    if kind is dict:
        return {key: tamed(item, texts) for key, item in value.items()}
    if kind is list:
        return [tamed(item, texts) for item in value]
    if kind is str:
        return value if texts is None else texts.setdefault(value, value)
    if kind in (int, float) and not abs(value) <= LARGEST_NUMBER:
        return None
    return value
