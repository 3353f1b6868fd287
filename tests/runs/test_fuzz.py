"""The fuzz itself: it finds what it looks for, its inputs repeat, and a short one finds nothing."""

from __future__ import annotations

import argparse
import json
import mmap
import random
import time
from typing import TYPE_CHECKING

import pytest

from gancompress.errors import RunError
from tests.soak import fuzz
from tests.soak.mutations import mutate_bytes, mutate_json, mutate_lines, mutate_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = json.dumps({"step": 3, "metrics": [{"label": "FD", "value": 1.5}], "name": "x"}).encode()


def refuse(message: str) -> Callable[[], None]:
    def opens() -> None:
        raise RunError(message)

    return opens


def test_every_wrong_answer_is_told_from_a_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("status.json",)
    assert fuzz._outcome(lambda: None, names) == "opened"
    assert fuzz._outcome(refuse("status.json: no JSON"), names) == "refused"
    assert fuzz._outcome(refuse("something is odd"), names) == "names no file: something is odd"
    assert fuzz._outcome(refuse("status.json" * 999), names) == "refused"  # errors are cut
    assert len(str(RunError("x" * 99_999, where="status.json"))) < 3100
    assert fuzz._outcome(lambda: [][1], names).startswith("IndexError at test_fuzz.py:")
    monkeypatch.setattr(fuzz, "_BYTES", 20 * 2**20)
    # pages of their own: the C library may have kept enough from earlier tests for anything smaller
    large = mmap.mmap(-1, 60 * 2**20)
    assert fuzz._outcome(lambda: large.write(b"x" * len(large)), names).startswith("large: ")


def test_what_takes_long_or_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "_SECONDS", 0.0)
    assert fuzz._outcome(lambda: sum(range(10_000)), ()) == "slow: 0 s"
    monkeypatch.setattr(fuzz, "_PATIENCE", 0.05)
    monkeypatch.setattr(fuzz, "_SECONDS", 5.0)
    assert fuzz._outcome(lambda: time.sleep(5), ()).startswith("Hung at ")


@pytest.mark.parametrize("mutate", [mutate_bytes, mutate_json, mutate_lines])
def test_the_same_seed_gives_the_same_damage_and_others_other(mutate: Callable[[bytes, random.Random], bytes]) -> None:
    found = [mutate(CONTENT, random.Random(seed)) for seed in range(40)]
    assert found == [mutate(CONTENT, random.Random(seed)) for seed in range(40)]
    assert len({*found}) > 25
    assert CONTENT not in found[:1]


def test_headers_of_tensor_files_are_forged_as_headers() -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + b"\0" * 4
    found = [mutate_tensors(content, random.Random(seed)) for seed in range(40)]
    fitting = [one for one in found if 8 + int.from_bytes(one[:8], "little") == len(one) - 4]
    assert len(fitting) > 15
    assert len({*fitting}) > 10


@pytest.mark.slow
def test_a_short_fuzz_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    fuzz.options(parser)
    assert fuzz.run(parser.parse_args(["--inputs", "150", "--minutes", "5"])) == 0, capsys.readouterr().out
