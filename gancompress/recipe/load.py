"""Recipes from files, names and mappings: composed, checked to the last key, resolved.

Loading imports the components that the recipe names (and with them torch); importing this module imports none.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from gancompress.components.plugins import PLUGIN_RECORD, to_install
from gancompress.components.registry import EXTRACTORS, METRICS
from gancompress.errors import ComponentError, RecipeError
from gancompress.recipe.changes import changed_settings
from gancompress.recipe.components import (
    COMPONENT_REGISTRIES,
    NarrowedComponent,
    component_config,
    config_type,
    narrow_component,
    narrow_recipe,
)
from gancompress.recipe.document import Document, KeyPath, dotted, dump_yaml, parse_yaml
from gancompress.recipe.layers import apply_override, compose, with_short_components
from gancompress.recipe.mistakes import InvalidRecipeError, Mistake, coerced, mistakes_of
from gancompress.recipe.schema import ObjectiveConfig, Recipe, SparsityConfig
from gancompress.recipe.smoke import shrunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["LoadedRecipe", "check_document", "component_config", "load_recipe", "parse_recipe", "smoke_test"]

#: components that a recipe need not name
_DEFAULTS: Final[Mapping[KeyPath, str]] = {
    ("objective", "loss"): ObjectiveConfig.model_fields["loss"].default.name,
    ("sparsity", "method"): SparsityConfig.model_fields["method"].default.name,
}


@dataclasses.dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and where each of its keys was written.

    Attributes:
        recipe: everything that decides the numbers of a run; its component nodes are checked against their components.
        document: the composed data and its marks.
        files: the files it was made of, the recipe's own first; empty for a recipe from a mapping.
        overrides: the ``key.path=value`` laid over them.
        row: the recipe as its published figures know it; ``None`` where nothing was published.
        variants: names of the variants of its file.
    """

    recipe: Recipe
    document: Document
    files: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    row: Recipe | None = None
    variants: tuple[str, ...] = ()

    def checked(self, document: Document) -> Recipe:
        """Check ``document``, this recipe with other settings, and note what it changes of the published row."""
        return _noting_changes(check_document(document), self.row)

    def where(self, *path: str | int) -> str:
        """Return ``file:line:column`` (or ``--set …``) of a key, or of the nearest level above it that was written."""
        return str(self.document.mark(path))

    def error(self, message: str, *path: str | int) -> RecipeError:
        """Return the error that says ``message`` about the key at ``path``."""
        return RecipeError(f"{dotted(path)}: {message}", where=self.where(*path))


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = (), smoke: bool = False) -> LoadedRecipe:
    """Load a recipe and everything it extends.

    Args:
        path_or_name: a file, a run directory, or the name of a shipped recipe; ``@`` a variant of it if wanted.
        overrides: ``key.path=value``, later ones win.
        smoke: shrink it to a run that ends in seconds on generated images, see :mod:`gancompress.recipe.smoke`.

    Raises:
        RecipeError: with every mistake in it, one per line, each with file, line and column.
    """
    composed = compose(path_or_name, overrides)
    document = composed.document
    try:
        recipe = check_document(document)
    except InvalidRecipeError as error:
        raise _naming_plugins(error, composed.files) from None
    row = check_document(composed.row) if composed.row is not None else None
    recipe = _noting_changes(recipe, row)
    loaded = LoadedRecipe(recipe, document, composed.files, tuple(overrides), row, composed.variants)
    return smoke_test(loaded) if smoke else loaded


