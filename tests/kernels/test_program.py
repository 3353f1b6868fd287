"""Compiled networks: the same numbers as the float64 network in torch, for every batch size, with planned memory."""

from __future__ import annotations

import copy

import pytest
import torch
from programs import random_program

from gancompress.errors import KernelError
from gancompress.kernels import Addend, Program
from gancompress.kernels.native_library import BATCH, COLUMNS, FLAT, ROWS, library
from gancompress.kernels.native_program import fastest, layouts


def masked(*shape, density=0.3):
    return torch.randn(shape) / (shape[1] * shape[2]) ** 0.5, torch.rand(shape) < density


def residual_generator(channels=20, blocks=2, size=4):
    """As an SNGAN generator: up block with a shortcut computed at low resolution, batch norms folded."""
    net = Program((channels, size, size))
    h = net.input
    for _ in range(blocks):
        shortcut = net.conv(h, *masked(channels, channels, 1, 1), torch.randn(channels))
        t = net.conv(
            h, *masked(channels, channels, 3, 3), torch.randn(channels), padding=1, upsample=True, pre=0.0,
            scale=torch.rand(channels) + 0.5, shift=torch.randn(channels), activation=0.0,
        )  # fmt: skip
        weight, mask = masked(channels, channels, 3, 3)
        h = net.conv(t, weight, mask, torch.randn(channels), padding=1, add=Addend(shortcut, upsample=2))
    net.output(net.conv(h, *masked(3, channels, 3, 3), torch.randn(3), padding=1, pre=0.0))
    return net


def dcgan_generator():
    net = Program((12, 3, 3))
    h = net.conv_transpose(net.input, *masked(12, 20, 4, 4), torch.randn(20), stride=2, padding=1, activation=0.0)
    h = net.conv_transpose(h, *masked(20, 9, 4, 4), torch.randn(9), stride=2, padding=1, activation=0.0)
    net.output(net.conv_transpose(h, *masked(9, 3, 4, 4), stride=2, padding=1))
    return net


def strided():
    net = Program((7, 13, 11))
    h = net.conv(net.input, *masked(18, 7, 3, 3), stride=2, padding=1, activation=0.0)
    h = net.conv(h, *masked(5, 18, 5, 5), stride=3, padding=2)
    net.output(net.conv(h, *masked(5, 5, 3, 3), padding=1, add=Addend(h), activation=0.0))
    return net


