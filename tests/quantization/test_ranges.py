"""Ranges by hand: what is seen, and what each rule makes of it."""

from __future__ import annotations

import math

import pytest
import torch

from gancompress.errors import ExportError
from gancompress.kernels import Quantized
from gancompress.quantization.ranges import Seen, choose


def seen_of(*maps):
    found = Seen(maps[0].shape[1])
    for x in maps:
        found.widen(x)
    for x in maps:
        found.fill(x)
    return found


def test_the_largest_numbers_are_the_ends_and_zero_is_a_byte():
    x = torch.tensor([0.0, 1.0, 5.1, 2.0]).reshape(1, 1, 1, 4)
    assert choose(seen_of(x), "max", torch.ones(1))[0] == Quantized(float(torch.tensor(5.1) / 255), 0)
    stored, _ = choose(seen_of(x, -x / 2), "max", torch.ones(1))
    assert stored.scale == pytest.approx(7.65 / 255)
    assert stored.zero == 85
    assert stored.floats_of(stored.bytes_of(torch.tensor([5.1, 0.0, -2.55]))).tolist() == pytest.approx([5.1, 0, -2.55])
    below, _ = choose(seen_of(-x), "max", torch.ones(1))
    assert (below.zero, below.scale) == (255, pytest.approx(5.1 / 255))


def test_a_percentile_leaves_out_outliers_and_counts_no_zeros():
    x = torch.cat([torch.zeros(90_000), torch.ones(100_000), torch.full((5,), 50.0)]).reshape(1, 1, 1, -1)
    stored, _ = choose(seen_of(x), "percentile", torch.ones(1))
    assert stored.scale * 255 == pytest.approx(1, abs=0.25)  # a bin is 50 / 256 wide
    # 20 outliers are more than 0.01 % of 100,000
    x = torch.cat([torch.ones(100_000), torch.full((20,), 50.0)]).reshape(1, 1, 1, -1)
    assert choose(seen_of(x), "percentile", torch.ones(1))[0].scale * 255 == pytest.approx(50, rel=0.01)


def test_the_least_squared_error_weighs_clipping_against_steps():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 100, 100).abs()
    x[0, 0, 0, 0] = 12.0
    seen = seen_of(x)

    def error(stored):
        return float((stored.floats_of(stored.bytes_of(x)) - x).square().mean())

    found = {rule: choose(seen, rule, torch.ones(1)) for rule in ("max", "mse")}
    assert error(found["mse"][0]) < error(found["max"][0])
    for stored, expected in found.values():
        assert expected == pytest.approx(error(stored), rel=0.2)
    # a channel that no weight reads may be clipped as it likes
    both = torch.cat([x, 20 * x], 1)
    assert choose(seen_of(both), "mse", torch.tensor([1.0, 0.0]))[0].scale < 12 / 255 * 5.1
    assert choose(seen_of(both), "mse", torch.tensor([1.0, 1.0]))[0].scale > 12 / 255 * 5.1


def test_channels_are_divided_before_they_are_counted():
    x = torch.tensor([[1.0, 2.0], [64.0, 128.0]]).reshape(1, 2, 1, 2)
    stored, _ = choose(seen_of(x), "max", torch.ones(2), torch.tensor([1.0, 64.0]))
    assert stored.scale * 255 == pytest.approx(2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(bad):
    x = torch.ones(1, 2, 2, 2)
    x[0, 1, 0, 0] = bad
    with pytest.raises(ExportError, match="NaN or infinite"):
        Seen(2).widen(x)


def test_zeros_alone_are_nothing_seen():
    assert seen_of(torch.zeros(1, 2, 2, 2)).empty
    assert not seen_of(torch.tensor([0.0, 1e-30]).reshape(1, 1, 1, 2)).empty
