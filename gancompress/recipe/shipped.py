"""Files of recipes by name: those that come with gancompress and its plugins, in a source checkout or installed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gancompress.components.plugins import recipe_folders
from gancompress.errors import RecipeError, did_you_mean
from gancompress.recipe.document import exists

__all__ = ["files", "find_shipped", "locate", "shipped_names", "unknown_recipe"]

_SUFFIXES: Final = (".yaml", ".yml")
_INSTALLED: Final = ("share", "gancompress", "recipes")


def files() -> dict[str, Path]:
    """Return every shipped recipe by name, those that plugins bring included."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "recipes").is_dir():
        found = list((checkout / "recipes").glob("*"))
    else:
        found = _installed_files()
    named = {path.stem: path for path in sorted(found) if path.suffix in _SUFFIXES}
    for folder in recipe_folders():
        for path in sorted(folder.glob("*")):
            if path.suffix in _SUFFIXES:
                named.setdefault(path.stem, path)  # a plugin cannot change what a shipped name means
    return named


def _installed_files() -> list[Path]:
    """Return the recipes that the installer recorded, wherever it put its data files."""
    from importlib import metadata

    try:
        recorded = metadata.distribution("gancompress").files or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())).resolve() for file in recorded if file.parts[-4:-1] == _INSTALLED]


def shipped_names() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(files())


def find_shipped(name: str) -> Path | None:
    """Return the file of a shipped recipe named with or without ``.yaml``, ``None`` when there is none."""
    named = files()
    for suffix in ("", *_SUFFIXES):
        if name.endswith(suffix) and name.removesuffix(suffix) in named:
            return named[name.removesuffix(suffix)]
    return None


def unknown_recipe(name: str) -> str:
    """Return the message for a recipe that is neither a file nor shipped."""
    return f"no recipe {name!r}: not a file, and not a shipped recipe{did_you_mean(Path(name).stem, shipped_names())}"


def locate(path_or_name: str | Path) -> Path:
    """Return the file of a recipe given as a path, a run directory, or the name of a shipped recipe.

    Raises:
        RecipeError: there is none.
    """
    path = Path(path_or_name)
    there = exists(path)
    if there and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if there and not path.is_dir():
        return path
    shipped = find_shipped(str(path_or_name))
    if shipped is not None:
        return shipped
    if there:
        raise RecipeError("is a directory without a recipe.yaml", where=str(path_or_name))
    raise RecipeError(unknown_recipe(str(path_or_name)))
