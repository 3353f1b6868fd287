"""One safetensors file with tensors, a JSON document, and a hash over all of it.

The document is the file's only metadata entry, so equal contents give equal bytes. Its hash stands in the document
itself and is that of the file with zeros in its place: no bit of the file can change unnoticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from gancompress.errors import ExportError
from gancompress.storage.atomic import write_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["kind_of", "read_container", "write_container", "write_whole"]

_ENTRY = "gancompress"
_DIGITS = 40
_ZEROS = "0" * _DIGITS
#: bytes of a header that are read to see what a file is
_LONGEST = 2**27


def write_container(
    path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any], *, kind: str, format: int
) -> int:
    """Write a file that is complete or does not exist.

    Args:
        path: where; its directory is made when needed.
        tensors: by name, on any device.
        document: plain JSON values; the keys ``kind``, ``format`` and ``hash`` are set here.
        kind: what the file is.
        format: version of its layout.

    Returns:
        Bytes of the file.

    Raises:
        ExportError: the disk is full or refuses.
    """
    full = {**document, "kind": kind, "format": format, "hash": _ZEROS}
    stored = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    content = bytes(save(stored, metadata={_ENTRY: json.dumps(full, sort_keys=True, separators=(",", ":"))}))
    marked = _field(_ZEROS)
    assert content.count(marked, 0, _header_end(content)) == 1
    digest = _hash(content)
    content = content.replace(marked, _field(digest), 1)
    write_whole(path, content)
    return len(content)


def kind_of(path: Path) -> str:
    """Return what a file says it is, empty when it says nothing; nothing else of it is believed."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _LONGEST)))
        return str(json.loads(header["__metadata__"][_ENTRY])["kind"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def read_container(path: Path, *, kind: str, format: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and verify a file of :func:`write_container`.

    Args:
        path: the file.
        kind: what it must be.
        format: newest version of the layout that is understood.

    Returns:
        Tensors on the CPU, and the document.

    Raises:
        ExportError: it cannot be read, is no such file, is truncated or altered, or is of a newer version.
    """
    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot be read: {error.strerror}", where=where) from None
    header, document = _parse(content, kind, where)
    version = document.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ExportError(f"altered: {version!r} is no format version", where=where)
    if version > format:
        raise ExportError(
            f"{kind} of format {version}, this gancompress reads up to {format}; upgrade gancompress", where=where
        )
    with contextlib.suppress(LookupError, TypeError, ValueError):
        needed = _header_end(content) + max(e["data_offsets"][1] for n, e in header.items() if n != "__metadata__")
        if len(content) < needed:
            raise ExportError(f"truncated: {len(content)} bytes of {needed}; copy the file again", where=where)
    digest = document.get("hash")
    field = _field(digest) if isinstance(digest, str) and len(digest) == _DIGITS else b""
    whole = bool(field) and content.count(field, 0, _header_end(content)) == 1
    if not whole or _hash(content.replace(field, _field(_ZEROS), 1)) != digest:
        raise ExportError("altered: its content does not match its hash; copy or export the file again", where=where)
    try:
        return dict(load(content)), document
    except (SafetensorError, ValueError, TypeError) as error:
        raise ExportError(f"not a readable safetensors file ({error})", where=where) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when all of it is on the disk.

    Raises:
        ExportError: the disk is full or refuses; what was at ``path`` is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except OSError as error:
        raise ExportError(f"cannot be written: {error.strerror or error}", where=str(path)) from error


def _parse(content: bytes, kind: str, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the document of a file, believing nothing else yet."""
    foreign = f"not a {kind}: give a file that `gancompress export` wrote"
    end = _header_end(content)
    if not 8 < end <= len(content):
        raise ExportError(f"truncated, or {foreign}", where=where)
    try:
        header = json.loads(content[8:end])
        document = json.loads(header["__metadata__"][_ENTRY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ExportError(foreign, where=where) from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise ExportError(foreign, where=where)
    return header, document


def _header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _field(digest: str) -> bytes:
    # quotes inside the metadata are escaped
    return rf"\"hash\":\"{digest}\"".encode()


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_DIGITS // 2).hexdigest()