def smoke_test(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return ``loaded`` shrunk to a smoke run; one that is a smoke run already stays as it is."""
    if loaded.recipe.smoke:
        return loaded
    document = shrunk(loaded.document, loaded.recipe)
    return dataclasses.replace(loaded, recipe=loaded.checked(document), document=document)


def _naming_plugins(error: InvalidRecipeError, files: tuple[Path, ...]) -> RecipeError:
    """Say of a run that took components from elsewhere where these are to be had, if that is what is wrong."""
    record = files[0].parent / PLUGIN_RECORD
    if not any(mistake.stage == "component" for mistake in error.mistakes) or not record.is_file():
        return error
    try:
        lines = to_install(json.loads(record.read_bytes())["components"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return error
    return RecipeError("\n".join([str(error), *lines]))


def _noting_changes(recipe: Recipe, row: Recipe | None) -> Recipe:
    if row is None:
        return recipe
    changed = changed_settings(row, recipe)
    return recipe if changed == recipe.changed else recipe.model_copy(update={"changed": changed})


def parse_recipe(
    source: str | Mapping[str, Any], overrides: Sequence[str] = (), name: str = "<recipe>"
) -> LoadedRecipe:
    """Load a recipe from YAML text or a mapping of plain values.

    Args:
        source: the YAML, or what it would be read as.
        overrides: ``key.path=value``, later ones win.
        name: what messages call it.

    Raises:
        RecipeError: with every mistake in it, one per line.
    """
    try:
        text = source if isinstance(source, str) else dump_yaml(source)
    except Exception as error:  # yaml raises its own kind for objects that are no plain values
        raise RecipeError(f"holds something that is no plain value: {error}", where=name) from None
    document = with_short_components(parse_yaml(text, name))
    for key, what in (("extends", "extend another"), ("variants", "have variants")):
        if key in document.data:
            raise RecipeError(f"{key}: only a recipe file can {what}", where=str(document.mark((key,))))
    for expression in overrides:
        document = apply_override(document, expression)
    return LoadedRecipe(check_document(document), document, (), tuple(overrides))


def check_document(document: Document) -> Recipe:
    """Check a composed document against the schema and the components that it names.

    Raises:
        InvalidRecipeError: every mistake found.
    """
    mistakes: list[Mistake] = []
    for path, name in _DEFAULTS.items():
        document = _with_default(document, path, name)
    narrowed = [_narrow(document, path, mistakes) for path in COMPONENT_REGISTRIES]
    model = narrow_recipe(*narrowed)
    recipe: Recipe | None = None
    try:
        recipe = model.model_validate(document.data)
    except ValidationError as error:
        mistakes += mistakes_of(error, document, model)
    if recipe is not None:
        mistakes += coerced(document.data, recipe, document)
        mistakes += _unknown_names(recipe, document)
    if mistakes or recipe is None:
        raise InvalidRecipeError(mistakes)
    return recipe


def _with_default(document: Document, path: KeyPath, name: str) -> Document:
    """Name the default component where the recipe names none, so that its other keys can be checked."""
    above, key = str(path[0]), str(path[1])
    parent = document.data.get(above, {})
    if not isinstance(parent, dict):
        return document
    node = parent.get(key, {})
    if not isinstance(node, dict) or "name" in node:
        return document
    filled = {**document.data, above: {**parent, key: {"name": name, **node}}}
    return Document(filled, document.marks)


def _narrow(document: Document, path: KeyPath, mistakes: list[Mistake]) -> type[NarrowedComponent] | None:
    """Return the narrowed model of the node at ``path``; ``None`` leaves a malformed node to the open schema."""
    node = document.value(path)
    name = node.get("name") if isinstance(node, dict) else None
    if not isinstance(name, str):
        return None
    registry = COMPONENT_REGISTRIES[path]
    try:
        return narrow_component(registry.kind, name, config_type(registry, name))
    except ComponentError as error:
        at = (*path, "name")
        mistakes.append(Mistake(document.mark(at), at, error.message, "component"))
        return None


def _unknown_names(recipe: Recipe, document: Document) -> list[Mistake]:
    """Check the names that evaluation imports later, without importing anything now."""
    named: list[tuple[KeyPath, str, Any, tuple[str, ...]]] = [
        (("evaluation", "metrics", index), metric, METRICS, ())
        for index, metric in enumerate(recipe.evaluation.metrics)
    ]
    extractor = recipe.evaluation.extractor.partition(":")[0]
    named.append((("evaluation", "extractor"), extractor, EXTRACTORS, ("auto",)))
    mistakes = []
    for path, name, registry, more in named:
        if name in more:
            continue
        try:
            registry.entry(name, more)
        except ComponentError as error:
            mistakes.append(Mistake(document.mark(path), path, error.message, "component"))
    return mistakes
