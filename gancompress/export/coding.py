"""Masks and values as few bytes, without loss.

A mask is coded as the gaps between kept weights or as bits, whichever ends up smaller, then by deflate. Huffman codes
alone come within about 1 % of the entropy of an unstructured mask; string matching is tried too, which wins where whole
channels are kept or gone. Values keep every bit: their sign is turned to the low end, so that the exponent has a
byte of its own, and all first bytes, all second bytes, ... are coded apart. Only zlib is needed to read them, which
every Python has; lzma and zstd were not smaller on either (see ``docs/export.md``).
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gancompress.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["decode_mask", "decode_values", "encode_mask", "encode_values"]

_STORED, _DEFLATED = b"\0", b"\1"
_BITS, _GAPS = b"B", b"G"
#: in a list of gaps: this many masked weights and no kept one after them
_SKIP = 255
_LENGTH = 8  # bytes of a length, little end first


def encode_mask(mask: Tensor) -> Tensor:
    """Code a bool tensor of any shape; the shape is not part of the code.

    Returns:
        CPU uint8 tensor, (bytes,).
    """
    kept: NDArray[np.bool_] = mask.detach().cpu().reshape(-1).numpy()
    bits = _BITS + _deflate(np.packbits(kept, bitorder="little").tobytes())
    gaps = _GAPS + _deflate(_gaps(np.flatnonzero(kept)))
    return _tensor(min(gaps, bits, key=len))


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
    count, content = math.prod(shape), code.numpy().tobytes()
    flat = np.zeros(count, dtype=np.bool_)
    kind, rest = content[:1], content[1:]
    if kind == _BITS:
        packed = np.frombuffer(_inflate(rest, (count + 7) // 8), np.uint8)
        if len(packed) != (count + 7) // 8:
            raise ExportError(f"a mask has {8 * len(packed)} bits, its weight {count} elements")
        flat[:] = np.unpackbits(packed, count=count, bitorder="little")
    elif kind == _GAPS:
        gaps = np.frombuffer(_inflate(rest, count + count // _SKIP + 1), np.uint8)
        end = np.cumsum(np.where(gaps == _SKIP, _SKIP, gaps.astype(np.int64) + 1))
        positions = end[gaps != _SKIP] - 1
        if len(positions) and positions[-1] >= count:
            raise ExportError(f"a mask keeps weight {positions[-1]} of a tensor of {count}")
        flat[positions] = True
    else:
        raise ExportError("a mask is coded in an unknown way")
    return torch.from_numpy(flat).reshape(tuple(shape))


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
