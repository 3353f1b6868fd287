"""What the operators promise beside their values: gradients, NaN, threads, fallbacks, clear errors."""

from __future__ import annotations

import copy
import pickle

import kernel_reference as reference
import pytest
import torch
import torch.nn.functional as F

from gancompress import kernels
from gancompress.errors import KernelError
from gancompress.kernels import calls
from gancompress.kernels.native_library import ENVIRONMENT, library


def layer(n=17, c=9, r=6, size=7, k=3, density=0.3):
    x, weight = torch.randn(n, c, size, size), torch.randn(r, c, k, k)
    return x, weight, torch.rand(weight.shape) < density


def no_native(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the native kernel was called")

    monkeypatch.setattr(calls, "conv", fail)
    monkeypatch.setattr(calls, "backward", fail)


@pytest.mark.parametrize("transpose", [False, True])
def test_gradients_by_finite_differences(isa, transpose):
    # A convolution is linear in x and in the weight, so a central difference of the float64 reference has no error of
    # its own: it must equal the directional derivative that the kernels give.
    function, truth = (
        (kernels.conv_transpose2d, reference.conv_transpose2d) if transpose else (kernels.conv2d, reference.conv2d)
    )
    x, weight, mask = layer(c=6)
    case = {"stride": 2, "padding": 1}
    probes = [torch.randn_like(t, dtype=torch.float64) for t in (x, weight)]
    inputs = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    out = function(*inputs, mask, **case)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    h = 1e-3
    for i in range(2):
        ends = []
        for sign in (h, -h):
            moved = [t.double() for t in (x, weight)]
            moved[i] = moved[i] + sign * probes[i]
            ends.append((truth(*moved, mask, **case) * gradient.double()).sum())
        slope = (ends[0] - ends[1]) / (2 * h)
        mine = (inputs[i].grad.double() * probes[i]).sum()
        torch.testing.assert_close(mine, slope, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d", "linear"])
def test_what_is_not_finite_spreads_as_in_dense(isa, bad, op):
    dims = () if op == "linear" else (7, 7)
    x = torch.randn(18, 6, *dims)
    weight = torch.randn(6, 6, *((3, 3) if dims else ()))
    mask = torch.rand(weight.shape) < 0.3
    x[(3, 2, *([4] * len(dims)))] = bad
    case = {"padding": 1} if dims else {}
    a, b = (t.clone().requires_grad_() for t in (x, weight))
    out = getattr(kernels, op)(a, b, mask, **case)
    c, d = (t.clone().requires_grad_() for t in (x, weight))
    want = getattr(F, op)(c, torch.where(mask, d, 0.0), None, **case)
    torch.testing.assert_close(out, want, equal_nan=True, rtol=1e-5, atol=1e-4)
    assert not out.isfinite().all()
    out.sum().backward()
    want.sum().backward()
    torch.testing.assert_close(a.grad, c.grad, equal_nan=True, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(b.grad[mask], d.grad[mask], equal_nan=True, rtol=1e-4, atol=1e-3)


def test_a_gradient_that_is_not_finite_spreads_as_in_dense(isa):
    x, weight, mask = layer()
    gradients = []
    for function in (lambda a, b: kernels.conv2d(a, b, mask), lambda a, b: F.conv2d(a, torch.where(mask, b, 0.0))):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = function(a, b)
        gradient = torch.ones_like(out)
        gradient[1, 1, 1, 1] = float("nan")
        out.backward(gradient)
        gradients.append((a.grad, torch.where(mask, b.grad, 0.0)))
    torch.testing.assert_close(gradients[0][0], gradients[1][0], equal_nan=True, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], equal_nan=True, rtol=1e-4, atol=1e-3)


def test_masked_weights_are_never_read(isa):
    x, weight, mask = layer()
    dirty = torch.where(mask, weight, float("nan"))
    assert torch.equal(kernels.conv2d(x, dirty, mask), kernels.conv2d(x, weight, mask))
    dense = kernels.conv2d(x, dirty, mask, sparse="never")
    assert dense.isfinite().all()


@pytest.mark.parametrize("n", [1, 16, 50])
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d", "linear"])
def test_results_do_not_depend_on_the_number_of_threads(isa, n, op):
    # Large enough that threads are really started.
    dims, channels = ((), 800) if op == "linear" else ((12, 17), 64)
    x, weight = torch.randn(n, channels, *dims), torch.randn(channels, channels, *((3, 3) if dims else ()))
    mask = torch.rand(weight.shape) < 0.3
    case = {"stride": 2, "padding": 1} if dims else {}
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = getattr(kernels, op)(a, b, mask, **case)
        out.backward(torch.sin(out.detach()))
        results.append((out.detach(), a.grad, b.grad))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_weight_gradients_lose_little_in_long_sums(isa):
    """Sums over 65,536 positions, of rows that keep 0 to 24 weights: groups of every size, with and without a rest."""
    torch.manual_seed(0)
    x, gradient = torch.relu(torch.randn(64, 8, 32, 32)), torch.randn(64, 25, 32, 32)
    weight, mask = torch.randn(25, 8, 3, 3).requires_grad_(), torch.zeros(25, 72, dtype=torch.bool)
    for row in range(25):
        mask[row, torch.randperm(72)[:row]] = True
    mask = mask.reshape(weight.shape)
    kernels.conv2d(x, weight, mask, padding=1, sparse="always").backward(gradient)
    wide = weight.detach().double().requires_grad_()
    torch.nn.functional.conv2d(x.double(), wide, padding=1).backward(gradient.double())
    off = (weight.grad.double() - wide.grad)[mask]
    assert torch.equal(weight.grad[~mask], torch.zeros(int((~mask).sum())))
    assert float(off.square().mean().sqrt() / wide.grad[mask].square().mean().sqrt()) < 4e-7


def stacked(x, weights, masks, op):
    """Two layers and what is between them, on the kernels or, without masks, in torch."""
    settings = {} if op == "linear" else {"padding": 1}
    more = {"stride": 2, "output_padding": 1} if op == "conv_transpose2d" else {}
    for weight, mask in zip(weights, masks or (None, None), strict=True):
        ours = getattr(kernels, op) if mask is not None else None
        x = ours(x, weight, mask, **settings, **more) if ours else getattr(F, op)(x, weight, **settings, **more)
        x = torch.tanh(x)
    return x


@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d", "linear"])
@pytest.mark.parametrize("dense_gradient", [False, True])
def test_double_backward_is_that_of_dense(isa, op, dense_gradient, monkeypatch):
    shape = (8, 6) if op == "linear" else (17, 6, 5, 5)
    x = torch.randn(shape)
    weights = [torch.randn((6, 6) if op == "linear" else (6, 6, 3, 3)) * 0.3 for _ in range(2)]
    masks = [torch.rand(weight.shape) < 0.4 for weight in weights]
    own = getattr(kernels, op)
    monkeypatch.setattr(kernels, op, lambda *a, **k: own(*a, **k, dense_gradient=dense_gradient))
    found = []
    for sparse in (True, False):
        a, leaves = x.clone().requires_grad_(), [weight.clone().requires_grad_() for weight in weights]
        given = leaves
        if not sparse:
            given = [torch.where(mask, weight, 0) for weight, mask in zip(leaves, masks, strict=True)]
            if dense_gradient:  # the gradient towards the masked weight itself, as if nothing were masked
                given = leaves = [weight.detach().requires_grad_() for weight in given]
        out = stacked(a, given, masks if sparse else None, op)
        (first,) = torch.autograd.grad(out.square().sum(), a, create_graph=True)
        (first.square().sum() + out.sum()).backward()  # as a gradient penalty beside a loss does
        found.append([a.grad, *(leaf.grad for leaf in leaves)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    if not dense_gradient:
        assert all(not grad[~mask].any() for grad, mask in zip(found[0][1:], masks, strict=True))


def test_a_penalty_behind_a_relu(isa):
    x, weight, mask = layer(n=16, c=6)
    found = []
    for ours in (True, False):
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        h = (
            kernels.conv2d(a, w, mask, padding=1, pre_relu=True)
            if ours
            else F.conv2d(F.relu(a), torch.where(mask, w, 0), padding=1)
        )
        (first,) = torch.autograd.grad(torch.tanh(h).sum(), a, create_graph=True)
        first.square().sum().backward()
        found.append((a.grad, w.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_a_third_gradient_is_right(isa):
    x, weight, mask = layer(n=2, c=4)
    found = []
    for function in (lambda a, b: kernels.conv2d(a, b, mask), lambda a, b: F.conv2d(a, torch.where(mask, b, 0.0))):
        a, b = x.clone().requires_grad_(), (weight * 0.2).clone().requires_grad_()
        (first,) = torch.autograd.grad(torch.tanh(function(a, b)).sum(), a, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), a, create_graph=True)
        second.square().sum().backward()
        found.append(b.grad)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def test_a_penalty_of_the_inputs_gradient_runs_on_the_kernels(monkeypatch):
    x, weight, mask = layer(n=16)
    asked, real = [], calls.backward
    monkeypatch.setattr(calls, "backward", lambda *a, **k: (asked.append(k["want"]), real(*a, **k))[1])
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", None)  # nothing dense
    a, b = x.requires_grad_(), weight.requires_grad_()
    (first,) = torch.autograd.grad(kernels.conv2d(a * 1, b * 1, mask).sum(), a, create_graph=True)
    assert asked == [(True, False)], "the weight's gradient was not asked for"
    first.square().sum().backward()
    assert asked == [(True, False), (False, True)]


@pytest.mark.parametrize("case", ["double", "autocast", "off", "empty", "never"])
def test_other_cases_run_dense(monkeypatch, case):
    no_native(monkeypatch)
    x, weight, mask = layer()
    if case == "double":
        assert kernels.conv2d(x.double(), weight.double(), mask).dtype == torch.float64
    elif case == "autocast":  # where no instruction multiplies pairs of bf16
        monkeypatch.setattr(library(), "pairs", None)
        with torch.autocast("cpu", torch.bfloat16):
            assert kernels.conv2d(x, weight, mask).dtype == torch.bfloat16
    elif case == "off":
        monkeypatch.setenv(ENVIRONMENT, "off")
        torch.testing.assert_close(kernels.conv2d(x, weight, mask), F.conv2d(x, weight * mask))
    elif case == "empty":
        assert kernels.conv2d(x[:0], weight, mask).shape == (0, 6, 5, 5)
    else:
        assert kernels.conv2d(x, weight, mask, sparse="never").shape == (17, 6, 5, 5)


def test_a_dense_fallback_masks_the_gradient_too():
    x, weight, mask = layer()
    for dense_gradient in (False, True):
        leaf = weight.clone().requires_grad_()
        kernels.conv2d(x, leaf, mask, sparse="never", dense_gradient=dense_gradient).sum().backward()
        assert (leaf.grad[~mask].abs().sum() > 0) == dense_gradient


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask": torch.ones(6, 9, 3, 1, dtype=torch.bool)}, "mask has shape"),
        ({"mask": torch.ones(6, 9, 3, 3)}, "bool"),
        ({"mask": torch.ones(6, dtype=torch.bool)}, "shape of a linear or 2-d"),
        ({"x": torch.ones(2, 8, 7, 7)}, "8 channels"),
        ({"x": torch.ones(9, 7, 7)}, "4-d"),
        ({"x": torch.ones(2, 9, 2, 7)}, "smaller than the kernel"),
        ({"bias": torch.ones(9)}, "bias has shape"),
        ({"sparse": "maybe"}, "sparse=maybe"),
    ],
)
def test_bad_input_is_one_clear_error(change, says):
    x, weight, mask = layer()
    arguments = {"x": x, "weight": weight, "mask": mask, **change}
    with pytest.raises(KernelError, match=says):
        kernels.conv2d(**arguments)


def test_a_mask_changed_in_place_is_noticed(isa):
    x, weight, mask = layer()
    kernels.conv2d(x, weight, mask)
    assert kernels.as_pattern(mask) is kernels.as_pattern(mask)
    mask[:, :, 1] = ~mask[:, :, 1]
    torch.testing.assert_close(kernels.conv2d(x, weight, mask), F.conv2d(x, weight * mask), rtol=1e-5, atol=1e-4)


def test_patterns_are_shared_by_copies_and_survive_pickling():
    pattern = kernels.Pattern(torch.rand(4, 4, 3, 3) < 0.5)
    assert copy.deepcopy(pattern) is pattern
    assert torch.equal(pickle.loads(pickle.dumps(pattern)).mask, pattern.mask)


def test_status(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "off")
    off = kernels.status()
    assert (off.available, off.isa) == (False, None)
    assert "off" in off.reason
    monkeypatch.setenv(ENVIRONMENT, "avx1024")
    wrong = kernels.status()
    assert not wrong.available
    if wrong.path is not None:
        assert "avx1024" in wrong.reason
    monkeypatch.delenv(ENVIRONMENT)
    assert kernels.status().available == (library() is not None)


def test_a_broken_library_is_reported_not_raised(monkeypatch, tmp_path):
    from gancompress.kernels import native_library

    broken = tmp_path / "_sparse.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native_library, "_find", lambda: broken)
    native_library._load.cache_clear()
    try:
        now = kernels.status()
        assert not now.available
        assert "cannot load" in now.reason
        x, weight, mask = layer()
        torch.testing.assert_close(kernels.conv2d(x, weight, mask), F.conv2d(x, weight * mask))
    finally:
        native_library._load.cache_clear()
