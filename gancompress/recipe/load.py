"""Recipes from files, names and mappings: composed, checked to the last key, ready to run.

A recipe takes the same way wherever it comes from: its parts are **composed** into one document
(:mod:`~gancompress.recipe.composition`), the document is **checked** against the schema and the components it names
(:mod:`~gancompress.recipe.components`), compared with the published row it changes
(:mod:`~gancompress.recipe.identity`), and shrunk if it is to be a smoke run (:mod:`~gancompress.recipe.smoke`).

Loading imports the components that the recipe names (and with them torch); importing this module imports none.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

from gancompress.components.plugins import PLUGIN_RECORD, to_install
from gancompress.errors import RecipeError
from gancompress.recipe.components import check_document, component_config
from gancompress.recipe.composition import apply_override, compose, with_short_components
from gancompress.recipe.document import Document, dotted, dump_yaml, parse_yaml
from gancompress.recipe.identity import changed_settings
from gancompress.recipe.mistakes import InvalidRecipeError
from gancompress.recipe.smoke import shrunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gancompress.recipe.schema import Recipe

__all__ = ["LoadedRecipe", "check_document", "component_config", "load_recipe", "parse_recipe", "smoke_test"]


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

    def with_document(self, document: Document) -> LoadedRecipe:
        """Return this recipe with other settings, checked, and noting what it changes of the published row."""
        recipe = check_document(document)
        changed = changed_settings(self.row, recipe) if self.row is not None else recipe.changed
        if changed != recipe.changed:
            recipe = recipe.model_copy(update={"changed": changed})
        return dataclasses.replace(self, recipe=recipe, document=document)

    def with_overrides(self, *expressions: str) -> LoadedRecipe:
        """Return this recipe with ``key.path=value`` laid over it, one after the other."""
        document = self.document
        for expression in expressions:
            document = apply_override(document, expression)
        loaded = self.with_document(document)
        return dataclasses.replace(loaded, overrides=(*self.overrides, *expressions))

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
    try:
        recipe = check_document(composed.document)
    except InvalidRecipeError as error:
        raise _naming_plugins(error, composed.files) from None
    row = check_document(composed.row) if composed.row is not None else None
    loaded = LoadedRecipe(recipe, composed.document, composed.files, tuple(overrides), row, composed.variants)
    loaded = loaded.with_document(composed.document) if row is not None else loaded
    return smoke_test(loaded) if smoke else loaded


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


def smoke_test(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return ``loaded`` shrunk to a smoke run; one that is a smoke run already stays as it is.

    Raises:
        RecipeError: ``--set data.path`` names what is not there, though no smoke run would read it.
    """
    if loaded.recipe.smoke:
        return loaded
    data, asked = component_config(loaded.recipe.data), loaded.document.marks.get(("data", "path"))
    path = getattr(data, "path", None) if asked is not None and asked.source.startswith("--set ") else None
    if path and not getattr(data, "download", False) and not os.path.exists(os.path.expanduser(path)):
        raise loaded.error(f"no {path!r} here; a smoke run draws its own images: leave it out", "data", "path")
    return loaded.with_document(shrunk(loaded.document, loaded.recipe))


def _naming_plugins(error: InvalidRecipeError, files: tuple[Path, ...]) -> RecipeError:
    """Say of a run that took components from elsewhere where these are to be had, if that is what is wrong."""
    record = files[0].parent / PLUGIN_RECORD
    if not any(mistake.stage == "component" for mistake in error.mistakes) or not record.is_file():
        return error
    try:
        lines = to_install(json.loads(record.read_bytes())["components"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return error
    return RecipeError("\n".join([str(error), *lines]))
