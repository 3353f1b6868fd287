"""What one core can do at most, measured: multiply-adds from registers, and with a load each from a level of cache.

A sparse multiply-add cannot be faster than the load of its activation: ``loads`` in ``peaks.cpp`` is the innermost loop
of the sparse kernels and nothing else, over a buffer that fits one level of the cache. Needs a C++ compiler.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

__all__ = ["BUFFERS", "peaks"]

#: where activations come from, and a buffer in bytes that fits there with room to spare on any current core
BUFFERS = {"first-level cache": 16 << 10, "second-level cache": 256 << 10}


@functools.cache
def peaks() -> dict[str, float]:
    """GFLOP/s (two per multiply-add) of one core, best of many turns; empty where there is no compiler."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "peaks.so"
        source = Path(__file__).parent / "peaks.cpp"
        subprocess.run(
            [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(built), str(source)], check=True
        )
        lib = ctypes.CDLL(str(built))
    lib.registers.restype = lib.loads.restype = ctypes.c_int64
    lib.registers.argtypes = [ctypes.c_int64, ctypes.c_void_p]
    lib.loads.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    out = (ctypes.c_float * 4)(0.5, 1e-3, 0.0, 0.0)
    found = {"registers": 0.0, **dict.fromkeys(BUFFERS, 0.0)}
    space = (ctypes.c_float * ((max(BUFFERS.values()) + 64) // 4))()
    start = (ctypes.addressof(space) + 63) // 64 * 64
    for _ in range(20):  # the levels in turn, so that none has the slow moments of the machine
        for name in found:
            began = time.process_time()
            if name == "registers":
                done = lib.registers(400_000, out)
            else:
                floats = BUFFERS[name] // 4
                done = lib.loads(100_000_000 // floats, start, floats, out)
            found[name] = max(found[name], 2e-9 * done / (time.process_time() - began))
    return found
