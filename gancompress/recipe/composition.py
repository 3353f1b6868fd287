"""One recipe out of several documents: what it extends, its own file, its variant, the overrides of the command line.

Mappings merge key by key; lists and everything else replace. A component node whose name changes starts afresh: the
keys of ``dst`` mean nothing to ``static``. Every key keeps the mark of the document that it came from.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, Final

from gancompress.errors import RecipeError
from gancompress.recipe.document import Document, KeyPath, Mark, dotted, parse_value, read_yaml, show_path
from gancompress.recipe.schema import short_form
from gancompress.recipe.shipped import find_shipped, locate, unknown_recipe
from gancompress.recipe.variants import KEY as VARIANTS
from gancompress.recipe.variants import choose_variant, split_address, variants_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "COMPONENT_PATHS",
    "Composed",
    "apply_override",
    "compose",
    "lay",
    "merge",
    "with_short_components",
    "without_densities",
    "without_masks",
]

#: where a recipe names a component whose other keys are the component's own
COMPONENT_PATHS: Final[tuple[KeyPath, ...]] = (
    ("data",),
    ("model",),
    ("objective", "loss"),
    ("sparsity", "method"),
    ("sparsity", "pattern"),
    ("task",),
    ("discriminator",),
)


def with_short_components(document: Document) -> Document:
    """Write ``loss: hinge`` out as ``loss: {name: hinge}``."""
    data, marks = copy.deepcopy(document.data), dict(document.marks)
    variants = data.get(VARIANTS)
    roots: list[KeyPath] = [(), *((VARIANTS, name) for name in (variants if isinstance(variants, dict) else ()))]
    for path, component in [((*root, *component), component) for root in roots for component in COMPONENT_PATHS]:
        node = Document(data, marks).value(path)
        if isinstance(node, str):
            parent = Document(data, marks).value(path[:-1])
            parent[path[-1]] = short_form(component)(node)
            marks.update({(*path, key): marks[path] for key in parent[path[-1]]})
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
    component = path[2:] if path[0] == VARIANTS else path
    return component in COMPONENT_PATHS and "name" in value and value["name"] != below.get("name")


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
    if tuple(steps) in COMPONENT_PATHS and isinstance(value, int | float):
        value = text.strip()  # 0x4 is a block without outputs, not the number 4
    return lay(document, _written(document.data, steps, value, (), source), source)


def _written(below: Any, steps: list[str], value: Any, path: KeyPath, source: str) -> Any:
    """Return what is to be laid over ``below`` so that ``value`` stands at ``steps``; a list is laid over whole."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(below, list):
        if not step.isdecimal() or int(step) >= len(below):
            raise RecipeError(f"{step!r} is not a position in a list of {len(below)}", where=source)
        index, changed = int(step), copy.deepcopy(below)
        item = _written(below[index], rest, value, (*path, index), source)
        changed[index] = {**changed[index], **item} if rest and isinstance(below[index], dict) else item
        return changed
    if below is not None and not isinstance(below, dict):
        raise RecipeError(f"{dotted(path)} is {below!r} and has no key {step!r}", where=source)
    return {step: _written((below or {}).get(step), rest, value, (*path, step), source)}


def without_densities(document: Document) -> Document:
    """Return a recipe that says nothing of how many weights are kept."""
    for key in ("density", "total_density", "generator.density", "discriminator.density"):
        path = ("sparsity", *key.split("."))
        if document.value(path) is not None:
            document = apply_override(document, f"{dotted(path)}=null")
    return document


def without_masks(document: Document) -> Document:
    """Return a recipe that says nothing of how many weights are kept, nor in which units and layers.

    For methods that mask none. Which weights count as prunable stays, since sizes are told of these.
    """
    document = without_densities(document)
    spread = ("allocation", "min_layer_density", "dense")
    for key in ("pattern", *(f"{network}.{one}" for network in ("generator", "discriminator") for one in spread)):
        document = document.without(("sparsity", *key.split(".")))
    return document


def lay(document: Document, top: dict[str, Any], source: str) -> Document:
    """Lay settings that stand in no file over ``document``; messages about them start with ``source``."""
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


#: what a recipe says about its results, which is of its images
_ABOUT_DATA = ("description", "published")


@dataclasses.dataclass(frozen=True)
class Composed:
    """A recipe put together from its documents, not yet checked.

    Attributes:
        document: the recipe, without ``extends`` and ``variants``.
        files: the files it was made of, the recipe's own first.
        row: the recipe up to the document that says what was published about it; ``None`` where nothing was.
        variants: names of the variants that could be chosen.
    """

    document: Document
    files: tuple[Path, ...]
    row: Document | None = None
    variants: tuple[str, ...] = ()


