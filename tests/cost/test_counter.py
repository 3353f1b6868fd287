from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gancompress.cost.counter import NonzeroCount, TrainingCounter
from gancompress.errors import CheckpointError


def counter() -> TrainingCounter:
    return TrainingCounter(batch_size=64, generator_batch_size=128, discriminator_steps=5)


def test_tally_by_hand():
    count = NonzeroCount()
    count.add({"a": 10}, 3)
    count.add({"a": 4, "b": 1}, 2)
    count.add({})
    assert count.amount == 6
    assert count.total("a", size=100) == 10 * 3 + 4 * 2 + 100
    assert count.total("b", size=100) == 1 * 2 + 100 * 4
    assert count.total("never masked", size=7) == 42


def test_steps_are_training_steps_whatever_n_d_is():
    book = counter()
    for role in ("generator", "discriminator"):
        book.advance(role, {"c": 3}, 10)
    assert book.steps["generator"].amount == 10
    assert book.steps["discriminator"].total("c", 9) == 30


def test_measurement_probe_and_penalty_by_hand():
    book = counter()
    book.measure({"generator": {"g": 2}, "discriminator": {"d": 3}}, times=2)
    assert book.extra["measurement"]["generator"].total("g", 99) == 2 * 2 * (2 * 128)
    assert book.extra["measurement"]["discriminator"].total("d", 99) == 2 * 3 * (2 * 128 + 64)
    book.probe("discriminator")
    book.probe("generator")
    assert book.extra["probe"]["generator"].total("g", 10) == (64 + 3 * 128) * 10
    assert book.extra["probe"]["discriminator"].total("d", 10) == (6 * 64 + 2 * 128) * 10
    book.penalty({"d": 5})
    assert book.extra["penalty"]["discriminator"].total("d", 10) == 4 * 64 * 5


budgets = st.dictionaries(st.sampled_from("abc"), st.integers(0, 50))


@given(st.lists(st.tuples(budgets, st.integers(0, 20)), max_size=6), st.data())
def test_counting_in_stretches_equals_counting_step_by_step(stretches, data):
    whole, single = counter(), counter()
    for kept, steps in stretches:
        whole.advance("generator", kept, steps)
        for _ in range(steps):
            single.advance("generator", kept)
    for name in "abc":
        assert whole.steps["generator"].total(name, 50) == single.steps["generator"].total(name, 50)


def test_json_round_trip_is_exact_for_integers_beyond_float():
    book = counter()
    book.advance("generator", {"c": 2**60 + 1}, 3)
    book.dense_gradient("discriminator", {"d": 1}, 5)
    book.probe("generator")
    again = TrainingCounter.from_dict(json.loads(json.dumps(book.to_dict())))
    assert again == book
    again.advance("generator", {"c": 1})
    assert again != book


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("steps"),
        lambda r: r.update(surprise=1),
        lambda r: r.update(batch_size="64"),
        lambda r: r.update(batch_size=True),
        lambda r: r["steps"].pop("generator"),
        lambda r: r["steps"]["generator"].update(amount=-1),
        lambda r: r["steps"]["generator"]["weights"].update(c=1.5),
        lambda r: r.update(extra=[]),
        lambda r: r["steps"]["generator"].pop("masked"),
    ],
)
def test_damaged_records_are_refused(spoil):
    record = counter().to_dict()
    spoil(record)
    with pytest.raises(CheckpointError, match="training counts are damaged"):
        TrainingCounter.from_dict(record)


def test_negative_steps_are_a_bug():
    with pytest.raises(ValueError, match="negative"):
        counter().advance("generator", {}, -1)
