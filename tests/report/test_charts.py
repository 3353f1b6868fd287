"""Line charts: points lie where hand arithmetic puts them, and hostile numbers and names cannot break the drawing."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gancompress.charts.axis import log_ticks, nice_ticks, tick_label, tick_labels
from gancompress.charts.lines import Mark, Series, line_chart, thin


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.13, 0.49, [0.2, 0.3, 0.4]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (50, 2000, [500, 1000, 1500, 2000]),
        (0, 2e-4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == ticks


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_stay_inside_and_are_few(low: float, span: float) -> None:
    high = low + span
    if high > low and span > abs(low) * 1e-9:
        ticks = nice_ticks(low, high)
        slack = (high - low) * 1e-6
        assert all(low - slack <= tick <= high + slack for tick in ticks)
        assert len(ticks) <= 7
        assert ticks == sorted(ticks)


def test_logarithmic_ticks() -> None:
    assert log_ticks(1, 100000) == [1, 10, 100, 1000, 10000, 100000]
    assert log_ticks(3, 60) == [5, 10, 20, 50]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (1500, "1500"),
        (20000, "20k"),
        (1.5e6, "1.5M"),
        (2e-4, "2e-4"),
        (-0.5, "-0.5"),
        (3e9, "3G"),
    ],
)
def test_tick_labels_are_short(value: float, label: str) -> None:
    assert tick_label(value) == label


def test_no_two_ticks_of_an_axis_are_called_the_same() -> None:
    assert tick_labels([0.0, 0.5, 1.0]) == ["0", "0.5", "1"]
    assert tick_labels([1.00001, 1.00002]) == ["1.00001", "1.00002"]
    assert tick_labels([221.51, 221.52]) == ["221.51", "221.52"]
    assert tick_labels([20_000.0, 20_001.0]) == ["20000", "20001"]


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    lines = ET.fromstring(svg).iter("polyline")
    return [[tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()] for line in lines]  # type: ignore[misc]


def test_points_lie_where_arithmetic_puts_them() -> None:
    # The plot spans x 56..286 and y 12..162. 5 % air on both ends of y: the range 0..10 becomes -0.5..10.5.
    svg = line_chart("c", [Series("a", [(0, 0), (50, 5), (100, 10)])], width=300, height=200)
    [line] = points_of(svg)
    assert line == [
        (56.0, pytest.approx(162 - 150 * 0.5 / 11, abs=0.06)),
        (171.0, 87.0),
        (286.0, pytest.approx(162 - 150 * 10.5 / 11, abs=0.06)),
    ]


def test_an_axis_from_zero_stands_on_zero() -> None:
    [line] = points_of(line_chart("c", [Series("a", [(0, 4), (1, 8)])], from_zero=True, width=300, height=200))
    # 0..8 with air above only: 0..8.4
    assert line[0][1] == pytest.approx(162 - 150 * 4 / 8.4, abs=0.06)


def test_logarithmic_axis_spaces_decades_evenly() -> None:
    [line] = points_of(line_chart("c", [Series("a", [(0, 1), (1, 10), (2, 100)])], log_y=True))
    first, second, third = (y for _, y in line)
    assert first - second == pytest.approx(second - third, abs=0.11)
    # with a value that has no logarithm the axis stays linear
    [line] = points_of(line_chart("c", [Series("a", [(0, 0), (1, 10), (2, 100)])], log_y=True))
    first, second, third = (y for _, y in line)
    assert second - third == pytest.approx(9 * (first - second), abs=0.7)


def test_values_that_are_not_finite_interrupt_the_line() -> None:
    values = [1, 2, math.nan, 3, 4, math.inf, 5]
    svg = line_chart("c", [Series("a", list(enumerate(map(float, values))))])
    assert [len(line) for line in points_of(svg)] == [2, 2]
    assert svg.count("<circle") == 1  # the lonely point at the end is still seen
    assert "nan" not in svg
    assert "inf" not in svg


@pytest.mark.parametrize("points", [[], [(1.0, math.nan)], [(5.0, 3.0)], [(0.0, 2.0), (9.0, 2.0)], [(0.0, 0.0)]])
def test_degenerate_series_still_draw(points: list[tuple[float, float]]) -> None:
    svg = line_chart("c", [Series("a", points, dots=True)])
    ET.fromstring(svg)
    assert ("no finite values" in svg) == (not any(math.isfinite(y) for _, y in points))
    assert not re.search(r"nan|inf[^i]", svg.replace("no finite values", ""))


def test_series_differ_by_dash_and_the_mark_is_ringed() -> None:
    svg = line_chart(
        "Losses",
        [Series("g", [(0, 1), (1, 2)], 0), Series("d", [(0, 2), (1, 1)], 1)],
        marks=[Mark(1, 2, "best")],
        bounds=[0.5, 99],
        y_label="loss",
    )
    assert svg.count("stroke-dasharray") == 1
    assert 'class="line series-1" stroke-dasharray' in svg
    assert svg.count('<circle class="mark"') == 1
    assert ">best</text>" in svg
    assert svg.count('class="bound"') == 1  # the one outside is not drawn
    assert ">loss</text>" in svg


def test_a_chart_says_what_it_is_and_escapes_it() -> None:
    hostile = '<script>"&'
    svg = line_chart(hostile, [Series(hostile, [(0, 1)], dots=True)], x_label=hostile, y_label=hostile,
                     marks=[Mark(0, 1, hostile)])  # fmt: skip
    assert "<script" not in svg
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == hostile
    assert root.findtext("title") == hostile


def test_the_same_numbers_give_the_same_bytes() -> None:
    series = [Series("a", [(x, math.sin(x)) for x in range(2000)])]
    assert line_chart("c", series) == line_chart("c", series)
    assert len(line_chart("c", series)) < 12_000


def test_thinning_keeps_ends_and_extremes() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[4321] = (4321.0, 9.0)
    points[7000] = (7000.0, -9.0)
    points[8000] = (8000.0, math.nan)
    kept = thin(points, 600)
    assert len(kept) <= 600
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert points[4321] in kept
    assert points[7000] in kept
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    assert thin(points[:600], 600) == points[:600]
