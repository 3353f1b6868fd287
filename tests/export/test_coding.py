"""Coded masks and values: every bit comes back, in about as few bytes as there can be, and damage is noticed."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gancompress.errors import ExportError
from gancompress.export.coding import decode_mask, decode_values, encode_mask, encode_values


def back(mask: torch.Tensor) -> torch.Tensor:
    return decode_mask(encode_mask(mask), mask.shape)


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


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_mask_or_an_error(content: bytes) -> None:
    with contextlib.suppress(ExportError):
        assert decode_mask(torch.tensor(list(content), dtype=torch.uint8), (5, 5)).shape == (5, 5)
