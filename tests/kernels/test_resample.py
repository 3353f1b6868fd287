from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gancompress import kernels
from gancompress.kernels.layout import is_batch_last, to_batch_last
from gancompress.kernels.resample import average2, bilinear_down2, bilinear_up2, box_means, box_sums, upsample2


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 5, 4, 6), (2, 3, 5, 7), (0, 3, 4, 4)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_same_as_torch_forward_and_backward(shape, memory):
    for ours, torchs, exact in (
        (upsample2, lambda x: F.interpolate(x, scale_factor=2.0), True),
        (average2, lambda x: F.avg_pool2d(x, 2), False),
    ):
        x = torch.randn(shape).to(memory_format=memory).requires_grad_()
        got, want = ours(x), torchs(x)
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-7)
        g = torch.randn_like(want)
        (mine,) = torch.autograd.grad(got, x, g)
        (theirs,) = torch.autograd.grad(want, x, g)
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


def test_drawn_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert upsample2(x).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 6, 6], [3, 3, 6, 6]]]]
    assert average2(x).tolist() == [[[[3.0]]]]


def filtered(x, up):
    """The filter [1, 2, 1] as a convolution with a group for every channel."""
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype)
    kernel = (line[:, None] * line / (4 if up else 16)).expand(x.shape[1], 1, 3, 3)
    if up:
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, output_padding=1, groups=x.shape[1])
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


@pytest.mark.parametrize("batch", [3, 16])
@pytest.mark.parametrize("up", [True, False])
def test_bilinear_is_a_filter(up, batch):
    x = torch.randn(batch, 5, 4, 6)
    op = bilinear_up2 if up else bilinear_down2
    for given in (x, to_batch_last(x)) if batch == 16 else (x,):
        given = given.detach().requires_grad_()
        got, want = op(given), filtered(given, up)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
        g = torch.randn(want.shape)
        (mine,) = torch.autograd.grad(got, given, g, retain_graph=True)
        (theirs,) = torch.autograd.grad(want, given, g, retain_graph=True)
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    dot = torch.zeros(1, 1, 3, 3)
    dot[0, 0, 1, 1] = 4.0
    assert bilinear_up2(dot)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


@pytest.mark.parametrize("op", [upsample2, average2, bilinear_up2, bilinear_down2])
def test_gradients_of_gradients(op):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(op, (x,))
    assert torch.autograd.gradgradcheck(lambda t: op(t).square(), (x,))


def test_a_strided_gradient_is_taken_as_it_comes():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    upsample2(x).sum().backward()  # the gradient of a sum is expanded from one number
    assert torch.equal(x.grad, torch.full_like(x, 4.0))


def test_whoever_watches_operations_sees_plain_torch():
    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    seen = []
    with Names():
        average2(upsample2(torch.randn(1, 2, 4, 4)))
    assert "aten::upsample_nearest2d" in seen
    assert "aten::avg_pool2d" in seen


# ------------------------------------------------------------------ boxes at every position


def lay_out(x, how):
    if how == "batch last":
        return to_batch_last(x)
    return x.contiguous(memory_format=torch.channels_last if how == "channels last" else torch.contiguous_format)


def test_boxes_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [-3.0, 6.0]]]])
    assert (4 * box_means(x)).tolist() == [[[[1, 3, 2], [-2, 6, 8], [-3, 3, 6]]]]
    assert (4 * box_means(x, relu=True)).tolist() == [[[[1, 3, 2], [1, 9, 8], [0, 6, 6]]]]
    assert box_sums(x).tolist() == [[[[6.0]]]]


@pytest.mark.parametrize("how", ["contiguous", "channels last", "batch last"])
@pytest.mark.parametrize("gradient", ["contiguous", "channels last", "batch last", "expanded"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(16, 3, 5, 4), (32, 2, 2, 7)])
def test_boxes_are_pooling_with_stride_one(how, gradient, relu, shape):
    start = lay_out(torch.randn(shape), how)
    for ours, pad in ((box_means, 1), (box_sums, 0)):
        if relu and not pad:
            continue
        leaves = [start.detach().clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
        got = ours(leaves[0], relu=relu) if pad else ours(leaves[0])
        inner = F.relu(leaves[1]) if relu else leaves[1]
        want = F.avg_pool2d(inner, 2, 1, pad, divisor_override=4 if pad else 1)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        assert not kernels.status().available or is_batch_last(got) == is_batch_last(start)
        by = torch.ones(()).expand(got.shape) if gradient == "expanded" else lay_out(torch.randn(got.shape), gradient)
        got.backward(by)
        want.backward(by)
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("relu", [False, True])
def test_boxes_have_gradients_of_gradients(dtype, relu):
    x = torch.randn(16, 2, 3, 4, dtype=dtype)
    found = []
    for ours in (True, False):
        leaf = x.clone().requires_grad_()
        inner = box_means(leaf, relu=relu) if ours else F.avg_pool2d(F.relu(leaf) if relu else leaf, 2, 1, 1)
        (first,) = torch.autograd.grad(inner.pow(3).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        found.append((first, second))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_boxes_pass_on_what_is_not_finite_and_take_no_images():
    x = torch.zeros(16, 1, 3, 3)
    x[0, 0, 0, 0], x[1, 0, 2, 2] = torch.nan, torch.inf
    out = box_means(x, relu=True)
    assert int(out.isnan().sum()) == 4
    assert int(out.isinf().sum()) == 4
    assert box_means(x[:0]).shape == (0, 1, 4, 4)
    assert box_sums(x[:0]).shape == (0, 1, 2, 2)


def test_boxes_do_not_depend_on_threads():
    x = to_batch_last(torch.randn(32, 40, 33, 33))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append((box_means(x, relu=True), box_sums(x)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
