"""Layers under autocast in bf16: all three passes against double precision on rounded numbers, and what stays dense."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F

from gancompress import kernels
from gancompress.kernels.native_library import library

if TYPE_CHECKING:
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


def test_odd_channels_and_machines_without_it_stay_dense(monkeypatch) -> None:
    def dtype(channels: int) -> torch.dtype:
        weight = torch.randn(4, channels, 3, 3)
        with torch.autocast("cpu", torch.bfloat16):
            return kernels.conv2d(torch.randn(2, channels, 5, 5), weight, weight > 1, sparse="always").dtype

    assert dtype(4) == torch.float32
    assert dtype(3) == torch.bfloat16
    monkeypatch.setattr(library(), "pairs", "shifts")
    monkeypatch.delenv("GANCOMPRESS_BF16")
    assert dtype(4) == torch.bfloat16


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
