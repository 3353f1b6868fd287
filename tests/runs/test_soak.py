"""The kill loop of ``python -m tests.soak``: that it holds for a command small enough, and that it can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SABOTAGED = """
import sys
import gancompress.storage.atomic as atomic
atomic.sweep = lambda *given: []
from tests.soak.__main__ import main
sys.exit(main())
"""


def soak(trials: int, *program: str) -> subprocess.CompletedProcess[str]:
    arguments = ["kill", "--only", "data prepare", "--trials", str(trials), "--minutes", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_a_preparation_that_is_killed_and_repeated_leaves_no_trace() -> None:
    done = soak(14, "-m", "tests.soak")
    assert done.returncode == 0, done.stdout + done.stderr
    header, row, everything = (line.split() for line in done.stdout.splitlines()[1:4])
    counts = dict(zip(header[2:], map(int, row[2:]), strict=True))
    assert row[2:] == everything[1:]
    assert sum(counts.values()) == 14
    assert min(counts[kind] for kind in ("open", "fsync", "signals")) > 0
    assert counts["failed"] == 0


def test_without_the_broom_it_fails() -> None:
    failed = soak(6, "-c", SABOTAGED)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "left over: .tmp-out.zip-" in failed.stdout