def compose(source: str | Path, overrides: Sequence[str] = ()) -> Composed:
    """Read a recipe and everything it extends, choose its variant, and lay the overrides over it.

    Args:
        source: a file, a run directory or the name of a shipped recipe, ``@`` a variant of it if wanted.
        overrides: ``key.path=value``, later ones win.

    Raises:
        RecipeError: a file is missing or malformed, extends itself, or has no such variant; or an override drops what
            one before it said.
    """
    address, variant = split_address(source)
    composed = _layers(locate(address), variant, ())
    names = tuple(variants_of(composed.document)) if VARIANTS in composed.document.data else ()
    document = _without(composed.document, VARIANTS)
    for index, expression in enumerate(overrides):
        document = apply_override(document, expression)
        _check_kept(document, overrides[:index], expression)
    row = composed.row
    if _other_data(composed.document, document):
        said = {expression.partition("=")[0].strip() for expression in overrides}
        document, row = _without(document, *(key for key in _ABOUT_DATA if key not in said)), None
    return Composed(document, composed.files, row, names)


def _check_kept(document: Document, earlier: Sequence[str], expression: str) -> None:
    """Refuse to choose another component after a setting of it: the setting would be lost without a word."""
    chosen = tuple(expression.partition("=")[0].strip().removesuffix(".name").split("."))
    for setting in earlier:
        path = tuple(setting.partition("=")[0].strip().split("."))
        if len(path) > len(chosen) and path[: len(chosen)] == chosen and document.value(path) is None:
            raise RecipeError(f"drops --set {setting} before it: put it first", where=f"--set {expression}")


def _layers(path: Path, variant: str, above: tuple[Path, ...]) -> Composed:
    """Compose a file with what it extends; its variants stay where none is chosen."""
    document = with_short_components(read_yaml(path))
    files, row = (*above, path), None
    if "extends" in document.data:
        base, base_variant = _base(document, path)
        if base.resolve() in [file.resolve() for file in files]:
            chain = " -> ".join(show_path(file) for file in (*files, base))
            raise RecipeError(
                f"extends: a recipe cannot extend itself: {chain}", where=str(document.mark(("extends",)))
            )
        below = _layers(base, base_variant, files)
        says, own = "published" in document.data, _without(document, "extends")
        document = merge(below.document, own)
        files, row = below.files, None if says else below.row
        if _other_data(below.document, document):
            document, row = merge(_without(document, *_ABOUT_DATA), own), None
    if row is None and "published" in document.data:
        row = _without(document, VARIANTS)
    if variant:
        chosen = choose_variant(document, variant, path.stem)
        # what is published about the file's own row says nothing about this one
        document = merge(_without(document, VARIANTS, "published"), chosen)
        if "name" not in chosen.data:
            document.data["name"] = f"{document.data.get('name', path.stem)}-{variant}"
        row = document if "published" in chosen.data else None
    return Composed(document, files, row)


def _other_data(before: Document, after: Document) -> bool:
    """Whether ``after`` is about other images: another dataset, or another place than the one that was written."""
    then, now = before.data.get("data"), after.data.get("data")
    if not isinstance(then, dict) or not isinstance(now, dict):
        return False
    return then.get("name") != now.get("name") or then.get("path") not in (None, now.get("path"))


def _without(document: Document, *keys: str) -> Document:
    """Return ``document`` without some of its top-level keys."""
    data = {key: value for key, value in document.data.items() if key not in keys}
    return Document(data, {path: mark for path, mark in document.marks.items() if not path or path[0] not in keys})


def _base(document: Document, path: Path) -> tuple[Path, str]:
    """Return the file that a document extends, and its variant: beside the document, or a shipped recipe's name."""
    written, where = document.data["extends"], str(document.mark(("extends",)))
    if not isinstance(written, str) or not written or "\0" in written:
        raise RecipeError("extends: must be the path or the name of one recipe", where=where)
    wanted, variant = split_address(written)
    beside = path.parent / wanted
    for candidate in (beside, beside.with_name(f"{beside.name}.yaml")):
        if candidate.is_file():
            return candidate, variant
    shipped = find_shipped(wanted)
    if shipped is None:
        raise RecipeError(f"extends: {unknown_recipe(wanted)}", where=where)
    return shipped, variant
