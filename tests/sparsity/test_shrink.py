from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gancompress.errors import InvariantError
from gancompress.sparsity.rounding import shrink


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (30, {"a": 10, "b": 20}),
        (18, {"a": 6, "b": 12}),  # half of the way: 2 + 4, 4 + 8
        (17, {"a": 6, "b": 11}),  # 2 + 8 * 11/24 = 5.67, 4 + 16 * 11/24 = 11.33: the larger remainder rounds up
        (6, {"a": 2, "b": 4}),
    ],
)
def test_by_hand(total: int, expected: dict[str, int]) -> None:
    assert shrink({"a": 10, "b": 20}, {"a": 2, "b": 4}, total) == expected


def test_ties_go_to_the_earlier_tensor() -> None:
    assert shrink({"a": 4, "b": 4}, {"a": 0, "b": 0}, 3) == {"a": 2, "b": 1}


def test_a_tensor_below_its_final_count_stays() -> None:
    assert shrink({"a": 2, "b": 10}, {"a": 5, "b": 5}, 8) == {"a": 2, "b": 6}


@pytest.mark.parametrize("total", [31, 5])
def test_totals_out_of_reach(total: int) -> None:
    with pytest.raises(InvariantError, match="cannot shrink 30 weights"):
        shrink({"a": 10, "b": 20}, {"a": 2, "b": 4}, total)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=6), st.data())
def test_sums_are_exact_and_steps_end_at_the_final_counts(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    final = {str(i): min(pair) for i, pair in enumerate(pairs)}
    counts = {str(i): max(pair) for i, pair in enumerate(pairs)}
    while sum(counts.values()) > sum(final.values()):
        total = data.draw(st.integers(sum(final.values()), sum(counts.values()) - 1))
        smaller = shrink(counts, final, total)
        assert sum(smaller.values()) == total
        assert all(final[name] <= smaller[name] <= counts[name] for name in counts)
        counts = smaller
    assert counts == final
