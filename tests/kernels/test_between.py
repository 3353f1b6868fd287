"""What stands between the convolutions of networks with styles, in one pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gancompress.errors import KernelError
from gancompress.kernels import between as module
from gancompress.kernels import calls
from gancompress.kernels.between import between, in_one_pass
from gancompress.kernels.calls import Between
from gancompress.kernels.layout import is_batch_last, to_batch_last
from gancompress.kernels.native_library import SAME
from gancompress.kernels.resample import smooth, smooth_down2, smooth_up2

LINE = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8


def filtered(x, pad, up=1, down=1):
    """The filter by torch's convolution, in double precision; zeros are put between pixels where the size grows."""
    x = x.double()
    n, c, h, w = x.shape
    if up == 2:
        x = torch.stack((x, torch.zeros_like(x)), -1).reshape(n, c, h, 2 * w)
        x = torch.stack((x, torch.zeros_like(x)), 3).reshape(n, c, 2 * h, 2 * w) * 4
    kernel = (LINE[:, None] * LINE).expand(c, 1, 4, 4)
    return F.conv2d(F.pad(x, (pad[0], pad[1], pad[0], pad[1])), kernel, stride=down, groups=c)


FILTERS = {
    "same, 1": (lambda x: smooth(x, 1), lambda x: filtered(x, (1, 1))),
    "same, 2": (lambda x: smooth(x, 2), lambda x: filtered(x, (2, 2))),
    "up": (smooth_up2, lambda x: filtered(x, (2, 1), up=2)),
    "down": (smooth_down2, lambda x: filtered(x, (1, 1), down=2)),
}


def close(got, want):
    """Equal to 1e-6 of the largest number there is."""
    assert got.shape == want.shape
    torch.testing.assert_close(
        got.double(), want.double(), rtol=0, atol=1e-6 * float(want.detach().abs().max()) + 1e-12
    )


def lay_out(x, how):
    if how == "batch last":
        return to_batch_last(x)
    if how == "strided":  # every second pixel of a larger map
        larger = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        larger[:, :, ::2, ::2] = x
        return larger[:, :, ::2, ::2]
    return x.contiguous(memory_format=torch.channels_last if how == "channels last" else torch.contiguous_format)


@pytest.mark.parametrize("how", ["contiguous", "channels last", "batch last", "strided"])
@pytest.mark.parametrize("name", FILTERS)
def test_the_filter_and_its_gradients_are_a_convolution_with_it(isa, name, how):
    ours, torchs = FILTERS[name]
    for shape in ((1, 1, 2, 2), (1, 5, 4, 4), (16, 3, 4, 6), (16, 2, 5, 9), (32, 3, 17, 33), (3, 20, 8, 2)):
        if (how == "batch last" and shape[0] % 16) or (name == "down" and (shape[2] % 2 or shape[3] % 2)):
            continue
        x = lay_out(torch.randn(shape), how).requires_grad_()
        got, want = ours(x), torchs(x)
        close(got, want)
        assert how == "strided" or is_batch_last(got) == (how == "batch last")
        g = torch.randn(want.shape)
        for by in (g, lay_out(g, how), torch.ones(()).expand(g.shape)):
            (mine,) = torch.autograd.grad(got, x, by, retain_graph=True)
            (theirs,) = torch.autograd.grad(want, x, by.double(), retain_graph=True)
            close(mine, theirs)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_filter_has_gradients_of_gradients(name, dtype):
    ours, torchs = FILTERS[name]
    x = torch.randn(16, 2, 4, 6, dtype=dtype)
    found = []
    for op in (ours, torchs):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(op(leaf).pow(3).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        found.append(second)
    close(*found)


def test_one_pixel_drawn_by_hand():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 2] = 64.0
    wide = [[0, 1, 3, 3, 1], [0, 3, 9, 9, 3], [0, 3, 9, 9, 3], [0, 1, 3, 3, 1], [0, 0, 0, 0, 0]]
    assert smooth(x, 2)[0, 0].tolist() == wide
    assert smooth(x, 1)[0, 0].tolist() == [[3, 9, 9], [3, 9, 9], [1, 3, 3]]
    assert smooth_down2(x)[0, 0].tolist() == [[3, 9], [1, 3]]
    x = torch.tensor([[[[0.0, 16.0], [0.0, 0.0]]]])
    assert smooth_up2(x)[0, 0].tolist() == [[0, 3, 9, 9], [0, 3, 9, 9], [0, 1, 3, 3], [0, 0, 0, 0]]


