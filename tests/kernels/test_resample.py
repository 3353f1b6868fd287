from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gancompress.kernels.resample import average2, upsample2


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


@pytest.mark.parametrize("op", [upsample2, average2])
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
