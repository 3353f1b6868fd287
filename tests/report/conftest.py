"""A finished run to report on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from report_fake_run import make_run

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.runs.directory import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "quickstart-ab12cd34-s0")
