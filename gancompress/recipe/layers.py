"""One recipe out of several layers: what it extends, its own file, and the overrides of the command line.

Mappings merge key by key; lists and everything else replace. A component node whose name changes starts afresh: the
keys of ``dst`` mean nothing to ``static``. Every key keeps the mark of the layer that it came from.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from gancompress.errors import RecipeError
from gancompress.recipe.catalogue import find_shipped, unknown_recipe
from gancompress.recipe.document import Document, KeyPath, Mark, dotted, parse_value, read_yaml, show_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["COMPONENT_PATHS", "apply_override", "compose", "merge", "with_short_components"]

#: where a recipe names a component whose other keys are the component's own
COMPONENT_PATHS: Final[tuple[KeyPath, ...]] = (
    ("data",),
    ("model",),
    ("objective", "loss"),
    ("sparsity", "method"),
)


def with_short_components(document: Document) -> Document:
    """Write ``loss: hinge`` out as ``loss: {name: hinge}``."""
    data, marks = copy.deepcopy(document.data), dict(document.marks)
    for path in COMPONENT_PATHS:
        node = Document(data, marks).value(path)
        if isinstance(node, str):
            parent = Document(data, marks).value(path[:-1])
            parent[path[-1]] = {"name": node}
            marks[(*path, "name")] = marks[path]
    return Document(data, marks)


def merge(base: Document, top: Document) -> Document:
    """Return ``base`` with everything that ``top`` says laid over it; both must have their components written out."""
    data: dict[str, Any] = copy.deepcopy(base.data)
    marks = {path: mark for path, mark in base.marks.items() if path}
    marks[()] = top.marks[()]

    def forget(path: KeyPath) -> None:
        for known in [known for known in marks if known[: len(path)] == path]:
            del marks[known]

    def lay(under: dict[str, Any], over: dict[str, Any], at: KeyPath) -> None:
        for key, value in over.items():
            path = (*at, key)
            below = under.get(key)
            if isinstance(value, dict) and isinstance(below, dict) and not _renames(path, below, value):
                marks[path] = top.marks.get(path, marks[path])
                lay(below, value, path)
            else:
                forget(path)
                under[key] = copy.deepcopy(value)
                marks.update({known: mark for known, mark in top.marks.items() if known[: len(path)] == path})

    lay(data, top.data, ())
    return Document(data, marks)


def _renames(path: KeyPath, below: dict[str, Any], value: dict[str, Any]) -> bool:
    return path in COMPONENT_PATHS and "name" in value and value["name"] != below.get("name")


def apply_override(document: Document, expression: str) -> Document:
    """Lay one ``key.path=value`` of the command line over ``document``.

    Args:
        document: the recipe so far.
        expression: a dotted path, ``=``, and a value in YAML (nothing at all is the empty text); an integer
            step is a position in a list.

    Raises:
        RecipeError: the expression is malformed, or its path goes through something that holds no keys.
    """
    source = f"--set {expression}"
    key, equals, text = expression.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise RecipeError("expected key.path=value, such as training.steps=100", where=source)
    if steps == ["extends"]:
        raise RecipeError("extends belongs in a recipe file", where=source)
    value = parse_value(text, source) if text.strip() else ""
    top: dict[str, Any] = {}
    level: dict[str, Any] = top
    path: KeyPath = ()
    for index, step in enumerate(steps):
        below = document.value((*path, step))
        if isinstance(below, list) and index + 1 < len(steps):
            level[step] = _in_list(below, steps[index + 1 :], value, source)
            return _lay_override(document, top, source)
        if below is not None and not isinstance(below, dict | list) and index + 1 < len(steps):
            raise RecipeError(f"{dotted((*path, step))} is {below!r} and has no key {steps[index + 1]!r}", where=source)
        path = (*path, step)
        level[step] = value if index + 1 == len(steps) else {}
        level = level[step] if isinstance(level[step], dict) else {}
    return _lay_override(document, top, source)


def _in_list(items: list[Any], steps: list[str], value: Any, source: str) -> list[Any]:
    changed = copy.deepcopy(items)
    level: Any = changed
    for index, step in enumerate(steps):
        last = index + 1 == len(steps)
        if isinstance(level, list):
            if not step.isdecimal() or int(step) >= len(level):
                raise RecipeError(f"{step!r} is not a position in a list of {len(level)}", where=source)
            key: Any = int(step)
        elif isinstance(level, dict):
            key = step
            level.setdefault(key, None if last else {})
        else:
            raise RecipeError(f"{level!r} has no key {step!r}", where=source)
        if last:
            level[key] = value
        else:
            level = level[key]
    return changed


def _lay_override(document: Document, top: dict[str, Any], source: str) -> Document:
    marks: dict[KeyPath, Mark] = {}

    def mark(value: Any, path: KeyPath) -> None:
        marks[path] = Mark(source)
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, below in items:
            mark(below, (*path, key))

    mark(top, ())
    result = merge(document, with_short_components(Document(top, marks)))
    # What an override only passes through keeps the line it was written at.
    for path in marks:
        if path in document.marks and isinstance(result.value(path), dict):
            result.marks[path] = document.marks[path]
    return result


def compose(path: Path, overrides: Sequence[str] = ()) -> tuple[Document, tuple[Path, ...]]:
    """Read a recipe file, everything it extends, and lay the overrides over it.

    Args:
        path: the recipe.
        overrides: ``key.path=value``, later ones win.

    Returns:
        The document, without ``extends``, and the files it was made of, the recipe's own first.

    Raises:
        RecipeError: a file is missing or malformed, or extends itself.
    """
    layers: list[Document] = []
    files: list[Path] = []
    current: Path | None = path
    while current is not None:
        files.append(current)
        document = with_short_components(read_yaml(current))
        layers.append(document)
        current = _base(document, current)
        if current is not None and current.resolve() in [file.resolve() for file in files]:
            chain = " -> ".join(show_path(file) for file in (*files, current))
            raise RecipeError(
                f"extends: a recipe cannot extend itself: {chain}", where=str(document.mark(("extends",)))
            )
    result = layers.pop()
    while layers:
        result = merge(result, layers.pop())
    result.data.pop("extends", None)
    result.marks.pop(("extends",), None)
    for expression in overrides:
        result = apply_override(result, expression)
    return result, tuple(files)


def _base(document: Document, path: Path) -> Path | None:
    """Return the file that a document extends: a path relative to its own file, or a shipped recipe's name."""
    if "extends" not in document.data:
        return None
    wanted, where = document.data["extends"], str(document.mark(("extends",)))
    if not isinstance(wanted, str) or not wanted or "\0" in wanted:
        raise RecipeError("extends: must be the path or the name of one recipe", where=where)
    beside = path.parent / wanted
    for candidate in (beside, beside.with_name(f"{beside.name}.yaml")):
        if candidate.is_file():
            return candidate
    shipped = find_shipped(wanted)
    if shipped is None:
        raise RecipeError(f"extends: {unknown_recipe(wanted)}", where=where)
    return shipped
