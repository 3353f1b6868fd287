"""Numbers as a report prints them, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gancompress.report import words
from gancompress.report.summary import cost_rows


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.scaled(950), "950"),
        (words.scaled(12345), "12.35 k"),
        (words.scaled(1.6811e9), "1.681 G"),
        (words.scaled(3.2e15), "3.2 P"),
        (words.count(1052416), "1,052,416"),
        (words.size(512), "512 B"),
        (words.size(14_969_856), "14.97 MB"),
        (words.size(8.192e13), "81.92 TB"),
        (words.duration(0.0000042), "4.2 µs"),
        (words.duration(0.00124), "1.24 ms"),
        (words.duration(38.24), "38.2 s"),
        (words.duration(188), "3 min 08 s"),
        (words.duration(7500), "2 h 05 min"),
        (words.density(0.2), "0.2"),
        (words.density(0.199984), "0.19998"),
        (words.ratio(0.20213), "0.2021×"),
        (words.metric_value(12.413, 0.0812), "12.41 ± 0.081"),
        (words.metric_value(12.413), "12.41"),
        (words.metric_value(None), "not finite"),
        (words.metric_value(math.nan, 1.0), "not finite"),
    ],
)
def test_numbers(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("generator.dense_bytes", 1500, "1.5 kB"),
        ("latency_seconds", 0.002, "2 ms"),
        ("latency_ms", 2.5, "2.5 ms"),
        ("training.ratio", 0.2, "0.2×"),
        ("generator_steps", 2000, "2,000"),
        ("flops", 2.021e12, "2.021 T"),
        ("flops", 2_021_000_000_000, "2.021 T"),
        ("backend", "dense", "dense"),
        ("sparse", True, "yes"),
        ("latency_seconds", None, "—"),
        ("batch_sizes", [1, 8], "1, 8"),
    ],
)
def test_units_come_from_the_key(key: str, value: Any, expected: str) -> None:
    assert words.quantity(key, value) == expected


def test_groups_of_costs_become_rows() -> None:
    group = {"generator": {"dense": 4000, "packed": 1000, "ratio": 0.25}, "checkpoint": 2_000_000}
    assert cost_rows(group, unit="bytes") == [
        ("generator › dense", "4 kB"),
        ("generator › packed", "1 kB"),
        ("generator › ratio", "0.25×"),
        ("checkpoint", "2 MB"),
    ]
