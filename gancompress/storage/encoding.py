"""Tensors as safetensors bytes and scalars as JSON, so that what comes back is equal, bit for bit.

Bool tensors take one bit per element. Equal groups give equal bytes whatever the order of their names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load, save

from gancompress.errors import CheckpointError
from gancompress.storage.reading import parse_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["decode_tensors", "encode_tensors", "plain", "stored_bytes"]


def encode_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Encode a group as safetensors; bool tensors as bits, little end first, with their shapes in the metadata."""
    stored: dict[str, Tensor] = {}
    bits: dict[str, list[int]] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        if tensor.dtype is torch.bool:
            bits[name] = list(tensor.shape)
            packed = np.packbits(tensor.numpy().reshape(-1), bitorder="little")
            stored[name] = torch.from_numpy(packed)
        else:
            # safetensors refuses two names for one storage; a copy also makes saving blind to later changes.
            stored[name] = tensor.clone()
    # safetensors writes metadata in random order: a single entry has only one.
    metadata = {"bits": json.dumps(bits, sort_keys=True)} if bits else None
    return bytes(save(stored, metadata=metadata))


def decode_tensors(content: bytes, *, where: str) -> dict[str, Tensor]:
    """Return the tensors of :func:`encode_tensors`, on the CPU, in alphabetical order.

    Args:
        content: all bytes of a file.
        where: its path, for messages.

    Raises:
        CheckpointError: the bytes are not a safetensors file, or its bits do not fit their shapes.
    """
    try:
        stored = load(content)
        header = from_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
        bits = parse_json(header.get("__metadata__", {}).get("bits", "{}").encode())
    except (SafetensorError, ValueError, AttributeError) as error:
        raise CheckpointError(f"not a safetensors file of this project ({error})", where=where) from error
    tensors: dict[str, Tensor] = {}
    for name in sorted(stored):
        tensor = stored[name]
        if name in bits:
            shape = bits[name]
            told = isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape)
            count = math.prod(shape) if told else -1
            if tensor.dtype is not torch.uint8 or tensor.numel() != -(-count // 8):
                raise CheckpointError(f"the bits of {name} do not fit its shape {bits[name]}", where=where)
            flat = np.unpackbits(tensor.numpy(), count=count, bitorder="little").astype(bool)
            tensor = torch.from_numpy(flat).reshape(bits[name])
        tensors[name] = tensor
    return tensors


def plain(value: Any, where: str) -> Any:
    """Return ``value`` for JSON: tuples as lists, all else as it is.

    Raises:
        TypeError: something in it is not JSON's; keys that are numbers would come back as text.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: key {key!r} is not a string")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{where}: a checkpoint cannot hold a {type(value).__name__}; use numbers, strings, lists, dicts")


def stored_bytes(tensor: Tensor) -> int:
    """Return the bytes that :func:`encode_tensors` takes for the elements of ``tensor``."""
    return -(-tensor.numel() // 8) if tensor.dtype is torch.bool else tensor.numel() * tensor.element_size()
