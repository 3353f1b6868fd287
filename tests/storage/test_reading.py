"""Files that anything may have happened to are read or refused, at once and in one line."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from gancompress.storage.reading import parse_head, parse_json, read_whole

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[]",
        b"7",
        b"",
        b"{",
        b'{"a": 1} x',
        b"\xff",
        b'{"a": "\\ud800"}',
        b"\0" * 9,
    ],
)
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{5,100}$"):
        parse_json(content)


def test_numbers_are_those_that_arithmetic_can_take() -> None:
    content = (
        b'{"a": 1e999, "b": [NaN, -Infinity, 1'
        + b"0" * 400
        + b', 1e101, -1e300], "c": 1e99, "d": 12345678901234567890}'
    )
    assert parse_json(content) == {"a": None, "b": [None] * 5, "c": 1e99, "d": 12345678901234567890}
    plain = {"x": 0.00012345678901234567, "y": [True, None, "NaN 1e999"], "z": -0.0}
    assert parse_json(json.dumps(plain).encode()) == plain


def test_pipes_devices_and_endless_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(OSError, match="not a regular file"):
            read_whole(tmp_path / name)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 268"):
        read_whole(tmp_path / "sparse")
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "none")


def test_the_head_of_a_large_file_is_enough_and_of_a_small_one_all_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    whole = {"best": {"step": 1}, "evaluations": [{"step": step} for step in range(9000)]}
    path.write_text(json.dumps(whole))
    assert parse_head(path, "evaluations") == {"best": {"step": 1}}
    path.write_text(json.dumps({"evaluations": whole["evaluations"], "best": whole["best"]}))
    assert parse_head(path, "last") == json.loads(path.read_text())
    path.write_text('{"best": {"step": 1}, "evaluations": [')
    with pytest.raises(ValueError, match="EOF"):
        parse_head(path, "evaluations")
