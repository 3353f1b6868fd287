"""Single images through weights that are kept in blocks of outputs: these are computed together."""

from __future__ import annotations

import pytest
import torch
from programs import random_program

from gancompress.kernels import Program
from gancompress.kernels.native_library import FLAT, library
from gancompress.kernels.native_program import Layout, _in_blocks


def blocks(*shape, axis=0, density=0.3):
    kept = torch.rand([size // 16 if at == axis else size for at, size in enumerate(shape)]) < density
    return torch.randn(shape) / (shape[1] * shape[2]) ** 0.5, kept.repeat_interleave(16, axis)


def flat(net, *inputs):
    """What single images give."""
    results = net._native(library(), Layout(FLAT))(inputs, (), net._outputs)
    return results[0] if len(results) == 1 else results


@pytest.mark.parametrize("block", [16, 2])  # two outputs share what they read, with pixels in the lanes
@pytest.mark.parametrize("seed", range(40))
def test_programs_of_every_operation_against_torch(isa, seed, block):
    net, inputs, want = random_program(seed, 2, signal=seed % 3 == 0, block=block)
    got = flat(net, *inputs)
    for mine, truth in zip(got if isinstance(got, tuple) else (got,), want, strict=True):
        most = max(1.0, float(truth.abs().max()))
        torch.testing.assert_close(mine.double(), truth, rtol=1e-5, atol=1e-5 * most)


def test_by_hand(isa):
    # 32 outputs that are each the input, times the number of the output, where the first block is kept
    weight = torch.arange(32.0).reshape(32, 1, 1, 1).expand(32, 2, 1, 1).contiguous()
    mask = torch.zeros(32, 2, 1, 1, dtype=torch.bool)
    mask[:16, 0] = True
    net = Program((2, 1, 3))
    net.output(net.conv(net.input, weight, mask, torch.full((32,), 0.5)))
    x = torch.tensor([[[[1.0, 2.0, 3.0]], [[9.0, 9.0, 9.0]]]])
    got = net(x)
    assert got[0, 3, 0].tolist() == [3.5, 6.5, 9.5]
    assert got[0, 15, 0].tolist() == [15.5, 30.5, 45.5]
    assert (got[0, 16:] == 0.5).all()


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (33, 6), (8, 64)])
def test_maps_wider_and_higher_than_what_is_worked_on_at_a_time(isa, size):
    net = Program((48, *size))
    h = net.conv(net.input, *blocks(96, 48, 3, 3), torch.randn(96), padding=1, upsample=True, activation=0.0)
    h = net.conv_transpose(h, *blocks(96, 32, 4, 4, axis=1), stride=2, padding=1)
    net.output(net.conv(h, *blocks(16, 32, 3, 3), padding=1))
    x = torch.randn(1, 48, *size)
    torch.testing.assert_close(flat(net, x).double(), net.dense(x.double()), rtol=1e-5, atol=1e-4)


def test_only_weights_in_blocks_are_computed_so():
    net = Program((4, 3, 3), (4, 20, 20))
    for weight, mask, of_blocks in [
        (*blocks(32, 4, 3, 3), True),
        (torch.randn(32, 4, 3, 3), torch.rand(32, 4, 3, 3) < 0.3, False),
        (torch.randn(24, 4, 3, 3), torch.ones(24, 4, 3, 3, dtype=torch.bool), False),  # channels that do not divide
        (torch.randn(32, 4, 3, 3), torch.ones(32, 4, 3, 3, dtype=torch.bool), True),  # a dense weight is all blocks
    ]:
        net.conv(net.input, weight, mask)
        assert _in_blocks(net._steps[-1]) is of_blocks
    net.conv(net.input, *blocks(32, 2, 3, 3), groups=2)
    assert _in_blocks(net._steps[-1])
    net.conv(net.input, *blocks(16, 2, 3, 3), groups=2)  # blocks across groups
    assert not _in_blocks(net._steps[-1])
    net.conv(net.input, *blocks(64, 4, 3, 3), shuffle=2)
    assert not _in_blocks(net._steps[-1])
    for density, pays in ((0.08, False), (0.3, True)):  # on a large map
        net.conv(net.inputs[1], *blocks(1600, 4, 3, 3, density=density))
        assert _in_blocks(net._steps[-1]) is pays
        assert not _in_blocks(net._steps[-1], sharing=True)
