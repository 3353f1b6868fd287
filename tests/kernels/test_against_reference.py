"""The kernels against the float64 reference: random shapes, densities, odd sizes, batches that do not fill a vector."""

from __future__ import annotations

import kernel_reference as reference
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gancompress import kernels

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def masks(draw, shape):
    """None kept, one kept, all kept, or a random share, sometimes with an empty output channel."""
    count = torch.Size(shape).numel()
    kind = draw(st.sampled_from(["none", "one", "all", "some", "some", "some"]))
    mask = torch.zeros(count, dtype=torch.bool)
    if kind == "one":
        mask[draw(st.integers(0, count - 1))] = True
    elif kind == "all":
        mask[:] = True
    elif kind == "some":
        random = torch.Generator().manual_seed(draw(st.integers(0, 999)))
        mask = torch.rand(count, generator=random) < draw(st.sampled_from([0.05, 0.2, 0.5]))
    mask = mask.reshape(shape)
    if draw(st.booleans()):
        mask[draw(st.integers(0, shape[0] - 1))] = False
    return mask


sizes = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 16, 17])
channels = st.sampled_from([1, 2, 3, 5, 8, 17, 40])
batches = st.sampled_from([1, 2, 4, 7, 15, 16, 17, 33])


@st.composite
def convolutions(draw, transpose=False):
    k = draw(st.sampled_from([1, 2, 3, 4, 5]))
    case = {"stride": draw(st.integers(1, 3)), "padding": draw(st.integers(0, k // 2))}
    h, w = draw(sizes), draw(sizes)
    if transpose:
        low = 2 * case["padding"] + 1 - k  # leave at least one pixel
        h, w = (max(n, 1 + -(-low // case["stride"])) for n in (h, w))
    else:
        h, w = (max(n, k - 2 * case["padding"]) for n in (h, w))
    c, r = draw(channels), draw(channels)
    case["groups"] = groups = draw(st.sampled_from([1, 1, 2, 3]))  # c and r are the channels of one of them
    shape = (c * groups, r, k, k) if transpose else (r * groups, c, k, k)
    random = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    x = torch.randn(draw(batches), c * groups, h, w, generator=random)
    bias = torch.randn(r * groups, generator=random) if draw(st.booleans()) else None
    return x, torch.randn(shape, generator=random), draw(masks(shape)), bias, case


def agree(function, truth, x, weight, mask, bias, case, dense_gradient=False):
    """Values and all gradients, against the same function in float64."""
    inputs = [t if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
    exact = [t if t is None else t.double().requires_grad_() for t in (x, weight, bias)]
    out = function(inputs[0], inputs[1], mask, inputs[2], dense_gradient=dense_gradient, **case)
    if dense_gradient:  # the gradient towards the masked weight itself, as if nothing were masked
        exact[1] = (weight.double() * mask).requires_grad_()
        mask = torch.ones_like(mask)
    want = truth(exact[0], exact[1], mask, exact[2], **case)
    assert out.dtype == torch.float32
    assert out.shape == want.shape
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(gradient)
    want.backward(gradient.double())
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=2e-4)
    for mine, theirs in zip(inputs, exact, strict=True):
        if mine is not None:
            torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-3)
    if not dense_gradient:
        assert inputs[1].grad[~mask].abs().sum() == 0


@FEW
@given(convolutions())
def test_conv2d(isa, case):
    agree(kernels.conv2d, reference.conv2d, *case)


@FEW
@given(convolutions(transpose=True))
def test_conv_transpose2d(isa, case):
    agree(kernels.conv_transpose2d, reference.conv_transpose2d, *case)


@FEW
@given(st.data())
def test_linear(isa, data):
    shape = data.draw(st.sampled_from([(1, 1), (3, 5), (17, 33), (64, 130)]))
    x = torch.randn(data.draw(st.sampled_from([1, 5, 16, 31, 64, 150])), shape[1])
    agree(kernels.linear, reference.linear, x, torch.randn(shape), data.draw(masks(shape)), torch.randn(shape[0]), {})


@pytest.mark.parametrize("output_padding", [0, 1])
def test_dcgan_layer_and_output_padding(isa, output_padding):
    x, weight = torch.randn(18, 24, 5, 7), torch.randn(24, 12, 4, 4)
    mask = torch.rand(weight.shape) < 0.2
    out = kernels.conv_transpose2d(x, weight, mask, stride=2, padding=1, output_padding=output_padding)
    want = torch.nn.functional.conv_transpose2d(x, weight * mask, None, 2, 1, output_padding)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d"])
def test_dense_gradient(isa, function):
    x, weight = torch.randn(17, 6, 9, 9), torch.randn(6, 6, 3, 3)
    mask = torch.rand(weight.shape) < 0.2
    case = {"stride": 2, "padding": 1}
    agree(getattr(kernels, function), getattr(reference, function), x, weight, mask, None, case, dense_gradient=True)


def test_channels_that_fill_many_chunks(isa):
    x, weight = torch.randn(16, 200, 8, 8), torch.randn(24, 200, 3, 3)
    agree(kernels.conv2d, reference.conv2d, x, weight, torch.rand(weight.shape) < 0.1, None, {"padding": 1})


def test_inputs_need_not_be_contiguous(isa):
    x = torch.randn(8, 9, 10, 6).permute(0, 3, 1, 2)
    weight = torch.randn(4, 6, 3, 3).to(memory_format=torch.channels_last)
    mask = (torch.rand(4, 6, 3, 3) < 0.3).to(memory_format=torch.channels_last)
    agree(kernels.conv2d, reference.conv2d, x, weight, mask, torch.randn(4), {"padding": 1})


def test_linear_takes_more_than_two_dimensions(isa):
    x, weight, mask = torch.randn(3, 4, 10), torch.randn(6, 10), torch.rand(6, 10) < 0.5
    out = kernels.linear(x, weight, mask)
    torch.testing.assert_close(out, torch.nn.functional.linear(x, weight * mask), rtol=1e-5, atol=1e-5)


@FEW
@given(st.data())
def test_everything_fused(isa, data):
    flag = st.booleans()
    up, add_up = data.draw(flag), data.draw(flag)
    k = data.draw(st.sampled_from([1, 3]))
    h, w = 2 * data.draw(st.integers(1, 5)), 2 * data.draw(st.integers(1, 5))  # of the result
    c, r = data.draw(channels), data.draw(channels)
    x = torch.randn(data.draw(batches), c, *((h // 2, w // 2) if up else (h, w)))
    weight, bias, mask = torch.randn(r, c, k, k), torch.randn(r), data.draw(masks((r, c, k, k)))
    affine = {"scale": torch.randn(c), "shift": torch.randn(c)} if data.draw(flag) else {}
    options = {"padding": k // 2, "pre_relu": data.draw(flag), "upsample": up, "relu": data.draw(flag)}
    shortcut, some = torch.randn(r, c, 1, 1), data.draw(masks((r, c, 1, 1)))
    resized = {"stride": 2 if add_up and not up else 1, "upsample": up and not add_up}

    net = kernels.Program(tuple(x.shape[1:]))
    add = net.conv(net.input, shortcut, some, **resized) if data.draw(flag) else None
    addends = () if add is None else kernels.Addend(add, upsample=1 + add_up)
    pre, activation = (0.0 if options[name] else None for name in ("pre_relu", "relu"))
    last = net.conv(
        net.input,
        weight,
        mask,
        bias,
        padding=k // 2,
        pre=pre,
        upsample=up,
        add=addends,
        activation=activation,
        **affine,
    )
    net.output(last)
    exact = None if add is None else reference.fused_conv2d(x.double(), shortcut.double(), some, **resized)
    want = reference.fused_conv2d(
        x.double(), weight.double(), mask, bias.double(), add=exact, add_upsample=add_up,
        **{name: value.double() for name, value in affine.items()}, **options,
    )  # fmt: skip
    torch.testing.assert_close(net(x).double(), want, rtol=1e-5, atol=2e-4)
    torch.testing.assert_close(net.dense(x.double()), want)
