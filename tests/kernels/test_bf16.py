"""Layers under autocast in bf16: all three passes against double precision on rounded numbers, and what stays dense."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F

from gancompress import kernels
from gancompress.kernels import measured
from gancompress.kernels.layout import to_batch_last
from gancompress.kernels.native_library import library
from gancompress.kernels.resample import box_means, smooth, smooth_down2, smooth_up2

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

pytestmark = pytest.mark.skipif(library() is None or library().pairs is None, reason="no kernels for pairs here")


@pytest.fixture(autouse=True)
def _shifts(monkeypatch):
    monkeypatch.setenv("GANCOMPRESS_BF16", "shifts")


def blocks(rows: int, columns: int, *kernel: int, density: float = 0.3) -> Tensor:
    """Blocks of 2x2."""
    coarse = torch.rand(-(-rows // 2), -(-columns // 2), *kernel) < density
    return coarse.repeat_interleave(2, 0).repeat_interleave(2, 1)[:rows, :columns]


def rounded(x: Tensor) -> Tensor:
    return x.detach().bfloat16().double()


CASES = {
    "3x3": ("conv", (6, 8, 3, 3), (3, 8, 7, 9), {"padding": 1}),
    "strided": ("conv", (4, 6, 4, 4), (17, 6, 9, 7), {"stride": 2, "padding": 1}),
    "1x1": ("conv", (8, 4, 1, 1), (16, 4, 5, 5), {}),
    "wide batch": ("conv", (6, 4, 3, 3), (32, 4, 6, 6), {"padding": 1}),
    "transposed": ("transpose", (6, 8, 4, 4), (5, 6, 4, 5), {"stride": 2, "padding": 1}),
    "many channels": ("conv", (64, 64, 3, 3), (16, 64, 8, 8), {"padding": 1}),
    "linear": ("linear", (10, 12), (37, 12), {}),
}


@pytest.mark.parametrize("masked", ["2x2", "single weights"])
@pytest.mark.parametrize("case", CASES)
def test_all_passes_are_those_of_rounded_numbers(case: str, masked: str) -> None:
    torch.manual_seed(0)
    op, shape, size, how = CASES[case]
    mask = blocks(*shape) if masked == "2x2" else torch.rand(shape) < 0.3
    x, weight = torch.randn(size, requires_grad=True), torch.randn(shape, requires_grad=True)
    bias = torch.randn(shape[1] if op == "transpose" else shape[0])
    ours = {"conv": kernels.conv2d, "transpose": kernels.conv_transpose2d, "linear": kernels.linear}[op]
    theirs = {"conv": F.conv2d, "transpose": F.conv_transpose2d, "linear": F.linear}[op]
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(x, weight, mask, bias, sparse="always", **how)
    assert out.dtype == torch.float32
    gradient = torch.randn_like(out)
    out.backward(gradient)
    a, b = rounded(x).requires_grad_(), (rounded(weight) * mask).requires_grad_()
    wanted = theirs(a, b, None, **how)
    wanted.backward(rounded(gradient))
    assert x.grad is not None
    assert weight.grad is not None
    assert a.grad is not None
    assert b.grad is not None
    close = {"rtol": 1e-5, "atol": 2e-5}
    each = bias if op == "linear" else bias[:, None, None]
    torch.testing.assert_close(out.double(), wanted + each, **close)
    torch.testing.assert_close(x.grad.double(), a.grad, **close)
    torch.testing.assert_close(weight.grad.double(), b.grad * mask, **close)


def test_what_is_masked_beside_a_kept_weight_does_not_count() -> None:
    mask = torch.zeros(2, 2, 1, 1, dtype=torch.bool)
    mask[0, 0] = True
    weight = torch.tensor([[1.0, torch.nan], [torch.inf, 5]])[..., None, None].requires_grad_()
    x = torch.tensor([3.0, 7.0]).reshape(1, 2, 1, 1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = kernels.conv2d(x, weight, mask, sparse="always")
    out.sum().backward()
    assert out.flatten().tolist() == [3.0, 0.0]
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 0.0]
    assert weight.grad.flatten().tolist() == [3.0, 0.0, 0.0, 0.0]


def test_halves_round_to_even() -> None:
    # 1 + 2^-8 lies between 1 and 1 + 2^-7, 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6
    x = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8]).reshape(2, 1).expand(2, 2).contiguous()
    with torch.autocast("cpu", torch.bfloat16):
        out = kernels.linear(x, torch.eye(2), torch.ones(2, 2, dtype=torch.bool), sparse="always")
    assert out[:, 0].tolist() == [1.0, 1 + 2**-6]


def test_odd_channels_run_in_float32_and_machines_without_it_dense(monkeypatch) -> None:
    def computed(channels: int) -> tuple[Tensor, Tensor]:
        weight, x = torch.randn(4, channels, 3, 3), torch.randn(2, channels, 5, 5)
        with torch.autocast("cpu", torch.bfloat16):
            return kernels.conv2d(x, weight, weight > 1, sparse="always"), F.conv2d(
                x.double(), weight.double() * (weight > 1)
            )

    assert computed(4)[0].dtype == torch.float32
    out, wanted = computed(3)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-6, atol=1e-6)  # colours are not rounded
    monkeypatch.setattr(library(), "pairs", "shifts")
    monkeypatch.delenv("GANCOMPRESS_BF16")
    assert computed(4)[0].dtype == computed(3)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("twins", [True, False])
@pytest.mark.parametrize("case", ["3x3", "strided", "transposed"])
def test_rows_that_share_their_entries_are_those_of_rounded_numbers(case: str, twins: bool, isa: str) -> None:
    """So many entries a row that two rows are taken together, on one thread and where threads part them."""
    torch.manual_seed(0)
    op, shape, size, how = {
        # wide and low: few stripes and much work, so that threads part the rows of the plan
        "3x3": ("conv", (6, 64, 3, 3), (20, 64, 4, 100), {"padding": 1}),
        "strided": ("conv", (6, 64, 3, 3), (20, 64, 5, 201), {"stride": 2}),
        "transposed": ("transpose", (64, 6, 4, 4), (20, 64, 2, 100), {"stride": 2, "padding": 1}),
    }[case]
    mask = blocks(*shape, density=0.9)
    mask[(slice(0, 2), 2) if op == "transpose" else (2, slice(0, 2))] = twins  # one of two rows loses a pair
    x, weight = torch.randn(size), torch.randn(shape)
    bias = torch.randn(6)
    ours, theirs = (kernels.conv2d, F.conv2d) if op == "conv" else (kernels.conv_transpose2d, F.conv_transpose2d)
    wanted = theirs(rounded(x), rounded(weight) * mask, bias.double(), **how)
    found = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(ours(x, weight, mask, bias, sparse="always", **how))
    torch.testing.assert_close(found[0].double(), wanted, rtol=1e-5, atol=5e-5)
    assert torch.equal(*found)


@pytest.mark.parametrize("stride", [1, 2])
def test_towards_the_input_rows_share_their_entries_too(stride: int, isa: str) -> None:
    torch.manual_seed(0)
    mask = blocks(64, 6, 3, 3, density=0.9)
    x, weight = torch.randn(20, 6, 8, 9, requires_grad=True), torch.randn(64, 6, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = kernels.conv2d(x, weight, mask, sparse="always", stride=stride, padding=1)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    a = rounded(x).requires_grad_()
    F.conv2d(a, rounded(weight) * mask, stride=stride, padding=1).backward(rounded(gradient))
    torch.testing.assert_close(x.grad.double(), a.grad, rtol=1e-5, atol=5e-5)


def test_weights_that_are_masked_already_give_the_same_bits() -> None:
    torch.manual_seed(0)
    mask = torch.rand(8, 6, 3, 3) < 0.3
    weight, x = torch.randn(8, 6, 3, 3) * mask, torch.randn(16, 6, 5, 5)
    found = []
    for masked in (False, True):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = kernels.conv2d(a, b, mask, sparse="always", masked=masked)
        (first,) = torch.autograd.grad(out.square().sum(), a, create_graph=True)
        first.square().sum().backward()
        found.append((out.detach(), first.detach(), a.grad, b.grad))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("channels", [4, 3])
@pytest.mark.parametrize("penalty", [False, True])
def test_after_an_input_that_is_not_finite_all_is_float32(channels: int, penalty: bool) -> None:
    x = torch.randn(2, channels, 5, 5)
    x[0, 0, 0, 0] = torch.nan
    x.requires_grad_()
    weight = torch.randn(4, channels, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = kernels.conv2d(x, weight, torch.rand(weight.shape) < 0.5, padding=1, sparse="always")
    assert out.dtype == torch.float32
    (first,) = torch.autograd.grad(out.sum(), x, create_graph=penalty)
    assert first.dtype == torch.float32
    assert first[1].isfinite().all()


def test_break_evens_are_held_against_the_density_of_pairs() -> None:
    mask = torch.zeros(4, 4, 1, 1, dtype=torch.bool)
    mask[0, 0] = True  # 1 of 8 pairs of inputs, and of outputs
    mask[2:, 2:] = True  # 2 of 8 of both
    alone = torch.eye(4, dtype=torch.bool)  # as many weights as pairs: 4 of 8
    assert kernels.Pattern(mask).pair_density == 3 / 8
    assert kernels.Pattern(mask).density == 5 / 16
    assert kernels.Pattern(alone).pair_density == 0.5
    assert kernels.counted_density(kernels.Pattern(alone)) == 0.25
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.counted_density(kernels.Pattern(alone)) == 0.5
        assert kernels.counted_density(kernels.Pattern(alone[:3])) == 0.25  # no pairs of three


def test_what_is_timed_for_pairs_has_their_density() -> None:
    random = torch.Generator().manual_seed(0)
    drawn = kernels.Pattern(measured.drawn((64, 64, 3, 3), 0.1, random, in_blocks=True))
    assert drawn.pair_density == pytest.approx(drawn.density)
    assert drawn.density == pytest.approx(0.1, abs=0.02)
    single = kernels.Pattern(measured.drawn((64, 64, 3, 3), 0.1, random, in_blocks=False))
    assert single.pair_density == pytest.approx(0.19, abs=0.01)


@pytest.mark.parametrize(("bf16", "inputs", "in_blocks"), [(True, 8, True), (True, 7, False), (False, 8, False)])
def test_layers_in_pairs_are_timed_in_blocks(bf16: bool, inputs: int, in_blocks: bool, monkeypatch) -> None:
    asked, real = [], measured.drawn

    def drawn(*args, **how):
        asked.append(how["in_blocks"])
        return real(*args, **how)

    monkeypatch.setattr("gancompress.kernels.tuning.drawn", drawn)
    layer = kernels.Layer("conv", (6, inputs, 3, 3), 16, 5, 5, padding=1, bf16=bf16)
    monkeypatch.setattr("gancompress.kernels.tuning.FIGURES", measured.Figures("of-this-test.json"))
    kernels.break_even(layer, training=False)
    assert asked == [in_blocks] * 2


def test_a_layer_is_chosen_by_its_pairs() -> None:
    """Single weights at 0.4 fill 0.64 of the pairs: sparse below a break-even of 0.7, dense below one of 0.5."""
    torch.manual_seed(0)
    weight, x = torch.randn(32, 32, 3, 3), torch.randn(16, 32, 5, 5)
    mask = torch.rand(weight.shape) < 0.4
    table: dict[str, float] = {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        kernels.conv2d(x, weight, mask, sparse="auto", table=table)
        (key,) = table
        assert "in pairs" in key
        for above, dtype in ((0.7, torch.float32), (0.5, torch.bfloat16)):
            assert kernels.conv2d(x, weight, mask, sparse="auto", table={key: above}).dtype == dtype


@pytest.mark.parametrize("lies", ["batch last", "contiguous"])
def test_boxes_of_a_map_in_bf16_are_taken_in_float32(lies: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 4, 6, 6)
    x = (to_batch_last(x) if lies == "batch last" else x).bfloat16().requires_grad_()
    assert box_means(x).dtype == torch.bfloat16  # of a network in bf16 itself
    with torch.autocast("cpu", torch.bfloat16):
        out = box_means(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, F.avg_pool2d(x.float(), 2, 1, 1), rtol=1e-6, atol=1e-6)
    out.sum().backward()
    assert x.grad is not None
    assert (x.grad == 1).all()  # every pixel is a quarter of four boxes


@pytest.mark.parametrize("filtered", [partial(smooth, padding=2), smooth_up2, smooth_down2])
@pytest.mark.parametrize("lies", ["batch last", "contiguous"])
def test_filters_of_a_map_in_bf16_are_one_pass_in_float32(lies: str, filtered: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(16, 4, 6, 6).bfloat16()
    x = to_batch_last(x) if lies == "batch last" else x
    with torch.autocast("cpu", torch.bfloat16):
        out = filtered(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, filtered(x.float()))


def test_maps_that_a_dense_layer_gave_in_bf16_are_taken() -> None:
    x = torch.randn(2, 4, 5, 5).bfloat16().requires_grad_()
    weight = torch.randn(4, 4, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = kernels.conv2d(x, weight, weight > 0, sparse="always")
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_a_number_that_is_not_finite_spreads_as_in_dense_arithmetic() -> None:
    x = torch.randn(2, 4, 5, 5)
    x[0, 0, 0, 0] = torch.inf
    mask = torch.rand(4, 4, 3, 3) < 0.5
    with torch.autocast("cpu", torch.bfloat16):
        out = kernels.conv2d(x, torch.randn(4, 4, 3, 3), mask, padding=1, sparse="always")
    assert out[0].isnan().any()
    assert out[1].isfinite().all()
