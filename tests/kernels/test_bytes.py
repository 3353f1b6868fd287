"""Programs on bytes: known answers, and the same numbers as integers worked out one by one."""

from __future__ import annotations

import math
import struct

import pytest
import torch

from gancompress.errors import KernelError
from gancompress.kernels import Addend, Program, Quantized


def float32(x: float) -> float:
    return struct.unpack("f", struct.pack("f", x))[0]


def int8(*shape):
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def everything(*shape):
    return torch.ones(shape, dtype=torch.bool)


def test_bytes_by_hand():
    stored = Quantized(0.5, 10)
    x = torch.tensor([0.0, 0.25, 0.75, 1.0, -5.0, -5.1, -6.0, 122.5, 123.0, math.inf, -math.inf, math.nan])
    # ties go to the even number before the zero is added
    assert stored.bytes_of(x).tolist() == [10, 10, 12, 12, 0, 0, 0, 255, 255, 255, 0, 10]
    assert stored.floats_of(torch.tensor([0, 10, 13, 255], dtype=torch.uint8)).tolist() == [-5.0, 0.0, 1.5, 122.5]


@pytest.mark.parametrize("bad", [(0.0, 0), (-1.0, 0), (math.inf, 0), (math.nan, 0), (1e-50, 0), (1e300, 0), (1.0, 256)])
def test_scales_that_are_none(bad):
    with pytest.raises(KernelError, match=r"bytes|byte of zero"):
        Quantized(*bad)


def test_a_quantize_step_scales_and_activates_first():
    net = Program((2, 1, 3))
    q = net.quantize(
        net.input, Quantized(0.5, 100), scale=torch.tensor([2.0, -1.0]), shift=torch.tensor([1.0, 0.0]), activation=0.5
    )
    net.output(net.sum([Addend(q, factor=2.0)]))
    x = torch.tensor([[[[1.0, 0.0, -1.0]], [[1.0, 0.0, -1.0]]]])
    # 3, 1, -1 -> -0.5; -1 -> -0.5, 0, 1; then twice
    assert net(x).flatten().tolist() == [6.0, 2.0, -1.0, -1.0, 0.0, 2.0]
    assert q.stored == Quantized(0.5, 100)
    assert (q.planes, q.words) == (1, 3)


def test_a_convolution_of_bytes_by_hand():
    net = Program((1, 1, 3))
    q = net.quantize(net.input, Quantized(0.5, 4))
    weight = torch.tensor([[[[2, -3, 5]]], [[[127, 7, -127]]]], dtype=torch.int8)
    mask = torch.tensor([[[[True, True, True]]], [[[True, False, True]]]])
    scales = torch.tensor([0.25, 2.0])
    h = net.conv(q, weight, mask, torch.tensor([10.0, 20.0]), padding=(0, 1), weight_scale=scales)
    net.output(h)
    x = torch.tensor([1.0, 2.0, -1.5])
    want = [
        0.25 * (-3 * 1 + 5 * 2) + 10,
        0.25 * (2 * 1 - 3 * 2 + 5 * -1.5) + 10,
        0.25 * (2 * 2 - 3 * -1.5) + 10,
        2 * (-127 * 2) + 20,
        2 * (127 * 1 - 127 * -1.5) + 20,
        2 * (127 * 2) + 20,
    ]
    assert net(x.reshape(1, 1, 1, 3)).flatten().tolist() == want
    assert h.stored is None


def rounded(total: int, scale: float, weight_scale: float, bias: float, zeros: int) -> float:
    """float32(sum) times float32 factor, rounded, plus float32 shift, rounded."""
    factor = float32(weight_scale * scale)
    shift = float32(bias - zeros * (weight_scale * scale))
    return float32(float32(float32(total) * factor) + shift)


