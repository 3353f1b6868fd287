"""Masks and values as few bytes, without loss.

A mask is coded as the gaps between kept weights or as bits, whichever ends up smaller, then by deflate. Huffman codes
alone come within about 1 % of the entropy of an unstructured mask; string matching is tried too, which wins where whole
channels are kept or gone. A mask that keeps and drops whole units is coded with one decision for each, behind the
extents of a unit. The units are read off the mask itself, so that no pattern needs to be known here: blocks, kernels
and channels shrink whatever made them, and a file that was opened is written again to the byte.

Values keep every bit: their sign is turned to the low end, so that the exponent has a byte of its own, and all first
bytes, all second bytes, ... are coded apart. Only zlib is needed to read them, which every Python has; lzma and zstd
were not smaller on either (see ``docs/export.md``).
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gancompress.errors import ExportError
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["decode_mask", "decode_values", "encode_mask", "encode_values", "in_units"]

_STORED, _DEFLATED = b"\0", b"\1"
_BITS, _GAPS, _UNITS = b"B", b"G", b"U"
#: in a list of gaps: this many masked weights and no kept one after them
_SKIP = 255
_LENGTH = 8  # bytes of a length, little end first
_EXTENT = 4  # bytes of a unit's extent along one axis, little end first


def encode_mask(mask: Tensor) -> Tensor:
    """Code a bool tensor of any shape, in units where that takes fewer bytes; the shape is not part of the code.

    Returns:
        CPU uint8 tensor, (bytes,).
    """
    kept: NDArray[np.bool_] = mask.detach().cpu().numpy()
    code = _coded(kept)
    box, grid = _largest_units(kept)
    # a mask of one value takes few bytes either way: without units, readers of every version know it
    if 1 < grid.size < kept.size:
        extents = b"".join(extent.to_bytes(_EXTENT, "little") for extent in box)
        code = min(code, _UNITS + extents + _coded(grid), key=len)
    return _tensor(code)


def in_units(code: Tensor) -> bool:
    """Return whether the code of a mask is one in units, which readers of formats 1 and 2 do not know."""
    return code.numpy()[:1].tobytes() == _UNITS


def decode_mask(code: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`encode_mask`.

    Args:
        code: its result.
        shape: shape of the mask.

    Returns:
        CPU bool tensor.

    Raises:
        ExportError: the code is not one of a mask of this shape.
    """
    content = code.numpy().tobytes()
    if content[:1] != _UNITS:
        return torch.from_numpy(_decoded(content, math.prod(shape))).reshape(tuple(shape))
    behind = 1 + _EXTENT * len(shape)
    box = tuple(int.from_bytes(content[at : at + _EXTENT], "little") for at in range(1, behind, _EXTENT))
    if len(content) < behind or any(not extent or size % extent for size, extent in zip(shape, box, strict=True)):
        raise ExportError(f"a mask has units of {list(box)}, which do not fill {list(shape)}")
    units = Units(tuple(shape), box)
    return units.expand(torch.from_numpy(_decoded(content[behind:], units.count)).reshape(units.grid))


def _coded(kept: NDArray[np.bool_]) -> bytes:
    """Return the kind and the shortest code of decisions, taken in the order of the flattened array."""
    flat = kept.reshape(-1)
    bits = _BITS + _deflate(np.packbits(flat, bitorder="little").tobytes())
    gaps = _GAPS + _deflate(_gaps(np.flatnonzero(flat)))
    return min(gaps, bits, key=len)


