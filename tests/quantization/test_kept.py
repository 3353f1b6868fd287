"""The rule for layers that stay in float."""

from __future__ import annotations

from typing import Any

import pytest

from gancompress.quantization.kept import SHARE, bearable, kept_in_float


def test_layers_that_cost_most_stay_in_float_as_far_as_their_work_allows() -> None:
    noise, work = {"a": 1.0, "b": 8.0, "c": 4.0, "d": 2.0}, {"a": 40.0, "b": 5.0, "c": 50.0, "d": 5.0}
    assert SHARE == 0.1

    def error(layers: Any) -> float:
        return sum(noise[one] for one in layers)

    def kept(most: float, work: Any = work) -> set[str]:
        return kept_in_float(error, work, 100, most)

    assert kept(15) == set()
    assert kept(8) == {"b"}
    assert kept(1) == {"b", "d"}  # c is half of all products
    assert kept(0, {"b": 5.0}) == set()  # something has to be in bytes


def test_cheap_layers_are_kept_before_a_costly_one_that_would_leave_no_room() -> None:
    noise, work = (
        {"a": 10.0, "b": 4.0, "c": 4.0, "d": 4.0, "e": 1.0},
        {"a": 9.0, "b": 1.0, "c": 2.0, "d": 2.0, "e": 86.0},
    )
    assert kept_in_float(lambda layers: sum(noise[one] for one in layers), work, 100, 12) == {"b", "c", "d"}


def test_noise_of_images_counts_by_their_peak_and_of_sound_by_its_power() -> None:
    assert bearable(peak=2.0) == pytest.approx(4e-4)
    assert bearable(power=0.5) == pytest.approx(5e-4)
