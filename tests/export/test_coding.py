"""Coded masks and values: every bit comes back, in about as few bytes as there can be, and damage is noticed."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gancompress.backbones.base import prunable_weights
from gancompress.components.registry import PATTERNS
from gancompress.errors import ExportError
from gancompress.export.coding import decode_mask, decode_values, encode_mask, encode_values, in_units
from gancompress.sparsity.select import at_random
from gancompress.sparsity.units import Units


def back(mask: torch.Tensor) -> torch.Tensor:
    return decode_mask(encode_mask(mask), mask.shape)


def bytes_of(mask: torch.Tensor) -> bytes:
    return bytes(encode_mask(mask).tolist())


def decoded(content: bytes, *shape: int) -> list[list[int]]:
    return decode_mask(torch.tensor(list(content), dtype=torch.uint8), shape).int().tolist()


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("count", [1, 7, 8, 9, 254, 255, 256, 257, 509, 510, 511, 2000])
def test_masks_at_the_edges_come_back(count: int) -> None:
    empty = torch.zeros(count, dtype=torch.bool)
    first, last = empty.clone(), empty.clone()
    first[0], last[-1] = True, True
    for mask in (empty, ~empty, first, last, first | last, ~first, ~last):
        assert torch.equal(back(mask), mask)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4)))
def test_any_mask_comes_back(seed: int, density: float, shape: tuple[int, ...]) -> None:
    mask = torch.from_numpy(np.random.default_rng(seed).random(shape) < density)
    assert torch.equal(back(mask), mask)


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.2, 0.5, 0.9])
def test_a_random_mask_takes_little_more_than_its_entropy(density: float) -> None:
    mask = torch.rand(128, 128, 3, 3, generator=torch.Generator().manual_seed(0)) < density
    share = float(mask.float().mean())
    entropy = -mask.numel() / 8 * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    assert entropy * 0.99 < encode_mask(mask).numel() < entropy * 1.03 + 100


def test_whole_channels_take_almost_nothing() -> None:
    mask = torch.zeros(128, 128, 3, 3, dtype=torch.bool)
    mask[::2] = True
    assert encode_mask(mask).numel() < 400


def test_masks_without_units_by_hand() -> None:
    # the first bit is the lowest: 0, 2 and 3 of the first eight, 9 of all
    assert bytes_of(torch.tensor([1, 0, 1, 1, 0, 0, 0, 0, 0, 1], dtype=torch.bool)) == b"B\0\x0d\x02"
    assert decoded(b"B\0\x0d\x02", 2, 5) == [[1, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    last = torch.zeros(300, dtype=torch.bool)
    last[299] = True
    assert bytes_of(last) == b"G\0\xff\x2c"  # 255 masked ones, 44 more, and the kept one
    assert decoded(b"G\0\xff\x2c", 300)[299] == 1


def test_masks_in_units_by_hand() -> None:
    # one axis of eights: the units 0, 2, 3 and 6 are kept, 1 + 4 + 8 + 64
    eights = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0], dtype=torch.bool).repeat_interleave(8)
    assert bytes_of(eights) == b"U\x08\0\0\0B\0\x4d"
    # blocks of 2x4: 0, 2, 3 and 6 again, and 8, 9, 11 and 13
    grid = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 1], [0, 1, 0, 0]], dtype=torch.bool)
    blocks = grid.repeat_interleave(2, 0).repeat_interleave(4, 1)
    assert bytes_of(blocks) == b"U\x02\0\0\0\x04\0\0\0B\0\x4d\x2b"
    # the axes are not alike: of blocks of 1x3, the first of row 0 and the second of row 1, as bits and as gaps
    wanted = [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert decoded(b"U\x01\0\0\0\x03\0\0\0B\0\x09", 2, 6) == wanted
    assert decoded(b"U\x01\0\0\0\x03\0\0\0G\0\0\x02", 2, 6) == wanted
    # extents have four bytes, the lowest first
    assert decoded(b"U\x2c\x01\0\0B\0\x02", 600) == [0] * 300 + [1] * 300


LAYERS = [
    nn.Conv2d(6, 10, 3),
    nn.Conv2d(16, 32, 1),
    nn.Conv2d(16, 32, (3, 1), groups=4),
    nn.Conv2d(8, 3, 3),
    nn.ConvTranspose2d(16, 12, 4),
    nn.ConvTranspose2d(32, 16, 2, groups=2),
    nn.Conv1d(5, 7, 5),
    nn.Conv1d(32, 16, 3),
    nn.Conv3d(4, 16, 2),
    nn.Linear(36, 20),
    nn.Linear(7, 5),
]
MADE = [
    ("unstructured", {}), ("kernels", {}), ("channels", {}), ("nm", {"n": 2, "m": 4}),
    *(("block", {"outputs": a, "inputs": b}) for a, b in ((1, 4), (2, 4), (16, 1), (16, 4), (3, 2), (5, 1))),
]  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(LAYERS), st.sampled_from(MADE), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_masks_of_every_pattern_come_back(layer: nn.Module, made: tuple[str, dict], seed: int, share: float) -> None:
    name, options = made
    kind = PATTERNS.get(name)
    own = prunable_weights(layer)["weight"].layer
    units = kind(kind.Config(**options)).units(own) or Units.single(own.shape)
    kept = round(share * units.most / units.size) * units.size
    rng = torch.Generator().manual_seed(seed)
    mask = at_random({"weight": units}, {"weight": own.shape}, {"weight": kept}, rng)["weight"]
    found = back(mask)
    assert found.dtype is torch.bool
    assert torch.equal(found, mask)
    assert torch.equal(back(mask.transpose(0, 1)), mask.transpose(0, 1))  # however it lies in memory


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
)
def test_masks_in_units_of_any_box_come_back(axes: list[tuple[int, int]], seed: int, share: float) -> None:
    grid, box = zip(*axes, strict=True)
    units = Units(tuple(a * b for a, b in axes), box)
    mask = units.expand(torch.from_numpy(np.random.default_rng(seed).random(grid) < share))
    assert torch.equal(back(mask), mask)


@pytest.mark.parametrize("box", [(1, 4, 1, 1), (2, 4, 1, 1), (16, 1, 1, 1), (16, 4, 1, 1), (1, 1, 3, 3)])
@pytest.mark.parametrize("density", [0.05, 0.1, 0.2])
def test_a_mask_in_units_takes_the_entropy_of_its_units(box: tuple[int, ...], density: float) -> None:
    units = Units((256, 256, 3, 3), box)
    chosen = torch.rand(units.grid, generator=torch.Generator().manual_seed(0)) < density
    share = float(chosen.float().mean())
    entropy = -units.count / 8 * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    code = encode_mask(units.expand(chosen))
    assert in_units(code)
    assert entropy * 0.99 < code.numel() < entropy * 1.03 + 100


def test_other_masks_stay_what_older_versions_read() -> None:
    single = torch.rand(128, 128, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.1
    for mask in (single, torch.ones_like(single), torch.zeros_like(single), torch.ones(8, 0, 3, dtype=torch.bool)):
        assert not in_units(encode_mask(mask))
        assert torch.equal(back(mask), mask)
    # in units it would be longer: extents take four bytes an axis
    small = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    assert bytes_of(small) == b"B\0\xc3"


def test_odd_values_come_back_bit_for_bit() -> None:
    words = np.array([0, 1 << 31, 1, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFABCDEF, 0x3F800000], dtype=np.uint32)
    values = torch.from_numpy(words.view(np.float32))
    assert same_bits(decode_values(encode_values(values), len(values), torch.float32), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_values_of_every_kind_come_back(dtype: torch.dtype, count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = decode_values(encode_values(values), count, dtype)
    assert found.dtype is dtype
    assert torch.equal(found.double(), values.double())


def test_weights_take_less_than_their_bits() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(1)) * 0.02
    assert encode_values(values).numel() < 0.85 * 4 * 20_000
    assert encode_values(values.bfloat16()).numel() < 0.68 * 2 * 20_000


def test_whole_numbers_are_not_coded() -> None:
    with pytest.raises(TypeError, match="floating-point"):
        encode_values(torch.arange(3))


@pytest.mark.parametrize("coded", [b"", b"X\0", b"B\0\1\1\1", b"B", b"G\0\xfe\xfe", b"G\1garbage", b"G\2x", b"B\1\3\0"])
def test_a_damaged_mask_is_an_error(coded: bytes) -> None:
    with pytest.raises(ExportError):
        decode_mask(torch.tensor(list(coded), dtype=torch.uint8), (3, 4))


@pytest.mark.parametrize(
    ("coded", "reason"),
    [
        (b"U", r"units of \[0, 0\], which do not fill \[3, 4\]"),
        (b"U\x01\0\0\0\x02\0\0", "do not fill"),  # cut short
        (b"U\x01\0\0\0\x02\0\0\0", "unknown way"),
        (b"U\0\0\0\0\x02\0\0\0B\0\0", r"units of \[0, 2\]"),
        (b"U\x01\0\0\0\x03\0\0\0B\0\0", r"units of \[1, 3\], which do not fill \[3, 4\]"),
        (b"U\x06\0\0\0\x02\0\0\0B\0\0", r"units of \[6, 2\]"),
        (b"U\xff\xff\xff\xff\x02\0\0\0B\0\0", "do not fill"),
        (b"U\x01\0\0\0\x02\0\0\0U\x01\0\0\0\x01\0\0\0B\0\0", "unknown way"),  # units of units
        (b"U\x01\0\0\0\x02\0\0\0X\0\0", "unknown way"),
        (b"X\x01\0\0\0\x02\0\0\0B\0\0", "unknown way"),
        (b"U\x01\0\0\0\x02\0\0\0B\0\0\0", "more than 1 bytes"),  # 16 bits for 6 units
        (b"U\x01\0\0\0\x02\0\0\0B\0", "0 bits"),
        (b"U\x01\0\0\0\x02\0\0\0G\0\x06", "keeps unit 6 of 6"),
    ],
)
def test_forged_units_are_an_error_in_one_line(coded: bytes, reason: str) -> None:
    with pytest.raises(ExportError, match=reason) as error:
        decoded(coded, 3, 4)
    assert "\n" not in str(error.value)


def test_damaged_values_are_an_error() -> None:
    code = encode_values(torch.randn(50))
    for wrong in (code[:-1], code[:5], torch.cat([code, code[:1]]), code[1:], code[:0]):
        with pytest.raises(ExportError):
            decode_values(wrong, 50, torch.float32)
    with pytest.raises(ExportError, match="coded"):
        decode_values(code, 49, torch.float32)
    with pytest.raises(ExportError, match="coded"):
        decode_values(code, 51, torch.float32)


def test_a_small_file_cannot_fill_the_memory() -> None:
    bomb = encode_mask(torch.ones(2_000_000, dtype=torch.bool))
    assert bomb.numel() < 1000
    with pytest.raises(ExportError, match="more than"):
        decode_mask(bomb, (8,))
    units = torch.cat([torch.tensor([*b"U\x04\0\0\0"], dtype=torch.uint8), bomb])
    with pytest.raises(ExportError, match="more than"):
        decode_mask(units, (8,))


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_mask_or_an_error(content: bytes) -> None:
    with contextlib.suppress(ExportError):
        assert decode_mask(torch.tensor(list(content), dtype=torch.uint8), (5, 5)).shape == (5, 5)
    with contextlib.suppress(ExportError):
        assert np.shape(decoded(b"U\x02\0\0\0\x01\0\0\0" + content, 4, 2)) == (4, 2)