def test_the_filter_takes_no_images_and_passes_on_what_is_not_finite():
    assert smooth_up2(torch.zeros(0, 2, 3, 3)).shape == (0, 2, 6, 6)
    x = torch.zeros(16, 1, 6, 6)
    x[3, 0, 0, 0] = torch.nan
    for given in (x, to_batch_last(x)):
        assert int(smooth(given, 2).isnan().sum()) == int(smooth(given[3:4].contiguous(), 2).isnan().sum()) == 9


CASES = {
    "gain": (Between(), "gain"),
    "all": (Between(0.2), "gain bias noise"),
    "all, filtered": (Between(0.2, before=1), "gain bias noise"),
    "all, filtered to a larger map": (Between(0.2, before=2), "gain bias noise"),
    "no ReLU": (Between(1.0, before=1), "gain bias"),
    "bias": (Between(0.3), "bias"),
    "noise": (Between(0.3, before=2), "noise"),
    "filtered after": (Between(0.2, after=2), ""),
    "filtered after to a smaller map": (Between(0.2, after=1), ""),
    "beside": (Between(0.2), "beside"),
    "beside what is filtered": (Between(0.2, after=2), "beside"),
}


def tensors(how, names, shape):
    """An input for which there is one pass, and what is given beside it, in the order of ``_in_steps``."""
    n, c, h, w = shape
    out = (n, c, how.resized(h), how.resized(w))
    made = {
        "gain": lambda: torch.randn(n, c).requires_grad_(),
        "bias": lambda: torch.randn(c).requires_grad_(),
        "noise": lambda: torch.randn(n, 1, *out[2:]),
        "beside": lambda: to_batch_last(torch.randn(out)).requires_grad_(),
    }
    given = {name: make() if name in names.split() else None for name, make in made.items()}
    strength = None if given["noise"] is None else torch.tensor(0.7).requires_grad_()
    x = to_batch_last(torch.randn(shape))
    x[:, :, 0, 0] = 0  # where a ReLU has a corner
    x.requires_grad_()
    return [x, given["gain"], given["bias"], given["noise"], strength, given["beside"]]


def doubled(given):
    return [None if t is None else t.detach().double().requires_grad_(t.requires_grad) for t in given]


def one_pass(given, how):
    x, gain, bias, noise, strength, beside = given
    assert in_one_pass(x)
    return between(x, how, gain=gain, bias=bias, noise=noise, strength=strength, beside=beside)


def leaves(given):
    return [t for t in given if t is not None and t.requires_grad]


@pytest.mark.parametrize("case", CASES)
def test_one_pass_is_the_steps_forward_and_backward(isa, case):
    how, names = CASES[case]
    for shape in ((16, 2, 2, 2), (16, 5, 4, 4), (32, 3, 5, 9), (48, 2, 17, 6)):
        given = tensors(how, names, shape)
        exact = doubled(given)
        got, want = one_pass(given, how), module._in_steps(*exact, how)
        close(got, want)
        assert is_batch_last(got)
        for by in (torch.randn(want.shape), to_batch_last(torch.randn(want.shape))):
            mine = torch.autograd.grad(got, leaves(given), by, retain_graph=True)
            theirs = torch.autograd.grad(want, leaves(exact), by.double(), retain_graph=True)
            for one, other in zip(mine, theirs, strict=True):
                if other.dim() > 1:
                    close(one, other)
                else:  # a long sum that cancels: beside what is added up
                    assert float((one - other).abs().max()) < 1e-6 * float(by.abs().sum() * 2)


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_gradients_are_those_of_the_steps(case):
    how, names = CASES[case]
    given = tensors(how, names, (16, 2, 3, 4))
    exact = doubled(given)
    found = []
    for op, inputs in ((one_pass, given), (lambda g, h: module._in_steps(*g, h), exact)):
        first = torch.autograd.grad(op(inputs, how).pow(3).sum(), leaves(inputs), create_graph=True)
        second = torch.autograd.grad(sum(one.square().mean() for one in first), leaves(inputs))
        found.append(second)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-4, atol=2e-5 * float(other.abs().max()))


