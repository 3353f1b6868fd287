"""The native kernels for bytes: the numbers of ``dense``, bit for bit, in every layout on every instruction set."""

from __future__ import annotations

import pytest
import torch
from programs import Random

from gancompress.kernels import Addend, Program, Quantized, status
from gancompress.kernels.native_library import BATCH, COLUMNS, FLAT, ROWS, library
from gancompress.kernels.native_program import _together as together
from gancompress.kernels.words import words_of

BLOCKS = ((1, 1), (1, 4), (2, 4), (4, 4), (4, 1), (16, 4), (16, 1))


def stored(draw: Random) -> Quantized:
    return Quantized(draw.one_of(0.01, 0.023, 0.2), draw.one_of(0, 0, 128, 255, draw.number(0, 255)))


def weight_of(draw: Random, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Extreme weights beside small ones; masks of single weights and of blocks of outputs and inputs."""
    most = draw.one_of(3, 40, 127)
    weight = torch.randint(-most, most + 1, shape, dtype=torch.int8, generator=draw.generator)
    if draw.one_of(True, False, False):
        weight = torch.where(
            torch.rand(shape, generator=draw.generator) < 0.5, torch.tensor(127, dtype=torch.int8), weight
        )
    density, (out, inp) = draw.one_of(0.05, 0.3, 1.0), draw.one_of(*BLOCKS)
    coarse = torch.rand(-(-shape[0] // out), -(-shape[1] // inp), *shape[2:], generator=draw.generator) < density
    mask = coarse.repeat_interleave(out, 0).repeat_interleave(inp, 1)[: shape[0], : shape[1]]
    return weight, mask.contiguous()


def quantized(draw: Random, net: Program, value, affines):
    channels, options = value.shape[0], {}
    kind = draw.one_of("plain", "scaled", "affine")
    if kind == "scaled":
        options = {"scale": draw.normal(channels), "shift": draw.normal(channels)}
    elif kind == "affine":
        options["affine"] = net.affine(channels)
        affines.append(channels)
    return net.quantize(value, stored(draw), activation=draw.slope(channels), **options)


def convolved(draw: Random, net: Program, held, transpose: bool, signal: bool):
    channels, rows, columns = held.shape
    groups = draw.one_of(1, 1, 1, *(g for g in (2, 3) if channels % (4 * g) == 0))
    kernel = (1 if signal else draw.number(1, 4), draw.number(1, 5))
    stride = (1 if signal else draw.one_of(1, 1, 2, 3), draw.one_of(1, 1, 2, 3))
    dilation = (draw.number(1, 2), draw.number(1, 3))
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    options = {"groups": groups, "stride": stride, "dilation": dilation}
    if transpose:
        gives = groups * draw.one_of(1, 2, 4, 5, 8, 16, 32)
        weight, mask = weight_of(draw, channels, gives // groups, *kernel)
        options["output_padding"] = tuple(draw.number(0, s - 1) for s in stride)
        sizes = [(n - 1) * s + k for n, s, k in zip((rows, columns), stride, span, strict=True)]
        options["padding"] = tuple(p for n in sizes for p in (draw.number(0, min(1, n - 1)), 0))
        out = net.conv_transpose
    else:
        if not signal and draw.one_of(True, False, False):
            options["upsample"], rows, columns = True, 2 * rows, 2 * columns
        shuffle = options["shuffle"] = draw.one_of(1, 1, 2, 3)
        gives = groups * shuffle**2 * draw.one_of(1, 2, 4, 5, 16, 32)
        weight, mask = weight_of(draw, gives, channels // groups, *kernel)
        options["border"] = draw.one_of("zeros", "zeros", "reflect", "replicate")
        sides = []
        for size, s in zip((rows, columns), span, strict=True):
            before = draw.number(0, min(s, size - 1))
            sides += [before, max(draw.number(0, min(s, size - 1)), s - size - before)]
        if options["border"] == "reflect" and any(
            max(sides[2 * i : 2 * i + 2]) >= n for i, n in enumerate((rows, columns))
        ):
            options["border"] = draw.one_of("zeros", "replicate")
        options["padding"] = tuple(sides)
        out = net.conv
    scales = 0.02 * torch.rand(gives, generator=draw.generator)
    bias = draw.one_of(None, draw.normal(gives))
    return lambda **more: out(held, weight, mask, bias, weight_scale=scales, **options, **more)


def random_bytes(seed: int, signal: bool):
    """Draw a program of convolutions of bytes with everything around them."""
    draw = Random(seed)
    channels = draw.one_of(1, 4, 6, 12, 24)
    rows, columns = 1 if signal else draw.number(1, 13), draw.number(20, 80) if signal else draw.number(1, 13)
    net, affines = Program((channels, rows, columns)), []
    value = net.input
    for _ in range(draw.number(1, 3)):
        held = quantized(draw, net, value, affines)
        make = convolved(draw, net, held, not draw.number(0, 2), signal)
        beside = make()  # the same again with addends, where they fit
        addends = [Addend(beside, draw.one_of(1.0, -0.7))]
        if draw.one_of(True, False):
            addends.append(Addend(quantized(draw, net, beside, affines), draw.one_of(1.0, 0.3)))
        value = make(add=addends, activation=draw.slope(beside.shape[0])) if draw.one_of(True, True, False) else beside
        if value.words > 20000:
            break
    outputs = [value]
    if draw.one_of(True, False):
        again = [quantized(draw, net, value, affines) for _ in range(draw.number(1, 4))]
        outputs = [net.sum([Addend(v, draw.one_of(1.0, 0.5)) for v in again], draw.slope(value.shape[0]))]
        outputs += draw.one_of([], [value])
    net.output(*outputs)
    return net, [draw.normal(17, *net.input.shape), *(draw.normal(17, 2, c) for c in affines)]


def layouts_of(net, *inputs):
    lib = library()
    for layout in net._layouts(lib.lanes):
        yield layout.mode, net._native(lib, layout)(inputs[:1], inputs[1:], net._outputs)


#: one program has maps so large that its truth takes seconds, on every instruction set anew
LARGE = pytest.param(6, marks=pytest.mark.slow)


@pytest.mark.parametrize("seed", [LARGE if seed == 6 else seed for seed in range(80)])
def test_random_programs_of_bytes(isa, seed):
    net, inputs = random_bytes(seed, signal=seed % 4 == 0)
    assert net.native
    want = net.dense(*inputs)
    results = dict(layouts_of(net, *inputs))
    assert set(results) == {BATCH, FLAT, ROWS, COLUMNS}
    for mode, got in results.items():
        for mine, truth in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
            assert torch.equal(mine, truth), (mode, (mine != truth).float().mean())


def in_blocks(*shape, outputs, inputs, axis=0):
    kept = torch.rand([n // {axis: outputs, 1 - axis: inputs}.get(at, 1) for at, n in enumerate(shape)]) < 0.3
    mask = kept.repeat_interleave(outputs, axis).repeat_interleave(inputs, 1 - axis)
    return torch.randint(-127, 128, shape, dtype=torch.int8), mask


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (33, 6), (8, 64)])
def test_sixteen_outputs_side_by_side_on_maps_of_every_size(isa, size):
    net = Program((16, *size))
    held = net.quantize(net.input, Quantized(0.02, 100))
    scales, bias = torch.rand(48) * 1e-3, torch.randn(48)
    options = {"padding": 1, "weight_scale": scales, "bias": bias}
    h = net.conv(held, *in_blocks(48, 16, 3, 3, outputs=16, inputs=4), upsample=True, activation=0.0, **options)
    beside = net.conv(held, *in_blocks(48, 16, 1, 1, outputs=16, inputs=4), weight_scale=scales)
    held = net.quantize(h, Quantized(0.03))
    h = net.conv(held, *in_blocks(48, 48, 3, 3, outputs=16, inputs=1), add=Addend(beside, 0.7, 2), **options)
    wide = in_blocks(48, 32, 4, 4, outputs=16, inputs=4, axis=1)
    held = net.quantize(h, Quantized(0.1, 3))
    net.output(net.conv_transpose(held, *wide, stride=2, padding=1, weight_scale=scales[:32]))
    x = torch.randn(1, 16, *size)
    want = net.dense(x)
    for mode, (got,) in layouts_of(net, x):
        assert torch.equal(got, want), mode


@pytest.mark.parametrize("images", [1, 9, 20])
def test_sixteen_outputs_with_everything_behind_them(isa, images):
    """Blocks that keep nothing, more entries than a matrix has, and all that can be fused, in every layout."""
    net = Program((36, 6, 5))
    held = net.quantize(net.input, Quantized(0.02, 100))
    scales, bias = torch.rand(64) * 1e-3, torch.randn(64)
    weight, mask = in_blocks(64, 36, 3, 3, outputs=16, inputs=4)
    for empty in (0, 2, 3):
        mask[16 * empty : 16 * empty + 16] = False
    mask[16:32, :32] = True
    options = {"padding": 1, "weight_scale": scales, "bias": bias}
    h = net.conv(held, weight, mask, activation=0.2, **options)
    one = net.quantize(h, Quantized(0.03, 7))
    shift = torch.randn(64)
    shift[4:6] = float("nan")
    two = net.quantize(h, Quantized(0.05, 9), scale=torch.rand(64), shift=shift, activation=0.0)
    sum_ = net.conv(two, *in_blocks(64, 64, 3, 3, outputs=16, inputs=4), add=(Addend(one, 0.5), Addend(h)), **options)
    last = net.quantize(sum_, Quantized(0.1, 3))
    tiny = net.conv(
        last, *in_blocks(64, 64, 3, 3, outputs=16, inputs=4), shuffle=2, activation=torch.rand(16), **options
    )
    net.output(sum_, tiny)
    x = torch.randn(images, 36, 6, 5)
    x[0, 3, 2, 1] = float("nan")
    want = net.dense(x)
    for mode, got in layouts_of(net, x):
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), mode


def test_which_weights_are_computed_some_outputs_at_a_time(isa):
    net = Program((8, 5, 5))
    held = net.quantize(net.input, Quantized(0.02))

    def blocks(outputs, inputs, size=32, mode=FLAT, most=1, side_by_side=True, **options):
        scales = torch.ones(size)
        weight, mask = in_blocks(size, 8 // options.get("groups", 1), 3, 3, outputs=outputs, inputs=inputs)
        net.conv(held, weight, mask, weight_scale=scales, **options)
        step = net._steps[-1]
        return words_of(step, together(step, mode, most, side_by_side=side_by_side)).blocks

    assert [blocks(16, 4), blocks(16, 1), blocks(16, 4, groups=2)] == [16, 16, 16]
    assert [blocks(1, 4), blocks(4, 4), blocks(8, 4, 24), blocks(16, 4, 64, shuffle=2)] == [1, 1, 1, 1]
    by_two = {"most": 2}
    assert [blocks(1, 4, **by_two), blocks(2, 4, **by_two), blocks(4, 4, **by_two), blocks(16, 4, **by_two)] == [
        1,
        2,
        2,
        16,
    ]
    assert blocks(16, 4, 64, shuffle=2, **by_two) == 2
    assert blocks(16, 4, side_by_side=False, **by_two) == 2  # where two are faster than sixteen
    by_four = {"mode": BATCH, "most": 4}
    assert [blocks(16, 4, **by_four), blocks(2, 4, **by_four)] == [4, 2]
    matrices = {"mode": BATCH, "most": 16}
    assert [blocks(16, 4, **matrices), blocks(16, 4, 64, shuffle=2, **matrices), blocks(8, 4, **matrices)] == [
        16,
        16,
        4,
    ]


def test_what_multiplies_bytes_is_told(isa):
    expected = {
        "amx": "tdpbsud",
        "avx512vnni": "vpdpbusd",
        "avxvnni": "vpdpbusd",
        "avx512": "pmaddubsw",
        "avx2": "pmaddubsw",
    }
    assert status().int8
    assert status().int8 == expected.get(isa, status().int8)
