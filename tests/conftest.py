"""Shared by all tests: one thread each, so that parallel workers do not fight over two cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# which kernels run is measured, and no measurement decides in a test: those that want sparse kernels say so
os.environ["GANCOMPRESS_SPARSE"] = "never"
