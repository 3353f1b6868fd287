"""Small cases worked out by hand: the reference and the operators must both give them."""

from __future__ import annotations

import kernel_reference as reference
import pytest
import torch

from gancompress import kernels

ONES = torch.ones(1, 1, 3, 3)


def only(*kept: tuple[int, int], size: int = 3) -> torch.Tensor:
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    for y, x in kept:
        mask[0, 0, y, x] = True
    return mask


@pytest.mark.parametrize("conv", [reference.conv2d, kernels.conv2d])
def test_one_tap_shifts_the_image(conv):
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    # Tap (0, 1) reads the pixel above; above the first row there is padding.
    out = conv(x, 5 * ONES, only((0, 1)), torch.tensor([0.5]), padding=1)
    assert out.tolist() == [[[[0.5, 0.5], [5.5, 10.5]]]]


@pytest.mark.parametrize("conv", [reference.conv2d, kernels.conv2d])
def test_stride_two_takes_every_second_pixel(conv):
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    out = conv(x, ONES, only((1, 1)), None, stride=2, padding=1)
    assert out.tolist() == [[[[0.0, 2.0], [8.0, 10.0]]]]


@pytest.mark.parametrize("conv", [reference.conv_transpose2d, kernels.conv_transpose2d])
def test_transposed_tap_writes_every_second_pixel(conv):
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    # Output row of input row i through tap ky is 2*i - 1 + ky: tap (1, 2) writes rows 0, 2 and columns 1, 3.
    out = conv(x, torch.ones(1, 1, 4, 4), only((1, 2), size=4), None, stride=2, padding=1)
    assert out.tolist() == [[[[0, 1, 0, 2], [0, 0, 0, 0], [0, 3, 0, 4], [0, 0, 0, 0]]]]


@pytest.mark.parametrize("linear", [reference.linear, kernels.linear])
def test_linear(linear):
    mask = torch.tensor([[True, False], [False, False]])
    out = linear(torch.tensor([[2.0, 7.0]]), torch.full((2, 2), 3.0), mask, torch.tensor([1.0, 2.0]))
    assert out.tolist() == [[7.0, 2.0]]


def test_the_whole_mask_removed_leaves_the_bias():
    out = kernels.conv2d(torch.ones(3, 2, 4, 4), torch.ones(2, 2, 3, 3), torch.zeros(2, 2, 3, 3, dtype=torch.bool))
    assert out.abs().max() == 0


def test_gradient_is_zero_off_the_mask_and_dense_when_asked():
    x, weight, mask = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 3, requires_grad=True), only((0, 0), (1, 1))
    kernels.conv2d(x, weight, mask, padding=1).sum().backward()
    # Only the middle tap ever meets the one pixel; tap (0, 0) meets padding.
    assert weight.grad.tolist() == [[[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]]
    weight.grad = None
    kernels.conv2d(torch.ones(1, 1, 3, 3), weight, mask, padding=1, dense_gradient=True).sum().backward()
    assert weight.grad.tolist() == [[[[4, 6, 4], [6, 9, 6], [4, 6, 4]]]]
