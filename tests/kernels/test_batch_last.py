"""Maps that lie with their images side by side: the same numbers, without copies, through every operation."""

from __future__ import annotations

import kernel_reference as reference
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_against_reference import FEW, masks
from torch import nn

from gancompress import kernels
from gancompress.kernels import ops
from gancompress.kernels.layout import is_batch_last, norm_forward, scale_and_shift, to_batch_last, to_images
from gancompress.kernels.resample import average2, upsample2


def test_by_hand():
    x = torch.arange(16 * 2 * 3 * 1.0).view(16, 2, 3, 1)
    last = to_batch_last(x)
    assert torch.equal(last, x)
    assert last.stride()[:3] == (1, 48, 16)
    assert last.permute(1, 2, 3, 0).is_contiguous()
    assert is_batch_last(last)
    assert not is_batch_last(x)
    assert to_images(last).is_contiguous()
    assert torch.equal(to_images(last), x)
    assert to_images(x) is x
    assert to_batch_last(last) is last


def test_what_is_not_batch_last():
    last = to_batch_last(torch.randn(32, 3, 4, 4))
    assert not is_batch_last(last[:16])  # half of the images lie apart
    assert not is_batch_last(last[:, 1:2, :, 1:])
    assert not is_batch_last(torch.randn(3, 4, 4, 17).permute(3, 0, 1, 2))
    assert not is_batch_last(torch.randn(3, 4, 4, 16 + 1)[..., 1:].permute(3, 0, 1, 2))
    assert not is_batch_last(torch.randn(16, 1, 1, 1))  # both formats at once


def test_changing_the_format_is_differentiable_twice():
    x = torch.randn(16, 2, 2, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: to_images(to_batch_last(t) * 2), (x,))
    assert torch.autograd.gradgradcheck(lambda t: to_images(to_batch_last(t)) ** 2, (x,))


