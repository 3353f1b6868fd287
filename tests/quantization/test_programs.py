"""Programs in bytes: how near they stay, what stays in float, and that what reads the same shares its bytes."""

from __future__ import annotations

import pytest
import torch

from gancompress.errors import ExportError, KernelError
from gancompress.kernels import Addend, Program, Quantized
from gancompress.kernels.steps import ConvStep, QuantizeStep
from gancompress.quantization.programs import calibrate, convolutions, quantized, unfit


def weight(*shape, density=0.5):
    mask = torch.rand(shape) < density
    return torch.randn(shape) * mask * 0.3, mask


def residual(affine=False):
    """A block as in SNGAN: norms ahead of convolutions, a doubled map, a shortcut; then a shuffle."""
    net = Program((16, 4, 4))
    norm = {"scale": torch.rand(16) * 8 + 0.1, "shift": torch.randn(16)}
    first = {"affine": net.affine(16)} if affine else norm
    a = net.conv(net.input, *weight(16, 16, 3, 3), torch.randn(16), padding=1, pre=0.0, upsample=True, **first)
    b = net.conv(a, *weight(16, 16, 3, 3), torch.randn(16), padding=1, pre=0.2, **norm)
    c = net.conv(net.input, *weight(16, 16, 1, 1), upsample=True, add=Addend(b))
    d = net.conv([a, c], *weight(12, 32, 3, 3), padding=1, pre=torch.rand(32), shuffle=2)
    net.output(net.sum([Addend(d)], activation=0.2))
    return net


def varied():
    """Strides, groups, borders, transposed kernels, dilation, norms."""
    net = Program((8, 12, 12))
    a = net.conv(net.input, *weight(16, 4, 3, 3), padding=1, groups=2, border="reflect", activation=0.0)
    b = net.conv_transpose(a, *weight(16, 8, 4, 4), torch.randn(8), stride=2, padding=1, pre=0.1)
    c = net.conv(b, *weight(8, 8, 3, 3), padding=2, dilation=2, stride=2)
    net.output(net.conv(net.norm(c, None, None, 1e-5), *weight(3, 8, 3, 3), padding=1, pre=0.0, border="replicate"))
    return net


def inputs(net, count, seed=0):
    torch.manual_seed(seed)
    more = [torch.rand(8, 2, one.channels) * 3 for one in net.affines]
    return [(torch.randn(8, *net.input.shape), *more) for _ in range(count)]


def nearness(net, other, given):
    wanted, found = net.dense(*given), other.dense(*given)
    return 10 * float(torch.log10(wanted.square().mean() / (wanted - found).square().mean()))


@pytest.mark.parametrize("rule", ["max", "percentile", "mse"])
@pytest.mark.parametrize("build", [residual, lambda: residual(affine=True), varied], ids=["block", "affine", "varied"])
def test_a_program_in_bytes_stays_near(build, rule):
    torch.manual_seed(3)
    net = build()
    ranges = calibrate(net, inputs(net, 4), rule)
    assert ranges.keys() == set(range(4))
    made = quantized(net, ranges)
    assert all(step.stored for step in convolutions(made))
    assert nearness(net, made, inputs(net, 1, seed=9)[0]) > 25  # dB below the signal, of four layers in a row
    assert [value.shape for value in made.outputs] == [value.shape for value in net.outputs]


def test_merged_taps_are_those_that_are_rounded():
    torch.manual_seed(3)
    net = residual()
    made = quantized(net, calibrate(net, inputs(net, 2)))
    first = convolutions(made)[0]
    assert first.transpose
    assert first.weight.shape == (16, 16, 4, 4)
    assert int(first.weight.abs().max()) == 127


