"""How a tensor lies in a file: kept values and a mask, coded where that is shorter; its line in the file's table."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.errors import ExportError
from gancompress.export.coding import decode_mask, decode_values, encode_mask, encode_values, in_units
from gancompress.quantization.weights import from_int8, rows_of, times_channels, to_int8

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

__all__ = ["FORMAT", "Grid", "declared_tensor", "decode_tensor", "density", "encode_tensor", "format_of"]

#: the newest version of the layout of tensors: 2 has weights in eight bits, 3 masks in units
FORMAT = 3

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8,
                  torch.int8, torch.bool)
}  # fmt: skip
_MASK, _VALUES, _SCALES = ":mask", ":values", ":scales"


@dataclasses.dataclass(frozen=True)
class Grid:
    """How a convolution's weight is brought to eight bits.

    Attributes:
        transposed: of the convolution.
        groups: of the convolution.
        factors: what input channels are multiplied by before, ``(C,)``; None where by nothing.
    """

    transposed: bool
    groups: int
    factors: Tensor | None = None


def encode_tensor(
    tensor: Tensor, mask: Tensor | None, mantissa: int | None = None, grid: Grid | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the parts of a tensor by suffix and its line in the document's table.

    Args:
        tensor: of any dtype that can be packed.
        mask: True where it is kept; None keeps all of it.
        mantissa: bits of the mantissa to round float32 to, at most the 7 of bfloat16, which it is stored as; None
            keeps every bit.
        grid: of a weight in eight bits; its scales are a part of their own.
    """
    entry: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if entry["dtype"] not in _DTYPES:
        raise ExportError(f"tensors of {tensor.dtype} cannot be packed")
    if not tensor.is_floating_point():
        return {"": tensor}, entry
    more: dict[str, Tensor] = {}
    if grid is not None:
        whole = tensor if grid.factors is None else times_channels(tensor, grid.factors, grid.transposed, grid.groups)
        tensor, scales = to_int8(whole, grid.transposed, grid.groups)
        entry |= {"values": "int8", "transposed": grid.transposed, "groups": grid.groups}
        more = {_SCALES: encode_values(scales)}
    kept = tensor.reshape(-1) if mask is None else tensor.masked_select(mask.cpu())
    if mantissa is not None:
        kept, entry["values"] = _rounded(kept, mantissa), "bfloat16"
    code = encode_values(kept)
    if mask is not None:
        return {_VALUES: code, _MASK: encode_mask(mask), **more}, {**entry, "kept": kept.numel()}
    if more or code.numel() < kept.numel() * kept.element_size():
        return {_VALUES: code, **more}, entry
    return {"": kept.reshape(tensor.shape)}, entry


def _rounded(values: Tensor, mantissa: int) -> Tensor:
    """Return float32 as bfloat16, to the nearest of those with so many bits of mantissa, ties to even."""
    drop = 23 - mantissa
    words = values.view(torch.int32)
    near = ((words + (1 << (drop - 1)) - 1 + ((words >> drop) & 1)) >> drop) << drop
    return torch.where(values.isfinite(), near.view(torch.float32), values).to(torch.bfloat16)


def format_of(stored: Mapping[str, Tensor], *, int8: bool) -> int:
    """Return the oldest version of the layout that has all of these: older readers open what they can read.

    Args:
        stored: parts of tensors by name and suffix.
        int8: whether the file has weights in eight bits.
    """
    if any(name.endswith(_MASK) and in_units(part) for name, part in stored.items()):
        return 3
    return 2 if int8 else 1


def declared_tensor(entry: Mapping[str, Any]) -> Tensor:
    """Return a tensor without memory, as its line in the table says it is."""
    return torch.empty(_shape(entry), dtype=_DTYPES[entry["dtype"]], device="meta")


def density(masks: Mapping[str, Tensor]) -> float:
    """Return the share of kept weights among all that have a mask, 1 without masks."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0


def decode_tensor(
    name: str, stored: MutableMapping[str, Tensor], entry: Mapping[str, Any], factors: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return a tensor and its mask, and take its parts out of what is ``stored``.

    Args:
        name: of the tensor.
        stored: parts of tensors by name and suffix.
        entry: its line in the document's table.
        factors: what input channels were multiplied by before the weight was brought to eight bits, ``(C,)``.
    """
    suffixes = ("", _VALUES, _MASK, _SCALES)
    parts = {suffix: stored.pop(name + suffix) for suffix in suffixes if name + suffix in stored}
    if entry.get("values") != "int8":
        return _decode(parts, entry)
    grid = Grid(entry["transposed"] is True, int(entry["groups"]), factors)
    scales = parts.pop(_SCALES, None)
    numbers, mask = _decode(parts, {**entry, "dtype": "int8"})
    return _weight(numbers, scales, grid), mask


def _weight(numbers: Tensor, scales: Tensor | None, grid: Grid) -> Tensor:
    """Return the weight that whole numbers and coded scales stand for, whatever a forged file has of them."""
    if numbers.dim() < 3 or grid.groups < 1 or numbers.shape[0] % grid.groups:
        raise ExportError(f"a weight of {list(numbers.shape)} is no convolution's of {grid.groups} groups")
    if bool((numbers == -128).any()):
        raise ExportError("its whole numbers are to be -127 to 127")
    rows = rows_of(numbers, grid.transposed, grid.groups)
    if scales is None or scales.dtype is not torch.uint8 or scales.dim() != 1:
        raise ExportError("it has whole numbers and no scales")
    factors = decode_values(scales, len(rows), torch.float32)
    weight = from_int8(numbers, factors, grid.transposed, grid.groups)
    if not bool((factors >= 0).all()) or not bool(weight.isfinite().all()):
        raise ExportError("its scales are to be positive and finite")
    if grid.factors is None:
        return weight
    if len(grid.factors) != rows.shape[1] * grid.groups:
        raise ExportError(f"{len(grid.factors)} exponents for {rows.shape[1] * grid.groups} channels")
    return times_channels(weight, 1 / grid.factors, grid.transposed, grid.groups)


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in entry["shape"])
    if min(shape, default=0) < 0:
        raise ExportError(f"a shape {list(shape)} is impossible")
    return shape


def _decode(parts: Mapping[str, Tensor], entry: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    shape, dtype = _shape(entry), _DTYPES[entry["dtype"]]
    held = _DTYPES[entry.get("values", entry["dtype"])]
    if parts.keys() == {""}:
        whole = parts[""]
        if tuple(whole.shape) != shape or whole.dtype is not held:
            raise ExportError(f"it is {tuple(whole.shape)} {whole.dtype}, the table says {shape} {held}")
        return whole.to(dtype), None
    codes = all(code.dtype is torch.uint8 and code.dim() == 1 for code in parts.values())
    if not codes or parts.keys() != ({_VALUES, _MASK} if "kept" in entry else {_VALUES}):
        raise ExportError("its parts are not those that the table says")
    if _MASK not in parts:
        return decode_values(parts[_VALUES], math.prod(shape), held).to(dtype).reshape(shape), None
    mask = decode_mask(parts[_MASK], shape)
    kept = int(mask.sum())
    if kept != entry["kept"]:
        raise ExportError(f"its mask keeps {kept} weights, the table says {entry['kept']}")
    tensor = torch.zeros(shape, dtype=dtype)
    tensor[mask] = decode_values(parts[_VALUES], kept, held).to(dtype)
    return tensor, mask
