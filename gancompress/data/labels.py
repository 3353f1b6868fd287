"""Labels of image files: from a ``dataset.json``, in the convention of StyleGAN's datasets, or from their folders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from gancompress.data.classes import check_class_number
from gancompress.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["NAME", "Labels", "label_by_folder", "largest_document", "read_labels", "without_around"]

NAME = "dataset.json"
#: class of every image, or None, and names of the classes, none without labels
Labels: TypeAlias = tuple[tuple[int, ...] | None, tuple[str, ...]]


def largest_document(images: int) -> int:
    """Return the bytes that a ``dataset.json`` of so many images may have; no larger one is read."""
    return min(1 << 28, (1 << 20) + 4096 * images)


def read_labels(names: Iterable[str], document: bytes, where: str, ignore: str) -> Labels:
    """Read a ``dataset.json``: ``{"labels": [[file, class], …] or null, "classes": [name, …]}``.

    ``labels`` may also be an object from file to class. ``classes`` may be left out; the classes are then named by
    their numbers, from 0 to the largest. A class without images is allowed.

    Args:
        names: of the images beside it.
        document: the file's bytes.
        where: path of the file, for errors.
        ignore: how to ignore labels, for errors.

    Returns:
        Labels in the order of ``names`` and the classes; no labels when ``labels`` is null or missing.

    Raises:
        DataError: not JSON, not of that form, a label that is no class, a file that is not there, or an image without a
            label.
    """
    names = tuple(names)
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON ({error})", where=where) from error
    form = 'expected {"labels": [["file", class], …], "classes": ["name", …]}'
    if not isinstance(content, dict):
        raise DataError(form, where=where)
    pairs = content.get("labels")
    if pairs is None:
        return None, ()
    if isinstance(pairs, dict):
        pairs = list(pairs.items())
    if not isinstance(pairs, list):
        raise DataError(form, where=where)
    labels: dict[str, int] = {}
    for pair in pairs:
        name, label = _pair(pair, where)
        if labels.setdefault(name, label) != label:
            raise DataError(f"image {name!r} has two labels, {labels[name]} and {label}", where=where)
    present = frozenset(names)
    if absent := [name for name in labels if name not in present]:
        raise DataError(f"names {_first(absent)}, but there is no such image beside it", where=where)
    count = max(labels.values(), default=-1) + 1
    check_class_number(count, len(names), where, ignore)
    classes = _classes(content.get("classes"), count, where)
    for name, label in labels.items():
        if label >= len(classes):
            raise DataError(
                f"label {label} of {name!r} is out of range: classes are 0 to {len(classes) - 1}", where=where
            )
    if missing := [name for name in names if name not in labels]:
        raise DataError(f"no label for {_first(missing)}: label every image, or {ignore}", where=where)
    return tuple(labels[name] for name in names), classes


def _first(names: list[str]) -> str:
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def label_by_folder(names: Iterable[str], where: str, ignore: str) -> Labels:
    """Return labels and classes from the first folder in each name; no labels when all names have none.

    Args:
        names: of the images.
        where: their folder or zip, for errors.
        ignore: how to ignore labels, for errors.

    Raises:
        DataError: some names have a folder and some have not.
    """
    names = tuple(names)
    loose = [name for name in names if "/" not in name]
    if loose and len(loose) < len(names):
        nested = next(name for name in names if "/" in name)
        raise DataError(
            f"has images both at its top ({loose[0]!r}) and in subfolders ({nested!r}): "
            f"put all into class subfolders, or {ignore}",
            where=where,
        )
    if loose or not names:
        return None, ()
    classes = tuple(sorted({name.split("/", 1)[0] for name in names}))
    number = {name: index for index, name in enumerate(classes)}
    return tuple(number[name.split("/", 1)[0]] for name in names), classes


def without_around(names: Sequence[str]) -> list[str]:
    """Return names without the folders that are around all of them."""
    parts = [name.split("/") for name in names]
    around = 0
    while parts and all(len(part) > around + 1 and part[around] == parts[0][around] for part in parts):
        around += 1
    return ["/".join(part[around:]) for part in parts]


def _pair(pair: Any, where: str) -> tuple[str, int]:
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
        raise DataError(f'each label is a pair ["file", class], got {json.dumps(pair)[:80]}', where=where)
    name, label = pair
    if isinstance(label, bool) or not isinstance(label, int):
        raise DataError(f"label of {name!r} must be a whole number, got {json.dumps(label)[:80]}", where=where)
    if label < 0:
        raise DataError(f"label {label} of {name!r} is out of range: classes count from 0", where=where)
    return name.replace("\\", "/"), label


def _classes(names: Any, count: int, where: str) -> tuple[str, ...]:
    if names is None:
        return tuple(str(number) for number in range(count))
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise DataError('"classes" must be a list of names', where=where)
    return tuple(str(name) for name in names)