def test_what_reads_the_same_shares_its_bytes():
    torch.manual_seed(0)
    net = Program((8, 4, 4))
    maps = [net.conv(net.input, *weight(8, 8, size, size), padding=size // 2, pre=0.0) for size in (1, 3, 5)]
    other = net.conv(net.input, *weight(8, 8, 1, 1), pre=0.1)
    net.output(net.sum([Addend(one) for one in (*maps, other)]))
    ranges = calibrate(net, inputs(net, 2))
    assert ranges[0] == ranges[1] == ranges[2] != ranges[3]
    steps = quantized(net, ranges).steps
    assert sum(isinstance(step, QuantizeStep) for step in steps) == 2


def test_layers_can_stay_in_float():
    torch.manual_seed(3)
    net = residual()
    ranges = calibrate(net, inputs(net, 2))
    made = quantized(net, ranges, keep=(0, 3))
    assert [step.stored is not None for step in convolutions(made)] == [False, True, True, False]
    given = inputs(net, 1, seed=9)[0]
    assert nearness(net, made, given) > nearness(net, quantized(net, ranges), given)
    with pytest.raises(ExportError, match="no layer is left"):
        quantized(net, ranges, keep=range(4))


def test_equalisation_divides_channels_by_powers_of_two():
    torch.manual_seed(0)
    net, own = Program((8, 6, 6)), weight(8, 8, 3, 3, density=1.0)
    spread = torch.tensor([1.0, 40.0] * 4)
    net.output(net.conv(net.input, own[0] / spread[:, None, None], own[1], padding=1, pre=0.1))
    given = [(x * spread[:, None, None],) for (x,) in inputs(net, 3)]
    plain, even = (calibrate(net, given, equalise=equalise) for equalise in (False, True))
    assert not plain[0].exponents
    assert set(even[0].exponents) == {0, -5} or max(even[0].exponents) - min(even[0].exponents) >= 4
    near = [nearness(net, quantized(net, one), given[0]) for one in (plain, even)]
    assert near[1] > near[0] + 6


def test_layers_that_do_not_fit_stay_in_float():
    torch.manual_seed(0)
    net = Program((6, 4, 4), (6, 4, 4))
    joined = net.conv(net.inputs, *weight(8, 12, 1, 1))
    grouped = net.conv(net.inputs[0], *weight(8, 3, 1, 1), groups=2)
    net.output(net.conv(net.inputs[0], *weight(8, 6, 1, 1), add=[Addend(joined), Addend(grouped)]))
    reasons = [unfit(step) for step in net.steps if isinstance(step, ConvStep)]
    assert "joined by fours" in reasons[0]
    assert "grouped by fours" in reasons[1]
    assert reasons[2] == ""
    given = [(torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4))]
    assert calibrate(net, given).keys() == {2}
    assert nearness(net, quantized(net, calibrate(net, given)), given[0]) > 30


def test_a_layer_that_saw_only_zeros_stays_in_float():
    net = Program((4, 4, 4))
    dead = net.conv(net.input, *weight(4, 4, 1, 1), pre=0.0)
    net.output(net.conv(net.input, *weight(4, 4, 1, 1), add=Addend(dead)))
    given = [(-torch.rand(2, 4, 4, 4),)]
    assert calibrate(net, given).keys() == {1}


def test_a_layer_whose_weights_are_all_0_is_no_obstacle():
    program = Program((4, 4, 4))
    weight = torch.zeros(4, 4, 3, 3)  # the end of a block that starts as the identity
    program.output(program.conv(program.input, weight, torch.ones_like(weight, dtype=torch.bool), padding=1))
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    found = calibrate(program, [(x,)])
    assert found[0].exponents == ()
    assert not quantized(program, found)(x).any()


def test_calibration_needs_inputs():
    net = residual()
    with pytest.raises(ExportError, match="there are none"):
        calibrate(net, [])


def test_what_is_smooth_is_computed_in_float():
    """tanh behind a convolution of bytes by a sum; what reads a silu stays in float."""
    torch.manual_seed(0)
    net = Program((8, 6, 6))
    first = net.conv(net.input, *weight(8, 8, 3, 3), padding=1, activation="silu")
    second = net.conv(first, *weight(8, 8, 3, 3), padding=1, pre="silu")
    net.output(net.conv(second, *weight(3, 8, 3, 3), padding=1, activation="tanh"))
    assert [unfit(step) for step in convolutions(net)] == ["", "silu stands before it, which is computed in float", ""]
    made = quantized(net, calibrate(net, inputs(net, 2)))
    assert [step.stored is not None for step in convolutions(made)] == [True, False, True]
    assert made.native
    (given,) = inputs(net, 1, seed=1)
    assert nearness(net, made, given) > 30
    torch.testing.assert_close(made(*given), made.dense(*given), rtol=1e-5, atol=1e-5)
    other = Program((4, 2, 2))
    with pytest.raises(KernelError, match="not beside bytes"):
        other.quantize(other.input, Quantized(0.1), activation="tanh")
