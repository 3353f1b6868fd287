"""Freed memory is kept for the next tensor."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gancompress.training.freed import keep_memory

# A map of 64 MB takes 16,384 pages; ten of them one after the other. Prints whether anything was set, and page faults.
LOOK = """
import resource, sys, torch
from gancompress.training.freed import keep_memory
kept = sys.argv[1] == "keep" and keep_memory()
for _ in range(8):  # until aligned tensors have found their places
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", LOOK, how], check=True, capture_output=True, text=True)
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_the_next_tensor_takes_the_pages_of_the_last() -> None:
    kept, few = faults("keep")
    if kept == "False":
        pytest.skip("not glibc, or one that refuses so large a threshold")
    many = faults("leave")[1]
    if many < 2_000:
        pytest.skip("a system that gives huge pages unasked")
    assert few < many / 3


def test_a_system_without_glibc_is_left_alone(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert keep_memory() is False
    assert torch.ones(3).sum() == 3
