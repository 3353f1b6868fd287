"""What a tensor leaves behind when it is freed: memory that the next one may take without asking the system."""

from __future__ import annotations

import ctypes

__all__ = ["keep_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of malloc.h
_LARGEST_KEPT, _NEVER = (1 << 30, 1 << 25), (1 << 31) - 1  # before 2.34 it takes 32 MB at most


def keep_memory() -> bool:
    """Tell glibc to keep what tensors free, for this process; return whether it does.

    It hands maps of more than 32 MB back at once, and the next one costs a page fault for every 4 kB: a map of 256
    channels, 32x32 pixels and 32 images took 20 ms to copy in place of 3. No number changes, and the process holds up
    to a tenth more memory. Other allocators and systems are left as they are.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        kept = any(libc.mallopt(_MMAP_THRESHOLD, most) for most in _LARGEST_KEPT)
        return kept and bool(libc.mallopt(_TRIM_THRESHOLD, _NEVER))
    except (OSError, AttributeError):
        return False
