"""The kernels of pages are those of these sources, small, and need nothing."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import pytest

from gancompress.web import build

if TYPE_CHECKING:
    from pathlib import Path


def sections(module: bytes) -> dict[int, bytes]:
    """The sections of a WebAssembly module, by their numbers."""

    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = module[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value, at

    found, at = {}, 8
    assert module[:8] == b"\0asm\1\0\0\0"
    while at < len(module):
        kind = module[at]
        size, begin = number(at + 1)
        found[kind] = module[begin : begin + size]
        at = begin + size
    return found


def test_the_shipped_kernels_are_of_these_sources() -> None:
    assert json.loads(build.shipped().with_suffix(".json").read_text()) == build.built_from()


def test_a_changed_source_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, (first, *others) = build.built_from()["sources"], build.sources()
    changed = tmp_path / first.name
    changed.write_bytes(first.read_bytes() + b"\n")
    monkeypatch.setattr(build, "sources", lambda: [changed, *others])
    assert build.built_from()["sources"] != before


def test_the_sources_hold_every_file_that_is_included() -> None:
    names = {path.name for path in build.sources()}
    for path in build.sources():
        included = [line.split('"')[1] for line in path.read_text().splitlines() if line.startswith('#include "')]
        assert set(included) <= names, path


def test_the_module_is_small_and_imports_nothing() -> None:
    module = build.shipped().read_bytes()
    assert len(module) <= 150_000
    found = sections(module)
    assert 2 not in found  # what it imports
    assert all(
        f"web_{name}".encode() in found[7] for name in ("new", "add", "run", "tanh", "hash", "alloc", "free", "drop")
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="pip install ziglang==0.13.0")
def test_the_build_gives_the_shipped_bytes_again() -> None:
    assert build.build() == build.shipped().read_bytes()