def _decoded(content: bytes, count: int) -> NDArray[np.bool_]:
    """Undo :func:`_coded`, (count,)."""
    flat = np.zeros(count, dtype=np.bool_)
    kind, rest = content[:1], content[1:]
    if kind == _BITS:
        packed = np.frombuffer(_inflate(rest, (count + 7) // 8), np.uint8)
        if len(packed) != (count + 7) // 8:
            raise ExportError(f"a mask has {8 * len(packed)} bits for {count} units")
        flat[:] = np.unpackbits(packed, count=count, bitorder="little")
    elif kind == _GAPS:
        gaps = np.frombuffer(_inflate(rest, count + count // _SKIP + 1), np.uint8)
        end = np.cumsum(np.where(gaps == _SKIP, _SKIP, gaps.astype(np.int64) + 1))
        positions = end[gaps != _SKIP] - 1
        if len(positions) and positions[-1] >= count:
            raise ExportError(f"a mask keeps unit {positions[-1]} of {count}")
        flat[positions] = True
    else:
        raise ExportError("a mask is coded in an unknown way")
    return flat


def _largest_units(kept: NDArray[np.bool_]) -> tuple[list[int], NDArray[np.bool_]]:
    """Return the extents of the largest boxes that fill a mask and are kept or dropped as one, and which are kept.

    A box ends wherever the mask changes along an axis. So its extent divides the places of all changes, and the largest
    such extents are enough: within such a box nothing changes along any axis.
    """
    box = []
    for axis, size in enumerate(kept.shape):
        slices = np.moveaxis(kept, axis, 0)
        changed = (slices[1:] != slices[:-1]).any(tuple(range(1, kept.ndim)))
        box.append(math.gcd(size, *(np.flatnonzero(changed) + 1).tolist()) or 1)
        kept = np.moveaxis(slices[:: box[-1]], 0, axis)
    return box, kept


def encode_values(values: Tensor) -> Tensor:
    """Code a tensor of floating-point or int8 numbers so that every bit comes back, signs of zero included.

    Returns:
        CPU uint8 tensor, (bytes,).
    """
    words = _words(values.detach().cpu().reshape(-1).contiguous())
    top = 8 * words.itemsize - 1
    turned = (words << words.dtype.type(1)) | (words >> words.dtype.type(top)) if values.is_floating_point() else words
    planes = turned.astype(turned.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(-1, words.itemsize).T
    parts = [_deflate(plane.tobytes()) for plane in planes]
    return _tensor(b"".join(len(part).to_bytes(_LENGTH, "little") + part for part in parts))


def decode_values(code: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Undo :func:`encode_values`.

    Args:
        code: its result.
        count: number of values.
        dtype: of the values.

    Returns:
        CPU tensor, (count,).

    Raises:
        ExportError: the code is not one of so many values.
    """
    content, size, planes = code.numpy().tobytes(), dtype.itemsize, []
    for _ in range(size):
        end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
        plane = np.frombuffer(_inflate(content[_LENGTH:end], count), np.uint8)
        if len(plane) != count:
            raise ExportError(f"{len(plane)} values are coded, the mask keeps {count}")
        planes.append(plane)
        content = content[end:]
    if content:
        raise ExportError("there is more after the coded values")
    turned = np.stack(planes, axis=1).reshape(-1).view(f"<u{size}").astype(f"u{size}", copy=False)
    top = turned.dtype.type(8 * size - 1)
    words = (turned >> turned.dtype.type(1)) | (turned << top) if dtype.is_floating_point else turned
    return torch.from_numpy(words.view(f"i{size}")).view(dtype)


def _gaps(positions: NDArray[np.int64]) -> bytes:
    """Return how many masked weights stand before every kept one, one byte each; longer gaps begin with skips."""
    gaps = np.diff(positions, prepend=-1) - 1
    skips = gaps // _SKIP
    at = np.arange(len(gaps)) + np.cumsum(skips)
    code = np.full(len(gaps) + int(skips.sum()), _SKIP, dtype=np.uint8)
    code[at] = gaps % _SKIP
    return code.tobytes()


def _words(values: Tensor) -> NDArray[np.unsignedinteger]:
    """View numbers as unsigned integers of their size."""
    if not values.is_floating_point() and values.dtype is not torch.int8:
        raise TypeError(f"only floating-point and int8 values are coded, got {values.dtype}")
    size = values.dtype.itemsize
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    words: NDArray[np.unsignedinteger] = values.view(integers).numpy().view(f"u{size}")
    return words


def _deflate(content: bytes) -> bytes:
    found = [_STORED + content]
    for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY):
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
        found.append(_DEFLATED + coder.compress(content) + coder.flush())
    return min(found, key=len)


def _inflate(code: bytes, most: int) -> bytes:
    """Return the content, of ``most`` bytes at most: a forged file must not fill the memory."""
    kind, rest = code[:1], code[1:]
    if kind == _STORED:
        content = rest
    elif kind == _DEFLATED:
        coder = zlib.decompressobj(-15)
        try:
            content = coder.decompress(rest, most + 1)
        except zlib.error as error:
            raise ExportError(f"coded bytes are damaged ({error})") from error
        if coder.unused_data or not (coder.eof or len(content) > most):
            raise ExportError("coded bytes are cut short or too many")
    else:
        raise ExportError("bytes are coded in an unknown way")
    if len(content) > most:
        raise ExportError(f"more than {most} bytes are coded")
    return content


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
