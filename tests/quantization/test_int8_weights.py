"""Weights in eight bits: the grid, and that it is met again."""

from __future__ import annotations

import pytest
import torch

from gancompress.quantization.weights import from_int8, rows_of, times_channels, to_int8

#: shape, transposed, groups
KINDS = [((6, 8, 3, 3), False, 1), ((6, 4, 3, 3), False, 2), ((8, 6, 4, 4), True, 1), ((8, 3, 2, 2), True, 2),
         ((6, 8, 5), False, 1), ((8, 3, 4), True, 2)]  # fmt: skip


def test_whole_numbers_by_hand():
    numbers, scales = to_int8(torch.tensor([[1.27, -0.314, 0.0], [0.0, 0.0, 0.0], [-254.0, 3.0, 5.0]])[:, :, None])
    assert scales.tolist() == pytest.approx([0.01, 0.0, 2.0], rel=1e-4)
    assert numbers[..., 0].tolist() == [[127, -31, 0], [0, 0, 0], [-127, 2, 2]]  # 1.5 and 2.5 go to even numbers


@pytest.mark.parametrize(("shape", "transposed", "groups"), KINDS)
def test_every_output_channel_has_its_scale(shape, transposed, groups):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    numbers, scales = to_int8(weight, transposed, groups)
    outputs = shape[1] * groups if transposed else shape[0]
    assert scales.shape == (outputs,)
    assert (rows_of(numbers, transposed, groups).abs().amax((1, 2)) == 127).all()
    again = from_int8(numbers, scales, transposed, groups)
    error = rows_of(again - weight, transposed, groups).abs().amax((1, 2))
    assert (error <= 0.501 * scales).all()
    # the rows are those that torch computes an output channel with
    conv = {True: torch.nn.functional.conv_transpose2d, False: torch.nn.functional.conv2d}[transposed]
    if len(shape) == 4:
        x = torch.randn(1, 8, 9, 9)
        scaled = from_int8(numbers, torch.ones(outputs), transposed, groups)
        want = conv(x, scaled, groups=groups) * scales[:, None, None]
        torch.testing.assert_close(conv(x, again, groups=groups), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gain", [1.0, -3.7, 1e-12, 2.0**-9])
@pytest.mark.parametrize(("shape", "transposed", "groups"), KINDS)
def test_a_grid_is_met_again_whatever_a_norm_scaled_it_by(shape, transposed, groups, gain):
    torch.manual_seed(1)
    numbers, scales = to_int8(torch.randn(shape), transposed, groups)
    on_grid = from_int8(numbers, scales, transposed, groups)
    exact = from_int8(numbers, torch.ones_like(scales), transposed, groups).double()
    rows = rows_of(exact, transposed, groups) * scales.double()[:, None, None]
    assert torch.equal(rows_of(on_grid, transposed, groups).double(), rows)  # nothing was rounded
    again, same = to_int8(on_grid * gain, transposed, groups)
    assert torch.equal(again, numbers if gain > 0 else -numbers)
    if gain in (1.0, 2.0**-9):
        assert torch.equal(same, scales * gain)


@pytest.mark.parametrize(("shape", "transposed", "groups"), [kind for kind in KINDS if len(kind[0]) == 4])
def test_input_channels_are_those_of_torch(shape, transposed, groups):
    torch.manual_seed(2)
    weight, factors, x = torch.randn(shape), torch.rand(8) + 0.5, torch.randn(2, 8, 7, 7)
    conv = {True: torch.nn.functional.conv_transpose2d, False: torch.nn.functional.conv2d}[transposed]
    moved = conv(x / factors[:, None, None], times_channels(weight, factors, transposed, groups), groups=groups)
    torch.testing.assert_close(moved, conv(x, weight, groups=groups), rtol=1e-4, atol=1e-4)
