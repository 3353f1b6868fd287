"""``dataset.json``: labels and class names beside images, in the convention of StyleGAN's datasets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gancompress.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["NAME", "parse_labels"]

NAME = "dataset.json"


def parse_labels(
    document: bytes, present: Collection[str], where: str
) -> tuple[dict[str, int], tuple[str, ...]] | None:
    """Read a ``dataset.json``: ``{"labels": [[file, class], …] or null, "classes": [name, …]}``.

    ``labels`` may also be an object from file to class. ``classes`` may be left out; the classes are then named by
    their numbers, from 0 to the largest. A class without images is allowed.

    Args:
        document: the file's bytes.
        present: names of the images beside it.
        where: path of the file, for errors.

    Returns:
        Class of every labelled file and names of the classes; ``None`` when ``labels`` is null or missing.

    Raises:
        DataError: not JSON, not of that form, a label that is no class, a file that is not there.
    """
    try:
        content = json.loads(document)
    except ValueError as error:
        raise DataError(f"not valid JSON ({error})", where=where) from error
    form = 'expected {"labels": [["file", class], …], "classes": ["name", …]}'
    if not isinstance(content, dict):
        raise DataError(form, where=where)
    pairs = content.get("labels")
    if pairs is None:
        return None
    if isinstance(pairs, dict):
        pairs = list(pairs.items())
    if not isinstance(pairs, list):
        raise DataError(form, where=where)
    labels: dict[str, int] = {}
    for pair in pairs:
        name, label = _pair(pair, where)
        if labels.setdefault(name, label) != label:
            raise DataError(f"image {name!r} has two labels, {labels[name]} and {label}", where=where)
    absent = [name for name in labels if name not in present]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(f"names {absent[0]!r}{more}, but there is no such image beside it", where=where)
    classes = _classes(content.get("classes"), max(labels.values(), default=-1) + 1, where)
    for name, label in labels.items():
        if label >= len(classes):
            raise DataError(
                f"label {label} of {name!r} is out of range: classes are 0 to {len(classes) - 1}", where=where
            )
    return labels, classes


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