@st.composite
def cases(draw):
    transpose = draw(st.booleans())
    k, stride = draw(st.sampled_from([(1, 1), (3, 1), (1, 2), (3, 2), (4, 2)]))
    c, r = draw(st.sampled_from([1, 3, 8, 40])), draw(st.sampled_from([1, 2, 17]))
    size = draw(st.sampled_from([1, 2, 5, 8, 17])), draw(st.sampled_from([2, 3, 8, 16]))
    size = tuple(max(n, k) for n in size)
    batch = draw(st.sampled_from([16, 32, 48]))
    shape = (c, r, k, k) if transpose else (r, c, k, k)
    x, weight = torch.randn(batch, c, *size), torch.randn(shape)
    return transpose, x, weight, draw(masks(shape)), torch.randn(r), {"stride": stride, "padding": (k - 1) // 2}


def run(transpose, x, weight, mask, bias, case, gradient, **how):
    inputs = [t.detach().requires_grad_() for t in (x, weight, bias)]
    function = kernels.conv_transpose2d if transpose else kernels.conv2d
    out = function(inputs[0], inputs[1], mask, inputs[2], **case, **how)
    out.backward(gradient)
    return [out.detach(), *(t.grad for t in inputs)]


@FEW
@given(cases())
def test_the_same_bits_as_in_the_usual_format(isa, case):
    transpose, x, weight, mask, bias, settings = case
    truth = reference.conv_transpose2d if transpose else reference.conv2d
    want = truth(x.double(), weight.double(), mask, bias.double(), **settings)
    gradient = torch.randn(want.shape)
    images = run(*case, gradient)
    torch.testing.assert_close(images[0].double(), want, rtol=1e-5, atol=2e-4)
    for x_last, g_last in ((True, True), (True, False), (False, True)):
        own = to_batch_last(x) if x_last else x
        last = run(transpose, own, *case[2:], to_batch_last(gradient) if g_last else gradient, batch_last=True)
        assert last[0].is_contiguous() or is_batch_last(last[0])
        assert is_batch_last(last[1]) == is_batch_last(own)
        assert all(torch.equal(a, b) for a, b in zip(images[:3], last[:3], strict=True))
        torch.testing.assert_close(images[3], last[3], rtol=1e-4, atol=1e-4)


@FEW
@given(cases(), st.booleans())
def test_a_relu_before_the_layer(isa, case, last):
    transpose, x, weight, mask, bias, settings = case
    if transpose:
        return
    layer = nn.Conv2d(x.shape[1], len(bias), weight.shape[2], **settings)
    layer.weight.data, layer.bias.data = weight, bias
    kernels.attach(layer, mask).batch_last = last
    inputs = [to_batch_last(x) if last else x, x.double()]
    for t in inputs:
        t.requires_grad_()
    got = kernels.after_relu(layer, inputs[0])
    want = reference.conv2d(torch.relu(inputs[1]), weight.double(), mask, bias.double(), **settings)
    gradient = torch.randn(want.shape)
    got.backward(gradient)
    want.backward(gradient.double())
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-4)
    torch.testing.assert_close(inputs[0].grad.double(), inputs[1].grad, rtol=1e-4, atol=1e-3)
    exact = weight.double().requires_grad_()
    reference.conv2d(torch.relu(x.double()), exact, mask, **settings).backward(gradient.double())
    torch.testing.assert_close(layer.weight.grad.double(), exact.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_not_finite_spreads_as_in_dense(isa, bad, relu, stride):
    weight = torch.randn(6, 5, 3, 3)
    mask = torch.rand(weight.shape) < 0.3
    for where in ((3, 2, 4, 4), (31, 0, 0, 8)):
        x = torch.randn(32, 5, 9, 9)
        x[where] = bad
        a, b = to_batch_last(x).requires_grad_(), x.clone().requires_grad_()
        got = kernels.conv2d(a, weight, mask, padding=1, stride=stride, pre_relu=relu)
        want = F.conv2d(torch.relu(b) if relu else b, torch.where(mask, weight, 0.0), padding=1, stride=stride)
        torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-5, atol=1e-4)
        got.sum().backward()
        want.sum().backward()
        torch.testing.assert_close(a.grad, b.grad, equal_nan=True, rtol=1e-4, atol=1e-3)
    gradient = torch.ones_like(got)
    gradient[1, 1, 1, 1] = bad
    a, b = to_batch_last(torch.randn(32, 5, 9, 9)).requires_grad_(), None
    b = a.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    kernels.conv2d(a, weight, mask, padding=1, stride=stride).backward(to_batch_last(gradient))
    F.conv2d(b, torch.where(mask, weight, 0.0), padding=1, stride=stride).backward(gradient)
    torch.testing.assert_close(a.grad, b.grad, equal_nan=True, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("batch", [16, 48])
def test_results_do_not_depend_on_the_number_of_threads(isa, batch):
    x, weight = torch.randn(batch, 64, 12, 17), torch.randn(64, 64, 3, 3)
    mask, gradient = torch.rand(weight.shape) < 0.3, torch.randn(batch, 64, 12, 17)
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        a, b = to_batch_last(x).requires_grad_(), weight.clone().requires_grad_()
        out = kernels.conv2d(a, b, mask, padding=1, pre_relu=True)
        out.backward(to_batch_last(gradient))
        results.append((out.detach(), a.grad, b.grad))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_gradients_of_gradients_are_those_of_dense(isa):
    x, weight = torch.randn(16, 3, 5, 5), torch.randn(4, 3, 3, 3)
    mask = torch.rand(weight.shape) < 0.4

    def penalty(x, weight, function):
        (gradient,) = torch.autograd.grad(function(x, weight).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), (x, weight))

    def ours(a, b):
        return kernels.conv2d(a, b, mask, padding=1, pre_relu=True)

    def plain(a, b):
        return F.conv2d(torch.relu(a), torch.where(mask, b, 0.0), padding=1)

    got = penalty(to_batch_last(x).requires_grad_(), weight.clone().requires_grad_(), ours)
    want = penalty(x.clone().requires_grad_(), weight.clone().requires_grad_(), plain)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-2)


