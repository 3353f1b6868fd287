"""A log of any length is read in memory that does not grow, and nothing that a page shows is lost."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from gancompress.errors import RunError
from gancompress.runs.log import LogDigest, digest, last_step, lines

if TYPE_CHECKING:
    from pathlib import Path


def train(step: int, **values: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "loss_generator": math.sin(step / 50), "seconds": step / 4, **values}


def long_log(steps: int) -> LogDigest:
    found = LogDigest()
    for step in range(1, steps + 1):
        found.add(
            train(step, density_generator=0.25, d_real=9.5 if step == 777 else -7.5 if step == steps // 2 else 0.0)
        )
    return found


def test_a_short_log_is_kept_as_it_is() -> None:
    found = LogDigest()
    for record in (train(1), train(2, loss_generator=None), train(3, loss_generator="x"), {"kind": "train", "step": 4}):
        found.add(record)
    points = found.curve("train", "loss_generator")
    assert points[0] == (1.0, math.sin(1 / 50))
    assert [step for step, _ in points] == [1, 2, 3]
    assert [math.isnan(value) for _, value in points] == [False, True, True]
    assert found.last("loss_generator") == math.sin(1 / 50)
    assert (found.last("seconds"), found.last("nothing"), found.curve("train", "nothing")) == (0.75, None, [])


def test_a_long_log_keeps_its_extremes_its_end_and_the_same_resolution_everywhere() -> None:
    steps = 100_000
    found = long_log(steps)
    points = found.curve("train", "d_real")
    assert len(points) < 20_000
    assert [step for step, _ in points] == sorted(step for step, _ in points)
    assert max(points, key=lambda point: point[1]) == (777, 9.5)
    assert min(points, key=lambda point: point[1]) == (steps // 2, -7.5)
    assert points[-1][0] == steps
    assert found.last("seconds") == steps / 4
    # no stretch of the training is left with few points: what came early is not thinned again and again
    losses = found.curve("train", "loss_generator")
    counts = [sum(start < step <= start + 10_000 for step, _ in losses) for start in range(0, steps, 10_000)]
    assert min(counts) > 500
    for start in range(0, steps, 10_000):
        inside = [value for step, value in losses if start < step <= start + 10_000]
        assert max(inside) == pytest.approx(1, abs=1e-3)
        assert min(inside) == pytest.approx(-1, abs=1e-3)


def test_memory_does_not_grow_with_the_log() -> None:
    tracemalloc.start()
    try:
        long_log(20_000)
        tracemalloc.reset_peak()
        long_log(40_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000  # 40,000 records take 20 MB


def test_updates_are_told_apart_by_network_and_notes_come_in_the_order_of_the_log() -> None:
    found = LogDigest()
    for step, role, value in ((1, "generator", 0.5), (1, "discriminator", 0.25), (2, "generator", 0.125)):
        found.add({"kind": "update", "step": step, "role": role, "churn": value, "zeal": 1, "ardour": 2})
    found.add({"kind": "update", "step": 3, "role": None, "other": 1})
    assert found.curve("update", "churn", "generator") == [(1, 0.5), (2, 0.125)]
    assert found.curve("update", "churn", "discriminator") == [(1, 0.25)]
    assert found.keys("update") == ["churn", "zeal", "ardour"]


def test_records_with_other_keys_are_one_curve() -> None:
    found = LogDigest()
    for step in range(1, 7):
        found.add(train(step, **({"d_real": step} if step % 2 else {})))
    assert [step for step, _ in found.curve("train", "loss_generator")] == [1, 2, 3, 4, 5, 6]
    assert found.curve("train", "d_real") == [(1, 1.0), (3, 3.0), (5, 5.0)]


@pytest.mark.parametrize(
    "line",
    ['{"kind": "train", "step": null}', '{"kind": "train", "step": 1e20}', '{"kind": "train", "step": -1}',
     '{"kind": "train", "step": true}', '{"kind": ["train"], "step": 2}', '{"step": 2}', "[" * 50_000, "7", "\0"],
)  # fmt: skip
def test_what_is_no_record_is_damage_that_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    whole = json.dumps(train(1)) + "\n"
    path.write_text(f"{whole}{line}\n")
    assert [record["step"] for record, _ in lines(path)] == [1]
    assert last_step(path) == 1
    path.write_text(f"{whole}{line}\n{whole}")
    with pytest.raises(RunError, match=r"log\.jsonl:2: damaged line in the log"):
        digest(path)


def test_numbers_that_no_arithmetic_can_take_are_gaps(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    huge = "1" + "0" * 400
    path.write_text(
        f'{{"kind": "train", "step": 1, "rate": {huge}, "seconds": 1e999}}\n'
        f'{{"kind": "evaluation", "step": 1, "metrics": [{{"label": "FD", "value": {huge}, "std": NaN}}]}}\n'
    )
    found = digest(path)
    assert math.isnan(found.curve("train", "rate")[0][1])
    assert found.last("seconds") is None
    assert found.evaluations[0]["metrics"] == [{"label": "FD", "value": None, "std": None}]
