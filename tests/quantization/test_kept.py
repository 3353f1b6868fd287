"""The rule for layers that stay in float."""

from __future__ import annotations

from typing import Any

from gancompress.quantization.kept import SHARE, WANTED, kept_in_float


def test_layers_that_cost_most_stay_in_float_as_far_as_their_work_allows() -> None:
    noise, work = {"a": 1.0, "b": 8.0, "c": 4.0, "d": 2.0}, {"a": 40.0, "b": 5.0, "c": 50.0, "d": 5.0}
    assert (SHARE, WANTED) == (0.1, 40)

    def error(layers: Any) -> float:
        return sum(noise[one] for one in layers)

    def kept(most: float, work: Any = work) -> set[str]:
        return kept_in_float(error, work, 100, 100 * most**0.5)  # 40 dB are a ten thousandth of the peak squared

    assert kept(15) == set()
    assert kept(8) == {"b"}
    assert kept(1) == {"b", "d"}  # c is half of all products
    assert kept(0, {"b": 5.0}) == set()  # something has to be in bytes
