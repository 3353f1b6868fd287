"""A cache of its own for every test, and something to evaluate."""

from __future__ import annotations

import pytest
from evaluation_toys import Blobs, Generator


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for every test, and nothing remembered in the process."""
    from gancompress.evaluation import features

    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path / "cache"))
    features._RECENT.clear()
    return tmp_path / "cache"


@pytest.fixture
def blobs():
    return Blobs()


@pytest.fixture
def network():
    return Generator()
