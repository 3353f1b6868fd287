"""What a run ran on and took from elsewhere: versions, hardware, and components of plugins."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from gancompress.components.plugins import PLUGIN_RECORD, provenance
from gancompress.components.registry import EXTRACTORS, METRICS
from gancompress.kernels.measured import processor_key, processor_name
from gancompress.recipe.components import COMPONENT_REGISTRIES
from gancompress.runs.record import records_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gancompress.components.registry import Registry
    from gancompress.recipe.schema import Recipe
    from gancompress.runs.directory import RunDirectory

__all__ = ["environment", "note_plugins"]

_PACKAGES = ("gancompress", "torch", "torchvision", "timm", "torch-fidelity", "torch-pruning", "numpy")


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, processor and device as JSON-able values."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "processor_key": processor_key(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": versions,
    }


def _used_components(recipe: Recipe) -> Iterator[tuple[Registry[Any], str]]:
    """Yield registry and name of every component that a recipe names."""
    for path, registry in COMPONENT_REGISTRIES.items():
        node: Any = recipe
        for key in path:
            node = getattr(node, str(key))
        if node is not None:
            yield registry, node.name
    for metric in recipe.evaluation.metrics:
        yield METRICS, metric
    extractor = recipe.evaluation.extractor.partition(":")[0]
    if extractor != "auto":
        yield EXTRACTORS, extractor


def note_plugins(directory: RunDirectory, recipe: Recipe) -> list[str]:
    """Write ``plugins.json`` into a run directory; nothing is written when every component is built in.

    Returns:
        What is not as it was when the run began, one line each: its numbers may be those of two programs.
    """
    records = provenance(_used_components(recipe))
    noted = records_of(directory.read_json(PLUGIN_RECORD).get("components"))
    before = {_key(record): record for record in noted if record.keys() >= {"kind", "name", "from", "version"}}
    changes = []
    for record in records:
        old = before.get(_key(record), record)
        what = f"{record['kind']} {record['name']!r}"
        if old.get("hash") != record.get("hash"):
            changes.append(f"{what} changed since this run began ({record.get('file') or record['from']})")
        elif (old["from"], old["version"]) != (record["from"], record["version"]) and not record.get("hash"):
            now, then = (f"{one['from']} {one['version']}".strip() for one in (record, old))
            changes.append(f"{what} comes from {now} now, this run began with {then}")
    if records and not before:
        directory.write_json(PLUGIN_RECORD, {"format": 1, "components": records})
    return changes


def _key(record: Mapping[str, Any]) -> tuple[str, str]:
    return str(record["kind"]), str(record["name"])
