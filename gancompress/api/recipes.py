"""Recipes as texts: one shown as it will run, a shipped one copied to be edited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gancompress.api.commands import resolve
from gancompress.errors import RecipeError, did_you_mean
from gancompress.recipe.identity import directory_name, resolved_yaml
from gancompress.recipe.load import load_recipe
from gancompress.recipe.shipped import find_shipped, shipped_names
from gancompress.recipe.variants import split_address
from gancompress.storage.atomic import write_file

if TYPE_CHECKING:
    from gancompress.api.commands import Overrides, RecipeLike

__all__ = ["copy_recipe", "show_recipe"]


def show_recipe(recipe: RecipeLike, overrides: Overrides = (), *, smoke: bool = False, defaults: bool = False) -> str:
    """Return a recipe as it will be run, in YAML, under the name of its run directory; as ``gancompress show``.

    Args:
        recipe: a file, a run directory, the name of a shipped recipe, a recipe, or its contents.
        overrides: settings to change.
        smoke: of its smoke run.
        defaults: write the default settings out too.

    Raises:
        RecipeError: every mistake in it.
    """
    found = resolve(recipe, overrides, smoke=smoke).recipe
    return f"# runs/{directory_name(found)}\n{resolved_yaml(found, defaults=defaults)}"


def copy_recipe(name: str, destination: str | Path | None = None, *, force: bool = False) -> Path:
    """Copy a shipped recipe, to edit it; as ``gancompress cp``. Of a variant the copy says in full what it is.

    Args:
        name: of the recipe, or ``NAME@VARIANT``.
        destination: file or directory to copy to; default: here.
        force: overwrite it.

    Returns:
        The copy.

    Raises:
        RecipeError: there is no such recipe or directory, or something else is there already.
    """
    address, variant = split_address(name)
    source = find_shipped(address)
    if source is None:
        raise RecipeError(f"no shipped recipe {address!r}{did_you_mean(address, shipped_names())}")
    if variant:
        recipe = load_recipe(f"{source}@{variant}").recipe
        file_name, text = f"{recipe.name}.yaml", resolved_yaml(recipe, defaults=False)
    else:
        file_name, text = source.name, source.read_text(encoding="utf-8")
    target = Path(file_name if destination is None else destination)
    if target.is_dir():
        target = target / file_name
    if not target.parent.is_dir():
        raise RecipeError(f"there is no directory {target.parent}", where=str(target))
    if not force and target.exists() and target.read_bytes() != text.encode():
        raise RecipeError("already there; choose another name or use --force", where=str(target))
    write_file(target, text)
    return target
