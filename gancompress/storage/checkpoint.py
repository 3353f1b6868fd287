"""Checkpoints: everything the next training step depends on, in a directory that is complete or does not exist.

::

    checkpoints/00012000/
      <group>.safetensors   one per group of tensors: generator, discriminator, ema, optimizer_generator, masks, …
      state.json            all scalars: steps, counters, schedules
      manifest.json         format version, step, and size and BLAKE2b hash of every file above

Bool tensors take one bit per weight. Equal snapshots give equal bytes, so two checkpoints are compared with ``cmp``;
therefore there is no date in them and the order of names does not count. No pickle is ever written or read.

A checkpoint is written aside in the same directory, every file is synced, and the directory is renamed: whatever kills
the process, the previous one stays complete. What is read is verified against the manifest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from gancompress.errors import CheckpointError, located
from gancompress.storage.atomic import ASIDE, canonical_json, put_in_place, remove_tree, sync, write_synced
from gancompress.storage.encoding import decode_tensors, encode_tensors, plain, stored_bytes
from gancompress.storage.reading import UNFIT, reason
from gancompress.units import size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = [
    "FORMAT",
    "Groups",
    "Latest",
    "Refused",
    "Snapshot",
    "checkpoints",
    "clean",
    "latest",
    "load",
    "prune",
    "put_to_use",
    "remove",
    "save",
]

#: Version of the layout described above. A reader takes its own version only.
FORMAT = 1

Groups: TypeAlias = "Mapping[str, Mapping[str, Tensor]]"

_MANIFEST = "manifest.json"
_STATE = "state.json"
_TENSORS = ".safetensors"
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NAME = re.compile(r"\d{8,}")
#: A complete checkpoint that is about to be replaced by another of the same step; put back if that never came.
_REPLACED = ".replaced-"
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The state of a run after a training step.

    Attributes:
        step: training steps done since the start of the run.
        groups: tensors by group and name, of any shape and dtype that safetensors knows. They come back on the CPU,
            contiguous, in alphabetical order of their names.
        scalars: everything else, made of dictionaries with string keys, lists, strings, numbers, booleans and None.
            Floats come back bit for bit, tuples as lists.
    """

    step: int
    groups: Groups
    scalars: Mapping[str, Any]


class Refused(NamedTuple):
    """A checkpoint that cannot be used."""

    path: Path
    reason: str


class Latest(NamedTuple):
    """The newest good checkpoint, and the newer ones that were refused (newest first).

    Attributes:
        path: its directory, or None when there is no good one.
        snapshot: what it holds, or None.
        refused: the broken ones that are newer, each with the reason.
    """

    path: Path | None
    snapshot: Snapshot | None
    refused: list[Refused]


# ---------------------------------------------------------------------------------------------------- writing


def save(directory: Path, snapshot: Snapshot) -> Path:
    """Write ``snapshot`` as a new checkpoint under ``directory``; see :func:`prune` for the old ones.

    Args:
        directory: the run's ``checkpoints`` directory; made if missing.
        snapshot: what to write. Tensors may be on any device; they are copied, never changed.

    Returns:
        The directory of the new checkpoint. One of the same step that was there before is replaced.

    Raises:
        CheckpointError: the disk is full or refuses; earlier checkpoints are intact and nothing is left aside.
        TypeError: a scalar is not of the kinds that :class:`Snapshot` names.
    """
    state = canonical_json(plain(snapshot.scalars, "scalars"))
    for group in snapshot.groups:
        if not _GROUP.fullmatch(group) or f"{group}{_TENSORS}" in (_STATE, _MANIFEST):
            raise TypeError(f"group {group!r} cannot be a file name")
    target = directory / f"{snapshot.step:08d}"
    aside = directory / f"{ASIDE}{target.name}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        clean(directory)
        aside.mkdir()
        _write_files(aside, snapshot, state)
        _put_in_place(aside, target)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(_why(error, directory, snapshot), where=str(target)) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return target


