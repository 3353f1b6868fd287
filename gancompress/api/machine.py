"""What this machine has, and what is wrong with it: ``gancompress.doctor``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Finding", "doctor"]

#: below this a dataset and a few checkpoints may not fit any more
_LITTLE_DISK_GIB = 2.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        value: how it is.
        trouble: what to do about it; empty when nothing.
    """

    name: str
    value: str
    trouble: str = ""


def doctor() -> tuple[Finding, ...]:
    """Look at versions, devices, kernels, plugins and disk space; as ``gancompress doctor``."""
    return tuple(_findings())


def _findings() -> Iterator[Finding]:
    import torch

    from gancompress import __version__
    from gancompress.experiment.provenance import environment

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = environment(device)
    yield Finding("gancompress", __version__)
    yield Finding("python", str(found["python"]))
    for package, version in found["versions"].items():
        if package != "gancompress":
            shown = f"{version}, {torch_build()}" if package == "torch" else str(version)
            yield Finding(package, shown, "" if version != "not installed" else "pip install it")
    yield Finding("platform", str(found["platform"]))
    yield Finding("processor", f"{found['processor']}, {found['cores']} cores, {found['threads']} torch threads")
    yield Finding("device", str(found["device"]))
    yield _kernels()
    yield from _plugins()
    yield from _disk()


def torch_build() -> str:
    """Return which build of torch is installed, and what it and the CUDA libraries beside it take on disk."""
    import torch
    from torch.version import cuda, hip

    from gancompress.units import size

    package = Path(torch.__file__).parent
    folders = [package, *(package.parent / name for name in ("nvidia", "triton", "cusparselt"))]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    build = f"CUDA {cuda} build" if cuda else f"ROCm {hip} build" if hip else "CPU build"
    return f"{build}, {size(sum(file.stat().st_size for file in files))} on disk"


def _kernels() -> Finding:
    from gancompress import kernels

    status = kernels.status()
    if status.available:
        bf16 = "" if status.bf16 is None else f", bf16 by {status.bf16}"
        return Finding("sparse kernels", f"{status.isa}, int8 by {status.int8}{bf16}")
    return Finding("sparse kernels", "none: everything runs dense", status.reason)


def _plugins() -> Iterator[Finding]:
    from gancompress.components.registry import PLUGINS_VARIABLE, REGISTRIES
    from gancompress.errors import ComponentError

    entries = [
        (registry, entry)
        for registry in REGISTRIES.values()
        for entry in registry.entries()
        if entry.distribution != "gancompress"
    ]
    for registry, entry in entries:
        shown = f"{registry.kind} {entry.name} ({entry.origin})"
        if entry.left_out:  # asked for: nothing to mend
            yield Finding("plugin", f"{shown}, left out by {PLUGINS_VARIABLE}")
            continue
        trouble = entry.problem
        if not trouble:
            try:
                registry.get(entry.name)
            except ComponentError as error:
                trouble = error.message
        yield Finding("plugin", shown, trouble)
    if not entries:
        yield Finding("plugins", "none")


def _disk() -> Iterator[Finding]:
    import shutil

    from gancompress.storage.cache import cache_directory

    for name, path in (("runs", Path.cwd()), ("cache", cache_directory())):
        existing = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
        free = shutil.disk_usage(existing).free / 2**30
        little = "little room; GANCOMPRESS_CACHE and --out say where files go" if free < _LITTLE_DISK_GIB else ""
        yield Finding(name, f"{path} ({free:,.1f} GiB free)", little)
