from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gancompress.data.sampling import batch_indices, epoch_permutation

SIZES = st.integers(1, 40)


def stream(n: int, batch: int, batches: int, seed: int = 0) -> list[int]:
    return [i for step in range(batches) for i in batch_indices(n, batch, step, seed).tolist()]


def test_every_image_is_used_once_an_epoch_when_the_batch_does_not_divide_the_set():
    drawn = stream(n=10, batch=4, batches=5)  # 20 draws: batch 2 holds the end of epoch 0 and the start of epoch 1
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


@given(n=SIZES, batch=SIZES, epochs=st.integers(1, 4), seed=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_epochs_are_exact_for_any_sizes(n, batch, epochs, seed):
    drawn = stream(n, batch, -(-n * epochs // batch), seed)
    for epoch in range(epochs):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(n=SIZES, batch=SIZES, step=st.integers(0, 100), world=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_ranks_share_out_the_batch_of_a_single_process(n, batch, step, world):
    parts = [batch_indices(n, batch, step, 3, rank, world) for rank in range(world)]
    assert torch.cat(parts).equal(batch_indices(n, batch, step, 3))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_larger_than_the_set_spans_epochs():
    drawn = batch_indices(3, 8, 0, seed=1).tolist()
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
    assert len(drawn) == 8


def test_a_step_needs_no_step_before_it():
    expected = [batch_indices(100, 7, step, seed=2) for step in range(40)]
    epoch_permutation.cache_clear()
    assert batch_indices(100, 7, 39, seed=2).equal(expected[39])
    assert batch_indices(100, 7, 3, seed=2).equal(expected[3])


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    epoch_permutation.cache_clear()
    first = batch_indices(50, 8, 0, seed=4)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    epoch_permutation.cache_clear()
    assert batch_indices(50, 8, 0, seed=4).equal(first)


def test_seeds_and_epochs_give_different_orders():
    orders = {tuple(epoch_permutation(50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@pytest.mark.parametrize("wrong", [{"n": 0}, {"batch": 0}, {"step": -1}, {"rank": 2, "world": 2}, {"rank": -1}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="batch_indices"):
        batch_indices(**{"n": 10, "batch": 2, "step": 0, "seed": 0, **wrong})
