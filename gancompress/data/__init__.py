"""Images: where they come from, in what order they are used, and how they become floats."""

from __future__ import annotations

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
from gancompress.data.sampling import batch_indices
from gancompress.data.transform import mirror, to_float, to_uint8

__all__ = [
    "Batch",
    "Dataset",
    "DatasetConfig",
    "ImageSpec",
    "batch_indices",
    "mirror",
    "to_float",
    "to_uint8",
]
