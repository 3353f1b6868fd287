"""The recipes that come with gancompress and its plugins, in a source checkout or installed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gancompress.components.plugins import recipe_folders
from gancompress.errors import RecipeError, did_you_mean

__all__ = [
    "ShippedRecipe",
    "find_shipped",
    "locate",
    "shipped_names",
    "shipped_recipes",
    "unknown_recipe",
    "variant_recipes",
]

_SUFFIXES: Final = (".yaml", ".yml")
_INSTALLED: Final = ("share", "gancompress", "recipes")


@dataclasses.dataclass(frozen=True)
class ShippedRecipe:
    """One line of ``gancompress ls``, read without validating the recipe.

    Attributes:
        name: what ``gancompress run`` and ``gancompress cp`` take; a variant's is ``file@variant``.
        path: the file.
        description: its own sentence about itself.
        data: name of the dataset.
        model: name of the backbone.
        method: name of the sparsity method.
        steps: training steps, ``None`` when not a number.
        published: the figures that were published about it, as text; empty without one.
        variants: how many variants it has.
    """

    name: str
    path: Path
    description: str
    data: str
    model: str
    method: str
    steps: int | None
    published: str = ""
    variants: int = 0


def _files() -> dict[str, Path]:
    """Return every shipped recipe by name, those that plugins bring included."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "recipes").is_dir():
        found = list((checkout / "recipes").glob("*"))
    else:
        found = _installed_files()
    files = {path.stem: path for path in sorted(found) if path.suffix in _SUFFIXES}
    for folder in recipe_folders():
        for path in sorted(folder.glob("*")):
            if path.suffix in _SUFFIXES:
                files.setdefault(path.stem, path)  # a plugin cannot change what a shipped name means
    return files


def _installed_files() -> list[Path]:
    """Return the recipes that the installer recorded, wherever it put its data files."""
    from importlib import metadata

    try:
        files = metadata.distribution("gancompress").files or []
    except metadata.PackageNotFoundError:
        return []
    recorded = [file for file in files if file.parts[-4:-1] == _INSTALLED]
    return [Path(str(file.locate())).resolve() for file in recorded]


def shipped_names() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(_files())


def find_shipped(name: str) -> Path | None:
    """Return the file of a shipped recipe named with or without ``.yaml``, ``None`` when there is none."""
    files = _files()
    for suffix in ("", *_SUFFIXES):
        if name.endswith(suffix) and name.removesuffix(suffix) in files:
            return files[name.removesuffix(suffix)]
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
    try:
        if path.is_dir() and (path / "recipe.yaml").is_file():
            return path / "recipe.yaml"
        exists = path.exists()
    except (OSError, ValueError):  # a name too long or with a NUL is no file
        exists = False
    if exists and not path.is_dir():
        return path
    shipped = find_shipped(str(path_or_name))
    if shipped is not None:
        return shipped
    if exists:
        raise RecipeError("is a directory without a recipe.yaml", where=str(path_or_name))
    raise RecipeError(unknown_recipe(str(path_or_name)))


def shipped_recipes() -> list[ShippedRecipe]:
    """Return what ``gancompress ls`` shows; a recipe that cannot be read says so in its description."""
    return [_shown(path, name, path) for name, path in _files().items()]


def variant_recipes(path_or_name: str | Path) -> list[ShippedRecipe]:
    """Return a recipe's variants as ``gancompress ls RECIPE`` shows them.

    Raises:
        RecipeError: there is no such recipe, or it cannot be read.
    """
    from gancompress.recipe.layers import compose

    path, shown = locate(path_or_name), str(path_or_name).removesuffix("/")
    return [_shown(f"{path}@{name}", f"{shown}@{name}", path) for name in compose(path).variants]


def _shown(address: str | Path, name: str, path: Path) -> ShippedRecipe:
    from gancompress.recipe.layers import compose

    data: Mapping[str, Any]
    variants = 0
    try:
        composed = compose(address)
        data, variants = composed.document.data, len(composed.variants)
    except RecipeError as error:
        data = {"description": f"cannot be read: {error}"}
    steps = _at(data, "training", "steps")
    return ShippedRecipe(
        name=name,
        path=path,
        description=str(_at(data, "description") or ""),
        data=str(_at(data, "data", "name") or "?"),
        model=str(_at(data, "model", "name") or "?"),
        method=str(_at(data, "sparsity", "method", "name") or "dense"),
        steps=steps if isinstance(steps, int) else None,
        published=_figures(_at(data, "published")),
        variants=variants,
    )


def _figures(written: Any) -> str:
    """Return published figures as text; one that does not validate is left to whoever loads the recipe."""
    from pydantic import ValidationError

    from gancompress.recipe.published import PublishedFigure

    texts = []
    for item in written if isinstance(written, list) else ():
        with contextlib.suppress(ValidationError):
            figure = PublishedFigure.model_validate(item)
            texts.append(f"{figure.metric} {figure.text}")
    return ", ".join(dict.fromkeys(texts))


def _at(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data
