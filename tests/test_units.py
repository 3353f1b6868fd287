from __future__ import annotations

import pytest

from gancompress.units import size, some


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (170_498_071, "170.5 MB"), (2.6e9, "2.6 GB"), (4e12, "4 TB")],
)
def test_bytes_have_four_digits_and_a_decimal_prefix(count: float, text: str) -> None:
    assert size(count) == text


def test_a_long_list_says_how_many_more_there_are() -> None:
    assert some(["a", "b"], 2) == "a, b"
    assert some(["a", "b"], 1202) == "a, b and 1,200 more"
    assert some(["a: 1", "b: 2"], 3, "; ") == "a: 1; b: 2 and 1 more"
