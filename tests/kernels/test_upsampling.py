"""A convolution behind nearest x2 as a transposed one: the same numbers, from fewer kept taps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gancompress.kernels import Addend, Pattern, Program
from gancompress.kernels.upsampling import fold_upsampling


def test_one_tap_by_hand():
    """The upper left of nine taps reads, from the four results of a pixel, four small pixels."""
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 0] = 5.0
    merged, pattern = fold_upsampling(weight, Pattern(weight != 0))
    want = torch.zeros(4, 4)
    want[2:, 2:] = 5.0
    assert torch.equal(merged[0, 0], want)
    assert torch.equal(pattern.mask[0, 0], want != 0)


def test_taps_that_read_the_same_pixel_are_added():
    weight = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    merged, _ = fold_upsampling(weight, Pattern(torch.ones(1, 1, 3, 3, dtype=torch.bool)))
    rows = torch.stack([weight[0, 0, 2], weight[0, 0, 1] + weight[0, 0, 2], weight[0, 0, 0] + weight[0, 0, 1]])
    for row, own in zip(rows, merged[0, 0], strict=False):
        a, b, c = row.tolist()
        assert own.tolist() == [c, b + c, a + b, a]


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 4)])
def test_the_same_as_upsampling_first(density, size):
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    mask = torch.rand(weight.shape) < density
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    merged, pattern = fold_upsampling(weight, Pattern(mask))
    want = F.conv2d(F.interpolate(x, scale_factor=2.0), weight * mask, padding=1)
    torch.testing.assert_close(F.conv_transpose2d(x, merged, stride=2, padding=1), want)
    assert torch.equal(merged, merged * pattern.mask)
    assert pattern.kept <= min(4 * int(mask.sum()), 16 * 15)


def test_a_kept_pair_that_adds_up_to_zero_stays_kept():
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, :2] = torch.tensor([1.0, -1.0])
    _, pattern = fold_upsampling(weight, Pattern(weight != 0))
    assert pattern.kept == 6  # 8 of two taps, less the two places where they meet


def test_programs_use_it_with_all_that_is_fused(isa):
    net = Program((6, 3, 5))
    weight, mask = torch.randn(40, 6, 3, 3) * 0.3, torch.rand(40, 6, 3, 3) < 0.4
    shortcut = net.conv(net.input, torch.randn(40, 6, 1, 1) * 0.3, torch.rand(40, 6, 1, 1) < 0.5)
    affine = net.affine(6)
    first = net.conv(
        net.input, weight, mask, torch.randn(40), padding=1, upsample=True, pre=0.0, affine=affine,
        add=Addend(shortcut, upsample=2), activation=0.0,
    )  # fmt: skip
    net.output(net.conv(first, torch.randn(3, 40, 3, 3) * 0.1, torch.rand(3, 40, 3, 3) < 0.5, padding=1))
    x, scales = torch.randn(20, 6, 3, 5), torch.randn(20, 2, 6)
    want = net.dense(x.double(), scales.double())
    torch.testing.assert_close(net(x, scales).double(), want, rtol=1e-5, atol=1e-4)
    single = torch.cat([net(x[i : i + 1], scales[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(single.double(), want, rtol=1e-5, atol=1e-4)
