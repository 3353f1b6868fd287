"""The cache directory, and a cache of tensors in it for concurrent processes, checked when read.

Imports no torch before a tensor is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from gancompress.storage.atomic import sweep, write_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["cache_directory", "hash_tensors", "load_tensors", "store_tensors"]


def cache_directory() -> Path:
    """Return the directory of what can be made again, which need not exist.

    ``$GANCOMPRESS_CACHE``, else ``$XDG_CACHE_HOME/gancompress``, else ``~/.cache/gancompress``; for one without a home
    a folder among the temporary files. A ``~`` in the first two is the user's home.
    """
    own, shared = os.environ.get("GANCOMPRESS_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(own).expanduser() if own else Path(shared or "~/.cache").expanduser() / "gancompress"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "gancompress"


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes, independent of order and device."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return the tensors and metadata of a cache file; None when there is none, or a damaged one, which is removed."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Read once: safe_open opens the path twice, for the header and for the data; another process may replace the
        # file in between.
        content = path.read_bytes()
    except OSError:
        return None
    try:
        tensors = load(content)
        metadata = _metadata(content)
    except SafetensorError:
        _remove(path)
        return None
    if metadata.pop("sha256", None) != hash_tensors(tensors):
        _remove(path)
        return None
    return tensors, metadata


def store_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a cache file. It appears whole or not at all; a disk that cannot be written to costs only a warning."""
    from safetensors.torch import save

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        # save_file would put a file of its own, that only its owner may read, in place of the one that is locked
        write_file(path, save(whole, metadata={**metadata, "sha256": hash_tensors(whole)}))
    except Exception as error:  # safetensors wraps a full disk in an error of its own
        warnings.warn(f"cannot cache {path.name} in {path.parent}: {error}; set GANCOMPRESS_CACHE", stacklevel=2)


def _metadata(content: bytes) -> dict[str, str]:
    """Return what the header of a valid safetensors file says beside its tensors (format: 8 bytes of length, JSON)."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    return found


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
