"""What a run ran on: versions and hardware, for reports and for whoever wants to repeat it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from gancompress.kernels.processor import processor_name

__all__ = ["environment"]

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
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": versions,
    }
