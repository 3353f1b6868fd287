"""Orders of channels for blocks of four inputs, on weights whose best order is known."""

from __future__ import annotations

import pytest
import torch


def test_a_hidden_order_is_found_and_keeps_as_much_as_single_weights(benchmarks):
    import channel_order as order

    rng = torch.Generator().manual_seed(3)
    whole = (torch.rand(8, 4, 3, 3, generator=rng) < 0.25).repeat_interleave(4, 1) * 1.0
    hidden = torch.randperm(16, generator=rng)
    weight = whole[:, hidden] * torch.randn(8, 16, 3, 3, generator=rng).sign()
    density = float(weight.abs().mean())
    found = order.shares(weight, density)
    assert found["single weights"] == pytest.approx(1)
    assert found["alike"] == pytest.approx(1)
    assert found["swapped"] == pytest.approx(1)
    assert found["as trained"] < 0.8
    # by hand: inputs of norm 1, 2, 0, 3; two blocks of one tap where squares are 1+4+0+9 whatever the order
    small = torch.tensor([1.0, 2.0, 0.0, 3.0]).view(1, 4, 1, 1)
    assert order.by_norm(small) == [2, 0, 1, 3]
    assert order.blocks(small, [2, 0, 1, 3]).flatten().tolist() == [14.0]
    assert order.kept(torch.tensor([3.0, 1.0, 2.0, 0.0]), 0.5) == 5.0
