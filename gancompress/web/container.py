"""The frame of a ``.gcw`` file, and what it says of itself; see :mod:`gancompress.web.blob`. Imports no torch."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

__all__ = ["FORMAT", "HASH_BYTES", "MAGIC", "STREAMS", "header_of"]

FORMAT = 1
MAGIC = b"GCWEB\0\0" + bytes([FORMAT])
STREAMS = ("kernels", "header", "high", "low", "gaps", "whole")
HASH_BYTES = 20


def header_of(blob: bytes) -> dict[str, Any]:
    """Return what a file says of itself; nothing where it is none, or damaged there: pages say that."""
    begin = len(MAGIC) + HASH_BYTES
    try:
        sizes = struct.unpack_from(f"<{2 * len(STREAMS)}I", blob, begin)
        at = begin + 8 * len(STREAMS) + sizes[0]
        packed, whole = sizes[2:4]
        content = blob[at : at + packed]
        found = json.loads(content if packed == whole else zlib.decompress(content, -15))
    except (struct.error, zlib.error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
