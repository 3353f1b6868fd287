"""How often each class is there, and so how often it is asked of a generator, in training and after it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.errors import DataError
from gancompress.units import some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.data.base import Dataset, ImageSpec

__all__ = ["check_class_number", "class_counts", "class_cycle", "class_warnings", "counted", "data_warnings"]

#: more classes per image than this are no classes but dates, ids or the like
_MOST_PER_IMAGE = 10
#: a class is rare when it has less than this part of an even share of the images
_RARE = 0.1
#: classes that a warning names; the rest is counted
_NAMED = 5


def class_counts(dataset: Dataset[Any]) -> tuple[int, ...]:
    """Return the number of images of each class; empty without labels."""
    classes = dataset.spec.num_classes
    return tuple(torch.bincount(dataset.labels(), minlength=classes).tolist()) if classes else ()


def class_cycle(counts: Sequence[int]) -> Tensor:
    """Return the shortest sequence of classes, int64, that has each as often as ``counts`` say, evenly spread.

    Repeated for ever, any beginning of it has each class as often as the whole, to within an image or so. Equal counts
    give 0, 1, …, C - 1; a class that counts 0 never comes.
    """
    parts = torch.tensor(counts, dtype=torch.int64) // (math.gcd(*counts) or 1)
    labels = torch.arange(len(parts)).repeat_interleave(parts)
    turns = torch.arange(len(labels)) - (parts.cumsum(0) - parts)[labels]
    return labels[torch.argsort((2 * turns + 1).double() / parts[labels], stable=True)]


def counted(dataset: Dataset[Any]) -> ImageSpec:
    """Return the spec of a dataset, with the images of each class where they are not equally many."""
    counts = class_counts(dataset)
    return dataclasses.replace(dataset.spec, counts=counts if len(set(counts)) > 1 else ())


def class_warnings(spec: ImageSpec, counts: Sequence[int]) -> list[str]:
    """Return a line about classes without images, and one about classes with few, where there are such.

    Args:
        spec: names of the classes.
        counts: images of each.
    """
    share = _RARE * sum(counts) / max(1, len(counts))
    empty = [index for index, count in enumerate(counts) if not count]
    rare = [index for index, count in enumerate(counts) if 0 < count < share]
    lines = []
    if empty:
        gap = "" if empty[0] > 0 else " (labels count from 0)"
        lines.append(f"{_some(spec, empty)} no images{gap}: nothing is asked of the generator there")
    if rare:
        fewest = min(counts[index] for index in rare)
        lines.append(f"{_some(spec, rare)} few images, {fewest:,} at the fewest: less than a tenth of an even share")
    return lines


def data_warnings(dataset: Dataset[Any]) -> list[str]:
    """Return what people should know about the images before they train on them, a line each."""
    return [*dataset.warnings(), *class_warnings(dataset.spec, class_counts(dataset))]


def _some(spec: ImageSpec, chosen: list[int]) -> str:
    names = [
        f"{index}" if spec.classes[index] == str(index) else f"{index} ({spec.classes[index]})"
        for index in chosen[:_NAMED]
    ]
    first = some(names, len(chosen))
    return f"class {first} has" if len(chosen) == 1 else f"{len(chosen):,} classes ({first}) have"


def check_class_number(classes: int, images: int, where: str, ignore: str = "set data.labelled to false") -> None:
    """Refuse far more classes than images, before anything is as long as there are classes.

    Args:
        classes: how many there would be.
        images: how many there are.
        where: what the labels come from, for the error.
        ignore: how to do without labels, for the error.

    Raises:
        DataError: there are more than ten classes per image.
    """
    if classes > _MOST_PER_IMAGE * images:
        raise DataError(
            f"{classes:,} classes for {images:,} images: number the classes from 0 without gaps, or {ignore}",
            where=where,
        )
