"""Images: where they come from, in what order they are used, and how they become floats."""

from __future__ import annotations

import torch
from torch import Tensor

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
from gancompress.data.sampling import batch_indices
from gancompress.data.transform import mirror, to_float, to_uint8

__all__ = [
    "Batch",
    "Dataset",
    "DatasetConfig",
    "ImageSpec",
    "batch_indices",
    "class_histogram",
    "mirror",
    "to_float",
    "to_uint8",
]


def class_histogram(dataset: Dataset[DatasetConfig]) -> Tensor:
    """Count the images of every class.

    Returns:
        int64, (num_classes,); empty for a dataset without labels.
    """
    classes = dataset.spec.num_classes
    if not classes:
        return torch.zeros(0, dtype=torch.int64)
    return torch.bincount(dataset.labels(), minlength=classes)