@pytest.mark.parametrize("border", ["zeros", "reflect", "replicate"])
def test_every_rounding_of_a_convolution(border):
    torch.manual_seed(1)
    weight, mask = int8(3, 8, 3, 3), torch.rand(3, 8, 3, 3) < 0.7
    scales, bias = torch.rand(3) * 0.01, torch.randn(3)
    stored = Quantized(float32(0.0173), 77)
    net = Program((8, 4, 5))
    q = net.quantize(net.input, stored)
    net.output(net.conv(q, weight, mask, bias, padding=1, stride=(1, 2), border=border, weight_scale=scales))
    x = torch.randn(1, 8, 4, 5)
    held = stored.bytes_of(x)[0].tolist()
    index = {
        "zeros": lambda i, n: i if 0 <= i < n else None,
        "reflect": lambda i, n: abs(i) if i < n else 2 * (n - 1) - i,
        "replicate": lambda i, n: min(max(i, 0), n - 1),
    }[border]
    got = net(x)[0]
    assert got.shape == (3, 4, 3)
    for r in range(3):
        zeros = 77 * int((weight[r].long() * mask[r]).sum())
        for y in range(4):
            for x_ in range(3):
                total = 0
                for c in range(8):
                    for ky in range(3):
                        for kx in range(3):
                            iy, ix = index(y + ky - 1, 4), index(2 * x_ + kx - 1, 5)
                            byte = 77 if iy is None or ix is None else held[c][iy][ix]
                            total += byte * int(weight[r, c, ky, kx]) * bool(mask[r, c, ky, kx])
                want = rounded(total, stored.scale, float(scales[r]), float(bias[r]), zeros)
                assert float(got[r, y, x_]) == want


