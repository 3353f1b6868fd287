"""One file for a page: the kernels, what a generator computes, and its kept weights, in few streams that are deflated.

A ``.gcw`` file is read by ``generator.js`` alone and is remade with every export, so it has one version and no history.
All numbers are little-endian:

====================  ==========================================================================================
8 bytes               ``GCWEB``, two zeros and the format
20 bytes              BLAKE2b-160 of everything behind
6 x 2 numbers         of each stream its bytes here and when it is unpacked; equal where it is stored as it is
6 streams             ``kernels`` (WebAssembly), ``header`` (JSON), ``high``, ``low``, ``gaps``, ``whole``
====================  ==========================================================================================

Tensors lie one behind the other in the streams, in the order of the header's ``tensors``. Of a float the sign is turned
to the low end, so that its exponent fills one byte: that byte stands in ``high``, which deflates, and the rest, which
does not, in ``low``. Weights in eight bits stand in ``whole``. Of a tensor with a mask only kept values are there, and
``gaps`` holds one byte for each: how many masked ones stand before it, where 255 is that many and no value.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gancompress.web.build import shipped
from gancompress.web.container import FORMAT, HASH_BYTES, MAGIC, STREAMS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["FORMAT", "MAGIC", "Tensors", "gaps_of", "write_blob"]

#: in a list of gaps: this many masked values and no kept one after them
_SKIP = 255
#: bits behind the exponent of a float32, a bfloat16
_LOW_BYTES = {"f32": 3, "bf16": 1}
#: how near a weight must be to its bfloat16 times the scale of its row to be written so, as a share of the largest
_NEAR = 1e-6


class Tensors:
    """The tensors of a file, each written once."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._streams: dict[str, list[bytes]] = {name: [] for name in ("high", "low", "gaps", "whole")}
        self._known: dict[Any, int] = {}

    def streams(self) -> dict[str, bytes]:
        """Return what the tensors are in the file, by the names of the streams."""
        return {name: b"".join(parts) for name, parts in self._streams.items()}

    def add(self, tensor: Tensor | None, mask: Tensor | None = None, *, rounded: Tensor | None = None) -> int:
        """Take a tensor, and return its place; -1 for None.

        Args:
            tensor: float, or int8.
            mask: what of it is kept; the rest is 0.
            rounded: a bfloat16-valued float32 of the same shape, ``[R, ...]`` or transposed ``[C, R, ...]``, of which
                every row times a number of its own may be the tensor; if it is, two bytes stand for each value.
        """
        if tensor is None:
            return -1
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        kept = None if mask is None or bool(mask.all()) else mask.cpu().reshape(-1).numpy()
        values = flat.numpy() if kept is None else flat.numpy()[kept]
        key = (str(flat.dtype), tuple(tensor.shape), values.tobytes(), None if kept is None else kept.tobytes())
        if key in self._known:
            return self._known[key]
        entry: dict[str, Any] = {"n": flat.numel(), "as": "i8" if flat.dtype is torch.int8 else "f32"}
        if rounded is not None and entry["as"] == "f32":
            scaled = _row_scales(tensor.float(), rounded.float())
            if scaled is not None:
                scales, inner = scaled
                entry |= {"as": "bf16", "scale": self.add(scales), "inner": inner}
                other = rounded.detach().reshape(-1).float().numpy()
                values = other if kept is None else other[kept]
        if kept is not None:
            entry["kept"] = len(values)
            self._streams["gaps"].append(gaps_of(np.flatnonzero(kept)).tobytes())
        if entry["as"] == "i8":
            self._streams["whole"].append(values.tobytes())
        else:
            high, low = _split(values.astype(np.float32), _LOW_BYTES[entry["as"]])
            self._streams["high"].append(high)
            self._streams["low"].append(low)
        self._known[key] = len(self.entries)
        self.entries.append(entry)
        return self._known[key]


def gaps_of(kept: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the gaps before each of the kept places, which ascend, as bytes."""
    gaps = np.diff(kept, prepend=-1) - 1
    skips, rest = gaps // _SKIP, gaps % _SKIP
    out = np.full(int(skips.sum()) + len(gaps), _SKIP, dtype=np.uint8)
    out[np.cumsum(skips + 1) - 1] = rest
    return out


def _split(values: NDArray[np.float32], low_bytes: int) -> tuple[bytes, bytes]:
    bits = values.view(np.uint32)
    if low_bytes == 1:
        short = bits >> np.uint32(16)  # of numbers that are bfloat16 already
        turned = ((short << np.uint32(1)) | (short >> np.uint32(15))) & np.uint32(0xFFFF)
        return (turned >> np.uint32(8)).astype(np.uint8).tobytes(), (turned & np.uint32(255)).astype(np.uint8).tobytes()
    turned = (bits << np.uint32(1)) | (bits >> np.uint32(31))
    four = turned.astype("<u4").view(np.uint8).reshape(-1, 4)
    return four[:, 3].tobytes(), four[:, :3].tobytes()


def _row_scales(tensor: Tensor, rounded: Tensor) -> tuple[Tensor, int] | None:
    """Return a number per row and the values between two rows, where they make the tensor of the rounded one.

    Rows are of the first axis, or of the second.
    """
    if not torch.equal(rounded, rounded.to(torch.bfloat16).float()):
        return None
    for axis in (0, 1)[: tensor.dim()]:
        across = [other for other in range(tensor.dim()) if other != axis]
        products, squares = (tensor.double() * rounded.double()).sum(across), rounded.double().square().sum(across)
        scales = torch.where(squares > 0, products / squares, 1.0).float()
        near = scales.reshape([-1 if other == axis else 1 for other in range(tensor.dim())]) * rounded
        if float((near - tensor).abs().max()) <= _NEAR * float(tensor.abs().max()):
            return scales, int(np.prod(tensor.shape[axis + 1 :], dtype=np.int64))
    return None


def write_blob(header: dict[str, Any], tensors: Tensors) -> bytes:
    """Return the file: the same bytes for the same generator."""
    parts = {
        "kernels": shipped().read_bytes(),
        "header": json.dumps(header | {"tensors": tensors.entries}, separators=(",", ":")).encode(),
        **tensors.streams(),
    }
    packed = {name: _deflated(parts[name]) for name in STREAMS}
    sizes = b"".join(struct.pack("<II", len(packed[name]), len(parts[name])) for name in STREAMS)
    behind = sizes + b"".join(packed[name] for name in STREAMS)
    return MAGIC + hashlib.blake2b(behind, digest_size=HASH_BYTES).digest() + behind


def _deflated(content: bytes) -> bytes:
    """Return what is shortest: Huffman codes alone, these with matches, or the content as it is."""
    tried = [content]
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
        tried.append(packer.compress(content) + packer.flush())
    return min(tried, key=len)
