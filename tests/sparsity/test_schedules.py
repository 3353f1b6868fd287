from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gancompress.sparsity.rounding import ceil_share
from gancompress.sparsity.schedules import Constant, Cosine, Cubic, Linear, Schedule, is_due, update_steps


class Holder(BaseModel):
    value: Schedule


def test_cosine_known_values() -> None:
    schedule = Cosine(start=0.5, end=0.005)
    assert schedule.at(0) == 0.5
    assert schedule.at(0.5) == pytest.approx(0.2525)
    assert schedule.at(1) == pytest.approx(0.005)
    assert schedule.at(1 / 3) == pytest.approx(0.005 + 0.495 * 0.75)
    # the authors' log of 50 updates over 50,048 generator steps: first and last drop fraction
    assert schedule.at(1000 / 50_048) == pytest.approx(0.49951, abs=5e-6)
    assert schedule.at(50_000 / 50_048) == pytest.approx(0.0050012, abs=2e-7)


def test_other_schedules_known_values() -> None:
    assert Linear(start=0.5, end=0.1).at(0.25) == pytest.approx(0.4)
    assert Cubic(start=1.0, end=0.05).at(0.5) == pytest.approx(0.05 + 0.95 / 8)
    assert Constant(value=0.3).at(0.9) == 0.3


@pytest.mark.parametrize("kind", [Linear, Cosine, Cubic])
def test_progress_is_clamped(kind: type[Linear | Cosine | Cubic]) -> None:
    schedule = kind(start=0.8, end=0.2)
    assert schedule.at(-1) == pytest.approx(0.8)
    assert schedule.at(7) == pytest.approx(0.2)


def test_recipes_choose_by_name() -> None:
    assert Holder.model_validate({"value": {"name": "cubic", "start": 1.0}}).value == Cubic(start=1.0, end=0.005)
    for wrong in ({"name": "cosin"}, {"name": "constant", "start": 0.1}, {"name": "linear", "start": 1.1}):
        with pytest.raises(ValidationError):
            Holder.model_validate({"value": wrong})


@pytest.mark.parametrize(("every", "count", "last"), [(1, 2000, 2000), (7, 285, 1995), (500, 4, 2000)])
def test_update_steps_never_stop_by_default(every: int, count: int, last: int) -> None:
    steps = update_steps(2000, every)
    assert (len(steps), steps[0], steps[-1]) == (count, every, last)


def test_update_window_by_hand() -> None:
    assert list(update_steps(100, 10, start=0.25, stop=0.75)) == [30, 40, 50, 60, 70]
    assert list(update_steps(100, 10, start=0.3, stop=0.7)) == [30, 40, 50, 60]  # closed below, open above
    assert list(update_steps(100, 10, stop=1.0))[-1] == 90
    assert list(update_steps(100, 10, stop=0.0)) == []
    assert list(update_steps(5, 10)) == []
    assert len(update_steps(125_000, 500)) == 250  # BigGAN on CIFAR-10
    assert len(update_steps(50_048, 1000)) == 50  # SNGAN


@given(st.integers(0, 60), st.integers(1, 70), st.floats(0, 1), st.none() | st.floats(0, 1), st.integers(-2, 70))
def test_due_steps_are_the_multiples_inside_the_window(
    total: int, every: int, start: float, stop: float | None, step: int
) -> None:
    expected = (
        0 < step <= total
        and step % every == 0
        and step >= ceil_share(start, total)
        and (stop is None or step < ceil_share(stop, total))
    )
    assert is_due(step, total, every, start, stop) == expected


def test_ceil_share_means_the_decimal_that_was_written() -> None:
    assert math.ceil(0.07 * 100) == 8
    assert ceil_share(0.07, 100) == 7
    assert ceil_share(0.071, 100) == 8
    assert ceil_share(0.0, 5) == 0
    assert ceil_share(1.0, 5) == 5
    assert ceil_share(0.005, 1) == 1
