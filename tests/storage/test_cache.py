"""A cache of tensors that several processes, and several people, write and read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from gancompress.storage import atomic, cache
from gancompress.storage.cache import load_tensors, store_tensors

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(os.name == "nt", reason="permissions and locks of POSIX")
def test_what_is_being_written_stays_locked_and_others_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = []
    put = atomic.put_in_place

    def another_writer(aside: Path, path: Path) -> None:
        swept.extend(atomic.sweep(tmp_path))  # what another process does before it writes
        put(aside, path)

    monkeypatch.setattr(atomic, "put_in_place", another_writer)
    mask = os.umask(0o022)
    try:
        store_tensors(tmp_path / "a.safetensors", {"w": torch.arange(3.0)}, {"made": "here"})
    finally:
        os.umask(mask)
    assert swept == []
    tensors, metadata = load_tensors(tmp_path / "a.safetensors") or ({}, {})
    assert tensors["w"].tolist() == [0, 1, 2]
    assert metadata == {"made": "here"}
    assert oct((tmp_path / "a.safetensors").stat().st_mode & 0o777) == "0o644"
    assert cache.hash_tensors(tensors) == cache.hash_tensors({"w": torch.arange(3.0)})