def prune(directory: Path, keep: int, *, protect: Collection[int] = ()) -> list[int]:
    """Delete all but the newest ``keep`` checkpoints and the protected ones.

    Only complete checkpoints count towards ``keep`` as far as their manifest tells; broken ones are left for a person
    to look at.

    Args:
        directory: the run's ``checkpoints`` directory.
        keep: how many to keep, at least 1.
        protect: steps that stay whatever their age.

    Returns:
        The steps that were deleted, oldest first.

    Raises:
        CheckpointError: the disk refuses.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    complete = [path for path in checkpoints(directory) if (path / _MANIFEST).is_file()]
    doomed = [path for path in complete[: max(0, len(complete) - keep)] if int(path.name) not in set(protect)]
    for path in doomed:
        remove(path)
    return [int(path.name) for path in doomed]


def remove(path: Path) -> None:
    """Delete a checkpoint. It first loses its name and then its files, so that a half-deleted one is never met.

    Raises:
        CheckpointError: the disk refuses.
    """
    aside = path.with_name(f"{ASIDE}{path.name}")
    try:
        remove_tree(aside)
        os.rename(path, aside)
        remove_tree(aside)
    except OSError as error:
        raise CheckpointError(f"cannot delete this old checkpoint: {error.strerror}", where=str(path)) from error


def clean(directory: Path) -> list[str]:
    """Remove what an interrupted writer left behind, and put back a checkpoint that was about to be replaced.

    Call it only while no other process writes there (the run's lock is held); :func:`save` does.

    Returns:
        The names that were removed or put back.
    """
    touched = []
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.name.startswith(_REPLACED):
            original = path.with_name(path.name.removeprefix(_REPLACED))
            if original.exists():
                remove_tree(path)
            else:
                os.rename(path, original)
            touched.append(path.name)
        elif path.name.startswith(ASIDE):
            remove_tree(path)
            touched.append(path.name)
    return touched


def _write_files(aside: Path, snapshot: Snapshot, state: bytes) -> None:
    files: dict[str, dict[str, Any]] = {}

    def write(name: str, content: bytes) -> None:
        write_synced(aside / name, content)
        files[name] = {"size": len(content), "blake2b": _hash(content)}

    # One group at a time: the bytes of a group live in memory only while they are written.
    for group in sorted(snapshot.groups):
        write(f"{group}{_TENSORS}", encode_tensors(snapshot.groups[group]))
    write(_STATE, state)
    write_synced(aside / _MANIFEST, _manifest(snapshot.step, files))
    sync(aside)


def _put_in_place(aside: Path, target: Path) -> None:
    """Rename; a directory cannot replace a full one, so an old checkpoint of the same step steps aside first."""
    replaced = target.with_name(f"{_REPLACED}{target.name}")
    if target.exists():
        os.rename(target, replaced)
    put_in_place(aside, target)
    remove_tree(replaced)


def _manifest(step: int, files: Mapping[str, Mapping[str, Any]]) -> bytes:
    content = {"format": FORMAT, "step": step, "files": files}
    return canonical_json({**content, "hash": _hash(canonical_json(content))})


def _why(error: OSError, directory: Path, snapshot: Snapshot) -> str:
    """Say why a checkpoint could not be written, and for a full disk how much was needed."""
    if error.errno not in _FULL:
        return f"cannot write the checkpoint: {error.strerror}; earlier checkpoints are intact"
    needed = sum(stored_bytes(tensor) for group in snapshot.groups.values() for tensor in group.values())
    try:
        free = f", {size(shutil.disk_usage(directory).free)} are free"
    except OSError:
        free = ""
    return (
        f"cannot write the checkpoint: {error.strerror}; it needs about {size(needed)}{free}; "
        "earlier checkpoints are intact: make room and run the same command again"
    )


# ---------------------------------------------------------------------------------------------------- reading


def checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoint directories by step, oldest first, complete or not."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name) and p.is_dir()), key=lambda p: int(p.name))


def load(directory: Path, *, groups: Collection[str] | None = None) -> Snapshot:
    """Read a checkpoint and verify what is read.

    Args:
        directory: a checkpoint's own directory.
        groups: the groups to read; None reads and verifies all of the checkpoint. The scalars are always read.

    Returns:
        What :func:`save` was given, of ``groups`` only, tensors on the CPU.

    Raises:
        CheckpointError: a file is missing, truncated, altered, or too many; the format is another version; it has no
            such group. The message names the file.
    """
    if not directory.is_dir():
        raise CheckpointError("there is no checkpoint here", where=str(directory))
    step, files = _read_manifest(directory)
    for extra in sorted(path.name for path in directory.iterdir()):
        # Dot files are the desktop's and the network file system's, not ours.
        if extra not in files and extra != _MANIFEST and not extra.startswith("."):
            raise CheckpointError("this file does not belong to the checkpoint", where=str(directory / extra))
    found: dict[str, dict[str, Tensor]] = {}
    for group in (name.removesuffix(_TENSORS) for name in files if name != _STATE) if groups is None else groups:
        path = directory / f"{group}{_TENSORS}"
        if path.name not in files:
            raise CheckpointError("missing: this checkpoint was written without it", where=str(path))
        found[group] = decode_tensors(_read_whole(path, files[path.name]), where=str(path))
    return Snapshot(step, found, _parse(_read_whole(directory / _STATE, files[_STATE]), directory / _STATE))


@contextlib.contextmanager
def put_to_use(directory: Path) -> Iterator[None]:
    """Say of which checkpoint it is that what it holds cannot be used: its bytes may be whole, and their meaning wrong.

    Raises:
        CheckpointError: what was done inside failed on what the checkpoint holds.
    """
    try:
        with located(str(directory)):
            yield
    except UNFIT as error:
        raise CheckpointError(f"does not fit its run ({reason(error)})", where=str(directory)) from error


def latest(directory: Path) -> Latest:
    """Return the newest checkpoint that is complete and unaltered, and name the newer ones that are not.

    Args:
        directory: the run's ``checkpoints`` directory; it may be missing.

    Returns:
        The newest good one; its ``refused`` is never silent about what was passed over.
    """
    refused: list[Refused] = []
    for path in reversed(checkpoints(directory)):
        try:
            return Latest(path, load(path), refused)
        except CheckpointError as error:
            refused.append(Refused(path, str(error)))
    return Latest(None, None, refused)


def _read_whole(path: Path, expected: Mapping[str, Any]) -> bytes:
    """Return the contents of a file, which are those that the manifest names."""
    content = _read_bytes(path)
    if len(content) != expected["size"]:
        kind = "truncated" if len(content) < expected["size"] else "altered"
        raise CheckpointError(f"{kind}: {len(content)} bytes, expected {expected['size']}", where=str(path))
    if _hash(content) != expected["blake2b"]:
        raise CheckpointError("altered: its hash is not the manifest's", where=str(path))
    return content


def _read_manifest(directory: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    path = directory / _MANIFEST
    content = _read_bytes(path)
    manifest = _parse(content, path)
    version = manifest.get("format")
    if version != FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        advice = "upgrade gancompress to read it" if newer else "this is not a checkpoint of gancompress"
        raise CheckpointError(f"checkpoint format {version!r}, this version reads {FORMAT}; {advice}", where=str(path))
    step, files = manifest.get("step"), manifest.get("files")
    # One comparison stands for all checks of the structure: the bytes must be those that we would write.
    if not isinstance(step, int) or not isinstance(files, dict) or content != _manifest(step, files):
        raise CheckpointError("altered: the manifest does not match its own hash", where=str(path))
    told = all(isinstance(one, dict) and type(one.get("size")) is int and "blake2b" in one for one in files.values())
    if not told or _STATE not in files or any("/" in name or "\\" in name for name in files):
        raise CheckpointError("altered: the manifest names impossible files", where=str(path))
    if _NAME.fullmatch(directory.name) and int(directory.name) != step:
        raise CheckpointError(f"this is the checkpoint of step {step}, its directory was renamed", where=str(directory))
    return step, files


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError("missing: the checkpoint is incomplete", where=str(path)) from None
    except OSError as error:
        raise CheckpointError(f"cannot read: {error.strerror}", where=str(path)) from error


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"truncated or altered: not JSON ({error})", where=str(path)) from error
    if not isinstance(value, dict):
        raise CheckpointError("altered: not a JSON object", where=str(path))
    return value


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=20).hexdigest()
