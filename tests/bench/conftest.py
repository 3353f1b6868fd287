"""The benchmarks beside the package, which a copy of it may lack."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let modules of the benchmarks be imported by name."""
    if not FOLDER.is_dir():
        pytest.skip("the benchmarks are not in this copy")
    monkeypatch.syspath_prepend(str(FOLDER))
