from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from recipe_toys import RECIPE, toys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, scope="module")
def _toys() -> Iterator[None]:
    with toys():
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with ``x.yaml`` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path