def test_finite_differences_agree_with_the_gradient():
    how = Between(0.2, before=1)
    given = [t.detach() if t is not None else None for t in tensors(how, "gain bias noise", (16, 2, 3, 3))]
    weights = torch.randn(16, 2, 2, 2)
    for index in (0, 1, 2, 4):
        live = [t if k != index or t is None else t.clone().requires_grad_() for k, t in enumerate(given)]
        live[0] = to_batch_last(live[0]) if not is_batch_last(live[0]) else live[0]
        (gradient,) = torch.autograd.grad((one_pass(live, how) * weights).sum(), live[index])
        step = torch.randn(given[index].shape)
        ends = []
        for sign in (1, -1):
            moved = doubled(given)
            moved[index] = moved[index] + sign * 1e-4 * step.double()
            ends.append((module._in_steps(*moved, how) * weights).sum())
        wanted = float((ends[0] - ends[1]) / 2e-4)
        assert float((gradient * step).sum()) == pytest.approx(wanted, rel=2e-3, abs=1e-2)


def test_modulation_by_hand():
    x = to_batch_last(torch.arange(16.0).reshape(16, 1, 1, 1).expand(16, 1, 2, 1).contiguous() - 8)
    gain = torch.full((16, 1), 2.0)
    gain[15] = -1.0
    noise = torch.ones(16, 1, 2, 1)
    out = between(x, Between(0.5), gain=gain, bias=torch.tensor([3.0]), noise=noise, strength=torch.tensor(-1.0))
    wanted = [2.0 * (k - 8) + 3 - 1 for k in range(15)] + [-7.0 + 3 - 1]
    assert out[:, 0, 0, 0].tolist() == [v if v > 0 else v / 2 for v in wanted]
    assert torch.equal(out[:, :, 0], out[:, :, 1])


def test_which_maps_are_taken():
    assert not in_one_pass(torch.randn(16, 2, 3, 3))
    assert not in_one_pass(to_batch_last(torch.randn(16, 2, 3, 3, dtype=torch.float64)))
    assert not in_one_pass(torch.randn(3, 2, 3, 3))
    with pytest.raises(ValueError, match="follows nothing else"):
        between(to_batch_last(torch.randn(16, 2, 4, 4)), Between(0.2, after=2), bias=torch.zeros(2))


@pytest.mark.parametrize("case", CASES)
def test_what_autocast_gives_in_bf16_is_read_as_the_numbers_that_it_is(case):
    how, names = CASES[case]
    x, *others = tensors(how, names, (16, 3, 4, 5))
    halves = [None if t is None else t.detach().bfloat16().requires_grad_(t.requires_grad) for t in others]
    exact = doubled([x, *halves])
    got, want = one_pass([x, *halves], how), module._in_steps(*exact, how)
    close(got, want)
    by = torch.randn(want.shape)
    mine = torch.autograd.grad(got, leaves([x, *halves]), by)
    theirs = torch.autograd.grad(want, leaves(exact), by.double())
    for one, half, other in zip(mine, leaves([x, *halves]), theirs, strict=True):
        assert one.dtype == half.dtype
        torch.testing.assert_close(one.double(), other, rtol=1e-2, atol=1e-2 * float(other.abs().max()))


def test_the_kernels_are_given_nothing_but_float32(native):
    x, half = to_batch_last(torch.randn(16, 2, 4, 4)), torch.randn(2).bfloat16()
    with pytest.raises(KernelError, match="the kernels read float32, not bfloat16"):
        calls.between(native, x, Between(), bias=half)
    with pytest.raises(KernelError, match="float64"):
        calls.filtered(native, x.double(), kind=SAME, scale=1.0)


def test_neither_threads_nor_turns_change_a_bit(native):
    given = tensors(Between(0.2, before=1), "gain bias noise", (32, 40, 33, 33))
    by, threads, found = torch.randn(32, 40, 32, 32), torch.get_num_threads(), []
    try:
        for count in (1, 3, 3):
            torch.set_num_threads(count)
            out = one_pass(given, Between(0.2, before=1))
            found.append((out, *torch.autograd.grad(out, leaves(given), by), calls.totals(native, given[0].detach())))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("shape", [(16, 1, 1, 1), (16, 3, 5, 7), (32, 2, 40, 33), (3, 4, 6, 5), (1, 2, 3, 70)])
def test_totals_are_sums_of_channels(isa, native, shape):
    x = torch.randn(shape) + 1
    for given in (x, to_batch_last(x)) if shape[0] % 16 == 0 else (x,):
        torch.testing.assert_close(
            calls.totals(native, given).double(), x.double().sum((0, 2, 3)), rtol=1e-6, atol=1e-4
        )