@pytest.mark.parametrize("batch", [1, 3, 5, 16, 37])
@pytest.mark.parametrize("make", [residual_generator, dcgan_generator, strided])
def test_the_same_images_as_torch(isa, make, batch):
    net = make()
    x = torch.randn(batch, *net.input.shape)
    torch.testing.assert_close(net(x).double(), net.dense(x.double()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_a_transposed_convolution_of_any_size(isa, seed):
    torch.manual_seed(seed)

    def of(least, most):
        return int(torch.randint(least, most + 1, ()))

    stride, kernel = of(1, 3), of(1, 5)
    padding, more = of(0, (kernel - 1) // 2), of(0, stride - 1)
    ins, outs, height, width = of(1, 9), of(1, 20), of(2, 7), of(2, 7)
    net = Program((ins, height, width))
    weight, mask = masked(ins, outs, kernel, kernel, density=0.4)
    h = net.conv_transpose(
        net.input, weight, mask, torch.randn(outs), stride=stride, padding=padding, output_padding=more, activation=0.0
    )
    first = h
    h = net.conv(h, *masked(3, outs, 3, 3), padding=1)
    net.output(h)
    x = torch.randn(of(1, 18), ins, height, width)
    map_ = torch.relu(
        torch.nn.functional.conv_transpose2d(
            x, torch.where(mask, weight, 0.0), net._steps[0].bias, stride, padding, more
        )
    )
    assert first.shape == map_.shape[1:]
    kept = torch.where(net._steps[1].pattern.mask, net._steps[1].weight, 0.0)
    want = torch.nn.functional.conv2d(map_, kept, padding=1)
    torch.testing.assert_close(net(x), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.dense(x), want, rtol=1e-5, atol=1e-5)


def test_output_padding_is_below_the_stride():
    net = Program((2, 4, 4))
    with pytest.raises(KernelError, match="below the stride"):
        net.conv_transpose(net.input, *masked(2, 3, 3, 3), stride=2, padding=1, output_padding=2)


def conditional():
    """Scales and shifts that differ from image to image, beside ones that do not."""
    net = Program((9, 4, 6))
    first, second = net.affine(9), net.affine(18)
    h = net.conv(net.input, *masked(18, 9, 3, 3), padding=1, upsample=True, pre=0.0, affine=first)
    h = net.conv(h, *masked(18, 18, 3, 3), torch.randn(18), padding=1, affine=second, add=Addend(h))
    h = net.conv(h, *masked(5, 18, 1, 1), scale=torch.randn(18), shift=torch.randn(18))
    net.output(net.conv_transpose(h, *masked(5, 3, 4, 4), stride=2, padding=1, affine=net.affine(5), activation=0.0))
    return net


@pytest.mark.parametrize("batch", [1, 3, 5, 16, 37])
def test_an_affine_per_image(isa, batch):
    net = conditional()
    x, affines = torch.randn(batch, 9, 4, 6), [torch.randn(batch, 2, c) for c in (9, 18, 5)]
    want = net.dense(x.double(), *(a.double() for a in affines))
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(net(x, *affines))
    torch.testing.assert_close(results[0].double(), want, rtol=1e-5, atol=1e-4)
    assert torch.equal(*results)


def test_an_affine_per_image_by_hand(isa):
    net = Program((1, 2, 2))
    net.output(net.conv(net.input, torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1).bool(), affine=net.affine(1)))
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    for batch in (1, 20):
        scale = torch.arange(batch)[:, None]
        got = net(x.expand(batch, 1, 2, 2), torch.stack((scale, 10 * scale), 1))
        assert got[-1].flatten().tolist() == [(batch - 1) * (v + 10) for v in (1, 2, 3, 4)]


def test_affines_that_do_not_fit():
    net = Program((4, 5, 5))
    weight, mask = masked(6, 4, 3, 3)
    affine, other = net.affine(4), Program((4, 5, 5))
    other.affine(3)
    with pytest.raises(KernelError, match="not of this program"):
        net.conv(net.input, weight, mask, affine=other.affine(4))
    with pytest.raises(KernelError, match="does not fit"):
        net.conv(net.input, weight, mask, affine=net.affine(5))
    with pytest.raises(KernelError, match="beside a scale"):
        net.conv(net.input, weight, mask, affine=affine, scale=torch.ones(4), shift=torch.ones(4))
    net.output(net.conv(net.input, weight, mask, affine=affine))
    with pytest.raises(KernelError, match="no more inputs"):
        net.affine(4)
    with pytest.raises(KernelError, match="takes affines"):
        net(torch.randn(2, 4, 5, 5))


def test_wide_images_need_many_runs(isa):
    net = Program((40, 5, 70))
    net.output(net.conv(net.input, *masked(6, 40, 3, 3), padding=1))
    for x in (torch.randn(1, 40, 5, 70), torch.randn(17, 40, 5, 70)):
        torch.testing.assert_close(net(x).double(), net.dense(x.double()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("batch", [2, 50])
def test_results_do_not_depend_on_the_number_of_threads(isa, batch):
    net = residual_generator()
    x = torch.randn(batch, *net.input.shape)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(net(x))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_an_image_does_not_depend_on_its_batch(isa):
    net = residual_generator()
    x = torch.randn(40, *net.input.shape)
    whole = net(x)
    assert torch.equal(net(x[16:]), whole[16:])
    torch.testing.assert_close(net(x[7:8]), whole[7:8], rtol=1e-5, atol=1e-5)


def test_memory_is_used_again():
    # Input, shortcut, t, then h may take what only the first block's inner values held: three or four arenas, never
    # one per value (there are eight).
    place, sizes = residual_generator().arenas()
    assert len(place) == 8
    assert len(sizes) <= 4
    assert max(sizes) == 20 * 16 * 16


def test_without_native_kernels_it_runs_in_torch(monkeypatch):
    net = residual_generator()
    x = torch.randn(5, *net.input.shape)
    want = net(x)
    monkeypatch.setenv("GANCOMPRESS_KERNELS", "off")
    torch.testing.assert_close(net(x), want, rtol=1e-5, atol=1e-4)


def test_a_copy_owns_its_memory(native):
    net = residual_generator()
    x = torch.randn(5, *net.input.shape)
    want = net(x)
    twin = copy.deepcopy(net)
    del net
    assert torch.equal(twin(x), want)


def test_bad_input_is_one_clear_error():
    net = Program((4, 5, 5))
    weight, mask = masked(6, 4, 3, 3)
    with pytest.raises(KernelError, match="no output"):
        net(torch.randn(1, 4, 5, 5))
    with pytest.raises(KernelError, match="mask has shape"):
        net.conv(net.input, weight, mask[:, :, :1])
    with pytest.raises(KernelError, match="does not fit"):
        net.conv(net.input, weight.transpose(0, 1), mask.transpose(0, 1))
    with pytest.raises(KernelError, match="bias has shape"):
        net.conv(net.input, weight, mask, torch.randn(4))
    with pytest.raises(KernelError, match="together"):
        net.conv(net.input, weight, mask, scale=torch.randn(4))
    with pytest.raises(KernelError, match="cannot add"):
        net.conv(net.input, weight, mask, padding=1, add=Addend(net.input))
    with pytest.raises(KernelError, match="not of this program"):
        net.conv(Program((4, 5, 5)).input, weight, mask)
    with pytest.raises(KernelError, match="results of its layers"):
        net.output(net.input)
    net.output(net.conv(net.input, weight, mask))
    with pytest.raises(KernelError, match="no more layers"):
        net.conv(net.input, weight, mask)
    with pytest.raises(KernelError, match="takes"):
        net(torch.randn(1, 4, 6, 5))
    assert net(torch.randn(0, 4, 5, 5)).shape == (0, 6, 3, 3)


def in_every_layout(net, *inputs):
    """What the native kernels give for a program, with its images laid out in all ways that it allows."""
    lib, count = library(), len(net.inputs)
    for layout in net._layouts(lib.lanes):
        yield layout.mode, net._native(lib, layout)(inputs[:count], inputs[count:], net._outputs)


@pytest.mark.parametrize("seed", range(90))
def test_programs_of_every_operation_against_torch(isa, seed):
    net, inputs, want = random_program(seed, (1, 3, 16, 17)[seed % 4], signal=seed % 3 == 0)
    assert net.native
    results = dict(in_every_layout(net, *inputs))
    assert len(results) == 4
    exact = net.dense(*(x.double() for x in inputs))
    results["dense"] = exact if isinstance(exact, tuple) else (exact,)
    for got in results.values():
        for mine, truth in zip(got, want, strict=True):
            most = max(1.0, float(truth.abs().max()))
            torch.testing.assert_close(mine.double(), truth, rtol=1e-5, atol=1e-5 * most)


@pytest.mark.parametrize("make", [residual_generator, dcgan_generator, strided, conditional])
def test_every_layout_gives_the_same(isa, make):
    net = make()
    inputs = [torch.randn(2, *net.input.shape), *(torch.randn(2, 2, a.channels) for a in net._affines)]
    want = net.dense(*(x.double() for x in inputs))
    for _, (got,) in in_every_layout(net, *inputs):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-4)


def test_what_is_not_a_number_stays_so(isa):
    net = Program((2, 1, 40))
    weight = torch.zeros(1, 2, 1, 3)
    weight[0, 0, 0, 0] = 1.0
    net.output(net.conv(net.input, weight, weight != 0, padding=(0, 1), pre=0.0, activation=0.5))
    x = torch.zeros(1, 2, 1, 40)
    x[0, 0, 0, 20], x[0, 0, 0, 30], x[0, 1] = torch.nan, -torch.inf, torch.nan
    for _, (got,) in in_every_layout(net, x):
        assert got.isnan().flatten().nonzero().tolist() == [[21]]  # only the kept weight is multiplied with
        assert got.nan_to_num(0.0).abs().max() == 0


def test_a_stride_beyond_the_kernels_runs_in_torch(isa):
    net = Program((1, 1, 50))
    weight = torch.ones(1, 1, 1, 2)
    net.output(net.conv(net.input, weight, weight > 0, stride=(1, 17)))
    assert not net.native
    x = torch.arange(50.0).reshape(1, 1, 1, 50)
    assert net(x).flatten().tolist() == [1.0, 35.0, 69.0]


def test_reads_that_do_not_fit():
    net = Program((4, 6, 8), (4, 6, 7))
    weight, mask = masked(4, 8, 3, 3)
    with pytest.raises(KernelError, match="unequal sizes"):
        net.conv(net.inputs, weight, mask)
    with pytest.raises(KernelError, match="does not fit"):
        net.conv(net.input, *masked(6, 2, 3, 3), groups=4)
    with pytest.raises(KernelError, match="below the size"):
        net.conv(net.input, *masked(6, 4, 3, 3), padding=6, border="reflect")
    with pytest.raises(KernelError, match="at most 3"):
        net.conv(net.input, *masked(4, 4, 1, 1), add=[Addend(net.input)] * 4)
    with pytest.raises(KernelError, match="two or four"):
        net.conv(net.input, *masked(4, 4, 1, 1), padding=(1, 2, 3))
    with pytest.raises(KernelError, match="are not 3 groups"):
        net.norm(net.input, None, None, 1e-5, 3)
    with pytest.raises(KernelError, match="activation has shape"):
        net.sum([Addend(net.input)], torch.ones(3))


@pytest.mark.parametrize(
    ("shape", "batch", "mode"),
    [
        ((3, 64, 64), 1, ROWS),
        ((3, 128, 30), 2, ROWS),
        ((3, 5, 5), 1, FLAT),  # most of 8 strips would be empty
        ((3, 1, 512), 1, COLUMNS),
        ((3, 1, 9), 1, FLAT),
        ((3, 64, 64), 17, BATCH),
    ],
)
def test_the_layout_that_was_measured_to_be_fastest(shape, batch, mode):
    net, lanes = Program(shape), 8
    net.output(net.conv(net.input, *masked(3, 3, 1, 3), padding=(0, 1)))
    assert fastest(layouts(net.inputs, net._steps, lanes), "avx2", batch).mode == mode


def test_maps_that_cannot_be_cut_alike_are_not_cut():
    net = Program((3, 16, 16), (3, 8, 8))
    small = net.conv(net.input, *masked(3, 3, 2, 2), stride=2)
    odd = net.conv(net.input, *masked(3, 3, 9, 9))  # 8x8 too, but its strips would be those of 16x16
    net.output(net.conv([small, odd], *masked(3, 6, 1, 1)))
    assert [layout.mode for layout in layouts(net.inputs, net._steps, 8)] == [BATCH, FLAT]
    x = [torch.randn(1, *value.shape) for value in net.inputs]
    torch.testing.assert_close(net(*x).double(), net.dense(*(t.double() for t in x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "silu"])
def test_smooth_activations_are_those_of_torch(isa, kind):
    """On all of float32's range, in every layout, fused behind a convolution, ahead of one, and of a sum."""
    net = Program((1, 6, 40))
    one = torch.ones(1, 1, 1, 1)
    behind = net.conv(net.input, one, one > 0, activation=kind)
    alone = net.sum([Addend(net.input)], kind)
    ahead = [net.conv(net.input, one, one > 0, pre=kind, padding=1)] if kind != "sigmoid" else []
    net.output(behind, alone, *ahead)
    special = torch.tensor([0.0, -0.0, 1e-38, torch.inf, -torch.inf, 3e38, -3e38, 90.0, -90.0, 88.5, -88.5, 0.625])
    steep = torch.cat([special, torch.linspace(-20, 20, 108), torch.logspace(-20, 2, 120)])
    x = torch.stack([steep, steep.flip(0), -steep]).reshape(3, 1, 6, 40)
    want = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": torch.nn.functional.silu}[kind](x.double()).float()
    x[0, 0, 0, 0], want[0, 0, 0, 0] = torch.nan, torch.nan
    for _, (got, summed, *before) in in_every_layout(net, x):
        for made in (got, summed, *(whole[:, :, 1:-1, 1:-1] for whole in before)):
            torch.testing.assert_close(made, want, rtol=4e-7, atol=1e-30, equal_nan=True)
        assert all(whole.shape == (3, 1, 8, 42) and whole[:, :, 0].abs().max() == 0 for whole in before)


def test_activations_that_are_none():
    net = Program((1, 4, 4))
    with pytest.raises(KernelError, match="activation is a slope, slopes or tanh, sigmoid, silu, got 'gelu'"):
        net.sum([Addend(net.input)], "gelu")
    with pytest.raises(KernelError, match="pre is a slope, slopes or tanh, silu, got 'sigmoid'"):
        net.conv(net.input, *masked(1, 1, 1, 1), pre="sigmoid")
