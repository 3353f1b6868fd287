"""``gancompress doctor``: what this machine has, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from gancompress.cli.app import color

__all__ = ["doctor"]

#: below this a dataset and a few checkpoints may not fit any more
_LITTLE_DISK_GIB = 2.0


def doctor() -> None:
    """Show versions, devices, kernels, plugins and disk space; exits 1 when something needs mending.

    Example: gancompress doctor
    """
    troubled = False
    for name, value, trouble in _findings():
        troubled |= bool(trouble)
        line = f"{name:<14} {value}{f'  <- {trouble}' if trouble else ''}"
        typer.secho(line, fg="yellow" if trouble and color() else None)
    if troubled:
        raise typer.Exit(1)


def _findings() -> Iterator[tuple[str, str, str]]:
    """Yield what, how it is, and what to do about it (empty when nothing)."""
    import torch

    from gancompress import __version__
    from gancompress.experiment.provenance import environment

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = environment(device)
    yield "gancompress", __version__, ""
    yield "python", str(found["python"]), ""
    for package, version in found["versions"].items():
        if package == "gancompress":
            continue
        yield package, str(version), "" if version != "not installed" else "pip install it"
    yield "platform", str(found["platform"]), ""
    yield "processor", f"{found['processor']}, {found['cores']} cores, {found['threads']} torch threads", ""
    yield "device", str(found["device"]), ""
    yield _kernels()
    yield from _plugins()
    yield from _disk()


def _kernels() -> tuple[str, str, str]:
    from gancompress import kernels

    status = kernels.status()
    if status.available:
        return "sparse kernels", f"{status.isa}", ""
    return "sparse kernels", "none: everything runs dense", status.reason


def _plugins() -> Iterator[tuple[str, str, str]]:
    from gancompress.components.registry import PLUGINS_VARIABLE, REGISTRIES
    from gancompress.errors import ComponentError

    count = 0
    for registry in REGISTRIES.values():
        for entry in registry.entries():
            if entry.distribution == "gancompress":
                continue
            count += 1
            shown = f"{registry.kind} {entry.name} ({entry.origin})"
            if entry.left_out:  # asked for: nothing to mend
                yield "plugin", f"{shown}, left out by {PLUGINS_VARIABLE}", ""
                continue
            trouble = entry.problem
            if not trouble:
                try:
                    registry.get(entry.name)
                except ComponentError as error:
                    trouble = error.message
            yield "plugin", shown, trouble
    if not count:
        yield "plugins", "none", ""


def _disk() -> Iterator[tuple[str, str, str]]:
    import shutil

    from gancompress.storage.cache import cache_directory

    for name, path in (("runs", Path.cwd()), ("cache", cache_directory())):
        existing = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
        free = shutil.disk_usage(existing).free / 2**30
        little = "little room; GANCOMPRESS_CACHE and --out say where files go" if free < _LITTLE_DISK_GIB else ""
        yield name, f"{path} ({free:,.1f} GiB free)", little