def test_the_dense_route_keeps_the_format(native):
    x, weight = torch.randn(16, 3, 5, 5), torch.randn(4, 3, 3, 3)
    mask = torch.rand(weight.shape) < 0.4
    for relu in (False, True):
        a, b = to_batch_last(x).requires_grad_(), x.clone().requires_grad_()
        got = kernels.conv2d(a, weight, mask, padding=1, sparse="never", pre_relu=relu)
        want = F.conv2d(torch.relu(b) if relu else b, torch.where(mask, weight, 0.0), padding=1)
        assert is_batch_last(got)
        assert torch.equal(got, want)
        got.sum().backward()
        want.sum().backward()
        assert torch.equal(a.grad, b.grad)


def test_a_batch_that_does_not_fill_the_lanes_stays_as_it_is(native):
    x, weight = torch.randn(17, 3, 5, 5), torch.randn(4, 3, 3, 3)
    assert kernels.conv2d(x, weight, torch.rand(weight.shape) < 0.4, batch_last=True).is_contiguous()


@pytest.mark.parametrize(
    ("ours", "plain"),
    [(upsample2, lambda x: F.interpolate(x, scale_factor=2.0)), (average2, lambda x: F.avg_pool2d(x, 2))],
)
def test_resampling(ours, plain):
    x = torch.randn(16, 3, 4, 6)
    a, b = to_batch_last(x).requires_grad_(), x.clone().requires_grad_()
    got, want = ours(a), plain(b)
    assert is_batch_last(got)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)
    gradient = torch.randn(want.shape)
    got.backward(to_batch_last(gradient))
    want.backward(gradient)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training):
    norms = [nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3, momentum=0.3)]
    x = torch.randn(16, 3, 4, 5) * 2 + 1
    a, b = to_batch_last(x).requires_grad_(), x.clone().requires_grad_()
    for norm in norms:
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
        norm.train(training)
    got, want = norm_forward(norms[0], a), norms[1](b)
    assert is_batch_last(got)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    got.square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
    for one, two in zip(norms[0].state_dict().values(), norms[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, two)


def test_a_number_per_image_and_channel():
    x, gain, bias = torch.randn(16, 3, 4, 5), torch.randn(16, 3), torch.randn(16, 3)
    want = gain[:, :, None, None] * x + bias[:, :, None, None]
    for own in (x, to_batch_last(x)):
        got = scale_and_shift(own, gain, bias)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        assert is_batch_last(got) == is_batch_last(own)


def test_the_layout_counts_for_break_evens(native, monkeypatch):
    asked = []
    monkeypatch.setattr(ops.tuning, "choose", lambda layer, *_, **__: asked.append(layer.batch_last) or "sparse")
    x, weight = torch.randn(16, 3, 5, 5), torch.randn(4, 3, 3, 3)
    mask = torch.rand(weight.shape) < 0.4
    kernels.conv2d(x, weight, mask)
    kernels.conv2d(x, weight, mask, batch_last=True)
    kernels.conv2d(to_batch_last(x), weight, mask)
    assert asked == [False, True, True]


@pytest.mark.parametrize("how", ["batch last", "images"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_dense_1x1_convolution_is_a_product_of_matrices_as_the_map_lies(native, how, biased):
    x = torch.randn(32, 5, 3, 4)
    x = (to_batch_last(x) if how == "batch last" else x).requires_grad_()
    weight, bias = torch.randn(7, 5, 1, 1, requires_grad=True), torch.randn(7, requires_grad=True) if biased else None
    mask = torch.rand(7, 5, 1, 1) < 0.8
    options = {"sparse": "never", "batch_last": True, "pre_relu": True}
    got = kernels.conv2d(x, weight, mask, bias, **options)
    want = F.conv2d(
        torch.relu(x.double()), torch.where(mask, weight, 0.0).double(), None if bias is None else bias.double()
    )
    assert is_batch_last(got)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    leaves, by = [x, weight, *([bias] if biased else [])], torch.randn(want.shape)
    mine = torch.autograd.grad(got, leaves, by, create_graph=True)
    theirs = torch.autograd.grad(want, leaves, by.double())
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    assert mine[0].requires_grad
    # a stride, a padding or groups are more than a product
    for more in ({"stride": 2}, {"padding": 1}):
        got = kernels.conv2d(x, weight, mask, bias, **options, **more)
        torch.testing.assert_close(got, F.conv2d(torch.relu(x), torch.where(mask, weight, 0.0), bias, **more))