def test_every_phase_of_a_transposed_convolution_has_its_own_zeros():
    torch.manual_seed(2)
    weight, mask = int8(8, 2, 3, 4), torch.rand(8, 2, 3, 4) < 0.7
    scales, bias = torch.rand(4) * 0.01, torch.randn(4)
    stored = Quantized(float32(0.0173), 77)
    net = Program((8, 3, 3))
    q = net.quantize(net.input, stored)
    h = net.conv_transpose(
        q, weight, mask, bias, stride=(2, 3), padding=(1, 0, 0, 2), output_padding=(0, 1), groups=2, weight_scale=scales
    )
    net.output(h)
    x = torch.randn(1, 8, 3, 3)
    held, got = stored.bytes_of(x)[0].tolist(), net(x)[0]
    assert got.shape == h.shape == (4, 6, 9)
    for r in range(4):
        for y in range(6):
            for x_ in range(9):
                total = zeros = 0
                for c in range(4 * (r // 2), 4 * (r // 2) + 4):
                    for ky in range(3):
                        for kx in range(4):
                            iy, ix = y + 1 - ky, x_ - kx
                            if iy % 2 or ix % 3 or not mask[c, r % 2, ky, kx]:
                                continue
                            iy, ix, w = iy // 2, ix // 3, int(weight[c, r % 2, ky, kx])
                            total += w * (held[c][iy][ix] if 0 <= iy < 3 and 0 <= ix < 3 else 77)
                            zeros += 77 * w
                assert float(got[r, y, x_]) == rounded(total, stored.scale, float(scales[r]), float(bias[r]), zeros)


def test_what_is_fused_behind_comes_in_order():
    net = Program((4, 2, 2), (1, 2, 2))
    q = net.quantize(net.input, Quantized(1.0))
    small = net.quantize(net.inputs[1], Quantized(0.5, 1))
    h = net.conv(
        q, torch.ones(4, 4, 1, 1, dtype=torch.int8), everything(4, 4, 1, 1), weight_scale=torch.ones(4), shuffle=2,
        upsample=True, add=[Addend(net.inputs[1], -1.0, 4), Addend(small, 3.0, 4)], activation=0.1,
    )  # fmt: skip
    net.output(h)
    x, y = torch.ones(1, 4, 2, 2), torch.full((1, 1, 2, 2), -5.0)
    # 4 + 5 + 3 * 0.5 * (0 - 1) = 7.5
    assert torch.equal(net(x, y), torch.full((1, 1, 8, 8), 7.5))
    y = torch.full((1, 1, 2, 2), 100.0)
    # 4 - 100 + 3 * 0.5 * (201 - 1) = 204
    assert torch.equal(net(x, y), torch.full((1, 1, 8, 8), 204.0))


def test_bytes_that_do_not_fit():
    net = Program((6, 4, 4), (8, 4, 4))
    six, eight = (net.quantize(v, Quantized(1.0)) for v in net.inputs)
    other = net.quantize(net.inputs[1], Quantized(2.0))
    ones, scales = torch.ones(4), torch.ones(4)
    weight, mask = int8(4, 8, 1, 1), everything(4, 8, 1, 1)
    with pytest.raises(KernelError, match="int8 weights, and a weight_scale"):
        net.conv(eight, weight, mask)
    with pytest.raises(KernelError, match="int8 weights, and a weight_scale"):
        net.conv(eight, weight.float(), mask, weight_scale=scales)
    with pytest.raises(KernelError, match="quantize the input first"):
        net.conv(net.inputs[1], weight, mask)
    with pytest.raises(KernelError, match="stands in the quantize step"):
        net.conv(eight, weight, mask, weight_scale=scales, pre=0.0)
    with pytest.raises(KernelError, match="share their scale"):
        net.conv([eight, other], int8(4, 16, 1, 1), everything(4, 16, 1, 1), weight_scale=scales)
    with pytest.raises(KernelError, match="share their scale"):
        net.conv([eight, net.inputs[1]], int8(4, 16, 1, 1), everything(4, 16, 1, 1), weight_scale=scales)
    with pytest.raises(KernelError, match="fours of channels"):
        net.conv([six, eight], int8(4, 14, 1, 1), everything(4, 14, 1, 1), weight_scale=scales)
    with pytest.raises(KernelError, match="fours of channels"):
        net.conv(six, int8(4, 3, 1, 1), everything(4, 3, 1, 1), weight_scale=scales, groups=2)
    with pytest.raises(KernelError, match="weight_scale has shape"):
        net.conv(eight, weight, mask, weight_scale=torch.ones(3))
    with pytest.raises(KernelError, match="finite and not negative"):
        net.conv(eight, weight, mask, weight_scale=-ones)
    with pytest.raises(KernelError, match="finite and not negative"):
        net.conv(eight, weight, mask, weight_scale=ones * math.nan)
    with pytest.raises(KernelError, match="-127 to 127"):
        net.conv(eight, torch.full((4, 8, 1, 1), -128, dtype=torch.int8), mask, weight_scale=scales)
    with pytest.raises(KernelError, match="in bytes already"):
        net.quantize(eight, Quantized(1.0))
    with pytest.raises(KernelError, match="in bytes already"):
        net.norm(eight, None, None, 1e-5)
    with pytest.raises(KernelError, match="come together"):
        net.quantize(net.input, Quantized(1.0), scale=torch.ones(6))
    with pytest.raises(KernelError, match="not of this program"):
        net.quantize(net.input, Quantized(1.0), affine=Program((1, 1, 1)).affine(6))
    with pytest.raises(KernelError, match="returns float32"):
        net.output(eight)


def test_sums_that_32_bits_do_not_hold():
    net = Program((66400, 1, 1))
    q = net.quantize(net.input, Quantized(1.0))
    weight = torch.full((1, 66400, 1, 1), 127, dtype=torch.int8)
    mask = everything(1, 66400, 1, 1)
    with pytest.raises(KernelError, match="do not fit 32 bits"):
        net.conv(q, weight, mask, weight_scale=torch.ones(1))
    mask[:, 66300:] = False
    net.output(net.conv(q, weight, mask, weight_scale=torch.ones(1)))
    total = 66300 * 127 * 255
    assert float(net(torch.full((1, 66400, 1, 1), 300.0))) == float32(total)


def test_an_affine_per_image_before_bytes():
    net = Program((1, 1, 2))
    net.output(net.sum([Addend(net.quantize(net.input, Quantized(1.0, 5), affine=net.affine(1), activation=0.0))]))
    x = torch.tensor([[[[1.0, 2.0]]], [[[1.0, -2.0]]]])
    got = net(x, torch.tensor([[[2.0], [1.0]], [[3.0], [4.0]]]))
    assert got.flatten().tolist() == [3.0, 5.0, 7.0, 0.0]
