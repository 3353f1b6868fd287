from __future__ import annotations

import pytest

from gancompress.units import size


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (170_498_071, "170.5 MB"), (2.6e9, "2.6 GB"), (4e12, "4 TB")],
)
def test_bytes_have_four_digits_and_a_decimal_prefix(count: float, text: str) -> None:
    assert size(count) == text
