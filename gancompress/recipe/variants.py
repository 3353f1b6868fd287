"""The rows of a table written once: a recipe file's ``variants``, each a few settings laid over the file's own.

::

    variants:
      dense:
        sparsity: {method: dense}
      static-$density:                # four rows: $density takes each value of its axis, in the name and inside
        axes: {density: [0.05, 0.1, 0.2, 0.3]}
        sparsity: {method: static, density: $density}
        published:
          - {metric: FID, value: [18.5, 13.8, 10.2, 9.0], source: table 1}    # one value per row, null for none

``file@static-0.1`` is a recipe wherever one is named. With several axes the last one runs fastest.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gancompress.errors import RecipeError, did_you_mean
from gancompress.recipe.document import Document, KeyPath, exists

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEY", "choose_variant", "split_address", "variants_of"]

KEY: Final = "variants"
_AXES: Final = "axes"
_PUBLISHED: Final = "published"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_AXIS: Final = re.compile(r"\$([A-Za-z_]\w*)")


def split_address(text: str | Path) -> tuple[str, str]:
    """Split ``file@variant`` into both; the variant is empty when there is none, or when the whole is a file."""
    whole = str(text)
    head, at, tail = whole.rpartition("@")
    if not (at and head) or "/" in tail or "\\" in tail or exists(Path(whole)):
        return whole, ""
    return head, tail


def choose_variant(document: Document, name: str, source: str) -> Document:
    """Return the settings of one variant, ready to be laid over ``document``.

    Raises:
        RecipeError: there is no such variant, or the variants are malformed.
    """
    found = variants_of(document)
    if not found:
        raise RecipeError(f"{source} has no variants, so no {name!r}; leave the @ out")
    if name not in found:
        shown = did_you_mean(name, found) if len(found) <= 8 else _nearest(name, found)
        raise RecipeError(f"no variant {name!r} of {source}{shown}; `gancompress ls {source}` lists them")
    return found[name]


def _nearest(name: str, known: Mapping[str, Document]) -> str:
    """Return a suggestion, but not dozens of names when there is none."""
    hint = did_you_mean(name, known)
    return hint if "did you mean" in hint else ""


def variants_of(document: Document) -> dict[str, Document]:
    """Return the settings of every variant by name, axes multiplied out, in the order in which they are written.

    Raises:
        RecipeError: they are malformed, an axis is unknown, or two have the same name.
    """
    written = document.data.get(KEY)
    if written is None:
        return {}
    if not isinstance(written, dict):
        raise RecipeError("variants: must be a mapping of names to settings", where=str(document.mark((KEY,))))
    found: dict[str, Document] = {}
    for template in written:
        for name, variant in _Template(document, template).rows():
            if name in found:
                raise _error(document, (KEY, template), f"{name!r} is there twice; put every axis into the name")
            found[name] = variant
    return found


def _error(document: Document, path: KeyPath, message: str) -> RecipeError:
    return RecipeError(f"{'.'.join(map(str, path))}: {message}", where=str(document.mark(path)))


class _Template:
    """One entry of ``variants``, which stands for as many rows as its axes multiply out to."""

    def __init__(self, document: Document, template: str) -> None:
        self.document, self.template = document, template
        self.path: KeyPath = (KEY, template)
        body = document.value(self.path)
        if not isinstance(body, dict):
            raise _error(document, self.path, "must be a mapping of settings")
        for key in ("extends", KEY):
            if key in body:
                raise _error(document, (*self.path, key), "stands outside of the variants")
        self.body = {key: value for key, value in body.items() if key != _AXES}
        self.axes = self._axes(body.get(_AXES, {}))
        depth = len(self.path)
        self.marks = {path[depth:]: mark for path, mark in document.marks.items() if path[:depth] == self.path}

    def _axes(self, axes: Any) -> dict[str, list[Any]]:
        where = (*self.path, _AXES)
        if not isinstance(axes, dict):
            raise _error(self.document, where, "must be a mapping of names to lists of values")
        for name, values in axes.items():
            plain = isinstance(values, list) and values
            if not plain or any(isinstance(value, list | dict) for value in values):
                raise _error(self.document, (*where, name), "must be a list of plain values")
        return axes

    def rows(self) -> list[tuple[str, Document]]:
        """Return name and settings of every row."""
        points = list(itertools.product(*self.axes.values()))
        rows = []
        for index, point in enumerate(points):
            values = dict(zip(self.axes, point, strict=True))
            name = str(self._filled(self.template, values, self.path, text=True))
            if not _NAME.fullmatch(name):
                raise _error(
                    self.document, self.path, "must be letters, digits, '.', '_', '-' and the $names of its axes"
                )
            data = self._filled({k: v for k, v in self.body.items() if k != _PUBLISHED}, values, self.path)
            if _PUBLISHED in self.body:
                data[_PUBLISHED] = self._figures(self.body[_PUBLISHED], index, len(points), values)
            rows.append((name, Document(data, self.marks)))
        return rows

    def _filled(self, value: Any, values: Mapping[str, Any], path: KeyPath, *, text: bool = False) -> Any:
        """Return ``value`` with every ``$axis`` in it replaced; one that is the whole text keeps its type."""
        if isinstance(value, dict):
            return {key: self._filled(item, values, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, values, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        for axis in _AXIS.findall(value):
            if axis not in values:
                raise _error(self.document, path, f"there is no axis {axis!r}{did_you_mean(axis, self.axes)}")
        whole = _AXIS.fullmatch(value)
        if whole is not None and not text:
            return values[whole[1]]
        return _AXIS.sub(lambda match: str(values[match[1]]), value)

    def _figures(self, figures: Any, index: int, count: int, values: Mapping[str, Any]) -> Any:
        """Return the published figures of one row: of every list its own item; a figure whose value is null is none."""
        path = (*self.path, _PUBLISHED)
        if not isinstance(figures, list) or not all(isinstance(figure, dict) for figure in figures):
            return figures  # malformed, which the schema says better
        kept = []
        for position, figure in enumerate(figures):
            row = {}
            for key, item in figure.items():
                at = (*path, position, key)
                if isinstance(item, list):
                    if len(item) != count:
                        raise _error(self.document, at, f"needs {count} items, one per row, got {len(item)}")
                    item = item[index]
                row[key] = self._filled(item, values, at)
            if "value" not in row or row["value"] is not None:
                kept.append({key: item for key, item in row.items() if item is not None})
        return kept
